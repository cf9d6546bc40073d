//! `hatchery service`: a unit of systemd runs the stack's controller, from the boot on.

mod install;
pub mod systemctl;
pub mod unit;

use std::process::ExitCode;

use self::install::InstallArgs;
use self::unit::Found;
use super::error::CommandError;
use super::{Global, screen, stack, sync, wiring};
use crate::reconcile::sync::SourceStatus;

/// The exit code of `service status` for one that does not run; `systemctl status` has it too.
const NOT_ACTIVE: u8 = 3;

/// What is done to the service.
#[derive(Debug, clap::Subcommand)]
pub enum ServiceCommand {
    /// Write the unit, enable it at boot, and start it; what runs goes on
    Install(InstallArgs),
    /// End the controller and remove the unit; what runs goes on without it
    Uninstall(NameArgs),
    /// Show how systemd sees it
    Status(NameArgs),
}

/// Which stack's service is meant.
#[derive(Debug, clap::Args)]
pub struct NameArgs {
    /// The stack; the only one that has a service unless given
    #[arg(value_name = "NAME", value_parser = stack::parse_name)]
    name: Option<String>,
}

/// Runs it.
///
/// # Errors
/// When systemd is not there, or refuses.
pub fn run(command: &ServiceCommand, global: &Global) -> Result<ExitCode, CommandError> {
    match command {
        ServiceCommand::Install(args) => install::run(args, global),
        ServiceCommand::Uninstall(args) => uninstall(args, global),
        ServiceCommand::Status(args) => status(args, global),
    }
}

/// The stack that is meant: the one asked for, or the only one with a unit of ours.
fn choose(args: &NameArgs, global: &Global) -> Result<String, CommandError> {
    if let Some(name) = args.name.as_ref().or(global.stack.as_ref()) {
        return Ok(name.clone());
    }
    let entries = std::fs::read_dir(unit::FOLDER).into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|file| {
            let name = file.strip_prefix("hatchery-")?.strip_suffix(".service")?;
            stack::parse_name(name).ok()
        })
        .filter(|name| matches!(unit::look(&unit::path(name)), Ok(Found::Ours(_))))
        .collect();
    names.sort();
    match names.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(CommandError::new("no stack has a service here")
            .hint("`hatchery service install SPEC`, or `--git URL`, makes one")),
        several => Err(CommandError::new(format!(
            "{} stacks have a service here: `{}`",
            several.len(),
            several.join("`, `")
        ))
        .hint("name one")),
    }
}

/// What lies where the unit of `stack` would, which must not be somebody else's.
fn ours(stack: &str) -> Result<Found, CommandError> {
    let path = unit::path(stack);
    let shown = path.display();
    match unit::look(&path) {
        Ok(Found::Foreign) => Err(CommandError::new(format!(
            "`{shown}` is not ours: `hatchery service install` did not write it"
        ))
        .hint("move it away if it is not needed")),
        Ok(found) => Ok(found),
        Err(error) => Err(CommandError::new(format!("cannot read `{shown}`")).because(&error)),
    }
}

fn uninstall(args: &NameArgs, global: &Global) -> Result<ExitCode, CommandError> {
    systemctl::demand()?;
    let name = choose(args, global)?;
    let (unit, path) = (unit::name(&name), unit::path(&name));
    if ours(&name)? == Found::Nothing {
        return Err(CommandError::new(format!(
            "stack `{name}` has no service: there is no `{}`",
            path.display()
        )));
    }
    systemctl::systemctl(&["disable", "--now", &unit])?;
    unit::remove(&path).map_err(|error| {
        CommandError::new(format!("cannot remove `{}`", path.display())).because(&error)
    })?;
    systemctl::systemctl(&["daemon-reload"])?;
    // One that failed is remembered though its unit is gone; one that did not is unknown now.
    let _ = systemctl::systemctl(&["reset-failed", &unit]);
    screen::line(&format!("`{unit}` is removed"))?;
    let additions = path.with_extension("service.d");
    if additions.exists() {
        screen::line(&format!(
            "what you added in `{}` stays",
            additions.display()
        ))?;
    }
    if !wiring::lives(&name)?.is_empty() {
        screen::line(&format!(
            "what runs of stack `{name}` goes on without a controller; `hatchery --stack {name} \
             down` ends it"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &NameArgs, global: &Global) -> Result<ExitCode, CommandError> {
    if !systemctl::is_booted() {
        return Err(CommandError::new("systemd is not process 1 here"));
    }
    let name = choose(args, global)?;
    let unit = unit::name(&name);
    let view = systemctl::view(&unit)?;
    if view.fragment.is_empty() {
        return Err(CommandError::new(format!("stack `{name}` has no service"))
            .hint("`hatchery service install SPEC`, or `--git URL`, makes one"));
    }
    let is_active = view.active == "active";
    let since = match is_active && !view.since.is_empty() {
        true => format!(" since {}", view.since),
        false => String::new(),
    };
    screen::line(&format!("{unit}: {} ({}){since}", view.active, view.sub))?;
    let mut lines = vec![("at boot", view.file_state), ("unit", view.fragment)];
    if view.pid != 0 {
        lines.push(("pid", view.pid.to_string()));
    }
    if !view.status.is_empty() {
        lines.push(("says", view.status));
    }
    if view.restarts != "0" && !view.restarts.is_empty() {
        lines.push(("restarts", view.restarts));
    }
    for (what, value) in lines {
        screen::line(&format!("  {what:<9} {value}"))?;
    }
    if is_active && let Some(source) = source_of(&name) {
        screen::say(&sync::text(&source, sync::when))?;
    }
    Ok(match is_active {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(NOT_ACTIVE),
    })
}

/// How the stack stands towards the repository that it follows, if its controller says so.
fn source_of(name: &str) -> Option<SourceStatus> {
    let asked = wiring::block_on(async { Ok(stack::client(name).await?.status().await?) });
    asked.ok()?.source
}

/// What somebody who takes a stack down wants to know: a service brings it up again.
pub fn comes_back(stack: &str) -> Option<String> {
    unit::is_enabled(stack).then(|| {
        format!(
            "`{}` is enabled: the stack comes back at the next boot, or with `systemctl start`; \
             `hatchery service uninstall {stack}` ends that",
            unit::name(stack)
        )
    })
}

/// Where the controller of `stack` says what it does.
pub fn story_place(stack: &str) -> String {
    match unit::path(stack).exists() {
        true => format!("`journalctl -u {}`", unit::name(stack)),
        false => "`controller.log` in the stack's log folder".to_owned(),
    }
}

/// What starts a controller of `stack`.
pub fn starter(stack: &str) -> String {
    match unit::path(stack).exists() {
        true => format!(
            "start its service with `systemctl start {}`",
            unit::name(stack)
        ),
        false => "start one with `hatchery up SPEC`".to_owned(),
    }
}

/// Has systemd start no controller of `stack` any more, where it is between two tries.
///
/// # Errors
/// What systemd said.
pub fn rest(stack: &str) -> Result<(), CommandError> {
    if systemctl::is_booted() && unit::path(stack).exists() {
        systemctl::systemctl(&["stop", &unit::name(stack)])?;
    }
    Ok(())
}
