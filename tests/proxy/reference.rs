//! What operators load into other programs: metrics as the reference has them, and the dashboard and the
//! rules that are made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::metrics::Metrics;
use crate::harness::tls::listening;
use crate::harness::websocket::open;
use crate::harness::{Authority, Named, Proxy, Refusing, Upstream, Weighted};

/// The metrics that the reference has, by name.
struct Table(BTreeMap<String, Row>);

struct Row {
    kind: String,
    /// The labels, and what each may say where that is a closed list.
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn in_package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(in_package(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Table {
    fn read() -> Self {
        let reference = read("conf/README.md");
        let (_, table) = reference.split_once("<!-- metrics: -->\n").expect("there is a table");
        let (table, _) = table.split_once("<!-- end -->").expect("it ends");
        Self(table.lines().skip(2).map(Row::parse).collect())
    }

    /// What a series of this name is part of, and the labels that it has.
    #[track_caller]
    fn series(&self, name: &str) -> (&Row, BTreeSet<&str>) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let found = match family.and_then(|family| self.0.get(family)) {
            Some(row) if row.kind.starts_with("histogram") => Some(row),
            _ => self.0.get(name).filter(|row| !row.kind.starts_with("histogram")),
        };
        let row = found.unwrap_or_else(|| panic!("{name} is not in the table of metrics"));
        let mut labels: BTreeSet<_> = row.labels.keys().map(String::as_str).collect();
        labels.extend(name.ends_with("_bucket").then_some("le"));
        (row, labels)
    }
}

impl Row {
    fn parse(line: &str) -> (String, Self) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { panic!("no row: {line}") };
        assert!(!meaning.is_empty(), "{line}");
        let label = |text: &str| {
            let (name, values) = text.split_once(':').unwrap_or((text, ""));
            let values = values.split(',').map(str::trim).filter(|it| it.starts_with('`') && it.ends_with('`'));
            (plain(name), values.map(plain).collect())
        };
        let labels = labels.split("; ").filter(|it| !it.is_empty()).map(label).collect();
        (plain(name), Self { kind: kind.to_owned(), labels })
    }
}

/// Without the marks of code.
fn plain(text: &str) -> String {
    text.trim().trim_matches('`').to_owned()
}

#[tokio::test]
async fn every_series_is_in_the_reference_with_its_labels() {
    let (server, websockets, refusing) = (Upstream::named("a").await, Upstream::start().await, Refusing::start());
    let setup = Proxy::start()
        .upstream("chat", &[&server, &refusing])
        .of_upstream("health_check", "{ tcp: on, interval: 100ms }")
        .upstream_of("found", "{ dns: \"localhost:1\" }")
        .upstream("websockets", &[&websockets])
        .route("{ path: /ws, upstream: websockets }")
        .route("{ host: a, upstream: chat }")
        .route("{ host: found, upstream: found }");
    let plain = setup.run().await;
    plain.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    plain.exchange("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n").await;
    let broken = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert_eq!(plain.exchange(broken).await.status(), 426);
    drop(open(&plain, &websockets).await);
    plain.settles("steadfast_websocket_closes_total", &[], 1.0).await;
    assert_eq!(plain.reload(&[]).await.status(), 200);
    plain.settles("steadfast_server_up", &[("upstream", "chat")], 1.0).await;
    let authority = Authority::new();
    let setup = Proxy::start().listening(&listening(&[&authority.vouch_for(&["chat.example.com"])]));
    let setup = setup.line("traces: { endpoint: \"http://127.0.0.1:1\" }");
    let encrypted = setup.upstream("chat", &[&server]).run().await;

    let table = Table::read();
    let mut seen = BTreeSet::new();
    for metrics in [plain.metrics().await, encrypted.metrics().await] {
        for (name, labels, _) in metrics.series() {
            let (row, known) = table.series(name);
            assert_eq!(
                labels.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>(),
                known,
                "labels of {name}"
            );
            for (label, value) in labels {
                let values = row.labels.get(label).filter(|values| !values.is_empty());
                assert!(values.is_none_or(|values| values.contains(value)), "{label} of {name} is {value:?}");
            }
            seen.insert(family(name).to_owned());
        }
    }
    let unseen: Vec<_> = table.0.keys().filter(|name| !seen.contains(name.as_str())).collect();
    assert_eq!(unseen, [""; 0], "in the table, and not counted");
    let metrics = encrypted.metrics().await;
    let end = metrics.sum("steadfast_certificate_expiry_timestamp_seconds", &[]);
    assert_eq!(end, 64_060_588_800.0, "the beginning of the year 4000");
    assert_eq!(metrics.sum("steadfast_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 1e6);
    answer_all(&[("p", plain.metrics().await), ("q", metrics)]);
}

/// That Prometheus can answer whatever the dashboard asks, had it scraped these: what does not match one to
/// one, or one to many, it sees only then.
fn answer_all(scraped: &[(&str, Metrics)]) {
    let series = scraped.iter().flat_map(|(instance, metrics)| {
        metrics.series().map(move |(name, labels, value)| {
            let labels: String = labels.iter().map(|(name, value)| format!(", {name}=\"{value}\"")).collect();
            let series = format!("{name}{{job=\"steadfast\", instance=\"{instance}\"{labels}}}");
            json!({ "series": series, "values": format!("{value}x20") })
        })
    });
    let asked = expressions(&dashboard()).into_iter().map(|(expression, _)| {
        let variables = [("$__rate_interval", "5m"), ("$job", ".*"), ("$instance", ".*"), ("$upstream", ".*")];
        let expression = variables.iter().fold(expression, |text, (name, value)| text.replace(name, value));
        // Whatever the answer is: zero.
        let expression = format!("clamp(count({expression}) or vector(0), 0, 0)");
        json!({ "expr": expression, "eval_time": "8m", "exp_samples": [{ "labels": "{}", "value": 0 }] })
    });
    let tests = json!({ "evaluation_interval": "30s", "tests": [{
        "interval": "30s",
        "input_series": series.collect::<Vec<_>>(),
        "promql_expr_test": asked.collect::<Vec<_>>(),
    }] });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("asked.yaml");
    std::fs::write(&file, tests.to_string()).expect("the folder is ours");
    check_by_promtool(&["test", "rules", file.to_str().expect("a path in UTF-8")]);
}

#[tokio::test]
async fn what_is_asked_of_servers_and_of_the_file_is_told() {
    let servers = [Upstream::start().await, Upstream::start().await];
    let entries = [Named(&Weighted(&servers[0], 3), "a"), Named(&servers[1], "b")];
    let setup = Proxy::start().upstream("chat", &[&entries[0], &entries[1]]);
    let proxy = setup.line("limits: { max_connections: 7 }").line("session_store: { sessions: 5000 }").run().await;
    let metrics = proxy.metrics().await;
    for (name, labels, value) in [
        ("steadfast_server_weight", vec![("server", "a")], 3.0),
        ("steadfast_server_weight", vec![("server", "b")], 1.0),
        ("steadfast_server_state", vec![("state", "ready")], 2.0),
        ("steadfast_server_state", vec![("state", "drain")], 0.0),
        ("steadfast_client_connections_max", vec![], 7.0),
        ("steadfast_sessions_max", vec![], 5000.0),
        ("steadfast_config_last_reload_successful", vec![], 1.0),
        ("steadfast_drains_in_progress", vec![], 0.0),
    ] {
        assert_eq!(metrics.sum(name, &labels), value, "{name} {labels:?}");
    }

    let before = metrics.sum("steadfast_config_last_reload_success_timestamp_seconds", &[]);
    assert_ne!(proxy.reload(&[("max_connections: 7", "max_connections: 0")]).await.status(), 200);
    proxy.settles("steadfast_config_last_reload_successful", &[], 0.0).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("steadfast_config_last_reload_success_timestamp_seconds", &[]), before);
    assert_eq!(metrics.sum("steadfast_reloads_total", &[("result", "refused")]), 1.0);
    let changes = [("max_connections: 0", "max_connections: 9"), ("weight: 3", "weight: 2")];
    assert_eq!(proxy.reload(&changes).await.status(), 200);
    proxy.settles("steadfast_config_last_reload_successful", &[], 1.0).await;
    proxy.settles("steadfast_client_connections_max", &[], 9.0).await;
    proxy.settles("steadfast_server_weight", &[("server", "a")], 2.0).await;

    // One that has something open, so that the drain goes on until that has ended.
    let client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (which, mut held) = tokio::select! {
        held = servers[0].accept() => ("a", held),
        held = servers[1].accept() => ("b", held),
    };
    held.request().await;
    let order = json!({ "upstream": "chat", "server": which, "spread": "0s", "timeout": "1h" });
    assert_eq!(proxy.order("drain", order).await.status(), 200);
    proxy.settles("steadfast_server_state", &[("server", which), ("state", "drain")], 1.0).await;
    proxy.settles("steadfast_drains_in_progress", &[], 1.0).await;
    drop((client, held));
    proxy.settles("steadfast_drains_in_progress", &[], 0.0).await;
    proxy.settles("steadfast_server_state", &[("state", "drain")], 1.0).await;
}

/// The metric of a series.
fn family(name: &str) -> &str {
    let part = |end| name.strip_suffix(end).filter(|name| name.ends_with("_seconds"));
    ["_bucket", "_sum", "_count"].into_iter().find_map(part).unwrap_or(name)
}

/// What an expression looks at.
#[derive(Debug, Default)]
struct Looks {
    /// Each metric, and its matchers.
    at: Vec<(String, Vec<(String, String)>)>,
    /// By which labels series are put together.
    by: BTreeSet<String>,
}

impl Looks {
    fn of(expression: &str) -> Self {
        let tokens = tokens(expression);
        let (mut looks, mut rest) = (Self::default(), tokens.as_slice());
        while let Some((token, behind)) = rest.split_first() {
            rest = behind;
            let is_name = token.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_');
            match token.as_str() {
                _ if !is_name => {}
                "by" | "on" | "ignoring" | "group_left" | "group_right" | "without" => {
                    let end = rest.iter().position(|it| it == ")").expect("a list of labels");
                    looks.by.extend(rest[1..end].iter().filter(|it| *it != ",").cloned());
                    rest = &rest[end + 1..];
                }
                "and" | "or" | "unless" | "bool" | "offset" => {}
                // A function, or what puts series together.
                _ if rest.first().is_some_and(|it| it == "(") => {}
                "sum" | "min" | "max" | "avg" | "count" => {}
                name => {
                    let mut matchers = Vec::new();
                    if rest.first().is_some_and(|it| it == "{") {
                        let end = rest.iter().position(|it| it == "}").expect("matchers end");
                        for matcher in rest[1..end].split(|it| it == ",") {
                            let (label, value) = (&matcher[0], &matcher[matcher.len() - 1]);
                            matchers.push((label.clone(), value.trim_matches('"').to_owned()));
                        }
                        rest = &rest[end + 1..];
                    }
                    looks.at.push((name.to_owned(), matchers));
                }
            }
        }
        looks
    }

    /// That there is all of it, and returns the labels of what comes of it, and perhaps more.
    #[track_caller]
    fn check(&self, table: &Table, expression: &str) -> BTreeSet<String> {
        assert!(!self.at.is_empty(), "looks at nothing: {expression}");
        let mut known = BTreeSet::from(["job".to_owned(), "instance".to_owned()]);
        for (name, matchers) in &self.at {
            if name == "up" {
                continue;
            }
            let (row, labels) = table.series(name);
            known.extend(labels.into_iter().map(str::to_owned));
            for (label, value) in matchers {
                assert!(known.contains(label), "{name} has no label {label}, in {expression}");
                let values = row.labels.get(label).filter(|values| !values.is_empty());
                for value in value.split('|').filter(|it| !it.starts_with('$')) {
                    let is_known = values.is_none_or(|values| values.contains(value));
                    assert!(is_known, "{label} of {name} is never {value:?}, in {expression}");
                }
            }
        }
        for label in &self.by {
            assert!(known.contains(label), "there is no label {label} in {expression}");
        }
        known
    }
}

/// Names, numbers, texts and everything else by itself.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |it: char| it.is_ascii_alphanumeric() || "_.:".contains(it);
        let length = match first {
            '"' => rest[1..].find('"').expect("a text ends") + 2,
            '$' => rest[1..].find(|it| !is_word(it)).map_or(rest.len(), |end| end + 1),
            _ if is_word(first) => rest.find(|it| !is_word(it)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn what_an_expression_looks_at_is_seen() {
    let looks = Looks::of(
        r#"sum by (a, le) (rate(m_bucket{x="1|2", y!~"$z"}[$__rate_interval])) / on (b) group_left () n > 0.9 * 5m"#,
    );
    let matchers = [("x", "1|2"), ("y", "$z")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(looks.at, [("m_bucket".to_owned(), matchers.to_vec()), ("n".to_owned(), Vec::new())]);
    assert_eq!(looks.by, ["a", "b", "le"].map(str::to_owned).into());
}

/// The labels that a text names in braces behind `prefix`.
fn named<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let inner = text.split("{{").skip(1).filter_map(|it| it.split("}}").next());
    let labels = inner.filter_map(|it| it.trim().strip_prefix(prefix));
    labels.map(|it| it.split([' ', '|']).next().unwrap_or_default()).collect()
}

#[test]
fn rules_look_at_what_there_is() {
    let table = Table::read();
    let rules: serde_yaml::Value = serde_yaml::from_str(&read("conf/alerts.yaml")).expect("it is YAML");
    let tests: serde_yaml::Value = serde_yaml::from_str(&read("tests/alerts.yaml")).expect("it is YAML");
    let tests = tests["tests"].as_sequence().expect("tests");
    let rules = rules["groups"][0]["rules"].as_sequence().expect("rules");
    assert!(rules.len() > 20, "{rules:#?}");
    for rule in rules {
        let (name, expression) = (rule["alert"].as_str().expect("a name"), rule["expr"].as_str().expect("it looks at"));
        let known = Looks::of(expression).check(&table, expression);
        for part in ["summary", "runbook"] {
            let text = rule["annotations"][part].as_str().unwrap_or_else(|| panic!("{name} has no {part}"));
            let labels = named(text, "$labels.");
            assert!(labels.iter().all(|label| known.contains(*label)), "{name}: {labels:?} of {known:?}");
        }
        assert!(tests.iter().any(|test| test["name"] == name), "no test of {name}");
    }
}

/// All panels, those of rows included.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().expect("panels");
    top.iter()
        .flat_map(|panel| std::iter::once(panel).chain(panel["panels"].as_array().into_iter().flatten()))
        .collect()
}

/// Every expression of the dashboard, and the texts that name labels of what comes of it.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let of_panels = panels(dashboard).into_iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let targets = of_panels.map(|target| (text(&target["expr"]), text(&target["legendFormat"])));
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let annotations = annotations.filter(|it| it["expr"].is_string());
    targets.chain(annotations.map(|it| (text(&it["expr"]), text(&it["textFormat"])))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("conf/grafana-dashboard.json")).expect("it is JSON")
}

#[test]
fn the_dashboard_looks_at_what_there_is() {
    let (table, dashboard) = (Table::read(), dashboard());
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 60, "{}", expressions.len());
    let mut seen = BTreeSet::new();
    for (expression, legend) in &expressions {
        let looks = Looks::of(expression);
        let known = looks.check(&table, expression);
        seen.extend(looks.at.into_iter().map(|(name, _)| name));
        let labels = named(legend, "");
        assert!(labels.iter().all(|label| known.contains(*label)), "{legend}: {known:?}");
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    for variable in variables.iter().filter(|it| it["type"] == "query") {
        let query = text(&variable["definition"]);
        let inner = query.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')')).expect("values of a label");
        let (expression, label) = inner.rsplit_once(", ").expect("of a metric");
        assert!(Looks::of(expression).check(&table, expression).contains(label), "{query}");
    }
    let seen: BTreeSet<_> = seen.iter().map(|name| family(name)).collect();
    let unseen: Vec<_> = table.0.keys().filter(|name| !seen.contains(name.as_str())).collect();
    assert_eq!(unseen, NOT_SHOWN.iter().collect::<Vec<_>>(), "the dashboard does not show");
}

