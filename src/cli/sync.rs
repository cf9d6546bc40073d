//! `hatchery sync`, `suspend` and `resume`: the repository that a stack follows.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

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
        screen::json(&with_ages(&status)?)?;
    } else {
        screen::say(&text(&status, when))?;
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
    screen::say(&text(&status, when))?;
    Ok(ExitCode::SUCCESS)
}

/// A moment on this machine, and how long ago that is: `2025-03-01 12:03:04, 3h ago`.
pub fn when(at_ms: u64) -> String {
    let age = Duration::from_millis(now_ms().saturating_sub(at_ms));
    format!("{}, {}", screen::day_and_time(at_ms), ago(age))
}

/// How long ago something was, in its largest unit.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The status for programs, with the age of each commit in seconds.
fn with_ages(status: &SourceStatus) -> Result<Value, CommandError> {
    let mut value = serde_json::to_value(status)
        .map_err(|error| CommandError::new("cannot write JSON").because(&error))?;
    let now_s = now_ms() / 1000;
    for name in ["commit", "head"] {
        if let Some(commit) = value.get_mut(name).and_then(Value::as_object_mut) {
            let at_s = commit.get("at_s").and_then(Value::as_u64).unwrap_or(0);
            commit.insert("age_s".to_owned(), now_s.saturating_sub(at_s).into());
        }
    }
    Ok(value)
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
        let what = match status.has_head() {
            true => "something is wrong:",
            false => "the newest commit is not in force:",
        };
        out.push_str(&format!("{WRONG}{what}{WRONG:#}\n"));
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
    if let Some(why) = &status.deaf {
        out.push_str(&format!(
            "  {WARN}no push is heard:{WARN:#} {}\n",
            visible(why)
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
        status.deaf = Some("cannot hear pushes on 10.0.0.1:9000".to_owned());
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
        assert!(
            said.contains("no push is heard: cannot hear pushes on"),
            "{said}"
        );
        // What is in force may be wrong all the same.
        status.head = status.commit.clone();
        let said = say(&status);
        assert!(!said.contains("not in force:"), "{said}");
        assert!(
            said.contains("wrong:\n  commit b2 is refused: it"),
            "{said}"
        );
    }

    #[test]
    fn a_commit_has_an_age() {
        let ages = [0, 59, 60, 3599, 3600, 3 * 3600 + 59, 86_400, 9 * 86_400];
        let said: Vec<String> = ages.map(|age| ago(Duration::from_secs(age))).into();
        assert_eq!(
            said,
            [
                "0s ago", "59s ago", "1m ago", "59m ago", "1h ago", "3h ago", "1d ago", "9d ago"
            ]
        );
        let source = GitSource::new(String::new(), "main".to_owned(), "specs".into());
        let mut status = SourceStatus {
            commit: Some(commit("a1", "first")),
            ..SourceStatus::new("/specs.git".to_owned(), &source)
        };
        let now = i64::try_from(now_ms() / 1000).unwrap_or(0);
        if let Some(commit) = &mut status.commit {
            commit.at_s = now - 3 * 3600;
        }
        let value = with_ages(&status).unwrap_or_default();
        let age = value["commit"]["age_s"].as_u64();
        assert!(age.is_some_and(|age| (10_800..11_000).contains(&age)));
        assert!(value["head"].is_null());
        assert!(when(now_ms().saturating_sub(61_000)).ends_with(", 1m ago"));
    }
}
