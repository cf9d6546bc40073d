//! The drivers that one controller works with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::handle::{Happening, SpecText};
use super::shared::SharedCatalog;
use crate::driver::{Clock, Commands, Files, Networks, Probes, Result, Workloads};
use crate::plan::memory::GivenUp;
use crate::plan::world::LifeId;
use crate::spec::generation::{Generation, Past};

/// Everything outside the core, behind traits.
#[derive(Clone)]
pub struct Host {
    /// Containers and processes.
    pub workloads: Arc<dyn Workloads>,
    /// Bridges and namespaces.
    pub networks: Arc<dyn Networks>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// Validators and the like.
    pub commands: Arc<dyn Commands>,
    /// Health probes.
    pub probes: Arc<dyn Probes>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Who watches files for changes.
    pub follow: Arc<dyn Follow>,
    /// The registry's address.
    pub listener: Arc<dyn Listener>,
    /// What is kept on disk.
    pub keep: Arc<dyn Keep>,
    /// The registry itself.
    pub catalog: SharedCatalog,
}

/// Tells when files change, through [`crate::driver::Event::Files`].
pub trait Follow: Send + Sync {
    /// From now on exactly these paths.
    fn set(&self, paths: BTreeSet<PathBuf>) -> Result<()>;
    /// Files that are being saved at this moment: what is seen of them may be half of it.
    fn unsettled(&self) -> BTreeSet<PathBuf>;
}

/// The embedded registry's HTTP address.
pub trait Listener: Send + Sync {
    /// From now on exactly this address, or none. An address that is taken is an error that
    /// names the holder. It blocks, like a driver.
    fn open(&self, registry: &crate::spec::model::Registry) -> Result<()>;
    /// Where it listens now.
    fn address(&self) -> Option<SocketAddr>;
}

/// What outlives the controller on disk. Nothing of it is needed for adoption.
pub trait Keep: Send + Sync {
    /// Notes which workloads an operator stopped.
    fn stopped(&self, nodes: &BTreeSet<crate::spec::node::NodeId>) -> Result<()>;
    /// Which ones those were.
    fn was_stopped(&self) -> BTreeSet<crate::spec::node::NodeId>;
    /// Notes what each template's reload command was told about.
    fn told(&self, told: &BTreeMap<String, String>) -> Result<()>;
    /// What they were told.
    fn was_told(&self) -> BTreeMap<String, String>;
    /// Notes which workloads gave up.
    fn given_up(&self, given_up: &GivenUp) -> Result<()>;
    /// Which ones those were, if the machine was not started anew since.
    fn had_given_up(&self) -> GivenUp;
    /// Adds to the log of events. What is added survives the controller; it need not survive
    /// the machine's sudden end.
    fn record(&self, happenings: &[Happening]) -> Result<()>;
    /// Lives whose end that log tells since `since_ms`, in milliseconds since the Unix epoch.
    fn ends(&self, since_ms: u64) -> BTreeSet<LifeId>;
    /// Keeps a generation: a new one with its spec, one that is kept already without.
    fn generation(&self, generation: &Generation, spec: Option<&SpecText>) -> Result<()>;
    /// What is kept of generations; see [`last_converged`] for the one to go back to.
    ///
    /// [`last_converged`]: crate::spec::generation::last_converged
    fn past(&self) -> Past;
    /// The spec of one of them; `None` when it is not kept, or cannot be read.
    fn spec(&self, generation: &Generation) -> Option<SpecText>;
    /// Paths of files that earlier controllers of this stack rendered.
    fn rendered(&self) -> BTreeSet<PathBuf>;
    /// Notes the paths of files that are rendered.
    fn set_rendered(&self, paths: &BTreeSet<PathBuf>) -> Result<()>;
    /// Everything of the stack on disk goes; with `purge` also what `down` keeps.
    fn clear(&self, purge: bool) -> Result<()>;
}
