//! Rendered files: what each would hold, whether it may, and what must be told.

use std::collections::BTreeMap;

use super::backoff::verdict_delay;
use super::context::{Context, Level, Planned, detail, earliest, status, words};
use super::model::{Change, FileDiff, Gate, Item, NewFile, NodeState, Notes, Step, mark};
use super::world::FileView;
use crate::graph::desired::{CheckNode, Node, ReadyNode, ReloadNode, TemplateNode};
use crate::spec::model::{Condition, WhenEmpty};
use crate::spec::node::{Kind, NodeId};
use crate::template::{Reads, Rendered, render};

/// What a template would hold now.
#[derive(Debug)]
pub(super) struct TemplateState<'a> {
    pub node: &'a TemplateNode,
    pub text: Text,
    /// The hash of the file, if it is there.
    pub on_disk: Option<&'a str>,
    /// It is there, and was not written by this stack or was edited since.
    pub foreign: Option<String>,
}

/// A rendering, or why there is none.
#[derive(Debug)]
pub(super) enum Text {
    /// The text and its hash.
    Ready {
        text: String,
        hash: String,
        reads: Reads,
    },
    /// Not before this: words that follow "waiting on".
    Unknown(String),
    /// It cannot be rendered.
    Failed(String),
    /// Files that are needed first.
    Lacks(std::collections::BTreeSet<std::path::PathBuf>),
}

impl TemplateState<'_> {
    /// The hash of the text, when there is one.
    pub fn hash(&self) -> Option<&str> {
        match &self.text {
            Text::Ready { hash, .. } => Some(hash),
            _ => None,
        }
    }

    /// The file holds what it should.
    pub fn written(&self) -> bool {
        self.hash().is_some() && self.hash() == self.on_disk && self.foreign.is_none()
    }
}

/// The process that a reload signals, if it is one.
pub(super) fn reload_process(reload: &ReloadNode) -> Option<&NodeId> {
    match reload {
        ReloadNode::Signal { process, .. } => Some(process),
        ReloadNode::Command(_) => None,
    }
}

/// Renders every template once.
pub(super) fn states<'a>(context: &Context<'a>) -> BTreeMap<&'a str, TemplateState<'a>> {
    context
        .desired
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::Template(template) => Some(template.as_ref()),
            _ => None,
        })
        .map(|node| (node.name.as_str(), state(context, node)))
        .collect()
}

fn state<'a>(context: &Context<'a>, node: &'a TemplateNode) -> TemplateState<'a> {
    let (on_disk, foreign) = match context.observed.files.get(&node.destination) {
        Some(FileView::File { hash, mark, .. }) => {
            let foreign = match mark {
                Some(mark) if mark.stack == context.desired.stack => None,
                Some(mark) => Some(format!("it belongs to stack `{}`", mark.stack)),
                None => Some("it was not written by hatchery".to_owned()),
            };
            (Some(hash.as_str()), foreign)
        }
        Some(FileView::Unreadable(why)) => (None, Some(why.clone())),
        Some(FileView::Missing) | None => (None, None),
    };
    TemplateState {
        node,
        text: text(context, node),
        on_disk,
        foreign,
    }
}

fn text(context: &Context<'_>, node: &TemplateNode) -> Text {
    let inputs = &context.observed.inputs;
    let source = match inputs.files.get(&node.source) {
        Some(Ok(source)) => source,
        Some(Err(error)) => return Text::Failed(error.clone()),
        None => return Text::Lacks([node.source.clone()].into()),
    };
    let name = node.source.display().to_string();
    match render(&name, source, &context.observed.catalog, inputs) {
        Err(error) => Text::Failed(match error.line {
            Some(line) => format!("cannot render `{name}` line {line}: {error}"),
            None => format!("cannot render `{name}`: {error}"),
        }),
        Ok(Rendered::Lacks(files)) => Text::Lacks(files),
        Ok(Rendered::Text { text, reads }) => {
            if let Some(wait) = unknown(context, node, &reads) {
                return Text::Unknown(wait);
            }
            let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
            Text::Ready { text, hash, reads }
        }
    }
}

/// The check that says when a workload is ready, if one does.
fn ready_check<'a>(context: &Context<'a>, target: &NodeId) -> Option<&'a CheckNode> {
    match context.desired.nodes.get(target)? {
        Node::Workload(workload) => match &workload.ready {
            ReadyNode::Check { check, .. } => Some(check),
            _ => None,
        },
        _ => None,
    }
}

