//! A run as a picture: memory and connections over time, and what happened when.

use std::fmt::Write as _;

use crate::chaos::Act;
use crate::report::{Run, Sample};

const LEFT: f64 = 20.0;
const RIGHT: f64 = 100.0;
const TOP: f64 = 30.0;
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 220.0;
/// Of a row of marks.
const ROW: f64 = 16.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f } .small { font-size: 10px }
.axis { stroke: #d0d7de } .memory { stroke: #1f6feb; fill: none } .open { stroke: #9aa4af; fill: none }
text.memory { stroke: none; fill: #1f6feb } text.open { stroke: none; fill: #6e7781 } .mark { stroke: #bc4c00; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .axis { stroke: #30363d } .memory { stroke: #58a6ff } .open { stroke: #8b949e }
  text.memory { fill: #58a6ff } text.open { fill: #8b949e } .mark { stroke: #f0883e }
}";

/// What is drawn of a sample.
type Curve = fn(&Sample) -> f64;

/// The picture of a run.
pub(crate) fn svg(run: &Run) -> String {
    let end = run.samples.last().map_or(1, |sample| sample.at.max(1)) as f64;
    let x = |at: u64| LEFT + at as f64 / end * WIDTH;
    let (bottom, rows) = (TOP + HEIGHT, Act::ALL.len() as f64);
    let (width, height) = (LEFT + WIDTH + RIGHT, bottom + 24.0 + rows * ROW + 8.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>Memory and open connections over time</title>\n<style>{STYLE}</style>\n"
    );
    let curves: [(&str, &str, Curve); 2] = [
        ("memory", "MiB of memory", |it| it.memory as f64 / 1024.0 / 1024.0),
        ("open", "open connections", |it| it.open as f64),
    ];
    for (nth, (class, what, of)) in curves.into_iter().enumerate() {
        let most = run.samples.iter().map(of).fold(1.0, f64::max);
        let points = run.samples.iter().map(|it| format!("{:.1},{:.1}", x(it.at), bottom - of(it) / most * HEIGHT));
        let points: Vec<_> = points.collect();
        let _ = writeln!(
            svg,
            "<polyline class=\"{class}\" points=\"{}\"/>\n<text class=\"{class}\" x=\"{}\" y=\"{}\">\
             0 to {most:.0} {what}</text>",
            points.join(" "),
            LEFT + nth as f64 * WIDTH / 3.0,
            TOP - 12.0
        );
    }
    let right = LEFT + WIDTH;
    let _ = writeln!(svg, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    for minute in 0..=(end / 60e3) as u64 {
        let at = x(minute * 60_000);
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{minute} min</text>",
            bottom + 14.0
        );
    }
    for (row, (act, name)) in Act::ALL.iter().enumerate() {
        let y = bottom + 24.0 + row as f64 * ROW;
        let _ = writeln!(svg, "<text class=\"small\" x=\"{}\" y=\"{}\">{name}</text>", right + 5.0, y + 10.0);
        for (at, _) in run.acts.iter().filter(|(_, it)| it == act) {
            let at = x(*at);
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{y}\" y2=\"{}\"/>",
                y + ROW - 5.0
            );
        }
    }
    svg + "</svg>\n"
}
