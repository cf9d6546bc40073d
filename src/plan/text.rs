//! How a plan reads: symbols, waves, reasons, differences. With ANSI colours, which whoever
//! prints it strips where they do not belong.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use super::model::{Change, Detail, FileDiff, Gate};
use super::view::{ItemView, PlanView};
use crate::spec::node::NodeId;

const ADD: Style = AnsiColor::Green.on_default();
const CHANGE: Style = AnsiColor::Yellow.on_default();
const REMOVE: Style = AnsiColor::Red.on_default();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const PLACE: Style = AnsiColor::Cyan.on_default();

/// Columns that a line of waves may take.
const WIDTH: usize = 96;
/// Lines of context around a difference.
const CONTEXT: usize = 3;
/// Lines of one file's difference that are shown.
const MOST_LINES: usize = 200;
/// Two large files that have nothing in common are compared coarsely after this time.
const COMPARING: Duration = Duration::from_millis(300);

/// The whole plan for the reader.
pub fn text(view: &PlanView) -> String {
    if view.items.is_empty() {
        return format!(
            "{ADD}{BOLD}No changes.{ADD:#} Stack `{}` is as its spec says.\n",
            visible(&view.stack)
        );
    }
    let mut out = String::new();
    header(&mut out, view);
    waves(&mut out, view);
    out.push_str("\nActions:\n");
    for item in &view.items {
        out.push('\n');
        action(&mut out, item);
    }
    out.push('\n');
    put(&mut out, format_args!("{BOLD}{}{BOLD:#}\n", summary(view)));
    out
}

/// The counts, as the last line says them.
pub fn summary(view: &PlanView) -> String {
    format!(
        "Plan: {} to add, {} to change, {} to destroy.",
        view.add, view.change, view.destroy
    )
}

