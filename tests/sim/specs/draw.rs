//! Specs from random numbers.

use super::{
    Action, Check, Model, Network, Probe, Ready, Reload, Role, Service, Template, Update, Work,
};
use crate::rng::Rng;
use hatchery::spec::model::Condition;

impl Model {
    /// A stack with something of everything that was drawn for it.
    pub fn draw(rng: &mut Rng) -> Model {
        let mut model = Model {
            revision: 1,
            http: rng.chance(500).then_some(8500),
            networks: Vec::new(),
            works: Vec::new(),
            services: Vec::new(),
            templates: Vec::new(),
        };
        for number in 0..rng.range(1, 2) {
            model.networks.push(Network {
                name: format!("net{number}"),
                third: number as u8,
                forward: rng.chance(300),
            });
        }
        for _ in 0..rng.range(0, 2) {
            model.add_once(rng);
        }
        for _ in 0..rng.range(1, 4) {
            model.add_group(rng);
        }
        for _ in 0..rng.range(0, 2) {
            model.add_process(rng);
        }
        if rng.chance(800) {
            model.add_proxy(rng);
        }
        model.mend();
        model
    }

    fn fresh(&self, letter: &str) -> String {
        (0..)
            .map(|number: u32| format!("{letter}{}", letters(number)))
            .find(|name| self.works.iter().all(|work| work.name != *name))
            .unwrap_or_default()
    }

    pub(super) fn add_once(&mut self, rng: &mut Rng) {
        let mut work = self.work_drawn(rng, "once", false);
        work.role = Role::Once;
        work.policy = *rng.pick(&["no", "on-failure", "on-failure"]);
        work.ready = Ready::Started;
        work.port = None;
        work.replicas = None;
        self.works.insert(0, work);
    }

    pub(super) fn add_group(&mut self, rng: &mut Rng) {
        let mut work = self.work_drawn(rng, "c", true);
        work.replicas = rng.chance(800).then(|| rng.range(0, 5) as u32);
        if rng.chance(850) && !self.networks.is_empty() {
            work.network = Some(rng.pick(&self.networks).name.clone());
            work.port = Some(8080);
            work.firewall = rng.chance(400).then_some(8080);
            work.update = rng.chance(600).then(|| Update::draw(rng, true));
        } else {
            work.port = None;
            if matches!(work.ready, Ready::Tcp(_) | Ready::Check(_)) {
                work.ready = Ready::Started;
            }
        }
        let serves = work.network.is_some() && rng.chance(800);
        let target = work.reference();
        let at = self.works.len();
        self.works.insert(at, work);
        if serves {
            self.add_service(rng, target, 8080);
        }
    }

    pub(super) fn add_process(&mut self, rng: &mut Rng) {
        let mut work = self.work_drawn(rng, "p", false);
        let taken = |port: u16| self.works.iter().any(|work| work.port == Some(port));
        let port = (9000..9100).find(|port| !taken(*port)).unwrap_or(9100);
        work.port = Some(port);
        work.pre_start = rng.chance(200);
        if rng.chance(200) {
            work.replicas = Some(rng.range(1, 3) as u32);
            work.port = None;
            if matches!(work.ready, Ready::Tcp(_) | Ready::Check(_)) {
                work.ready = Ready::Started;
            }
        }
        work.update = rng
            .chance(400)
            .then(|| Update::draw(rng, work.replicas.is_some()));
        let serves = work.replicas.is_none() && rng.chance(500);
        let target = work.reference();
        self.works.push(work);
        if serves {
            self.add_service(rng, target, port);
        }
    }

    pub(super) fn add_service(&mut self, rng: &mut Rng, target: String, port: u16) {
        let name = (0..)
            .map(|number: u32| format!("web{}", letters(number)))
            .find(|name| self.services.iter().all(|service| service.name != *name))
            .unwrap_or_default();
        let checks = (0..rng.range(0, 2)).map(|_| Check::draw(rng)).collect();
        self.services.push(Service {
            name,
            target,
            port,
            tags: vec![format!("tag{}", rng.range(0, 3))],
            checks,
        });
    }

