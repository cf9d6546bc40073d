//! A spec in the one form that the language has for everything: what may be written in two ways
//! is written in the longer one, fields stand in the order of the schema, and durations, numbers
//! and the like have their canonical text. Every value keeps the place that it came from.

mod shape;

use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use self::shape::{CHECK, READY, Shape, TOP};
use super::model::Signal;
use super::places::Places;
use super::text::{parse_duration, parse_mode, parse_size, split_colons, split_words};
use super::yaml::tree::{Entry, Node, NodeKind, Scalar, Value, weight_of};

/// The normal form of a spec that was read without an error.
pub fn normal(places: &Places) -> Places {
    match places.root() {
        Some(root) => Places::new(Arc::new(top(root))),
        None => Places::default(),
    }
}

/// The top level, without places for anchors and sections that are empty: they change nothing.
fn top(root: &Node) -> Node {
    let Some(entries) = entries_of(root) else {
        return mapping(root, Vec::new());
    };
    let kept = entries.iter().filter(|entry| {
        let empty = entry.value.is_null() || is_empty(&entry.value);
        !empty && !entry.key.starts_with("x-")
    });
    let kept: Vec<Entry> = kept.cloned().collect();
    mapping(root, in_order(&kept, TOP))
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        NodeKind::List(items) => items.is_empty(),
        NodeKind::Map(entries) => entries.is_empty(),
        _ => false,
    }
}

fn entries_of(node: &Node) -> Option<&[Entry]> {
    match &node.kind {
        NodeKind::Map(entries) => Some(entries),
        _ => None,
    }
}

/// The text of a scalar, whatever it means.
fn written(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Scalar(scalar) if scalar.value() != Value::Null => Some(&scalar.text),
        _ => None,
    }
}

/// Something else at the place of `node`.
fn at(node: &Node, kind: NodeKind, weight: usize) -> Node {
    Node {
        span: node.span.clone(),
        kind,
        weight,
    }
}

fn mapping(node: &Node, entries: Vec<Entry>) -> Node {
    let weight = entries.iter().map(Entry::weight).sum::<usize>() + 1;
    at(node, NodeKind::Map(entries), weight)
}

fn listing(node: &Node, items: Vec<Arc<Node>>) -> Arc<Node> {
    let weight = items.iter().map(|item| item.weight).sum::<usize>() + 1;
    Arc::new(at(node, NodeKind::List(items), weight))
}

/// A text at the place of `node`; with `plain`, what it means is for YAML to say.
fn scalar(node: &Node, text: impl Into<String>, plain: bool) -> Arc<Node> {
    let text = text.into();
    let weight = weight_of(&text);
    let scalar = Scalar {
        text,
        plain,
        verbatim: None,
    };
    Arc::new(at(node, NodeKind::Scalar(scalar), weight))
}

fn text(node: &Node, text: impl Into<String>) -> Arc<Node> {
    scalar(node, text, false)
}

fn entry(node: &Node, key: &str, value: Arc<Node>) -> Entry {
    Entry {
        key: key.into(),
        key_span: node.span.clone(),
        value,
    }
}

/// A mapping that is made of these values, where `node` said it in a shorter way.
fn made<'k>(node: &Node, values: impl IntoIterator<Item = (&'k str, Arc<Node>)>) -> Arc<Node> {
    let values = values.into_iter();
    let entries = values.map(|(key, value)| entry(node, key, value)).collect();
    Arc::new(mapping(node, entries))
}

/// Known fields in the order of the language; what it does not know stays, behind them.
fn in_order(entries: &[Entry], fields: &[(&str, Shape)]) -> Vec<Entry> {
    let known = fields.iter().filter_map(|(name, shape)| {
        let entry = entries.iter().find(|entry| *entry.key == **name)?;
        Some(Entry {
            value: shaped(&entry.value, shape),
            ..entry.clone()
        })
    });
    let unknown = entries.iter().filter(|entry| {
        let mut names = fields.iter().map(|(name, _)| *name);
        names.all(|name| *entry.key != *name)
    });
    known.chain(unknown.cloned()).collect()
}

