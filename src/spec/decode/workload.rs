//! What containers and processes have in common; processes.

use std::ops::Range;
use std::time::Duration;

use indexmap::IndexMap;

use super::Decoder;
use super::check::check_ref;
use super::rolling::{drain, update};
use super::scalar::MAX_ITEMS;
use super::slot::{Fields, Slot};
use super::top::key_values;
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{
    Condition, Dependency, Expr, LogLimit, Process, Ready, Restart, RestartPolicy, Signal, Workload,
};
use crate::spec::node::{Kind, NodeId};
use crate::spec::suggest::nearest;
use crate::spec::yaml::tree::{Value, shortened};

/// The most copies of one workload.
pub(super) const MAX_REPLICAS: u32 = 1000;
/// How long a start may take unless the spec says.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between a stop signal and the kill unless the spec says; compose's.
const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// The first restart delay unless the spec says.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// The longest restart delay unless the spec says.
const RESTART_MAX_DELAY: Duration = Duration::from_secs(60);
/// How long a workload must run before its restart delay starts anew, unless the spec says.
const RESTART_RESET_AFTER: Duration = Duration::from_secs(10);
/// The log limit unless the spec says.
const LOG: LogLimit = LogLimit {
    max_size: 10_000_000,
    max_files: 3,
};

const POLICIES: [(&str, RestartPolicy); 4] = [
    ("no", RestartPolicy::No),
    ("on-failure", RestartPolicy::OnFailure),
    ("always", RestartPolicy::Always),
    ("unless-stopped", RestartPolicy::UnlessStopped),
];

const CONDITIONS: [(&str, Condition); 3] = [
    ("started", Condition::Started),
    ("healthy", Condition::Healthy),
    ("completed", Condition::Completed),
];

/// Compose's words for the same.
const COMPOSE_CONDITIONS: [(&str, Condition); 3] = [
    ("service_started", Condition::Started),
    ("service_healthy", Condition::Healthy),
    ("service_completed_successfully", Condition::Completed),
];

