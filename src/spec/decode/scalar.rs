//! Typed single values: each returns `None` after it recorded an error.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use indexmap::IndexMap;

use super::Decoder;
use super::slot::{Fields, Slot};
use crate::spec::model::{Expr, Signal};
use crate::spec::suggest::{listed, nearest};
use crate::spec::text::{parse_duration, parse_mode, parse_size, split_words};
use crate::spec::yaml::tree::{Value, shortened};

/// How many items one list may have, and entries one mapping.
pub(super) const MAX_ITEMS: usize = 1000;

impl<'n> Slot<'n> {
    /// A string; a number stands for its digits.
    pub fn text(&self, d: &mut Decoder) -> Option<String> {
        match self.value() {
            Some(Value::Text(text)) if text.contains('\0') => {
                d.error(self.error(format!("{} cannot hold a NUL character", self.what)));
                None
            }
            Some(Value::Text(text)) => Some(text.to_owned()),
            Some(Value::Number(_) | Value::OddNumber) => self.written().map(str::to_owned),
            Some(Value::Bool(_)) => {
                let quoted = format!("\"{}\"", self.written().unwrap_or_default());
                self.expected_but(d, "a string", |diagnostic| {
                    diagnostic.help("quote it").replace(quoted)
                });
                None
            }
            _ => {
                self.expected(d, "a string");
                None
            }
        }
    }

    /// A string that is not empty.
    pub fn filled(&self, d: &mut Decoder) -> Option<String> {
        let text = self.text(d)?;
        if text.trim().is_empty() {
            d.error(self.error(format!("{} cannot be empty", self.what)));
            return None;
        }
        Some(text)
    }

    pub fn expr(&self, d: &mut Decoder) -> Option<Expr> {
        self.filled(d).map(Expr)
    }

    pub fn boolean(&self, d: &mut Decoder) -> Option<bool> {
        let meant = match self.value() {
            Some(Value::Bool(value)) => return Some(value),
            Some(Value::Text(text)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => Some("true"),
                "no" | "off" | "n" | "false" => Some("false"),
                _ => None,
            },
            _ => None,
        };
        self.expected_but(d, "`true` or `false`", |diagnostic| match meant {
            Some(meant) => diagnostic
                .help(format!("YAML 1.2 writes it as `{meant}`"))
                .replace(meant),
            None => diagnostic,
        });
        None
    }

