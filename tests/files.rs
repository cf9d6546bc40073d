//! Marked files and the validator's sandbox, on the real file system with the real nginx.
//! Needs root, because marks are trusted extended attributes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hatchery::driver::commands::HostCommands;
use hatchery::driver::files::HostFiles;
use hatchery::driver::{Commands, ErrorKind, Files, NewFile};
use hatchery::graph::desired::Dirs;
use hatchery::plan::world::{FileMark, FileView};

const LONG: Duration = Duration::from_secs(20);

fn files(root: &Path) -> HostFiles {
    HostFiles::new(&Dirs {
        run: root.join("own/run"),
        state: root.join("own/state"),
        log: root.join("own/log"),
    })
}

fn marked(path: &Path, stack: &str, content: &str) -> NewFile {
    NewFile {
        path: path.to_owned(),
        content: content.to_owned(),
        mode: 0o640,
        owner: Some("7:8".to_owned()),
        mark: Some(FileMark {
            stack: stack.to_owned(),
            template: "upstream".to_owned(),
            hash: blake3::hash(content.as_bytes()).to_hex().to_string(),
        }),
    }
}

fn candidate(path: &Path, content: &str) -> NewFile {
    NewFile {
        mark: None,
        owner: None,
        mode: 0o644,
        ..marked(path, "prime", content)
    }
}

fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
}

#[test]
fn a_written_file_is_ours_from_its_first_moment() {
    let root = tempfile::tempdir().unwrap();
    let files = files(root.path());
    let path = root.path().join("new/folder/prime.conf");
    let first = marked(&path, "prime", "one\n");
    files.write(&first).unwrap();
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (7, 8));
    let FileView::File { hash, mark, mode } = files.look(&path) else {
        panic!("not there");
    };
    assert_eq!(mode, 0o640);
    assert_eq!(mark, first.mark);
    assert_eq!(hash, first.mark.unwrap().hash);

    let inode = metadata.ino();
    files.write(&marked(&path, "prime", "two\n")).unwrap();
    assert_ne!(path.metadata().unwrap().ino(), inode, "renamed into place");
    assert_eq!(files.read(&path, 100).unwrap(), "two\n");
    assert_eq!(
        names(path.parent().unwrap()),
        std::slice::from_ref(&path),
        "no leftovers"
    );

    assert_eq!(
        files.remove(&path, "other").unwrap_err().kind,
        ErrorKind::Foreign
    );
    files.remove(&path, "prime").unwrap();
    assert_eq!(files.look(&path), FileView::Missing);
    files.remove(&path, "prime").unwrap();
}

#[test]
fn what_is_not_ours_is_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    let files = files(root.path());
    let path = root.path().join("prime.conf");
    let refused = |content: &str| {
        let error = files.write(&marked(&path, "prime", content)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Foreign, "{error}");
        error.message
    };

    std::fs::write(&path, "by hand\n").unwrap();
    assert_eq!(
        refused("ours\n"),
        format!(
            "`{}` exists and was not written by hatchery; remove it or choose another destination",
            path.display()
        )
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by hand\n");
    files.write(&marked(&path, "prime", "by hand\n")).unwrap();
    files.write(&marked(&path, "prime", "ours\n")).unwrap();

    files.remove(&path, "prime").unwrap();
    files.write(&marked(&path, "second", "theirs\n")).unwrap();
    assert!(refused("ours\n").contains("belongs to the stack `second`"));

    std::fs::remove_file(&path).unwrap();
    let victim = root.path().join("victim");
    std::fs::write(&victim, "v\n").unwrap();
    symlink(&victim, &path).unwrap();
    assert!(refused("v\n").contains("is a symbolic link"));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "v\n");

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refused("x\n").contains("is a folder"));
}

#[test]
fn an_interrupted_write_leaves_nothing_for_long() {
    let root = tempfile::tempdir().unwrap();
    let files = files(root.path());
    let path = root.path().join("prime.conf");
    let victim = root.path().join("victim");
    std::fs::write(&victim, "v\n").unwrap();
    symlink(&victim, root.path().join(".hatchery-prime.conf")).unwrap();
    files.write(&marked(&path, "prime", "ours\n")).unwrap();
    assert_eq!(names(root.path()), [path.clone(), victim.clone()]);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "v\n");

    let mut unknown = marked(&path, "prime", "other\n");
    unknown.owner = Some("nobody-of-this-name".to_owned());
    let error = files.write(&unknown).unwrap_err();
    assert!(error.message.ends_with("no user `nobody-of-this-name`"));
    assert_eq!(names(root.path()), [path.clone(), victim.clone()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "ours\n");

    // What carries the mark of another stack is another one's write, which is under way.
    let left = root.path().join(".hatchery-prime.conf");
    files.write(&marked(&left, "second", "theirs\n")).unwrap();
    files.remove_unfinished(&path, "prime").unwrap();
    assert!(left.exists());
    files.remove_unfinished(&path, "second").unwrap();
    std::fs::write(&left, "ou").unwrap();
    files.remove(&path, "second").unwrap_err();
    assert!(left.exists());
    files.remove(&path, "prime").unwrap();
    assert_eq!(names(root.path()), [victim]);
}

