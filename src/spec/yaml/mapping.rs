//! The loader's mappings: keys given twice, and `<<`.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, ScalarStyle};

use super::load::{Loader, Stop};
use super::tree::{Entry, Node, NodeKind, shortened};
use crate::spec::diagnostic::{Diagnostic, position};

/// The entries of a mapping that is being read.
#[derive(Default)]
struct Own {
    entries: Vec<Entry>,
    names: HashSet<Arc<str>>,
    /// Whether a key is no text, so that the mapping was meant to be something else.
    broken: bool,
}

impl<'s> Loader<'s> {
    pub(super) fn map(&mut self, span: Range<usize>, depth: usize) -> Result<Node, Stop> {
        self.count(1, &span)?;
        let mut own = Own::default();
        let mut merged: Vec<(Range<usize>, Arc<Node>)> = Vec::new();
        let mut last: Option<Arc<Node>> = None;
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                let end = self.closing(&span, &at, last.as_ref());
                self.merge(&mut own, &merged)?;
                let weight = own
                    .entries
                    .iter()
                    .fold(1_usize, |sum, entry| sum.saturating_add(entry.weight()));
                return Ok(Node {
                    span: span.start..end,
                    kind: if own.broken {
                        NodeKind::Broken
                    } else {
                        NodeKind::Map(own.entries)
                    },
                    weight,
                });
            }
            let is_merge =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            self.in_key = true;
            let key = self.node(event, at.clone(), depth + 1);
            self.in_key = false;
            let key = key?;
            let (event, value_at) = self.next()?;
            // Nothing written: the key is the place to point at.
            let nothing = matches!(event, Event::Scalar(..)) && value_at.is_empty();
            let value_at = if nothing { at.clone() } else { value_at };
            let value = self.value(event, value_at, depth + 1)?;
            last = Some(Arc::clone(&value));
            if is_merge {
                if !merged.is_empty() {
                    self.errors.push(
                        Diagnostic::at(at.clone(), "the key `<<` is given twice")
                            .help("write `<<: [*first, *second]`"),
                    );
                }
                merged.push((at, value));
                continue;
            }
            let name = match &key.kind {
                NodeKind::Scalar(scalar) => Arc::from(scalar.text.as_str()),
                NodeKind::Broken => continue,
                _ => {
                    own.broken = true;
                    self.errors.push(
                        Diagnostic::at(at, "a key cannot be a list or a mapping")
                            .help("an expression must be quoted: \"{{ name }}\""),
                    );
                    continue;
                }
            };
            self.insert(&mut own, name, at, value);
        }
    }

    fn insert(&mut self, own: &mut Own, key: Arc<str>, key_span: Range<usize>, value: Arc<Node>) {
        if !own.names.insert(Arc::clone(&key)) {
            let first = own.entries.iter().find(|entry| entry.key == key);
            let line = first.map_or(0, |entry| {
                position(self.source, entry.key_span.start.saturating_sub(self.base)).0
            });
            self.errors.push(
                Diagnostic::at(
                    key_span,
                    format!("the key `{}` is given twice", shortened(&key)),
                )
                .label(format!("first given in line {line}"))
                .help("remove one of the two"),
            );
            return;
        }
        own.entries.push(Entry {
            key,
            key_span,
            value,
        });
    }

    /// Adds the entries that `<<` brings: what the mapping has itself wins, then what comes
    /// earlier.
    fn merge(&mut self, own: &mut Own, merged: &[(Range<usize>, Arc<Node>)]) -> Result<(), Stop> {
        for (at, source) in merged {
            let parts = match &source.kind {
                NodeKind::List(items) => items.clone(),
                _ => vec![Arc::clone(source)],
            };
            for part in parts {
                match &part.kind {
                    NodeKind::Map(entries) => {
                        for entry in entries {
                            if own.names.insert(Arc::clone(&entry.key)) {
                                self.count(entry.weight(), at)?;
                                own.entries.push(entry.clone());
                            }
                        }
                    }
                    NodeKind::Broken => {}
                    _ => self.errors.push(
                        Diagnostic::at(
                            at.clone(),
                            format!("`<<` merges mappings, found {}", part.found()),
                        )
                        .help("write `<<: *anchor`, or `<<: [*first, *second]`"),
                    ),
                }
            }
        }
        Ok(())
    }
}
