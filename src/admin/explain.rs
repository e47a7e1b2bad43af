//! `/api/v1/explain`: what would become of a request, by all that the proxy knows now.

use std::net::{IpAddr, Ipv4Addr};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request};

use super::answer::{Answer, as_json, wrong};
use crate::exchange::explanation::{Explanation, Scene};
use crate::service::Service;

/// Explains the request that the query string describes.
pub(super) async fn explain(service: &Service, query: &str) -> Answer {
    match parse(query) {
        Ok((request, client)) => {
            let front = service.front();
            as_json(&Explanation::of(Scene::from(&*front), &request, client).await)
        }
        Err(mistake) => wrong(&mistake),
    }
}

/// The request, and who sends it.
fn parse(query: &str) -> Result<(Parts, IpAddr), String> {
    let (mut request, ()) = Request::new(()).into_parts();
    let mut client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let wrong = |right: &str| format!("{key}: {value:?} is wrong; write {right}");
        match &*key {
            "method" => request.method = Method::from_bytes(value.as_bytes()).map_err(|_| wrong("a method of HTTP"))?,
            "path" => {
                let target = value.parse::<PathAndQuery>().ok().filter(|_| value.starts_with('/'));
                let target =
                    target.ok_or_else(|| wrong("a path, from its first / on, with its query if it has one"))?;
                request.uri = target.into();
            }
            "client" => client = value.parse().map_err(|_| wrong("the IP address of the previous hop"))?,
            "header" => {
                let field = value.split_once(':').and_then(|(name, value)| {
                    Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
                });
                let (name, value) = field.ok_or_else(|| wrong("a field as 'Name: value'"))?;
                request.headers.append(name, value);
            }
            _ => return Err(format!("{key:?} is unknown; known here: method, path, client, header")),
        }
    }
    Ok((request, client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_describes_a_request() {
        let (request, client) = parse(
            "method=POST&path=%2Fsocket.io%2F%3FEIO%3D4%26sid%3Da&client=10.0.0.1&header=Host%3A+a&header=Cookie:b%3Dc",
        )
        .expect("it is right");
        assert_eq!((request.method.as_str(), request.uri.to_string().as_str()), ("POST", "/socket.io/?EIO=4&sid=a"));
        assert_eq!(
            (&request.headers["host"], &request.headers["cookie"]),
            (&"a".parse().unwrap(), &"b=c".parse().unwrap())
        );
        assert_eq!(client, IpAddr::from([10, 0, 0, 1]));
        let (request, client) = parse("").expect("it is right");
        assert_eq!((request.uri.path(), client), ("/", IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn what_is_wrong_with_it_is_named() {
        for (query, part) in [
            ("path=socket.io", "path: \"socket.io\" is wrong"),
            ("path=http://a/b", "path: "),
            ("path=/a%20b", "path: "),
            ("client=a", "client: "),
            ("header=Host", "header: \"Host\" is wrong"),
            ("header=a%20b:c", "header: "),
            ("header=a:b%0Ac", "header: "),
            ("method=a%20b", "method: "),
            ("host=a", "\"host\" is unknown; known here: method, path, client, header"),
        ] {
            let mistake = parse(query).expect_err(query);
            assert!(mistake.contains(part), "{query}: {mistake}");
        }
    }
}
