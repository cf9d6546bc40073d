//! `${…}` in the values of a spec, as compose has it, and files of `KEY=VALUE` lines.
//!
//! Only `${` is special: a `$` before anything else stands for itself, so that a command may say
//! `$HOME`. `$${` stands for `${`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::yaml::load::MAX_SCALAR;
use super::yaml::tree::shortened;

/// The value of a variable, if it has one.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How deep defaults may stand in defaults.
const MAX_NESTING: usize = 8;

/// What is wrong in a text, and at which of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: Range<usize>,
    pub message: String,
    pub help: String,
}

fn fault<T>(
    at: Range<usize>,
    message: impl Into<String>,
    help: impl Into<String>,
) -> Result<T, Fault> {
    let (message, help) = (message.into(), help.into());
    Err(Fault { at, message, help })
}

/// The text with its variables filled in; `None` when there is nothing to fill in.
pub(super) fn interpolate(text: &str, lookup: Lookup<'_>) -> Result<Option<String>, Fault> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let scope = Scope { lookup, depth: 0 };
    scope.expand(text, 0, &mut out)?;
    Ok(Some(out))
}

/// What stays as it is when it is read again.
pub(super) fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

struct Scope<'a> {
    lookup: Lookup<'a>,
    depth: usize,
}

impl Scope<'_> {
    /// Appends `text`, which begins at byte `offset` of the whole.
    fn expand(&self, text: &str, offset: usize, out: &mut String) -> Result<(), Fault> {
        let mut rest = text;
        while let Some(found) = rest.find('$') {
            let (before, from) = rest.split_at(found);
            out.push_str(before);
            let at = offset + (text.len() - from.len());
            rest = if let Some(after) = from.strip_prefix("$${") {
                out.push_str("${");
                after
            } else if let Some(after) = from.strip_prefix("${") {
                let Some(end) = closing(after) else {
                    return fault(
                        at..at + 2,
                        "this `${` is never closed",
                        "close it by `}`, or write `$${` where no variable is meant",
                    );
                };
                let (inside, after) = after.split_at(end);
                self.variable(inside, at + 2, out)?;
                after.strip_prefix('}').unwrap_or(after)
            } else {
                out.push('$');
                from.strip_prefix('$').unwrap_or("")
            };
            if out.len() > MAX_SCALAR {
                return fault(
                    at..at + 2,
                    format!("with its variables this text is longer than {MAX_SCALAR} bytes"),
                    "keep large content in a file of its own",
                );
            }
        }
        out.push_str(rest);
        Ok(())
    }

    /// Appends what `inside`, the text between the braces, stands for.
    fn variable(&self, inside: &str, offset: usize, out: &mut String) -> Result<(), Fault> {
        let all = offset - 2..offset + inside.len() + 1;
        let name_end = inside
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(inside.len());
        let (name, form) = inside.split_at(name_end);
        if !is_variable(name) {
            return fault(
                all,
                format!("`${{{}}}` names no variable", shortened(inside)),
                "names have letters, digits and `_`; write `$${` where no variable is meant",
            );
        }
        let value = (self.lookup)(name);
        // A colon asks for a value that is not empty.
        let (form, value) = match form.strip_prefix(':') {
            Some(form) => (form, value.filter(|value| !value.is_empty())),
            None => (form, value),
        };
        let word = form.get(1..).unwrap_or("");
        let word_at = offset + inside.len() - word.len();
        match (form.as_bytes().first(), value) {
            (Some(b'-' | b'?'), Some(value)) => out.push_str(&value),
            (Some(b'-'), None) | (Some(b'+'), Some(_)) => self.word(word, word_at, out)?,
            (Some(b'+'), None) => {}
            (Some(b'?'), None) => {
                let mut why = String::new();
                self.word(word, word_at, &mut why)?;
                let message = match why.trim() {
                    "" => format!("the variable `{name}` is not set"),
                    why => format!("the variable `{name}` is not set: {}", shortened(why)),
                };
                return fault(all, message, where_to_set(name));
            }
            (None, Some(value)) if name_end == inside.len() => out.push_str(&value),
            (None, None) if name_end == inside.len() => {
                let help = format!(
                    "{}, or give a default, `${{{name}:-…}}`",
                    where_to_set(name)
                );
                return fault(all, format!("the variable `{name}` is not set"), help);
            }
            _ => {
                return fault(
                    all,
                    format!("`${{{}}}` is no form of a variable", shortened(inside)),
                    "the forms are `${V}`, `${V:-default}`, `${V:?message}`, `${V:+instead}`, and \
                     these without the colon",
                );
            }
        }
        Ok(())
    }

    fn word(&self, word: &str, offset: usize, out: &mut String) -> Result<(), Fault> {
        if self.depth >= MAX_NESTING {
            return fault(
                offset..offset + word.len(),
                "variables are nested too deeply here",
                format!("defaults nest at most {MAX_NESTING} deep"),
            );
        }
        let inner = Scope {
            lookup: self.lookup,
            depth: self.depth + 1,
        };
        inner.expand(word, offset, out)
    }
}

