//! The configuration: whatever the text is, there is an answer, and no refusal without a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(mistakes) = steadfast::config::parse(text, "f") {
        assert!(!mistakes.to_string().is_empty());
    }
});
