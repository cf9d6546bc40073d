//! Starting a life: its cgroup and mark, its files, its process, and the wait until it runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::entry::{Entry, START, Tracked};
use super::mark::Mark;
use super::nspawn::{self, Around};
use super::pidfd::Process;
use super::spawned::{self, Job, Place};
use super::watch::Table;
use super::{HostWorkloads, SLICE, failed, key, machines, notify, now, proc, root, service};
use crate::driver::{DriverError, ErrorKind, Result, Start, cgroup, inner, log};
use crate::graph::desired::{ContainerRun, NetworkRun};
use crate::plan::world::LifeId;

/// After this a payload counts as running though it cannot be told from nspawn: it may be
/// one itself.
const EXECUTED: Duration = Duration::from_secs(2);

/// Starts a life, or leaves nothing of it.
pub(super) fn start(workloads: &HostWorkloads, start: &Start) -> Result<()> {
    if !super::fit_for_a_path(&start.id.node.name) {
        let name = &start.id.node.name;
        return Err(failed(format!(
            "cannot start `{name}`: its name would be part of paths"
        )));
    }
    let mut launch = Launch::new(workloads, start);
    launch.enlist()?;
    let outcome = launch.go();
    let shared = &workloads.watch.shared;
    if let Err(problem) = outcome {
        launch.abandon();
        return Err(problem);
    }
    let mut table = shared.lock();
    if let Some(entry) = table.find(&start.id) {
        entry.starting = false;
        shared.settle(entry, now());
    }
    drop(table);
    shared.wake();
    Ok(())
}

/// Whose log has this name: the controller's, in the background.
const CONTROLLER: &str = "controller";

/// How many times what waits on the notify socket is read: others may flood it.
const BATCHES: usize = 16;

struct Launch<'a> {
    workloads: &'a HostWorkloads,
    start: &'a Start,
    mark: Mark,
    /// Below the hierarchies' mounts. Where systemd runs, it makes this one, as a scope.
    relative: PathBuf,
    folder: PathBuf,
    /// The v2 cgroup that says what the scope is, once systemd removed that.
    record: Option<PathBuf>,
    log: PathBuf,
    /// How long the log was before.
    log_begin: u64,
}

impl<'a> Launch<'a> {
    fn new(workloads: &'a HostWorkloads, start: &'a Start) -> Self {
        let relative = match workloads.booted {
            true => Path::new(SLICE).join(scope(workloads, &start.id)),
            false => workloads.group(&start.id),
        };
        let cgroups = &workloads.watch.shared.cgroups;
        let folder = cgroups.folder(&relative);
        let record = cgroups.folder(&workloads.group(&start.id));
        Launch {
            workloads,
            start,
            mark: Mark {
                stack: workloads.stack.clone(),
                node: start.id.node.clone(),
                incarnation: start.id.incarnation,
                identity: start.identity.clone(),
                started: now(),
                applied: start.applied.clone(),
                notify: start.run.notify,
                notified: false,
                exit: None,
                log_size: start.log.max_size,
                log_files: start.log.max_files,
                log_name: None,
                farewell: Some(start.farewell.clone()),
                commit: start.commit.clone(),
                asked: false,
                late: false,
                told: false,
                others: BTreeMap::new(),
            },
            relative,
            folder,
            record: workloads.booted.then_some(record),
            log: PathBuf::new(),
            log_begin: 0,
        }
    }

    /// Chooses its log. A container and a process of one name do not write into one file, and
    /// whoever once was told from the other by his kind stays so.
    fn choose_log(&mut self, table: &Table) {
        let node = &self.start.id.node;
        let folder = &self.workloads.dirs.log;
        let others =
            |entry: &Entry| entry.mark.node.kind != node.kind && entry.mark.log_name() == node.name;
        let taken = node.name == CONTROLLER || table.entries.iter().any(others);
        self.log = match taken {
            true => log::file(folder, &log::by_kind(node)),
            false => log::of(folder, node),
        };
        let plain = self.log == log::file(folder, &node.name);
        self.mark.log_name = (!plain).then(|| log::by_kind(node));
        self.log_begin = fs::metadata(&self.log).map_or(0, |file| file.len());
    }

