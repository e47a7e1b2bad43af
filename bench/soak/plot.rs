//! A run as a picture: memory and connections over time, and what happened when.

use std::fmt::Write as _;

use crate::chaos::Act;
use crate::report::{Run, Sample};

const LEFT: f64 = 60.0;
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
    for (class, end, of) in [
        ("memory", LEFT, (|it| it.memory as f64 / 1024.0 / 1024.0) as fn(&Sample) -> f64),
        ("open", LEFT + WIDTH, |it| it.open as f64),
    ] {
        let most = run.samples.iter().map(of).fold(1.0, f64::max);
        let points = run.samples.iter().map(|it| format!("{:.1},{:.1}", x(it.at), bottom - of(it) / most * HEIGHT));
        let points: Vec<_> = points.collect();
        let (title, anchor) =
            if class == "memory" { (format!("{most:.0} MiB"), "end") } else { (format!("{most:.0} open"), "start") };
        let beside = if anchor == "end" { end - 5.0 } else { end + 5.0 };
        let _ = writeln!(
            svg,
            "<polyline class=\"{class}\" points=\"{}\"/>\n<text class=\"{class} small\" x=\"{beside}\" y=\"{}\" \
             text-anchor=\"{anchor}\">{title}</text>",
            points.join(" "),
            TOP + 4.0
        );
    }
    let _ =
        writeln!(svg, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\"/>", LEFT + WIDTH);
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
        let _ = writeln!(svg, "<text class=\"small\" x=\"{}\" y=\"{}\">{name}</text>", LEFT + WIDTH + 5.0, y + 10.0);
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
