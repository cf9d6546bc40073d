//! `hatchery reload`: has the controller read its spec again, and says what came of it.

use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, screen, stack, wiring};

/// Returns once the spec is in force, not once it converged.
///
/// # Errors
/// The spec's report when it is not taken; the last good one stays in force then.
pub fn run(global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let generation = wiring::block_on(async { Ok(stack::client(&name).await?.reload().await?) })?;
    screen::line(&format!(
        "generation {generation} of stack `{name}` is in force"
    ))?;
    Ok(ExitCode::SUCCESS)
}
