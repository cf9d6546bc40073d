//! The generations of a stack's spec, in the folder `history` of its state.
//!
//! Each has two files: `000007.yaml` is the text and never changes; `000007.json` says the rest
//! and is replaced when the outcome is known. A spec of many files, or one with variables, has a
//! third one that never changes, `000007.parts`, with its other texts and the variables' values.
//! All are whole and on the disk once written.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Result, Store, load, open_plain, private_folder, replace, save, trouble};
use crate::driver::because;
use crate::graph::desired::Dirs;
use crate::spec::generation::{Generation, Outcome, Past, last_converged, last_taken};
use crate::spec::texts::{Further, SpecText};

/// Generations that are kept at most.
pub const MOST: usize = 100;
/// What their files may have together, in bytes; the newest and the last converged one stay
/// even so.
pub const MOST_BYTES: u64 = 16 << 20;
/// The largest text that is read back, in bytes; specs have 1 MiB at most.
const TEXT_LIMIT: u64 = 2 << 20;
/// What a generation's files end in.
const ENDINGS: [&str; 3] = ["json", "yaml", "parts"];
/// Names in the folder that are looked at; we never make so many.
const NAMES: usize = 10_000;

/// Where the generations and events of a stack are kept.
pub(super) fn folder(dirs: &Dirs) -> PathBuf {
    dirs.state.join("history")
}

/// The folder, made if it is not there.
pub(super) fn own_folder(dirs: &Dirs) -> Result<PathBuf> {
    let folder = folder(dirs);
    // Made again, because somebody may have cleared the state while we run.
    private_folder(&dirs.state)?;
    private_folder(&folder)?;
    Ok(folder)
}

fn file(folder: &Path, number: u64, end: &str) -> PathBuf {
    folder.join(format!("{number:06}.{end}"))
}

/// The number and the ending of a file's name.
fn parse(name: &str) -> Option<(u64, &str)> {
    let (number, end) = name.split_once('.')?;
    let digits = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || !ENDINGS.contains(&end) {
        return None;
    }
    Some((number.parse().ok()?, end))
}

type Entries = BTreeMap<u64, Entry>;

/// What lies in the folder of one number.
#[derive(Default)]
struct Entry {
    bytes: u64,
    has_meta: bool,
}

fn entries(folder: &Path) -> io::Result<Entries> {
    let mut entries = Entries::new();
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
        found => found?,
    };
    for found in found.flatten().take(NAMES) {
        let name = found.file_name();
        let Some((number, end)) = name.to_str().and_then(parse) else {
            continue;
        };
        let entry = entries.entry(number).or_default();
        entry.bytes += found.metadata().map_or(0, |found| found.len());
        entry.has_meta |= end == "json";
    }
    Ok(entries)
}

/// Everything that is kept of the stack's generations, for anybody who may read it.
pub fn past(dirs: &Dirs) -> Past {
    let folder = folder(dirs);
    let entries = match entries(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            let unread = vec![unread(&folder, &because(&error))];
            return Past {
                unread,
                ..Past::default()
            };
        }
    };
    let mut past = Past {
        newest: entries.keys().next_back().copied().unwrap_or(0),
        ..Past::default()
    };
    for (number, _) in entries.iter().filter(|(_, entry)| entry.has_meta) {
        let path = file(&folder, *number, "json");
        match load::<Generation>(&path) {
            Ok(generation) if generation.number == *number => past.generations.push(generation),
            Ok(_) => past.unread.push(unread(&path, "it is of another number")),
            Err(why) => past.unread.push(unread(&path, &why)),
        }
    }
    past
}

pub(super) fn unread(path: &Path, why: &str) -> String {
    format!("cannot read `{}`: {why}", path.display())
}

