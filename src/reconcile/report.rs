//! The story of the loop, told from differences between what stood before and what stands now.

use std::collections::{BTreeMap, BTreeSet};

use super::controller::{Controller, Proven};
use super::handle::{EventKind, LeftCommit, Level, PlanView, StackStatus};
use crate::plan::model::{Gate, Item, NodeState, NodeStatus, Step};
use crate::plan::permit::WITHHELD;
use crate::plan::words;
use crate::spec::generation::Outcome;
use crate::spec::model::Status;
use crate::spec::node::{Kind, NodeId};

use super::execute::Finished;

impl Controller {
    /// Tells what changed since the pass before.
    pub(super) fn report(&mut self) {
        let now: BTreeMap<_, _> = self
            .plan
            .nodes
            .iter()
            .map(|status| (status.node.clone(), status.clone()))
            .collect();
        let mut lines: Vec<(NodeId, Line)> = Vec::new();
        for (node, status) in &now {
            let before = self.before.get(node);
            if before.is_none_or(|before| before.state != status.state)
                && let Some(line) = state_line(before, status)
            {
                lines.push((node.clone(), line));
            }
            if let Some(line) = health_line(before, status) {
                lines.push((node.clone(), line));
            }
        }
        for (node, (kind, level, text)) in lines {
            self.tell(kind, Some(&node), level, text);
        }
        let converged = self.is_converged();
        if converged && !self.converged {
            let took = words(self.host.clock.now().since(self.busy_since));
            let text = format!("converged in {took}: {} nodes", self.plan.nodes.len());
            self.tell(EventKind::Converged, None, Level::Notice, text);
            self.note_converged();
            self.memory.changed.clear();
            self.memory.trying.clear();
            self.proven = Some(Proven {
                generation: self.history.current.number,
                spec: self.spec.clone(),
            });
        } else if !converged && self.converged {
            self.busy_since = self.host.clock.now();
        }
        self.converged = converged;
        let failed = now.values().find(|node| node.state == NodeState::Failed);
        if let Some(failed) = failed.filter(|_| !converged) {
            self.note_failed(&failed.node, &failed.detail);
        }
        self.before = now;
    }

    /// Nothing is outstanding, everything is where it should be, everything passes, and what the
    /// spec in force brought or changed has for as long as counts.
    fn is_converged(&self) -> bool {
        self.memory.down.is_none()
            && self.plan.items.is_empty()
            && self.plan.notes.trying.is_empty()
            && self.memory.unchecked.is_empty()
            && self
                .memory
                .attempts
                .values()
                .all(|attempt| !attempt.running)
            && self.plan.nodes.iter().all(|status| {
                matches!(
                    status.state,
                    NodeState::Running
                        | NodeState::Completed
                        | NodeState::Stopped
                        | NodeState::Exited
                ) && (status.state != NodeState::Running || status.health != Some(Status::Critical))
            })
    }

    /// A step that was done, where it is worth a line.
    pub(super) fn report_step(&mut self, node: &NodeId, finished: &Finished) {
        let Some((kind, level, text)) = step_line(finished) else {
            return;
        };
        match &finished.step {
            Step::Start(start) => self.tell_life(kind, &start.id, level, text),
            Step::Signal { life, .. } | Step::Kill(life) | Step::ReloadProcess { life, .. } => {
                self.tell_life(kind, life, level, text)
            }
            _ => self.tell(kind, Some(node), level, text),
        }
    }

    /// The commit that was left for an earlier one, while it is the newest that was tried.
    fn left_commit(&self) -> Option<LeftCommit> {
        let over = self.passed_over.as_ref()?;
        Some(LeftCommit {
            commit: over.spec.commit()?.id.clone(),
            why: over.why.clone(),
        })
    }

    /// Every commit whose tree something may still read.
    fn commits(&self) -> BTreeSet<String> {
        let proven = self.proven.iter().map(|proven| &proven.spec);
        let specs = std::iter::once(&self.spec).chain(proven);
        let commits = specs.filter_map(|spec| Some(spec.commit()?.id.clone()));
        let lives = self.observed.lives.iter();
        commits
            .chain(lives.filter_map(|life| life.commit.clone()))
            .collect()
    }

    /// How the stack stands.
    pub(super) fn stack_status(&self) -> StackStatus {
        let mut nodes = self.plan.nodes.clone();
        nodes.sort_by_key(|status| status.node.kind);
        StackStatus {
            stack: self.desired.stack.clone(),
            controller_pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            spec: self.spec.path.clone(),
            generation: self.history.current.number,
            converged: self.converged,
            spec_error: self.spec_error.clone(),
            registry: self.observed.registry.http.map(|http| http.to_string()),
            nodes,
            outstanding: self.plan.items.iter().map(one_line).collect(),
            withheld: self.memory.permitted.as_ref().map(|_| {
                let withheld = |status: &&NodeStatus| status.detail == WITHHELD;
                self.plan.nodes.iter().filter(withheld).count()
            }),
            commit: self.spec.commit().cloned(),
            left: self.left_commit(),
            commits: self.commits(),
            converged_once: matches!(self.history.current.outcome, Outcome::Converged { .. }),
            source: None,
        }
    }
}

/// A plan for readers, with the present content of the files that it would change.
pub fn view(
    stack: &str,
    plan: &crate::plan::model::Plan,
    files: &dyn crate::driver::Files,
) -> PlanView {
    let mut view = PlanView::new(stack, plan);
    for item in &mut view.items {
        if let Some(diff) = &mut item.diff {
            diff.old = files.read(&diff.path, super::load::INPUT_LIMIT).ok();
        }
    }
    view
}

