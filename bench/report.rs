//! From figures to a table in Markdown.

use std::fmt::Write;
use std::fs;

use crate::proxies::Proxy;
use crate::scenario::{Goal, Row, Scenario, Unit};

/// The figures of one scenario: of every round, of every proxy that was not left out.
pub(crate) struct Figures {
    /// What they are of.
    pub(crate) scenario: &'static Scenario,
    rounds: Vec<Round>,
}

/// One round: which proxy showed what, in the order of the scenario's rows.
type Round = Vec<(Proxy, Vec<f64>)>;

impl Figures {
    /// None yet.
    pub(crate) fn of(scenario: &'static Scenario) -> Self {
        Self { scenario, rounds: Vec::new() }
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// What `of_round` makes of each round, where it can, in ascending order.
    fn sorted(&self, of_round: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(of_round).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn values(&self, row: usize, proxy: Proxy) -> Vec<f64> {
        self.sorted(|round| value(round, row, proxy))
    }

    /// The middle of the ratios of one proxy to another, each in the same round.
    fn ratio_to(&self, other: Proxy, row: usize, proxy: Proxy) -> Option<f64> {
        median(&self.sorted(|round| Some(value(round, row, proxy)? / value(round, row, other)?)))
    }

    /// The ratio to nginx.
    pub(crate) fn ratio(&self, row: usize, proxy: Proxy) -> Option<f64> {
        self.ratio_to(Proxy::Nginx, row, proxy)
    }

    /// Steadfast beside the better of nginx and HAProxy: the larger of its two ratios. Not its ratio to
    /// whoever was better in each round: where two are alike, that one had luck.
    fn ratio_to_best(&self, row: usize) -> Option<f64> {
        let to = |other| self.ratio_to(other, row, Proxy::Steadfast);
        Some(to(Proxy::Nginx)?.max(to(Proxy::Haproxy)?))
    }

    /// The figure in the middle of all rounds.
    pub(crate) fn middle(&self, row: usize, proxy: Proxy) -> Option<f64> {
        median(&self.values(row, proxy))
    }

    fn cell(&self, row: usize, unit: Unit, proxy: Proxy) -> String {
        if !self.scenario.concerns(proxy) {
            return "–".to_owned();
        }
        let Some(middle) = self.middle(row, proxy) else {
            return "failed".to_owned();
        };
        match (unit, self.ratio(row, proxy)) {
            (Unit::Microseconds, Some(ratio)) => format!("{ratio:.2} ({middle:.1} µs)"),
            (Unit::Connections, _) => with_commas(self.values(row, proxy).iter().sum()),
            _ => unit.show(middle),
        }
    }

    /// The goal, and whether Steadfast reached it.
    fn goal(&self, index: usize, row: &Row) -> String {
        let values = self.values(index, Proxy::Steadfast);
        let shown = |value: f64| row.unit.show(value);
        let (goal, verdict) = match row.goal {
            Goal::AtMost(most) => {
                // Nothing may ever be lost, so there the worst round counts.
                let value = match row.unit {
                    Unit::Connections => values.last().copied(),
                    _ => median(&values),
                };
                (format!("≤ {}", shown(most)), value.map(|value| value <= most))
            }
            Goal::AtLeast(least) => (format!("≥ {}", shown(least)), median(&values).map(|value| value >= least)),
            Goal::TimesBest(most) => {
                let ratio = self.ratio_to_best(index);
                let reached = ratio.map_or(String::new(), |ratio| format!(", is {ratio:.2}"));
                (format!("≤ {most:.2} × best{reached}"), ratio.map(|ratio| ratio <= most))
            }
            Goal::None => return String::new(),
        };
        match verdict {
            Some(true) => format!("{goal}: met"),
            Some(false) => format!("{goal}: **missed**"),
            None => goal,
        }
    }
}

fn value(round: &Round, row: usize, proxy: Proxy) -> Option<f64> {
    let (_, figures) = round.iter().find(|(of, _)| *of == proxy)?;
    figures.get(row).copied()
}

/// The middle of ascending values; the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some((sorted[low] + sorted[high]) / 2.0)
}

impl Unit {
    /// The value as it stands in the table.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => format!("{} B", with_commas(value)),
            Self::Percent => format!("{value:.0} %"),
            Self::Core => format!("{value:.2} %"),
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Connections => with_commas(value),
        }
    }
}

/// A whole number, its thousands apart.
pub(crate) fn with_commas(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value <= -0.5 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The whole table.
pub(crate) fn table(figures: &[Figures], proxies: &[Proxy]) -> String {
    let mut text = String::from("|");
    for proxy in proxies {
        let _ = write!(text, " | {}", proxy.name());
    }
    text.push_str(" | goal for Steadfast |\n|---|");
    text.push_str(&"--:|".repeat(proxies.len()));
    text.push_str("---|\n");
    for figures in figures {
        for (index, row) in figures.scenario.rows.iter().enumerate() {
            let _ = write!(text, "| {}", row.title);
            for proxy in proxies {
                let _ = write!(text, " | {}", figures.cell(index, row.unit, *proxy));
            }
            let _ = writeln!(text, " | {} |", figures.goal(index, row));
        }
    }
    text
}

/// The machine, in a few words.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!("{cores} cores{}, Linux {kernel}", model.replacen("\t: ", " of ", 1))
}
