//! Signals by name.

use std::fmt;
use std::str::FromStr;

use super::model::Signal;

/// Names without `SIG`, for Linux on x86 and ARM.
const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The first real-time signal that programs may use; glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
/// The last signal.
const RTMAX: i32 = 64;

impl Signal {
    /// SIGHUP.
    pub const HUP: Signal = Signal(1);
    /// SIGTERM.
    pub const TERM: Signal = Signal(15);

    /// The names of the signals that are not real-time ones, with `SIG`.
    pub fn names() -> impl Iterator<Item = String> {
        NAMES.iter().map(|(name, _)| format!("SIG{name}"))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, number)| *number == self.0) {
            return write!(f, "SIG{name}");
        }
        match self.0 {
            RTMIN => f.write_str("SIGRTMIN"),
            number if (RTMIN..=RTMAX).contains(&number) => {
                write!(f, "SIGRTMIN+{}", number - RTMIN)
            }
            number => write!(f, "{number}"),
        }
    }
}

/// `text` names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal `{0}`")]
pub struct UnknownSignal(pub String);

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Reads `SIGHUP`, `HUP`, `1`, `SIGRTMIN+3` or `RTMAX-1`, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        parse(text).ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(Signal(number));
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == bare) {
        return Some(Signal(*number));
    }
    let number = if let Some(rest) = bare.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = bare.strip_prefix("RTMAX") {
        RTMAX.checked_sub(offset(rest, '-')?)?
    } else {
        return match bare {
            "POLL" => Some(Signal(29)),
            "IOT" => Some(Signal(6)),
            _ => None,
        };
    };
    (RTMIN..=RTMAX).contains(&number).then_some(Signal(number))
}

/// The number after `sign`; 0 when nothing follows.
fn offset(rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        return Some(0);
    }
    let digits = rest.strip_prefix(sign)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, number) in [
            ("SIGHUP", 1),
            ("hup", 1),
            ("15", 15),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("SIGPOLL", 29),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap(), Signal(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "SIG",
            "SIGHUPP",
            "RTMIN+31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN++1",
            "RTMAX-99999999999",
            "RTMAX-31",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_come_back() {
        for number in 1..=64 {
            let signal = Signal(number);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
        }
        assert_eq!(Signal::HUP.to_string(), "SIGHUP");
        assert_eq!(Signal(37).to_string(), "SIGRTMIN+3");
    }
}
