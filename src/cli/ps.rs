//! `hatchery ps`: how a stack stands.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::error::CommandError;
use super::narrator::state_word;
use super::table::{self, Cell, cell, columns};
use super::{Global, logs, screen, stack, wiring};
use crate::plan::model::{NodeState, NodeStatus};
use crate::plan::text::visible;
use crate::plan::world::{Life, LifeState};
use crate::plan::{exit_words, words};
use crate::reconcile::handle::StackStatus;
use crate::reconcile::sync::Sync;
use crate::spec::model::Status;

/// Lines that a workload that failed is quoted with.
const LOG_LINES: usize = 5;

const BOLD: Style = table::BOLD;
const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const WRONG: Style = AnsiColor::Red.on_default();
const PLAIN: Style = Style::new();

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub struct PsArgs {
    /// Print the status as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the controller; without one, shows what the kernel shows.
///
/// # Errors
/// When there is no such stack, or `--json` without a controller.
pub fn run(args: &PsArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let asked = wiring::block_on(async {
        if args.json {
            return Ok(Some(stack::client(&name).await?.status().await?));
        }
        match stack::client_if_any(&name).await? {
            Some(client) => Ok(Some(client.status().await?)),
            None => Ok(None),
        }
    })?;
    match asked {
        Some(status) if args.json => screen::json(&status)?,
        Some(status) => {
            let last_words = |node: &NodeStatus| logs::tail(&name, &node.node, LOG_LINES);
            screen::say(&format!("{}{}", text(&status), failed(&status, last_words)))?;
        }
        None => screen::say(&orphans(&name, &wiring::lives(&name)?, |life| {
            words(wiring::age(life))
        }))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &StackStatus) -> String {
    let (state, style) = if status.converged {
        ("converged", GOOD)
    } else {
        ("not converged", WARN)
    };
    let spec = match (&status.commit, &status.source) {
        (Some(commit), Some(source)) => format!("commit {commit} of {}", source.url),
        (Some(commit), None) => format!("commit {commit}"),
        (None, _) => status.spec.display().to_string(),
    };
    let mut out = format!(
        "stack {BOLD}{}{BOLD:#}, generation {}, {style}{state}{style:#}\nspec {}\n",
        visible(&status.stack),
        status.generation,
        visible(&spec),
    );
    if let Some(source) = status
        .source
        .as_ref()
        .filter(|source| source.sync != Sync::Synced)
    {
        let sync = source.sync;
        out.push_str(&format!(
            "source {WARN}{sync}{WARN:#}; see `hatchery sync`\n"
        ));
    }
    if let Some(registry) = &status.registry {
        out.push_str(&format!("registry http://{}\n", visible(registry)));
    }
    if let Some(withheld) = status.withheld {
        out.push_str(&format!(
            "only the applied plan is carried out, until the next spec is taken; {withheld} \
             outstanding beside it\n"
        ));
    }
    if let Some(error) = &status.spec_error {
        out.push_str(&format!(
            "{WRONG}the spec's last edit is not in force:{WRONG:#}\n"
        ));
        for line in visible(error.trim_end()).lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    out.push('\n');
    let head = [
        "NAME", "STATE", "HEALTH", "AGE", "RESTARTS", "PID", "ADDRESS", "DETAIL",
    ];
    let rows: Vec<Vec<Cell>> = status.nodes.iter().map(row).collect();
    out.push_str(&columns(&head, &rows));
    out
}

/// What each workload that failed wrote last.
fn failed(status: &StackStatus, last_words: impl Fn(&NodeStatus) -> Vec<String>) -> String {
    let mut out = String::new();
    let failed = |node: &&NodeStatus| node.state == NodeState::Failed;
    for node in status.nodes.iter().filter(failed) {
        let lines = last_words(node);
        if lines.is_empty() {
            continue;
        }
        let name = visible(&node.node.to_string());
        out.push_str(&format!("\n{WRONG}{name}{WRONG:#} wrote last:\n"));
        for line in lines {
            out.push_str(&format!("  | {line}\n"));
        }
    }
    out
}

fn row(node: &NodeStatus) -> Vec<Cell> {
    let state = match node.state {
        NodeState::Running | NodeState::Completed => GOOD,
        NodeState::Failed => WRONG,
        NodeState::Backoff | NodeState::Stopping => WARN,
        NodeState::Waiting | NodeState::Starting | NodeState::Stopped | NodeState::Exited => PLAIN,
    };
    let (health, well) = match node.health {
        Some(Status::Passing) => ("passing", GOOD),
        Some(Status::Warning) => ("warning", WARN),
        Some(Status::Critical) => ("critical", WRONG),
        None => ("-", PLAIN),
    };
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    // Only what runs can start again.
    let restarts = (node.restarts > 0 || node.pid.is_some()).then(|| node.restarts.to_string());
    vec![
        cell(visible(&node.node.to_string()), PLAIN),
        cell(state_word(node), state),
        cell(health, well),
        cell(or_dash(node.age.map(words)), PLAIN),
        cell(or_dash(restarts), PLAIN),
        cell(or_dash(node.pid.map(|pid| pid.to_string())), PLAIN),
        cell(visible(&or_dash(node.address.clone())), PLAIN),
        cell(detail(node), PLAIN),
    ]
}

/// The detail in one line; what ended says how, where nothing else is said.
fn detail(node: &NodeStatus) -> String {
    let said = if node.detail.is_empty() {
        let last = node.last_exit.as_deref();
        last.map(|last| format!("last {last}")).unwrap_or_default()
    } else {
        node.detail.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    visible(&said)
}

fn orphans(stack: &str, lives: &[Life], age: impl Fn(&Life) -> String) -> String {
    let mut out = format!("no controller runs for stack `{}`", visible(stack));
    if lives.is_empty() {
        out.push_str(", and nothing of it runs\n");
        return out;
    }
    out.push_str("; the kernel shows:\n\n");
    let rows: Vec<Vec<Cell>> = lives
        .iter()
        .map(|life| {
            let (state, detail) = match &life.state {
                LifeState::Up => ("running", String::new()),
                LifeState::Ending => ("ending", "its main process ended".to_owned()),
                LifeState::Ended { exit, .. } => ("ended", exit_words(*exit)),
            };
            let pid = (life.main_pid > 0).then(|| life.main_pid.to_string());
            vec![
                cell(visible(&life.id.node.to_string()), PLAIN),
                cell(state, PLAIN),
                cell(age(life), PLAIN),
                cell(pid.unwrap_or_else(|| "-".to_owned()), PLAIN),
                cell(detail, PLAIN),
            ]
        })
        .collect();
    out.push_str(&columns(&["NAME", "STATE", "AGE", "PID", "DETAIL"], &rows));
    out
}

#[cfg(test)]
mod tests;
