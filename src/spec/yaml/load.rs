//! Events -> tree, with every limit that a hostile file meets.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::syntax;
use super::tree::{Node, NodeKind, Scalar, shortened, weight_of};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::variables::{Lookup, interpolate};

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
pub(super) struct Stop;

/// A text that is to be read.
pub(in crate::spec) struct Text<'s> {
    /// What messages call it.
    pub name: &'s str,
    /// Its content.
    pub source: &'s str,
    /// Where it begins among all texts of its spec: spans count from there.
    pub base: usize,
    /// How much the texts before it count for.
    pub weight: usize,
    /// Whether `!reset` and `!override` mean something.
    pub overlay: bool,
    /// The values of variables.
    pub lookup: Lookup<'s>,
}

impl<'s> Text<'s> {
    /// One that is all there is, without variables.
    pub fn alone(name: &'s str, source: &'s str) -> Self {
        Text {
            name,
            source,
            base: 0,
            weight: 0,
            overlay: false,
            lookup: &|_| None,
        }
    }
}

/// What came of a text. Without a tree there is at least one error.
pub(in crate::spec) struct Loaded {
    pub root: Option<Arc<Node>>,
    pub errors: Vec<Diagnostic>,
    /// How much all texts count for, up to this one.
    pub weight: usize,
}

/// The document in a text, its variables filled in, and the errors met while reading it.
pub(in crate::spec) fn load(text: &Text<'_>) -> Loaded {
    let source = text.source;
    if source.len() > MAX_INPUT {
        let message = format!(
            "`{}` is {} bytes long, more than the {MAX_INPUT} that are read",
            text.name,
            source.len()
        );
        return Loaded {
            root: None,
            errors: vec![Diagnostic::whole(message).help("keep large content in files of its own")],
            weight: text.weight,
        };
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
        base: text.base,
        lookup: text.lookup,
        overlay: text.overlay,
        in_key: false,
        parser: Parser::new_from_str_with_options(source, options),
        anchors: HashMap::new(),
        weight: text.weight,
        tag_at: None,
        errors: Vec::new(),
    };
    let root = loader.document(text.name).ok();
    Loaded {
        root,
        errors: loader.errors,
        weight: loader.weight,
    }
}

pub(super) struct Loader<'s> {
    pub(super) source: &'s str,
    pub(super) base: usize,
    lookup: Lookup<'s>,
    overlay: bool,
    /// A key is being read: nothing is filled in there.
    pub(super) in_key: bool,
    parser: Parser<'s, StrInput<'s>>,
    /// Finished anchored nodes by the parser's id.
    anchors: HashMap<usize, Arc<Node>>,
    /// Nodes so far, aliases followed.
    weight: usize,
    /// Where the tag of the last event begins in the source.
    tag_at: Option<usize>,
    pub(super) errors: Vec<Diagnostic>,
}

impl<'s> Loader<'s> {
    fn stop<T>(&mut self, diagnostic: Diagnostic) -> Result<T, Stop> {
        self.errors.push(diagnostic);
        Err(Stop)
    }

    pub(super) fn next(&mut self) -> Result<(Event<'s>, Range<usize>), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.tag_at = span.tag_start.and_then(|mark| mark.byte_offset());
                Ok((event, self.range(&span)))
            }
            Some(Err(error)) => {
                let diagnostic = syntax::diagnostic(self.source, &error);
                self.stop(diagnostic.moved(self.base))
            }
            None => {
                let end = self.base + self.source.len();
                self.stop(Diagnostic::at(end..end, "the file ends too early"))
            }
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let most = self.source.len();
        let range = span.byte_range().unwrap_or(most..most);
        let start = range.start.min(most);
        self.base + start..self.base + range.end.clamp(start, most)
    }

    /// The source at a span.
    fn written(&self, span: Range<usize>) -> Option<&'s str> {
        self.source
            .get(span.start.checked_sub(self.base)?..span.end.checked_sub(self.base)?)
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
    pub(super) fn count(&mut self, nodes: usize, span: &Range<usize>) -> Result<(), Stop> {
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

    pub(super) fn node(
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

    /// A value of a mapping: there an overlay may say `!reset` or `!override`.
    pub(super) fn value(
        &mut self,
        event: Event<'s>,
        span: Range<usize>,
        depth: usize,
    ) -> Result<Arc<Node>, Stop> {
        let mut event = event;
        let tag = match &mut event {
            Event::Scalar(_, _, _, tag)
            | Event::SequenceStart(_, _, tag)
            | Event::MappingStart(_, _, tag)
                if self.overlay && directive(tag.as_deref()).is_some() =>
            {
                tag.take()
            }
            _ => None,
        };
        let node = self.node(event, span.clone(), depth)?;
        Ok(match directive(tag.as_deref()) {
            None => node,
            Some(directive) => Arc::new(Node {
                span: node.span.clone(),
                weight: node.weight,
                kind: NodeKind::Instead(match directive {
                    Directive::Reset => None,
                    Directive::Override => Some(node),
                }),
            }),
        })
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
        let filled = match self.in_key {
            true => Ok(None),
            false => interpolate(text, self.lookup),
        };
        let (text, filled) = match &filled {
            Ok(None) => (text, false),
            Ok(Some(filled)) => (filled.as_str(), true),
            Err(fault) => {
                self.count(1, &span)?;
                let shift = self.verbatim(text, &span);
                let at = shift.map_or(span.clone(), |shift| {
                    let start = span.start + shift;
                    start + fault.at.start..start + fault.at.end
                });
                let diagnostic = Diagnostic::at(at, fault.message.as_str());
                self.errors.push(diagnostic.help(fault.help.as_str()));
                return Ok(broken(span));
            }
        };
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
        let verbatim = match filled {
            true => None,
            false => self.verbatim(text, &span),
        };
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

    /// How far into the span the text stands as it is, if it does.
    fn verbatim(&self, text: &str, span: &Range<usize>) -> Option<usize> {
        [0, 1].into_iter().find(|offset| {
            let written = span.start + offset..span.end.saturating_sub(*offset);
            !text.is_empty() && self.written(written) == Some(text)
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
                let end = (start + tag.original().len()).min(self.source.len());
                self.base + start..self.base + end
            }
            _ => span.clone(),
        };
        let help = match directive(Some(tag)) {
            Some(_) => "it stands before the value of a key, in an overlay (`-f`)",
            None => "remove it",
        };
        self.errors
            .push(Diagnostic::at(span, format!("the tag `{name}` has no meaning here")).help(help));
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
    pub(super) fn closing(
        &self,
        start: &Range<usize>,
        end: &Range<usize>,
        last: Option<&Arc<Node>>,
    ) -> usize {
        let bracket = self
            .written(end.clone())
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
}

/// What an overlay does to a value of the file below it, beside merging.
enum Directive {
    Reset,
    Override,
}

fn directive(tag: Option<&Tag>) -> Option<Directive> {
    match &*tag?.original() {
        "!reset" => Some(Directive::Reset),
        "!override" => Some(Directive::Override),
        _ => None,
    }
}

fn broken(span: Range<usize>) -> Node {
    Node {
        span,
        kind: NodeKind::Broken,
        weight: 1,
    }
}
