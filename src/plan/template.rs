//! Rendered files: what each would hold, whether it may, and what must be told.

use std::collections::BTreeMap;

use super::context::Context;
use super::model::{NewFile, mark};
use super::render;
use super::world::FileView;
use crate::graph::desired::{CheckNode, Node, ReadyNode, ReloadNode, TemplateNode};
use crate::spec::model::WhenEmpty;
use crate::spec::node::{Kind, NodeId};
use crate::template::{self, Ground, Reads, Rendered};

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
    /// Nobody can tell before this: a controller that has just begun does not know yet.
    Unasked(String),
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

    /// Why the file cannot be looked at, if it cannot.
    pub fn unreadable(&self) -> Option<&str> {
        self.foreign.as_deref().filter(|_| self.on_disk.is_none())
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
    let catalog = &context.observed.catalog;
    let known = node
        .text
        .known(|ground| ground.holds(source, catalog, inputs));
    if let Some(known) = known {
        return usable(context, node, &known);
    }
    let name = node.source.display().to_string();
    match template::render(&name, source, catalog, inputs) {
        Err(error) => Text::Failed(match error.line {
            Some(line) => format!("cannot render `{name}` line {line}: {error}"),
            None => format!("cannot render `{name}`: {error}"),
        }),
        Ok(Rendered::Lacks(files)) => Text::Lacks(files),
        Ok(Rendered::Text { text, reads }) => {
            let ground = Ground::new(source, catalog, inputs, &reads);
            let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
            let text = template::Text { text, hash, reads };
            usable(context, node, &node.text.remember(ground, text))
        }
    }
}

/// What was rendered, unless it is not to be believed yet.
fn usable(context: &Context<'_>, node: &TemplateNode, rendered: &template::Text) -> Text {
    let template::Text { text, hash, reads } = rendered.clone();
    if let Some(wait) = unasked(context, node, &reads) {
        return Text::Unasked(wait);
    }
    if node.when_empty == WhenEmpty::Keep
        && let Some((empty, _)) = reads.services.iter().find(|(_, count)| **count == 0)
    {
        return Text::Unknown(format!("an instance of `{empty}` that passes"));
    }
    Text::Ready { text, hash, reads }
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

/// What a controller that has just begun does not know yet: how the instances stand that it
/// found running.
fn unasked(context: &Context<'_>, node: &TemplateNode, reads: &Reads) -> Option<String> {
    let read = |service: &str| reads.catalog || reads.services.contains_key(service);
    let endpoints = context
        .desired
        .nodes
        .values()
        .filter_map(|node| match node {
            Node::Endpoint(endpoint) if read(&endpoint.service) => Some(endpoint),
            _ => None,
        });
    let memory = context.memory.templates.get(&node.name);
    let good = memory.is_some_and(|memory| memory.good);
    if good && context.memory.unchecked.is_empty() {
        return None;
    }
    for endpoint in endpoints {
        let target = endpoint.target.as_ref();
        if target.is_some_and(|target| context.current(target).is_some() && !context.stays(target))
        {
            // It is on its way out: nobody asks it any more, and nobody is to wait for it.
            continue;
        }
        let ready = target.and_then(|target| ready_check(context, target));
        let mut checks = endpoint.checks.iter().chain(ready);
        if let Some(check) = checks.find(|check| context.memory.unchecked.contains(&check.id)) {
            return Some(format!("the first answer of check `{}`", check.id));
        }
        let id = &endpoint.service_id;
        let up = target.is_none_or(|target| context.stays(target));
        if !good && up && !context.observed.registered.contains_key(id) {
            return Some(format!("the registration of `{id}`"));
        }
    }
    None
}

/// Whether telling about a departure is over: no template has anything left to write or to tell.
/// What a file lists until then is known to nobody: its source may have changed as well.
pub(super) fn settled(context: &Context<'_>) -> bool {
    context.unsettled().is_empty()
}

/// The templates that have something left to write or to tell. One that cannot render or was
/// refused has nothing to write; one that is not yet asked for has.
pub(super) fn unsettled<'a>(context: &Context<'a>) -> Vec<&'a str> {
    let states = context.templates.iter();
    let unsettled = states.filter(|(_, state)| match &state.text {
        _ if unread(context, state) => true,
        Text::Unknown(_) | Text::Failed(_) => false,
        Text::Unasked(_) | Text::Lacks(_) => true,
        Text::Ready { hash, .. } => {
            // Nobody knows what one lists that cannot be looked at.
            state.unreadable().is_some()
                || state.foreign.is_none()
                    && refused(context, state).is_none()
                    && !(state.written() && told(context, state.node, hash))
        }
    });
    unsettled.map(|(name, _)| *name).collect()
}

