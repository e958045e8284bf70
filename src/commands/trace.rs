//! `trace`: the calls of sockets, locks, channels and timers, as they begin and return.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::text::{at_once, clean};
use super::{Asked, Begun, Tier, question};
use crate::probe::{self, Trace, view};

/// What a trace gets where nothing else is said: nobody stays for ever by mistake.
const USUAL: Duration = Duration::from_secs(600);

/// How many bytes are shown where only `bytes` is said.
const BYTES: usize = 32;

const USAGE: &str = "trace net [peer=ADDRESS] [fd=N] [bytes[=N]] | locks [name=PATTERN] [waits] | channels [name=PATTERN] [waits] | timers, \
                     each with [task=ID] [stack] [for DURATION] | off [all]";

/// Even ending one changes what others see.
pub(super) fn tier(words: &[&str]) -> Tier {
    if words.is_empty() { Tier::Read } else { Tier::Probe }
}

pub(super) fn trace(asked: &Asked<'_>) -> Begun {
    let said = match asked.words {
        [] => Err(format!("trace wants one of: {USAGE}")),
        ["off"] => Ok(view::trace_off(asked.by.probes)),
        ["off", "all"] => Ok(view::trace_off(None)),
        ["off", other, ..] => Err(format!("trace off knows no \"{other}\", only all")),
        [word, filters @ ..] => match probe::of_word(word) {
            Some(trace) => {
                view::trace(filtered(trace, word, filters)?, asked.by.probes.map(|probes| probes.home()).as_ref())
            }
            None => Err(format!("trace knows no \"{word}\"; there is {USAGE}")),
        },
    };
    said.map(|said| at_once(clean(&said, 2000) + "\n"))
}

/// `peer=10.0.0.7 bytes=64 for 10s`. Filters that do not go with what is traced are refused when it starts.
fn filtered(mut trace: Trace, what: &str, words: &[&str]) -> Result<Trace, String> {
    let mut lifespan = USUAL;
    let words = question::joined(words)?;
    let mut words = words.iter().map(|word| &**word);
    while let Some(word) = words.next() {
        trace = match word.split_once('=').unwrap_or((word, "")) {
            ("peer", peer) if !peer.is_empty() => trace.peer(peer),
            ("name", name) if !name.is_empty() => trace.named(question::unquoted(name)),
            ("task", id) => match question::id(id) {
                Some(id) => trace.task(id),
                None => return Err(format!("\"{id}\" is not a task's id: write task=17; tasks shows the ids")),
            },
            ("fd", fd) => match fd.parse() {
                Ok(fd) => trace.fd(fd),
                Err(_) => return Err(format!("\"{fd}\" is not a descriptor: write fd=9; fds --all shows them")),
            },
            ("bytes", "") => trace.bytes(BYTES),
            ("bytes", most) => match most.parse() {
                Ok(most) => trace.bytes(most),
                Err(_) => return Err(format!("bytes wants a whole number, and \"{most}\" is none")),
            },
            ("waits", "") => trace.waits(),
            ("stack", "") => trace.stack(),
            ("for", "") => {
                let value = words.next().ok_or("for wants a duration: for 10s")?;
                lifespan = question::duration(value)?;
                trace
            }
            _ => return Err(format!("trace {what} knows no \"{word}\"; there is {USAGE}")),
        };
    }
    Ok(trace.lifespan(lifespan))
}
