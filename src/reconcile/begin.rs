//! How a controller begins: it compiles the spec against the addresses that are held, and
//! looks at what runs already.

use std::collections::BTreeMap;

use tokio::sync::{broadcast, mpsc};

use super::controller::{Controller, Dirty, held, remember_stops};
use super::execute::Done;
use super::handle::{Happening, SpecText};
use super::host::Host;
use super::load::{Loaded, Surroundings, load};
use super::monitors::{Monitors, Verdict, Wanted};
use super::observe::unchecked;
use super::run::Beginning;
use crate::graph::desired::Desired;
use crate::plan::memory::{Down, Memory};
use crate::plan::model::Plan;
use crate::plan::world::Observed;

pub(super) fn begin(
    beginning: Beginning,
    happenings: &broadcast::Sender<Happening>,
    done: mpsc::UnboundedSender<Done>,
    verdicts: mpsc::Sender<Verdict>,
) -> Result<Controller, String> {
    let Beginning {
        host,
        around,
        spec,
        stack,
        follows,
        seed,
    } = beginning;
    let empty = spec.is_none();
    let mut observed = Observed::default();
    // Addresses that instances hold are part of what the spec compiles to.
    let view = tokio::task::block_in_place(|| host.networks.observe(&[]));
    observed.network = view.map_err(|error| error.message)?;
    let (spec, loaded) = first_spec(spec, &stack, &host, &around, &observed)?;
    let now = host.clock.now();
    let memory = remembered(&host, empty);
    let mut controller = Controller {
        desired: nothing(&loaded.desired.stack, &around),
        monitors: Monitors::start(host.probes.clone(), host.clock.clone(), seed, verdicts),
        watched: Wanted::new(),
        host,
        around,
        spec: spec.clone(),
        generation: 0,
        spec_error: None,
        follows,
        observed,
        memory,
        dirty: Dirty::ALL,
        targets: BTreeMap::new(),
        before: BTreeMap::new(),
        plan: Plan::default(),
        converged: false,
        busy_since: now,
        down: None,
        done,
        happenings: happenings.clone(),
        done_before: BTreeMap::new(),
        began: now,
        heartbeats_due: None,
        synced: now,
        following: std::collections::BTreeSet::new(),
    };
    controller.adopt_spec(spec, loaded);
    controller.memory.past_needs.clear();
    remember_stops(&mut controller.memory, &controller.desired);
    tokio::task::block_in_place(|| controller.observe());
    if controller.dirty.lives || controller.dirty.network {
        // Planning on what was not seen would start everything a second time.
        return Err("cannot see what runs on this host; the warnings above say why".to_owned());
    }
    controller.memory.unchecked = unchecked(&controller.desired, &controller.observed);
    Ok(controller)
}

/// What an earlier controller kept. Without a spec there is nothing to do but to take the
/// stack down.
fn remembered(host: &Host, empty: bool) -> Memory {
    let mut memory = Memory {
        down: empty.then_some(Down { kill: false }),
        stopped: host.keep.was_stopped(),
        ..Memory::default()
    };
    for (template, hash) in host.keep.was_told() {
        memory.templates.entry(template).or_default().told = Some(hash);
    }
    memory
}

/// The spec that a controller begins with.
fn first_spec(
    spec: Option<SpecText>,
    stack: &str,
    host: &Host,
    around: &Surroundings,
    observed: &Observed,
) -> Result<(SpecText, Loaded), String> {
    if let Some(spec) = spec {
        let held = held(stack, observed);
        let loaded = load(&spec, around, &held, host.files.as_ref(), false)?;
        return Ok((spec, loaded));
    }
    let spec = SpecText {
        path: "/".into(),
        text: String::new(),
    };
    let loaded = Loaded {
        desired: nothing(stack, around),
        sources: BTreeMap::new(),
    };
    Ok((spec, loaded))
}

/// The empty spec of a stack.
fn nothing(stack: &str, around: &Surroundings) -> Desired {
    Desired {
        stack: stack.to_owned(),
        spec_dir: "/".into(),
        dirs: (around.dirs)(stack),
        requires: Vec::new(),
        nodes: indexmap::IndexMap::new(),
        needs: BTreeMap::new(),
        waves: Default::default(),
        vars: indexmap::IndexMap::new(),
        pairs: BTreeMap::new(),
    }
}
