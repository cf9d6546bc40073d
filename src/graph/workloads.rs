//! Containers and processes, expressions evaluated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Compiler;
use super::at::At;
use super::desired::{
    Attachment, CheckNode, ContainerRun, MountRun, NetworkRun, ProbeNode, ReadyNode, RootRun, Run,
    WorkloadNode,
};
use super::evaluate::Side;
use super::instances::{Instance, gateway};
use super::memo::Memo;
use super::names;
use crate::spec::model::{Container, Expr, NetworkMode, Ready, Root, RootMode, Workload};
use crate::spec::node::{Kind, NodeId};

/// Where programs are looked for.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often it is asked whether a starting workload listens.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);

/// The first of these questions come faster, since most programs listen soon.
const LISTEN_START_INTERVAL: Duration = Duration::from_millis(20);

/// How long one of these questions may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(1);

/// One instance, evaluated; `None` once its errors are noted.
pub(super) fn workload(
    compiler: &mut Compiler<'_>,
    instance: &Instance<'_>,
) -> Option<WorkloadNode> {
    let spec = compiler.spec;
    let section = At::section(instance.id.kind.word());
    let at = section.key(instance.group);
    if instance.id.kind == Kind::Containers {
        let container = spec.containers.get(instance.group)?;
        // Both are asked before either is given up, so that all errors are noted.
        let node = common(compiler, &at, instance, &container.workload, Side::Inside);
        let run = container_run(compiler, &at, instance, container);
        let (mut node, run) = (node?, run?);
        node.attachment = attachment(compiler, instance, container);
        node.run.container = Some(run);
        Some(node)
    } else {
        let process = spec.processes.get(instance.group)?;
        let list = at.key("pre_start");
        let scope = instance.scope();
        let pre_start: Vec<Option<Vec<String>>> = process
            .pre_start
            .iter()
            .enumerate()
            .map(|(index, words)| compiler.command(&list.index(index), words, &scope, Side::Host))
            .collect();
        let mut node = common(compiler, &at, instance, &process.workload, Side::Host)?;
        node.pre_start = pre_start.into_iter().collect::<Option<_>>()?;
        Some(node)
    }
}

fn common(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    instance: &Instance<'_>,
    workload: &Workload,
    side: Side,
) -> Option<WorkloadNode> {
    let scope = instance.scope();
    let command = compiler.command(&at.key("command"), &workload.command, &scope, side);
    let environment = environment(compiler, at, instance, workload);
    let working_dir = workload
        .working_dir
        .as_ref()
        .map(|path| compiler.path(&at.key("working_dir"), path, &scope, side));
    let watch = paths(
        compiler,
        &at.key("watch"),
        &workload.watch,
        instance,
        Side::Host,
    );
    let ready = ready(compiler, at, instance, &workload.ready);
    Some(WorkloadNode {
        id: instance.id.clone(),
        group: instance.group.to_owned(),
        replica: instance.replica,
        run: Run {
            command: command?,
            environment: environment?,
            user: workload.user.clone(),
            working_dir: match working_dir {
                Some(path) => Some(path?),
                None => None,
            },
            notify: matches!(workload.ready, Ready::Notify { .. }),
            container: None,
        },
        watch: watch?,
        restart: workload.restart.clone(),
        stop_signal: workload.stop_signal,
        stop_grace_period: workload.stop_grace_period,
        ready: ready?,
        attachment: None,
        pre_start: Vec::new(),
        update: workload.update,
        min_healthy_time: min_healthy_time(workload),
        drain: workload.drain,
        ports: BTreeSet::new(),
        log: workload.log,
        identity: Memo::default(),
    })
}

/// So long a new life must run where nothing else tells whether it is well: most programs that
/// cannot work end sooner.
const TO_END_AT_ONCE: Duration = Duration::from_millis(500);

