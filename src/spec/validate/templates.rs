//! Templates and what they tell.

use std::collections::HashMap;

use super::{literal, path};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{Confirm, Ready, Reload, Spec};
use crate::spec::node::Kind;
use crate::spec::places::Places;

pub(super) fn check(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    let mut destinations: HashMap<&str, &str> = HashMap::new();
    for (name, template) in &spec.templates {
        let at = path(Kind::Templates, name);
        if let Some(destination) = literal(&template.destination) {
            let place = at.key("destination");
            if !destination.starts_with('/') || destination.ends_with('/') {
                errors.push(
                    places
                        .diagnostic(
                            &place,
                            format!("`{destination}` is not the absolute path of a file"),
                        )
                        .help("begin it with `/`, or with `{{ spec_dir }}/`"),
                );
            }
            if let Some(other) = destinations.insert(destination, name) {
                errors.push(
                    places
                        .diagnostic(
                            &place,
                            format!("`{destination}` is already written by template `{other}`"),
                        )
                        .help("give each template a file of its own"),
                );
            }
        }
        if template.wait.max < template.wait.min {
            errors.push(
                places
                    .diagnostic(
                        &at.key("wait").key("max"),
                        format!(
                            "`max` of template `{name}` is shorter than its `min`, {}",
                            humantime::format_duration(template.wait.min)
                        ),
                    )
                    .help("changes are gathered for `min`, at most for `max`"),
            );
        }
        if let Some(Reload::Signal {
            process, confirm, ..
        }) = &template.reload
        {
            reload(spec, name, process, *confirm, places, errors);
        }
    }
}

/// A process that is signalled must be past the moment in which the signal would kill it.
fn reload(
    spec: &Spec,
    template: &str,
    process: &str,
    confirm: Confirm,
    places: &Places,
    errors: &mut Vec<Diagnostic>,
) {
    let at = path(Kind::Templates, template).key("reload");
    let Some(target) = spec.processes.get(process) else {
        return;
    };
    if target.workload.ready == Ready::Started {
        errors.push(
            places
                .diagnostic(
                    &at.key("process"),
                    format!(
                        "process `{process}` is signalled to reload, but nothing says when it is ready for a signal"
                    ),
                )
                .label("a signal that comes too early kills it")
                .help(format!(
                    "give process `{process}` a `ready` with `tcp`, `check` or `notify`"
                )),
        );
    }
    if confirm == Confirm::NewChild && target.workload.replicas == Some(0) {
        errors.push(
            places
                .diagnostic(
                    &at.key("confirm"),
                    format!("process `{process}` has no replicas that could have a new child"),
                )
                .help("remove `confirm`"),
        );
    }
}
