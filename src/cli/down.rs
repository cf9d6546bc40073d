//! `hatchery down`: stops and removes everything of a stack.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::CommandError;
use super::foreground::{Asked, Signals};
use super::listening::Listening;
use super::narrator::{Manner, Narrator};
use super::wiring::{self, Running, own_user};
use super::{Global, screen, service, stack};
use crate::api::control::{Client, ClientError};

/// How long the controller's process may take to end once all is gone.
const PARTING: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// How long the lines told last may take to come.
const LAST: Duration = Duration::from_secs(1);

/// Arguments of `down`.
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    /// Keep nothing: logs and state go too
    #[arg(long)]
    purge: bool,
    /// Kill instead of asking to end
    #[arg(long)]
    kill: bool,
}

/// Takes the stack down, by its controller or, without one, by itself.
///
/// # Errors
/// When something could not be removed.
pub fn run(args: &DownArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let known = wiring::roots().list_stacks();
    if known.iter().all(|stack| stack.name != name) && wiring::lives(&name)?.is_empty() {
        screen::line(&format!("nothing of stack `{name}` is here"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = wiring::block_on_threads(async {
        match stack::client_if_any(&name).await? {
            Some(client) => ask(&client, args, &name).await,
            None => {
                service::rest(&name)?;
                by_itself(args, &name).await
            }
        }
    })?;
    if let Some(note) = service::comes_back(&name) {
        screen::line(&note)?;
    }
    Ok(code)
}

fn cannot(name: &str, error: &str) -> CommandError {
    CommandError::new(format!("cannot take stack `{name}` down: {error}"))
        .hint("what was removed stays removed; the same command again goes on")
}

/// Ctrl-C asks once more, and not so kindly.
async fn ask(client: &Client, args: &DownArgs, name: &str) -> Result<ExitCode, CommandError> {
    let process = process(client.version().await?.pid);
    let mut signals = Signals::new()?;
    let mut narrator = Narrator::new(Manner::All);
    let mut listening = Listening::There {
        story: client.events().await?,
        client: client.clone(),
    };
    let mut heard = true;
    let mut down = tokio::spawn(request(client.clone(), args.purge, args.kill));
    let answer = loop {
        tokio::select! {
            answer = &mut down => break answer,
            happening = listening.next(), if heard => match happening {
                Some(happening) => narrator.tell(&happening),
                None => heard = false,
            },
            asked = signals.next() => {
                if asked == Asked::Leave {
                    return Err(CommandError::new("nobody waits for the end any more"));
                }
                narrator.say("killing what is left");
                down = tokio::spawn(request(client.clone(), args.purge, true));
            }
        }
    };
    let rest = async {
        while let Some(happening) = listening.next().await {
            narrator.tell(&happening);
        }
    };
    if heard {
        let _ = tokio::time::timeout(LAST, rest).await;
    }
    match answer {
        Ok(Ok(())) => {}
        Ok(Err(ClientError::Refused { error, .. })) => return Err(cannot(name, &error)),
        Ok(Err(error)) => return Err(error.into()),
        Err(error) => return Err(CommandError::new("the request failed").because(&error)),
    }
    if let Some(process) = process {
        wait_for_end(&process);
    }
    Ok(ExitCode::SUCCESS)
}

async fn request(client: Client, purge: bool, kill: bool) -> Result<(), ClientError> {
    client.down(purge, kill).await
}

/// A process that ended meanwhile needs no waiting.
fn process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Afterwards the stack's name is free for another controller.
fn wait_for_end(process: &OwnedFd) {
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    // If it does not end in time, that is its own affair: the stack is down.
    let _ = poll(&mut polled, Some(&PARTING));
}

/// Without a controller this process is one, with nothing to keep.
async fn by_itself(args: &DownArgs, name: &str) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::new()?;
    let mut narrator = Narrator::new(Manner::All);
    let Running {
        handle,
        story,
        mut ended,
        keep: _,
    } = wiring::begin(name, wiring::Begin::default())?;
    let mut listening = Listening::Here {
        handle: handle.clone(),
        story,
    };
    let again = handle.clone();
    let purge = args.purge;
    let kill = args.kill;
    let down = tokio::spawn(async move { handle.down(purge, kill, own_user()).await });
    loop {
        tokio::select! {
            biased;
            asked = signals.next() => {
                if asked == Asked::Leave {
                    return Err(CommandError::new(format!("stack `{name}` is not down yet")));
                }
                narrator.say("killing what is left");
                let again = again.clone();
                tokio::spawn(async move { again.down(purge, true, own_user()).await });
            }
            end = &mut ended => {
                for happening in listening.rest().await {
                    narrator.tell(&happening);
                }
                match end {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => return Err(cannot(name, &error)),
                    Err(error) => {
                        return Err(CommandError::new("the controller failed").because(&error));
                    }
                }
            }
            Some(happening) = listening.next() => narrator.tell(&happening),
        }
    }
    match down.await {
        Ok(Ok(Err(error))) => Err(cannot(name, &error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
