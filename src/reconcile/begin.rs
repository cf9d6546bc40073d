//! How a controller begins: it compiles the spec against the addresses that are held, and
//! looks at what runs already.

use std::collections::BTreeMap;

use tokio::sync::broadcast;

use super::checks::unchecked;
use super::controller::{Controller, Dirty, held};
use super::engine::Beginning;
use super::handle::{Happening, SpecText};
use super::history::History;
use super::host::Host;
use super::load::{Loaded, Surroundings, load};
use super::observe::network_names;
use super::outlook::{Outlook, World};
use super::schedule::Wanted;
use crate::graph::desired::Desired;
use crate::plan::memory::{Down, Memory};
use crate::plan::model::Plan;
use crate::plan::permit::Permit;
use crate::plan::saved::SavedPlan;
use crate::plan::world::{LifeState, Observed};
use crate::spec::generation::Cause;

pub(super) fn begin(
    beginning: Beginning,
    happenings: &broadcast::Sender<Happening>,
) -> Result<Controller, String> {
    let Beginning {
        host,
        around,
        spec,
        stack,
        saved,
        left,
        follows,
        commit_deadline,
        keeps,
        suspended,
        seed: _,
    } = beginning;
    let empty = spec.is_none();
    let observed = addresses(&host)?;
    let (spec, loaded) = first_spec(spec, &stack, &host, &around, &observed)?;
    let now = host.clock.now();
    let mut memory = remembered(&host, empty);
    memory.keeps = keeps;
    let past = host.keep.past();
    let history = History::after(&past, &host, suspended);
    let permit = saved
        .map(|saved| approved(&saved, &spec, &loaded, &host, &around, &memory))
        .transpose()?;
    let mut controller = Controller {
        desired: nothing(&loaded.desired.stack, &around),
        watched: Wanted::new(),
        rounds: 0,
        rewatch: false,
        host,
        around,
        spec: spec.clone(),
        history,
        spec_error: None,
        proven: None,
        passed_over: None,
        follows,
        commit_deadline,
        observed,
        memory,
        dirty: Dirty::ALL,
        reread: false,
        targets: BTreeMap::new(),
        before: BTreeMap::new(),
        plan: Plan::default(),
        converged: false,
        busy_since: now,
        down: None,
        happenings: happenings.clone(),
        done_before: BTreeMap::new(),
        began: now,
        heartbeats_due: None,
        synced: now,
        logs_due: None,
        following: std::collections::BTreeSet::new(),
    };
    controller.tell_beginning(&past.unread);
    controller.adopt_spec(spec, loaded, Cause::Begin);
    controller.recall_carried(&past, permit);
    let left = left.map(|spec| controller.out_of_force(spec));
    controller.pass_over(left);
    controller.memory.past_needs.clear();
    controller.recall_proven(&past);
    see(controller)
}

/// Looks at what runs already, and adopts it.
fn see(mut controller: Controller) -> Result<Controller, String> {
    controller.observe();
    if controller.dirty.lives || controller.dirty.network {
        // Planning on what was not seen would start everything a second time.
        return Err("cannot see what runs on this host; the warnings above say why".to_owned());
    }
    let lives = controller.observed.lives.iter();
    let up = lives.filter(|life| life.state == LifeState::Up);
    controller.memory.adopted = up.map(|life| life.id.clone()).collect();
    controller.warn_of_lacks();
    controller.tell_adopted();
    controller.memory.unchecked = unchecked(&controller.desired, &controller.observed);
    Ok(controller)
}

/// What an applied plan lets happen, if it still fits.
fn approved(
    saved: &SavedPlan,
    spec: &SpecText,
    loaded: &Loaded,
    host: &Host,
    around: &Surroundings,
    memory: &Memory,
) -> Result<Permit, String> {
    let world = look(host, around, loaded, memory)?;
    let outlook = Outlook::new(spec.clone(), loaded.clone(), world, host.files.as_ref());
    outlook.permit(saved)
}

/// The world before this controller does anything in it.
fn look(
    host: &Host,
    around: &Surroundings,
    loaded: &Loaded,
    memory: &Memory,
) -> Result<World, String> {
    let mut observed = Observed {
        lives: host.workloads.observe().map_err(|error| error.message)?,
        ..Observed::default()
    };
    let names = network_names(&loaded.desired);
    let network = host.networks.observe(&names);
    observed.network = network.map_err(|error| error.message)?;
    observed.inputs.env = around.env.clone();
    Ok(World {
        observed,
        memory: memory.clone(),
        rendered: host.keep.rendered(),
        now: host.clock.now(),
        by_controller: false,
    })
}

/// The addresses that instances hold: they are part of what the spec compiles to.
fn addresses(host: &Host) -> Result<Observed, String> {
    let network = host.networks.observe(&[]).map_err(|error| error.message)?;
    Ok(Observed {
        network,
        ..Observed::default()
    })
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
    let spec = SpecText::of("/", "");
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
        tree: None,
        dirs: (around.dirs)(stack),
        requires: Vec::new(),
        nodes: Default::default(),
        needs: BTreeMap::new(),
        waves: Default::default(),
        vars: indexmap::IndexMap::new(),
        pairs: BTreeMap::new(),
        hosts: Default::default(),
    }
}