/// The first text of a generation.
///
/// # Errors
/// Why it cannot be read.
pub fn text(dirs: &Dirs, number: u64) -> std::result::Result<String, String> {
    let path = file(&folder(dirs), number, "yaml");
    let mut text = String::new();
    open_plain(&path)
        .and_then(|file| file.take(TEXT_LIMIT).read_to_string(&mut text))
        .map_err(|error| unread(&path, &because(&error)))?;
    Ok(text)
}

/// What a generation has beside its first text.
///
/// # Errors
/// Why it cannot be read.
pub fn further(dirs: &Dirs, number: u64) -> std::result::Result<Further, String> {
    let path = file(&folder(dirs), number, "parts");
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Further::default()),
        _ => load(&path).map_err(|why| unread(&path, &why)),
    }
}

/// The spec of a generation, all of it.
///
/// # Errors
/// Why it cannot be read.
pub fn spec(dirs: &Dirs, generation: &Generation) -> std::result::Result<SpecText, String> {
    Ok(SpecText {
        path: generation.path.clone(),
        text: text(dirs, generation.number)?,
        further: further(dirs, generation.number)?,
    })
}

impl Store {
    /// Keeps a generation: a new one with its spec, one that is kept already without.
    ///
    /// # Errors
    /// What the disk said; what was kept before stays.
    pub fn save_generation(&self, generation: &Generation, spec: Option<&SpecText>) -> Result<()> {
        let folder = own_folder(&self.dirs)?;
        let mut generation = generation.clone();
        if generation.boot.is_empty() {
            generation.boot = boot_id();
        }
        if let Some(spec) = spec {
            let text = spec.text.as_bytes();
            replace(&file(&folder, generation.number, "yaml"), text)?;
            if !spec.further.is_empty() {
                save(&file(&folder, generation.number, "parts"), &spec.further)?;
            }
        }
        save(&file(&folder, generation.number, "json"), &generation)?;
        match spec {
            Some(_) => bound(&self.dirs, MOST, MOST_BYTES),
            None => Ok(()),
        }
    }
}