    /// A whole number between `least` and `most`.
    pub fn integer(&self, d: &mut Decoder, least: u32, most: u32) -> Option<u32> {
        let number = match self.value() {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::Text(text)) if text.parse::<i64>().is_ok() => {
                let bare = text.to_owned();
                self.expected_but(d, "a number", |diagnostic| {
                    diagnostic.help("remove the quotes").replace(bare)
                });
                return None;
            }
            _ => None,
        };
        let fitting = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number));
        if fitting.is_none() {
            self.expected(d, &format!("a whole number from {least} to {most}"));
        }
        fitting
    }

    pub fn port(&self, d: &mut Decoder) -> Option<u16> {
        self.integer(d, 1, u32::from(u16::MAX))
            .and_then(|port| u16::try_from(port).ok())
    }

    /// A duration of at least `least`.
    pub fn duration(&self, d: &mut Decoder, least: Duration) -> Option<Duration> {
        const EXPECTED: &str = "a duration like `5s` or `1m30s`";
        let Some(written) = self.written().filter(|_| !self.node.is_null()) else {
            self.expected(d, EXPECTED);
            return None;
        };
        let duration = match parse_duration(written) {
            Ok(duration) => duration,
            Err(why) => {
                let seconds = written.trim().parse::<u64>().ok();
                self.expected_but(d, EXPECTED, |diagnostic| match seconds {
                    Some(seconds) => diagnostic
                        .label(why)
                        .help("did you mean seconds?")
                        .replace(format!("{seconds}s")),
                    None => diagnostic
                        .label(why)
                        .help("units are `ms`, `s`, `m` and `h`"),
                });
                return None;
            }
        };
        if duration < least {
            d.error(self.error(format!(
                "{} must be at least {}, found `{}`",
                self.what,
                humantime::format_duration(least),
                shortened(written)
            )));
            return None;
        }
        Some(duration)
    }

    /// A number of bytes, at least `least`.
    pub fn size(&self, d: &mut Decoder, least: u64) -> Option<u64> {
        let size = self.written().and_then(parse_size);
        match size {
            None => self.expected(d, "a size like `10MB`"),
            Some(size) if size < least => {
                d.error(self.error(format!("{} must be at least {least} bytes", self.what)));
                return None;
            }
            Some(_) => {}
        }
        size
    }

    /// A file mode, octal whether quoted or not.
    pub fn mode(&self, d: &mut Decoder) -> Option<u32> {
        let mode = self.written().and_then(parse_mode);
        if mode.is_none() {
            self.expected(d, "a file mode like `\"0644\"`");
        }
        mode
    }

    pub fn signal(&self, d: &mut Decoder) -> Option<Signal> {
        let text = match self.value() {
            Some(Value::Text(_) | Value::Number(_)) => self.written()?,
            _ => {
                self.expected(d, "a signal like `SIGTERM`");
                return None;
            }
        };
        match text.parse::<Signal>() {
            Ok(signal) => Some(signal),
            Err(unknown) => {
                let names: Vec<String> = Signal::names().collect();
                let upper = text.to_ascii_uppercase();
                let full = format!("SIG{}", upper.strip_prefix("SIG").unwrap_or(&upper));
                let near = nearest(&full, names.iter().map(String::as_str));
                let diagnostic = self.error(format!("{unknown} in {}", self.what));
                d.error(match near {
                    Some(_) => diagnostic.did_you_mean(near),
                    None => diagnostic
                        .help("signals are names like `SIGTERM`, `SIGRTMIN+3`, or 1 to 64"),
                });
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, d: &mut Decoder, choices: &[(&str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let expected = listed(words(), "or");
        let written = match self.value() {
            Some(Value::Text(text)) => text,
            // Written `no` by people who know YAML 1.1 well enough to avoid it.
            Some(Value::Bool(false)) if words().any(|word| word == "no") => {
                self.expected_but(d, &expected, |diagnostic| {
                    diagnostic.did_you_mean(Some("no"))
                });
                return None;
            }
            _ => {
                self.expected(d, &expected);
                return None;
            }
        };
        let chosen = choices.iter().find(|(word, _)| *word == written);
        if chosen.is_none() {
            let near = nearest(written, words());
            self.expected_but(d, &expected, |diagnostic| diagnostic.did_you_mean(near));
        }
        chosen.map(|(_, value)| *value)
    }

    /// What `T` reads from its text: an address, a network.
    pub fn parsed<T: FromStr<Err: Display>>(&self, d: &mut Decoder, expected: &str) -> Option<T> {
        let parsed = match self.value() {
            Some(Value::Text(text)) => text.trim().parse().ok(),
            _ => None,
        };
        if parsed.is_none() {
            self.expected(d, expected);
        }
        parsed
    }

    /// A list, each item read by `read`; a single value stands for a list of it. Items with
    /// errors are left out.
    pub fn list<T>(
        &self,
        d: &mut Decoder,
        expected: &str,
        mut read: impl FnMut(&mut Decoder, &Slot<'n>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Some(items) = self.items() else {
            if self.entries().is_some() {
                self.expected(d, expected);
                return None;
            }
            return read(d, self).map(|item| vec![item]);
        };
        if items.len() > MAX_ITEMS {
            d.error(self.error(format!("{} has more than {MAX_ITEMS} items", self.what)));
            return None;
        }
        Some(items.iter().filter_map(|item| read(d, item)).collect())
    }

    pub fn exprs(&self, d: &mut Decoder) -> Option<Vec<Expr>> {
        self.list(d, "a list of strings", |d, item| item.expr(d))
    }

    /// A command: a list of words, or a line that is split as a shell splits it.
    pub fn command(&self, d: &mut Decoder) -> Option<Vec<Expr>> {
        let faults = d.faults;
        let words = match (self.items(), self.value()) {
            (Some(_), _) => self.list(d, "a list", |d, item| item.text(d).map(Expr))?,
            (None, Some(Value::Text(line))) => match split_words(line) {
                Ok(words) => words.into_iter().map(Expr).collect(),
                Err(why) => {
                    d.error(
                        self.error(format!("cannot split {} into words: {why}", self.what))
                            .help("write it as a list: [ program, argument ]"),
                    );
                    return None;
                }
            },
            _ => {
                self.expected(d, "a command: a list of words, or one line");
                return None;
            }
        };
        let program = words.first().map_or("", |word| word.0.trim());
        if program.is_empty() && d.faults == faults {
            d.error(
                self.error(format!("{} is empty", self.what))
                    .help("begin with the program"),
            );
            return None;
        }
        Some(words)
    }

    /// A mapping from free keys, each value read by `read`.
    pub fn map<T>(
        &self,
        d: &mut Decoder,
        mut read: impl FnMut(&mut Decoder, &Slot<'n>) -> Option<T>,
    ) -> Option<IndexMap<String, T>> {
        let Some(entries) = self.entries() else {
            self.expected(d, "a mapping");
            return None;
        };
        if entries.len() > MAX_ITEMS {
            d.error(self.error(format!("{} has more than {MAX_ITEMS} entries", self.what)));
            return None;
        }
        let mut map = IndexMap::with_capacity(entries.len());
        let mut whole = true;
        for entry in entries {
            let what = format!("`{}` in {}", shortened(&entry.key), self.what);
            match read(d, &Slot::under(entry, what)) {
                Some(value) => {
                    map.insert(entry.key.to_string(), value);
                }
                None => whole = false,
            }
        }
        whole.then_some(map)
    }
}

impl Fields<'_> {
    /// A duration field, `default` when it is not given or wrong.
    pub fn duration(
        &mut self,
        d: &mut Decoder,
        field: &'static str,
        least: Duration,
        default: Duration,
    ) -> Duration {
        self.take(d, field)
            .and_then(|slot| slot.duration(d, least))
            .unwrap_or(default)
    }

    /// A boolean field, `default` when it is not given or wrong.
    pub fn boolean(&mut self, d: &mut Decoder, field: &'static str, default: bool) -> bool {
        self.take(d, field)
            .and_then(|slot| slot.boolean(d))
            .unwrap_or(default)
    }

    /// A list field of expressions, empty when it is not given or wrong.
    pub fn exprs(&mut self, d: &mut Decoder, field: &'static str) -> Vec<Expr> {
        self.take(d, field)
            .and_then(|slot| slot.exprs(d))
            .unwrap_or_default()
    }
}
