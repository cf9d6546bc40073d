//! Which stack a command is about.

use super::error::CommandError;
use super::wiring;
use crate::api::control::{self, Client};
use crate::spec::text::{MAX_STACK_NAME, is_name};
use crate::store::Stack;

/// Reads `--stack`: the name becomes part of paths, so it must be one that a spec may have.
///
/// # Errors
/// Says what a name may hold.
pub fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text, MAX_STACK_NAME, false) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "a stack's name has lower-case letters, digits and inner `-`, at most \
             {MAX_STACK_NAME} characters"
        ))
    }
}

/// The stack that is meant: the one asked for, or the only one that is here.
///
/// # Errors
/// When there is none, or more than one.
pub fn choose(asked: Option<&str>) -> Result<String, CommandError> {
    match asked {
        Some(name) => Ok(name.to_owned()),
        None => only(&wiring::roots().list_stacks()),
    }
}

/// One with a controller counts before one that only has a run folder.
fn only(stacks: &[Stack]) -> Result<String, CommandError> {
    let run: Vec<&str> = names(stacks, |stack| stack.held_by.is_some());
    let here: Vec<&str> = names(stacks, |stack| stack.has_run_dir);
    // One that is down has logs and state still.
    let left: Vec<&str> = names(stacks, |_| true);
    let (found, what) = match (run.is_empty(), here.is_empty()) {
        (false, _) => (run, "run"),
        (true, false) => (here, "are"),
        (true, true) => (left, "left something"),
    };
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            Err(CommandError::new("no stack runs here").hint("start one with `hatchery up SPEC`"))
        }
        several => {
            let listed: Vec<String> = several.iter().map(|name| format!("`{name}`")).collect();
            Err(CommandError::new(format!(
                "{} stacks {what} here: {}",
                several.len(),
                listed.join(", ")
            ))
            .hint("name one with `--stack NAME`, or set HATCHERY_STACK"))
        }
    }
}

fn names(stacks: &[Stack], wanted: impl Fn(&Stack) -> bool) -> Vec<&str> {
    stacks
        .iter()
        .filter(|stack| wanted(stack))
        .map(|stack| stack.name.as_str())
        .collect()
}

/// Demands that `--stack`, where it was given, names the spec's own stack.
///
/// # Errors
/// When it does not.
pub fn same(asked: Option<&str>, spec: &str) -> Result<(), CommandError> {
    match asked {
        Some(asked) if asked != spec => Err(CommandError::new(format!(
            "the spec is of stack `{spec}`, not of `{asked}`"
        ))
        .hint("leave `--stack` and HATCHERY_STACK out: the spec says its stack's name")),
        _ => Ok(()),
    }
}

/// The controller of `stack`.
///
/// # Errors
/// When none runs.
pub async fn client(stack: &str) -> Result<Client, CommandError> {
    Ok(Client::connect(&control::socket(&wiring::dirs(stack).run), stack).await?)
}

/// The controller of `stack`; `None` when none runs.
///
/// # Errors
/// When one runs and cannot be reached.
pub async fn client_if_any(stack: &str) -> Result<Option<Client>, CommandError> {
    match Client::connect(&control::socket(&wiring::dirs(stack).run), stack).await {
        Ok(client) => Ok(Some(client)),
        Err(control::ClientError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn stack(name: &str, held_by: Option<u32>, has_run_dir: bool) -> Stack {
        Stack {
            name: name.to_owned(),
            dirs: wiring::dirs(name),
            held_by,
            has_run_dir,
        }
    }

    #[test]
    fn the_only_one_is_meant() {
        let one = [stack("a", Some(1), true), stack("b", None, true)];
        assert_eq!(only(&one), Ok("a".to_owned()));
        let left = [stack("a", None, true), stack("b", None, false)];
        assert_eq!(only(&left), Ok("a".to_owned()));
        assert_eq!(only(&[stack("b", None, false)]), Ok("b".to_owned()));
    }

    #[test]
    fn several_are_listed() {
        let two = [stack("a", Some(1), true), stack("b", Some(2), true)];
        let error = anstream::adapter::strip_str(&only(&two).unwrap_err().to_string()).to_string();
        insta::assert_snapshot!(error, @r"
        error: 2 stacks run here: `a`, `b`
        hint: name one with `--stack NAME`, or set HATCHERY_STACK
        ");
        let none = only(&[]).unwrap_err().to_string();
        insta::assert_snapshot!(anstream::adapter::strip_str(&none), @r"
        error: no stack runs here
        hint: start one with `hatchery up SPEC`
        ");
    }

    #[test]
    fn names_that_would_leave_a_folder_are_refused() {
        for bad in ["", "..", "a/b", "-a", "A", "a\n"] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_name("prime-2"), Ok("prime-2".to_owned()));
    }
}
