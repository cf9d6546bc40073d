//! The log of events: one JSON object a line, in `history/events.log` and the files before it,
//! `events.log.1` (the newest of them) to `events.log.7`.
//!
//! What was appended survives the controller. It is not synced one by one, so the last seconds
//! before a power cut may be missing; a line that was torn by it, or by a full disk, is passed
//! over.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::history::{folder, own_folder, unread};
use super::{Result, Store, open_plain, trouble};
use crate::driver::because;
use crate::graph::desired::Dirs;

/// Files at most, the one that is written included.
pub const FILES: u32 = 8;
/// A file that has this many bytes is full.
pub const FILE_BYTES: u64 = 1 << 20;
/// Files whose last line is older than the log's last go when another one is begun.
pub const AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest line that is read, in bytes.
const LINE: u64 = 8 << 10;

/// What every event says, whatever else it has.
#[derive(Deserialize)]
struct Stamp {
    at_ms: u64,
}

fn file(folder: &Path, position: u32) -> PathBuf {
    match position {
        0 => folder.join("events.log"),
        _ => folder.join(format!("events.log.{position}")),
    }
}

/// What the log holds.
#[derive(Debug)]
pub struct Events<T> {
    /// The events, oldest first.
    pub events: Vec<T>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// The whole log, for anybody who may read it.
pub fn read<T: DeserializeOwned>(dirs: &Dirs) -> Events<T> {
    let folder = folder(dirs);
    let mut all = Events {
        events: Vec::new(),
        unread: Vec::new(),
    };
    let mut torn = 0_u64;
    for position in (0..FILES).rev() {
        let path = file(&folder, position);
        let file = match open_plain(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                all.unread.push(unread(&path, &because(&error)));
                continue;
            }
        };
        // One that is being appended to may grow meanwhile.
        let mut reader = BufReader::new(file.take(2 * FILE_BYTES));
        while let Some(line) = next_line(&mut reader) {
            match serde_json::from_slice(&line) {
                Ok(event) => all.events.push(event),
                Err(_) if line.is_empty() => {}
                Err(_) => torn += 1,
            }
        }
    }
    if torn > 0 {
        let lines = if torn == 1 { "line" } else { "lines" };
        let why = format!("{torn} torn {lines}");
        all.unread.push(unread(&folder, &why));
    }
    all
}

/// The next line without its end; what is longer than any of ours comes in pieces.
fn next_line(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(LINE).read_until(b'\n', &mut line);
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    read.is_ok_and(|read| read > 0).then_some(line)
}

impl Store {
    /// Appends events at `now_ms` (milliseconds since the Unix epoch), in one write.
    ///
    /// # Errors
    /// What the disk said; some of the events may have been written.
    pub fn append_events<T: Serialize>(&self, events: &[T], now_ms: u64) -> Result<()> {
        let folder = own_folder(&self.dirs)?;
        let path = file(&folder, 0);
        let wrong = |verb| trouble(verb, &path);
        let mut bytes = Vec::new();
        for event in events {
            serde_json::to_writer(&mut bytes, event)
                .map_err(|error| wrong("write")(error.into()))?;
            bytes.push(b'\n');
        }
        if is_full(&path, now_ms) {
            rotate(&folder)?;
        }
        let mut log = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(wrong("open"))?;
        if is_torn(&mut log) {
            bytes.insert(0, b'\n');
        }
        log.write_all(&bytes).map_err(wrong("write"))
    }
}

/// Whether the last write was cut off.
fn is_torn(log: &mut fs::File) -> bool {
    let mut last = [b'\n'];
    // An empty file has no end to go back from.
    if log.seek(SeekFrom::End(-1)).is_ok() {
        let _ = log.read_exact(&mut last);
    }
    last != [b'\n']
}

/// Whether a file takes no more lines: it is long, or its first line is so old that the file
/// would not go in time.
fn is_full(path: &Path, now_ms: u64) -> bool {
    let Ok(file) = open_plain(path) else {
        return false;
    };
    if file.metadata().is_ok_and(|found| found.len() >= FILE_BYTES) {
        return true;
    }
    let first = next_line(&mut BufReader::new(file));
    let stamp = first.and_then(|line| serde_json::from_slice::<Stamp>(&line).ok());
    let share = AGE / FILES.saturating_sub(1);
    stamp.is_some_and(|stamp| Duration::from_millis(now_ms.saturating_sub(stamp.at_ms)) > share)
}

/// Moves every file one place on. The last one goes, and what is too old.
///
/// How old is told by the lines alone: a clock that jumps ahead, for however short a time, must
/// not take the history with it.
fn rotate(folder: &Path) -> Result<()> {
    let newest = last_stamp(&file(folder, 0));
    for position in (0..FILES).rev() {
        let from = file(folder, position);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        let ages = newest.zip(last_stamp(&from));
        let age = ages.map(|(newest, last)| Duration::from_millis(newest.saturating_sub(last)));
        if position + 1 == FILES || age.is_some_and(|age| age > AGE) {
            fs::remove_file(&from).map_err(trouble("remove", &from))?;
        } else {
            let to = file(folder, position + 1);
            fs::rename(&from, &to).map_err(trouble("rename", &from))?;
        }
    }
    Ok(())
}

