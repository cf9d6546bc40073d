//! How a node's story reads. With ANSI colours, as plans.

use std::fmt::Write;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::{Explanation, LifeStory, Past, Story};
use crate::plan::model::{Detail, Gate};
use crate::plan::text::visible;
use crate::plan::words;
use crate::spec::model::{Condition, Status};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const WRONG: Style = AnsiColor::Red.on_default();

/// All stories for the reader, with an empty line between two.
pub fn text(explanation: &Explanation) -> String {
    let stories: Vec<String> = explanation.nodes.iter().map(story).collect();
    stories.join("\n")
}

/// Writing to a string does not fail.
fn put(out: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(words);
}

fn one_line(text: &str) -> String {
    visible(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn story(story: &Story) -> String {
    let mut out = String::new();
    let status = &story.status;
    let state = format!("{:?}", status.state).to_lowercase();
    put(
        &mut out,
        format_args!(
            "{BOLD}{}{BOLD:#}  {state}",
            visible(&status.node.to_string())
        ),
    );
    if let Some(health) = status.health {
        put(&mut out, format_args!(", {health}"));
    }
    if !status.detail.is_empty() {
        put(&mut out, format_args!(": {}", one_line(&status.detail)));
    }
    out.push('\n');
    details(&mut out, "wanted", &story.wanted);
    if story.wanted.is_empty() {
        section(
            &mut out,
            "wanted",
            &["nothing: it is not in the spec".to_owned()],
        );
    }
    section(&mut out, "there", &there(story));
    section(&mut out, "checks", &checks(story));
    section(&mut out, "needs", &needs(story));
    let needed: Vec<String> = story.needed_by.iter().map(ToString::to_string).collect();
    if !needed.is_empty() {
        section(&mut out, "needed by", &[needed.join(", ")]);
    }
    section(&mut out, "before", &before(&story.past));
    section(&mut out, "next", &next(story));
    let log: Vec<String> = story.log.iter().map(|line| format!("| {line}")).collect();
    section(&mut out, "log", &log);
    out
}

/// Lines with their title before the first.
fn section(out: &mut String, title: &str, lines: &[String]) {
    for (number, line) in lines.iter().enumerate() {
        let title = if number == 0 { title } else { "" };
        put(out, format_args!("  {DIM}{title:<10}{DIM:#} {line}\n"));
    }
}

fn details(out: &mut String, title: &str, details: &[Detail]) {
    let lines: Vec<String> = details.iter().map(fact).collect();
    section(out, title, &lines);
}

fn fact(detail: &Detail) -> String {
    let value = detail.new.as_deref().unwrap_or_default();
    format!("{}: {}", one_line(&detail.name), one_line(value))
}

fn there(story: &Story) -> Vec<String> {
    let mut lines: Vec<String> = story.lives.iter().flat_map(life).collect();
    lines.extend(story.there.iter().map(fact));
    lines
}

fn life(life: &LifeStory) -> Vec<String> {
    let pid = life
        .pid
        .map_or_else(String::new, |pid| format!(", pid {pid}"));
    let mut lines = vec![format!(
        "life {}: {}{pid}, began {} ago",
        life.incarnation,
        life.state,
        words(life.age)
    )];
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    lines.extend(life.differences.iter().map(|field| {
        let (runs, wanted) = (or_none(&field.old), or_none(&field.new));
        let name = one_line(&field.name);
        format!("  {name} differs: {runs} runs, {wanted} is wanted")
    }));
    lines
}

fn checks(story: &Story) -> Vec<String> {
    let line = |check: &super::CheckStory| {
        let (style, status) = match check.status {
            Some(Status::Passing) => (GOOD, "passing".to_owned()),
            Some(status) => (WRONG, status.to_string()),
            None => (Style::new(), "no answer is kept".to_owned()),
        };
        let said = match check.output.as_deref().map(one_line) {
            Some(said) if !said.is_empty() => format!(": {said}"),
            _ => String::new(),
        };
        let (id, asks) = (visible(&check.id), one_line(&check.asks));
        format!("{id} ({asks}): {style}{status}{style:#}{said}")
    };
    story.checks.iter().map(line).collect()
}

fn needs(story: &Story) -> Vec<String> {
    let line = |need: &super::NeedStory| {
        let (style, met) = if need.met {
            (GOOD, "yes")
        } else {
            (WRONG, "not yet")
        };
        let condition = match need.condition {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        };
        format!(
            "{} {condition}: {style}{met}{style:#}",
            visible(&need.on.to_string())
        )
    };
    story.needs.iter().map(line).collect()
}

fn before(past: &Past) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(exit) = &past.last_exit {
        let asked = if past.asked {
            ", as it was asked to"
        } else {
            ""
        };
        let ago = words(past.last_exit_ago.unwrap_or(Duration::ZERO));
        lines.push(format!("{exit} {ago} ago{asked}"));
    }
    if past.failures > 0 || past.restarts > 0 {
        let window = match past.failures_in_window {
            Some(count) => format!(", {count} within its window"),
            None => String::new(),
        };
        lines.push(format!(
            "failures in a row: {}{window}; restarts: {}",
            past.failures, past.restarts
        ));
    }
    if let Some(error) = &past.last_error {
        lines.push(format!(
            "failed attempts in a row: {}",
            past.failed_attempts
        ));
        lines.extend(
            visible(error.trim_end())
                .lines()
                .map(|line| format!("  {line}")),
        );
    }
    lines
}

/// Whether it waits for nothing but to try again what failed.
fn waits_to_retry(story: &Story, on: &[String]) -> bool {
    let error = story.past.last_error.as_deref();
    error.is_some_and(|error| on.iter().all(|on| on.ends_with(error)))
}

fn next(story: &Story) -> Vec<String> {
    let mut lines = Vec::new();
    match &story.action {
        None => lines.push("nothing is outstanding".to_owned()),
        Some(action) => {
            let change = format!("{:?}", action.change).to_lowercase();
            lines.push(format!("{change}: {}", one_line(&action.reason)));
            match &action.gate {
                Gate::Ready => lines.push("it can be done now".to_owned()),
                Gate::Running => lines.push("it is under way".to_owned()),
                // Its next try is told below, and what failed above.
                Gate::Waiting(on) if waits_to_retry(story, on) => {}
                Gate::Waiting(on) => {
                    let on: Vec<String> = on.iter().map(|on| one_line(on)).collect();
                    lines.push(format!("waits for {}", on.join(", ")));
                }
                Gate::Blocked(_) => lines.push("blocked: it does not mend by itself".to_owned()),
            }
            if let Some(since) = story.waiting_for.filter(|since| !since.is_zero()) {
                lines.push(format!("it has waited for {}", words(since)));
            }
            let gives = action.details.iter().filter(|detail| detail.old.is_some());
            lines.extend(gives.map(|detail| {
                let new = detail.new.as_deref().unwrap_or("nothing");
                format!("{}: {}", one_line(&detail.name), one_line(new))
            }));
        }
    }
    if let Some(left) = story.past.next_try_in {
        lines.push(format!("next try in {}", words(left)));
    }
    lines
}
