//! One value of the tree with the words that messages use for it, and mappings with known
//! fields.

use std::ops::Range;

use super::Decoder;
use crate::spec::diagnostic::Diagnostic;
use crate::spec::suggest::{listed, nearest};
use crate::spec::yaml::tree::{Entry, Node, NodeKind, Value, shortened};

/// Words of later versions, and of other tools for what they do not do here.
const NOT_YET: [&str; 15] = [
    "boot",
    "private_users",
    "ports",
    "image",
    "nix",
    "oci",
    "memory",
    "cpus",
    "pids",
    "limits",
    "capabilities",
    "secrets",
    "credentials",
    "source",
    "ipv6",
];

/// Words kept free for fleets.
const RESERVED: [&str; 5] = ["hosts", "on", "spread", "singleton", "subnet_per_host"];

/// What people write from habit, and the field that they mean.
const HABITS: [(&str, &str); 19] = [
    ("volumes", "mounts"),
    ("binds", "mounts"),
    ("env", "environment"),
    ("envs", "environment"),
    ("entrypoint", "command"),
    ("cmd", "command"),
    ("test", "exec"),
    ("healthcheck", "ready"),
    ("workdir", "working_dir"),
    ("cwd", "working_dir"),
    ("dest", "destination"),
    ("src", "source"),
    ("dst", "target"),
    ("scale", "replicas"),
    ("after", "depends_on"),
    ("needs", "depends_on"),
    ("update_config", "update"),
    ("parallelism", "max_unavailable"),
    ("monitor", "min_healthy_time"),
];

/// So many unknown fields of one mapping are told; each is compared with all known ones.
const MAX_UNKNOWN: usize = 100;

/// One value, and what messages call it: "`interval` of check `answers`".
#[derive(Clone)]
pub(super) struct Slot<'n> {
    pub node: &'n Node,
    pub what: String,
    /// Where to point when something is missing from it: its key, if it has one.
    place: Range<usize>,
}

impl<'n> Slot<'n> {
    pub fn new(node: &'n Node, what: impl Into<String>) -> Self {
        Slot {
            node,
            what: what.into(),
            place: node.span.clone(),
        }
    }

    /// The value of a mapping's entry.
    pub fn under(entry: &'n Entry, what: impl Into<String>) -> Self {
        Slot {
            node: &entry.value,
            what: what.into(),
            place: entry.key_span.clone(),
        }
    }

    /// An error at this value.
    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(self.node.span.clone(), message)
    }

    /// Records that something else was expected here.
    pub fn expected(&self, d: &mut Decoder, expected: &str) {
        self.expected_but(d, expected, |diagnostic| diagnostic);
    }

    /// The same, with more said by `add`.
    pub fn expected_but(
        &self,
        d: &mut Decoder,
        expected: &str,
        add: impl FnOnce(Diagnostic) -> Diagnostic,
    ) {
        if matches!(self.node.kind, NodeKind::Broken) {
            d.fault();
            return;
        }
        let message = format!(
            "{} must be {expected}, found {}",
            self.what,
            self.node.found()
        );
        d.error(add(self.error(message)));
    }

    /// The scalar's meaning; `None` for lists and mappings.
    pub fn value(&self) -> Option<Value<'n>> {
        match &self.node.kind {
            NodeKind::Scalar(scalar) => Some(scalar.value()),
            _ => None,
        }
    }

    /// The scalar as it is written, without its quotes.
    pub fn written(&self) -> Option<&'n str> {
        match &self.node.kind {
            NodeKind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<Vec<Slot<'n>>> {
        match &self.node.kind {
            NodeKind::List(items) => Some(
                items
                    .iter()
                    .map(|item| Slot::new(item, format!("an item of {}", self.what)))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> Option<&'n [Entry]> {
        match &self.node.kind {
            NodeKind::Map(entries) => Some(entries),
            _ => None,
        }
    }
}

/// A mapping whose fields are taken one by one; what nobody took is unknown.
pub(super) struct Fields<'n> {
    /// Where to point when a field is missing.
    place: Range<usize>,
    entries: &'n [Entry],
    /// What messages call the mapping: "container `prime`".
    pub owner: String,
    /// Every field that was asked for, in order.
    known: Vec<&'static str>,
    /// Whether `x-…` may hold anything, as compose allows at the top: a place for anchors.
    pub extensions: bool,
    /// Which lines of the decoders opened it.
    #[cfg(test)]
    opened: &'static std::panic::Location<'static>,
}

impl<'n> Fields<'n> {
    /// The fields of the mapping in `slot`, called `owner`; records an error when it is none.
    #[cfg_attr(test, track_caller)]
    pub fn open(d: &mut Decoder, slot: &Slot<'n>, owner: impl Into<String>) -> Option<Self> {
        match slot.entries() {
            Some(entries) => Some(Fields {
                place: slot.place.clone(),
                entries,
                owner: owner.into(),
                known: Vec::new(),
                extensions: false,
                #[cfg(test)]
                opened: std::panic::Location::caller(),
            }),
            None => {
                slot.expected(d, "a mapping");
                None
            }
        }
    }

