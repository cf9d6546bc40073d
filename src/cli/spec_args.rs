//! The arguments that name a spec, the same for every verb.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use clap::ArgGroup;

use super::error::CommandError;
use super::spec_file;
use crate::driver::because;
use crate::reconcile::handle::SpecText;
use crate::spec::gather::Sought;

/// The file that is the spec of the folder in which it lies.
pub const IN_FOLDER: &str = "hatchery.yaml";

/// Which spec.
#[derive(Debug, Default, clap::Args)]
pub struct SpecArgs {
    /// The spec: a YAML file, or a folder with `hatchery.yaml` or with files that are its parts
    #[arg(value_name = "SPEC")]
    spec: Option<PathBuf>,
    /// Lay this file over the spec; the later wins. Without SPEC, the first one is the spec
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Read variables (`${NAME}`) from this file, not from `.env` beside the spec; the later wins
    #[arg(long, value_name = "FILE")]
    vars: Vec<PathBuf>,
}

/// Demands that a spec is named.
pub fn needed() -> ArgGroup {
    ArgGroup::new("which spec")
        .args(["spec", "file"])
        .required(true)
        .multiple(true)
}

/// Demands that a spec or a repository is named.
pub fn needed_anywhere() -> ArgGroup {
    needed().args(["git", "source"])
}

impl SpecArgs {
    /// Just this file or folder.
    pub fn of(path: &Path) -> SpecArgs {
        SpecArgs {
            spec: Some(path.to_owned()),
            ..SpecArgs::default()
        }
    }

    /// Whether any spec is named.
    pub fn is_given(&self) -> bool {
        self.spec.is_some() || !self.file.is_empty()
    }

    /// The first file, or the folder, as it was typed; empty when no spec is named.
    pub fn first(&self) -> &Path {
        let first = self.spec.as_ref().or(self.file.first());
        first.map_or(Path::new(""), PathBuf::as_path)
    }

    /// Every `-f` and every `--vars`, as they were typed.
    pub fn laid_over(&self) -> (&[PathBuf], &[PathBuf]) {
        (&self.file, &self.vars)
    }

    fn overlays(&self) -> &[PathBuf] {
        match &self.spec {
            Some(_) => &self.file,
            None => self.file.get(1..).unwrap_or_default(),
        }
    }

    /// The path, if nothing but one file is named.
    pub fn only_file(&self) -> Option<&Path> {
        let only = self.overlays().is_empty() && self.vars.is_empty();
        Some(self.first()).filter(|first| only && !first.is_dir())
    }

    /// The arguments as they were typed, for hints.
    pub fn shown(&self) -> String {
        let mut shown = self.first().display().to_string();
        for overlay in self.overlays() {
            shown.push_str(&format!(" -f {}", overlay.display()));
        }
        for vars in &self.vars {
            shown.push_str(&format!(" --vars {}", vars.display()));
        }
        shown
    }

    /// Which files are meant.
    ///
    /// # Errors
    /// When no spec is named.
    pub fn sought(&self) -> Result<Sought, CommandError> {
        if !self.is_given() {
            return Err(CommandError::new("no spec is named"));
        }
        Ok(Sought {
            overlays: all_absolute(self.overlays())?,
            vars: all_absolute(&self.vars)?,
            ..sought_in(&absolute(self.first())?)
        })
    }

    /// The same files where another tree holds what is below `top` here.
    ///
    /// # Errors
    /// Names one that is not below it.
    pub fn sought_in_tree(&self, top: &Path, tree: &Path) -> Result<Sought, CommandError> {
        let moved = |path: &PathBuf| {
            let shown = path.display();
            let cannot = |error: &io::Error| {
                CommandError::new(format!("cannot find `{shown}`")).because(error)
            };
            let real = path.canonicalize().map_err(|error| cannot(&error))?;
            match real.strip_prefix(top) {
                Ok(inner) => Ok(tree.join(inner)),
                Err(_) => Err(CommandError::new(format!(
                    "`{shown}` is not in the repository at `{}`",
                    top.display()
                ))),
            }
        };
        let all = |paths: &[PathBuf]| paths.iter().map(moved).collect::<Result<Vec<_>, _>>();
        Ok(Sought {
            overlays: all(self.overlays())?,
            vars: all(&self.vars)?,
            ..sought_in(&moved(&self.first().to_owned())?)
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// When none is named, or a file of it cannot be read.
    pub fn read(&self) -> Result<SpecText, CommandError> {
        spec_file::read(&self.sought()?)
    }

    /// The same arguments for another process in another folder: paths are absolute, symlinks
    /// stay.
    ///
    /// # Errors
    /// When a folder on the way is not there.
    pub fn argv(&self) -> Result<Vec<OsString>, CommandError> {
        let found = |path: &Path| {
            lasting(path).map(PathBuf::into_os_string).map_err(|error| {
                let shown = path.display();
                CommandError::new(format!("cannot find the spec `{shown}`")).because(&error)
            })
        };
        // A name that begins with `-` is no option: an absolute path does not.
        let mut argv = vec![found(self.first())?];
        for overlay in self.overlays() {
            argv.extend(["-f".into(), found(overlay)?]);
        }
        for vars in &self.vars {
            argv.extend(["--vars".into(), found(vars)?]);
        }
        Ok(argv)
    }
}

/// What is to be read for the spec at this absolute path, a file or a folder.
pub fn sought_in(path: &Path) -> Sought {
    let own = path.join(IN_FOLDER);
    let (path, folder) = match path.is_dir() {
        true if own.exists() => (own, false),
        is_folder => (path.to_owned(), is_folder),
    };
    Sought {
        path,
        folder,
        overlays: Vec::new(),
        vars: Vec::new(),
        environment: BTreeMap::new(),
    }
}

fn all_absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CommandError> {
    paths.iter().map(|path| absolute(path)).collect()
}

fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| {
        let shown = path.display();
        CommandError::new(format!("cannot read `{shown}`: {}", because(&error)))
    })
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
