//! The ketama ring, point for point as nginx builds it for `hash <key> consistent`.
//!
//! It is part of the wire contract of a fleet: proxies of other versions, on other machines, and
//! nginx itself (`ngx_http_upstream_init_chash` in `ngx_http_upstream_hash_module.c`) must send a
//! key to the same server. Hence CRC-32 and nothing faster or better.

use crc32fast::Hasher;

/// Points on a circle of 32 bits, each of which belongs to a server.
#[derive(Clone, Debug)]
pub struct Ring {
    /// By hash, without duplicates.
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    hash: u32,
    server: u32,
}

/// Points of a server of weight 1.
const POINTS_PER_WEIGHT: u32 = 160;

impl Ring {
    /// The ring of `servers`, each an address as written in the file and a weight.
    pub fn new(servers: impl IntoIterator<Item = (impl AsRef<str>, u32)>) -> Self {
        let mut points = Vec::new();
        for (server, (address, weight)) in (0..).zip(servers) {
            let base = base(address.as_ref());
            let mut hash = [0; 4];
            for _ in 0..weight * POINTS_PER_WEIGHT {
                let mut hasher = base.clone();
                hasher.update(&hash);
                let point = hasher.finalize();
                hash = point.to_le_bytes(); // nginx hashes the bytes of an integer of the machine.
                points.push(Point { hash: point, server });
            }
        }
        points.sort_by_key(|point| point.hash);
        points.dedup_by_key(|point| point.hash);
        Self { points }
    }

    /// The servers in the order in which a key of this [`hash`] tries them; each may come up more than
    /// once.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|point| u64::from(point.hash) < key);
        let (before, from) = self.points.split_at(start);
        from.iter().chain(before).map(|point| point.server as usize)
    }
}

/// Where `key` stands on every ring.
pub fn hash(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

/// The hash of host, NUL and port, to which each point adds the hash before it.
fn base(address: &str) -> Hasher {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let mut hasher = Hasher::new();
    hasher.update(host.as_bytes());
    hasher.update(b"\0");
    hasher.update(port.as_bytes());
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [&str; 3] = ["10.0.20.11:3000", "10.0.20.12:3000", "10.0.20.13:3000"];

    fn owner(ring: &Ring, key: &str) -> usize {
        ring.walk(hash(key.as_bytes()).into()).next().expect("a ring has points")
    }

    /// The keys `user-0` to `user-9999` by their owner's address.
    fn owners(addresses: &[&'static str]) -> Vec<&'static str> {
        let ring = Ring::new(addresses.iter().map(|address| (*address, 1)));
        (0..10_000).map(|user| addresses[owner(&ring, &format!("user-{user}"))]).collect()
    }

    #[test]
    fn a_lost_server_moves_its_keys_only_and_to_all_others() {
        let before = owners(&ADDRESSES);
        let after = owners(&ADDRESSES[..2]);
        let mut taken = [0, 0];
        for (before, after) in before.iter().zip(&after) {
            if *before == ADDRESSES[2] {
                taken[usize::from(*after == ADDRESSES[1])] += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!(taken.iter().all(|taken| *taken > 1000), "spread as {taken:?}");
    }

    #[test]
    fn weights_are_shares() {
        let ring = Ring::new([(ADDRESSES[0], 1), (ADDRESSES[1], 3)]);
        let heavy = (0..10_000).filter(|user| owner(&ring, &format!("user-{user}")) == 1).count();
        assert!((7_000..8_000).contains(&heavy), "{heavy} of 10,000 with three quarters of the weight");
    }

    #[test]
    fn the_walk_comes_by_every_server() {
        let ring = Ring::new(ADDRESSES.iter().map(|address| (*address, 1)));
        let mut seen: Vec<usize> = ring.walk(hash(b"anyone").into()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
    }
}