fn commands() -> HostCommands {
    HostCommands::new(env!("CARGO_BIN_EXE_hatchery"))
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

/// An nginx configuration that includes `included`, and whose pid and log lie where Debian's do.
fn nginx(root: &Path, included: &Path) -> Vec<String> {
    let conf = root.join("nginx.conf");
    std::fs::write(
        &conf,
        format!(
            "pid /run/hatchery-test-nginx.pid;\n\
             error_log /var/log/nginx/hatchery-test.log;\n\
             events {{}}\n\
             http {{ upstream prime {{ include {}; }}\n\
             server {{ listen unix:/run/hatchery-test.sock; location / {{ proxy_pass http://prime; }} }} }}\n",
            included.display()
        ),
    )
    .unwrap();
    let conf = conf.to_str().unwrap().to_owned();
    vec!["nginx".to_owned(), "-t".to_owned(), "-c".to_owned(), conf]
}

#[test]
fn nginx_reads_candidates_that_are_not_there_yet() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("not/there/prime.conf");
    let command = nginx(root.path(), &path);
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();

    let good = [candidate(&path, "server 10.50.0.2:8080;\n")];
    let output = commands().validate(&command, &good, LONG).unwrap();
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert!(
        output.text.contains("test is successful"),
        "{}",
        output.text
    );

    let bad = [candidate(&path, "servre 10.50.0.2:8080;\n")];
    let output = commands().validate(&command, &bad, LONG).unwrap();
    assert_eq!(output.code, Some(1), "{}", output.text);
    let told = format!("unknown directive \"servre\" in {}:1", path.display());
    assert!(output.text.contains(&told), "{}", output.text);

    for leak in [
        path.parent().unwrap(),
        Path::new("/run/hatchery-test-nginx.pid"),
        Path::new("/run/hatchery-test.sock"),
        Path::new("/var/log/nginx/hatchery-test.log"),
    ] {
        assert!(!leak.exists(), "{} leaked", leak.display());
    }
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_validator_sees_the_host_and_changes_nothing_of_it() {
    let root = tempfile::tempdir().unwrap();
    let live = root.path().join("live.conf");
    let other = root.path().join("other");
    std::fs::write(&live, "old").unwrap();
    std::fs::write(&other, "untouched").unwrap();
    let script = format!(
        "cat {live} {other}; echo changed > {other}; rm {live}; touch {root}/left; stat -c %a:%u {live}.new",
        live = live.display(),
        other = other.display(),
        root = root.path().display()
    );
    let mut new = candidate(&root.path().join("live.conf.new"), "x");
    new.mode = 0o604;
    new.owner = Some("9".to_owned());
    let candidates = [candidate(&live, "new"), new];
    let output = commands()
        .validate(&shell(&script), &candidates, LONG)
        .unwrap();
    assert_eq!(output.text, "newuntouched604:9\n");
    assert_eq!(std::fs::read_to_string(&live).unwrap(), "old");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "untouched");
    assert_eq!(names(root.path()), [live, other]);
}

#[test]
fn a_link_at_a_destination_is_replaced_in_the_sandbox_only() {
    let root = tempfile::tempdir().unwrap();
    let (target, link) = (root.path().join("target"), root.path().join("link"));
    std::fs::write(&target, "t").unwrap();
    symlink(&target, &link).unwrap();
    let script = format!("cat {} {}", link.display(), target.display());
    let output = commands()
        .validate(&shell(&script), &[candidate(&link, "c")], LONG)
        .unwrap();
    assert_eq!(output.text, "ct");
    assert!(link.is_symlink());
}

/// The processes whose command line holds `word`.
fn processes_with(word: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(word))
        .count()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_validator_ends_when_its_time_is_over_with_all_that_it_started() {
    let script = "echo so far; setsid sleep 98765 & sleep 98765";
    let output = commands()
        .validate(&shell(script), &[], Duration::from_millis(300))
        .unwrap();
    assert_eq!(output.code, None);
    assert_eq!(output.text, "so far\n(killed after 300ms)");
    wait_until("the end of the background", || processes_with("98765") == 0);
}

#[test]
fn what_a_validator_leaves_in_the_background_ends_with_it() {
    let script = "setsid sleep 87654 & echo done";
    let output = commands().validate(&shell(script), &[], LONG).unwrap();
    assert_eq!((output.code, output.text.as_str()), (Some(0), "done\n"));
    wait_until("the end of the background", || processes_with("87654") == 0);
}

#[test]
fn a_validator_dies_with_the_controller() {
    let root = tempfile::tempdir().unwrap();
    let job = root.path().join("job.json");
    let text = serde_json::json!({
        "command": ["sleep", "76543"], "candidates": [],
        "timeout": { "secs": 600, "nanos": 0 },
    });
    std::fs::write(&job, text.to_string()).unwrap();
    let mut inner = std::process::Command::new(env!("CARGO_BIN_EXE_hatchery"))
        .args(["__inner", "validate"])
        .stdin(std::fs::File::open(&job).unwrap())
        .spawn()
        .unwrap();
    wait_until("the validator's start", || processes_with("76543") > 0);
    inner.kill().unwrap();
    inner.wait().unwrap();
    wait_until("the validator's end", || processes_with("76543") == 0);
}

#[test]
fn what_cannot_be_validated_is_told() {
    let missing = ["no-such-validator".to_owned()];
    let error = commands().validate(&missing, &[], LONG).unwrap_err();
    assert_eq!(
        error.message,
        "cannot run the validator `no-such-validator`: no such file or directory"
    );
    let error = HostCommands::new("/bin/false")
        .validate(&missing, &[], LONG)
        .unwrap_err();
    assert!(
        error
            .message
            .ends_with("its sandbox ended without an answer")
    );
    let blocked = [candidate(Path::new("/etc/passwd/x"), "x")];
    let error = commands()
        .validate(&shell("true"), &blocked, LONG)
        .unwrap_err();
    assert!(
        error.message.contains("cannot place `/etc/passwd/x`"),
        "{error}"
    );
}
