use std::sync::Arc;

use proptest::prelude::*;
use rustls::client::Resumption;
use rustls::{AlertDescription, ClientConfig, Connection, ProtocolVersion, RootCertStore, ServerConfig};

use super::*;
use crate::tls::certificates::provider;
use crate::tls::tests::Identity;

#[test]
fn bytes_cross_both_ways_whatever_pieces_the_records_come_in() {
    proptest!(ProptestConfig::with_cases(24), |(cut in 1..40_usize, length in 0..100_000_usize, old in any::<bool>())| {
        let mut pair = Pair::new(version(old));
        pair.shake(cut);
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
        pair.ours_sends(&bytes);
        prop_assert_eq!(&pair.theirs_read(), &bytes);
        pair.theirs_sends(&bytes, cut.max(length / 50));
        prop_assert_eq!(&pair.plain, &bytes);
    });
}

#[test]
fn every_split_of_a_record_is_as_good_as_none() {
    for old in [false, true] {
        let mut pair = Pair::new(version(old));
        pair.shake(usize::MAX);
        let records = pair.theirs_seals(b"hello, and goodbye");
        for (at, _) in records.iter().enumerate() {
            // Each byte by itself says nothing until the last one.
            assert!(pair.plain.is_empty());
            pair.take(&records[at..=at]).unwrap();
        }
        assert_eq!(pair.plain, b"hello, and goodbye");
        assert_eq!(pair.ours.kept(), 0);
    }
}

#[test]
fn nothing_is_kept_between_records() {
    let mut pair = Pair::new(ProtocolVersion::TLSv1_3);
    pair.shake(100);
    pair.theirs_sends(&[7; 50_000], 1000);
    assert_eq!((pair.ours.kept(), pair.ours.partial.capacity()), (0, 0));
}

#[test]
fn our_end_may_be_the_client_too() {
    for old in [false, true] {
        let mut pair = Pair::as_client(version(old));
        pair.shake(33);
        pair.ours_sends(b"ping");
        assert_eq!(pair.theirs_read(), b"ping");
        // With TLS 1.3 the tickets came before this.
        pair.theirs_sends(b"pong", 1);
        assert_eq!(pair.plain, b"pong");
    }
}

