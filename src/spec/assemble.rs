//! A spec's texts -> one tree: what is included is united, what is laid over is merged.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::diagnostic::Diagnostic;
use super::texts::{Source, Sources, SpecText};
use super::yaml::load::{self, MAX_DEPTH, MAX_INPUT, Text};
use super::yaml::tree::{Entry, Node, NodeKind, Value, shortened};

#[cfg(test)]
mod tests;

/// The most files that one spec may have.
pub(super) const MAX_FILES: usize = 64;
/// How deep files may include files.
const MAX_INCLUDES: usize = 8;
/// The field that names further files.
const INCLUDE: &str = "include";

/// What the texts came to. Without a tree there is at least one error.
pub(super) struct Assembled {
    pub root: Option<Arc<Node>>,
    pub errors: Vec<Diagnostic>,
}

/// Reads the texts of `spec`, which lie in this row, and puts them together.
pub(super) fn assemble(spec: &SpecText, sources: &Sources<'_>) -> Assembled {
    let mut assembly = Assembly {
        spec,
        sources,
        errors: Vec::new(),
        weight: 0,
        taken: BTreeSet::new(),
        open: Vec::new(),
        whole: true,
    };
    let root = assembly.all();
    let root = root.filter(|_| assembly.whole);
    Assembled {
        root,
        errors: assembly.errors,
    }
}

/// A path that a file includes, and where it says so.
pub(super) struct Include {
    pub path: PathBuf,
    pub written: String,
    pub span: Range<usize>,
}

struct Assembly<'t> {
    spec: &'t SpecText,
    sources: &'t Sources<'t>,
    errors: Vec<Diagnostic>,
    weight: usize,
    /// Files that stand in the tree: one that is included twice is taken once.
    taken: BTreeSet<PathBuf>,
    /// The files that are being read, each included by the one before.
    open: Vec<PathBuf>,
    /// Every text gave a tree.
    whole: bool,
}

impl<'t> Assembly<'t> {
    fn all(&mut self) -> Option<Arc<Node>> {
        let texts = self.sources.texts();
        let bytes: usize = texts.iter().map(|source| source.text.len()).sum();
        if texts.len() > 1 && bytes > MAX_INPUT {
            self.errors.push(
                Diagnostic::whole(format!(
                    "the files of `{}` are {bytes} bytes long together, more than the {MAX_INPUT} \
                     that are read",
                    self.sources.name()
                ))
                .help("keep large content in files of its own"),
            );
            return None;
        }
        let further = &self.spec.further;
        let mut root: Option<Arc<Node>> = None;
        for source in texts
            .iter()
            .filter(|source| is_root(self.spec, source.path))
        {
            let Some(part) = self.group(source, false) else {
                continue;
            };
            root = Some(match root {
                Some(before) => self.unite(&before, &part),
                None => part,
            });
        }
        if further.folder && texts.is_empty() {
            self.errors.push(
                Diagnostic::whole(format!("`{}` holds no spec", self.sources.name()))
                    .help("put `hatchery.yaml` into it, or other files that end in `.yaml`"),
            );
        }
        for overlay in &further.overlays {
            let found = texts
                .iter()
                .rev()
                .find(|source| source.path == overlay.path);
            let Some(source) = found else { continue };
            self.taken.remove(&overlay.path);
            let Some(over) = self.group(source, true) else {
                continue;
            };
            root = root.and_then(|root| self.lay(&root, &over));
        }
        root
    }

    /// The tree of a text and of what it includes.
    fn group(&mut self, source: &'t Source<'t>, overlay: bool) -> Option<Arc<Node>> {
        if !self.taken.insert(source.path.to_owned()) {
            return None;
        }
        let spec = self.spec;
        let read = load::load(&Text {
            name: &source.name,
            source: source.text,
            base: source.base,
            weight: self.weight,
            overlay,
            lookup: &|name| spec.variable(name),
        });
        self.weight = read.weight;
        self.errors.extend(read.errors);
        let Some(root) = read.root else {
            self.whole = false;
            return None;
        };
        let (mut root, includes) = split(&root, source.path, &mut self.errors);
        self.open.push(source.path.to_owned());
        for include in includes {
            if let Some(part) = self.included(&include, overlay) {
                root = self.unite(&root, &part);
            }
        }
        self.open.pop();
        Some(root)
    }

