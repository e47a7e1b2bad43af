//! One question to DNS, and its whole answer or the reason why there is none.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::answer::{self, SERVERS_MAX, Service};
use crate::config::{Found, Records, Resolver};

/// Asks for names. What has been answered before is never an answer.
#[derive(Debug)]
pub struct Dns {
    resolver: Resolver,
    /// Made when first needed, and anew after a failure: the system may ask others by then.
    client: Option<TokioResolver>,
}

/// Servers, at least one, and how long the answer is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// By address.
    pub found: Vec<Found>,
    /// The shortest of all records.
    pub ttl: Duration,
}

/// Longest time for an answer, however many questions it takes.
pub const WITHIN: Duration = Duration::from_secs(5);

/// For one question to one DNS server, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// Targets of SRV records that are asked for at once.
const AT_ONCE: usize = 16;

impl Dns {
    /// Asks `resolver`.
    pub fn new(resolver: Resolver) -> Self {
        Self { resolver, client: None }
    }

    /// The servers behind `records`. Addresses of the kind that nobody can tell about at the moment are
    /// those `known` before.
    ///
    /// # Errors
    /// Why there is no answer, or none with an address, in words.
    pub async fn ask(&mut self, records: &Records, known: &[Found]) -> Result<Answer, String> {
        let client = match self.client.take() {
            Some(client) => client,
            None => client(&self.resolver).map_err(|error| error.to_string())?,
        };
        let answer = match timeout(WITHIN, ask(&client, records, known)).await {
            Ok(answer) => answer.map_err(|error| in_words(&error))?,
            Err(_) => return Err(format!("no answer within {WITHIN:?}")),
        };
        if answer.found.is_empty() {
            return Err("the answer has no address".to_owned());
        }
        self.client = Some(client);
        Ok(answer)
    }
}

fn client(resolver: &Resolver) -> Result<TokioResolver, NetError> {
    let mut builder = match resolver.servers.is_empty() {
        true => TokioResolver::builder_tokio()?,
        false => {
            let servers = resolver.servers.iter().map(|address| {
                let at_port = |mut connection: ConnectionConfig| {
                    connection.port = address.port();
                    connection
                };
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port);
                NameServerConfig::new(address.ip(), true, connections.into())
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = PATIENCE;
    options.attempts = ATTEMPTS;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

async fn ask(client: &TokioResolver, records: &Records, known: &[Found]) -> Result<Answer, NetError> {
    let mut ttl = Duration::MAX;
    let found = match records {
        Records::Addresses { name, port, weight } => {
            let known: Vec<IpAddr> = known.iter().map(|found| found.address.ip()).collect();
            let addresses = addresses(client, Name::from_utf8(name)?, &known, &mut ttl).await?;
            answer::of_addresses(addresses, *port, *weight)
        }
        Records::Services { name } => {
            let services = services(client, Name::from_utf8(name)?, &mut ttl).await?;
            answer::of_services(&services)
        }
    };
    Ok(Answer { found, ttl })
}

/// The addresses of a name, of both kinds. If one kind cannot be had, those `known` of it are good
/// still: a server that does not answer for AAAA must not keep others from being found.
async fn addresses(
    client: &TokioResolver,
    name: Name,
    known: &[IpAddr],
    ttl: &mut Duration,
) -> Result<Vec<IpAddr>, NetError> {
    let (v4, v6) = join(lookup(client, &name, RecordType::A), lookup(client, &name, RecordType::AAAA)).await;
    let (v4, v6) = match (v4, v6) {
        (Err(error), Err(_)) => return Err(error),
        both => both,
    };
    // With search domains, each kind may have been found behind another name. The first one counts.
    let asked_for = |lookup: &Result<Option<Lookup>, NetError>| match lookup {
        Ok(Some(lookup)) => Some(lookup.query().name().clone()),
        _ => None,
    };
    let is_stray = asked_for(&v4).zip(asked_for(&v6)).is_some_and(|(v4, v6)| v4 != v6);
    let mut all = Vec::new();
    for (lookup, is_kind) in
        [(v4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (if is_stray { Ok(None) } else { v6 }, IpAddr::is_ipv6)]
    {
        match lookup {
            Ok(Some(lookup)) => {
                *ttl = (*ttl).min(good_for(&lookup));
                all.extend(lookup.answers().iter().filter_map(|record| record.data.ip_addr()));
            }
            Ok(None) => {}
            // What is known is good for no time: the other kind alone would have it wait for its TTL, or for
            // the longest there is if it has none.
            Err(_) => {
                *ttl = Duration::ZERO;
                all.extend(known.iter().filter(|address| is_kind(address)));
            }
        }
    }
    Ok(all)
}

async fn services(client: &TokioResolver, name: Name, ttl: &mut Duration) -> Result<Vec<Service>, NetError> {
    let Some(lookup) = lookup(client, &name, RecordType::SRV).await? else { return Ok(Vec::new()) };
    *ttl = (*ttl).min(good_for(&lookup));
    let targets = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    });
    let targets: Vec<_> = targets.take(SERVERS_MAX).collect();
    let mut services = Vec::with_capacity(targets.len());
    for targets in targets.chunks(AT_ONCE) {
        let lookups = targets.iter().map(async |srv| {
            let mut ttl = Duration::MAX;
            // Most DNS servers send the addresses along.
            let sent = lookup.additionals().iter().filter(|record| record.name == srv.target);
            let sent: Vec<IpAddr> = sent.filter_map(|record| record.data.ip_addr()).collect();
            let addresses = match sent.is_empty() {
                false => sent,
                true => addresses(client, srv.target.clone(), &[], &mut ttl).await?,
            };
            Ok::<_, NetError>((Service { priority: srv.priority, weight: srv.weight, port: srv.port, addresses }, ttl))
        });
        for looked_up in join_all(lookups).await {
            let (service, its_ttl) = looked_up?;
            *ttl = (*ttl).min(its_ttl);
            services.push(service);
        }
    }
    Ok(services)
}

/// The records of a name; `None` if it has none of these.
async fn lookup(client: &TokioResolver, name: &Name, kind: RecordType) -> Result<Option<Lookup>, NetError> {
    client.clear_lookup_cache(name.clone(), kind);
    match client.lookup(name.clone(), kind).await {
        Ok(lookup) => Ok(Some(lookup)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn good_for(lookup: &Lookup) -> Duration {
    lookup.valid_until().saturating_duration_since(Instant::now())
}

/// What has happened, for operators.
fn in_words(error: &NetError) -> String {
    match error {
        NetError::Timeout => format!("no DNS server answered within {PATIENCE:?}, asked {ATTEMPTS} times"),
        error => error.to_string(),
    }
}
