//! One page about a run: what ended and by whom, what came and what did not, and whether all is well.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::chaos::Act;
use crate::chat::Heard;
use crate::ledger::{Ends, Kind, Who, Wrong};

/// The proxy at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Milliseconds of the run.
    pub(crate) at: u64,
    /// Bytes that are its own.
    pub(crate) memory: u64,
    /// Processes that share them: two while one hands over.
    pub(crate) processes: usize,
    /// What is open.
    pub(crate) open: usize,
}

/// All that is known of a run.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) connections: usize,
    pub(crate) minutes: f64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) acts: Vec<(u64, Act)>,
    pub(crate) ends: Ends,
    pub(crate) messages: u64,
    pub(crate) wrong: (Wrong, Vec<String>),
    pub(crate) heard: Heard,
    /// Gauges that should be zero in the end.
    pub(crate) gauges: Vec<(&'static str, f64)>,
    pub(crate) complaints: BTreeMap<String, u64>,
    /// Whether the proxy has ended with exit code 0.
    pub(crate) has_ended_well: bool,
}

/// How memory went: its median, its peak, and how it grows in a minute, all in bytes.
struct Memory {
    median: f64,
    peak: u64,
    slope: f64,
}

impl Run {
    /// What is wrong with it, in words; nothing if all is well.
    pub(crate) fn faults(&self) -> Vec<String> {
        // What a leak must exceed to be told from the noise of allocators.
        const GROWTH_SHARE_MAX: f64 = 0.15;
        const GROWTH_BYTES_MAX: f64 = 8.0 * 1024.0 * 1024.0;
        let (wrong, memory) = (self.wrong.0, self.memory());
        let grown = memory.slope * self.minutes;
        let counts = [
            (self.ends.unexplained.len() as u64, "connections ended without a reason"),
            (wrong.lost + self.ends.left_behind, "messages lost"),
            (wrong.doubled, "messages doubled or out of order"),
            (wrong.altered, "messages altered"),
            (self.heard.wrong.len() as u64, "messages of Socket.IO shown wrongly"),
            (u64::from(self.messages == 0 || self.heard.said == 0), "kinds of clients that had nothing to check"),
            (u64::from(grown > GROWTH_BYTES_MAX.max(memory.median * GROWTH_SHARE_MAX)), "memory curves that rise"),
            (self.gauges.iter().filter(|(_, value)| *value != 0.0).count() as u64, "gauges not back to zero"),
            (u64::from(self.complaints.keys().any(|it| it.contains("panicked"))), "panics"),
            (u64::from(!self.has_ended_well), "proxies that did not end well"),
        ];
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }

    fn memory(&self) -> Memory {
        // The first part of a run, in which all caches fill, and moments with two processes tell nothing.
        let skipped = self.samples.len() / 5;
        let alone: Vec<_> = self.samples.iter().skip(skipped).filter(|it| it.processes == 1).collect();
        let mut sorted: Vec<_> = alone.iter().map(|it| it.memory).collect();
        sorted.sort_unstable();
        let points: Vec<_> = alone.iter().map(|it| (it.at as f64 / 60e3, it.memory as f64)).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len().max(1) as f64;
        let (x, y) = (mean(|it| it.0), mean(|it| it.1));
        let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), point| {
            (over + (point.0 - x) * (point.1 - y), under + (point.0 - x).powi(2))
        });
        Memory {
            median: sorted.get(sorted.len() / 2).copied().unwrap_or_default() as f64,
            peak: self.samples.iter().map(|it| it.memory).max().unwrap_or_default(),
            slope: if under > 0.0 { over / under } else { 0.0 },
        }
    }

    /// The page, as Markdown.
    pub(crate) fn page(&self) -> String {
        let mut page = String::new();
        let faults = self.faults();
        let verdict =
            if faults.is_empty() { "Nothing was lost.".to_owned() } else { format!("**{}**", faults.join("; ")) };
        let _ = writeln!(
            page,
            "# Soak: {} connections for {:.1} minutes, seed {}\n\n{verdict}\n\n![memory, connections and what happened](soak.svg)\n",
            self.connections, self.minutes, self.seed
        );
        let acts: Vec<_> = Act::ALL.map(|(act, name)| format!("{} {name}", self.count(act))).into();
        let _ = writeln!(page, "What happened: {}.\n", acts.join(", "));
        self.write_ends(&mut page);
        self.write_messages(&mut page);
        let memory = self.memory();
        let mib = |bytes: f64| bytes / 1024.0 / 1024.0;
        let _ = writeln!(
            page,
            "Memory: {:.1} MiB (median), {:.1} MiB at most, with two processes; {:+.2} MiB a minute.\n",
            mib(memory.median),
            mib(memory.peak as f64),
            mib(memory.slope)
        );
        let gauges: Vec<_> = self.gauges.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
        let _ = writeln!(page, "Gauges in the end: {}.\n", gauges.join(", "));
        let _ = writeln!(page, "| log | times |\n|---|--:|");
        for (complaint, times) in &self.complaints {
            let _ = writeln!(page, "| {} | {times} |", complaint.replace('|', "\\|"));
        }
        self.write_details(&mut page);
        page
    }

    fn count(&self, act: Act) -> usize {
        self.acts.iter().filter(|(_, it)| *it == act).count()
    }

    fn write_ends(&self, page: &mut String) {
        let names: Vec<_> = Who::ALL.iter().map(|(_, name)| *name).collect();
        let _ = writeln!(page, "| ended | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len()));
        for kind in [Kind::WebSocket, Kind::Stream, Kind::Poll] {
            let count = |(who, _)| self.ends.counts.get(&(kind, who)).copied().unwrap_or_default().to_string();
            let _ = writeln!(page, "| {} | {} |", kind.name(), Who::ALL.map(count).join(" | "));
        }
    }

    fn write_messages(&self, page: &mut String) {
        let (wrong, heard) = (self.wrong.0, &self.heard);
        let _ = writeln!(
            page,
            "\n| messages | came | lost | doubled or out of order | altered |\n|---|--:|--:|--:|--:|\n\
             | WebSockets, events, polls | {} | {} | {} | {} |\n\
             | Socket.IO, {} clients, {} connections | {} | {} | | |\n\n\
             Under way when a connection was ended for a reason above, and so no loss: {}.\n",
            self.messages,
            wrong.lost + self.ends.left_behind,
            wrong.doubled,
            wrong.altered,
            heard.clients,
            heard.connects,
            heard.said * heard.clients as u64,
            heard.wrong.len(),
            self.ends.cut_off
        );
    }

    fn write_details(&self, page: &mut String) {
        const SHOWN: usize = 20;
        let details = [&self.ends.unexplained, &self.wrong.1, &self.heard.wrong];
        for detail in details.into_iter().flat_map(|details| details.iter().take(SHOWN)) {
            let _ = write!(page, "\n- {detail}");
        }
    }
}
