//! Headers right, wrong, cut and glued, and the same as another parser reads them.

use proptest::prelude::*;

use super::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_START, &[command, family], &length, body].concat()
}

/// A whole header, which stays one whatever is glued behind it and wherever it is cut.
#[track_caller]
fn check_header(header: &[u8], ends: Option<Ends>) {
    let whole = Ok(Start::Header { length: header.len(), ends });
    for behind in ["", "GET / HTTP/1.1\r\n\r\n", "PROXY ", "\r\n"] {
        let bytes = [header, behind.as_bytes()].concat();
        assert_eq!(read(&bytes), whole, "{}", bytes.escape_ascii());
    }
    for cut in 0..header.len() {
        assert_eq!(read(&header[..cut]), Ok(Start::Partial), "{}", header[..cut].escape_ascii());
    }
}

#[test]
fn nobody_is_named_by_who_speaks_for_itself() {
    for version in [Version::V1, Version::V2] {
        let header = version.of_nobody();
        assert_eq!(read(&header), Ok(Start::Header { length: header.len(), ends: None }), "{version:?}");
    }
}

#[test]
fn a_header_of_text_names_both_ends() {
    #[track_caller]
    fn check(line: &str, expected: Option<Ends>) {
        check_header(format!("{line}\r\n").as_bytes(), expected);
    }

    check("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443", Some(ends("192.0.2.1:56324", "10.0.0.1:443")));
    check("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535", Some(ends("0.0.0.0:0", "255.255.255.255:65535")));
    check("PROXY TCP6 2001:db8::1 ::1 1 2", Some(ends("[2001:db8::1]:1", "[::1]:2")));
    check("PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::1 1 2", Some(ends("[2001:db8::1]:1", "[::1]:2")));
    check("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2", Some(ends("[::ffff:192.0.2.1]:1", "[::1]:2")));
    check("PROXY UNKNOWN", None);
    check("PROXY UNKNOWN ", None);
    check("PROXY UNKNOWN anything  at all, 1 2", None);
    let longest = format!("PROXY UNKNOWN {}", "f".repeat(V1_MAX - 16));
    check(&longest, None);
}

#[test]
fn a_header_of_text_is_written_in_one_way_alone() {
    #[track_caller]
    fn check(line: &str) {
        assert_eq!(read(line.as_bytes()), Err(Broken::Malformed), "{line:?}");
    }

    // Ports.
    check("PROXY TCP4 192.0.2.1 10.0.0.1 056324 443\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 00 443\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 +80 443\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 -1 443\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 0x50 443\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80\r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80 \r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80 443 \r\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80 443 1\r\n");
    // Addresses.
    check("PROXY TCP4 192.0.2.01 10.0.0.1 80 443\r\n");
    check("PROXY TCP4 192.0.2.256 10.0.0.1 80 443\r\n");
    check("PROXY TCP4 192.0.2 10.0.0.1 80 443\r\n");
    check("PROXY TCP4 2001:db8::1 ::1 80 443\r\n");
    check("PROXY TCP6 192.0.2.1 10.0.0.1 80 443\r\n");
    check("PROXY TCP6 fe80::1%eth0 ::1 80 443\r\n");
    check("PROXY TCP6 [2001:db8::1] ::1 80 443\r\n");
    check("PROXY TCP4 example.com 10.0.0.1 80 443\r\n");
    // Words and spaces.
    check("PROXY  TCP4 192.0.2.1 10.0.0.1 80 443\r\n");
    check("PROXY TCP4  192.0.2.1 10.0.0.1 80 443\r\n");
    check("PROXY TCP4 192.0.2.1\t10.0.0.1 80 443\r\n");
    check("PROXY tcp4 192.0.2.1 10.0.0.1 80 443\r\n");
    check("PROXY TCP5 192.0.2.1 10.0.0.1 80 443\r\n");
    check("PROXY UDP4 192.0.2.1 10.0.0.1 80 443\r\n");
    check("PROXY UNKNOWNS\r\n");
    check("PROXY unknown\r\n");
    check("PROXY \r\n");
    check("PROXY / HTTP/1.1\r\n\r\n");
    // Line ends.
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80 443\n");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80 443\rGET");
    check("PROXY TCP4 192.0.2.1 10.0.0.1 80 443\r\r\n");
    check("PROXY UNKNOWN \n\r\n");
    check("PROXY UNKNOWN \u{e9}\0\r \r\n");
}

