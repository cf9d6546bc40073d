//! A commit object, taken apart (gitformat-signature(5)).

use super::GitError;

/// What a person's name or a subject may have at most, in characters.
const WORDS: usize = 200;

/// A commit object's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Who wrote it.
    pub author: String,
    /// When it was committed: seconds since the Unix epoch.
    pub committed_s: i64,
    /// The first line of its message.
    pub subject: String,
    /// Its signature, if it has one.
    pub signature: Option<String>,
    /// What was signed: everything but signatures.
    pub payload: Vec<u8>,
}

/// Takes an object apart.
///
/// # Errors
/// When it is no commit object, or has more than one signature.
pub(super) fn parse(object: &[u8]) -> Result<Parsed, GitError> {
    let refused = |why: &str| GitError::Refused(format!("cannot read the commit: {why}"));
    let mut parsed = Parsed {
        author: String::new(),
        committed_s: 0,
        subject: String::new(),
        signature: None,
        payload: Vec::with_capacity(object.len()),
    };
    let mut rest = object;
    // Which header a line that begins with a blank continues.
    let mut in_signature = false;
    let mut in_other = false;
    let mut signatures = 0_u32;
    loop {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| refused("its headers do not end"))?;
        let (line, after) = rest.split_at(end + 1);
        if line == b"\n" {
            parsed.payload.extend_from_slice(rest);
            parsed.subject = words(
                after
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default(),
            );
            break;
        }
        rest = after;
        if let Some(more) = line.strip_prefix(b" ").filter(|_| in_signature) {
            let signature = parsed.signature.get_or_insert_default();
            signature.push_str(&String::from_utf8_lossy(more));
            continue;
        }
        if line.starts_with(b" ") && in_other {
            continue;
        }
        in_signature = false;
        in_other = false;
        if let Some(first) = line.strip_prefix(b"gpgsig ") {
            signatures += 1;
            in_signature = true;
            let signature = parsed.signature.get_or_insert_default();
            signature.push_str(&String::from_utf8_lossy(first));
            continue;
        }
        if line.starts_with(b"gpgsig") {
            in_other = true;
            continue;
        }
        if let Some(author) = line.strip_prefix(b"author ") {
            parsed.author = words(person(author));
        }
        if let Some(committer) = line.strip_prefix(b"committer ") {
            parsed.committed_s = moment(committer);
        }
        parsed.payload.extend_from_slice(line);
    }
    match signatures {
        0 | 1 => Ok(parsed),
        _ => Err(refused("it has more than one signature")),
    }
}

/// The name in `Name <address> seconds zone`.
fn person(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b'<');
    line.get(..end.unwrap_or(line.len())).unwrap_or_default()
}

fn moment(line: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(line);
    let after = text.rsplit_once('>').map_or("", |(_, after)| after);
    let seconds = after.split_whitespace().next();
    seconds.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A bounded text without control characters.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = text.trim().chars().filter(|c| !c.is_control());
    plain.take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLAIN: &[u8] = b"tree 1\nparent 2\nauthor Ada L <a@x> 5 +0100\ncommitter Bo <b@x> 7 \
        +0000\n\nsubject\x1b here\n\nbody\n";

    #[test]
    fn a_commit_without_a_signature() {
        let parsed = parse(PLAIN).unwrap();
        assert_eq!(parsed.author, "Ada L");
        assert_eq!(parsed.committed_s, 7);
        assert_eq!(parsed.subject, "subject here");
        assert_eq!(parsed.signature, None);
        assert_eq!(parsed.payload, PLAIN);
    }

    #[test]
    fn a_signature_is_no_part_of_what_was_signed() {
        let signed =
            b"tree 1\nauthor A <a> 5 +0000\ncommitter A <a> 5 +0000\ngpgsig BEGIN\n one\n \
            \n END\ngpgsig-sha256 X\n other\n\nsubject\ngpgsig not a header\n";
        let parsed = parse(signed).unwrap();
        assert_eq!(parsed.signature.as_deref(), Some("BEGIN\none\n\nEND\n"));
        let payload = String::from_utf8(parsed.payload).unwrap();
        assert_eq!(
            payload,
            "tree 1\nauthor A <a> 5 +0000\ncommitter A <a> 5 +0000\n\nsubject\ngpgsig not a \
             header\n"
        );
    }

    #[test]
    fn what_is_no_commit_is_refused() {
        assert!(parse(b"").is_err());
        assert!(parse(b"tree 1\n").is_err());
        assert!(parse(b"gpgsig a\ngpgsig b\n\nx\n").is_err());
        assert!(parse(&[0xff, b'\n', b'\n']).is_ok());
    }
}
