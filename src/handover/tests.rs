//! The whole conversation, and what becomes of it when either side stops, lies or talks nonsense at any
//! point of it: nothing is ever lost, and nothing is anybody's twice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::message::{DESCRIPTORS_MAX, FromNew, FromOld, Hello, MESSAGE_BYTES_MAX, VERSION, decode, encode};
use super::new::{self, Taker};
use super::old::{Given, Giver, Parcel, Resting, prepare};
use super::*;
use crate::affinity::learned::{ServerName, SessionId};
use crate::command::{ServerOf, Target};
use crate::config::{Rebalance, State};
use crate::connection::Frozen;
use crate::relay;
use crate::session_store::Learned;
use crate::upstream::health::{FoundBy, REASON_MAX};

const OLD: Hello = Hello { version: VERSION, pid: 1 };
const NEW: Hello = Hello { version: VERSION, pid: 2 };

/// What has become of the connections of an old process.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fate {
    went_on: Vec<usize>,
    handed_over: Vec<usize>,
    accepts_again: bool,
}

/// An old process without threads and relays.
struct Old {
    listener: TcpListener,
    parcels: Vec<Parcel<Fake>>,
    fate: Arc<Mutex<Fate>>,
}

/// A connection that is two ends of sockets.
struct Fake {
    index: usize,
    ends: [StdStream; 2],
    fate: Arc<Mutex<Fate>>,
}

impl Resting for Fake {
    fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        self.ends.each_ref().map(AsFd::as_fd)
    }

    fn handed_over(self) {
        self.fate.lock().unwrap().handed_over.push(self.index);
    }
}

impl Giver for Old {
    type Resting = Fake;

    fn knowledge(&self) -> Knowledge {
        knowledge()
    }

    fn sockets(&self) -> Vec<(Socket, BorrowedFd<'_>)> {
        let address = self.listener.local_addr().unwrap();
        [Purpose::Clients, Purpose::Admin]
            .map(|purpose| (Socket { address, purpose }, self.listener.as_fd()))
            .into_iter()
            .collect()
    }

    fn sessions(&self, used_within: Duration) -> impl Iterator<Item = Learned> {
        // More than one message, and behind that a few.
        let count = if used_within == Duration::MAX { SESSIONS + 1 } else { 1 };
        (0..count).map(learned)
    }

    fn notes(&self) -> Vec<Note> {
        (0..NOTES).map(note).collect()
    }

    async fn rest(&mut self) -> Vec<Parcel<Fake>> {
        std::mem::take(&mut self.parcels)
    }

    async fn go_on(&mut self, resting: Vec<Fake>) {
        self.fate.lock().unwrap().went_on.extend(resting.iter().map(|it| it.index));
    }

    fn accept_again(&mut self) {
        self.fate.lock().unwrap().accepts_again = true;
    }

    fn accept_no_more(&mut self, elsewhere: &[SocketAddr]) {
        assert_eq!(elsewhere, [self.listener.local_addr().unwrap()]);
    }
}

fn knowledge() -> Knowledge {
    Knowledge { secret: Some(b"secret".to_vec()) }
}

/// Gives everything away, as `ours`.
async fn hand_over(channel: Channel, ours: Hello, old: &mut Old) -> Result<Given, Broken> {
    prepare(channel, ours, old).await?.take(old).await
}

/// An old process with connections of these states, and the other ends of the connections.
fn old(states: Vec<Vec<u8>>) -> (Old, Vec<[StdStream; 2]>) {
    let fate = Arc::new(Mutex::default());
    let (mut parcels, mut peers) = (Vec::new(), Vec::new());
    for (index, state) in states.into_iter().enumerate() {
        let ((ours_0, theirs_0), (ours_1, theirs_1)) = (StdStream::pair().unwrap(), StdStream::pair().unwrap());
        peers.push([theirs_0, theirs_1]);
        parcels.push(Parcel { resting: Fake { index, ends: [ours_0, ours_1], fate: Arc::clone(&fate) }, state });
    }
    (Old { listener: TcpListener::bind("127.0.0.1:0").unwrap(), parcels, fate }, peers)
}

/// One message full.
const SESSIONS: u32 = 30_000;

