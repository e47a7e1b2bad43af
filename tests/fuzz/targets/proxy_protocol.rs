//! PROXY headers: what the first bytes say never changes when more of them come, and what is written
//! is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::proxy_protocol::{Start, Version, read};

fuzz_target!(|input: (&[u8], u16)| {
    let (bytes, cut) = input;
    let whole = read(bytes);
    let early = read(&bytes[..bytes.len().min(cut.into())]);
    assert!(early == Ok(Start::Partial) || early == whole, "{early:?}, then {whole:?}");
    if let Ok(Start::Header { length, ends }) = whole {
        assert_eq!(read(&bytes[..length]), whole);
        for version in ends.into_iter().flat_map(|_| [Version::V1, Version::V2]) {
            let ends = ends.expect("there are some");
            let header = ends.header(version);
            let Ok(Start::Header { length, ends: Some(again) }) = read(&header) else { panic!("{header:?}") };
            let canonical = |ends: steadfast::proxy_protocol::Ends| {
                (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical(), ends.source.port())
            };
            assert_eq!((length, canonical(again)), (header.len(), canonical(ends)));
        }
    }
});
