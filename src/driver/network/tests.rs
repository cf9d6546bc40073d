//! The parts that need no kernel: messages as bytes, and marks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::links::Link;
use super::mark;
use super::wire::{Message, attributes, messages, number, text};

fn link(name: &str, alias: Option<&str>, kind: Option<&str>) -> Link {
    Link {
        index: 7,
        name: name.to_owned(),
        alias: alias.map(str::to_owned),
        kind: kind.map(str::to_owned),
        up: true,
        running: true,
        forwarding: false,
        master: None,
        peer: None,
        hardware: None,
    }
}

#[test]
fn what_is_written_reads_back() {
    let bytes = Message::new(16, 5, &[1, 2, 3])
        .text(3, "eth0")
        .nested(18, |inner| inner.text(1, "bridge").number(5, 70_000))
        .finish(42);
    assert_eq!(bytes.len() % 4, 0);
    let all: Vec<_> = messages(&bytes).collect();
    let [message] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((message.kind, message.flags, message.sequence), (16, 5, 42));
    let parts: Vec<_> = attributes(message.body.get(4..).unwrap()).collect();
    let [(3, name), (18, inner)] = parts.as_slice() else {
        panic!("{parts:?}")
    };
    assert_eq!(text(name), "eth0");
    let inner: Vec<_> = attributes(inner).collect();
    let [(1, kind), (5, value)] = inner.as_slice() else {
        panic!("{inner:?}")
    };
    assert_eq!(text(kind), "bridge");
    assert_eq!(number(value, 0), Some(70_000));
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let read = messages(&bytes).count() + attributes(&bytes).count();
        prop_assert!(read <= bytes.len() / 2);
    }
}

#[test]
fn a_mark_names_the_stack_and_nothing_that_begins_like_it() {
    let alias = mark::alias("farm", "front");
    assert_eq!(alias, "hatchery:farm:front");
    let link = link("front0", Some(&alias), Some("bridge"));
    assert_eq!(mark::named(&link, "farm"), Some("front"));
    assert_eq!(mark::named(&link, "far"), None);
    assert_eq!(mark::named(&link, "farm:front"), None);
}

#[test]
fn a_draft_is_recognised_by_its_stack_alone() {
    let draft = mark::draft("farm", "front0");
    assert!(draft.len() <= 15, "{draft}");
    assert!(draft.starts_with(&mark::draft_prefix("farm")));
    assert!(!draft.starts_with(&mark::draft_prefix("barn")));
    assert_ne!(draft, mark::draft("farm", "front1"));
    let left = link(&draft, None, Some("bridge"));
    assert!(super::bridge::ours(&left, "farm"));
    assert!(!super::bridge::ours(&left, "barn"));
    // Somebody's alias on it says that it is not one of ours.
    let taken = link(&draft, Some("lab"), Some("bridge"));
    assert!(!super::bridge::ours(&taken, "farm"));
}

#[test]
fn a_hardware_address_is_local_and_stays() {
    let address = mark::hardware("farm", "10.50.0.2");
    assert_eq!(address[0] & 3, 2);
    assert_eq!(address, mark::hardware("farm", "10.50.0.2"));
    assert_ne!(address, mark::hardware("farm", "10.50.0.3"));
}

#[test]
fn a_holder_is_named_as_well_as_it_can_be() {
    let holder = |alias, kind| mark::holder(&link("x", alias, kind));
    assert_eq!(holder(Some("lab"), Some("bridge")), "`lab`");
    assert_eq!(
        holder(None, Some("veth")),
        "a veth that this stack did not make"
    );
    assert_eq!(holder(None, None), "a network card");
}
