//! Tables over what is judged, and whole windows through the doctor.

use proptest::prelude::*;

use super::*;
use crate::affinity::STICKY_COOKIE;
use crate::config::Ipv6Prefix;

const CROWD: Servers = Servers { ready: 2, open: 100, fullest: 90 };
const FEW: Servers = Servers { ready: 2, open: 6, fullest: 6 };

fn cookie() -> AffinitySource {
    AffinitySource::Cookie("sid".into())
}

fn client_ip() -> AffinitySource {
    AffinitySource::ClientIp(Ipv6Prefix::default())
}

fn forwarded_for() -> AffinitySource {
    AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::default())
}

fn defaults() -> Vec<AffinitySource> {
    vec![AffinitySource::EngineIo, forwarded_for(), client_ip()]
}

fn patient(sources: Vec<AffinitySource>) -> Patient {
    Patient { upstream: "chat".into(), sources }
}

/// A leader with 98 percent of a window, by twelve `User-Agent`s.
fn leader(source: &'static str, address: &str, is_trusted: bool) -> Leader {
    let address = (!address.is_empty()).then(|| address.to_owned());
    Leader { source, address, is_trusted, requests: 980, user_agents: 12 }
}

fn window(leader: Leader) -> Placed {
    Placed { requests: 1000, leader: Some(leader), ..Placed::default() }
}