fn one_line(item: &Item) -> String {
    match &item.gate {
        Gate::Ready | Gate::Running => format!("{}: {}", item.node, item.reason),
        Gate::Waiting(on) => {
            format!(
                "{}: {}; waiting on {}",
                item.node,
                item.reason,
                on.join(", ")
            )
        }
        Gate::Blocked(error) => format!("{}: {error}", item.node),
    }
}

/// What happened, how grave it is, and in words.
type Line = (EventKind, Level, String);

fn step_line(finished: &Finished) -> Option<Line> {
    let took = words(finished.took);
    let millis = finished.took.as_millis();
    Some(match &finished.step {
        Step::Write(file) => {
            let text = format!("wrote `{}`", file.path.display());
            (EventKind::Rendered, Level::Notice, text)
        }
        Step::RemoveFile { path, .. } => {
            let text = format!("removed `{}`", path.display());
            (EventKind::Removed, Level::Notice, text)
        }
        Step::ReloadProcess { signal, .. } => {
            let text = format!("reloaded by {signal}, confirmed after {millis}ms");
            (EventKind::Reloaded, Level::Notice, text)
        }
        Step::ReloadCommand { command, .. } => {
            let text = format!("ran `{}` in {took}", command.join(" "));
            (EventKind::Reloaded, Level::Notice, text)
        }
        Step::Start(_) => {
            let text = format!("started in {millis}ms");
            (EventKind::Started, Level::Progress, text)
        }
        Step::Signal { signal, .. } => (
            EventKind::Signalled,
            Level::Progress,
            format!("sent {signal}"),
        ),
        Step::Kill(_) => {
            let text = "killed what was left".to_owned();
            (EventKind::Killed, Level::Warning, text)
        }
        Step::CreateNetwork(network) => {
            let text = format!("made bridge `{}`", network.bridge);
            (EventKind::Network, Level::Progress, text)
        }
        Step::Firewall { .. } => {
            let text = "firewall set".to_owned();
            (EventKind::Network, Level::Progress, text)
        }
        Step::OpenRegistry(registry) => {
            let text = format!("answers on {}", registry.http?);
            (EventKind::Ready, Level::Progress, text)
        }
        Step::Validate { command, .. } => verdict_line(command, finished),
        _ => return None,
    })
}

fn verdict_line(command: &[String], finished: &Finished) -> Line {
    let verdict = finished.verdict.as_ref();
    if verdict.is_some_and(|output| output.code == Some(0)) {
        let text = format!("validated in {}ms", finished.took.as_millis());
        return (EventKind::Validated, Level::Progress, text);
    }
    let said = verdict.map_or("", |output| output.text.trim());
    let text = format!("`{}` refuses the new text: {said}", command.join(" "));
    (EventKind::Validated, Level::Error, text)
}

fn state_line(before: Option<&NodeStatus>, status: &NodeStatus) -> Option<Line> {
    let detail = || {
        if status.detail.is_empty() {
            String::new()
        } else {
            format!(": {}", status.detail)
        }
    };
    let (kind, level, text) = match status.state {
        NodeState::Waiting => (EventKind::Waiting, Level::Progress, status.detail.clone()),
        NodeState::Starting => {
            let text = format!("starting{}", detail());
            (EventKind::Starting, Level::Progress, text)
        }
        NodeState::Running => running_line(before, status)?,
        NodeState::Stopping => {
            let text = format!("stopping{}", detail());
            (EventKind::Stopping, Level::Notice, text)
        }
        NodeState::Stopped => (EventKind::Stopped, Level::Notice, "stopped".to_owned()),
        NodeState::Backoff => (EventKind::Failed, Level::Warning, status.detail.clone()),
        NodeState::Exited => (EventKind::Stopped, Level::Notice, status.detail.clone()),
        NodeState::Completed => (EventKind::Completed, Level::Notice, "completed".to_owned()),
        NodeState::Failed => (EventKind::Failed, Level::Error, status.detail.clone()),
    };
    (!text.is_empty()).then_some((kind, level, text))
}

fn running_line(before: Option<&NodeStatus>, status: &NodeStatus) -> Option<Line> {
    let quiet = before.is_none_or(|before| before.state == NodeState::Starting);
    let level = if quiet {
        Level::Progress
    } else {
        Level::Notice
    };
    Some(match (status.node.kind, status.age) {
        (Kind::Checks, _) => return None,
        (Kind::Containers | Kind::Processes, Some(age)) => {
            let text = format!("ready, {} after its start", words(age));
            (EventKind::Ready, level, text)
        }
        (Kind::Services, _) => (EventKind::Registered, level, "registered".to_owned()),
        (Kind::Templates, _) => (EventKind::Ready, level, "rendered and in place".to_owned()),
        _ => (EventKind::Ready, level, "ready".to_owned()),
    })
}

fn health_line(before: Option<&NodeStatus>, status: &NodeStatus) -> Option<Line> {
    if status.node.kind != Kind::Services {
        return None;
    }
    let health = status.health?;
    if before.and_then(|before| before.health) == Some(health) {
        return None;
    }
    let (level, text) = match health {
        Status::Passing => (Level::Notice, "passing"),
        Status::Warning => (Level::Warning, "warning"),
        // One that was never seen to pass is not yet news.
        Status::Critical => {
            before.and_then(|before| before.health)?;
            (Level::Warning, "critical")
        }
    };
    Some((EventKind::Health, level, text.to_owned()))
}
