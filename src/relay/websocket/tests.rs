use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::*;
use crate::relay::frames::tests::{Chosen, chosen, frame};

const MARK: u64 = 0x0102_0304_0506_0708;

fn our_pong(mask: [u8; 4]) -> Vec<u8> {
    frame(Side::Client, 0x8A, &MARK.to_be_bytes(), mask)
}

/// What the other side gets of `pieces`.
fn pass(websocket: &mut WebSocket, from: Side, pieces: &[&[u8]]) -> Vec<u8> {
    let mut sent = Vec::new();
    for piece in pieces {
        let end = HEADROOM + piece.len();
        let mut buffer = vec![0; end];
        buffer[HEADROOM..].copy_from_slice(piece);
        let passed = websocket.pass(from, &mut buffer, HEADROOM..end);
        sent.extend_from_slice(&buffer[passed.bytes]);
    }
    sent
}

/// A WebSocket whose client owes it a Pong.
fn pinged() -> WebSocket {
    let mut websocket = WebSocket::new(MARK);
    assert_eq!(websocket.ping().as_deref(), Some(&b"\x89\x08\x01\x02\x03\x04\x05\x06\x07\x08"[..]));
    websocket
}

#[test]
fn a_ping_stands_between_frames() {
    let mut websocket = WebSocket::new(MARK);
    let ping = pinged().ping().expect("nothing is under way");
    assert_eq!(pass(&mut websocket, Side::Server, &[b"\x81"]), b"\x81");
    assert_eq!(websocket.ping(), None, "a header is under way");
    // Behind the frame under way, and before the next one, which is under way as well.
    let sent = pass(&mut websocket, Side::Server, &[b"\x02a", b"b\x81\x02c"]);
    assert_eq!(sent, [b"\x02ab", &ping[..], b"\x81\x02c"].concat());
    assert_eq!(websocket.ping(), None);
    assert_eq!(websocket.ping(), None, "one is enough");
    assert_eq!(pass(&mut websocket, Side::Server, &[b"d"]), [b"d", &ping[..]].concat());
    // Between the fragments of a message as well.
    assert_eq!(pass(&mut websocket, Side::Server, &[b"\x01\x01a"]), b"\x01\x01a");
    assert_eq!(websocket.ping(), Some(ping));
}

#[test]
fn no_ping_where_it_means_nothing() {
    #[track_caller]
    fn check(from: Side, bytes: &[u8], then: &[u8]) {
        let mut websocket = WebSocket::new(MARK);
        pass(&mut websocket, from, &[bytes]);
        assert_eq!(websocket.ping(), None, "{from:?}: {bytes:02x?}");
        assert_eq!(pass(&mut websocket, Side::Server, &[then]), then, "nor later");
        assert_eq!(pass(&mut websocket, Side::Client, &[then]), then);
    }

    check(Side::Server, &[0x88, 0x00], b"");
    check(Side::Server, &[0x88, 0x02, 0x03], &[0xE8]);
    check(Side::Client, &[0x88, 0x80, 1, 2, 3, 4], &[0x81, 0x00]);
    check(Side::Server, b"SSH-2.0-OpenSSH_9.2", b"more");
    check(Side::Client, b"SSH-2.0-OpenSSH_9.2", b"more");
    // It turns out to be opaque while the Ping waits.
    check(Side::Server, &[0x81], &[0xFF, 0x00, 0x81, 0x00]);
}

#[test]
fn our_pongs_are_taken_out_and_no_others() {
    #[track_caller]
    fn check(pieces: &[&[u8]], sent: &[u8]) {
        assert_eq!(pass(&mut pinged(), Side::Client, pieces), sent, "{pieces:02x?}");
    }
    let ours = &our_pong([0; 4])[..];
    let masked = &our_pong([0xDE, 0xAD, 0xBE, 0xEF])[..];
    let text = &frame(Side::Client, 0x81, b"text", [1, 2, 3, 4])[..];
    let unsolicited = &frame(Side::Client, 0x8A, b"", [1, 2, 3, 4])[..];
    let theirs = &frame(Side::Client, 0x8A, b"12345678", [1, 2, 3, 4])[..];
    let ping = &frame(Side::Client, 0x89, &MARK.to_be_bytes(), [0; 4])[..];
    let quoted = &frame(Side::Client, 0x82, ours, [0; 4])[..];

    check(&[ours], b"");
    check(&[masked, ours, masked], b"");
    check(&[&[text, masked, text, ours].concat()], &[text, text].concat());
    for other in [text, unsolicited, theirs, ping, quoted] {
        check(&[&[other, ours, other, masked].concat()], &[other, other].concat());
        for at in 0..other.len() {
            check(&[&[masked, &other[..at]].concat(), &[&other[at..], masked].concat()], other);
        }
    }
    for at in 0..masked.len() {
        check(&[&[text, &masked[..at]].concat(), &[&masked[at..], text].concat()], &[text, text].concat());
    }
    for (at, byte) in masked.iter().enumerate() {
        // One byte differs, and the frame is another one, or none.
        let other = [&masked[..at], &[byte ^ 1], &masked[at + 1..]].concat();
        check(&[&other[..at], &other[at..]], &other);
    }
    assert_eq!(pass(&mut WebSocket::new(MARK), Side::Client, &[masked]), masked, "no Ping, no Pong");
}

