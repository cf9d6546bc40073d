//! One node's whole story: what the spec wants of it, what is there, what stands between the
//! two, and what came before.

mod text;
mod there;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::text::text;
use super::backoff::restart_delay;
use super::context::{Context, detail, words};
use super::memory::Memory;
use super::model::{Detail, FileDiff, NodeState, NodeStatus, Plan};
use super::start;
use super::view::ItemView;
use super::workload::{exit_words, is_ready, names, specified};
use super::world::{Exit, Life, LifeState, Observed};
use crate::graph::desired::{CheckNode, Desired, Node, ProbeNode, ReadyNode, WorkloadNode};
use crate::spec::model::{Condition, Status};
use crate::spec::node::NodeId;
use crate::spec::suggest::nearest;
use crate::spec::time::Time;

/// The version of [`Explanation`]'s JSON form.
pub const VERSION: u32 = 1;

/// What each check said last, by its id.
pub type Answers = BTreeMap<String, (Status, String)>;

/// The stories of all nodes that a name stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The version of this form; 1.
    pub format_version: u32,
    /// The stack.
    pub stack: String,
    /// One for each node, in start order.
    pub nodes: Vec<Story>,
}

/// One node's story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// How it stands.
    pub status: NodeStatus,
    /// What the spec wants of it; empty when it left the spec.
    pub wanted: Vec<Detail>,
    /// What it needs before it starts.
    pub needs: Vec<NeedStory>,
    /// What needs it.
    pub needed_by: Vec<NodeId>,
    /// Its lives, the oldest first.
    pub lives: Vec<LifeStory>,
    /// What else is there: links, files, registrations.
    pub there: Vec<Detail>,
    /// Its checks, and those of what it serves.
    pub checks: Vec<CheckStory>,
    /// What would be done, and what that waits for.
    pub action: Option<ItemView>,
    /// How long it waits already.
    pub waiting_for: Option<Duration>,
    /// What came before.
    pub past: Past,
    /// The last lines of its log; whoever shows the story adds them.
    pub log: Vec<String>,
}

/// One need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedStory {
    /// What must come first.
    pub on: NodeId,
    /// How far it must be.
    pub condition: Condition,
    /// Whether it is so far.
    pub met: bool,
}

/// One life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeStory {
    /// Which.
    pub incarnation: u64,
    /// "running", "starting", "ending", "exited 1".
    pub state: String,
    /// Its main process.
    pub pid: Option<i32>,
    /// How long ago it began.
    pub age: Duration,
    /// The fields in which it is not what the spec wants; values are short hashes, because
    /// they may hold secrets.
    pub differences: Vec<Detail>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStory {
    /// Its id in the registry.
    pub id: String,
    /// What it asks.
    pub asks: String,
    /// How it stands; `None` when it was not asked yet, or no controller runs.
    pub status: Option<Status>,
    /// What it said last.
    pub output: Option<String>,
}

/// What came before, as far as the controller remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// How it ended last.
    pub last_exit: Option<String>,
    /// How long ago.
    pub last_exit_ago: Option<Duration>,
    /// That end was asked for.
    pub asked: bool,
    /// The ends before that, the newest first, in words.
    #[serde(default)]
    pub earlier_exits: Vec<String>,
    /// Failures in a row.
    pub failures: u32,
    /// Failures that `restart.window` counts.
    pub failures_in_window: Option<usize>,
    /// Restarts after an exit.
    pub restarts: u32,
    /// How long until it is tried again.
    pub next_try_in: Option<Duration>,
    /// Actions on it that failed, in a row.
    pub failed_attempts: u32,
    /// Why the last one failed, in full.
    pub last_error: Option<String>,
}

/// Tells the stories of all that `name` stands for: a node, its name alone, a group, or the id
/// of an endpoint.
///
/// # Errors
/// When nothing is called so.
pub fn explain(
    desired: &Desired,
    observed: &Observed,
    memory: &Memory,
    now: Time,
    answers: &Answers,
    name: &str,
) -> Result<Explanation, String> {
    let mut context = Context::new(desired, observed, memory, now);
    let plan = super::survey(&mut context);
    let chosen = chosen(&context, &plan, name)?;
    let stories = chosen
        .into_iter()
        .map(|status| story(&context, &plan, answers, status));
    Ok(Explanation {
        format_version: VERSION,
        stack: desired.stack.clone(),
        nodes: stories.collect(),
    })
}

