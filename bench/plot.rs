//! From figures to two pictures: what each proxy takes as a ratio to nginx in the same round, and how
//! many bytes a connection costs.
//!
//! Plain SVG, which has its own colours for dark pages: nobody needs a program to see it.

use std::fmt::Write;

use crate::proxies::Proxy;
use crate::report::{Figures, with_commas};
use crate::scenario::Unit;

/// Widths of the titles, of the longest bar, and of the numbers behind the bars.
const TITLE: f64 = 330.0;
const LONGEST: f64 = 400.0;
const NUMBER: f64 = 60.0;
/// Heights of a bar, of the space between two rows, and of what stands above the first.
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;
const TOP: f64 = 44.0;

/// Colours that people tell apart who see fewer of them (Okabe and Ito, 2008).
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.steadfast { fill: #0072b2 } .nginx { fill: #57606a } .haproxy { fill: #e69f00 } .envoy { fill: #cc79a7 } .caddy { fill: #009e73 }
.bare { fill: #d0d7de }
.one { stroke: #57606a; stroke-dasharray: 3 3 } .small { font-size: 10px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .steadfast { fill: #56b4e9 } .nginx { fill: #8b949e } .one { stroke: #8b949e } .bare { fill: #484f58 }
}";

/// In each row, from above.
const ORDER: [Proxy; 6] = [Proxy::Bare, Proxy::Steadfast, Proxy::Nginx, Proxy::Haproxy, Proxy::Envoy, Proxy::Caddy];

/// The ratios to nginx of every row that nginx has a figure in. Beyond 2 only the number tells.
pub(crate) fn ratios(figures: &[Figures], machine: &str) -> String {
    const MAX: f64 = 2.0;
    let is_ratio = |unit| matches!(unit, Unit::Bytes | Unit::Microseconds);
    let of = |figures: &Figures, row, proxy| figures.ratio(row, proxy).filter(|_| proxy != Proxy::Nginx);
    let picture = Picture {
        title: "Ratio to nginx; shorter is better",
        rows: rows(figures, is_ratio, of),
        most: MAX,
        shown: |ratio| format!("{ratio:.2}"),
    };
    let mut svg = picture.draw(machine);
    let (one, bottom) = (TITLE + LONGEST / MAX, picture.height() - GAP);
    let _ = writeln!(
        svg,
        "<line class=\"one\" x1=\"{one}\" x2=\"{one}\" y1=\"{}\" y2=\"{bottom}\"/>\
         <text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" class=\"small\">nginx</text>",
        TOP - 1.0,
        TOP - 3.0
    );
    svg + "</svg>\n"
}

/// The bytes of user space that a connection costs.
pub(crate) fn memory(figures: &[Figures], machine: &str) -> String {
    let rows = rows(figures, |unit| matches!(unit, Unit::Bytes), Figures::middle);
    let picture = Picture {
        title: "Bytes of user space per connection; shorter is better",
        most: rows.iter().flat_map(|row| &row.bars).map(|(_, bytes)| *bytes).fold(1.0, f64::max),
        rows,
        shown: with_commas,
    };
    picture.draw(machine) + "</svg>\n"
}

/// One row: a title, and a bar for each proxy that has a figure.
struct Row {
    title: &'static str,
    bars: Vec<(Proxy, f64)>,
}

fn rows(
    figures: &[Figures],
    is_drawn: impl Fn(Unit) -> bool,
    of: impl Fn(&Figures, usize, Proxy) -> Option<f64>,
) -> Vec<Row> {
    let mut all = Vec::new();
    for figures in figures {
        for (index, row) in figures.scenario.rows.iter().enumerate().filter(|(_, row)| is_drawn(row.unit)) {
            let bars = ORDER.into_iter().filter_map(|proxy| Some((proxy, of(figures, index, proxy)?)));
            all.push(Row { title: row.title, bars: bars.collect() });
        }
    }
    all.retain(|row| !row.bars.is_empty());
    all
}

impl Row {
    fn height(&self) -> f64 {
        BAR * self.bars.len() as f64 + GAP
    }
}

struct Picture {
    title: &'static str,
    rows: Vec<Row>,
    /// What the longest bar stands for.
    most: f64,
    shown: fn(f64) -> String,
}

impl Picture {
    fn height(&self) -> f64 {
        TOP + self.rows.iter().map(Row::height).sum::<f64>() + GAP
    }

    /// Everything but what only one picture has, and the end.
    fn draw(&self, machine: &str) -> String {
        let (width, height) = (TITLE + LONGEST + NUMBER, self.height());
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
             <text x=\"0\" y=\"14\">{0}</text>\n<text x=\"0\" y=\"30\" class=\"small\">{1}</text>\n",
            self.title,
            escaped(machine)
        );
        let present =
            ORDER.into_iter().filter(|of| self.rows.iter().any(|row| row.bars.iter().any(|(by, _)| by == of)));
        for (at, proxy) in present.enumerate() {
            const STEP: f64 = 88.0;
            let left = TITLE + STEP * at as f64;
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{left}\" y=\"5\" width=\"{BAR}\" height=\"{BAR}\"/>\
                 <text x=\"{}\" y=\"14\">{}</text>",
                proxy.class(),
                left + 14.0,
                proxy.name()
            );
        }
        let mut top = TOP;
        for row in &self.rows {
            self.draw_row(&mut svg, row, top);
            top += row.height();
        }
        svg
    }

    fn draw_row(&self, svg: &mut String, row: &Row, top: f64) {
        let middle = top + (row.height() - GAP) / 2.0 + 4.0;
        let _ = writeln!(svg, "<text x=\"0\" y=\"{middle}\">{}</text>", escaped(row.title));
        for (at, (proxy, value)) in row.bars.iter().enumerate() {
            let y = top + BAR * at as f64;
            let length = (value / self.most).clamp(0.0, 1.0) * LONGEST;
            let _ = writeln!(
                svg,
                "<rect class=\"{}\" x=\"{TITLE}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" class=\"small\">{}</text>",
                proxy.class(),
                BAR - 1.0,
                TITLE + length + 5.0,
                y + BAR - 1.0,
                (self.shown)(*value)
            );
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
