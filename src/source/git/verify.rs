//! Whether a commit was signed by a key that counts.
//!
//! The signature is taken from the commit and shown to the program that knows its kind, with
//! just the keys that were named: what git's own configuration or a user's keyring would say
//! does not matter.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::commit::Parsed;
use super::run::{Bounds, Ran, run};
use super::{CommitId, GitError};
use crate::spec::model::Verify;

const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(30),
    output: 1 << 20,
    file: 16 << 20,
};

/// Whose key signed a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer(String);

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl GitError {
    /// The same, about this commit.
    pub(super) fn of(self, id: &CommitId) -> GitError {
        let short = id.as_str().get(..10).unwrap_or_default();
        match self {
            GitError::Refused(why) => GitError::Refused(format!("commit {short} {why}")),
            other => other,
        }
    }
}

fn refused(why: impl Into<String>) -> GitError {
    GitError::Refused(why.into())
}

/// Checks the signature of a commit.
///
/// # Errors
/// [`GitError::Refused`] when it is not good.
pub(super) fn verify(commit: &Parsed, by: &Verify) -> Result<Signer, GitError> {
    let signature = commit
        .signature
        .as_deref()
        .ok_or_else(|| refused("is not signed"))?;
    let folder = tempfile::Builder::new()
        .prefix("hatchery-verify-")
        .tempdir()
        .map_err(|error| GitError::Local(format!("cannot make a folder: {error}")))?;
    let scene = Scene {
        folder: folder.path(),
        commit,
    };
    let file = scene.write("signature", signature.as_bytes())?;
    match by {
        Verify::SshAllowedSigners(signers) => {
            if !signature.starts_with("-----BEGIN SSH SIGNATURE-----") {
                return Err(refused("is not signed by an SSH key"));
            }
            demand(signers)?;
            scene.ssh(&file, signers)
        }
        Verify::GpgKeyring(keyring) => {
            if !signature.starts_with("-----BEGIN PGP SIGNATURE-----") {
                return Err(refused("is not signed by an OpenPGP key"));
            }
            demand(keyring)?;
            scene.gpg(&file, keyring)
        }
    }
}

fn demand(keys: &Path) -> Result<(), GitError> {
    match fs::File::open(keys) {
        Ok(_) => Ok(()),
        Err(error) => Err(GitError::disk("read", keys)(error)),
    }
}

struct Scene<'a> {
    folder: &'a Path,
    commit: &'a Parsed,
}

impl Scene<'_> {
    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, GitError> {
        let path = self.folder.join(name);
        fs::write(&path, content).map_err(GitError::disk("write", &path))?;
        Ok(path)
    }

    /// Who could have signed, and whether one of them did. git (`gpg-interface.c`) calls the same
    /// two commands with the time of the commit, but that is what its signer says it is: keys
    /// must be good today, as those of a ring must.
    fn ssh(&self, signature: &Path, signers: &Path) -> Result<Signer, GitError> {
        let mut find = keygen(&["-Y", "find-principals"]);
        find.arg("-f").arg(signers).arg("-s").arg(signature);
        let found = run(find, b"", BOUNDS)?;
        let names = found.text();
        for name in names.lines().map(str::trim).filter(|name| !name.is_empty()) {
            let mut verify = keygen(&["-Y", "verify", "-n", "git", "-I", name]);
            verify.arg("-f").arg(signers).arg("-s").arg(signature);
            let ran = run(verify, &self.commit.payload, BOUNDS)?;
            if ran.success {
                return Ok(Signer(name.to_owned()));
            }
        }
        Err(refused(format!(
            "is not signed by a key in `{}` that is good today",
            signers.display()
        )))
    }

    fn gpg(&self, signature: &Path, keyring: &Path) -> Result<Signer, GitError> {
        let plain = self.plain(keyring)?;
        let payload = self.write("payload", &self.commit.payload)?;
        let mut verify = Command::new("gpgv");
        verify.env("GNUPGHOME", self.folder).env("LC_ALL", "C");
        verify.args(["--status-fd", "1", "--keyring"]);
        verify.arg(&plain).arg(signature).arg(payload);
        let ran = run(verify, b"", BOUNDS)?;
        judge_gpg(&ran).map_err(|why| {
            let keyring = keyring.display();
            refused(format!(
                "is not signed by a good key of the keyring: {why} (`{keyring}`)"
            ))
        })
    }

    /// The keyring as gpgv reads it: not in armour.
    fn plain(&self, keyring: &Path) -> Result<PathBuf, GitError> {
        let content = fs::read(keyring).map_err(GitError::disk("read", keyring))?;
        if !content.starts_with(b"-----BEGIN PGP") {
            return Ok(keyring.to_owned());
        }
        let mut dearmor = Command::new("gpg");
        dearmor.env("GNUPGHOME", self.folder).env("LC_ALL", "C");
        dearmor.args(["--batch", "--quiet", "--dearmor"]);
        let ran = run(dearmor, &content, BOUNDS)?;
        match ran.success {
            true => self.write("keyring", &ran.output),
            false => Err(GitError::Local(format!(
                "cannot read `{}`: {}",
                keyring.display(),
                ran.said
            ))),
        }
    }
}

