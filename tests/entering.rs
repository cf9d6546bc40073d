//! What a container can do with what it is given of the host, and with who enters it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use hatchery::driver::Workloads;
use hatchery::driver::unwritable::Unwritable;
use hatchery::driver::workloads::{Asker, exec_command};
use hatchery::plan::world::LifeId;
use hatchery::spec::node::Kind;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use support::bench::{Bench, LIMIT, program, start};

fn end(bench: &Bench, id: &LifeId) {
    bench.workloads.kill(id).unwrap();
    bench.ended(id);
    bench.clear(id);
}

/// It has a program run that is a script of whatever runs it, waits for that, and changes it.
const ATTACK: &str = r#"
printf '#!/proc/self/exe __inner\n' > spawn
chmod +x spawn
victim=
until [ "$victim" ]; do
    for each in /proc/[0-9]*; do
        [ "$(tr '\0' ' ' < $each/cmdline)" = '/proc/self/exe __inner spawn ' ] && victim=$each
    done
    sleep 0.02
done
chmod 777 $victim/exe
exec 3< $victim/exe
kill -9 ${victim#/proc/}
until (echo spoilt >> /proc/self/fd/3) 2> said; ! grep -q 'Text file busy' said; do
    sleep 0.02
done
cat said
echo done
sleep 300
"#;

#[test]
fn who_enters_cannot_be_made_to_give_up_the_hosts_program() {
    isolate!();
    let bench = Bench::new();
    // A copy that nothing else runs: only its own protection keeps it.
    let copy = bench.folder.path().join("hatchery");
    fs::copy(program(), &copy).unwrap();
    let before = (
        fs::read(&copy).unwrap(),
        copy.metadata().unwrap().mode_bits(),
    );
    let mut start = start(Kind::Containers, "web1", &["sh", "-c", ATTACK]);
    start.run.working_dir = Some("/tmp".into());
    // By the first, empty entry the script is found under its bare name.
    let path = ":/usr/bin:/bin".to_owned();
    start.run.environment.insert("PATH".to_owned(), path);
    bench.workloads.start(&start).unwrap();
    let pid = bench.life(&start.id).unwrap().main_pid;
    let ready = ["sh", "-c", "test -x /tmp/spawn"];
    support::wait_for("the trap", LIMIT, || {
        (bench.run_inside(&start.id, &ready).0 == Some(0)).then_some(())
    });
    let command = ["spawn".to_owned()];
    let program = Unwritable::open(&copy).unwrap();
    let mut entered = exec_command(&program, pid, &command, Asker::Check)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // It waits for its job as long as this is open.
    let _job = entered.stdin.take();
    let status = entered.wait().unwrap();
    assert_eq!(status.code(), Some(137), "it was not caught inside");
    drop(program);
    let log = support::wait_for("the attack", LIMIT, || {
        Some(bench.log(&start.id)).filter(|log| log.ends_with("done\n"))
    });
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    let after = (
        fs::read(&copy).unwrap(),
        copy.metadata().unwrap().mode_bits(),
    );
    assert!(before == after, "the host's program was changed: {log}");
    end(&bench, &start.id);
}

trait ModeBits {
    fn mode_bits(&self) -> u32;
}

impl ModeBits for fs::Metadata {
    fn mode_bits(&self) -> u32 {
        self.permissions().mode()
    }
}

#[test]
fn a_container_holds_nothing_of_the_host_that_it_could_change() {
    isolate!();
    let bench = Bench::new();
    let script = "stat -L -c %F /proc/self/fd/0; cat; chmod 755 /proc/1/exe; echo $?; sleep 300";
    let start = start(Kind::Containers, "web1", &["sh", "-c", script]);
    bench.workloads.start(&start).unwrap();
    let log = support::wait_for("its words", LIMIT, || {
        Some(bench.log(&start.id)).filter(|log| log.lines().count() >= 3)
    });
    assert!(
        log.starts_with("fifo\n")
            && log.contains("Read-only file system")
            && log.ends_with("\n1\n"),
        "{log}"
    );
    let kinds = "stat -L -c %F /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; ls /proc/self/fd";
    for asker in [Asker::Check, Asker::Shell] {
        let out = tempfile::NamedTempFile::new().unwrap();
        let folder = File::open("/").unwrap();
        // The caller's other descriptors, folders above all, stay outside.
        nix::fcntl::fcntl(
            &folder,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .unwrap();
        let mut command = bench.entering(&start.id, &["sh", "-c", kinds], asker);
        command
            .stdin(Stdio::null())
            .stdout(out.reopen().unwrap())
            .stderr(out.reopen().unwrap());
        assert!(command.status().unwrap().success());
        let text = fs::read_to_string(out.path()).unwrap();
        // The last is the folder that `ls` reads itself.
        assert_eq!(text, "fifo\nfifo\nfifo\n0\n1\n2\n3\n", "{asker:?}");
    }
    end(&bench, &start.id);
}

#[test]
fn a_file_is_read_inside_as_far_as_it_is_wanted() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Containers, "web1", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let mut lines = tempfile::tempfile().unwrap();
    let long = "x".repeat(100_000);
    write!(lines, "one\ntwo\n{long}").unwrap();
    let run = |command: &[&str], from: &File| {
        let mut entering = bench.entering(&start.id, command, Asker::Shell);
        let output = entering.stdin(from.try_clone().unwrap()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    lines.rewind().unwrap();
    assert_eq!(run(&["true"], &lines), "");
    assert_eq!(lines.stream_position().unwrap(), 0);
    assert_eq!(run(&["head", "-c", "4"], &lines), "one\n");
    let (_, rest) = (lines.rewind(), run(&["cat"], &lines));
    assert_eq!(rest, format!("one\ntwo\n{long}"));
    end(&bench, &start.id);
}

/// A session with a terminal of 31 rows and 97 columns, in which a command was begun.
struct Session {
    child: Child,
    master: File,
    seen: String,
}

impl Session {
    fn begin(mut command: Command, piped: bool) -> Session {
        let size = Winsize {
            ws_row: 31,
            ws_col: 97,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let end = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
        command
            .stdin(end(&slave))
            .stderr(end(&slave))
            .stdout(match piped {
                true => Stdio::piped(),
                false => end(&slave),
            });
        // SAFETY: between fork and exec only these two are called, which are
        // async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                nix::errno::Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        Session {
            child: command.env("TERM", "vt100").spawn().unwrap(),
            master: master.into(),
            seen: String::new(),
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn see(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut piece = [0; 1024];
            let length = self.master.read(&mut piece).unwrap_or(0);
            assert!(length > 0, "it ended without `{text}`: {}", self.seen);
            self.seen += &String::from_utf8_lossy(&piece[..length]);
        }
    }

    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut said).unwrap();
        }
        let local = tcgetattr(&self.master).unwrap().local_flags;
        assert!(local.contains(LocalFlags::ICANON), "it was left raw");
        (code, said)
    }
}

#[test]
fn a_terminal_inside_is_one_of_the_containers_own() {
    isolate!();
    let bench = Bench::new();
    let mut start = start(Kind::Containers, "web1", &["sleep", "300"]);
    start.run.user = Some("www-data".into());
    bench.workloads.start(&start).unwrap();
    let script = "tty; stty size; echo $TERM; ls -l $(tty); read line; echo got $line; sleep 60";
    let command = bench.entering(&start.id, &["sh", "-c", script], Asker::Terminal);
    let mut session = Session::begin(command, false);
    session.see("/dev/pts/0\r\n");
    session.see("31 97\r\nvt100\r\n");
    session.see("www-data");
    session.type_in("hello\r");
    session.see("got hello\r\n");
    session.type_in("\x03");
    assert_eq!(session.end().0, Some(130));

    let command = bench.entering(&start.id, &["sh", "-c", "exit 7"], Asker::Terminal);
    assert_eq!(Session::begin(command, false).end().0, Some(7));
    end(&bench, &start.id);
}

#[test]
fn nobody_inside_gets_the_callers_terminal() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Containers, "web1", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let script = "cut -d' ' -f7 /proc/self/stat; stat -L -c %F /proc/self/fd/2; : > /dev/tty";
    for asker in [Asker::Check, Asker::Shell] {
        let run = ["sh", "-c", script];
        // A check's line must not lead its group: the shell leads it.
        let enter = bench.entering(&start.id, &run, asker);
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\"; exit $?", "sh"]);
        command.arg(program()).args(enter.get_args());
        let mut session = Session::begin(command, true);
        session.see("/dev/tty: No such device or address");
        let (code, said) = session.end();
        assert_eq!((code, said.as_str()), (Some(2), "0\nfifo\n"), "{asker:?}");
    }
    end(&bench, &start.id);
}

