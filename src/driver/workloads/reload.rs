//! A signal that asks a process to read its files again, and the proof that it did.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{HostWorkloads, cannot, not_running, proc};
use crate::driver::{DriverError, ErrorKind, Result};
use crate::plan::world::LifeId;
use crate::spec::model::{Confirm, Signal};

/// A child by number and start time: a number alone may be given again.
type Child = (i32, u64);

/// Sends the signal and waits until the main process has a child that it had not before.
pub(super) fn reload(
    workloads: &HostWorkloads,
    life: &LifeId,
    signal: Signal,
    confirm: Confirm,
    timeout: Duration,
) -> Result<()> {
    let (pid, before) = workloads.with(life, |entry| {
        let main = entry.main().filter(|main| main.runs());
        let main = main.ok_or_else(|| not_running(life, "reload"))?;
        // Read before the signal is sent, so that no child of the reload is among them.
        let before = children(main.process.pid);
        main.process
            .signal(signal.0)
            .map_err(|error| cannot("reload", life, &error))?;
        Ok((main.process.pid, before))
    })?;
    match confirm {
        Confirm::None => Ok(()),
        Confirm::NewChild => wait_for_child(workloads, life, pid, &before, timeout),
    }
}

fn wait_for_child(
    workloads: &HostWorkloads,
    life: &LifeId,
    pid: i32,
    before: &BTreeSet<Child>,
    timeout: Duration,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        if children(pid).difference(before).next().is_some() {
            return Ok(());
        }
        workloads.with(life, |entry| {
            match entry.main().is_some_and(|main| main.runs()) {
                true => Ok(()),
                false => Err(not_running(life, "reload")),
            }
        })?;
        if begin.elapsed() >= timeout {
            return Err(DriverError {
                message: format!(
                    "cannot confirm the reload of `{}`: no new child within {}; its log may \
                     say why",
                    life.node,
                    humantime::format_duration(timeout)
                ),
                kind: ErrorKind::TimedOut,
            });
        }
        // Draining waits for this, so it is looked at often while it is likely to come.
        let pause = match begin.elapsed() < Duration::from_millis(100) {
            true => 1,
            false => 5,
        };
        std::thread::sleep(Duration::from_millis(pause));
    }
}

fn children(pid: i32) -> BTreeSet<Child> {
    let started = |child| proc::stat(child).map(|stat| (child, stat.start));
    proc::children(pid)
        .into_iter()
        .filter_map(started)
        .collect()
}
