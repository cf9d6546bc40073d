//! `hatchery events`: what happened to a stack.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use super::error::CommandError;
use super::narrator::happening_line;
use super::{Global, screen, stack, wiring};
use crate::driver::{Clock, clock::BootClock};
use crate::plan::text::visible;
use crate::reconcile::handle::Happening;
use crate::spec::node::NodeId;
use crate::store::events;

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Only what happened to this node; a group's name stands for all of it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Go on with what happens from now on, until the controller ends
    #[arg(short, long)]
    follow: bool,
    /// Only what happened in this time until now, such as `10m`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Print each event as JSON on a line of its own
    #[arg(long)]
    json: bool,
}

/// Prints what is kept, and with `--follow` what the controller goes on to tell.
///
/// # Errors
/// When there is no such stack, or no controller to be followed.
pub fn run(args: &EventsArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let since_ms = args.since.map_or(0, |since| {
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        BootClock.wall_ms().saturating_sub(since)
    });
    if !args.follow {
        kept(args, &name, since_ms)?;
        return Ok(ExitCode::SUCCESS);
    }
    wiring::block_on(async {
        let client = stack::client(&name).await?;
        // From here on nothing is missed; what is kept may have a part of it already.
        let mut story = client.events().await?;
        let mut kept = kept(args, &name, since_ms)?;
        while let Some(happening) = story.next().await {
            let happening = happening.kept();
            if !is_known(&mut kept, &happening) {
                show(args, &happening)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints what is kept, and gives it back.
fn kept(
    args: &EventsArgs,
    stack: &str,
    since_ms: u64,
) -> Result<VecDeque<Happening>, CommandError> {
    let read = events::read::<Happening>(&wiring::dirs(stack));
    for unread in &read.unread {
        screen::complain(&visible(unread));
    }
    for event in read.events.iter().filter(|event| event.at_ms >= since_ms) {
        show(args, event)?;
    }
    Ok(read.events.into())
}

/// Whether what the controller tells was kept before we read. It tells in the order in which it
/// keeps: before what is known all is known, and after what is new all is new.
fn is_known(kept: &mut VecDeque<Happening>, told: &Happening) -> bool {
    match kept.iter().rposition(|event| event == told) {
        Some(position) => {
            kept.drain(..=position);
            true
        }
        None => {
            kept.clear();
            false
        }
    }
}

fn show(args: &EventsArgs, event: &Happening) -> Result<(), CommandError> {
    if !args
        .name
        .as_deref()
        .is_none_or(|name| is_about(event, name))
    {
        return Ok(());
    }
    if args.json {
        let text = serde_json::to_string(event)
            .map_err(|error| CommandError::new("cannot write JSON").because(&error))?;
        return screen::line(&text);
    }
    screen::say(&happening_line(event, &screen::day_and_time(event.at_ms)))
}

/// Whether an event is about the node of this name, or one of this group.
fn is_about(event: &Happening, name: &str) -> bool {
    event.node.as_ref().is_some_and(|node| is_named(node, name))
}

fn is_named(node: &NodeId, name: &str) -> bool {
    let replica = |part: &str| {
        part.strip_prefix(name)
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let whole = node.to_string();
    replica(&whole) || replica(&node.name) || node.name.split('/').any(replica)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn event(at_ms: u64, text: &str) -> Happening {
        Happening::warning(at_ms, text.to_owned())
    }

    #[test]
    fn a_name_stands_for_a_node_or_its_group() {
        let node: NodeId = "containers/prime12".parse().unwrap();
        for name in ["prime12", "prime", "containers/prime12", "containers/prime"] {
            assert!(is_named(&node, name), "{name}");
        }
        for name in ["prime1x", "rime12", "prime2", "containers/p"] {
            assert!(!is_named(&node, name), "{name}");
        }
        let endpoint: NodeId = "services/web/prime1".parse().unwrap();
        assert!(is_named(&endpoint, "web") && is_named(&endpoint, "prime1"));
    }

    #[test]
    fn what_was_kept_is_not_shown_twice() {
        let mut kept: VecDeque<_> = [event(1, "a"), event(2, "b"), event(2, "c")].into();
        assert!(is_known(&mut kept, &event(2, "b")));
        assert!(is_known(&mut kept, &event(2, "c")));
        assert!(!is_known(&mut kept, &event(2, "d")));
        assert!(kept.is_empty());
    }
}
