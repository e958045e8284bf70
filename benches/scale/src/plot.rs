//! The curves as one drawing in SVG: a panel for each operation, both axes logarithmic.
//!
//! It has a ground of its own, light or dark as the reader's page is, and tells the numbers of workers apart by form as well as by colour.

use std::fmt::Write;

use crate::cases::WORKERS;
use crate::results::{Curve, Results};
use crate::table::{figure, heads};

const COLUMNS: usize = 4;
const PANEL: (f64, f64) = (270.0, 230.0);
/// Of a panel: left, right, above, below its axes.
const MARGIN: (f64, f64, f64, f64) = (52.0, 14.0, 34.0, 30.0);
const TOP: f64 = 70.0;

/// Colours of a light and of a dark page; those of the lines are told apart by those who see few colours (Okabe and Ito), too.
const COLOURS: [(&str, &str, &str); 8] = [
    ("ground", "fill:#ffffff", "fill:#0d1117"),
    ("text", "fill:#1f2328", "fill:#e6edf3"),
    ("quiet", "fill:#59636e", "fill:#9198a1"),
    ("grid", "stroke:#d8dee4", "stroke:#2f363f"),
    ("w1", "fill:#0072b2;stroke:#0072b2", "fill:#4aa8e8;stroke:#4aa8e8"),
    ("w2", "fill:#d55e00;stroke:#d55e00", "fill:#ff8a3c;stroke:#ff8a3c"),
    ("w4", "fill:#009e73;stroke:#009e73", "fill:#3fc79a;stroke:#3fc79a"),
    ("w8", "fill:#b35a8c;stroke:#b35a8c", "fill:#e79cc7;stroke:#e79cc7"),
];

/// A logarithmic axis, as a share of its length.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Everything that is shown lies on it, and at least a factor of four.
    fn over(values: impl Iterator<Item = f64>) -> Option<Axis> {
        let values: Vec<f64> = values.filter(|v| *v > 0.0).collect();
        let low = values.iter().copied().min_by(f64::total_cmp)? / 1.15;
        let high = values.iter().copied().max_by(f64::total_cmp)? * 1.15;
        let more = (4.0 / (high / low)).max(1.0).sqrt();
        Some(Axis { low: low / more, high: high * more })
    }

    fn share(self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln()
    }

    /// 1, 2 and 5 of each power of ten; the powers alone where that would be many.
    fn ticks(self) -> Vec<f64> {
        let powers = || self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let of = |digits: &'static [f64]| {
            let ticks = powers().flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
            ticks.filter(|tick| (self.low..=self.high).contains(tick)).collect::<Vec<_>>()
        };
        let all = of(&[1.0, 2.0, 5.0]);
        if all.len() > 7 { of(&[1.0]) } else { all }
    }
}

/// The mark of a number of workers, each of another form.
fn mark(workers: usize, x: f64, y: f64) -> String {
    let polygon = |points: &[(f64, f64)]| {
        let points: Vec<_> = points.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!("<polygon class=\"w{workers}\" points=\"{}\"/>", points.join(" "))
    };
    match workers {
        1 => format!("<circle class=\"w1\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>"),
        2 => format!("<rect class=\"w2\" x=\"{:.1}\" y=\"{:.1}\" width=\"6\" height=\"6\"/>", x - 3.0, y - 3.0),
        4 => polygon(&[(0.0, -4.2), (3.9, 3.2), (-3.9, 3.2)]),
        _ => polygon(&[(0.0, -4.4), (4.0, 0.0), (0.0, 4.4), (-4.0, 0.0)]),
    }
}

fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
}

/// A count or a figure, short: 1, 100, 10k, 1M.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}

fn panel(out: &mut String, curves: &[&Curve], left: f64, top: f64) {
    let (x0, x1) = (left + MARGIN.0, left + PANEL.0 - MARGIN.1);
    let (y0, y1) = (top + PANEL.1 - MARGIN.3, top + MARGIN.2);
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let counts = Axis::over(points().map(|(n, _)| *n as f64));
    let costs = Axis::over(points().flat_map(|(_, s)| [s.min, s.max]));
    let (Some(counts), Some(costs)) = (counts, costs) else { return };
    let x = |n: f64| x0 + counts.share(n) * (x1 - x0);
    let y = |cost: f64| y0 + costs.share(cost) * (y1 - y0);
    let (what, unit) = (curves[0].what, if curves[0].name == "echo" { "connections" } else { "tasks" });
    let _ = writeln!(
        out,
        "<text class=\"text\" font-size=\"12\" font-weight=\"600\" x=\"{x0:.1}\" y=\"{:.1}\">{what}</text>",
        top + 20.0
    );
    for tick in costs.ticks() {
        let at = y(tick);
        let _ = writeln!(
            out,
            "{}<text class=\"quiet\" font-size=\"11\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            line("grid", (x0, at), (x1, at)),
            x0 - 6.0,
            at + 4.0,
            short(tick)
        );
    }
    let mut numbers: Vec<usize> = points().map(|(n, _)| *n).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for n in numbers {
        let at = x(n as f64);
        let _ = writeln!(
            out,
            "{}<text class=\"quiet\" font-size=\"11\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            line("grid", (at, y0), (at, y1)),
            y0 + 14.0,
            short(n as f64)
        );
    }
    let _ = writeln!(
        out,
        "<text class=\"quiet\" font-size=\"11\" text-anchor=\"end\" x=\"{x1:.1}\" y=\"{:.1}\">{unit}</text>",
        y0 + 27.0
    );
    for curve in curves {
        let at: Vec<_> = curve.points.iter().map(|(n, s)| (x(*n as f64), *s)).collect();
        let path: Vec<_> = at.iter().map(|(x, s)| format!("{x:.1},{:.1}", y(s.median))).collect();
        let class = format!("w{}", curve.workers);
        let _ = writeln!(
            out,
            "<polyline class=\"{class}\" style=\"fill:none\" stroke-width=\"1.6\" points=\"{}\"/>",
            path.join(" ")
        );
        for (x, s) in at {
            let _ =
                writeln!(out, "{}{}", line(&class, (x, y(s.min)), (x, y(s.max))), mark(curve.workers, x, y(s.median)));
        }
    }
}

