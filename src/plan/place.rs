//! What a running workload can be given without ending it: its link, firewall, hosts file, and
//! the news that a file changed.

use super::context::{Context, detail, words};
use super::model::{Change, Detail, Gate, Item, Note, Step};
use super::world::{FileView, Life};
use super::{ending, network, template, workload};
use crate::graph::desired::{Farewell, ReloadNode, TemplateNode, WorkloadNode};
use crate::spec::model::{Confirm, Drain, Firewall, Signal};

/// What differs and can change while it runs: link, firewall, hosts file, and how it is to end.
pub(super) fn in_place(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Option<Item> {
    let (mut steps, mut details) = surroundings(context, node);
    if !ending::is_noted(node, life) {
        let farewell = ending::farewell(node, life);
        details.extend(farewell_details(life.farewell.as_ref(), &farewell));
        steps.push(Step::Note {
            life: life.id.clone(),
            note: Note::Farewell(farewell),
        });
    }
    if steps.is_empty() {
        return None;
    }
    let names: Vec<&str> = details.iter().map(|detail| detail.name.as_str()).collect();
    let reason = format!("{} changed", names.join(", "));
    Some(Item {
        node: node.id.clone(),
        change: Change::Change,
        reason,
        gate: Gate::Ready,
        steps,
        details,
        diff: None,
    })
}

/// What differs in how a life is to end.
fn farewell_details(noted: Option<&Farewell>, due: &Farewell) -> Vec<Detail> {
    let Drain { quiet, timeout } = due.drain;
    let ports: Vec<String> = due.ports.iter().map(u16::to_string).collect();
    let all = [
        (
            noted.map(|noted| noted.signal) != Some(due.signal),
            detail("stop_signal", due.signal),
        ),
        (
            noted.map(|noted| noted.grace) != Some(due.grace),
            detail("stop_grace_period", words(due.grace)),
        ),
        (
            noted.map(|noted| noted.drain) != Some(due.drain),
            detail(
                "drain",
                format!("quiet {}, timeout {}", words(quiet), words(timeout)),
            ),
        ),
        (
            noted.map(|noted| &noted.ports) != Some(&due.ports),
            detail("drained ports", ports.join(",")),
        ),
    ];
    let differing = all.into_iter().filter(|(differs, _)| *differs);
    differing.map(|(_, detail)| detail).collect()
}

/// The steps that bring about what a container stands in, as far as it is not there.
pub(super) fn surroundings(context: &Context<'_>, node: &WorkloadNode) -> (Vec<Step>, Vec<Detail>) {
    let mut steps = Vec::new();
    let mut details = Vec::new();
    if let Some(attachment) = &node.attachment {
        let view = context.sight(&node.id).attachment;
        if !view.is_some_and(|view| network::attached(view, attachment)) {
            steps.push(Step::Attach(Box::new(attachment.clone())));
            details.push(detail("network link", &attachment.link));
        }
        let in_force = view.and_then(|view| view.firewall.as_deref());
        let due = attachment.firewall.as_ref();
        let due = due.map(|firewall| context.firewall_hash(firewall));
        if in_force != due.as_ref().map(|hash| hash.as_str()) {
            steps.push(Step::Firewall {
                namespace: attachment.namespace.clone(),
                firewall: attachment.firewall.clone(),
            });
            details.push(detail(
                "firewall",
                firewall_words(attachment.firewall.as_ref()),
            ));
        }
    }
    if let Some(container) = &node.run.container {
        let hosts = context.hosts();
        let right = matches!(
            context.observed.files.get(&container.hosts),
            Some(FileView::File { hash, .. }) if hosts.is_hash(node, hash)
        );
        if !right {
            steps.push(Step::Rewrite {
                path: container.hosts.clone(),
                content: hosts.text(node),
            });
            details.push(detail("hosts", "names of this stack"));
        }
    }
    (steps, details)
}

/// It has not read what its files hold by now.
pub(super) fn reload(context: &Context<'_>, node: &WorkloadNode, life: &Life) -> Option<Item> {
    let told = context.reloads_of(node);
    if told.is_empty() {
        return None;
    }
    let mut files = template::files_of(context, node);
    let stale: Vec<_> = told
        .iter()
        .filter(|template| files.get(&template.name) != life.applied.get(&template.name))
        .filter(|template| {
            context
                .templates
                .get(template.name.as_str())
                .is_some_and(|state| state.foreign.is_none())
        })
        .filter(|template| files.contains_key(&template.name))
        .collect();
    let (signal, confirm) = told_how(stale.first()?.reload.as_ref()?)?;
    // A file of which it is told in another way is not read by this: that has its own turn.
    let (stale, later): (Vec<&TemplateNode>, Vec<_>) = stale.into_iter().partition(|template| {
        let told = template.reload.as_ref().and_then(told_how);
        told == Some((signal, confirm))
    });
    for template in later {
        match life.applied.get(&template.name) {
            Some(read) => files.insert(template.name.clone(), read.clone()),
            None => files.remove(&template.name),
        };
    }
    let names: Vec<String> = stale
        .iter()
        .map(|template| template.destination.display().to_string())
        .collect();
    let unsettled = told.iter().any(|template| {
        context
            .templates
            .get(template.name.as_str())
            .is_some_and(|state| template::writes_soon(context, state))
    });
    let gate = if !workload::is_ready(context, node, life) {
        Gate::Waiting(vec![format!("{} to be ready", node.id)])
    } else if unsettled {
        Gate::Waiting(vec!["the other files that it reads".to_owned()])
    } else {
        Gate::Ready
    };
    let step = Step::ReloadProcess {
        life: life.id.clone(),
        signal,
        confirm,
        applied: files,
    };
    Some(Item {
        node: node.id.clone(),
        change: Change::Change,
        reason: format!("{} changed since it was read", names.join(", ")),
        steps: if gate == Gate::Ready {
            vec![step]
        } else {
            Vec::new()
        },
        gate,
        details: vec![detail("reload", signal)],
        diff: None,
    })
}

/// How a process is told, and when it counts as done.
fn told_how(reload: &ReloadNode) -> Option<(Signal, Confirm)> {
    match reload {
        ReloadNode::Signal {
            signal, confirm, ..
        } => Some((*signal, *confirm)),
        ReloadNode::Command(_) => None,
    }
}

pub(super) fn firewall_words(firewall: Option<&Firewall>) -> String {
    let Some(firewall) = firewall else {
        return "open".to_owned();
    };
    let mut words = Vec::new();
    let ports = |ports: &[u16]| {
        ports
            .iter()
            .map(u16::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    if !firewall.allow_tcp.is_empty() {
        words.push(format!("tcp {}", ports(&firewall.allow_tcp)));
    }
    if !firewall.allow_udp.is_empty() {
        words.push(format!("udp {}", ports(&firewall.allow_udp)));
    }
    if firewall.allow_ping {
        words.push("ping".to_owned());
    }
    words.extend(
        firewall
            .allow_from
            .iter()
            .map(|from| format!("all from {from}")),
    );
    if words.is_empty() {
        "nothing may come in".to_owned()
    } else {
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_in_words() {
        let words = |change: fn(&mut Firewall)| {
            let mut firewall = Firewall::default();
            change(&mut firewall);
            firewall_words(Some(&firewall))
        };
        assert_eq!(firewall_words(None), "open");
        assert_eq!(words(|one| one.allow_ping = false), "nothing may come in");
        assert_eq!(words(|one| one.allow_tcp = vec![80, 443]), "tcp 80,443");
        assert_eq!(words(|one| one.allow_udp = vec![53]), "udp 53");
        let both = words(|one| {
            one.allow_tcp = vec![80];
            one.allow_ping = true;
        });
        assert_eq!(both, "tcp 80, ping");
    }
}
