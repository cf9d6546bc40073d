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
    let shown = path.display();
    let cannot = |why: &str| CommandError::new(format!("cannot read the spec `{shown}`: {why}"));
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
    file.take(INPUT_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > INPUT_LIMIT {
        return Err(cannot("it is larger than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text"))?;
    Ok(SpecText {
        path: absolute,
        text,
    })
}
