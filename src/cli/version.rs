//! `hatchery version`: this program's, and the controller's if one runs.

use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, screen, stack, wiring};

/// Prints them.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(global: &Global) -> Result<ExitCode, CommandError> {
    screen::line(&format!("hatchery {}", env!("CARGO_PKG_VERSION")))?;
    // Which stack is meant, and whether anything runs, is no concern of this verb.
    let Ok(name) = stack::choose(global.stack.as_deref()) else {
        return Ok(ExitCode::SUCCESS);
    };
    let running = wiring::block_on(async { Ok(stack::client(&name).await?.version().await?) });
    if let Ok(running) = running {
        screen::line(&format!(
            "controller of stack `{name}`: {} (pid {})",
            running.version, running.pid
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