fn min_healthy_time(workload: &Workload) -> Duration {
    let update = &workload.update;
    update
        .min_healthy_time
        .unwrap_or_else(|| match &workload.ready {
            Ready::Started => TO_END_AT_ONCE.min(update.healthy_deadline / 2),
            _ => Duration::ZERO,
        })
}

fn paths(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    list: &[Expr],
    instance: &Instance<'_>,
    side: Side,
) -> Option<Vec<PathBuf>> {
    let scope = instance.scope();
    let found: Vec<Option<PathBuf>> = list
        .iter()
        .enumerate()
        .map(|(index, path)| compiler.path(&at.index(index), path, &scope, side))
        .collect();
    found.into_iter().collect()
}

/// Nothing of the controller's own environment is passed on; these are what programs expect.
fn environment(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    instance: &Instance<'_>,
    workload: &Workload,
) -> Option<BTreeMap<String, String>> {
    let scope = instance.scope();
    let mut environment = BTreeMap::from([
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("PATH".to_owned(), SEARCH_PATH.to_owned()),
    ]);
    // Another user's home is in a passwd file that we do not read; programs look there as well.
    let user = workload.user.as_deref().unwrap_or("root");
    if matches!(user.split(':').next(), Some("root" | "0")) {
        environment.insert("HOME".to_owned(), "/root".to_owned());
    }
    let mut whole = true;
    let list = at.key("environment");
    for (name, value) in &workload.environment {
        let place = list.key(name);
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("`{name}` is not a name for an environment variable");
            compiler.problems.add(&place, message);
            whole = false;
        }
        match compiler.text(&place, value, &scope) {
            Some(value) => {
                environment.insert(name.clone(), value);
            }
            None => whole = false,
        }
    }
    whole.then_some(environment)
}

fn ready(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    instance: &Instance<'_>,
    ready: &Ready,
) -> Option<ReadyNode> {
    let scope = instance.scope();
    let id = format!("ready:{}", instance.id.name);
    let at = at.key("ready");
    match ready {
        Ready::Started => Some(ReadyNode::Started),
        Ready::Notify { timeout } => Some(ReadyNode::Notify { timeout: *timeout }),
        Ready::Listening { tcp, timeout } => {
            let address = compiler.endpoint(&at.key("tcp"), tcp, &scope)?;
            Some(ReadyNode::Check {
                check: CheckNode {
                    id,
                    name: "ready".to_owned(),
                    probe: ProbeNode::Tcp(address),
                    interval: LISTEN_INTERVAL,
                    timeout: LISTEN_TIMEOUT,
                    retries: 1,
                    start_period: Duration::ZERO,
                    start_interval: LISTEN_START_INTERVAL,
                },
                timeout: *timeout,
            })
        }
        Ready::Check { check, timeout } => {
            let at = at.key("check");
            let (at, check) = compiler.check_definition(&at, check)?;
            let target = Some(&instance.id);
            let mut check = compiler.check(&at, check, "ready", &scope, target)?;
            check.id = id;
            Some(ReadyNode::Check {
                check,
                timeout: *timeout,
            })
        }
    }
}

fn container_run(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    instance: &Instance<'_>,
    container: &Container,
) -> Option<ContainerRun> {
    let scope = instance.scope();
    let seat = &instance.id.name;
    let root = match &container.root {
        Root::Host => Some(RootRun::Host),
        Root::Path { path, mode } => {
            let root = at.key("root");
            let place = root.key("path");
            let path = compiler.path(&place, path, &scope, Side::Host);
            if let Some(path) = path.as_ref().filter(|_| *mode == RootMode::Persistent) {
                let remedy = "add `read_only: true` or `ephemeral: true`";
                compiler.refuse_writes(&place, path, remedy);
            }
            path.map(|path| RootRun::Path { path, mode: *mode })
        }
    };
    let mounts = mounts(compiler, at, instance, container);
    let tmpfs = paths(
        compiler,
        &at.key("tmpfs"),
        &container.tmpfs,
        instance,
        Side::Inside,
    );
    let network = match &container.network {
        NetworkMode::Host => Some(NetworkRun::Host),
        NetworkMode::None => Some(NetworkRun::None),
        NetworkMode::Bridge(network) => {
            let known = compiler.spec.networks.contains_key(network);
            if !known {
                let message = format!("network `{network}` does not exist");
                compiler.problems.add(&at.key("network"), message);
            }
            known.then(|| NetworkRun::Namespace(names::namespace(&compiler.spec.name, seat)))
        }
    };
    Some(ContainerRun {
        hostname: instance.name.clone(),
        machine: names::machine(&compiler.spec.name, seat),
        root: root?,
        mounts: mounts?,
        tmpfs: tmpfs?,
        network: network?,
        hosts: compiler.inputs.dirs.run.join("hosts").join(seat),
    })
}