    fn problem(&self, why: &str) -> DriverError {
        failed(format!("cannot start `{}`: {why}", self.start.id.node))
    }

    /// Enters the life into the table, as one that is being started.
    fn enlist(&mut self) -> Result<()> {
        let shared = &self.workloads.watch.shared;
        let mut table = shared.lock();
        let exists = self.folder.exists() || self.record.as_ref().is_some_and(|at| at.exists());
        if exists || table.find(&self.start.id).is_some() {
            let incarnation = self.start.id.incarnation;
            return Err(self.problem(&format!("its life {incarnation} exists already")));
        }
        self.choose_log(&table);
        let serial = table.serial();
        let mut entry = Entry::new(
            serial,
            self.mark.clone(),
            self.folder.clone(),
            self.relative.clone(),
        );
        entry.record.clone_from(&self.record);
        entry.starting = true;
        table.entries.push(entry);
        Ok(())
    }

    /// A machine's name is one for the whole host.
    fn demand_name(&self) -> Result<()> {
        let Some(container) = &self.start.run.container else {
            return Ok(());
        };
        match machines::holder(Path::new(machines::MACHINES), &container.machine) {
            Some(holder) if self.workloads.booted => Err(DriverError {
                kind: ErrorKind::Foreign,
                ..self.problem(&format!(
                    "the machine name `{}` is held by {holder}; end that, or rename the container",
                    container.machine
                ))
            }),
            _ => Ok(()),
        }
    }

    fn go(&self) -> Result<()> {
        self.demand_name()?;
        let group = self.workloads.group(&self.start.id);
        self.workloads.watch.shared.cgroups.create(&group)?;
        let folder = self.record.as_ref().unwrap_or(&self.folder);
        self.mark.write(folder).map_err(|error| {
            self.problem(&format!(
                "its cgroup `{}` cannot be marked: {}; this needs root and a kernel whose cgroup \
                 v2 carries `trusted.` attributes",
                folder.display(),
                spawned::plain(&error)
            ))
        })?;
        for path in [&self.log, &self.workloads.dirs.run.join("roots")] {
            spawned::ensure_folder(path).map_err(|error| {
                self.problem(&format!("the folder of `{}`: {error}", path.display()))
            })?;
        }
        let job = self.job().map_err(|why| self.problem(&why))?;
        self.spawn(&job)?;
        match self.start.run.container {
            Some(_) => self.await_payload(),
            None => Ok(()),
        }
    }

    fn job(&self) -> std::result::Result<Job, String> {
        let run = &self.start.run;
        let cgroups = &self.workloads.watch.shared.cgroups;
        let place = match &self.record {
            Some(record) => Place::Here {
                mark: Box::new(self.mark.clone()),
                record: record.clone(),
            },
            None => Place::Made(cgroups.folders(&self.relative)),
        };
        let mut job = Job {
            place,
            namespace: None,
            log: self.log.clone(),
            command: run.command.clone(),
            environment: run.environment.clone(),
            user: run.user.clone(),
            directory: run.working_dir.clone().unwrap_or_else(|| "/".into()),
            contains: run.container.is_some(),
        };
        let socket = notify::folder(&self.workloads.dirs.run).join("socket");
        let socket = socket.to_string_lossy().into_owned();
        if let Some(container) = &run.container {
            self.contain(container, &mut job)?;
            job.environment.insert("NOTIFY_SOCKET".to_owned(), socket);
        } else if run.notify {
            job.environment.insert("NOTIFY_SOCKET".to_owned(), socket);
        }
        Ok(job)
    }

