//! The syntax of nginx's files: directives, their arguments, their blocks, and on which line each began.
//!
//! Token by token the rules of nginx itself (`ngx_conf_read_token` in `ngx_conf_file.c`), and of its Lua module
//! for blocks of Lua. No crate does this: those there are take `${name}x` apart, refuse `a}b`, take `"a"b`, or
//! overflow the stack on deep nesting. What directives mean is not known here.

use std::rc::Rc;

use super::super::{Place, Refused};

/// A directive such as `listen 80;` or `server { ... }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::migrate) struct Directive {
    /// Where its name stands.
    pub(in crate::migrate) place: Place,
    /// Without quotes.
    pub(in crate::migrate) name: String,
    /// Behind the name, without quotes.
    pub(in crate::migrate) arguments: Vec<String>,
    /// What stands in its braces; `None` where it ends in `;`. Of a block of Lua, nothing.
    pub(in crate::migrate) block: Option<Vec<Directive>>,
}

impl Directive {
    /// The first argument, or nothing.
    pub(in crate::migrate) fn first(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }

    /// What stands in its braces.
    pub(in crate::migrate) fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Name and arguments, as they would be read aloud.
    pub(in crate::migrate) fn title(&self) -> String {
        let mut title = self.name.clone();
        for argument in &self.arguments {
            title.push(' ');
            title.push_str(if argument.is_empty() { "\"\"" } else { argument });
        }
        title
    }
}

/// Reads a whole file.
///
/// # Errors
///
/// What nginx would refuse, with the line.
pub(in crate::migrate) fn parse(file: &Rc<str>, text: &str) -> Result<Vec<Directive>, Refused> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut reader = Reader { file, text, at: 0, line: 1 };
    // The blocks that are open, the innermost last; the first is the file.
    let mut open: Vec<Open> = vec![Open { head: None, inner: Vec::new() }];
    loop {
        let (words, line, end) = reader.statement()?;
        let place = Place { file: Rc::clone(file), line };
        let mut words = words.into_iter();
        let Some(name) = words.next() else {
            match end {
                End::Close if open.len() > 1 => close(&mut open),
                End::Close => return Err(place.refuse("unexpected \"}\"")),
                End::File if open.len() > 1 => {
                    let began = open.last().and_then(|it| it.head.as_ref()).map_or(0, |it| it.place.line);
                    return Err(
                        place.refuse(&format!("the file ends, but the block that begins in line {began} does not"))
                    );
                }
                End::File => return Ok(open.pop().map_or_else(Vec::new, |it| it.inner)),
                End::Semicolon => return Err(place.refuse("unexpected \";\"")),
                End::Open => return Err(place.refuse("unexpected \"{\"")),
            }
            continue;
        };
        let mut directive = Directive { place, name, arguments: words.collect(), block: None };
        match end {
            End::Semicolon => add(&mut open, directive),
            End::Open if directive.name.ends_with("_by_lua_block") => {
                reader.lua(&directive.place)?;
                directive.block = Some(Vec::new());
                add(&mut open, directive);
            }
            End::Open if open.len() > DEPTH_MAX => {
                return Err(directive.place.refuse(&format!("more than {DEPTH_MAX} blocks within each other")));
            }
            End::Open => open.push(Open { head: Some(directive), inner: Vec::new() }),
            End::Close => {
                return Err(directive.place.refuse(&format!("\"{}\" does not end in \";\"", directive.name)));
            }
            End::File => {
                let text = format!("the file ends, but \"{}\" does not end in \";\" or \"{{\"", directive.name);
                return Err(directive.place.refuse(&text));
            }
        }
    }
}

/// Deeper than anybody writes.
const DEPTH_MAX: usize = 32;

/// A block that has not ended yet.
struct Open {
    /// `None` for the file.
    head: Option<Directive>,
    inner: Vec<Directive>,
}

fn add(open: &mut [Open], directive: Directive) {
    if let Some(last) = open.last_mut() {
        last.inner.push(directive);
    }
}

fn close(open: &mut Vec<Open>) {
    if let Some(Open { head: Some(mut directive), inner }) = open.pop() {
        directive.block = Some(inner);
        add(open, directive);
    }
}

/// How a directive's words end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Semicolon,
    Open,
    Close,
    File,
}