/// A value in its normal form. What does not fit stays as it is.
fn shaped(node: &Arc<Node>, shape: &Shape) -> Arc<Node> {
    let canonical = |text: Option<String>| match text {
        Some(canonical) => text_of(node, canonical),
        None => node.clone(),
    };
    let of_text = |read: fn(&str) -> Option<String>| canonical(written(node).and_then(read));
    match shape {
        Shape::Free => free(node),
        Shape::Text => of_text(|text| Some(text.to_owned())),
        Shape::Duration => of_text(|text| parse_duration(text).ok().map(duration_text)),
        Shape::Size => of_text(|text| parse_size(text).map(size_text)),
        Shape::Mode => of_text(|text| parse_mode(text).map(|mode| format!("{mode:04o}"))),
        Shape::Signal => of_text(|text| Some(text.parse::<Signal>().ok()?.to_string())),
        Shape::Upper => of_text(|text| Some(text.to_ascii_uppercase())),
        Shape::Trimmed => of_text(|text| Some(text.trim().to_owned())),
        Shape::Net => of_text(net_text),
        Shape::Condition => condition(node),
        Shape::Command => command(node),
        Shape::Mount => mount(node),
        Shape::Pairs => pairs(node),
        Shape::DependsOn => depends_on(node),
        Shape::Ready => ready(node),
        Shape::Fields(fields) => fielded(node, fields),
        Shape::FieldsOr(short, fields) => match node.is_scalar() {
            true => made(node, [(*short, node.clone())]),
            false => fielded(node, fields),
        },
        Shape::CheckOrName => match node.is_scalar() {
            true => shaped(node, &Shape::Text),
            false => fielded(node, CHECK),
        },
        Shape::List(of) => list(node, of),
        Shape::Named(of) => named(node, of),
    }
}

/// A text, which stays the node that it was where nothing changes.
fn text_of(node: &Arc<Node>, canonical: String) -> Arc<Node> {
    let same = matches!(&node.kind, NodeKind::Scalar(scalar)
        if scalar.value() == Value::Text(&canonical));
    match same {
        true => node.clone(),
        false => text(node, canonical),
    }
}

fn fielded(node: &Arc<Node>, fields: &[(&str, Shape)]) -> Arc<Node> {
    match entries_of(node) {
        Some(entries) => Arc::new(mapping(node, in_order(entries, fields))),
        None => node.clone(),
    }
}

/// A list; a single value stands for a list of it.
fn list(node: &Arc<Node>, of: &Shape) -> Arc<Node> {
    match &node.kind {
        NodeKind::List(items) => {
            let items = items.iter().map(|item| shaped(item, of)).collect();
            listing(node, items)
        }
        NodeKind::Scalar(_) if !node.is_null() => listing(node, vec![shaped(node, of)]),
        _ => node.clone(),
    }
}

/// A mapping from names.
fn named(node: &Arc<Node>, of: &Shape) -> Arc<Node> {
    let Some(entries) = entries_of(node) else {
        return node.clone();
    };
    let entries = entries.iter().map(|entry| Entry {
        value: shaped(&entry.value, of),
        ..entry.clone()
    });
    Arc::new(mapping(node, entries.collect()))
}

/// A value that may be anything: its numbers are written as JSON does.
fn free(node: &Arc<Node>) -> Arc<Node> {
    match &node.kind {
        NodeKind::List(items) => listing(node, items.iter().map(free).collect()),
        NodeKind::Map(_) => named(node, &Shape::Free),
        NodeKind::Scalar(found) => match found.value() {
            Value::Number(number) => {
                let canonical = scalar(node, number.to_string(), true);
                let same = matches!(&canonical.kind, NodeKind::Scalar(read)
                    if read.value() == Value::Number(number));
                if same { canonical } else { node.clone() }
            }
            _ => node.clone(),
        },
        NodeKind::Instead(_) | NodeKind::Broken => node.clone(),
    }
}

/// A command: a line is split as a shell splits it.
fn command(node: &Arc<Node>) -> Arc<Node> {
    let line = match &node.kind {
        NodeKind::Scalar(_) => written(node),
        _ => return list(node, &Shape::Text),
    };
    match line.and_then(|line| split_words(line).ok()) {
        Some(words) => listing(
            node,
            words.into_iter().map(|word| text(node, word)).collect(),
        ),
        None => node.clone(),
    }
}

