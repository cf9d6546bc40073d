//! What would be done for a spec that is not in force: planned, saved, explained, approved.
//! Nothing of it is executed, and nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::controller::Controller;
use super::handle::{Proposal, SpecText};
use super::load::{INPUT_LIMIT, Loaded, load};
use super::observe::network_names;
use super::report::view;
use super::turn::turn_to;
use crate::driver::Files;
use crate::graph::desired::Node;
use crate::plan::explain::{Answers, Explanation, explain};
use crate::plan::memory::Memory;
use crate::plan::model::Plan;
use crate::plan::permit::Permit;
use crate::plan::plan;
use crate::plan::saved::{SavedPlan, Sight, VERSION};
use crate::plan::world::Observed;
use crate::spec::time::Time;

/// Differences that a refusal names at most.
const MOST_NAMED: usize = 20;

/// What a spec is looked at with.
#[derive(Debug, Clone)]
pub struct World {
    /// Lives, links and the registry; files are looked at for each spec anew.
    pub observed: Observed,
    /// What is remembered.
    pub memory: Memory,
    /// Files that this stack rendered at any time.
    pub rendered: BTreeSet<PathBuf>,
    /// The time.
    pub now: Time,
    /// It is a controller that looks.
    pub by_controller: bool,
}

/// A spec, the world, and the plan between them.
#[derive(Debug)]
pub struct Outlook {
    spec: SpecText,
    loaded: Loaded,
    world: World,
    plan: Plan,
}

impl Outlook {
    /// Plans, and fetches what templates lack.
    pub fn new(spec: SpecText, loaded: Loaded, mut world: World, files: &dyn Files) -> Outlook {
        let observed = &mut world.observed;
        observed.inputs.vars = loaded.desired.vars.clone();
        observed.inputs.spec_dir = loaded.desired.spec_dir.clone();
        observed.inputs.files.extend(loaded.sources.clone());
        observed.files = looked_at(&loaded, &world.rendered)
            .into_iter()
            .map(|path| {
                let view = files.look(&path);
                (path, view)
            })
            .collect();
        let mut plan = plan(&loaded.desired, observed, &world.memory, world.now);
        if !plan.notes.lacks.is_empty() {
            for path in std::mem::take(&mut plan.notes.lacks) {
                let text = files
                    .read(&path, INPUT_LIMIT)
                    .map_err(|error| error.message);
                observed.inputs.files.insert(path, text);
            }
            plan = self::plan(&loaded.desired, observed, &world.memory, world.now);
        }
        Outlook {
            spec,
            loaded,
            world,
            plan,
        }
    }

    fn sight(&self) -> Sight<'_> {
        Sight {
            desired: &self.loaded.desired,
            observed: &self.world.observed,
            memory: &self.world.memory,
            plan: &self.plan,
            now: self.world.now,
        }
    }

    /// The plan for readers and for a file. Rendered files come with what they hold now.
    pub fn proposal(&self, files: &dyn Files) -> Proposal {
        Proposal {
            view: view(&self.loaded.desired.stack, &self.plan, files),
            saved: self.saved(),
        }
    }

    fn saved(&self) -> SavedPlan {
        SavedPlan::new(&self.sight(), &self.spec, self.world.by_controller)
    }

    /// What a saved plan lets happen, if everything is as it was when it was made.
    ///
    /// # Errors
    /// What is not, as a report.
    pub fn permit(&self, saved: &SavedPlan) -> Result<Permit, String> {
        if saved.hatchery_plan != VERSION {
            return Err(format!(
                "error: cannot apply the plan: its form has version {}, and this hatchery reads \
                 version {VERSION}; make it again",
                saved.hatchery_plan
            ));
        }
        let differences = saved.differences(&self.saved());
        if differences.is_empty() {
            return Ok(saved.permit(&self.sight()));
        }
        let mut report =
            "error: cannot apply the plan: since it was made, something changed".to_owned();
        for difference in differences.iter().take(MOST_NAMED) {
            report.push_str("\n  ");
            report.push_str(difference);
        }
        if let Some(more) = differences.len().checked_sub(MOST_NAMED).filter(|n| *n > 0) {
            report.push_str(&format!("\n  … and {more} more"));
        }
        let spec = self.spec.shown();
        report.push_str(&format!(
            "\nhint: look at a new one, `hatchery plan {spec} --out FILE`"
        ));
        Err(report)
    }

    /// The whole story of what `name` stands for.
    ///
    /// # Errors
    /// When nothing is called so.
    pub fn explain(&self, answers: &Answers, name: &str) -> Result<Explanation, String> {
        let World {
            observed,
            memory,
            now,
            ..
        } = &self.world;
        explain(&self.loaded.desired, observed, memory, *now, answers, name)
    }
}

