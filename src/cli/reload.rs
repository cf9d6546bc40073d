//! `hatchery reload`: has the controller read its spec again, or ask its repository, and says what came of it.

use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, screen, stack, wiring};
use crate::plan::text::visible;

/// Returns once the spec is in force, not once it converged.
///
/// # Errors
/// The spec's report when it is not taken; the last good one stays in force then.
pub fn run(global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let (generation, commit) = wiring::block_on(async {
        let client = stack::client(&name).await?;
        let generation = client.reload().await?;
        Ok((generation, client.status().await?.commit))
    })?;
    let from = commit.map_or(String::new(), |commit| {
        format!(", from commit {}", visible(&commit.to_string()))
    });
    screen::line(&format!(
        "generation {generation} of stack `{name}` is in force{from}"
    ))?;
    Ok(ExitCode::SUCCESS)
}
