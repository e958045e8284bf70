//! Writes a package with one test crate per file of std's tests, and builds it.
//!
//! Everything goes below `target/conformance/`. A file that does not compile fails alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::suite::{FILES, File, Home, MIRRORED_FEATURES};
use crate::{examples, rewrite};

/// What the tests are run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `coro`.
    Coro,
    /// std itself: shows which tests fail on this machine whoever is tested, and that the runner does no harm.
    Baseline,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Coro => "coro",
            Target::Baseline => "baseline",
        }
    }

    fn port(self) -> &'static str {
        match self {
            Target::Coro => include_str!("../guest/port_coro.rs"),
            Target::Baseline => include_str!("../guest/port_std.rs"),
        }
    }
}

/// Places that the generator reads and writes.
#[derive(Debug, Clone)]
pub struct Places {
    /// `library/` of the installed `rust-src`.
    pub library: PathBuf,
    /// The root of the repository.
    pub repository: PathBuf,
    /// `target/conformance/`.
    pub out: PathBuf,
}

/// What became of one file.
#[derive(Debug)]
pub enum Built {
    /// Its test program.
    Program(PathBuf),
    /// It could not be read, rewritten or compiled; why.
    Failed(String),
    /// Nobody wanted it.
    NotAsked,
}

/// Generates the package and builds what is `wanted` of it. The result has one entry for each of `FILES`, in their order.
///
/// # Errors
/// If files cannot be written or cargo cannot be started.
pub fn build(places: &Places, target: Target, wanted: &dyn Fn(&File) -> bool) -> io::Result<Vec<Built>> {
    let package = places.out.join(target.name());
    fs::create_dir_all(&package)?;
    write(&package.join("Cargo.toml"), &manifest(places, target))?;
    write(&package.join("port.rs"), target.port())?;
    write(&package.join("helpers.rs"), include_str!("../guest/helpers.rs"))?;
    write(&package.join("runner.rs"), include_str!("../guest/runner.rs"))?;
    // The same versions as the repository's, which are there already; cargo drops what is not needed.
    fs::copy(places.repository.join("Cargo.lock"), package.join("Cargo.lock"))?;

    let mut failures = BTreeMap::new();
    for file in FILES {
        let dir = package.join(file.name());
        fs::create_dir_all(dir.join("home"))?;
        match sources(places, file) {
            Ok((main, tests)) => {
                write(&dir.join("main.rs"), &main)?;
                write(&dir.join("home/tests.rs"), &tests)?;
            }
            Err(why) => {
                // A crate that says so: the others are built all the same.
                write(&dir.join("main.rs"), &format!("compile_error!({why:?});"))?;
                failures.insert(file.name(), why);
            }
        }
    }

    let programs = compile(places, &package, wanted)?;
    Ok(FILES
        .iter()
        .map(|file| {
            let name = file.name();
            if !wanted(file) {
                return Built::NotAsked;
            }
            match (failures.remove(&name), programs.get(&name)) {
                (Some(why), _) => Built::Failed(why),
                (None, Some(program)) => Built::Program(program.clone()),
                (None, None) => Built::Failed(format!("does not compile; see {}", log(&package).display())),
            }
        })
        .collect())
}

/// What the compiler said of the last build.
fn log(package: &Path) -> PathBuf {
    package.join("build.log")
}

fn manifest(places: &Places, target: Target) -> String {
    let mut text = String::from(
        "[package]\nname = \"generated\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\nautotests = false\n\n\
         [workspace]\n\n[profile.dev]\ndebug = false\nincremental = false\n\n\
         [dependencies]\nlibc = \"0.2\"\n",
    );
    if target == Target::Coro {
        let _ = writeln!(text, "coro-rt = {{ path = {:?}, default-features = false }}", places.repository);
    }
    for file in FILES {
        let name = file.name();
        let _ = write!(text, "\n[[test]]\nname = \"{name}\"\npath = \"{name}/main.rs\"\n");
    }
    text
}

