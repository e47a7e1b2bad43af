//! Every file that people take away with them is right: the examples of `conf`, the manifests for
//! Kubernetes and Docker Compose by the schemas of these, what the image runs, the unit of systemd.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::process::Process;
use crate::harness::proxy::BINARY;
use crate::harness::{Authority, Proxy, Python, ServerEntry, Upstream, seconds, within};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below `directory` with this end, but for what npm has installed there.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it can be listed");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let of_path = |path: PathBuf| match path.is_dir() {
        true if path.ends_with("node_modules") => Vec::new(),
        true => files(&path, end),
        false => Vec::from_iter(path.extension().is_some_and(|it| it == end).then_some(path)),
    };
    paths.flat_map(of_path).collect()
}

/// The documents of a YAML file.
fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    documents.map(|document| document.unwrap_or_else(|error| panic!("{error} in:\n{text}"))).collect()
}

/// The YAML files of `conf`, by whom they are for.
#[derive(Default)]
struct Yaml {
    steadfast: BTreeMap<PathBuf, String>,
    kubernetes: Vec<PathBuf>,
    compose: Vec<PathBuf>,
}

fn yaml() -> Yaml {
    let mut all = Yaml::default();
    for path in files(&root().join("conf"), "yaml") {
        let text = read(&path);
        let documents = documents(&text);
        let has = |key: &str| documents[0].get(key).is_some();
        match () {
            () if has("apiVersion") => {
                let maps = documents.iter().filter(|document| document["kind"] == "ConfigMap");
                for (name, text) in maps.flat_map(|map| map["data"].as_object().expect("it has data")) {
                    let text = text.as_str().expect("a file is text").to_owned();
                    all.steadfast.insert(path.join(name), text);
                }
                all.kubernetes.push(path);
            }
            () if has("services") => all.compose.push(path),
            () if has("groups") => {} // Rules of Prometheus.
            () => drop(all.steadfast.insert(path, text)),
        }
    }
    all
}

/// A directory with everything that examples expect on the machine that they are for.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let (directory, authority) = (tempfile::tempdir().expect("a temporary directory"), Authority::new());
        let shown = authority.vouch_for(&["chat.example.com"]);
        for (from, name) in [(&shown.cert, "chat.pem"), (&shown.key, "chat.key")] {
            std::fs::copy(from, directory.path().join(name)).expect("the directory is ours");
        }
        for name in ["affinity", "secret", "token"] {
            std::fs::write(directory.path().join(name), "sixteen-and-more-bytes").expect("the directory is ours");
        }
        Self(directory)
    }

    /// The text, with this directory in the place of those that hold secrets and certificates.
    fn at_home(&self, text: &str) -> String {
        let here = format!(" {}/", self.0.path().display());
        let away = [" /run/secrets/steadfast/", " /run/secrets/", " /etc/steadfast/"];
        away.iter().fold(text.to_owned(), |text, away| text.replace(away, &here))
    }
}

/// What becomes of `command`, which must end by itself.
async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    let name = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output());
    within(seconds(60), &name, output).await.expect("it does not panic").expect("it starts")
}

#[tokio::test]
async fn every_file_is_right() {
    let machine = Machine::new();
    let files = yaml().steadfast;
    assert!(files.len() >= 14, "{:?}", files.keys());
    for (path, text) in files {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(machine.at_home(&text).as_bytes()).expect("the file is ours");
        let mut check = Command::new(BINARY);
        check.args(["check", "-c"]).arg(file.path());
        let output = output(check).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}: {said}", path.display());
    }
}

#[tokio::test]
async fn the_reference_lists_every_example() {
    let reference = read("conf/README.md");
    let directory = root().join("conf");
    for path in [files(&directory, "yaml"), files(&directory, "service")].concat() {
        let path = path.strip_prefix(&directory).expect("it is in there");
        // A directory is listed as a whole.
        let listed = match path.parent().filter(|parent| *parent != Path::new("")) {
            Some(parent) => format!("| `{}/` |", parent.display()),
            None => format!("| `{}` |", path.display()),
        };
        assert!(reference.contains(&listed), "{listed} is missing in conf/README.md");
    }
}

