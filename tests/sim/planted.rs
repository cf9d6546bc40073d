//! Bugs that were put into the product on purpose: how many seeds each takes to be found.

use std::process::ExitCode;

use crate::Wanted;

/// No seed is tried after so many.
#[cfg(feature = "planted")]
const MOST: u64 = 30_000;

/// Without them there is nothing to find.
#[cfg(not(feature = "planted"))]
pub fn run(_: &Wanted) -> ExitCode {
    eprintln!("cannot look for planted bugs: build with `--features planted`");
    ExitCode::from(2)
}

/// Looks for each until it is found, or for the one that is named.
#[cfg(feature = "planted")]
pub fn run(wanted: &Wanted) -> ExitCode {
    use hatchery::planted::{Bug, plant};

    let mut missed = false;
    for (name, bug) in Bug::ALL {
        if wanted.bug.as_ref().is_some_and(|one| one != name) {
            continue;
        }
        plant(Some(bug));
        if let Some(seed) = wanted.seed {
            let outcome = crate::history::run(seed, true, wanted.faults);
            return crate::verdict(seed, &outcome);
        }
        let found = (wanted.from..wanted.from + MOST).find_map(|seed| {
            plant(Some(bug));
            let why = crate::history::run(seed, false, wanted.faults).violation?;
            // It counts only where there is nothing to find without it.
            plant(None);
            let clean = crate::history::run(seed, false, wanted.faults);
            clean.violation.is_none().then_some((seed, why))
        });
        plant(None);
        match found {
            Some((seed, why)) => {
                let count = seed - wanted.from + 1;
                println!("{name:<24} found by seed {seed}, the {count}th: {why}");
            }
            None => {
                println!("{name:<24} not found in {MOST} seeds");
                missed = true;
            }
        }
    }
    match missed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
