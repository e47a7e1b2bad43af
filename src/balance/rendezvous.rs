//! Weighted rendezvous hashing, by the *names* of the servers.
//!
//! For a key, every server draws a number and the best draw wins (Thaler and Ravishankar, "Using
//! Name-Based Mappings to Increase Hit Rates", 1998). No other server's draw depends on it, so one
//! that comes or goes moves its own keys alone, and one whose weight grows only gains some.
//!
//! Weights follow the logarithmic method (Schindelhauer and Schomaker, "Weighted Distributed Hash
//! Tables", 2005): a draw `u` of 0 to 1 becomes the waiting time `-log(u) / weight`, and the
//! shortest wins, each server in proportion to its weight. Floating-point logarithms differ between
//! platforms in their last bit, and so would servers; here it is computed from integers, bit by bit
//! (Turner, "A Fast Binary Logarithm Algorithm", 2010), the same everywhere. Ceph's `straw2` does
//! likewise, with tables.
//!
//! The mapping is part of the wire contract of a fleet and never changes: XXH64 with seed 0 of key
//! and of name, the finaliser of SplitMix64 over their exclusive or, then the logarithm in units of
//! 2⁻³². Names and not addresses are hashed, so that upstreams whose servers have the same names
//! agree, and a server keeps its keys when it moves to another address.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::iter;

use twox_hash::XxHash64;

/// Servers that draw for keys.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    /// By weight, ascending. Servers of equal weight compare by their draws alone, so that a
    /// logarithm is asked for a class at most, and not for a server.
    classes: Vec<Class>,
}

#[derive(Clone, Debug)]
struct Class {
    weight: u32,
    servers: Vec<Seeded>,
}

#[derive(Clone, Copy, Debug)]
struct Seeded {
    /// The hash of its name.
    seed: u64,
    server: u32,
}

/// What a server drew for a key.
#[derive(Clone, Copy, Debug)]
struct Draw {
    number: u64,
    weight: u32,
    server: u32,
}

impl Rendezvous {
    /// The rendezvous of `servers`, each a name and a weight.
    pub fn new(servers: impl IntoIterator<Item = (impl AsRef<str>, u32)>) -> Self {
        let mut classes: BTreeMap<u32, Vec<Seeded>> = BTreeMap::new();
        for (server, (name, weight)) in (0..).zip(servers) {
            let seed = hash(name.as_ref().as_bytes());
            classes.entry(weight).or_default().push(Seeded { seed, server });
        }
        Self { classes: classes.into_iter().map(|(weight, servers)| Class { weight, servers }).collect() }
    }

    /// The servers in the order in which a key of this [`hash`] tries them, each once.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        // Most walks end at the first server, and the first is found without sorting.
        let others = iter::once_with(move || self.ranked(key).into_iter().skip(1)).flatten();
        self.first(key).into_iter().chain(others).map(|draw| draw.server as usize)
    }

    fn first(&self, key: u64) -> Option<Draw> {
        let mut first: Option<Draw> = None;
        // From the heaviest down, so that only a larger number can win.
        for class in self.classes.iter().rev() {
            let best = class.draws(key).max_by_key(|draw| draw.number)?;
            if first.is_none_or(|first| best.number > first.number && best.rank() < first.rank()) {
                first = Some(best);
            }
        }
        first
    }

    fn ranked(&self, key: u64) -> Vec<Draw> {
        let mut draws: Vec<Draw> = self.classes.iter().flat_map(|class| class.draws(key)).collect();
        draws.sort_by_cached_key(Draw::rank);
        draws
    }
}

impl Class {
    fn draws(&self, key: u64) -> impl Iterator<Item = Draw> {
        let draw = move |Seeded { seed, server }: &Seeded| Draw {
            number: mixed(key ^ seed),
            weight: self.weight,
            server: *server,
        };
        self.servers.iter().map(draw)
    }
}

impl Draw {
    /// Orders draws, the winner first: by waiting time, equal ones by the number itself.
    fn rank(&self) -> (u64, Reverse<u64>) {
        let time = (negative_log2(self.number) << SPARE_BITS) / u64::from(self.weight);
        (time, Reverse(self.number))
    }
}

