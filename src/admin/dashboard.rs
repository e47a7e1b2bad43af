//! The dashboard at `/`: one page that shows what `/api/v1/live` says, and asks for what `/api/v1` can do.
//!
//! It is a handful of files in this program, and takes nothing from anywhere else: the policy that comes
//! with each of them forbids browsers to. They hold no secret, so whoever asks gets them; what they show
//! comes from the API, which asks for the token. How the page keeps that is said in `stream.js`.

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use sha2::{Digest, Sha256};

use super::answer::Answer;

/// A file of the page.
#[derive(Debug)]
pub(super) struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! file {
    ($path:literal, $content_type:ident, $name:literal) => {
        File { path: $path, content_type: $content_type, text: include_str!(concat!("dashboard/", $name)) }
    };
}

const FILES: [File; 11] = [
    file!("/", HTML, "page.html"),
    file!("/dashboard/icon.svg", PICTURE, "icon.svg"),
    file!("/dashboard/page.css", CSS, "page.css"),
    file!("/dashboard/page.js", SCRIPT, "page.js"),
    file!("/dashboard/elements.js", SCRIPT, "elements.js"),
    file!("/dashboard/stream.js", SCRIPT, "stream.js"),
    file!("/dashboard/history.js", SCRIPT, "history.js"),
    file!("/dashboard/charts.js", SCRIPT, "charts.js"),
    file!("/dashboard/upstreams.js", SCRIPT, "upstreams.js"),
    file!("/dashboard/counts.js", SCRIPT, "counts.js"),
    file!("/dashboard/changes.js", SCRIPT, "changes.js"),
];

/// What browsers may do with the page: run, show and ask what comes from here, and nothing else. No script
/// makes markup of a text either, and nobody puts the page into another one to have its buttons pressed.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The file at `path`.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

impl File {
    /// The file, or 304 for who has it already.
    pub(super) fn answer(&self, asked: &HeaderMap) -> Answer {
        let tag = self.tag();
        let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|field| names(field, &tag));
        let (status, body) =
            if is_known { (StatusCode::NOT_MODIFIED, Vec::new()) } else { (StatusCode::OK, self.text.into()) };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if !is_known {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            headers.insert(CONTENT_LENGTH, self.text.len().into());
        }
        // The next process may have another page, and all its files have to be of one.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, tag);
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Names this text among all that were and will be at its path.
    fn tag(&self) -> HeaderValue {
        let digest = Sha256::digest(self.text);
        let tag: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("\"{tag}\"").parse().expect("digits and quotes are valid in a field")
    }
}

/// Whether `If-None-Match` names `tag`, by weak comparison (RFC 9110, section 13.1.2).
fn names(field: &HeaderValue, tag: &HeaderValue) -> bool {
    let mut tags = field.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    tags.any(|it| it == b"*" || it.strip_prefix(b"W/").unwrap_or(it) == tag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(tag: &str) -> HeaderMap {
        HeaderMap::from_iter([(IF_NONE_MATCH, tag.parse().expect("a valid field"))])
    }

    #[test]
    fn whoever_has_a_file_is_told_so() {
        let file = file("/").expect("the page is there");
        let whole = file.answer(&HeaderMap::new());
        assert_eq!((whole.status(), whole.body().len()), (StatusCode::OK, file.text.len()));
        let tag = whole.headers()[ETAG].to_str().expect("text").to_owned();
        for (known, status) in [
            (tag.clone(), 304),
            (format!("W/{tag}"), 304),
            (format!("\"other\", {tag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
            (tag.replace('"', ""), 200),
        ] {
            let answer = file.answer(&asking(&known));
            assert_eq!(answer.status(), status, "{known}");
            assert_eq!(answer.headers()[ETAG], tag.as_str());
            assert_eq!(answer.body().is_empty(), status == 304, "{known}");
        }
    }

    #[test]
    fn every_file_that_the_page_names_is_there() {
        for File { path, text, .. } in &FILES {
            let quoted = text.split(['"', '\'']).filter(|it| it.ends_with(".js") || it.ends_with(".css"));
            for name in quoted.chain(text.split('"').filter(|it| it.ends_with(".svg"))) {
                // Scripts name each other beside them, the page names them below it.
                let found = name.strip_prefix("./").map_or(format!("/{name}"), |name| format!("/dashboard/{name}"));
                assert!(file(&found).is_some(), "{path} names {name}");
            }
            assert!(!text.contains("//cdn") && !text.contains("innerHTML"), "{path}");
        }
    }

    #[test]
    fn the_page_has_no_script_or_style_in_it() {
        let page = file("/").expect("the page is there").text;
        for forbidden in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
    }
}
