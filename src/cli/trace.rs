//! What the program says about its own inside, on standard error.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::error::CommandError;

/// Says which targets speak, as in `info,hatchery::driver=debug`.
const VARIABLE: &str = "HATCHERY_LOG";
/// Tells every happening once more; the narrator tells them already.
const STORY: &str = "hatchery::reconcile::controller";

/// Begins to print: warnings, and more with each `-v`.
///
/// # Errors
/// When HATCHERY_LOG cannot be read.
pub fn start(verbose: u8) -> Result<(), CommandError> {
    let targets = match std::env::var(VARIABLE) {
        Ok(text) => parse(&text)?,
        Err(_) => by_count(verbose),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(anstream::stderr().current_choice() != anstream::ColorChoice::Never);
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
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
