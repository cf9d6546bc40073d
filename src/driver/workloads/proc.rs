//! What `/proc` says about single processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// From `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its parent.
    pub parent: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

/// Parent and start time of a process, if it is there.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command's name stands in parentheses and may itself hold some, and spaces.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start })
}

/// The direct children of a process, of all its threads.
pub(super) fn children(pid: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return found;
    };
    for task in tasks.flatten() {
        if let Ok(text) = fs::read_to_string(task.path().join("children")) {
            found.extend(
                text.split_ascii_whitespace()
                    .filter_map(|n| n.parse::<i32>().ok()),
            );
        }
    }
    found
}

/// Its number in the pid namespace just below ours; `None` when it is in ours or deeper.
pub(super) fn number_inside(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut numbers = field(&text, "NSpid")?.split_ascii_whitespace().skip(1);
    let inside = numbers.next()?.parse().ok()?;
    numbers.next().is_none().then_some(inside)
}

/// The value of a field of `/proc/PID/status`.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        Some(rest.trim())
    })
}

/// The short name that a process gave itself, or its program's.
pub(super) fn name(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

/// The program that a process runs.
pub(super) fn program(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let text = "7 (a) R (b c) S 4 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2 3";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                parent: 4,
                start: 9876
            })
        );
        assert_eq!(parse_stat("7 (x) S"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn own_children_are_seen() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(children(own).contains(&pid));
        assert_eq!(stat(pid).unwrap().parent, own);
        assert_eq!(number_inside(pid), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(stat(pid), None);
    }

    #[test]
    fn fields_are_found_whole() {
        let status = "Name:\tx\nCapBnd:\t00ff\nNoNewPrivs:\t1\n";
        assert_eq!(field(status, "CapBnd"), Some("00ff"));
        assert_eq!(field(status, "Cap"), None);
    }
}
