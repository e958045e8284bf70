//! What `CORO_PROBES` says at the program's start.
//!
//! Invariant: without it nothing is read, started or attached. What is wrong in it is told once, and the program goes on.

#![forbid(unsafe_code)]

use super::text::plain;
use super::{patch, trace};
use crate::sys::stderr;

/// What there is, for whoever writes something else.
const WORDS: &str = "net, locks, channels, timers, file:PATH and patch:NAME, with commas between them";

/// Does what `CORO_PROBES` says, if it says something: `net,file:/etc/app/probes.toml,patch:slow-queries`.
pub(crate) fn as_the_environment_says() {
    let Some(said) = std::env::var_os("CORO_PROBES") else { return };
    let said = said.to_string_lossy();
    if ["", "0", "off"].contains(&&*said) {
        return;
    }
    for word in said.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if let Err(wrong) = one(word) {
            stderr::write(&(plain(&format!("coro: CORO_PROBES={word}: {wrong}")) + "\n"));
        }
    }
}

fn one(word: &str) -> Result<(), String> {
    if let Some(trace) = trace::of_word(word) {
        return trace::for_ever(trace);
    }
    match word.split_once(':') {
        Some(("file", path)) if !path.is_empty() => file(path),
        Some(("patch", name)) => patch::apply(name, &|| true).map(drop),
        _ => Err(format!("there is nothing of that name; there are {WORDS}")),
    }
}

#[cfg(feature = "specs")]
fn file(path: &str) -> Result<(), String> {
    super::specs::watch_path(path)
}

#[cfg(not(feature = "specs"))]
fn file(_: &str) -> Result<(), String> {
    Err("this program was built without the feature \"specs\" of coro-rt".to_owned())
}
