//! The repository that a stack follows: what names it, and how a controller begins with it.

pub mod against;
mod begin;
mod repository;
mod scratch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::begin::{Allowed, Following, Found, begin, look, resume};
pub use self::repository::GitRepository;
pub use self::scratch::Scratch;

use super::error::CommandError;
use super::spec_args::{SpecArgs, lasting};
use super::spec_file;
use super::wiring;
use crate::reconcile::load::INPUT_LIMIT;
use crate::source::git::{holds_secret, shown};
use crate::spec::model::GitSource;
use crate::spec::text::parse_duration;
use crate::store::{git_folder, replace};

/// What else says where a spec is. That `--git` is required counts for nothing beside what it
/// conflicts with, so what belongs to it conflicts with the same.
const ELSEWHERE: [&str; 2] = ["spec", "source"];

/// Which repository.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct GitArgs {
    /// Follow the spec in this git repository; `-f` and `--vars` are files of it then
    #[arg(long, value_name = "URL", conflicts_with = "spec")]
    git: Option<String>,
    /// Follow the repository that this file names, as `source: { git: URL, … }`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["spec", "file", "vars", "git"])]
    source: Option<PathBuf>,
    /// With `--git`: the branch or tag; `main` unless given
    #[arg(long = "ref", value_name = "REF", requires = "git", conflicts_with_all = ELSEWHERE)]
    reference: Option<String>,
    /// With `--git`: the spec's file or folder in the repository; its top unless given
    #[arg(long, value_name = "PATH", requires = "git", conflicts_with_all = ELSEWHERE)]
    path: Option<PathBuf>,
    /// With `--git`: how often the repository is asked; `60s` unless given
    #[arg(long, value_name = "TIME", requires = "git", conflicts_with_all = ELSEWHERE, value_parser = interval)]
    interval: Option<Duration>,
    /// With `--git`: take a head that does not descend from what was applied
    #[arg(long, requires = "git", conflicts_with_all = ELSEWHERE)]
    allow_rewrite: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    match interval < GitSource::LEAST_INTERVAL {
        true => Err("it is shorter than 1s".to_owned()),
        false => Ok(interval),
    }
}

impl GitArgs {
    /// Whether a repository is named.
    pub fn is_given(&self) -> bool {
        self.git.is_some() || self.source.is_some()
    }

    /// The repository that is named, for who looks at it once. What `over` lays over the spec, and
    /// its variables, are files of the repository.
    ///
    /// # Errors
    /// What is wrong with the file that names it, or with a path.
    pub fn source(&self, over: &SpecArgs) -> Result<Option<GitSource>, CommandError> {
        match &self.source {
            Some(file) => read(file).map(|read| Some(read.source)),
            None => self.described(over),
        }
    }

    /// The repository that is named, for a controller. With `kept`, a file that cannot be taken
    /// any more counts as it was when a controller of that stack read it last: that somebody
    /// edits it must not cost the stack its controller.
    ///
    /// Addresses with a password or a token are refused. A controller's arguments can be seen by
    /// everybody on the machine for as long as it runs, a unit can be read by everybody, and git
    /// hands the address on to its transports as an argument, wherever it came from.
    ///
    /// # Errors
    /// As [`GitArgs::source`], and when the address holds a secret.
    pub fn followed(
        &self,
        over: &SpecArgs,
        kept: Option<&str>,
    ) -> Result<Option<Named>, CommandError> {
        let Some(path) = &self.source else {
            let Some(source) = self.described(over)? else {
                return Ok(None);
            };
            demand_no_secret(&source.url)?;
            return Ok(Some(Named { source, file: None }));
        };
        let read = read(path).and_then(|read| {
            demand_no_secret(&read.source.url)?;
            Ok(read)
        });
        let Read { source, text } = read.or_else(|error| read_copy(kept).ok_or(error))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let file = Some(NamedBy { path, text });
        Ok(Some(Named { source, file }))
    }

    /// What the arguments themselves say.
    fn described(&self, over: &SpecArgs) -> Result<Option<GitSource>, CommandError> {
        let Some(url) = &self.git else {
            return Ok(None);
        };
        let inner = inside(self.path.as_deref().unwrap_or(Path::new("")))?;
        let all = |paths: &[PathBuf]| -> Result<Vec<PathBuf>, CommandError> {
            paths.iter().map(|path| inside(path)).collect()
        };
        let (overlays, vars) = over.laid_over();
        let reference = self.reference.clone();
        let reference = reference.unwrap_or_else(|| GitSource::REFERENCE.to_owned());
        let mut source = GitSource::new(absolute_url(url), reference, inner);
        source.overlays = all(overlays)?;
        source.vars = all(vars)?;
        source.interval = self.interval.unwrap_or(source.interval);
        source.allow_rewrite = self.allow_rewrite;
        Ok(Some(source))
    }

