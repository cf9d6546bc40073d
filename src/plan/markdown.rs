//! How a plan reads on a pull request.

use anstream::adapter::strip_str;

use super::model::{Change, Detail, Gate};
use super::render::REASONS;
use super::text::{line_counts, summary, text, visible};
use super::view::{ItemView, PlanView};
use crate::spec::node::Kind;

/// The longest plan, in characters: a comment on GitHub has 65,536 at most.
const MOST: usize = 60_000;
/// What the table may have of them; the rest is the whole plan's.
const TABLE: usize = 25_000;
/// What is set aside for the words around the whole plan.
const AROUND: usize = 1_000;
/// Rows of the table; the rest is counted.
const ROWS: usize = 200;
/// A name is cut here, in characters; the spec allows fewer.
const NAME: usize = 400;
/// A reason is cut here, in characters.
const REASON: usize = 200;
/// More backticks in a row are none.
const TICKS: usize = 20;
/// What is said instead of words that may quote a file.
const ASK: &str = "`hatchery plan` says why";

/// The plan as Markdown: a table of what becomes of what, and everything else folded away. It is
/// read by more people than may read this machine's files, and a template that somebody proposes
/// may read any of them: nothing is shown that could come from a file.
pub fn markdown(view: &PlanView) -> String {
    let stack = cell(&view.stack);
    if view.items.is_empty() {
        return format!("### Stack {stack}: no changes\n");
    }
    let view = without_contents(view);
    let mut out = format!("### Stack {stack}\n\n{}\n\n", summary(&view));
    out.push_str("| | node | why |\n|---|---|---|\n");
    let mut room = TABLE;
    let mut left_out = view.items.len();
    for item in view.items.iter().take(ROWS) {
        let row = row(item);
        let Some(rest) = room.checked_sub(row.chars().count()) else {
            break;
        };
        room = rest;
        left_out -= 1;
        out.push_str(&row);
    }
    let whole = strip_str(&text(&view)).to_string();
    let whole = match fence(&whole).len() > TICKS {
        true => whole.replace('`', "'"),
        false => whole,
    };
    let room = MOST.saturating_sub(out.chars().count() + AROUND);
    let (shown, lines_left_out) = cut(&whole, room);
    let fence = fence(shown);
    out.push_str(&format!(
        "\n<details><summary>The whole plan</summary>\n\n{fence}text\n{shown}{fence}\n\n</details>\n"
    ));
    let cut = [
        (left_out, "row", "the table"),
        (lines_left_out, "line", "the whole plan"),
    ];
    let cut: Vec<String> = cut
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, what, of)| format!("{} of {of}", counted(count, what)))
        .collect();
    if !cut.is_empty() {
        let cut = cut.join(" and ");
        out.push_str(&format!("\nLeft out, as too long for a comment: {cut}.\n"));
    }
    out
}

/// The plan without what a template may have read.
fn without_contents(view: &PlanView) -> PlanView {
    let mut view = view.clone();
    let templates = view.items.iter_mut();
    for item in templates.filter(|item| item.node.kind == Kind::Templates) {
        let diff = item.diff.take();
        let content = diff.map(|diff| match &diff.new {
            Some(new) => {
                let (come, go) = line_counts(diff.old.as_deref().unwrap_or_default(), new);
                format!("{} added, {go} removed", counted(come, "line"))
            }
            None => "not known yet".to_owned(),
        });
        item.details.extend(content.map(|content| Detail {
            name: "content".to_owned(),
            old: Some(content.clone()),
            new: Some(content),
        }));
        if item.change != Change::Remove && !REASONS.contains(&item.reason.as_str()) {
            item.reason = format!("cannot be written; {ASK}");
        }
        match &mut item.gate {
            Gate::Ready | Gate::Running => {}
            Gate::Waiting(on) => *on = vec![format!("others; {ASK}")],
            Gate::Blocked(why) => ASK.clone_into(why),
        }
    }
    view
}

/// `1 line`, `2 lines`.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn row(item: &ItemView) -> String {
    let sign = match item.change {
        Change::Add => "add",
        Change::Change => "change",
        Change::Replace => "replace",
        Change::Remove => "**destroy**",
    };
    let (node, reason) = (cell(&item.node.to_string()), plain(&item.reason));
    format!("| {sign} | {node} | {reason} |\n")
}

