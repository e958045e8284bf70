//! The results as one drawing in SVG: ours and every peer in relation to the best peer, on a logarithmic axis.
//!
//! It has a ground of its own, light or dark as the reader's page is, and tells the runtimes apart by form as well as by colour.

use std::fmt::Write;

use super::{figure, machine, versions};
use crate::results::{Cell, Results, Row};
use crate::run::cases::{OURS, RUNTIMES};

const WIDTH: f64 = 1000.0;
/// Names of the cases end here, and the axis begins a little later.
const LEFT: f64 = 380.0;
const RIGHT: f64 = 860.0;
const LINE: f64 = 22.0;
const TOP: f64 = 84.0;

/// Colours of a light and of a dark page: what, its properties there and there. Those of the runtimes are told apart by those who see
/// few colours (Okabe and Ito), too; an edge of the ground's colour keeps marks apart that lie on each other.
const COLOURS: [(&str, &str, &str); 10] = [
    ("ground", "fill:#ffffff", "fill:#0d1117"),
    ("text", "fill:#1f2328", "fill:#e6edf3"),
    ("quiet", "fill:#59636e", "fill:#9198a1"),
    ("grid", "stroke:#d8dee4", "stroke:#2f363f"),
    ("one", "stroke:#59636e", "stroke:#9198a1"),
    ("coro", "fill:#0072b2", "fill:#4aa8e8"),
    ("tokio", "fill:#d55e00;stroke:#ffffff", "fill:#ff8a3c;stroke:#0d1117"),
    ("may", "fill:#009e73;stroke:#ffffff", "fill:#3fc79a;stroke:#0d1117"),
    ("smol", "fill:#b35a8c;stroke:#ffffff", "fill:#e79cc7;stroke:#0d1117"),
    ("go", "fill:#8a6d00;stroke:#ffffff", "fill:#e6c93c;stroke:#0d1117"),
];

struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Everything that is shown lies on it, and so does 1.
    fn over(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values.filter(|v| *v > 0.0).fold((1.0_f64, 1.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        // Room for what marks a value.
        Axis { low: (low / 1.15).min(0.5), high: (high * 1.15).max(2.0) }
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value.max(self.low) / self.low).ln() / (self.high / self.low).ln();
        LEFT + share * (RIGHT - LEFT)
    }

    /// 1, 2 and 5 of each power of ten.
    fn ticks(&self) -> Vec<f64> {
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect()
    }
}

/// How much a runtime takes for each unit of the best peer: by its medians.
fn relative(row: &Row, runtime: &str) -> Option<f64> {
    let best = row.comparison.as_ref()?.best;
    let best = RUNTIMES.iter().find(|(_, label)| *label == best)?.0;
    match (row.cell(runtime), row.cell(best)) {
        (Cell::Measured(own), Cell::Measured(best)) if best.median > 0.0 => Some(own.median / best.median),
        _ => None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The mark of a runtime, each of another form.
fn mark(runtime: &str, x: f64, y: f64) -> String {
    match runtime {
        "tokio" => format!("<circle class=\"tokio\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.2\"/>"),
        "may" => {
            format!("<rect class=\"may\" x=\"{:.1}\" y=\"{:.1}\" width=\"7.6\" height=\"7.6\"/>", x - 3.8, y - 3.8)
        }
        "smol" => {
            let (a, b, c) = ((x, y - 5.0), (x + 4.9, y + 4.0), (x - 4.9, y + 4.0));
            let points = [a, b, c].map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ");
            format!("<polygon class=\"smol\" points=\"{points}\"/>")
        }
        "go" => {
            let points = [(x, y - 5.6), (x + 5.0, y), (x, y + 5.6), (x - 5.0, y)];
            let points = points.map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ");
            format!("<polygon class=\"go\" points=\"{points}\"/>")
        }
        _ => format!("<rect class=\"coro\" x=\"{:.1}\" y=\"{:.1}\" width=\"16\" height=\"10\"/>", x - 8.0, y - 5.0),
    }
}

/// The drawing; nothing if nothing can be compared.
pub(crate) fn svg(results: &Results) -> Option<String> {
    let groups: Vec<(&str, Vec<Row>)> = [(1, "One worker, on one CPU"), (2, "Two workers")]
        .into_iter()
        .map(|(workers, title)| {
            (title, results.rows(workers).into_iter().filter(|row| row.comparison.is_some()).collect())
        })
        .filter(|(_, rows): &(_, Vec<Row>)| !rows.is_empty())
        .collect();
    if groups.is_empty() {
        return None;
    }
    let rows = || groups.iter().flat_map(|(_, rows)| rows);
    let axis = Axis::over(rows().flat_map(|row| {
        let ours = row.comparison.as_ref().map(|c| [c.ratio.min, c.ratio.max]);
        let peers = RUNTIMES.iter().filter(|(name, _)| *name != OURS).filter_map(|(name, _)| relative(row, name));
        ours.into_iter().flatten().chain(peers).collect::<Vec<_>>()
    }));
    let bottom = TOP + LINE * (rows().count() as f64 + 1.4 * groups.len() as f64) + 4.0;
    let height = bottom + 34.0 + 32.0 * results.sessions.len() as f64;
    let mut out = head(height);
    legend(&mut out, rows());
    grid(&mut out, &axis, bottom);
    let mut y = TOP;
    for (title, rows) in &groups {
        y += LINE * 1.4;
        let _ = writeln!(out, "<text class=\"text\" font-weight=\"600\" x=\"16\" y=\"{:.1}\">{title}</text>", y - 6.0);
        for row in rows {
            draw(&mut out, &axis, row, y + LINE / 2.0);
            y += LINE;
        }
    }
    foot(&mut out, results, bottom + 30.0);
    out.push_str("</svg>\n");
    Some(out)
}

fn head(height: f64) -> String {
    let rules = |dark: bool| {
        let rule =
            |(what, light, black): &(&str, &str, &str)| format!(".{what}{{{}}}", if dark { black } else { light });
        COLOURS.iter().map(rule).collect::<String>()
    };
    let (light, dark) = (rules(false), rules(true));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" role=\"img\">\n\
         <title>coro and other runtimes, in relation to the best of the others</title>\n\
         <style>{light}@media (prefers-color-scheme:dark){{{dark}}}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n"
    )
}

/// The runtimes that have a mark somewhere.
fn legend<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row> + Clone) {
    let _ = writeln!(
        out,
        "<text class=\"text\" font-size=\"15\" font-weight=\"600\" x=\"16\" y=\"26\">\
         What each takes, in relation to the best peer: less is better</text>"
    );
    let mut x = 26.0;
    for (name, label) in RUNTIMES.iter().filter(|(name, _)| rows.clone().any(|row| relative(row, name).is_some())) {
        let text = if *name == OURS {
            format!("{label} (line: least and greatest of the rounds)")
        } else {
            (*label).to_owned()
        };
        let _ =
            writeln!(out, "{}<text class=\"text\" x=\"{:.1}\" y=\"52\">{text}</text>", mark(name, x, 47.5), x + 14.0);
        x += 44.0 + 7.2 * text.chars().count() as f64;
    }
}

