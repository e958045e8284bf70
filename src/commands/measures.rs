//! What is measured, and what can be set while the program runs: `histogram`, `latency`, `set`.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::Duration;

use super::question;
use super::tables::LONGEST_NAME;
use super::text::{age, at_once, clean, count, counted, nearest_of};
use super::{Begun, Tier};
use crate::blocking::{blocking_stats, set_blocking_threads};
use crate::inspect::{self, ClassReport, Distribution, Pattern};
use crate::latency::set_latency_warning;
use crate::scheduler::{self, stall};

/// Upper ends of the rows of a histogram, in microseconds.
const ENDS: [u64; 25] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];
/// Marks of the longest bar.
const BAR: u64 = 40;

/// `histogram [CLASS]`
pub(super) fn histogram(words: &[&str]) -> Begun {
    let words = question::joined(words)?;
    let wanted = match words.as_slice() {
        [] => None,
        [class] => Some(question::unquoted(class)),
        [_, more, ..] => {
            return Err(format!("histogram takes one class, not \"{more}\" as well; one with blanks stands in quotes"));
        }
    };
    let all = inspect::classes();
    let pattern = Pattern::new(wanted.unwrap_or("*"));
    let found: Vec<&ClassReport> = all.iter().filter(|class| pattern.matches(&class.class)).collect();
    if let (Some(class), []) = (wanted, found.as_slice()) {
        let nearest = nearest_of(class, all.iter().map(|class| &*class.class));
        let nearest = nearest.map_or_else(String::new, |nearest| format!(": the nearest is histogram \"{nearest}\""));
        return Err(format!("no class of tasks is called \"{class}\"; classes shows those that are{nearest}"));
    }
    let (mut slices, mut delays) = (Distribution::default(), Distribution::default());
    for class in &found {
        slices.add(&class.slice_lengths);
        delays.add(&class.wake_delays);
    }
    let of = match found.as_slice() {
        [one] => clean(&one.class, LONGEST_NAME),
        several => counted(several.len() as u64, "class", "classes"),
    };
    let mut text = String::new();
    drawn("slices: how long a task keeps its worker", &of, &slices, &mut text);
    text.push('\n');
    drawn("delays: from a wake-up to the slice that it leads to", &of, &delays, &mut text);
    Ok(at_once(text))
}

fn drawn(what: &str, of: &str, all: &Distribution, out: &mut String) {
    let _ = writeln!(out, "{what}; {of}");
    if all.count() == 0 {
        out.push_str("  none yet\n");
        return;
    }
    let mut counts = [0u64; ENDS.len() + 1];
    for (end, n) in all.buckets() {
        // A bucket's end is up to a quarter beyond what is in it.
        let place = ENDS.iter().position(|limit| end <= Duration::from_micros(*limit) * 5 / 4);
        counts[place.unwrap_or(ENDS.len())] += n;
    }
    let of = |q: f64| age(all.quantile(q));
    let _ = writeln!(
        out,
        "  {} of them; p50 {}, p90 {}, p99 {}, p99.9 {}, longest {}",
        count(all.count()),
        of(0.5),
        of(0.9),
        of(0.99),
        of(0.999),
        age(all.longest())
    );
    let most = counts.iter().copied().max().unwrap_or(1).max(1);
    let width = count(most).len();
    let used = |counts: &[u64]| counts.iter().position(|n| *n > 0);
    let first = used(&counts).unwrap_or(0);
    let last = counts.iter().rposition(|n| *n > 0).unwrap_or(0);
    for (place, n) in counts.iter().enumerate().take(last + 1).skip(first) {
        let end = ENDS.get(place).map_or_else(|| "more".to_owned(), |us| rounded(*us));
        let bar = "#".repeat((n * BAR).div_ceil(most) as usize);
        let line = format!("  {end:>6}  {:>width$}  {bar}", count(*n));
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// A round time: `5us`, `200ms`, `10s`.
fn rounded(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{}ms", us / 1_000),
        _ => format!("{}s", us / 1_000_000),
    }
}

/// What can be set: its name, what it takes, what a session needs to be allowed, what it is.
struct Setting {
    name: &'static str,
    takes: &'static str,
    tier: Tier,
    what: &'static str,
    value: fn() -> String,
    /// Sets it, and says what it was.
    set: fn(&str) -> Result<String, String>,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "latency",
        takes: "50ms|off",
        tier: Tier::Probe,
        what: "slices that last longer are reported; stalls lists them",
        value: || threshold(stall::process()),
        set: |value| Ok(threshold(set_latency_warning(time_or_off(value)?))),
    },
    Setting {
        name: "selfishness",
        takes: "1..32768",
        tier: Tier::Act,
        what: "I/O calls in a row that did not wait, after which a task gives way",
        value: || scheduler::io::selfishness().to_string(),
        set: |value| {
            let calls = within(value, "selfishness", 1, 32_768)?;
            Ok(scheduler::set_selfishness(calls as u32).to_string())
        },
    },
    Setting {
        name: "blocking-threads",
        takes: "1..65536",
        tier: Tier::Act,
        what: "threads that the pool of blocking jobs may have",
        value: || blocking_stats().limit.to_string(),
        set: |value| Ok(set_blocking_threads(within(value, "blocking-threads", 1, 65_536)? as usize).to_string()),
    },
];

