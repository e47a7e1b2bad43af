//! What operators ask of the process while it runs, from wherever: signals, the admin address, the
//! command line. One desk takes it all, so that nothing happens at the same time as anything else. How far
//! it has got stands on a board, which can be read while the desk is busy, or closed.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::config::{Rebalance, State};
use crate::relay::departures::DrainId;
use crate::upstream::Server;

/// What is asked.
#[derive(Debug)]
pub enum Command {
    /// To read the configuration file again, and to put it in force.
    Reload(oneshot::Sender<Reloaded>),
    /// To have relays leave, and sessions too where it is about a server.
    Drain(Target, Pace, oneshot::Sender<Result<Progress, NoTarget>>),
    /// To let those stay that have not left, and let in whoever comes.
    Undrain(Target, oneshot::Sender<Result<(), NoTarget>>),
    /// To put a state in the place of that in the file, or the other way round.
    State(ServerOf, Option<State>, oneshot::Sender<Result<(), NoTarget>>),
    /// To put a weight in the place of that in the file, or the other way round.
    Weight(ServerOf, Option<NonZeroU32>, oneshot::Sender<Result<(), NoTarget>>),
    /// To tell which relays of the upstream of this name would move, and where to.
    Plan(String, oneshot::Sender<Result<Plan, NoTarget>>),
    /// To have the relays of the upstream of this name move until all are where they belong, or to stop that.
    Rebalance(String, Moves, oneshot::Sender<Result<Plan, NoTarget>>),
}

/// Which relays of an upstream are with another server than the one where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub upstream: String,
    /// Its relays.
    pub relays: usize,
    /// Those of them that would move.
    pub strays: usize,
    /// Percent of its relays that move in a minute; `None` when none does.
    pub per_minute: Option<u32>,
    /// Whether an operator has said so.
    pub is_ordered: bool,
    /// From which server to which one, and how many; `None`: to any other.
    pub moves: Vec<(String, Option<String>, usize)>,
}

/// What an operator wants of the relays that are elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// So many percent of all relays move in a minute, 1 to 100; `None`: as many as the file says, or else
    /// [`Rebalance::default`].
    Begin(Option<u32>),
    /// Only what the file says.
    Stop,
}

/// A server of an upstream, by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOf {
    /// The upstream's.
    pub upstream: String,
    /// Its own.
    pub server: String,
}

/// What is to be drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Everything that is there now.
    Process,
    /// All relays that an upstream has now; their clients come back to it.
    Upstream(String),
    /// A server: nobody new comes there either.
    Server(ServerOf),
}

impl Target {
    /// Whether it is one server.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("the process"),
            Self::Upstream(name) => write!(f, "upstream {name}"),
            Self::Server(ServerOf { upstream, server }) => write!(f, "server {server} of upstream {upstream}"),
        }
    }
}

/// How fast something is drained; where nothing is said the file counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Over what time ends are spread.
    pub spread: Option<Duration>,
    /// How long it may take in all.
    pub timeout: Option<Duration>,
}

/// How far a drain has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is drained.
    pub target: Target,
    /// How long it has taken so far.
    pub elapsed: Duration,
    /// Over what time ends are spread.
    pub spread: Duration,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Exchanges and relays when it began.
    pub open_before: usize,
    /// Those there are now; of an upstream or the process also those that have begun since.
    pub open: usize,
    /// Whether nobody is left, or the time is over.
    pub is_over: bool,
}

/// A drain, for as long as it goes on or has not been undone.
#[derive(Clone, Debug)]
pub struct Underway {
    /// Names it among all drains of the process.
    pub id: DrainId,
    /// What is drained.
    pub target: Target,
    /// When it began.
    pub began: Instant,
    /// Over what time ends are spread.
    pub spread: Duration,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Exchanges and relays when it began.
    pub open_before: usize,
    /// Whose connections are counted.
    pub servers: Vec<Arc<Server>>,
    /// The server is none of its upstream's any more, so nobody can send clients there, or undo it.
    pub is_of_removed: bool,
    /// Whether nobody is left, or the time is over.
    pub is_over: bool,
}

