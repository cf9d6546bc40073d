//! Random stacks as the text of a spec. Each entry needs only entries before it, so that there
//! is never a cycle; what is written where is decided by the order that is asked for.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::model::ONCE;

/// The template's file.
pub const SOURCE: &str = "list.j2";

/// Networks that every stack has.
pub const NETWORKS: usize = 2;

/// One container or process, with its service.
#[derive(Debug, Clone)]
pub struct Entry {
    container: bool,
    network: Option<usize>,
    replicas: Option<u32>,
    once: bool,
    served: bool,
    /// Whose, through its service or not, and how far it must be.
    needs: Vec<(Index, bool, u8)>,
    /// What its command holds: another version is another command.
    pub version: u32,
}

/// A whole spec.
#[derive(Debug, Clone)]
pub struct Stack {
    pub entries: Vec<Entry>,
    /// The template lists the services of all entries before this one, which needs it.
    pub template_at: usize,
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        any::<bool>(),
        prop::option::of(0..NETWORKS),
        prop::option::of(1_u32..4),
        prop::bool::weighted(0.2),
        any::<bool>(),
        prop::collection::vec((any::<Index>(), any::<bool>(), 0_u8..3), 0..3),
    )
        .prop_map(|(container, network, replicas, once, served, needs)| {
            let network = network.filter(|_| container);
            // Copies in one namespace cannot all listen at one port.
            let alone = network.is_some() || replicas.is_none_or(|count| count == 1);
            Entry {
                container,
                network,
                replicas,
                once,
                served: served && !once && alone,
                needs,
                version: 0,
            }
        })
}

/// Stacks of a few entries.
pub fn stacks() -> impl Strategy<Value = Stack> {
    (prop::collection::vec(entry(), 1..7), 0_usize..7).prop_map(|(entries, template_at)| Stack {
        entries,
        template_at,
    })
}

impl Stack {
    /// The reference of an entry.
    pub fn reference(&self, at: usize) -> String {
        let kind = match self.entries[at].container {
            true => "containers",
            false => "processes",
        };
        format!("{kind}/e{at}")
    }

    /// The text, with entries in this order, which names each of them once.
    pub fn text(&self, order: &[usize]) -> String {
        let lines = self.lines(order);
        lines.into_iter().map(|(_, line)| line + "\n").collect()
    }

    /// The lines, each with the section that one more entry before it would be in.
    pub fn lines(&self, order: &[usize]) -> Vec<(&'static str, String)> {
        let order: Vec<usize> = order
            .iter()
            .copied()
            .filter(|at| *at < self.entries.len())
            .collect();
        let mut lines = vec![("", "name: t".to_owned())];
        let mut section = |word: &'static str, entries: Vec<String>| {
            lines.push(("", format!("{word}:")));
            for entry in entries {
                let mut first = word;
                for line in entry.lines() {
                    lines.push((first, line.to_owned()));
                    first = "";
                }
            }
        };
        let networks = (0..NETWORKS).map(|at| format!("  n{at}: {{ subnet: 10.8{at}.0.0/24 }}"));
        section("networks", networks.collect());
        for (word, containers) in [("containers", true), ("processes", false)] {
            let members = order
                .iter()
                .filter(|at| self.entries[**at].container == containers);
            let mut entries: Vec<String> = members.map(|at| self.workload(*at)).collect();
            // A section without an entry is no mapping.
            entries.push("  idle-NAME: { command: [ /bin/idle ] }".replace("NAME", word));
            section(word, entries);
        }
        let served = order.iter().filter(|at| self.entries[**at].served);
        let mut services: Vec<String> = served.map(|at| self.service(*at)).collect();
        services.push("  outside: { address: 192.0.2.7, port: 53 }".to_owned());
        section("services", services);
        section(
            "checks",
            vec!["  answers: { tcp: \"{{ address }}:{{ port }}\" }".to_owned()],
        );
        section("templates", vec![TEMPLATE.to_owned()]);
        section(
            "vars",
            vec![format!("  listed: [ {} ]", self.listed().join(", "))],
        );
        lines
    }

    /// The services that the template lists.
    fn listed(&self) -> Vec<String> {
        let entries = self.entries.iter().enumerate().take(self.template_at);
        entries
            .filter(|(_, entry)| entry.served)
            .map(|(at, _)| format!("s{at}"))
            .collect()
    }

    fn service(&self, at: usize) -> String {
        let target = self.reference(at);
        let port = 9000 + at;
        format!("  s{at}: {{ target: {target}, port: {port}, checks: [ answers ] }}")
    }

    fn workload(&self, at: usize) -> String {
        let entry = &self.entries[at];
        let program = if entry.once { ONCE } else { "/bin/serve" };
        let mut text = format!(
            "  e{at}:\n    command: [ {program}, \"v{}\" ]\n",
            entry.version
        );
        if entry.container {
            text.push_str("    root: host\n");
        }
        if let Some(network) = entry.network {
            let _ = writeln!(text, "    network: n{network}");
        }
        if let Some(replicas) = entry.replicas {
            let _ = writeln!(text, "    replicas: {replicas}");
        }
        let needs = self.needs(at);
        if !needs.is_empty() {
            text.push_str("    depends_on:\n");
            for (on, condition) in needs {
                let _ = writeln!(text, "      {on}: {{ condition: {condition} }}");
            }
        }
        text
    }

    fn needs(&self, at: usize) -> BTreeMap<String, &'static str> {
        let mut needs = BTreeMap::new();
        if at == self.template_at {
            needs.insert("templates/list".to_owned(), "started");
        }
        for (index, through_service, condition) in &self.entries[at].needs {
            if at == 0 {
                break;
            }
            let on = index.index(at);
            let target = &self.entries[on];
            if *through_service && target.served {
                needs.insert(
                    format!("services/s{on}"),
                    ["started", "healthy"][usize::from(*condition % 2)],
                );
            } else {
                let condition = match condition {
                    2 if target.once => "completed",
                    1 => "healthy",
                    _ => "started",
                };
                needs.insert(self.reference(on), condition);
            }
        }
        needs
    }
}

const TEMPLATE: &str = "  list:
    source: ./list.j2
    destination: /etc/list.conf
    validate: [ check, -t ]
    reload: { command: [ tell, them ] }";
