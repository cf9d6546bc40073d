//! Errors as people read them: the place, the source line, a caret, what to do.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Patch, Renderer, Snippet};

use super::diagnostic::{Diagnostic, position};
use super::texts::{Sources, SpecText};

/// How many errors are shown.
const MOST_SHOWN: usize = 50;
/// Longer lines are cut around what they are shown for, in bytes.
const LONG_LINE: usize = 200;

/// All errors of the file called `file_name`, whose content is `text`, sorted by place; at most
/// 50. With `color`, in ANSI colours.
pub fn report(file_name: &str, text: &str, errors: &[Diagnostic], color: bool) -> String {
    SpecText::of(file_name, text)
        .sources()
        .report(errors, color)
}

/// The same of a spec of any number of files.
pub(super) fn of(sources: &Sources<'_>, errors: &[Diagnostic], color: bool) -> String {
    let mut sorted: Vec<&Diagnostic> = errors.iter().collect();
    sorted.sort_by_key(|error| error.span.as_ref().map(|span| (span.start, span.end)));
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
    .decor_style(DecorStyle::Ascii)
    .term_width(100);
    let mut out = String::new();
    for error in sorted.iter().take(MOST_SHOWN) {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&one(&renderer, sources, error));
        out.push('\n');
    }
    if sorted.len() > MOST_SHOWN {
        out.push_str(&format!("\n… and {} more\n", sorted.len() - MOST_SHOWN));
    }
    out
}

fn one(renderer: &Renderer, sources: &Sources<'_>, error: &Diagnostic) -> String {
    let title = Level::ERROR.primary_title(error.message.as_str());
    let place = error.span.as_ref().and_then(|span| {
        let source = sources.at(span.start)?;
        let end = span.end.max(span.start) - source.base;
        Some((source, span.start - source.base..end))
    });
    let Some((source, span)) = place else {
        let mut group = Group::with_title(title).element(Origin::path(sources.name()));
        if let Some(help) = &error.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        return renderer.render(&[group]);
    };
    let (file_name, text) = (source.name.as_str(), source.text);
    let view = View::around(text, &span);
    let (line, column) = position(text, span.start);
    let mut snippet = Snippet::source(view.text.clone())
        .line_start(view.line)
        .annotation(
            AnnotationKind::Primary
                .span(view.shown.clone())
                .label(error.label.as_deref()),
        );
    let mut group = Group::with_title(title);
    if view.cut {
        // The snippet would count the column from where the line was cut.
        group = group.element(Origin::path(file_name).line(line).char_column(column));
    } else {
        snippet = snippet.path(file_name);
    }
    group = group.element(snippet);
    let mut groups = Vec::new();
    match (&error.help, &error.replacement) {
        (help, Some(replacement)) => {
            groups.push(group);
            let title = help.as_deref().unwrap_or("this would be right");
            let patch = Snippet::source(view.text)
                .line_start(view.line)
                .patch(Patch::new(view.shown, replacement.as_str()));
            groups.push(Level::HELP.secondary_title(title).element(patch));
        }
        (Some(help), None) => {
            group = group.element(Level::HELP.message(help.as_str()));
            groups.push(group);
        }
        (None, None) => groups.push(group),
    }
    renderer.render(&groups)
}

/// The part of a file that an error is shown in: one line, or the piece of a long one.
struct View {
    text: String,
    /// Its line number.
    line: usize,
    /// The error's bytes in `text`, those of its first line alone.
    shown: Range<usize>,
    /// Whether the line's beginning is missing.
    cut: bool,
}

impl View {
    fn around(text: &str, span: &Range<usize>) -> View {
        let start = boundary(text, span.start);
        let end = boundary(text, span.end).max(start);
        let line_start = text
            .get(..start)
            .and_then(|t| t.rfind('\n'))
            .map_or(0, |at| at + 1);
        let line_end = text
            .get(start..)
            .and_then(|t| t.find('\n'))
            .map_or(text.len(), |at| start + at);
        let last = end.min(line_end);
        let (from, to) = if line_end - line_start <= LONG_LINE {
            (line_start, line_end)
        } else {
            let half = LONG_LINE / 2;
            (
                boundary(text, line_start.max(start.saturating_sub(half))),
                boundary(text, line_end.min(last.min(start + half) + half)),
            )
        };
        let width = if last > start {
            last.min(to) - start
        } else {
            0
        };
        let shown = start - from..start - from + width;
        View {
            text: text
                .get(from..to)
                .unwrap_or("")
                .trim_end_matches('\r')
                .to_owned(),
            line: position(text, start).0,
            cut: from > line_start,
            shown,
        }
    }
}

/// The nearest character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
