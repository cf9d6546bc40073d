//! `hatchery start`, `stop` and `restart`: an operator's word about some workloads.

use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, screen, stack, wiring};
use crate::reconcile::handle::Verb;

/// Arguments of all three.
#[derive(Debug, clap::Args)]
pub struct OperateArgs {
    /// Containers and processes; a group's name stands for all of it
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// Hands it to the controller, and names the workloads that are meant.
///
/// # Errors
/// When no controller runs, or it knows no such workload.
pub fn run(verb: Verb, args: &OperateArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    wiring::block_on(async {
        let client = stack::client(&name).await?;
        let meant = client.operate(verb, args.names.clone()).await?;
        let word = match verb {
            Verb::Start => "starting",
            Verb::Stop => "stopping",
            Verb::Restart => "restarting",
        };
        for node in meant {
            screen::line(&format!("{word} {node}"))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
