//! The side that has the connections: gives all of them away, or none.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::channel::{Broken, Channel};
use super::message::{
    DESCRIPTORS_MAX, DESCRIPTORS_PER_RELAY, FromNew, FromOld, Hello, Knowledge, MESSAGE_BYTES_MAX, Note, SESSIONS_MAX,
    Socket, encode,
};
use super::{ANSWER_WITHIN, READY_WITHIN, REST_WITHIN};
use crate::session_store::Learned;

/// What has connections to give away.
pub trait Giver {
    /// A connection at rest.
    type Resting: Resting;

    /// What it knows and no file says.
    fn knowledge(&self) -> Knowledge;

    /// What is listened on, each with its descriptor.
    fn sockets(&self) -> Vec<(Socket, BorrowedFd<'_>)>;

    /// Who has issued which of the sessions that were used within this time, as far as only it knows.
    fn sessions(&self, used_within: Duration) -> impl Iterator<Item = Learned>;

    /// What it knows of servers, and no file says.
    fn notes(&self) -> Vec<Note>;

    /// Stops accepting, but closes no listening socket, and brings to rest every relay that can go.
    fn rest(&mut self) -> impl Future<Output = Vec<Parcel<Self::Resting>>>;

    /// Goes on with `resting` as if nothing had happened.
    fn go_on(&mut self, resting: Vec<Self::Resting>) -> impl Future<Output = ()>;

    /// Accepts connections again.
    fn accept_again(&mut self);

    /// Closes what it has listened on. The next process accepts at these addresses; what waits at others
    /// is this one's to serve.
    fn accept_no_more(&mut self, elsewhere: &[SocketAddr]);
}

/// A connection at rest.
pub trait Resting: Send {
    /// Its sockets, the client's first.
    fn descriptors(&self) -> [BorrowedFd<'_>; DESCRIPTORS_PER_RELAY];

    /// Closes them, and shuts nothing down: another process has the connection.
    fn handed_over(self);
}

/// A connection at rest, and its state as it is sent.
#[derive(Debug)]
pub struct Parcel<R> {
    /// The connection.
    pub resting: R,
    /// Its state.
    pub state: Vec<u8>,
}

/// What became of a hand-over that was not broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The process that has them.
    pub pid: u32,
    /// How many it has.
    pub relays: usize,
    /// How many could have gone, and stay: the new process has refused them, or they are too large.
    pub kept: usize,
}

/// How much of a message states and notes may take: the rest is for what stands around them.
const STATES_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4096;

/// A next process that is ready. Dropped, it is told that nothing comes.
#[derive(Debug)]
pub struct Heir {
    channel: Channel,
    pid: u32,
    /// Where it will listen.
    listening: Vec<SocketAddr>,
}

/// Prepares whoever has connected for all that `giver` has, as `ours`. Meanwhile everything goes on, and
/// this can be dropped at any time.
///
/// # Errors
/// Why it is not ready.
pub async fn prepare<G: Giver>(mut channel: Channel, ours: Hello, giver: &G) -> Result<Heir, Broken> {
    let pid = channel.greet(ours).await?.pid;
    match offer(&mut channel, giver).await {
        Ok(listening) => Ok(Heir { channel, pid, listening }),
        Err(error) => Err(give_up(&mut channel, error).await),
    }
}

/// Says what there is, and waits until the new process is ready; returns where it will listen.
async fn offer<G: Giver>(channel: &mut Channel, giver: &G) -> Result<Vec<SocketAddr>, Broken> {
    channel.send(&FromOld::Knows(giver.knowledge()), &[]).await?;
    let sockets = giver.sockets();
    // At least one message, were there nothing to listen on.
    for batch in 0..sockets.len().div_ceil(DESCRIPTORS_MAX).max(1) {
        let rest = &sockets[batch * DESCRIPTORS_MAX..];
        let (batch, is_last) = (&rest[..rest.len().min(DESCRIPTORS_MAX)], rest.len() <= DESCRIPTORS_MAX);
        let (sockets, descriptors): (Vec<_>, Vec<_>) = batch.iter().copied().unzip();
        channel.send(&FromOld::Sockets { sockets, is_last }, &descriptors).await?;
    }
    match channel.receive(READY_WITHIN).await?.0 {
        FromNew::Ready(listening) => Ok(listening),
        FromNew::Failed(why) => Err(Broken::Said(why)),
        _ => Err(Broken::Unexpected("word that it is ready")),
    }
}

impl Heir {
    /// Gives away all that `giver` has, within [`REST_WITHIN`]. Must not be dropped before it returns:
    /// what rests meanwhile would be lost.
    ///
    /// # Errors
    /// Why not: then `giver` has everything, and goes on with it.
    pub async fn take<G: Giver>(self, giver: &mut G) -> Result<Given, Broken> {
        let Self { mut channel, pid, listening } = self;
        // All of them before anything rests, and behind that those that were used meanwhile.
        let began = Instant::now();
        if let Err(error) = send_sessions(&mut channel, giver.sessions(Duration::MAX)).await {
            return Err(give_up(&mut channel, error).await);
        }
        let parcels = giver.rest().await;
        let send = async {
            send_sessions(&mut channel, giver.sessions(began.elapsed() + SECOND)).await?;
            send_notes(&mut channel, giver.notes()).await?;
            send_all(&mut channel, &parcels).await
        };
        let moved = match timeout(REST_WITHIN, send).await {
            Ok(moved) => moved,
            Err(_) => Err(Broken::Late(REST_WITHIN)),
        };
        // Nothing may come between what the new process has said last and this word.
        let committed = match moved {
            Ok(refused) => channel.send(&FromOld::Commit, &[]).await.map(|()| refused),
            Err(error) => Err(error),
        };
        let is_refused = match committed {
            Ok(is_refused) => is_refused,
            Err(error) => {
                giver.go_on(parcels.into_iter().map(|parcel| parcel.resting).collect()).await;
                giver.accept_again();
                return Err(give_up(&mut channel, error).await);
            }
        };
        let (mut kept, mut relays) = (Vec::new(), 0);
        for (parcel, is_refused) in parcels.into_iter().zip(is_refused) {
            if is_refused {
                kept.push(parcel.resting);
            } else {
                parcel.resting.handed_over();
                relays += 1;
            }
        }
        let given = Given { pid, relays, kept: kept.len() };
        giver.go_on(kept).await;
        giver.accept_no_more(&listening);
        Ok(given)
    }
}

/// The clock of sessions is as coarse as that.
const SECOND: Duration = Duration::from_secs(1);

async fn send_sessions(channel: &mut Channel, sessions: impl Iterator<Item = Learned>) -> Result<(), Broken> {
    let mut sessions = sessions.peekable();
    while sessions.peek().is_some() {
        let some = sessions.by_ref().take(SESSIONS_MAX).collect();
        channel.send(&FromOld::Sessions(some), &[]).await?;
    }
    Ok(())
}

/// Names of servers can be long, so the notes of a message are not counted but weighed.
async fn send_notes(channel: &mut Channel, notes: Vec<Note>) -> Result<(), Broken> {
    let (mut some, mut left) = (Vec::new(), STATES_BYTES_MAX);
    for note in notes {
        let bytes = encode(&note).len();
        if bytes > left && !some.is_empty() {
            channel.send(&FromOld::Notes(std::mem::take(&mut some)), &[]).await?;
            left = STATES_BYTES_MAX;
        }
        left = left.saturating_sub(bytes);
        some.push(note);
    }
    if some.is_empty() { Ok(()) } else { channel.send(&FromOld::Notes(some), &[]).await }
}

/// Sends every connection, and says which of them stay. The new process has all others then, and waits
/// for the last word.
async fn send_all<R: Resting>(channel: &mut Channel, parcels: &[Parcel<R>]) -> Result<Vec<bool>, Broken> {
    let mut is_refused = vec![false; parcels.len()];
    let (mut at, mut sent) = (0, 0);
    while at < parcels.len() {
        let batch = batch(&parcels[at..]);
        if batch == 0 {
            is_refused[at] = true; // It is too large for any message.
            at += 1;
            continue;
        }
        for place in send_batch(channel, &parcels[at..at + batch]).await? {
            *is_refused[at..at + batch].get_mut(place).ok_or(Broken::Unexpected("one of the places sent"))? = true;
        }
        at += batch;
        sent += batch;
    }
    channel.send(&FromOld::All(u32::try_from(sent).unwrap_or(u32::MAX)), &[]).await?;
    match channel.receive(ANSWER_WITHIN).await?.0 {
        FromNew::Adopted(count) if count as usize == is_refused.iter().filter(|refused| !**refused).count() => {
            Ok(is_refused)
        }
        FromNew::Failed(why) => Err(Broken::Said(why)),
        _ => Err(Broken::Unexpected("the count of what was sent")),
    }
}

/// How many go with the next message. Each is answered before the next one goes, so that no more
/// descriptors are on their way than the kernel lets a user have there.
fn batch<R>(parcels: &[Parcel<R>]) -> usize {
    let mut left = STATES_BYTES_MAX;
    let fits = |parcel: &&Parcel<R>| {
        let rest = left.checked_sub(parcel.state.len() + LENGTH_BYTES_MAX);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    parcels.iter().take(DESCRIPTORS_MAX / DESCRIPTORS_PER_RELAY).take_while(fits).count()
}

/// What the length of a state takes at most.
const LENGTH_BYTES_MAX: usize = 10;

/// Sends some, and returns the places of those that were refused.
async fn send_batch<R: Resting>(
    channel: &mut Channel,
    parcels: &[Parcel<R>],
) -> Result<impl Iterator<Item = usize> + use<R>, Broken> {
    let descriptors: Vec<_> = parcels.iter().flat_map(|parcel| parcel.resting.descriptors()).collect();
    let states = parcels.iter().map(|parcel| parcel.state.clone()).collect();
    channel.send(&FromOld::Relays(states), &descriptors).await?;
    match channel.receive(ANSWER_WITHIN).await?.0 {
        FromNew::Took { refused } => Ok(refused.into_iter().map(usize::from)),
        FromNew::Failed(why) => Err(Broken::Said(why)),
        _ => Err(Broken::Unexpected("word of what was sent")),
    }
}

/// Tells the other process, if it is still there, and returns what is to be said here.
async fn give_up(channel: &mut Channel, error: Broken) -> Broken {
    if !matches!(error, Broken::Said(_) | Broken::Closed) {
        // It may have gone meanwhile: then it needs no telling.
        let _ = channel.send(&FromOld::Failed(error.to_string()), &[]).await;
    }
    error
}
