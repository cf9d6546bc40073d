//! The controller is killed at random moments while its spec changes under it: nothing is
//! started that the change did not demand, nothing is doubled, nothing is left.
//!
//! `HATCHERY_KILLS` says how often it is killed (40 unless given), `HATCHERY_SEED` at which
//! moments.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;
#[path = "support/farm.rs"]
mod farm;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use farm::{Farm, LONG, Traces, ask};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{cgroups_left, wait_for};

/// A small generator of our own, so that a seed gives the same moments everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// A process that says that it is ready a moment after it began; whether somebody listens by then
/// is chance.
const BEACON: &str = r#"
  beacon:
    command:
      - /usr/bin/python3
      - -c
      - |
        import os, socket, time
        print("beacon begins", flush=True)
        time.sleep(0.2)
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            told.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        except OSError:
            pass
        time.sleep(1e6)
    environment: { TURN: "0" }
    ready: { notify: { timeout: 4s } }
    restart: { policy: on-failure, delay: 10ms }
"#;

/// How often each container's program began, and the beacon, by its log, in whichever seat.
fn starts(farm: &Farm) -> BTreeMap<String, usize> {
    let folder = Path::new("/var/log/hatchery").join(&farm.stack);
    let mut starts = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let instance = name.split('.').next().unwrap_or_default();
        if instance.contains("prime") || instance.contains("beacon") {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let begins = ["Serving Flask app", "beacon begins"];
            *starts.entry(instance.to_owned()).or_default() += begins
                .iter()
                .map(|line| text.matches(line).count())
                .sum::<usize>();
        }
    }
    starts
}

/// Processes whose command line holds `part`.
fn processes(part: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // The script as an argument of its own: nspawn's own line holds it too.
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.contains(&part.as_bytes()) && !words[0].ends_with(b"systemd-nspawn")
        })
        .collect()
}

/// What an edit is to change.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Edit {
    /// Every container is replaced.
    Command(u64),
    /// Containers come or go.
    Replicas(u64),
    /// The same, by a file that they watch.
    Program(u64),
    /// The beacon is replaced.
    Beacon(u64),
    /// Only registrations change.
    Tag(u64),
    /// Nothing changes.
    Comment(u64),
}

fn replace_line(text: &str, begins: &str, with: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.trim_start().starts_with(begins) {
            true => with.to_owned(),
            false => line.to_owned(),
        })
        .collect();
    lines.join("\n") + "\n"
}

impl Edit {
    fn draw(random: &mut Random, turn: u64, replicas: u64) -> Edit {
        match random.below(6) {
            0 => Edit::Command(turn),
            4 => Edit::Program(turn),
            5 => Edit::Beacon(turn),
            1 => Edit::Replicas(match replicas {
                2 => 4,
                4 => 5,
                _ => 2,
            }),
            2 => Edit::Tag(turn),
            _ => Edit::Comment(turn),
        }
    }

    fn apply(self, farm: &Farm) {
        if let Edit::Program(turn) = self {
            let path = farm.folder.join("work.py");
            let beside = farm.folder.join(".work.py.new");
            let text = fs::read_to_string(&path).expect("work.py");
            fs::write(&beside, format!("{text}# {turn}\n")).expect("written");
            return fs::rename(&beside, path).expect("renamed");
        }
        farm.edit(|text| self.applied(text));
    }

    fn applied(self, text: &str) -> String {
        match self {
            Edit::Program(_) => text.to_owned(),
            Edit::Beacon(turn) => replace_line(
                text,
                "environment: { TURN",
                &format!("    environment: {{ TURN: \"{turn}\" }}"),
            ),
            Edit::Command(turn) => replace_line(
                text,
                "command: [ /usr/bin/python3",
                &format!("    command: [ /usr/bin/python3, -B, /srv/work.py, turn{turn} ]"),
            ),
            Edit::Replicas(count) => {
                replace_line(text, "replicas:", &format!("    replicas: {count}"))
            }
            Edit::Tag(turn) => {
                replace_line(text, "tags:", &format!("    tags: [ nginx, turn{turn} ]"))
            }
            Edit::Comment(turn) => format!("{text}# {turn}\n"),
        }
    }
}

fn instances(replicas: u64) -> Vec<String> {
    (1..=replicas)
        .map(|number| format!("prime{number}"))
        .collect()
}

/// How often each instance must have begun after this edit.
fn expected(
    before: &BTreeMap<String, usize>,
    edit: Edit,
    (old, new): (u64, u64),
) -> BTreeMap<String, usize> {
    let mut after = before.clone();
    let (kept, all) = (instances(old.min(new)), instances(new));
    for name in &all {
        let is_new = !kept.contains(name);
        if is_new || matches!(edit, Edit::Command(_) | Edit::Program(_)) {
            *after.entry(name.clone()).or_default() += 1;
        }
    }
    if let Edit::Beacon(_) = edit {
        *after.entry("beacon".to_owned()).or_default() += 1;
    }
    after
}

