//! One service's state, and what becomes of it when it is registered anew.

use super::MAX_OUTPUT;
use super::model::{CheckEntry, CheckKind, CheckSpec, Origin, Registration, ServiceEntry};
use crate::spec::model::Status;
use crate::spec::time::Time;

/// What of a service looks different to readers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) service: bool,
    pub(super) checks: bool,
}

impl Seen {
    pub(super) fn between(previous: Option<&ServiceEntry>, entry: &ServiceEntry) -> Seen {
        let Some(previous) = previous else {
            return Seen {
                service: true,
                checks: !entry.checks.is_empty(),
            };
        };
        let (old, new) = (&previous.registration, &entry.registration);
        let labels = old.service != new.service || old.tags != new.tags;
        let service =
            labels || (&old.address, old.port, &old.meta) != (&new.address, new.port, &new.meta);
        let same_checks = previous.checks.len() == entry.checks.len()
            && previous
                .checks
                .iter()
                .zip(&entry.checks)
                .all(|(old, new)| looks_alike(old, &new.spec) && old.status == new.status);
        Seen {
            service,
            checks: !same_checks || (labels && !entry.checks.is_empty()),
        }
    }
}

impl CheckEntry {
    /// Takes a new state; answers whether the status changed.
    pub(super) fn stand(&mut self, status: Status, output: String, next: u64, now: Time) -> bool {
        let changed = self.status != status;
        self.output = output;
        self.status = status;
        if changed {
            self.modify_index = next;
        }
        self.critical_since = match status {
            Status::Critical => self.critical_since.or(Some(now)),
            Status::Passing | Status::Warning => None,
        };
        changed
    }
}

/// What becomes of `previous` when it is registered anew.
pub(super) fn advance(
    previous: Option<&ServiceEntry>,
    registration: Registration,
    next: u64,
    now: Time,
) -> ServiceEntry {
    let checks = registration.checks.iter().map(|spec| {
        let mut earlier = previous.into_iter().flat_map(|previous| &previous.checks);
        match earlier.find(|check| check.spec.id == spec.id) {
            Some(check) if same_kind(check.spec.kind, spec.kind) => kept(check, spec, next, now),
            Some(_) | None => fresh(spec, next, now),
        }
    });
    let mut entry = ServiceEntry {
        checks: checks.collect(),
        registration,
        create_index: previous.map_or(next, |previous| previous.create_index),
        modify_index: next,
    };
    if let Some(previous) = previous
        && !Seen::between(Some(previous), &entry).service
    {
        entry.modify_index = previous.modify_index;
    }
    entry
}

fn kept(check: &CheckEntry, spec: &CheckSpec, next: u64, now: Time) -> CheckEntry {
    let mut kept = check.clone();
    if !looks_alike(check, spec) {
        kept.modify_index = next;
    }
    if let CheckKind::Ttl(ttl) = spec.kind
        && check.spec.kind != spec.kind
        && check.deadline.is_some()
    {
        kept.deadline = Some(now + ttl);
    }
    kept.spec = spec.clone();
    kept
}

fn fresh(spec: &CheckSpec, next: u64, now: Time) -> CheckEntry {
    CheckEntry {
        status: spec.initial,
        output: String::new(),
        create_index: next,
        modify_index: next,
        deadline: match spec.kind {
            CheckKind::Ttl(ttl) => Some(now + ttl),
            CheckKind::Probed => None,
        },
        critical_since: (spec.initial == Status::Critical).then_some(now),
        spec: spec.clone(),
    }
}

fn same_kind(one: CheckKind, other: CheckKind) -> bool {
    matches!(one, CheckKind::Probed) == matches!(other, CheckKind::Probed)
}

fn looks_alike(check: &CheckEntry, spec: &CheckSpec) -> bool {
    check.spec.id == spec.id
        && check.spec.name == spec.name
        && check.spec.notes == spec.notes
        && same_kind(check.spec.kind, spec.kind)
}

/// When a service leaves because of this check.
pub(super) fn leaves_at(entry: &ServiceEntry, check: &CheckEntry) -> Option<Time> {
    if entry.registration.origin == Origin::Stack {
        return None;
    }
    Some(check.critical_since? + check.spec.deregister_after?)
}

/// At most [`MAX_OUTPUT`] bytes of `output`, in whole characters.
pub(super) fn shortened(output: &str) -> String {
    let mut end = output.len().min(MAX_OUTPUT);
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    output.get(..end).unwrap_or_default().to_owned()
}