/// `SOURCE:DESTINATION[:ro|rw]`.
fn mount(node: &Arc<Node>) -> Arc<Node> {
    let Some(short) = written(node) else {
        return fielded(node, shape::MOUNT);
    };
    let parts = split_colons(short);
    let [source, target, access @ ..] = parts.as_slice() else {
        return node.clone();
    };
    let read_only = (access == ["ro"]).then(|| ("read_only", scalar(node, "true", true)));
    let places = [
        ("source", text(node, *source)),
        ("target", text(node, *target)),
    ];
    made(node, places.into_iter().chain(read_only))
}

/// `NAME=VALUE` items, or a mapping.
fn pairs(node: &Arc<Node>) -> Arc<Node> {
    let NodeKind::List(items) = &node.kind else {
        return named(node, &Shape::Text);
    };
    let pair = |item: &Arc<Node>| {
        let (key, value) = written(item)?.split_once('=')?;
        Some(entry(item, key, text(item, value)))
    };
    let pairs: Option<Vec<Entry>> = items.iter().map(pair).collect();
    match pairs {
        Some(pairs) => Arc::new(mapping(node, pairs)),
        None => node.clone(),
    }
}

/// References, or a mapping from them to conditions.
fn depends_on(node: &Arc<Node>) -> Arc<Node> {
    if entries_of(node).is_some() {
        return named(node, &Shape::Condition);
    }
    let on = list(node, &Shape::Text);
    let NodeKind::List(items) = &on.kind else {
        return on;
    };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let key = written(item).unwrap_or_default();
        if entries.iter().any(|entry| *entry.key == *key) {
            // A mapping cannot say it twice.
            return on;
        }
        entries.push(entry(item, key, conditioned(item, "started")));
    }
    Arc::new(mapping(node, entries))
}

fn conditioned(node: &Node, word: &str) -> Arc<Node> {
    made(node, [("condition", text(node, word))])
}

fn condition(node: &Arc<Node>) -> Arc<Node> {
    if node.is_null() {
        return conditioned(node, "started");
    }
    let inner = match entries_of(node) {
        Some(entries) => entries.first().map(|entry| &entry.value),
        None => Some(node),
    };
    match inner {
        Some(inner) => conditioned(
            inner,
            match written(inner).unwrap_or_default() {
                "service_started" => "started",
                "service_healthy" => "healthy",
                "service_completed_successfully" => "completed",
                word => word,
            },
        ),
        None => conditioned(node, "started"),
    }
}

/// When it is ready. What says so itself may hold the time that it has, or stand beside it.
fn ready(node: &Arc<Node>) -> Arc<Node> {
    let notify = |from: &Node| ("notify", scalar(from, "true", true));
    match written(node) {
        Some("notify" | "sd_notify") => return made(node, [notify(node)]),
        Some(_) => return node.clone(),
        None => {}
    }
    let entries = entries_of(node).unwrap_or_default();
    let of = |names: &[&str]| {
        let mut found = entries.iter().filter(|entry| names.contains(&&*entry.key));
        found.next().map(|entry| &entry.value)
    };
    let Some(told) = of(&["notify", "sd_notify"]) else {
        return fielded(node, READY);
    };
    let inner = entries_of(told).unwrap_or_default().first();
    let timeout = inner.map(|entry| &entry.value).or_else(|| of(&["timeout"]));
    let timeout = timeout.map(|timeout| ("timeout", shaped(timeout, &Shape::Duration)));
    made(node, [notify(told)].into_iter().chain(timeout))
}

fn net_text(text: &str) -> Option<String> {
    let text = text.trim();
    let address = text.parse::<std::net::Ipv4Addr>().map(Ipv4Net::from).ok();
    let net = address.or_else(|| text.parse().ok())?;
    Some(net.to_string())
}

/// A duration in its largest units: `1m30s`.
fn duration_text(duration: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let mut left = duration.as_nanos();
    let mut words = String::new();
    for (unit, nanos) in UNITS {
        let whole = left / nanos;
        left %= nanos;
        if whole > 0 {
            words.push_str(&format!("{whole}{unit}"));
        }
    }
    match words.is_empty() {
        true => "0s".to_owned(),
        false => words,
    }
}

/// A number of bytes in the largest unit that gives a whole number.
fn size_text(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("kB", 1_000),
        ("KiB", 1 << 10),
    ];
    let mut units = UNITS.iter();
    match units.find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests;
