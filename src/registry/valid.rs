//! What a registration may hold. Names end up in files that root's programs read, so every
//! entrance takes only characters that mean nothing to them.

use std::net::IpAddr;

use super::model::{CatalogError, CheckSpec, Registration};
use super::{MAX_CHECKS, MAX_META, MAX_TAGS, NODE_CHECK};

const MAX_NAME: usize = 128;
const MAX_CHECK_ID: usize = 320;
const MAX_TEXT: usize = 512;
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// Looks at every field of `registration`.
pub(super) fn registration(registration: &Registration) -> Result<(), CatalogError> {
    fields(registration).map_err(|why| CatalogError::Invalid {
        id: quoted(&registration.id),
        why,
    })
}

fn fields(registration: &Registration) -> Result<(), String> {
    word("the id", &registration.id)?;
    word("the name", &registration.service)?;
    if !registration.address.is_empty() && !is_address(&registration.address) {
        return Err(format!(
            "the address `{}` is neither an IP address of one machine nor a host name",
            quoted(&registration.address)
        ));
    }
    at_most("tags", registration.tags.len(), MAX_TAGS)?;
    for tag in &registration.tags {
        word("the tag", tag)?;
    }
    at_most("meta entries", registration.meta.len(), MAX_META)?;
    for (key, value) in &registration.meta {
        word("the meta key", key)?;
        text("the meta value", value)?;
    }
    at_most("checks", registration.checks.len(), MAX_CHECKS)?;
    for (at, spec) in registration.checks.iter().enumerate() {
        check(spec)?;
        let earlier = registration.checks.iter().take(at);
        if earlier.into_iter().any(|other| other.id == spec.id) {
            return Err(format!("the check id `{}` is there twice", spec.id));
        }
    }
    Ok(())
}

fn check(spec: &CheckSpec) -> Result<(), String> {
    let plain = spec
        .id
        .bytes()
        .all(|byte| is_word_byte(byte) || byte == b':');
    if spec.id.is_empty() || spec.id.len() > MAX_CHECK_ID || !plain {
        return Err(format!(
            "the check id `{}` must be 1 to {MAX_CHECK_ID} of letters, digits, `.`, `_`, `-` and `:`",
            quoted(&spec.id)
        ));
    }
    if spec.id == NODE_CHECK {
        return Err(format!("the check id `{NODE_CHECK}` is the node's own"));
    }
    text("the check's name", &spec.name)?;
    text("the check's notes", &spec.notes)
}

fn word(what: &str, value: &str) -> Result<(), String> {
    if value.is_empty() || value.len() > MAX_NAME || !value.bytes().all(is_word_byte) {
        return Err(format!(
            "{what} `{}` must be 1 to {MAX_NAME} of letters, digits, `.`, `_` and `-`",
            quoted(value)
        ));
    }
    Ok(())
}

fn text(what: &str, value: &str) -> Result<(), String> {
    if value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return Err(format!(
            "{what} must be at most {MAX_TEXT} bytes without control characters"
        ));
    }
    Ok(())
}

fn at_most(what: &str, count: usize, limit: usize) -> Result<(), String> {
    if count > limit {
        return Err(format!("{count} {what} are more than {limit}"));
    }
    Ok(())
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Whether something can be reached there: an IP address that names a machine, or a host name.
fn is_address(address: &str) -> bool {
    match address.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified(),
        Err(_) => {
            address.len() <= MAX_HOST
                && address.split('.').all(|label| {
                    (1..=MAX_LABEL).contains(&label.len())
                        && label
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                })
        }
    }
}

/// `value` as a message may show it: short, and no character that a terminal acts upon.
pub(super) fn quoted(value: &str) -> String {
    let mut shown: String = value
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().count() > 64 {
        shown.push('…');
    }
    shown
}
