//! What the YAML parser complains about, in our words.

use granit_parser::{ErrorKind, ScanError};

use crate::spec::diagnostic::Diagnostic;

/// The parser's error at its place in `source`.
pub(super) fn diagnostic(source: &str, error: &ScanError) -> Diagnostic {
    let marker = error.marker();
    let start = marker
        .byte_offset()
        .or_else(|| source.char_indices().nth(marker.index()).map(|(at, _)| at))
        .unwrap_or(source.len())
        .min(source.len());
    // The parser has gone past the tab by then.
    let start = match source.get(..start) {
        Some(before) if is_tab(error) && before.ends_with('\t') => start - 1,
        _ => start,
    };
    let end = source
        .get(start..)
        .and_then(|rest| rest.chars().next())
        .map_or(start, |c| start + c.len_utf8());
    let (message, help) = words(error);
    let diagnostic = Diagnostic::at(start..end, message);
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

fn is_tab(error: &ScanError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart
    )
}

fn words(error: &ScanError) -> (String, Option<&'static str>) {
    let (message, help) = match error.kind() {
        _ if is_tab(error) => ("a tab cannot indent YAML", Some("indent with spaces")),
        ErrorKind::UnclosedQuotedScalar => (
            "this quoted text is never closed",
            Some("add the closing quote"),
        ),
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => (
            "this list needs a `,` or its closing `]` here",
            Some("quote items that hold `,`, `:`, `{` or `}`"),
        ),
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => (
            "this mapping needs a `,` or its closing `}` here",
            Some("an expression must be quoted: \"{{ name }}\""),
        ),
        ErrorKind::MappingValueNotAllowed => (
            "a `:` cannot stand here",
            Some("quote the text if the `:` belongs to it; otherwise check the indentation"),
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => (
            "this line is not `key: value`",
            Some("write a `:` and a space after the key, or check the indentation"),
        ),
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockSequenceEntry => (
            "this line does not fit the indentation of the lines above",
            Some("entries of one mapping or list begin in one column"),
        ),
        ErrorKind::RecursionLimitExceeded => (
            "this is nested too deeply",
            Some("a spec nests at most 32 levels deep"),
        ),
        ErrorKind::UnknownQuotedScalarEscape => (
            "this escape is unknown in double quotes",
            Some("write `\\\\` for a backslash, or use single quotes"),
        ),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            return (
                format!("this `{open}` is closed by `{close}`"),
                Some("close each bracket by its own kind"),
            );
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            return (
                format!("this `{open}` is never closed"),
                Some("add the closing bracket"),
            );
        }
        _ => return (format!("cannot read this as YAML: {}", error.info()), None),
    };
    (message.to_owned(), help)
}
