//! Clients, servers and whatever may happen to them, over the pure core alone: thousands of short
//! lives of one upstream, each from a seed that a failure names.
//!
//! What must hold in all of them:
//!
//! - A key stays while its server is available. It moves when that is lost, or when one comes (back)
//!   that it would rather be with, and never otherwise.
//! - Nobody gets to a server that is gone, or not ready. When all that are ready are down, all are
//!   tried.
//! - What is open adds up, and is nothing in the end.
//! - Whoever goes down comes up before it goes down again.
//! - When everything is well again, and warm, all keys are back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::health::{Health, Rules, Thresholds, Transition};
use crate::balance::{Balancer, Candidate, Chance};
use crate::config::{self, Balance, Found, Hash, State, Tolerance};

const SEEDS: u64 = 10_000;
const STEPS: usize = 24;
const CLIENTS: usize = 8;
const SERVERS: usize = 6;
const HASHES: [Hash; 2] = [Hash::Ketama, Hash::Rendezvous];

/// Slow starts are over, and time-outs too.
const LONG: Duration = Duration::from_secs(10_000);

#[test]
fn whatever_happens_keys_and_counts_hold() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failures: Vec<String> = std::thread::scope(|scope| {
        let lives = |first: u64| scope.spawn(move || (first..SEEDS).step_by(threads as usize).find_map(fails));
        let threads: Vec<_> = (0..threads).map(lives).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

/// What went wrong in the life of this seed.
fn fails(seed: u64) -> Option<String> {
    thread_local! {
        static BALANCERS: Balancers = Balancers::default();
    }
    BALANCERS.with(|balancers| {
        let mut world = World::new(seed, balancers);
        let lived = (0..STEPS).try_for_each(|step| world.step().map_err(|error| format!("step {step}: {error}")));
        let ended = lived.and_then(|()| world.recover().map_err(|error| format!("in the end: {error}")));
        ended.err().map(|error| format!("seed {seed}: {error}"))
    })
}

/// A balancer for each set of servers: rings take longer to build than a life lasts.
#[derive(Default)]
struct Balancers([RefCell<HashMap<Vec<usize>, Rc<Balancer>>>; HASHES.len()]);

impl Balancers {
    fn of(&self, hash: Hash, members: &[usize], servers: &[config::Server]) -> Rc<Balancer> {
        let known = &self.0[usize::from(hash == HASHES[1])];
        let new = || Rc::new(Balancer::new(Balance { hash, ..Balance::default() }, servers));
        known.borrow_mut().entry(members.to_vec()).or_insert_with(new).clone()
    }
}

struct World<'a> {
    rng: Rng,
    now: Instant,
    hash: Hash,
    balancers: &'a Balancers,
    servers: [Server; SERVERS],
    /// Those in force, in the order of the list.
    members: Vec<usize>,
    balancer: Rc<Balancer>,
    /// For each client its key's hash, and whom it would be with, best first, if all were there.
    clients: Vec<(u64, Vec<usize>)>,
    /// Where each client's key leads.
    owners: Vec<Option<usize>>,
    /// Each open connection.
    open: Vec<(usize, usize)>,
}

struct Server {
    found: Found,
    /// What it truly is, which nobody knows.
    is_alive: bool,
    state: State,
    health: Health,
    /// As told last.
    is_up: bool,
    open: usize,
}

fn rules(rng: &mut Rng) -> Rules {
    let fail_timeout = Duration::from_secs(rng.u64(1..20));
    Rules {
        checks: rng.bool().then(|| Thresholds { rise: rng.u32(1..4), fall: rng.u32(1..4) }),
        clients: rng.bool().then(|| Tolerance { max_fails: rng.u32(1..4), fail_timeout }),
        slow_start: Duration::from_secs(rng.u64(0..3) * 30),
    }
}

/// An upstream whose servers are found.
static UPSTREAM: LazyLock<config::Upstream> = LazyLock::new(|| {
    let file = "listeners: [{ bind: \"127.0.0.1:1\" }]\nroutes: [{ upstream: chat }]\n\
                upstreams: { chat: { servers: [{ dns: \"chat.test:3000\" }] } }\n";
    config::parse(file, "test.yaml").expect("a right file").upstreams.remove(0)
});

impl<'a> World<'a> {
    fn new(seed: u64, balancers: &'a Balancers) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Instant::now();
        let servers = std::array::from_fn(|number| Server {
            found: Found {
                address: ([10, 0, 0, number as u8 + 1], 3000).into(),
                weight: if number == 0 { 3 } else { 1 },
            },
            is_alive: true,
            state: State::Ready,
            health: Health::new(rules(&mut rng)),
            is_up: true,
            open: 0,
        });
        let hash = HASHES[usize::from(rng.bool())];
        let mut world = Self {
            rng,
            now,
            hash,
            balancers,
            servers,
            members: Vec::new(),
            balancer: balancers.of(hash, &[], &[]),
            clients: Vec::new(),
            owners: Vec::new(),
            open: Vec::new(),
        };
        world.consists_of((0..SERVERS).collect());
        for client in 0..CLIENTS {
            let key = world.balancer.hash(format!("client-{client}-of-{seed}").as_bytes());
            let warm = |_| Candidate { weight: 1, open: 0, is_up: true, warmth: 1000, state: State::Ready };
            let order = world.balancer.order(Some(key), warm, Chance::default()).map(|index| world.members[index]);
            world.clients.push((key, order.collect()));
        }
        let first: Vec<usize> = (0..SERVERS).filter(|_| world.rng.u8(0..4) > 0).collect();
        world.consists_of(first);
        world.owners = world.owners();
        world
    }

    /// From now on these are found, in whatever order the answer has them.
    fn consists_of(&mut self, mut members: Vec<usize>) {
        self.rng.shuffle(&mut members);
        let found: Vec<Found> = members.iter().map(|member| self.servers[*member].found).collect();
        let servers = UPSTREAM.servers_with(&[found]);
        let number = |server: &config::Server| {
            self.servers.iter().position(|known| known.found.address == server.address).expect("nobody else is found")
        };
        self.members = servers.iter().map(number).collect();
        self.balancer = self.balancers.of(self.hash, &self.members, &servers);
    }

    /// Something happens.
    fn step(&mut self) -> Result<(), String> {
        let server = self.rng.usize(0..SERVERS);
        let client = self.rng.usize(0..CLIENTS);
        match self.rng.u8(0..16) {
            0 | 1 => self.servers[server].is_alive ^= true,
            2..=4 => self.check(server)?,
            5..=8 => self.connect(client)?,
            9 => self.disconnect(),
            10 => {
                let mut members = self.members.clone();
                match members.iter().position(|member| *member == server) {
                    Some(index) => drop(members.remove(index)),
                    None => {
                        members.push(server);
                        let rules = rules(&mut self.rng);
                        let server = &mut self.servers[server];
                        (server.health, server.is_up) = (Health::joined(rules, self.now), true);
                    }
                }
                self.consists_of(members);
            }
            11 => self.servers[server].state = [State::Ready, State::Drain, State::Maint][self.rng.usize(0..3)],
            12 => {
                let rules = rules(&mut self.rng);
                let transition = self.servers[server].health.follow(rules, self.now);
                self.servers[server].turned(transition.as_ref())?;
            }
            _ => self.now += Duration::from_millis(self.rng.u64(0..40_000)),
        }
        let before = std::mem::take(&mut self.owners);
        self.owners = self.owners();
        self.compare(&before)?;
        self.count()
    }

    fn check(&mut self, server: usize) -> Result<(), String> {
        let server = &mut self.servers[server];
        let transition = server.health.checked(if server.is_alive { Ok(()) } else { Err("dead") }, self.now);
        server.turned(transition.as_ref())
    }

    /// A client comes, and tries one server after the other.
    fn connect(&mut self, client: usize) -> Result<(), String> {
        let order: Vec<usize> = self.order(client).collect();
        let ready = self.members.iter().filter(|member| self.servers[**member].state.takes_clients());
        if order.len() != ready.count() {
            return Err(format!("client {client} tries {order:?}, and others are ready"));
        }
        for server in order {
            let is_member = self.members.contains(&server);
            let it = &mut self.servers[server];
            if !is_member || it.state != State::Ready {
                return Err(format!("client {client} was sent to server {server}, which is {:?}", it.state));
            }
            it.health.tried(self.now);
            let transition = match it.is_alive {
                true => it.health.succeeded(self.now),
                false => it.health.failed("refused", self.now),
            };
            it.turned(transition.as_ref())?;
            if it.is_alive {
                it.open += 1;
                self.open.push((client, server));
                return Ok(());
            }
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        if !self.open.is_empty() {
            let (_, server) = self.open.swap_remove(self.rng.usize(0..self.open.len()));
            self.servers[server].open -= 1;
        }
    }

    /// Whom a client tries, in order.
    fn order(&self, client: usize) -> impl Iterator<Item = usize> {
        let candidate = move |index: usize| {
            let server = &self.servers[self.members[index]];
            Candidate {
                weight: server.found.weight,
                open: server.open,
                is_up: server.health.is_open(self.now),
                warmth: server.health.warmth(self.now),
                state: server.state,
            }
        };
        let order = self.balancer.order(Some(self.clients[client].0), candidate, Chance::default());
        order.map(|index| self.members[index])
    }

    fn owners(&self) -> Vec<Option<usize>> {
        (0..CLIENTS).map(|client| self.order(client).next()).collect()
    }

    fn is_available(&self, server: usize) -> bool {
        let it = &self.servers[server];
        self.members.contains(&server) && it.state.takes_clients() && it.health.is_open(self.now)
    }

    /// Keys that have moved had a reason.
    fn compare(&self, before: &[Option<usize>]) -> Result<(), String> {
        let is_any_available = (0..SERVERS).any(|server| self.is_available(server));
        for (client, (before, after)) in before.iter().zip(&self.owners).enumerate() {
            let (Some(before), Some(after)) = (*before, *after) else { continue };
            let rank = |server| self.clients[client].1.iter().position(|it| *it == server);
            let is_better = rank(after) < rank(before);
            // One that warms up anew is no longer everybody's.
            let is_cold = self.servers[before].health.warmth(self.now) < 1000;
            if before != after && self.is_available(before) && !is_better && !is_cold {
                return Err(format!("client {client} moved from {before} to {after}, and had no reason to"));
            }
            if !self.is_available(after) && is_any_available {
                return Err(format!("client {client} is led to {after}, and others are available"));
            }
        }
        Ok(())
    }

    fn count(&self) -> Result<(), String> {
        for (number, server) in self.servers.iter().enumerate() {
            let open = self.open.iter().filter(|(_, to)| *to == number).count();
            if open != server.open {
                return Err(format!("server {number} counts {}, and {open} are open", server.open));
            }
        }
        Ok(())
    }

    /// All is well again: so must everybody be.
    fn recover(&mut self) -> Result<(), String> {
        for server in &mut self.servers {
            (server.is_alive, server.state) = (true, State::Ready);
        }
        self.consists_of((0..SERVERS).collect());
        self.now += LONG;
        for server in 0..SERVERS {
            for _ in 0..4 {
                self.check(server)?;
            }
        }
        (0..CLIENTS).try_for_each(|client| self.connect(client))?;
        self.now += LONG;
        for (client, owner) in self.owners().into_iter().enumerate() {
            let home = self.clients[client].1[0];
            if owner != Some(home) {
                return Err(format!("client {client} is at {owner:?}, and belongs to {home}"));
            }
        }
        while !self.open.is_empty() {
            self.disconnect();
        }
        match self.servers.iter().position(|server| server.open != 0) {
            Some(server) => Err(format!("server {server} still counts {}", self.servers[server].open)),
            None => Ok(()),
        }
    }
}

impl Server {
    /// Ups and downs take turns, and are true.
    fn turned(&mut self, transition: Option<&Transition>) -> Result<(), String> {
        let told = transition.map(|transition| matches!(transition, Transition::Up { .. }));
        if told == Some(self.is_up) {
            return Err(format!("told twice: {transition:?}"));
        }
        self.is_up = told.unwrap_or(self.is_up);
        match self.is_up == self.health.is_up() {
            true => Ok(()),
            false => Err(format!("nobody was told that up is {}", self.health.is_up())),
        }
    }
}
