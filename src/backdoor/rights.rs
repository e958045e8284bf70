//! What a session may do, and the record of what it did.
//!
//! Invariants: a session that somebody connected begins with [`Tier::Read`] and gets more only by asking for it, never above its server's ceiling;
//! what needs more than reading is recorded before it is done, and is not done if it cannot be recorded.
//!
//! Must not know: sockets, what a command does.

#![forbid(unsafe_code)]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::commands::Tier;
use crate::report::{self, Delivery, Report};
use crate::sys::dump_signal;

/// How long a full standard error may hold up the record, and with it the console.
const PATIENCE: Duration = Duration::from_millis(500);

/// After that nobody waits for it for a while: else who asks again and again would hold up the sessions of all others.
const REST: Duration = Duration::from_secs(1);

/// Whose turn it is to write a record, so that no two run into one another; and until when nobody waits.
static RECORD: Mutex<Option<Instant>> = Mutex::new(None);

/// See the module's head.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    tier: Tier,
    ceiling: Tier,
    /// How the session is called in the record. Who sits at the process's own terminal has none.
    who: Option<String>,
}

impl Rights {
    pub(super) fn new(ceiling: Tier, who: String) -> Rights {
        Rights { tier: Tier::Read, ceiling, who: Some(who) }
    }

    /// Everything from the beginning, unrecorded: for the process's own user at its own terminal.
    pub(super) fn own() -> Rights {
        Rights { tier: Tier::Act, ceiling: Tier::Act, who: None }
    }

    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    /// Whether something that needs `needed` may be done now; if it changes anything, it is recorded as `what`, which has
    /// to be fit to be shown.
    pub(super) fn allow(&self, needed: Tier, name: &str, what: &str) -> Result<(), String> {
        if needed > self.ceiling {
            return Err(format!("{name} needs the tier {needed}, and here {} is the highest", self.ceiling));
        }
        if needed > self.tier {
            return Err(format!("{name} needs the tier {needed}: write first: enable {needed}"));
        }
        if needed > Tier::Read { self.record(what) } else { Ok(()) }
    }

    /// `enable TIER`: up to the ceiling, or down.
    pub(super) fn set(&mut self, tier: Tier) -> Result<String, String> {
        if tier > self.ceiling {
            return Err(format!("{tier} is not to be had here: {} is the highest", self.ceiling));
        }
        if tier > self.tier {
            self.record(&format!("enable {tier}"))?;
        }
        self.tier = tier;
        Ok(format!("this session may now {tier}"))
    }

    fn record(&self, what: &str) -> Result<(), String> {
        let Some(who) = &self.who else { return Ok(()) };
        let text = format!("{who}: {what}");
        if report::deliver_surely(Report::Audit(text.clone())) == Delivery::Queued {
            return Ok(());
        }
        let mut rests = RECORD.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = if rests.is_some_and(|until| Instant::now() < until) { Duration::ZERO } else { PATIENCE };
        let recorded = dump_signal::write_within(format!("coro: audit: {text}\n").as_bytes(), patience);
        *rests = (!recorded).then(|| Instant::now() + REST);
        if recorded {
            return Ok(());
        }
        Err("not done: standard error takes no line, so it could not be recorded; make room there, or set a report handler"
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_above_the_ceiling_and_nobody_begins_above_reading() {
        for ceiling in [Tier::Read, Tier::Probe, Tier::Act] {
            for wanted in [Tier::Read, Tier::Probe, Tier::Act] {
                let mut rights = Rights::new(ceiling, "session 0 (test)".into());
                assert_eq!(rights.tier(), Tier::Read);
                assert_eq!(rights.set(wanted).is_ok(), wanted <= ceiling);
                for needed in [Tier::Read, Tier::Probe, Tier::Act] {
                    let allowed = rights.allow(needed, "x", "x 1");
                    assert_eq!(allowed.is_ok(), needed <= rights.tier(), "{ceiling} {wanted} {needed}");
                    if needed > rights.tier() {
                        let advice = if needed > ceiling { "is the highest" } else { "enable" };
                        assert!(allowed.unwrap_err().contains(advice));
                    }
                }
                assert!(rights.set(Tier::Read).is_ok());
                assert_eq!(rights.tier(), Tier::Read);
            }
        }
    }
}
