//! How instances are replaced, and how their connections are waited for.

use std::time::Duration;

use super::Decoder;
use super::slot::{Fields, Slot};
use super::workload::MAX_REPLICAS;
use crate::spec::model::{Drain, FailureAction, Update, UpdateOrder};

const ORDERS: [(&str, UpdateOrder); 2] = [
    ("start-first", UpdateOrder::StartFirst),
    ("stop-first", UpdateOrder::StopFirst),
];

const FAILURE_ACTIONS: [(&str, FailureAction); 3] = [
    ("rollback", FailureAction::Rollback),
    ("pause", FailureAction::Pause),
    ("continue", FailureAction::Continue),
];

pub(super) fn update(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Update> {
    let usual = Update::default();
    let mut fields = Fields::open(d, slot, format!("`update` of {owner}"))?;
    let max_unavailable = fields
        .take(d, "max_unavailable")
        .and_then(|slot| slot.integer(d, 1, MAX_REPLICAS))
        .unwrap_or(usual.max_unavailable);
    let order = fields
        .take(d, "order")
        .and_then(|slot| slot.choice(d, &ORDERS))
        .unwrap_or(usual.order);
    let min_healthy_time = fields
        .take(d, "min_healthy_time")
        .and_then(|slot| slot.duration(d, Duration::ZERO));
    let healthy_deadline = fields.duration(
        d,
        "healthy_deadline",
        Duration::from_millis(1),
        usual.healthy_deadline,
    );
    let failure_action = fields
        .take(d, "failure_action")
        .and_then(|slot| slot.choice(d, &FAILURE_ACTIONS))
        .unwrap_or(usual.failure_action);
    fields.finish(d);
    Some(Update {
        max_unavailable,
        order,
        min_healthy_time,
        healthy_deadline,
        failure_action,
    })
}

pub(super) fn drain(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Drain> {
    let usual = Drain::default();
    let mut fields = Fields::open(d, slot, format!("`drain` of {owner}"))?;
    let timeout = fields.duration(d, "timeout", Duration::ZERO, usual.timeout);
    // A short timeout alone shortens the quiet that fits into it.
    let quiet = fields.duration(d, "quiet", Duration::ZERO, usual.quiet.min(timeout));
    fields.finish(d);
    Some(Drain { quiet, timeout })
}
