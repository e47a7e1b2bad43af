//! Balance: the words for each choice, and the bound.

use crate::config::reader::Fields;
use crate::config::{Balance, Hash, Keyless};

pub(super) fn balance(upstream: &mut Fields<'_>) -> Balance {
    let mut balance = Balance::default();
    let item = upstream.optional("balance");
    let right = "write a mapping such as { hash: ketama, keyless: least_conn }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return balance;
    };
    if let Some(hash) = fields.optional("hash").and_then(|item| item.one_of("hash", HASHES)) {
        balance.hash = hash;
    }
    if let Some(item) = fields.optional("balance_factor") {
        balance.balance_factor = match item.is_off() {
            true => None,
            false => item.number(101..=1000, "write off or a number of percent from 101 to 1000"),
        };
    }
    if let Some(keyless) = fields.optional("keyless").and_then(|item| item.one_of("way to choose", KEYLESS)) {
        balance.keyless = keyless;
    }
    fields.finish(&[]);
    balance
}

const HASHES: &[(&str, Hash)] = &[("ketama", Hash::Ketama), ("rendezvous", Hash::Rendezvous)];

const KEYLESS: &[(&str, Keyless)] =
    &[("least_conn", Keyless::LeastConn), ("round_robin", Keyless::RoundRobin), ("random_two", Keyless::RandomTwo)];
