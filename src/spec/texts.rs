//! A spec's texts: what it is made of, whole, so that it compiles without the disk and can be
//! read again from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::diagnostic::{Diagnostic, position};
use super::model::{Commit, Provenance};
use super::report;

/// A spec's texts and where they lie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecText {
    /// The first file, or the folder whose files are the spec; absolute. Relative paths of the
    /// spec are relative to its folder, or to the folder itself.
    pub path: PathBuf,
    /// The first file's content; empty for a folder.
    pub text: String,
    /// What there is beside it.
    #[serde(default, skip_serializing_if = "Further::is_empty")]
    pub further: Further,
}

/// What a spec of more than one file has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Further {
    /// The spec's path is a folder; its files are among the parts.
    pub folder: bool,
    /// The folder's files in the order of their names, then what is included.
    pub parts: Vec<Part>,
    /// What is laid over it, in order.
    pub overlays: Vec<Part>,
    /// The files of variables that were asked for, in order; the later wins.
    pub vars: Vec<PathBuf>,
    /// Each variable that the texts name, with its value in the environment of whoever read
    /// them.
    pub environment: BTreeMap<String, Option<String>>,
    /// The values that files gave to those that the environment does not have.
    pub values: BTreeMap<String, String>,
    /// The commit that it was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Provenance>,
}

impl Further {
    /// Whether the spec is one file without variables.
    pub fn is_empty(&self) -> bool {
        *self == Further::default()
    }
}

/// One further file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file, absolute.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

/// The file of variables that lies beside a spec.
const BESIDE: &str = ".env";

impl SpecText {
    /// A spec of one file.
    pub fn of(path: impl Into<PathBuf>, text: impl Into<String>) -> SpecText {
        SpecText {
            path: path.into(),
            text: text.into(),
            further: Further::default(),
        }
    }

    /// The commit that it was read from.
    pub fn commit(&self) -> Option<&Commit> {
        self.further.origin.as_ref().map(|origin| &origin.commit)
    }

    /// The folder that relative paths of the spec are relative to.
    pub fn dir(&self) -> &Path {
        match self.further.folder {
            true => &self.path,
            false => self.path.parent().unwrap_or(Path::new("/")),
        }
    }

    /// Every file, and folder, that decides what the spec is; they need not be there.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let further = &self.further;
        let parts = further.parts.iter().chain(&further.overlays);
        let mut files: BTreeSet<PathBuf> = parts.map(|part| part.path.clone()).collect();
        files.insert(self.path.clone());
        files.extend(further.vars.iter().cloned());
        if !further.environment.is_empty() {
            files.extend(self.beside());
        }
        files
    }

    /// The file of variables beside the spec, which counts unless others are named.
    pub(super) fn beside(&self) -> Option<PathBuf> {
        self.further
            .vars
            .is_empty()
            .then(|| self.dir().join(BESIDE))
    }

    /// The value of a variable.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let further = &self.further;
        let given = further.environment.get(name).cloned().flatten();
        given.or_else(|| further.values.get(name).cloned())
    }

    /// The arguments that name this spec to a verb: `-f OVERLAY … --vars FILE … -- PATH`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for overlay in &self.further.overlays {
            arguments.extend(["-f".into(), overlay.path.clone().into()]);
        }
        for vars in &self.further.vars {
            arguments.extend(["--vars".into(), vars.clone().into()]);
        }
        arguments.extend(["--".into(), self.path.clone().into()]);
        arguments
    }

    /// The same for people, to be typed after a verb.
    pub fn shown(&self) -> String {
        let mut shown = self.path.display().to_string();
        for overlay in &self.further.overlays {
            shown.push_str(&format!(" -f {}", overlay.path.display()));
        }
        for vars in &self.further.vars {
            shown.push_str(&format!(" --vars {}", vars.display()));
        }
        shown
    }

    /// What tells this spec from another of the same paths: the text, if it is the only one.
    pub fn content(&self) -> String {
        if self.further.is_empty() {
            return self.text.clone();
        }
        // Strings, numbers and maps of strings can always be written.
        let further = serde_json::to_string(&self.further).unwrap_or_default();
        format!("{}\0{further}", self.text)
    }

    /// The texts in one row.
    pub fn sources(&self) -> Sources<'_> {
        let further = &self.further;
        let first = (!further.folder).then_some((self.path.as_path(), self.text.as_str()));
        let parts = further.parts.iter().chain(&further.overlays);
        let read = parts.filter(|part| part.unread.is_none());
        let mut sources = Sources {
            name: self.path.display().to_string(),
            texts: Vec::new(),
        };
        for (path, text) in first
            .into_iter()
            .chain(read.map(|part| (part.path.as_path(), part.text.as_str())))
        {
            sources.push(path, text);
        }
        match &further.origin {
            // Of a commit's file it matters where it lies in the repository.
            Some(origin) => sources.within(&origin.tree),
            None => sources,
        }
    }
}

/// All texts of a spec in one row, so that a span of bytes says which of them it is in: each
/// begins one byte after the end of the one before.
#[derive(Debug, Clone)]
pub struct Sources<'t> {
    /// What messages call the spec as a whole.
    name: String,
    texts: Vec<Source<'t>>,
}

/// One text in the row.
#[derive(Debug, Clone)]
pub(super) struct Source<'t> {
    pub path: &'t Path,
    pub name: String,
    pub text: &'t str,
    /// Where it begins.
    pub base: usize,
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl<'t> Sources<'t> {
    fn push(&mut self, path: &'t Path, text: &'t str) {
        let base = self
            .texts
            .last()
            .map_or(0, |last| last.base + last.text.len() + 1);
        self.texts.push(Source {
            path,
            name: path.display().to_string(),
            text,
            base,
        });
    }

    /// The same, with other words for the spec's path: as somebody typed it.
    #[must_use]
    pub fn called(mut self, name: &str) -> Self {
        for source in &mut self.texts {
            if source.name == self.name {
                source.name = name.to_owned();
            }
        }
        self.name = name.to_owned();
        self
    }

    /// The same, with files in this folder called by their names in it.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        for source in &mut self.texts {
            if let Ok(inside) = source.path.strip_prefix(folder) {
                source.name = inside.display().to_string();
            }
        }
        self
    }

    /// What messages call the spec as a whole.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn texts(&self) -> &[Source<'t>] {
        &self.texts
    }

    /// The text that this byte of the row is in.
    pub(super) fn at(&self, offset: usize) -> Option<&Source<'t>> {
        let after = self.texts.partition_point(|source| source.base <= offset);
        self.texts.get(after.checked_sub(1)?)
    }

    /// Where this byte of the row is.
    pub fn locate(&self, offset: usize) -> Option<Place> {
        let source = self.at(offset)?;
        let (line, column) = position(source.text, offset - source.base);
        Some(Place {
            file: source.name.clone(),
            line,
            column,
        })
    }

    /// Whether there is more than one text.
    pub fn are_many(&self) -> bool {
        self.texts.len() > 1
    }

    /// All errors as people read them, sorted by place; at most 50. With `color`, in ANSI
    /// colours.
    pub fn report(&self, errors: &[Diagnostic], color: bool) -> String {
        report::of(self, errors, color)
    }
}
