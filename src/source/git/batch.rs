//! The contents of a commit's files, one after another from one git.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::GitError;
use super::mirror::Mirror;
use super::run::{Running, git};
use super::tree::{Entry, LIST, TIME};

/// A git that waits for the hashes of files, and answers with what they hold.
pub(super) struct Batch {
    git: Running,
    limit: u64,
}

impl Batch {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no git.
    pub fn open(mirror: &Mirror) -> Result<Batch, GitError> {
        let mut batch = git(&mirror.repository());
        batch.args(["cat-file", "--batch"]);
        Ok(Batch {
            git: Running::start(batch, mirror.bounds(TIME, LIST))?,
            limit: mirror.limits.blob,
        })
    }

    /// Asks for one object, and gives its bytes to `take`.
    fn read(&mut self, entry: &Entry, mut take: impl Write) -> Result<(), GitError> {
        let lost = |error: std::io::Error| {
            GitError::Local(format!("cannot read `{}`: {error}", entry.path))
        };
        let odd = || GitError::Local(format!("cannot read `{}`: git says odd things", entry.path));
        let input = self.git.input.as_mut().ok_or_else(odd)?;
        writeln!(input, "{}", entry.hash).map_err(lost)?;
        let mut head = Vec::new();
        // One byte at a time, so that nothing of the content is read with it.
        let mut output = BufReader::with_capacity(1, &mut self.git.output);
        (&mut output)
            .take(256)
            .read_until(b'\n', &mut head)
            .map_err(lost)?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split_whitespace();
        let size = match (words.next(), words.next(), words.next()) {
            (Some(_), Some("blob"), Some(size)) => size.parse::<u64>().map_err(|_| odd())?,
            _ => return Err(odd()),
        };
        if size > self.limit {
            return Err(odd());
        }
        let output = &mut self.git.output;
        let copied = std::io::copy(&mut output.take(size), &mut take).map_err(lost)?;
        let mut end = [0];
        output.read_exact(&mut end).map_err(lost)?;
        match copied == size {
            true => Ok(()),
            false => Err(odd()),
        }
    }

    /// Writes a file's content to a file that is not there yet.
    ///
    /// # Errors
    /// What git or the disk said.
    pub fn write(&mut self, entry: &Entry, path: &Path, executable: bool) -> Result<(), GitError> {
        let mode = if executable { 0o755 } else { 0o644 };
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(GitError::disk("write", path))?;
        self.read(entry, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(GitError::disk("write", path))
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// When that is no text, or holds what no list of a tree can hold.
    pub fn target(&mut self, entry: &Entry) -> Result<String, GitError> {
        let mut target = Vec::new();
        self.read(entry, &mut target)?;
        String::from_utf8(target)
            .ok()
            .filter(|target| !target.chars().any(char::is_control))
            .ok_or_else(|| {
                let path = &entry.path;
                GitError::Refused(format!(
                    "the target of `{path}` is not taken: it is no plain text"
                ))
            })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn end(self) -> Result<(), GitError> {
        self.git.end(Vec::new()).map(|_| ())
    }
}