/// Every file that the plan for a spec depends on.
fn looked_at(loaded: &Loaded, rendered: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut paths = rendered.clone();
    for node in loaded.desired.nodes.values() {
        match node {
            Node::Workload(workload) => {
                paths.extend(workload.watch.iter().cloned());
                paths.extend(workload.run.container.as_ref().map(|run| run.hosts.clone()));
            }
            Node::Template(template) => {
                paths.insert(template.destination.clone());
            }
            _ => {}
        }
    }
    paths
}

impl Controller {
    /// The world as it is at this moment, for a spec that this controller may take.
    pub(super) fn outlook(&self, spec: SpecText, loaded: Loaded) -> Result<Outlook, String> {
        if loaded.desired.stack != self.desired.stack {
            return Err(self.other_stack(&loaded));
        }
        let mut observed = self.observed.clone();
        // Looked at anew: what just happened may not have been told yet, and names that only
        // the new spec wants were not looked for.
        let names = network_names(&loaded.desired);
        observed.network = (self.host.networks.observe(&names)).map_err(|error| error.message)?;
        observed.lives = (self.host.workloads.observe()).map_err(|error| error.message)?;
        let mut memory: Memory = self.memory.clone();
        if loaded.desired != self.desired {
            turn_to(&mut memory, &self.desired, &loaded.desired, &observed);
        }
        memory.permitted = None;
        let world = World {
            observed,
            memory,
            rendered: self.host.keep.rendered(),
            now: self.host.clock.now(),
            by_controller: true,
        };
        Ok(Outlook::new(spec, loaded, world, self.host.files.as_ref()))
    }

    fn loaded(&self, spec: &SpecText) -> Result<Loaded, String> {
        let files = self.host.files.as_ref();
        load(spec, &self.around, &self.held(), files, false)
    }

    /// What would be done for `spec`, as the world is now.
    pub(super) fn plan_for(&self, spec: SpecText) -> Result<Proposal, String> {
        let loaded = self.loaded(&spec)?;
        let outlook = self.outlook(spec, loaded)?;
        Ok(outlook.proposal(self.host.files.as_ref()))
    }

    /// The whole story of what `name` stands for, under `spec` or under the one in force.
    pub(super) fn explain_for(
        &self,
        spec: Option<SpecText>,
        name: &str,
    ) -> Result<Explanation, String> {
        let answers = self.answers();
        if let Some(spec) = spec.filter(|spec| *spec != self.spec) {
            let loaded = self.loaded(&spec)?;
            return self.outlook(spec, loaded)?.explain(&answers, name);
        }
        let now = self.host.clock.now();
        explain(
            &self.desired,
            &self.observed,
            &self.memory,
            now,
            &answers,
            name,
        )
    }

    fn answers(&self) -> Answers {
        self.host.catalog.read(|catalog| {
            let checks = catalog.entries().flat_map(|entry| &entry.checks);
            checks
                .map(|check| {
                    let said = (check.status, check.output.clone());
                    (check.spec.id.clone(), said)
                })
                .collect::<BTreeMap<_, _>>()
        })
    }
}