/// The kernel's id of this boot; empty where there is none.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Drops what is too much: specs that were refused first, then the oldest.
fn bound(dirs: &Dirs, most: usize, most_bytes: u64) -> Result<()> {
    let folder = folder(dirs);
    let mut entries = entries(&folder).map_err(trouble("read", &folder))?;
    let total = |entries: &Entries| -> u64 { entries.values().map(|entry| entry.bytes).sum() };
    if entries.len() <= most && total(&entries) <= most_bytes {
        return Ok(());
    }
    let past = past(dirs);
    let stays = [
        Some(past.newest),
        last_taken(&past.generations).map(|taken| taken.number),
        last_converged(&past.generations, u64::MAX).map(|converged| converged.number),
    ];
    let refused = past
        .generations
        .iter()
        .filter(|generation| matches!(generation.outcome, Outcome::Refused { .. }))
        .map(|generation| generation.number);
    let oldest: Vec<u64> = refused.chain(entries.keys().copied()).collect();
    for number in oldest {
        if entries.len() <= most && total(&entries) <= most_bytes {
            break;
        }
        if stays.contains(&Some(number)) || entries.remove(&number).is_none() {
            continue;
        }
        for end in ENDINGS {
            let path = file(&folder, number, end);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(trouble("remove", &path)(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::spec::generation::Cause;
    use crate::store::Roots;

    fn store(root: &Path) -> Store {
        let root = root.to_owned();
        let roots = Roots::new(move |name| Some(root.join(name.to_lowercase())));
        Store::open(roots.dirs_for("prime")).unwrap()
    }

    fn generation(number: u64, outcome: Outcome) -> Generation {
        Generation {
            commit: None,
            number,
            path: "/s.yaml".into(),
            cause: Cause::Begin,
            at_ms: number,
            boot: String::new(),
            outcome,
        }
    }

    fn numbers(store: &Store) -> Vec<u64> {
        let past = past(store.dirs());
        past.generations.iter().map(|one| one.number).collect()
    }

    fn of(text: &str) -> SpecText {
        SpecText::of("/s.yaml", text)
    }

    const CONVERGED: Outcome = Outcome::Converged { after_ms: 5 };

    #[test]
    fn a_generation_is_kept_with_its_text_and_outcome() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        assert_eq!(past(store.dirs()), Past::default());
        let mut first = generation(1, Outcome::Converging);
        store
            .save_generation(&first, Some(&of("name: a\n")))
            .unwrap();
        first.outcome = CONVERGED;
        store.save_generation(&first, None).unwrap();
        let kept = past(store.dirs());
        assert_eq!(kept.newest, 1);
        assert_eq!(kept.generations[0].outcome, CONVERGED);
        assert_eq!(kept.generations[0].boot, boot_id());
        assert_eq!(text(store.dirs(), 1).unwrap(), "name: a\n");
        let error = text(store.dirs(), 2).unwrap_err();
        assert!(error.contains("000002.yaml"), "{error}");
        for name in ["000001.json", "000001.yaml"] {
            let found = fs::metadata(folder(store.dirs()).join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_its_number_is_not_given_again() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store
            .save_generation(&generation(1, CONVERGED), Some(&of("a")))
            .unwrap();
        let folder = folder(store.dirs());
        fs::write(folder.join("000002.json"), "{\"version\":1,\"cont").unwrap();
        fs::write(folder.join("000003.json"), "{\"version\":9,\"content\":5}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("000004.json")).unwrap();
        fs::write(folder.join("000005.yaml"), "its other half was not written").unwrap();
        fs::write(folder.join("notes.txt"), "not ours").unwrap();
        let kept = past(store.dirs());
        assert_eq!((kept.newest, kept.generations.len()), (5, 1));
        assert_eq!(kept.unread.len(), 3, "{:?}", kept.unread);
        assert!(
            kept.unread[1].contains("another version"),
            "{:?}",
            kept.unread
        );
    }

    #[test]
    fn the_bounds_hold_and_the_last_converged_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store
            .save_generation(&generation(1, CONVERGED), Some(&of("good")))
            .unwrap();
        let why = "x".to_owned();
        let refused = Outcome::Refused { why };
        for number in 2..=150 {
            let outcome = match number % 10 {
                0 => refused.clone(),
                _ => Outcome::Superseded,
            };
            store
                .save_generation(&generation(number, outcome), Some(&of("text")))
                .unwrap();
        }
        let kept = numbers(&store);
        assert_eq!(kept.len(), MOST);
        assert_eq!((kept[0], kept.last()), (1, Some(&150)));
        assert!(!kept.contains(&140), "refused ones go first: {kept:?}");
        assert_eq!(kept[1], 42, "then the oldest");

        let large = "x".repeat(1 << 20);
        for number in 151..=170 {
            store
                .save_generation(&generation(number, Outcome::Superseded), Some(&of(&large)))
                .unwrap();
        }
        let bytes: u64 = entries(&folder(store.dirs()))
            .unwrap()
            .values()
            .map(|entry| entry.bytes)
            .sum();
        assert!(bytes <= MOST_BYTES, "{bytes}");
        let kept = numbers(&store);
        assert_eq!((kept[0], kept.last()), (1, Some(&170)));
        assert_eq!(text(store.dirs(), 1).unwrap(), "good");
    }

    #[test]
    fn a_folder_that_is_a_symlink_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        std::os::unix::fs::symlink("/tmp", folder(store.dirs())).unwrap();
        let error = store.save_generation(&generation(1, CONVERGED), Some(&of("a")));
        assert!(error.unwrap_err().to_string().contains("not a folder"));
        fs::remove_file(folder(store.dirs())).unwrap();
        fs::remove_dir_all(&store.dirs().state).unwrap();
        // The state was cleared under a running controller.
        store
            .save_generation(&generation(2, CONVERGED), Some(&of("a")))
            .unwrap();
        assert_eq!(numbers(&store), [2]);
    }
}