    pub(super) fn add_proxy(&mut self, rng: &mut Rng) {
        if self.services.is_empty() || self.works.iter().any(|work| work.name == "proxy") {
            return;
        }
        self.templates.clear();
        let count = rng.range(1, 2);
        for number in 0..count {
            let services: Vec<String> = self
                .services
                .iter()
                .filter(|_| rng.chance(700))
                .map(|service| service.name.clone())
                .collect();
            let services = match services.is_empty() {
                true => vec![self.services[0].name.clone()],
                false => services,
            };
            let min = *rng.pick(&[0, 50, 200, 1000]);
            self.templates.push(Template {
                name: format!("t{number}"),
                destination: format!("/etc/proxy/t{number}.conf"),
                services,
                validate: rng.chance(700),
                reload: Reload::Process {
                    name: "proxy".to_owned(),
                    confirm: rng.chance(800),
                },
                keep: rng.chance(600),
                wait: (min, min * 4),
                version: 1,
            });
        }
        if rng.chance(300) {
            self.templates.push(Template {
                name: "told".to_owned(),
                destination: "/etc/other/told.conf".to_owned(),
                services: vec![self.services[0].name.clone()],
                validate: rng.chance(500),
                reload: if rng.chance(700) {
                    Reload::Command
                } else {
                    Reload::None
                },
                keep: rng.chance(500),
                wait: (0, 0),
                version: 1,
            });
        }
        let mut work = self.work_drawn(rng, "proxy", false);
        work.name = "proxy".to_owned();
        work.role = Role::Proxy;
        work.replicas = None;
        work.port = Some(80);
        work.ready = Ready::Tcp(20_000);
        work.policy = *rng.pick(&["on-failure", "always"]);
        self.works.push(work);
    }

    fn work_drawn(&mut self, rng: &mut Rng, letter: &str, container: bool) -> Work {
        let name = self.fresh(letter);
        let mut needs: Vec<(String, Condition)> = Vec::new();
        for other in &self.works {
            if !rng.chance(200) || other.replicas == Some(0) {
                continue;
            }
            let condition = match other.role {
                Role::Once => Condition::Completed,
                _ if rng.chance(400) => Condition::Healthy,
                _ => Condition::Started,
            };
            needs.push((other.reference(), condition));
        }
        let delay = *rng.pick(&[100, 500, 1000, 3000]);
        let timeout = *rng.pick(&[5_000, 20_000]);
        let max_attempts = rng.chance(150).then(|| rng.range(1, 5) as u32);
        Work {
            container,
            name,
            role: Role::App,
            replicas: None,
            version: 1,
            defect: None,
            port: None,
            network: None,
            policy: rng.pick::<&str>(&["on-failure", "on-failure", "always", "unless-stopped"]),
            delay,
            max_delay: delay * *rng.pick(&[1, 4, 20]),
            reset_after: *rng.pick(&[2_000, 10_000]),
            max_attempts,
            window: max_attempts.and_then(|_| window(rng)),
            ready: *rng.pick(&[
                Ready::Started,
                Ready::Started,
                Ready::Notify(timeout),
                Ready::Tcp(timeout),
                Ready::Check(timeout),
            ]),
            watch: if rng.chance(300) {
                vec![format!("./watched{}", rng.range(0, 1))]
            } else {
                Vec::new()
            },
            needs,
            grace: *rng.pick(&[500, 2_000, 10_000]),
            firewall: None,
            pre_start: false,
            files: Vec::new(),
            update: None,
            drain: rng
                .chance(300)
                .then(|| (100, *rng.pick(&[0, 500, 3_000, 20_000]))),
        }
    }
}

impl Update {
    /// Both lives at once only where nothing keeps them from it.
    pub(super) fn draw(rng: &mut Rng, may_be_two: bool) -> Update {
        Update {
            start_first: may_be_two && rng.chance(400),
            max_unavailable: *rng.pick(&[1, 1, 1, 2]),
            min_healthy: *rng.pick(&[None, None, Some(500), Some(1_000)]),
            deadline: *rng.pick(&[None, Some(3_000), Some(8_000), Some(20_000)]),
            action: *rng.pick(&[
                Action::Rollback,
                Action::Rollback,
                Action::Pause,
                Action::Continue,
            ]),
        }
    }
}

/// In which time failures are counted that are too many; those in a row where there is none.
pub(super) fn window(rng: &mut Rng) -> Option<u64> {
    *rng.pick(&[None, Some(5_000), Some(60_000)])
}

impl Check {
    pub(super) fn draw(rng: &mut Rng) -> Check {
        let interval = *rng.pick(&[500, 1000, 3000, 5000]);
        Check {
            probe: match rng.range(0, 9) {
                0..=4 => Probe::Http,
                5..=7 => Probe::Tcp,
                8 => Probe::Exec,
                _ => Probe::Ttl(5000),
            },
            interval,
            timeout: interval.min(1000),
            retries: rng.range(1, 3) as u32,
            start_period: *rng.pick(&[0, 2000]),
        }
    }
}

/// `a`, `b`, … `z`, `aa`: digits would run into the numbers of replicas.
fn letters(mut number: u32) -> String {
    let mut name = String::new();
    loop {
        name.insert(0, char::from(b'a' + (number % 26) as u8));
        number /= 26;
        if number == 0 {
            return name;
        }
        number -= 1;
    }
}