/// What the dashboard leaves out: others say the same, or nobody asks.
const NOT_SHOWN: &[&str] = &[
    "process_threads",
    "process_virtual_memory_bytes",
    "steadfast_http2_resets_total",
    "steadfast_spans_exported_total",
];

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    assert_eq!(dashboard["id"], Value::Null, "Grafana gives it one");
    let panels = panels(&dashboard);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
    for (index, panel) in panels.iter().enumerate() {
        let [x, y, width, height] = place(panel);
        assert!(width > 0 && height > 0 && x + width <= 24, "{panel}");
        for other in &panels[..index] {
            let [other_x, other_y, other_width, other_height] = place(other);
            let is_beside = x + width <= other_x || other_x + other_width <= x;
            let is_below = y + height <= other_y || other_y + other_height <= y;
            assert!(is_beside || is_below, "{} lies over {}", panel["title"], other["title"]);
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            assert!(panel["description"].as_str().is_some_and(|it| !it.is_empty()), "{}", panel["title"]);
        }
    }
}

/// What promtool says to these arguments.
#[track_caller]
fn check_by_promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; tests/install.sh test installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn rules_fire_when_they_should_and_only_then() {
    check_by_promtool(&["check", "rules", in_package("conf/alerts.yaml").to_str().expect("a path in UTF-8")]);
    check_by_promtool(&["test", "rules", in_package("tests/alerts.yaml").to_str().expect("a path in UTF-8")]);
}
