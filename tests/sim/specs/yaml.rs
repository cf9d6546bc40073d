//! A model as the text that a user would write.

use std::fmt::Write;

use super::{Action, Check, Model, Probe, Ready, Reload, STACK, Service, Template, Update, Work};
use hatchery::spec::model::Condition;

impl Model {
    pub fn yaml(&self) -> String {
        let mut text = format!("name: {STACK}\nvars: {{ revision: {} }}\n", self.revision);
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some(port) = self.http {
            writeln!(
                out,
                "registry: {{ embedded: {{ http: \"127.0.0.1:{port}\" }} }}"
            )?;
        }
        section(out, "networks", self.networks.is_empty());
        for network in &self.networks {
            writeln!(
                out,
                "  {}: {{ subnet: 10.60.{}.0/24, forward: {} }}",
                network.name, network.third, network.forward
            )?;
        }
        for (word, container) in [("containers", true), ("processes", false)] {
            let works: Vec<&Work> = self
                .works
                .iter()
                .filter(|work| work.container == container)
                .collect();
            section(out, word, works.is_empty());
            for one in works {
                work(out, one)?;
            }
        }
        section(out, "services", self.services.is_empty());
        for one in &self.services {
            service(out, one)?;
        }
        section(out, "templates", self.templates.is_empty());
        for one in &self.templates {
            template(out, one)?;
        }
        Ok(())
    }
}

fn section(out: &mut String, word: &str, empty: bool) {
    if !empty {
        out.push_str(word);
        out.push_str(":\n");
    }
}

fn list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("[ {} ]", quoted.join(", "))
}

fn work(out: &mut String, work: &Work) -> std::fmt::Result {
    writeln!(out, "  {}:", work.name)?;
    writeln!(out, "    command: {}", list(&work.command()))?;
    if work.container {
        writeln!(out, "    root: host")?;
    }
    if let Some(replicas) = work.replicas {
        writeln!(out, "    replicas: {replicas}")?;
    }
    if let Some(network) = &work.network {
        writeln!(out, "    network: {network}")?;
    }
    if let Some(port) = work.firewall {
        writeln!(
            out,
            "    firewall: {{ allow_tcp: [ {port} ], allow_ping: true }}"
        )?;
    }
    write!(
        out,
        "    restart: {{ policy: \"{}\", delay: {}ms, max_delay: {}ms, reset_after: {}ms",
        work.policy, work.delay, work.max_delay, work.reset_after
    )?;
    if let Some(most) = work.max_attempts {
        write!(out, ", max_attempts: {most}")?;
    }
    if let Some(window) = work.window {
        write!(out, ", window: {window}ms")?;
    }
    writeln!(out, " }}")?;
    writeln!(out, "    stop_grace_period: {}ms", work.grace)?;
    let port = work.port.unwrap_or(1);
    let address = if work.network.is_some() {
        "{{ address }}"
    } else {
        "127.0.0.1"
    };
    match work.ready {
        Ready::Started => {}
        Ready::Notify(timeout) => {
            writeln!(out, "    ready: {{ notify: {{ timeout: {timeout}ms }} }}")?;
        }
        Ready::Tcp(timeout) => writeln!(
            out,
            "    ready: {{ tcp: \"{address}:{port}\", timeout: {timeout}ms }}"
        )?,
        Ready::Check(timeout) => writeln!(
            out,
            "    ready: {{ check: {{ tcp: \"{address}:{port}\", interval: 500ms }}, timeout: {timeout}ms }}"
        )?,
    }
    if !work.watch.is_empty() {
        writeln!(out, "    watch: {}", list(&work.watch))?;
    }
    if work.pre_start {
        writeln!(out, "    pre_start: [ [ /bin/prepare ] ]")?;
    }
    if let Some(one) = &work.update {
        update(out, one)?;
    }
    if let Some((quiet, timeout)) = work.drain {
        writeln!(
            out,
            "    drain: {{ quiet: {quiet}ms, timeout: {timeout}ms }}"
        )?;
    }
    if !work.needs.is_empty() {
        writeln!(out, "    depends_on:")?;
        for (on, condition) in &work.needs {
            let word = match condition {
                Condition::Started => "started",
                Condition::Healthy => "healthy",
                Condition::Completed => "completed",
            };
            writeln!(out, "      {on}: {word}")?;
        }
    }
    Ok(())
}

fn update(out: &mut String, update: &Update) -> std::fmt::Result {
    let order = match update.start_first {
        true => "start-first",
        false => "stop-first",
    };
    let action = match update.action {
        Action::Rollback => "rollback",
        Action::Pause => "pause",
        Action::Continue => "continue",
    };
    write!(
        out,
        "    update: {{ order: {order}, max_unavailable: {}, failure_action: {action}",
        update.max_unavailable
    )?;
    if let Some(least) = update.min_healthy {
        write!(out, ", min_healthy_time: {least}ms")?;
    }
    if let Some(deadline) = update.deadline {
        write!(out, ", healthy_deadline: {deadline}ms")?;
    }
    writeln!(out, " }}")
}

fn service(out: &mut String, service: &Service) -> std::fmt::Result {
    writeln!(out, "  {}:", service.name)?;
    writeln!(out, "    target: {}", service.target)?;
    writeln!(out, "    port: {}", service.port)?;
    if !service.tags.is_empty() {
        writeln!(out, "    tags: {}", list(&service.tags))?;
    }
    if !service.checks.is_empty() {
        writeln!(out, "    checks:")?;
        for one in &service.checks {
            writeln!(out, "      - {}", check(one))?;
        }
    }
    Ok(())
}

fn check(check: &Check) -> String {
    let asked = match &check.probe {
        Probe::Http => "http: \"http://{{ address }}:{{ port }}/healthz\"".to_owned(),
        Probe::Tcp => "tcp: \"{{ address }}:{{ port }}\"".to_owned(),
        Probe::Exec => "exec: [ /bin/ask ]".to_owned(),
        Probe::Ttl(ttl) => return format!("{{ ttl: {ttl}ms }}"),
    };
    format!(
        "{{ {asked}, interval: {}ms, timeout: {}ms, retries: {}, start_period: {}ms }}",
        check.interval, check.timeout, check.retries, check.start_period
    )
}

fn template(out: &mut String, template: &Template) -> std::fmt::Result {
    writeln!(out, "  {}:", template.name)?;
    writeln!(out, "    source: ./{}.j2", template.name)?;
    writeln!(out, "    destination: {}", template.destination)?;
    if template.validate {
        writeln!(out, "    validate: [ /bin/validate ]")?;
    }
    match &template.reload {
        Reload::None => {}
        Reload::Process { name, confirm } => {
            let confirm = if *confirm { "new_child" } else { "none" };
            writeln!(
                out,
                "    reload: {{ process: {name}, signal: SIGHUP, confirm: {confirm} }}"
            )?;
        }
        Reload::Command => writeln!(out, "    reload: {{ command: [ /bin/tell ] }}")?,
    }
    if !template.keep {
        writeln!(out, "    when_empty: render")?;
    }
    let (min, max) = template.wait;
    writeln!(out, "    wait: {{ min: {min}ms, max: {max}ms }}")
}