fn learned(number: u32) -> Learned {
    let session = SessionId::of("cookie:sid", &number.to_be_bytes());
    Learned { session, server: ServerName::of("a"), unused: u32::MAX - number }
}

/// More than one message.
const NOTES: u32 = 2_000;

fn note(number: u32) -> Note {
    let server = ServerOf { upstream: "u".repeat(200), server: number.to_string() };
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    if number.is_multiple_of(2) {
        return Note::Ordered { server, address, state: Some(State::Maint), weight: NonZeroU32::new(number % 256) };
    }
    // As long as a reason can be.
    let reason = "\u{1F40C}".repeat(REASON_MAX).into();
    Note::Down { server, address, found_by: FoundBy::Checks, reason, elapsed: Duration::from_secs(number.into()) }
}

/// A new process that takes everything but what stands at these places among all that comes.
#[derive(Default)]
struct New {
    refuses: Vec<usize>,
    seen: usize,
    taken: Vec<[OwnedFd; 2]>,
    sessions: Vec<Learned>,
    notes: Vec<Note>,
}

impl Taker for New {
    fn know(&mut self, sessions: &[Learned]) {
        self.sessions.extend(sessions);
    }

    fn note(&mut self, notes: Vec<Note>) {
        self.notes.extend(notes);
    }

    async fn take(&mut self, arriving: Vec<(Frozen, [OwnedFd; 2])>) -> Vec<usize> {
        let mut refused = Vec::new();
        for (at, (_, sockets)) in arriving.into_iter().enumerate() {
            if self.refuses.contains(&self.seen) {
                refused.push(at);
            } else {
                self.taken.push(sockets);
            }
            self.seen += 1;
        }
        refused
    }
}

async fn state() -> Vec<u8> {
    encode(&Frozen::of(relay::sample().await))
}

fn channels() -> (Channel, Channel) {
    let (a, b) = UnixStream::pair().unwrap();
    (Channel::new(a).unwrap(), Channel::new(b).unwrap())
}

/// Everything is where it was.
#[track_caller]
fn check_nothing_happened(old: &Old, count: usize, at: &str) {
    let mut fate = old.fate.lock().unwrap();
    fate.went_on.sort_unstable();
    fate.went_on.extend(old.parcels.iter().map(|parcel| parcel.resting.index)); // They have never rested.
    assert_eq!(fate.went_on, (0..count).collect::<Vec<_>>(), "{at}");
    assert!(fate.handed_over.is_empty(), "{at}");
    assert!(fate.accepts_again || !old.parcels.is_empty() || count == 0, "{at}");
}

#[tokio::test]
async fn everything_goes_over_but_what_is_refused() {
    const COUNT: usize = 400;
    let good = state().await;
    let mut states = vec![good; COUNT];
    states[5] = b"nonsense".to_vec();
    states[300] = vec![0; MESSAGE_BYTES_MAX]; // It fits into no message.
    let (mut old, mut peers) = old(states);
    let (to_new, to_old) = channels();
    let fate = old.fate.clone();
    let address = old.listener.local_addr().unwrap();
    let giving = tokio::spawn(async move { hand_over(to_new, OLD, &mut old).await });

    let offer = new::ask(to_old, NEW).await.unwrap();
    assert_eq!((offer.pid, &offer.knowledge), (1, &knowledge()));
    let sockets: Vec<_> = offer.sockets.iter().map(|(socket, _)| *socket).collect();
    assert_eq!(sockets, [Purpose::Clients, Purpose::Admin].map(|purpose| Socket { address, purpose }));
    // Number 17 of those that make sense, which is 18 of all.
    let mut taker = New { refuses: vec![17], ..New::default() };
    assert_eq!(offer.take_over(vec![address], &mut taker).await.unwrap(), COUNT - 3);
    assert_eq!(giving.await.unwrap().unwrap(), Given { pid: 2, relays: COUNT - 3, kept: 3 });

    let sessions = (0..=SESSIONS).chain([0]).map(learned);
    assert!(taker.sessions.iter().copied().eq(sessions), "{} sessions", taker.sessions.len());
    assert_eq!(taker.notes, (0..NOTES).map(note).collect::<Vec<_>>());

    let kept = [5, 18, 300];
    let gone: Vec<_> = (0..COUNT).filter(|index| !kept.contains(index)).collect();
    let expected = Fate { went_on: kept.to_vec(), handed_over: gone.clone(), accepts_again: false };
    assert_eq!(*fate.lock().unwrap(), expected);
    // Each descriptor is the one that it should be, and open nowhere else.
    for (index, sockets) in gone.into_iter().zip(taker.taken) {
        for (peer, socket) in peers[index].iter_mut().zip(sockets) {
            let mut socket = StdStream::from(socket);
            write!(socket, "{index}").unwrap();
            drop(socket);
            let mut text = String::new();
            peer.read_to_string(&mut text).unwrap();
            assert_eq!(text, index.to_string());
        }
    }
}