pub(super) fn process(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Process> {
    let mut fields = Fields::open(d, slot, owner)?;
    let workload = workload(d, &mut fields);
    let pre_start = fields
        .take(d, "pre_start")
        .and_then(|slot| commands(d, &slot));
    fields.finish(d);
    Some(Process {
        workload: workload?,
        pre_start: pre_start.unwrap_or_default(),
    })
}

/// Several commands, each a list of words or a line.
fn commands(d: &mut Decoder, slot: &Slot<'_>) -> Option<Vec<Vec<Expr>>> {
    let items = slot.items();
    if items.is_none() {
        slot.expected_but(d, "a list of commands", |diagnostic| {
            diagnostic.help("write `[ [ program, argument ] ]`")
        });
    }
    let read: Vec<Option<Vec<Expr>>> = items?.iter().map(|item| item.command(d)).collect();
    read.into_iter().collect()
}

/// Takes the fields of a workload; `None` without a command.
pub(super) fn workload(d: &mut Decoder, fields: &mut Fields<'_>) -> Option<Workload> {
    let command = fields
        .required(d, "command", "[ program, argument ]")
        .and_then(|slot| slot.command(d));
    let environment = fields
        .take(d, "environment")
        .and_then(|slot| environment(d, &slot))
        .unwrap_or_default();
    let user = fields.take(d, "user").and_then(|slot| slot.filled(d));
    let working_dir = fields.take(d, "working_dir").and_then(|slot| slot.expr(d));
    let watch = fields.exprs(d, "watch");
    let replicas = fields
        .take(d, "replicas")
        .and_then(|slot| slot.integer(d, 0, MAX_REPLICAS));
    let restart = fields
        .take(d, "restart")
        .and_then(|slot| restart(d, &slot, &fields.owner))
        .unwrap_or_else(default_restart);
    let stop_signal = fields
        .take(d, "stop_signal")
        .and_then(|slot| slot.signal(d))
        .unwrap_or(Signal::TERM);
    let stop_grace_period =
        fields.duration(d, "stop_grace_period", Duration::ZERO, STOP_GRACE_PERIOD);
    let depends_on = depends_on(d, fields);
    let ready = fields
        .take(d, "ready")
        .and_then(|slot| ready(d, &slot, &fields.owner))
        .unwrap_or(Ready::Started);
    let update = fields
        .take(d, "update")
        .and_then(|slot| update(d, &slot, &fields.owner))
        .unwrap_or_default();
    let drain = fields
        .take(d, "drain")
        .and_then(|slot| drain(d, &slot, &fields.owner))
        .unwrap_or_default();
    let log = fields
        .take(d, "log")
        .and_then(|slot| log(d, &slot, &fields.owner))
        .unwrap_or(LOG);
    Some(Workload {
        // Without a command it is faulty; what it refers to is looked at all the same.
        command: command.unwrap_or_default(),
        environment,
        user,
        working_dir,
        watch,
        replicas,
        restart,
        stop_signal,
        stop_grace_period,
        depends_on,
        ready,
        update,
        drain,
        log,
    })
}

fn environment(d: &mut Decoder, slot: &Slot<'_>) -> Option<IndexMap<String, Expr>> {
    let map = key_values(d, slot)?;
    let wrong = map
        .keys()
        .find(|name| name.is_empty() || name.contains(['=', '\0']));
    if let Some(name) = wrong {
        d.error(slot.error(format!(
            "`{}` cannot be the name of an environment variable",
            shortened(name)
        )));
        return None;
    }
    Some(map)
}

fn default_restart() -> Restart {
    Restart {
        policy: RestartPolicy::OnFailure,
        delay: RESTART_DELAY,
        max_delay: RESTART_MAX_DELAY,
        max_attempts: None,
        window: None,
        reset_after: RESTART_RESET_AFTER,
    }
}

fn restart(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Restart> {
    if slot.entries().is_none() {
        let policy = slot.choice(d, &POLICIES)?;
        return Some(Restart {
            policy,
            ..default_restart()
        });
    }
    let mut fields = Fields::open(d, slot, format!("`restart` of {owner}"))?;
    let policy = fields
        .take(d, "policy")
        .and_then(|slot| slot.choice(d, &POLICIES))
        .unwrap_or(RestartPolicy::OnFailure);
    let delay = fields.duration(d, "delay", Duration::ZERO, RESTART_DELAY);
    let max_delay = fields.duration(d, "max_delay", Duration::ZERO, RESTART_MAX_DELAY.max(delay));
    let max_attempts = fields
        .take(d, "max_attempts")
        .and_then(|slot| slot.integer(d, 1, u32::MAX));
    let window = fields
        .take(d, "window")
        .and_then(|slot| slot.duration(d, Duration::from_millis(1)));
    let reset_after = fields.duration(d, "reset_after", Duration::ZERO, RESTART_RESET_AFTER);
    fields.finish(d);
    Some(Restart {
        policy,
        delay,
        max_delay,
        max_attempts,
        window,
        reset_after,
    })
}

fn log(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<LogLimit> {
    let mut fields = Fields::open(d, slot, format!("`log` of {owner}"))?;
    let max_size = fields
        .take(d, "max_size")
        .and_then(|slot| slot.size(d, 4096))
        .unwrap_or(LOG.max_size);
    let max_files = fields
        .take(d, "max_files")
        .and_then(|slot| slot.integer(d, 0, 100))
        .unwrap_or(LOG.max_files);
    fields.finish(d);
    Some(LogLimit {
        max_size,
        max_files,
    })
}

fn ready(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Ready> {
    let notify = Ready::Notify {
        timeout: READY_TIMEOUT,
    };
    if slot.entries().is_none() {
        return match slot.value() {
            Some(Value::Text("started")) => Some(Ready::Started),
            Some(Value::Text("notify" | "sd_notify")) => Some(notify),
            _ => {
                let near = slot
                    .written()
                    .and_then(|text| nearest(text, ["started", "notify"]));
                slot.expected_but(
                    d,
                    "`started`, `notify`, `{ tcp: ADDRESS:PORT }` or `{ check: NAME }`",
                    |diagnostic| diagnostic.did_you_mean(near),
                );
                None
            }
        };
    }
    let what = format!("`ready` of {owner}");
    let mut fields = Fields::open(d, slot, what.clone())?;
    let timeout = fields.duration(d, "timeout", Duration::from_millis(1), READY_TIMEOUT);
    // `notify` may stand without a value, or hold its own timeout.
    let nullable = ["notify", "sd_notify"]
        .into_iter()
        .find_map(|field| fields.take_nullable(field));
    if let Some(notify) = nullable
        && fields.given(&["tcp", "check"]).is_empty()
    {
        let timeout = if notify.entries().is_some() {
            let mut inner = Fields::open(d, &notify, notify.what.clone())?;
            let timeout = inner.duration(d, "timeout", Duration::from_millis(1), timeout);
            inner.finish(d);
            timeout
        } else {
            if !notify.node.is_null() && notify.boolean(d) == Some(false) {
                d.error(notify.error(format!("{} cannot be false", notify.what)));
            }
            timeout
        };
        fields.finish(d);
        return Some(Ready::Notify { timeout });
    }
    let chosen = fields.one_of(d, &["tcp", "check", "notify"]);
    fields.finish(d);
    let (kind, slot) = chosen?;
    if kind == "tcp" {
        let tcp = slot.expr(d)?;
        return Some(Ready::Listening { tcp, timeout });
    }
    let check = check_ref(d, &slot, &format!("the check in {what}"))?;
    Some(Ready::Check { check, timeout })
}

/// Takes `depends_on`: a list of references, or a mapping from them to conditions.
pub(super) fn depends_on(d: &mut Decoder, fields: &mut Fields<'_>) -> Vec<Dependency> {
    let Some(slot) = fields.take(d, "depends_on") else {
        return Vec::new();
    };
    let Some(entries) = slot.entries() else {
        let list = slot.list(
            d,
            "a list of references like `containers/prime`",
            |d, item| {
                let text = item.filled(d)?;
                reference(d, &text, &item.node.span, &item.what).map(|on| Dependency {
                    on,
                    condition: Condition::Started,
                })
            },
        );
        return list.unwrap_or_default();
    };
    if entries.len() > MAX_ITEMS {
        d.error(slot.error(format!("{} has more than {MAX_ITEMS} entries", slot.what)));
        return Vec::new();
    }
    let mut dependencies = Vec::new();
    for entry in entries {
        let what = format!("`{}` in {}", shortened(&entry.key), slot.what);
        let condition = condition(d, &Slot::under(entry, what));
        let on = reference(d, &entry.key, &entry.key_span, &slot.what);
        if let (Some(on), Some(condition)) = (on, condition) {
            dependencies.push(Dependency { on, condition });
        }
    }
    dependencies
}

fn condition(d: &mut Decoder, slot: &Slot<'_>) -> Option<Condition> {
    if slot.node.is_null() {
        return Some(Condition::Started);
    }
    if slot.entries().is_some() {
        let mut fields = Fields::open(d, slot, slot.what.clone())?;
        let inner = fields.take(d, "condition");
        fields.finish(d);
        return inner.map_or(Some(Condition::Started), |slot| condition_word(d, &slot));
    }
    condition_word(d, slot)
}

fn condition_word(d: &mut Decoder, slot: &Slot<'_>) -> Option<Condition> {
    let habit = COMPOSE_CONDITIONS
        .iter()
        .find(|(word, _)| slot.value() == Some(Value::Text(word)));
    match habit {
        Some((_, condition)) => Some(*condition),
        None => slot.choice(d, &CONDITIONS),
    }
}

/// Reads `kind/name`, which stands at `span` and belongs to `what`.
pub(super) fn reference(
    d: &mut Decoder,
    text: &str,
    span: &Range<usize>,
    what: &str,
) -> Option<NodeId> {
    let why = match text.parse::<NodeId>() {
        Ok(id) => return Some(id),
        Err(why) => why,
    };
    let near = text.split_once('/').and_then(|(word, name)| {
        nearest(word, Kind::ALL.map(Kind::word)).map(|kind| format!("{kind}/{name}"))
    });
    let diagnostic = Diagnostic::at(span.clone(), format!("{why} in {what}"));
    d.error(match near {
        Some(near) => diagnostic.did_you_mean(Some(&near)),
        None => diagnostic.help("write `kind/name`, like `containers/prime`"),
    });
    None
}
