//! The lines of a stall: Shrapnel's words, made in a fixed buffer without allocating.
//!
//! Invariants: nothing here allocates, takes a lock or asks the C library for the time zone (which does both); whoever
//! calls says how far the local time is from UTC. Text beyond the buffer is cut between characters and says so.

#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::kernel::Verdict;
use crate::observe::After;

/// A buffer of text.
pub(super) struct Text {
    bytes: [u8; Text::LONGEST],
    len: usize,
    cut: bool,
}

impl Text {
    /// A pipe takes so much at once or not at all.
    const LONGEST: usize = 4096;
    const CUT: &'static str = "…\n";

    pub(super) const fn new() -> Text {
        Text { bytes: [0; Text::LONGEST], len: 0, cut: false }
    }

    pub(super) fn clear(&mut self) {
        (self.len, self.cut) = (0, false);
    }

    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// Ends the line.
    pub(super) fn end(&mut self) -> &[u8] {
        let end = if self.cut { Text::CUT } else { "\n" };
        self.bytes[self.len..self.len + end.len()].copy_from_slice(end.as_bytes());
        self.len += end.len();
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let room = Text::LONGEST - Text::CUT.len() - self.len;
        let n = (0..=text.len().min(room)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        self.cut = n < text.len();
        Ok(())
    }
}

/// Year, month and day of the month from 1, and day of the week from Sunday, of a day counted from 1970-01-01.
///
/// Counted in years that begin in March, so that the odd day comes last, from the cycle of 400 years that has 146,097 days.
fn civil(day: i64) -> (i64, usize, i64, usize) {
    let from_march = day + 719_468; // Days since the first of March of the year 0.
    let (cycle, in_cycle) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / 146_096) / 365;
    let in_year = in_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let of_month = in_year - (153 * month + 2) / 5 + 1;
    let january = month >= 10;
    let month = if january { month - 9 } else { month + 3 };
    (year + cycle * 400 + i64::from(january), month as usize, of_month, (day + 4).rem_euclid(7) as usize)
}

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A time as `ctime` writes it, without its newline, and as ISO 8601 in UTC.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    /// Since 1970 in UTC.
    since: Duration,
    /// Seconds that the local time is ahead of UTC.
    ahead: i64,
}

impl When {
    pub(super) fn now(ahead: i64) -> When {
        When::at(SystemTime::now(), ahead)
    }

    pub(super) fn at(at: SystemTime, ahead: i64) -> When {
        When { since: at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(), ahead }
    }

    fn clock(seconds: i64) -> (i64, i64, i64) {
        let s = seconds.rem_euclid(86_400);
        (s / 3600, s / 60 % 60, s % 60)
    }

    fn local(self, out: &mut dyn Write) -> fmt::Result {
        let seconds = self.since.as_secs() as i64 + self.ahead;
        let (year, month, day, week) = civil(seconds.div_euclid(86_400));
        let (h, m, s) = Self::clock(seconds);
        write!(out, "{} {} {day:>2} {h:02}:{m:02}:{s:02} {year}", DAYS[week], MONTHS[month - 1])
    }

    fn utc(self, out: &mut dyn Write) -> fmt::Result {
        let seconds = self.since.as_secs() as i64;
        let (year, month, day, _) = civil(seconds.div_euclid(86_400));
        let (h, m, s) = Self::clock(seconds);
        write!(out, "{year}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", self.since.subsec_millis())
    }
}

/// The task, for [`coro`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) id: u64,
    pub(super) name: Option<&'a str>,
    pub(super) at: usize,
    /// `None`: its slice goes on.
    pub(super) after: Option<After>,
}

/// Shrapnel's `repr` of a task, in which one without a name is called after its number.
fn coro(who: &Who<'_>, out: &mut dyn Write) -> fmt::Result {
    write!(out, "<coro #{} name='", who.id)?;
    match who.name {
        Some(name) => quoted(name, out)?,
        None => write!(out, "coro {}", who.id)?,
    }
    let dead = u8::from(who.after == Some(After::Ended));
    let scheduled = u8::from(who.after == Some(After::Queued));
    write!(out, "' dead={dead} started=1 scheduled={scheduled} at {:#x}>", who.at)
}

/// Between single quotes; nothing in it may steer a terminal or break the line.
fn quoted(name: &str, out: &mut dyn Write) -> fmt::Result {
    for c in name.chars() {
        match c {
            '"' => out.write_char('"')?,
            c => write!(out, "{}", c.escape_debug())?,
        }
    }
    Ok(())
}

/// The line up to the worker, which both kinds have in common.
pub(super) fn head(out: &mut Text, when: When, lasted: Duration, who: &Who<'_>, worker: u16) {
    out.clear();
    let so_far = if who.after.is_none() { " so far" } else { "" };
    // Writing to the buffer cannot fail.
    let _ = when.local(out);
    let _ = write!(out, " High Latency: ({:.3}s{so_far}) for ", lasted.as_secs_f64());
    let _ = coro(who, out);
    let _ = out.write_str(" utc=");
    let _ = when.utc(out);
    let _ = write!(out, " pid={} worker={worker}", std::process::id());
}

/// What was left out before this line, if anything.
pub(super) fn suppressed(out: &mut Text, count: u64) {
    if count > 0 {
        let _ = write!(out, " suppressed={count}");
    }
}

