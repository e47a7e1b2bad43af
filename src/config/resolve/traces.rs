//! Traces: `off`, or where spans go and which.

use http::Uri;

use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::{Share, Traces, units};

pub(super) fn traces(root: &mut Fields<'_>) -> Option<Traces> {
    let item = root.optional("traces").filter(|item| !item.is_off())?;
    let mut fields = item.fields("write a mapping such as { endpoint: \"http://127.0.0.1:4318\" }, or off")?;
    let endpoint = fields.required("endpoint", RIGHT).and_then(|item| {
        let text = item.text(RIGHT)?;
        item.kept(endpoint(text))
    });
    let mut traces = Traces { endpoint: endpoint.unwrap_or_default(), ..Traces::default() };
    if let Some(item) = fields.optional("sample") {
        traces.sample = share(&item).unwrap_or(traces.sample);
    }
    if let Some(item) = fields.optional("service_name") {
        traces.service_name = service_name(&item).unwrap_or(traces.service_name);
    }
    if let Some(item) = fields.optional("propagate") {
        match (item.is_on(), item.is_off()) {
            (true, _) => traces.propagate = true,
            (_, true) => traces.propagate = false,
            _ => item.complain_of_type("write on or off"),
        }
    }
    fields.finish(&[]);
    Some(traces)
}

const RIGHT: &str = "write the URL of a collector that takes OTLP over HTTP, such as \"http://127.0.0.1:4318\"";

/// Behind the URL of a collector, where it takes spans (OTLP, "Binary Protobuf Encoding").
const PATH: &str = "/v1/traces";

/// The URL that spans are posted to.
fn endpoint(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    match text.split_once("://") {
        Some(("http", _)) => {}
        Some(("https", _)) => {
            return Err(format!(
                "{shown} asks for TLS, which is not supported here; send to a collector nearby by http"
            ));
        }
        Some(("grpc", _)) => return Err(format!("{shown} asks for gRPC; {RIGHT}")),
        Some((scheme, _)) => return Err(format!("{shown} has the scheme {}; {RIGHT}", quoted(scheme))),
        None => return Err(format!("{shown} has no scheme; {RIGHT}")),
    }
    let uri: Uri = text.parse().map_err(|_| format!("{shown} is no URL; {RIGHT}"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(format!("{shown} has a login, which is not sent; set OTEL_EXPORTER_OTLP_HEADERS instead"));
    }
    let names_port = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let has_port = uri.port_u16().map_or(!names_port, |port| port != 0);
    if uri.host().is_none_or(str::is_empty) || !has_port {
        return Err(format!("{shown} has no host and port to connect to; {RIGHT}"));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("{shown} has something behind its path; {RIGHT}"));
    }
    if uri.port_u16() == Some(GRPC_PORT) {
        return Err(format!("{shown} is where collectors take gRPC; OTLP over HTTP is usually at port 4318"));
    }
    let base = uri.path().trim_end_matches('/');
    if base.ends_with(PATH) {
        return Err(format!("{shown} ends in {PATH}, which is added by itself; leave it out"));
    }
    Ok(format!("http://{authority}{base}{PATH}"))
}

/// Where collectors take gRPC and nothing else, by convention.
const GRPC_PORT: u16 = 4317;

fn share(item: &Item<'_>) -> Option<Share> {
    item.parse("write a share such as 1%", units::share)
}

/// Printable, and short enough for every tool that shows it.
fn service_name(item: &Item<'_>) -> Option<String> {
    let right = "write 1 to 255 printable characters, such as steadfast";
    let name = item.text(right)?;
    let is_right = (1..=255).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    item.kept(if is_right { Ok(name.to_owned()) } else { Err(format!("{} is no name; {right}", quoted(name))) })
}