/// The first lines of a text that have at most so many characters, and how many are left out.
fn cut(text: &str, most: usize) -> (&str, usize) {
    let mut room = most;
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let Some(rest) = room.checked_sub(line.chars().count()) else {
            break;
        };
        room = rest;
        end += line.len();
    }
    let (shown, left_out) = text.split_at(end);
    (shown, left_out.lines().count())
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
    let name: String = name.chars().take(NAME).collect();
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
    use crate::plan::model::FileDiff;
    use crate::spec::node::NodeId;

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
        let of = |count, reason: &str| {
            let items = (0..count).map(|_| item(Change::Add, reason));
            let out = markdown(&view(items.collect()));
            assert!(out.chars().count() <= MOST, "{}", out.chars().count());
            out
        };
        assert!(!of(ROWS, "new").contains("Left out"));
        for (more, words) in [(1, "1 row"), (3, "3 rows")] {
            let out = of(ROWS + more, "new");
            let end = format!("\nLeft out, as too long for a comment: {words} of the table.\n");
            assert!(out.ends_with(&end), "{out}");
        }
        let most = "r".repeat(REASON);
        for (length, shown) in [(REASON, most.clone()), (REASON + 1, format!("{most}…"))] {
            let whole = of(1, &"r".repeat(length));
            assert!(whole.contains(&format!("| {shown} |\n")), "{length}");
        }
        let long = of(1, &"r".repeat(MOST));
        assert!(long.ends_with(" of the whole plan.\n"), "{long}");
        // Characters that take more room in Markdown, or several bytes.
        for reason in ["|".repeat(REASON), "ä".repeat(300), "`".repeat(5000)] {
            let out = of(ROWS + 20, &reason);
            assert!(out.contains(" rows of the table and "), "{out}");
            assert!(out.contains("</details>\n"));
        }
    }

    #[test]
    fn nothing_of_a_file_is_shown() {
        let secret = "root:$6$salt";
        let template = |change, reason: &str, gate| {
            let mut item = item(change, reason);
            item.node = NodeId::new(Kind::Templates, "upstream");
            item.gate = gate;
            item.diff = Some(FileDiff {
                path: "/etc/x".into(),
                old: Some(format!("old {secret}\nsame\n")),
                new: Some(format!("same\n{secret}\nmore\n")),
                unknown: Some(format!("known after {secret} passes")),
            });
            item
        };
        let out = markdown(&view(vec![
            template(Change::Change, "content changed", Gate::Ready),
            template(
                Change::Add,
                &format!("cannot read `{secret}`"),
                Gate::Blocked(secret.to_owned()),
            ),
            template(
                Change::Add,
                "not rendered",
                Gate::Waiting(vec![format!("an instance of `{secret}` that passes")]),
            ),
        ]));
        assert!(!out.contains("salt"), "{out}");
        assert!(
            out.contains("content = 2 lines added, 1 removed\n"),
            "{out}"
        );
        assert!(
            out.contains("| `templates/upstream` | content changed |"),
            "{out}"
        );
        assert!(
            out.contains("| `templates/upstream` | cannot be written; "),
            "{out}"
        );
        let mut unknown = template(Change::Add, "not rendered", Gate::Ready);
        if let Some(diff) = &mut unknown.diff {
            diff.new = None;
        }
        assert!(markdown(&view(vec![unknown])).contains("content = not known yet\n"));
    }

    #[test]
    fn a_fence_is_longer_than_any_in_the_text() {
        for (text, expected) in [("", 3), ("a `b` c", 3), ("```", 4), ("`` `````\n`", 6)] {
            assert_eq!(fence(text), "`".repeat(expected), "{text}");
        }
        // A longer one would leave no room; then the text has none.
        for (held, ticks) in [(TICKS - 1, TICKS), (TICKS, 3)] {
            let out = markdown(&view(vec![item(Change::Add, &"`".repeat(held))]));
            let begin = format!("\n\n{}text\n", "`".repeat(ticks));
            assert!(out.contains(&begin), "{out}");
        }
    }
}
