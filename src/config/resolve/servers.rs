//! The servers of an upstream: addresses, and names behind which addresses are found.

use std::net::SocketAddr;
use std::time::Duration;

use super::address::{self, covers};
use super::routes::is_host;
use super::upstreams::checked_name;
use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::{Discovery, Listener, Records, Server, State};

/// One item of the list.
enum Entry {
    Server(Server),
    Discovery(Discovery),
}

impl Entry {
    fn state(&self) -> State {
        match self {
            Self::Server(server) => server.state,
            Self::Discovery(discovery) => discovery.state,
        }
    }
}

/// Servers with an address, and where others are found.
pub(super) fn servers(upstream: &mut Fields<'_>, listeners: &[(Item<'_>, Listener)]) -> (Vec<Server>, Vec<Discovery>) {
    let right = "write a list of at least one, such as [\"10.0.0.1:3000\"]";
    let Some(list) = upstream.required("servers", right) else {
        return Default::default();
    };
    let items = list.list(right).unwrap_or_default();
    let count = items.len();
    let mut entries: Vec<(Item<'_>, Entry)> = Vec::new();
    for item in items {
        let Some(entry) = entry(&item) else {
            continue;
        };
        complain_of_twin(&item, &entry, &entries);
        if let Entry::Server(server) = &entry {
            complain_of_loop(&item, server.address, listeners);
        }
        entries.push((item, entry));
    }
    let is_idle = entries.iter().all(|(_, entry)| !entry.state().takes_clients());
    if is_idle && !entries.is_empty() && entries.len() == count {
        list.complain("no server is ready, so nobody could be served; leave state out for at least one of them");
    }
    let (mut servers, mut discoveries) = (Vec::new(), Vec::new());
    for (_, entry) in entries {
        match entry {
            Entry::Server(server) => servers.push(server),
            Entry::Discovery(discovery) => discoveries.push(discovery),
        }
    }
    (servers, discoveries)
}

/// A server is an address, or a mapping that has one; or a mapping with a name to be asked for.
fn entry(item: &Item<'_>) -> Option<Entry> {
    let right = "write \"10.0.0.1:3000\" or { address: \"10.0.0.1:3000\", name: a, weight: 1, state: ready }";
    if !item.is_mapping() {
        let address = item.parse(right, address::server)?;
        return Some(Entry::Server(Server { name: address.to_string(), address, weight: 1, state: State::default() }));
    }
    let mut fields = item.fields(right)?;
    let kinds = ["address", "dns", "srv"];
    let mut given = kinds.into_iter().filter(|kind| fields.has(kind));
    let kind = given.next().unwrap_or("address");
    if let Some(other) = given.next() {
        let item = fields.optional(other)?;
        item.complain(format!("there is {kind} beside it; write one of address, dns, srv"));
    }
    let right = "write IP and port, such as \"10.0.0.1:3000\"";
    let address = if kind == "address" { fields.required("address", right) } else { fields.optional("address") };
    let address = address.and_then(|item| item.parse(right, address::server));
    let name = fields.optional("name");
    if let Some(item) = name.as_ref().filter(|_| kind != "address") {
        item.complain("who is found there is called by its address; remove it");
    }
    let name = name.map(|item| {
        let text = item.text("write a name in quotes, such as \"a\"");
        text.and_then(|text| item.kept(checked_name(text)))
    });
    let weight = fields.optional("weight");
    if let Some(item) = weight.as_ref().filter(|_| kind == "srv") {
        item.complain("the records say the weights; remove it");
    }
    let weight = weight.and_then(|item| item.number(1..=256, "write a number from 1 to 256")).unwrap_or(1);
    let state = fields.optional("state").and_then(|item| item.one_of("state", STATES)).unwrap_or_default();
    let records = records(&mut fields, weight);
    let refresh = fields.optional("refresh");
    if let Some(item) = refresh.as_ref().filter(|_| kind == "address") {
        item.complain("an address is not asked for; remove it");
    }
    let refresh = refresh.and_then(|item| item.duration(REFRESH_LEAST..=REFRESH_MOST)).unwrap_or(Discovery::REFRESH);
    fields.finish(&[]);
    if kind != "address" {
        return Some(Entry::Discovery(Discovery { records: records?, refresh, state }));
    }
    let address = address?;
    let name = match name {
        Some(name) => name?.to_owned(),
        None => address.to_string(),
    };
    Some(Entry::Server(Server { name, address, weight, state }))
}

const STATES: &[(&str, State)] = &[("ready", State::Ready), ("drain", State::Drain), ("maint", State::Maint)];

/// More often is no question but a load; less often would be a surprise.
const REFRESH_LEAST: Duration = Duration::from_millis(100);
const REFRESH_MOST: Duration = Duration::from_secs(3600);

/// What `dns` or `srv` asks for.
fn records(fields: &mut Fields<'_>, weight: u32) -> Option<Records> {
    let addresses = fields.optional("dns").and_then(|item| {
        let (name, port) = item.parse("write name and port, such as \"chat.internal:3000\"", dns)?;
        Some(Records::Addresses { name, port, weight })
    });
    let services = fields.optional("srv").and_then(|item| {
        let name = item.parse("write a name such as \"_http._tcp.chat.internal\"", srv)?;
        Some(Records::Services { name })
    });
    addresses.or(services)
}

/// A name and a port.
fn dns(text: &str) -> Result<(String, u16), String> {
    let shown = quoted(text);
    if text.parse::<SocketAddr>().is_ok() {
        return Err(format!("{shown} is an address, and needs not be asked for; write it as address: {shown}"));
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(format!("{shown} has no port; write name and port, such as \"chat.internal:3000\""));
    };
    match port.parse() {
        Ok(0) | Err(_) => Err(format!("{shown} has the port {}; write a number from 1 to 65535", quoted(port))),
        Ok(port) => Ok((host_name(name)?, port)),
    }
}

/// A name alone.
fn srv(text: &str) -> Result<String, String> {
    if let Some((name, _)) = text.rsplit_once(':') {
        return Err(format!("{} has a port, which the records say; write {}", quoted(text), quoted(name)));
    }
    host_name(text)
}

/// A name in DNS; a dot at its end makes it absolute.
fn host_name(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let is_name = is_host(name.strip_suffix('.').unwrap_or(&name)) && name.bytes().any(|it| it.is_ascii_alphabetic());
    is_name.then_some(name).ok_or_else(|| {
        let shown = quoted(text);
        format!("{shown} is no name of a host; write letters, digits, dots and dashes, such as chat.internal")
    })
}

fn complain_of_twin(item: &Item<'_>, entry: &Entry, earlier: &[(Item<'_>, Entry)]) {
    for (twin_item, twin) in earlier {
        let path = twin_item.path();
        match (twin, entry) {
            (Entry::Server(twin), Entry::Server(server)) if twin.address == server.address => {
                return item.complain(format!(
                    "\"{}\" is already {path}; list it once, with a weight for a larger share",
                    server.address
                ));
            }
            (Entry::Server(twin), Entry::Server(server)) if twin.name == server.name => {
                let shown = quoted(&server.name);
                return item.complain(format!("{shown} is already the name of {path}; choose another"));
            }
            (Entry::Discovery(twin), Entry::Discovery(discovery)) => {
                let text = discovery.records.to_string();
                if twin.records.to_string() == text {
                    return item.complain(format!("{} is already {path}; list it once", quoted(&text)));
                }
            }
            _ => {}
        }
    }
}

/// A server that is one of our own listeners would be asked again and again.
fn complain_of_loop(item: &Item<'_>, server: SocketAddr, listeners: &[(Item<'_>, Listener)]) {
    let is_us = |(_, it): &&(Item<'_>, Listener)| {
        let bind = it.bind;
        let is_here = server.ip().is_loopback() || bind.ip() == server.ip();
        is_here && covers(bind, server)
    };
    if let Some((listener, _)) = listeners.iter().find(is_us) {
        item.complain(format!(
            "\"{server}\" is {}, so requests would go round in circles; \
             write the server's own address",
            listener.path()
        ));
    }
}
