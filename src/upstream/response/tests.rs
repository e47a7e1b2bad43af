use super::*;

use proptest::prelude::*;

fn parsed(bytes: &str) -> Head {
    Head::read(bytes.as_bytes(), 0).expect("a response").expect("it is whole").0
}

fn written(head: &Head) -> String {
    let mut text = Vec::new();
    head.write(&mut text);
    String::from_utf8(text).expect("tests are text")
}

#[test]
fn a_head_is_read_when_it_is_whole() {
    #[track_caller]
    fn check(bytes: &str, status: u16, reason: &str, version: Version, fields: &[(&str, &str)]) {
        let whole = format!("{bytes}body");
        for end in 0..bytes.len() {
            for seen in [0, end / 2, end] {
                let earlier = Head::read(&whole.as_bytes()[..end], seen.min(end)).expect("a response so far");
                assert!(earlier.is_none(), "{bytes:?} after {end} bytes");
            }
        }
        let (head, length) = Head::read(whole.as_bytes(), 0).expect("a response").expect("it is whole");
        assert_eq!((length, head.status.as_u16(), head.version), (bytes.len(), status, version));
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(written(&head), format!("HTTP/1.1 {status} {reason}\r\n{lines}"), "{bytes:?}");
    }

    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    check("HTTP/1.1 200 OK\r\n\r\n", 200, "OK", new, &[]);
    check("HTTP/1.0 200 Fine\r\n\r\n", 200, "Fine", old, &[]);
    check("HTTP/1.1 299\r\n\r\n", 299, "", new, &[]);
    check("HTTP/1.1 200 OK\nX-a: b\n\n", 200, "OK", new, &[("X-a", "b")]);
    for before in ["\r\n", "\n\n", "\r\n\r\n", "\n\r\n\r\n\n"] {
        check(&format!("{before}HTTP/1.1 200 OK\r\n\r\n"), 200, "OK", new, &[]);
    }
    let fields = [("content-LENGTH", "4"), ("X", "1"), ("x", "2")];
    check("HTTP/1.1 200 OK\r\ncontent-LENGTH:4\r\nX: 1\r\nx : 2 \r\n\r\n", 200, "OK", new, &fields);
    let fields = [("A", "1"), ("B", ""), ("C", "2"), ("D", ""), ("E", "3"), ("F", "4")];
    check("HTTP/1.1 200 OK\r\nA: 1\r\nB:\r\nC: 2\r\nD: \r\nE: 3\t\r\nF: 4\n\r\n", 200, "OK", new, &fields);
}

#[test]
fn what_is_no_response_is_malformed() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\x7Fb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        &format!("HTTP/1.1 200 OK\r\n{}: 1\r\n\r\n", "x".repeat(NAME_MAX + 1)),
    ] {
        assert_eq!(Head::read(bytes.as_bytes(), 0).map(|_| ()), Err(Malformed), "{bytes:?}");
    }
}

#[test]
fn every_name_is_known_however_it_is_spelled() {
    for name in [
        Name::CacheControl,
        Name::Connection,
        Name::ContentEncoding,
        Name::ContentLength,
        Name::ContentType,
        Name::Date,
        Name::KeepAlive,
        Name::ProxyConnection,
        Name::Trailer,
        Name::TransferEncoding,
        Name::Upgrade,
        Name::XAccelBuffering,
    ] {
        for spelled in [name.text().to_owned(), name.text().to_lowercase(), name.text().to_uppercase()] {
            assert_eq!(Name::of(spelled.as_bytes()), Some(name));
        }
    }
    assert_eq!(["Dates", "Data", "", "Connectiom"].map(|name| Name::of(name.as_bytes())), [None; 4]);
}

