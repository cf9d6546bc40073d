//! Edits that keep a spec valid.

use std::collections::BTreeSet;

use super::draw::window;
use super::{Check, Defect, Model, Ready, Reload, Role, Update};
use crate::rng::Rng;
use hatchery::spec::model::Condition;

impl Model {
    /// Changes one to three things.
    pub fn edit(&mut self, rng: &mut Rng) {
        for _ in 0..rng.range(1, 3) {
            self.change(rng);
            // Before anything new gets the name of what went.
            self.mend();
        }
    }

    fn change(&mut self, rng: &mut Rng) {
        let number = rng.range(0, 23);
        let work = match self.works.is_empty() {
            true => return self.add_group(rng),
            false => rng.index(self.works.len()),
        };
        match number {
            0..=3 => {
                let work = &mut self.works[work];
                if work.container && work.role == Role::App {
                    work.replicas = Some(rng.range(0, 5) as u32);
                }
            }
            4..=6 => {
                let work = &mut self.works[work];
                work.version += 1;
                work.defect = None;
            }
            7 => {
                let work = &mut self.works[work];
                work.watch = match work.watch.is_empty() {
                    true => vec![format!("./watched{}", rng.range(0, 1))],
                    false => Vec::new(),
                };
            }
            8 => {
                let work = &mut self.works[work];
                work.grace = *rng.pick(&[500, 2_000, 10_000]);
            }
            9 => {
                let work = &mut self.works[work];
                work.delay = *rng.pick(&[100, 500, 1000, 3000]);
                work.max_delay = work.delay * *rng.pick(&[1, 4, 20]);
            }
            10 => {
                if self.works.len() > 1 {
                    self.works.remove(work);
                }
            }
            11 => self.add_group(rng),
            12 => self.add_process(rng),
            13 => self.add_proxy(rng),
            14 => {
                let work = &mut self.works[work];
                if work.role == Role::App && work.port.is_some() {
                    work.ready = *rng.pick(&[
                        Ready::Started,
                        Ready::Notify(20_000),
                        Ready::Tcp(20_000),
                        Ready::Check(20_000),
                    ]);
                }
            }
            15..=17 => self.change_service(rng),
            18 => self.change_template(rng),
            19 | 20 => {
                let work = &mut self.works[work];
                let process = work.replicas.is_some() && work.port.is_none();
                let may_be_two = work.network.is_some() || !work.container && process;
                work.update = rng
                    .chance(800)
                    .then(|| Update::draw(rng, may_be_two && work.role == Role::App));
            }
            21 => {
                let work = &mut self.works[work];
                if work.role == Role::App {
                    work.version += 1;
                    work.defect = Some(*rng.pick(&[Defect::Ends, Defect::Mute]));
                }
            }
            22 => {
                let work = &mut self.works[work];
                work.max_attempts = rng.chance(500).then(|| rng.range(1, 3) as u32);
                work.window = work.max_attempts.and_then(|_| window(rng));
            }
            _ => {
                let work = &mut self.works[work];
                if work.network.is_some() {
                    work.firewall = match work.firewall {
                        None => Some(8080),
                        Some(_) => None,
                    };
                }
                self.http = match self.http {
                    None => Some(8500),
                    Some(_) => rng.chance(500).then_some(8501),
                };
            }
        }
    }

    fn change_service(&mut self, rng: &mut Rng) {
        if self.services.is_empty() {
            return;
        }
        let at = rng.index(self.services.len());
        if rng.chance(150) {
            self.services.remove(at);
            return;
        }
        let service = &mut self.services[at];
        match rng.range(0, 3) {
            0 => service.tags = vec![format!("tag{}", rng.range(0, 9))],
            1 => service.checks.push(Check::draw(rng)),
            2 => {
                service.checks.pop();
            }
            _ => {
                for check in &mut service.checks {
                    check.interval = *rng.pick(&[500, 1000, 3000]);
                    check.timeout = check.interval.min(1000);
                }
            }
        }
        service.checks.truncate(3);
    }

    fn change_template(&mut self, rng: &mut Rng) {
        if self.templates.is_empty() {
            return;
        }
        let at = rng.index(self.templates.len());
        let template = &mut self.templates[at];
        match rng.range(0, 5) {
            0 => template.validate = !template.validate,
            1 => template.keep = !template.keep,
            2 => template.destination.push('x'),
            3 => {
                self.templates.remove(at);
            }
            _ => template.wait = (100, *rng.pick(&[100, 400])),
        }
    }

    /// Takes out what refers to something that is gone.
    pub(super) fn mend(&mut self) {
        let services: BTreeSet<String> = {
            let targets: BTreeSet<String> = self.works.iter().map(|w| w.reference()).collect();
            self.services
                .retain(|service| targets.contains(&service.target));
            self.services.iter().map(|s| s.name.clone()).collect()
        };
        let has_proxy = self.works.iter().any(|work| work.role == Role::Proxy);
        for template in &mut self.templates {
            template
                .services
                .retain(|service| services.contains(service));
            if matches!(template.reload, Reload::Process { .. }) && !has_proxy {
                template.reload = Reload::None;
            }
        }
        self.templates
            .retain(|template| !template.services.is_empty());
        let empty: BTreeSet<String> = {
            let none = |service: &&super::Service| {
                self.work(&service.target)
                    .is_some_and(|work| work.replicas == Some(0) || work.role == Role::Once)
            };
            let services = self.services.iter().filter(none);
            services.map(|service| service.name.clone()).collect()
        };
        for template in &mut self.templates {
            // What is never rendered would keep the plan from being empty.
            if template.services.iter().any(|name| empty.contains(name)) {
                template.keep = false;
            }
        }
        self.mend_needs();
    }

    fn mend_needs(&mut self) {
        let mut before: BTreeSet<String> = BTreeSet::new();
        for work in &mut self.works {
            work.needs.retain(|(on, _)| before.contains(on));
            if work.replicas != Some(0) {
                before.insert(work.reference());
            }
        }
        let read: Vec<(String, String)> = self
            .templates
            .iter()
            .filter(|template| matches!(template.reload, Reload::Process { .. }))
            .map(|template| {
                (
                    format!("templates/{}", template.name),
                    template.destination.clone(),
                )
            })
            .collect();
        for work in &mut self.works {
            if work.role != Role::Proxy {
                continue;
            }
            let old: BTreeSet<&String> = work.files.iter().collect();
            let new: BTreeSet<&String> = read.iter().map(|(_, file)| file).collect();
            if old != new {
                work.files = read.iter().map(|(_, file)| file.clone()).collect();
            }
            work.needs.retain(|(on, _)| !on.starts_with("templates/"));
            work.needs.extend(
                read.iter()
                    .map(|(name, _)| (name.clone(), Condition::Started)),
            );
        }
    }
}