/// What is wrong with manifests, by path.
async fn mistakes(kubernetes: &[PathBuf], compose: &[PathBuf]) -> Value {
    let script = Python::script("manifests.py", &json!({ "kubernetes": kubernetes, "compose": compose }));
    within(seconds(60), "the schemas to be read", script.says("mistakes")).await
}

#[tokio::test]
async fn manifests_follow_their_schemas() {
    let Yaml { kubernetes, compose, .. } = yaml();
    assert_eq!((kubernetes.len(), compose.len()), (1, 2));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let wrong = [
        (&kubernetes[0], "readinessProbe:", "readinesProbe:", "'readinesProbe' was unexpected"),
        (&kubernetes[0], "containerPort: 8080", "containerPort: http", "'http' is not of type 'integer'"),
        (&compose[0], "stop_grace_period:", "stop_grace:", "'stop_grace' does not match"),
    ]
    .map(|(path, from, to, mistake)| {
        let text = read(path);
        assert!(text.contains(from), "{from} is not in {}", path.display());
        let file = directory.path().join(format!("{}.yaml", to.replace([':', ' '], "-")));
        std::fs::write(&file, text.replace(from, to)).expect("the directory is ours");
        (file, mistake)
    });
    let [(probe, _), (port, _), (grace, _)] = wrong.clone();
    let (all, wrong_ones) = (mistakes(&kubernetes, &compose).await, mistakes(&[probe, port], &[grace]).await);
    for (path, mistakes) in all.as_object().expect("a map") {
        assert_eq!(mistakes, &json!([]), "{path}");
    }
    for (path, mistake) in wrong {
        let mistakes = wrong_ones[path.display().to_string()].to_string();
        assert!(mistakes.contains(mistake), "{mistake} is not among {mistakes}");
    }
}

/// Seconds of a duration as our file writes it.
fn whole_seconds(duration: &Value) -> u64 {
    let text = duration.as_str().expect("a duration");
    text.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text} is not in seconds"))
}

/// The manifest of this kind and name.
fn manifest<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn times_of_kubernetes_fit_together() {
    // What the DNS of a cluster may go on saying of a pod that is gone.
    const DNS_CACHE: u64 = 30;
    let documents = documents(&read("conf/kubernetes.yaml"));
    let file = &manifest(&documents, "ConfigMap", "steadfast")["data"]["steadfast.yaml"];
    let file: Value = serde_yaml::from_str(file.as_str().expect("it is text")).expect("it is YAML");
    let pod = |name| &manifest(&documents, "Deployment", name)["spec"]["template"]["spec"];
    let grace = |name| pod(name)["terminationGracePeriodSeconds"].as_u64().expect("a number");
    let pre_stop = |name| &pod(name)["containers"][0]["lifecycle"]["preStop"];

    let arguments = pre_stop("steadfast")["exec"]["command"].as_array().expect("a list");
    let timeout = arguments.iter().find_map(|it| it.as_str()?.strip_prefix("--timeout=")).expect("it says how long");
    let (timeout, shutdown) = (whole_seconds(&timeout.into()), whole_seconds(&file["shutdown"]["grace"]));
    assert!(grace("steadfast") > timeout + shutdown, "{timeout} and {shutdown} of {}", grace("steadfast"));

    let waits = pre_stop("chat")["sleep"]["seconds"].as_u64().expect("a number");
    let drain = &file["upstreams"]["chat"]["drain"];
    assert_eq!(drain["removed"], "drain");
    assert!(waits >= DNS_CACHE + whole_seconds(&drain["timeout"]), "a server waits {waits} s for {drain}");
    assert!(grace("chat") > waits);
}

