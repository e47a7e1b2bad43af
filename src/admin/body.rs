//! The bodies of requests to the API: JSON, small, and nothing in them that is not known.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use pingora::protocols::http::ServerSession;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::time::timeout;

use super::answer::{Answer, problem};
use crate::command::{Moves, Pace, ServerOf, Target};
use crate::config::{State, duration_within};

/// The longest body.
const BYTES_MAX: usize = 16 * 1024;

/// How long it may take to come.
const WITHIN: Duration = Duration::from_secs(5);

/// A body that asks for nothing, and why.
#[derive(Debug)]
pub(super) struct Unfit {
    status: StatusCode,
    detail: String,
}

impl Unfit {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub(super) fn answer(&self) -> Answer {
        problem(self.status, &self.detail)
    }
}

/// Reads the body of `request`, and what it asks for.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn read<T: DeserializeOwned>(request: &mut ServerSession) -> Result<T, Unfit> {
    let body = collect(request).await?;
    parse(&body).map_err(|mistake| Unfit::new(StatusCode::BAD_REQUEST, mistake))
}

/// Reads the body of `request`, which has nothing to say, and need not be there.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn read_nothing(request: &mut ServerSession) -> Result<(), Unfit> {
    let body = collect(request).await?;
    if body.is_empty() {
        return Ok(());
    }
    parse::<Nothing>(&body).map(|Nothing {}| ()).map_err(|mistake| Unfit::new(StatusCode::BAD_REQUEST, mistake))
}

async fn collect(request: &mut ServerSession) -> Result<Vec<u8>, Unfit> {
    let mut body = Vec::new();
    let whole = timeout(WITHIN, async {
        let broken = |_| Unfit::new(StatusCode::BAD_REQUEST, "the body is not whole");
        while let Some(bytes) = request.read_request_body().await.map_err(broken)? {
            if body.len() + bytes.len() > BYTES_MAX {
                let detail = format!("the body is larger than {BYTES_MAX} bytes");
                return Err(Unfit::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(())
    });
    let too_slow = |_| Unfit::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {WITHIN:?}"));
    whole.await.map_err(too_slow)??;
    Ok(body)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    match body.trim_ascii_start().first() {
        None => return Err("the body is missing; write JSON, at least {}".to_owned()),
        // The library would take a list for an object without names.
        Some(b'[') => return Err("the body is a list; write an object of JSON, {}".to_owned()),
        Some(_) => {}
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, error) = (error.path().to_string(), error.into_inner());
        let text = error.to_string();
        if !error.is_data() {
            return text; // With line and column: it is no JSON.
        }
        let text = text.split(" at line ").next().unwrap_or_default();
        // What is unknown, missing or there twice, the library names by itself.
        let is_named = path == "." || ["unknown field", "duplicate field"].iter().any(|it| text.starts_with(it));
        if is_named { text.to_owned() } else { format!("{path}: {text}") }
    })?;
    json.end().map_err(|_| "behind the JSON of the body comes something else".to_owned())?;
    Ok(value)
}

/// For what needs to be told nothing.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// What to drain, and how fast.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainOf {
    upstream: Option<String>,
    server: Option<String>,
    spread: Option<Time>,
    timeout: Option<Time>,
}

impl DrainOf {
    pub(super) fn pace(&self) -> Pace {
        Pace { spread: self.spread.map(|it| it.0), timeout: self.timeout.map(|it| it.0) }
    }

    pub(super) fn target(self) -> Result<Target, &'static str> {
        target(self.upstream, self.server)
    }
}

/// What to drain no more.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UndrainOf {
    upstream: Option<String>,
    server: Option<String>,
}

impl UndrainOf {
    pub(super) fn target(self) -> Result<Target, &'static str> {
        target(self.upstream, self.server)
    }
}

fn target(upstream: Option<String>, server: Option<String>) -> Result<Target, &'static str> {
    match (upstream, server) {
        (None, None) => Ok(Target::Process),
        (Some(upstream), None) => Ok(Target::Upstream(upstream)),
        (Some(upstream), Some(server)) => Ok(Target::Server(ServerOf { upstream, server })),
        (None, Some(_)) => Err("upstream is missing; a server is one of an upstream"),
    }
}

/// Which state a server is to have.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateOf {
    upstream: String,
    server: String,
    state: StateWord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateWord {
    Ready,
    Drain,
    Maint,
    File,
}

impl StateOf {
    /// The server, and the state; `None`: as the file says.
    pub(super) fn split(self) -> (ServerOf, Option<State>) {
        let state = match self.state {
            StateWord::Ready => Some(State::Ready),
            StateWord::Drain => Some(State::Drain),
            StateWord::Maint => Some(State::Maint),
            StateWord::File => None,
        };
        (ServerOf { upstream: self.upstream, server: self.server }, state)
    }
}

/// Which weight a server is to have.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightOf {
    upstream: String,
    server: String,
    weight: Weight,
}

impl WeightOf {
    /// The server, and the weight; `None`: as the file says.
    pub(super) fn split(self) -> (ServerOf, Option<NonZeroU32>) {
        (ServerOf { upstream: self.upstream, server: self.server }, self.weight.0)
    }
}