    /// The file that names the repository, as another process finds it.
    pub fn file(&self) -> Option<PathBuf> {
        lasting(self.source.as_ref()?).ok()
    }

    /// The same arguments for another process in another folder.
    ///
    /// # Errors
    /// When a folder on the way is not there.
    pub fn argv(&self, over: &SpecArgs) -> Result<Vec<OsString>, CommandError> {
        let mut argv: Vec<OsString> = Vec::new();
        if let Some(file) = &self.source {
            let file = lasting(file).map_err(|error| {
                CommandError::new(format!("cannot find `{}`", file.display())).because(&error)
            })?;
            argv.extend(["--source".into(), file.into()]);
        }
        if let Some(url) = &self.git {
            argv.push(joined("--git", absolute_url(url)));
        }
        argv.extend(
            self.reference
                .iter()
                .map(|name| joined("--ref", name.clone())),
        );
        let (overlays, vars) = over.laid_over();
        for (name, paths) in [
            ("--path", self.path.as_slice()),
            ("--file", overlays),
            ("--vars", vars),
        ] {
            argv.extend(paths.iter().map(|path| joined(name, path.clone())));
        }
        let interval = self
            .interval
            .map(|interval| format!("{}ms", interval.as_millis()));
        argv.extend(interval.map(|interval| joined("--interval", interval)));
        argv.extend(self.allow_rewrite.then(|| "--allow-rewrite".into()));
        Ok(argv)
    }

    /// The arguments as people know them, for hints.
    pub fn shown(&self, over: &SpecArgs) -> String {
        let mut text = match (&self.source, &self.git) {
            (Some(file), _) => return format!("--source {}", file.display()),
            (None, Some(url)) => format!("--git {}", shown(url)),
            (None, None) => return String::new(),
        };
        if let Some(name) = &self.reference {
            text.push_str(&format!(" --ref {name}"));
        }
        let (overlays, vars) = over.laid_over();
        for (name, paths) in [
            ("--path", self.path.as_slice()),
            ("-f", overlays),
            ("--vars", vars),
        ] {
            for path in paths {
                text.push_str(&format!(" {name} {}", path.display()));
            }
        }
        text
    }
}

/// A path inside the repository.
fn inside(path: &Path) -> Result<PathBuf, CommandError> {
    crate::spec::within_tree(path).ok_or_else(|| {
        CommandError::new(format!(
            "`{}` is not a path inside the repository",
            path.display()
        ))
        .hint(
            "with `--git`, other paths are relative to its top: `--path specs/prime`, without `..`",
        )
    })
}

/// One argument, so that a value that begins with `-` is none.
fn joined(name: &str, value: impl Into<OsString>) -> OsString {
    let mut argument = OsString::from(name);
    argument.push("=");
    argument.push(value.into());
    argument
}

/// A path of this machine is made absolute: the controller works elsewhere.
fn absolute_url(url: &str) -> String {
    let is_path = url.starts_with(['.', '/']) || Path::new(url).is_dir();
    match std::path::absolute(url).ok().filter(|_| is_path) {
        Some(path) => path.display().to_string(),
        None => url.to_owned(),
    }
}

/// A repository, and the file that names it, if one does.
#[derive(Debug, Clone)]
pub struct Named {
    /// The repository, and how it is followed.
    pub source: GitSource,
    /// The file.
    pub file: Option<NamedBy>,
}

/// The file that names a repository.
#[derive(Debug, Clone)]
pub struct NamedBy {
    /// Where it lies; absolute.
    pub path: PathBuf,
    /// What it said.
    pub text: String,
}

impl NamedBy {
    /// Whether the file still names `source`; comments in it are of no account.
    pub fn still_names(&self, source: &GitSource) -> bool {
        read(&self.path).is_ok_and(|read| read.source == *source)
    }
}

/// What a file that names a repository holds.
struct Read {
    source: GitSource,
    text: String,
}

fn read(file: &Path) -> Result<Read, CommandError> {
    let text = spec_file::text(file, "source", INPUT_LIMIT)?.text;
    let name = file.display().to_string();
    match crate::spec::read_source(&name, &text) {
        Ok(source) => Ok(Read { source, text }),
        Err(errors) => Err(CommandError::report(crate::spec::report(
            &name, &text, &errors, true,
        ))),
    }
}

/// Where a stack keeps what the file said when its controller began.
fn copy_of(stack: &str) -> PathBuf {
    git_folder(&wiring::dirs(stack)).join("source.yaml")
}