#[tokio::test]
async fn a_process_without_connections_hands_over_as_well() {
    let (mut old, _) = old(Vec::new());
    let (to_new, to_old) = channels();
    let address = old.listener.local_addr().unwrap();
    let giving = tokio::spawn(async move { hand_over(to_new, OLD, &mut old).await });
    let offer = new::ask(to_old, NEW).await.unwrap();
    assert_eq!(offer.take_over(vec![address], &mut New::default()).await.unwrap(), 0);
    assert_eq!(giving.await.unwrap().unwrap(), Given { pid: 2, relays: 0, kept: 0 });
}

/// How a side fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is killed, or cuts the connection.
    Gone,
    /// It says nothing more.
    Silent,
    /// It says that it has failed.
    Says,
    /// It says something that makes no sense.
    Nonsense,
    /// It says something that makes sense elsewhere.
    Wrong,
    /// It claims descriptors that do not come.
    NoDescriptors,
}

impl Fault {
    const ALL: [Self; 6] = [Self::Gone, Self::Silent, Self::Says, Self::Nonsense, Self::Wrong, Self::NoDescriptors];

    /// Fails so, instead of going on; holds the connection until the other one has found out.
    async fn happen(self, mut channel: Channel, failed: &impl serde::Serialize, wrong: &impl serde::Serialize) {
        match self {
            Self::Gone => return,
            Self::Silent => {}
            Self::Says => channel.send(failed, &[]).await.unwrap(),
            Self::Nonsense => channel.send(&"nonsense", &[]).await.unwrap(),
            Self::Wrong => channel.send(wrong, &[]).await.unwrap(),
            Self::NoDescriptors => channel.stream_for_tests().write_all(&[0, 0, 0, 1, 0, 4, 0]).await.unwrap(),
        }
        let _ = channel.stream_for_tests().read_to_end(&mut Vec::new()).await;
    }
}

/// Plays a new process that fails with `fault` before its step `step`; says whether there are more steps.
async fn fail_as_new(mut channel: Channel, step: usize, fault: Fault, address: SocketAddr) -> bool {
    let (failed, wrong) = (FromNew::Failed("no reason".to_owned()), FromNew::Took { refused: vec![999] });
    macro_rules! step {
        ($at:literal) => {
            if step == $at {
                fault.happen(channel, &failed, &wrong).await;
                return true;
            }
        };
    }
    step!(0);
    channel.greet(NEW).await.unwrap();
    step!(1);
    let knows: FromOld = channel.receive(ANSWER_WITHIN).await.unwrap().0;
    assert_eq!(knows, FromOld::Knows(knowledge()));
    let (sockets, _descriptors): (FromOld, _) = channel.receive(ANSWER_WITHIN).await.unwrap();
    assert!(matches!(sockets, FromOld::Sockets { is_last: true, .. }));
    step!(2);
    channel.send(&FromNew::Ready(vec![address]), &[]).await.unwrap();
    step!(3);
    for _ in 0..3 {
        let sessions: FromOld = channel.receive(ANSWER_WITHIN).await.unwrap().0;
        assert!(matches!(sessions, FromOld::Sessions(_)));
    }
    for _ in 0..2 {
        let notes: FromOld = channel.receive(ANSWER_WITHIN).await.unwrap().0;
        assert!(matches!(notes, FromOld::Notes(_)));
    }
    let (relays, _held): (FromOld, _) = channel.receive(ANSWER_WITHIN).await.unwrap();
    assert!(matches!(relays, FromOld::Relays(_)));
    step!(4);
    channel.send(&FromNew::Took { refused: Vec::new() }, &[]).await.unwrap();
    step!(5);
    let (relays, _held): (FromOld, _) = channel.receive(ANSWER_WITHIN).await.unwrap();
    assert!(matches!(relays, FromOld::Relays(_)));
    step!(6);
    channel.send(&FromNew::Took { refused: Vec::new() }, &[]).await.unwrap();
    step!(7);
    let all: FromOld = channel.receive(ANSWER_WITHIN).await.unwrap().0;
    assert_eq!(all, FromOld::All(COUNT.try_into().unwrap()));
    step!(8);
    // Not what it has: it cannot mean what it says.
    let count = if fault == Fault::Gone { COUNT } else { 1 };
    channel.send(&FromNew::Adopted(count.try_into().unwrap()), &[]).await.unwrap();
    step!(9); // It is gone before the last word comes.
    false
}

