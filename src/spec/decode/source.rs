//! The file that names a git repository.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::Decoder;
use super::slot::{Fields, Slot};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{GitSource, OnFailure, Verify, Webhook};
use crate::spec::yaml::tree::Node;

const ON_FAILURE: [(&str, OnFailure); 2] =
    [("rollback", OnFailure::Rollback), ("hold", OnFailure::Hold)];

/// Reads `source: { git: … }`.
pub(in crate::spec) fn file(root: &Node) -> Result<GitSource, Vec<Diagnostic>> {
    let mut d = Decoder::default();
    let slot = Slot::new(root, "the file");
    let source = Fields::open(&mut d, &slot, "the file").and_then(|mut fields| {
        fields.extensions = true;
        let source = fields
            .required(&mut d, "source", "{ git: https://… }")
            .and_then(|slot| source(&mut d, &slot));
        fields.finish(&mut d);
        source
    });
    match source {
        Some(source) if d.errors.is_empty() => Ok(source),
        _ => Err(d.errors),
    }
}

fn source(d: &mut Decoder, slot: &Slot<'_>) -> Option<GitSource> {
    let mut fields = Fields::open(d, slot, "`source`")?;
    let url = fields
        .required(d, "git", "https://host/specs.git")
        .and_then(|slot| slot.filled(d));
    let reference = fields
        .take(d, "ref")
        .and_then(|slot| slot.filled(d))
        .unwrap_or_else(|| GitSource::REFERENCE.to_owned());
    let path = fields
        .take(d, "path")
        .and_then(|slot| inner_path(d, &slot))
        .unwrap_or_default();
    let mut source = GitSource::new(url.unwrap_or_default(), reference, path);
    source.overlays = inner_paths(d, &mut fields, "overlays");
    source.vars = inner_paths(d, &mut fields, "vars");
    let (interval, least) = (source.interval, GitSource::LEAST_INTERVAL);
    source.interval = fields.duration(d, "interval", least, interval);
    if let Some(slot) = fields.take(d, "verify") {
        source.verify = verify(d, &slot);
    }
    source.submodules = fields.boolean(d, "submodules", source.submodules);
    source.allow_rewrite = fields.boolean(d, "allow_rewrite", source.allow_rewrite);
    let (timeout, least) = (source.health_timeout, Duration::from_secs(1));
    source.health_timeout = fields.duration(d, "health_timeout", least, timeout);
    source.on_failure = fields
        .take(d, "on_failure")
        .and_then(|slot| slot.choice(d, &ON_FAILURE))
        .unwrap_or(source.on_failure);
    source.prune = fields.boolean(d, "prune", source.prune);
    source.allow_empty = fields.boolean(d, "allow_empty", source.allow_empty);
    if let Some(slot) = fields.take(d, "webhook") {
        source.webhook = webhook(d, &slot);
    }
    fields.finish(d);
    Some(source)
}

fn verify(d: &mut Decoder, slot: &Slot<'_>) -> Option<Verify> {
    let mut fields = Fields::open(d, slot, "`verify`")?;
    let chosen = fields.one_of(d, &["ssh_allowed_signers", "gpg_keyring"]);
    fields.finish(d);
    let (kind, slot) = chosen?;
    let path = absolute(d, &slot)?;
    Some(match kind {
        "gpg_keyring" => Verify::GpgKeyring(path),
        _ => Verify::SshAllowedSigners(path),
    })
}

fn webhook(d: &mut Decoder, slot: &Slot<'_>) -> Option<Webhook> {
    let mut fields = Fields::open(d, slot, "`webhook`")?;
    let listen = fields
        .required(d, "listen", "127.0.0.1:9000")
        .and_then(|slot| slot.parsed::<SocketAddr>(d, "an address and a port"));
    let secret_file = fields
        .required(d, "secret_file", "/etc/hatchery/webhook")
        .and_then(|slot| absolute(d, &slot));
    fields.finish(d);
    Some(Webhook {
        listen: listen?,
        secret_file: secret_file?,
    })
}