#[test]
fn what_begins_otherwise_is_no_header() {
    #[track_caller]
    fn check(bytes: &[u8]) {
        assert_eq!(read(bytes), Ok(Start::Other), "{}", bytes.escape_ascii());
    }

    check(b"GET / HTTP/1.1\r\n");
    check(b"G");
    check(b"PU");
    check(b"PROP");
    check(b"PROXY\r\n");
    check(b"PROXYTCP4");
    check(b"proxy TCP4 192.0.2.1 10.0.0.1 80 443\r\n");
    check(b" PROXY TCP4");
    check(b"\r\nGET / HTTP/1.1\r\n");
    check(b"\r\n\r\n\r\n");
    check(b"\r\n\r\n\0\r\nQUIT\r\n");
    check(b"\x16\x03\x01");
    check(b"\0");
}

#[test]
fn a_binary_header_names_both_ends() {
    let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0xDC, 4, 1, 187];
    let named = Some(ends("192.0.2.1:56324", "10.0.0.1:443"));
    check_header(&v2(0x21, 0x11, &v4), named);
    // TLVs behind the addresses, good, bad, and as many as fit.
    check_header(&v2(0x21, 0x11, &[v4.as_slice(), &[0x04, 0, 2, 0, 0]].concat()), named);
    check_header(&v2(0x21, 0x11, &[v4.as_slice(), &[0x03, 0xFF, 0xFF]].concat()), named);
    check_header(&v2(0x21, 0x11, &[v4.as_slice(), &[0xEE; V2_BODY_MAX - 12]].concat()), named);

    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15], v6[31], v6[33], v6[35]) = (0x20, 1, 7, 1, 80, 90);
    check_header(&v2(0x21, 0x21, &v6), Some(ends("[2001::7]:80", "[::1]:90")));
}

#[test]
fn a_binary_header_may_name_nobody() {
    // The hop speaks for itself: whatever the family, and with whatever behind it.
    check_header(&v2(0x20, 0x00, &[]), None);
    check_header(&v2(0x20, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0, 80, 0, 80]), None);
    check_header(&v2(0x20, 0x11, &[]), None);
    check_header(&v2(0x20, 0xFF, &[1, 2, 3]), None);
    // Of what it passes on there are no addresses, or none of TCP.
    check_header(&v2(0x21, 0x00, &[]), None);
    check_header(&v2(0x21, 0x00, &[9; 20]), None);
    check_header(&v2(0x21, 0x12, &[9; 12]), None);
    check_header(&v2(0x21, 0x22, &[9; 36]), None);
    check_header(&v2(0x21, 0x31, &[9; 216]), None);
    check_header(&v2(0x21, 0x32, &[9; 220]), None);
}

#[test]
fn a_binary_header_is_refused_as_soon_as_it_is_wrong() {
    #[track_caller]
    fn check(head: [u8; 4], needed: usize, expected: Broken) {
        let bytes = [V2_START, &head].concat();
        let needed = V2_START.len() + needed;
        assert_eq!(read(&bytes[..needed]), Err(expected), "{head:02x?}");
        assert_eq!(read(&bytes[..needed - 1]), Ok(Start::Partial), "{head:02x?}");
        assert_eq!(read(&bytes), Err(expected), "{head:02x?}");
    }

    // Version and command.
    check([0x11, 0x11, 0, 12], 1, Broken::Malformed);
    check([0x31, 0x11, 0, 12], 1, Broken::Malformed);
    check([0x22, 0x11, 0, 12], 1, Broken::Malformed);
    check([0x01, 0x11, 0, 12], 1, Broken::Malformed);
    // Family and transport.
    check([0x21, 0x41, 0, 12], 4, Broken::Malformed);
    check([0x21, 0x13, 0, 12], 4, Broken::Malformed);
    check([0x21, 0xF1, 0, 12], 4, Broken::Malformed);
    // Too short for the family.
    check([0x21, 0x11, 0, 11], 4, Broken::Malformed);
    check([0x21, 0x21, 0, 35], 4, Broken::Malformed);
    check([0x21, 0x31, 0, 215], 4, Broken::Malformed);
    check([0x21, 0x11, 0, 0], 4, Broken::Malformed);
    // Longer than anybody needs.
    check([0x21, 0x11, 0x10, 0x01], 4, Broken::TooLong);
    check([0x20, 0x00, 0xFF, 0xFF], 4, Broken::TooLong);
}

#[test]
fn a_line_without_end_is_refused() {
    let endless = [V1_START, &[b'x'; 500]].concat();
    assert_eq!(read(&endless[..V1_MAX - 1]), Ok(Start::Partial));
    assert_eq!(read(&endless[..V1_MAX]), Err(Broken::TooLong));
    assert_eq!(read(&endless), Err(Broken::TooLong));
    let one_more = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_MAX - 15));
    assert_eq!(read(one_more.as_bytes()), Err(Broken::TooLong));
}