    /// Turns the job of a command into that of nspawn around it.
    fn contain(&self, container: &ContainerRun, job: &mut Job) -> std::result::Result<(), String> {
        let run = &self.start.run;
        let id = root::machine_id(&self.workloads.stack, &self.start.id.node.name);
        let scratch = self.workloads.scratch(&self.start.id);
        let prepared = root::prepare(container, run.user.as_deref(), &id, &scratch)?;
        let notify = notify::folder(&self.workloads.dirs.run);
        let around = Around {
            binds: prepared.binds,
            user: prepared.user.as_deref(),
            machine_id: &id,
            register: self.workloads.booted,
            notify: run.notify.then_some(&notify),
        };
        job.command = nspawn::command(run, container, &around);
        job.user = None;
        job.directory = "/".into();
        job.environment.retain(|name, _| nspawn::handed(name));
        let own = BTreeMap::from([
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            // Colour codes have no place in a log file.
            ("SYSTEMD_LOG_COLOR", "0"),
        ]);
        let own = own.into_iter();
        job.environment
            .extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let NetworkRun::Namespace(name) = &container.network {
            job.namespace = Some(Path::new("/run/netns").join(name));
        }
        Ok(())
    }

    /// Runs the inner job, and returns when its program was executed.
    fn spawn(&self, job: &Job) -> Result<()> {
        let io = |error: std::io::Error| self.problem(&spawned::plain(&error));
        let input = spawned::hand_over(job).map_err(io)?;
        let (report, output) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io(e.into()))?;
        let mut command = self.command_line();
        let errors = output.try_clone().map_err(io)?;
        command
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors));
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            self.problem(&format!("`{program}`: {}", spawned::plain(&error)))
        })?;
        // It holds the pipe's other ends, which must close for the report to end.
        drop(command);
        self.enlist_process(&child)?;
        let report = read_report(File::from(report));
        match report.as_deref() {
            Ok(spawned::BEGUN) => Ok(()),
            Ok(text) => {
                let text = text.strip_prefix(spawned::BEGUN).unwrap_or(text).trim();
                Err(self.problem(match text {
                    "" => "its process ended before it ran anything",
                    text => text,
                }))
            }
            Err(why) => Err(DriverError {
                kind: ErrorKind::TimedOut,
                ..self.problem(why)
            }),
        }
    }

    fn command_line(&self) -> Command {
        let program = &self.workloads.program;
        let mut command = match self.workloads.booted {
            false => Command::new(program),
            true => {
                let unit = scope(self.workloads, &self.start.id);
                let mut command = Command::new("systemd-run");
                command
                    .args(["--scope", "--collect", "--quiet", "-p", "Delegate=yes"])
                    .arg(format!("--slice={SLICE}"))
                    // A machine that shuts down ends the controller first, which would take the
                    // ends of its workloads for failures and start them again.
                    .arg("-p")
                    .arg(format!("Before={}", service(&self.workloads.stack)))
                    .arg(format!(
                        "--description={} of stack {}",
                        self.start.id.node, self.workloads.stack
                    ))
                    .arg(format!("--unit={unit}"))
                    .arg("--")
                    .arg(program);
                command
            }
        };
        command.args([inner::WORD, "spawn"]);
        command
    }

    /// From now on the watching thread reaps it.
    fn enlist_process(&self, child: &Child) -> Result<()> {
        let pid = i32::try_from(child.id()).unwrap_or_default();
        // It is our child and nobody has reaped it: the number is its own.
        let process = Process::open(pid, None)
            .map_err(|error| self.problem(&format!("its process: {}", spawned::plain(&error))))?;
        let shared = &self.workloads.watch.shared;
        let mut table = shared.lock();
        if let Some(entry) = table.find(&self.start.id) {
            entry.spawned = Some(Tracked::new(process));
            shared.follow(entry);
        }
        Ok(())
    }

    /// Returns when the command is executed inside.
    fn await_payload(&self) -> Result<()> {
        let shared = &self.workloads.watch.shared;
        let begin = Instant::now();
        loop {
            if let Some(entry) = shared.lock().find(&self.start.id) {
                shared.settle(entry, now());
            }
            // After the look at its processes: what nspawn said before it ended is here then.
            let _ = (0..BATCHES).all(|_| shared.messages());
            let mut table = shared.lock();
            let Some(entry) = table.find(&self.start.id) else {
                return Err(self.problem("it was removed meanwhile"));
            };
            let executed = entry.payload.as_ref().is_some_and(|payload| {
                let leads = proc::program(entry.leader);
                let runs = proc::program(payload.process.pid);
                !payload.runs() || runs.is_some() && runs != leads
            });
            // One that ended already is up for this purpose: its exit says the rest.
            if executed || entry.payload.is_some() && begin.elapsed() > EXECUTED {
                return Ok(());
            }
            if !entry.spawned.as_ref().is_some_and(Tracked::runs) {
                // It was set up, ran and ended between two looks.
                if entry.leader != 0 {
                    return Ok(());
                }
                return Err(self.problem(&self.last_words("systemd-nspawn ended")));
            }
            if begin.elapsed() > START {
                let why = format!("no sign of it within {}s", START.as_secs());
                return Err(DriverError {
                    kind: ErrorKind::TimedOut,
                    ..self.problem(&self.last_words(&why))
                });
            }
            // nspawn says when the namespaces are there; the last steps are short.
            let pause = match entry.leader {
                0 => Duration::from_millis(20),
                _ => Duration::from_millis(1),
            };
            let (table, _) = shared
                .changed
                .wait_timeout(table, pause)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            drop(table);
        }
    }

    /// What the log says about this life, if it does.
    fn last_words(&self, why: &str) -> String {
        match log::tail(&self.log, self.log_begin, 5) {
            said if said.trim().is_empty() => why.to_owned(),
            said => format!("{why}: {}", said.trim()),
        }
    }

    /// Takes back what was made, as far as the kernel lets us; the rest is found by the next
    /// look at the cgroups and removed then.
    fn abandon(&self) {
        let shared = &self.workloads.watch.shared;
        let _ = cgroup::kill(&self.folder);
        let spawned = {
            let mut table = shared.lock();
            let entry = table.find(&self.start.id);
            entry.and_then(|entry| entry.spawned.take())
        };
        if let Some(spawned) = spawned {
            // It may have died before it entered the cgroup, or hang there.
            let _ = spawned.process.signal(libc::SIGKILL);
            let _ = poll(
                &mut [PollFd::new(&spawned.process, PollFlags::IN)],
                Timespec::try_from(super::DYING).ok().as_ref(),
            );
            let _ = spawned.process.ending();
        }
        super::wait_empty(&self.folder, super::DYING);
        let _ = match self.workloads.booted {
            true => self.workloads.remove_scope(&self.start.id, &self.relative),
            false => shared.cgroups.remove(&self.relative),
        };
        let _ = super::remove_folder(&self.workloads.scratch(&self.start.id));
        let mut table = shared.lock();
        shared.forget(&mut table, &self.start.id);
    }
}

/// The unit's name, where systemd runs.
fn scope(workloads: &HostWorkloads, life: &LifeId) -> String {
    let key = key(life);
    // The dot of a seat's name stays, or `prime1.b` would meet an instance called `prime1-b`.
    let (name, incarnation) = key.rsplit_once('.').unwrap_or((&key, ""));
    format!("hatchery-{}-{name}-{incarnation}.scope", workloads.stack)
}

/// All that the inner job says until its end of the pipe closes.
fn read_report(mut pipe: File) -> std::result::Result<String, &'static str> {
    const MOST: usize = 8192;
    let deadline = Instant::now() + START;
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], wait.as_ref()) {
            Ok(0) => return Err("its process did not get to run the command in time"),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err("its process cannot be waited for"),
        }
        let mut buffer = [0; 1024];
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(length) if text.len() < MOST => {
                text.extend_from_slice(buffer.get(..length).unwrap_or_default());
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err("its report cannot be read"),
        }
    }
}