#[test]
fn what_is_held_back_is_given_when_nothing_more_comes() {
    let pong = our_pong([9, 8, 7, 6]);
    for held in 0..pong.len() {
        let mut websocket = pinged();
        assert_eq!(pass(&mut websocket, Side::Client, &[&pong[..held]]), b"");
        assert_eq!(websocket.release(), &pong[..held]);
        assert_eq!(websocket.release(), b"");
    }
}

#[test]
fn a_close_of_ours_is_the_last_that_a_side_gets() {
    let restart = &b"\x88\x11\x03\xF4service restart"[..];
    let away = frame(Side::Client, 0x88, b"\x03\xE9going away", [1, 2, 3, 4]);
    let text = &b"\x81\x02ab"[..];

    let mut websocket = WebSocket::new(MARK);
    assert_eq!(websocket.close(Side::Client, Goodbye::ServiceRestart).as_deref(), Some(restart));
    assert_eq!(websocket.close(Side::Server, Goodbye::GoingAway), Some(away.clone()));
    assert_eq!(websocket.close(Side::Server, Goodbye::GoingAway), None, "once");
    assert!(websocket.awaits(Side::Client) && websocket.awaits(Side::Server));
    assert_eq!(pass(&mut websocket, Side::Server, &[text, b"\x88", b"\x00"]), b"");
    assert!(websocket.awaits(Side::Client) && !websocket.awaits(Side::Server));
    assert_eq!(pass(&mut websocket, Side::Client, &[b"\x88\x80", b"1234"]), b"");
    assert!(!websocket.awaits(Side::Client));
    assert_eq!(websocket.close_code(), Some(1012));

    // Within a frame it waits for its end.
    let mut websocket = WebSocket::new(MARK);
    assert_eq!(pass(&mut websocket, Side::Server, &[&text[..1]]), &text[..1]);
    assert_eq!(websocket.ping(), None);
    assert_eq!(websocket.close(Side::Client, Goodbye::ServiceRestart), None);
    assert_eq!(pass(&mut websocket, Side::Server, &[&text[1..3]]), &text[1..3]);
    let sent = pass(&mut websocket, Side::Server, &[b"b\x81\x00\x88\x00", text]);
    assert_eq!(sent, [b"b", restart].concat());
    assert!(websocket.awaits(Side::Client) && !websocket.awaits(Side::Server));

    // A side that has its Close gets no other.
    let mut websocket = WebSocket::new(MARK);
    pass(&mut websocket, Side::Server, &[b"\x88\x02\x0F\xA0"]);
    assert_eq!(websocket.close(Side::Client, Goodbye::ServiceRestart), None);
    assert_eq!(websocket.close(Side::Server, Goodbye::GoingAway), Some(away));
    assert!(websocket.awaits(Side::Client) && !websocket.awaits(Side::Server));
    assert_eq!(websocket.close_code(), Some(4000));

    // Who speaks no WebSocket gets none.
    let mut websocket = WebSocket::new(MARK);
    pass(&mut websocket, Side::Server, &[b"SSH-2.0"]);
    assert_eq!(websocket.close(Side::Client, Goodbye::ServiceRestart), None);
    assert!(!websocket.awaits(Side::Client));
    assert_eq!(pass(&mut websocket, Side::Server, &[b"more"]), b"more");
}

#[test]
fn the_longest_of_ours_fits_the_space_for_it() {
    for goodbye in [Goodbye::ServiceRestart, Goodbye::GoingAway] {
        assert!(Ours::Close(goodbye).frame([0; 8], Some([0; 4])).len() <= CLOSE_BYTES_MAX);
    }
    // Held back, then begun anew by a frame in which a Close waits: both need their space.
    let mut websocket = pinged();
    let pong = our_pong([1; 4]);
    pass(&mut websocket, Side::Client, &[&pong[..13]]);
    assert!(websocket.close(Side::Server, Goodbye::GoingAway).is_some());
    assert_eq!(pass(&mut websocket, Side::Client, &[b"x"]), b"");
}

#[test]
fn counts_are_told_once() {
    let mut websocket = WebSocket::new(MARK);
    pass(&mut websocket, Side::Server, &[b"\x01\x00\x89\x00\x80\x00\x82\x01"]);
    pass(&mut websocket, Side::Client, &[b"\x81\x80abcd"]);
    assert_eq!(websocket.take_counts(), Counts { up: 1, down: 1, is_opaque: false });
    pass(&mut websocket, Side::Server, &[b"x", b"what?"]);
    assert_eq!(websocket.take_counts(), Counts { up: 0, down: 1, is_opaque: true });
    assert_eq!(websocket.take_counts(), Counts::default());
}

/// A stream that can be read, and takes and forgets what is written.
struct OneWay(Cursor<Vec<u8>>);