#[test]
fn a_goodbye_is_an_end_and_lets_the_other_side_go_on() {
    for old in [false, true] {
        let mut pair = Pair::new(version(old));
        pair.shake(usize::MAX);
        pair.theirs.send_close_notify();
        let records = pair.theirs_writes();
        pair.take(&records).unwrap();
        assert!(pair.ours.peer_has_closed());
        if !old {
            pair.ours_sends(b"one more thing");
            assert_eq!(pair.theirs_read(), b"one more thing");
        }
        let mut records = vec![0; Session::SEALED_MAX];
        let length = pair.ours.close(&mut records).unwrap();
        assert!(length > 0);
        assert_eq!(pair.ours.close(&mut records).unwrap(), 0);
        assert!(pair.ours.seal(b"and another", &mut records).is_err());
        pair.theirs.read_tls(&mut &records[..length]).unwrap();
        assert!(pair.theirs.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn what_comes_behind_a_goodbye_is_nobodys() {
    let mut pair = Pair::new(ProtocolVersion::TLSv1_3);
    pair.shake(usize::MAX);
    pair.theirs.send_close_notify();
    let mut records = pair.theirs_writes();
    records.extend_from_slice(&[23, 3, 3, 0, 100, 1, 2, 3]);
    pair.take(&records).unwrap();
    assert!(pair.ours.peer_has_closed());
    assert_eq!((pair.ours.kept(), pair.plain.len()), (0, 0));
}

#[test]
fn keys_may_be_renewed_in_the_middle() {
    let mut pair = Pair::new(ProtocolVersion::TLSv1_3);
    pair.shake(usize::MAX);
    for round in 0..5 {
        pair.theirs.refresh_traffic_keys().unwrap();
        pair.theirs_sends(&[round; 1000], 77);
        assert_eq!(std::mem::take(&mut pair.plain), [round; 1000]);
        pair.ours_sends(&[round; 70_000]);
        assert_eq!(pair.theirs_read(), [round; 70_000]);
    }
}

#[test]
fn a_record_that_was_changed_is_answered_with_an_alert() {
    let mut pair = Pair::new(ProtocolVersion::TLSv1_3);
    pair.shake(usize::MAX);
    let mut records = pair.theirs_seals(b"hello");
    let more = pair.theirs_seals(b"hello again");
    *records.last_mut().unwrap() ^= 1;
    assert!(matches!(pair.take(&records), Err(Failure::Protocol(rustls::Error::DecryptError))));
    assert!(pair.plain.is_empty());
    let told = pair.theirs_hears_answer().unwrap_err();
    assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
    // And there is no way back.
    assert!(pair.take(&more).is_err());
    assert!(pair.plain.is_empty());
}

#[test]
fn what_is_no_tls_is_an_error_at_once() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x00\x00\x00\x00\x00\x00", b"SSH-2.0-OpenSSH\r\n"] {
        let mut pair = Pair::new(ProtocolVersion::TLSv1_3);
        pair.theirs_writes();
        assert!(pair.take(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_handshake_without_end_is_cut() {
    // A hello of a length that its records never reach.
    let mut pair = Pair::new(ProtocolVersion::TLSv1_3);
    let hello = [&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat();
    let more = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    pair.take(&hello).unwrap();
    let failed = (0..20).find_map(|_| pair.take(&more).err()).unwrap();
    assert!(matches!(failed, Failure::TooLong | Failure::Protocol(_)), "{failed:?}");
    assert!(pair.ours.kept() <= Session::HANDSHAKE_MAX);
}

fn version(old: bool) -> ProtocolVersion {
    if old { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 }
}

/// A session of ours, and rustls' own buffered one at the other end.
struct Pair {
    ours: Session,
    theirs: Connection,
    /// What ours has got.
    plain: Vec<u8>,
    /// What ours has to say to that.
    answer: Vec<u8>,
    buffer: Vec<u8>,
}

impl Pair {
    fn new(version: ProtocolVersion) -> Self {
        let (server, client) = configs(version);
        let theirs = rustls::ClientConnection::new(client, "test.example".try_into().unwrap()).unwrap();
        Self::of(Session::server(server).unwrap(), theirs.into())
    }

    fn as_client(version: ProtocolVersion) -> Self {
        let (server, client) = configs(version);
        let theirs = rustls::ServerConnection::new(server).unwrap();
        Self::of(Session::client(client, "test.example".try_into().unwrap()).unwrap(), theirs.into())
    }

    fn of(ours: Session, theirs: Connection) -> Self {
        Self { ours, theirs, plain: Vec::new(), answer: Vec::new(), buffer: vec![0; 4 * Session::HANDSHAKE_MAX] }
    }

    /// Ours gets `bytes`.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let kept = self.ours.kept();
        self.buffer[kept..kept + bytes.len()].copy_from_slice(bytes);
        let plain = &mut self.plain;
        self.ours.open(&mut self.buffer, bytes.len(), |bytes| plain.extend_from_slice(bytes), &mut self.answer)
    }

    /// Both shake hands; what ours gets comes in pieces of `cut`.
    fn shake(&mut self, cut: usize) {
        for _ in 0..10 {
            self.take(&[]).unwrap();
            self.theirs_hears_answer().unwrap();
            let records = self.theirs_writes();
            records.chunks(cut).for_each(|piece| self.take(piece).unwrap());
        }
        assert!(!self.ours.is_handshaking() && !self.theirs.is_handshaking());
        assert!(self.plain.is_empty());
    }

    fn theirs_hears_answer(&mut self) -> Result<(), rustls::Error> {
        let answer = std::mem::take(&mut self.answer);
        let mut rest = &answer[..];
        while !rest.is_empty() {
            self.theirs.read_tls(&mut rest).unwrap();
            self.theirs.process_new_packets()?;
        }
        Ok(())
    }

    fn theirs_writes(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut records).unwrap();
        }
        records
    }

    fn theirs_seals(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        for piece in bytes.chunks(10_000) {
            std::io::Write::write_all(&mut self.theirs.writer(), piece).unwrap();
            records.extend(self.theirs_writes());
        }
        records
    }

    fn theirs_sends(&mut self, bytes: &[u8], cut: usize) {
        let records = self.theirs_seals(bytes);
        records.chunks(cut).for_each(|piece| self.take(piece).unwrap());
    }

    fn ours_sends(&mut self, bytes: &[u8]) {
        let mut records = vec![0; Session::SEALED_MAX];
        for piece in bytes.chunks(Session::SEAL_MAX) {
            let length = self.ours.seal(piece, &mut records).unwrap();
            self.answer.extend_from_slice(&records[..length]);
        }
    }

    /// What of `ours_sends` arrives.
    fn theirs_read(&mut self) -> Vec<u8> {
        let answer = std::mem::take(&mut self.answer);
        let (mut rest, mut bytes) = (&answer[..], Vec::new());
        while !rest.is_empty() {
            self.theirs.read_tls(&mut rest).unwrap();
            self.theirs.process_new_packets().unwrap();
            let mut reader = self.theirs.reader();
            while let Ok(more) = std::io::BufRead::fill_buf(&mut reader) {
                if more.is_empty() {
                    break;
                }
                let length = more.len();
                bytes.extend_from_slice(more);
                std::io::BufRead::consume(&mut reader, length);
            }
        }
        bytes
    }
}

fn configs(version: ProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let versions = match version {
        ProtocolVersion::TLSv1_2 => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13],
    };
    let identity = Identity::of(&["test.example"]);
    let server = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![identity.cert.clone()], identity.key());
    let mut roots = RootCertStore::empty();
    roots.add(identity.cert).unwrap();
    let client = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.resumption = Resumption::disabled();
    (Arc::new(server.unwrap()), Arc::new(client))
}
