//! Files of nginx and Ingresses: whatever the text is, there is an answer, what comes out is one document, and no
//! refusal is without a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use steadfast::migrate::{File, ingress, nginx};

fuzz_target!(|text: &str| {
    // An include brings the file itself, so that it ends where files within each other do.
    let mut find = |name: &str| Ok(vec![File { name: name.to_owned(), text: text.get(..64).unwrap_or("").to_owned() }]);
    for outcome in [nginx("f", text, "/etc/nginx", &mut find), ingress("f", text)] {
        match outcome {
            Ok(imported) => {
                let comments = imported.yaml.lines().filter(|line| line.trim_start().starts_with("# ")).count();
                assert_eq!(comments, imported.remarks.len() + 1, "{}", imported.yaml);
                // What keeps a file from being read as YAML is said alone, and without a key.
                if let Err(mistakes) = steadfast::config::parse(&imported.yaml, "f") {
                    let shown = mistakes.to_string();
                    assert!(!shown.contains("YAML"), "{shown}\n{}", imported.yaml);
                }
            }
            Err(refused) => assert!(!refused.text.is_empty()),
        }
    }
});