#[test]
fn fields_are_changed_where_they_stand_and_added_behind() {
    #[track_caller]
    fn check(change: impl Fn(&mut Head), expected: &str) {
        let mut head = parsed("HTTP/1.1 200 OK\r\nA: 1\r\ndate: then\r\nB : 2\r\nDate: now\r\nC: 3\r\n\r\n");
        change(&mut head);
        assert_eq!(written(&head), format!("HTTP/1.1 200 OK\r\n{}", expected.replace('|', "\r\n")));
    }

    check(|_| {}, "A: 1|date: then|B: 2|Date: now|C: 3|");
    check(|head| head.remove(Name::Date), "A: 1|B: 2|C: 3|");
    check(|head| head.set(Name::Date, "later"), "A: 1|B: 2|C: 3|Date: later|");
    check(|head| head.add(Name::Date, ""), "A: 1|date: then|B: 2|Date: now|C: 3|Date: |");
    check(|head| head.add_cookie("a=b"), "A: 1|date: then|B: 2|Date: now|C: 3|Set-Cookie: a=b|");
    let mut head = Head::new(StatusCode::NO_CONTENT);
    assert!(!head.has(Name::Date));
    head.add(Name::Date, "now");
    assert_eq!(
        (head.get(Name::Date), written(&head).lines().next()),
        (Some(&b"now"[..]), Some("HTTP/1.1 204 No Content"))
    );
}

#[test]
fn hop_by_hop_fields_end_here() {
    #[track_caller]
    fn check(fields: &str, upgrade: Option<&str>, expected: &str) {
        let mut head = parsed(&format!("HTTP/1.0 200 OK\r\n{}\r\n", fields.replace('|', "\r\n")));
        let upgrade = upgrade.map(|asked| asked.parse().expect("a valid field"));
        head.pass_on(upgrade.as_ref());
        assert_eq!(written(&head), format!("HTTP/1.1 200 OK\r\n{}", expected.replace('|', "\r\n")), "{fields}");
        assert!(!head.has(Name::KeepAlive) && head.has(Name::Connection) == upgrade.is_some());
    }

    check("A: 1|Connection: keep-alive|Keep-Alive: timeout=5|B: 2|", None, "A: 1|B: 2|");
    check("Proxy-Connection: x|Trailer: X|Upgrade: h2c|A: 1|", None, "A: 1|");
    check("Connection: close, x-private|X-Private: 1|A: 1|Date: 2|", None, "A: 1|Date: 2|");
    check("Connection: date|Connection: Keep-Alive , a|Date: 1|A: 1|B: 2|", None, "B: 2|");
    // What frames and types cannot be named away.
    check("Connection: content-length, Content-Type|Content-Length: 1|", None, "Content-Length: 1|");
    let upgraded = "Connection: Upgrade|Upgrade: websocket|";
    check("Connection: upgrade|Upgrade: websocket|", Some("WebSocket"), upgraded);
    check("Connection: upgrade|", Some("websocket"), upgraded);
}

