//! What holds for every hash and every choice.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::bounded::OPEN_MIN;
use super::*;

const HASHES: [Hash; 2] = [Hash::Ketama, Hash::Rendezvous];
const KEYLESS: [Keyless; 3] = [Keyless::LeastConn, Keyless::RoundRobin, Keyless::RandomTwo];
const KEYS: u32 = 2_000;

/// A server is known by its number, whatever its siblings are.
fn server(number: u8, weight: u32) -> Server {
    let address = SocketAddr::from(([10, 0, 20, number], 3000));
    Server { name: format!("chat-{number}"), address, weight, state: State::Ready }
}

fn servers(weights: &[u32]) -> Vec<Server> {
    (1..).zip(weights).map(|(number, weight)| server(number, *weight)).collect()
}

/// The hash of `user-NUMBER`.
fn key(balancer: &Balancer, number: u32) -> u64 {
    balancer.hash(format!("user-{number}").as_bytes())
}

fn balancer(hash: Hash, factor: Option<u32>, servers: &[Server]) -> Balancer {
    Balancer::new(Balance { hash, balance_factor: factor, ..Balance::default() }, servers)
}

fn loaded<'a>(servers: &'a [Server], open: &'a [usize]) -> impl Fn(usize) -> Candidate + Copy {
    |server| Candidate { open: open[server], ..idle(servers)(server) }
}

fn idle(servers: &[Server]) -> impl Fn(usize) -> Candidate + Copy {
    |server| {
        let Server { weight, state, .. } = servers[server];
        Candidate { weight, open: 0, is_up: true, warmth: WARM, state }
    }
}

/// The name of the server that each of [`KEYS`] leads to.
fn owners(hash: Hash, servers: &[Server]) -> Vec<&str> {
    let balancer = balancer(hash, None, servers);
    let owner = |number| {
        let first = balancer.order(Some(key(&balancer, number)), idle(servers), Chance::default()).next();
        servers[first.expect("there are servers")].name.as_str()
    };
    (0..KEYS).map(owner).collect()
}

