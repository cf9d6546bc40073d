//! References that lead nowhere.

use std::ops::Range;

use super::{path, workloads};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{CheckRef, Condition, Dependency, NetworkMode, Ready, Reload, Spec};
use crate::spec::node::{Kind, NodeId};
use crate::spec::places::{Path, Places};
use crate::spec::suggest::{listed, nearest};
use crate::spec::text::instance_names;

/// After so many errors no more are looked for.
const MOST_ERRORS: usize = 1000;
/// Names that are listed in full when nothing is near.
const MOST_LISTED: usize = 8;

/// `spec`'s references; `beside` holds more entries of the same file.
pub(super) fn check(spec: &Spec, beside: &[&Spec], places: &Places) -> Vec<Diagnostic> {
    let mut look = Look {
        specs: std::iter::once(spec)
            .chain(beside.iter().copied())
            .collect(),
        places,
        errors: Vec::new(),
    };
    for (name, network) in &spec.networks {
        look.depends_on(&path(Kind::Networks, name), &network.depends_on);
    }
    for workload in workloads(spec) {
        let at = workload.path();
        look.depends_on(&at, &workload.workload.depends_on);
        if let Ready::Check {
            check: CheckRef::Named(check),
            ..
        } = &workload.workload.ready
        {
            look.name(&at.key("ready").key("check"), Kind::Checks, check);
        }
        if let Some(container) = workload.container
            && let NetworkMode::Bridge(network) = &container.network
        {
            look.name(&at.key("network"), Kind::Networks, network);
        }
    }
    for (name, service) in &spec.services {
        let at = path(Kind::Services, name);
        look.depends_on(&at, &service.depends_on);
        if let Some(target) = &service.target {
            look.target(&at.key("target"), target);
        }
        for check in &service.checks {
            if let CheckRef::Named(check) = check {
                look.name(&at.key("checks"), Kind::Checks, check);
            }
        }
    }
    for (name, template) in &spec.templates {
        let at = path(Kind::Templates, name);
        look.depends_on(&at, &template.depends_on);
        if let Some(Reload::Signal { process, .. }) = &template.reload {
            look.name(&at.key("reload").key("process"), Kind::Processes, process);
        }
    }
    look.errors
}

struct Look<'s> {
    specs: Vec<&'s Spec>,
    places: &'s Places,
    errors: Vec<Diagnostic>,
}

impl Look<'_> {
    /// Whether there are errors enough.
    fn full(&self) -> bool {
        self.errors.len() >= MOST_ERRORS
    }

    fn declared(&self, kind: Kind) -> Vec<&str> {
        self.places.keys(&Path::of([kind.word()]))
    }

    /// A bare name of one kind, at `at` or in the list there.
    fn name(&mut self, at: &Path, kind: Kind, name: &str) {
        let names = self.declared(kind);
        if self.full() || names.contains(&name) {
            return;
        }
        let found = Diagnostic {
            span: self.places.saying(at, name),
            ..Diagnostic::whole(format!("`{name}` is not in `{}`", kind.word()))
        };
        let error = suggest(found, name, &names, kind, |near| near.to_owned());
        self.errors.push(error);
    }

    fn target(&mut self, at: &Path, target: &NodeId) {
        let names = self.declared(target.kind);
        if self.full() || names.contains(&target.name.as_str()) {
            return;
        }
        let error = self
            .places
            .diagnostic(at, format!("`{target}` does not exist"));
        let error = match self.group_of(target) {
            Some(group) => error
                .help("a service has all instances of its target")
                .replace(format!("{}/{group}", target.kind.word())),
            None => suggest(error, &target.name, &names, target.kind, |near| {
                format!("{}/{near}", target.kind.word())
            }),
        };
        self.errors.push(error);
    }

    /// The workload that `id` is one instance of.
    fn group_of(&self, id: &NodeId) -> Option<&str> {
        self.specs
            .iter()
            .flat_map(|spec| workloads(spec))
            .filter(|workload| workload.kind == id.kind)
            .find(|workload| {
                id.name.starts_with(workload.name)
                    && instance_names(workload.name, workload.workload.replicas).contains(&id.name)
            })
            .map(|workload| workload.name)
    }

    fn depends_on(&mut self, owner: &Path, dependencies: &[Dependency]) {
        for dependency in dependencies {
            if self.full() {
                return;
            }
            let at = owner.key("depends_on");
            let span = self.places.saying(&at, &dependency.on.to_string());
            self.dependency(span, dependency);
        }
    }

    fn dependency(&mut self, span: Option<Range<usize>>, dependency: &Dependency) {
        let on = &dependency.on;
        let kind = on.kind;
        let runs = matches!(kind, Kind::Containers | Kind::Processes);
        if dependency.condition == Condition::Completed && !runs {
            let error = Diagnostic {
                span: span.clone(),
                ..Diagnostic::whole(format!("`{on}` never completes"))
            };
            self.errors
                .push(error.help("only containers and processes end; use `started` or `healthy`"));
        }
        if kind == Kind::Registry {
            return;
        }
        let names = self.declared(kind);
        // One instance may be named too: `containers/prime1`, `services/prime/prime1`.
        let whole = on.name.split('/').next().unwrap_or(&on.name);
        let service = kind == Kind::Services && names.contains(&whole);
        if names.contains(&on.name.as_str()) || service || self.group_of(on).is_some() {
            return;
        }
        let error = Diagnostic {
            span,
            ..Diagnostic::whole(format!("`{on}` does not exist"))
        };
        let error = suggest(error, &on.name, &names, kind, |near| {
            format!("{}/{near}", kind.word())
        });
        self.errors.push(error);
    }
}

/// Adds what may have been meant, or what there is.
fn suggest(
    error: Diagnostic,
    name: &str,
    names: &[&str],
    kind: Kind,
    written: impl Fn(&str) -> String,
) -> Diagnostic {
    let section = kind.word();
    match nearest(name, names.iter().copied()) {
        Some(near) => error.did_you_mean(Some(&written(near))),
        None if names.is_empty() => error.help(format!("the spec has no `{section}`")),
        None if names.len() > MOST_LISTED => error.help(format!("add it to `{section}`")),
        None => error.help(format!(
            "`{section}` has {}",
            listed(names.iter().copied(), "and")
        )),
    }
}
