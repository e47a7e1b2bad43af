//! `location` blocks: which paths are proxied. Ours are prefixes; what is less than that is told.

use super::super::plan::{Anchor, Kind};
use super::super::{Place, Refused};
use super::Reader;
use super::scope::Scope;
use super::syntax::Directive;
use super::value::{self, Regex};

/// A path that is proxied.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) path: String,
    /// Its name here.
    pub(super) upstream: String,
    pub(super) place: Place,
}

/// What a location is for.
enum Pattern {
    Prefix(String),
    Exact(String),
    Regex {
        pattern: String,
        is_caseless: bool,
    },
    /// Only nginx itself leads there.
    Named,
}

impl<'a> Reader<'a> {
    /// All that a server block proxies: by its locations, or as a whole.
    pub(super) fn paths(
        &mut self,
        scope: &Scope<'a>,
        server: &'a Directive,
        block: usize,
    ) -> Result<Vec<Taken>, Refused> {
        let mut taken = Vec::new();
        self.locations(scope, scope.clone().own(), block, &mut taken)?;
        // Without a location for it, try_files of the server itself may lead to a named one.
        if !taken.iter().any(|it| it.path == "/")
            && let Some(target) = self.by_try_files(scope, scope)
            && let Some(upstream) = self.proxied(&target, &Anchor::Routes(block), "/")
        {
            taken.push(Taken { path: "/".to_owned(), upstream, place: server.place.clone() });
        }
        Ok(taken)
    }

    fn locations(
        &mut self,
        outer: &Scope<'a>,
        directives: &[&'a Directive],
        block: usize,
        taken: &mut Vec<Taken>,
    ) -> Result<(), Refused> {
        for location in directives.iter().filter(|it| it.name == "location") {
            if location.block.is_none() {
                return Err(location.place.refuse("\"location\" has no opening \"{\""));
            }
            let pattern = pattern(location).ok_or_else(|| {
                location.place.refuse("\"location\" takes a path, or one of = ^~ ~ ~* and a path or a pattern")
            })?;
            self.location(outer, location, &pattern, block, taken)?;
        }
        Ok(())
    }

    fn location(
        &mut self,
        outer: &Scope<'a>,
        location: &'a Directive,
        pattern: &Pattern,
        block: usize,
        taken: &mut Vec<Taken>,
    ) -> Result<(), Refused> {
        let scope = outer.within(location.children());
        self.locations(&scope, scope.clone().own(), block, taken)?;
        let anchor = Anchor::Routes(block);
        let own = |name: &str| location.children().iter().find(|it| it.name == name);
        let answers = own("return").is_some();
        let is_proxied = own("proxy_pass").is_some() && !answers;
        let target = if is_proxied { Some(scope.clone()) } else { self.by_try_files(&scope, outer) };
        let Some(target) = target.filter(|_| !answers && !matches!(pattern, Pattern::Named)) else {
            if !matches!(pattern, Pattern::Named) && !location.children().iter().any(|it| it.name == "location") {
                self.remark(location, anchor, Kind::Lost, instead(location));
            }
            return Ok(());
        };
        let paths = self.prefixes(location, pattern, &anchor);
        // Also for a pattern that is no route: its time-outs hold where its requests go now, as a rule the same upstream.
        let written = paths.as_ref().and_then(|it| it.first()).map_or(location.first(), String::as_str);
        let upstream = self.proxied(&target, &anchor, written);
        let Some((paths, upstream)) = paths.zip(upstream) else { return Ok(()) };
        for directive in location.children().iter().filter(|it| it.name != "location" && !leads_to_named(it)) {
            self.tell_fate(directive, &anchor);
        }
        self.tell_of_files(&scope, &anchor);
        self.limit_conn(&scope, &anchor);
        if let Some(check) = own("health_check") {
            self.health_check(check, &upstream);
        }
        let place = &location.place;
        taken.extend(paths.into_iter().map(|path| Taken { path, upstream: upstream.clone(), place: place.clone() }));
        Ok(())
    }

    /// The scope of the named location that `try_files ... @name` leads to.
    fn by_try_files(&self, scope: &Scope<'a>, outer: &Scope<'a>) -> Option<Scope<'a>> {
        let name = scope.own().iter().find(|it| leads_to_named(it))?.arguments.last()?;
        let is_it = |it: &&&'a Directive| it.name == "location" && it.first() == name;
        let named = outer.own().iter().find(is_it)?;
        named.children().iter().any(|it| it.name == "proxy_pass").then(|| outer.within(named.children()))
    }

