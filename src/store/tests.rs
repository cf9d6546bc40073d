#![allow(clippy::unwrap_used)]

use super::*;

fn roots(root: &Path) -> Roots {
    let root = root.to_owned();
    Roots::new(move |name| Some(root.join(name.to_lowercase())))
}

#[test]
fn folders_come_from_the_environment_or_the_usual_places() {
    let usual = Roots::new(|_| None).dirs_for("prime");
    assert_eq!(usual.run, Path::new("/run/hatchery/prime"));
    assert_eq!(usual.state, Path::new("/var/lib/hatchery/prime"));
    assert_eq!(usual.log, Path::new("/var/log/hatchery/prime"));
    let relative = Roots::new(|_| Some("here".into()));
    assert_eq!(relative.run, Path::new("/run/hatchery"));
}

#[test]
fn folders_are_closed_to_others() {
    let root = tempfile::tempdir().unwrap();
    let dirs = roots(root.path()).dirs_for("prime");
    fs::create_dir_all(&dirs.log).unwrap();
    fs::set_permissions(&dirs.log, Permissions::from_mode(0o777)).unwrap();
    let store = Store::open(dirs.clone()).unwrap();
    store.save_memory(&1).unwrap();
    for (folder, mode) in [(&dirs.run, 0o711), (&dirs.state, 0o700), (&dirs.log, 0o700)] {
        assert_eq!(folder.metadata().unwrap().mode() & 0o7777, mode);
    }
    for file in [dirs.run.join("lock"), dirs.state.join(MEMORY)] {
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    }
    drop(store);
    fs::remove_dir_all(&dirs.state).unwrap();
    std::os::unix::fs::symlink("/tmp", &dirs.state).unwrap();
    let error = Store::open(dirs).unwrap_err().to_string();
    assert!(error.contains("it is not a folder"), "{error}");
}

#[test]
fn the_second_one_is_told_who_holds_it() {
    let root = tempfile::tempdir().unwrap();
    let roots = roots(root.path());
    let dirs = roots.dirs_for("prime");
    let store = Store::open(dirs.clone()).unwrap();
    let error = Store::open(dirs.clone()).unwrap_err().to_string();
    let me = std::process::id();
    assert_eq!(
        error,
        format!("stack `prime` is held by hatchery (pid {me})")
    );
    let held: Vec<_> = roots.list_stacks().into_iter().map(|s| s.held_by).collect();
    assert_eq!(held, [Some(me)]);
    drop(store);
    // A child that another test forks has a copy of the lock until its exec.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while roots.list_stacks()[0].held_by.is_some() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(roots.list_stacks()[0].has_run_dir);
    Store::open(dirs).unwrap();
}

#[test]
fn a_lock_whose_file_is_gone_is_not_shared() {
    let root = tempfile::tempdir().unwrap();
    let dirs = roots(root.path()).dirs_for("prime");
    let first = Store::open(dirs.clone()).unwrap();
    fs::remove_file(dirs.run.join("lock")).unwrap();
    // Now another lock can be had; what the first one closes must not take it away.
    let second = Store::open(dirs.clone()).unwrap();
    first.lock.remove().unwrap();
    assert!(matches!(Store::open(dirs), Err(StoreError::Held { .. })));
    drop(second);
}

#[test]
fn names_stay_inside_their_folder() {
    let root = tempfile::tempdir().unwrap();
    for name in ["..", ".hidden", "a b", "é", "-x"] {
        let opened = Store::open(roots(root.path()).dirs_for(name));
        assert!(matches!(opened, Err(StoreError::Name(_))), "{name}");
    }
    assert!(is_name("prime-2.b_c"));
    assert!(!is_name(&"a".repeat(65)));
    assert!(!is_name(""));
}

