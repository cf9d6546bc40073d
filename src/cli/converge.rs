//! Waits until a stack converged, and tells meanwhile what happens.

use std::time::{Duration, Instant};

use super::error::CommandError;
use super::listening::Listening;
use super::narrator::Narrator;
use crate::plan::model::NodeState;
use crate::reconcile::handle::{EventKind, Happening, StackStatus};
use crate::spec::model::Status;
use crate::spec::node::Kind;

/// How often it is asked how things stand.
const TICK: Duration = Duration::from_millis(150);
/// What failed, and nothing moved for so long, will not converge by itself soon.
const STUCK: Duration = Duration::from_secs(10);
/// As long as something may still come up by itself, however quiet it is.
const QUIET: Duration = Duration::from_secs(60);

/// Returns once generation `generation`, or a later one, converged.
///
/// # Errors
/// When something failed and nothing else moves, when the stack went back to an earlier
/// generation by itself, or when the controller ended.
pub async fn converge(
    listening: &mut Listening,
    narrator: &mut Narrator,
    generation: u64,
) -> Result<(), CommandError> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stuck_since: Option<Instant> = None;
    let mut went_back: Option<String> = None;
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => {
                let status = listening.status().await.ok_or_else(ended)?;
                if status.generation >= generation && is_done(&status) {
                    for happening in listening.rest().await {
                        note(&happening, &mut went_back);
                        narrator.tell(&happening);
                    }
                    narrator.show(&status);
                    if !status.converged {
                        let words = "the applied plan is carried out; what else is outstanding \
                                     waits for another `apply`";
                        narrator.say(words);
                    } else if !narrator.said_converged() {
                        let words = format!("converged: {} nodes", status.nodes.len());
                        narrator.say(&words);
                    }
                    return went_back.map_or(Ok(()), |why| Err(CommandError::new(why)));
                }
                narrator.show(&status);
                let limit = patience(&status);
                let since = stuck_since.get_or_insert_with(Instant::now);
                match limit {
                    None => stuck_since = None,
                    Some(limit) if since.elapsed() >= limit => {
                        narrator.clear();
                        return Err(failed(&status));
                    }
                    Some(_) => {}
                }
            }
            happening = listening.next() => {
                stuck_since = None;
                let happening = happening.ok_or_else(ended)?;
                note(&happening, &mut went_back);
                narrator.tell(&happening);
            }
        }
    }
}

/// What converges in the end is not what was asked for once the stack went back.
fn note(happening: &Happening, went_back: &mut Option<String>) {
    if happening.kind == EventKind::RolledBack {
        *went_back = Some(happening.text.clone());
    }
}

/// Whether nothing is left to wait for: it converged, or all that is outstanding is not in the
/// plan that was applied.
fn is_done(status: &StackStatus) -> bool {
    let left = status.outstanding.len();
    status.converged || (left > 0 && status.withheld == Some(left) && patience(status).is_some())
}

fn ended() -> CommandError {
    CommandError::new("the controller ended before the stack converged")
        .hint("what it said last is in `controller.log` in the stack's log folder")
}

/// How long this may go on without anything happening; `None` while something is on its way.
fn patience(status: &StackStatus) -> Option<Duration> {
    let any = |states: &[NodeState]| status.nodes.iter().any(|node| states.contains(&node.state));
    let moving = [NodeState::Starting, NodeState::Stopping, NodeState::Backoff];
    if any(&moving) {
        None
    } else if any(&[NodeState::Failed]) {
        Some(STUCK)
    } else {
        Some(QUIET)
    }
}

fn failed(status: &StackStatus) -> CommandError {
    let mut error = CommandError::new(format!("stack `{}` did not converge", status.stack));
    for node in &status.nodes {
        if [NodeState::Failed, NodeState::Waiting].contains(&node.state) {
            error = error.detail(format!("{}: {}", node.node, node.detail));
        } else if node.health == Some(Status::Critical) && node.node.kind == Kind::Services {
            error = error.detail(format!("{}: its checks do not pass", node.node));
        }
    }
    error.hint("the controller stays; `hatchery ps` and `hatchery logs` say more")
}