#[test]
fn names_and_ports_of_kubernetes_fit_together() {
    let documents = documents(&read("conf/kubernetes.yaml"));
    let file = manifest(&documents, "ConfigMap", "steadfast")["data"]["steadfast.yaml"].as_str().expect("it is text");
    for (name, dns) in [("steadfast", None), ("chat", Some("chat.default.svc.cluster.local.:3000"))] {
        let deployment = &manifest(&documents, "Deployment", name)["spec"];
        let service = &manifest(&documents, "Service", name)["spec"];
        let budget = &manifest(&documents, "PodDisruptionBudget", name)["spec"];
        let labels = &deployment["template"]["metadata"]["labels"];
        assert_eq!((&service["selector"], &budget["selector"]["matchLabels"]), (labels, labels));
        assert_eq!(&deployment["selector"]["matchLabels"], labels);
        let ports = deployment["template"]["spec"]["containers"][0]["ports"].as_array().expect("a list");
        assert!(ports.iter().any(|port| port["name"] == service["ports"][0]["targetPort"]), "{ports:?}");
        assert!(dns.is_none_or(|dns| file.contains(dns)), "{file}");
        if name == "steadfast" {
            let bound = ["0.0.0.0:8080", "0.0.0.0:9900"].map(|bind| file.contains(bind));
            let ports: Vec<_> = ports.iter().map(|port| &port["containerPort"]).collect();
            assert_eq!((bound, ports), ([true, true], vec![&json!(8080), &json!(9900)]));
        } else {
            assert_eq!((&service["clusterIP"], &service["ports"][0]["port"]), (&json!("None"), &json!(3000)));
        }
    }
    let scaled = &manifest(&documents, "HorizontalPodAutoscaler", "steadfast")["spec"]["scaleTargetRef"];
    manifest(&documents, scaled["kind"].as_str().expect("text"), scaled["name"].as_str().expect("text"));
}

/// Runs what a manifest runs, with the file of a running proxy in the place of the one that it names.
async fn run_at(proxy: &Proxy, program: &[String]) -> Output {
    const ELSEWHERE: &str = "/etc/steadfast/steadfast.yaml";
    assert_eq!(program[0], "/usr/local/bin/steadfast");
    assert!(program.iter().any(|argument| argument.contains(ELSEWHERE)), "{program:?}");
    let file = proxy.operators_file().display().to_string();
    let mut command = Command::new(BINARY);
    // The rest as it stands, but for a time that nobody here has.
    let here = |argument: &String| argument.replace(ELSEWHERE, &file).replace("--spread=45s", "--spread=1s");
    command.args(program[1..].iter().map(here));
    output(command).await
}

#[tokio::test]
async fn pods_are_emptied_before_they_stop() {
    let documents = documents(&read("conf/kubernetes.yaml"));
    let container = &manifest(&documents, "Deployment", "steadfast")["spec"]["template"]["spec"]["containers"][0];
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for (probe, before) in [("readinessProbe", 200), ("livenessProbe", 200)] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        assert_eq!(proxy.admin(path).await.status(), before, "{probe}");
    }
    let program = &container["lifecycle"]["preStop"]["exec"]["command"];
    let program: Vec<String> = serde_json::from_value(program.clone()).expect("a list of words");
    let output = run_at(&proxy, &program).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for (probe, behind) in [("readinessProbe", 503), ("livenessProbe", 200)] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        assert_eq!(proxy.admin(path).await.status(), behind, "{probe}");
    }
}