#[test]
fn what_was_saved_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let dirs = roots(root.path()).dirs_for("prime");
    let store = Store::open(dirs.clone()).unwrap();
    assert_eq!(store.load_memory::<Vec<u32>>(), Ok(None));
    store.save_memory(&vec![3u32]).unwrap();
    store.save_memory(&vec![1u32, 2]).unwrap();
    drop(store);
    let store = Store::open(dirs.clone()).unwrap();
    assert_eq!(store.load_memory(), Ok(Some(vec![1u32, 2])));
    assert_eq!(
        fs::read_dir(&dirs.state).unwrap().count(),
        1,
        "no leftovers"
    );
}

#[test]
fn what_one_that_was_killed_had_half_written_goes() {
    let root = tempfile::tempdir().unwrap();
    let dirs = roots(root.path()).dirs_for("prime");
    let folders = [
        dirs.state.clone(),
        history::folder(&dirs),
        git_folder(&dirs),
    ];
    let mut left = Vec::new();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(folder)
            .unwrap();
        file.write_all(b"half").unwrap();
        left.push(file.keep().unwrap().1);
        // As the versions before named them.
        let file = tempfile::NamedTempFile::new_in(folder).unwrap();
        left.push(file.keep().unwrap().1);
    }
    let elsewhere = root.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let others = elsewhere.join(".tmpAbCdEf");
    fs::write(&others, "not ours").unwrap();
    std::os::unix::fs::symlink(&others, dirs.state.join(".tmpGhIjKl")).unwrap();
    fs::write(dirs.state.join("notes"), "").unwrap();
    let store = Store::open(dirs.clone()).unwrap();
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
    assert!(others.exists() && dirs.state.join("notes").exists());
    drop(store);
    fs::remove_dir(history::folder(&dirs)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, history::folder(&dirs)).unwrap();
    let _store = Store::open(dirs).unwrap();
    assert!(others.exists());
}

#[test]
fn what_is_torn_or_of_another_version_is_put_aside() {
    let root = tempfile::tempdir().unwrap();
    let dirs = roots(root.path()).dirs_for("prime");
    let store = Store::open(dirs.clone()).unwrap();
    let path = dirs.state.join(MEMORY);
    for text in [
        "",
        "{\"version\":1,\"content\":[1",
        "{\"version\":2,\"content\":[1]}",
        "{\"version\":1,\"content\":{\"other\":1}}",
        "\0\0\0\0",
    ] {
        fs::write(&path, text).unwrap();
        let why = store.load_memory::<Vec<u32>>().unwrap_err();
        assert!(
            why.contains("/memory.json`: ") && why.contains(UNREADABLE),
            "{why}"
        );
        assert_eq!(
            fs::read_to_string(dirs.state.join(UNREADABLE)).unwrap(),
            text
        );
        assert_eq!(store.load_memory::<Vec<u32>>(), Ok(None));
    }
    fs::remove_dir_all(&dirs.state).unwrap();
    assert_eq!(store.load_memory::<Vec<u32>>(), Ok(None));
    store.save_memory(&vec![3u32]).unwrap();
    assert_eq!(store.load_memory(), Ok(Some(vec![3u32])));
}

#[test]
fn closing_keeps_what_lasts_and_purging_nothing() {
    let root = tempfile::tempdir().unwrap();
    let roots = roots(root.path());
    let dirs = roots.dirs_for("prime");
    let store = Store::open(dirs.clone()).unwrap();
    fs::create_dir_all(dirs.run.join("roots/prime1")).unwrap();
    fs::write(dirs.run.join("control.sock"), "").unwrap();
    fs::write(dirs.log.join("prime1.log"), "x").unwrap();
    store.save_memory(&1).unwrap();
    store.close().unwrap();
    assert!(!dirs.run.exists());
    assert!(dirs.log.join("prime1.log").exists());
    let stacks = roots.list_stacks();
    assert_eq!(stacks.len(), 1);
    assert!(!stacks[0].has_run_dir);
    Store::open(dirs.clone()).unwrap().purge().unwrap();
    assert!(!dirs.run.exists() && !dirs.log.exists() && !dirs.state.exists());
    assert!(roots.list_stacks().is_empty());
}
