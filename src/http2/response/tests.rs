use super::*;
use http::Method;
use proptest::prelude::*;

/// What a client gets, written down line by line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    heads: Vec<String>,
    data: Vec<u8>,
    is_done: bool,
}

/// Writes `pieces` one after the other, to a client that has `room` for so many bytes at a time.
fn got(decoder: &mut Decoder, pieces: &[&[u8]], room: usize) -> Result<Got, Malformed> {
    let mut got = Got::default();
    for piece in pieces {
        let mut left = *piece;
        while !left.is_empty() {
            let (taken, piece) = decoder.take(left, room)?;
            match piece {
                Piece::Nothing => assert!(taken > 0, "stuck before {left:?}"),
                Piece::Informational(head) | Piece::Head(head) => got.heads.push(line(&head)),
                Piece::Data(data) => {
                    assert!((1..=room).contains(&data.len()));
                    got.data.extend_from_slice(&data);
                }
            }
            left = &left[taken..];
        }
    }
    got.is_done = decoder.is_done();
    Ok(got)
}

fn line(head: &Response<()>) -> String {
    let fields = head.headers().iter().map(|(name, value)| format!(" {name}={}", value.to_str().expect("text")));
    head.status().as_str().to_owned() + &fields.collect::<String>()
}

#[track_caller]
fn check(method: &Method, body: Body, text: &str, expected: (&[&str], &str, bool)) {
    let (heads, data, is_done) = expected;
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let expected = Got { heads, data: data.as_bytes().to_vec(), is_done };
    assert_eq!(got(&mut Decoder::new(method, body), &[text.as_bytes()], 5), Ok(expected), "{text:?}");
}

#[test]
fn a_response_becomes_a_head_and_data() {
    let get = |text, heads: &[&str], data, is_done| check(&Method::GET, Body::None, text, (heads, data, is_done));
    get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", &["200 content-length=5"], "hello", true);
    get("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", &["200 content-length=6"], "hello", false);
    get("HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", &["404 content-length=0"], "", true);
    get("HTTP/1.0 200 OK\r\n\r\nhello, world", &["200"], "hello, world", false);
    get(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nX: y\r\n\r\n7\r\nhello, \r\n5;x=y\r\nworld\r\n0\r\nT: x\r\n\r\n",
        &["200 x=y"],
        "hello, world",
        true,
    );
    get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", &["200"], "hello", false);
    get(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\
         Trailer: x\r\nTE: x\r\nContent-Length: 0\r\n\r\n",
        &["200 content-length=0"],
        "",
        true,
    );
    get(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
        &["200 set-cookie=a set-cookie=b content-length=0"],
        "",
        true,
    );
    get("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", &["204 x=y"], "", true);
    get("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", &["304 content-length=5"], "", true);
    get(
        "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        &["103 link=a", "100", "200 content-length=2"],
        "ok",
        true,
    );
    let head_only = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    check(&Method::HEAD, Body::None, head_only, (&["200 content-length=5"], "", true));
    check(&Method::HEAD, Body::None, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", (&["200"], "", true));
}

#[test]
fn an_upgrade_becomes_a_connection() {
    check(
        &Method::CONNECT,
        Body::Raw,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\nframes of another protocol",
        (&["200 sec-websocket-protocol=chat"], "frames of another protocol", false),
    );
    let refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    check(&Method::CONNECT, Body::Raw, refused, (&["403 content-length=2"], "no", true));
}

#[test]
fn what_is_no_response_is_told() {
    #[track_caller]
    fn check(text: &str) {
        let mut decoder = Decoder::new(&Method::GET, Body::None);
        assert_eq!(got(&mut decoder, &[text.as_bytes()], 100), Err(Malformed), "{text:?}");
    }

    check("200 OK\r\n\r\n");
    check("HTTP/1.1 OK\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n");
    check("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nX y\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n");
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n");
    check("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
    check(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(Decoder::HEAD_MAX)));
}

#[test]
fn the_end_of_the_connection_ends_what_has_no_other_end() {
    #[track_caller]
    fn check(text: &str, expected: Result<(), Malformed>) {
        let mut decoder = Decoder::new(&Method::GET, Body::None);
        got(&mut decoder, &[text.as_bytes()], 100).expect("a response");
        assert_eq!(decoder.close(), expected, "{text:?}");
    }

    check("HTTP/1.1 200 OK\r\n\r\nhello", Ok(()));
    check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(()));
    check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Err(Malformed));
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Err(Malformed));
    check("HTTP/1.1 200 OK\r\n", Err(Malformed));
    check("", Err(Malformed));
}

#[test]
fn the_end_needs_no_room() {
    let mut decoder = Decoder::new(&Method::GET, Body::None);
    let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    got(&mut decoder, &[text], 2).expect("a response");
    assert!(matches!(decoder.take(b"3\r\nmore", 0), Ok((3, Piece::Nothing))));
    assert!(matches!(decoder.take(b"more", 0), Ok((0, Piece::Nothing))));
    got(&mut decoder, &[b"mor"], 1).expect("a response");
    assert!(matches!(decoder.take(b"\r\n0\r\n\r\n", 0), Ok((7, Piece::Nothing))));
    assert!(decoder.is_done());
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        which in 0_usize..4,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        room in 1_usize..60,
    ) {
        let data = chunks.concat();
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n".to_vec();
        let head = match which {
            0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", data.len()),
            1 => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            2 => "HTTP/1.1 200 OK\r\nX: y\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".to_owned(),
        };
        let mut text = [early, head.into_bytes()].concat();
        if which == 1 {
            text.extend(chunks.iter().flat_map(|chunk| chunked::encode(chunk)));
            text.extend_from_slice(chunked::LAST_CHUNK);
        } else {
            text.extend_from_slice(&data);
        }
        let body = if which == 3 { Body::Raw } else { Body::None };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
        let got = got(&mut Decoder::new(&Method::GET, body), &pieces, room).expect("a response");
        prop_assert_eq!(got.heads.len(), 2);
        prop_assert_eq!(&got.heads[0], "103 link=a");
        prop_assert_eq!(got.data, data);
        prop_assert_eq!(got.is_done, which < 2);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = got(&mut Decoder::new(&Method::GET, Body::None), &[b"HTTP/1.1 200 OK\r\n", &bytes], 7);
    }
}
