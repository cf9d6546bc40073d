//! The catalog's state and the few ways in which it changes.

mod admit;

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Seen, advance, leaves_at, shortened};
use super::model::{
    CatalogError, CheckEntry, CheckKind, Config, Expired, Origin, Registration, ServiceEntry,
};
use super::{INDEX_LIMIT, valid};
use crate::spec::model::Status;
use crate::spec::time::Time;
use crate::template::{Instance, NodeEntry, Snapshot};

/// Names without instances whose last index is still remembered.
const MAX_FORMER_NAMES: usize = 4096;
/// Room that is always left above the first index: a change each microsecond for 12 days.
const HEADROOM: u64 = 1 << 40;

/// All that is registered on one node.
#[derive(Debug, Clone)]
pub struct Catalog {
    config: Config,
    first: u64,
    index: u64,
    names_index: u64,
    entries_index: u64,
    checks_index: u64,
    /// The highest index among the former names that are not remembered any more. Readers of
    /// unknown names get at least this, so that no index they saw is ever ahead of the next.
    forgotten: u64,
    entries: BTreeMap<String, ServiceEntry>,
    names: BTreeMap<String, Name>,
    /// How many of the names have instances.
    present: usize,
    /// Which service has a check.
    holders: BTreeMap<String, String>,
    /// How many of the entries are outsiders'.
    clients: usize,
}

#[derive(Debug, Clone, Default)]
struct Name {
    index: u64,
    ids: BTreeSet<String>,
    /// The stack has, or had, instances of this name: no guest joins them, or follows them.
    reserved: bool,
    /// How many of the instances carry each tag.
    tags: BTreeMap<String, usize>,
}

/// The services that a change is about, and how the list of services showed them before.
struct Touched {
    names: BTreeSet<String>,
    tags: BTreeSet<String>,
    listed: Vec<bool>,
}

impl Catalog {
    /// An empty catalog whose index starts at `first_index`: at least what an earlier life of
    /// it reached, so that no reader sees the index go back.
    pub fn new(config: Config, first_index: u64) -> Self {
        let first = first_index.clamp(1, INDEX_LIMIT - HEADROOM);
        Catalog {
            config,
            first,
            index: first,
            names_index: first,
            entries_index: first,
            checks_index: first,
            forgotten: first,
            entries: BTreeMap::new(),
            names: BTreeMap::new(),
            present: 0,
            holders: BTreeMap::new(),
            clients: 0,
        }
    }

    /// What it says of itself.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The index of the last change of anything.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The index of the last change of this service's instances or of their checks, also when
    /// it is gone or never was.
    pub fn service_index(&self, name: &str) -> u64 {
        let known = self.names.get(name).map(|known| known.index);
        known.unwrap_or(self.forgotten)
    }

    /// The index of the last change of the list of services with their tags.
    pub fn names_index(&self) -> u64 {
        self.names_index
    }

    /// The index of the last change of what is registered, checks left aside.
    pub fn entries_index(&self) -> u64 {
        self.entries_index
    }

    /// The index of the last change of any check.
    pub fn checks_index(&self) -> u64 {
        self.checks_index
    }

    /// The index of the last change of the list of nodes; the one node never changes.
    pub fn nodes_index(&self) -> u64 {
        self.first
    }

    /// Everything registered, by id.
    pub fn entries(&self) -> impl Iterator<Item = &ServiceEntry> {
        self.entries.values()
    }

    /// What is registered under this id.
    pub fn entry(&self, id: &str) -> Option<&ServiceEntry> {
        self.entries.get(id)
    }

    /// The instances of a service, by id.
    pub fn instances(&self, name: &str) -> impl Iterator<Item = &ServiceEntry> {
        let ids = self.names.get(name).into_iter().flat_map(|name| &name.ids);
        ids.filter_map(|id| self.entries.get(id))
    }

    /// A check with the service that it belongs to.
    pub fn check(&self, check_id: &str) -> Option<(&ServiceEntry, &CheckEntry)> {
        let entry = self.entries.get(self.holders.get(check_id)?)?;
        let check = entry
            .checks
            .iter()
            .find(|check| check.spec.id == check_id)?;
        Some((entry, check))
    }

    /// How a check stands, and what it last said.
    pub fn check_status(&self, check_id: &str) -> Option<(Status, &str)> {
        let (_, check) = self.check(check_id)?;
        Some((check.status, check.output.as_str()))
    }

    /// Every service that has instances, with the tags that at least one of them carries.
    pub fn names(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let present = self.names.iter().filter(|(_, name)| !name.ids.is_empty());
        present
            .map(|(text, name)| {
                let tags = name.tags.keys().map(String::as_str);
                (text.as_str(), tags.collect())
            })
            .collect()
    }

