//! `include`: files within files, as deep as nginx would follow them.

use std::rc::Rc;

use super::super::{Place, Refused};
use super::syntax::{self, Directive};

/// A file that an `include` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// For remarks.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// Who finds what an `include` names: its argument in, all files of that name or pattern out, by name.
pub(super) type Finder<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<File>, String>;

/// The directives of a file, each `include` replaced by what it includes, and those of which nothing could be
/// had, with the reason.
pub(super) fn expanded(file: &str, text: &str, find: Finder<'_>) -> Result<(Vec<Directive>, Vec<Absent>), Refused> {
    let mut expansion = Expansion { find, bytes_left: BYTES_MAX, absent: Vec::new() };
    let directives = syntax::parse(&Rc::from(file), text)?;
    Ok((expansion.all(directives, 0)?, expansion.absent))
}

/// An `include` that has brought nothing.
pub(super) struct Absent {
    pub(super) include: Directive,
    /// `None`: there is no file of that pattern, which nginx allows.
    pub(super) problem: Option<String>,
}

/// A file that includes itself ends here.
const DEPTH_MAX: usize = 16;

/// Of all included files together. Lists of addresses may be long.
const BYTES_MAX: usize = 16 << 20;

struct Expansion<'a> {
    find: Finder<'a>,
    bytes_left: usize,
    absent: Vec<Absent>,
}

impl Expansion<'_> {
    fn all(&mut self, directives: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, Refused> {
        let mut expanded = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if directive.name == "include" && directive.block.is_none() {
                expanded.append(&mut self.included(&directive, depth)?);
                continue;
            }
            if let Some(block) = directive.block.take() {
                directive.block = Some(self.all(block, depth)?);
            }
            expanded.push(directive);
        }
        Ok(expanded)
    }

    fn included(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, Refused> {
        let place: &Place = &include.place;
        let [pattern] = include.arguments.as_slice() else {
            return Err(place.refuse("include takes one name"));
        };
        // Types of files: long, everywhere, and of no use to a proxy.
        if pattern.rsplit('/').next() == Some("mime.types") {
            return Ok(Vec::new());
        }
        if depth == DEPTH_MAX {
            return Err(
                place.refuse(&format!("more than {DEPTH_MAX} files within each other; does one include itself?"))
            );
        }
        let found = (self.find)(pattern);
        if !matches!(&found, Ok(files) if !files.is_empty()) {
            self.absent.push(Absent { include: include.clone(), problem: found.as_ref().err().cloned() });
        }
        let files = found.unwrap_or_default();
        let mut directives = Vec::new();
        for File { name, text } in files {
            let left = self.bytes_left.checked_sub(text.len());
            let too_large = || place.refuse(&format!("all included files together have more than {BYTES_MAX} bytes"));
            self.bytes_left = left.ok_or_else(too_large)?;
            let inner = syntax::parse(&Rc::from(name), &text)?;
            directives.append(&mut self.all(inner, depth + 1)?);
        }
        Ok(directives)
    }
}
