//! Files of others that become ours: the commands, and what they promise of the same ring, beside a real nginx.
//! What comes out word for word is in `tests/migrate`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::harness::proxy::BINARY;
use crate::harness::{Nginx, Proxy, ServerEntry, Upstream, Wire};

fn steadfast(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let file = directory.path().join(name);
        fs::create_dir_all(file.parent().expect("it is in the directory")).expect("the directory is ours");
        fs::write(file, text).expect("the file is ours");
    }
    directory
}

#[test]
fn a_file_is_imported_with_what_it_includes_and_approved() {
    let site = "server { listen 80; location / { proxy_pass http://chat; proxy_set_header Host $host; gzip on; } }";
    let directory = directory(&[
        ("nginx.conf", "events { }\nhttp {\n    include mime.types;\n    include conf.d/*.conf;\n}\n"),
        ("conf.d/1-upstream.conf", "upstream chat { server 10.0.0.1:3000; }\n"),
        ("conf.d/2-site.conf", site),
        ("conf.d/.hidden.conf", "nonsense"),
        ("conf.d/other.txt", "nonsense"),
    ]);
    let (from, to) = (directory.path().join("nginx.conf"), directory.path().join("steadfast.yaml"));
    let output = steadfast(&["import-nginx", path(&from), "-o", path(&to)]);
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), ""), "{said}");
    let place = directory.path().join("conf.d/2-site.conf");
    let expected = format!("{}:1: gzip on: not carried over: nothing is compressed here", place.display());
    assert!(said.starts_with(&expected) && said.lines().count() == 1, "{said}");
    let output = steadfast(&["check", "-c", path(&to)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    // What somebody may have worked on is not written over.
    fs::write(&to, "mine").expect("the file is ours");
    let output = steadfast(&["import-nginx", path(&from), "-o", path(&to)]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&to).expect("it is there"), "mine");

    // As somebody names it who is in its directory.
    let here = Command::new(BINARY).current_dir(&directory).args(["import-nginx", "nginx.conf"]).output();
    let here = here.expect("the binary starts");
    assert_eq!(here.status.code(), Some(0), "{}", text(&here.stderr));
    assert!(text(&here.stdout).contains("10.0.0.1:3000"), "{}", text(&here.stdout));

    // A part of it, with nginx's directory elsewhere, to standard output.
    let part = directory.path().join("conf.d/2-site.conf");
    fs::write(&part, "include conf.d/1-upstream.conf;\n".to_owned() + site).expect("the file is ours");
    let output = steadfast(&["import-nginx", path(&part), "--prefix", path(directory.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("10.0.0.1:3000"), "{}", text(&output.stdout));
}

#[test]
fn what_cannot_be_used_yet_is_told_by_the_exit_code() {
    #[track_caller]
    fn check(command: &str, content: &str, expected: i32, says: &str) {
        let directory = directory(&[("file", content)]);
        let output = steadfast(&[command, path(&directory.path().join("file"))]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{content}: {said}");
        assert!(said.contains(says), "{content}: {said}");
        assert_eq!(output.stdout.is_empty(), expected == 2, "{content}");
    }

    check("import-nginx", "upstream chat { server 10.0.0.1:3000; }", 1, "file:1: upstream: to do: no server block");
    let site = "location / { proxy_pass http://10.0.0.1:1; }";
    check("import-nginx", &format!("server {{ listen 443 ssl; {site} }}"), 1, "there is no ssl_certificate");
    let tls = "listen 443 ssl; ssl_certificate /nowhere.pem; ssl_certificate_key /nowhere.key;";
    check("import-nginx", &format!("server {{ {tls} {site} }}"), 1, "\"/nowhere.pem\" cannot be read");
    check(
        "import-nginx",
        &format!("include nowhere.conf; server {{ listen 80; {site} }}"),
        1,
        "nowhere.conf: to do: No such",
    );
    check("import-nginx", "server {\n    listen 80\n}\n", 2, "file:2: \"listen\" does not end in \";\"");
    check("import-nginx", "server { listen 80; root /var/www; }", 2, "file:1: nothing in it is proxied");
    check("import-ingress", "kind: Service", 2, "file:1: there is no Ingress in it");
    check("import-ingress", "a: [", 2, "file:1: no YAML");
    let output = steadfast(&["import-nginx", "/nowhere/nginx.conf"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

/// That the files from which word for word is expected are nginx's own: with certificates that exist, names that can
/// be found, and directories that may be written to, a real nginx takes each of them.
#[test]
fn nginx_takes_the_files_that_are_imported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrate/files");
    let key = KeyPair::generate().expect("keys can be made");
    let certificate = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("it can be signed");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let file = entry.expect("it can be read").path();
        if file.extension().is_none_or(|it| it != "conf") {
            continue;
        }
        count += 1;
        let directory =
            directory(&[("cert.pem", &certificate.pem()), ("key.pem", &key.serialize_pem()), ("mime.types", "")]);
        let within = |name: &str| directory.path().join(name).display().to_string();
        let mut content = fs::read_to_string(&file).expect("it is text");
        let words: Vec<String> = content.split_whitespace().map(str::to_owned).collect();
        for pair in words.windows(2) {
            let new = match pair[0].as_str() {
                "ssl_certificate" => within("cert.pem;"),
                "ssl_certificate_key" => within("key.pem;"),
                "pid" => within("nginx.pid;"),
                "user" => "root;".to_owned(),
                _ => continue,
            };
            content = content.replace(&format!("{} {}", pair[0], pair[1]), &format!("{} {new}", pair[0]));
        }
        content = content
            .replace("grafana.internal", "127.0.0.1")
            .replace("/var/log/nginx", &within(""))
            .replace("/var/cache/nginx", &within(""));
        if !content.contains("http {") {
            content = format!("events {{ }} http {{ {content} }}");
        }
        let paths = "client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;";
        let content = content.replacen("http {", &format!("http {{ {paths}"), 1);
        let changed = directory.path().join("nginx.conf");
        fs::write(&changed, &content).expect("the file is ours");
        let mut command = Command::new("nginx");
        command.args(["-t", "-e", "stderr", "-p", path(directory.path()), "-c", path(&changed)]);
        if !content.contains("pid ") {
            command.args(["-g", &format!("pid {};", within("nginx.pid"))]);
        }
        let output = command.output().expect("nginx starts");
        assert!(output.status.success(), "{}: {}\n{content}", file.display(), text(&output.stderr));
    }
    assert!(count >= 6, "{count} files");
}

/// A real nginx with this balancing, and a proxy on what is imported from its file.
async fn both(balancing: &str, server: &str, servers: &[Upstream; 4]) -> (Nginx, Proxy) {
    let [a, b, c, down] = servers.each_ref().map(ServerEntry::address);
    let configuration = |address: SocketAddr| {
        format!(
            "daemon off; user root; pid nginx.pid; error_log stderr notice;
            events {{ worker_connections 1024; }}
            http {{
                access_log off;
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                upstream nodes {{
                    {balancing}
                    server {a};
                    server {b} weight=3;
                    server {c};
                    server {down} down;
                }}
                server {{
                    listen {address};
                    server_name io.example.com;
                    {server}
                    location / {{
                        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                        proxy_set_header Host $host;
                        proxy_pass http://nodes;
                        proxy_http_version 1.1;
                        proxy_set_header Upgrade $http_upgrade;
                        proxy_set_header Connection \"upgrade\";
                    }}
                }}
            }}"
        )
    };
    let nginx = Nginx::of_file(configuration).await;
    let directory = directory(&[("nginx.conf", &configuration(nginx.address()))]);
    let output = steadfast(&["import-nginx", path(&directory.path().join("nginx.conf"))]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the same ring, point for point"), "{said}");
    // Two cannot listen at one address.
    let yaml = text(&output.stdout).replace(&format!("bind: \"{}\"", nginx.address()), "bind: \"127.0.0.1:0\"");
    (nginx, Proxy::of_file(&format!("{yaml}\nadmin: {{ bind: \"127.0.0.1:0\" }}\n")).await)
}

/// The name of the server that a request with this target and field reaches.
async fn owner(wire: &mut Wire, target: &str, field: &str) -> String {
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: io.example.com\r\n{field}\r\n\r\n")).await;
    let answer = wire.response().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

/// Where it is said that the ring is the same, it is.
#[tokio::test]
async fn an_imported_ring_leads_every_client_where_nginx_does() {
    const REALIP: &str = "set_real_ip_from 127.0.0.0/8; set_real_ip_from 10.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive on;";
    let names = ["a", "b", "c", "down"].map(Upstream::named);
    let [a, b, c, down] = names;
    let servers = [a.await, b.await, c.await, down.await];
    for (balancing, server, target, field) in [
        ("hash $http_x_forwarded_for consistent;", "", "/", "X-Forwarded-For: 203.0.113.N, 10.0.0.1"),
        ("hash $remote_addr consistent;", REALIP, "/", "X-Forwarded-For: 192.0.2.1, 203.0.113.N, 10.0.0.1"),
        ("hash $remote_addr consistent;", REALIP, "/", "X-Forwarded-For: 2001:db8::N"),
        ("hash $http_x_user_id consistent;", "", "/", "X-User-Id: user-N"),
        ("hash $cookie_user_id consistent;", "", "/", "Cookie: a=b; user_id=N; c=d"),
        ("hash $arg_room consistent;", "", "/?a=b&room=roomN", "Accept: */*"),
    ] {
        let (nginx, proxy) = both(balancing, server, &servers).await;
        let (mut one, mut other) = (nginx.connect().await, proxy.connect().await);
        let mut owners = BTreeSet::new();
        for number in 1..100 {
            let number = number.to_string();
            let (target, field) = (target.replace('N', &number), field.replace('N', &number));
            let expected = owner(&mut one, &target, &field).await;
            assert_eq!(owner(&mut other, &target, &field).await, expected, "{balancing} {target} {field}");
            owners.insert(expected);
        }
        assert_eq!(owners.into_iter().collect::<Vec<_>>(), ["a", "b", "c"], "{balancing}");
    }
}
