//! Discoveries against a name server of the test's own, over real sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;
use crate::config::parse;

/// What the name server says to everybody.
#[derive(Clone, Debug)]
enum Mood {
    /// What its records say.
    Well,
    /// Nothing at all.
    Silent,
    /// This code.
    Says(ResponseCode),
    /// What its records say, but this for one kind of records.
    SaysFor(RecordType, ResponseCode),
}

/// By name, with a dot at its end.
type Zone = BTreeMap<&'static str, Vec<RData>>;

struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<(Mood, Zone, u32)>>,
    asked: Arc<Mutex<u32>>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new((Mood::Well, Zone::new(), 0)));
        let asked = Arc::new(Mutex::new(0));
        let (its_state, its_asked) = (state.clone(), asked.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                *its_asked.lock().unwrap() += 1;
                let answer = answer(&Message::from_vec(&buffer[..length]).unwrap(), &its_state.lock().unwrap());
                if let Some(answer) = answer {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        Self { address, state, asked }
    }

    fn is(&self, mood: Mood) {
        self.state.lock().unwrap().0 = mood;
    }

    fn has(&self, name: &'static str, records: Vec<RData>) {
        self.state.lock().unwrap().1.insert(name, records);
    }

    fn has_addresses(&self, name: &'static str, addresses: &[&str]) {
        let record = |address: &&str| match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.has(name, addresses.iter().map(record).collect());
    }

    /// Discoveries of `servers`, as the file writes them.
    fn discover(&self, servers: &str, before: Option<&Discoveries>) -> Discoveries {
        Discoveries::start(&self.config(servers), before, &Metrics::new())
    }

    fn config(&self, servers: &str) -> Config {
        let file = format!(
            "listeners: [{{ bind: \"127.0.0.1:1\" }}]\nroutes: [{{ upstream: chat }}]\n\
             resolver: {{ servers: [\"{}\"] }}\nupstreams: {{ chat: {{ servers: [{servers}] }} }}\n",
            self.address
        );
        parse(&file, "test.yaml").unwrap()
    }
}

fn answer(asked: &Message, (mood, zone, ttl): &(Mood, Zone, u32)) -> Option<Message> {
    let query = &asked.queries[0];
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.add_query(query.clone());
    answer.metadata.recursion_available = true;
    match mood {
        Mood::Silent => return None,
        Mood::Says(code) => answer.metadata.response_code = *code,
        Mood::SaysFor(kind, code) if *kind == query.query_type() => answer.metadata.response_code = *code,
        Mood::Well | Mood::SaysFor(..) => match zone.get(query.name().to_string().to_lowercase().as_str()) {
            None => answer.metadata.response_code = ResponseCode::NXDomain,
            Some(records) => {
                for data in records.iter().filter(|data| data.record_type() == query.query_type()) {
                    answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, data.clone()));
                }
            }
        },
    }
    Some(answer)
}

/// Waits until these are found, by the first discovery.
#[track_caller]
fn finds(discoveries: &Discoveries, expected: &[&str]) -> impl Future<Output = ()> + use<> {
    let expected: Vec<String> = expected.iter().map(|address| (*address).to_owned()).collect();
    let mut findings = discoveries.findings();
    async move {
        let is_so = |findings: &Findings| {
            let found = findings.of(0).remove(0);
            found.iter().map(|found| found.address.to_string()).eq(expected.iter().cloned())
        };
        let found = tokio::time::timeout(Duration::from_secs(20), findings.wait_for(is_so)).await;
        assert!(found.is_ok(), "never found {expected:?}");
    }
}

const CHAT: &str = "{ dns: \"chat.test:3000\", refresh: 100ms }";

#[tokio::test]
async fn what_appears_and_leaves_is_found() {
    let names = NameServer::start().await;
    names.has_addresses("chat.test.", &["10.0.0.2", "10.0.0.1"]);
    let discoveries = names.discover(CHAT, None);
    assert!(discoveries.first_answers(Duration::from_secs(20)).await);
    finds(&discoveries, &["10.0.0.1:3000", "10.0.0.2:3000"]).await;
    names.has_addresses("chat.test.", &["10.0.0.1", "10.0.0.3", "::1", "10.0.0.2", "0.0.0.0"]);
    finds(&discoveries, &["10.0.0.1:3000", "10.0.0.2:3000", "10.0.0.3:3000", "[::1]:3000"]).await;
    names.has_addresses("chat.test.", &["10.0.0.3"]);
    finds(&discoveries, &["10.0.0.3:3000"]).await;
}

#[tokio::test]
async fn no_good_answer_changes_nothing() {
    let names = NameServer::start().await;
    names.has_addresses("chat.test.", &["10.0.0.1"]);
    let discoveries = names.discover(CHAT, None);
    finds(&discoveries, &["10.0.0.1:3000"]).await;
    let mut findings = discoveries.findings();
    findings.mark_unchanged();
    for mood in [
        Mood::Says(ResponseCode::ServFail),
        Mood::Says(ResponseCode::NXDomain),
        Mood::Says(ResponseCode::Refused),
        Mood::Says(ResponseCode::NoError),
        Mood::Silent,
    ] {
        let asked = *names.asked.lock().unwrap();
        names.is(mood.clone());
        while *names.asked.lock().unwrap() < asked + 6 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!findings.has_changed().unwrap(), "{mood:?}");
    }
    names.is(Mood::Well);
    names.has_addresses("chat.test.", &["10.0.0.9"]);
    finds(&discoveries, &["10.0.0.9:3000"]).await;
}