#[track_caller]
fn check(found: impl IntoIterator<Item = (Finding, String)>, expected: &[(Finding, &str)]) {
    let found: Vec<_> = found.into_iter().collect();
    let found: Vec<_> = found.iter().map(|(finding, sentence)| (*finding, sentence.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn one_key_is_told_by_where_it_comes_from() {
    #[track_caller]
    fn one_key(sources: Vec<AffinitySource>, leader: Leader, sentence: &str) {
        check(patient(sources).judge_placed(&window(leader), FEW), &[(Finding::OneKey, sentence)]);
    }
    use AffinitySource::{EngineIo, Header, Query};

    one_key(
        vec![client_ip()],
        leader(CLIENT_IP, "10.1.1.1", true),
        "98 % of the last 1000 requests came from 10.1.1.1, with at least 12 different User-Agents, so it is likely \
         a \
         proxy, and one server gets all of its clients; have 10.1.1.1 send X-Forwarded-For, and put forwarded_for \
         before client_ip in upstreams.chat.affinity",
    );
    one_key(
        vec![EngineIo, client_ip()],
        leader(CLIENT_IP, "203.0.113.9", false),
        "98 % of the last 1000 requests without a session came from 203.0.113.9, with at least 12 different \
         User-Agents, so it is likely a proxy, and one server gets all of its clients; have 203.0.113.9 send \
         X-Forwarded-For, add it to trusted_proxies if it is yours, and put forwarded_for before client_ip in \
         upstreams.chat.affinity",
    );
    one_key(
        vec![forwarded_for(), client_ip()],
        leader(CLIENT_IP, "203.0.113.9", false),
        "98 % of the last 1000 requests came from 203.0.113.9, with at least 12 different User-Agents, so it is \
         likely \
         a proxy, and one server gets all of its clients; have 203.0.113.9 send X-Forwarded-For, and add it to \
         trusted_proxies if it is yours",
    );
    one_key(
        vec![forwarded_for()],
        leader(judge::NONE, "203.0.113.9", false),
        "98 % of the last 1000 requests came from 203.0.113.9, with at least 12 different User-Agents, so it is \
         likely \
         a proxy, and nothing keeps its clients at their servers; have 203.0.113.9 send X-Forwarded-For, and add it to \
         trusted_proxies if it is yours",
    );
    one_key(
        defaults(),
        leader(FORWARDED_FOR, "192.0.2.1", false),
        "98 % of the last 1000 requests without a session have 192.0.2.1 as their client in X-Forwarded-For, with at \
         least 12 different User-Agents, so a hop hides many clients behind that address, or they share one network, \
         and one server gets them all; have that hop pass on their addresses, or leave only engine_io or sticky_cookie \
         in upstreams.chat.affinity",
    );
    one_key(
        vec![cookie()],
        leader("cookie", "", false),
        "98 % of the last 1000 requests have one and the same value of cookie sid, with at least 12 different \
         User-Agents, and one server gets them all; if that is not meant, name something in upstreams.chat.affinity \
         that tells clients apart",
    );
    let spelled = |sources, source| {
        let found = patient(sources).judge_placed(&window(leader(source, "", false)), FEW);
        found[0].1.split(" of ").nth(2).and_then(|rest| rest.split(',').next()).map(str::to_owned)
    };
    assert_eq!(spelled(vec![Query("room".into())], "query").as_deref(), Some("query room"));
    assert_eq!(spelled(vec![Header(USER_AGENT)], "header").as_deref(), Some("header user-agent"));
    assert_eq!(spelled(vec![cookie(), AffinitySource::Cookie("b".into())], "cookie").as_deref(), Some("a cookie"));
}

#[test]
fn a_crowd_may_show_in_its_connections() {
    let alone = Leader { user_agents: 1, ..leader(CLIENT_IP, "10.1.1.1", true) };
    check(
        patient(vec![client_ip()]).judge_placed(&window(alone), CROWD),
        &[(
            Finding::OneKey,
            "98 % of the last 1000 requests came from 10.1.1.1, while one server holds 90 of 100 open connections, so \
             it is likely a proxy, and one server gets all of its clients; have 10.1.1.1 send X-Forwarded-For, and put \
             forwarded_for before client_ip in upstreams.chat.affinity",
        )],
    );
}

#[test]
fn one_key_has_its_thresholds() {
    #[track_caller]
    fn is_found(requests: u32, user_agents: u32, servers: Servers, expected: bool) {
        let leader = Leader { requests, user_agents, ..leader(CLIENT_IP, "10.1.1.1", true) };
        let found = patient(vec![client_ip()]).judge_placed(&window(leader), servers);
        assert_eq!(!found.is_empty(), expected, "{requests} {user_agents} {servers:?}");
    }

    is_found(600, 6, FEW, true);
    is_found(599, 64, CROWD, false);
    is_found(1000, 5, FEW, false);
    is_found(1000, 64, Servers { ready: 1, ..CROWD }, false);
    is_found(1000, 1, Servers { ready: 2, open: 50, fullest: 35 }, true);
    is_found(1000, 1, Servers { ready: 2, open: 49, fullest: 49 }, false);
    is_found(1000, 1, Servers { ready: 2, open: 50, fullest: 34 }, false);
    check(patient(defaults()).judge_placed(&Placed { requests: 1000, ..Placed::default() }, CROWD), &[]);
    check(patient(defaults()).judge_placed(&Placed::default(), Servers::default()), &[]);
}

#[test]
fn a_trusted_hop_that_names_no_client_is_told_by_what_it_says() {
    #[track_caller]
    fn no_address(sources: Vec<AffinitySource>, source: &'static str, reason: Missing, sentence: &str) {
        let mut placed = window(leader(source, "10.1.1.1", true));
        placed.missing[reason as usize] = 980;
        placed.missing[(reason as usize + 1) % 4] = 20;
        check(patient(sources).judge_placed(&placed, FEW), &[(Finding::NoAddress, sentence)]);
    }

    no_address(
        defaults(),
        CLIENT_IP,
        Missing::Field,
        "98 % of the last 1000 requests without a session came from 10.1.1.1 without X-Forwarded-For, with at least \
         12 different User-Agents, so it seems to hide its clients, and one server gets all of its clients; have \
         10.1.1.1 send X-Forwarded-For with their addresses, or PROXY headers if it is below HTTP (see \
         proxy_protocol), or leave only engine_io or sticky_cookie in upstreams.chat.affinity",
    );
    no_address(
        vec![forwarded_for(), client_ip()],
        CLIENT_IP,
        Missing::Hidden,
        "98 % of the last 1000 requests came from 10.1.1.1 with unknown in X-Forwarded-For instead of an address, \
         with at least 12 different User-Agents, so it seems to hide its clients, and one server gets all of its \
         clients; have 10.1.1.1 send X-Forwarded-For with their addresses, or leave only engine_io or sticky_cookie \
         in upstreams.chat.affinity",
    );
    no_address(
        vec![forwarded_for()],
        judge::NONE,
        Missing::Garbled,
        "98 % of the last 1000 requests came from 10.1.1.1 with no readable address in X-Forwarded-For, with at \
         least 12 different User-Agents, so it seems to hide its clients, and nothing keeps its clients at their \
         servers; have 10.1.1.1 send X-Forwarded-For with their addresses, or leave only engine_io or sticky_cookie \
         in upstreams.chat.affinity",
    );
    no_address(
        vec![AffinitySource::ForwardedFor(Pick::RightmostUntrusted, Ipv6Prefix::default()), client_ip()],
        CLIENT_IP,
        Missing::Client,
        "98 % of the last 1000 requests came from 10.1.1.1 with none but trusted_proxies in X-Forwarded-For, with at \
         least 12 different User-Agents, so it seems to hide its clients, and one server gets all of its clients; \
         take the clients' own network out of trusted_proxies, or leave only engine_io or sticky_cookie in \
         upstreams.chat.affinity",
    );
}

#[test]
fn a_hop_that_is_not_trusted_but_forwards_is_named() {
    let mut placed = window(leader(CLIENT_IP, "203.0.113.9", false));
    placed.untrusted_hop = Some("203.0.113.9".into());
    placed.untrusted = 600;
    check(
        patient(defaults()).judge_placed(&placed, FEW),
        &[(
            Finding::UntrustedHop,
            "60 % of the last 1000 requests without a session came with X-Forwarded-For or Forwarded by way of hops \
             that are not among trusted_proxies, such as 203.0.113.9, so their clients are not told apart; add \
             203.0.113.9 to trusted_proxies if it is your proxy",
        )],
    );
    placed.untrusted = 599;
    let found = patient(defaults()).judge_placed(&placed, FEW);
    assert_eq!(found[0].0, Finding::OneKey);
}

#[test]
fn refusals_on_engine_io_are_told_by_whether_sessions_are_tagged() {
    let tagging = patient(defaults());
    check(
        tagging.judge_answers(1000, 120),
        &[(
            Finding::SessionUnknown,
            "servers answered 12 % of the last 1000 Engine.IO requests with 400, as they do to sessions that they do not \
             know; see whether they have restarted or clients speak protocol 3, which has no tags, and give each worker \
             process a port and an entry of its own in upstreams.chat.servers",
        )],
    );
    check(
        patient(vec![forwarded_for()]).judge_answers(200, 10),
        &[(
            Finding::SessionUnknown,
            "servers answered 5 % of the last 200 Engine.IO requests with 400, as they do to sessions that they do not \
             know; put engine_io first in upstreams.chat.affinity",
        )],
    );
    assert_eq!(tagging.judge_answers(1000, 49), None);
    assert_eq!(tagging.judge_answers(0, 0), None);
}

#[test]
fn tags_that_lead_nowhere_are_told_by_why() {
    check(
        patient(defaults()).judge_tags(Tagged { requests: 1000, unknown: 125, foreign: 500 }),
        &[
            (
                Finding::UnknownServers,
                "12 % of the last 1000 session tags and cookies name servers that upstream chat does not have, so those \
                 sessions are lost; give servers the same names on every proxy, and remove a server only when its \
                 sessions have ended",
            ),
            (
                Finding::ForeignTags,
                "50 % of the last 1000 session tags and cookies were made with another secret, so they lead nowhere; \
                 give every proxy the same affinity_secret_file, and keep it when they restart",
            ),
        ],
    );
    check(patient(defaults()).judge_tags(Tagged { requests: 1000, unknown: 49, foreign: 49 }), &[]);
    check(patient(defaults()).judge_tags(Tagged::default()), &[]);
}

#[test]
fn a_hop_that_damages_handshakes_is_named_with_what_it_does() {
    let hop = IpAddr::from([10, 0, 0, 1]);
    let shaken = |damage, damaged| Shaken { handshakes: 20, damaged, first: Some((damage, hop)) };
    let patient = patient(defaults());
    let cure = "let it speak HTTP/1.1 to this proxy and pass Upgrade and Connection on; in nginx: proxy_http_version \
                1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";";
    for (damage, state) in [
        (Damage::Http10, "in HTTP/1.0, which has no upgrades"),
        (Damage::NoUpgrade, "without Upgrade"),
        (Damage::NoConnection, "without Connection: upgrade"),
    ] {
        let sentence = format!(
            "previous hop 10.0.0.1 passes WebSocket handshakes {state}, so 15 % of the last 20 were refused; {cure}"
        );
        check(patient.judge_handshakes(shaken(damage, 3)), &[(Finding::DamagedHandshakes, &sentence)]);
    }
    assert_eq!(patient.judge_handshakes(shaken(Damage::Http10, 2)), None, "somebody who tries what happens");
    assert_eq!(patient.judge_handshakes(Shaken::default()), None);
}

#[test]
fn damage_is_told_once_per_window_and_only_of_hops() {
    let doctor = Doctor::new(patient(defaults()));
    let hop = IpAddr::from([10, 0, 0, 1]);
    let told = |damage: Option<Damage>, count: u32| -> Vec<News> {
        (0..count).flat_map(|_| doctor.shaken(damage, hop)).collect()
    };
    assert_eq!(told(None, HANDSHAKES), []);
    assert_eq!(told(Some(Damage::Key), HANDSHAKES), [], "a client's own mistake");
    assert_eq!(told(Some(Damage::NoUpgrade), HANDSHAKES - 1), []);
    let news = told(Some(Damage::NoUpgrade), 1);
    assert!(
        matches!(&news[..], [News { finding: Finding::DamagedHandshakes, is_so: true, line: Some(_) }]),
        "{news:?}"
    );
    assert_eq!(told(Some(Damage::NoUpgrade), HANDSHAKES), []);
    let news = told(None, HANDSHAKES);
    assert!(matches!(&news[..], [News { is_so: false, .. }]), "{news:?}");
}

#[test]
fn labels_are_a_closed_list() {
    let labels = Finding::ALL.map(Finding::label);
    assert_eq!(
        labels,
        [
            "one_key",
            "no_address",
            "untrusted_hop",
            "session_unknown",
            "unknown_servers",
            "foreign_tags",
            "damaged_handshakes",
        ]
    );
    for (at, finding) in Finding::ALL.into_iter().enumerate() {
        assert_eq!(finding as usize, at);
    }
}

/// What clients send, as the doctor meets it.
struct Office {
    doctor: Doctor,
    trusted: TrustedProxies,
    servers: Servers,
}

impl Office {
    fn of(sources: Vec<AffinitySource>) -> Self {
        Self::with(Doctor::new(patient(sources)))
    }

    fn with(doctor: Doctor) -> Self {
        Self { doctor, trusted: TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]), servers: FEW }
    }

    /// A request that `source` placed by `key`, by way of `hop`, with `fields`.
    fn ask(&self, source: &'static str, key: &str, hop: &str, fields: &[(&str, &str)]) -> Vec<News> {
        let name = |name: &str| name.parse::<http::HeaderName>().expect("a name");
        let headers = fields.iter().map(|(field, value)| (name(field), value.parse().expect("a value")));
        let asked = Asked {
            headers: &headers.collect(),
            previous_hop: hop.parse().expect("an address"),
            trusted: &self.trusted,
            source,
            has_session: false,
            key: (!key.is_empty()).then_some(key.as_bytes()),
            tag: Tag::None,
        };
        self.doctor.asked(&asked, || self.servers)
    }

    /// So many requests by browsers of forty kinds.
    fn crowd(&self, requests: u32, source: &'static str, key: &str, hop: &str, field: (&str, &str)) -> Vec<News> {
        let agents: Vec<_> = (0..40).map(|kind| format!("Browser/{kind}")).collect();
        let ask = |number: u32| {
            self.ask(source, key, hop, &[("user-agent", agents[number as usize % agents.len()].as_str()), field])
        };
        (0..requests).flat_map(ask).collect()
    }

    fn tag(&self, tag: Tag) -> Vec<News> {
        let asked = Asked {
            headers: &HeaderMap::new(),
            previous_hop: IpAddr::from([10, 0, 0, 1]),
            trusted: &self.trusted,
            source: STICKY_COOKIE,
            has_session: true,
            key: None,
            tag,
        };
        self.doctor.asked(&asked, || self.servers)
    }
}

const PLAIN: (&str, &str) = ("accept", "*/*");

fn findings(news: &[News]) -> Vec<(Finding, bool, bool)> {
    news.iter().map(|news| (news.finding, news.is_so, news.line.is_some())).collect()
}

#[test]
fn a_finding_is_said_once_and_shown_while_it_lasts() {
    let office = Office::of(vec![client_ip()]);
    assert_eq!(office.crowd(FIRST_WINDOW - 1, CLIENT_IP, "10.1.1.1", "10.1.1.1", PLAIN), []);
    let news = office.crowd(1, CLIENT_IP, "10.1.1.1", "10.1.1.1", PLAIN);
    assert_eq!(findings(&news), [(Finding::OneKey, true, true)]);
    let line = news[0].line.as_deref().unwrap_or_default();
    assert!(line.starts_with("100 % of the last 200 requests came from 10.1.1.1, with at least "), "{line}");
    assert_eq!(office.crowd(3 * WINDOW, CLIENT_IP, "10.1.1.1", "10.1.1.1", PLAIN), [], "it is still so");

    let well = |times: u32| -> Vec<News> {
        let requests = (0..times * WINDOW).map(|number| format!("10.2.{}.{}", number / 250, number % 250));
        requests.flat_map(|client| office.ask(CLIENT_IP, &client, &client, &[])).collect()
    };
    assert_eq!(findings(&well(2)), [(Finding::OneKey, false, true)]);
    let news = office.crowd(WINDOW, CLIENT_IP, "10.1.1.1", "10.1.1.1", PLAIN);
    assert_eq!(findings(&news), [(Finding::OneKey, true, false)], "again");
    assert_eq!(findings(&well(1)), [(Finding::OneKey, false, false)]);
}

#[test]
fn hops_that_hide_clients_are_found_wherever_that_leads() {
    #[track_caller]
    fn check(sources: Vec<AffinitySource>, source: &'static str, hop: &str, field: (&str, &str), expected: &[Finding]) {
        let office = Office::of(sources);
        let key = if source == CLIENT_IP { hop } else { "" };
        let news = office.crowd(FIRST_WINDOW, source, key, hop, field);
        assert_eq!(news.iter().map(|news| news.finding).collect::<Vec<_>>(), expected, "{source} {hop} {field:?}");
        for line in news.iter().filter_map(|news| news.line.as_deref()) {
            assert!(line.contains(hop), "{line}");
        }
    }
    let told = ("x-forwarded-for", "192.0.2.1");

    check(defaults(), CLIENT_IP, "10.1.1.1", PLAIN, &[Finding::NoAddress]);
    check(defaults(), CLIENT_IP, "10.1.1.1", ("x-forwarded-for", "unknown"), &[Finding::NoAddress]);
    check(defaults(), CLIENT_IP, "203.0.113.9", told, &[Finding::UntrustedHop]);
    check(defaults(), CLIENT_IP, "203.0.113.9", ("forwarded", "for=192.0.2.1"), &[Finding::UntrustedHop]);
    check(defaults(), CLIENT_IP, "203.0.113.9", PLAIN, &[Finding::OneKey]);
    check(vec![forwarded_for()], "none", "10.1.1.1", PLAIN, &[Finding::NoAddress]);
    check(vec![forwarded_for()], "none", "203.0.113.9", told, &[Finding::UntrustedHop]);
    check(vec![client_ip()], CLIENT_IP, "203.0.113.9", told, &[Finding::OneKey]);
    // Sessions hold clients, wherever the first request went.
    check(vec![AffinitySource::EngineIo, forwarded_for()], "none", "10.1.1.1", PLAIN, &[]);
    // Nobody has asked who the client is.
    check(vec![cookie()], "none", "203.0.113.9", told, &[]);
}

#[test]
fn clients_that_another_source_tells_apart_are_well_behind_any_hop() {
    let office = Office::of(vec![cookie(), forwarded_for(), client_ip()]);
    for number in 0..3 * WINDOW {
        let field = ("x-forwarded-for", "unknown");
        assert_eq!(office.ask("cookie", &format!("client {}", number % 300), "203.0.113.9", &[field]), []);
    }
}

#[test]
fn what_may_be_a_secret_is_never_shown() {
    for source in ["cookie", "header", "query"] {
        let office = Office::of(vec![cookie(), forwarded_for(), client_ip()]);
        let news = office.crowd(FIRST_WINDOW, source, "s3cr3t", "10.1.1.1", PLAIN);
        let line = news[0].line.as_deref().unwrap_or_default();
        assert!(!line.is_empty() && !line.contains("s3cr3t") && !line.contains("10.1.1.1"), "{line}");
    }
}

#[test]
fn sessions_say_nothing_about_keys_but_their_tags_are_read() {
    let tags = |office: &Office, bad: Tag, every: u32| -> Vec<News> {
        let tag = |number: u32| if number.is_multiple_of(every) { bad } else { Tag::Known };
        (0..FIRST_WINDOW).flat_map(|number| office.tag(tag(number))).collect()
    };
    let office = || Office::of(defaults());
    assert_eq!(findings(&tags(&office(), Tag::UnknownServer, 20)), [(Finding::UnknownServers, true, true)]);
    assert_eq!(findings(&tags(&office(), Tag::Foreign, 20)), [(Finding::ForeignTags, true, true)]);
    assert_eq!(tags(&office(), Tag::Foreign, 21).len(), 1);
    assert_eq!(tags(&office(), Tag::Foreign, 23), []);
    assert_eq!(tags(&office(), Tag::Known, 1), []);
}

#[test]
fn answers_are_judged_by_the_window_too() {
    let doctor = Doctor::new(patient(defaults()));
    let answer = |number: u32| doctor.answered(if number.is_multiple_of(20) { 400 } else { 200 });
    let news: Vec<_> = (0..FIRST_WINDOW).flat_map(answer).collect();
    assert_eq!(findings(&news), [(Finding::SessionUnknown, true, true)]);
    let news: Vec<_> = (0..WINDOW).flat_map(|_| doctor.answered(101)).collect();
    assert_eq!(findings(&news), [(Finding::SessionUnknown, false, true)]);
}

/// Which of `keys` clients comes next when they come as often as by Zipf's law.
fn zipf(keys: usize, exponent: f64, dice: &mut fastrand::Rng) -> usize {
    let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
    let mut left = dice.f64() * (0..keys).map(weight).sum::<f64>();
    let mut ranks = (0..keys).take_while(|rank| {
        left -= weight(*rank);
        left > 0.0
    });
    ranks.by_ref().last().map_or(0, |rank| (rank + 1).min(keys - 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ordinary_traffic_has_no_findings(keys in 40_usize..400, exponent in 0.0..1.1_f64, seed: u64, columns in 1_usize..40) {
        // A sketch this small is nothing but collisions.
        for doctor in [Doctor::new(patient(defaults())), Doctor::with_sketch(patient(defaults()), 1, columns)] {
            let (mut office, mut dice) = (Office::with(doctor), fastrand::Rng::with_seed(seed));
            office.servers = CROWD; // Nothing but the share of a key is left to clear it.
            for _ in 0..FIRST_WINDOW + 2 * WINDOW {
                let client = format!("client {}", zipf(keys, exponent, &mut dice));
                let agent = format!("Browser/{}", dice.u8(..));
                let news = office.ask(FORWARDED_FOR, &client, "10.1.1.1", &[("user-agent", &agent)]);
                prop_assert_eq!(news, []);
            }
        }
    }

    #[test]
    fn one_key_among_many_is_found_in_any_order(percent in 70_u32..=100, seed: u64) {
        let (office, mut dice) = (Office::of(defaults()), fastrand::Rng::with_seed(seed));
        let mut news = Vec::new();
        for number in 0..FIRST_WINDOW + WINDOW {
            let client = if dice.u32(0..100) < percent { "192.0.2.1".to_owned() } else { format!("client {number}") };
            let agent = format!("Browser/{}", dice.u8(..));
            news.extend(office.ask(FORWARDED_FOR, &client, "10.1.1.1", &[("user-agent", &agent)]));
        }
        prop_assert_eq!(findings(&news), [(Finding::OneKey, true, true)]);
    }
}
