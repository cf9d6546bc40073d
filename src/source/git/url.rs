//! Addresses of repositories: which are taken, and how they are shown.

use super::GitError;

/// Over what git may fetch.
pub(super) const PROTOCOLS: &str = "file:http:https:ssh";

/// What a reference's name must not hold (git-check-ref-format(1)), and what a refspec gives a
/// meaning to.
const NOT_IN_REFERENCE: [char; 8] = [' ', '~', '^', ':', '?', '*', '[', '\\'];

/// Refuses addresses that would make git run something, or that it would take for an option.
///
/// # Errors
/// Says what is taken.
pub(super) fn check(url: &str) -> Result<(), GitError> {
    let refused = |why: &str| {
        Err(GitError::Refused(format!(
            "cannot fetch from `{}`: {why}; a path, `https://`, `http://`, `ssh://` and \
             `user@host:path` are taken",
            shown(url)
        )))
    };
    if url.is_empty() || url.starts_with('-') {
        return refused("it is no address");
    }
    if url.chars().any(char::is_control) {
        return refused("it holds control characters");
    }
    if let Some((transport, _)) = url.split_once("::")
        && transport
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    {
        return refused("transports of that form are not used");
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        if !["file", "http", "https", "ssh"].contains(&scheme.as_str()) {
            return refused("that protocol is not used");
        }
        // A host that begins with `-` would be an option of ssh.
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.starts_with('-') {
            return refused("its host begins with `-`");
        }
    }
    Ok(())
}

/// Refuses names that are no reference.
///
/// # Errors
/// Says what it is.
pub(super) fn check_reference(name: &str) -> Result<(), GitError> {
    let bad = name.is_empty()
        || name.starts_with(['-', '/', '.', '+'])
        || name.ends_with(['/', '.'])
        || name.ends_with(".lock")
        || name.contains("..")
        || name.contains("//")
        || name.contains("@{")
        || name.contains("/.")
        || name
            .chars()
            .any(|c| c.is_control() || NOT_IN_REFERENCE.contains(&c));
    match bad {
        true => Err(GitError::Refused(format!(
            "`{}` cannot be the name of a branch or a tag",
            name.escape_default()
        ))),
        false => Ok(()),
    }
}

/// An address without its password or token.
pub fn shown(url: &str) -> String {
    without_passwords(url)
}

/// Whether an address holds a password, or what may be a token: over HTTP that may stand in the
/// place of the user's name.
pub fn holds_secret(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let web = scheme.to_ascii_lowercase().starts_with("http");
    authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| web || user.contains(':'))
}

/// A text in which no address holds a password or a token.
pub(super) fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"')
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("***@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// The address of a submodule, which may be relative to that of its parent (gitmodules(5)).
///
/// # Errors
/// When it leads above the parent's host.
pub(super) fn beside(parent: &str, url: &str) -> Result<String, GitError> {
    if !(url.starts_with("./") || url.starts_with("../")) {
        return Ok(url.to_owned());
    }
    let mut base = parent.trim_end_matches('/').to_owned();
    let mut rest = url;
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let least = base.find("://").map_or(0, |at| at + 3);
            match base.rfind('/').filter(|at| *at >= least) {
                Some(at) => base.truncate(at),
                None => {
                    return Err(GitError::Refused(format!(
                        "cannot resolve the submodule's address `{}`",
                        shown(url)
                    )));
                }
            }
        } else {
            return Ok(format!("{base}/{rest}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_users_have_is_taken_and_nothing_that_runs() {
        for good in [
            "/srv/specs.git",
            "./specs",
            "file:///srv/specs.git",
            "https://user:token@host/specs.git",
            "ssh://git@host:22/specs",
            "git@host:specs.git",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ext::sh -c x",
            "EXT::sh",
            "fd::7",
            "git://host/x",
            "ftp://host/x",
            "ssh://-oProxyCommand=x/y",
            "ssh://me@-oProxyCommand=x/y",
            "https://host/\nx",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        for good in ["main", "v1.2", "feature/x", "refs/heads/main"] {
            assert_eq!(check_reference(good), Ok(()), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a:b", "*", "a^", "x.lock", "/a", "a/", "a//b", "@{1}", "+a",
            "a/.b", "a\n",
        ] {
            assert!(check_reference(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_passwords("fatal: 'https://u:p@h/x' and ssh://git@h/y and https://h/z@w"),
            "fatal: 'https://***@h/x' and ssh://***@h/y and https://h/z@w"
        );
        assert_eq!(shown("git@host:specs.git"), "git@host:specs.git");
        assert_eq!(shown("https://tok@en@h/x"), "https://***@h/x");
    }

    #[test]
    fn passwords_and_tokens_are_known() {
        for secret in [
            "https://u:p@h/x",
            "https://token@h/x",
            "HTTP://u:p@h",
            "ssh://u:p@h/x",
            "https://tok@en@h/x",
        ] {
            assert!(holds_secret(secret), "{secret}");
        }
        for open in [
            "ssh://git@h:22/x",
            "git@h:x",
            "https://h/x@y",
            "https://h?x=@",
            "/srv/a@b:c",
            "file:///srv/a@b",
        ] {
            assert!(!holds_secret(open), "{open}");
        }
    }

    #[test]
    fn submodules_may_lie_beside() {
        let of = |parent: &str, url: &str| beside(parent, url);
        assert_eq!(
            of("https://h/a/b.git", "../c.git").unwrap(),
            "https://h/a/c.git"
        );
        assert_eq!(of("/srv/a/", "./c").unwrap(), "/srv/a/c");
        assert_eq!(of("git@h:a/b", "../c").unwrap(), "git@h:a/c");
        assert_eq!(of("https://h/a", "https://g/x").unwrap(), "https://g/x");
        assert!(of("https://h", "../../x").is_err());
    }
}
