//! Places in the spec, and the errors that are found there.

use std::ops::Range;

use crate::spec::diagnostic::Diagnostic;
use crate::spec::places::{Path, Places};

/// Where the parts of a spec stand, in bytes of its file.
pub(super) trait Locate {
    /// Whether the file gives what `path` leads to.
    fn has(&self, path: &Path) -> bool;
    /// What `path` leads to, or the nearest thing around it.
    fn nearest(&self, path: &Path) -> Option<Range<usize>>;
    /// A part of the string that `path` leads to.
    fn inside(&self, path: &Path, part: Range<usize>) -> Option<Range<usize>>;
}

impl Locate for Places {
    fn has(&self, path: &Path) -> bool {
        self.value(path).is_some()
    }

    fn nearest(&self, path: &Path) -> Option<Range<usize>> {
        self.nearest(path)
    }

    fn inside(&self, path: &Path, part: Range<usize>) -> Option<Range<usize>> {
        self.inside(path, part)
    }
}

/// A path into the spec. It lives on the stack and allocates only once something is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
    Somewhere,
}

impl<'a> At<'a> {
    /// A section of the spec.
    pub(super) const fn section(word: &'a str) -> At<'a> {
        At {
            parent: None,
            step: Step::Key(word),
        }
    }

    /// A key below this.
    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    /// An element of this list.
    pub(super) fn index(&'a self, index: usize) -> At<'a> {
        At {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// Somewhere in this string, which holds more than one text.
    pub(super) fn somewhere(&'a self) -> At<'a> {
        At {
            parent: Some(self),
            step: Step::Somewhere,
        }
    }

    fn path(&self) -> Path {
        let parent = self.parent.map_or_else(Path::default, At::path);
        match self.step {
            Step::Key(key) => parent.key(key),
            Step::Index(index) => parent.index(index),
            Step::Somewhere => parent,
        }
    }
}

/// The errors found so far.
pub(super) struct Problems<'a> {
    places: &'a dyn Locate,
    found: Vec<Diagnostic>,
}

impl<'a> Problems<'a> {
    /// None yet.
    pub(super) fn new(places: &'a dyn Locate) -> Self {
        Problems {
            places,
            found: Vec::new(),
        }
    }

    /// Notes an error at a path.
    pub(super) fn add(&mut self, at: &At<'_>, message: impl Into<String>) {
        let span = self.span(at);
        self.note(message.into(), span, None, None);
    }

    /// Notes an error at a path, and what to do about it.
    pub(super) fn advise(
        &mut self,
        at: &At<'_>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = self.span(at);
        self.note(message.into(), span, None, Some(help.into()));
    }

    /// Notes an error at a place. The copies of a group have the same errors: each is noted once.
    pub(super) fn note(
        &mut self,
        message: String,
        span: Option<Range<usize>>,
        label: Option<String>,
        help: Option<String>,
    ) {
        let diagnostic = Diagnostic {
            message,
            span,
            label,
            help,
            replacement: None,
        };
        if !self.found.contains(&diagnostic) {
            self.found.push(diagnostic);
        }
    }

    /// Notes an error in a part of the string at a path.
    pub(super) fn add_inside(
        &mut self,
        at: &At<'_>,
        part: Range<usize>,
        message: impl Into<String>,
    ) {
        let span = match at.step {
            Step::Somewhere => self.span(at),
            Step::Key(_) | Step::Index(_) => self.places.inside(&at.path(), part),
        };
        self.note(message.into(), span, None, None);
    }

    /// Whether the file gives what a path leads to; a short form has no parts.
    pub(super) fn has(&self, at: &At<'_>) -> bool {
        self.places.has(&at.path())
    }

    /// The place of a path, or of the nearest thing around it that has one.
    pub(super) fn span(&self, at: &At<'_>) -> Option<Range<usize>> {
        self.places.nearest(&at.path())
    }

    /// Whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them.
    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }
}