fn chosen<'a>(
    context: &Context<'_>,
    plan: &'a Plan,
    name: &str,
) -> Result<Vec<&'a NodeStatus>, String> {
    let exact: Vec<&NodeStatus> = plan
        .nodes
        .iter()
        .filter(|status| status.node.to_string() == name)
        .collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let meant = |id: &NodeId| match context.desired.nodes.get(id) {
        Some(Node::Workload(workload)) => names(workload, name),
        Some(Node::Endpoint(endpoint)) => {
            let service = name.strip_prefix("services/").unwrap_or(name);
            endpoint.service == service || endpoint.service_id == name
        }
        _ => id.name == name,
    };
    let found: Vec<&NodeStatus> = plan.nodes.iter().filter(|s| meant(&s.node)).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let known: Vec<String> = plan
        .nodes
        .iter()
        .flat_map(|status| [status.node.to_string(), status.node.name.clone()])
        .collect();
    let near = nearest(name, known.iter().map(String::as_str));
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`hatchery ps` lists what there is".to_owned(),
    };
    let stack = &context.desired.stack;
    Err(format!(
        "stack `{stack}` has nothing called `{name}`; {hint}"
    ))
}

fn story(context: &Context<'_>, plan: &Plan, answers: &Answers, status: &NodeStatus) -> Story {
    let id = &status.node;
    let needs = context.desired.needs.get(id).into_iter().flatten();
    let action = plan.items.iter().find(|item| item.node == *id);
    let since = context.memory.waiting.get(id);
    Story {
        status: status.clone(),
        wanted: wanted(context, id),
        needs: needs
            .map(|need| NeedStory {
                on: need.on.clone(),
                condition: need.condition,
                met: context.level_for(id, &need.on).reaches(need.condition),
            })
            .collect(),
        needed_by: context
            .desired
            .needs
            .iter()
            .filter(|(_, needs)| needs.iter().any(|need| need.on == *id))
            .map(|(node, _)| node.clone())
            .collect(),
        lives: context
            .lives(id)
            .iter()
            .map(|life| life_story(context, life))
            .collect(),
        there: there::there(context, id),
        checks: checks(context, id, answers),
        waiting_for: action.and(since).map(|since| context.now.since(*since)),
        action: action.map(|item| ItemView {
            // A difference of files is what `plan` shows.
            diff: item.diff.as_ref().map(|diff| FileDiff {
                new: None,
                ..diff.clone()
            }),
            ..ItemView::new(item)
        }),
        past: past(context, status),
        log: Vec::new(),
    }
}

fn wanted(context: &Context<'_>, id: &NodeId) -> Vec<Detail> {
    let mut details = Vec::new();
    let mut say = |name: &str, value: String| details.push(detail(name, value));
    match context.desired.nodes.get(id) {
        None | Some(Node::Check) => {}
        Some(Node::Registry(registry)) => say(
            "listens",
            registry
                .http
                .map_or("in process only".to_owned(), |http| http.to_string()),
        ),
        Some(Node::Network(network)) => {
            say("bridge", network.bridge.clone());
            say("subnet", network.subnet.to_string());
            say("gateway", network.gateway.to_string());
        }
        Some(Node::Workload(workload)) => {
            details = start::attributes(workload);
            details.extend(also_wanted(workload));
        }
        Some(Node::Endpoint(endpoint)) => {
            say("service", endpoint.service.clone());
            say("address", format!("{}:{}", endpoint.address, endpoint.port));
            if let Some(target) = &endpoint.target {
                say("target", target.to_string());
            }
        }
        Some(Node::Template(template)) => {
            say("source", template.source.display().to_string());
            say("destination", template.destination.display().to_string());
            if !template.reads.is_empty() {
                say("reads", template.reads.join(", "));
            }
            if let Some(validate) = &template.validate {
                say("validate", validate.join(" "));
            }
        }
    }
    details
}

fn also_wanted(workload: &WorkloadNode) -> Vec<Detail> {
    let mut details = Vec::new();
    if !workload.run.environment.is_empty() {
        let names: Vec<&str> = workload
            .run
            .environment
            .keys()
            .map(String::as_str)
            .collect();
        // Their values may be secrets.
        details.push(detail("environment", names.join(", ")));
    }
    for path in &workload.watch {
        details.push(detail("watch", path.display()));
    }
    let ready = match &workload.ready {
        ReadyNode::Started => "once it runs".to_owned(),
        ReadyNode::Notify { .. } => "at its READY=1".to_owned(),
        ReadyNode::Check { check, .. } => format!("when {} passes", asks(check)),
    };
    details.push(detail("ready", ready));
    details
}

