//! Reads the SPEC argument.

use std::io::Read;
use std::path::Path;

use super::error::CommandError;
use crate::driver::because;
use crate::reconcile::handle::SpecText;
use crate::reconcile::load::INPUT_LIMIT;

/// The spec's text and its absolute path; symlinks stay, because they may be swapped.
///
/// # Errors
/// When it cannot be read, is no regular file, too large, or no text.
pub fn read(path: &Path) -> Result<SpecText, CommandError> {
    text(path, "spec", INPUT_LIMIT)
}

/// A text that was read under a larger limit, if a spec may be so large.
///
/// # Errors
/// When it may not.
pub fn within_limit(path: &Path, spec: SpecText) -> Result<SpecText, CommandError> {
    if spec.text.len() as u64 > INPUT_LIMIT {
        // Reading it again says so in the usual words.
        return read(path);
    }
    Ok(spec)
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
        return Err(cannot("it is a folder").hint(format!(
            "name the file in it, such as `{}`",
            path.join("hatchery.yaml").display()
        )));
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
    Ok(SpecText {
        path: absolute,
        text,
    })
}