    /// What the stack registered: by id, the hash it gave and the service's name.
    pub fn registered(&self) -> BTreeMap<String, (String, String)> {
        let ours = self
            .entries
            .values()
            .map(|entry| &entry.registration)
            .filter(|registration| registration.origin == Origin::Stack);
        ours.map(|own| (own.id.clone(), (own.hash.clone(), own.service.clone())))
            .collect()
    }

    /// What templates may read of it.
    pub fn snapshot(&self) -> Snapshot {
        let mut services: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
        for entry in self.entries.values() {
            let list = services.entry(entry.registration.service.clone());
            list.or_default().push(self.instance(entry));
        }
        Snapshot {
            services,
            nodes: vec![NodeEntry {
                name: self.config.node.clone(),
                address: self.config.address.clone(),
            }],
        }
    }

    fn instance(&self, entry: &ServiceEntry) -> Instance {
        let own = &entry.registration;
        Instance {
            id: own.id.clone(),
            name: own.service.clone(),
            address: if own.address.is_empty() {
                self.config.address.clone()
            } else {
                own.address.clone()
            },
            port: own.port,
            tags: own.tags.clone(),
            meta: own.meta.clone(),
            node: self.config.node.clone(),
            status: entry.status(),
        }
    }

    /// Registers a service, or brings a registered one up to date; answers whether a reader
    /// can see a difference. Checks that stay keep their state.
    ///
    /// # Errors
    /// [`CatalogError`] says which field is wrong, what is full or whose the id or the name is.
    /// Nothing has changed then. What the stack registers displaces what a guest registered under
    /// the same ids or the same name, so that no container can keep it out by taking its names
    /// first; what others registered under its ids stays, and is named.
    pub fn register(
        &mut self,
        registration: Registration,
        now: Time,
    ) -> Result<bool, CatalogError> {
        valid::registration(&registration)?;
        let displaced = self.admit(&registration)?;
        for id in displaced {
            self.deregister(&id);
        }
        let previous = self.entries.get(&registration.id);
        let next = self.index + 1;
        let entry = advance(previous, registration, next, now);
        let seen = Seen::between(previous, &entry);
        if !seen.service && !seen.checks {
            // The registrant's mark and the length of a TTL are kept without a new index.
            self.entries.insert(entry.registration.id.clone(), entry);
            return Ok(false);
        }
        let id = entry.registration.id.clone();
        let name = entry.registration.service.clone();
        let touched = self.touched(previous.into_iter().chain([&entry]));
        self.unlink(&id);
        for check in &entry.checks {
            self.holders.insert(check.spec.id.clone(), id.clone());
        }
        let listing = self.names.entry(name).or_default();
        self.present += usize::from(listing.ids.is_empty());
        listing.ids.insert(id.clone());
        listing.reserved |= entry.registration.origin == Origin::Stack;
        for tag in &entry.registration.tags {
            *listing.tags.entry(tag.clone()).or_default() += 1;
        }
        self.clients += usize::from(entry.registration.origin.is_outside());
        self.entries.insert(id, entry);
        self.publish(&touched, seen);
        Ok(true)
    }

    /// Takes a service out; answers whether it was there. Who may do so is the caller's
    /// question: see [`ServiceEntry::registration`]'s origin.
    pub fn deregister(&mut self, id: &str) -> bool {
        let Some(entry) = self.entries.get(id) else {
            return false;
        };
        let seen = Seen {
            service: true,
            checks: !entry.checks.is_empty(),
        };
        let touched = self.touched([entry]);
        self.unlink(id);
        self.publish(&touched, seen);
        true
    }

    /// Notes how a check stands; answers whether its status changed. Only that moves the
    /// index: what a check says with each probe or heartbeat is there for who reads next, and
    /// wakes nobody.
    ///
    /// # Errors
    /// [`CatalogError::UnknownCheck`].
    pub fn set_check(
        &mut self,
        check_id: &str,
        status: Status,
        output: &str,
        now: Time,
    ) -> Result<bool, CatalogError> {
        let next = self.index + 1;
        let Some((name, check)) = self.check_mut(check_id) else {
            return Err(CatalogError::UnknownCheck {
                check: valid::quoted(check_id),
            });
        };
        if let CheckKind::Ttl(ttl) = check.spec.kind {
            check.deadline = Some(now + ttl);
        }
        let changed = check.stand(status, shortened(output), next, now);
        if changed {
            let touched = BTreeSet::from([name]);
            self.publish_checks(&touched);
        }
        Ok(changed)
    }

    /// Makes checks critical whose TTL passed in silence, and removes outsiders' services
    /// whose check was critical for as long as they allowed.
    pub fn expire(&mut self, now: Time) -> Vec<Expired> {
        let mut expired = self.expire_checks(now);
        let overdue: Vec<(String, String)> = self
            .entries
            .values()
            .filter_map(|entry| {
                let due = entry.checks.iter();
                let mut due =
                    due.filter(|check| leaves_at(entry, check).is_some_and(|at| at <= now));
                let check = due.next()?;
                Some((check.spec.id.clone(), entry.registration.id.clone()))
            })
            .collect();
        for (check, service) in overdue {
            let removed = self.deregister(&service);
            expired.push(Expired {
                check,
                service,
                removed,
            });
        }
        expired
    }

