//! Who is connected: every session of every server of the process, as `sessions` shows it.
//!
//! Invariant: a session is listed from its first byte to the drop of its [`Ticket`]. Must not know: sockets.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::text::{age, at_once, counted};
use super::{Answer, Tier};

/// What is shown of one session.
#[derive(Debug, Clone)]
struct Entry {
    number: u64,
    /// `unix uid 1000 pid 4711`, `tcp 127.0.0.1:52110 uid 1000`.
    peer: String,
    began: Instant,
    tier: Tier,
    commands: u64,
    /// The last command, fit to be shown, and when it came.
    last: Option<(String, Instant)>,
}

static SESSIONS: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<Entry>> {
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One session's place in the list, until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    peer: String,
}

impl Ticket {
    pub(crate) fn new(peer: String, now: Instant) -> Ticket {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let peer_shown = peer.clone();
        all().push(Entry { number, peer: peer_shown, began: now, tier: Tier::Read, commands: 0, last: None });
        Ticket { number, peer }
    }

    /// How the session is called in reports: `session 3 (unix uid 1000 pid 4711)`.
    pub(crate) fn name(&self) -> String {
        format!("session {} ({})", self.number, self.peer)
    }

    /// A command came, shown as `text`.
    pub(crate) fn asked(&self, text: &str, now: Instant) {
        self.change(|entry| {
            entry.commands += 1;
            entry.last = Some((text.to_owned(), now));
        });
    }

    /// The session may do that much from now on.
    pub(crate) fn raised(&self, tier: Tier) {
        self.change(|entry| entry.tier = tier);
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = all().iter_mut().find(|entry| entry.number == self.number) {
            change(entry);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        all().retain(|entry| entry.number != self.number);
    }
}

/// The answer of `sessions`.
pub(crate) fn sessions() -> Box<dyn Answer> {
    let entries = all().clone();
    let mut text = String::new();
    for entry in &entries {
        let (Entry { number, peer, tier, .. }, began) = (entry, age(entry.began.elapsed()));
        let _ = write!(text, "{number} {tier} {peer} for {began}, {}", counted(entry.commands, "command", "commands"));
        if let Some((last, when)) = &entry.last {
            let _ = write!(text, ", the last {} ago: {last}", age(when.elapsed()));
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}", counted(entries.len() as u64, "session", "sessions"));
    at_once(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let mut out = Vec::new();
        while sessions().more(&mut out) {
            out.clear();
        }
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_session_is_listed_until_its_ticket_is_dropped() {
        let ticket = Ticket::new("unix uid 77 pid 123456".into(), Instant::now());
        ticket.raised(Tier::Act);
        ticket.asked("where_all", Instant::now());
        let line = text().lines().find(|l| l.contains("pid 123456")).expect("listed").to_owned();
        assert!(line.contains(" act unix uid 77 pid 123456 for "), "{line}");
        assert!(line.contains("1 command, the last ") && line.ends_with(" ago: where_all"), "{line}");
        drop(ticket);
        assert!(!text().contains("pid 123456"));
    }
}
