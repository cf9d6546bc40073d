//! From a spec's text to the desired world, reading the template sources on the way.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::handle::SpecText;
use crate::driver::Files;
use crate::graph::desired::{Desired, Dirs, Tree};
use crate::graph::{self, CompileInputs};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{Env, Objects};
use crate::spec::node::NodeId;
use crate::spec::{self};

/// The size of a template source, or of a file that a template reads, at most: 1 MiB.
pub const INPUT_LIMIT: u64 = 1 << 20;

/// The size of what lists a tree's contents, at most: 16 MiB.
const OBJECTS_LIMIT: u64 = 16 << 20;

/// A spec that may become the desired world.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the world is to be.
    pub desired: Desired,
    /// The template sources as they were read for it.
    pub sources: BTreeMap<PathBuf, Result<String, String>>,
}

/// Where the caller found the folders and the environment.
#[derive(Clone)]
pub struct Surroundings {
    /// Gives a stack's folders by its name.
    pub dirs: Arc<dyn Fn(&str) -> Dirs + Send + Sync>,
    /// The environment that expressions see.
    pub env: Env,
    /// Specs are only compared: where they run, their paths may lead into no commit's tree.
    pub compares: bool,
}

/// Reads, checks and compiles a spec. The error is the whole report, ready to be printed.
pub fn load(
    text: &SpecText,
    around: &Surroundings,
    held: &BTreeMap<NodeId, Ipv4Addr>,
    files: &dyn Files,
    color: bool,
) -> Result<Loaded, String> {
    check(text, around, held, files).map_err(|errors| text.sources().report(&errors, color))
}

/// As [`load`], with each error by itself.
///
/// # Errors
/// Everything that is wrong with the spec.
pub fn check(
    text: &SpecText,
    around: &Surroundings,
    held: &BTreeMap<NodeId, Ipv4Addr>,
    files: &dyn Files,
) -> Result<Loaded, Vec<Diagnostic>> {
    let (parsed, places) = spec::parse_texts(text, &text.sources())?;
    let mut errors = spec::validate(&parsed, &places);
    let spec_dir = text.dir().to_owned();
    let sources: BTreeMap<PathBuf, Result<String, String>> =
        graph::template_files(&parsed, &spec_dir)
            .into_iter()
            .map(|path| {
                let source = files
                    .read(&path, INPUT_LIMIT)
                    .map_err(|error| error.message);
                (path, source)
            })
            .collect();
    let inputs = CompileInputs {
        spec_dir,
        tree: tree(text, around, files)?,
        dirs: (around.dirs)(&parsed.name),
        env: around.env.clone(),
        template_sources: sources.clone(),
        held: held.clone(),
    };
    match graph::compile(&parsed, &places, &inputs) {
        Ok(desired) if errors.is_empty() => Ok(Loaded { desired, sources }),
        Ok(_) => Err(errors),
        Err(more) => {
            let known = errors.len();
            for error in more {
                // Compiling meets again what validation named, in other words.
                if !errors.iter().take(known).any(|before| meet(before, &error)) {
                    errors.push(error);
                }
            }
            Err(errors)
        }
    }
}

/// The tree of the commit that a spec was read from.
fn tree(
    text: &SpecText,
    around: &Surroundings,
    files: &dyn Files,
) -> Result<Option<Arc<Tree>>, Vec<Diagnostic>> {
    let Some(origin) = &text.further.origin else {
        return Ok(None);
    };
    let objects = files
        .read(&origin.objects, OBJECTS_LIMIT)
        .map_err(|error| {
            let short = origin.commit.short();
            let message = format!("the tree of commit {short} is not here: {}", error.message);
            vec![Diagnostic::whole(message)]
        })?;
    Ok(Some(Arc::new(Tree {
        commit: origin.commit.id.clone(),
        root: origin.tree.clone(),
        objects: Objects::read(&objects),
        may_be_written: around.compares,
    })))
}

/// Whether two errors are about the same place.
fn meet(one: &Diagnostic, other: &Diagnostic) -> bool {
    match (&one.span, &other.span) {
        (Some(one), Some(other)) => one.start < other.end && other.start < one.end,
        _ => one.message == other.message,
    }
}
