//! From figures to a picture: what each proxy takes, as a ratio to nginx in the same round.
//!
//! Plain SVG, which has its own colours for dark pages: nobody needs a program to see it.

use std::fmt::Write;

use crate::proxies::Proxy;
use crate::report::Figures;
use crate::scenario::Unit;

/// Widths of the titles, of a ratio of 1, and of the numbers behind the bars.
const TITLE: f64 = 330.0;
const ONE: f64 = 200.0;
const NUMBER: f64 = 60.0;
/// The largest ratio that has a bar as long as it should be; beyond, only the number tells.
const RATIO_MAX: f64 = 2.0;
/// Heights of a bar, of the space between two rows, and of what stands above the first.
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;
const TOP: f64 = 44.0;

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.haproxy { fill: #9aa4af } .steadfast { fill: #1f6feb }
.nginx { stroke: #57606a; stroke-dasharray: 3 3 } .small { font-size: 10px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .haproxy { fill: #6e7681 } .steadfast { fill: #58a6ff } .nginx { stroke: #8b949e }
}";

/// The picture of every row that nginx has a figure in.
pub(crate) fn svg(figures: &[Figures], machine: &str) -> String {
    let rows: Vec<_> = figures.iter().flat_map(rows_of).collect();
    let height = TOP + rows.iter().map(Bars::height).sum::<f64>() + GAP;
    let width = TITLE + RATIO_MAX * ONE + NUMBER;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>Steadfast and HAProxy as ratios to nginx</title>\n\
         <style>{STYLE}</style>\n"
    );
    let _ = writeln!(
        svg,
        "<text x=\"0\" y=\"14\">Ratio to nginx; shorter is better</text>\n\
         <rect class=\"steadfast\" x=\"{TITLE}\" y=\"5\" width=\"{BAR}\" height=\"{BAR}\"/>\
         <text x=\"{}\" y=\"14\">Steadfast</text>\n\
         <rect class=\"haproxy\" x=\"{}\" y=\"5\" width=\"{BAR}\" height=\"{BAR}\"/>\
         <text x=\"{}\" y=\"14\">HAProxy</text>\n\
         <text x=\"0\" y=\"30\" class=\"small\">{}</text>",
        TITLE + 14.0,
        TITLE + 90.0,
        TITLE + 104.0,
        escaped(machine)
    );
    let mut y = TOP;
    for row in &rows {
        row.draw(&mut svg, y);
        y += row.height();
    }
    let one = TITLE + ONE;
    let _ = writeln!(
        svg,
        "<line class=\"nginx\" x1=\"{one}\" x2=\"{one}\" y1=\"{}\" y2=\"{y}\"/>\
         <text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" class=\"small\">nginx</text>\n</svg>",
        TOP - 6.0,
        TOP - 9.0
    );
    svg
}

/// One row: a title, and a bar for each proxy that has a figure.
struct Bars {
    title: &'static str,
    bars: Vec<(&'static str, f64)>,
}

fn rows_of(figures: &Figures) -> impl Iterator<Item = Bars> {
    figures.scenario.rows.iter().enumerate().filter_map(|(index, row)| {
        let has_ratio = matches!(row.unit, Unit::Bytes | Unit::Microseconds);
        let of = |(proxy, class)| Some((class, figures.ratio(index, proxy)?));
        let bars: Vec<_> =
            [(Proxy::Steadfast, "steadfast"), (Proxy::Haproxy, "haproxy")].into_iter().filter_map(of).collect();
        (has_ratio && !bars.is_empty()).then_some(Bars { title: row.title, bars })
    })
}

impl Bars {
    fn height(&self) -> f64 {
        BAR * self.bars.len() as f64 + GAP
    }

    fn draw(&self, svg: &mut String, top: f64) {
        let middle = top + (self.height() - GAP) / 2.0 + 4.0;
        let _ = writeln!(svg, "<text x=\"0\" y=\"{middle}\">{}</text>", escaped(self.title));
        for (at, (class, ratio)) in self.bars.iter().enumerate() {
            let y = top + BAR * at as f64;
            let length = ratio.clamp(0.0, RATIO_MAX) * ONE;
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{TITLE}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" class=\"small\">{ratio:.2}</text>",
                BAR - 1.0,
                TITLE + length + 5.0,
                y + BAR - 1.0
            );
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
