//! A program that fails a few times, is well for long, and fails once more: that is the first
//! failure of a new row.

use std::time::Duration;

use hatchery::plan::world::Exit;
use hatchery::spec::node::NodeId;

use super::{Happening, World};
use crate::specs::instance;

/// Nothing that was seen late before counts after so long.
const FIRST_AFTER: Duration = Duration::from_secs(45);

/// Whose, and how far it is.
#[derive(Debug)]
pub struct Recovery {
    node: NodeId,
    /// So often it ends as soon as it begins.
    left: u32,
    /// How long it is well after that.
    lasts: Duration,
    /// Its last end is on its way.
    over: bool,
}

impl World {
    /// An instance that runs is to fail for a while.
    pub fn begin_recovery(&mut self, node: NodeId, lasts: Duration) {
        let mut lives = self.cgroups.iter();
        let life = lives.find(|(id, c)| instance(&id.node) == node && c.main.is_some());
        let Some((_, cgroup)) = life else { return };
        let serial = cgroup.serial;
        self.log(format_args!("{node} is to fail, and to recover"));
        self.recovery = Some(Recovery {
            node,
            left: 4,
            lasts,
            over: false,
        });
        self.after(FIRST_AFTER, Happening::Exit(serial, Exit::Code(1), &[]));
    }

    /// A program begins: whether it ends at once.
    pub fn relapses(&mut self, serial: u64) -> bool {
        let Some(recovery) = self.recovers(serial) else {
            return false;
        };
        if recovery.over {
            self.recovery = None;
            return false;
        }
        if recovery.left == 0 {
            return false;
        }
        recovery.left -= 1;
        let delay = self.rng.millis(20, 400);
        self.after(delay, Happening::Exit(serial, Exit::Code(1), &[]));
        true
    }

    /// A program is ready: it may be for long, and fails then.
    pub fn recovered(&mut self, serial: u64) {
        let Some(recovery) = self.recovers(serial) else {
            return;
        };
        recovery.over = true;
        let lasts = recovery.lasts;
        self.after(lasts, Happening::Exit(serial, Exit::Code(1), &[]));
    }

    fn recovers(&mut self, serial: u64) -> Option<&mut Recovery> {
        let (id, _) = self.by_serial(serial)?;
        let recovery = self.recovery.as_mut();
        recovery.filter(|recovery| recovery.node == instance(&id.node))
    }
}