fn any_weights() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![3 => Just(1), 1 => 1..=10_u32], 2..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_server_that_leaves_moves_its_own_keys_alone(weights in any_weights(), gone: prop::sample::Index) {
        let all = servers(&weights);
        let mut rest = all.clone();
        let gone = rest.remove(gone.index(all.len()));
        for hash in HASHES {
            for (number, (before, after)) in owners(hash, &all).into_iter().zip(owners(hash, &rest)).enumerate() {
                prop_assert!(before == gone.name || before == after, "{hash:?}: key {number} from {before} to {after}");
            }
        }
    }

    /// It keeps its points and its draws, so that its keys are back when it is ready again.
    #[test]
    fn keys_pass_by_a_server_that_is_not_ready(weights in any_weights(), out: prop::sample::Index, is_maint: bool) {
        let mut servers = servers(&weights);
        let out = out.index(servers.len());
        for hash in HASHES {
            let before = owners(hash, &servers);
            let mut with_it_out = servers.clone();
            with_it_out[out].state = if is_maint { State::Maint } else { State::Drain };
            let mut without_it = servers.clone();
            let gone = without_it.remove(out);
            let after = owners(hash, &with_it_out);
            prop_assert!(after.iter().all(|owner| *owner != gone.name));
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(*before == gone.name || before == after, "{hash:?}: from {before} to {after}");
            }
            // Of two servers on one point of a ring only the first is kept, and the second is missed.
            if hash == Hash::Rendezvous {
                prop_assert_eq!(owners(hash, &without_it), after, "as if it were not there");
            }
        }
        servers.iter_mut().for_each(|server| server.state = State::Drain);
        for (hash, keyless) in HASHES.into_iter().flat_map(|hash| KEYLESS.map(|keyless| (hash, keyless))) {
            let balancer = Balancer::new(Balance { hash, keyless, ..Balance::default() }, &servers);
            for key in [None, Some(balancer.hash(b"key"))] {
                prop_assert_eq!(balancer.order(key, idle(&servers), Chance::default()).next(), None);
            }
        }
    }

    /// They keep their places too, and are still tried when there is nobody else.
    #[test]
    fn keys_pass_by_servers_that_are_down(weights in any_weights(), down in prop::collection::vec(any::<bool>(), 12)) {
        let servers = servers(&weights);
        let is_up = |server: usize| !down[server];
        let candidate = |server| Candidate { is_up: is_up(server), ..idle(&servers)(server) };
        for hash in HASHES {
            let balancer = balancer(hash, None, &servers);
            for number in 0..100 {
                let key = Some(key(&balancer, number));
                let at_rest: Vec<usize> = balancer.order(key, idle(&servers), Chance::default()).collect();
                let order: Vec<usize> = balancer.order(key, candidate, Chance::default()).collect();
                let (mut expected, last): (Vec<usize>, Vec<usize>) = at_rest.into_iter().partition(|it| is_up(*it));
                expected.extend(last);
                prop_assert_eq!(order, expected, "{:?}: key {}", hash, number);
            }
        }
        let up: Vec<usize> = (0..servers.len()).filter(|server| is_up(*server)).collect();
        for (keyless, dice) in KEYLESS.into_iter().flat_map(|keyless| (0..64_u64).map(move |dice| (keyless, dice << 58))) {
            let balancer = Balancer::new(Balance { keyless, ..Balance::default() }, &servers);
            let chance = Chance { turn: (dice >> 58) as usize, dice };
            let order: Vec<usize> = balancer.order(None, candidate, chance).collect();
            let (first, last) = order.split_at(up.len());
            prop_assert!(first.iter().all(|server| is_up(*server)), "{keyless:?}: {order:?} with {up:?} up");
            prop_assert_eq!(first.len() + last.len(), servers.len());
        }
    }

    /// Others keep their servers meanwhile, and each key comes back once.
    #[test]
    fn a_server_that_warms_up_has_its_keys_back_bit_by_bit(weights in any_weights(), cold: prop::sample::Index) {
        let servers = servers(&weights);
        let cold = cold.index(servers.len());
        for hash in HASHES {
            let balancer = balancer(hash, None, &servers);
            let at = |warmth: u16, number: u32| {
                let warming = |server| Candidate {
                    warmth: if server == cold { warmth } else { WARM },
                    ..idle(&servers)(server)
                };
                balancer.order(Some(key(&balancer, number)), warming, Chance::default()).next()
            };
            let mut here = [0_u32; 4];
            for number in 0..KEYS {
                let story = [10, 250, 500, 1000].map(|warmth| at(warmth, number) == Some(cold));
                prop_assert!(story.is_sorted(), "{hash:?}: key {number} left again: {story:?}");
                if story[3] {
                    here.iter_mut().zip(story).for_each(|(count, is_here)| *count += u32::from(is_here));
                } else {
                    prop_assert_eq!(at(10, number), at(WARM, number), "{:?}: not its key {}", hash, number);
                }
            }
            let all = f64::from(here[3]);
            for (count, part) in here.into_iter().zip([0.01, 0.25, 0.5, 1.0]) {
                let spread = (all * part * (1.0 - part)).sqrt();
                prop_assert!((f64::from(count) - all * part).abs() <= 1.0 + 5.0 * spread, "{hash:?}: {here:?}");
            }
        }
    }

    #[test]
    fn a_server_of_more_weight_only_gains(weights in any_weights(), grown: prop::sample::Index, by in 1..5_u32) {
        let before = servers(&weights);
        let mut after = before.clone();
        let grown = &mut after[grown.index(before.len())];
        grown.weight += by;
        let grown = grown.name.clone();
        for hash in HASHES {
            for (before, after) in owners(hash, &before).into_iter().zip(owners(hash, &after)) {
                prop_assert!(after == grown || before == after, "{hash:?}: from {before} to {after}");
            }
        }
    }

    #[test]
    fn weights_are_shares(weights in any_weights()) {
        let servers = servers(&weights);
        let total: u32 = weights.iter().sum();
        for hash in HASHES {
            let owners = owners(hash, &servers);
            for server in &servers {
                let share = owners.iter().filter(|owner| **owner == server.name).count() as f64;
                let fair = f64::from(KEYS) * f64::from(server.weight) / f64::from(total);
                // The keys are a sample, and the points of a ring are one as well.
                let points = f64::from(160 * server.weight);
                let spread = match hash {
                    Hash::Rendezvous => fair.sqrt(),
                    Hash::Ketama => (fair + fair * fair / points).sqrt(),
                };
                prop_assert!((share - fair).abs() <= 10.0 + 5.0 * spread, "{hash:?}: {share} of {server:?}, {fair} are fair");
            }
        }
    }

    #[test]
    fn every_order_has_each_ready_server_once(
        weights in any_weights(),
        open in prop::collection::vec(0..1_000_usize, 12),
        turn: usize,
        dice: u64,
        key in prop::option::of("[ -~]{0,80}"),
        factor in prop::option::of(101..=1000_u32),
        out in 0..12_usize,
    ) {
        let mut servers = servers(&weights);
        if let Some(server) = servers.get_mut(out) {
            server.state = State::Drain;
        }
        let ready: Vec<usize> = (0..servers.len()).filter(|server| *server != out).collect();
        for (hash, keyless) in HASHES.into_iter().flat_map(|hash| KEYLESS.map(|keyless| (hash, keyless))) {
            let balance = Balance { hash, balance_factor: factor, keyless };
            let order = || -> Vec<usize> {
                let balancer = Balancer::new(balance, &servers);
                let key = key.as_ref().map(|key| balancer.hash(key.as_bytes()));
                balancer.order(key, loaded(&servers, &open), Chance { turn, dice }).collect()
            };
            let mut sorted = order();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &ready, "{:?}", balance);
            prop_assert_eq!(order(), order(), "the same from the same: {:?}", balance);
        }
    }

    #[test]
    fn a_key_stays_whatever_the_load(open in prop::collection::vec(0..100_000_usize, 5), number in 0..KEYS) {
        let servers = servers(&[1, 2, 1, 3, 1]);
        for hash in HASHES {
            let balancer = balancer(hash, None, &servers);
            let (key, chance) = (key(&balancer, number), Chance::default());
            let at_rest = balancer.order(Some(key), idle(&servers), chance);
            let loaded = balancer.order(Some(key), loaded(&servers, &open), chance);
            prop_assert!(at_rest.eq(loaded), "{hash:?}: {number} with {open:?}");
        }
    }

    /// Connections come and go; a few keys have most of them.
    #[test]
    fn load_stays_within_its_bound(
        weights in prop::collection::vec(1..=4_u32, 2..8),
        factor in 101..=300_u32,
        steps in prop::collection::vec((0..10_u32, 0..8_usize), 1_500),
    ) {
        let servers = servers(&weights);
        let total_weight: u32 = weights.iter().sum();
        for hash in HASHES {
            let balancer = balancer(hash, Some(factor), &servers);
            let mut open = vec![0; servers.len()];
            for (number, closing) in &steps {
                let key = key(&balancer, *number);
                let mut order = balancer.order(Some(key), loaded(&servers, &open), Chance::default());
                let server = order.next().expect("there are servers");
                drop(order);
                open[server] += 1;
                let total: usize = open.iter().sum();
                let fair = total as f64 * f64::from(weights[server]) / f64::from(total_weight);
                let most = (fair * f64::from(factor) / 100.0).ceil().max(OPEN_MIN as f64);
                prop_assert!(open[server] as f64 <= most, "{hash:?}: {open:?} with {weights:?}, {most} at most");
                if *closing < servers.len() && number % 4 == 0 {
                    open[*closing] = open[*closing].saturating_sub(1);
                }
            }
        }
    }
}