    /// Says that `try_files ... @name` tries none.
    pub(super) fn tell_of_files(&mut self, scope: &Scope<'a>, anchor: &Anchor) {
        if let Some(try_files) = scope.own().iter().copied().find(|it| leads_to_named(it)) {
            let text = "everything goes to the servers: files are not served here; keep nginx or a CDN for them";
            self.remark(try_files, anchor.clone(), Kind::Lost, text);
        }
    }

    /// The paths of our routes for a location; none where there are no such.
    fn prefixes(&mut self, location: &Directive, pattern: &Pattern, anchor: &Anchor) -> Option<Vec<String>> {
        let (paths, note) = match pattern {
            Pattern::Named => return None,
            Pattern::Prefix(path) => (vec![path.clone()], None),
            Pattern::Exact(path) => {
                (vec![path.clone()], Some("a path is a prefix here, so longer paths are taken too"))
            }
            Pattern::Regex { pattern, is_caseless } => match value::regex(pattern) {
                Regex::Prefixes(paths) if *is_caseless => {
                    (paths, Some("a path is a prefix here, and upper case is not lower case"))
                }
                Regex::Prefixes(paths) => (paths, Some("a path is a prefix here; it takes whatever follows")),
                Regex::Other(prefix) => {
                    let more = prefix.as_deref().and_then(encoded);
                    let more = more.map(|it| format!("; path: {it} would take these and more")).unwrap_or_default();
                    let text = format!("paths are prefixes here{more}; requests for it go where the other routes lead");
                    self.remark(location, anchor.clone(), Kind::Lost, text);
                    return None;
                }
            },
        };
        let paths: Option<Vec<String>> = paths.iter().map(|it| encoded(it)).collect();
        if paths.is_none() {
            self.remark(location, anchor.clone(), Kind::Lost, "a path begins with / and has no *, ? or # here");
        } else if let Some(note) = note {
            self.remark(location, anchor.clone(), Kind::Beware, note);
        }
        paths
    }
}

/// Whether this is `try_files ... @name`, which leads to a location of that name.
pub(super) fn leads_to_named(directive: &Directive) -> bool {
    directive.name == "try_files" && directive.arguments.last().is_some_and(|it| it.starts_with('@'))
}

/// What a location is for, by its arguments; `None` for what nginx would refuse.
fn pattern(location: &Directive) -> Option<Pattern> {
    let (modifier, path) = match location.arguments.as_slice() {
        [modifier, path] => (modifier.as_str(), path.as_str()),
        [one] => ["^~", "~*", "~", "="]
            .iter()
            .find_map(|modifier| one.strip_prefix(modifier).map(|path| (*modifier, path)))
            .unwrap_or(("", one.as_str())),
        _ => return None,
    };
    let path = path.to_owned();
    Some(match modifier {
        "" if path.starts_with('@') => Pattern::Named,
        "" | "^~" => Pattern::Prefix(path),
        "=" => Pattern::Exact(path),
        "~" => Pattern::Regex { pattern: path, is_caseless: false },
        "~*" => Pattern::Regex { pattern: path, is_caseless: true },
        _ => return None,
    })
}

/// A path as it stands in requests: nginx compares it decoded, and our routes as it came.
pub(in crate::migrate) fn encoded(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains(['*', '?', '#']) {
        return None;
    }
    let byte = |byte: u8| match byte {
        b'!'..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    Some(path.bytes().map(byte).collect())
}

/// Who does what a location does that proxies nothing.
fn instead(location: &Directive) -> String {
    let does = |names: &[&str]| location.children().iter().find(|it| names.contains(&it.name.as_str()));
    let goes_on = "requests for it go where the other routes lead";
    if let Some(it) = does(&["fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass"]) {
        return format!("{}: servers are spoken to in HTTP only; keep nginx for it; {goes_on}", it.name);
    }
    if does(&["deny"]).is_some() {
        return format!("deny: NOBODY IS KEPT OUT HERE: {goes_on}; keep nginx in front, or do it in the servers");
    }
    if let Some(it) = does(&["return", "rewrite"]) {
        return format!("{}: keep nginx in front for it, or do it in the servers; {goes_on}", it.title());
    }
    if let Some(it) = does(&["root", "alias", "try_files", "index", "expires", "stub_status"]) {
        return format!("{}: files are not served here; keep nginx or a CDN for it; {goes_on}", it.name);
    }
    format!("nothing in it is proxied; {goes_on}")
}
