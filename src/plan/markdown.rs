//! How a plan reads on a pull request.

use anstream::adapter::strip_str;

use super::model::Change;
use super::text::{summary, text, visible};
use super::view::PlanView;

/// Rows of the table; the rest is counted.
const ROWS: usize = 200;
/// The whole plan is cut here, in characters: a comment on GitHub has 65,536 at most.
const WHOLE: usize = 40_000;
/// A reason is cut here, in characters.
const REASON: usize = 200;

/// The plan as Markdown: a table of what becomes of what, and everything else folded away.
pub fn markdown(view: &PlanView) -> String {
    let stack = cell(&view.stack);
    if view.items.is_empty() {
        return format!("### Stack {stack}: no changes\n");
    }
    let mut out = format!("### Stack {stack}\n\n{}\n\n", summary(view));
    out.push_str("| | node | why |\n|---|---|---|\n");
    for item in view.items.iter().take(ROWS) {
        let sign = match item.change {
            Change::Add => "add",
            Change::Change => "change",
            Change::Replace => "replace",
            Change::Remove => "**destroy**",
        };
        let (node, reason) = (cell(&item.node.to_string()), plain(&item.reason));
        out.push_str(&format!("| {sign} | {node} | {reason} |\n"));
    }
    if let Some(more) = view.items.len().checked_sub(ROWS).filter(|more| *more > 0) {
        out.push_str(&format!("\n… and {more} more\n"));
    }
    let whole = strip_str(&text(view)).to_string();
    let mut shown: String = whole.chars().take(WHOLE).collect();
    if shown.len() < whole.len() {
        shown.push_str("\n… cut\n");
    }
    let fence = fence(&shown);
    out.push_str(&format!(
        "\n<details><summary>The whole plan</summary>\n\n{fence}text\n{shown}{fence}\n\n</details>\n"
    ));
    out
}

/// Backticks that the text does not hold so many of in a row.
fn fence(text: &str) -> String {
    let longest = text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    "`".repeat(longest.max(2) + 1)
}

/// A name in a cell of a table.
fn cell(name: &str) -> String {
    let name = visible(name).replace(['`', '|', '\n'], " ");
    format!("`{name}`")
}

/// Words in a cell of a table: nothing of it means anything in Markdown or HTML.
fn plain(words: &str) -> String {
    let line = visible(words).replace(['\n', '\t'], " ");
    let mut out = String::new();
    for c in line.chars().take(REASON) {
        if c.is_ascii_punctuation() && !".,:;/-'\"()=".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    if line.chars().count() > REASON {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::model::Gate;
    use crate::plan::view::ItemView;
    use crate::spec::node::{Kind, NodeId};

    fn item(change: Change, reason: &str) -> ItemView {
        ItemView {
            node: NodeId::new(Kind::Containers, "prime1"),
            change,
            reason: reason.to_owned(),
            gate: Gate::Ready,
            details: Vec::new(),
            diff: None,
        }
    }

    fn view(items: Vec<ItemView>) -> PlanView {
        PlanView {
            format_version: 1,
            stack: "prime".to_owned(),
            waves: Vec::new(),
            add: 1,
            change: 0,
            destroy: 1,
            items,
        }
    }

    #[test]
    fn a_plan_is_a_table_with_the_rest_folded_away() {
        let out = markdown(&view(vec![item(Change::Replace, "command changed")]));
        let head = "### Stack `prime`\n\nPlan: 1 to add, 0 to change, 1 to destroy.\n\n| | node | \
                    why |\n|---|---|---|\n| replace | `containers/prime1` | command changed |\n";
        assert!(out.starts_with(head), "{out}");
        assert!(out.ends_with("```\n\n</details>\n"), "{out}");
        assert!(!out.contains('\u{1b}'));
        assert_eq!(
            markdown(&view(Vec::new())),
            "### Stack `prime`: no changes\n"
        );
    }

    #[test]
    fn words_of_others_mean_nothing() {
        let out = markdown(&view(vec![item(
            Change::Remove,
            "a | b\n<img src=x> [x](y) ``` \u{1b}[2J",
        )]));
        assert!(
            out.contains("| **destroy** | `containers/prime1` | a \\| b \\<img src=x\\>"),
            "{out}"
        );
        assert!(out.contains("````text\n"), "{out}");
        assert!(!out.contains('\u{1b}'));
    }

    #[test]
    fn what_is_too_long_is_cut_and_counted() {
        let rows = |count| {
            let items = (0..count).map(|_| item(Change::Add, "new"));
            markdown(&view(items.collect()))
        };
        assert!(!rows(ROWS).contains(" more\n"));
        assert!(rows(ROWS + 3).contains("\n… and 3 more\n"));
        let most = "r".repeat(REASON);
        for (length, shown) in [(REASON, most.clone()), (REASON + 1, format!("{most}…"))] {
            let whole = markdown(&view(vec![item(Change::Add, &"r".repeat(length))]));
            assert!(whole.contains(&format!("| {shown} |\n")), "{length}");
        }
        assert!(!rows(1).contains("… cut"));
        let long = markdown(&view(vec![item(Change::Add, &"r".repeat(WHOLE))]));
        assert!(long.contains("\n… cut\n```\n"));
    }

    #[test]
    fn a_fence_is_longer_than_any_in_the_text() {
        for (text, expected) in [("", 3), ("a `b` c", 3), ("```", 4), ("`` `````\n`", 6)] {
            assert_eq!(fence(text), "`".repeat(expected), "{text}");
        }
    }
}
