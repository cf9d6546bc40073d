//! What says on the object itself whose it is.

use super::links::Link;

/// The alias of a link of ours: a bridge's, a pair's host end, a namespace's loopback.
pub(super) fn alias(stack: &str, name: &str) -> String {
    format!("hatchery:{stack}:{name}")
}

/// The name in this link's alias, if the alias is one of `stack`.
pub(super) fn named<'a>(link: &'a Link, stack: &str) -> Option<&'a str> {
    let rest = link.alias.as_deref()?.strip_prefix("hatchery:")?;
    rest.strip_prefix(stack)?.strip_prefix(':')
}

/// What the names of this stack's links begin with while they are made. A link gets its
/// alias and its final name in one message, just after it was made, so whatever still
/// has such a name is half-made and ours.
pub(super) fn draft_prefix(stack: &str) -> String {
    format!("hy{}", digits(&[stack], 6))
}

/// The name of a link until it has its alias; 14 bytes.
pub(super) fn draft(stack: &str, name: &str) -> String {
    format!("{}{}", draft_prefix(stack), digits(&[stack, name], 6))
}

/// A hardware address that stays with `owner`: the address that a container has, or a bridge.
/// A neighbour that asked who has an address sends on to the one that it was told; an instance
/// that takes over the address of another would otherwise not be reached for seconds. The
/// first byte says locally administered, unicast.
pub(super) fn hardware(stack: &str, owner: &str) -> [u8; 6] {
    let hash = hash(&[stack, owner]);
    let [a, b, c, d, e, ..] = *hash.as_bytes();
    [0x02, a, b, c, d, e]
}

/// Who holds a link, for messages: its alias, or else its kind.
pub(super) fn holder(link: &Link) -> String {
    match (&link.alias, &link.kind) {
        (Some(alias), _) => format!("`{alias}`"),
        (None, Some(kind)) => format!("a {kind} that this stack did not make"),
        (None, None) => "a network card".to_owned(),
    }
}

fn digits(parts: &[&str], count: usize) -> String {
    hash(parts).to_hex().chars().take(count).collect()
}

fn hash(parts: &[&str]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize()
}
