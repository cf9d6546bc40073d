//! What the played host keeps on its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Played, Result};
use crate::plan::memory::Carried;
use crate::plan::world::LifeId;
use crate::reconcile::handle::{Happening, SpecText};
use crate::reconcile::host::Keep;
use crate::spec::generation::{Generation, Past};
use crate::spec::node::NodeId;

impl Keep for Played {
    fn carry(&self, _: &Carried) -> Result<()> {
        Ok(())
    }

    fn carried(&self) -> Carried {
        Carried::default()
    }

    fn stopped(&self, _: &BTreeSet<NodeId>) -> Result<()> {
        Ok(())
    }

    fn was_stopped(&self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }

    fn told(&self, _: &BTreeMap<String, String>) -> Result<()> {
        Ok(())
    }

    fn was_told(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn record(&self, _: &[Happening]) -> Result<()> {
        Ok(())
    }

    fn ends(&self, _: u64) -> BTreeSet<LifeId> {
        BTreeSet::new()
    }

    fn generation(&self, generation: &Generation, spec: Option<&SpecText>) -> Result<()> {
        let mut scene = self.scene();
        let generations = &mut scene.generations;
        match spec {
            Some(spec) => generations.push((generation.clone(), spec.clone())),
            None => {
                let mut known = generations.iter_mut();
                if let Some(known) = known.find(|known| known.0.number == generation.number) {
                    known.0 = generation.clone();
                }
            }
        }
        Ok(())
    }

    fn past(&self) -> Past {
        let scene = self.scene();
        let generations = scene.generations.iter();
        let generations: Vec<Generation> = generations.map(|one| one.0.clone()).collect();
        Past {
            newest: generations.last().map_or(0, |last| last.number),
            generations,
            unread: Vec::new(),
        }
    }

    fn spec(&self, generation: &Generation) -> Option<SpecText> {
        let scene = self.scene();
        let mut known = scene.generations.iter();
        let known = known.find(|known| known.0.number == generation.number);
        known.map(|known| known.1.clone())
    }

    fn rendered(&self) -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }

    fn set_rendered(&self, _: &BTreeSet<PathBuf>) -> Result<()> {
        Ok(())
    }

    fn clear(&self, _: bool) -> Result<()> {
        Ok(())
    }
}
