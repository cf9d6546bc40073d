//! Writes to systemd's journal in its own form: fields by name, in one datagram an entry.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest value of a field, in bytes: an entry stays far below what a datagram may have.
const LONGEST: usize = 48 << 10;
/// How long a journal that does not read may hold us up.
const PATIENCE: Duration = Duration::from_secs(1);

/// How grave an entry is, as syslog counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Priority {
    /// Something failed.
    Error = 3,
    /// Something is not as it should be.
    Warning = 4,
    /// Worth a line in a quiet log.
    Notice = 5,
    /// Steps on the way.
    Progress = 6,
    /// For who looks inside.
    Debug = 7,
}

/// A way to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    stack: Option<String>,
}

impl Journal {
    /// The journal, if it is what `stream` writes to, as `$JOURNAL_STREAM` says. `stack` is
    /// noted in each entry.
    pub fn behind(stream: impl AsFd, stack: Option<&str>) -> Option<Journal> {
        let named = std::env::var("JOURNAL_STREAM").ok()?;
        let file = File::from(stream.as_fd().try_clone_to_owned().ok()?);
        let found = file.metadata().ok()?;
        if !is_stream(&named, found.dev(), found.ino()) {
            return None;
        }
        Journal::at(SOCKET, stack).ok()
    }

    fn at(path: impl AsRef<std::path::Path>, stack: Option<&str>) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Journal {
            socket,
            stack: stack.map(str::to_owned),
        })
    }

    /// Writes an entry. Names of fields are capital letters, digits and `_`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn write(
        &self,
        priority: Priority,
        message: &str,
        fields: &[(&str, String)],
    ) -> io::Result<()> {
        let mut entry = Vec::new();
        put(&mut entry, "MESSAGE", message);
        put(&mut entry, "PRIORITY", &(priority as u8).to_string());
        put(&mut entry, "SYSLOG_IDENTIFIER", "hatchery");
        if let Some(stack) = &self.stack {
            put(&mut entry, "HATCHERY_STACK", stack);
        }
        for (name, value) in fields {
            put(&mut entry, name, value);
        }
        self.socket.send(&entry).map(|_| ())
    }
}

/// Whether `$JOURNAL_STREAM` names this device and inode.
fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    let parsed = named
        .split_once(':')
        .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    parsed == Some((device, inode))
}

/// A value of more than one line goes with its length before it.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = bounded(value);
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// As much of it as an entry may hold, whole characters.
fn bounded(value: &str) -> &str {
    let mut end = value.len().min(LONGEST);
    while !value.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    value.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_has_its_fields_and_no_value_becomes_a_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let listening = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path, Some("prime")).unwrap();
        let fields = [("HATCHERY_NODE", "a\nPRIORITY=0".to_owned())];
        journal
            .write(Priority::Warning, "no = good", &fields)
            .unwrap();
        let mut bytes = [0; 512];
        let length = listening.recv(&mut bytes).unwrap();
        let mut expected = b"MESSAGE=no = good\nPRIORITY=4\nSYSLOG_IDENTIFIER=hatchery\n\
            HATCHERY_STACK=prime\nHATCHERY_NODE\n"
            .to_vec();
        expected.extend([12, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"a\nPRIORITY=0\n");
        assert_eq!(bytes[..length], expected);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let listening = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path, None).unwrap();
        let long = format!("x{}", "é".repeat(LONGEST));
        journal.write(Priority::Progress, &long, &[]).unwrap();
        let mut bytes = vec![0; 2 * LONGEST];
        let length = listening.recv(&mut bytes).unwrap();
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let message = text.lines().next().unwrap();
        assert_eq!(message.len(), "MESSAGE=".len() + LONGEST - 1);
    }

    #[test]
    fn only_the_stream_that_is_named_is_the_journal() {
        assert!(is_stream("9:12345", 9, 12345));
        for odd in ["9:12346", "8:12345", "9", "", "9:", "9:12345:1", "-9:12345"] {
            assert!(!is_stream(odd, 9, 12345), "{odd:?}");
        }
    }
}
