//! Templates.

use std::path::PathBuf;
use std::time::Duration;

use super::Decoder;
use super::slot::{Fields, Slot};
use super::workload::depends_on;
use crate::spec::model::{Confirm, Reload, Signal, Template, Wait, WhenEmpty};

/// Quiet for so long before a render, unless the spec says.
const WAIT_MIN: Duration = Duration::from_millis(5);

pub(super) fn template(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Template> {
    let mut fields = Fields::open(d, slot, owner)?;
    let source = fields
        .required(d, "source", "./file.j2")
        .and_then(|slot| slot.filled(d));
    let destination = fields
        .required(d, "destination", "/etc/file")
        .and_then(|slot| slot.expr(d));
    let mode = fields
        .take(d, "mode")
        .and_then(|slot| slot.mode(d))
        .unwrap_or(0o644);
    let owner_name = fields.take(d, "owner").and_then(|slot| slot.filled(d));
    let validate = fields.take(d, "validate").and_then(|slot| slot.command(d));
    let reload = fields
        .take(d, "reload")
        .and_then(|slot| reload(d, &slot, owner));
    let wait = fields
        .take(d, "wait")
        .and_then(|slot| wait(d, &slot, owner))
        .unwrap_or(Wait {
            min: WAIT_MIN,
            max: WAIT_MIN * 4,
        });
    let when_empty = fields
        .take(d, "when_empty")
        .and_then(|slot| {
            slot.choice(
                d,
                &[("keep", WhenEmpty::Keep), ("render", WhenEmpty::Render)],
            )
        })
        .unwrap_or(WhenEmpty::Keep);
    let depends_on = depends_on(d, &mut fields);
    fields.finish(d);
    Some(Template {
        source: PathBuf::from(source?),
        destination: destination?,
        mode,
        owner: owner_name,
        validate,
        reload,
        wait,
        when_empty,
        depends_on,
    })
}

fn wait(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Wait> {
    let mut fields = Fields::open(d, slot, format!("`wait` of {owner}"))?;
    let min = fields.duration(d, "min", Duration::ZERO, WAIT_MIN);
    let max = fields.duration(d, "max", Duration::ZERO, min.saturating_mul(4));
    fields.finish(d);
    Some(Wait { min, max })
}

fn reload(d: &mut Decoder, slot: &Slot<'_>, owner: &str) -> Option<Reload> {
    let mut fields = Fields::open(d, slot, format!("`reload` of {owner}"))?;
    let chosen = fields.one_of(d, &["process", "command"]);
    if let Some(("command", slot)) = &chosen {
        fields.finish(d);
        return slot.command(d).map(Reload::Command);
    }
    let signal = fields
        .take(d, "signal")
        .and_then(|slot| slot.signal(d))
        .unwrap_or(Signal::HUP);
    let confirm = fields
        .take(d, "confirm")
        .and_then(|slot| {
            slot.choice(
                d,
                &[("none", Confirm::None), ("new_child", Confirm::NewChild)],
            )
        })
        .unwrap_or(Confirm::None);
    fields.finish(d);
    Some(Reload::Signal {
        process: chosen?.1.filled(d)?,
        signal,
        confirm,
    })
}
