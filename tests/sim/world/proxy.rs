//! A proxy that reads its files at its start and when it is told to: where it really sends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hatchery::plan::world::{Exit, LifeId};
use hatchery::spec::model::Signal;

use super::{Happening, MILLI, SECOND, World};

/// SIGHUP kills one that is younger.
const YOUNG: u64 = 4 * MILLI;

/// What a proxy holds.
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// Where it sends.
    pub sends_to: BTreeSet<String>,
    /// The hashes of the files that it read.
    pub read: BTreeMap<PathBuf, String>,
    /// How often it has read them: each time it gets new children.
    pub generation: u64,
    /// The generation before the signal that waits for its confirmation.
    pub signalled: Option<u64>,
    /// When it last did.
    pub read_at: u64,
    /// Until when connections to an address that it let go live.
    pub lingers: BTreeMap<String, u64>,
}

/// Where the lines of a rendered file lead.
pub fn servers(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("server ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}

impl World {
    pub fn proxy_files(&mut self, serial: u64) -> Vec<PathBuf> {
        let Some((_, cgroup)) = self.by_serial(serial) else {
            return Vec::new();
        };
        let words = cgroup.command.iter();
        words
            .filter_map(|word| word.strip_prefix("file="))
            .map(PathBuf::from)
            .collect()
    }

    pub fn reload_signal(&mut self, life: &LifeId, signal: Signal) {
        let now = self.now;
        let delay = self.rng.millis(1, 100);
        let Some(cgroup) = self.cgroups.get_mut(life) else {
            return;
        };
        let (serial, age) = (cgroup.serial, cgroup.age(now));
        if cgroup.main.is_none() {
            return;
        }
        let Some(proxy) = &mut cgroup.proxy else {
            return;
        };
        proxy.signalled = Some(proxy.generation);
        self.log(format_args!("{} is told {signal}", life.node));
        match age < YOUNG {
            true => self.exit(serial, Exit::Signal(signal.0), &[]),
            false => self.after(delay, Happening::ProxyReads(serial)),
        }
    }

    /// Reads the files; a broken one leaves everything as it was.
    pub fn proxy_reads(&mut self, serial: u64, first: bool) {
        let now = self.now;
        let paths = self.proxy_files(serial);
        let mut sends_to = BTreeSet::new();
        let mut read = BTreeMap::new();
        for path in &paths {
            let Some(file) = self.files.get(path) else {
                return;
            };
            if file.text.contains("BAD") {
                return self.log(format_args!("the proxy refuses `{}`", path.display()));
            }
            sends_to.extend(servers(&file.text));
            read.insert(path.clone(), file.hash.clone());
        }
        let linger = now + self.rng.range(0, 20) * SECOND;
        let Some((id, cgroup)) = self.by_serial(serial) else {
            return;
        };
        let Some(proxy) = &mut cgroup.proxy else {
            return;
        };
        for address in proxy.sends_to.difference(&sends_to) {
            proxy.lingers.insert(address.clone(), linger);
        }
        proxy.sends_to = sends_to;
        proxy.read = read;
        proxy.generation += 1;
        proxy.read_at = now;
        let count = proxy.sends_to.len();
        self.log(format_args!(
            "{} reads its files (first {first}): {count} servers",
            id.node
        ));
    }

    /// Who has an address now knows nothing of the connections of who had it before.
    pub fn hang_up_all(&mut self, address: std::net::Ipv4Addr) {
        let prefix = format!("{address}:");
        let proxies = self.cgroups.values_mut();
        for proxy in proxies.filter_map(|cgroup| cgroup.proxy.as_mut()) {
            proxy.lingers.retain(|at, _| !at.starts_with(&prefix));
        }
    }

    /// The connections to a life end with it.
    pub fn hang_up(&mut self, serial: u64) {
        let Some(cgroup) = self.cgroups.values().find(|cgroup| cgroup.serial == serial) else {
            return;
        };
        let Some((address, port)) = self.address(cgroup) else {
            return;
        };
        let at = format!("{address}:{port}");
        let proxies = self.cgroups.values_mut();
        for proxy in proxies.filter_map(|cgroup| cgroup.proxy.as_mut()) {
            proxy.lingers.remove(&at);
        }
    }

    /// How many connections proxies hold to an address.
    pub fn connections_to(&self, address: &str) -> u32 {
        self.connections_older(address, self.now)
    }

    /// The same; new ones only of proxies that read their files by `then`.
    pub fn connections_older(&self, address: &str, then: u64) -> u32 {
        let proxies = self.cgroups.values().filter(|cgroup| cgroup.main.is_some());
        let held = proxies
            .filter_map(|cgroup| cgroup.proxy.as_ref())
            .filter(|proxy| {
                proxy.read_at <= then && proxy.sends_to.contains(address)
                    || proxy
                        .lingers
                        .get(address)
                        .is_some_and(|until| *until > self.now)
            });
        held.count() as u32
    }
}