/// Keeps what dividing by a weight would cut off.
const SPARE_BITS: u32 = 64 - (FRACTION_BITS + INTEGER_BITS);

/// `-log2(number / 2^64)`, from just above 0 to 64, in units of 2^-32. Never grows when `number`
/// does, which [`Rendezvous::first`] relies on.
fn negative_log2(number: u64) -> u64 {
    let number = number.max(1);
    let zeros = number.leading_zeros();
    let mut mantissa = number << zeros; // From 1 to 2, in units of 2^-63.
    let mut fraction = 0;
    for _ in 0..FRACTION_BITS {
        // Squaring doubles the logarithm, and so moves its next bit before the point.
        let square = u128::from(mantissa) * u128::from(mantissa);
        let bit = (square >> 127) as u64;
        mantissa = (square >> (63 + bit)) as u64;
        fraction = fraction << 1 | bit;
    }
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

const FRACTION_BITS: u32 = 32;
/// Enough for 64.
const INTEGER_BITS: u32 = 7;

/// The hash of a key, or of a name.
pub fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit in changes half of the bits
/// out, and no two numbers become the same one.
pub fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: [(&str, u32); 5] = [("a", 1), ("b", 1), ("c", 2), ("chat-4", 5), ("10.0.20.15:3000", 1)];

    /// Computed from the module's description by another program, in another language, with exact
    /// logarithms. Whoever changes this table sends the clients of a mixed fleet to other servers.
    #[test]
    fn keys_lead_where_they_always_led() {
        #[track_caller]
        fn check(key: impl AsRef<[u8]>, expected: [usize; 5]) {
            let order: Vec<usize> = Rendezvous::new(SERVERS).walk(hash(key.as_ref())).collect();
            assert_eq!(order, expected, "key: {:?}", String::from_utf8_lossy(key.as_ref()));
        }

        check("", [4, 3, 2, 1, 0]);
        check("a", [1, 3, 4, 2, 0]);
        check("client-0", [2, 3, 1, 0, 4]);
        check("client-1", [3, 2, 0, 4, 1]);
        check("client-2", [2, 4, 3, 1, 0]);
        check("203.0.113.7", [4, 0, 3, 2, 1]);
        check("2001:db8:0:1", [1, 2, 3, 4, 0]);
        check("user-0", [2, 3, 0, 1, 4]);
        check("user-1", [2, 3, 1, 0, 4]);
        check("session-2f6c1d5e-8f0a-4b52-9d07-1c3b7a6e5f44", [3, 2, 4, 1, 0]);
        check("ключ", [3, 4, 2, 1, 0]);
        check(b"\0\xff", [3, 2, 4, 1, 0]);
    }

    #[test]
    fn the_hash_is_that_of_its_specification() {
        assert_eq!(hash(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(hash(b"abc"), 0x44BC_2CF5_AD77_0999);
        assert_eq!(hash(b"Nobody inspects the spammish repetition"), 0xFBCE_A83C_8A37_8BF1);
    }

    #[test]
    fn the_logarithm_is_exact_to_its_last_bit() {
        for (number, expected) in [
            (0, 64 << 32),
            (1, 64 << 32),
            (2, 63 << 32),
            (0x1234_5678_9ABC_DEF0, 16_380_065_491), // 16380065490.04
            (1 << 63, 1 << 32),
            ((1 << 63) + 1, 1 << 32),
            (3 << 62, 1_782_572_487),    // 1782572486.02
            (u64::MAX - (1 << 40), 370), // 369.3
            (u64::MAX, 1),               // 0.0000000003
        ] {
            assert_eq!(negative_log2(number), expected, "number: {number:#x}");
        }
    }

    #[test]
    fn the_order_of_the_file_does_not_matter() {
        let mut backwards = SERVERS;
        backwards.reverse();
        let (forwards, backwards) = (Rendezvous::new(SERVERS), Rendezvous::new(backwards));
        for key in 0..1_000_u32 {
            let key = hash(&key.to_le_bytes());
            let turned = backwards.walk(key).map(|server| SERVERS.len() - 1 - server);
            assert!(forwards.walk(key).eq(turned), "key: {key:?}");
        }
    }
}