/// What gpgv reports of a signature that does not count. It ends well all the same when the key
/// alone is not good any more.
const NOT_GOOD: [(&str, &str); 6] = [
    ("BADSIG", "the signature is of another commit"),
    ("EXPSIG", "the signature has expired"),
    ("EXPKEYSIG", "its key has expired"),
    ("REVKEYSIG", "its key was revoked"),
    ("NO_PUBKEY", "its key is not there"),
    ("ERRSIG", "the signature cannot be checked"),
];

/// Good, by a key that is neither expired nor revoked today, and nothing but one signature
/// (doc/DETAILS of GnuPG); or why it does not count.
fn judge_gpg(ran: &Ran) -> Result<Signer, String> {
    let text = ran.text();
    let words: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("[GNUPG:] "))
        .map(|line| line.split(' ').collect())
        .collect();
    let all = |keyword: &str| {
        let of = |line: &&Vec<&str>| line.first() == Some(&keyword);
        words.iter().filter(of).count()
    };
    if let Some((_, why)) = NOT_GOOD.iter().find(|(keyword, _)| all(keyword) > 0) {
        return Err((*why).to_owned());
    }
    if all("GOODSIG") > 1 || all("VALIDSIG") > 1 {
        return Err("it has more than one signature".to_owned());
    }
    let good = words.iter().find(|line| line.first() == Some(&"GOODSIG"));
    match good.and_then(|line| line.get(2..)) {
        Some(name) if ran.success && all("VALIDSIG") == 1 => Ok(Signer(name.join(" "))),
        _ if ran.late => Err("gpgv took too long".to_owned()),
        _ if ran.said.is_empty() => Err("gpgv says nothing".to_owned()),
        _ => Err(ran.said.clone()),
    }
}

fn keygen(arguments: &[&str]) -> Command {
    let mut command = Command::new("ssh-keygen");
    command.env("LC_ALL", "C").env("TZ", "UTC").args(arguments);
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ran(success: bool, output: &str) -> Ran {
        Ran {
            success,
            late: false,
            output: output.as_bytes().to_vec(),
            said: String::new(),
        }
    }

    #[test]
    fn only_one_good_signature_is_good() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG ABC Ada L <a@x>\n[GNUPG:] VALIDSIG F\n";
        let signer = judge_gpg(&ran(true, good)).map(|signer| signer.to_string());
        assert_eq!(signer.as_deref(), Ok("Ada L <a@x>"));
        assert!(judge_gpg(&ran(false, good)).is_err());
        for (more, why) in [
            ("EXPKEYSIG A B", "expired"),
            ("REVKEYSIG A B", "revoked"),
            ("BADSIG A B", "another commit"),
            ("GOODSIG D E", "more than one"),
            ("ERRSIG A\n[GNUPG:] NO_PUBKEY A", "not there"),
        ] {
            let both = format!("{good}[GNUPG:] {more}\n");
            let said = judge_gpg(&ran(true, &both)).unwrap_err();
            assert!(said.contains(why), "{more}: {said}");
        }
        assert!(judge_gpg(&ran(true, "GOODSIG A B\nVALIDSIG F\n")).is_err());
    }
}
