//! The side that has the connections: gives all of them away, or none.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use tokio::time::timeout;

use super::channel::{Broken, Channel};
use super::message::{DESCRIPTORS_MAX, DESCRIPTORS_PER_RELAY, FromNew, FromOld, Hello, MESSAGE_BYTES_MAX, Socket};
use super::{ANSWER_WITHIN, READY_WITHIN, REST_WITHIN};

/// What has connections to give away.
pub trait Giver {
    /// A connection at rest.
    type Resting: Resting;

    /// What is listened on, each with its descriptor.
    fn sockets(&self) -> Vec<(Socket, BorrowedFd<'_>)>;

    /// Stops accepting, closes no listening socket, and brings to rest every relay that can go. The
    /// next process will listen on these addresses.
    fn rest(&mut self, listening: &[SocketAddr]) -> impl Future<Output = Vec<Parcel<Self::Resting>>> + Send;

    /// Goes on with `resting` as if nothing had happened.
    fn go_on(&mut self, resting: Vec<Self::Resting>) -> impl Future<Output = ()> + Send;

    /// Accepts connections again.
    fn accept_again(&mut self) -> impl Future<Output = ()> + Send;
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

/// How much of a message states may take: the rest is for what stands around them.
const STATES_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4096;

/// Gives away all that `giver` has to whoever has connected, as `ours`.
///
/// # Errors
/// Why not: then `giver` has everything, and goes on with it.
pub async fn hand_over<G: Giver + Send>(mut channel: Channel, ours: Hello, giver: &mut G) -> Result<Given, Broken> {
    let theirs = channel.greet(ours).await?;
    let listening = match prepare(&mut channel, giver).await {
        Ok(listening) => listening,
        Err(error) => return Err(give_up(&mut channel, error).await),
    };
    let parcels = giver.rest(&listening).await;
    let moved = match timeout(REST_WITHIN, send_all(&mut channel, &parcels)).await {
        Ok(moved) => moved,
        Err(_) => Err(Broken::Late(REST_WITHIN)),
    };
    // Nothing may come between what the new process has said last and this word.
    let committed = match moved {
        Ok(refused) => channel.send(&FromOld::Commit, &[]).await.map(|()| refused),
        Err(error) => Err(error),
    };
    match committed {
        Ok(is_refused) => {
            let (mut kept, mut relays) = (Vec::new(), 0);
            for (parcel, is_refused) in parcels.into_iter().zip(is_refused) {
                if is_refused {
                    kept.push(parcel.resting);
                } else {
                    parcel.resting.handed_over();
                    relays += 1;
                }
            }
            let given = Given { pid: theirs.pid, relays, kept: kept.len() };
            giver.go_on(kept).await;
            Ok(given)
        }
        Err(error) => {
            giver.go_on(parcels.into_iter().map(|parcel| parcel.resting).collect()).await;
            giver.accept_again().await;
            Err(give_up(&mut channel, error).await)
        }
    }
}

/// Sends what is listened on, and waits until the new process is ready; returns where it will listen.
async fn prepare<G: Giver>(channel: &mut Channel, giver: &G) -> Result<Vec<SocketAddr>, Broken> {
    let sockets = giver.sockets();
    let mut batches = sockets.chunks(DESCRIPTORS_MAX).peekable();
    while let Some(batch) = batches.next() {
        let (sockets, descriptors): (Vec<_>, Vec<_>) = batch.iter().copied().unzip();
        let message = FromOld::Sockets { sockets, is_last: batches.peek().is_none() };
        channel.send(&message, &descriptors).await?;
    }
    match channel.receive(READY_WITHIN).await?.0 {
        FromNew::Ready(listening) => Ok(listening),
        FromNew::Failed(why) => Err(Broken::Said(why)),
        _ => Err(Broken::Unexpected("word that it is ready")),
    }
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
