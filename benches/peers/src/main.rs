//! coro beside tokio, may, smol, Go, glommio, monoio, in HTTP hyper and may_minihttp, and no runtime: the same work, in interleaved rounds. README.md says how to run it and what the figures are.
//!
//! One program for everything: it runs the rounds, is itself the program of those in Rust (`work`) and the load on echo
//! servers (`load`), and makes table and drawing out of the results. Linux only: the machine is watched through `/proc`.

#[cfg(not(target_os = "linux"))]
compile_error!("the comparison reads /proc and pins processes to CPUs as Linux does");

// The same code measures on both sides.
#[path = "../../peer-coro/src/args.rs"]
mod args;
#[path = "../../peer-coro/src/http.rs"]
mod http;
#[path = "../../peer-coro/src/measure.rs"]
mod measure;

mod counters;
mod load;
mod report;
mod results;
mod run;
mod stats;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use report::{plot, table};
use results::Results;
use run::cases::workloads;
use run::programs::package;
use run::runtimes::RUNTIMES;
use run::{Order, Rounds};

const USAGE: &str = "\
usage: peers [OPTION]... WORKLOAD...    runs; WORKLOAD is all, yield, spawn, pingpong, fanin, mutex, timers, memory, echo or http
       peers table FILE...              results as a table in Markdown
       peers plot FILE... [--out SVG]   results as a drawing (peers.svg)
       peers docs FILE...               both, in docs/performance.md

  --rounds N[,WORKLOAD=N]...
                  how often each runtime runs each case (5,echo=15,http=15)
  --only REGEX    of the cases (yield.2, pingpong.bounded, echo.100, ...) only these
  --peers LIST    bare,tokio,may,smol,go,glommio,monoio,hyper,minihttp (all); coro always runs
  --out FILE      the results, one JSON object a line (peers-DATE.jsonl)
  --docs          then does what `peers docs` does
  --cpus A,B      A for what has one worker, B for the load on it
  --coro PATH     a program instead of building benches/peer-coro
  --quick         short runs, to see that everything works";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let done = match words.peek().map(String::as_str) {
        Some("work") => return work::main(words.skip(1)),
        Some("load") => return load::main(words.skip(1)),
        Some("table") => read(words.skip(1), None).map(|(results, _)| print!("{}", table::markdown(&results))),
        Some("plot") => make_plot(words.skip(1)),
        Some("docs") => read(words.skip(1), None).and_then(|(results, _)| make_docs(&results)),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => compare(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("peers: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The value behind an option.
fn value<T: std::str::FromStr>(option: &str, words: &mut impl Iterator<Item = String>) -> Result<T, String> {
    let text = words.next().ok_or_else(|| format!("{option} wants a value"))?;
    text.parse().map_err(|_| format!("{option} {text} is not understood"))
}

fn order(mut words: impl Iterator<Item = String>) -> Result<(Order, bool), String> {
    let mut order = Order {
        rounds: Rounds::default(),
        only: None,
        peers: RUNTIMES.iter().map(|runtime| runtime.name).collect(),
        workloads: Vec::new(),
        out: None,
        coro: None,
        cpus: None,
        quick: false,
    };
    let mut docs = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => order.rounds = value(&word, &mut words)?,
            "--only" => order.only = Some(value(&word, &mut words)?),
            "--peers" => order.peers = run::choose(&value::<String>(&word, &mut words)?)?,
            "--out" => order.out = Some(value(&word, &mut words)?),
            "--coro" => order.coro = Some(value(&word, &mut words)?),
            "--cpus" => {
                let text: String = value(&word, &mut words)?;
                let both = text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                order.cpus = Some(both.ok_or_else(|| format!("--cpus {text} is not two numbers with a comma"))?);
            }
            "--quick" => order.quick = true,
            "--docs" => docs = true,
            name if name == "all" || workloads().contains(&name) => order.workloads.push(word),
            _ => {
                return Err(format!("{word:?} is neither an option nor a workload\n{USAGE}"));
            }
        }
    }
    if order.workloads.is_empty() {
        return Err(format!("which workload?\n{USAGE}"));
    }
    Ok((order, docs))
}

fn compare(words: impl Iterator<Item = String>) -> Result<(), String> {
    let (order, docs) = order(words)?;
    if docs && order.quick {
        return Err("--quick gives no figures for --docs".to_owned());
    }
    let (_, results) = run::run(&order)?;
    if docs { make_docs(&results) } else { Ok(()) }
}

/// The results of some files, and the value of the option that may stand among them.
fn read(mut words: impl Iterator<Item = String>, option: Option<&str>) -> Result<(Results, Option<PathBuf>), String> {
    let (mut files, mut place) = (Vec::<PathBuf>::new(), None);
    while let Some(word) = words.next() {
        if Some(word.as_str()) == option {
            place = Some(value(&word, &mut words)?);
        } else if word.starts_with('-') {
            return Err(format!("there is no option {word}\n{USAGE}"));
        } else {
            files.push(word.into());
        }
    }
    if files.is_empty() {
        return Err(format!("which results?\n{USAGE}"));
    }
    Ok((Results::read(&files)?, place))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

fn drawing(results: &Results) -> Result<String, String> {
    plot::svg(results).ok_or_else(|| "nothing that could be compared".to_owned())
}

fn make_plot(words: impl Iterator<Item = String>) -> Result<(), String> {
    let (results, place) = read(words, Some("--out"))?;
    write(&place.unwrap_or_else(|| "peers.svg".into()), &drawing(&results)?)
}

/// The table and the drawing of the page about performance.
fn make_docs(results: &Results) -> Result<(), String> {
    let folder = package().join("../../docs");
    let page = folder.join("performance.md");
    let name = page.display();
    let drawing = drawing(results)?;
    let old = std::fs::read_to_string(&page).map_err(|e| format!("{name}: {e}"))?;
    let new = format!("![What each takes, in relation to others](performance.svg)\n\n{}", table::markdown(results));
    let new = table::put_into(&old, &new).map_err(|e| format!("{name}: {e}"))?;
    write(&folder.join("performance.svg"), &drawing)?;
    write(&page, &new)
}