/// Two messages full.
const COUNT: usize = 200;

#[tokio::test(start_paused = true)]
async fn wherever_the_new_process_fails_the_old_one_keeps_everything() {
    let state = state().await;
    for fault in Fault::ALL {
        for step in 0..10 {
            let at = format!("{fault:?} before step {step}");
            let (mut old, _peers) = old(vec![state.clone(); COUNT]);
            let (to_new, to_old) = channels();
            let address = old.listener.local_addr().unwrap();
            let failing = tokio::spawn(fail_as_new(to_old, step, fault, address));
            let error = hand_over(to_new, OLD, &mut old).await.expect_err(&at);
            assert!(failing.await.unwrap(), "{at}: {error}");
            check_nothing_happened(&old, COUNT, &at);
        }
    }
}

/// Plays an old process that fails with `fault` before its step `step`; says whether there are more steps.
async fn fail_as_old(mut channel: Channel, step: usize, fault: Fault, state: Vec<u8>) -> bool {
    let (failed, wrong) = (FromOld::Failed("no reason".to_owned()), FromOld::All(999));
    macro_rules! step {
        ($at:literal) => {
            if step == $at {
                fault.happen(channel, &failed, &wrong).await;
                return true;
            }
        };
    }
    let (end, _other) = StdStream::pair().unwrap();
    step!(0);
    channel.greet(OLD).await.unwrap();
    step!(1);
    channel.send(&FromOld::Knows(Knowledge::default()), &[]).await.unwrap();
    step!(2);
    channel.send(&FromOld::Sockets { sockets: Vec::new(), is_last: true }, &[]).await.unwrap();
    let _ready: FromNew = channel.receive(ANSWER_WITHIN).await.unwrap().0;
    step!(3);
    channel.send(&FromOld::Relays(vec![state]), &[end.as_fd(), end.as_fd()]).await.unwrap();
    let took: FromNew = channel.receive(ANSWER_WITHIN).await.unwrap().0;
    assert_eq!(took, FromNew::Took { refused: Vec::new() });
    step!(4);
    channel.send(&FromOld::All(1), &[]).await.unwrap();
    let adopted: FromNew = channel.receive(ANSWER_WITHIN).await.unwrap().0;
    assert_eq!(adopted, FromNew::Adopted(1));
    step!(5);
    false
}

#[tokio::test(start_paused = true)]
async fn wherever_the_old_process_fails_the_new_one_takes_nothing() {
    let state = state().await;
    for fault in Fault::ALL {
        for step in 0..6 {
            let (to_new, to_old) = channels();
            let failing = tokio::spawn(fail_as_old(to_new, step, fault, state.clone()));
            let taken = async {
                let offer = new::ask(to_old, NEW).await?;
                offer.take_over(Vec::new(), &mut New::default()).await
            };
            assert!(taken.await.is_err(), "{fault:?} before step {step}");
            assert!(failing.await.unwrap());
        }
    }
}