/// A path on this machine: the file may be read from anywhere, so it is absolute.
fn absolute(d: &mut Decoder, slot: &Slot<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(slot.filled(d)?);
    if !path.is_absolute() {
        d.error(slot.error(format!("{} must be an absolute path", slot.what)));
        return None;
    }
    Some(path)
}

fn inner_path(d: &mut Decoder, slot: &Slot<'_>) -> Option<PathBuf> {
    let text = slot.filled(d)?;
    let path = within_tree(Path::new(&text));
    if path.is_none() {
        let message = format!("{} must be a path inside the repository", slot.what);
        d.error(slot.error(message).help("as `specs/prime`, without `..`"));
    }
    path
}

fn inner_paths(d: &mut Decoder, fields: &mut Fields<'_>, field: &'static str) -> Vec<PathBuf> {
    let list = fields.take(d, field);
    let read = |slot: Slot<'_>| slot.list(d, "a list of paths", inner_path);
    list.and_then(read).unwrap_or_default()
}

/// A path inside a repository's tree without `.`; `None` when it may lead out of it.
pub(in crate::spec) fn within_tree(path: &Path) -> Option<PathBuf> {
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::spec::{read_source, report};

    fn errors(text: &str) -> String {
        let errors = read_source("source.yaml", text).unwrap_err();
        report("source.yaml", text, &errors, false)
    }

    #[test]
    fn little_is_enough() {
        let source = read_source("s", "source: { git: /srv/specs.git }\n").unwrap();
        let usual = GitSource::new("/srv/specs.git".into(), "main".into(), "".into());
        assert_eq!(source, usual);
    }

    #[test]
    fn everything_is_read() {
        let text = "source:\n  git: ssh://git@host/specs\n  ref: prod\n  path: ./specs/prime\n  \
                    overlays: [ specs/prod.yaml, ./more.yaml ]\n  vars: prod.env\n  interval: 2s\n  verify: { gpg_keyring: /k.gpg }\n  submodules: true\n  \
                    allow_rewrite: true\n  health_timeout: 90s\n  on_failure: hold\n  prune: \
                    false\n  allow_empty: true\n  webhook: { listen: \"127.0.0.1:9000\", \
                    secret_file: /s }\n";
        let source = read_source("s", text).unwrap();
        let path = "specs/prime".into();
        let expected = GitSource {
            overlays: vec!["specs/prod.yaml".into(), "more.yaml".into()],
            vars: vec!["prod.env".into()],
            interval: Duration::from_secs(2),
            verify: Some(Verify::GpgKeyring("/k.gpg".into())),
            submodules: true,
            allow_rewrite: true,
            health_timeout: Duration::from_secs(90),
            on_failure: OnFailure::Hold,
            prune: false,
            allow_empty: true,
            webhook: Some(Webhook {
                listen: "127.0.0.1:9000".parse().unwrap(),
                secret_file: "/s".into(),
            }),
            ..GitSource::new("ssh://git@host/specs".into(), "prod".into(), path)
        };
        assert_eq!(source, expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let out = errors(
            "source:\n  git: /g\n  path: ../x\n  interval: 1\n  verify: { ssh_allowed_signers: \
             keys }\n  on_failure: rolback\n  webhok: {}\n",
        );
        for part in [
            "must be a path inside the repository",
            "the unit is missing",
            "must be an absolute path",
            "did you mean `rollback`?",
            "webhok",
        ] {
            assert!(out.contains(part), "{part}: {out}");
        }
        let out = errors("source: { git: /g, overlays: [ a.yaml, ../b ], vars: /etc/env }\n");
        let outside = out.matches("must be a path inside the repository").count();
        assert_eq!(outside, 2, "{out}");
        assert!(errors("source: {}\n").contains("git"));
        assert!(errors("[]\n").contains("mapping"));
    }

    #[test]
    fn paths_stay_in_the_tree() {
        assert_eq!(within_tree(Path::new("./a/./b")), Some("a/b".into()));
        assert_eq!(within_tree(Path::new(".")), Some("".into()));
        assert_eq!(within_tree(Path::new("a/../b")), None);
        assert_eq!(within_tree(Path::new("/a")), None);
    }
}