    /// When [`expire`](Self::expire) next has something to do, if nobody reports before.
    pub fn next_expiry(&self) -> Option<Time> {
        let moments = self.entries.values().flat_map(|entry| {
            let checks = entry.checks.iter();
            checks.flat_map(|check| [check.deadline, leaves_at(entry, check)])
        });
        moments.flatten().min()
    }

    fn expire_checks(&mut self, now: Time) -> Vec<Expired> {
        let mut expired = Vec::new();
        let mut touched = BTreeSet::new();
        let next = self.index + 1;
        for entry in self.entries.values_mut() {
            for check in &mut entry.checks {
                if check.deadline.is_none_or(|deadline| deadline > now) {
                    continue;
                }
                check.deadline = None;
                let output = match check.output.as_str() {
                    "" => "TTL expired".to_owned(),
                    last => format!("TTL expired (last output before timeout follows): {last}"),
                };
                if check.stand(Status::Critical, shortened(&output), next, now) {
                    touched.insert(entry.registration.service.clone());
                }
                expired.push(Expired {
                    check: check.spec.id.clone(),
                    service: entry.registration.id.clone(),
                    removed: false,
                });
            }
        }
        if !touched.is_empty() {
            self.publish_checks(&touched);
        }
        expired
    }

    fn check_mut(&mut self, check_id: &str) -> Option<(String, &mut CheckEntry)> {
        let entry = self.entries.get_mut(self.holders.get(check_id)?)?;
        let name = entry.registration.service.clone();
        let mut checks = entry.checks.iter_mut();
        let check = checks.find(|check| check.spec.id == check_id)?;
        Some((name, check))
    }

    fn unlink(&mut self, id: &str) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        self.clients -= usize::from(entry.registration.origin.is_outside());
        for check in &entry.checks {
            self.holders.remove(&check.spec.id);
        }
        if let Some(name) = self.names.get_mut(&entry.registration.service) {
            let last = name.ids.remove(id) && name.ids.is_empty();
            self.present -= usize::from(last);
            for tag in &entry.registration.tags {
                if let Some(count) = name.tags.get_mut(tag) {
                    *count -= 1;
                }
            }
            name.tags.retain(|_, count| *count > 0);
        }
    }

    fn touched<'a>(&self, entries: impl IntoIterator<Item = &'a ServiceEntry>) -> Touched {
        let (mut names, mut tags) = (BTreeSet::new(), BTreeSet::new());
        for entry in entries {
            names.insert(entry.registration.service.clone());
            tags.extend(entry.registration.tags.iter().cloned());
        }
        let listed = self.listed(&names, &tags);
        Touched {
            names,
            tags,
            listed,
        }
    }

    /// Whether the list of services shows each of these names, and each of these tags with it.
    fn listed(&self, names: &BTreeSet<String>, tags: &BTreeSet<String>) -> Vec<bool> {
        let one = |name: &String| {
            let name = self.names.get(name).filter(|name| !name.ids.is_empty());
            let tags = tags
                .iter()
                .map(move |tag| name.is_some_and(|name| name.tags.contains_key(tag)));
            [name.is_some()].into_iter().chain(tags)
        };
        names.iter().flat_map(one).collect()
    }

    /// Takes the next index, for these services and every list that looks different now.
    fn publish(&mut self, touched: &Touched, seen: Seen) {
        self.index += 1;
        if seen.service {
            self.entries_index = self.index;
        }
        // A check's entry carries its service's name and tags, so it may look different too.
        if seen.checks {
            self.checks_index = self.index;
        }
        if self.listed(&touched.names, &touched.tags) != touched.listed {
            self.names_index = self.index;
        }
        self.touch(&touched.names);
    }

    fn publish_checks(&mut self, touched: &BTreeSet<String>) {
        self.index += 1;
        self.checks_index = self.index;
        self.touch(touched);
    }

    fn touch(&mut self, touched: &BTreeSet<String>) {
        for name in touched {
            self.names.entry(name.clone()).or_default().index = self.index;
        }
        if self.names.len() - self.present <= MAX_FORMER_NAMES {
            return;
        }
        let former = self.names.iter();
        let former = former.filter(|(_, name)| name.ids.is_empty() && !name.reserved);
        let oldest = former.min_by_key(|(_, name)| name.index);
        if let Some((name, index)) = oldest.map(|(text, name)| (text.clone(), name.index)) {
            self.names.remove(&name);
            self.forgotten = self.forgotten.max(index);
        }
    }
}