impl Read for OneWay {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for OneWay {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What another parser reads in `stream`, as `role`, without our Pings; and how many these are.
fn read(stream: Vec<u8>, role: Role) -> (Vec<Message>, usize) {
    let config = WebSocketConfig::default().accept_unmasked_frames(false);
    let mut peer = tungstenite::WebSocket::from_raw_socket(OneWay(Cursor::new(stream)), role, Some(config));
    let mut messages = Vec::new();
    while let Ok(message) = peer.read() {
        messages.push(message);
    }
    let all = messages.len();
    messages.retain(|message| !matches!(message, Message::Ping(mark) if mark[..] == MARK.to_be_bytes()));
    let pings = all - messages.len();
    (messages, pings)
}

/// Messages in fragments, with control frames among them, as `sender` writes them.
fn messages(sender: Side) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec((chosen(), any::<bool>()), 0..8).prop_map(move |chosen| {
        let mut is_open = false;
        let mut frames = Vec::new();
        for (Chosen { first, payload, mask }, is_final) in chosen {
            let first = match first & 0x08 {
                0 => {
                    // Binary, so that any payload is valid, and without reserved bits.
                    let opcode = if is_open { opcode::CONTINUATION } else { opcode::BINARY };
                    is_open = !is_final;
                    if is_final { FINAL | opcode } else { opcode }
                }
                _ => first,
            };
            frames.push(frame(sender, first, &payload, mask));
        }
        frames
    })
}

fn cut<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect()
}

proptest! {
    #[test]
    fn no_ping_changes_what_another_parser_reads(
        frames in messages(Side::Server),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..12),
    ) {
        let stream = frames.concat();
        let (at, wants): (Vec<_>, Vec<_>) = cuts.into_iter().unzip();
        let mut websocket = WebSocket::new(MARK);
        let mut sent = Vec::new();
        let mut asked = 0;
        for (piece, wants) in cut(&stream, &at).into_iter().zip(wants.into_iter().chain([true])) {
            if wants {
                asked += 1;
                sent.extend(websocket.ping().unwrap_or_default());
            }
            sent.extend(pass(&mut websocket, Side::Server, &[piece]));
        }
        let (expected, _) = read(stream, Role::Client);
        let (actual, pings) = read(sent, Role::Client);
        prop_assert_eq!(actual, expected);
        // One that waits when the next is wanted counts for both.
        prop_assert!(pings <= asked && (pings > 0 || asked == 0));
    }

    #[test]
    fn no_pong_of_ours_changes_the_rest(
        frames in messages(Side::Client),
        pongs in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 4]>()), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let expected = frames.concat();
        let mut stream = frames;
        for (at, mask) in pongs {
            stream.insert(at.index(stream.len() + 1), our_pong(mask));
        }
        let stream = stream.concat();
        let mut websocket = pinged();
        let mut sent = pass(&mut websocket, Side::Client, &cut(&stream, &cuts));
        sent.extend(websocket.release());
        prop_assert!(sent == expected, "{} bytes instead of {}", sent.len(), expected.len());

        let mut bytewise = pinged();
        let tail = &stream[stream.len().saturating_sub(2_000)..];
        let (whole, split) = (
            pass(&mut pinged(), Side::Client, &[tail]),
            pass(&mut bytewise, Side::Client, &tail.chunks(1).collect::<Vec<_>>()),
        );
        prop_assert!(whole.starts_with(&split) && whole.len() - split.len() < PONG_BYTES);
    }

    #[test]
    fn a_close_stands_behind_whole_frames(
        (from, frames) in prop_oneof![Just(Side::Client), Just(Side::Server)]
            .prop_flat_map(|from| (Just(from), messages(from))),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        when in any::<prop::sample::Index>(),
    ) {
        let (to, role) = match from {
            Side::Client => (Side::Server, Role::Server),
            Side::Server => (Side::Client, Role::Client),
        };
        let stream = frames.concat();
        let pieces = cut(&stream, &cuts);
        let (before, after) = pieces.split_at(when.index(pieces.len() + 1));
        let mut websocket = WebSocket::new(MARK);
        let mut sent = pass(&mut websocket, from, before);
        sent.extend(websocket.close(to, Goodbye::GoingAway).unwrap_or_default());
        sent.extend(pass(&mut websocket, from, after));

        let goodbye = frame(from, 0x88, b"\x03\xE9going away", [1, 2, 3, 4]);
        let kept = sent.strip_suffix(&goodbye[..]);
        prop_assert!(kept.is_some(), "it is not the last");
        let whole = (0..=frames.len()).map(|count| frames[..count].concat()).find(|whole| Some(&whole[..]) == kept);
        prop_assert!(whole.is_some(), "a frame was cut");
        prop_assert!(sent.starts_with(&before.concat()), "what had come before was lost");
        let (messages, _) = read(sent, role);
        prop_assert!(matches!(messages.last(), Some(Message::Close(Some(close))) if u16::from(close.code) == 1001));
        prop_assert!(websocket.awaits(to));
    }

    #[test]
    fn nothing_is_lost_of_what_is_no_websocket(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..20),
        from in prop_oneof![Just(Side::Client), Just(Side::Server)],
    ) {
        let mut websocket = WebSocket::new(MARK);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(pass(&mut websocket, from, &pieces), pieces.concat());
    }
}