/// The words of the JSON list behind an instruction of a Dockerfile.
fn instruction(dockerfile: &str, name: &str) -> Vec<String> {
    let line = dockerfile.lines().rfind(|line| line.starts_with(name)).unwrap_or_else(|| panic!("there is no {name}"));
    let list = line.find('[').map(|at| &line[at..]).unwrap_or_else(|| panic!("{line} goes through a shell"));
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[tokio::test]
async fn what_the_image_runs_comes_up_healthy() {
    let dockerfile = read("Dockerfile");
    let program = [instruction(&dockerfile, "ENTRYPOINT"), instruction(&dockerfile, "CMD")].concat();
    assert_eq!(program[1..3], ["run", "--supervise"], "process 1 stays while the proxy is replaced");
    let server = Upstream::named("a").await;
    // The health check finds the admin address in the file, so it cannot be the kernel's choice.
    let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [listen, admin] = taken.map(|it| it.local_addr().expect("it is bound"));
    let yaml = format!(
        "listeners: [{{ bind: \"{listen}\" }}]\nadmin: {{ bind: \"{admin}\" }}\n\
         upstreams: {{ chat: {{ servers: [\"{}\"] }} }}\nroutes: [{{ upstream: chat }}]\n",
        server.address()
    );
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(yaml.as_bytes()).expect("the file is ours");
    let run = |program: &[String]| {
        let mut command = Command::new(BINARY);
        let here = |word: &String| word.replace("/etc/steadfast/steadfast.yaml", &file.path().display().to_string());
        command.args(program[1..].iter().map(here)).stdin(Stdio::null());
        command
    };
    let proxy = Process::start(run(&program)).ended_gently();
    proxy.stderr_line("it to be ready", |line| line.ends_with("ready").then_some(())).await;
    let health = instruction(&dockerfile, "HEALTHCHECK");
    assert_eq!(health[0], program[0]);
    let output = output(run(&health)).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_image_has_what_the_binary_needs() {
    // What gcr.io/distroless/cc has of libraries that a program in Rust can ask for.
    const THERE: [&str; 5] = ["linux-vdso.so", "ld-linux", "libc.so.6", "libm.so.6", "libgcc_s.so.1"];
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains("\nFROM gcr.io/distroless/cc-"), "another base has other libraries");
    let mut ldd = Command::new("ldd");
    ldd.arg(BINARY);
    let output = output(ldd).await;
    for library in String::from_utf8_lossy(&output.stdout).lines() {
        assert!(THERE.iter().any(|there| library.contains(there)), "the image has no {library}");
    }
    let ignored = read(".dockerignore");
    let copied =
        dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|it| !it.starts_with("--from"));
    for source in copied.filter_map(|it| it.split_whitespace().next()) {
        assert!(root().join(source).exists(), "there is no {source} to copy");
        assert!(!ignored.lines().any(|line| line == source), "{source} is ignored");
    }
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).expect("it is not root");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
}

#[test]
fn servers_are_tested_with_the_packages_that_they_ask_for() {
    let ours: Value = serde_json::from_str(&read("tests/clients/package.json")).expect("it is JSON");
    let packages = files(&root().join("conf/examples"), "json").into_iter().filter(|it| it.ends_with("package.json"));
    for path in packages {
        let package: Value = serde_json::from_str(&read(&path)).expect("it is JSON");
        for (name, version) in package["dependencies"].as_object().expect("a map") {
            assert_eq!(&ours["dependencies"][name], version, "{name} in {}", path.display());
        }
    }
}

#[tokio::test]
async fn systemd_understands_the_unit() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // It looks whether programs are there.
    let unit = |text: String| {
        let file = directory.path().join("steadfast.service");
        std::fs::write(&file, text.replace("/usr/local/bin/steadfast", BINARY)).expect("the directory is ours");
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(file).env("SYSTEMD_LOG_TARGET", "console");
        verify
    };
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        // Not by the macros, whose output is only shown for tests that fail.
        let _ = writeln!(std::io::stderr(), "NOT RUN, for want of systemd-analyze: the unit");
        return;
    }
    let text = read("conf/steadfast.service");
    for (text, is_right) in [(text.clone(), true), (text.replace("ProtectHome=", "ProtectHouse="), false)] {
        let said = output(unit(text)).await.stderr;
        let said = String::from_utf8_lossy(&said);
        // Others' units may be wrong on this machine.
        let ours: Vec<_> = said.lines().filter(|line| line.contains("steadfast.service")).collect();
        assert_eq!(ours.is_empty(), is_right, "{said}");
    }
}
