//! Errors of meaning: what a spec says is understood, but cannot hold. Cycles are found with
//! the graph, errors in expressions by evaluating them.

mod networks;
mod ports;
mod references;
mod rolling;
mod templates;
mod workloads;

use super::diagnostic::Diagnostic;
use super::model::{Container, Expr, Process, Spec, Workload};
use super::node::Kind;
use super::places::{Path, Places};
use super::text::is_dynamic;

/// What is wrong with the spec as a whole; empty when nothing is.
pub fn validate(spec: &Spec, places: &Places) -> Vec<Diagnostic> {
    let mut errors = references(spec, &[], places);
    errors.extend(beyond_references(spec, places));
    errors
}

/// What [`validate`] finds beside dangling references.
pub(super) fn beyond_references(spec: &Spec, places: &Places) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    networks::check(spec, places, &mut errors);
    ports::check(spec, places, &mut errors);
    workloads::check(spec, places, &mut errors);
    rolling::check(spec, places, &mut errors);
    templates::check(spec, places, &mut errors);
    errors
}

/// References that lead nowhere. What the file declares counts, be it sound or not; `beside`
/// holds entries of the same file that are not in `spec`.
pub(super) fn references(spec: &Spec, beside: &[&Spec], places: &Places) -> Vec<Diagnostic> {
    references::check(spec, beside, places)
}

/// The string, when it holds no expression and thus is known here.
fn literal(expr: &Expr) -> Option<&str> {
    (!is_dynamic(&expr.0)).then_some(expr.0.as_str())
}

/// The path of one entry of a section.
fn path(kind: Kind, name: &str) -> Path {
    Path::of([kind.word(), name])
}

/// A container or a process.
struct AnyWorkload<'s> {
    kind: Kind,
    name: &'s str,
    workload: &'s Workload,
    container: Option<&'s Container>,
    process: Option<&'s Process>,
}

impl AnyWorkload<'_> {
    /// "container `prime`".
    fn title(&self) -> String {
        let kind = match self.kind {
            Kind::Containers => "container",
            _ => "process",
        };
        format!("{kind} `{}`", self.name)
    }

    fn path(&self) -> Path {
        path(self.kind, self.name)
    }
}

/// All containers, then all processes.
fn workloads(spec: &Spec) -> impl Iterator<Item = AnyWorkload<'_>> {
    let containers = spec.containers.iter().map(|(name, container)| AnyWorkload {
        kind: Kind::Containers,
        name,
        workload: &container.workload,
        container: Some(container),
        process: None,
    });
    let processes = spec.processes.iter().map(|(name, process)| AnyWorkload {
        kind: Kind::Processes,
        name,
        workload: &process.workload,
        container: None,
        process: Some(process),
    });
    containers.chain(processes)
}
