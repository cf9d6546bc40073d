//! Expressions evaluated and judged: every text, path and command of the spec passes here.

use std::path::{Component, Path, PathBuf};

use super::Compiler;
use super::at::At;
use crate::spec::model::Expr;
use crate::template::expr::Scope;
use crate::template::{excerpt, normalise};

/// On which side of a container's wall a program or path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// On the host: relative ones are below the spec's folder.
    Host,
    /// In a container: the spec's folder is not there.
    Inside,
}

impl Compiler<'_> {
    /// The text of an expression; `None` once its error is noted.
    pub(super) fn text(
        &mut self,
        at: &At<'_>,
        expression: &Expr,
        scope: &Scope<'_>,
    ) -> Option<String> {
        match self.evaluator.evaluate(expression, scope) {
            Ok(text) => Some(text),
            Err(error) => {
                let source = excerpt(&expression.0);
                let message = format!("cannot evaluate `{source}`: {}", error.message);
                match error.range {
                    Some(range) => self.problems.add_inside(at, range, message),
                    None => self.problems.add(at, message),
                }
                None
            }
        }
    }

    /// A path on `side`, absolute and without `..`.
    pub(super) fn path(
        &mut self,
        at: &At<'_>,
        expression: &Expr,
        scope: &Scope<'_>,
        side: Side,
    ) -> Option<PathBuf> {
        let text = self.text(at, expression, scope)?;
        if text.is_empty() {
            self.problems.add(at, "a path cannot be empty");
            return None;
        }
        match side {
            Side::Host => Some(normalise(&self.inputs.spec_dir, &text)),
            Side::Inside => self.inside(at, &text),
        }
    }

    /// Below a root that we do not know, `..` could lead anywhere.
    fn inside(&mut self, at: &At<'_>, text: &str) -> Option<PathBuf> {
        let path = Path::new(text);
        let leads_up = path
            .components()
            .any(|part| matches!(part, Component::ParentDir));
        if path.is_absolute() && !leads_up {
            return Some(normalise(Path::new("/"), text));
        }
        self.problems.advise(
            at,
            format!("`{text}` is not an absolute path in the container"),
            "write it from `/`, without `..`",
        );
        None
    }

    /// An absolute path on the host that may not be relative, since it says where we write.
    pub(super) fn destination(
        &mut self,
        at: &At<'_>,
        expression: &Expr,
        scope: &Scope<'_>,
    ) -> Option<PathBuf> {
        let text = self.text(at, expression, scope)?;
        if text.starts_with('/') && !text.ends_with('/') {
            return Some(normalise(Path::new("/"), &text));
        }
        self.problems.advise(
            at,
            format!("`{text}` is not the absolute path of a file"),
            "write it from `/`; `{{ spec_dir }}/…` is below the spec's folder",
        );
        None
    }

    /// A program with its arguments. On the host `./program` is below the spec's folder; a
    /// bare name is looked up on the PATH by whoever runs it.
    pub(super) fn command(
        &mut self,
        at: &At<'_>,
        words: &[Expr],
        scope: &Scope<'_>,
        side: Side,
    ) -> Option<Vec<String>> {
        let before: Vec<Option<String>> = words
            .iter()
            .enumerate()
            .map(|(index, word)| self.text(&at.index(index), word, scope))
            .collect();
        let mut command: Vec<String> = before.into_iter().collect::<Option<_>>()?;
        match command.first_mut() {
            Some(program) if !program.is_empty() => {
                if side == Side::Host && program.starts_with('.') && program.contains('/') {
                    *program = normalise(&self.inputs.spec_dir, program)
                        .to_string_lossy()
                        .into_owned();
                }
                Some(command)
            }
            _ => {
                self.problems.add(at, "a command cannot be empty");
                None
            }
        }
    }
}
