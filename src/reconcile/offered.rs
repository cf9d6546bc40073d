//! What is asked of a spec before it takes the place of the one in force.

use super::controller::Controller;
use super::handle::SpecText;
use super::load::{Loaded, load};
use super::sync::Fault;
use crate::graph::desired::Desired;
use crate::plan::permit::Permit;
use crate::plan::saved::SavedPlan;
use crate::plan::world::{LifeId, LifeState};
use crate::spec::node::Kind;

/// What of a stack would go whole if it became as `desired` says: every workload that runs, or
/// every container. A spec that does so may be half a file.
pub fn removes_all<'a>(
    desired: &Desired,
    running: impl Iterator<Item = &'a LifeId> + Clone,
) -> Option<&'static str> {
    let all_of = |kind: Option<Kind>| {
        let mut of_kind = running
            .clone()
            .filter(|life| kind.is_none_or(|kind| life.node.kind == kind))
            .peekable();
        of_kind.peek().is_some() && !of_kind.any(|life| desired.stays(&life.node))
    };
    if all_of(None) {
        Some("workload")
    } else if all_of(Some(Kind::Containers)) {
        Some("container")
    } else {
        None
    }
}

impl Controller {
    /// Why a spec of another stack is not taken.
    pub(super) fn other_stack(&self, loaded: &Loaded) -> String {
        let (theirs, ours) = (&loaded.desired.stack, &self.desired.stack);
        format!(
            "the spec is of stack `{theirs}`, this controller keeps stack `{ours}`, and a stack \
             that runs cannot change its name; take `{ours}` down first, or bring `{theirs}` up \
             from a file of its own"
        )
    }

    /// Why a spec is held: it would end every workload that runs.
    pub(super) fn removes_all(&self, loaded: &Loaded) -> Option<String> {
        let up = self.observed.lives.iter();
        let up = up.filter(|life| life.state == LifeState::Up);
        // What is just being started was not seen to run yet.
        let running = up.map(|life| &life.id).chain(&self.memory.starting);
        let what = removes_all(&loaded.desired, running)?;
        Some(format!(
            "it would remove every {what} of stack `{}`; if that is meant, use `hatchery apply \
             --allow-empty {}`",
            self.desired.stack,
            self.spec.shown()
        ))
    }

    /// Why a spec has to wait: the machine does not have what it requires.
    pub(super) fn lacks(&self, desired: &Desired) -> Option<String> {
        let lacks = self.host.commands.lacks(desired);
        (!lacks.is_empty()).then(|| {
            format!(
                "this machine lacks what the spec requires: {}; install it first",
                lacks.join(", ")
            )
        })
    }

    /// Says what the machine lacks of the spec that a controller begins with. What runs goes on,
    /// and there is nobody to give the spec back to.
    pub(super) fn warn_of_lacks(&mut self) {
        let lacks = self.host.commands.lacks(&self.desired);
        if !lacks.is_empty() {
            self.warn(format!(
                "this machine lacks what the spec requires: {}; what needs it may fail until it \
                 is installed",
                lacks.join(", ")
            ));
        }
    }

    /// The spec, if it may become the one in force, and how far a saved plan of it goes.
    pub(super) fn loaded_for(
        &self,
        spec: &SpecText,
        allow_empty: bool,
        saved: Option<&SavedPlan>,
    ) -> Result<(Loaded, Option<Permit>), Fault> {
        let files = self.host.files.as_ref();
        let loaded =
            load(spec, &self.around, &self.held(), files, false).map_err(Fault::Refused)?;
        if loaded.desired.stack != self.desired.stack {
            return Err(Fault::Refused(self.other_stack(&loaded)));
        }
        let permit = match saved {
            Some(saved) => {
                let outlook = self.outlook(spec.clone(), loaded.clone());
                let permit = outlook.and_then(|outlook| outlook.permit(saved));
                Some(permit.map_err(Fault::Refused)?)
            }
            None => None,
        };
        let meant = allow_empty || saved.is_some();
        if let Some(held) = self.removes_all(&loaded).filter(|_| !meant) {
            return Err(Fault::Refused(held));
        }
        match self.lacks(&loaded.desired) {
            Some(lacks) => Err(Fault::Later(lacks)),
            None => Ok((loaded, permit)),
        }
    }
}
