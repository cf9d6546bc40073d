//! What a command says when it cannot do its job, and with which exit code it ends.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::{screen, service};
use crate::api::control::ClientError;
use crate::driver::journal::{Journal, Priority};
use crate::plan::text::visible;

const WRONG: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// The exit code of every failure; `plan --detailed-exitcode` keeps 2 for itself.
const FAILED: u8 = 1;
/// What a shell says of a program that SIGPIPE ended.
const CLOSED: u8 = 141;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

/// How a failure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `error: …`
    Plain,
    /// A report that is ready to be read, colours and all.
    Report,
    /// Nobody reads our output any more: silence.
    Closed,
}

impl CommandError {
    /// An error in words: lower case, names in backticks.
    pub fn new(message: impl Into<String>) -> Self {
        CommandError {
            kind: Kind::Plain,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// A whole report, such as the one on a spec's errors.
    pub fn report(text: impl Into<String>) -> Self {
        CommandError {
            kind: Kind::Report,
            ..CommandError::new(text)
        }
    }

    /// Adds an error and what it came from, outermost first.
    pub fn because(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds a line on what went wrong.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.causes.push(detail.into());
        self
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What went wrong, without causes and hints.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prints it, once, and says how the process is to end.
    pub fn print(&self) -> ExitCode {
        if self.kind == Kind::Closed {
            return ExitCode::from(CLOSED);
        }
        let text = self.to_string();
        let journal = Journal::behind(io::stderr(), None);
        let plain = || anstream::adapter::strip_str(&text).to_string();
        let entered = journal.map(|journal| journal.write(Priority::Error, &plain(), &[]));
        if !matches!(entered, Some(Ok(()))) {
            screen::complain(&text);
        }
        ExitCode::from(FAILED)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Closed => return Ok(()),
            Kind::Report => f.write_str(self.message.trim_end())?,
            Kind::Plain => {
                write!(f, "{WRONG}error{WRONG:#}: {}", visible(&self.message))?;
            }
        }
        for cause in &self.causes {
            write!(f, "\n  {}", visible(cause))?;
        }
        for hint in &self.hints {
            write!(f, "\n{HINT}hint{HINT:#}: {}", visible(hint))?;
        }
        Ok(())
    }
}

impl From<io::Error> for CommandError {
    /// Of writing to standard output; other errors say what was tried.
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::BrokenPipe => Kind::Closed,
            _ => Kind::Plain,
        };
        CommandError {
            kind,
            ..CommandError::new("cannot write to standard output").because(&error)
        }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let base = match &error {
            // A refused spec comes as the whole report that the loader wrote.
            ClientError::Refused { error, .. } if error.starts_with("error") => {
                CommandError::report(visible(error))
            }
            _ => CommandError::new(error.to_string()),
        };
        match error {
            ClientError::NotRunning { stack } => base.hint(service::starter(&stack)),
            ClientError::Unreachable { .. } => {
                base.hint("the control socket is root's; run this as root")
            }
            ClientError::Refused {
                hint: Some(hint), ..
            } => base.hint(hint),
            ClientError::Refused { hint: None, .. } => base,
            ClientError::Broken { stack, .. } => base.hint(format!(
                "what it said last is in {}",
                service::story_place(&stack)
            )),
        }
    }
}
