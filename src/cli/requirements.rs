//! What the machine must have before a stack starts.

use super::error::CommandError;
use super::screen;
use crate::driver::requirements::{describe, install, lacking};
use crate::graph::desired::Desired;
use crate::spec::model::Requirement;

/// Demands that everything is there; with `may_install`, installs what is not.
///
/// # Errors
/// Lists what is missing, or says why it could not be installed.
pub fn demand(desired: &Desired, spec: &str, may_install: bool) -> Result<(), CommandError> {
    let missing = lacking(desired);
    if missing.is_empty() {
        return Ok(());
    }
    if !may_install {
        return Err(refusal(&missing).hint(format!(
            "`hatchery up --install {spec}` installs the Debian packages"
        )));
    }
    let mut packages: Vec<String> = missing
        .iter()
        .filter_map(|one| one.debian.clone())
        .collect();
    packages.sort();
    packages.dedup();
    if !packages.is_empty() {
        screen::line(&format!("installing {}", packages.join(" ")))?;
        install(&packages).map_err(|error| CommandError::new(error.to_string()))?;
    }
    let still = lacking(desired);
    if still.is_empty() {
        Ok(())
    } else {
        Err(refusal(&still).hint("install it by hand: its package is not named, or lacks it"))
    }
}

/// What the machine lacks, for the reader of a plan.
pub fn note(desired: &Desired) -> Option<String> {
    let missing = lacking(desired);
    if missing.is_empty() {
        return None;
    }
    let mut note = "\nThis machine lacks, and `up --install` would install:\n".to_owned();
    for one in &missing {
        note.push_str(&format!("  {}\n", describe(one)));
    }
    Some(note)
}

/// What the machine lacks, in one line.
pub fn lacks(desired: &Desired) -> Option<String> {
    let missing = lacking(desired);
    (!missing.is_empty()).then(|| {
        let missing: Vec<String> = missing.iter().map(describe).collect();
        format!(
            "this machine lacks what the spec requires: {}; `hatchery up --install` installs it",
            missing.join(", ")
        )
    })
}

fn refusal(lacking: &[Requirement]) -> CommandError {
    let mut error = CommandError::new("this machine lacks what the spec requires");
    for one in lacking {
        error = error.detail(describe(one));
    }
    error
}
