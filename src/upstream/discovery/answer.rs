//! What answers mean: from records to servers, and when to ask again. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::Found;

/// Servers that one name leads to at most.
pub const SERVERS_MAX: usize = 1000;

/// How long an answer is good without being asked for again, unless the file asks less often: many
/// zones say an hour, and mean that nothing ever changes.
pub const TTL_MAX: Duration = Duration::from_secs(30);

/// A target of SRV records, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower ones go first.
    pub priority: u16,
    /// Its share among those of its priority.
    pub weight: u16,
    /// Where it listens, at all of its addresses.
    pub port: u16,
    /// Where it is.
    pub addresses: Vec<IpAddr>,
}

/// Each address is a server.
pub fn of_addresses(addresses: impl IntoIterator<Item = IpAddr>, port: u16, weight: u32) -> Vec<Found> {
    listed(addresses.into_iter().map(|address| Found { address: (address, port).into(), weight }))
}

/// Those of the lowest priority that have an address at all. Weights are divided by what they have in
/// common: to have as many is to have one each, and a ring whose servers all change their weight would
/// move keys.
pub fn of_services(services: &[Service]) -> Vec<Found> {
    let is_there = |service: &&Service| service.addresses.iter().any(is_usable);
    let Some(first) = services.iter().filter(is_there).map(|service| service.priority).min() else {
        return Vec::new();
    };
    let services: Vec<&Service> = services.iter().filter(is_there).filter(|it| it.priority == first).collect();
    let weight = |service: &Service| u32::from(service.weight.max(1));
    let common = services.iter().map(|service| weight(service)).fold(0, greatest_common_divisor).max(1);
    let heaviest = services.iter().map(|service| weight(service) / common).max().unwrap_or(1);
    let scaled = |weight: u32| if heaviest > WEIGHT_MAX { (weight * WEIGHT_MAX / heaviest).max(1) } else { weight };
    listed(services.into_iter().flat_map(|service| {
        let weight = scaled(weight(service) / common);
        service.addresses.iter().map(move |address| Found { address: (*address, service.port).into(), weight })
    }))
}

/// The heaviest that a server may be.
const WEIGHT_MAX: u32 = 256;

/// Each address once, in order, as many as there may be. Of one that comes with two weights the
/// larger counts.
fn listed(found: impl Iterator<Item = Found>) -> Vec<Found> {
    let mut weights: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for Found { address, weight } in found.filter(|it| is_usable(&it.address.ip()) && it.address.port() != 0) {
        let known = weights.entry(address).or_default();
        *known = weight.max(*known);
    }
    weights.into_iter().take(SERVERS_MAX).map(|(address, weight)| Found { address, weight }).collect()
}

/// Nobody can be connected to at `0.0.0.0`, by which filters answer.
fn is_usable(address: &IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// How long to wait until the next question: `refresh`, or the `ttl` of the answer if that is longer,
/// as far as [`TTL_MAX`]; and up to a tenth more, by `jitter`, 0 to 1.
pub fn wait(refresh: Duration, ttl: Option<Duration>, jitter: f64) -> Duration {
    let wait = refresh.max(ttl.unwrap_or_default().min(TTL_MAX));
    wait + (wait / 10).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, addresses: &[&str]) -> Service {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        Service { priority, weight, port: 80, addresses }
    }

    #[track_caller]
    fn check(services: &[Service], expected: &[(&str, u32)]) {
        let found = of_services(services);
        let found: Vec<_> = found.iter().map(|it| (it.address.ip().to_string(), it.weight)).collect();
        let expected: Vec<_> = expected.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect();
        assert_eq!(found, expected, "{services:?}");
    }

    #[test]
    fn equal_weights_are_one() {
        for weight in [0, 1, 25, 33, 65_535] {
            let [a, b] = ["10.0.0.2", "10.0.0.1"].map(|address| service(0, weight, &[address]));
            check(&[a, b], &[("10.0.0.1", 1), ("10.0.0.2", 1)]);
        }
    }

    #[test]
    fn weights_keep_their_ratio() {
        check(&[service(0, 20, &["10.0.0.1"]), service(0, 30, &["10.0.0.2"])], &[("10.0.0.1", 2), ("10.0.0.2", 3)]);
        check(&[service(0, 0, &["10.0.0.1"]), service(0, 5, &["10.0.0.2"])], &[("10.0.0.1", 1), ("10.0.0.2", 5)]);
        check(
            &[service(0, 65_535, &["10.0.0.1"]), service(0, 32_767, &["10.0.0.2"]), service(0, 1, &["10.0.0.3"])],
            &[("10.0.0.1", 256), ("10.0.0.2", 127), ("10.0.0.3", 1)],
        );
    }

    #[test]
    fn the_lowest_priority_that_is_there_counts() {
        let spare = service(20, 1, &["10.0.0.9"]);
        check(&[spare.clone(), service(10, 5, &["10.0.0.1"])], &[("10.0.0.1", 1)]);
        check(&[spare.clone(), service(10, 5, &[])], &[("10.0.0.9", 1)]);
        check(&[spare, service(10, 5, &["0.0.0.0", "::"])], &[("10.0.0.9", 1)]);
        check(&[], &[]);
    }

    #[test]
    fn an_address_counts_once_and_lists_are_bounded() {
        check(
            &[service(0, 2, &["10.0.0.1", "10.0.0.2"]), service(0, 4, &["10.0.0.2", "::1"])],
            &[("10.0.0.1", 1), ("10.0.0.2", 2), ("::1", 2)],
        );
        let many = (0..70_000_u32).map(|number| IpAddr::from((0x0A00_0000 + number).to_be_bytes()));
        let found = of_addresses(many, 80, 1);
        assert_eq!(found.len(), SERVERS_MAX);
        assert_eq!(found[999].address.to_string(), "10.0.3.231:80");
    }

    #[test]
    fn a_ttl_is_waited_for_within_reason() {
        #[track_caller]
        fn check(refresh: u64, ttl: Option<u64>, expected: u64) {
            let waited = |jitter| wait(Duration::from_secs(refresh), ttl.map(Duration::from_secs), jitter);
            assert_eq!(waited(0.0), Duration::from_secs(expected), "{refresh} and {ttl:?}");
            assert_eq!(waited(1.0), Duration::from_millis(1100 * expected), "{refresh} and {ttl:?}");
        }

        check(5, None, 5);
        check(5, Some(0), 5);
        check(5, Some(20), 20);
        check(5, Some(3600), 30);
        check(60, Some(3600), 60);
    }
}
