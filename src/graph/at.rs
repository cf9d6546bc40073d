//! Places in the spec, and the errors that are found there.

use std::ops::Range;

use crate::spec::diagnostic::Diagnostic;

/// Where the part of the spec stands that a path leads to, in bytes of its file. The segments
/// are keys and list indices from 0: `["containers", "prime", "command", "1"]`.
pub type PlaceOf<'a> = dyn Fn(&[&str]) -> Option<Range<usize>> + 'a;

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

    fn segments(&self) -> Vec<String> {
        let mut segments = self.parent.map_or_else(Vec::new, At::segments);
        segments.push(match self.step {
            Step::Key(key) => key.to_owned(),
            Step::Index(index) => index.to_string(),
        });
        segments
    }
}

/// The errors found so far.
pub(super) struct Problems<'a> {
    place_of: &'a PlaceOf<'a>,
    found: Vec<Diagnostic>,
}

impl<'a> Problems<'a> {
    /// None yet.
    pub(super) fn new(place_of: &'a PlaceOf<'a>) -> Self {
        Problems {
            place_of,
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

    /// The place of a path, or of the nearest thing around it that has one: a `command` written
    /// as one string has no elements.
    pub(super) fn span(&self, at: &At<'_>) -> Option<Range<usize>> {
        let segments = at.segments();
        (1..=segments.len()).rev().find_map(|length| {
            let prefix: Vec<&str> = segments.iter().take(length).map(String::as_str).collect();
            (self.place_of)(&prefix)
        })
    }

    /// The place of one dependency: `depends_on` is a list, or a map with references as keys.
    pub(super) fn dependency_span(
        &self,
        owner: &At<'_>,
        index: usize,
        reference: &str,
    ) -> Option<Range<usize>> {
        let list = owner.key("depends_on");
        let exact = |at: At<'_>| {
            let segments = at.segments();
            let path: Vec<&str> = segments.iter().map(String::as_str).collect();
            (self.place_of)(&path)
        };
        exact(list.key(reference))
            .or_else(|| exact(list.index(index)))
            .or_else(|| self.span(&list))
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