struct Reader<'a> {
    file: &'a Rc<str>,
    text: &'a str,
    /// In bytes.
    at: usize,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn refuse(&self, text: &str) -> Refused {
        Place { file: Rc::clone(self.file), line: self.line }.refuse(text)
    }

    /// The words up to the next `;`, `{`, `}` or the end, and the line of the first.
    fn statement(&mut self) -> Result<(Vec<String>, usize, End), Refused> {
        let mut words = Vec::new();
        let mut line = None;
        loop {
            let here = self.line;
            let Some(next) = self.peek() else {
                return Ok((words, line.unwrap_or(here), End::File));
            };
            let end = match next {
                ';' => Some(End::Semicolon),
                '{' => Some(End::Open),
                '}' => Some(End::Close),
                _ => None,
            };
            if let Some(end) = end {
                self.next();
                return Ok((words, line.unwrap_or(here), end));
            }
            match next {
                ' ' | '\t' | '\r' | '\n' => {
                    self.next();
                }
                '#' => while self.next().is_some_and(|it| it != '\n') {},
                '"' | '\'' => {
                    line.get_or_insert(here);
                    words.push(self.quoted(next)?);
                }
                _ => {
                    line.get_or_insert(here);
                    words.push(self.bare());
                }
            }
        }
    }

    /// A word in quotes, behind which something must separate it from the next.
    fn quoted(&mut self, quote: char) -> Result<String, Refused> {
        let began = self.line;
        self.next();
        let start = self.at;
        loop {
            let end = self.at;
            match self.next() {
                Some('\\') => {
                    self.next();
                }
                Some(next) if next == quote => {
                    let word = unescaped(&self.text[start..end]);
                    return match self.peek() {
                        None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => Ok(word),
                        Some(other) => Err(self.refuse(&format!("unexpected {other:?} behind a quoted word"))),
                    };
                }
                Some(_) => {}
                None => {
                    let place = Place { file: Rc::clone(self.file), line: began };
                    return Err(place.refuse("a quoted word does not end"));
                }
            }
        }
    }

    /// A word without quotes: up to white space, `;` or a `{` that is no variable's.
    fn bare(&mut self) -> String {
        let start = self.at;
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' | '{' => break,
                '\\' => {
                    self.next();
                    self.next();
                }
                '$' => {
                    self.next();
                    if self.peek() == Some('{') {
                        self.next();
                    }
                }
                _ => {
                    self.next();
                }
            }
        }
        unescaped(&self.text[start..self.at])
    }

    /// Skips a block of Lua, behind its first brace.
    fn lua(&mut self, began: &Place) -> Result<(), Refused> {
        let mut depth = 1_usize;
        while depth > 0 {
            let rest = &self.text[self.at..];
            if let Some(level) = rest.strip_prefix("--").map_or_else(|| long_bracket(rest), long_bracket) {
                self.skip_past(&format!("]{}]", "=".repeat(level)));
            } else if rest.starts_with("--") {
                self.skip_past("\n");
            } else {
                match self.next() {
                    Some('{') => depth += 1,
                    Some('}') => depth -= 1,
                    Some(quote @ ('"' | '\'')) => self.skip_lua_string(quote),
                    Some(_) => {}
                    None => return Err(began.refuse("this block of Lua does not end")),
                }
            }
        }
        Ok(())
    }

    fn skip_lua_string(&mut self, quote: char) {
        while let Some(next) = self.next() {
            if next == '\\' {
                self.next();
            } else if next == quote || next == '\n' {
                break;
            }
        }
    }

    fn skip_past(&mut self, end: &str) {
        let rest = &self.text[self.at..];
        let length = rest.find(end).map_or(rest.len(), |at| at + end.len());
        self.line += rest[..length].matches('\n').count();
        self.at += length;
    }
}

/// The level of the long bracket that `text` begins with: 0 for `[[`, 2 for `[==[`.
fn long_bracket(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('[')?;
    let level = rest.len() - rest.trim_start_matches('=').len();
    rest[level..].starts_with('[').then_some(level)
}