    fn included(&mut self, include: &Include, overlay: bool) -> Option<Arc<Node>> {
        let refuse = |message: String, help: &str| {
            Diagnostic::at(include.span.clone(), message).help(help.to_owned())
        };
        let shown = shortened(&include.written);
        if self.open.contains(&include.path) {
            let message = format!("`{shown}` includes itself");
            let help = "a file cannot be a part of what it includes";
            self.errors.push(refuse(message, help));
            return None;
        }
        if self.open.len() > MAX_INCLUDES {
            let message = "files include files too deeply here".to_owned();
            let help = format!("they may be nested {MAX_INCLUDES} deep");
            self.errors.push(refuse(message, &help));
            self.whole = false;
            return None;
        }
        let texts = self.sources.texts();
        if let Some(source) = texts.iter().find(|source| source.path == include.path) {
            return self.group(source, overlay);
        }
        let mut parts = self.spec.further.parts.iter();
        let why = parts
            .find(|part| part.path == include.path)
            .and_then(|part| part.unread.as_deref())
            .unwrap_or("it was not read");
        let message = format!("cannot include `{shown}`: {why}");
        let help = "the path is relative to the folder of the file that includes it";
        self.errors.push(refuse(message, help));
        self.whole = false;
        None
    }

    /// Two equal parts as one: sections have the entries of both, lists of requirements follow
    /// each other, and nothing is set twice.
    fn unite(&mut self, one: &Arc<Node>, other: &Arc<Node>) -> Arc<Node> {
        let (NodeKind::Map(first), NodeKind::Map(second)) = (&one.kind, &other.kind) else {
            if !matches!(other.kind, NodeKind::Broken) {
                self.errors.push(Diagnostic::at(
                    other.span.clone(),
                    format!(
                        "a part of a spec must be a mapping, found {}",
                        other.found()
                    ),
                ));
            }
            return Arc::clone(one);
        };
        let mut entries = keyed(first);
        for entry in second {
            let Some(before) = entries.get_mut(&entry.key) else {
                entries.insert(Arc::clone(&entry.key), entry.clone());
                continue;
            };
            // A place for the anchors of one file.
            if entry.key.starts_with("x-") || entry.value.is_null() {
                continue;
            }
            match (&before.value.kind, &entry.value.kind) {
                _ if before.value.is_null() => *before = entry.clone(),
                (NodeKind::Map(_), NodeKind::Map(_)) => {
                    before.value = self.section(&entry.key, &before.value, &entry.value);
                }
                (NodeKind::List(one), NodeKind::List(other)) if &*entry.key == "requires" => {
                    let items = one.iter().chain(other).cloned().collect();
                    before.value = node(before.value.span.clone(), NodeKind::List(items));
                }
                _ => {
                    let twice = self.twice(&entry.key, &before.key_span, &entry.key_span);
                    self.errors.push(twice);
                }
            }
        }
        node(
            one.span.clone(),
            NodeKind::Map(entries.into_values().collect()),
        )
    }

    fn section(&mut self, name: &str, one: &Node, other: &Node) -> Arc<Node> {
        let (NodeKind::Map(first), NodeKind::Map(second)) = (&one.kind, &other.kind) else {
            return node(one.span.clone(), NodeKind::Broken);
        };
        let mut entries = keyed(first);
        for entry in second {
            match entries.get(&entry.key) {
                Some(before) => {
                    let what = format!("{name}.{}", shortened(&entry.key));
                    let twice = self.twice(&what, &before.key_span, &entry.key_span);
                    self.errors.push(twice);
                }
                None => {
                    entries.insert(Arc::clone(&entry.key), entry.clone());
                }
            }
        }
        node(
            one.span.clone(),
            NodeKind::Map(entries.into_values().collect()),
        )
    }

    fn twice(&self, what: &str, first: &Range<usize>, second: &Range<usize>) -> Diagnostic {
        let diagnostic = Diagnostic::at(second.clone(), format!("`{what}` is set in two parts"))
            .help("keep one of the two; only an overlay (`-f`) replaces what another file sets");
        match self.sources.locate(first.start) {
            Some(place) => diagnostic.label(format!("first set in {}:{}", place.file, place.line)),
            None => diagnostic,
        }
    }

    /// An overlay over what is below it.
    fn lay(&mut self, below: &Arc<Node>, over: &Arc<Node>) -> Option<Arc<Node>> {
        if !matches!(over.kind, NodeKind::Map(_)) {
            self.errors.push(Diagnostic::at(
                over.span.clone(),
                format!("an overlay must be a mapping, found {}", over.found()),
            ));
            return Some(Arc::clone(below));
        }
        self.merge(Some(below), over, 0)
    }