/// What a line says of a stall that goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct During {
    pub(super) thread: i32,
    /// CPU time of the thread, and over how long it was watched: the whole slice, or a little less.
    pub(super) cpu: Option<(Duration, Duration)>,
    /// Time in which the thread could have run and did not, over the same.
    pub(super) delay: Option<Duration>,
    pub(super) state: Option<char>,
    pub(super) verdict: Verdict,
    pub(super) behind: usize,
    /// There are more than were counted.
    pub(super) at_least: bool,
}

pub(super) fn during(out: &mut Text, d: &During) {
    let _ = write!(out, " thread={}", d.thread);
    if let Some((cpu, of)) = d.cpu {
        let _ = write!(out, " cpu={:.3}s of {:.3}s", cpu.as_secs_f64(), of.as_secs_f64());
    }
    if let Some(delay) = d.delay {
        let _ = write!(out, " run_delay={:.3}s", delay.as_secs_f64());
    }
    if let Some(state) = d.state {
        let _ = write!(out, " state={state}");
    }
    let more = if d.at_least { "at least " } else { "" };
    let s = if d.behind == 1 { "" } else { "s" };
    let wait = if d.behind == 1 { "waits" } else { "wait" };
    let _ = write!(out, " {}, {more}{} task{s} {wait} behind", d.verdict, d.behind);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut Text)) -> String {
        let mut out = Text::new();
        f(&mut out);
        out.as_str().to_owned()
    }

    fn both(seconds: u64, ahead: i64) -> (String, String) {
        let when = When { since: Duration::from_millis(seconds * 1000 + 7), ahead };
        (text(|out| when.local(out).unwrap()), text(|out| when.utc(out).unwrap()))
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let of = |local: &str, utc: &str| (local.to_owned(), utc.to_owned());
        assert_eq!(both(0, 0), of("Thu Jan  1 00:00:00 1970", "1970-01-01T00:00:00.007Z"));
        assert_eq!(both(1_334_436_939, 0), of("Sat Apr 14 20:55:39 2012", "2012-04-14T20:55:39.007Z"));
        assert_eq!(both(951_782_399, 1), of("Tue Feb 29 00:00:00 2000", "2000-02-28T23:59:59.007Z"));
        assert_eq!(both(4_107_542_400, -1), of("Sun Feb 28 23:59:59 2100", "2100-03-01T00:00:00.007Z"));
        assert_eq!(both(1_798_761_599, 3600), of("Fri Jan  1 00:59:59 2027", "2026-12-31T23:59:59.007Z"));
        // Every day of 800 years follows the one before.
        let (mut year, mut month, mut day) = (1970, 1, 0);
        for n in 0..292_194 {
            let long =
                [31, if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 29 } else { 28 }, 31, 30, 31, 30]
                    .into_iter()
                    .chain([31, 31, 30, 31, 30, 31])
                    .nth(month - 1);
            day += 1;
            if Some(day) > long {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
            assert_eq!(civil(n), (year, month, day, ((n + 4) % 7) as usize));
            if cfg!(miri) && n > 1000 {
                break;
            }
        }
    }

    #[test]
    fn the_lines_are_shrapnels() {
        let when = When { since: Duration::from_millis(1_334_436_939_250), ahead: 0 };
        let mut who = Who { id: 17, name: Some("db writer"), at: 0x7f12_3400, after: Some(After::Parked) };
        let pid = std::process::id();
        let line = text(|out| head(out, when, Duration::from_micros(3_883_999), &who, 3));
        assert_eq!(
            line,
            format!(
                "Sat Apr 14 20:55:39 2012 High Latency: (3.884s) for <coro #17 name='db writer' dead=0 started=1 \
                 scheduled=0 at 0x7f123400> utc=2012-04-14T20:55:39.250Z pid={pid} worker=3"
            )
        );
        who = Who { after: Some(After::Ended), name: None, ..who };
        assert!(
            text(|out| head(out, when, Duration::ZERO, &who, 0)).contains("<coro #17 name='coro 17' dead=1 started=1")
        );
        who = Who { after: Some(After::Queued), name: Some("it's\n\u{1b}[31m \"x\""), ..who };
        let line = text(|out| head(out, when, Duration::ZERO, &who, 0));
        assert!(line.contains(r#"name='it\'s\n\u{1b}[31m "x"' dead=0 started=1 scheduled=1"#), "{line}");
        who = Who { after: None, name: Some("hog"), ..who };
        let line = text(|out| {
            head(out, when, Duration::from_millis(210), &who, 0);
            let (ms, verdict) = (Duration::from_millis, Verdict::Spinning);
            let cpu = Some((ms(168), ms(170)));
            let delay = Some(ms(1));
            during(out, &During { thread: 42, cpu, delay, state: Some('R'), verdict, behind: 1, at_least: false });
            suppressed(out, 0);
            suppressed(out, 5);
            out.end();
        });
        assert_eq!(
            line,
            format!(
                "Sat Apr 14 20:55:39 2012 High Latency: (0.210s so far) for <coro #17 name='hog' dead=0 started=1 \
                 scheduled=0 at 0x7f123400> utc=2012-04-14T20:55:39.250Z pid={pid} worker=0 thread=42 cpu=0.168s of 0.170s \
                 run_delay=0.001s state=R spinning, 1 task waits behind suppressed=5\n"
            )
        );
    }

    #[test]
    fn too_much_text_is_cut_between_characters() {
        let line = text(|out| {
            (0..1100).for_each(|_| out.write_str("ä12").unwrap());
            out.end();
            assert!(out.as_str().ends_with("…\n"));
        });
        assert!(line.len() > 4080 && line.len() <= 4096);
    }
}
