//! How coro scales: the cost of each operation with a hundred to a million tasks and with one to ten thousand connections, by one and
//! more workers; what is left after a burst; whom a selfish task disturbs; how late timers are on full workers.
//!
//! One program for everything: it runs the rounds, is itself what is measured (`child`), and makes table and drawing out of the
//! results. Linux only: processes are pinned to CPUs, and the machine is watched through `/proc`.

#[cfg(not(target_os = "linux"))]
compile_error!("the measurement reads /proc and pins processes to CPUs as Linux does");

// The same code measures here and in the comparison with other runtimes.
#[path = "../../peers/src/run/machine.rs"]
mod machine;
#[allow(dead_code, reason = "the comparison uses more of it")]
#[path = "../../peer-coro/src/measure.rs"]
mod measure;

mod cases;
mod child;
mod echo;
mod fair;
mod memory;
mod plot;
mod results;
mod run;
mod system;
mod table;
mod tasks;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cases::Part;
use results::Results;
use run::Order;

const USAGE: &str = "\
usage: scale [OPTION]... PART...   runs; PART is all, tasks, echo, memory, fairness or lateness
       scale table FILE...         results as tables in Markdown
       scale docs FILE...          tables and drawing, in docs/performance.md

  --rounds N    how often each case runs (5); memory, and more workers than CPUs, once
  --least N     no case with fewer tasks or connections, for a run in pieces
  --most N      no case with more
  --out FILE    the results, one JSON object a line (scale-DATE.jsonl)
  --docs        then does what `scale docs` does
  --quick       short runs with few tasks, to see that everything works";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let done = match words.peek().map(String::as_str) {
        Some("child") => return child::main(words.skip(1)),
        Some("table") => read(words.skip(1)).map(|results| print!("{}", table::markdown(&results))),
        Some("docs") => read(words.skip(1)).and_then(|results| make_docs(&results)),
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => measure(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("scale: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The value behind an option.
fn value<T: std::str::FromStr>(option: &str, words: &mut impl Iterator<Item = String>) -> Result<T, String> {
    let text = words.next().ok_or_else(|| format!("{option} wants a value"))?;
    text.parse().map_err(|_| format!("{option} {text} is not understood"))
}

fn measure(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let mut order = Order { rounds: 5, least: 0, most: usize::MAX, parts: Vec::new(), out: None, quick: false };
    let mut docs = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => order.rounds = value::<usize>(&word, &mut words)?.max(1),
            "--least" => order.least = value(&word, &mut words)?,
            "--most" => order.most = value(&word, &mut words)?,
            "--out" => order.out = Some(value(&word, &mut words)?),
            "--quick" => order.quick = true,
            "--docs" => docs = true,
            "all" => order.parts.extend(Part::ALL),
            name => match Part::ALL.into_iter().find(|part| part.name() == name) {
                Some(part) => order.parts.push(part),
                None => return Err(format!("{word:?} is neither an option nor a part\n{USAGE}")),
            },
        }
    }
    if order.parts.is_empty() {
        return Err(format!("which part?\n{USAGE}"));
    }
    if docs && order.quick {
        return Err("--quick gives no figures for --docs".to_owned());
    }
    let results = run::run(&order)?;
    if docs { make_docs(&results) } else { Ok(()) }
}

fn read(words: impl Iterator<Item = String>) -> Result<Results, String> {
    let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
    if files.is_empty() {
        return Err(format!("which results?\n{USAGE}"));
    }
    Results::read(&files)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// The tables and the drawing of the page about performance.
fn make_docs(results: &Results) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let page = folder.join("performance.md");
    let name = page.display();
    let drawing = plot::svg(results).ok_or("there is no curve in these results")?;
    let old = std::fs::read_to_string(&page).map_err(|e| format!("{name}: {e}"))?;
    let new =
        format!("![What an operation costs with few and with many tasks](scale.svg)\n\n{}", table::markdown(results));
    let new = table::put_into(&old, &new).map_err(|e| format!("{name}: {e}"))?;
    write(&folder.join("scale.svg"), &drawing)?;
    write(&page, &new)
}
