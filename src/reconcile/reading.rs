//! Reads a spec's files through the drivers.

use std::path::Path;

use super::load::INPUT_LIMIT;
use crate::driver::Files;
use crate::plan::world::FileView;
use crate::spec::gather::Reading;
use crate::spec::model::Env;

/// The files of the host, and the controller's environment.
pub(super) struct OnHost<'a> {
    pub files: &'a dyn Files,
    pub env: &'a Env,
}

impl Reading for OnHost<'_> {
    fn read(&mut self, path: &Path) -> Result<String, String> {
        let text = self.files.read(path, INPUT_LIMIT);
        text.map_err(|error| error.message)
    }

    fn is_there(&mut self, path: &Path) -> bool {
        self.files.look(path) != FileView::Missing
    }

    fn names(&mut self, folder: &Path) -> Result<Vec<String>, String> {
        self.files.names(folder).map_err(|error| error.message)
    }

    fn variable(&mut self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }
}
