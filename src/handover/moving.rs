//! Relays on their way between the channel and the workers of a process, in both directions.

use std::net::TcpStream;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::message::{self, DESCRIPTORS_PER_RELAY, Note};
use super::new::Taker;
use super::old::{Parcel, Resting};
use crate::connection::{self, Arrival, Frozen, Paused};
use crate::relay::inbox::Workers;
use crate::session_store::{Learned, SessionStore};

/// How long a worker may take to bring its relays to rest, or to have others rest. What one that is
/// stuck has stays with it.
const WORKER_WITHIN: Duration = Duration::from_secs(2);

/// A relay of this process at rest.
#[derive(Debug)]
pub struct AtRest {
    /// Whose it is, and on whose thread it would go on.
    worker: usize,
    paused: Paused,
}

impl Resting for AtRest {
    fn descriptors(&self) -> [BorrowedFd<'_>; DESCRIPTORS_PER_RELAY] {
        self.paused.descriptors()
    }

    fn handed_over(self) {
        self.paused.handed_over();
    }
}

/// Brings all relays to rest that can go.
pub async fn rest(workers: &Workers) -> Vec<Parcel<AtRest>> {
    let mut answers = Vec::new();
    for worker in 0..workers.count() {
        let (reply, answer) = oneshot::channel();
        let freeze = move || {
            tokio::spawn(async move {
                let frozen = connection::freeze_all().await.into_iter();
                let frozen: Vec<_> = frozen.map(|(paused, frozen)| (paused, message::encode(&frozen))).collect();
                for (paused, _) in reply.send(frozen).err().into_iter().flatten() {
                    paused.go_on(); // Nobody waits for them any more.
                }
            });
        };
        if workers.have_done(worker, freeze).await.is_ok() {
            answers.push((worker, answer));
        }
    }
    let mut parcels = Vec::new();
    for (worker, mut answer) in answers {
        let frozen = match timeout(WORKER_WITHIN, &mut answer).await {
            Ok(frozen) => frozen.unwrap_or_default(),
            Err(_) => {
                // From now on the worker keeps them; what it has said before this is still here.
                answer.close();
                answer.try_recv().unwrap_or_default()
            }
        };
        let frozen = frozen.into_iter();
        parcels.extend(frozen.map(|(paused, state)| Parcel { resting: AtRest { worker, paused }, state }));
    }
    parcels
}

/// Has them go on where they came from.
pub async fn go_on(workers: &Workers, resting: Vec<AtRest>) {
    have_each(workers, resting.into_iter().map(|it| (it.worker, it.paused)), Paused::go_on).await;
}

/// Does `what` with each on its worker's thread.
async fn have_each(workers: &Workers, paused: impl Iterator<Item = (usize, Paused)>, what: fn(Paused)) {
    let mut of_workers: Vec<Vec<Paused>> = (0..workers.count()).map(|_| Vec::new()).collect();
    for (worker, paused) in paused {
        of_workers[worker].push(paused);
    }
    for (worker, paused) in of_workers.into_iter().enumerate().filter(|(_, paused)| !paused.is_empty()) {
        let count = paused.len();
        if workers.have_done(worker, move || paused.into_iter().for_each(what)).await.is_err() {
            tracing::error!("worker {worker} is stuck: {count} relays are lost with it");
        }
    }
}

/// Relays of another process, at rest on the workers of this one. Dropped, they were never here.
#[derive(Debug)]
pub struct Arrivals<'a, F> {
    workers: &'a Workers,
    /// Where the connection belongs to that is to live on this worker.
    admit: F,
    /// What remembers who has issued which session.
    sessions: Arc<SessionStore>,
    /// What else is known of servers.
    notes: Vec<Note>,
    here: Vec<AtRest>,
    /// Which worker gets the next ones.
    next: usize,
}

impl<'a, F: Fn(usize, &Frozen) -> Arrival> Arrivals<'a, F> {
    /// None yet. `admit` says of each connection, and of the worker on which it is to live, where it
    /// belongs to.
    pub fn new(workers: &'a Workers, sessions: Arc<SessionStore>, admit: F) -> Self {
        Self { workers, sessions, admit, notes: Vec::new(), here: Vec::new(), next: 0 }
    }

    /// They are this process's now: has them go on. When it returns, each has had its first turn, so that
    /// whoever is looked for is found. What is left is what was noted of the process before.
    pub async fn go_on(self) -> Vec<Note> {
        have_each(self.workers, self.here.into_iter().map(|it| (it.worker, it.paused)), Paused::taken_over).await;
        for worker in 0..self.workers.count() {
            let (reply, turn) = oneshot::channel();
            // A task behind theirs.
            let queue = move || drop(tokio::spawn(async move { reply.send(()) }));
            if self.workers.have_done(worker, queue).await.is_ok() {
                let _ = timeout(WORKER_WITHIN, turn).await;
            }
        }
        self.notes
    }
}

/// What a worker needs to have a connection rest with it.
type Arriving = (usize, Frozen, [OwnedFd; DESCRIPTORS_PER_RELAY], Arrival);

impl<F: Fn(usize, &Frozen) -> Arrival> Taker for Arrivals<'_, F> {
    fn know(&mut self, sessions: &[Learned]) {
        self.sessions.inherit(sessions);
    }

    fn note(&mut self, notes: Vec<Note>) {
        self.notes.extend(notes);
    }

    async fn take(&mut self, arriving: Vec<(Frozen, [OwnedFd; DESCRIPTORS_PER_RELAY])>) -> Vec<usize> {
        let mut of_workers: Vec<Vec<Arriving>> = (0..self.workers.count()).map(|_| Vec::new()).collect();
        let mut refused: Vec<bool> = vec![true; arriving.len()];
        for (at, (frozen, sockets)) in arriving.into_iter().enumerate() {
            let worker = self.next;
            self.next = (worker + 1) % of_workers.len();
            let arrival = (self.admit)(worker, &frozen);
            of_workers[worker].push((at, frozen, sockets, arrival));
        }
        let mut answers = Vec::new();
        for (worker, arriving) in of_workers.into_iter().enumerate().filter(|(_, arriving)| !arriving.is_empty()) {
            let (reply, answer) = oneshot::channel();
            let thaw = move || {
                // When nobody waits for them any more, they are dropped, and the old process has them.
                let _ = reply.send(arriving.into_iter().filter_map(thaw).collect::<Vec<_>>());
            };
            if self.workers.have_done(worker, thaw).await.is_ok() {
                answers.push((worker, answer));
            }
        }
        for (worker, answer) in answers {
            let Ok(Ok(thawed)) = timeout(WORKER_WITHIN, answer).await else { continue };
            for (at, paused) in thawed {
                refused[at] = false;
                self.here.push(AtRest { worker, paused });
            }
        }
        refused.iter().enumerate().filter(|(_, refused)| **refused).map(|(at, _)| at).collect()
    }
}

/// Has one rest on this thread; `None` when its sockets cannot be waited for, which is said.
fn thaw((at, frozen, sockets, arrival): Arriving) -> Option<(usize, Paused)> {
    let client = frozen.relay.client_address();
    match Paused::thaw(frozen, sockets.map(TcpStream::from), arrival) {
        Ok(paused) => Some((at, paused)),
        Err(error) => {
            tracing::warn!("a relay of {client} stays with the old process: {error}");
            None
        }
    }
}