fn asks(check: &CheckNode) -> String {
    match &check.probe {
        ProbeNode::Http { method, .. } => format!("http {method} `{}`", check.name),
        ProbeNode::Tcp(address) => format!("tcp {address}"),
        ProbeNode::Exec { command, .. } => format!("exec {}", command.join(" ")),
        ProbeNode::Ttl(ttl) => format!("a heartbeat every {}", words(*ttl)),
    }
}

fn life_story(context: &Context<'_>, life: &Life) -> LifeStory {
    let node = match context.desired.nodes.get(&life.id.node) {
        Some(Node::Workload(workload)) => Some(workload),
        _ => None,
    };
    let wanted = node.and_then(|node| specified(context, node, Some(life)).ok());
    let differences = wanted.map_or_else(Vec::new, |wanted| {
        life.identity
            .differences(&wanted)
            .into_iter()
            .map(|field| Detail {
                name: field.to_owned(),
                old: life.identity.fields().get(field).cloned(),
                new: wanted.fields().get(field).cloned(),
            })
            .collect()
    });
    let ended = matches!(life.state, LifeState::Ended { .. });
    let state = match &life.state {
        LifeState::Up if node.is_some_and(|node| !is_ready(context, node, life)) => {
            "starting".to_owned()
        }
        LifeState::Up => "running".to_owned(),
        LifeState::Ending => "ending".to_owned(),
        LifeState::Ended { exit, .. } => exit_words(*exit),
    };
    LifeStory {
        incarnation: life.id.incarnation,
        state,
        pid: Some(life.main_pid).filter(|pid| *pid > 0 && !ended),
        age: context.now.since(life.started),
        differences,
    }
}

/// The checks of an endpoint, and of everything that a workload serves.
fn checks(context: &Context<'_>, id: &NodeId, answers: &Answers) -> Vec<CheckStory> {
    let mut asked: Vec<&CheckNode> = Vec::new();
    match context.desired.nodes.get(id) {
        Some(Node::Endpoint(endpoint)) => asked.extend(&endpoint.checks),
        Some(Node::Workload(workload)) => {
            if let ReadyNode::Check { check, .. } = &workload.ready {
                asked.push(check);
            }
            let served = context.endpoints(id).iter();
            asked.extend(served.flat_map(|endpoint| &endpoint.checks));
        }
        _ => {}
    }
    asked
        .into_iter()
        .map(|check| {
            let answer = answers.get(&check.id);
            CheckStory {
                id: check.id.clone(),
                asks: asks(check),
                status: answer.map(|(status, _)| *status),
                output: answer.map(|(_, output)| output.clone()),
            }
        })
        .collect()
}

/// "exited 1 3s ago", in full.
fn ended(exit: Exit, ago: Duration, asked: bool) -> String {
    let asked = if asked { ", as it was asked to" } else { "" };
    format!("{} {} ago{asked}", exit_words(exit), words(ago))
}

fn past(context: &Context<'_>, status: &NodeStatus) -> Past {
    let id = &status.node;
    let mut past = Past::default();
    if let Some(attempt) = context.memory.attempts.get(id) {
        past.failed_attempts = attempt.failures;
        past.last_error = attempt.error.as_ref().map(|(_, error)| error.clone());
        if attempt.error.is_some() && !attempt.running {
            past.next_try_in = Some(attempt.retry_at.since(context.now));
        }
    }
    let Some(memory) = context.memory.workloads.get(id) else {
        return past;
    };
    past.failures = memory.failures;
    past.restarts = memory.restarts;
    if let Some(last) = memory.last_exit {
        past.last_exit = Some(exit_words(last.exit));
        past.last_exit_ago = Some(context.now.since(last.at));
        past.asked = last.asked;
    }
    let earlier = memory.earlier_exits.iter();
    past.earlier_exits = earlier
        .map(|exit| ended(exit.exit, context.now.since(exit.at), exit.asked))
        .collect();
    if let Some(Node::Workload(workload)) = context.desired.nodes.get(id) {
        past.failures_in_window = workload.restart.window.map(|_| memory.failed_at.len());
        if let (NodeState::Backoff, Some(last)) = (status.state, memory.last_exit) {
            let at = last.at + restart_delay(&workload.restart, id, memory.failures.max(1));
            past.next_try_in = Some(at.since(context.now));
        }
    }
    past
}
