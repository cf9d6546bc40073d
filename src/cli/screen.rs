//! What is written to the terminal, and how wide it is.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Color, Style};

use super::error::CommandError;

/// Lines on a screen whose size is unknown are cut here.
const WIDTH: usize = 100;

/// Writes text to standard output; colours go where they belong.
///
/// # Errors
/// When nobody reads it any more, or the disk behind it is full.
pub fn say(text: &str) -> Result<(), CommandError> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to standard output.
///
/// # Errors
/// As [`say`].
pub fn line(text: &str) -> Result<(), CommandError> {
    say(&format!("{text}\n"))
}

/// Writes to standard output for whoever still reads it: a controller does not end because its
/// terminal did.
pub fn murmur(text: &str) {
    let _ = say(text);
}

/// Writes a line to standard error.
pub fn complain(text: &str) {
    // There is nobody left to be told about a failure of this.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard output may take cursor movements.
pub fn is_lively() -> bool {
    is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns and rows of the terminal.
pub fn size() -> (usize, usize) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel fills the structure that it is given, which lives long enough.
    let asked = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if asked == 0 && size.ws_col > 0 && size.ws_row > 0 {
        (usize::from(size.ws_col), usize::from(size.ws_row))
    } else {
        (WIDTH, 24)
    }
}

/// `text` in at most `width` columns.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// Wall-clock time of day on this machine: `12:03:04`.
pub fn time_of_day(at_ms: u64) -> String {
    let broken = local_time(at_ms);
    format!(
        "{:02}:{:02}:{:02}",
        broken.tm_hour, broken.tm_min, broken.tm_sec
    )
}

/// Day and time on this machine: `2025-03-01 12:03:04`.
pub fn day_and_time(at_ms: u64) -> String {
    let broken = local_time(at_ms);
    format!(
        "{:04}-{:02}-{:02} {}",
        i64::from(broken.tm_year) + 1900,
        broken.tm_mon + 1,
        broken.tm_mday,
        time_of_day(at_ms)
    )
}

fn local_time(at_ms: u64) -> libc::tm {
    let seconds = libc::time_t::try_from(at_ms / 1000).unwrap_or(0);
    let mut broken = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; all-zero bytes are a valid `tm`, so it may
    // be read even where the call failed.
    unsafe {
        libc::localtime_r(&raw const seconds, broken.as_mut_ptr());
        broken.assume_init()
    }
}

/// The colour of the `position`-th name.
pub fn name_color(position: usize) -> Style {
    const COLORS: [AnsiColor; 6] = [
        AnsiColor::Cyan,
        AnsiColor::Yellow,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::BrightRed,
    ];
    let color = COLORS.get(position % COLORS.len()).copied();
    Style::new().fg_color(color.map(Color::Ansi))
}

/// Writes a value to standard output as JSON for people and programs.
///
/// # Errors
/// As [`say`].
pub fn json(value: &impl serde::Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::new("cannot write JSON").because(&error))?;
    line(&text)
}