/// What is to move.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RebalanceOf {
    pub(super) upstream: String,
    per_minute: Option<PerMinute>,
}

impl RebalanceOf {
    pub(super) fn moves(&self) -> Moves {
        match self.per_minute {
            None => Moves::Begin(None),
            Some(PerMinute(Some(percent))) => Moves::Begin(Some(percent.get())),
            Some(PerMinute(None)) => Moves::Stop,
        }
    }
}

/// As in the configuration file, up to a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const MOST: Duration = Duration::from_secs(86_400);
        let text = String::deserialize(deserializer)?;
        duration_within(&text, &(Duration::ZERO..=MOST)).map(Self).map_err(Error::custom)
    }
}

/// A weight as in the configuration file; `None`: what the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight(Option<NonZeroU32>);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or("file", 256, &Value::deserialize(deserializer)?).map(Self).map_err(Error::custom)
    }
}

/// Percent in a minute; `None`: no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PerMinute(Option<NonZeroU32>);

impl<'de> Deserialize<'de> for PerMinute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or("off", 100, &Value::deserialize(deserializer)?).map(Self).map_err(Error::custom)
    }
}

/// A number from 1 to `most`; `None` for the `word` that may stand in its place.
fn number_or(word: &str, most: u32, value: &Value) -> Result<Option<NonZeroU32>, String> {
    if value == word {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= most);
    let number = number.and_then(NonZeroU32::new);
    number.map(Some).ok_or_else(|| format!("{value} is wrong; write a number from 1 to {most}, or {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_what_is_to_be_drained() {
        #[track_caller]
        fn check(body: &str, expected: &Target) {
            let drain: DrainOf = parse(body.as_bytes()).expect("it is right");
            assert_eq!(drain.target().expect("it is whole"), *expected, "{body}");
        }

        check("{}", &Target::Process);
        check(r#" {"upstream": "chat"} "#, &Target::Upstream("chat".into()));
        let server = ServerOf { upstream: "chat".into(), server: "b 1".into() };
        check(r#"{"upstream":"chat","server":"b 1","spread":"250ms","timeout":null}"#, &Target::Server(server));
        let drain: DrainOf = parse(br#"{"spread":"250ms"}"#).expect("it is right");
        assert_eq!(drain.pace(), Pace { spread: Some(Duration::from_millis(250)), timeout: None });
        let of_nobody: DrainOf = parse(br#"{"server":"b"}"#).expect("it is right");
        assert_eq!(of_nobody.target().expect_err("of which?"), "upstream is missing; a server is one of an upstream");
    }

    #[test]
    fn a_number_may_be_a_word() {
        let weight = |text: &str| {
            let body = format!(r#"{{"upstream":"a","server":"b","weight":{text}}}"#);
            parse::<WeightOf>(body.as_bytes()).map(|it| it.split().1.map(NonZeroU32::get))
        };
        assert_eq!((weight("1"), weight("256"), weight("\"file\"")), (Ok(Some(1)), Ok(Some(256)), Ok(None)));
        for text in ["0", "257", "-1", "1.5", "\"off\"", "null", "[1]", "4294967297"] {
            let mistake = weight(text).expect_err(text);
            assert!(mistake.starts_with("weight: ") && mistake.contains("a number from 1 to 256"), "{mistake}");
        }
        let moves = |body: &str| parse::<RebalanceOf>(body.as_bytes()).map(|it| it.moves());
        assert_eq!(moves(r#"{"upstream":"a"}"#), Ok(Moves::Begin(None)));
        assert_eq!(moves(r#"{"upstream":"a","per_minute":100}"#), Ok(Moves::Begin(Some(100))));
        assert_eq!(moves(r#"{"upstream":"a","per_minute":"off"}"#), Ok(Moves::Stop));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        #[track_caller]
        fn check<T: DeserializeOwned + std::fmt::Debug>(body: &str, part: &str) {
            let mistake = parse::<T>(body.as_bytes()).expect_err(body);
            assert!(mistake.contains(part), "{body}: {mistake}");
        }

        check::<DrainOf>("", "the body is missing");
        check::<DrainOf>("upstream=chat", "expected value");
        check::<DrainOf>("[]", "the body is a list");
        check::<DrainOf>("{} {}", "something else");
        check::<DrainOf>(r#"{"upstreem":"chat"}"#, "unknown field `upstreem`, expected one of `upstream`, `server`");
        check::<DrainOf>(r#"{"upstream":"a","upstream":"b"}"#, "duplicate field `upstream`");
        check::<DrainOf>(r#"{"upstream":1}"#, "upstream: invalid type: integer `1`, expected a string");
        check::<DrainOf>(r#"{"spread":"soon"}"#, "spread: ");
        check::<DrainOf>(r#"{"timeout":"90d"}"#, "timeout: ");
        check::<Nothing>(r#"{"now":true}"#, "unknown field `now`");
        check::<StateOf>(r#"{"upstream":"a","server":"b"}"#, "missing field `state`");
        check::<StateOf>(
            r#"{"upstream":"a","server":"b","state":"up"}"#,
            "unknown variant `up`, expected one of `ready`",
        );
    }
}
