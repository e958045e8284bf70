//! What is measured, in a process of its own: `child WORKERS WHAT [ARGUMENT]...` prints lines `metric value`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use coro::Runtime;

use crate::fair::{self, LOADS, SELFISH};
use crate::{echo, memory, tasks};

fn number<T: std::str::FromStr>(words: &[String], place: usize) -> Option<T> {
    words.get(place)?.parse().ok()
}

fn milliseconds(words: &[String], place: usize) -> Option<Duration> {
    number(words, place).map(Duration::from_millis)
}

fn known(names: &[(&'static str, &str)], words: &[String]) -> Option<&'static str> {
    let name = words.first()?;
    names.iter().map(|(known, _)| *known).find(|known| known == name)
}

/// `None`: the words were not understood.
fn run(runtime: &Runtime, what: &str, words: &[String]) -> Option<io::Result<()>> {
    match what {
        "tasks" => tasks::run(runtime, number(words, 0)?),
        "memory" => memory::run(runtime, number(words, 0)?),
        "fairness" => fair::fairness(runtime, known(&SELFISH, words)?, milliseconds(words, 1)?),
        "lateness" => fair::lateness(runtime, known(&LOADS, words)?, milliseconds(words, 1)?),
        "serve" => return Some(echo::serve(runtime)),
        "load" => {
            let (port, connections, pid) = (number(words, 0)?, number(words, 1)?, number(words, 2)?);
            return Some(echo::load(runtime, port, connections, pid, milliseconds(words, 3)?));
        }
        _ => return None,
    }
    Some(Ok(()))
}

pub(crate) fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = words.collect();
    let (Some(workers), Some(what)) = (number(&words, 0), words.get(1)) else { return ExitCode::from(2) };
    let runtime = match Runtime::builder().workers(workers).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&runtime, what, &words[2..]) {
        // What is left is not torn down: that is no part of any measurement.
        Some(Ok(())) => std::process::exit(0),
        Some(Err(error)) => eprintln!("{error}"),
        None => eprintln!("not understood: {}", words.join(" ")),
    }
    ExitCode::FAILURE
}
