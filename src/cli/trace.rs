//! What the program says about its own inside: on standard error, or in the journal where that
//! leads there.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::error::CommandError;
use crate::driver::journal::{Journal, Priority};
use crate::plan::text::visible;

/// Says which targets speak, as in `info,hatchery::driver=debug`.
const VARIABLE: &str = "HATCHERY_LOG";
/// Tells every happening once more; the narrator tells them already.
const STORY: &str = "hatchery::reconcile::history";

/// Begins to print: warnings, and more with each `-v`.
///
/// # Errors
/// When HATCHERY_LOG cannot be read.
pub fn start(verbose: u8, stack: Option<&str>) -> Result<(), CommandError> {
    let targets = match std::env::var(VARIABLE) {
        Ok(text) => parse(&text)?,
        Err(_) => by_count(verbose),
    };
    let entries = Journal::behind(std::io::stderr(), stack).map(Entries);
    let lines = entries.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(anstream::stderr().current_choice() != anstream::ColorChoice::Never)
    });
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .with(entries)
        .try_init()
        .map_err(|error| CommandError::new("cannot set up logging").because(&error))
}

fn by_count(verbose: u8) -> Targets {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let others = match verbose {
        0..=2 => LevelFilter::WARN,
        _ => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_default(others)
        .with_target("hatchery", level)
        .with_target(STORY, LevelFilter::OFF)
}

fn parse(text: &str) -> Result<Targets, CommandError> {
    text.parse().map_err(|error| {
        CommandError::new(format!("cannot read {VARIABLE}"))
            .because(&error)
            .hint(
                "it is a level, or `TARGET=LEVEL` with commas between, such as \
                   `info,hatchery::driver=debug`",
            )
    })
}

/// Writes each event to the journal.
struct Entries(Journal);

impl<S: Subscriber> Layer<S> for Entries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        let mut words = Words::default();
        event.record(&mut words);
        let mut fields = vec![("HATCHERY_TARGET", about.target().to_owned())];
        fields.extend(words.node.map(|node| ("HATCHERY_NODE", node)));
        let places = [("CODE_FILE", about.file().map(str::to_owned))];
        let line = about.line().map(|line| line.to_string());
        let places = places.into_iter().chain([("CODE_LINE", line)]);
        fields.extend(places.filter_map(|(name, value)| Some((name, value?))));
        let priority = match *about.level() {
            Level::ERROR => Priority::Error,
            Level::WARN => Priority::Warning,
            Level::INFO => Priority::Progress,
            Level::DEBUG | Level::TRACE => Priority::Debug,
        };
        let message = format!("{}{}", visible(&words.message), visible(&words.rest));
        // A journal that does not read cannot be told that it does not.
        let _ = self.0.write(priority, &message, &fields);
    }
}

/// The fields of an event.
#[derive(Default)]
struct Words {
    message: String,
    node: Option<String>,
    /// All others, as ` name=value`.
    rest: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => {
                if name == "node" {
                    self.node = Some(format!("{value:?}"));
                }
                write!(self.rest, " {name}={value:?}")
            }
        };
    }
}
