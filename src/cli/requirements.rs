//! What the machine must have before a stack starts.

use super::error::CommandError;
use super::screen;
use crate::driver::requirements::{describe, implied, install, missing};
use crate::graph::desired::Desired;
use crate::spec::model::Requirement;

/// Demands that everything is there; with `may_install`, installs what is not.
///
/// # Errors
/// Lists what is missing, or says why it could not be installed.
pub fn demand(desired: &Desired, spec: &str, may_install: bool) -> Result<(), CommandError> {
    let mut needed = desired.requires.clone();
    needed.extend(implied(desired));
    let lacking = missing(&needed);
    if lacking.is_empty() {
        return Ok(());
    }
    if !may_install {
        return Err(refusal(&lacking).hint(format!(
            "`hatchery up --install {spec}` installs the Debian packages"
        )));
    }
    let mut packages: Vec<String> = lacking
        .iter()
        .filter_map(|one| one.debian.clone())
        .collect();
    packages.sort();
    packages.dedup();
    if !packages.is_empty() {
        screen::line(&format!("installing {}", packages.join(" ")))?;
        install(&packages).map_err(|error| CommandError::new(error.to_string()))?;
    }
    let still = missing(&needed);
    if still.is_empty() {
        Ok(())
    } else {
        Err(refusal(&still).hint("install it by hand: its package is not named, or lacks it"))
    }
}

/// What the machine lacks, for the reader of a plan.
pub fn note(desired: &Desired) -> Option<String> {
    let mut needed = desired.requires.clone();
    needed.extend(implied(desired));
    let lacking = missing(&needed);
    if lacking.is_empty() {
        return None;
    }
    let mut note = "\nThis machine lacks, and `up --install` would install:\n".to_owned();
    for one in &lacking {
        note.push_str(&format!("  {}\n", describe(one)));
    }
    Some(note)
}

fn refusal(lacking: &[Requirement]) -> CommandError {
    let mut error = CommandError::new("this machine lacks what the spec requires");
    for one in lacking {
        error = error.detail(describe(one));
    }
    error
}
