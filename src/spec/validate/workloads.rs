//! Containers and processes.

use std::collections::{HashMap, HashSet};

use super::{AnyWorkload, literal, workloads};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{Container, Expr, Ready, Root, RootMode, Spec};
use crate::spec::places::{Path, Places};
use crate::spec::text::instance_names;

pub(super) fn check(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    let mut instances: HashMap<String, String> = HashMap::new();
    let mut roots: HashMap<&str, &str> = HashMap::new();
    for workload in workloads(spec) {
        restart(&workload, places, errors);
        listens(&workload, places, errors);
        for instance in instance_names(workload.name, workload.workload.replicas) {
            if let Some(other) = instances.insert(instance.clone(), workload.title()) {
                errors.push(
                    places
                        .diagnostic_at_key(
                            &workload.path(),
                            format!(
                                "the instance `{instance}` of {} has the name of one of {other}",
                                workload.title()
                            ),
                        )
                        .help("rename one of them"),
                );
                break;
            }
        }
        if let Some(container) = workload.container {
            root(&workload, container, &mut roots, places, errors);
            folders(&workload, container, places, errors);
        }
        let dir = workload.workload.working_dir.as_ref().and_then(literal);
        if let Some(dir) = dir.filter(|dir| !dir.starts_with('/') && workload.process.is_none()) {
            let at = workload.path().key("working_dir");
            errors.push(relative(places, &at, dir));
        }
    }
}

fn restart(workload: &AnyWorkload<'_>, places: &Places, errors: &mut Vec<Diagnostic>) {
    let restart = &workload.workload.restart;
    if restart.max_delay < restart.delay {
        errors.push(
            places
                .diagnostic(
                    &workload.path().key("restart").key("max_delay"),
                    format!(
                        "`max_delay` of {} is shorter than its `delay`, {}",
                        workload.title(),
                        humantime::format_duration(restart.delay)
                    ),
                )
                .help("delays grow from `delay` to `max_delay`"),
        );
    }
}

/// A literal `ready.tcp` is an address and a port.
fn listens(workload: &AnyWorkload<'_>, places: &Places, errors: &mut Vec<Diagnostic>) {
    let Ready::Listening { tcp, .. } = &workload.workload.ready else {
        return;
    };
    let Some(text) = literal(tcp) else {
        return;
    };
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .and_then(|(_, port)| port.parse::<u16>().ok())
        .filter(|port| *port > 0);
    if port.is_none() {
        errors.push(
            places
                .diagnostic(
                    &workload.path().key("ready").key("tcp"),
                    format!("`{text}` is not an address and a port"),
                )
                .help("write it like `127.0.0.1:80`"),
        );
    }
}

/// A persistent root has one user.
fn root<'s>(
    workload: &AnyWorkload<'s>,
    container: &'s Container,
    roots: &mut HashMap<&'s str, &'s str>,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) {
    let Root::Path {
        path,
        mode: RootMode::Persistent,
    } = &container.root
    else {
        return;
    };
    let Some(directory) = literal(path) else {
        return;
    };
    let at = workload.path().key("root").key("path");
    let remedy = "add `read_only: true` or `ephemeral: true`, or give each a directory of its own";
    let replicas = workload.workload.replicas.unwrap_or(1);
    if replicas > 1 {
        errors.push(
            places
                .diagnostic(
                    &at,
                    format!(
                        "the {replicas} replicas of {} cannot all write to `{directory}`",
                        workload.title()
                    ),
                )
                .help(remedy),
        );
    }
    let normal = directory.trim_end_matches('/');
    let normal = normal.strip_prefix("./").unwrap_or(normal);
    if let Some(other) = roots.insert(normal, workload.name) {
        errors.push(
            places
                .diagnostic(
                    &at,
                    format!("`{directory}` is already the root of container `{other}`"),
                )
                .help(remedy),
        );
    }
}

/// Folders inside the container: absolute, and each used once.
fn folders(
    workload: &AnyWorkload<'_>,
    container: &Container,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) {
    let path = workload.path();
    let mounts = container.mounts.iter().enumerate().map(|(index, mount)| {
        let item = path.key("mounts").index(index);
        (item, &mount.destination)
    });
    let tmpfs = container
        .tmpfs
        .iter()
        .enumerate()
        .map(|(index, folder)| (path.key("tmpfs").index(index), folder));
    let mut seen: HashSet<&str> = HashSet::new();
    for (at, folder) in mounts.chain(tmpfs) {
        folder_once(&at, folder, workload, &mut seen, places, errors);
    }
}

fn folder_once<'s>(
    at: &Path,
    folder: &'s Expr,
    workload: &AnyWorkload<'_>,
    seen: &mut HashSet<&'s str>,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) {
    let Some(folder) = literal(folder) else {
        return;
    };
    let inside = folder.trim_end_matches('/');
    if !folder.starts_with('/') {
        errors.push(relative(places, at, folder));
    } else if inside.is_empty() {
        errors.push(
            places
                .diagnostic(
                    at,
                    format!(
                        "nothing can be mounted over the `/` of {}",
                        workload.title()
                    ),
                )
                .help("name a folder below it, or set `root`"),
        );
    } else if folder.split('/').any(|part| part == "..") {
        errors.push(
            places
                .diagnostic(at, format!("`{folder}` holds `..`"))
                .help("write the path without it"),
        );
    } else if !seen.insert(inside) {
        errors.push(
            places
                .diagnostic(
                    at,
                    format!(
                        "something else of {} is mounted at `{folder}`",
                        workload.title()
                    ),
                )
                .help("mount one thing at one place"),
        );
    }
}

fn relative(places: &Places, at: &Path, path: &str) -> Diagnostic {
    places
        .diagnostic(at, format!("`{path}` is not an absolute path"))
        .help("inside a container, begin it with `/`")
}