fn threshold(time: Duration) -> String {
    if time.is_zero() { "off".to_owned() } else { age(time) }
}

fn time_or_off(value: &str) -> Result<Duration, String> {
    if value == "off" {
        return Ok(Duration::ZERO);
    }
    let time = question::duration(value).map_err(|error| format!("{error}; or off"))?;
    if time.is_zero() {
        Err("a threshold of 0 would report every slice; write off to end the reports".into())
    } else {
        Ok(time)
    }
}

fn within(value: &str, name: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = question::id(value).filter(|n| (least..=most).contains(n) && !value.starts_with('#'));
    number.ok_or_else(|| format!("{name} takes a number from {least} to {most}, and \"{value}\" is none"))
}

/// What `set` needs: nothing to look, what the setting says to change it, and the most for what is not understood.
pub(super) fn set_tier(words: &[&str]) -> Tier {
    match words {
        [] => Tier::Read,
        [name, ..] => SETTINGS.iter().find(|s| s.name == *name).map_or(Tier::Act, |s| s.tier),
    }
}

/// `set [NAME VALUE]`
pub(super) fn set(words: &[&str]) -> Begun {
    let [name, values @ ..] = words else {
        let mut text = String::new();
        let line = |s: &Setting| format!("set {} {}", s.name, (s.value)());
        let width = SETTINGS.iter().map(|s| line(s).len()).max().unwrap_or(0);
        for s in SETTINGS {
            let _ = writeln!(text, "{:width$}  {}: {} ({})", line(s), s.takes, s.what, s.tier);
        }
        return Ok(at_once(text));
    };
    let Some(setting) = SETTINGS.iter().find(|s| s.name == *name) else {
        let nearest = nearest_of(name, SETTINGS.iter().map(|s| s.name)).unwrap_or("latency");
        return Err(format!("set does not know \"{name}\"; the nearest is {nearest}; set alone shows all"));
    };
    match values {
        [value] => changed(setting, value),
        _ => Err(format!("set {name} takes one value: set {name} {}", setting.takes)),
    }
}

fn changed(setting: &Setting, value: &str) -> Begun {
    let was = (setting.set)(value)?;
    Ok(at_once(format!("{} is {}, was {was}\n", setting.name, (setting.value)())))
}

/// What `latency` needs: to look, nothing.
pub(super) fn latency_tier(words: &[&str]) -> Tier {
    if words.is_empty() { Tier::Read } else { Tier::Probe }
}

/// `latency [set 50ms|off]`
pub(super) fn latency(words: &[&str]) -> Begun {
    match words {
        [] if stall::process().is_zero() => {
            Ok(at_once("off: no slice is reported, however long; latency set 200ms changes that\n".into()))
        }
        [] => {
            let now = threshold(stall::process());
            Ok(at_once(format!(
                "{now}: slices that last longer are reported, and stalls lists them; latency set 50ms or latency set off \
                 changes that\n"
            )))
        }
        ["set", value] => changed(&SETTINGS[0], value),
        _ => Err("latency alone shows the threshold; latency set 50ms or latency set off changes it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Histogram;
    use crate::sys::clock;

    #[test]
    fn a_histogram_has_a_row_for_each_round_time() {
        let h = Histogram::new();
        for (us, n) in [(40, 100), (900, 10), (150_000, 1)] {
            (0..n).for_each(|_| h.record(clock::in_ticks(Duration::from_micros(us))));
        }
        let mut all = Distribution::default();
        h.add_to(&mut all);
        let mut out = String::new();
        drawn("slices", "echo", &all, &mut out);
        let rows: Vec<&str> = out.lines().skip(2).collect();
        assert!(out.starts_with("slices; echo\n  111 of them; p50 "), "{out}");
        assert_eq!(rows[0], format!("    50us  100  {}", "#".repeat(40)));
        assert_eq!(rows[1], "   100us    0");
        assert_eq!(rows[4], "     1ms   10  ####");
        assert_eq!(rows.last().copied(), Some("   200ms    1  #"));
        assert_eq!(rows.len(), 12);
        let mut none = String::new();
        drawn("slices", "echo", &Distribution::default(), &mut none);
        assert_eq!(none, "slices; echo\n  none yet\n");
    }

    #[test]
    fn values_that_cannot_be_set_are_named() {
        let error = |words: &[&str]| set(words).err().expect("refused");
        assert_eq!(
            error(&["latncy", "5s"]),
            "set does not know \"latncy\"; the nearest is latency; set alone shows all"
        );
        assert_eq!(error(&["latency"]), "set latency takes one value: set latency 50ms|off");
        assert_eq!(error(&["latency", "5"]), "\"5\" is no duration; write for instance 5s, 200ms, 10us or 1h; or off");
        assert!(error(&["latency", "0s"]).contains("write off"));
        assert_eq!(error(&["selfishness", "0"]), "selfishness takes a number from 1 to 32768, and \"0\" is none");
        assert!(error(&["blocking-threads", "#7"]).contains("and \"#7\" is none"));
        assert!(latency(&["off"]).is_err() && latency(&["set"]).is_err());
    }
}
