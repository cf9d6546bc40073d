//! The product's own loop against a simulated host, in virtual time, from one seed.
//!
//! `cargo test --test sim -- --seed N` replays one history with its trace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod always;
mod faults;
mod history;
mod invariants;
mod limits;
mod oracle;
mod planted;
mod rng;
mod specs;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use faults::{Action, Fault};
use history::Outcome;

/// Seeds that once found something.
const KNOWN: &str = include_str!("../../fixtures/seeds.txt");

/// How many are tried unless somebody says: a plain build is ten times slower.
const SEEDS: u64 = if cfg!(debug_assertions) { 150 } else { 2000 };

/// So many say whether each fault fires, and what a history holds on average.
const ENOUGH: u64 = 2000;

struct Wanted {
    seed: Option<u64>,
    seeds: u64,
    from: u64,
    soak: Option<Duration>,
    jobs: usize,
    faults: bool,
    go_on: bool,
    bug: Option<String>,
    bugs: bool,
}

fn main() -> ExitCode {
    let wanted = match arguments() {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    if wanted.bugs || wanted.bug.is_some() {
        return planted::run(&wanted);
    }
    if let Some(seed) = wanted.seed {
        let outcome = history::run(seed, true, wanted.faults);
        println!("hash {:016x}, {} events", outcome.hash, outcome.events);
        return verdict(seed, &outcome);
    }
    many(&wanted)
}

fn arguments() -> Result<Wanted, String> {
    let mut wanted = Wanted {
        seed: None,
        seeds: SEEDS,
        from: 0,
        soak: None,
        jobs: 2,
        faults: true,
        go_on: false,
        bug: None,
        bugs: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let value = words.next().unwrap_or_default();
            let parsed = value.parse();
            parsed.map_err(|_| format!("`{word}` takes a number, not `{value}`"))
        };
        match word.as_str() {
            "--seed" => wanted.seed = Some(number()?),
            "--seeds" => wanted.seeds = number()?,
            "--from" => wanted.from = number()?,
            "--jobs" => wanted.jobs = number()?.max(1) as usize,
            "--for" => {
                let value = words.next().unwrap_or_default();
                let seconds = value.trim_end_matches('s').parse();
                let seconds =
                    seconds.map_err(|_| format!("`--for` takes seconds, not `{value}`"))?;
                wanted.soak = Some(Duration::from_secs(seconds));
            }
            "--no-faults" => wanted.faults = false,
            "--bug" => wanted.bug = words.next(),
            "--bugs" => wanted.bugs = true,
            "--go-on" => wanted.go_on = true,
            // The test harness's own words mean nothing here.
            "--test-threads" | "--color" | "--format" => {
                words.next();
            }
            _ => {}
        }
    }
    Ok(wanted)
}

fn verdict(seed: u64, outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        None => ExitCode::SUCCESS,
        Some(why) => {
            println!("seed {seed}: {why}");
            println!("replay: cargo test --profile sim --test sim -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Sums {
    seeds: u64,
    events: u64,
    passes: u64,
    edits: u64,
    slowest: u64,
    fired: BTreeMap<(Fault, Action), u64>,
    failed: Vec<(u64, String)>,
}

impl Sums {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.passes += outcome.passes;
        self.edits += outcome.edits;
        self.slowest = self.slowest.max(outcome.converged_after);
        for (what, count) in outcome.fired {
            *self.fired.entry(what).or_default() += count;
        }
        if let Some(why) = outcome.violation {
            self.failed.push((seed, why));
        }
    }

    /// On average.
    fn each(&self, sum: u64) -> f64 {
        sum as f64 / self.seeds.max(1) as f64
    }

    fn faults(&self) -> f64 {
        self.each(self.fired.values().sum())
    }

    /// In what these histories fall short of real ones.
    fn thin(&self) -> Vec<String> {
        let never = Fault::ALL
            .iter()
            .filter(|fault| !self.fired.keys().any(|(which, _)| which == *fault))
            .map(|fault| format!("the fault `{}` never fired", fault.words()));
        let least = [
            ("events", self.each(self.events), 300.0),
            ("edits", self.each(self.edits), 3.0),
            ("faults", self.faults(), 5.0),
        ];
        let few = least
            .iter()
            .filter(|(_, each, least)| each < least)
            .map(|(what, each, least)| format!("{each:.1} {what} a seed, fewer than {least}"));
        never.chain(few).collect()
    }
}

fn many(wanted: &Wanted) -> ExitCode {
    let known: Vec<u64> = KNOWN
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .filter(|_| wanted.from == 0)
        .collect();
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let sums = Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..wanted.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let over = match wanted.soak {
                        Some(time) => begin.elapsed() >= time,
                        None => number >= wanted.seeds + known.len() as u64,
                    };
                    if over {
                        return;
                    }
                    let seed = match known.get(number as usize) {
                        Some(seed) => *seed,
                        None => wanted.from + number - known.len() as u64,
                    };
                    let outcome = history::run(seed, false, wanted.faults);
                    if number % 500 == 7 {
                        let again = history::run(seed, false, wanted.faults);
                        assert_eq!(
                            outcome.hash, again.hash,
                            "seed {seed} is not the same twice"
                        );
                    }
                    let failed = outcome.violation.is_some();
                    if wanted.go_on
                        && let Some(why) = &outcome.violation
                    {
                        // A long run may be cut before it says so at its end.
                        eprintln!("seed {seed}: {why}");
                    }
                    let mut sums = sums.lock().unwrap();
                    sums.add(seed, outcome);
                    if sums.seeds % 10_000 == 0 {
                        let (took, found) = (begin.elapsed(), sums.failed.len());
                        eprintln!(
                            "{} seeds in {took:.0?}, {found} found something",
                            sums.seeds
                        );
                    }
                    drop(sums);
                    if failed && !wanted.go_on {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap();
    // With so many, the numbers say what the histories are worth.
    let counts = wanted.faults && sums.seeds >= ENOUGH;
    let thin = if counts { sums.thin() } else { Vec::new() };
    report(sums, begin.elapsed(), &thin)
}

fn report(mut sums: Sums, took: Duration, thin: &[String]) -> ExitCode {
    let seconds = took.as_secs_f64();
    println!(
        "{} seeds in {seconds:.1} s: {:.1} seeds/s, {:.0} events/s",
        sums.seeds,
        sums.seeds as f64 / seconds,
        sums.events as f64 / seconds
    );
    println!(
        "each: {:.0} events, {:.0} passes, {:.1} edits, {:.1} faults; the slowest converged after {:.1} s",
        sums.each(sums.events),
        sums.each(sums.passes),
        sums.each(sums.edits),
        sums.faults(),
        sums.slowest as f64 / 1e9
    );
    for fault in Fault::ALL {
        let at: Vec<String> = sums
            .fired
            .iter()
            .filter(|((which, _), _)| which == fault)
            .map(|((_, action), count)| format!("{} {count}", action.words()))
            .collect();
        let at = match at.is_empty() {
            true => "never".to_owned(),
            false => at.join(", "),
        };
        println!("  {:<34} {at}", fault.words());
    }
    sums.failed.sort();
    for (seed, why) in &sums.failed {
        println!("seed {seed}: {why}");
    }
    for why in thin {
        println!("too thin: {why}");
    }
    match sums.failed.first() {
        None if thin.is_empty() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
        Some((seed, _)) => {
            println!("replay: cargo test --profile sim --test sim -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}
