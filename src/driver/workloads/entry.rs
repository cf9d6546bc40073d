//! One life as this controller knows it: its mark, its processes, and how they ended.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mark::{self, Mark};
use super::pidfd::{Ending, Process};
use super::proc;
use crate::driver::cgroup;
use crate::plan::world::{Exit, Life, LifeState};
use crate::spec::node::Kind;
use crate::spec::time::Time;

/// How long after its cgroup was empty an exit code may still come. A parent that does not
/// reap must not hold up what follows.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a container may take until its command runs.
pub(super) const START: Duration = Duration::from_secs(30);

/// A process that we hold, and what is known of its end.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The process.
    pub process: Process,
    ending: Ending,
}

impl Tracked {
    pub fn new(process: Process) -> Self {
        Tracked {
            process,
            ending: Ending::Runs,
        }
    }

    fn refresh(&mut self) {
        if !matches!(self.ending, Ending::Ended(_)) {
            self.ending = self.process.ending();
        }
    }

    /// Whether it had not ended at the last look.
    pub fn runs(&self) -> bool {
        self.ending == Ending::Runs
    }

    fn exit(&self) -> Option<Exit> {
        match self.ending {
            Ending::Ended(Exit::Unknown) | Ending::Unreaped | Ending::Runs => None,
            Ending::Ended(exit) => Some(exit),
        }
    }
}

/// One life.
#[derive(Debug)]
pub(super) struct Entry {
    /// Names it in the events of epoll.
    pub serial: u64,
    /// What its cgroup says.
    pub mark: Mark,
    /// Its v2 cgroup.
    pub folder: PathBuf,
    /// The path of its cgroups below each hierarchy's mount.
    pub relative: PathBuf,
    /// Its cgroup is a scope of systemd, which removes it as soon as it is empty.
    pub scope: bool,
    /// Where its mark stands as well, if that is so: a cgroup that stays empty, and is there until
    /// its end was dealt with.
    pub record: Option<PathBuf>,
    /// A start of this very controller is under way.
    pub starting: bool,
    /// What we started: the process itself, or nspawn.
    pub spawned: Option<Tracked>,
    /// A container's main process.
    pub payload: Option<Tracked>,
    /// The init of a container's namespaces, as nspawn or the kernel named it; 0 before.
    pub leader: i32,
    /// inotify's number for its `cgroup.events`.
    pub watch: Option<i32>,
    /// What was last told about it.
    pub told: Option<LifeState>,
    /// When it is to be looked at again though the kernel will not call.
    pub due: Option<Time>,
    /// Since when this controller knows it.
    known: Time,
    emptied: Option<Time>,
    populated: bool,
}

impl Entry {
    pub fn new(serial: u64, mark: Mark, folder: PathBuf, relative: PathBuf) -> Self {
        Entry {
            serial,
            mark,
            folder,
            scope: relative.starts_with(super::SLICE),
            record: None,
            relative,
            starting: false,
            spawned: None,
            payload: None,
            leader: 0,
            watch: None,
            told: None,
            due: None,
            known: super::now(),
            emptied: None,
            populated: true,
        }
    }

    /// Whether it is a container.
    pub fn contained(&self) -> bool {
        self.mark.node.kind == Kind::Containers
    }

    /// The process that counts: a container's payload, or the host process itself.
    pub fn main(&self) -> Option<&Tracked> {
        match self.contained() {
            true => self.payload.as_ref(),
            false => self.spawned.as_ref(),
        }
    }

    /// The network namespace that its main process is in, which is the host's for a host
    /// process; `None` once that has ended.
    pub fn network(&self) -> io::Result<Option<File>> {
        let Some(main) = self.main() else {
            return Ok(None);
        };
        let opened = File::open(format!("/proc/{}/ns/net", main.process.pid));
        // Its number is its own only as long as it runs: what was opened is judged afterwards.
        match main.process.runs() {
            true => opened.map(Some),
            false => Ok(None),
        }
    }

