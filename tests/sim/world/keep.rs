//! The state folder, and the registry's address.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use hatchery::driver::{ErrorKind, Result};
use hatchery::plan::memory::Carried;
use hatchery::plan::world::{LifeId, RegistryView};
use hatchery::reconcile::handle::{Happening, SpecText};
use hatchery::reconcile::host::{Keep, Listener};
use hatchery::spec::generation::{Cause, Generation, Outcome, Past};
use hatchery::spec::model::Registry;
use hatchery::spec::node::NodeId;

use super::{Reach, Shared, World, error};
use crate::faults::{Action, Fault};

/// So many generations are kept.
const GENERATIONS: usize = 20;

/// What is on disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    pub stopped: BTreeSet<NodeId>,
    pub told: BTreeMap<String, String>,
    pub rendered: BTreeSet<PathBuf>,
    pub carried: Carried,
    pub generations: BTreeMap<u64, (Generation, Arc<str>)>,
    /// Lives whose end is on record.
    pub ends: BTreeMap<LifeId, u64>,
    /// The highest number that a generation ever had, and those that cannot be read.
    newest: u64,
    unread: Vec<String>,
    /// It was lost or could not be written: what was stopped may run again.
    pub lossy: bool,
    older: Option<Box<Kept>>,
    /// What is on disk, where that is not all that the controller knows.
    disk: Option<Box<Kept>>,
}

impl Kept {
    /// Without what it could become.
    fn alone(&self) -> Kept {
        Kept {
            stopped: self.stopped.clone(),
            told: self.told.clone(),
            rendered: self.rendered.clone(),
            carried: self.carried.clone(),
            generations: self.generations.clone(),
            ends: self.ends.clone(),
            newest: self.newest,
            unread: self.unread.clone(),
            lossy: self.lossy,
            older: None,
            disk: None,
        }
    }
}

impl World {
    fn keep(&mut self, change: impl FnOnce(&mut Kept)) -> Result<()> {
        if self.crashed {
            return Err(error(ErrorKind::Failed, "the controller is dead"));
        }
        let older = self.kept.alone();
        let whys = [
            (Fault::KeepFails, "no space left on device"),
            (Fault::KeepBroken, "input/output error"),
        ];
        let fails = whys.into_iter().find(|(fault, _)| self.draws(*fault));
        let disk = self.kept.disk.take();
        change(&mut self.kept);
        if let Some((fault, why)) = fails {
            if self.kept.alone() != older {
                self.kept.lossy = true;
            }
            self.note(fault, Action::Keep);
            // The controller itself knows it all the same, as long as it lives.
            self.kept.disk = disk.or(Some(Box::new(older)));
            return Err(error(ErrorKind::Failed, why));
        }
        self.kept.older = Some(Box::new(older));
        self.kept.disk = None;
        Ok(())
    }

    /// What may become of the state before a controller begins.
    pub fn decay(&mut self) {
        if let Some(disk) = self.kept.disk.take() {
            self.kept = *disk;
            self.kept.lossy = true;
        }
        let before = self.kept.alone();
        let fault = if self.draws(Fault::KeepGone) {
            self.kept = Kept::default();
            Fault::KeepGone
        } else if self.draws(Fault::KeepOld) {
            if let Some(older) = self.kept.older.take() {
                self.kept = *older;
            }
            Fault::KeepOld
        } else if self.draws(Fault::KeepTorn) {
            match self.rng.range(0, 3) {
                0 => self.kept.stopped.clear(),
                1 => self.kept.rendered.clear(),
                2 => self.kept.ends.clear(),
                _ => {
                    let torn = self.kept.generations.pop_last();
                    let unread = torn.map(|(number, _)| format!("generation {number} is torn"));
                    self.kept.unread.extend(unread);
                }
            }
            Fault::KeepTorn
        } else if self.draws(Fault::KeepNewer) {
            // What another version wrote is read by nobody.
            let numbers = self.kept.generations.keys();
            let unread = numbers.map(|number| format!("generation {number} is of another version"));
            self.kept = Kept {
                newest: self.kept.newest,
                unread: unread.collect(),
                ..Kept::default()
            };
            Fault::KeepNewer
        } else {
            return;
        };
        self.kept.lossy |= before.lossy;
        if self.kept.alone() != before {
            self.kept.lossy = true;
            self.note(fault, Action::Keep);
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

    fn carry(&self, carried: &Carried) -> Result<()> {
        if self.lock().kept.carried == *carried {
            return Ok(());
        }
        self.lock().keep(|kept| kept.carried = carried.clone())
    }

    fn carried(&self) -> Carried {
        self.lock().kept.carried.clone()
    }

    fn record(&self, happenings: &[Happening]) -> Result<()> {
        let ends = happenings.iter().filter_map(|happening| {
            Some(LifeId {
                node: happening.exit.and(happening.node.clone())?,
                incarnation: happening.incarnation?,
            })
            .map(|life| (life, happening.at_ms))
        });
        let ends: Vec<(LifeId, u64)> = ends.collect();
        self.lock().keep(|kept| kept.ends.extend(ends))
    }

    fn ends(&self, since_ms: u64) -> BTreeSet<LifeId> {
        let world = self.lock();
        let ends = world.kept.ends.iter().filter(|(_, at)| **at >= since_ms);
        ends.map(|(life, _)| life.clone()).collect()
    }

    fn generation(&self, generation: &Generation, spec: Option<&SpecText>) -> Result<()> {
        let mut world = self.lock();
        let text = spec.map(|spec| spec.text.as_str());
        if let Some(text) = text
            && generation.outcome == Outcome::Converging
            && !world.beginning
        {
            crate::invariants::takes(&mut world, text);
        }
        if matches!(generation.cause, Cause::Rollback { by: None, .. }) && text.is_some() {
            world.note(Fault::RolledBack, Action::Keep);
        }
        world.keep(|kept| {
            kept.newest = kept.newest.max(generation.number);
            let before = kept.generations.remove(&generation.number);
            let text = text.map_or_else(|| before.map_or(Arc::default(), |b| b.1), Arc::from);
            kept.generations
                .insert(generation.number, (generation.clone(), text));
            while kept.generations.len() > GENERATIONS {
                kept.generations.pop_first();
            }
        })
    }

    fn past(&self) -> Past {
        let world = self.lock();
        let generations = &world.kept.generations;
        Past {
            newest: world.kept.newest,
            generations: generations.values().map(|(g, _)| g.clone()).collect(),
            unread: world.kept.unread.clone(),
        }
    }

    fn spec(&self, generation: &Generation) -> Option<SpecText> {
        let world = self.lock();
        let (kept, text) = world.kept.generations.get(&generation.number)?;
        Some(SpecText::of(kept.path.clone(), text.to_string()))
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
        // What was rendered and forgotten is found by nobody later either.
        let strays = world.files.values().any(|file| file.mark.is_some());
        world.kept = Kept {
            lossy: world.kept.lossy && strays,
            ..Kept::default()
        };
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

    fn look(&self) -> RegistryView {
        RegistryView::opened(&Registry {
            http: self.lock().listener,
            ..Registry::default()
        })
    }
}
