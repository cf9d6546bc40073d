//! `hatchery plan --against`: what a spec would change where another one is in force. No host is
//! looked at: the other one is rehearsed until it is converged.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::CommandError;
use super::git::against::Compared;
use super::wiring;
use crate::driver::Files;
use crate::driver::files::HostFiles;
use crate::graph::desired::{Desired, Node};
use crate::plan::rehearsal::Rehearsal;
use crate::plan::view::PlanView;
use crate::reconcile::handle::SpecText;
use crate::reconcile::held;
use crate::reconcile::load::{INPUT_LIMIT, Loaded};

/// Passes for every node, and for every stack, at most: some wait for others, and the clock.
const PASSES: usize = 10;

/// The plan that leads from the old spec to the new one; from nothing where there is no old one.
///
/// # Errors
/// The report of either spec; when they are of different stacks; or when the old one would never
/// converge.
pub fn plan(compared: &Compared) -> Result<PlanView, CommandError> {
    let (old, new) = (compared.old.as_ref(), &compared.new);
    let load_new = match compared.followed {
        true => wiring::loaded,
        false => wiring::compared,
    };
    let files = HostFiles::new(&wiring::dirs("none"));
    let read = |path: &Path| {
        let text = files.read(path, INPUT_LIMIT);
        text.map_err(|error| error.message)
    };
    let mut host = match old {
        Some(spec) => {
            let before = wiring::compared(spec, &BTreeMap::new())?;
            let mut host = Rehearsal::new(before.desired, before.sources);
            watch(&mut host, &files);
            let most = PASSES * (host.desired.nodes.len() + PASSES);
            if !host.converge(most, &read) {
                return Err(unrest(&host, spec));
            }
            host
        }
        None => {
            let Loaded { desired, .. } = load_new(new, &BTreeMap::new())?;
            let nothing = Desired {
                nodes: Default::default(),
                needs: Default::default(),
                waves: Default::default(),
                ..desired
            };
            Rehearsal::new(nothing, BTreeMap::new())
        }
    };
    let stack = host.desired.stack.clone();
    let Loaded { desired, sources } = load_new(new, &held(&stack, &host.observed))?;
    if desired.stack != stack {
        return Err(CommandError::new(format!(
            "cannot compare: one spec is of stack `{}`, the other of `{stack}`",
            desired.stack
        )));
    }
    host.observed.inputs.files.extend(sources);
    host.observed.inputs.vars = desired.vars.clone();
    host.observed.inputs.spec_dir = desired.spec_dir.clone();
    host.edit(desired);
    host.memory.begin_generation();
    watch(&mut host, &files);
    supply(&mut host, &read);
    let mut view = PlanView::new(&stack, &host.plan());
    let trees: Vec<String> = [old, Some(new)]
        .into_iter()
        .flatten()
        .filter_map(tree)
        .collect();
    for item in &mut view.items {
        if let Some(diff) = &mut item.diff {
            diff.old = host.contents.get(&diff.path).cloned();
        }
        let details = item.details.iter_mut();
        for value in details
            .flat_map(|detail| [&mut detail.old, &mut detail.new])
            .flatten()
        {
            for tree in &trees {
                *value = value.replace(tree, "./");
            }
        }
    }
    Ok(view)
}

/// Where a commit's tree lies for as long as it is looked at: of no interest to readers.
fn tree(spec: &SpecText) -> Option<String> {
    let tree = &spec.further.origin.as_ref()?.tree;
    Some(format!("{}/", tree.display()))
}

/// Reads what templates lack; what one reads may say what it reads next.
fn supply(host: &mut Rehearsal, read: &dyn Fn(&Path) -> Result<String, String>) {
    for _ in 0..PASSES {
        let lacks = host.plan().notes.lacks;
        if lacks.is_empty() {
            return;
        }
        for path in lacks {
            let text = read(&path);
            host.observed.inputs.files.insert(path, text);
        }
    }
}

/// What restarts a workload when it changes is looked at where the spec lies.
fn watch(host: &mut Rehearsal, files: &HostFiles) {
    for node in host.desired.nodes.values() {
        let Node::Workload(workload) = node else {
            continue;
        };
        for path in &workload.watch {
            let view = files.look(path);
            host.observed.files.insert(path.clone(), view);
        }
    }
}

/// What the spec before waits for though all goes well.
fn unrest(host: &Rehearsal, spec: &SpecText) -> CommandError {
    let plan = host.plan();
    let shown = spec.shown();
    let first = plan.items.first();
    let why = first.map_or_else(String::new, |item| {
        format!(": {}: {}", item.node, item.reason)
    });
    CommandError::new(format!(
        "cannot compare with `{shown}`: it never converges{why}"
    ))
}
