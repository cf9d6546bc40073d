//! How soon and how often what fails is run again.

use std::time::Duration;

use hatchery::plan::model::{NodeState, NodeStatus, Plan};
use hatchery::spec::node::{Kind, NodeId};

use crate::faults::{Action, Fault};
use crate::specs::{Work, instance};
use crate::world::{End, MILLI, SECOND, World};

/// The last life ended by itself, and nothing changed since.
pub fn again(world: &mut World, node: &NodeId, work: &Work, end: &End) {
    if end.late && !end.noted_late && end.epoch != world.epoch {
        // That it was to end as late is known to nobody any more.
        return;
    }
    let success = end.completed();
    let rests = match work.policy {
        "no" => true,
        "on-failure" => success,
        _ => false,
    };
    if rests {
        let exit = end.exit;
        return world.violate(format!(
            "{node} is run again after {exit:?}, and its policy is `{}`",
            work.policy
        ));
    }
    if let Some((count, most)) = too_many(world, node, work, end) {
        return world.violate(format!(
            "{node} is run again after {count} failures, its limit is {most}"
        ));
    }
    let least = delay(work, world.failures_at_least(node, work, end));
    let passed = Duration::from_nanos(world.now - end.at);
    if passed + Duration::from_millis(1) < least {
        world.violate(format!(
            "{node} starts {passed:?} after its end, its delay is {least:?}"
        ));
    }
}

/// The restart delay after so many failures, without jitter.
pub fn delay(work: &Work, failures: u32) -> Duration {
    let doubled = work.delay << failures.saturating_sub(1).min(20);
    Duration::from_millis(doubled.min(work.max_delay.max(work.delay)))
}

/// What waits for its restart delay waits for no longer than that.
pub fn backs_off(world: &mut World, plan: &Plan) {
    for status in plan
        .nodes
        .iter()
        .filter(|status| status.state == NodeState::Backoff)
    {
        let Some(model) = world.in_force.clone() else {
            return;
        };
        let (Some(work), Some(end)) = (model.work_of(&status.node), world.last_end(&status.node))
        else {
            continue;
        };
        let Some(failures) = world.failures_known(&status.node, work, end) else {
            continue;
        };
        let Some(gone) = end.gone else {
            continue;
        };
        // A tenth of jitter, and a moment to look.
        let most = delay(work, failures) * 11 / 10 + Duration::from_secs(1);
        let passed = Duration::from_nanos(world.now - gone);
        if passed > most {
            let node = &status.node;
            let what = format!("{node} still backs off {passed:?} after failure {failures}");
            return world.violate(what);
        }
    }
}

/// More failures than the limit, where the truth leaves no doubt, and the limit.
fn too_many(world: &World, node: &NodeId, work: &Work, end: &End) -> Option<(u32, u32)> {
    let most = work.max_attempts?;
    let in_row = world.failures_known(node, work, end)?;
    let count = match work.window {
        None => in_row,
        Some(window) => {
            // A little less than the window: when each was noticed is not known.
            let near = end
                .at
                .saturating_sub((window * MILLI).saturating_sub(SECOND));
            let facts = world.facts.get(node)?;
            let row = facts.ends.iter().rev();
            let row = row.take_while(|end| end.failed() && end.epoch == world.epoch);
            let since = world.took_at.max(facts.forgotten);
            row.filter(|end| end.at > near.max(since)).count() as u32
        }
    };
    (count > most).then_some((count, most))
}

/// Who is to end because it is not ready in time, unless it turns ready before it is asked. One
/// that may have said so while nobody listened is not.
pub fn lateness(world: &mut World, plan: &Plan) {
    let model = world.in_force.clone();
    let mut wronged = None;
    for (id, cgroup) in &mut world.cgroups {
        if cgroup.ending_planned.is_some() || cgroup.asked.is_some() {
            continue;
        }
        cgroup.late = plan.notes.late.contains(id);
        let work = model.as_ref().and_then(|model| model.work_of(&id.node));
        let tells = work.is_some_and(|work| work.notified_within().is_some());
        if cgroup.late && tells && cgroup.begun_by != world.epoch {
            wronged = Some(id.node.clone());
        }
    }
    if let Some(node) = wronged {
        world.violate(format!(
            "{node} is to end as late, and may have said that it is ready"
        ));
    }
}

/// What is stopped is so because an operator said it, and neither took that back nor took it out
/// of the spec since.
pub fn stopped(world: &mut World, plan: &Plan) {
    if world.kept.lossy {
        return;
    }
    let is_work = |node: &NodeId| {
        // Who sees nothing keeps the plan from before, and what is in it that left.
        let mut model = world.in_force.iter();
        matches!(node.kind, Kind::Containers | Kind::Processes)
            && model.any(|model| model.work_of(node).is_some())
    };
    let stopped = plan
        .nodes
        .iter()
        .filter(|status| status.state == NodeState::Stopped && is_work(&status.node));
    let asked = |node: &NodeId| {
        let all = world.operator_stopped.keys().chain(&world.perhaps_stopped);
        all.map(instance).any(|other| other == instance(node))
    };
    let stray = stopped.map(|status| &status.node).find(|node| !asked(node));
    if let Some(node) = stray {
        let what = format!("{node} is stopped, and no operator wants it to be");
        world.violate(what);
    }
}

/// What is said to pause is to do so.
pub fn pauses(world: &mut World, plan: &Plan) {
    let says = |status: &NodeStatus| status.detail.contains("the update pauses");
    let model = world.in_force.clone();
    let pauses = plan
        .nodes
        .iter()
        .filter(|status| says(status))
        .any(|status| {
            let work = model.as_ref().and_then(|model| model.work_of(&status.node));
            work.and_then(|work| work.update.as_ref())
                .is_some_and(|update| update.action == crate::specs::Action::Pause)
        });
    if pauses {
        world.tells(Fault::Paused, Action::Process);
    }
}

/// What is said to have given up failed often enough for that.
pub fn gave_up(world: &mut World, plan: &Plan) {
    if world.now - world.took_at < SECOND {
        // Who sees nothing keeps the plan from before.
        return;
    }
    let gave_up = |status: &&NodeStatus| {
        status.state == NodeState::Failed && status.detail.contains("gave up")
    };
    for status in plan.nodes.iter().filter(gave_up) {
        let Some(model) = world.in_force.clone() else {
            return;
        };
        let node = &status.node;
        let Some(work) = model.work_of(node) else {
            continue;
        };
        world.tells(Fault::GaveUp, Action::Process);
        let most = work.max_attempts.unwrap_or(u32::MAX);
        let ends = world.ended.get(node).copied().unwrap_or(0);
        if ends <= most {
            let what = format!("{node} gave up after {ends} ends, its limit is {most}");
            return world.violate(what);
        }
    }
}