fn grid(out: &mut String, axis: &Axis, bottom: f64) {
    for tick in axis.ticks() {
        let (x, class) = (axis.x(tick), if tick == 1.0 { "one" } else { "grid" });
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"quiet\" font-size=\"11\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{tick}</text>",
            TOP - 6.0
        );
    }
}

fn draw(out: &mut String, axis: &Axis, row: &Row, y: f64) {
    let Some(comparison) = &row.comparison else { return };
    let unit = if row.case.metrics.len() > 1 { format!(": {}", row.metric.unit) } else { String::new() };
    let _ = writeln!(
        out,
        "<text class=\"text\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}<tspan class=\"quiet\">{}</tspan></text>",
        LEFT - 12.0,
        y + 4.5,
        escape(row.case.what),
        escape(&unit)
    );
    let ratio = comparison.ratio;
    let (one, x) = (axis.x(1.0), axis.x(ratio.median));
    let _ = writeln!(
        out,
        "<rect class=\"coro\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\"/>",
        one.min(x),
        y - 6.0,
        (one - x).abs().max(1.5)
    );
    let _ = writeln!(
        out,
        "<line class=\"one\" stroke-width=\"1.5\" x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>",
        axis.x(ratio.min),
        axis.x(ratio.max)
    );
    for (name, _) in RUNTIMES.iter().filter(|(name, _)| *name != OURS) {
        if let Some(value) = relative(row, name) {
            let _ = writeln!(out, "{}", mark(name, axis.x(value), y));
        }
    }
    let _ = writeln!(
        out,
        "<text class=\"text\" x=\"{:.1}\" y=\"{:.1}\">{} × {}</text>",
        RIGHT + 16.0,
        y + 4.5,
        figure(ratio.median),
        comparison.best
    );
}

/// When, where, and with what.
fn foot(out: &mut String, results: &Results, mut y: f64) {
    for session in &results.sessions {
        let date = session["started"].as_str().and_then(|date| date.get(..10)).unwrap_or("?");
        let quick = if session["quick"] == true { " (short runs, worth nothing)" } else { "" };
        for text in [format!("{date}{quick}: {}", machine(session)), versions(session)] {
            let text = escape(&text);
            let _ = writeln!(out, "<text class=\"quiet\" font-size=\"11\" x=\"16\" y=\"{y:.1}\">{text}</text>");
            y += 16.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, LEFT, RIGHT, svg};
    use crate::results::Results;
    use crate::results::tests::run;

    #[test]
    fn the_axis_is_logarithmic_and_holds_everything() {
        let axis = Axis::over([0.1, 10.0].into_iter());
        assert!((axis.x(1.0) - (LEFT + RIGHT) / 2.0).abs() < 1e-6, "1 is in the middle of 0.1 and 10");
        assert!(axis.x(0.1) > LEFT && axis.x(10.0) < RIGHT);
        assert_eq!(axis.ticks(), [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
    }

    #[test]
    fn every_runtime_that_was_measured_is_drawn() {
        let mut results = Results::default();
        assert!(svg(&results).is_none(), "drew what was not measured");
        results.runs.extend([run("coro", 0, 10.0), run("tokio", 0, 40.0), run("go", 0, 80.0)]);
        let drawing = svg(&results).unwrap();
        // Once in the legend and once in the row.
        assert_eq!(drawing.matches("<circle class=\"tokio\"").count(), 2);
        assert_eq!(drawing.matches("<polygon class=\"go\"").count(), 2);
        assert_eq!(drawing.matches("<rect class=\"may\"").count(), 0);
        assert!(drawing.contains(">0.25 × tokio</text>"), "the ratio is missing:\n{drawing}");
    }
}
