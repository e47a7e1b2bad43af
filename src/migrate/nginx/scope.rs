//! Which directive holds where: nginx inherits from the outer block what the inner one does not say.

use super::syntax::Directive;

/// A block within the blocks around it.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    /// The innermost last.
    levels: Vec<Vec<&'a Directive>>,
}

impl<'a> Scope<'a> {
    pub(super) fn of(outermost: Vec<&'a Directive>) -> Self {
        Self { levels: vec![outermost] }
    }

    /// The scope of a block that stands in this one.
    pub(super) fn within(&self, directives: impl IntoIterator<Item = &'a Directive>) -> Self {
        let mut levels = self.levels.clone();
        levels.push(directives.into_iter().collect());
        Self { levels }
    }

    /// What holds of a directive that has one value.
    pub(super) fn get(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).last().copied()
    }

    /// What holds of a directive that may stand several times: those of the innermost block that has any.
    pub(super) fn all(&self, name: &str) -> Vec<&'a Directive> {
        let of = |level: &Vec<&'a Directive>| level.iter().copied().filter(|it| it.name == name).collect::<Vec<_>>();
        self.levels.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The directives of the block itself.
    pub(super) fn own(&self) -> &[&'a Directive] {
        self.levels.last().map_or(&[], Vec::as_slice)
    }

    /// The first argument of a directive, or nothing.
    pub(super) fn word(&self, name: &str) -> &'a str {
        self.get(name).map_or("", Directive::first)
    }

    /// What `set $NAME` says, as far as one can tell: the innermost, if it is said once.
    pub(super) fn variable(&self, name: &str) -> Option<&'a str> {
        let is_it = |it: &&&'a Directive| it.name == "set" && it.first().strip_prefix('$') == Some(name);
        let mut sets = self.levels.iter().rev().flatten().filter(is_it);
        let (first, another) = (sets.next()?, sets.next());
        let value = first.arguments.get(1)?;
        (another.is_none() && !value.contains('$')).then_some(value.as_str())
    }
}