/// Who comes back is not crushed by those who have no key either.
#[test]
fn without_a_key_a_server_that_warms_up_gets_its_part() {
    let servers = servers(&[1, 1, 1, 1]);
    for keyless in KEYLESS {
        let balancer = Balancer::new(Balance { keyless, ..Balance::default() }, &servers);
        let mut open = [0_usize; 4];
        let mut random = 1_u64;
        for turn in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let candidate = |server: usize| Candidate {
                warmth: if server == 2 { 100 } else { WARM },
                open: open[server],
                ..idle(&servers)(server)
            };
            let chance = Chance { turn, dice: random ^ (random >> 31) };
            let first = balancer.order(None, candidate, chance).next().expect("there are servers");
            open[first] += 1;
        }
        // A tenth of what the others have; among two, the better is drawn a little more evenly.
        assert!((150..=400).contains(&open[2]), "{keyless:?}: {open:?}");
    }
}

/// The ring was compared with nginx; `tests/proxy/stickiness.rs` still does.
#[test]
fn keys_lead_where_nginx_leads_them() {
    let servers = servers(&[1, 2, 1, 5]);
    let balancer = balancer(Hash::Ketama, None, &servers);
    let first = |key| balancer.order(Some(key), idle(&servers), Chance::default()).next();
    let firsts: Vec<usize> = (0..16).filter_map(|number| first(key(&balancer, number))).collect();
    assert_eq!(firsts, [1, 3, 2, 0, 3, 1, 3, 3, 0, 3, 3, 3, 1, 3, 3, 1]);
}

/// Ketama knows servers by address, rendezvous by name.
#[test]
fn upstreams_with_the_same_names_agree() {
    let here = servers(&[1, 1, 2]);
    let mut there = here.clone();
    there.iter_mut().for_each(|server| server.address.set_port(4000));
    assert_eq!(owners(Hash::Rendezvous, &here), owners(Hash::Rendezvous, &there));
    assert_ne!(owners(Hash::Ketama, &here), owners(Hash::Ketama, &there));
}
