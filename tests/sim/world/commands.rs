//! Validators and other commands, and what probes find.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hatchery::driver::{Commands, NewFile, Output, Probes, Result};
use hatchery::graph::desired::{CheckNode, Desired, ProbeNode};
use hatchery::health::Answer;
use hatchery::spec::model::Status;

use super::{Reach, Shared, World};
use crate::faults::{Action, Fault};
use crate::invariants;

impl Commands for Shared {
    fn run(&self, command: &[String], _dir: &Path, _timeout: Duration) -> Result<Output> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Command, false) {
            return Err(why);
        }
        let bad = world.fires(Fault::BadCode, Action::Command);
        let code = if bad {
            world.rng.range(1, 255) as i32
        } else {
            0
        };
        world.log(format_args!("runs {command:?}: {code}"));
        Ok(Output {
            code: Some(code),
            text: String::new(),
        })
    }

    fn validate(
        &self,
        _command: &[String],
        candidates: &[NewFile],
        _timeout: Duration,
    ) -> Result<Output> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Validate, false) {
            return Err(why);
        }
        let bad = candidates.iter().any(|file| file.content.contains("BAD"))
            || world.fires(Fault::Refusal, Action::Validate);
        world.log(format_args!(
            "validates {} files: bad {bad}",
            candidates.len()
        ));
        if bad {
            world.refused_at = Some(world.now);
        } else {
            for file in candidates {
                let hash = blake3::hash(file.content.as_bytes()).to_hex().to_string();
                world.accepted.insert((file.path.clone(), hash));
            }
        }
        Ok(Output {
            code: Some(i32::from(bad)),
            text: String::new(),
        })
    }

    fn lacks(&self, _desired: &Desired) -> Vec<String> {
        Vec::new()
    }

    fn port_holder(&self, address: SocketAddr) -> Option<String> {
        let world = self.lock();
        let held = world.held_ports.contains(&address.port());
        let listens = world
            .listening(Ipv4Addr::LOCALHOST, address.port())
            .is_some();
        (held || listens).then(|| "somebody".to_owned())
    }
}

impl World {
    /// What a check finds now, and how long that takes.
    pub fn ask(&mut self, check: &CheckNode, pid: Option<i32>) -> (Duration, Answer) {
        let quick = Duration::from_micros(self.rng.range(200, 20_000));
        let asked = match &check.probe {
            ProbeNode::Http { url, .. } => {
                let rest = url.strip_prefix("http://").unwrap_or(url);
                rest.split('/')
                    .next()
                    .and_then(|at| at.parse::<SocketAddr>().ok())
            }
            ProbeNode::Tcp(at) => at.parse().ok(),
            ProbeNode::Exec { target, .. } => {
                invariants::enters(self, target.as_ref(), pid);
                None
            }
            ProbeNode::Ttl(_) => None,
        };
        let found = match (&check.probe, asked) {
            (ProbeNode::Exec { .. }, _) => {
                let serial = pid.and_then(|pid| self.pids.get(&pid)).copied();
                self.cgroups
                    .values()
                    .find(|cgroup| Some(cgroup.serial) == serial)
            }
            (_, Some(SocketAddr::V4(at))) => self.listening(*at.ip(), at.port()),
            _ => None,
        };
        let hangs = self.faults.on && found.is_some_and(|cgroup| cgroup.hanging);
        let well = found.is_some_and(|cgroup| self.well(cgroup));
        let serial = found.map(|cgroup| cgroup.serial);
        if !well && found.is_some_and(|cgroup| cgroup.listens) {
            self.meets(serial, Fault::Flapping);
        }
        if hangs && self.rng.chance(500) {
            self.meets(serial, Fault::HangingProbe);
            let answer = Answer {
                status: Status::Critical,
                output: "timed out".to_owned(),
            };
            return (check.timeout, answer);
        }
        let answer = Answer {
            status: if well {
                Status::Passing
            } else {
                Status::Critical
            },
            output: String::new(),
        };
        (quick, answer)
    }
}

impl World {
    /// A check meets what is wrong with a life: it is noted once.
    fn meets(&mut self, serial: Option<u64>, fault: Fault) {
        let found = serial.and_then(|serial| self.by_serial(serial));
        if found.is_some_and(|(_, cgroup)| cgroup.met.insert(fault)) {
            self.note(fault, Action::Process);
        }
    }
}

impl Probes for Shared {
    /// Nobody calls it: the run asks the world itself, so that an answer takes virtual time.
    fn probe(&self, check: &CheckNode, pid: Option<i32>) -> BoxFuture<'static, Answer> {
        let (_, answer) = self.lock().ask(check, pid);
        Box::pin(std::future::ready(answer))
    }
}