#[test]
fn a_terminals_signal_reaches_a_command_without_one() {
    isolate!();
    let bench = Bench::new();
    let start = start(Kind::Containers, "web1", &["sleep", "300"]);
    bench.workloads.start(&start).unwrap();
    let script = ["sh", "-c", "echo begun >&2; sleep 60"];
    let mut session = Session::begin(bench.entering(&start.id, &script, Asker::Shell), true);
    session.see("begun");
    session.type_in("\x03");
    assert_eq!(session.end().0, Some(130));
    end(&bench, &start.id);
}

#[test]
fn no_tree_of_cgroups_is_too_deep_to_be_removed() {
    isolate!();
    let bench = Bench::new();
    let deeper = "import os, sys\n\
                  os.chdir(sys.argv[1])\n\
                  for n in range(100):\n \
                  try: os.mkdir('x' * 200), os.chdir('x' * 200)\n \
                  except OSError: sys.exit(n)";
    let script = "mount | grep -m1 cgroup2 | cut -d' ' -f3; sleep 300";
    let start = start(Kind::Containers, "web1", &["sh", "-c", script]);
    bench.workloads.start(&start).unwrap();
    let inside = support::wait_for("its mount", LIMIT, || {
        let log = bench.log(&start.id);
        log.lines().next().map(str::to_owned)
    });
    let dig = ["/usr/bin/python3", "-c", deeper, &inside];
    let (code, text) = bench.run_inside(&start.id, &dig);
    assert!(matches!(code, Some(33..=64)), "{code:?}: {text}");
    // What an earlier version left had no bound.
    let group = bench.life(&start.id).unwrap().cgroup;
    let free = group.with_file_name("c-old.1");
    fs::create_dir(&free).unwrap();
    let dug = Command::new(dig[0]).args(&dig[1..3]).arg(&free).status();
    assert!(dug.unwrap().success());
    bench.workloads.kill(&start.id).unwrap();
    bench.ended(&start.id);
    let old = LifeId {
        node: "containers/old".parse().unwrap(),
        incarnation: 1,
    };
    bench.ended(&old);
    bench.workloads.remove(&old).unwrap();
    bench.clear(&start.id);
}
