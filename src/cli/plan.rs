//! `hatchery plan`: what would be done, and why things are as they are.

use std::path::PathBuf;
use std::process::ExitCode;

use super::against;
use super::error::CommandError;
use super::git::against::compared;
use super::git::{self, GitArgs};
use super::spec_args::{self, SpecArgs};
use super::{Global, logs, plan_file, requirements, screen, stack, wiring};
use crate::plan::explain::{self, Explanation, Story};
use crate::plan::markdown::markdown;
use crate::plan::model::NodeState;
use crate::plan::text::text;
use crate::plan::view::PlanView;
use crate::reconcile::handle::{Proposal, SpecText};

/// `--detailed-exitcode`: there are changes.
const CHANGES: u8 = 2;
/// Lines of a log that stand in a story.
const LOG_LINES: usize = 20;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(group = spec_args::needed_anywhere().args(["explain", "schema"]))]
pub struct PlanArgs {
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    git: GitArgs,
    /// Compare with the spec of this file, or with the same one at this revision of its
    /// repository, instead of looking at the host
    #[arg(long, value_name = "FILE|REF", conflicts_with_all = ["explain", "out"])]
    against: Option<String>,
    /// How the plan is printed
    #[arg(long, value_name = "FORMAT", default_value = "text", conflicts_with_all = ["explain", "json"])]
    format: Format,
    /// End with 0 when there is nothing to do, 1 after an error, 2 when there are changes
    #[arg(long)]
    detailed_exitcode: bool,
    /// Print the plan, or the stories of `--explain`, as JSON
    #[arg(long)]
    json: bool,
    /// Keep the plan in this file, for `apply`; not of a repository, whose tree is looked at only
    /// for as long as the plan is made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["explain", "schema", "git", "source"])]
    out: Option<PathBuf>,
    /// Tell the whole story of one node, a group, or an endpoint; without a spec, under the one
    /// in force
    #[arg(long, value_name = "NAME", conflicts_with = "detailed_exitcode")]
    explain: Option<String>,
    /// Print the JSON Schema of what `--json` prints
    #[arg(long, conflicts_with_all = ["spec", "file", "explain", "json", "detailed_exitcode"])]
    schema: bool,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For the terminal
    Text,
    /// For a comment on a pull request
    Markdown,
    /// For programs, as `--json`
    Json,
}

/// Asks the stack's controller; without one, works it out from what the host shows. Executes
/// nothing that the spec names.
///
/// # Errors
/// When the spec is wrong or the host cannot be observed.
pub fn run(args: &PlanArgs, global: &Global) -> Result<ExitCode, CommandError> {
    if args.schema {
        screen::say(PlanView::SCHEMA)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(name) = &args.explain {
        return tell(args, name, global);
    }
    if let Some(against) = &args.against {
        let found = compared(&args.spec, &args.git, against)?;
        return shown(args, &against::plan(&found)?, None);
    }
    let (spec, _tree) = asked(args)?;
    let desired = wiring::compile(&spec)?;
    let name = desired.stack.clone();
    stack::same(global.stack.as_deref(), &name)?;
    let asked = wiring::block_on(async {
        match stack::client_if_any(&name).await? {
            Some(client) => Ok(Some(client.proposal(&spec).await?)),
            None => Ok(None),
        }
    })?;
    let Proposal { view, saved } = match asked {
        Some(proposal) => proposal,
        None => wiring::preview(&spec, &name)?,
    };
    if let Some(out) = &args.out {
        plan_file::write(out, &saved)?;
    }
    shown(args, &view, requirements::note(&desired))
}

/// The spec that is named. Where it comes from a repository, its tree lies there for as long as
/// somebody has it.
fn asked(args: &PlanArgs) -> Result<(SpecText, Option<git::Scratch>), CommandError> {
    match args.git.source(&args.spec)? {
        Some(source) => git::look(&source).map(|(spec, tree)| (spec, Some(tree))),
        None => Ok((args.spec.read()?, None)),
    }
}

/// Prints a plan, and says how it came out.
fn shown(
    args: &PlanArgs,
    view: &PlanView,
    lacks: Option<String>,
) -> Result<ExitCode, CommandError> {
    if args.json || args.format == Format::Json {
        screen::json(view)?;
    } else if args.format == Format::Markdown {
        screen::say(&markdown(view))?;
    } else {
        screen::say(&text(view))?;
        if let Some(out) = &args.out {
            let out = out.display();
            screen::line(&format!(
                "\nKept in `{out}`; `hatchery apply {out}` does just this."
            ))?;
        }
        if let Some(lacks) = lacks {
            screen::say(&lacks)?;
        }
    }
    if args.detailed_exitcode && !view.items.is_empty() {
        return Ok(ExitCode::from(CHANGES));
    }
    Ok(ExitCode::SUCCESS)
}

/// `--explain`: what the spec wants of a node, what is there, and what is between them.
fn tell(args: &PlanArgs, name: &str, global: &Global) -> Result<ExitCode, CommandError> {
    let (stack, spec, _tree) = match args.spec.is_given() || args.git.is_given() {
        true => {
            let (spec, tree) = asked(args)?;
            let stack = wiring::compile(&spec)?.stack;
            stack::same(global.stack.as_deref(), &stack)?;
            (stack, Some(spec), tree)
        }
        false => (stack::choose(global.stack.as_deref())?, None, None),
    };
    let asked = wiring::block_on(async {
        match stack::client_if_any(&stack).await? {
            Some(client) => Ok(Some(client.explain(spec.clone(), name).await?)),
            None => Ok(None),
        }
    })?;
    let mut explanation = match asked {
        Some(explanation) => explanation,
        None => alone(spec, &stack, name)?,
    };
    for story in explanation
        .nodes
        .iter_mut()
        .filter(|story| is_unwell(story))
    {
        story.log = logs::tail(&stack, &story.status.node, LOG_LINES);
    }
    if args.json {
        screen::json(&explanation)?;
    } else {
        screen::say(&explain::text(&explanation))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a controller, and under the spec that was taken last unless one is given.
fn alone(spec: Option<SpecText>, stack: &str, name: &str) -> Result<Explanation, CommandError> {
    let spec = spec.or_else(|| wiring::last_spec(stack)).ok_or_else(|| {
        CommandError::new(format!(
            "no controller runs for stack `{stack}`, and it left no spec"
        ))
        .hint("name one: `hatchery plan SPEC --explain NAME`")
    })?;
    wiring::explain(&spec, stack, name)
}

/// Whether what it wrote last may say why it is as it is.
fn is_unwell(story: &Story) -> bool {
    let unwell = [NodeState::Failed, NodeState::Backoff, NodeState::Exited];
    unwell.contains(&story.status.state) || story.past.last_error.is_some()
}
