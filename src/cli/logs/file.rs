//! One log: its rotated files, the live one, and what is appended to that. The writer keeps
//! its file open, so rotation copies and truncates it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cli::error::CommandError;
use crate::driver::because;

/// Read at once, in bytes.
const BLOCK: usize = 64 << 10;
/// A longer line is printed in pieces, in bytes.
const LONGEST: usize = 256 << 10;
/// Rotated files that are looked for.
const MOST_ROTATED: u32 = 1000;

/// Gets each line, without its end.
pub type Line<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), CommandError>;

/// One workload's log.
pub struct Log {
    name: String,
    path: PathBuf,
    /// The live file's identity and how much of it was read.
    read: Option<((u64, u64), u64)>,
    /// A line that has no end yet.
    begun: Vec<u8>,
}

impl Log {
    /// The log at `path`; nothing of it is read yet.
    pub fn new(name: String, path: PathBuf) -> Self {
        Log {
            name,
            path,
            read: None,
            begun: Vec::new(),
        }
    }

    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads what there is, or the last `tail` lines of it.
    ///
    /// # Errors
    /// When a file cannot be read, and those of `line`.
    pub fn history(&mut self, tail: Option<usize>, line: Line<'_>) -> Result<(), CommandError> {
        let mut files = vec![self.path.clone()];
        for number in 1..=MOST_ROTATED {
            let rotated = self.path.with_extension(format!("log.{number}"));
            if !rotated.is_file() {
                break;
            }
            files.push(rotated);
        }
        // From the newest file back to where the first wanted line begins.
        let mut from = 0;
        if let Some(mut wanted) = tail {
            let mut used = 0;
            for path in &files {
                used += 1;
                let (start, found) = last_lines(path, wanted).map_err(|e| cannot(path, &e))?;
                from = start;
                wanted -= found;
                if wanted == 0 {
                    break;
                }
            }
            files.truncate(used);
        }
        while files.len() > 1 {
            if let Some(path) = files.pop() {
                self.file(&path, from, line)?;
                from = 0;
            }
        }
        if let Ok(Some(live)) = open(&self.path).map_err(|e| cannot(&self.path, &e))
            && let Ok(found) = live.metadata()
        {
            self.read = Some(((found.dev(), found.ino()), from));
        }
        self.more(line)
    }

    /// Reads what was written since.
    ///
    /// # Errors
    /// As [`Log::history`].
    pub fn more(&mut self, line: Line<'_>) -> Result<(), CommandError> {
        let path = self.path.clone();
        let failed = |error: io::Error| cannot(&path, &error);
        let Some(mut file) = open(&path).map_err(failed)? else {
            return Ok(());
        };
        let found = file.metadata().map_err(failed)?;
        let id = (found.dev(), found.ino());
        let mut at = match self.read {
            Some((known, at)) if known == id && at <= found.len() => at,
            Some(_) => {
                // Truncated or replaced: the line that was begun has no other end.
                self.finish(line)?;
                0
            }
            None => 0,
        };
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
        at += self.stream(file, line)?;
        self.read = Some((id, at));
        Ok(())
    }

    /// A last line without an end is one too.
    ///
    /// # Errors
    /// Those of `line`.
    pub fn finish(&mut self, line: Line<'_>) -> Result<(), CommandError> {
        if self.begun.is_empty() {
            return Ok(());
        }
        line(&std::mem::take(&mut self.begun))
    }

    fn file(&mut self, path: &Path, from: u64, line: Line<'_>) -> Result<(), CommandError> {
        let failed = |error: io::Error| cannot(path, &error);
        // One that was rotated away meanwhile has nothing to tell.
        let Some(mut file) = open(path).map_err(failed)? else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        self.stream(file, line)?;
        Ok(())
    }

    /// Reads to the end; how many bytes that was.
    fn stream(&mut self, mut file: File, line: Line<'_>) -> Result<u64, CommandError> {
        let mut block = vec![0; BLOCK];
        let mut total = 0;
        loop {
            let got = file
                .read(&mut block)
                .map_err(|error| cannot(&self.path, &error))?;
            if got == 0 {
                return Ok(total);
            }
            total += got as u64;
            for piece in block[..got].split_inclusive(|byte| *byte == b'\n') {
                match piece.strip_suffix(b"\n") {
                    Some(end) if self.begun.is_empty() => line(end)?,
                    Some(end) => {
                        self.begun.extend_from_slice(end);
                        line(&std::mem::take(&mut self.begun))?;
                    }
                    None => {
                        self.begun.extend_from_slice(piece);
                        if self.begun.len() >= LONGEST {
                            self.finish(line)?;
                        }
                    }
                }
            }
        }
    }
}

/// `None` when it is not there.
fn open(path: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the last `wanted` lines of a file begin, and how many of them it has.
fn last_lines(path: &Path, wanted: usize) -> io::Result<(u64, usize)> {
    let Some(mut file) = open(path)? else {
        return Ok((0, 0));
    };
    let size = file.metadata()?.len();
    if wanted == 0 || size == 0 {
        return Ok((size, 0));
    }
    let mut ends = 0;
    let mut upper = size;
    let mut block = Vec::new();
    while upper > 0 {
        let lower = upper.saturating_sub(BLOCK as u64);
        file.seek(SeekFrom::Start(lower))?;
        block.clear();
        (&mut file).take(upper - lower).read_to_end(&mut block)?;
        for (position, byte) in block.iter().enumerate().rev() {
            let after = lower + position as u64 + 1;
            // The end of the last line begins no line.
            if *byte != b'\n' || after == size {
                continue;
            }
            ends += 1;
            if ends == wanted {
                return Ok((after, wanted));
            }
        }
        upper = lower;
    }
    Ok((0, ends + 1))
}

fn cannot(path: &Path, error: &io::Error) -> CommandError {
    CommandError::new(format!(
        "cannot read the log `{}`: {}",
        path.display(),
        because(error)
    ))
}
