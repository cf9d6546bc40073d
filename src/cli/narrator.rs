//! Tells the story of a controller on standard output: as lines, and on a terminal with a live
//! view of what is still on its way below them.

use std::io::Write;
use std::time::Instant;

use anstyle::{AnsiColor, Style};

use super::herald::is_there;
use super::screen;
use crate::driver::journal::{Journal, Priority};
use crate::plan::model::{NodeState, NodeStatus};
use crate::plan::text::visible;
use crate::plan::{exit_words, words};
use crate::reconcile::handle::{EventKind, Happening, Level, StackStatus};

const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const WRONG: Style = AnsiColor::Red.on_default();

/// Nodes that the live view lists.
const MOST_NODES: usize = 10;
/// Columns for a node's name.
const NAME: usize = 24;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A live view while it converges; lines for what is worth one.
    Live,
    /// Every step until it converged, then what is worth a line.
    Plain,
    /// Every step, always: a log file.
    All,
}

/// The one who tells.
pub struct Narrator {
    manner: Manner,
    /// It converged once.
    settled: bool,
    /// Lines of the live view on the screen.
    drawn: usize,
    /// Since when it converges.
    since: Instant,
    /// The line that said so was told.
    said_converged: bool,
    /// Takes the lines instead of standard output, where that leads to it anyway.
    journal: Option<Journal>,
}

impl Narrator {
    /// A narrator of this manner.
    pub fn new(manner: Manner) -> Self {
        Narrator {
            manner,
            settled: false,
            drawn: 0,
            since: Instant::now(),
            said_converged: false,
            journal: None,
        }
    }

    /// A controller's narrator: into the journal, with all its fields, if standard output leads
    /// there; otherwise of the manner that fits standard output.
    pub fn of_controller(stack: &str) -> Self {
        match Journal::behind(std::io::stdout(), Some(stack)) {
            Some(journal) => Narrator {
                journal: Some(journal),
                ..Narrator::new(Manner::All)
            },
            None => Narrator::of_screen(),
        }
    }

    /// The manner that fits standard output.
    pub fn of_screen() -> Self {
        Narrator::new(if screen::is_lively() {
            Manner::Live
        } else {
            Manner::Plain
        })
    }

    /// Whether it makes use of [`Narrator::show`].
    pub fn wants_status(&self) -> bool {
        self.manner != Manner::All
    }

    /// From now on every step is told.
    pub fn everything(&mut self) {
        self.clear();
        self.manner = Manner::All;
    }

    /// Whether the stack was told to have converged.
    pub fn said_converged(&self) -> bool {
        self.said_converged
    }

    /// Tells one thing, if it is worth a line now.
    pub fn tell(&mut self, happening: &Happening) {
        if happening.kind == EventKind::Converged {
            self.said_converged = true;
        }
        let worth = match self.manner {
            Manner::All => Level::Progress,
            Manner::Plain if !self.settled => Level::Progress,
            Manner::Live | Manner::Plain => Level::Notice,
        };
        if happening.level >= worth {
            self.clear();
            if let Some(journal) = &self.journal
                && enter(journal, happening).is_ok()
            {
                return;
            }
            let time = screen::time_of_day(happening.at_ms);
            screen::murmur(&happening_line(happening, &time));
        }
    }

    /// A line of our own. On a terminal it takes the place of the `^C` that was typed.
    pub fn say(&mut self, text: &str) {
        self.clear();
        if let Some(journal) = &self.journal
            && journal.write(Priority::Notice, text, &[]).is_ok()
        {
            return;
        }
        let begin = if screen::is_lively() { "\r" } else { "" };
        screen::murmur(&format!("{begin}{text}\n"));
    }

    /// Shows how it stands; true when it converged.
    pub fn show(&mut self, status: &StackStatus) -> bool {
        if status.converged {
            self.clear();
            self.settled = true;
            return true;
        }
        if self.settled && self.drawn == 0 {
            self.since = Instant::now();
        }
        if self.manner == Manner::Live {
            let (width, height) = screen::size();
            let view = view(status, &words(self.since.elapsed()), width, height);
            self.clear();
            self.drawn = view.lines().count();
            screen::murmur(&view);
        }
        false
    }

    /// Takes the live view off the screen.
    pub fn clear(&mut self) {
        if self.drawn > 0 {
            let mut out = std::io::stdout().lock();
            // Up to the view's first line, and away with all below.
            let _ = write!(out, "\x1b[{}A\r\x1b[J", self.drawn);
            let _ = out.flush();
            self.drawn = 0;
        }
    }
}

