//! The results as one drawing in SVG: ours and every peer in relation to the one that ours is held against, on a logarithmic axis.
//!
//! Less is better everywhere: where more of something is better, its inverse is drawn.
//!
//! It has a ground of its own, light or dark as the reader's page is, and tells the runtimes apart by form as well as by colour.

use std::fmt::Write;

use super::{figure, machine, versions};
use crate::results::{Cell, Comparison, Results, Row};
use crate::run::cases::{Better, Wanted};
use crate::run::runtimes::{Kind, OURS, RUNTIMES, label};
use crate::stats::Estimate;

const WIDTH: f64 = 1130.0;
/// Names of the cases end here, and the axis begins a little later.
const LEFT: f64 = 470.0;
const RIGHT: f64 = 950.0;
const LINE: f64 = 22.0;
const TOP: f64 = 84.0;

/// Colours of a light and of a dark page: what, its properties there and there. Those of the runtimes are told apart by those who see
/// few colours (Okabe and Ito), too; an edge of the ground's colour keeps marks apart that lie on each other.
const COLOURS: [(&str, &str, &str); 16] = [
    ("ground", "fill:#ffffff", "fill:#0d1117"),
    ("text", "fill:#1f2328", "fill:#e6edf3"),
    ("quiet", "fill:#59636e", "fill:#9198a1"),
    ("grid", "stroke:#d8dee4", "stroke:#2f363f"),
    ("one", "stroke:#59636e", "stroke:#9198a1"),
    ("wanted", "stroke:#cf222e", "stroke:#ff7b72"),
    ("bare", "fill:#1f2328;stroke:#ffffff", "fill:#e6edf3;stroke:#0d1117"),
    ("coro", "fill:#0072b2", "fill:#4aa8e8"),
    ("tokio", "fill:#d55e00;stroke:#ffffff", "fill:#ff8a3c;stroke:#0d1117"),
    ("may", "fill:#009e73;stroke:#ffffff", "fill:#3fc79a;stroke:#0d1117"),
    ("smol", "fill:#b35a8c;stroke:#ffffff", "fill:#e79cc7;stroke:#0d1117"),
    ("go", "fill:#8a6d00;stroke:#ffffff", "fill:#e6c93c;stroke:#0d1117"),
    ("glommio", "fill:#6639ba;stroke:#ffffff", "fill:#c297ff;stroke:#0d1117"),
    ("monoio", "fill:#57606a;stroke:#ffffff", "fill:#c9d1d9;stroke:#0d1117"),
    ("hyper", "fill:#7a3b12;stroke:#ffffff", "fill:#d9a47c;stroke:#0d1117"),
    ("minihttp", "fill:#00798c;stroke:#ffffff", "fill:#57c7d4;stroke:#0d1117"),
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

/// As it is drawn.
fn drawn(row: &Row, ratio: f64) -> f64 {
    if row.metric.better == Better::More { 1.0 / ratio } else { ratio }
}

/// How much a runtime takes for each unit of the one that ours is held against: by its medians.
fn relative(row: &Row, runtime: &str) -> Option<f64> {
    let with = row.comparison.as_ref()?.with;
    match (row.cell(runtime), row.cell(with)) {
        (Cell::Measured(own), Cell::Measured(with)) if own.median > 0.0 && with.median > 0.0 => {
            Some(drawn(row, own.median / with.median))
        }
        _ => None,
    }
}

/// What is wanted of ours, where that is a ratio.
fn wanted(row: &Row) -> Option<f64> {
    match row.wanted?.0 {
        Wanted::Times(factor) => Some(drawn(row, factor)),
        Wanted::Value(_) | Wanted::Nothing => None,
    }
}

/// Ours, as it is drawn: the median, and where it lies.
fn ours(row: &Row, comparison: &Comparison) -> Estimate {
    let Estimate { median, low, high } = comparison.ratio;
    let [median, low, high] = [median, low, high].map(|ratio| drawn(row, ratio));
    Estimate { median, low: low.min(high), high: low.max(high) }
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
        "glommio" => {
            let (a, b, c) = ((x, y + 5.0), (x - 4.9, y - 4.0), (x + 4.9, y - 4.0));
            let points = [a, b, c].map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ");
            format!("<polygon class=\"glommio\" points=\"{points}\"/>")
        }
        // A plus: from its upper left, around.
        "monoio" => {
            let corners = [(-1.7, -5.4), (1.7, -5.4), (1.7, -1.7), (5.4, -1.7), (5.4, 1.7), (1.7, 1.7)];
            let rest = corners.map(|(a, b)| (-a, -b));
            let points: Vec<_> =
                corners.iter().chain(&rest).map(|(a, b)| format!("{:.1},{:.1}", x + a, y + b)).collect();
            format!("<polygon class=\"monoio\" points=\"{}\"/>", points.join(" "))
        }
        // Triangles on their sides, one to the right and one to the left.
        "hyper" | "minihttp" => {
            let way = if runtime == "hyper" { 1.0 } else { -1.0 };
            let points = [(x + 5.0 * way, y), (x - 4.0 * way, y + 4.9), (x - 4.0 * way, y - 4.9)];
            let points = points.map(|(x, y)| format!("{x:.1},{y:.1}")).join(" ");
            format!("<polygon class=\"{runtime}\" points=\"{points}\"/>")
        }
        "bare" => {
            format!("<rect class=\"bare\" x=\"{:.1}\" y=\"{:.1}\" width=\"4\" height=\"15\"/>", x - 2.0, y - 7.5)
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
        let ours = row.comparison.as_ref().map(|c| ours(row, c)).map(|e| [e.low, e.high]);
        let peers = RUNTIMES.iter().filter(|r| r.name != OURS).filter_map(|r| relative(row, r.name));
        ours.into_iter().flatten().chain(peers).chain(wanted(row)).collect::<Vec<_>>()
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
         <title>coro and other runtimes, in relation to the one that is named behind each line</title>\n\
         <style>{light}@media (prefers-color-scheme:dark){{{dark}}}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n"
    )
}

/// The runtimes that have a mark somewhere, and the other marks.
fn legend<'a>(out: &mut String, rows: impl Iterator<Item = &'a Row> + Clone) {
    let _ = writeln!(
        out,
        "<text class=\"text\" font-size=\"15\" font-weight=\"600\" x=\"16\" y=\"26\">\
         What each takes, in relation to the one that is named behind each line: less is better</text>"
    );
    let mut next = 26.0;
    // Where the one after it begins.
    let mut entry = |x: f64, mark: String, text: &str| {
        let _ = writeln!(out, "{mark}<text class=\"text\" x=\"{:.1}\" y=\"52\">{text}</text>", x + 14.0);
        x + 42.0 + 7.0 * text.chars().count() as f64
    };
    for runtime in RUNTIMES.iter().filter(|r| rows.clone().any(|row| relative(row, r.name).is_some())) {
        let text = match runtime.kind {
            Kind::Ours => "coro (line: 95 %)",
            Kind::Limit => "bare (no runtime)",
            Kind::Shared | Kind::Local | Kind::Web => runtime.label,
        };
        next = entry(next, mark(runtime.name, next, 47.5), text);
    }
    if rows.clone().any(|row| wanted(row).is_some()) {
        entry(next, limit(next, 47.5), "wanted of coro");
    }
}

