//! Every command of this crate with every tier: nothing that changes anything is done for a session that may only look.

use super::super::rights::Rights;
use super::super::table::{self, Outcome};
use super::*;
use crate::commands::TABLE;

/// What a session has to be allowed for each command, and for each of its forms that need more than others.
const NEEDED: &[(&str, Tier)] = &[
    ("status", Tier::Read),
    ("where_all", Tier::Read),
    ("stacks", Tier::Read),
    ("where 17", Tier::Read),
    ("tasks state=parked", Tier::Read),
    ("count by class", Tier::Read),
    ("label 17", Tier::Read),
    ("top 1", Tier::Read),
    ("tree", Tier::Read),
    ("deadlocks", Tier::Read),
    ("objects", Tier::Read),
    ("fds", Tier::Read),
    ("peers", Tier::Read),
    ("events", Tier::Read),
    ("panics", Tier::Read),
    ("stalls", Tier::Read),
    ("workers", Tier::Read),
    ("classes", Tier::Read),
    ("histogram", Tier::Read),
    ("latency", Tier::Read),
    ("latency set 50ms", Tier::Probe),
    ("latency set", Tier::Probe),
    ("threads", Tier::Read),
    ("blocking", Tier::Read),
    ("version", Tier::Read),
    ("uptime", Tier::Read),
    ("modules", Tier::Read),
    ("memory", Tier::Read),
    ("memory trim", Tier::Act),
    ("functions", Tier::Read),
    ("sessions", Tier::Read),
    ("snapshot", Tier::Read),
    ("set", Tier::Read),
    ("set latency 50ms", Tier::Probe),
    ("set selfishness 32", Tier::Act),
    ("set blocking-threads 512", Tier::Act),
    ("set nonsense 1", Tier::Act),
    #[cfg(feature = "probe")]
    ("probe", Tier::Read),
    #[cfg(feature = "probe")]
    ("probe list x", Tier::Read),
    #[cfg(feature = "probe")]
    ("probe show 1", Tier::Read),
    #[cfg(feature = "probe")]
    ("probe attach x count", Tier::Probe),
    #[cfg(feature = "probe")]
    ("probe apply x", Tier::Probe),
    #[cfg(feature = "probe")]
    ("probe apply patch:x", Tier::Probe),
    #[cfg(feature = "probe")]
    ("probe detach all", Tier::Probe),
    #[cfg(feature = "probe")]
    ("probe release 1 failing x", Tier::Act),
    #[cfg(feature = "probe")]
    ("probe nonsense", Tier::Probe),
    #[cfg(feature = "probe")]
    ("trace", Tier::Read),
    #[cfg(feature = "probe")]
    ("trace net fd=9", Tier::Probe),
    #[cfg(feature = "probe")]
    ("trace off", Tier::Probe),
    #[cfg(feature = "probe")]
    ("trace nonsense", Tier::Probe),
    ("cancel 17", Tier::Act),
    ("cancel", Tier::Act),
    ("cancel --match x --count 1", Tier::Act),
    ("process-exit 0 1", Tier::Act),
];

static SERVED_HERE: Commands = Commands { table: TABLE, ..FAKE };

/// The same command in other words: no spelling may need less.
fn spellings(line: &str) -> Vec<String> {
    let mut all = vec![line.to_owned(), format!("coro.{line}"), format!("  {line}\t")];
    if let Some((name, words)) = line.split_once(' ') {
        all.push(format!("{name}({})", words.replace(' ', ", ")));
        for flag in ["--json", "--colour", "--color"] {
            all.push(format!("{name} {flag} {words}"));
            all.push(format!("{name} {words} {flag}"));
            all.push(format!("coro::{name}({}, {flag})", words.replace(' ', ",")));
        }
    }
    all
}

#[test]
fn nothing_is_done_below_its_tier() {
    // What is enabled here is recorded; no other test is to find that.
    let _turn = super::console::HANDLER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for tier in [Tier::Read, Tier::Probe] {
        let mut rights = Rights::new(tier, "session 0 (matrix)".into());
        if tier > Tier::Read {
            rights.set(tier).expect("up to the ceiling");
        }
        for (line, needed) in NEEDED.iter().filter(|(_, needed)| tier < *needed) {
            let name = line.split(' ').next().expect("a name");
            for (spelling, json) in spellings(line).iter().flat_map(|spelling| [(spelling, false), (spelling, true)]) {
                let (said, outcome) =
                    table::run(spelling.as_bytes(), &SERVED_HERE, &mut rights, json, Default::default())
                        .expect("a command");
                let Outcome::Complain(text) = outcome else { panic!("{spelling} was begun with {tier}") };
                let expected = format!("{name} needs the tier {needed}, and here {tier} is the highest\n");
                assert_eq!((said, text), (name, expected), "{spelling}");
            }
        }
    }
}

#[test]
fn every_command_stands_in_the_matrix_with_the_tier_that_it_says() {
    let mut named: Vec<&str> = NEEDED.iter().filter_map(|(line, _)| line.split(' ').next()).collect();
    named.dedup();
    let table: Vec<&str> = TABLE.iter().map(|command| command.names[0]).collect();
    assert_eq!(named, table, "a command is missing in the matrix, or stands elsewhere in the table");
    for (line, needed) in NEEDED {
        let words: Vec<&str> = line.split(' ').collect();
        let command = TABLE.iter().find(|command| command.names[0] == words[0]).expect("in the table");
        assert_eq!(command.tier_for(&words[1..]), *needed, "{line}");
    }
    // Only looking must need no more, or nobody could look.
    for command in TABLE.iter().filter(|command| !matches!(command.names[0], "cancel" | "process-exit")) {
        assert_eq!(command.tier_for(&[]), Tier::Read, "{}", command.names[0]);
    }
}