    /// `None` removes what is below.
    fn merge(
        &mut self,
        below: Option<&Arc<Node>>,
        over: &Arc<Node>,
        depth: usize,
    ) -> Option<Arc<Node>> {
        let entries = match &over.kind {
            NodeKind::Instead(None) => return None,
            NodeKind::Instead(Some(instead)) => return self.merge(None, instead, depth),
            NodeKind::Map(entries) => entries,
            // An empty section is as good as none.
            NodeKind::Scalar(scalar) if scalar.value() == Value::Null => {
                let section = below.filter(|below| matches!(below.kind, NodeKind::Map(_)));
                return Some(Arc::clone(section.unwrap_or(over)));
            }
            _ => return Some(Arc::clone(over)),
        };
        if depth > MAX_DEPTH {
            self.errors.push(
                Diagnostic::at(over.span.clone(), "this is nested too deeply")
                    .help(format!("a spec nests at most {MAX_DEPTH} levels deep")),
            );
            return Some(node(over.span.clone(), NodeKind::Broken));
        }
        let below = below.map(|below| &below.kind);
        let mut merged: IndexMap<Arc<str>, Option<Entry>> = match below {
            Some(NodeKind::Map(below)) => keyed(below)
                .into_iter()
                .map(|(key, entry)| (key, Some(entry)))
                .collect(),
            _ => IndexMap::new(),
        };
        for entry in entries {
            let known = merged.get(&entry.key).and_then(Option::as_ref);
            let known = known.map(|known| Arc::clone(&known.value));
            let value = self.merge(known.as_ref(), &entry.value, depth + 1);
            let laid = value.map(|value| Entry {
                value,
                ..entry.clone()
            });
            merged.insert(Arc::clone(&entry.key), laid);
        }
        let entries = merged.into_values().flatten().collect();
        Some(node(over.span.clone(), NodeKind::Map(entries)))
    }
}

/// Whether the file stands in the spec by itself, neither included nor laid over.
pub(super) fn is_root(spec: &SpecText, path: &Path) -> bool {
    match spec.further.folder {
        true => path.parent() == Some(&spec.path),
        false => path == spec.path,
    }
}

/// The tree without its `include`, and what that names.
pub(super) fn split(
    root: &Arc<Node>,
    file: &Path,
    errors: &mut Vec<Diagnostic>,
) -> (Arc<Node>, Vec<Include>) {
    let NodeKind::Map(entries) = &root.kind else {
        return (Arc::clone(root), Vec::new());
    };
    let Some(include) = entries.iter().find(|entry| &*entry.key == INCLUDE) else {
        return (Arc::clone(root), Vec::new());
    };
    let rest = entries.iter().filter(|entry| &*entry.key != INCLUDE);
    let rest = node(root.span.clone(), NodeKind::Map(rest.cloned().collect()));
    let items = match &include.value.kind {
        NodeKind::List(items) => items.clone(),
        _ => vec![Arc::clone(&include.value)],
    };
    let mut includes = Vec::new();
    for item in items {
        let written = match &item.kind {
            NodeKind::Scalar(scalar) => match scalar.value() {
                Value::Text(text) if !text.trim().is_empty() && !text.contains('\0') => Some(text),
                _ => None,
            },
            NodeKind::Broken => continue,
            _ => None,
        };
        let Some(written) = written else {
            let message = format!(
                "`{INCLUDE}` must be a list of paths, found {}",
                item.found()
            );
            errors.push(Diagnostic::at(item.span.clone(), message));
            continue;
        };
        includes.push(Include {
            path: beside(file, written),
            written: written.to_owned(),
            span: item.span.clone(),
        });
    }
    (rest, includes)
}

/// A path that stands in `file`, without `.`; `..` stays, because links may stand before it.
fn beside(file: &Path, written: &str) -> PathBuf {
    let joined = file.parent().unwrap_or(Path::new("/")).join(written);
    let parts = joined
        .components()
        .filter(|part| *part != Component::CurDir);
    parts.collect()
}

fn keyed(entries: &[Entry]) -> IndexMap<Arc<str>, Entry> {
    let pairs = entries.iter().cloned();
    pairs.map(|entry| (Arc::clone(&entry.key), entry)).collect()
}

fn node(span: Range<usize>, kind: NodeKind) -> Arc<Node> {
    let weight = match &kind {
        NodeKind::Map(entries) => entries
            .iter()
            .fold(1_usize, |sum, entry| sum.saturating_add(entry.weight())),
        NodeKind::List(items) => items
            .iter()
            .fold(1_usize, |sum, item| sum.saturating_add(item.weight)),
        _ => 1,
    };
    Arc::new(Node { span, kind, weight })
}