/// The drawing; nothing if there is no curve.
pub(crate) fn svg(results: &Results) -> Option<String> {
    let curves = results.curves();
    let mut panels: Vec<Vec<&Curve>> = Vec::new();
    for curve in &curves {
        match panels.last_mut() {
            Some(panel) if panel[0].name == curve.name => panel.push(curve),
            _ => panels.push(vec![curve]),
        }
    }
    if panels.is_empty() {
        return None;
    }
    let heads = heads(results);
    let width = PANEL.0 * COLUMNS as f64;
    let bottom = TOP + PANEL.1 * panels.len().div_ceil(COLUMNS) as f64;
    let mut out = head(width, bottom + 20.0 + 16.0 * heads.len() as f64);
    let mut x = 26.0;
    for workers in WORKERS.into_iter().filter(|n| curves.iter().any(|curve| curve.workers == *n)) {
        let text = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
        let _ = writeln!(
            out,
            "{}<text class=\"text\" x=\"{:.1}\" y=\"52\">{text}</text>",
            mark(workers, x, 47.5),
            x + 10.0
        );
        x += 100.0;
    }
    let _ = writeln!(
        out,
        "<text class=\"quiet\" x=\"{x:.1}\" y=\"52\">upright lines: least and greatest of the rounds. Least of all: {} ns</text>",
        figure(curves.iter().flat_map(|curve| &curve.points).map(|(_, s)| s.median).fold(f64::INFINITY, f64::min))
    );
    for (place, curves) in panels.iter().enumerate() {
        let (column, row) = (place % COLUMNS, place / COLUMNS);
        panel(&mut out, curves, PANEL.0 * column as f64, TOP + PANEL.1 * row as f64);
    }
    for (place, head) in heads.iter().enumerate() {
        let y = bottom + 20.0 + 16.0 * place as f64;
        let head = head.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(out, "<text class=\"quiet\" font-size=\"11\" x=\"16\" y=\"{y:.1}\">{head}</text>");
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn head(width: f64, height: f64) -> String {
    let rules = |dark: bool| {
        let rule =
            |(what, light, black): &(&str, &str, &str)| format!(".{what}{{{}}}", if dark { black } else { light });
        COLOURS.iter().map(rule).collect::<String>()
    };
    let (light, dark) = (rules(false), rules(true));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" role=\"img\">\n\
         <title>What an operation costs, by the number of tasks or connections</title>\n\
         <style>{light}@media (prefers-color-scheme:dark){{{dark}}}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"text\" font-size=\"15\" font-weight=\"600\" x=\"16\" y=\"26\">\
         ns of CPU for each operation, by the number of tasks or connections that exist</text>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{Axis, svg};
    use crate::results::Results;
    use crate::results::tests::run;

    #[test]
    fn an_axis_is_logarithmic_and_holds_everything() {
        let axis = Axis::over([1.0, 100.0].into_iter()).unwrap();
        assert!((axis.share(10.0) - 0.5).abs() < 1e-9, "10 is in the middle of 1 and 100");
        assert!(axis.share(1.0) > 0.0 && axis.share(100.0) < 1.0);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let narrow = Axis::over([10.0, 11.0].into_iter()).unwrap();
        assert!(narrow.high / narrow.low > 3.99, "noise would look like a cliff");
        assert!(Axis::over([0.0].into_iter()).is_none());
    }

    #[test]
    fn every_point_that_was_measured_is_drawn() {
        assert!(svg(&Results::default()).is_none(), "drew what was not measured");
        let results = Results { runs: vec![run(100, 0, 10.0), run(1000, 0, 20.0)], ..Results::default() };
        let drawing = svg(&results).unwrap();
        // Two points and the legend.
        assert_eq!(drawing.matches("<circle class=\"w1\"").count(), 3);
        assert!(drawing.contains(">yield</text>") && !drawing.contains(">sleep"), "{drawing}");
    }
}
