//! The way of a text to its file: quiet, needs, validation, writing, and a reload command.

use super::backoff::verdict_delay;
use super::context::{Context, Level, Planned, detail, earliest, status, words};
use super::model::{Change, FileDiff, Gate, Item, NodeState, Note, Notes, Step};
use super::template::{
    TemplateState, Text, adoptable, candidate, candidates, telling, told, verdict_key, writes_soon,
};
use crate::graph::desired::{Need, ReloadNode, WorkloadNode};
use crate::planted::{self, Bug};
use crate::spec::model::Condition;
use crate::spec::node::{Kind, NodeId};
use crate::spec::time::Time;

/// The file is not there.
const ABSENT: &str = "not there";
/// It has another text.
const CHANGED: &str = "content changed";
/// There is no text yet.
const NOT_RENDERED: &str = "not rendered";
/// Who reads it was not told.
const NOT_TOLD: &str = "its reload command has not run for this content";

/// The reasons that quote nothing of what was read, or of what somebody said about it.
pub(super) const REASONS: [&str; 4] = [ABSENT, CHANGED, NOT_RENDERED, NOT_TOLD];

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
        Text::Unknown(on) | Text::Unasked(on) => waiting(id, state, on, level),
        Text::Failed(error) => failed(id, state, error.clone(), level),
        Text::Ready { text, hash, .. } => {
            if let Some(why) = state.foreign.as_ref().filter(|_| !adoptable(state)) {
                let path = state.node.destination.display();
                let error = match state.unreadable() {
                    Some(why) => format!("cannot look at `{path}`: {why}"),
                    None => format!(
                        "cannot write `{path}`: {why}; move it away or choose another `destination`"
                    ),
                };
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

/// A validator's words; one that says nothing is quoted with that.
fn said(output: &str) -> &str {
    match output.trim() {
        "" => "it says nothing",
        words => words,
    }
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
        reason: NOT_RENDERED.to_owned(),
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
    let quiet = quiet_at(context, state, hash);
    let mut item = Item {
        node: id.clone(),
        change: change_of(state),
        reason: if state.on_disk.is_some() {
            CHANGED
        } else {
            ABSENT
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
        item.gate = Gate::Waiting(vec![format!("{} of quiet", words(state.node.wait.min))]);
        return Planned {
            status: running,
            item: Some(item),
            level,
            wake: Some(quiet),
        };
    }
    let mut needs = lacking(context, id);
    needs.extend(busy_readers(context, state));
    if !needs.is_empty() {
        item.gate = Gate::Waiting(needs);
        return Planned {
            status: running,
            item: Some(item),
            level,
            wake: None,
        };
    }
    let validate = state.node.validate.as_ref();
    let Some(command) = validate.filter(|_| !planted::has(Bug::WriteBeforeValidate)) else {
        item.steps = write_steps(context, state);
        return Planned {
            status: running,
            item: Some(item),
            level,
            wake: None,
        };
    };
    judge(context, state, command, item, level)
}

/// The processes that are told when the file changes.
fn readers<'a>(context: &Context<'a>, state: &TemplateState<'_>) -> Vec<&'a WorkloadNode> {
    let reload = state.node.reload.as_ref();
    let process = reload.and_then(super::template::reload_process);
    process.map_or_else(Vec::new, |process| context.group_named(process))
}

/// Processes that read the file at this very moment, as far as anybody can tell: they are being
/// started or told. Which text they have read would be known to nobody if it changed now.
pub(super) fn busy_readers(context: &Context<'_>, state: &TemplateState<'_>) -> Vec<String> {
    let readers = readers(context, state).into_iter();
    readers
        .filter(|reader| context.is_busy(&reader.id))
        .map(|reader| format!("{} to have read it", reader.id))
        .collect()
}

/// When the text has been the same for long enough, or changing for too long.
pub(super) fn quiet_at(context: &Context<'_>, state: &TemplateState<'_>, hash: &str) -> Time {
    let memory = context.memory.templates.get(&state.node.name);
    let pending = memory.and_then(|memory| memory.pending.as_ref());
    let wait = state.node.wait;
    match pending {
        Some(pending) if pending.hash == hash => {
            (pending.last + wait.min).min(pending.first + wait.max)
        }
        Some(pending) => (context.now + wait.min).min(pending.first + wait.max),
        None => context.now + wait.min,
    }
}

/// What must be there before the file is written. That an instance is listed at all is no part
/// of it: the others serve meanwhile.
pub(super) fn lacking(context: &Context<'_>, id: &NodeId) -> Vec<String> {
    context.lacking_but(id, is_listing)
}

/// Whether a template needs something only because it lists it.
pub(super) fn is_listing(need: &Need) -> bool {
    need.on.kind == Kind::Services && need.condition == Condition::Started
}

/// Writes the file. Whoever read this text before has met another in its place meanwhile, and
/// may have read that too: it counts as untold again.
fn write_steps(context: &Context<'_>, state: &TemplateState<'_>) -> Vec<Step> {
    let Some(file) = candidate(context, state) else {
        return Vec::new();
    };
    let name = &state.node.name;
    let lives = readers(context, state).into_iter();
    let lives = lives.filter_map(|reader| context.current(&reader.id));
    let doubtful = lives.filter(|life| {
        state.on_disk != state.hash() && life.applied.get(name).map(String::as_str) == state.hash()
    });
    let mut steps: Vec<Step> = doubtful
        .map(|life| {
            let mut applied = life.applied.clone();
            applied.insert(name.clone(), String::new());
            Step::Note {
                life: life.id.clone(),
                note: Note::Applied(applied),
            }
        })
        .collect();
    steps.push(Step::Write(Box::new(file)));
    steps
}

/// Asks the validator, waits for it, believes it.
fn judge(
    context: &Context<'_>,
    state: &TemplateState<'_>,
    command: &[String],
    mut item: Item,
    level: Level,
) -> Planned {
    let id = item.node.clone();
    let candidates = candidates(context, state);
    let key = verdict_key(command, &candidates);
    let mut running = status(&id, NodeState::Starting, "has a new text");
    let mut wake = None;
    match context.memory.verdicts.get(&key) {
        Some(verdict) if verdict.accepted => item.steps = write_steps(context, state),
        verdict => {
            let again = verdict.map(|v| (v.at + verdict_delay(v.times), &v.output));
            if let Some((at, output)) = again {
                let error = format!(
                    "`{}` refuses the new text: {}",
                    command.join(" "),
                    said(output)
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
            let first = candidates.first().map(|first| &first.node.name);
            if first == Some(&state.node.name) {
                item.steps = vec![Step::Validate {
                    key,
                    command: command.to_vec(),
                    candidates: candidates
                        .iter()
                        .filter_map(|state| candidate(context, state))
                        .collect(),
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
        .filter_map(|other| {
            let telling = telling(other.node, command, other.hash()?);
            Some((other.node.name.clone(), telling))
        })
        .collect();
    let item = Item {
        node: id.clone(),
        change: Change::Change,
        reason: NOT_TOLD.to_owned(),
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
