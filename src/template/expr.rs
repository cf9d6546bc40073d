//! The spec's strings that depend on the instance: the same language as templates, over a
//! few names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use indexmap::IndexMap;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Template};

use super::TemplateError;
use super::engine::{engine, explain};
use crate::spec::model::{Env, Expr};

/// Steps that one expression may take; also about 1 MiB of text.
const FUEL: u64 = 20_000;

/// The longest text that an expression may give, in bytes: a program's argument is no longer.
const LONGEST: usize = 128 * 1024;

/// For what an expression is evaluated. A name that has no value here is not defined there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The instance's name, `prime1`; outside instances the name of the thing itself.
    pub name: Option<&'a str>,
    /// The instance's number, from 1.
    pub replica: Option<u32>,
    /// The instance's address.
    pub address: Option<&'a str>,
    /// The service's port.
    pub port: Option<u16>,
}

/// Evaluates the expressions of one spec.
pub struct Evaluator {
    engine: Environment<'static>,
    /// What every scope has: `spec_dir`, `vars`, `env`.
    fixed: Vec<(&'static str, Value)>,
}

impl Evaluator {
    /// An evaluator over what is the same for the whole spec.
    pub fn new(spec_dir: &Path, vars: &IndexMap<String, serde_json::Value>, env: &Env) -> Self {
        Evaluator {
            engine: engine(FUEL),
            fixed: vec![
                ("spec_dir", Value::from(spec_dir.to_string_lossy())),
                ("vars", Value::from(Serde(vars))),
                ("env", Value::from(Serde(env))),
            ],
        }
    }

    /// The text of `expression` in `scope`.
    ///
    /// # Errors
    /// When it is not an expression, names what is not defined in `scope`, or gives more than
    /// 128 KiB or a NUL, which no program could be given.
    pub fn evaluate(&self, expression: &Expr, scope: &Scope<'_>) -> Result<String, TemplateError> {
        let source = &expression.0;
        let text = if is_plain(source) {
            source.clone()
        } else {
            self.render(source, scope)?
        };
        let wrong = if text.len() > LONGEST {
            "its text is longer than 128 KiB"
        } else if text.contains('\0') {
            "its text holds a NUL byte"
        } else {
            return Ok(text);
        };
        Err(TemplateError {
            message: wrong.to_owned(),
            line: None,
            range: None,
        })
    }

    fn render(&self, source: &str, scope: &Scope<'_>) -> Result<String, TemplateError> {
        let mut values = self.fixed.clone();
        values.extend(scope.name.map(|name| ("name", Value::from(name))));
        values.extend(scope.replica.map(|number| ("replica", Value::from(number))));
        values.extend(scope.address.map(|text| ("address", Value::from(text))));
        values.extend(scope.port.map(|port| ("port", Value::from(port))));
        let names: BTreeSet<String> = values.iter().map(|(name, _)| (*name).to_owned()).collect();
        let context = Value::from(BTreeMap::from_iter(values));
        self.engine
            .template_from_named_str("expression", source)
            .and_then(|template: Template<'_, '_>| template.render(context))
            .map_err(|error| explain(&error, source, &names))
    }
}

/// Whether the engine would give `source` back as it is.
fn is_plain(source: &str) -> bool {
    !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark))
}
