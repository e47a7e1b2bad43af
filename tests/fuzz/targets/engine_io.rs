//! Engine.IO: sessions in queries, and in open packets that are tagged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::affinity::engine_io;
use steadfast::affinity::tag::Secret;

fuzz_target!(|input: (&str, &[u8])| {
    let (query, body) = input;
    let secret = Secret::new(b"0123456789abcdef");
    let _ = engine_io::Session::of(query, &secret);
    let _ = engine_io::is_asked(query);
    let _ = engine_io::looks_tagged(query);
    let opened = engine_io::opening(body).map(|sid| sid.into_owned());
    if let Some(tagged) = engine_io::tag_opening(body, &secret, secret.server("a")) {
        let tagged = engine_io::opening(&tagged).expect("it is an open packet still").into_owned();
        assert!(tagged.starts_with(&opened.expect("it was one")));
        assert!(engine_io::looks_tagged(&tagged), "{tagged}");
    }
});
