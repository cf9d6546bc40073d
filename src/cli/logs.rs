//! `hatchery logs`: what the workloads wrote.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstyle::Style;

use self::file::Log;
use super::error::CommandError;
use super::{Global, screen, service, stack, wiring};
use crate::driver::log;
use crate::graph::instance_of;
use crate::plan::text::visible;
use crate::spec::node::{Kind, NodeId};

/// Between two looks at files that are followed.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks for files that are new.
const LOOK_FOR_NEW: Duration = Duration::from_secs(1);
/// Characters of a line that stand in a status or a story.
const LONGEST_SHOWN: usize = 200;
/// The controller's own log, shown only when it is asked for.
const CONTROLLER: &str = "controller";

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// Containers and processes, all by default; a group's name stands for all of it, and
    /// `controller` for a controller in the background
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Go on printing what is written
    #[arg(short, long)]
    follow: bool,
    /// So many of the last lines of each
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// Prints them, oldest first, one file after the other.
///
/// # Errors
/// When there is no such log, or it cannot be read.
pub fn run(args: &LogsArgs, global: &Global) -> Result<ExitCode, CommandError> {
    let stack = stack::choose(global.stack.as_deref())?;
    let folder = wiring::dirs(&stack).log;
    let found = list(&folder);
    let names: BTreeSet<String> = found.keys().cloned().collect();
    for asked in &args.names {
        if !names.iter().any(|log| is_meant(asked, log, &names)) {
            return Err(nothing(asked, &stack, &found));
        }
    }
    let mut printer = Printer::new();
    let mut logs = wanted(found, &args.names);
    printer.make_room(&logs);
    for log in &mut logs {
        let name = log.name().to_owned();
        log.history(args.tail, &mut |line| printer.print(&name, line))?;
        if !args.follow {
            log.finish(&mut |line| printer.print(&name, line))?;
        }
    }
    if args.follow {
        follow(&folder, &args.names, logs, &mut printer)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what is written from now on, until somebody ends it. A workload that is new comes in.
fn follow(
    folder: &Path,
    asked: &[String],
    mut logs: Vec<Log>,
    printer: &mut Printer,
) -> Result<(), CommandError> {
    let mut looked = Instant::now();
    loop {
        for log in &mut logs {
            let name = log.name().to_owned();
            log.more(&mut |line| printer.print(&name, line))?;
        }
        std::thread::sleep(LOOK);
        if looked.elapsed() >= LOOK_FOR_NEW {
            looked = Instant::now();
            let new = wanted(list(folder), asked)
                .into_iter()
                .filter(|log| logs.iter().all(|known| known.name() != log.name()))
                .collect::<Vec<_>>();
            logs.extend(new);
            printer.make_room(&logs);
        }
    }
}

/// Every log in the folder by its workload's name. No folder has none.
fn list(folder: &Path) -> BTreeMap<String, PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let path = entry.path();
            let file = path.file_name()?.to_str()?;
            let name = file.strip_suffix(".log")?.to_owned();
            Some((name, path))
        })
        .collect()
}

fn wanted(found: BTreeMap<String, PathBuf>, asked: &[String]) -> Vec<Log> {
    let names: BTreeSet<String> = found.keys().cloned().collect();
    found
        .into_iter()
        .filter(|(name, _)| match asked {
            [] => name != CONTROLLER,
            asked => asked.iter().any(|asked| is_meant(asked, name, &names)),
        })
        .map(|(name, path)| Log::new(name, path))
        .collect()
}

/// The last lines of a workload's log, as a terminal may have them, each cut to
/// [`LONGEST_SHOWN`] characters. A log that is not there or cannot be read has none.
pub fn tail(stack: &str, node: &NodeId, lines: usize) -> Vec<String> {
    if ![Kind::Containers, Kind::Processes].contains(&node.kind) {
        return Vec::new();
    }
    let path = log::of(&wiring::dirs(stack).log, node);
    let mut log = Log::new(node.name.clone(), path);
    let mut last = Vec::new();
    let mut keep = |line: &[u8]| {
        last.push(screen::cut(&escaped(line), LONGEST_SHOWN));
        Ok(())
    };
    let read = log.history(Some(lines), &mut keep);
    match read.and_then(|()| log.finish(&mut keep)) {
        Ok(()) => last,
        Err(_) => Vec::new(),
    }
}

/// A line whose control characters are to be seen, and do nothing.
fn escaped(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    visible(&String::from_utf8_lossy(line)).replace('\t', "    ")
}

/// `prime` means `prime` and `prime1`, and so does `containers/prime`; each with both its seats.
/// A log that has a kind's name behind its own is that kind's, and where there is one, the kind
/// has no other.
fn is_meant(asked: &str, log: &str, all: &BTreeSet<String>) -> bool {
    let kinds = [Kind::Containers, Kind::Processes];
    let (kind, bare) = Kind::ALL
        .into_iter()
        .find_map(|kind| {
            let rest = asked.strip_prefix(kind.word())?.strip_prefix('/')?;
            Some((Some(kind), rest))
        })
        .unwrap_or((None, asked));
    let (of, name) = kinds
        .into_iter()
        .find_map(|of| Some((Some(of), log.strip_suffix(of.word())?.strip_suffix('.')?)))
        .unwrap_or((None, log));
    let right = match (kind, of) {
        (Some(kind), Some(of)) => kind == of,
        (Some(kind), None) => !all.contains(&log::by_kind(&NodeId::new(kind, name))),
        (None, _) => true,
    };
    let instance = instance_of(name).strip_prefix(bare);
    let named =
        name == bare || instance.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    right && named
}

fn nothing(asked: &str, stack: &str, found: &BTreeMap<String, PathBuf>) -> CommandError {
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let hint = if asked == CONTROLLER && service::unit::path(stack).exists() {
        format!("it runs as a service: see {}", service::story_place(stack))
    } else if names.is_empty() {
        "nothing of the stack has written yet".to_owned()
    } else {
        format!("there are logs of {}", names.join(", "))
    };
    CommandError::new(format!("stack `{stack}` has no log of `{asked}`")).hint(hint)
}

/// Puts names before lines where several files are read.
struct Printer {
    width: usize,
    names: Vec<String>,
    /// Escapes of workloads must not reach the terminal; files get every byte.
    to_terminal: bool,
    colored: bool,
}

impl Printer {
    fn new() -> Self {
        let choice = anstream::stdout().current_choice();
        Printer {
            width: 0,
            names: Vec::new(),
            to_terminal: screen::is_terminal(),
            colored: choice != anstream::ColorChoice::Never,
        }
    }

    fn make_room(&mut self, logs: &[Log]) {
        self.names = logs.iter().map(|log| log.name().to_owned()).collect();
        self.width = self.names.iter().map(String::len).max().unwrap_or(0);
    }

    fn print(&self, name: &str, line: &[u8]) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        if self.names.len() > 1 {
            let position = self.names.iter().position(|known| known == name);
            let style = match position {
                Some(position) if self.colored => screen::name_color(position),
                _ => Style::new(),
            };
            write!(out, "{style}{name:<width$} |{style:#} ", width = self.width)?;
        }
        if self.to_terminal {
            out.write_all(harmless(line).as_bytes())?;
        } else {
            out.write_all(line)?;
        }
        out.write_all(b"\n")?;
        out.flush()?;
        Ok(())
    }
}

/// A line as a terminal may have it: no escape sequence, no control character, valid text.
fn harmless(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let stripped = anstream::adapter::strip_bytes(line).into_vec();
    String::from_utf8_lossy(&stripped)
        .chars()
        .map(|c| match c {
            '\t' => '\t',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests;
