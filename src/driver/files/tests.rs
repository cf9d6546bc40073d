#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::*;

fn dirs(root: &Path) -> Dirs {
    Dirs {
        run: root.join("run"),
        state: root.join("state"),
        log: root.join("log"),
    }
}

fn content_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[test]
fn a_look_tells_content_and_kind() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let path = root.path().join("a");
    assert_eq!(files.look(&path), FileView::Missing);
    assert_eq!(files.look(&path.join("below")), FileView::Missing);
    std::fs::write(&path, "text").unwrap();
    assert_eq!(files.look(&path.join("below")), FileView::Missing);
    let FileView::File { hash, mark, mode } = files.look(&path) else {
        panic!("not a file");
    };
    assert_eq!(hash, content_hash("text"));
    assert_eq!(mark, None);
    assert_eq!(mode, path.metadata().unwrap().mode() & 0o7777);
    let FileView::Unreadable(reason) = files.look(root.path()) else {
        panic!("a folder was read");
    };
    assert!(reason.contains("it is a folder"), "{reason}");
}

#[test]
fn a_pipe_does_not_hold_a_look_up() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let pipe = root.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(files.look(&pipe), FileView::Unreadable(_)));
    assert!(files.read(&pipe, 10).is_err());
}

#[test]
fn a_swapped_link_shows_the_new_content() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    for name in ["one", "two"] {
        std::fs::write(root.path().join(name), name).unwrap();
    }
    let link = root.path().join("link");
    symlink("one", &link).unwrap();
    let FileView::File { hash, .. } = files.look(&link) else {
        panic!("not followed");
    };
    assert_eq!(hash, content_hash("one"));
    symlink("two", root.path().join("new")).unwrap();
    std::fs::rename(root.path().join("new"), &link).unwrap();
    let FileView::File { hash, .. } = files.look(&link) else {
        panic!("not followed");
    };
    assert_eq!(hash, content_hash("two"));
}

#[test]
fn an_unchanged_file_is_read_once() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let path = root.path().join("a");
    std::fs::write(&path, "text").unwrap();
    let written = path.metadata().unwrap();
    let changed = UNIX_EPOCH
        + Duration::new(
            written.ctime().try_into().unwrap(),
            written.ctime_nsec().try_into().unwrap(),
        );
    files.look(&path);
    assert!(files.seen.lock().unwrap().is_empty(), "too young to trust");
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while changed.elapsed().unwrap_or_default() <= SETTLED {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let view = files.look(&path);
    assert_eq!(files.seen.lock().unwrap().len(), 1);
    assert_eq!(files.look(&path), view);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_ne!(files.look(&path), view, "a change of mode is seen");
}

#[test]
fn reading_is_bounded_and_wants_text() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let path = root.path().join("a");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(files.read(&path, 5).unwrap(), "12345");
    let error = files.read(&path, 4).unwrap_err();
    assert!(
        error.message.ends_with("it is larger than 4 bytes"),
        "{error}"
    );
    std::fs::write(&path, b"ab\xff").unwrap();
    let error = files.read(&path, 9).unwrap_err();
    assert!(
        error.message.ends_with("not UTF-8 text from byte 2 on"),
        "{error}"
    );
    let error = files.read(&root.path().join("none"), 9).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone);
}

#[test]
fn rewriting_keeps_the_inode_and_follows_no_link() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let path = root.path().join("run/hosts/prime1");
    files
        .rewrite(&path, "127.0.0.1 localhost prime1\n")
        .unwrap();
    let inode = path.metadata().unwrap().ino();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644);
    files.rewrite(&path, "short\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "short\n");
    assert_eq!(path.metadata().unwrap().ino(), inode);
    let victim = root.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    let link = root.path().join("run/hosts/link");
    symlink(&victim, &link).unwrap();
    let error = files.rewrite(&link, "x").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Foreign);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
}

#[test]
fn what_a_killed_write_left_goes_with_its_file() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let long = "x".repeat(230);
    for (name, temporary) in [
        ("a.conf", ".hatchery-a.conf".to_owned()),
        (&long, format!(".hatchery-{}", content_hash(&long))),
    ] {
        let path = root.path().join("run").join(name);
        let left = path.with_file_name(temporary);
        files.rewrite(&path, "x").unwrap();
        for _ in ["with the file", "without it"] {
            std::fs::write(&left, "half").unwrap();
            files.remove(&path, "prime").unwrap();
            assert!(!left.exists() && !path.exists());
        }
        let victim = root.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        symlink(&victim, &left).unwrap();
        files.remove(&path, "prime").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    }
}

#[test]
fn what_a_killed_write_left_of_a_file_that_never_was_goes() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let path = root.path().join("a.conf");
    let left = root.path().join(".hatchery-a.conf");
    std::fs::write(&left, "half").unwrap();
    files.remove_unfinished(&path, "prime").unwrap();
    assert!(!left.exists());
    files.remove_unfinished(&path, "prime").unwrap();
    files
        .remove_unfinished(&path.join("below"), "prime")
        .unwrap();
    // A folder is nothing that we wrote, nor is what lies beside somebody else's file.
    std::fs::create_dir(&left).unwrap();
    files.remove_unfinished(&path, "prime").unwrap();
    assert!(left.exists());
    std::fs::remove_dir(&left).unwrap();
    std::fs::write(&left, "half").unwrap();
    std::fs::write(&path, "by hand").unwrap();
    files.remove(&path, "prime").unwrap_err();
    assert!(left.exists());
}

#[test]
fn own_folders_need_no_mark() {
    let root = tempfile::tempdir().unwrap();
    let files = HostFiles::new(&dirs(root.path()));
    let path = root.path().join("run/x");
    files.rewrite(&path, "x").unwrap();
    files.remove(&path, "prime").unwrap();
    assert_eq!(files.look(&path), FileView::Missing);
    files.remove(&path, "prime").unwrap();
    let outside = root.path().join("run/../x");
    std::fs::write(root.path().join("x"), "x").unwrap();
    let error = files.remove(&outside, "prime").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Foreign);
}
