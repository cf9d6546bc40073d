#![allow(clippy::unwrap_used)]

use std::time::Instant;

use super::*;

fn shell(script: &str, timeout: Duration) -> Output {
    let command = ["/bin/sh", "-c", script].map(str::to_owned);
    HostCommands::default()
        .run(&command, Path::new("/tmp"), timeout)
        .unwrap()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn both_streams_and_the_code_are_told() {
    let output = shell("pwd; echo oops >&2; exit 3", LONG);
    assert_eq!(output.code, Some(3));
    assert_eq!(output.text, "/tmp\noops\n");
}

#[test]
fn the_environment_is_small_and_there_is_no_input() {
    let output = shell("read line || echo none; env | cut -d= -f1 | sort", LONG);
    assert_eq!(output.text, "none\nHOME\nLANG\nPATH\nPWD\n");
}

#[test]
fn only_the_end_of_much_output_is_kept() {
    let output = shell("yes abcdefg | head -c 3000000; echo; echo end", LONG);
    assert_eq!(output.code, Some(0));
    assert_eq!(output.text.len(), 4096);
    assert!(output.text.ends_with("\nend\n"));
    let output = shell("head -c 9000 /dev/zero | tr '\\0' '\\377'", LONG);
    assert!(output.text.len() <= 4096);
}

#[test]
fn a_signal_is_no_exit_code() {
    let output = shell("echo bye; kill -9 $$", LONG);
    assert_eq!(output.code, None);
    assert_eq!(output.text, "bye\n(ended by signal 9)");
}

#[test]
fn a_background_child_does_not_hold_the_answer_up() {
    let before = Instant::now();
    let output = shell("sleep 30 & echo $!", LONG);
    assert!(before.elapsed() < Duration::from_secs(10));
    let pid: i32 = output.text.trim().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[test]
fn the_whole_session_goes_when_the_time_is_over() {
    let script = "sleep 61 & echo $!; (trap '' TERM; sleep 62 & echo $!; wait) & wait";
    let output = shell(script, Duration::from_millis(500));
    assert_eq!(output.code, None);
    let lines: Vec<&str> = output.text.lines().collect();
    let [one, two, end] = lines.as_slice() else {
        unreachable!("{lines:?}")
    };
    assert_eq!(*end, "(killed after 500ms)");
    for pid in [one, two] {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(" Z "), "{state}");
    }
}

#[test]
fn what_cannot_start_is_told() {
    let commands = HostCommands::default();
    let run = |command: &[&str], dir: &str| {
        let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
        commands.run(&command, Path::new(dir), LONG).unwrap_err()
    };
    assert_eq!(
        run(&["no-such-program"], "/").message,
        "cannot run `no-such-program`: no such file or directory"
    );
    assert_eq!(
        run(&["true"], "/no/such/folder").message,
        "cannot run `true` in `/no/such/folder`: it is not a folder"
    );
    assert_eq!(run(&[], "/").message, "cannot run an empty command");
}
