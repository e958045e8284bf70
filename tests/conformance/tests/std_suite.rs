//! std's own tests against coro: builds them, runs them, prints the table, and fails if anything is not as it must be.
//!
//! Arguments that begin with no dash choose tests: those whose `file :: test` contains one of them. `--baseline` runs
//! them against std itself. `CORO_CONFORMANCE=skip` leaves the whole run out.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use coro_conformance::exclusions::{self, Exclusion};
use coro_conformance::generate::{self, Built, Places, Target};
use coro_conformance::report::{self, FileResult};
use coro_conformance::run::{self, Test};
use coro_conformance::suite::{FILES, File};

const MODES: &[&str] = &["plain", "task1", "task4"];
const BASELINE_MODES: &[&str] = &["std"];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|a| a == "--list") {
        // Whoever lists tests expects libtest's; there are none.
        return ExitCode::SUCCESS;
    }
    if env::var("CORO_CONFORMANCE").is_ok_and(|v| v == "skip") {
        println!("conformance: SKIPPED: CORO_CONFORMANCE=skip");
        return ExitCode::SUCCESS;
    }
    match conform(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            println!("conformance: FAILED: {e}");
            ExitCode::FAILURE
        }
    }
}

fn conform(args: &[String]) -> Result<bool, Box<dyn Error>> {
    let began = Instant::now();
    let Some(library) = library()? else {
        println!("conformance: SKIPPED: rust-src is not installed; rustup component add rust-src");
        return Ok(true);
    };
    let filters: Vec<&str> = args.iter().filter(|a| !a.starts_with('-')).map(String::as_str).collect();
    // std is not excused from anything.
    let (target, modes, exclusions) = if args.iter().any(|a| a == "--baseline") {
        (Target::Baseline, BASELINE_MODES, Vec::new())
    } else {
        (Target::Coro, MODES, exclusions::parse(include_str!("../exclusions.txt"))?)
    };
    // Only a whole run can tell how many they are, and who asks for a test wants to see it.
    let exclusions: Vec<Exclusion> = if filters.is_empty() { exclusions } else { Vec::new() };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?.join("conformance");
    let places = Places { library, repository, out };

    // Words that name files spare the building of the others; a word that names a test may be of any.
    let of_files = filters.iter().all(|word| FILES.iter().any(|f| f.path.contains(word)));
    let wanted = |f: &File| filters.is_empty() || !of_files || filters.iter().any(|word| f.path.contains(word));
    let programs = generate::build(&places, target, &wanted)?;
    let built_after = began.elapsed();
    let mut files: Vec<(usize, FileResult)> = Vec::new();
    let mut tests = Vec::new();
    for (i, (file, built)) in FILES.iter().zip(&programs).enumerate() {
        let mut result = FileResult::default();
        let chosen = |test: &String| {
            let name = format!("{} :: {test}", file.path);
            filters.is_empty() || filters.iter().any(|word| name.contains(word))
        };
        match built {
            Built::NotAsked => continue,
            Built::Failed(why) => result.failure = Some(why.clone()),
            Built::Program(program) => {
                let (names, ignored) = run::list(program)?;
                result.ignored = ignored.len();
                let before = tests.len();
                tests.extend(names.into_iter().filter(chosen).map(|name| {
                    let excluded = exclusions.iter().any(|e| e.file == file.path && e.test == name);
                    Test { file: i, name, program, sockets: file.sockets, excluded }
                }));
                if tests.len() == before && !filters.is_empty() {
                    continue;
                }
            }
        }
        files.push((i, result));
    }

    println!("conformance: the tests of {} against {target:?}", version()?);
    if let Some(program) = programs.iter().find_map(|b| if let Built::Program(p) = b { Some(p) } else { None }) {
        println!(
            "a process per test and mode, at most {} s; network: {}",
            run::LIMIT.as_secs(),
            run::network(program)?
        );
    }
    let outcomes = run::all(&tests, modes, &places.out)?;
    for (test, outcomes) in tests.iter().zip(outcomes) {
        if let Some((_, result)) = files.iter_mut().find(|(i, _)| *i == test.file) {
            result.tests.push((test.name.clone(), outcomes));
        }
    }

    let report = report::judge(&files, modes, &exclusions);
    println!("{}", report.text.trim_end());
    if files.iter().any(|(_, result)| result.failure.is_some()) {
        println!("\n{}", generate::compiler_errors(&places, target, 400));
    }
    println!("built in {} s, all in {} s", built_after.as_secs(), began.elapsed().as_secs());
    for fault in &report.faults {
        println!("fault: {fault}");
    }
    println!("conformance: {}", if report.faults.is_empty() { "ok" } else { "FAILED" });
    Ok(report.faults.is_empty())
}

/// `library/` of the compiler in use, if its source is installed.
fn library() -> Result<Option<PathBuf>, Box<dyn Error>> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust/library");
    Ok(library.join("std/src/lib.rs").is_file().then_some(library))
}

fn version() -> Result<String, Box<dyn Error>> {
    rustc(&["--version"])
}

fn rustc(args: &[&str]) -> Result<String, Box<dyn Error>> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(args).output()?;
    if !output.status.success() {
        return Err(format!("rustc {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