#[tokio::test]
async fn flapping_ends_with_the_last_answer() {
    let names = NameServer::start().await;
    names.has_addresses("chat.test.", &["10.0.0.1"]);
    let discoveries = names.discover(CHAT, None);
    finds(&discoveries, &["10.0.0.1:3000"]).await;
    for round in 0..10 {
        let is_even = round % 2 == 0;
        names.has_addresses("chat.test.", if is_even { &["10.0.0.1", "10.0.0.2"] } else { &["10.0.0.2"] });
        names.is(if round % 3 == 0 { Mood::Says(ResponseCode::ServFail) } else { Mood::Well });
        tokio::time::sleep(Duration::from_millis(37 * round)).await;
    }
    names.is(Mood::Well);
    finds(&discoveries, &["10.0.0.2:3000"]).await;
}

#[tokio::test]
async fn one_kind_of_addresses_does_without_the_other() {
    let names = NameServer::start().await;
    names.has_addresses("chat.test.", &["10.0.0.1", "::1"]);
    names.is(Mood::SaysFor(RecordType::AAAA, ResponseCode::ServFail));
    let discoveries = names.discover(CHAT, None);
    finds(&discoveries, &["10.0.0.1:3000"]).await;
    names.is(Mood::Well);
    finds(&discoveries, &["10.0.0.1:3000", "[::1]:3000"]).await;
    // What was known of the kind that fails stays, and the other one goes on.
    names.is(Mood::SaysFor(RecordType::AAAA, ResponseCode::ServFail));
    names.has_addresses("chat.test.", &["10.0.0.2"]);
    finds(&discoveries, &["10.0.0.2:3000", "[::1]:3000"]).await;
    // Also where the other one has nothing; and it is asked again as soon as ever.
    names.is(Mood::Well);
    finds(&discoveries, &["10.0.0.2:3000"]).await;
    names.is(Mood::SaysFor(RecordType::A, ResponseCode::ServFail));
    let asked = *names.asked.lock().unwrap();
    let asking = async {
        while *names.asked.lock().unwrap() < asked + 6 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("it is asked again");
    names.is(Mood::Well);
    names.has_addresses("chat.test.", &["10.0.0.3"]);
    finds(&discoveries, &["10.0.0.3:3000"]).await;
}

#[tokio::test]
async fn services_have_ports_and_weights() {
    let names = NameServer::start().await;
    let srv = |priority, weight, port, target: &str| {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
    };
    names.has(
        "_http._tcp.test.",
        vec![
            srv(10, 20, 3001, "a.test."),
            srv(10, 40, 3002, "b.test."),
            srv(10, 20, 3003, "gone.test."),
            srv(20, 20, 3004, "a.test."),
        ],
    );
    names.has_addresses("a.test.", &["10.0.0.1", "10.0.0.2"]);
    names.has_addresses("b.test.", &["10.0.0.3"]);
    let discoveries = names.discover("{ srv: _http._tcp.test, refresh: 100ms }", None);
    finds(&discoveries, &["10.0.0.1:3001", "10.0.0.2:3001", "10.0.0.3:3002"]).await;
    let weights: Vec<u32> = discoveries.findings().borrow().of(0)[0].iter().map(|found| found.weight).collect();
    assert_eq!(weights, [1, 1, 2]);
}

#[tokio::test]
async fn a_new_configuration_begins_with_what_is_known() {
    let names = NameServer::start().await;
    names.has_addresses("chat.test.", &["10.0.0.1"]);
    let before = names.discover(CHAT, None);
    finds(&before, &["10.0.0.1:3000"]).await;
    names.is(Mood::Says(ResponseCode::ServFail));
    let after = names.discover(&format!("{{ dns: \"news.test:1\" }}, {CHAT}"), Some(&before));
    drop(before);
    assert_eq!(after.findings().borrow().of(0)[1].len(), 1);
    assert!(!after.first_answers(Duration::from_millis(300)).await, "nothing is known of the other");
    let config = names.config(&format!("{{ dns: \"news.test:1\" }}, {CHAT}, \"10.0.0.5:1\""));
    let servers = config.upstreams[0].servers_with(&after.findings().borrow().of(0));
    let servers: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(servers, ["10.0.0.5:1", "10.0.0.1:3000"]);
}

#[tokio::test]
async fn a_ttl_is_waited_for() {
    let names = NameServer::start().await;
    names.has_addresses("chat.test.", &["10.0.0.1"]);
    names.state.lock().unwrap().2 = 30;
    let discoveries = names.discover(CHAT, None);
    finds(&discoveries, &["10.0.0.1:3000"]).await;
    let asked = *names.asked.lock().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(*names.asked.lock().unwrap(), asked, "the answer was good for 30 s");
}
