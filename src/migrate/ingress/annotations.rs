//! The annotations of ingress-nginx: what of them is a proxy's, and what to say of the others. A flat table where
//! one word will do.

use std::time::Duration;

use super::super::nginx::value::{source, variable};
use super::super::plan::{Kind, Source};

/// What one Ingress says beside its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// In the order of the file: name, behind the prefix, and value.
    pub(super) pairs: Vec<(String, String)>,
}

/// Before the name of each annotation.
pub(super) const PREFIX: &str = "nginx.ingress.kubernetes.io/";

impl Settings {
    pub(super) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|it| it.0 == name).map_or("", |it| &it.1)
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.get(name) == "true"
    }

    /// A number of seconds, with or without its unit.
    pub(super) fn time(&self, name: &str) -> Option<Duration> {
        super::super::nginx::value::time(self.get(name)).filter(|it| !it.is_zero())
    }

    /// The sources that find the same client, and who serves one without a key.
    pub(super) fn affinity(&self, has_socket_io: bool) -> (Vec<Source>, Option<&'static str>) {
        let keyless = if self.get("load-balance") == "ewma" { None } else { Some("round_robin") };
        let engine_io = has_socket_io.then_some(Source::EngineIo);
        if self.get("affinity") == "cookie" {
            let name = Some(self.get("session-cookie-name")).filter(|it| is_token(it)).unwrap_or("INGRESSCOOKIE");
            let most = Duration::from_secs(400 * 86_400);
            let max_age = self.time("session-cookie-max-age").or_else(|| self.time("session-cookie-expires"));
            let max_age = max_age.map(|it| it.clamp(Duration::from_secs(1), most));
            let sticky = Source::StickyCookie { name: Some(name.to_owned()), max_age };
            return (engine_io.into_iter().chain([sticky]).collect(), keyless);
        }
        let by = self.get("upstream-hash-by");
        if by.is_empty() {
            return (vec![Source::EngineIo], keyless);
        }
        match variable(by).and_then(source) {
            _ if by == "$arg_sid" || by == "$cookie_io" => (defaults(), None),
            Some(Source::Header(name)) if name == "X-Forwarded-For" => (defaults(), None),
            Some(source) => (vec![Source::EngineIo, source], keyless),
            None => (defaults(), None),
        }
    }
}

/// The default of our file: it finds clients by their addresses.
fn defaults() -> Vec<Source> {
    let forwarded_for = Source::ForwardedFor { is_rightmost: false, is_whole: false };
    vec![Source::EngineIo, forwarded_for, Source::ClientIp { is_whole: false }]
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it))
}

/// What is to be said of an annotation; `None`: it is carried over, or says what is so anyway.
pub(super) fn remark(name: &str, text: &str) -> Option<(Kind, &'static str)> {
    match (name, text) {
        ("affinity", "cookie") => {
            let text = "the cookies that ingress-nginx has issued are not read here: clients get a new one, and a server, once; \
                        Engine.IO polls without cookies have lost their session, which engine_io keeps";
            Some((Kind::Beware, text))
        }
        ("affinity", _) => Some((Kind::Lost, "only cookie is known")),
        ("affinity-mode", "balanced") => {
            Some((Kind::Beware, "sessions stay with their server here; rebalance moves what is open, at a pace"))
        }
        ("session-cookie-samesite", it) if it.eq_ignore_ascii_case("lax") => None,
        ("session-cookie-path", "/")
        | ("proxy-buffering" | "proxy-request-buffering" | "enable-access-log", "off" | "true") => None,
        ("session-cookie-samesite" | "session-cookie-path" | "session-cookie-domain" | "session-cookie-secure", _) => {
            Some((Kind::Lost, "the cookie is for the host and path /, HttpOnly, SameSite=Lax, and Secure on TLS"))
        }
        ("upstream-hash-by", "$remote_addr" | "$binary_remote_addr") => {
            let text = "another ring than here, so clients get other servers once; it sees the previous hop, unless the controller \
                        was told use-forwarded-headers: here forwarded_for finds clients behind trusted_proxies";
            Some((Kind::Beware, text))
        }
        ("upstream-hash-by", "$http_x_forwarded_for") => {
            let text = "hashes the whole header, which a client can vary; here the first address counts, from hops you trust; \
                        another ring than here, so clients get other servers once";
            Some((Kind::Beware, text))
        }
        ("upstream-hash-by", "$arg_sid" | "$cookie_io") => {
            let text = "an id that a server issues once it is chosen: its hash names another one; engine_io leads to the one that \
                        issued it";
            Some((Kind::Beware, text))
        }
        ("upstream-hash-by", it) => Some(match variable(it).and_then(source) {
            Some(_) => (Kind::Beware, "another ring than here, so clients get other servers once"),
            None => (Kind::Lost, "no single field, cookie or parameter; clients are told apart by their address here"),
        }),
        ("load-balance", "ewma") => {
            Some((Kind::Beware, "no time is measured here; it is least_conn, the fewest open connections"))
        }
        ("proxy-buffering", _) => Some((
            Kind::Note,
            "it has buffered event streams, unless the servers sent X-Accel-Buffering: no; here events pass at once",
        )),
        ("backend-protocol", "HTTP" | "HTTPS" | "AUTO_HTTP" | "") => None,
        ("backend-protocol", _) => Some((Kind::Lost, "servers are spoken to in HTTP only; keep ingress-nginx for it")),
        ("limit-connections", _) => Some((
            Kind::Note,
            "limits.per_client counts all connections of a client that are in use, whatever they are for",
        )),
        ("use-regex", "true") => Some((Kind::Beware, "paths are prefixes here; what is less is told beside it")),
        ("canary", "true") => {
            Some((Kind::Lost, "all of this Ingress: a share of the clients is a weight of a server here"))
        }
        ("ssl-redirect" | "force-ssl-redirect", "true") => {
            Some((Kind::Lost, "redirects to https are not made here: let something in front do it"))
        }
        ("service-upstream", "true") => Some((
            Kind::Beware,
            "here the pods themselves are the servers: affinity is not possible through a Service's one address",
        )),
        (_, "false" | "off") => None,
        _ => {
            let row = OTHERS.iter().find(|(names, _)| names.split_ascii_whitespace().any(|it| begins(name, it)));
            row.map_or(Some((Kind::Lost, "there is nothing like it here")), |(_, text)| {
                (!text.is_empty()).then_some((Kind::Lost, *text))
            })
        }
    }
}

