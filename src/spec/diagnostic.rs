//! What is wrong with a spec, and where.

use std::ops::Range;

/// One error in a spec, at its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong: lower case, names in backticks, no full stop.
    pub message: String,
    /// The bytes of the file that it is about; `None` only when no place can be named.
    pub span: Option<Range<usize>>,
    /// Words beside the caret.
    pub label: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// A text that would be right in the place of `span`, shown as a patch.
    pub replacement: Option<String>,
}

impl Diagnostic {
    /// An error at `span`, a byte range of the file.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Diagnostic {
            message: message.into(),
            span: Some(span),
            label: None,
            help: None,
            replacement: None,
        }
    }

    /// An error of the file as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Diagnostic {
            message: message.into(),
            span: None,
            label: None,
            help: None,
            replacement: None,
        }
    }

    /// The same so many bytes further on.
    #[must_use]
    pub(super) fn moved(mut self, by: usize) -> Self {
        self.span = self.span.map(|span| span.start + by..span.end + by);
        self
    }

    /// The same with words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with a text that would be right in the place of its span.
    #[must_use]
    pub fn replace(mut self, replacement: impl Into<String>) -> Self {
        self.replacement = Some(replacement.into());
        self
    }

    /// The same with "did you mean" help and patch, when `nearest` names something.
    #[must_use]
    pub fn did_you_mean(self, nearest: Option<&str>) -> Self {
        match nearest {
            Some(near) => self
                .help(format!("did you mean `{near}`?"))
                .replace(near.to_owned()),
            None => self,
        }
    }
}

/// 1-based line and column (in characters) of a byte offset; an offset past the end counts as
/// the end.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.get(line_start..).unwrap_or("").chars().count() + 1;
    (line, column)
}
