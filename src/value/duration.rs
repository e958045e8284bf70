//! A time as it is typed, and as it is shown.

#![forbid(unsafe_code)]

use std::time::Duration;

/// `5s`, `200ms`, `1.5h`, also as views write it: `2h05m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no duration; write for instance 5s, 200ms, 10us or 1h");
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = after;
    }
    match text.is_empty() {
        true => Err(wrong()),
        false => Duration::try_from_secs_f64(seconds).map_err(|_| wrong()),
    }
}

/// As ages are written in every view: `850us`, `12ms`, `3.2s`, `2h05m`.
pub(crate) fn age(d: Duration) -> String {
    let seconds = d.as_secs_f64();
    if seconds < 0.000_999_5 {
        format!("{:.0}us", seconds * 1e6)
    } else if seconds < 0.999_5 {
        format!("{:.0}ms", seconds * 1e3)
    } else if seconds < 3600.0 {
        format!("{seconds:.1}s")
    } else {
        format!("{}h{:02}m", d.as_secs() / 3600, d.as_secs() / 60 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let times =
            [3, 999_600, 12_000, 3_200_000, 600_000_000, 7_500_000_000].map(|us| age(Duration::from_micros(us)));
        assert_eq!(times, ["3us", "1.0s", "12ms", "3.2s", "600.0s", "2h05m"]);
    }

    #[test]
    fn durations() {
        let times = [
            ("5s", 5_000_000),
            ("200ms", 200_000),
            ("1h", 3_600_000_000),
            ("1.5m", 90_000_000),
            ("2min", 120_000_000),
            ("10us", 10),
            ("2h05m", 7_500_000_000),
            ("1d", 86_400_000_000),
            ("0s", 0),
            ("5000ns", 5),
        ];
        for (text, us) in times {
            assert_eq!(duration(text).expect(text).as_micros(), us, "{text}");
        }
        for text in ["5", "s", "", "5 s", "-5s", "5S", "5sec", "5.5.5s", "1e9s", "99999999999999999999999d", "."] {
            let error = duration(text).expect_err(text);
            assert_eq!(error, format!("\"{text}\" is no duration; write for instance 5s, 200ms, 10us or 1h"));
        }
    }
}