#[tokio::test]
async fn versions_that_differ_are_said_on_both_sides() {
    let (mut old, _) = old(vec![state().await]);
    let (to_new, to_old) = channels();
    let later = Hello { version: VERSION + 1, pid: 2 };
    let asking = tokio::spawn(async move { new::ask(to_old, later).await.map(drop) });
    let error = hand_over(to_new, OLD, &mut old).await.unwrap_err().to_string();
    let expected =
        format!("process 2 speaks version {} of the hand-over, and this one speaks version {VERSION}", VERSION + 1);
    assert_eq!(error, expected);
    let error = asking.await.unwrap().unwrap_err();
    assert!(matches!(error, Broken::Version { theirs: VERSION, pid: 1, .. }), "{error}");
    check_nothing_happened(&old, 1, "versions");

    let (mut strange, to_old) = UnixStream::pair().unwrap();
    strange.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert!(matches!(new::ask(Channel::new(to_old).unwrap(), NEW).await, Err(Broken::Stranger)));
}

#[tokio::test]
async fn messages_come_whole_however_they_are_cut() {
    let (mut raw, stream) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(stream).unwrap();
    let message = FromOld::Relays(vec![b"some".to_vec(), Vec::new()]);
    let body = encode(&message);
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(&body);
    let dripping = tokio::spawn(async move {
        for byte in bytes {
            raw.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        raw
    });
    let (came, descriptors) = channel.receive::<FromOld>(ANSWER_WITHIN).await.unwrap();
    assert_eq!((came, descriptors.len()), (message, 0));
    let mut raw = dripping.await.unwrap();
    // One that is too long is not even begun to be read.
    raw.write_all(&[0xFF, 0xFF, 0xFF, 0xFF, 0, 0]).await.unwrap();
    let error = channel.receive::<FromOld>(ANSWER_WITHIN).await.unwrap_err();
    assert!(matches!(error, Broken::TooLong(0xFFFF_FFFF)), "{error}");
}

#[tokio::test]
async fn as_many_descriptors_go_with_a_message_as_the_kernel_takes() {
    let (mut a, mut b) = channels();
    let (end, mut other) = StdStream::pair().unwrap();
    let sending = tokio::spawn(async move {
        a.send(&FromOld::Commit, &vec![end.as_fd(); DESCRIPTORS_MAX]).await.unwrap();
        let error = a.send(&FromOld::Commit, &vec![end.as_fd(); DESCRIPTORS_MAX + 1]).await.unwrap_err();
        assert!(matches!(error, Broken::Descriptors { .. }), "{error}");
    });
    let (message, descriptors) = b.receive::<FromOld>(ANSWER_WITHIN).await.unwrap();
    assert_eq!((message, descriptors.len()), (FromOld::Commit, DESCRIPTORS_MAX));
    sending.await.unwrap();
    let mut last = StdStream::from(descriptors.into_iter().next_back().unwrap());
    last.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
}

#[tokio::test]
async fn what_no_operator_could_have_ordered_ends_the_hand_over() {
    let of = || ServerOf { upstream: "u".to_owned(), server: "s".to_owned() };
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let weight = |weight| Note::Ordered { server: of(), address, state: None, weight: NonZeroU32::new(weight) };
    let pace = |per_minute| {
        let pace = Rebalance { per_minute, min_age: Duration::ZERO };
        Note::Rebalanced { upstream: "u".to_owned(), pace }
    };
    for (notes, is_sound) in [
        (vec![weight(256), pace(1), pace(100)], true),
        (vec![weight(1), weight(257)], false),
        (vec![pace(0)], false),
        (vec![pace(101)], false),
        (vec![weight(1); message::NOTES_MAX + 1], false),
    ] {
        let (mut to_new, to_old) = channels();
        let count = notes.len();
        let telling = tokio::spawn(async move {
            to_new.greet(OLD).await.unwrap();
            to_new.send(&FromOld::Knows(Knowledge::default()), &[]).await.unwrap();
            to_new.send(&FromOld::Sockets { sockets: Vec::new(), is_last: true }, &[]).await.unwrap();
            let ready: FromNew = to_new.receive(ANSWER_WITHIN).await.unwrap().0;
            assert_eq!(ready, FromNew::Ready(Vec::new()));
            for some in notes.chunks(10_000) {
                to_new.send(&FromOld::Notes(some.to_vec()), &[]).await.unwrap();
            }
            to_new.send(&FromOld::All(0), &[]).await.unwrap();
            let last: FromNew = to_new.receive(ANSWER_WITHIN).await.unwrap().0;
            if last == FromNew::Adopted(0) {
                to_new.send(&FromOld::Commit, &[]).await.unwrap();
            }
            last
        });
        let offer = new::ask(to_old, NEW).await.unwrap();
        let mut taker = New::default();
        let taken = offer.take_over(Vec::new(), &mut taker).await;
        assert_eq!(taken.is_ok(), is_sound, "{count} notes: {taken:?}");
        let last = telling.await.unwrap();
        assert_eq!(matches!(last, FromNew::Adopted(0)), is_sound, "{last:?}");
    }
}

/// A WebSocket of a trace at rest, as it stood there first.
const WEBSOCKET: &str = "2a000a0000070000000000056865616420000000000001000001000000000000000000000000000000000000000001\
    000000000000000000000000000000000000904e6432000132000704636861740162007f000001b917096b656570616c6976654b00008dd30300\
    016500046e6f6e650000000001010001\
    0af7651916cd43dd8448eb211c80319cb7ad6b7169203331\
    0700007f00000100";

#[test]
fn the_form_of_version_3_is_what_it_was() {
    // What other binaries of this version write. When this fails, VERSION is to be raised.
    let hello = Hello { version: 3, pid: 0x0102_0304 };
    assert_eq!(hello.to_bytes(), *b"STEADFST\x00\x00\x00\x03\x01\x02\x03\x04");
    assert_eq!(Hello::from_bytes(hello.to_bytes()), Some(hello));
    let all = [
        encode(&FromOld::Relays(vec![vec![7]])),
        encode(&FromOld::All(1)),
        encode(&FromOld::Commit),
        encode(&FromNew::Ready(vec!["1.2.3.4:5".parse().unwrap()])),
        encode(&FromNew::Took { refused: vec![2] }),
        encode(&FromNew::Adopted(3)),
    ];
    assert_eq!(all.concat(), [4, 1, 1, 7, 5, 1, 6, 0, 1, 0, 1, 2, 3, 4, 5, 1, 1, 2, 2, 3]);
    let of = || ServerOf { upstream: "u".to_owned(), server: "s".to_owned() };
    let (address, second) = ("1.2.3.4:5".parse().unwrap(), Duration::from_secs(1));
    let drained = Drained {
        target: Target::Server(of()),
        address: Some(address),
        elapsed: second,
        spread: 2 * second,
        timeout: 3 * second,
        open_before: 4,
        is_of_removed: true,
    };
    let notes = FromOld::Notes(vec![
        Note::Ordered { server: of(), address, state: Some(State::Maint), weight: NonZeroU32::new(7) },
        Note::Down { server: of(), address, found_by: FoundBy::Clients, reason: "r".into(), elapsed: second },
        Note::Drained(drained),
        Note::Rebalanced { upstream: "u".to_owned(), pace: Rebalance { per_minute: 9, min_age: second } },
    ]);
    let server = [1, b'u', 1, b's', 0, 1, 2, 3, 4, 5];
    let expected = [
        &[3, 4, 0][..],
        &server,
        &[1, 2, 1, 7, 1],
        &server,
        &[1, 1, b'r', 1, 0, 2, 2, 1, b'u', 1, b's', 1, 0, 1, 2, 3, 4, 5, 1, 0, 2, 0, 3, 0, 4, 1, 3, 1, b'u', 9, 1, 0],
    ];
    assert_eq!(encode(&notes), expected.concat());
    let bytes: Vec<u8> =
        (0..WEBSOCKET.len()).step_by(2).map(|at| u8::from_str_radix(&WEBSOCKET[at..at + 2], 16).unwrap()).collect();
    let relay = message::decode_relay(&bytes).expect("a relay of version 3");
    assert_eq!(encode(&relay), bytes);
}

proptest! {
    #[test]
    fn no_message_can_break_this_process(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<FromOld>(&bytes);
        let _ = decode::<FromNew>(&bytes);
        let _ = message::decode_relay(&bytes);
        // A count of more than there is must not be believed.
        let long = [&[4, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F][..], &bytes].concat();
        prop_assert!(decode::<FromOld>(&long).is_err());
    }
}
