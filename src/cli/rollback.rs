//! `hatchery rollback`: brings an earlier generation back.

use std::process::ExitCode;

use super::error::CommandError;
use super::{Global, converge, listening::Listening, narrator::Narrator};
use super::{screen, stack, wiring};
use crate::graph::desired::Dirs;
use crate::reconcile::handle::SpecText;
use crate::spec::generation::{Generation, last_converged};
use crate::store::history;

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The generation that is to come back; unless given, the last one that converged before
    /// the present one, with another spec
    #[arg(value_name = "GENERATION")]
    generation: Option<u64>,
    /// Go back even if that would remove everything that runs
    #[arg(long)]
    allow_empty: bool,
}

/// Hands the generation's spec to the controller as a new one, and returns once everything is
/// as it says. The spec's file stays as it is.
///
/// # Errors
/// When no controller runs, there is nothing to go back to, or something fails on the way.
pub fn run(args: &RollbackArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    wiring::block_on(async {
        let client = stack::client(&name).await?;
        let present = client.status().await?.generation;
        let (to, spec) = choose(&wiring::dirs(&name), args.generation, present)?;
        let mut narrator = Narrator::of_screen();
        let story = client.events().await?;
        let generation = client.roll_back(spec, args.allow_empty, to).await?;
        screen::line(&format!(
            "generation {to} of stack `{name}` is back as generation {generation}"
        ))?;
        let mut listening = Listening::There { client, story };
        converge::converge(&mut listening, &mut narrator, generation).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The generation to go back to, and its spec.
fn choose(dirs: &Dirs, asked: Option<u64>, present: u64) -> Result<(u64, SpecText), CommandError> {
    let generations = history::past(dirs).generations;
    let kept = |error: CommandError| error.hint("`hatchery history` lists those that are kept");
    let spec = |generation: &Generation| -> Result<SpecText, CommandError> {
        history::spec(dirs, generation).map_err(|why| {
            let number = generation.number;
            kept(CommandError::new(format!("cannot go back to generation {number}")).detail(why))
        })
    };
    let find = |number: u64| {
        generations
            .iter()
            .find(|generation| generation.number == number)
    };
    if let Some(number) = asked {
        if number == present {
            return Err(kept(CommandError::new(format!(
                "generation {number} is in force already"
            ))));
        }
        let found = find(number).ok_or_else(|| {
            kept(CommandError::new(format!(
                "generation {number} is not kept"
            )))
        })?;
        return Ok((number, spec(found)?));
    }
    let now = find(present).and_then(|generation| spec(generation).ok());
    let mut before = present;
    while let Some(found) = last_converged(&generations, before) {
        let spec = spec(found)?;
        if Some(&spec) != now.as_ref() {
            return Ok((found.number, spec));
        }
        before = found.number;
    }
    Err(kept(CommandError::new(format!(
        "no generation before {present} converged with another spec"
    ))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::spec::generation::{Cause, Outcome};
    use crate::store::{Roots, Store};

    #[test]
    fn it_goes_back_to_what_converged_last_and_was_another_spec() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().to_owned();
        let roots = Roots::new(move |name| Some(place.join(name)));
        let dirs = roots.dirs_for("prime");
        let store = Store::open(dirs.clone()).unwrap();
        let converged = Outcome::Converged { after_ms: 1 };
        let all = [
            ("a", converged.clone()),
            ("b", converged.clone()),
            ("c", Outcome::Superseded),
            ("c", Outcome::RolledBack { to: 2, why: None }),
            ("b", converged.clone()),
        ];
        for (number, (text, outcome)) in (1..).zip(all) {
            let generation = Generation {
                commit: None,
                number,
                path: "/s.yaml".into(),
                cause: Cause::FileEdit,
                at_ms: 0,
                boot: String::new(),
                outcome,
            };
            let spec = SpecText::of("/s.yaml", text);
            store.save_generation(&generation, Some(&spec)).unwrap();
        }
        let chosen = |asked, present| {
            choose(&dirs, asked, present)
                .map(|(number, spec)| (number, spec.text))
                .map_err(|error| {
                    let error = error.to_string();
                    let error = anstream::adapter::strip_str(&error).to_string();
                    error.lines().next().unwrap_or_default().to_owned()
                })
        };
        assert_eq!(chosen(None, 5), Ok((1, "a".to_owned())));
        assert_eq!(chosen(None, 4), Ok((2, "b".to_owned())));
        assert_eq!(chosen(Some(4), 5), Ok((4, "c".to_owned())));
        insta::assert_snapshot!(chosen(None, 1).unwrap_err(), @"error: no generation before 1 converged with another spec");
        insta::assert_snapshot!(chosen(Some(9), 5).unwrap_err(), @"error: generation 9 is not kept");
        insta::assert_snapshot!(chosen(Some(5), 5).unwrap_err(), @"error: generation 5 is in force already");
    }
}