    /// Looks at the kernel again.
    pub fn refresh(&mut self, now: Time) {
        if self.spawned.is_none() {
            // Not there yet, or ended before we came.
            self.spawned = mark::read_process(&self.folder)
                .and_then(|(pid, start)| Process::open(pid, Some(start)).ok())
                .map(Tracked::new);
        }
        if self.contained() && self.payload.is_none() {
            self.find_payload();
        }
        // Processes first: were the cgroup asked first, one that ended in between would leave
        // an empty cgroup with a running process in our books, for one look.
        self.populated = cgroup::populated(&self.folder);
        for tracked in [&mut self.spawned, &mut self.payload].into_iter().flatten() {
            tracked.refresh();
        }
        if !self.populated && !self.starting && self.emptied.is_none() {
            self.emptied = Some(now);
        }
    }

    fn find_payload(&mut self) {
        if let Some((leader, process)) = find_payload(&self.folder) {
            self.leader = leader;
            self.payload = Some(Tracked::new(process));
        }
    }

    /// How it is, as of the last refresh.
    pub fn state(&self, now: Time) -> LifeState {
        if self.starting || self.coming() || self.main().is_some_and(Tracked::runs) {
            return LifeState::Up;
        }
        match self.emptied {
            Some(at) if !self.populated && (!self.unreaped() || now.since(at) >= PATIENCE) => {
                LifeState::Ended {
                    exit: self.exit(),
                    at,
                }
            }
            _ => LifeState::Ending,
        }
    }

    /// Its supervisor runs, and its payload was not seen yet.
    fn coming(&self) -> bool {
        let supervised = self.spawned.as_ref().is_some_and(Tracked::runs);
        self.contained() && self.payload.is_none() && supervised
    }

    /// Whether its supervisor hangs before its payload runs, and who started it and waited for
    /// that is gone.
    pub fn hangs(&self, now: Time) -> bool {
        !self.starting && self.coming() && now.since(self.known) > START
    }

    fn unreaped(&self) -> bool {
        let processes = [&self.spawned, &self.payload];
        processes
            .into_iter()
            .flatten()
            .any(|tracked| tracked.ending == Ending::Unreaped)
    }

    /// nspawn passes its payload's code on; it is asked when the kernel did not tell.
    fn exit(&self) -> Exit {
        let main = self.main().and_then(Tracked::exit);
        main.or_else(|| self.spawned.as_ref().and_then(Tracked::exit))
            .or(self.mark.exit)
            .unwrap_or_else(|| match mark::read_process(&self.folder) {
                // Its process would have noted itself before it did anything else.
                None if !self.scope => Exit::NotBegun,
                _ => Exit::Unknown,
            })
    }

    /// Sets when to look again though the kernel will not call: not later than it was set before,
    /// whatever else happens meanwhile.
    pub fn set_due(&mut self, now: Time) {
        let next = self.look_again(now).map(|wait| now + wait);
        self.due = next.map(|next| self.due.map_or(next, |due| due.min(next)));
    }

    fn look_again(&self, now: Time) -> Option<Duration> {
        const SOON: Duration = Duration::from_millis(5);
        const LATER: Duration = Duration::from_secs(1);
        if self.starting || matches!(self.told, Some(LifeState::Ended { .. })) {
            return None;
        }
        if self.contained() && self.payload.is_none() && self.populated {
            let young = now.since(self.mark.started) < START;
            return Some(if young { SOON } else { LATER });
        }
        (self.emptied.is_some() && self.unreaped()).then_some(10 * SOON)
    }

    /// Notes that we ask it to end, before we do: the next controller is to know an exit that was
    /// asked for when it sees one, and a failure when that was because it was `late`.
    pub fn note_asked(&mut self, late: bool) -> std::io::Result<()> {
        if self.mark.asked || !self.main().is_some_and(|main| main.runs()) {
            return Ok(());
        }
        let mark = Mark {
            asked: true,
            late,
            ..self.mark.clone()
        };
        self.write(&mark)?;
        self.mark = mark;
        Ok(())
    }