#[test]
fn what_is_written_is_what_the_protocol_says() {
    #[track_caller]
    fn check(ends: Ends, v1: &str, family: u8) {
        assert_eq!(ends.header(Version::V1), v1.as_bytes());
        let v2 = ends.header(Version::V2);
        assert_eq!(v2[..14], [V2_START, &[0x21, family]].concat());
    }

    check(ends("192.0.2.1:80", "10.0.0.1:90"), "PROXY TCP4 192.0.2.1 10.0.0.1 80 90\r\n", 0x11);
    check(ends("[2001:db8::1]:0", "[::1]:90"), "PROXY TCP6 2001:db8::1 ::1 0 90\r\n", 0x21);
    // IPv4 that came in over a socket of IPv6 is IPv4, and beside IPv6 it is written as IPv6.
    check(ends("[::ffff:192.0.2.1]:80", "10.0.0.1:90"), "PROXY TCP4 192.0.2.1 10.0.0.1 80 90\r\n", 0x11);
    check(ends("[2001:db8::1]:80", "10.0.0.1:90"), "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 80 90\r\n", 0x21);
    check(ends("192.0.2.1:80", "[::1]:90"), "PROXY TCP6 ::ffff:192.0.2.1 ::1 80 90\r\n", 0x21);
}

/// Headers as hops write them, and some that they should not.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let text =
        "PROXY (TCP4|TCP6|UNKNOWN|tcp4) ([0-9a-f:.]{1,9}|192.0.2.1|::1) (10.0.0.1|::2) [0-9]{1,6} [0-9]{1,5}\r\n";
    let binary = (0x20..0x23_u8, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..300));
    let ends = (any::<IpAddr>(), any::<u16>(), any::<IpAddr>(), any::<u16>(), any::<bool>());
    prop_oneof![
        text.prop_map(String::into_bytes),
        binary.prop_map(|(command, family, body)| v2(command, family, &body)),
        ends.prop_map(|(source, from, destination, to, is_text)| {
            let ends = Ends { source: (source, from).into(), destination: (destination, to).into() };
            ends.header(if is_text { Version::V1 } else { Version::V2 })
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(source: IpAddr, from: u16, destination: IpAddr, to: u16) {
        let ends = Ends { source: (source, from).into(), destination: (destination, to).into() };
        for version in [Version::V1, Version::V2] {
            let header = ends.header(version);
            let Ok(Start::Header { length, ends: Some(read) }) = read(&header) else { panic!("{}", header.escape_ascii()) };
            prop_assert_eq!(length, header.len());
            prop_assert_eq!(read.source.ip().to_canonical(), source.to_canonical());
            prop_assert_eq!(read.destination.ip().to_canonical(), destination.to_canonical());
            prop_assert_eq!((read.source.port(), read.destination.port()), (from, to));
        }
    }

    /// However the bytes come, the verdict is the same, and comes but once.
    #[test]
    fn a_verdict_stands(header in header(), edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
        let mut bytes = header;
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let whole = read(&bytes);
        let mut is_over = false;
        for cut in 0..=bytes.len() {
            match read(&bytes[..cut]) {
                Ok(Start::Partial) => prop_assert!(!is_over, "cut at {cut}"),
                verdict => {
                    prop_assert_eq!(verdict, whole, "cut at {}", cut);
                    is_over = true;
                }
            }
        }
        if let Ok(Start::Header { length, .. }) = whole {
            prop_assert!(length <= bytes.len() && length <= V2_HEAD + V2_BODY_MAX);
        }
    }

    /// Whatever names ends to us names the same to another parser.
    #[test]
    fn another_parser_reads_the_same(header in header()) {
        let Ok(Start::Header { length, ends: Some(ends) }) = read(&header) else { return Ok(()) };
        let (from, to) = match ppp::HeaderResult::parse(&header[..length]) {
            ppp::HeaderResult::V1(Ok(header)) => match header.addresses {
                ppp::v1::Addresses::Tcp4(it) => {
                    ((it.source_address, it.source_port).into(), (it.destination_address, it.destination_port).into())
                }
                ppp::v1::Addresses::Tcp6(it) => {
                    ((it.source_address, it.source_port).into(), (it.destination_address, it.destination_port).into())
                }
                ppp::v1::Addresses::Unknown => panic!("{}", header.header),
            },
            ppp::HeaderResult::V2(Ok(header)) => match header.addresses {
                ppp::v2::Addresses::IPv4(it) => {
                    ((it.source_address, it.source_port).into(), (it.destination_address, it.destination_port).into())
                }
                ppp::v2::Addresses::IPv6(it) => {
                    ((it.source_address, it.source_port).into(), (it.destination_address, it.destination_port).into())
                }
                other => panic!("{other:?}"),
            },
            refused => panic!("{refused:?}"),
        };
        prop_assert_eq!(ends, Ends { source: from, destination: to });
    }
}
