//! Events -> tree, with every limit that a hostile file meets.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::syntax;
use super::tree::{Entry, Node, NodeKind, Scalar, shortened, weight_of};
use crate::spec::diagnostic::{Diagnostic, position};

/// The largest file that is read, in bytes.
pub(in crate::spec) const MAX_INPUT: usize = 1024 * 1024;
/// How deep lists and mappings may nest.
pub(in crate::spec) const MAX_DEPTH: usize = 32;
/// The longest text of one value, in bytes.
pub(in crate::spec) const MAX_SCALAR: usize = 64 * 1024;
/// How many values a file may hold once its aliases are followed; 32 bytes of text count as
/// one more.
pub(in crate::spec) const MAX_WEIGHT: usize = 100_000;
/// After so many errors the rest of the file is not looked at.
const MAX_ERRORS: usize = 100;

/// The tree could not be finished; why is among the errors.
struct Stop;

/// The document in `source`, the content of `file_name`, and the errors met while reading it. Without a tree there is at
/// least one error.
pub(in crate::spec) fn load(file_name: &str, source: &str) -> (Option<Arc<Node>>, Vec<Diagnostic>) {
    if source.len() > MAX_INPUT {
        let message = format!(
            "`{file_name}` is {} bytes long, more than the {MAX_INPUT} that are read",
            source.len()
        );
        return (
            None,
            vec![Diagnostic::whole(message).help("keep large content in files of its own")],
        );
    }
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        simple_key_max_lookahead: 4096,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut loader = Loader {
        source,
        parser: Parser::new_from_str_with_options(source, options),
        anchors: HashMap::new(),
        weight: 0,
        tag_at: None,
        errors: Vec::new(),
    };
    let root = loader.document(file_name).ok();
    (root, loader.errors)
}

struct Loader<'s> {
    source: &'s str,
    parser: Parser<'s, StrInput<'s>>,
    /// Finished anchored nodes by the parser's id.
    anchors: HashMap<usize, Arc<Node>>,
    /// Nodes so far, aliases followed.
    weight: usize,
    /// Where the tag of the last event begins.
    tag_at: Option<usize>,
    errors: Vec<Diagnostic>,
}

impl<'s> Loader<'s> {
    fn stop<T>(&mut self, diagnostic: Diagnostic) -> Result<T, Stop> {
        self.errors.push(diagnostic);
        Err(Stop)
    }

