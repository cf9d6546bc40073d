//! Does what the plan says, step by step, and says how far it came. It chooses nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::driver::{DriverError, ErrorKind, Output};
use crate::graph::desired::{EndpointNode, ProbeNode};
use crate::plan::endpoint::registration_hash;
use crate::plan::model::{Note, Step};
use crate::registry::{CatalogError, CheckKind, CheckSpec, Origin, Registration};
use crate::spec::model::Status;
use crate::spec::node::NodeId;

use super::host::Host;

/// The longest run of a `pre_start` or reload command.
const COMMAND: Duration = Duration::from_secs(60);
/// The longest run of a validator.
const VALIDATOR: Duration = Duration::from_secs(30);
/// The longest wait for a reload's confirmation.
const RELOAD: Duration = Duration::from_secs(10);

/// How an item went.
#[derive(Debug)]
pub struct Done {
    pub(super) node: NodeId,
    /// The steps that were done.
    pub(super) steps: Vec<Finished>,
    /// Why it stopped before the end.
    pub(super) error: Option<DriverError>,
}

/// One step that was done.
#[derive(Debug)]
pub(super) struct Finished {
    pub step: Step,
    pub took: Duration,
    /// What a validator said.
    pub verdict: Option<Output>,
}

/// One item of a plan on its way. It is done whoever drives it: a thread of the loop, or a
/// simulation that may cut it off between any two steps.
#[derive(Debug)]
pub struct Job {
    node: NodeId,
    /// What is left, the next one last.
    left: Vec<Step>,
    done: Vec<Finished>,
}

impl Job {
    pub(super) fn new(node: NodeId, mut steps: Vec<Step>) -> Self {
        steps.reverse();
        Job {
            node,
            left: steps,
            done: Vec::new(),
        }
    }

    /// Whose it is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// What comes next, if anything is left.
    pub fn next_step(&self) -> Option<&Step> {
        self.left.last()
    }

    /// Does the next step. The answer tells how all of it went, once it was the last one or
    /// failed; after that there is nothing to advance.
    pub fn advance(&mut self, host: &Host) -> Option<Done> {
        let mut error = None;
        if let Some(step) = self.left.pop() {
            let began = host.clock.now();
            match do_step(host, &step) {
                Ok(verdict) => self.done.push(Finished {
                    step,
                    took: host.clock.now().since(began),
                    verdict,
                }),
                Err(why) => error = Some(why),
            }
        }
        (self.left.is_empty() || error.is_some()).then(|| Done {
            node: self.node.clone(),
            steps: std::mem::take(&mut self.done),
            error,
        })
    }

    /// What is told when the thread that did it was lost.
    pub(super) fn lost(node: NodeId) -> Done {
        Done {
            node,
            steps: Vec::new(),
            error: Some(DriverError {
                message: "the step was cut off by the controller's end".to_owned(),
                kind: ErrorKind::Failed,
            }),
        }
    }
}