/// nginx takes only these apart; before anything else a backslash stays, for regular expressions.
fn unescaped(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut characters = word.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = match (character, characters.peek()) {
            ('\\', Some('"')) => '"',
            ('\\', Some('\'')) => '\'',
            ('\\', Some('\\')) => '\\',
            ('\\', Some('t')) => '\t',
            ('\\', Some('r')) => '\r',
            ('\\', Some('n')) => '\n',
            _ => {
                out.push(character);
                continue;
            }
        };
        characters.next();
        out.push(escaped);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directives on one line each, blocks in braces.
    fn shown(directives: &[Directive]) -> String {
        let one = |it: &Directive| {
            let words = std::iter::once(&it.name).chain(&it.arguments);
            let words: Vec<String> = words.map(|word| format!("<{word}>")).collect();
            let block = it.block.as_ref().map(|inner| format!(" {{{}}}", shown(inner))).unwrap_or_default();
            format!("{}:{}{block}", it.place.line, words.join(""))
        };
        directives.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_are_told_apart_as_nginx_does() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let directives = parse(&"f".into(), text).unwrap_or_else(|refused| panic!("{text:?}: {refused}"));
            assert_eq!(shown(&directives), expected, "{text:?}");
        }

        check("", "");
        check(" # nothing\n", "");
        check("\u{FEFF}a;", "1:<a>");
        check("a;b c;", "1:<a> 1:<b><c>");
        check("a\n  b\r\n\tc\n;\nd;", "1:<a><b><c> 5:<d>");
        check("a { b; } c;", "1:<a> {1:<b>} 1:<c>");
        check("a{b{c d;}}", "1:<a> {1:<b> {1:<c><d>}}");
        check("a b#c; # d\ne;", "1:<a><b#c> 2:<e>");
        // Quotes.
        check(r#"a "b c" 'd;e' "";"#, "1:<a><b c><d;e><>");
        check("a \"b\nc\"; d;", "1:<a><b\nc> 2:<d>");
        check(r#"a "b'c" 'd"e';"#, "1:<a><b'c><d\"e>");
        check("if ($a = \"b\") { c; }", "1:<if><($a><=><b><)> {1:<c>}");
        check("a b\"c\"d;", "1:<a><b\"c\"d>");
        // Escapes.
        check(r#"a "b\"c" 'd\'e' f\\g h\.i \t;"#, "1:<a><b\"c><d'e><f\\g><h\\.i><\t>");
        check(r"a b\;c\ d\{e;", r"1:<a><b\;c\ d\{e>");
        // Variables, and braces that are none.
        check("a ${b}c x${d} $e;", "1:<a><${b}c><x${d}><$e>");
        check("a b}c;", "1:<a><b}c>");
        check("a b{ c; }", "1:<a><b> {1:<c>}");
        // Blocks of Lua, and what only looks like their end.
        check("x_by_lua_block { if a then b = { 1 } end } c;", "1:<x_by_lua_block> {} 1:<c>");
        check(
            "x_by_lua_block { s = \"}\" -- }\n t = '\\'}' u = [==[ }]] ]==] --[[ }\n ]] } c;",
            "1:<x_by_lua_block> {} 3:<c>",
        );
        // Beyond ASCII.
        check("a é\u{2028}ü;", "1:<a><é\u{2028}ü>");
    }

    #[test]
    fn what_nginx_refuses_is_refused_with_its_line() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let refused = parse(&"f".into(), text).expect_err(text);
            assert_eq!(refused.to_string(), expected, "{text:?}");
        }

        check("a", "f:1: the file ends, but \"a\" does not end in \";\" or \"{\"");
        check("a;\n\nb\nc", "f:3: the file ends, but \"b\" does not end in \";\" or \"{\"");
        check("a {\nb;\n", "f:3: the file ends, but the block that begins in line 1 does not");
        check("a {\n\n b }", "f:3: \"b\" does not end in \";\"");
        check(";", "f:1: unexpected \";\"");
        check("a;;", "f:1: unexpected \";\"");
        check("a;\n{ }", "f:2: unexpected \"{\"");
        check("a; }", "f:1: unexpected \"}\"");
        check("a { } }", "f:1: unexpected \"}\"");
        check("a \"b\"c;", "f:1: unexpected 'c' behind a quoted word");
        check("a \"b\"\"c\";", "f:1: unexpected '\"' behind a quoted word");
        check("a;\nb \"c;\nd;", "f:2: a quoted word does not end");
        check("a 'b\\'", "f:1: a quoted word does not end");
        check("\nx_by_lua_block { {\n}", "f:2: this block of Lua does not end");
        check(&"a {".repeat(100_000), "f:1: more than 32 blocks within each other");
    }
}
