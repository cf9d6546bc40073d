//! A repository in which somebody works: its commits, and what is not committed yet, as branches
//! of a repository of our own. Nothing is written to theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::GitError;
use super::run::{Bounds, Ran, anywhere, git, run};

/// For adding all that is in the work tree.
const TIME: Duration = Duration::from_secs(120);
/// No answer is longer, in bytes.
const SHORT: u64 = 64 << 10;
/// No object that is written is larger, in bytes.
const OBJECT: u64 = 1 << 30;
/// Who is said to have committed what nobody did.
const NOBODY: [(&str, &str); 4] = [
    ("GIT_AUTHOR_NAME", "nobody"),
    ("GIT_AUTHOR_EMAIL", "nobody@localhost"),
    ("GIT_COMMITTER_NAME", "nobody"),
    ("GIT_COMMITTER_EMAIL", "nobody@localhost"),
];

/// A work tree, and our repository beside it, which has all objects of its repository.
#[derive(Debug)]
pub struct Checkout {
    top: PathBuf,
    own: PathBuf,
}

impl Checkout {
    /// The work tree in which `folder` lies; our repository is made at `own`.
    ///
    /// # Errors
    /// When the folder is in none.
    pub fn of(folder: &Path, own: &Path) -> Result<Checkout, GitError> {
        let asked = |question: &[&str]| {
            let mut command = anywhere(folder);
            command.arg("rev-parse").args(question);
            let ran = run(command, b"", bounds())?;
            match ran.success {
                true => Ok(PathBuf::from(ran.text().trim_end_matches('\n'))),
                false => Err(GitError::Refused(format!(
                    "`{}` is in no git repository: {}",
                    folder.display(),
                    ran.said
                ))),
            }
        };
        let top = asked(&["--show-toplevel"])?;
        let objects = asked(&["--path-format=absolute", "--git-path", "objects"])?;
        let checkout = Checkout {
            top,
            own: own.to_owned(),
        };
        let mut init = git(own);
        init.args(["init", "--quiet", "--bare", "--template="]);
        checkout.done(init, "make a repository for comparing")?;
        let info = own.join("objects/info");
        let alternates = info.join("alternates");
        fs::create_dir_all(&info)
            .and_then(|()| fs::write(&alternates, format!("{}\n", objects.display())))
            .map_err(GitError::disk("write", &alternates))?;
        Ok(checkout)
    }

    /// The folder at the top of the work tree.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The address of our repository.
    pub fn url(&self) -> String {
        self.own.display().to_string()
    }

    /// All that is in the work tree, but for what is ignored, becomes this branch.
    ///
    /// # Errors
    /// What git said.
    pub fn take_work_tree(&self, branch: &str) -> Result<(), GitError> {
        let mut add = git(&self.own);
        add.arg("--work-tree").arg(&self.top);
        add.current_dir(&self.top).args(["add", "--all"]);
        self.done(add, "read the work tree of")?;
        let mut write = git(&self.own);
        write.arg("write-tree");
        let tree = self.done(write, "read the work tree of")?;
        self.commit(tree.text().trim(), branch)
    }

    /// What a revision of theirs holds becomes this branch.
    ///
    /// # Errors
    /// When there is no such revision.
    pub fn take_revision(&self, revision: &str, branch: &str) -> Result<(), GitError> {
        let mut parse = anywhere(&self.top);
        let tree = format!("{revision}^{{tree}}");
        parse.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        parse.arg(tree);
        let ran = run(parse, b"", bounds())?;
        match ran.success {
            true => self.commit(ran.text().trim(), branch),
            false => Err(GitError::Refused(format!(
                "`{}` is neither a file nor a revision of `{}`; a shallow clone has few: `git \
                 fetch origin {0}` brings it",
                revision.escape_debug(),
                self.top.display()
            ))),
        }
    }

    /// A commit without history, which a shallow clone may lack.
    fn commit(&self, tree: &str, branch: &str) -> Result<(), GitError> {
        let mut commit = git(&self.own);
        commit
            .args(["commit-tree", "-m", branch, tree])
            .envs(NOBODY);
        let made = self.done(commit, "compare in")?;
        let mut update = git(&self.own);
        update.arg("update-ref").arg(format!("refs/heads/{branch}"));
        update.arg(made.text().trim());
        self.done(update, "compare in")?;
        Ok(())
    }

    fn done(&self, command: Command, what: &str) -> Result<Ran, GitError> {
        let ran = run(command, b"", bounds())?;
        match ran.success {
            true => Ok(ran),
            false => Err(GitError::Local(format!(
                "cannot {what} `{}`: {}",
                self.top.display(),
                ran.said
            ))),
        }
    }
}

fn bounds() -> Bounds {
    Bounds {
        time: TIME,
        output: SHORT,
        file: OBJECT,
    }
}