fn do_step(host: &Host, step: &Step) -> Result<Option<Output>, DriverError> {
    match step {
        Step::OpenRegistry(registry) => host.listener.open(registry)?,
        Step::CreateNetwork(network) => host.networks.create(network)?,
        Step::RemoveNetwork(bridge) => host.networks.remove(bridge)?,
        Step::Attach(attachment) => host.networks.attach(attachment)?,
        Step::Firewall {
            namespace,
            firewall,
        } => {
            host.networks.firewall(namespace, firewall.as_ref())?;
        }
        Step::Detach(namespace) => host.networks.detach(namespace)?,
        Step::Rewrite { path, content } => host.files.rewrite(path, content)?,
        Step::PortFree(address) => port_free(host, *address)?,
        Step::PreStart { command, dir } => succeed("`pre_start`", command, || {
            host.commands.run(command, dir, COMMAND)
        })?,
        Step::Start(start) => host.workloads.start(start)?,
        Step::Signal { life, signal, late } => {
            absent_is_fine(host.workloads.signal(life, *signal, *late))?;
        }
        Step::Kill(life) => absent_is_fine(host.workloads.kill(life))?,
        Step::Clear(life) => absent_is_fine(host.workloads.remove(life))?,
        Step::Register(endpoint) => register(host, endpoint)?,
        Step::Deregister(service_id) => {
            host.catalog.with(|catalog| catalog.deregister(service_id));
        }
        Step::Validate {
            command,
            candidates,
            ..
        } => {
            return host
                .commands
                .validate(command, candidates, VALIDATOR)
                .map(Some);
        }
        Step::Write(file) => host.files.write(file)?,
        Step::RemoveFile { path, stack } => host.files.remove(path, stack)?,
        Step::Note { life, note } => absent_is_fine(host.workloads.note(life, note))?,
        Step::ReloadProcess {
            life,
            signal,
            confirm,
            applied,
        } => {
            // What it has read is unknown from the signal on until it is noted: whoever comes
            // after a crash in between tells it once more.
            let unknown = applied.keys().map(|name| (name.clone(), String::new()));
            let unknown = Note::Applied(unknown.collect());
            host.workloads.note(life, &unknown)?;
            host.workloads.reload(life, *signal, *confirm, RELOAD)?;
            let known = Note::Applied(applied.clone());
            host.workloads.note(life, &known)?;
        }
        Step::ReloadCommand { command, dir, .. } => {
            succeed("the reload command", command, || {
                host.commands.run(command, dir, COMMAND)
            })?;
        }
    }
    Ok(None)
}

fn absent_is_fine(result: Result<(), DriverError>) -> Result<(), DriverError> {
    match result {
        Err(error) if error.kind == ErrorKind::Gone => Ok(()),
        result => result,
    }
}

fn succeed(
    what: &str,
    command: &[String],
    run: impl FnOnce() -> Result<Output, DriverError>,
) -> Result<(), DriverError> {
    let output = run()?;
    if output.code == Some(0) {
        return Ok(());
    }
    let how = output
        .code
        .map_or("did not end".to_owned(), |code| format!("exited {code}"));
    Err(DriverError {
        message: format!(
            "{what} `{}` {how}: {}",
            command.join(" "),
            output.text.trim()
        ),
        kind: ErrorKind::Failed,
    })
}

fn port_free(host: &Host, address: SocketAddr) -> Result<(), DriverError> {
    match host.commands.port_holder(address) {
        None => Ok(()),
        Some(holder) => Err(DriverError {
            message: format!(
                "cannot listen on {address}: it is held by {holder}; stop that, or change the port"
            ),
            kind: ErrorKind::Foreign,
        }),
    }
}

/// The id of the check that says whether an endpoint's target runs.
pub(super) fn life_check(service_id: &str) -> String {
    format!("{service_id}:life")
}

fn register(host: &Host, endpoint: &EndpointNode) -> Result<(), DriverError> {
    let mut checks: Vec<CheckSpec> = endpoint
        .checks
        .iter()
        .map(|check| CheckSpec {
            id: check.id.clone(),
            name: check.name.clone(),
            kind: match check.probe {
                ProbeNode::Ttl(ttl) => CheckKind::Ttl(ttl),
                _ => CheckKind::Probed,
            },
            initial: Status::Critical,
            deregister_after: None,
            notes: String::new(),
        })
        .collect();
    if endpoint.target.is_some() {
        checks.push(CheckSpec {
            id: life_check(&endpoint.service_id),
            name: "running".to_owned(),
            kind: CheckKind::Probed,
            initial: Status::Critical,
            deregister_after: None,
            notes: String::new(),
        });
    }
    let registration = Registration {
        id: endpoint.service_id.clone(),
        service: endpoint.service.clone(),
        address: endpoint.address.clone(),
        port: endpoint.port,
        tags: endpoint.tags.clone(),
        meta: endpoint.meta.clone(),
        checks,
        origin: Origin::Stack,
        hash: registration_hash(endpoint),
    };
    let now = host.clock.now();
    host.catalog
        .with(|catalog| catalog.register(registration, now))
        .map(|_| ())
        .map_err(|error| DriverError {
            message: error.to_string(),
            kind: match error {
                CatalogError::Held { .. } => ErrorKind::Foreign,
                _ => ErrorKind::Failed,
            },
        })
}
