//! How instances are replaced: times that fit together, and what two lives at once cannot share.

use super::{AnyWorkload, path, workloads};
use crate::spec::diagnostic::Diagnostic;
use crate::spec::model::{NetworkMode, Ready, Root, RootMode, Spec, UpdateOrder};
use crate::spec::node::Kind;
use crate::spec::places::Places;
use humantime::format_duration;

pub(super) fn check(spec: &Spec, places: &Places, errors: &mut Vec<Diagnostic>) {
    for workload in workloads(spec) {
        window(&workload, places, errors);
        deadline(&workload, places, errors);
        quiet(&workload, places, errors);
        if workload.workload.update.order == UpdateOrder::StartFirst {
            let mut twice = Twice {
                workload: &workload,
                places,
                errors,
            };
            twice.address();
            twice.root();
            if shares_host(&workload) {
                twice.ready();
                twice.services(spec);
            }
        }
    }
}

fn window(workload: &AnyWorkload<'_>, places: &Places, errors: &mut Vec<Diagnostic>) {
    let restart = &workload.workload.restart;
    if restart.window.is_some() && restart.max_attempts.is_none() {
        errors.push(
            places
                .diagnostic_at_key(
                    &workload.path().key("restart").key("window"),
                    format!(
                        "`window` of {} does nothing without `max_attempts`",
                        workload.title()
                    ),
                )
                .help("add `max_attempts`: so many failures within `window` are too many"),
        );
    }
}

fn deadline(workload: &AnyWorkload<'_>, places: &Places, errors: &mut Vec<Diagnostic>) {
    let update = workload.workload.update;
    let Some(least) = update
        .min_healthy_time
        .filter(|least| *least >= update.healthy_deadline)
    else {
        return;
    };
    let at = workload.path().key("update");
    let written = at.key("healthy_deadline");
    let (place, said) = match places.value(&written) {
        Some(_) => (written, ""),
        None => (at.key("min_healthy_time"), ", which nobody set"),
    };
    errors.push(
        places
            .diagnostic(
                &place,
                format!(
                    "`healthy_deadline` of {}, {}{said}, is not longer than its \
                     `min_healthy_time`, {}",
                    workload.title(),
                    format_duration(update.healthy_deadline),
                    format_duration(least)
                ),
            )
            .help("a new life must be well for `min_healthy_time`, before `healthy_deadline`"),
    );
}

fn quiet(workload: &AnyWorkload<'_>, places: &Places, errors: &mut Vec<Diagnostic>) {
    let drain = workload.workload.drain;
    if drain.timeout.is_zero() || drain.quiet <= drain.timeout {
        return;
    }
    errors.push(
        places
            .diagnostic(
                &workload.path().key("drain").key("quiet"),
                format!(
                    "`quiet` of {} is longer than its `timeout`, {}",
                    workload.title(),
                    format_duration(drain.timeout)
                ),
            )
            .help("connections are waited for until `quiet` passed without one, at most `timeout`"),
    );
}

/// Whether it listens on the host's own addresses.
fn shares_host(workload: &AnyWorkload<'_>) -> bool {
    workload
        .container
        .is_none_or(|container| container.network == NetworkMode::Host)
}

/// What is replaced start-first runs twice for a while.
struct Twice<'a> {
    workload: &'a AnyWorkload<'a>,
    places: &'a Places,
    errors: &'a mut Vec<Diagnostic>,
}

impl Twice<'_> {
    fn address(&mut self) {
        if self
            .workload
            .container
            .is_some_and(|one| one.address.is_some())
        {
            let found = self.places.diagnostic(
                &self.workload.path().key("address"),
                format!(
                    "{} is replaced start-first: its two lives cannot both have one `address`",
                    self.workload.title()
                ),
            );
            self.refuse(found, "remove `address`, so that each takes a free one");
        }
    }

    fn root(&mut self) {
        let Some(Root::Path {
            mode: RootMode::Persistent,
            ..
        }) = self.workload.container.map(|container| &container.root)
        else {
            return;
        };
        let found = self.places.diagnostic(
            &self.workload.path().key("root").key("path"),
            format!(
                "{} is replaced start-first: its two lives cannot both write to one root",
                self.workload.title()
            ),
        );
        self.refuse(found, "add `read_only: true` or `ephemeral: true`");
    }

    /// No expression tells the two lives of one instance apart but `{{ address }}`, which is
    /// loopback for both on the host's network: every port is a fixed one.
    fn ready(&mut self) {
        if let Ready::Listening { tcp, .. } = &self.workload.workload.ready {
            let found = self.places.diagnostic(
                &self.workload.path().key("ready").key("tcp"),
                format!(
                    "{} is replaced start-first: its two lives cannot both listen on the \
                     host's `{}`",
                    self.workload.title(),
                    tcp.0
                ),
            );
            self.refuse(found, self.apart());
        }
    }

    fn services(&mut self, spec: &Spec) {
        for (name, service) in &spec.services {
            let served = service.target.as_ref().is_some_and(|target| {
                target.kind == self.workload.kind && target.name == self.workload.name
            });
            if served {
                let found = self.places.diagnostic(
                    &path(Kind::Services, name).key("port"),
                    format!(
                        "{} is replaced start-first: its two lives cannot both listen on the \
                         host's port {}",
                        self.workload.title(),
                        service.port
                    ),
                );
                self.refuse(found, self.apart());
            }
        }
    }

    fn apart(&self) -> &'static str {
        match self.workload.container {
            Some(_) => "put it into a network",
            None => "make it a container in a network",
        }
    }

    fn refuse(&mut self, found: Diagnostic, remedy: &str) {
        self.errors
            .push(found.help(format!("{remedy}, or write `order: stop-first`")));
    }
}
