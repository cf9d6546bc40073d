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
