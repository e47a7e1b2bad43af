//! What the admin address answers: text, JSON, and problems in the words of RFC 9457.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::guard::Refusal;

/// An answer, whole.
pub(super) type Answer = Response<Vec<u8>>;

/// Text, for what is no part of the API.
pub(super) fn text(status: StatusCode, text: &str) -> Answer {
    answer(status, text.into(), "text/plain; charset=utf-8")
}

/// A value as JSON, with a new line behind it for those who read it in a terminal.
pub(super) fn as_json(value: &impl Serialize) -> Answer {
    with_status(StatusCode::OK, value)
}

/// The same with another status than 200.
pub(super) fn with_status(status: StatusCode, value: &impl Serialize) -> Answer {
    answer(status, line(value), "application/json")
}

/// Why something is not done. `detail` is a sentence for people, and names the culprit.
pub(super) fn problem(status: StatusCode, detail: &str) -> Answer {
    with_members(status, detail, json!({}))
}

/// The same with `members` of its own (RFC 9457, section 3.2).
pub(super) fn with_members(status: StatusCode, detail: &str, mut members: Value) -> Answer {
    // There is nothing more to be read anywhere than the status says (section 4.2.1).
    members["type"] = "about:blank".into();
    members["title"] = status.canonical_reason().into();
    members["status"] = status.as_u16().into();
    members["detail"] = detail.into();
    answer(status, line(&members), "application/problem+json")
}

/// 400.
pub(super) fn wrong(detail: &str) -> Answer {
    problem(StatusCode::BAD_REQUEST, detail)
}

/// 405, with the methods that are allowed.
pub(super) fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("only {methods} is answered here"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

/// For whoever may not ask.
pub(super) fn refused(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::Host => {
            problem(StatusCode::FORBIDDEN, "without a token only addresses and localhost are answered here")
        }
        Refusal::Browser => problem(
            StatusCode::FORBIDDEN,
            "a page of another site may not ask for this; send X-Steadfast: 1 if you are none",
        ),
        Refusal::Token => {
            let mut answer = problem(StatusCode::UNAUTHORIZED, "this needs Authorization: Bearer and the token");
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"steadfast\""));
            answer
        }
    }
}

/// Anything, of this type.
pub(super) fn answer(status: StatusCode, body: Vec<u8>, content_type: &str) -> Answer {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(content_type) = content_type.parse() {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// JSON on one line.
pub(super) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("our types have nothing that JSON cannot say");
    line.push(b'\n');
    line
}
