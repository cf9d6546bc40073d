//! The command line: one verb, one file, its arguments beside it. The only place that prints.

mod against;
mod apply;
mod config;
mod converge;
mod detach;
mod down;
mod error;
mod events;
mod exec;
mod foreground;
mod git;
mod graph;
mod herald;
mod history;
mod hook;
mod host;
mod listening;
mod logs;
mod narrator;
mod operate;
mod plan;
mod plan_file;
mod ps;
mod reload;
mod requirements;
mod rollback;
mod schema;
mod screen;
mod service;
mod spec_args;
mod spec_file;
mod stack;
mod sync;
mod table;
mod trace;
mod up;
mod validate;
mod version;
mod wiring;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use self::error::CommandError;
use crate::reconcile::handle::Verb;
use crate::reconcile::sync::Word;

const GLOBAL: &str = "Options of every command";

/// Keeps this machine as one YAML file says: containers, processes, services, templates
#[derive(Debug, Parser)]
#[command(name = "hatchery", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every verb takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The stack that is meant; the only one here unless given
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "HATCHERY_STACK",
        hide_env_values = true,
        value_parser = stack::parse_name,
        help_heading = GLOBAL
    )]
    stack: Option<String>,
    /// When to use colours; NO_COLOR is heeded too
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = GLOBAL
    )]
    color: When,
    /// Say more about what goes on inside; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring a stack up and keep it so, here or in the background
    Up(up::UpArgs),
    /// Show what would be done, and do nothing
    Plan(plan::PlanArgs),
    /// Hand a spec or a saved plan to the stack's controller, and wait until it is so
    #[command(mut_arg("spec", |spec| {
        spec.value_name("SPEC|PLAN").help(
            "The spec: a YAML file, or a folder of them; or a plan that `plan --out` kept",
        )
    }))]
    Apply(apply::ApplyArgs),
    /// Have the controller look at its spec or repository now, and say what came of it
    Reload,
    /// Stop and remove everything but persistent roots, logs and history
    Down(down::DownArgs),
    /// Show how a stack stands
    Ps(ps::PsArgs),
    /// Print what workloads wrote
    Logs(logs::LogsArgs),
    /// Show what happened to a stack, also before its controller began
    Events(events::EventsArgs),
    /// Show the generations of a stack's spec, and what became of them
    History(history::HistoryArgs),
    /// Bring an earlier generation back
    Rollback(rollback::RollbackArgs),
    /// Show how a stack stands towards the repository that it follows
    Sync(sync::SyncArgs),
    /// Leave the repository alone until `resume`
    Suspend,
    /// Follow the repository again
    Resume,
    /// Run a command inside a workload
    Exec(exec::ExecArgs),
    /// Let stopped workloads run again
    Start(operate::OperateArgs),
    /// Stop workloads, and keep them stopped
    Stop(operate::OperateArgs),
    /// Stop workloads, and start them anew
    Restart(operate::OperateArgs),
    /// Let systemd run the stack's controller, from the boot on
    #[command(subcommand)]
    Service(service::ServiceCommand),
    /// Check a spec
    Validate(validate::ValidateArgs),
    /// Print a spec as its files come to be one, with its variables filled in
    Config(config::ConfigArgs),
    /// Print the JSON Schema of specs, for editors; or what changing each field does
    Schema(schema::SchemaArgs),
    /// Show what needs what, and the start order
    Graph(graph::GraphArgs),
    /// Show the version, and the running controller's
    Version,
}

/// Runs the program with these arguments, its name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors that are none. Who closed the pipe has seen enough.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.global.color {
        When::Auto => {}
        When::Always => anstream::ColorChoice::Always.write_global(),
        When::Never => anstream::ColorChoice::Never.write_global(),
    }
    run(&cli).unwrap_or_else(|error| error.print())
}

fn run(cli: &Cli) -> Result<ExitCode, CommandError> {
    let global = &cli.global;
    trace::start(global.verbose, global.stack.as_deref())?;
    match &cli.command {
        Command::Up(args) => up::run(args, global),
        Command::Plan(args) => plan::run(args, global),
        Command::Apply(args) => apply::run(args, global),
        Command::Reload => reload::run(global),
        Command::Down(args) => down::run(args, global),
        Command::Ps(args) => ps::run(args, global),
        Command::Logs(args) => logs::run(args, global),
        Command::Events(args) => events::run(args, global),
        Command::History(args) => history::run(args, global),
        Command::Rollback(args) => rollback::run(args, global),
        Command::Sync(args) => sync::run(args, global),
        Command::Suspend => sync::order(Word::Suspend, global),
        Command::Resume => sync::order(Word::Resume, global),
        Command::Exec(args) => exec::run(args, global),
        Command::Start(args) => operate::run(Verb::Start, args, global),
        Command::Stop(args) => operate::run(Verb::Stop, args, global),
        Command::Restart(args) => operate::run(Verb::Restart, args, global),
        Command::Service(command) => service::run(command, global),
        Command::Validate(args) => validate::run(args),
        Command::Config(args) => config::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Graph(args) => graph::run(args),
        Command::Version => version::run(global),
    }
}
