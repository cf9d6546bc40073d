//! `hatchery sync`, `suspend` and `resume`: the repository that a stack follows.

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::error::CommandError;
use super::table::BOLD;
use super::{Global, screen, stack, wiring};
use crate::plan::text::visible;
use crate::reconcile::sync::{Health, SourceStatus, Sync, Word};
use crate::spec::model::Commit;

const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const WRONG: Style = AnsiColor::Red.on_default();

/// Arguments of `sync`.
#[derive(Debug, clap::Args)]
pub struct SyncArgs {
    /// Ask the repository now, and try again what was refused
    #[arg(long)]
    now: bool,
    /// Print the status as JSON
    #[arg(long)]
    json: bool,
}

/// Shows how a stack stands towards its repository; with `--now`, after asking that.
///
/// # Errors
/// When no controller runs, or it follows no repository. With `--now` it ends with 1 when the
/// head is not in force afterwards.
pub fn run(args: &SyncArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let status = wiring::block_on(async {
        let client = stack::client(&name).await?;
        if args.now {
            return Ok(client.sync(Word::Now).await?);
        }
        client.status().await?.source.ok_or_else(|| {
            CommandError::new(format!("stack `{name}` follows no repository"))
                .hint("`hatchery up --git URL` brings up one that does")
        })
    })?;
    if args.json {
        screen::json(&status)?;
    } else {
        screen::say(&text(&status, screen::day_and_time))?;
    }
    Ok(match args.now && status.sync != Sync::Synced {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// `suspend` and `resume`.
///
/// # Errors
/// As [`run`].
pub fn order(word: Word, global: &Global) -> Result<ExitCode, CommandError> {
    let name = stack::choose(global.stack.as_deref())?;
    let status = wiring::block_on(async {
        let client = stack::client(&name).await?;
        Ok(client.sync(word).await?)
    })?;
    screen::say(&text(&status, screen::day_and_time))?;
    Ok(ExitCode::SUCCESS)
}

/// How a stack stands towards its repository, in a few lines.
pub fn text(status: &SourceStatus, when: impl Fn(u64) -> String) -> String {
    let style = match status.sync {
        Sync::Synced => GOOD,
        Sync::OutOfSync => WARN,
        Sync::Stalled => WRONG,
    };
    let mut out = format!(
        "source {BOLD}{}{BOLD:#} {}, {style}{}{style:#}",
        visible(&status.url),
        visible(&status.reference),
        status.sync
    );
    if let Some(health) = status.health {
        let style = match health {
            Health::Healthy => GOOD,
            Health::Progressing => WARN,
            Health::Degraded => WRONG,
        };
        out.push_str(&format!(", {style}{health}{style:#}"));
    }
    if status.suspended {
        out.push_str(&format!(", {WARN}suspended{WARN:#}"));
    }
    out.push('\n');
    let line = |name: &str, commit: &Commit| {
        let at_ms = u64::try_from(commit.at_s).unwrap_or(0).saturating_mul(1000);
        format!(
            "  {name} {}, {}\n",
            visible(&commit.to_string()),
            when(at_ms)
        )
    };
    match &status.commit {
        Some(commit) => out.push_str(&line("commit", commit)),
        None => out.push_str("  the spec in force came from elsewhere\n"),
    }
    if let Some(head) = status
        .head
        .as_ref()
        .filter(|head| status.commit.as_ref().map(|commit| &commit.id) != Some(&head.id))
    {
        out.push_str(&line("newest", head));
    }
    if let Some(reason) = &status.reason {
        out.push_str(&format!(
            "{WRONG}the newest commit is not in force:{WRONG:#}\n"
        ));
        for line in visible(reason.trim_end()).lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    if let Some(file) = &status.edited {
        out.push_str(&format!(
            "  {WARN}`{}` was edited:{WARN:#} the controller takes it when it is started anew\n",
            visible(&file.display().to_string())
        ));
    }
    for kept in &status.kept {
        out.push_str(&format!("  {} left the spec and is kept\n", visible(kept)));
    }
    out
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::spec::model::GitSource;

    fn commit(id: &str, subject: &str) -> Commit {
        Commit {
            id: id.repeat(20),
            author: "Ada".to_owned(),
            subject: subject.to_owned(),
            at_s: 5,
        }
    }

    #[test]
    fn what_stands_and_why_is_said() {
        let source = GitSource::new(String::new(), "main".to_owned(), "specs".into());
        let mut status = SourceStatus {
            sync: Sync::Synced,
            health: Some(Health::Healthy),
            commit: Some(commit("a1", "first")),
            head: Some(commit("a1", "first")),
            ..SourceStatus::new("https://host/specs.git".to_owned(), &source)
        };
        let say =
            |status: &SourceStatus| strip_str(&text(status, |at| format!("at {at}"))).to_string();
        assert_eq!(
            say(&status),
            "source https://host/specs.git main, synced, healthy\n  commit a1a1a1a1a1 (Ada: \
             first), at 5000\n"
        );
        status.sync = Sync::Stalled;
        status.suspended = true;
        status.head = Some(commit("b2", "evil\u{1b}[2J"));
        status.reason = Some("commit b2 is refused: it is not signed".to_owned());
        status.kept = vec!["containers/old".to_owned()];
        status.edited = Some("/source.yaml".into());
        let said = say(&status);
        assert!(said.contains("stalled, healthy, suspended\n"), "{said}");
        assert!(said.contains("  newest b2b2b2b2b2 (Ada: evil"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
        assert!(
            said.contains("not in force:\n  commit b2 is refused"),
            "{said}"
        );
        assert!(said.contains("`/source.yaml` was edited"), "{said}");
        assert!(
            said.contains("containers/old left the spec and is kept"),
            "{said}"
        );
    }
}
