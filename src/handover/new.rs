//! The side that takes the connections over, once it has everything that they need.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::channel::{Broken, Channel};
use super::message::{
    self, DESCRIPTORS_PER_RELAY, FromNew, FromOld, Hello, Knowledge, Malformed, NOTES_MAX, Note, Socket,
};
use super::{ANSWER_WITHIN, COMMIT_WITHIN, READY_WITHIN, REST_WITHIN};
use crate::connection::Frozen;
use crate::session_store::Learned;

/// What the old process offers.
#[derive(Debug)]
pub struct Offer {
    channel: Channel,
    /// Which process it is.
    pub pid: u32,
    /// What it knows and no file says.
    pub knowledge: Knowledge,
    /// What it listens on.
    pub sockets: Vec<(Socket, OwnedFd)>,
}

/// What takes connections over.
pub trait Taker {
    /// Remembers who has issued which session.
    fn know(&mut self, sessions: &[Learned]);

    /// Remembers what was found out and ordered, to heed it once everything is here.
    fn note(&mut self, notes: Vec<Note>);

    /// Has these connections rest here, each by its state and its sockets, the client's first. Returns
    /// the places of those that it cannot take; they stay with the old process.
    fn take(&mut self, arriving: Vec<(Frozen, [OwnedFd; DESCRIPTORS_PER_RELAY])>) -> impl Future<Output = Vec<usize>>;
}

/// The most sockets that a process is believed to listen on.
const SOCKETS_MAX: usize = 16 * 1024;

/// Asks the old process at the other end, as `ours`, what it has.
///
/// # Errors
/// When it is not one to go on with.
pub async fn ask(mut channel: Channel, ours: Hello) -> Result<Offer, Broken> {
    let pid = channel.greet(ours).await?.pid;
    let knowledge = match channel.receive(ANSWER_WITHIN).await?.0 {
        FromOld::Knows(knowledge) => knowledge,
        FromOld::Failed(why) => return Err(Broken::Said(why)),
        _ => return Err(Broken::Unexpected("what it knows")),
    };
    let mut sockets = Vec::new();
    loop {
        match channel.receive(ANSWER_WITHIN).await? {
            (FromOld::Sockets { sockets: some, is_last }, descriptors) if some.len() == descriptors.len() => {
                sockets.extend(some.into_iter().zip(descriptors));
                if is_last {
                    return Ok(Offer { channel, pid, knowledge, sockets });
                }
                if sockets.len() > SOCKETS_MAX {
                    return Err(Broken::Unexpected("the last of its sockets"));
                }
            }
            (FromOld::Failed(why), _) => return Err(Broken::Said(why)),
            _ => return Err(Broken::Unexpected("what it listens on")),
        }
    }
}

impl Offer {
    /// Says that this process is ready and will accept on these addresses, and takes over what the
    /// old one has. When it returns, all that `taker` has taken is this process's, and only then may
    /// it be run.
    ///
    /// # Errors
    /// Why not: then everything is still the old process's, and what was taken is to be dropped.
    pub async fn take_over(mut self, listening: Vec<SocketAddr>, taker: &mut impl Taker) -> Result<usize, Broken> {
        let taken = self.take_all(listening, taker).await;
        if let Err(error) = &taken
            && !matches!(error, Broken::Said(_) | Broken::Closed)
        {
            // It may have gone meanwhile: then it needs no telling.
            let _ = self.channel.send(&FromNew::Failed(error.to_string()), &[]).await;
        }
        taken
    }

    /// Says that this process cannot take over, and `why`.
    pub async fn decline(mut self, why: String) {
        // If it has gone meanwhile it needs no telling.
        let _ = self.channel.send(&FromNew::Failed(why), &[]).await;
    }

    async fn take_all(&mut self, listening: Vec<SocketAddr>, taker: &mut impl Taker) -> Result<usize, Broken> {
        let channel = &mut self.channel;
        channel.send(&FromNew::Ready(listening), &[]).await?;
        let (mut came, mut taken, mut noted) = (0, 0, 0);
        // It brings its relays to rest before it says anything.
        let mut patience = READY_WITHIN;
        loop {
            match channel.receive(patience).await? {
                (FromOld::Relays(states), descriptors) => {
                    came += states.len();
                    let (here, refused) = take_batch(taker, states, descriptors).await?;
                    taken += here;
                    channel.send(&FromNew::Took { refused }, &[]).await?;
                }
                (FromOld::Sessions(sessions), _) => taker.know(&sessions),
                (FromOld::Notes(notes), _) => {
                    noted += notes.len();
                    if noted > NOTES_MAX || !notes.iter().all(Note::is_sound) {
                        return Err(Broken::Unexpected("what an operator can order"));
                    }
                    taker.note(notes);
                }
                (FromOld::All(count), _) if count as usize == came => break,
                (FromOld::Failed(why), _) => return Err(Broken::Said(why)),
                _ => return Err(Broken::Unexpected("relays")),
            }
            patience = REST_WITHIN;
        }
        channel.send(&FromNew::Adopted(u32::try_from(taken).unwrap_or(u32::MAX)), &[]).await?;
        match channel.receive(COMMIT_WITHIN).await?.0 {
            FromOld::Commit => Ok(taken),
            FromOld::Failed(why) => Err(Broken::Said(why)),
            _ => Err(Broken::Unexpected("the last word")),
        }
    }
}

/// Takes some; says how many, and at which places those stood that were not taken.
async fn take_batch(
    taker: &mut impl Taker,
    states: Vec<Vec<u8>>,
    descriptors: Vec<OwnedFd>,
) -> Result<(usize, Vec<u16>), Broken> {
    if descriptors.len() != states.len() * DESCRIPTORS_PER_RELAY {
        return Err(Broken::Descriptors { sent: states.len() * DESCRIPTORS_PER_RELAY, came: descriptors.len() });
    }
    let mut descriptors = descriptors.into_iter();
    let mut pairs = std::iter::from_fn(|| Some([descriptors.next()?, descriptors.next()?]));
    let (mut places, mut arriving, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let count = states.len();
    for (place, (state, sockets)) in states.iter().zip(&mut pairs).enumerate() {
        match message::decode_relay(state) {
            Ok(frozen) => {
                places.push(place);
                arriving.push((frozen, sockets));
            }
            Err(Malformed) => refused.push(place),
        }
    }
    let unfit = taker.take(arriving).await;
    refused.extend(unfit.into_iter().filter_map(|at| places.get(at)));
    refused.sort_unstable();
    refused.dedup();
    let taken = count - refused.len();
    Ok((taken, refused.into_iter().filter_map(|place| u16::try_from(place).ok()).collect()))
}