fn where_to_set(name: &str) -> String {
    format!("set `{name}` in the environment, in `.env` or in a file that `--vars` names")
}

/// Where the brace that was opened before `text` is closed; braces in between come in pairs.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Reads `KEY=VALUE` lines: `#` begins a comment, `export` may stand before a key, single quotes
/// keep what is in them, double quotes know `\n`, `\t`, `\"`, `\\` and `\$`; both may span
/// lines. Of a key that is given twice the last value holds.
///
/// # Errors
/// Names the line.
pub(super) fn read_file(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line_of = |rest: &str| {
        let read = text.len() - rest.len();
        text.as_bytes()
            .iter()
            .take(read)
            .filter(|b| **b == b'\n')
            .count()
            + 1
    };
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(values);
        }
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let (line, after) = rest.split_at(line_end);
        if line.starts_with('#') {
            rest = after;
            continue;
        }
        let wrong = |why: &str| format!("line {}: {why}", line_of(rest));
        let Some((key, _)) = line.split_once('=') else {
            return Err(wrong("it is not of the form `KEY=VALUE`"));
        };
        let value = rest.get(key.len() + 1..).unwrap_or("");
        let name = key.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !is_variable(name) || !name.chars().all(fits) {
            let shown = shortened(name);
            return Err(wrong(&format!(
                "`{shown}` cannot be the name of a variable: use letters, digits and `_`"
            )));
        }
        let (value, after) = value_of(value).map_err(|why| wrong(&why))?;
        values.insert(name.to_owned(), value);
        rest = after;
    }
}

/// The value that begins here, and what stands after its line.
fn value_of(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start_matches([' ', '\t']);
    let (value, after) = match text.chars().next() {
        Some('\'') => {
            let inside = text.get(1..).unwrap_or("");
            inside
                .split_once('\'')
                .map(|(value, after)| (value.to_owned(), after))
                .ok_or("a single quote is not closed")?
        }
        Some('"') => double_quoted(text.get(1..).unwrap_or(""))?,
        _ => {
            let end = text.find('\n').unwrap_or(text.len());
            let (line, after) = text.split_at(end);
            let comment = line
                .match_indices('#')
                .map(|(at, _)| at)
                .find(|at| *at == 0 || line.get(..*at).is_some_and(|b| b.ends_with([' ', '\t'])));
            let value = line.get(..comment.unwrap_or(line.len())).unwrap_or(line);
            return Ok((value.trim_end().to_owned(), after));
        }
    };
    let end = after.find('\n').unwrap_or(after.len());
    let (tail, after) = after.split_at(end);
    match tail.trim() {
        tail if tail.is_empty() || tail.starts_with('#') => Ok((value, after)),
        _ => Err("something stands after the closing quote".to_owned()),
    }
}