/// Every container's program runs once, in a cgroup of its own, and nothing else does.
fn nothing_doubled(farm: &Farm, replicas: u64) {
    let programs = processes("/srv/work.py");
    assert_eq!(
        programs.len(),
        replicas as usize,
        "{programs:?}\n{}",
        farm.logs()
    );
    let lives = cgroups_left(&farm.stack)
        .into_iter()
        .filter(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("c-prime") || name.starts_with("p-nginx")
        })
        .map(|folder| folder.file_name().unwrap().to_owned())
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(lives.len(), replicas as usize + 1, "{lives:?}");
}

#[test]
fn a_controller_killed_at_random_moments_does_what_the_spec_says_and_nothing_else() {
    isolate!();
    kill_at_random("stop-first", 40);
}

#[test]
fn so_does_one_whose_newcomers_come_first() {
    isolate!();
    kill_at_random("start-first", 24);
}

fn kill_at_random(order: &str, kills: u64) {
    let kills = number("HATCHERY_KILLS", kills);
    let seed = number("HATCHERY_SEED", 20_150_402);
    let mut random = Random(seed);
    let mut farm = Farm::new();
    let before = Traces::now();
    farm.edit(|text| {
        let update = format!("    update: {{ order: {order} }}\n    replicas: 4");
        text.replace("    replicas: 4", &update) + BEACON
    });
    farm.up_foreground();
    farm.wait_converged();
    wait_for("the first programs' lines", LONG, || {
        (starts(&farm).values().sum::<usize>() == 5).then_some(())
    });
    let nginx = farm.demand_pid("processes/nginx");
    let (mut replicas, mut killed, mut turn) = (4, 0, 0);
    while killed < kills {
        turn += 1;
        let edit = Edit::draw(&mut random, turn, replicas);
        let began = starts(&farm);
        let new = match edit {
            Edit::Replicas(count) => count,
            _ => replicas,
        };
        edit.apply(&farm);
        for _ in 0..4 {
            std::thread::sleep(Duration::from_micros(random.below(900_000)));
            farm.kill_controller();
            killed += 1;
            farm.up_foreground();
        }
        farm.wait(
            &format!("{edit:?} to converge (seed {seed}, turn {turn})"),
            |status| status["converged"] == true && status["spec_error"].is_null(),
        );
        let wanted = expected(&began, edit, (replicas, new));
        // A program's first line comes a moment after its start.
        wait_for("the programs' first lines", LONG, || {
            (starts(&farm).values().sum::<usize>() >= wanted.values().sum()).then_some(())
        });
        assert_eq!(starts(&farm), wanted, "{edit:?}, seed {seed}, turn {turn}");
        replicas = new;
        nothing_doubled(&farm, replicas);
        assert_eq!(farm.demand_pid("processes/nginx"), nginx, "{edit:?}");
    }
    farm.ok(&["down"]);
    farm.wait_controller();
    wait_for("all of it to go", LONG, || {
        (Traces::now().but_history() == before.clone().but_history()).then_some(())
    });
}

#[test]
fn a_container_whose_nspawn_alone_is_killed_never_runs_twice() {
    isolate!();
    let farm = Farm::new();
    farm.up();
    for turn in 0..5 {
        let life = farm.demand_pid("containers/prime2");
        let began = starts(&farm);
        let nspawn = nspawn_of(life);
        kill(Pid::from_raw(nspawn), Signal::SIGKILL).expect("killed");
        wait_for("nspawn's end", LONG, || {
            fs::read_link(format!("/proc/{nspawn}/exe"))
                .is_err()
                .then_some(())
        });
        // The payload lives on, and is the container still: it serves, and ends when asked.
        let (code, _, _) = ask("10.50.0.3:8080", "/healthz");
        assert_eq!(code, 200, "turn {turn}");
        farm.ok(&["restart", "prime2"]);
        wait_for("another life of prime2", LONG, || {
            // At no moment are there more than four.
            assert!(
                processes("/srv/work.py").len() <= 4,
                "turn {turn}: two copies"
            );
            farm.pid("containers/prime2").filter(|pid| *pid != life)
        });
        farm.wait_converged();
        assert!(
            !Path::new(&format!("/proc/{life}")).exists(),
            "the old life is gone"
        );
        nothing_doubled(&farm, 4);
        let mut wanted = began;
        *wanted.entry("prime2".to_owned()).or_default() += 1;
        assert_eq!(starts(&farm), wanted);
    }
    farm.ok(&["down"]);
}

/// The nspawn above a payload: the first of its ancestors with that name.
fn nspawn_of(payload: i32) -> i32 {
    let mut pid = payload;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let after = stat.rsplit_once(") ").expect("a stat line").1;
        let parent: i32 = after.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(parent > 1, "an nspawn above {payload}");
        let line = fs::read(format!("/proc/{parent}/cmdline")).expect("a command line");
        let program = line.split(|byte| *byte == 0).next().unwrap();
        // The one outside the container's own pid namespace has the longest life.
        if program.ends_with(b"systemd-nspawn") {
            return parent;
        }
        pid = parent;
    }
}
