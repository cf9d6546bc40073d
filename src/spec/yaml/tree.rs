//! A YAML document with the place of everything in it.

use std::ops::Range;
use std::sync::Arc;

/// One value. Aliases share the node of their anchor.
#[derive(Debug)]
pub(in crate::spec) struct Node {
    /// Its bytes; those of its key when nothing is written.
    pub span: Range<usize>,
    /// What it is.
    pub kind: NodeKind,
    /// How much it counts for once its aliases are followed; see [`weight_of`].
    pub weight: usize,
}

/// How much one text counts for: long ones for more, so that an alias cannot multiply them.
pub(in crate::spec) fn weight_of(text: &str) -> usize {
    1 + text.len() / 32
}

/// What a value is.
#[derive(Debug)]
pub(in crate::spec) enum NodeKind {
    Scalar(Scalar),
    List(Vec<Arc<Node>>),
    Map(Vec<Entry>),
    /// Of an overlay: this takes the place of what is below it, unmerged; `None` removes it.
    Instead(Option<Arc<Node>>),
    /// Already reported as an error; nothing more is said about it.
    Broken,
}

/// Anything that is not a list or a mapping.
#[derive(Debug)]
pub(in crate::spec) struct Scalar {
    /// After escapes and folding.
    pub text: String,
    /// Whether the text alone decides on its type (`5` against `"5"`).
    pub plain: bool,
    /// How far into the node's span the text stands as it is, if it does.
    pub verbatim: Option<usize>,
}

/// One entry of a mapping.
#[derive(Debug, Clone)]
pub(in crate::spec) struct Entry {
    pub key: Arc<str>,
    pub key_span: Range<usize>,
    pub value: Arc<Node>,
}

impl Entry {
    /// How much the entry counts for.
    pub fn weight(&self) -> usize {
        self.value.weight.saturating_add(weight_of(&self.key))
    }
}

/// A scalar by YAML 1.2's core schema.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::spec) enum Value<'n> {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    /// A number that JSON has no word for: infinite, not a number, or out of range.
    OddNumber,
    Text(&'n str),
}

/// Longer texts than this are never numbers.
const MAX_NUMBER_LENGTH: usize = 64;

impl Scalar {
    /// What the scalar means.
    pub fn value(&self) -> Value<'_> {
        let text = self.text.as_str();
        if !self.plain {
            return Value::Text(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
            "true" | "True" | "TRUE" => return Value::Bool(true),
            "false" | "False" | "FALSE" => return Value::Bool(false),
            _ => {}
        }
        // Leading zeros mean nothing in YAML 1.2; the library would make a fraction of them.
        if let Ok(number) = text.parse::<i64>() {
            return Value::Number(number.into());
        }
        let numeric = text.len() <= MAX_NUMBER_LENGTH
            && text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
            && !text.contains([':', ' ', '#', '\n', '_']);
        if !numeric {
            return Value::Text(text);
        }
        // The grammar of numbers is left to the YAML library.
        match serde_yaml::from_str::<serde_json::Value>(text) {
            Ok(serde_json::Value::Number(number)) => Value::Number(number),
            _ if is_special_float(text) => Value::OddNumber,
            _ => Value::Text(text),
        }
    }
}

fn is_special_float(text: &str) -> bool {
    let bare = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    bare == ".inf" || bare == ".nan"
}

impl Node {
    pub fn is_scalar(&self) -> bool {
        matches!(self.kind, NodeKind::Scalar(_))
    }

    /// Whether it is null, written or left out.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar(scalar) if scalar.value() == Value::Null)
    }

    /// What stands here, for "found …".
    pub fn found(&self) -> String {
        match &self.kind {
            NodeKind::List(_) => "a list".to_owned(),
            NodeKind::Map(_) => "a mapping".to_owned(),
            NodeKind::Instead(_) => "a tag of overlays".to_owned(),
            NodeKind::Broken => "an error".to_owned(),
            NodeKind::Scalar(scalar) => match scalar.value() {
                Value::Null => "nothing".to_owned(),
                Value::Bool(value) => format!("the boolean `{value}`"),
                Value::Number(_) | Value::OddNumber => {
                    format!("the number `{}`", shortened(&scalar.text))
                }
                Value::Text(text) => format!("`{}`", shortened(text)),
            },
        }
    }
}

/// A text fit for a message: one line, at most 40 characters.
pub(in crate::spec) fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    let line: String = text
        .chars()
        .take(MOST + 1)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.chars().count() > MOST {
        let kept: String = line.chars().take(MOST).collect();
        format!("{kept}…")
    } else {
        line
    }
}