    /// Notes that it was asked indeed. Where that cannot be noted, the next controller asks once
    /// more.
    pub fn note_told(&mut self) {
        self.mark.told = self.mark.asked;
        let _ = self.write(&self.mark);
    }

    /// Writes a mark. Of a scope that systemd collected only the record is left.
    pub fn write(&self, mark: &Mark) -> io::Result<()> {
        let record = self.record.as_ref();
        let recorded = record.is_some_and(|record| mark.write(record).is_ok());
        match mark.write(&self.folder) {
            Err(error) if recorded && error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written,
        }
    }

    /// The life as the planner sees it.
    pub fn life(&self, now: Time) -> Life {
        let main_pid = self.main().map_or(0, |tracked| match tracked.runs() {
            true => tracked.process.pid,
            false => 0,
        });
        let state = self.state(now);
        // One that was only meant to be asked is to be asked again.
        let asked = self.mark.asked && (self.mark.told || state != LifeState::Up);
        let leader_pid = match self.contained() {
            true if main_pid != 0 => self.leader,
            true => 0,
            false => main_pid,
        };
        Life {
            id: self.mark.id(),
            identity: self.mark.identity.clone(),
            started: self.mark.started,
            state,
            main_pid,
            leader_pid,
            notified: self.mark.notified,
            applied: self.mark.applied.clone(),
            cgroup: self.folder.clone(),
            farewell: self.mark.farewell.clone(),
            commit: self.mark.commit.clone(),
            asked,
            late: asked && self.mark.late,
        }
    }

    /// Whether anything of it runs, by its cgroup or by its main process.
    pub fn alive(&self) -> bool {
        cgroup::populated(&self.folder) || self.main().is_some_and(|main| main.process.runs())
    }
}

/// The file that a process executes, by device and inode.
fn program(pid: i32) -> Option<(u64, u64)> {
    let file = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

/// The leader and the main process of the container in `folder`.
///
/// By `--as-pid2` the leader becomes a stub with a name of its own once it has made its one
/// child, the payload. What it adopts later has a higher number: the kernel counts up, and
/// when it begins anew it leaves the first few hundred out.
pub(super) fn find_payload(folder: &Path) -> Option<(i32, Process)> {
    let children = cgroup::processes(folder).into_iter().filter_map(|pid| {
        let stat = proc::stat(pid)?;
        let stub = proc::number_inside(stat.parent) == Some(1)
            && proc::name(stat.parent).as_deref() == Some("(sd-stubinit)");
        // Until it executes its program it is nspawn still, and a signal would be lost on it.
        let executed = stub && program(pid)? != program(stat.parent)?;
        let number = proc::number_inside(pid).filter(|_| executed)?;
        Some((number, pid, stat))
    });
    let (_, pid, stat) = children.min_by_key(|(number, ..)| *number)?;
    let process = Process::open(pid, Some(stat.start)).ok()?;
    Some((stat.parent, process))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_supervisor_hangs_only_where_nobody_waits_for_its_payload() {
        let mark = r#"{"stack":"prime","node":"containers/web","incarnation":3,
            "identity":{},"started":12,"log_size":9,"log_files":1}"#;
        let relative = PathBuf::from("hatchery/prime/c-web.3");
        let mark = serde_json::from_str(mark).unwrap();
        let mut entry = Entry::new(1, mark, "/nowhere".into(), relative);
        let own = || {
            let pid = i32::try_from(std::process::id()).unwrap();
            Some(Tracked::new(Process::open(pid, None).unwrap()))
        };
        let (young, old) = (entry.known + START, entry.known + START * 2);
        assert!(!entry.hangs(old), "nothing of it runs");
        entry.spawned = own();
        assert!(entry.hangs(old) && !entry.hangs(young));
        entry.starting = true;
        assert!(!entry.hangs(old));
        entry.starting = false;
        entry.payload = own();
        assert!(!entry.hangs(old));
    }
}