/// `auth-*` stands for all that begin so.
fn begins(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
}

/// Names, and what is lost with them; an empty text for what is carried over or means nothing here.
const OTHERS: &[(&str, &str)] = &[
    (
        "session-cookie-name session-cookie-max-age session-cookie-expires session-cookie-hash session-cookie-change-on-failure \
         session-cookie-conditional-samesite-none affinity-mode load-balance proxy-read-timeout proxy-send-timeout \
         proxy-connect-timeout proxy-http-version proxy-request-buffering proxy-buffers-number proxy-buffer-size \
         proxy-busy-buffers-size proxy-max-temp-file-size client-body-buffer-size websocket-services configuration-snippet \
         server-snippet proxy-ssl-verify proxy-ssl-name proxy-ssl-server-name proxy-ssl-secret proxy-ssl-protocols \
         proxy-ssl-verify-depth enable-access-log enable-rewrite-log canary-* preserve-trailing-slash use-regex \
         connection-proxy-header ssl-prefer-server-ciphers",
        "",
    ),
    (
        "rewrite-target app-root x-forwarded-prefix",
        "the servers get paths as they came here; have them serve these paths",
    ),
    (
        "whitelist-source-range allowlist-source-range denylist-source-range auth-* satisfy enable-modsecurity modsecurity-* \
         enable-owasp-core-rules enable-global-auth",
        "NOBODY IS KEPT OUT HERE: keep something in front for it, or do it in the servers",
    ),
    ("enable-cors cors-*", "fields are passed on as they are; answer CORS in the servers"),
    (
        "limit-rps limit-rpm limit-rate limit-rate-after limit-burst-multiplier limit-whitelist limit-allowlist",
        "requests are not limited here; upstreams.NAME.limits paces those who come to stay, limits.per_client their number",
    ),
    ("proxy-body-size", "bodies are passed on as they come, of any length; let the servers limit them"),
    (
        "permanent-redirect permanent-redirect-code temporal-redirect temporal-redirect-code from-to-www-redirect proxy-redirect-* \
         proxy-cookie-* custom-http-errors default-backend custom-headers",
        "paths and answers are not rewritten here; do it in the servers",
    ),
    ("upstream-vhost", "the servers get the Host that the client has sent"),
    ("upstream-hash-by-*", "a key leads to one server here, and not to some of them"),
    ("ssl-passthrough", "TLS ends here, or at a balancer below HTTP in front"),
    (
        "proxy-next-upstream*",
        "the next server is tried when a connection cannot be made, and never once a request has been sent",
    ),
    ("ssl-ciphers", "TLS 1.2 and 1.3 with the ciphers of rustls, of which none is weak; there is no choice"),
    (
        "mirror-* enable-opentelemetry opentelemetry-* enable-opentracing server-alias stream-snippet affinity-canary-behavior",
        "there is nothing like it here; a server-alias is one more route",
    ),
];
