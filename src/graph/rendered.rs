//! Rendered files, expressions evaluated and sources tried.

use std::collections::BTreeMap;
use std::path::Path;

use super::Compiler;
use super::at::At;
use super::desired::{ReloadNode, TemplateNode};
use super::evaluate::Side;
use crate::spec::model::{Reload, Template};
use crate::spec::node::{Kind, NodeId};
use crate::template::expr::Scope;
use crate::template::{Inputs, normalise, trial};

/// One template; `None` once its errors are noted.
pub(super) fn template(
    compiler: &mut Compiler<'_>,
    name: &str,
    template: &Template,
) -> Option<TemplateNode> {
    let section = At::section(Kind::Templates.word());
    let at = section.key(name);
    let scope = Scope {
        name: Some(name),
        ..Scope::default()
    };
    let source = normalise(
        &compiler.inputs.spec_dir,
        &template.source.to_string_lossy(),
    );
    let reads = reads(compiler, &at.key("source"), &source, &template.source);
    let destination = compiler.destination(&at.key("destination"), &template.destination, &scope);
    let validate = template
        .validate
        .as_ref()
        .map(|words| compiler.command(&at.key("validate"), words, &scope, Side::Host));
    let reload = template
        .reload
        .as_ref()
        .map(|reload| reload_node(compiler, &at.key("reload"), reload, &scope));
    Some(TemplateNode {
        name: name.to_owned(),
        source,
        destination: destination?,
        mode: template.mode,
        owner: template.owner.clone(),
        validate: match validate {
            Some(command) => Some(command?),
            None => None,
        },
        reload: match reload {
            Some(reload) => Some(reload?),
            None => None,
        },
        wait: template.wait,
        when_empty: template.when_empty,
        reads: reads?,
        text: Default::default(),
    })
}

/// The services that the source reads, by a trial render.
fn reads(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    source: &Path,
    written: &Path,
) -> Option<Vec<String>> {
    let text = match compiler.inputs.template_sources.get(source) {
        Some(Ok(text)) => text,
        Some(Err(why)) => {
            let message = format!("cannot read `{}`: {why}", written.display());
            compiler.problems.add(at, message);
            return None;
        }
        None => {
            let message = format!("cannot read `{}`: nobody tried", written.display());
            compiler.problems.add(at, message);
            return None;
        }
    };
    let inputs = Inputs {
        files: BTreeMap::new(),
        env: compiler.inputs.env.clone(),
        vars: compiler.spec.vars.clone(),
        spec_dir: compiler.inputs.spec_dir.clone(),
    };
    match trial(&written.display().to_string(), text, &inputs) {
        Ok(reads) => Some(reads.services.into_keys().collect()),
        Err(error) => {
            let line = error
                .line
                .map_or_else(String::new, |line| format!(" line {line}"));
            let message = format!("cannot render `{}`{line}: {error}", written.display());
            compiler.problems.add(at, message);
            None
        }
    }
}

fn reload_node(
    compiler: &mut Compiler<'_>,
    at: &At<'_>,
    reload: &Reload,
    scope: &Scope<'_>,
) -> Option<ReloadNode> {
    match reload {
        Reload::Command(words) => compiler
            .command(&at.key("command"), words, scope, Side::Host)
            .map(ReloadNode::Command),
        Reload::Signal {
            process,
            signal,
            confirm,
        } => {
            if !compiler.spec.processes.contains_key(process) {
                let message = format!("`processes/{process}` does not exist");
                compiler.problems.add(&at.key("process"), message);
                return None;
            }
            Some(ReloadNode::Signal {
                process: NodeId::new(Kind::Processes, process.as_str()),
                signal: *signal,
                confirm: *confirm,
            })
        }
    }
}