#[test]
fn a_server_that_frames_oddly_is_not_asked_again() {
    #[track_caller]
    fn check(start: &str, fields: &str, expected: bool) {
        assert_eq!(parsed(&format!("{start}\r\n{fields}\r\n")).stays_open(), expected, "{start} {fields:?}");
    }

    let ok = "HTTP/1.1 200 OK";
    check(ok, "Content-Length: 5\r\n", true);
    check(ok, "Transfer-Encoding: chunked\r\n", true);
    check(ok, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", false);
    check("HTTP/1.0 200 OK", "Connection: keep-alive\r\nContent-Length: 5\r\n", true);
    check("HTTP/1.0 200 OK", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n", false);
    check("HTTP/1.1 204 X", "", true);
    check("HTTP/1.1 204 X", "Content-Length: 0\r\n", true);
    check("HTTP/1.1 204 X", "Content-Length: 5\r\n", false);
    check("HTTP/1.1 204 X", "Transfer-Encoding: chunked\r\n", false);
    check("HTTP/1.1 304 X", "Content-Length: 5\r\n", true);
    for status in [103, 204] {
        let fields = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
        let head = parsed(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"));
        assert!(!head.has(Name::ContentLength) && !head.has(Name::TransferEncoding));
    }
}

#[test]
fn a_body_is_framed_as_its_client_knows() {
    #[track_caller]
    fn check(start: &str, client: Version, expected: &str) {
        let mut head = parsed(&format!("HTTP/1.1 {}\r\n\r\n", start.replace('|', "\r\n")));
        head.frame_for(client);
        let written = written(&head).replace("\r\n", "|");
        assert_eq!(written.split_once('|').map(|(_, fields)| fields), Some(expected), "{start} {client:?}");
    }

    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    let chunked = "Transfer-Encoding: chunked|";
    check("200 OK", new, chunked);
    check("200 OK|Transfer-Encoding: Chunked", new, chunked);
    check("200 OK|transfer-encoding: chunked", new, "transfer-encoding: chunked|");
    check("200 OK|Transfer-Encoding: chunked", old, "");
    check("200 OK|Content-Length: 5, 5", new, "Content-Length: 5|");
    check("200 OK|Content-Length: 5", old, "Content-Length: 5|");
    check("304 X|Transfer-Encoding: chunked", new, "");
    check("204 X", new, "");
}

#[test]
fn an_upgrade_is_agreed_to_by_its_own_name() {
    #[track_caller]
    fn check(asked: &str, got: &str, expected: bool) {
        let head = parsed(&format!("HTTP/1.1 101 X\r\n{got}\r\n"));
        assert_eq!(head.agrees_to(&asked.parse().expect("a valid field")), expected);
    }

    check("websocket", "Upgrade: websocket\r\n", true);
    check("websocket", "upgrade: WebSocket\r\n", true);
    check("foo, websocket", "Upgrade: websocket\r\n", true);
    check("websocket", "", true);
    check("websocket", "Upgrade: h2c\r\n", false);
}

#[test]
fn event_streams_ask_not_to_be_held_back() {
    #[track_caller]
    fn check(before: &str, after: &[&str]) {
        let mut head = parsed(&format!("HTTP/1.1 200 OK\r\nX-Accel-Buffering: yes\r\n{before}\r\n"));
        head.promise_events();
        let fields: Vec<&[u8]> = head.all(Name::CacheControl).collect();
        assert_eq!(fields, after.iter().map(|field| field.as_bytes()).collect::<Vec<_>>());
        assert_eq!(head.all(Name::XAccelBuffering).collect::<Vec<_>>(), [b"no"]);
    }

    check("", &["no-transform"]);
    check("Cache-Control: no-cache\r\n", &["no-cache", "no-transform"]);
    check("Cache-Control: no-cache, No-Transform\r\n", &["no-cache, No-Transform"]);
}

proptest! {
    /// However its lines are written and whatever is changed: the fields are those that were there.
    #[test]
    fn what_is_written_is_read_again(
        lines in "((Date|connection|Content-Type|UPGRADE|Keep-Alive|X|Set-Cookie)( ?):[ \t]{0,2}[!-~]{0,9}[ \t]{0,2}\r?\n){0,7}",
        removed in proptest::sample::subsequence(vec![Name::Date, Name::KeepAlive, Name::Upgrade], 0..3),
        is_for_events in any::<bool>(),
    ) {
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let (mut head, length) = Head::read(text.as_bytes(), 0).expect("a response").expect("it is whole");
        prop_assert_eq!((length, head.fields().count()), (text.len(), lines.lines().count()));
        for name in removed {
            head.remove(name);
            prop_assert!(!head.has(name) && head.get(name).is_none());
        }
        if is_for_events {
            head.promise_events();
        }
        let again = written(&head) + "\r\n";
        let (read, length) = Head::read(again.as_bytes(), 0).expect("a response").expect("it is whole");
        prop_assert_eq!(length, again.len());
        prop_assert_eq!(read.fields().collect::<Vec<_>>(), head.fields().collect::<Vec<_>>());
        prop_assert_eq!(read.names, head.names);
    }
}
