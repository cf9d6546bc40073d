//! The template engine's settings, shared by templates and expressions, and its errors.

use std::collections::BTreeSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::TemplateError;

/// Calls may nest so deep. The engine's own default needs more stack than our threads have.
const RECURSION: usize = 100;

/// Pieces of source that errors quote are cut after so many characters.
const QUOTED: usize = 80;

/// An engine without loaders: strict on undefined values, nothing escaped, at most `fuel` steps.
///
/// The engine charges one unit for a step and one for every 64 bytes that it makes, so that
/// `fuel` bounds time and memory alike.
pub(super) fn engine(fuel: u64) -> Environment<'static> {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_recursion_limit(RECURSION);
    engine.set_fuel(Some(fuel));
    // Errors tell their place only in debug mode.
    engine.set_debug(true);
    // The default syntax cannot be refused; without this setting the text's last newline is lost.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        engine.set_syntax(syntax);
    }
    // It prints every variable, the environment's among them.
    engine.remove_global("debug");
    engine.add_filter("quote", quote);
    engine
}

/// Writes a text as one quoted word of nginx's configuration (most others read it alike):
/// in double quotes, with `\`, `"`, newline, return and tab escaped.
///
/// Other control characters have no escape there and are an error.
fn quote(text: String) -> Result<String, Error> {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other.is_control() => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!(
                        "cannot quote the control character U+{:04X}",
                        u32::from(other)
                    ),
                ));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// Says in our words what the engine could not do. `scope` are the names that may be used.
pub(super) fn explain(error: &Error, source: &str, scope: &BTreeSet<String>) -> TemplateError {
    let range = error.range().filter(|range| !range.is_empty());
    let quoted = range
        .clone()
        .and_then(|range| source.get(range))
        .map(excerpt);
    TemplateError {
        message: describe(error, quoted.as_deref(), scope),
        line: error.line(),
        range,
    }
}

fn describe(error: &Error, quoted: Option<&str>, scope: &BTreeSet<String>) -> String {
    let detail = error.detail().unwrap_or_default();
    let names = || {
        scope
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match error.kind() {
        ErrorKind::UndefinedError => {
            let text = quoted.unwrap_or("a value");
            let root = text.split(['.', '[']).next().unwrap_or_default();
            // A part of something that is there: the list of names would not help.
            if root.is_empty() || (root != text && scope.contains(root)) {
                format!("`{text}` is not defined")
            } else {
                format!("`{text}` is not defined; defined here are {}", names())
            }
        }
        ErrorKind::TemplateNotFound | ErrorKind::BadInclude => {
            "other templates cannot be included, imported or extended; \
             use `file(path)` for a file's text"
                .to_owned()
        }
        ErrorKind::OutOfFuel => {
            "it takes too many steps or too much memory; loop over less".to_owned()
        }
        ErrorKind::SyntaxError | ErrorKind::BadEscape => format!("syntax error: {detail}"),
        kind => {
            let place = quoted.map_or_else(String::new, |text| format!(" in `{text}`"));
            if detail.is_empty() {
                format!("{kind}{place}")
            } else {
                format!("{kind}{place}: {detail}")
            }
        }
    }
}

/// The first line of a source for a message, at most 80 characters of it.
pub fn excerpt(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(QUOTED).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    short
}
