//! The state folder, and the registry's address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use hatchery::driver::{ErrorKind, Result};
use hatchery::reconcile::handle::SpecText;
use hatchery::reconcile::host::{Keep, Listener};
use hatchery::spec::model::Registry;
use hatchery::spec::node::NodeId;

use super::{Reach, Shared, World, error};
use crate::faults::{Action, Fault};

/// What is on disk.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub stopped: BTreeSet<NodeId>,
    pub told: BTreeMap<String, String>,
    pub rendered: BTreeSet<PathBuf>,
    /// It was lost or could not be written: what was stopped may run again.
    pub lossy: bool,
    older: Option<Box<Kept>>,
}

impl World {
    fn keep(&mut self, change: impl FnOnce(&mut Kept)) -> Result<()> {
        if self.crashed {
            return Err(error(ErrorKind::Failed, "the controller is dead"));
        }
        if self.fires(Fault::KeepFails, Action::Keep) {
            self.kept.lossy = true;
            return Err(error(ErrorKind::Failed, "no space left on device"));
        }
        let older = Kept {
            older: None,
            ..self.kept.clone()
        };
        change(&mut self.kept);
        self.kept.older = Some(Box::new(older));
        Ok(())
    }

    /// What may become of the state before a controller begins.
    pub fn decay(&mut self) {
        if self.fires(Fault::KeepGone, Action::Keep) {
            self.kept = Kept::default();
            self.kept.lossy = true;
        } else if self.fires(Fault::KeepOld, Action::Keep)
            && let Some(older) = self.kept.older.take()
        {
            self.kept = *older;
            self.kept.lossy = true;
        }
    }
}

impl Keep for Shared {
    fn stopped(&self, nodes: &BTreeSet<NodeId>) -> Result<()> {
        self.lock().keep(|kept| kept.stopped = nodes.clone())
    }

    fn was_stopped(&self) -> BTreeSet<NodeId> {
        self.lock().kept.stopped.clone()
    }

    fn told(&self, told: &BTreeMap<String, String>) -> Result<()> {
        self.lock().keep(|kept| kept.told = told.clone())
    }

    fn was_told(&self) -> BTreeMap<String, String> {
        self.lock().kept.told.clone()
    }

    fn spec(&self, spec: &SpecText) -> Result<()> {
        let mut world = self.lock();
        crate::invariants::takes(&mut world, &spec.text);
        world.keep(|_| {})
    }

    fn rendered(&self) -> BTreeSet<PathBuf> {
        self.lock().kept.rendered.clone()
    }

    fn set_rendered(&self, paths: &BTreeSet<PathBuf>) -> Result<()> {
        self.lock().keep(|kept| kept.rendered = paths.clone())
    }

    fn clear(&self, _purge: bool) -> Result<()> {
        let mut world = self.lock();
        world
            .files
            .retain(|path, _| !path.starts_with("/run/hatchery"));
        world.kept = Kept::default();
        Ok(())
    }
}

impl Listener for Shared {
    fn open(&self, registry: &Registry) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::OpenRegistry, false) {
            return Err(why);
        }
        let held = registry
            .http
            .is_some_and(|http| world.held_ports.contains(&http.port()));
        if held {
            return Err(error(ErrorKind::Foreign, "the port is a stranger's"));
        }
        world.listener = registry.http;
        Ok(())
    }

    fn address(&self) -> Option<SocketAddr> {
        self.lock().listener
    }
}