impl Drop for Narrator {
    fn drop(&mut self) {
        self.clear();
    }
}

/// `12:03:04 containers/prime1        ready after 0.4s`
pub fn happening_line(happening: &Happening, time: &str) -> String {
    let style = match happening.level {
        Level::Progress | Level::Notice => Style::new(),
        Level::Warning => WARN,
        Level::Error => WRONG,
    };
    let text = visible(happening.text.trim_end());
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut out = match &happening.node {
        Some(node) => format!(
            "{DIM}{time}{DIM:#} {:<NAME$} {style}{first}{style:#}\n",
            visible(&node.to_string())
        ),
        None => format!("{DIM}{time}{DIM:#} {style}{first}{style:#}\n"),
    };
    for line in lines {
        out.push_str(&" ".repeat(time.len() + 1));
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Writes it to the journal, all that is known of it in fields of their own.
fn enter(journal: &Journal, happening: &Happening) -> std::io::Result<()> {
    let priority = match happening.level {
        Level::Progress => Priority::Progress,
        Level::Notice => Priority::Notice,
        Level::Warning => Priority::Warning,
        Level::Error => Priority::Error,
    };
    let kind = serde_json::to_value(happening.kind).ok();
    let kind = kind.and_then(|kind| kind.as_str().map(str::to_owned));
    let node = happening.node.as_ref().map(ToString::to_string);
    let fields = [
        ("HATCHERY_NODE", node.clone()),
        ("HATCHERY_KIND", kind),
        (
            "HATCHERY_INCARNATION",
            happening.incarnation.map(|number| number.to_string()),
        ),
        ("HATCHERY_EXIT", happening.exit.map(exit_words)),
        (
            "HATCHERY_GENERATION",
            happening.generation.map(|number| number.to_string()),
        ),
        ("HATCHERY_COMMIT", happening.commit.clone()),
    ];
    let fields: Vec<(&str, String)> = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let text = visible(happening.text.trim_end());
    let message = match node {
        Some(node) => format!("{node}: {text}"),
        None => text,
    };
    journal.write(priority, &message, &fields)
}

/// What moves comes first, what only waits last.
fn rank(state: NodeState) -> u8 {
    match state {
        NodeState::Failed => 0,
        NodeState::Backoff => 1,
        NodeState::Stopping => 2,
        NodeState::Starting => 3,
        NodeState::Waiting => 5,
        _ => 4,
    }
}

/// The live view: a headline, and what is not there yet.
fn view(status: &StackStatus, took: &str, width: usize, height: usize) -> String {
    let total = status.nodes.len();
    let mut away: Vec<&NodeStatus> = status.nodes.iter().filter(|n| !is_there(n)).collect();
    away.sort_by_key(|node| rank(node.state));
    let there = total - away.len();
    let head = format!(
        "stack {}: {there} of {total} nodes ready, {took}",
        status.stack
    );
    let mut out = format!("{}\n", screen::cut(&visible(&head), width));
    let room = MOST_NODES.min(height.saturating_sub(3)).max(1);
    for node in away.iter().take(room) {
        let (mark, style) = match node.state {
            NodeState::Failed => ('x', WRONG),
            NodeState::Backoff | NodeState::Stopping => ('!', WARN),
            NodeState::Waiting => ('.', DIM),
            _ => ('>', GOOD),
        };
        let detail = match node.state {
            NodeState::Running => "its checks do not pass yet".to_owned(),
            _ => visible(node.detail.lines().next().unwrap_or_default()),
        };
        let state = state_word(node);
        let line = format!(
            "{:<NAME$} {state:<9} {detail}",
            visible(&node.node.to_string())
        );
        let line = screen::cut(line.trim_end(), width.saturating_sub(4));
        out.push_str(&format!("  {style}{mark} {line}{style:#}\n"));
    }
    if away.len() > room {
        out.push_str(&format!("  … and {} more\n", away.len() - room));
    }
    out
}

/// A node's state in one word.
pub fn state_word(node: &NodeStatus) -> &'static str {
    match node.state {
        NodeState::Waiting => "waiting",
        NodeState::Starting => "starting",
        NodeState::Running => "running",
        NodeState::Stopping => "stopping",
        NodeState::Stopped => "stopped",
        NodeState::Backoff => "backoff",
        NodeState::Exited => "exited",
        NodeState::Completed => "completed",
        NodeState::Failed => "failed",
    }
}

#[cfg(test)]
mod tests;
