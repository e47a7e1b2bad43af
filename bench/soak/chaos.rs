//! Everything that goes wrong, and everything that operators do, at random from a seed.
//!
//! Two servers of each upstream always stay, so that nobody is ever refused for want of one.

use std::io;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::chat;
use crate::ledger::Ledger;
use crate::proxy::{Entry, Proxy};
use crate::servers::Server;

/// What has happened, for the plot and the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Kill,
    Drain,
    Reload,
    HandOver,
}

impl Act {
    /// All of them, and how they are called.
    pub(crate) const ALL: [(Self, &'static str); 4] = [
        (Self::Kill, "servers killed"),
        (Self::Drain, "servers drained"),
        (Self::Reload, "reloads"),
        (Self::HandOver, "hand-overs"),
    ];
}

/// Silence between two acts, in milliseconds.
const BETWEEN_MS: std::ops::Range<u64> = 2000..5000;
/// How long a server that was killed or drained is away, in milliseconds.
const AWAY_MS: std::ops::Range<u64> = 4000..12_000;
/// Servers that always stay.
const STAYING: usize = 2;

/// Who is away, and until when in milliseconds of the run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    No,
    Killed(u64),
    Drained(u64),
}

/// The servers, and what has been done to them.
pub(crate) struct Chaos {
    numbers: Vec<Server>,
    chat: Vec<chat::Server>,
    /// Of `numbers`, and then of `chat`.
    away: Vec<Away>,
    /// Weights of `numbers`; those without stand in no file.
    weights: Vec<Option<u32>>,
    random: Rng,
    /// What has happened, and when in milliseconds of the run.
    pub(crate) acts: Vec<(u64, Act)>,
}

impl Chaos {
    /// Of the servers of numbers the first three are in the file at first.
    pub(crate) fn new(numbers: Vec<Server>, chat: Vec<chat::Server>, random: Rng) -> Self {
        let away = vec![Away::No; numbers.len() + chat.len()];
        let weights = (0..numbers.len()).map(|at| (at < STAYING + 1).then_some(1)).collect();
        Self { numbers, chat, away, weights, random, acts: Vec::new() }
    }

    /// The servers as the file has them: those of numbers, and those of the chat.
    pub(crate) fn entries(&self) -> (Vec<Entry>, Vec<Entry>) {
        let entry = |name: &str, address, weight| Entry { name: name.to_owned(), address, weight };
        let numbers = self.numbers.iter().zip(&self.weights);
        (
            numbers.filter_map(|(it, weight)| Some(entry(&it.name, it.address, (*weight)?))).collect(),
            self.chat.iter().map(|it| entry(&it.name, it.address, 1)).collect(),
        )
    }

    /// Does something to `proxy` and its servers every few seconds, for so long.
    pub(crate) async fn reign(&mut self, proxy: &Proxy, ledger: &Ledger, time: Duration) -> io::Result<()> {
        let end = ledger.now() + time.as_millis() as u64;
        while ledger.now() < end {
            sleep(Duration::from_millis(self.random.u64(BETWEEN_MS))).await;
            let now = ledger.now();
            self.bring_back(proxy, now).await?;
            if let Some(act) = self.act(proxy, now).await? {
                self.acts.push((now, act));
            }
        }
        Ok(())
    }

    /// Has all servers as they should be.
    pub(crate) async fn settle(&mut self, proxy: &Proxy) -> io::Result<()> {
        self.bring_back(proxy, u64::MAX).await
    }

    async fn bring_back(&mut self, proxy: &Proxy, now: u64) -> io::Result<()> {
        for at in 0..self.away.len() {
            match self.away[at] {
                Away::Killed(until) if until <= now => match at.checked_sub(self.numbers.len()) {
                    None => self.numbers[at].come_back()?,
                    Some(at) => self.chat[at].come_back().await?,
                },
                Away::Drained(until) if until <= now => {
                    proxy.order("undrain", &self.target(at)).await?;
                }
                _ => continue,
            }
            self.away[at] = Away::No;
        }
        Ok(())
    }

    /// Does one thing, if the one that chance has chosen can be done.
    async fn act(&mut self, proxy: &Proxy, now: u64) -> io::Result<Option<Act>> {
        let until = now + self.random.u64(AWAY_MS);
        match self.random.u32(0..100) {
            0..30 => {
                let Some(at) = self.spare() else { return Ok(None) };
                match at.checked_sub(self.numbers.len()) {
                    None => self.numbers[at].kill().await,
                    Some(at) => self.chat[at].kill().await?,
                }
                self.away[at] = Away::Killed(until);
                Ok(Some(Act::Kill))
            }
            30..55 => {
                let Some(at) = self.spare() else { return Ok(None) };
                let mut order = self.target(at);
                order["spread"] = format!("{}s", self.random.u32(1..5)).into();
                proxy.order("drain", &order).await?;
                self.away[at] = Away::Drained(until);
                Ok(Some(Act::Drain))
            }
            55..85 => {
                self.change_weights();
                let (numbers, chat) = self.entries();
                proxy.reload(&numbers, &chat).await?;
                Ok(Some(Act::Reload))
            }
            _ => {
                proxy.hand_over().await?;
                // The next process knows of no drain.
                for away in &mut self.away {
                    if matches!(away, Away::Drained(_)) {
                        *away = Away::No;
                    }
                }
                Ok(Some(Act::HandOver))
            }
        }
    }

    /// A server joins, leaves, or gets another weight.
    fn change_weights(&mut self) {
        let joining: Vec<_> = (0..self.weights.len()).filter(|at| self.weights[*at].is_none()).collect();
        let leaving = self.spare().filter(|at| *at < self.numbers.len());
        match (self.random.u32(0..3), self.random.choice(joining), leaving) {
            (0, Some(at), _) => self.weights[at] = Some(1),
            (1, _, Some(at)) => self.weights[at] = None,
            _ => {
                let at = self.random.usize(0..self.weights.len());
                self.weights[at] = self.weights[at].map(|weight| weight % 3 + 1);
            }
        }
    }

    /// A server that can be spared, if there is one.
    fn spare(&mut self) -> Option<usize> {
        let there = |at: &usize| {
            let is_up = match at.checked_sub(self.numbers.len()) {
                None => self.numbers[*at].is_up() && self.weights[*at].is_some(),
                Some(at) => self.chat[at].is_up(),
            };
            is_up && self.away[*at] == Away::No
        };
        let all: Vec<_> = (0..self.away.len()).filter(there).collect();
        let (numbers, chat): (Vec<_>, Vec<_>) = all.into_iter().partition(|at| *at < self.numbers.len());
        let spare = [numbers, chat].into_iter().filter(|of| of.len() > STAYING).flatten();
        self.random.choice(spare.collect::<Vec<_>>())
    }

    /// What the admin address calls a server.
    fn target(&self, at: usize) -> Value {
        match at.checked_sub(self.numbers.len()) {
            None => json!({ "upstream": "numbers", "server": self.numbers[at].name }),
            Some(at) => json!({ "upstream": "chat", "server": self.chat[at].name }),
        }
    }
}
