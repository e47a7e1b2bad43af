//! From the files of others to ours: nginx's, and the Ingresses of ingress-nginx.
//!
//! Text in, text out: nothing here opens a file. What comes out is a configuration that says the same as far as
//! it can be said, and beside it a remark for everything else: what was left out and who does it instead, what
//! works otherwise here, and what was a trap already. Nothing is dropped in silence but what has no meaning here.

mod ingress;
mod nginx;
mod plan;
#[cfg(test)]
mod tests;
mod yaml;

use std::fmt;
use std::rc::Rc;

use self::plan::{Kind, Plan};

pub use self::ingress::ingress;
pub use self::nginx::{File, nginx};

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Rc<str>,
    /// Counted from 1.
    pub line: usize,
}

impl Place {
    fn refuse(&self, text: &str) -> Refused {
        Refused { place: self.clone(), text: text.to_owned() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why there is no configuration: a file cannot be read, or there is nothing in it for a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub struct Refused {
    /// The line at fault.
    pub place: Place,
    /// What is wrong with it.
    pub text: String,
}

/// What has become of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// A configuration, with all remarks as comments beside what they are about.
    pub yaml: String,
    /// The same remarks, a line each, by place: `nginx.conf:41: proxy_cache static: not carried over: ...`.
    pub remarks: Vec<String>,
    /// Whether some of them are things to do before the configuration can be used.
    pub is_incomplete: bool,
}

impl Imported {
    fn of(mut plan: Plan, origin: &str) -> Self {
        plan.finish();
        Self {
            yaml: yaml::write(&plan, origin),
            remarks: plan.remarks.iter().map(yaml::line).collect(),
            is_incomplete: plan.remarks.iter().any(|remark| remark.kind == Kind::Missing),
        }
    }
}