/// Why a text that was rendered must not be believed yet.
fn unknown(context: &Context<'_>, node: &TemplateNode, reads: &Reads) -> Option<String> {
    let read = |service: &str| reads.catalog || reads.services.contains_key(service);
    let unchecked: Vec<&str> = context
        .desired
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::Endpoint(endpoint) if read(&endpoint.service) => Some(endpoint),
            _ => None,
        })
        .flat_map(|endpoint| {
            let ready = endpoint
                .target
                .as_ref()
                .and_then(|target| ready_check(context, target));
            endpoint.checks.iter().chain(ready)
        })
        .filter(|check| context.memory.unchecked.contains(&check.id))
        .map(|check| check.id.as_str())
        .collect();
    if let Some(first) = unchecked.first() {
        return Some(format!(
            "the first answer of check `{first}` after the adoption"
        ));
    }
    if node.when_empty == WhenEmpty::Render {
        return None;
    }
    let empty = reads.services.iter().find(|(_, count)| **count == 0)?.0;
    Some(format!("an instance of `{empty}` that passes"))
}

/// Whether telling about a departure is over: no template that reads `service` (any, for
/// `None`) has anything left to write or to tell. One that cannot render or was refused has nothing to tell either.
pub(super) fn settled(context: &Context<'_>, service: Option<&str>) -> bool {
    context.templates.values().all(|state| {
        let Text::Ready { reads, hash, .. } = &state.text else {
            return true;
        };
        if service.is_some_and(|service| !reads.catalog && !reads.services.contains_key(service)) {
            return true;
        }
        if state.foreign.is_some() || refused(context, state).is_some() {
            return true;
        }
        state.written() && told(context, state.node, hash)
    })
}

/// Whether everybody that reads the file has read this content.
fn told(context: &Context<'_>, node: &TemplateNode, hash: &str) -> bool {
    match &node.reload {
        None => true,
        Some(ReloadNode::Command(_)) => {
            context
                .memory
                .templates
                .get(&node.name)
                .and_then(|memory| memory.told.as_deref())
                == Some(hash)
        }
        Some(ReloadNode::Signal { process, .. }) => {
            context.group_named(process).iter().all(|workload| {
                context.current(&workload.id).is_none_or(|life| {
                    life.applied.get(&node.name).map(String::as_str) == Some(hash)
                })
            })
        }
    }
}

fn candidate(context: &Context<'_>, node: &TemplateNode, text: &str, hash: &str) -> NewFile {
    NewFile {
        path: node.destination.clone(),
        content: text.to_owned(),
        mode: node.mode,
        owner: node.owner.clone(),
        mark: Some(mark(&context.desired.stack, &node.name, hash)),
    }
}