/// The mark of what is wanted.
fn limit(x: f64, y: f64) -> String {
    let (top, bottom) = (y - 9.0, y + 9.0);
    format!(
        "<line class=\"wanted\" stroke-width=\"2\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
    )
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
    let unit = match (row.case.metrics.len(), row.metric.better) {
        (_, Better::More) => format!(": inverse of {}", row.metric.unit),
        (1, _) => String::new(),
        _ => format!(": {}", row.metric.unit),
    };
    let _ = writeln!(
        out,
        "<text class=\"text\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}<tspan class=\"quiet\">{}</tspan></text>",
        LEFT - 12.0,
        y + 4.5,
        escape(row.case.what),
        escape(&unit)
    );
    let ours = ours(row, comparison);
    let (one, x) = (axis.x(1.0), axis.x(ours.median));
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
        axis.x(ours.low),
        axis.x(ours.high)
    );
    if let Some(wanted) = wanted(row) {
        let _ = writeln!(out, "{}", limit(axis.x(wanted), y));
    }
    for runtime in RUNTIMES.iter().filter(|r| r.name != OURS) {
        if let Some(value) = relative(row, runtime.name) {
            let _ = writeln!(out, "{}", mark(runtime.name, axis.x(value), y));
        }
    }
    let _ = writeln!(
        out,
        "<text class=\"text\" x=\"{:.1}\" y=\"{:.1}\">{} × {}</text>",
        RIGHT + 16.0,
        y + 4.5,
        figure(ours.median),
        label(comparison.with)
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
        results.runs.extend([run("coro", 0, 10.0), run("tokio", 0, 40.0), run("go", 0, 80.0), run("glommio", 0, 20.0)]);
        let drawing = svg(&results).unwrap();
        // Once in the legend and once in the row.
        assert_eq!(drawing.matches("<circle class=\"tokio\"").count(), 2);
        assert_eq!(drawing.matches("<polygon class=\"go\"").count(), 2);
        assert_eq!(drawing.matches("<rect class=\"may\"").count(), 0);
        assert!(drawing.contains(">0.50 × glommio</text>"), "the ratio is missing:\n{drawing}");
    }
}
