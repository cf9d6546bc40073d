//! What a controller leaves for the next one of the same generation to go on with.

use super::controller::Controller;
use crate::graph::desired::Node;
use crate::plan::memory::Carried;
use crate::plan::model::NodeState;
use crate::plan::permit::Permit;
use crate::spec::generation::Past;

impl Controller {
    /// What an earlier controller carried over holds, if the spec is the one under which it did.
    /// A plan that is applied now takes the place of one from before.
    pub(super) fn recall_carried(&mut self, past: &Past, permit: Option<Permit>) {
        let number = self.history.current.number;
        let carried = self.host.keep.carried();
        if number <= past.newest && number == carried.generation {
            carried.recall(&mut self.memory);
        }
        if permit.is_some() {
            self.memory.permitted = permit;
        }
    }

    /// Keeps what the next controller is to go on with.
    pub(super) fn keep_carried(&mut self) {
        let failed = self.plan.nodes.iter();
        let failed = failed.filter(|status| status.state == NodeState::Failed);
        let given_up = failed.filter_map(|status| {
            let Some(Node::Workload(node)) = self.desired.nodes.get(&status.node) else {
                return None;
            };
            let past = self.memory.workloads.get(&node.id)?;
            past.gave_up(&node.restart)?;
            Some((node.id.clone(), past.clone()))
        });
        let mut carried = Carried {
            generation: 0,
            given_up: given_up.collect(),
            permitted: self.memory.permitted.clone(),
        };
        if carried != Carried::default() {
            carried.generation = self.history.current.number;
        }
        if let Err(error) = self.host.keep.carry(&carried) {
            self.warn(error.message);
        }
    }
}
