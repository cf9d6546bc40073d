//! What a text was rendered from: as long as that stays, so does the text.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Inputs, Reads, Snapshot};
use crate::spec::model::Env;

/// A text, and what is to be known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Its hash (blake3, hex).
    pub hash: String,
    /// What was read.
    pub reads: Reads,
}

/// All that one render could see and looked at.
#[derive(Debug)]
pub struct Ground {
    source: String,
    catalog: Arc<Snapshot>,
    files: BTreeMap<PathBuf, Result<String, String>>,
    env: Env,
    vars: IndexMap<String, serde_json::Value>,
    spec_dir: PathBuf,
}

impl Ground {
    /// What a render of `source` that read `reads` was made from.
    pub fn new(source: &str, catalog: &Arc<Snapshot>, inputs: &Inputs, reads: &Reads) -> Ground {
        let read = reads.files.iter();
        Ground {
            source: source.to_owned(),
            catalog: Arc::clone(catalog),
            files: read
                .filter_map(|path| Some((path.clone(), inputs.files.get(path)?.clone())))
                .collect(),
            env: inputs.env.clone(),
            vars: inputs.vars.clone(),
            spec_dir: inputs.spec_dir.clone(),
        }
    }

    /// Whether a render of `source` would see the same. Of the catalog only this very one is
    /// known to be the same: to compare two takes longer than to render.
    pub fn holds(&self, source: &str, catalog: &Arc<Snapshot>, inputs: &Inputs) -> bool {
        let mut files = self.files.iter();
        Arc::ptr_eq(&self.catalog, catalog)
            && self.source == source
            && files.all(|(path, read)| inputs.files.get(path) == Some(read))
            && self.env == inputs.env
            && self.vars == inputs.vars
            && self.spec_dir == inputs.spec_dir
    }
}