fn double_quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or(""))),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, escaped @ ('"' | '\\' | '$'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("a double quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn value(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("${A} {{ x }}\n- y: $".to_owned()),
            _ => None,
        }
    }

    fn filled(text: &str) -> String {
        interpolate(text, &value).unwrap().unwrap()
    }

    fn wrong(text: &str) -> (&str, String) {
        let fault = interpolate(text, &value).unwrap_err();
        (&text[fault.at], fault.message)
    }

    #[test]
    fn the_forms_of_compose() {
        for (text, is) in [
            ("${A}", "a"),
            ("x${A}y${A}", "xaya"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NO:-d}", "d"),
            ("${NO-d}", "d"),
            ("${A:?m}${A?m}${EMPTY?m}", "aa"),
            ("${A:+x}${A+x}${EMPTY:+x}${NO+x}", "xx"),
            ("${EMPTY+x}", "x"),
            ("${NO:-${NEITHER:-${A}}-b}", "a-b"),
            ("${NO:-{{ name }}}", "{{ name }}"),
            ("${NO:-a:b-c?d}", "a:b-c?d"),
            ("$${A} $A $ $$ $$A $$${A}", "${A} $A $ $$ $$A $${A}"),
            ("${ODD}", "${A} {{ x }}\n- y: $"),
        ] {
            assert_eq!(filled(text), is, "{text}");
        }
        assert_eq!(interpolate("$A {{ env.A }}", &value), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let said = |text: &'static str| {
            let (at, message) = wrong(text);
            format!("{at}: {message}")
        };
        insta::assert_snapshot!(said("a ${NO} b"), @"${NO}: the variable `NO` is not set");
        insta::assert_snapshot!(said("a ${EMPTY:?give it}"), @"${EMPTY:?give it}: the variable `EMPTY` is not set: give it");
        insta::assert_snapshot!(said("ä ${A:-${NO}"), @"${: this `${` is never closed");
        insta::assert_snapshot!(said("ä ${X:-${NO}}"), @"${NO}: the variable `NO` is not set");
        insta::assert_snapshot!(said("${1}"), @"${1}: `${1}` names no variable");
        insta::assert_snapshot!(said("${A!x}"), @"${A!x}: `${A!x}` is no form of a variable");
        let deep = format!("{}x{}", "${N:-".repeat(10), "}".repeat(10));
        assert_eq!(wrong(&deep).1, "variables are nested too deeply here");
        let large = |_: &str| Some("x".repeat(MAX_SCALAR));
        assert!(interpolate("${A}${A}${A}", &large).is_err());
    }

    #[test]
    fn files_are_read_as_env_files_are() {
        let text = "\u{feff}# c\nA=1\n export B = two words # c\nC='#x\ny' # c\r\nD=\"a\\\"\\n$\"\nE=\nF=a#b\nA=2";
        let read = read_file(text).unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(
            read,
            [
                ("A", "2"),
                ("B", "two words"),
                ("C", "#x\ny"),
                ("D", "a\"\n$"),
                ("E", ""),
                ("F", "a#b")
            ]
        );
        for (text, why) in [
            ("A=1\nB\n", "line 2: it is not of the form `KEY=VALUE`"),
            ("A='1\n\n", "line 1: a single quote is not closed"),
            ("\nA=\"1", "line 2: a double quote is not closed"),
            ("A='1'x", "line 1: something stands after the closing quote"),
            (
                "A-B=1",
                "line 1: `A-B` cannot be the name of a variable: use letters, digits and `_`",
            ),
        ] {
            assert_eq!(read_file(text).unwrap_err(), why);
        }
    }

    proptest! {
        #[test]
        fn any_text_stays_itself_once_escaped(text in "[${}:?+A-]{0,20}") {
            let escaped = escaped(&text);
            let read = interpolate(&escaped, &value).unwrap().unwrap_or(escaped);
            prop_assert_eq!(read, text);
        }

        #[test]
        fn nothing_is_too_odd(text in "[${}:?+A=\"'#\\\\ä\n-]{0,40}") {
            let _ = interpolate(&text, &value);
            let _ = read_file(&text);
        }
    }
}