impl Underway {
    /// How far it has got.
    pub fn progress(&self) -> Progress {
        Progress {
            target: self.target.clone(),
            elapsed: self.began.elapsed(),
            spread: self.spread,
            timeout: self.timeout,
            open_before: self.open_before,
            open: self.servers.iter().map(|server| server.connections()).sum(),
            is_over: self.is_over,
        }
    }
}

/// How far it is with an upstream whose relays move to where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalanced {
    /// At which pace.
    pub pace: Rebalance,
    /// Whether an operator has said so, until none strays.
    pub is_ordered: bool,
    /// How many strayed when that was looked at last; no more than move at once are counted.
    pub strays: usize,
}

/// What everybody may read of what has been asked.
#[derive(Debug, Default)]
pub struct Board {
    /// The drains there are, as they came.
    pub drains: ArcSwap<Vec<Underway>>,
    /// The upstreams that are rebalanced, by name.
    pub rebalanced: ArcSwap<AHashMap<String, Rebalanced>>,
}

/// There is nothing of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {target}; there are {}", known.join(", "))]
pub struct NoTarget {
    /// What was looked for.
    pub target: Target,
    /// The names that there are: of upstreams, or of the servers of this one.
    pub known: Vec<String>,
}

/// What became of a new configuration: what it changes, one line each; or why nothing has changed.
pub type Reloaded = Result<Vec<String>, String>;

/// Where commands are given.
#[derive(Clone, Debug)]
pub struct Desk {
    commands: mpsc::Sender<Command>,
    /// What has come of them.
    pub board: Arc<Board>,
}

/// Commands that may wait for their turn.
const WAITING_MAX: usize = 16;

/// The desk is closed, or has too much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process is stopping, or has too many commands to obey already")]
pub struct Closed;

impl Desk {
    /// A desk, and what is given there, in order.
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { commands: sender, board: Arc::default() }, receiver)
    }

    /// Has the configuration file read again.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn reload(&self) -> Result<Reloaded, Closed> {
        self.ask(Command::Reload).await
    }

    /// Has `target` drained, and says how that begins.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn drain(&self, target: Target, pace: Pace) -> Result<Result<Progress, NoTarget>, Closed> {
        self.ask(|reply| Command::Drain(target, pace, reply)).await
    }

    /// Has `target` drained no more.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn undrain(&self, target: Target) -> Result<Result<(), NoTarget>, Closed> {
        self.ask(|reply| Command::Undrain(target, reply)).await
    }

    /// Has a server be in `state`, whatever the file says; `None`: as the file says.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn state(&self, server: ServerOf, state: Option<State>) -> Result<Result<(), NoTarget>, Closed> {
        self.ask(|reply| Command::State(server, state, reply)).await
    }

    /// Has a server have this weight, whatever the file says; `None`: as the file says.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn weight(&self, server: ServerOf, weight: Option<NonZeroU32>) -> Result<Result<(), NoTarget>, Closed> {
        self.ask(|reply| Command::Weight(server, weight, reply)).await
    }

    /// The drains there are, and those that are over and not undone.
    pub fn drains(&self) -> Vec<Progress> {
        self.board.drains.load().iter().map(Underway::progress).collect()
    }

    /// What would move in the upstream of this name.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn plan(&self, upstream: String) -> Result<Result<Plan, NoTarget>, Closed> {
        self.ask(|reply| Command::Plan(upstream, reply)).await
    }

    /// Has relays of the upstream of this name move, or not any more, and says which would now.
    ///
    /// # Errors
    /// When nobody obeys any more.
    pub async fn rebalance(&self, upstream: String, moves: Moves) -> Result<Result<Plan, NoTarget>, Closed> {
        self.ask(|reply| Command::Rebalance(upstream, moves, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}
