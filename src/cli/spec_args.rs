//! Where a command's spec comes from.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

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
    /// When a folder on the way is not there.
    pub fn argv(&self) -> Result<Vec<OsString>, CommandError> {
        let path = lasting(&self.spec).map_err(|error| {
            let shown = self.spec.display();
            CommandError::new(format!("cannot find the spec `{shown}`")).because(&error)
        })?;
        // A name that begins with `-` is no option: an absolute path does not.
        Ok(vec![path.into_os_string()])
    }
}

/// The absolute path without `..`, as units take it. Symlinks stay, because they may be swapped,
/// but for those that a `..` follows: it means the folder above what they lead to.
///
/// # Errors
/// When what a `..` follows is not there.
pub fn lasting(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                plain = plain.canonicalize()?;
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn symlinks_stay_unless_dots_follow_them() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(here.join("real/inner")).unwrap();
        std::os::unix::fs::symlink("real/inner", here.join("link")).unwrap();
        let through = |path: &str| lasting(&here.join(path)).unwrap();
        assert_eq!(through("link/a.yaml"), here.join("link/a.yaml"));
        assert_eq!(through("./real/./a.yaml"), here.join("real/a.yaml"));
        assert_eq!(through("link/../a.yaml"), here.join("real/a.yaml"));
        assert_eq!(through("real/inner/../../b"), here.join("b"));
        assert!(lasting(&here.join("none/../a")).is_err());
        assert!(lasting(Path::new("a")).unwrap().is_absolute());
    }
}