/// The root of the generated crate, and the rewritten tests.
fn sources(places: &Places, file: &File) -> Result<(String, String), String> {
    let read = |path: &str| {
        fs::read_to_string(places.library.join(path)).map_err(|e| format!("{path} cannot be read from rust-src: {e}"))
    };
    let mut text = read(file.path)?;
    for (from, to) in file.mends {
        if !text.contains(from) {
            return Err(format!("{} does not contain {from:?} any more; look at its mends in suite.rs", file.path));
        }
        text = text.replace(from, to);
    }
    if file.home == Home::Examples {
        text = examples::tests_of(&text, MIRRORED_FEATURES);
    }
    let tests = rewrite::test_file(&text);
    let root = match file.home {
        Home::Crate(path) => rewrite::crate_root(&read(path)?),
        Home::Module(_) | Home::Alone | Home::Examples => rewrite::Rewritten::default(),
    };

    let mut features: Vec<&str> = vec!["custom_test_frameworks", "test"];
    for name in root.features.iter().chain(&tests.features).map(String::as_str).chain(file.features.iter().copied()) {
        if !features.contains(&name) {
            features.push(name);
        }
    }
    let mut main = format!(
        "#![feature({})]\n#![test_runner(crate::runner::run)]\n#![allow(warnings)]\n\nextern crate test;\n\n\
         #[path = \"../helpers.rs\"]\nmod helpers;\n#[path = \"../port.rs\"]\nmod port;\n\
         #[path = \"../runner.rs\"]\nmod runner;\n\n{}\n",
        features.join(", "),
        root.text
    );
    main.push_str(&match file.home {
        Home::Module(module) => format!("mod home {{\n    use crate::port::{module}::*;\n    mod tests;\n}}\n"),
        Home::Crate(_) | Home::Alone | Home::Examples => "#[path = \"home/tests.rs\"]\nmod tests;\n".to_owned(),
    });
    Ok((main, tests.text))
}

/// Keeps the time stamp of a file that stays the same, so that cargo does not build it again.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) { Ok(()) } else { fs::write(path, text) }
}

/// Builds all wanted test crates that can be built; their programs by name.
fn compile(places: &Places, package: &Path, wanted: &dyn Fn(&File) -> bool) -> io::Result<BTreeMap<String, PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--keep-going", "--message-format=json-render-diagnostics"])
        .args(FILES.iter().filter(|f| wanted(f)).flat_map(|f| ["--test".to_owned(), f.name()]))
        .arg("--manifest-path")
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(places.out.join("build"))
        // std's tests use unstable features; this lets a stable compiler accept them.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("CARGO_BUILD_TARGET")
        .stdin(Stdio::null())
        .output()?;
    fs::write(log(package), &output.stderr)?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(program).collect())
}

/// Name and path of the program that a line of cargo's messages tells of.
fn program(line: &str) -> Option<(String, PathBuf)> {
    let path = text_after(line, "\"executable\":\"")?;
    let target = &line[line.find("\"target\":{")?..];
    Some((text_after(target, "\"name\":\"")?, PathBuf::from(path)))
}

/// The JSON string whose opening quote ends `key`. Names and paths have no escapes but of a backslash or a quote.
fn text_after(line: &str, key: &str) -> Option<String> {
    let mut chars = line[line.find(key)? + key.len()..].chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => out.push(chars.next()?),
            c => out.push(c),
        }
    }
}

/// The tail of what the compiler said, for the report.
pub fn compiler_errors(places: &Places, target: Target, most_lines: usize) -> String {
    let text = fs::read_to_string(log(&places.out.join(target.name()))).unwrap_or_default();
    let errors: Vec<&str> = text
        .split("\n\n")
        .filter(|block| block.trim_start().starts_with("error"))
        .flat_map(|block| block.lines().chain([""]))
        .collect();
    errors[..errors.len().min(most_lines)].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path#0","target":{"kind":["test"],"name":"net_tcp","src_path":"/x"},"executable":"/a \"b\"/net_tcp-1f"}"#;
        assert_eq!(program(line), Some(("net_tcp".to_owned(), PathBuf::from("/a \"b\"/net_tcp-1f"))));
        assert_eq!(program(r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