/// When the last whole line was written, by what it says itself.
fn last_stamp(path: &Path) -> Option<u64> {
    let mut file = open_plain(path).ok()?;
    let begin = file.metadata().ok()?.len().saturating_sub(2 * LINE);
    file.seek(SeekFrom::Start(begin)).ok()?;
    let mut end = Vec::new();
    file.take(2 * LINE).read_to_end(&mut end).ok()?;
    let mut lines = end.rsplit(|byte| *byte == b'\n');
    lines.find_map(|line| Some(serde_json::from_slice::<Stamp>(line).ok()?.at_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::Roots;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Event {
        at_ms: u64,
        text: String,
    }

    fn store(root: &Path) -> Store {
        let root = root.to_owned();
        let roots = Roots::new(move |name| Some(root.join(name.to_lowercase())));
        Store::open(roots.dirs_for("prime")).unwrap()
    }

    fn event(at_ms: u64, text: &str) -> Event {
        Event {
            at_ms,
            text: text.to_owned(),
        }
    }

    fn texts(store: &Store) -> Vec<String> {
        let read = read::<Event>(store.dirs());
        read.events.into_iter().map(|event| event.text).collect()
    }

    const DAY: u64 = 24 * 3600 * 1000;

    fn now_ms() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(now.unwrap().as_millis()).unwrap()
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store
            .append_events(&[event(1, "a"), event(2, "b")], 2)
            .unwrap();
        let path = file(&folder(store.dirs()), 0);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        store.append_events(&[event(3, "c")], 3).unwrap();
        let read = read::<Event>(store.dirs());
        assert_eq!(read.events, [event(1, "a"), event(3, "c")]);
        assert_eq!(read.unread.len(), 1);
        assert!(read.unread[0].ends_with("1 torn line"), "{:?}", read.unread);
        let garbage = [b"\xff".repeat(30_000), b"\n".to_vec()].concat();
        let mut log = OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(&garbage).unwrap();
        store.append_events(&[event(4, "d")], 4).unwrap();
        assert_eq!(texts(&store), ["a", "c", "d"]);
    }

    #[test]
    fn the_log_has_a_bound_and_loses_the_oldest() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let now = now_ms();
        let long = "x".repeat(1000);
        for round in 0..27 {
            let events: Vec<Event> = (0..500)
                .map(|number| event(now, &format!("{round}-{number}-{long}")))
                .collect();
            store.append_events(&events, now).unwrap();
        }
        let folder = folder(store.dirs());
        let names = fs::read_dir(&folder).unwrap().count();
        assert_eq!(names, FILES as usize);
        let bytes: u64 = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(
            bytes < u64::from(FILES) * (FILE_BYTES + (600 << 10)),
            "{bytes}"
        );
        let texts = texts(&store);
        assert!(texts.last().unwrap().starts_with("26-499-"));
        assert!(!texts[0].starts_with("0-"), "{}", texts[0]);
        assert!(texts.len() > 4000, "{}", texts.len());
    }

    #[test]
    fn what_is_old_goes_though_it_is_little() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let now = now_ms();
        store.append_events(&[event(now, "first")], now).unwrap();
        store
            .append_events(&[event(now + 5 * DAY, "second")], now + 5 * DAY)
            .unwrap();
        let rotated = file(&folder(store.dirs()), 1);
        assert!(rotated.exists(), "another file after some days");
        assert_eq!(texts(&store), ["first", "second"]);
        let late = now + 31 * DAY;
        store.append_events(&[event(late, "third")], late).unwrap();
        assert_eq!(texts(&store), ["first", "second", "third"]);
        let later = late + 5 * DAY;
        store
            .append_events(&[event(later, "fourth")], later)
            .unwrap();
        assert_eq!(texts(&store), ["second", "third", "fourth"]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_takes_nothing_with_it() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let now = now_ms();
        for (days, text) in [
            (0, "one"),
            (5, "two"),
            (9999, "ahead"),
            (6, "back"),
            (7, "on"),
        ] {
            let at = now + days * DAY;
            store.append_events(&[event(at, text)], at).unwrap();
        }
        assert_eq!(texts(&store), ["one", "two", "ahead", "back", "on"]);
    }

    #[test]
    fn a_symlink_in_its_place_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store.append_events(&[event(1, "a")], 1).unwrap();
        let victim = root.path().join("victim");
        fs::write(&victim, "mine\n").unwrap();
        let path = file(&folder(store.dirs()), 0);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let error = store.append_events(&[event(2, "b")], 2).unwrap_err();
        assert!(error.to_string().starts_with("cannot open"), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine\n");
        assert!(texts(&store).is_empty());
    }
}
