//! `hatchery exec`: a command inside a running container or process.

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, screen, stack, wiring};
use crate::plan::world::LifeState;
use crate::spec::node::{Kind, NodeId};

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// A container or process, such as `prime1`
    #[arg(value_name = "NAME")]
    name: String,
    /// The command and its arguments
    #[arg(
        value_name = "CMD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

/// Becomes the command: its exit code is ours.
///
/// # Errors
/// When there is no such workload, it does not run, or it cannot be entered.
pub fn run(args: &ExecArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let pid = main_process(&running(&name)?, &args.name, &name)?;
    let tty = std::io::stdin().is_terminal() && screen::is_terminal();
    let error = wiring::enter(pid, &args.command, tty)?.exec();
    Err(CommandError::new(format!("cannot enter `{}`", args.name)).because(&error))
}

/// The newest life of every workload of the stack with its main process, as the kernel shows
/// it: no controller is needed.
fn running(stack: &str) -> Result<Vec<(NodeId, i32)>, CommandError> {
    let mut lives = wiring::lives(stack)?;
    lives.retain(|life| life.state == LifeState::Up && life.main_pid > 0);
    lives.sort_by(|a, b| a.id.cmp(&b.id).reverse());
    lives.dedup_by(|older, newer| older.id.node == newer.id.node);
    Ok(lives
        .into_iter()
        .map(|life| (life.id.node, life.main_pid))
        .collect())
}

fn main_process(running: &[(NodeId, i32)], asked: &str, stack: &str) -> Result<i32, CommandError> {
    let named: Vec<&(NodeId, i32)> = running
        .iter()
        .filter(|(node, _)| node.name == asked || node.to_string() == asked)
        .collect();
    match named.as_slice() {
        [(_, pid)] => Ok(*pid),
        [] => {
            let mut names: Vec<String> = running.iter().map(|(n, _)| n.to_string()).collect();
            names.sort();
            let hint = if names.is_empty() {
                "nothing of the stack runs".to_owned()
            } else {
                format!("these run: {}", names.join(", "))
            };
            Err(CommandError::new(format!(
                "no container or process `{asked}` runs in stack `{stack}`"
            ))
            .hint(hint))
        }
        _ => Err(
            CommandError::new(format!("`{asked}` is a container and a process")).hint(format!(
                "name one as `{}/{asked}` or `{}/{asked}`",
                Kind::Containers.word(),
                Kind::Processes.word()
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_workload_is_meant() {
        let node = |text: &str| text.parse::<NodeId>().unwrap();
        let running = [
            (node("containers/prime1"), 11),
            (node("containers/web"), 12),
            (node("processes/web"), 13),
        ];
        assert_eq!(main_process(&running, "prime1", "s"), Ok(11));
        assert_eq!(main_process(&running, "processes/web", "s"), Ok(13));
        let both = main_process(&running, "web", "s").unwrap_err().to_string();
        assert!(both.contains("`containers/web`"), "{both}");
        let none = main_process(&running, "prime", "s")
            .unwrap_err()
            .to_string();
        assert!(none.contains("containers/prime1, containers/web"), "{none}");
    }
}
