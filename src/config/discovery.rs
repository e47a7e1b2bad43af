//! Servers that are not written in the file but asked for by name, and how both make one list.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Server, State, Upstream};

/// A name whose addresses are servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// What is asked for.
    pub records: Records,
    /// How often, at most; 100 ms to an hour.
    pub refresh: Duration,
    /// What the servers that are found may get.
    pub state: State,
}

/// Records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// A and AAAA: each address is a server at this port, of this weight, 1 to 256.
    Addresses {
        /// In lower case.
        name: String,
        /// Not 0.
        port: u16,
        /// Share of the keys of each.
        weight: u32,
    },
    /// SRV, and the addresses of the targets: ports and weights stand in the records.
    Services {
        /// In lower case.
        name: String,
    },
}

/// As the file writes it.
impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Services { name } => f.write_str(name),
        }
    }
}

/// A server that a [`Discovery`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Found {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the keys; 1 to 256.
    pub weight: u32,
}

/// Who is asked for names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// DNS servers, the first one first; those of the system if there are none here.
    pub servers: Vec<SocketAddr>,
}

impl Upstream {
    /// Its servers when each of its discoveries has found what stands at its place in `found`, or
    /// nothing.
    ///
    /// Those of the file come first, then those of each discovery by address, so that all proxies that
    /// find the same have the same list. Who was found is called by its address. An address counts
    /// once, where it comes first.
    pub fn servers_with(&self, found: &[Vec<Found>]) -> Vec<Server> {
        let mut servers = self.servers.clone();
        let mut known: BTreeSet<SocketAddr> = servers.iter().map(|server| server.address).collect();
        for (discovery, found) in self.discoveries.iter().zip(found) {
            let mut found = found.clone();
            found.sort_unstable();
            let new = found.into_iter().filter(|it| known.insert(it.address));
            servers.extend(new.map(|Found { address, weight }| Server {
                name: address.to_string(),
                address,
                weight,
                state: discovery.state,
            }));
        }
        servers
    }
}