fn mounts(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    instance: &Instance<'_>,
    container: &Container,
) -> Option<Vec<MountRun>> {
    let scope = instance.scope();
    let list = at.key("mounts");
    let mut mounts = Vec::new();
    let mut whole = true;
    for (index, mount) in container.mounts.iter().enumerate() {
        let mount_at = list.index(index);
        let place = mount_at.somewhere();
        let source = compiler.path(&place, &mount.source, &scope, Side::Host);
        let destination = compiler.path(&place, &mount.destination, &scope, Side::Inside);
        let (Some(source), Some(destination)) = (source, destination) else {
            whole = false;
            continue;
        };
        let taken = |other: &MountRun| other.destination == destination;
        if destination.parent().is_none() || mounts.iter().any(taken) {
            let what = destination.display();
            let message = format!("cannot mount at `{what}`: something else is mounted there");
            compiler.problems.add(&place, message);
            whole = false;
        }
        if !mount.read_only {
            compiler.refuse_writes(&place, &source, "add `:ro`");
        }
        mounts.push(MountRun {
            source,
            destination,
            read_only: mount.read_only,
        });
    }
    whole.then_some(mounts)
}

impl Compiler<'_> {
    /// Notes an error where a container could write into a commit's tree, of which it is known
    /// what it holds.
    fn refuse_writes(&mut self, at: &At<'_>, path: &Path, remedy: &str) {
        let tree = self.inputs.tree.as_ref();
        let Some(below) = tree.and_then(|tree| match tree.may_be_written {
            true => None,
            false => path.strip_prefix(&tree.root).ok(),
        }) else {
            return;
        };
        let shown = match path.strip_prefix(&self.inputs.spec_dir) {
            Ok(inner) => Path::new(".").join(inner),
            Err(_) => below.to_owned(),
        };
        self.problems.advise(
            at,
            format!(
                "cannot let a container write to `{}`: it is part of a commit, whose tree is \
                 never changed",
                shown.display()
            ),
            format!("{remedy}, or use an absolute path outside of the repository"),
        );
    }
}

fn attachment(
    compiler: &Compiler<'_>,
    instance: &Instance<'_>,
    container: &Container,
) -> Option<Attachment> {
    let NetworkMode::Bridge(name) = &container.network else {
        return None;
    };
    let stack = &compiler.spec.name;
    let subnet = compiler.spec.networks.get(name)?.subnet;
    Some(Attachment {
        network: name.clone(),
        bridge: names::bridge(stack, name),
        namespace: names::namespace(stack, &instance.id.name),
        link: names::link(stack, &instance.id.name),
        address: instance.address?,
        prefix: subnet.prefix_len(),
        gateway: gateway(subnet)?,
        firewall: container.firewall.clone(),
    })
}

/// The network that a container's node needs.
pub(super) fn network_id(compiler: &Compiler<'_>, instance: &Instance<'_>) -> Option<NodeId> {
    if instance.id.kind != Kind::Containers {
        return None;
    }
    match &compiler.spec.containers.get(instance.group)?.network {
        NetworkMode::Bridge(name) => Some(NodeId::new(Kind::Networks, name.as_str())),
        NetworkMode::Host | NetworkMode::None => None,
    }
}
