//! Located tree -> [`Spec`]. Every error is recorded at its place, and reading goes on.

mod check;
mod container;
mod rolling;
mod scalar;
mod slot;
pub(super) mod source;
mod template;
#[cfg(test)]
mod tests;
mod top;
mod workload;

use indexmap::IndexMap;

use self::slot::{Fields, Slot};
use super::diagnostic::Diagnostic;
use super::model::{Registry, Spec};
use super::node::Kind;
use super::text::{MAX_NAME, MAX_STACK_NAME, is_name, name_like};
use super::yaml::tree::{Entry, Node, shortened};

/// How many errors are kept.
const MAX_ERRORS: usize = 1000;

/// Gathers the errors.
#[derive(Default)]
pub(super) struct Decoder {
    errors: Vec<Diagnostic>,
    /// Errors so far, those that are not repeated included.
    faults: usize,
    /// Every mapping with known fields that was read.
    #[cfg(test)]
    mappings: Vec<tests::Mapping>,
}

impl Decoder {
    fn error(&mut self, diagnostic: Diagnostic) {
        self.faults += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(diagnostic);
        }
    }

    /// Something was wrong that has been reported before.
    fn fault(&mut self) {
        self.faults += 1;
    }
}

/// What a tree gave.
pub(super) struct Decoded {
    /// The entries that were read without an error.
    pub sound: Spec,
    /// The entries in which something was wrong, with defaults in the wrong places: good for
    /// looking at their references, and nothing else.
    pub faulty: Spec,
    pub errors: Vec<Diagnostic>,
}

fn empty_spec(name: String) -> Spec {
    Spec {
        name,
        vars: IndexMap::new(),
        requires: Vec::new(),
        registry: Registry::default(),
        networks: IndexMap::new(),
        containers: IndexMap::new(),
        processes: IndexMap::new(),
        services: IndexMap::new(),
        checks: IndexMap::new(),
        templates: IndexMap::new(),
    }
}

/// Reads the whole tree.
pub(super) fn decode(root: &Node) -> Decoded {
    let mut d = Decoder::default();
    let mut decoded = Decoded {
        sound: empty_spec(String::new()),
        faulty: empty_spec(String::new()),
        errors: Vec::new(),
    };
    let slot = Slot::new(root, "the spec");
    if let Some(mut fields) = Fields::open(&mut d, &slot, "the spec") {
        fields.extensions = true;
        top_level(&mut d, &mut fields, &mut decoded);
        fields.finish(&mut d);
    }
    decoded.errors = d.errors;
    decoded
}

fn top_level<'n>(d: &mut Decoder, fields: &mut Fields<'n>, decoded: &mut Decoded) {
    if let Some(slot) = fields.required(d, "name", "my-stack")
        && let Some(name) = slot.text(d)
    {
        stack_name(d, &slot, &name);
        decoded.sound.name = name;
    }
    if let Some(slot) = filled(fields, "vars") {
        decoded.sound.vars = slot.map(d, top::variable).unwrap_or_default();
    }
    if let Some(slot) = filled(fields, "requires") {
        decoded.sound.requires = slot.list(d, "a list", top::requirement).unwrap_or_default();
    }
    if let Some(slot) = filled(fields, "registry") {
        decoded.sound.registry = top::registry(d, &slot).unwrap_or_default();
    }
    let (sound, faulty) = (&mut decoded.sound, &mut decoded.faulty);
    let networks = (&mut sound.networks, &mut faulty.networks);
    section(d, fields, Kind::Networks, networks, top::network);
    let containers = (&mut sound.containers, &mut faulty.containers);
    section(
        d,
        fields,
        Kind::Containers,
        containers,
        container::container,
    );
    let processes = (&mut sound.processes, &mut faulty.processes);
    section(d, fields, Kind::Processes, processes, workload::process);
    let services = (&mut sound.services, &mut faulty.services);
    section(d, fields, Kind::Services, services, check::service);
    let checks = (&mut sound.checks, &mut faulty.checks);
    section(d, fields, Kind::Checks, checks, check::named_check);
    let templates = (&mut sound.templates, &mut faulty.templates);
    section(d, fields, Kind::Templates, templates, template::template);
}

/// A field of the top level; an empty section is as good as none.
fn filled<'n>(fields: &mut Fields<'n>, field: &'static str) -> Option<Slot<'n>> {
    fields
        .take_nullable(field)
        .filter(|slot| !slot.node.is_null())
}

fn stack_name(d: &mut Decoder, slot: &Slot<'_>, name: &str) {
    if is_name(name, MAX_STACK_NAME, false) {
        return;
    }
    let diagnostic = slot
        .error(format!(
            "`{}` cannot be the name of a stack",
            shortened(name)
        ))
        .help(name_rule(MAX_STACK_NAME, false));
    d.error(match name_like(name, MAX_STACK_NAME, false) {
        Some(near) => diagnostic.replace(near),
        None => diagnostic,
    });
}

fn name_rule(most: usize, underscore: bool) -> String {
    let extra = if underscore { "`-` and `_`" } else { "and `-`" };
    format!("use lower-case letters, digits {extra} inside, at most {most} characters")
}

/// Reads one entry of a section: its name, its value, what messages call it.
type ReadEntry<T> = for<'n> fn(&mut Decoder, &Slot<'n>, &str) -> Option<T>;

/// Reads a section; the entries go to the first map when sound, to the second when not.
fn section<T>(
    d: &mut Decoder,
    fields: &mut Fields<'_>,
    kind: Kind,
    (sound, faulty): (&mut IndexMap<String, T>, &mut IndexMap<String, T>),
    read: ReadEntry<T>,
) {
    let Some(slot) = filled(fields, kind.word()) else {
        return;
    };
    let Some(entries) = slot.entries() else {
        slot.expected(d, "a mapping from names");
        return;
    };
    if entries.len() > scalar::MAX_ITEMS {
        let most = scalar::MAX_ITEMS;
        d.error(slot.error(format!("{} has more than {most} entries", slot.what)));
        return;
    }
    for entry in entries {
        let before = d.faults;
        entry_name(d, kind, entry);
        let owner = format!("{} `{}`", singular(kind), shortened(&entry.key));
        let value = read(d, &Slot::under(entry, owner.clone()), &owner);
        if let Some(value) = value {
            let map = if d.faults == before {
                &mut *sound
            } else {
                &mut *faulty
            };
            map.insert(entry.key.to_string(), value);
        }
    }
}

/// What messages call one entry of a section.
fn singular(kind: Kind) -> &'static str {
    match kind {
        Kind::Registry => "registry",
        Kind::Networks => "network",
        Kind::Containers => "container",
        Kind::Processes => "process",
        Kind::Services => "service",
        Kind::Checks => "check",
        Kind::Templates => "template",
    }
}

fn entry_name(d: &mut Decoder, kind: Kind, entry: &Entry) {
    let underscore = matches!(kind, Kind::Checks | Kind::Templates);
    if is_name(&entry.key, MAX_NAME, underscore) {
        return;
    }
    let diagnostic = Diagnostic::at(
        entry.key_span.clone(),
        format!(
            "`{}` cannot be the name of a {}",
            shortened(&entry.key),
            singular(kind)
        ),
    )
    .help(name_rule(MAX_NAME, underscore));
    d.error(match name_like(&entry.key, MAX_NAME, underscore) {
        Some(near) => diagnostic.replace(near),
        None => diagnostic,
    });
}