/// Text of others with its control characters made visible, so that it cannot speak to the
/// terminal; line ends and tabs stay.
pub fn visible(text: &str) -> String {
    let plain = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Writing to a string does not fail.
fn put(out: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
}

/// The symbol in three columns, its colour, and what the legend says of it.
fn symbol(change: Change) -> (&'static str, Style, &'static str) {
    match change {
        Change::Add => ("  +", ADD, "add"),
        Change::Change => ("  ~", CHANGE, "change in place"),
        Change::Replace => ("-/+", CHANGE, "destroy, then add anew"),
        Change::Remove => ("  -", REMOVE, "destroy"),
    }
}

fn header(out: &mut String, view: &PlanView) {
    put(
        out,
        format_args!(
            "To bring stack `{}` to what its spec says, these actions are outstanding:\n",
            visible(&view.stack)
        ),
    );
    for change in [Change::Add, Change::Change, Change::Replace, Change::Remove] {
        if view.items.iter().any(|item| item.change == change) {
            let (sign, style, meaning) = symbol(change);
            put(out, format_args!("{style}{sign}{style:#} {meaning}\n"));
        }
    }
}

fn waves(out: &mut String, view: &PlanView) {
    if view.waves.is_empty() {
        return;
    }
    out.push_str("\nStart order:\n");
    let digits = view.waves.len().to_string().len();
    for (number, wave) in view.waves.iter().enumerate() {
        let label = format!("  wave {:>digits$}: ", number + 1);
        put(out, format_args!("{DIM}{label}{DIM:#}"));
        folded(out, label.len(), wave);
    }
}

/// Names with commas between, broken before the line gets too long.
fn folded(out: &mut String, indent: usize, names: &[NodeId]) {
    let mut column = indent;
    for (position, name) in names.iter().enumerate() {
        let mut name = visible(&name.to_string());
        if position + 1 < names.len() {
            name.push(',');
        }
        let width = name.chars().count();
        if position > 0 {
            if column + 1 + width > WIDTH {
                put(out, format_args!("\n{:indent$}", ""));
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        out.push_str(&name);
        column += width;
    }
    out.push('\n');
}

fn action(out: &mut String, item: &ItemView) {
    let (sign, style, _) = symbol(item.change);
    put(
        out,
        format_args!(
            "{style}{sign}{style:#} {BOLD}{}{BOLD:#}   {}\n",
            visible(&item.node.to_string()),
            one_line(&item.reason)
        ),
    );
    for detail in &item.details {
        attribute(out, detail);
    }
    match &item.gate {
        Gate::Ready => {}
        Gate::Running => put(out, format_args!("      {DIM}under way{DIM:#}\n")),
        Gate::Waiting(on) => {
            let on: Vec<String> = on.iter().map(|one| one_line(one)).collect();
            let on = on.join(", ");
            put(out, format_args!("      {DIM}waits for {on}{DIM:#}\n"));
        }
        Gate::Blocked(error) => {
            for (number, line) in visible(error.trim_end()).lines().enumerate() {
                let lead = if number == 0 { "blocked: " } else { "" };
                put(out, format_args!("      {REMOVE}{lead}{line}{REMOVE:#}\n"));
            }
        }
    }
    if let Some(diff) = &item.diff {
        file(out, diff);
    }
}

/// A text in one line, whatever it holds.
fn one_line(text: &str) -> String {
    visible(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn attribute(out: &mut String, detail: &Detail) {
    let name = one_line(&detail.name);
    match (&detail.old, &detail.new) {
        (Some(old), Some(new)) if old == new => {
            put(out, format_args!("        {name} = {}\n", one_line(new)));
        }
        (Some(old), Some(new)) => put(
            out,
            format_args!(
                "      {CHANGE}~{CHANGE:#} {name} = {} -> {}\n",
                one_line(old),
                one_line(new)
            ),
        ),
        (None, Some(new)) => put(
            out,
            format_args!("      {ADD}+{ADD:#} {name} = {}\n", one_line(new)),
        ),
        (Some(old), None) => put(
            out,
            format_args!("      {REMOVE}-{REMOVE:#} {name} = {}\n", one_line(old)),
        ),
        (None, None) => {}
    }
}

fn compared<'t>(old: &'t str, new: &'t str) -> TextDiff<'t, 't, str> {
    let mut comparing = TextDiff::configure();
    comparing.timeout(COMPARING).diff_lines(old, new)
}

/// How many lines of a text come, and how many go.
pub(super) fn line_counts(old: &str, new: &str) -> (usize, usize) {
    let compared = compared(old, new);
    let of = |tag| {
        compared
            .iter_all_changes()
            .filter(|change| change.tag() == tag)
            .count()
    };
    (of(ChangeTag::Insert), of(ChangeTag::Delete))
}

fn file(out: &mut String, diff: &FileDiff) {
    let path = visible(&diff.path.display().to_string());
    if let Some(unknown) = &diff.unknown {
        let unknown = one_line(unknown);
        put(out, format_args!("        {path} ({unknown})\n"));
    }
    let Some(new) = &diff.new else {
        return;
    };
    let old = diff.old.as_deref().unwrap_or_default();
    let from = match diff.old {
        Some(_) => path.as_str(),
        None => "/dev/null",
    };
    put(
        out,
        format_args!("      {BOLD}--- {from}{BOLD:#}\n      {BOLD}+++ {path}{BOLD:#}\n"),
    );
    let compared = compared(old, new);
    let mut unified = compared.unified_diff();
    unified.context_radius(CONTEXT);
    let mut lines = 0;
    for hunk in unified.iter_hunks() {
        if lines >= MOST_LINES {
            break;
        }
        put(
            out,
            format_args!("      {PLACE}{}{PLACE:#}\n", hunk.header()),
        );
        for change in hunk.iter_changes() {
            lines += 1;
            if lines > MOST_LINES {
                put(out, format_args!("      {DIM}… and more{DIM:#}\n"));
                break;
            }
            let (sign, style) = match change.tag() {
                ChangeTag::Equal => (' ', Style::new()),
                ChangeTag::Insert => ('+', ADD),
                ChangeTag::Delete => ('-', REMOVE),
            };
            let line = visible(change.value().trim_end_matches(['\n', '\r']));
            put(out, format_args!("      {style}{sign}{line}{style:#}\n"));
            if change.missing_newline() {
                put(
                    out,
                    format_args!("      {DIM}\\ no newline at the end{DIM:#}\n"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
