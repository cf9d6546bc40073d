//! Reads the files of a spec.

use std::io::Read;
use std::path::Path;

use super::error::CommandError;
use super::wiring;
use crate::driver::files::HostFiles;
use crate::driver::{Files, because};
use crate::reconcile::handle::SpecText;
use crate::reconcile::load::INPUT_LIMIT;
use crate::spec::gather::{Reading, Sought, gather};

/// The whole spec; symlinks stay, because they may be swapped.
///
/// # Errors
/// When a file cannot be read, is no regular file, too large, or no text.
pub fn read(sought: &Sought) -> Result<SpecText, CommandError> {
    let mut disk = Disk {
        first: &sought.path,
        failed: None,
    };
    gather(sought, &mut disk).map_err(|why| disk.failed.unwrap_or(CommandError::new(why)))
}

/// The disk, and the environment of this process.
struct Disk<'a> {
    first: &'a Path,
    /// The error of the newest file that could not be read, with its hints.
    failed: Option<CommandError>,
}

impl Reading for Disk<'_> {
    fn read(&mut self, path: &Path) -> Result<String, String> {
        let what = match path == self.first {
            true => "spec",
            false => "file",
        };
        self.failed = None;
        match text(path, what, INPUT_LIMIT) {
            Ok(found) => Ok(found.text),
            Err(error) => {
                let why = error.message().to_owned();
                self.failed = Some(error);
                Err(why)
            }
        }
    }

    fn is_there(&mut self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn names(&mut self, folder: &Path) -> Result<Vec<String>, String> {
        self.failed = None;
        let names = HostFiles::new(&wiring::dirs("none")).names(folder);
        names.map_err(|error| error.message)
    }

    fn variable(&mut self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// The text of a file that somebody named, the `what` of this command, and its absolute path.
///
/// # Errors
/// As [`read`]; `limit` is in bytes.
pub fn text(path: &Path, what: &str, limit: u64) -> Result<SpecText, CommandError> {
    let shown = path.display();
    let cannot = |why: &str| CommandError::new(format!("cannot read the {what} `{shown}`: {why}"));
    let failed = |error: std::io::Error| cannot(&because(&error));
    let absolute = std::path::absolute(path).map_err(failed)?;
    let found = std::fs::metadata(&absolute).map_err(failed)?;
    if found.is_dir() {
        return Err(cannot("it is a folder"));
    }
    if !found.is_file() {
        return Err(cannot("it is not a regular file"));
    }
    let file = std::fs::File::open(&absolute).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(cannot(&format!("it is larger than {} MiB", limit >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text"))?;
    Ok(SpecText::of(absolute, text))
}