fn read_copy(stack: Option<&str>) -> Option<Read> {
    read(&copy_of(stack?)).ok()
}

/// Keeps what the file said, for a start at which it cannot be read.
fn keep(stack: &str, file: &NamedBy) {
    if let Err(error) = replace(&copy_of(stack), file.text.as_bytes()) {
        tracing::warn!("{error}");
    }
}

fn demand_no_secret(url: &str) -> Result<(), CommandError> {
    if !holds_secret(url) {
        return Ok(());
    }
    Err(CommandError::new(format!(
        "cannot follow `{}`: what stands before the `@` may be a password or a token, and \
         everybody on this machine could read it",
        shown(url)
    ))
    .hint(
        "leave it out, and tell git's credential store: `git config --global credential.helper \
         store`, then `git credential approve`; or use `ssh://git@host/…` with a key",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{Args, FromArgMatches};

    use super::*;

    fn of_url(url: &str) -> GitArgs {
        GitArgs {
            git: Some(url.to_owned()),
            ..GitArgs::default()
        }
    }

    fn nothing() -> SpecArgs {
        SpecArgs::default()
    }

    /// What a command line of `up` says of a repository.
    fn of_line(line: &str) -> Result<(GitArgs, SpecArgs), clap::Error> {
        let words = line.split_whitespace();
        let command = GitArgs::augment_args(SpecArgs::augment_args(clap::Command::new("up")));
        let found = command.try_get_matches_from(std::iter::once("up").chain(words))?;
        Ok((
            GitArgs::from_arg_matches(&found)?,
            SpecArgs::from_arg_matches(&found)?,
        ))
    }

    #[test]
    fn overlays_and_variables_are_files_of_the_repository() {
        let line = "--git /g --path ./base.yaml -f env/prod.yaml -f more.yaml --vars prod.env";
        let (git, over) = of_line(line).unwrap();
        let source = git.source(&over).unwrap().unwrap();
        assert_eq!(source.path, Path::new("base.yaml"));
        let overlays: [PathBuf; 2] = ["env/prod.yaml".into(), "more.yaml".into()];
        assert_eq!(source.overlays, overlays);
        assert_eq!(source.vars, [Path::new("prod.env")]);
        // Another process understands the same.
        let argv = git.argv(&over).unwrap();
        let argv: Vec<String> = argv
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let (git, over) = of_line(&argv.join(" ")).unwrap();
        assert_eq!(git.source(&over).unwrap().unwrap(), source);

        for outside in ["-f ../prod.yaml", "-f /etc/prod.yaml", "--vars a/../../b"] {
            let (git, over) = of_line(&format!("--git /g {outside}")).unwrap();
            let error = git.followed(&over, None).unwrap_err().to_string();
            assert!(
                error.contains("is not a path inside the repository"),
                "{error}"
            );
        }
        for mixed in [
            "--source s.yaml -f prod.yaml",
            "--source s.yaml --vars prod.env",
            "--git /g base.yaml",
            "base.yaml --path x",
            "-f base.yaml --ref main",
        ] {
            assert!(of_line(mixed).is_err(), "{mixed}");
        }
    }

    #[test]
    fn a_controller_is_told_no_secret() {
        let secret = of_url("https://ada:hunter2@host/specs.git");
        let error = secret.followed(&nothing(), None).unwrap_err().to_string();
        assert!(error.contains("credential.helper"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(secret.source(&nothing()).is_ok(), "one look is allowed");
        assert!(
            of_url("git@host:specs.git")
                .followed(&nothing(), None)
                .is_ok()
        );

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("source.yaml");
        std::fs::write(&file, "source: { git: \"https://t0ken@host/x\" }\n").unwrap();
        let by_file = GitArgs {
            source: Some(file),
            ..GitArgs::default()
        };
        let error = by_file.followed(&nothing(), None).unwrap_err().to_string();
        assert!(!error.contains("t0ken"), "{error}");
    }

    #[test]
    fn an_edit_of_the_file_is_seen_and_a_comment_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source.yaml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("source: { git: /srv/specs.git }\n");
        let args = GitArgs {
            source: Some(path.clone()),
            ..GitArgs::default()
        };
        let named = args.followed(&nothing(), None).unwrap().unwrap();
        let file = named.file.unwrap();
        assert!(file.still_names(&named.source));
        write("# ours\nsource: { git: /srv/specs.git }\n");
        assert!(file.still_names(&named.source));
        for other in ["source: { git: /srv/specs.git, ref: prod }\n", "source: {"] {
            write(other);
            assert!(!file.still_names(&named.source), "{other}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!file.still_names(&named.source));
    }
}
