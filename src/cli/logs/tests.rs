#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;

use super::*;

fn read(log: &mut Log, tail: Option<usize>) -> Vec<String> {
    let mut lines = Vec::new();
    log.history(tail, &mut |line| {
        lines.push(String::from_utf8_lossy(line).into_owned());
        Ok(())
    })
    .unwrap();
    lines
}

fn more(log: &mut Log) -> Vec<String> {
    let mut lines = Vec::new();
    log.more(&mut |line| {
        lines.push(String::from_utf8_lossy(line).into_owned());
        Ok(())
    })
    .unwrap();
    lines
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prime1.log");
        Place {
            _folder: folder,
            path,
        }
    }

    fn log(&self) -> Log {
        Log::new("prime1".to_owned(), self.path.clone())
    }

    fn rotated(&self, number: u32) -> PathBuf {
        self.path.with_extension(format!("log.{number}"))
    }
}

#[test]
fn rotated_files_come_first() {
    let place = Place::new();
    append(&place.rotated(2), "1\n2\n");
    append(&place.rotated(1), "3\n");
    append(&place.path, "4\n5\n");
    assert_eq!(read(&mut place.log(), None), ["1", "2", "3", "4", "5"]);
}

#[test]
fn the_tail_reaches_into_rotated_files() {
    let place = Place::new();
    append(&place.rotated(2), "1\n2\n");
    append(&place.rotated(1), "3\n");
    append(&place.path, "4\n5\n");
    let all = ["1", "2", "3", "4", "5"];
    for wanted in 0..=5 {
        assert_eq!(read(&mut place.log(), Some(wanted)), all[5 - wanted..]);
    }
    assert_eq!(read(&mut place.log(), Some(100)), all);
}

#[test]
fn a_line_across_blocks_is_one_and_the_tail_of_a_long_file_is_exact() {
    let place = Place::new();
    let long = "x".repeat(100_000);
    let lines: Vec<String> = (0..5000).map(|n| format!("line {n}")).collect();
    append(&place.path, &format!("{long}\n{}\n", lines.join("\n")));
    let all = read(&mut place.log(), None);
    assert_eq!(all.len(), 5001);
    assert_eq!(all[0], long);
    assert_eq!(read(&mut place.log(), Some(4000)), lines[1000..]);
    assert_eq!(read(&mut place.log(), Some(5001))[0], long);
}

#[test]
fn a_line_that_has_no_end_yet_waits_for_it() {
    let place = Place::new();
    append(&place.path, "one\ntw");
    let mut log = place.log();
    assert_eq!(read(&mut log, None), ["one"]);
    append(&place.path, "o\nthree\n");
    assert_eq!(more(&mut log), ["two", "three"]);
    append(&place.path, "end");
    assert_eq!(more(&mut log), [""; 0]);
    let mut last = Vec::new();
    log.finish(&mut |line| {
        last.extend_from_slice(line);
        Ok(())
    })
    .unwrap();
    assert_eq!(last, b"end");
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let place = Place::new();
    append(&place.path, "one\ntwo\n");
    let mut log = place.log();
    assert_eq!(read(&mut log, Some(0)), [""; 0]);
    let file = OpenOptions::new().write(true).open(&place.path).unwrap();
    file.set_len(0).unwrap();
    append(&place.path, "new\n");
    assert_eq!(more(&mut log), ["new"]);
    std::fs::remove_file(&place.path).unwrap();
    assert_eq!(more(&mut log), [""; 0]);
    append(&place.path, "a new file, longer than before\n");
    assert_eq!(more(&mut log), ["a new file, longer than before"]);
}

#[test]
fn an_endless_line_comes_in_pieces() {
    let place = Place::new();
    append(&place.path, &"x".repeat(1 << 20));
    let pieces = read(&mut place.log(), None);
    assert!(pieces.len() >= 3, "{}", pieces.len());
    assert!(pieces.iter().all(|piece| piece.len() <= 512 << 10));
}

#[test]
fn a_group_stands_for_its_members() {
    let all = BTreeSet::from(["web".to_owned(), "web.processes".to_owned()]);
    for (asked, name) in [
        ("prime", "prime"),
        ("prime", "prime12"),
        ("containers/prime", "prime1"),
        ("prime", "prime1.b"),
        ("prime1", "prime1.b"),
        ("prime1.b", "prime1.b"),
        ("processes/nginx", "nginx"),
        ("web", "web"),
        ("web", "web.processes"),
        ("web", "web2.b.processes"),
        ("containers/web", "web"),
        ("processes/web", "web.processes"),
    ] {
        assert!(is_meant(asked, name, &all), "{asked} {name}");
    }
    for (asked, name) in [
        ("prime", "prime-db"),
        ("prime1", "prime"),
        ("prime1.b", "prime1"),
        ("a", "b"),
        ("containers/web", "web.processes"),
        ("processes/web", "web"),
    ] {
        assert!(!is_meant(asked, name, &all), "{asked} {name}");
    }
}

#[test]
fn the_controllers_own_log_is_shown_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "controller.log",
        "nginx.log",
        "prime1.log",
        "prime1.log.1",
        "x.txt",
    ] {
        append(&folder.path().join(name), "\n");
    }
    let names = |asked: &[&str]| {
        let asked: Vec<String> = asked.iter().map(|a| (*a).to_owned()).collect();
        let logs = wanted(list(folder.path()), &asked);
        logs.iter()
            .map(|log| log.name().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["nginx", "prime1"]);
    assert_eq!(names(&["controller"]), ["controller"]);
    assert_eq!(names(&["prime"]), ["prime1"]);
}

#[test]
fn escapes_of_workloads_do_not_reach_the_terminal() {
    let hostile: &[u8] = b"a\x1b[31mred\x1b[0m\x1b]0;title\x07b\x08\tc\xff\xc2\x9bd\r";
    let shown = harmless(hostile);
    assert!(
        shown.chars().all(|c| c == '\t' || !c.is_control()),
        "{shown:?}"
    );
    assert!(shown.starts_with("ared"), "{shown:?}");
    assert!(!shown.contains("title"), "{shown:?}");
}

#[test]
fn a_quoted_line_does_nothing_to_the_terminal() {
    assert_eq!(escaped(b"a\x1b[2Jb\tc\r"), "a\\u{1b}[2Jb    c");
    assert_eq!(escaped(b"\xff\x00"), "\u{fffd}\\u{0}");
}