    fn entry(&self, field: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| *entry.key == *field)
    }

    /// The field's value, if it is given. One that is given without a value is an error.
    pub fn take(&mut self, d: &mut Decoder, field: &'static str) -> Option<Slot<'n>> {
        let slot = self.take_nullable(field)?;
        if slot.node.is_null() {
            d.error(
                slot.error(format!("{} has no value", slot.what))
                    .help("give it one, or remove the line"),
            );
            return None;
        }
        Some(slot)
    }

    /// The field's value, even if it is null.
    pub fn take_nullable(&mut self, field: &'static str) -> Option<Slot<'n>> {
        if !self.known.contains(&field) {
            self.known.push(field);
        }
        let entry = self.entry(field)?;
        Some(Slot::under(entry, format!("`{field}` of {}", self.owner)))
    }

    /// Whether the field is given; does not take it.
    pub fn has(&self, field: &str) -> bool {
        self.entry(field).is_some()
    }

    /// Which of these fields are given; takes none of them.
    pub fn given(&self, fields: &[&'static str]) -> Vec<&'static str> {
        fields
            .iter()
            .copied()
            .filter(|field| self.has(field))
            .collect()
    }

    /// An error at the field's key, or at the mapping's when the field is not given.
    pub fn error_at(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        let span = self
            .entry(field)
            .map_or_else(|| self.place.clone(), |entry| entry.key_span.clone());
        Diagnostic::at(span, message)
    }

    /// The value of a field that must be given; one like `like` is proposed.
    pub fn required(
        &mut self,
        d: &mut Decoder,
        field: &'static str,
        like: &str,
    ) -> Option<Slot<'n>> {
        if !self.has(field) {
            self.missing(d, field, like);
        }
        self.take(d, field)
    }

    /// Records that the field is missing; its value would be like `like`.
    pub fn missing(&self, d: &mut Decoder, field: &str, like: &str) {
        d.error(
            Diagnostic::at(
                self.place.clone(),
                format!("{} has no `{field}`", self.owner),
            )
            .help(format!("add `{field}: {like}`")),
        );
    }

    /// Takes exactly one of `fields`; records an error when none or several are given.
    pub fn one_of(
        &mut self,
        d: &mut Decoder,
        fields: &[&'static str],
    ) -> Option<(&'static str, Slot<'n>)> {
        let given = self.given(fields);
        for field in fields {
            self.take_nullable(field);
        }
        match given.as_slice() {
            [] => {
                d.error(
                    Diagnostic::at(
                        self.place.clone(),
                        format!(
                            "{} needs one of {}",
                            self.owner,
                            listed(fields.iter().copied(), "or")
                        ),
                    )
                    .help("add exactly one of them"),
                );
                None
            }
            [field] => self.take(d, field).map(|slot| (*field, slot)),
            [first, second, ..] => {
                d.error(
                    self.error_at(
                        second,
                        format!("{} has both `{first}` and `{second}`", self.owner),
                    )
                    .help("keep one of them"),
                );
                None
            }
        }
    }

    /// Records the fields that nobody asked for.
    pub fn finish(self, d: &mut Decoder) {
        #[cfg(test)]
        d.mappings.push(super::tests::Mapping {
            entries: self.entries.as_ptr(),
            opened: self.opened,
            fields: self.known.clone(),
        });
        let unknown = self.entries.iter().filter(|entry| {
            let extension = self.extensions && entry.key.starts_with("x-");
            !extension && !self.known.contains(&&*entry.key)
        });
        for entry in unknown.take(MAX_UNKNOWN) {
            d.error(self.unknown(entry));
        }
    }

    fn unknown(&self, entry: &Entry) -> Diagnostic {
        let key = &*entry.key;
        let span = entry.key_span.clone();
        if RESERVED.contains(&key) {
            return Diagnostic::at(
                span,
                format!(
                    "`{key}` in {} is reserved for fleets, not built yet",
                    self.owner
                ),
            )
            .help("remove it: this version keeps one machine");
        }
        let message = format!("unknown field `{}` in {}", shortened(key), self.owner);
        let near = HABITS
            .iter()
            .find(|(habit, field)| *habit == key && self.known.contains(field))
            .map(|(_, field)| *field);
        if near.is_none() && NOT_YET.contains(&key) {
            return Diagnostic::at(
                span,
                format!("`{key}` in {} is not supported by this version", self.owner),
            )
            .help(format!(
                "its fields are {}",
                listed(self.known.iter().copied(), "and")
            ));
        }
        let near = near.or_else(|| {
            let free = self.known.iter().copied().filter(|field| !self.has(field));
            nearest(key, free)
        });
        let diagnostic = Diagnostic::at(span, message);
        match near {
            Some(_) => diagnostic.did_you_mean(near),
            None => diagnostic.help(format!(
                "its fields are {}",
                listed(self.known.iter().copied(), "and")
            )),
        }
    }
}
