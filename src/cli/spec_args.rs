//! Where a command's spec comes from.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::CommandError;

/// The arguments that say which spec is meant.
#[derive(Debug, clap::Args)]
pub struct SpecArgs {
    /// The spec, a YAML file
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,
}

impl SpecArgs {
    /// The same arguments for another process in another folder: paths are absolute, symlinks
    /// stay.
    ///
    /// # Errors
    /// When there is no current folder.
    pub fn argv(&self) -> Result<Vec<OsString>, CommandError> {
        let path = std::path::absolute(&self.spec).map_err(|error| {
            let shown = self.spec.display();
            CommandError::new(format!("cannot find the spec `{shown}`")).because(&error)
        })?;
        // A name that begins with `-` is no option: an absolute path does not.
        Ok(vec![path.into_os_string()])
    }
}