fn verdict_key(command: &[String], candidates: &[NewFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for word in command {
        hasher.update(word.as_bytes()).update(&[0]);
    }
    for file in candidates {
        hasher
            .update(&[1])
            .update(file.path.as_os_str().as_encoded_bytes());
        hasher.update(&[0]).update(file.content.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The candidates that one validator is to see together: every template that shares it and
/// would change. When the whole set was refused, each is shown alone, beside the others' files.
fn candidates<'a>(context: &'a Context<'_>, state: &'a TemplateState<'_>) -> Vec<NewFile> {
    let all: Vec<NewFile> = context
        .templates
        .values()
        .filter(|other| other.node.validate == state.node.validate)
        .filter(|other| other.foreign.is_none() && !other.written())
        .filter_map(|other| match &other.text {
            Text::Ready { text, hash, .. } => Some(candidate(context, other.node, text, hash)),
            _ => None,
        })
        .collect();
    let set_refused = state.node.validate.as_ref().is_some_and(|command| {
        let verdict = context.memory.verdicts.get(&verdict_key(command, &all));
        verdict.is_some_and(|verdict| !verdict.accepted)
    });
    if set_refused && all.len() > 1 {
        return all
            .into_iter()
            .filter(|file| file.path == state.node.destination)
            .collect();
    }
    all
}

/// What the validator said against this text, if it did.
fn refused<'a>(context: &'a Context<'_>, state: &TemplateState<'_>) -> Option<&'a str> {
    let command = state.node.validate.as_ref()?;
    let key = verdict_key(command, &candidates(context, state));
    let verdict = context.memory.verdicts.get(&key)?;
    (!verdict.accepted).then_some(verdict.output.as_str())
}

/// Plans one template.
pub(super) fn plan(context: &Context<'_>, id: &NodeId, notes: &mut Notes) -> Option<Planned> {
    let state = context.templates.get(id.name.as_str())?;
    let memory = context.memory.templates.get(&id.name);
    let serves = state.on_disk.is_some() && state.foreign.is_none();
    let good = memory.is_some_and(|memory| memory.good);
    let level = if serves && (good || state.written()) {
        Level::FULL
    } else {
        Level::default()
    };
    let planned = match &state.text {
        Text::Lacks(files) => {
            notes.lacks.extend(files.iter().cloned());
            waiting(id, state, "its input files", level)
        }
        Text::Unknown(on) => waiting(id, state, on, level),
        Text::Failed(error) => failed(id, state, error.clone(), level),
        Text::Ready { text, hash, .. } => {
            if let Some(why) = state.foreign.as_ref().filter(|_| !adoptable(state)) {
                let path = state.node.destination.display();
                let error = format!(
                    "cannot write `{path}`: {why}; move it away or choose another `destination`"
                );
                failed(id, state, error, level)
            } else if state.written() {
                notes.good.insert(id.name.clone());
                tell(context, id, state, hash, level)
            } else {
                notes.pending.insert(id.name.clone(), hash.clone());
                write(context, id, state, text, hash, level)
            }
        }
    };
    Some(planned)
}

/// A file of somebody else with exactly our text is taken over.
fn adoptable(state: &TemplateState<'_>) -> bool {
    state.on_disk.is_some() && state.hash() == state.on_disk
}

fn change_of(state: &TemplateState<'_>) -> Change {
    if state.on_disk.is_some() {
        Change::Change
    } else {
        Change::Add
    }
}

/// There is no text yet. Where a good file serves, nothing is outstanding.
fn waiting(id: &NodeId, state: &TemplateState<'_>, on: &str, level: Level) -> Planned {
    if state.on_disk.is_some() && state.foreign.is_none() {
        let detail = format!("keeps the last good file; waiting on {on}");
        return Planned::idle(status(id, NodeState::Running, detail), level);
    }
    let item = Item {
        node: id.clone(),
        change: change_of(state),
        reason: "not rendered".to_owned(),
        gate: Gate::Waiting(vec![on.to_owned()]),
        steps: Vec::new(),
        details: vec![detail("destination", state.node.destination.display())],
        diff: Some(FileDiff {
            path: state.node.destination.clone(),
            old: None,
            new: None,
            unknown: Some(format!("known after {on}")),
        }),
    };
    Planned {
        status: status(id, NodeState::Waiting, format!("waiting on {on}")),
        item: Some(item),
        level,
        wake: None,
    }
}

fn failed(id: &NodeId, state: &TemplateState<'_>, error: String, level: Level) -> Planned {
    let item = Item {
        node: id.clone(),
        change: change_of(state),
        reason: error.clone(),
        gate: Gate::Blocked(error.clone()),
        steps: Vec::new(),
        details: vec![detail("destination", state.node.destination.display())],
        diff: None,
    };
    Planned {
        status: status(id, NodeState::Failed, error),
        item: Some(item),
        level,
        wake: None,
    }
}

fn write(
    context: &Context<'_>,
    id: &NodeId,
    state: &TemplateState<'_>,
    text: &str,
    hash: &str,
    level: Level,
) -> Planned {
    let pending = context
        .memory
        .templates
        .get(&id.name)
        .and_then(|m| m.pending.as_ref());
    let wait = state.node.wait;
    let quiet = match pending {
        Some(pending) if pending.hash == hash => {
            (pending.last + wait.min).min(pending.first + wait.max)
        }
        Some(pending) => (context.now + wait.min).min(pending.first + wait.max),
        None => context.now + wait.min,
    };
    let mut item = Item {
        node: id.clone(),
        change: change_of(state),
        reason: if state.on_disk.is_some() {
            "content changed"
        } else {
            "not there"
        }
        .to_owned(),
        gate: Gate::Ready,
        steps: Vec::new(),
        details: vec![detail("destination", state.node.destination.display())],
        diff: Some(FileDiff {
            path: state.node.destination.clone(),
            old: None,
            new: Some(text.to_owned()),
            unknown: None,
        }),
    };
    let running = status(id, NodeState::Starting, "has a new text");
    if context.now < quiet {
        item.gate = Gate::Waiting(vec![format!("a quiet {}", words(wait.min))]);
        return Planned {
            status: running,
            item: Some(item),
            level,
            wake: Some(quiet),
        };
    }
    let needs = lacking(context, id);
    if !needs.is_empty() {
        item.gate = Gate::Waiting(needs);
        return Planned {
            status: running,
            item: Some(item),
            level,
            wake: None,
        };
    }
    let file = candidate(context, state.node, text, hash);
    let Some(command) = &state.node.validate else {
        item.steps = vec![Step::Write(Box::new(file))];
        return Planned {
            status: running,
            item: Some(item),
            level,
            wake: None,
        };
    };
    judge(context, state, command, file, item, level)
}

/// What must be there before the file is written. That an instance is listed at all is no part
/// of it: the others serve meanwhile.
fn lacking(context: &Context<'_>, id: &NodeId) -> Vec<String> {
    let listed: Vec<String> = context
        .desired
        .needs
        .get(id)
        .into_iter()
        .flatten()
        .filter(|need| need.on.kind == Kind::Services && need.condition == Condition::Started)
        .map(|need| need.on.to_string())
        .collect();
    context
        .lacking(id)
        .into_iter()
        .filter(|lack| !listed.contains(lack))
        .collect()
}

/// Asks the validator, waits for it, believes it.
fn judge(
    context: &Context<'_>,
    state: &TemplateState<'_>,
    command: &[String],
    file: NewFile,
    mut item: Item,
    level: Level,
) -> Planned {
    let id = item.node.clone();
    let candidates = candidates(context, state);
    let key = verdict_key(command, &candidates);
    let mut running = status(&id, NodeState::Starting, "has a new text");
    let mut wake = None;
    match context.memory.verdicts.get(&key) {
        Some(verdict) if verdict.accepted => item.steps = vec![Step::Write(Box::new(file))],
        verdict => {
            let again = verdict.map(|v| (v.at + verdict_delay(v.times), &v.output));
            if let Some((at, output)) = again {
                let error = format!(
                    "`{}` refuses the new text: {}",
                    command.join(" "),
                    output.trim()
                );
                running = status(&id, NodeState::Failed, error.clone());
                item.reason = error.clone();
                if context.now < at {
                    item.gate = Gate::Blocked(error);
                    return Planned {
                        status: running,
                        item: Some(item),
                        level,
                        wake: Some(at),
                    };
                }
            }
            // One template asks for all that share the validator; the others wait for it.
            let first = candidates.first().map(|first| &first.path);
            if first == Some(&state.node.destination) {
                item.steps = vec![Step::Validate {
                    key,
                    command: command.to_vec(),
                    candidates,
                }];
            } else {
                item.gate = Gate::Waiting(vec!["the validation of all that share it".to_owned()]);
                wake = earliest(wake, again.map(|(at, _)| at));
            }
        }
    }
    Planned {
        status: running,
        item: Some(item),
        level,
        wake,
    }
}

/// The file is right. What is left is a reload command; processes are told by their own plan.
fn tell(
    context: &Context<'_>,
    id: &NodeId,
    state: &TemplateState<'_>,
    hash: &str,
    level: Level,
) -> Planned {
    let done = Planned::idle(status(id, NodeState::Running, ""), level);
    let Some(ReloadNode::Command(command)) = &state.node.reload else {
        return done;
    };
    if told(context, state.node, hash) {
        return done;
    }
    // All templates with this very command are told about at once, by the first of them.
    let sharing: Vec<&TemplateState<'_>> = context
        .templates
        .values()
        .filter(|other| other.node.reload == state.node.reload)
        .collect();
    let first = sharing.iter().find(|other| {
        other.written()
            && other
                .hash()
                .is_some_and(|hash| !told(context, other.node, hash))
    });
    if first.is_none_or(|first| first.node.name != id.name) {
        return done;
    }
    let unsettled = sharing.iter().any(|other| writes_soon(context, other));
    let applied = sharing
        .iter()
        .filter(|other| other.written())
        .filter_map(|other| Some((other.node.name.clone(), other.hash()?.to_owned())))
        .collect();
    let item = Item {
        node: id.clone(),
        change: Change::Change,
        reason: "its reload command has not run for this content".to_owned(),
        gate: if unsettled {
            Gate::Waiting(vec!["the other templates that share the reload".to_owned()])
        } else {
            Gate::Ready
        },
        steps: if unsettled {
            Vec::new()
        } else {
            vec![Step::ReloadCommand {
                command: command.clone(),
                dir: context.desired.spec_dir.clone(),
                applied,
            }]
        },
        details: vec![detail("reload", command.join(" "))],
        diff: None,
    };
    Planned {
        status: status(id, NodeState::Running, "reload is due"),
        item: Some(item),
        level,
        wake: None,
    }
}

/// A new text is on its way to the file, and nothing stands against it.
pub(super) fn writes_soon(context: &Context<'_>, state: &TemplateState<'_>) -> bool {
    matches!(state.text, Text::Ready { .. })
        && !state.written()
        && state.foreign.is_none()
        && refused(context, state).is_none()
}

/// What each template's file holds that this process reads.
pub(super) fn files_of(
    context: &Context<'_>,
    process: &crate::graph::desired::WorkloadNode,
) -> BTreeMap<String, String> {
    context
        .reloads_of(process)
        .into_iter()
        .filter_map(|template| {
            let state = context.templates.get(template.name.as_str())?;
            Some((template.name.clone(), state.on_disk?.to_owned()))
        })
        .collect()
}