    fn next(&mut self) -> Result<(Event<'s>, Range<usize>), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.tag_at = span.tag_start.and_then(|mark| mark.byte_offset());
                Ok((event, self.range(&span)))
            }
            Some(Err(error)) => {
                let diagnostic = syntax::diagnostic(self.source, &error);
                self.stop(diagnostic)
            }
            None => {
                let end = self.source.len();
                self.stop(Diagnostic::at(end..end, "the file ends too early"))
            }
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let most = self.source.len();
        let range = span.byte_range().unwrap_or(most..most);
        let start = range.start.min(most);
        start..range.end.clamp(start, most)
    }

    fn document(&mut self, file_name: &str) -> Result<Arc<Node>, Stop> {
        loop {
            match self.next()? {
                (Event::DocumentStart(..), _) => break,
                (Event::StreamEnd, _) => {
                    return self.stop(
                        Diagnostic::whole(format!("`{file_name}` is empty"))
                            .help("begin with `name:` and the stack's name"),
                    );
                }
                _ => {}
            }
        }
        let (event, span) = self.next()?;
        let root = self.node(event, span, 0)?;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(..), span) => {
                    return self.stop(
                        Diagnostic::at(span, "a second YAML document begins here")
                            .help("one file holds one spec; remove the `---`"),
                    );
                }
                _ => {}
            }
        }
    }

    /// Adds to the count of nodes, and stops when there are too many.
    fn count(&mut self, nodes: usize, span: &Range<usize>) -> Result<(), Stop> {
        self.weight = self.weight.saturating_add(nodes);
        if self.weight > MAX_WEIGHT {
            return self.stop(
                Diagnostic::at(
                    span.clone(),
                    format!("the spec grows to more than {MAX_WEIGHT} values here"),
                )
                .help("aliases count as often as they are used"),
            );
        }
        if self.errors.len() > MAX_ERRORS {
            return Err(Stop);
        }
        Ok(())
    }

    fn node(
        &mut self,
        event: Event<'s>,
        span: Range<usize>,
        depth: usize,
    ) -> Result<Arc<Node>, Stop> {
        if depth >= MAX_DEPTH && !matches!(event, Event::Scalar(..) | Event::Alias(_)) {
            return self.stop(
                Diagnostic::at(span, "this is nested too deeply")
                    .help(format!("a spec nests at most {MAX_DEPTH} levels deep")),
            );
        }
        let (node, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span),
            Event::UnresolvedAlias(name) => {
                self.errors.push(
                    Diagnostic::at(
                        span.clone(),
                        format!("the alias `*{}` names no anchor", shortened(&name)),
                    )
                    .help(format!(
                        "an anchor `&{}` must stand above it",
                        shortened(&name)
                    )),
                );
                (broken(span), 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(&text, style, tag.as_deref(), span)?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", &span);
                (self.list(span, depth)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", &span);
                (self.map(span, depth)?, anchor)
            }
            _ => return self.stop(Diagnostic::at(span, "a value is missing here")),
        };
        let node = Arc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, span: Range<usize>) -> Result<Arc<Node>, Stop> {
        match self.anchors.get(&id).cloned() {
            Some(node) => {
                self.count(node.weight, &span)?;
                Ok(node)
            }
            None => self.stop(
                Diagnostic::at(span, "this alias stands inside the value that it names")
                    .help("a value cannot hold itself"),
            ),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Range<usize>,
    ) -> Result<Node, Stop> {
        let weight = weight_of(text);
        self.count(weight, &span)?;
        if text.len() > MAX_SCALAR {
            return self.stop(
                Diagnostic::at(
                    span,
                    format!(
                        "this text is {} bytes long, more than {MAX_SCALAR}",
                        text.len()
                    ),
                )
                .help("keep large content in a file of its own"),
            );
        }
        let mut plain = style == ScalarStyle::Plain;
        if let Some(tag) = tag {
            match tag.core_suffix() {
                Some("str") => plain = false,
                Some("int" | "float" | "bool" | "null") => plain = true,
                _ if tag.suffix().is_empty() => plain = false,
                _ => {
                    self.unknown_tag(tag, &span);
                    return Ok(broken(span));
                }
            }
        }
        let verbatim = [0, 1].into_iter().find(|offset| {
            let written = span.start + offset..span.end.saturating_sub(*offset);
            !text.is_empty() && self.source.get(written) == Some(text)
        });
        Ok(Node {
            span,
            kind: NodeKind::Scalar(Scalar {
                text: text.to_owned(),
                plain,
                verbatim,
            }),
            weight,
        })
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, span: &Range<usize>) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(expected)
        {
            self.unknown_tag(tag, span);
        }
    }

    fn unknown_tag(&mut self, tag: &Tag, span: &Range<usize>) {
        let name = shortened(&tag.original());
        let span = match self.tag_at {
            Some(start) if start < self.source.len() => {
                start..(start + tag.original().len()).min(self.source.len())
            }
            _ => span.clone(),
        };
        self.errors.push(
            Diagnostic::at(span, format!("the tag `{name}` has no meaning here")).help("remove it"),
        );
    }

    fn list(&mut self, span: Range<usize>, depth: usize) -> Result<Node, Stop> {
        self.count(1, &span)?;
        let mut items: Vec<Arc<Node>> = Vec::new();
        let mut weight = 1_usize;
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                let span = span.start..self.closing(&span, &at, items.last());
                return Ok(Node {
                    span,
                    kind: NodeKind::List(items),
                    weight,
                });
            }
            let item = self.node(event, at, depth + 1)?;
            weight = weight.saturating_add(item.weight);
            items.push(item);
        }
    }

    /// Where a collection ends: at its bracket, or with its last child, since the blank lines
    /// and comments after it are not part of it.
    fn closing(&self, start: &Range<usize>, end: &Range<usize>, last: Option<&Arc<Node>>) -> usize {
        let bracket = self
            .source
            .get(end.clone())
            .is_some_and(|text| text == "]" || text == "}");
        match last {
            _ if bracket => end.end,
            // A last child that is an alias stands elsewhere.
            Some(child) if child.span.end > start.start && child.span.end <= end.end => {
                child.span.end
            }
            _ => start.end,
        }
    }

    fn map(&mut self, span: Range<usize>, depth: usize) -> Result<Node, Stop> {
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
            let key = self.node(event, at.clone(), depth + 1)?;
            let (event, value_at) = self.next()?;
            // Nothing written: the key is the place to point at.
            let nothing = matches!(event, Event::Scalar(..)) && value_at.is_empty();
            let value_at = if nothing { at.clone() } else { value_at };
            let value = self.node(event, value_at, depth + 1)?;
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
            let line = first.map_or(0, |entry| position(self.source, entry.key_span.start).0);
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

/// The entries of a mapping that is being read.
#[derive(Default)]
struct Own {
    entries: Vec<Entry>,
    names: HashSet<Arc<str>>,
    /// Whether a key is no text, so that the mapping was meant to be something else.
    broken: bool,
}

fn broken(span: Range<usize>) -> Node {
    Node {
        span,
        kind: NodeKind::Broken,
        weight: 1,
    }
}