/// Whether a process has yet to read what its file holds, whatever is to become of that.
fn unread(context: &Context<'_>, state: &TemplateState<'_>) -> bool {
    let reload = state.node.reload.as_ref();
    state.foreign.is_none()
        && reload.and_then(reload_process).is_some()
        && state
            .on_disk
            .is_some_and(|hash| !told(context, state.node, hash))
}

/// Whether everybody that reads the file has read this content.
pub(super) fn told(context: &Context<'_>, node: &TemplateNode, hash: &str) -> bool {
    match &node.reload {
        None => true,
        Some(ReloadNode::Command(command)) => {
            let memory = context.memory.templates.get(&node.name);
            let told = memory.and_then(|memory| memory.told.as_deref());
            told.is_some_and(|told| told == telling(node, command, hash))
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

/// What is remembered of a reload command that was run for this content: another command, or
/// another place, has been told nothing yet.
pub(super) fn telling(node: &TemplateNode, command: &[String], hash: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for word in command {
        hasher.update(word.as_bytes()).update(&[0]);
    }
    let path = node.destination.as_os_str().as_encoded_bytes();
    hasher.update(&[1]).update(path);
    hasher.update(&[0]).update(hash.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The file that a template would become; `None` while it has no text.
pub(super) fn candidate(context: &Context<'_>, state: &TemplateState<'_>) -> Option<NewFile> {
    let Text::Ready { text, hash, .. } = &state.text else {
        return None;
    };
    let node = state.node;
    Some(NewFile {
        path: node.destination.clone(),
        content: text.to_owned(),
        mode: node.mode,
        owner: node.owner.clone(),
        mark: Some(mark(&context.desired.stack, &node.name, hash)),
    })
}

/// What a verdict is remembered by: the command, and every candidate's place and text.
pub(super) fn verdict_key(command: &[String], candidates: &[&TemplateState<'_>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for word in command {
        hasher.update(word.as_bytes()).update(&[0]);
    }
    for state in candidates {
        let path = state.node.destination.as_os_str().as_encoded_bytes();
        let hash = state.hash().unwrap_or_default();
        hasher.update(&[1]).update(path);
        hasher.update(&[0]).update(hash.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// A file of somebody else with exactly our text is taken over.
pub(super) fn adoptable(state: &TemplateState<'_>) -> bool {
    state.on_disk.is_some() && state.hash() == state.on_disk
}

/// The candidates that one validator is to see together: every template that shares it and is
/// about to change. When the whole set was refused, each is shown alone, beside the others'
/// files.
pub(super) fn candidates<'a, 'd>(
    context: &'a Context<'d>,
    state: &TemplateState<'_>,
) -> Vec<&'a TemplateState<'d>> {
    let all: Vec<&TemplateState<'_>> = context
        .templates
        .values()
        .filter(|other| other.node.validate == state.node.validate)
        .filter(|other| (other.foreign.is_none() || adoptable(other)) && !other.written())
        .filter(|other| other.node.name == state.node.name || due(context, other))
        .filter(|other| matches!(other.text, Text::Ready { .. }))
        .collect();
    let set_refused = state.node.validate.as_ref().is_some_and(|command| {
        let verdict = context.memory.verdicts.get(&verdict_key(command, &all));
        verdict.is_some_and(|verdict| !verdict.accepted)
    });
    if set_refused && all.len() > 1 {
        return all
            .into_iter()
            .filter(|other| other.node.name == state.node.name)
            .collect();
    }
    all
}

/// What the validator said against this text, if it did.
pub(super) fn refused<'a>(context: &'a Context<'_>, state: &TemplateState<'_>) -> Option<&'a str> {
    // What is in place was accepted, whatever is said of others that share the validator.
    let command = state.node.validate.as_ref().filter(|_| !state.written())?;
    let key = verdict_key(command, &candidates(context, state));
    let verdict = context.memory.verdicts.get(&key)?;
    (!verdict.accepted).then_some(verdict.output.as_str())
}

/// Whether a text was quiet for long enough and has all that it needs.
fn due(context: &Context<'_>, state: &TemplateState<'_>) -> bool {
    let Some(hash) = state.hash() else {
        return false;
    };
    let id = NodeId::new(Kind::Templates, state.node.name.clone());
    render::quiet_at(context, state, hash) <= context.now
        && render::lacking(context, &id).is_empty()
}

/// A new text is on its way to the file, and nothing stands against it.
pub(super) fn writes_soon(context: &Context<'_>, state: &TemplateState<'_>) -> bool {
    let id = NodeId::new(Kind::Templates, state.node.name.clone());
    let attempt = context.memory.attempts.get(&id);
    matches!(state.text, Text::Ready { .. })
        && !state.written()
        && state.foreign.is_none()
        && attempt.is_none_or(|attempt| attempt.running || attempt.error.is_none())
        && render::lacking(context, &id).is_empty()
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
