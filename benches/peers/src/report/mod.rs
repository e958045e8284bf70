//! Results for people: on the screen, as a table in Markdown, as a drawing.

pub(crate) mod plot;
pub(crate) mod screen;
pub(crate) mod table;

use serde_json::Value;

use crate::results::{Met, Results};
use crate::run::cases::{Better, Metric, Wanted};
use crate::run::runtimes::{RUNTIMES, label};
use crate::stats::{Estimate, Spread};

/// Three digits, or all in front of the point, thousands apart.
fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut grouped = String::from(sign);
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

fn spread(s: Spread) -> String {
    if s.min == s.max {
        figure(s.median)
    } else {
        format!("{} [{}..{}]", figure(s.median), figure(s.min), figure(s.max))
    }
}

/// A ratio and its interval, and to whom.
fn ratio(ratio: Estimate, with: &str) -> String {
    let Estimate { median, low, high } = ratio;
    if low == high {
        format!("{} × {}", figure(median), label(with))
    } else {
        format!("{} [{}..{}] × {}", figure(median), figure(low), figure(high), label(with))
    }
}

/// What is wanted of ours, and whether it is so.
fn wanted((wanted, met): (Wanted, Met), metric: &Metric) -> String {
    let sign = if metric.better == Better::More { "≥" } else { "≤" };
    let what = match wanted {
        Wanted::Nothing => return String::new(),
        // All digits: it is given, not measured.
        Wanted::Times(factor) => format!("{sign} {factor} ×"),
        Wanted::Value(value) => format!("{sign} {}", figure(value)),
    };
    let met = match met {
        Met::Yes => "met",
        Met::No => "missed",
        Met::Open => "open",
        Met::NotMeasured => "not measured",
    };
    format!("{what}: {met}")
}

/// The versions of everything, in the order of the runtimes.
fn versions(session: &Value) -> String {
    let known = session["versions"].as_object();
    let version = |name: &str| known?.get(name)?.as_str();
    let runtimes = RUNTIMES.iter().filter_map(|r| Some(format!("{} {}", r.label, version(r.name)?)));
    runtimes.chain(version("rustc").map(str::to_owned)).collect::<Vec<_>>().join(", ")
}

fn machine(session: &Value) -> String {
    let machine = &session["machine"];
    let text = |name: &str| machine[name].as_str().unwrap_or("?");
    let kind = if machine["virtual"] == true { ", virtual" } else { "" };
    format!("{}, {} CPUs{kind}, Linux {}", text("cpu"), machine["cpus"], text("kernel"))
}

/// What the figures are worth.
fn disturbance(results: &Results) -> String {
    let (disturbed, all, foreign) = results.disturbance();
    format!("other programs used {foreign:.2} CPUs (median of the runs); {disturbed} of {all} runs were disturbed")
}

#[cfg(test)]
mod tests {
    use super::{ratio, wanted};
    use crate::results::Met;
    use crate::run::cases::{CASES, Wanted};
    use crate::stats::Estimate;

    #[test]
    fn ratios_say_to_whom_and_wishes_whether_they_are_met() {
        assert_eq!(ratio(Estimate { median: 0.5, low: 0.412, high: 0.6 }, "go"), "0.50 [0.41..0.60] × Go");
        assert_eq!(ratio(Estimate { median: 2.0, low: 2.0, high: 2.0 }, "bare"), "2.00 × bare");
        let metric = |case: &str, i: usize| &CASES.iter().find(|c| c.name == case).unwrap().metrics[i];
        assert_eq!(wanted((Wanted::Times(1.02), Met::Open), metric("echo.100", 0)), "≤ 1.02 ×: open");
        assert_eq!(wanted((Wanted::Times(1.0), Met::No), metric("echo.shared", 0)), "≥ 1 ×: missed");
        assert_eq!(wanted((Wanted::Value(1000.0), Met::Yes), metric("timers", 2)), "≤ 1,000: met");
    }

    #[test]
    fn figures_have_three_digits_or_more() {
        let shown = [0.0, 0.123, 9.994, 9.996, 12.34, 99.96, 123.4, 1234.5, 999_999.7, -1234.0].map(super::figure);
        assert_eq!(shown, ["0.00", "0.12", "9.99", "10.0", "12.3", "100", "123", "1,234", "1,000,000", "-1,234"]);
    }
}
