//! Where in the file each part of a spec stands.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::yaml::tree::{Entry, Node, NodeKind};

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// The way from a spec's top to one of its parts: `containers.prime.command[0]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Step>);

impl Path {
    /// The path through these keys.
    pub fn of<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        Path(
            keys.into_iter()
                .map(|key| Step::Key(key.to_owned()))
                .collect(),
        )
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.with(Step::Key(key.into()))
    }

    /// This path and one list index more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Path(steps)
    }

    /// The steps from the top down.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where each part of one file stands. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Places {
    root: Option<Arc<Node>>,
}

/// What a path leads to.
struct Found<'n> {
    key: Option<&'n Entry>,
    node: &'n Node,
    /// Whether every step of the path was there.
    whole: bool,
}

impl Places {
    pub(super) fn new(root: Arc<Node>) -> Self {
        Places { root: Some(root) }
    }

    /// The whole tree, when there is one.
    pub(super) fn root(&self) -> Option<&Node> {
        self.root.as_deref()
    }

    fn walk(&self, path: &Path) -> Option<Found<'_>> {
        let mut found = Found {
            key: None,
            node: self.root.as_deref()?,
            whole: true,
        };
        for step in &path.0 {
            let next = match (step, &found.node.kind) {
                (Step::Key(key), NodeKind::Map(entries)) => entries
                    .iter()
                    .find(|entry| *entry.key == **key)
                    .map(|entry| (Some(entry), &*entry.value)),
                (Step::Index(index), NodeKind::List(items)) => {
                    items.get(*index).map(|item| (None, &**item))
                }
                // One value where a list may stand too (`tmpfs: /x`).
                (Step::Index(0), NodeKind::Scalar(_)) => Some((found.key, found.node)),
                _ => None,
            };
            match next {
                Some((key, node)) => {
                    found.key = key;
                    found.node = node;
                }
                None => {
                    found.whole = false;
                    break;
                }
            }
        }
        Some(found)
    }

    /// The bytes of the value at `path`; `None` when the file does not give it.
    pub fn value(&self, path: &Path) -> Option<Range<usize>> {
        self.walk(path)
            .filter(|found| found.whole)
            .map(|found| found.node.span.clone())
    }

    /// The bytes of the value that these keys lead to, list indices (from 0) among them;
    /// `None` when the file does not give it.
    pub fn at(&self, segments: &[&str]) -> Option<Range<usize>> {
        let mut node = self.root.as_deref()?;
        for segment in segments {
            node = match &node.kind {
                NodeKind::Map(entries) => entries
                    .iter()
                    .find(|entry| *entry.key == **segment)
                    .map(|entry| &*entry.value)?,
                NodeKind::List(items) => items.get(segment.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node.span.clone())
    }

    /// The bytes of the key that `path` ends in; `None` for a list's items and for what the
    /// file does not give.
    pub fn key(&self, path: &Path) -> Option<Range<usize>> {
        self.walk(path)
            .filter(|found| found.whole)
            .and_then(|found| found.key)
            .map(|entry| entry.key_span.clone())
    }

    /// The bytes of the value at `path`, or of the deepest thing on the way to it that the
    /// file gives: for values that come from a default. A mapping or list there is named by
    /// its key.
    pub fn nearest(&self, path: &Path) -> Option<Range<usize>> {
        self.walk(path).map(|found| match found.key {
            Some(entry) if !found.node.is_scalar() => entry.key_span.clone(),
            _ => found.node.span.clone(),
        })
    }

    /// The bytes of the `part` (a byte range) of the string at `path`; of the whole string
    /// when it is not written verbatim in the file (escapes, folded lines).
    pub fn inside(&self, path: &Path, part: Range<usize>) -> Option<Range<usize>> {
        let found = self.walk(path)?;
        if let (true, NodeKind::Scalar(scalar)) = (found.whole, &found.node.kind)
            && let Some(offset) = scalar.verbatim
            && part.start <= part.end
            && part.end <= scalar.text.len()
        {
            let from = found.node.span.start + offset;
            return Some(from + part.start..from + part.end);
        }
        self.nearest(path)
    }

    /// The bytes of the list item at `path` that says `text`, or of the mapping's key that does:
    /// the place of a reference in `depends_on`.
    pub fn saying(&self, path: &Path, text: &str) -> Option<Range<usize>> {
        let found = self.walk(path)?;
        let says = |node: &Node| matches!(&node.kind, NodeKind::Scalar(s) if s.text == text);
        let place = match &found.node.kind {
            NodeKind::List(items) => items
                .iter()
                .find(|item| says(item))
                .map(|item| item.span.clone()),
            NodeKind::Map(entries) => entries
                .iter()
                .find(|entry| &*entry.key == text)
                .map(|entry| entry.key_span.clone()),
            _ => None,
        };
        place.or_else(|| self.nearest(path))
    }

    /// The keys of the mapping at `path`, in the file's order; empty when there is none.
    pub fn keys(&self, path: &Path) -> Vec<&str> {
        match self.walk(path) {
            Some(Found {
                node:
                    Node {
                        kind: NodeKind::Map(entries),
                        ..
                    },
                whole: true,
                ..
            }) => entries.iter().map(|entry| &*entry.key).collect(),
            _ => Vec::new(),
        }
    }

    /// An error about the value at `path`, at the nearest place that the file gives.
    pub fn diagnostic(&self, path: &Path, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            span: self.nearest(path),
            ..Diagnostic::whole(message)
        }
    }

    /// An error about the key that `path` ends in.
    pub fn diagnostic_at_key(&self, path: &Path, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            span: self.key(path).or_else(|| self.nearest(path)),
            ..Diagnostic::whole(message)
        }
    }
}
