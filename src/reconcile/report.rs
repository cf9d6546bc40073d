//! The story of the loop, told from differences between what stood before and what stands now.

use std::collections::BTreeMap;

use super::controller::{Controller, Proven};
use super::handle::{Level, PlanView, StackStatus};
use crate::plan::model::{Gate, Item, NodeState, NodeStatus, Step};
use crate::plan::permit::WITHHELD;
use crate::plan::words;
use crate::spec::model::Status;
use crate::spec::node::Kind;

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
        let mut lines = Vec::new();
        for (node, status) in &now {
            let before = self.before.get(node);
            if before.is_none_or(|before| before.state != status.state)
                && let Some((level, text)) = state_line(before, status)
            {
                lines.push((node.clone(), level, text));
            }
            if let Some((level, text)) = health_line(before, status) {
                lines.push((node.clone(), level, text));
            }
        }
        for (node, level, text) in lines {
            self.tell(Some(&node), level, text);
        }
        self.before = now;
        let converged = self.is_converged();
        if converged && !self.converged {
            let took = words(self.host.clock.now().since(self.busy_since));
            let text = format!("converged in {took}: {} nodes", self.plan.nodes.len());
            self.tell(None, Level::Notice, text);
            self.memory.changed.clear();
            self.memory.trying.clear();
            self.proven = Some(Proven {
                generation: self.generation,
                spec: self.spec.clone(),
            });
        } else if !converged && self.converged {
            self.busy_since = self.host.clock.now();
        }
        self.converged = converged;
    }

    /// Nothing is outstanding, everything is where it should be, and everything passes.
    fn is_converged(&self) -> bool {
        self.memory.down.is_none()
            && self.plan.items.is_empty()
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
    pub(super) fn report_step(&self, node: &crate::spec::node::NodeId, finished: &Finished) {
        let took = words(finished.took);
        let (level, text) = match &finished.step {
            Step::Write(file) => (Level::Notice, format!("wrote `{}`", file.path.display())),
            Step::RemoveFile { path, .. } => {
                (Level::Notice, format!("removed `{}`", path.display()))
            }
            Step::ReloadProcess { signal, .. } => {
                let millis = finished.took.as_millis();
                (
                    Level::Notice,
                    format!("reloaded by {signal}, confirmed after {millis}ms"),
                )
            }
            Step::ReloadCommand { command, .. } => (
                Level::Notice,
                format!("ran `{}` in {took}", command.join(" ")),
            ),
            Step::Start(start) => {
                let millis = finished.took.as_millis();
                let _ = start;
                (Level::Progress, format!("started in {millis}ms"))
            }
            Step::Signal { signal, .. } => (Level::Progress, format!("sent {signal}")),
            Step::Kill(_) => (Level::Warning, "killed what was left".to_owned()),
            Step::CreateNetwork(network) => {
                (Level::Progress, format!("made bridge `{}`", network.bridge))
            }
            Step::OpenRegistry(registry) => match registry.http {
                Some(http) => (Level::Progress, format!("answers on {http}")),
                None => return,
            },
            Step::Validate { command, .. } => {
                let accepted = finished
                    .verdict
                    .as_ref()
                    .is_some_and(|output| output.code == Some(0));
                if accepted {
                    let millis = finished.took.as_millis();
                    (Level::Progress, format!("validated in {millis}ms"))
                } else {
                    let said = finished
                        .verdict
                        .as_ref()
                        .map_or("", |output| output.text.trim());
                    (
                        Level::Error,
                        format!("`{}` refuses the new text: {said}", command.join(" ")),
                    )
                }
            }
            Step::Firewall { .. } => (Level::Progress, "firewall set".to_owned()),
            _ => return,
        };
        self.tell(Some(node), level, text);
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
            generation: self.generation,
            converged: self.converged,
            spec_error: self.spec_error.clone(),
            registry: self.observed.registry.http.map(|http| http.to_string()),
            nodes,
            outstanding: self.plan.items.iter().map(one_line).collect(),
            withheld: self.memory.permitted.as_ref().map(|_| {
                let withheld = |status: &&NodeStatus| status.detail == WITHHELD;
                self.plan.nodes.iter().filter(withheld).count()
            }),
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

fn state_line(before: Option<&NodeStatus>, status: &NodeStatus) -> Option<(Level, String)> {
    let detail = || {
        if status.detail.is_empty() {
            String::new()
        } else {
            format!(": {}", status.detail)
        }
    };
    let (level, text) = match status.state {
        NodeState::Waiting => (Level::Progress, status.detail.clone()),
        NodeState::Starting => (Level::Progress, format!("starting{}", detail())),
        NodeState::Running => {
            if status.node.kind == Kind::Checks {
                return None;
            }
            let quiet = before.is_none_or(|before| before.state == NodeState::Starting);
            let level = if quiet {
                Level::Progress
            } else {
                Level::Notice
            };
            let text = match (status.node.kind, status.age) {
                (Kind::Containers | Kind::Processes, Some(age)) => {
                    format!("ready, {} after its start", words(age))
                }
                (Kind::Services, _) => "registered".to_owned(),
                (Kind::Templates, _) => "rendered and in place".to_owned(),
                _ => "ready".to_owned(),
            };
            (level, text)
        }
        NodeState::Stopping => (Level::Notice, format!("stopping{}", detail())),
        NodeState::Stopped => (Level::Notice, "stopped".to_owned()),
        NodeState::Backoff => (Level::Warning, status.detail.clone()),
        NodeState::Exited => (Level::Notice, status.detail.clone()),
        NodeState::Completed => (Level::Notice, "completed".to_owned()),
        NodeState::Failed => (Level::Error, status.detail.clone()),
    };
    (!text.is_empty()).then_some((level, text))
}

fn health_line(before: Option<&NodeStatus>, status: &NodeStatus) -> Option<(Level, String)> {
    if status.node.kind != Kind::Services {
        return None;
    }
    let health = status.health?;
    if before.and_then(|before| before.health) == Some(health) {
        return None;
    }
    match health {
        Status::Passing => Some((Level::Notice, "passing".to_owned())),
        Status::Warning => Some((Level::Warning, "warning".to_owned())),
        // One that was never seen to pass is not yet news.
        Status::Critical => before
            .and_then(|before| before.health)
            .map(|_| (Level::Warning, "critical".to_owned())),
    }
}
