//! Bridges, namespaces, links and firewalls.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hatchery::driver::{ErrorKind, Event, Networks, Result};
use hatchery::graph::desired::{Attachment, NetworkNode};
use hatchery::plan::firewall;
use hatchery::plan::world::{AttachmentView, BridgeView, NetworkView};
use hatchery::spec::model::Firewall;
use ipnet::Ipv4Net;

use super::{Reach, SECOND, Shared, World, error};
use crate::faults::{Action, Fault};
use crate::specs::STACK;

#[derive(Debug, Clone, PartialEq)]
pub struct Bridge {
    pub ours: bool,
    pub up: bool,
    pub address: Option<Ipv4Net>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Space {
    pub foreign: Option<String>,
    pub link: Option<(String, String)>,
    pub address: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    pub firewall: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Net {
    pub bridges: BTreeMap<String, Bridge>,
    pub namespaces: BTreeMap<String, Space>,
    pub forward: bool,
}

impl World {
    /// What is there, or was a moment ago: what happened by itself may be seen late, what was done
    /// through the driver never.
    fn net_seen(&mut self) -> Net {
        let now = self.now;
        if self.faults.rate(Fault::StaleView) == 0 {
            return self.net.clone();
        }
        let old = self.last_net.clone();
        let old = old.filter(|(at, net)| now - at < SECOND / 2 && *net != self.net);
        if let Some((_, net)) = old
            && self.fires(Fault::StaleView, Action::ObserveNetwork)
        {
            self.blind_at = Some(now);
            return net;
        }
        self.last_net = Some((now, self.net.clone()));
        self.net.clone()
    }

    /// A namespace without anything in it.
    pub fn half_attach(&mut self, attachment: &Attachment) {
        let bridge = self.net.bridges.get(&attachment.bridge);
        if bridge.is_none_or(|bridge| !bridge.ours) {
            return;
        }
        self.net
            .namespaces
            .entry(attachment.namespace.clone())
            .or_default();
        self.last_net = None;
    }

    /// Somebody else takes away a part of what is there; whether there was one.
    pub fn meddle(&mut self) -> bool {
        let before = self.net.clone();
        let spaces: Vec<String> = self.net.namespaces.keys().cloned().collect();
        let bridges: Vec<String> = self.net.bridges.keys().cloned().collect();
        let way = self.rng.range(0, 5);
        match way {
            0 if !spaces.is_empty() => {
                let name = self.rng.pick(&spaces).clone();
                self.net.namespaces.remove(&name);
            }
            1 | 2 if !spaces.is_empty() => {
                let name = self.rng.pick(&spaces).clone();
                if let Some(space) = self.net.namespaces.get_mut(&name) {
                    space.link = None;
                    space.address = None;
                    space.gateway = None;
                }
            }
            3 if !spaces.is_empty() => {
                let name = self.rng.pick(&spaces).clone();
                if let Some(space) = self.net.namespaces.get_mut(&name) {
                    space.firewall = Some("another".to_owned());
                }
            }
            4 if !bridges.is_empty() => {
                let name = self.rng.pick(&bridges).clone();
                if let Some(bridge) = self.net.bridges.get_mut(&name) {
                    bridge.up = false;
                }
            }
            _ => self.net.forward = false,
        }
        self.log(format_args!("somebody changes the network, way {way}"));
        self.tell(Event::Network);
        self.net != before
    }
}

impl Networks for Shared {
    fn observe(&self, names: &[String]) -> Result<NetworkView> {
        let mut world = self.lock();
        if world.crashed {
            return Err(error(ErrorKind::Failed, "the controller is dead"));
        }
        if world.fires(Fault::NoView, Action::ObserveNetwork) {
            world.blind_at = Some(world.now);
            return Err(error(ErrorKind::Failed, "no view"));
        }
        let net = &world.net_seen();
        let mut view = NetworkView {
            forward: net.forward,
            ..NetworkView::default()
        };
        for (name, bridge) in &net.bridges {
            if bridge.ours || names.contains(name) {
                let seen = BridgeView {
                    ours: bridge.ours,
                    up: bridge.up,
                    addresses: bridge.address.into_iter().collect(),
                    holder: if bridge.ours { "us" } else { "a stranger" }.to_owned(),
                };
                view.bridges.insert(name.clone(), seen);
            }
            if !bridge.ours {
                view.foreign
                    .extend(bridge.address.map(|net| (name.clone(), net.trunc())));
            }
        }
        let prefix = format!("hatchery-{STACK}-");
        for (name, space) in &net.namespaces {
            if !name.starts_with(&prefix) || space.foreign.is_some() && !names.contains(name) {
                continue;
            }
            let seen = AttachmentView {
                namespace: space.foreign.is_none(),
                link: space
                    .link
                    .clone()
                    .map(|(link, bridge)| (link, Some(bridge))),
                address: space.address,
                gateway: space.gateway,
                firewall: space.firewall.clone(),
                foreign: space.foreign.clone(),
            };
            view.attachments.insert(name.clone(), seen);
        }
        Ok(view)
    }

    fn create(&self, network: &NetworkNode) -> Result<()> {
        let mut world = self.lock();
        let reach = world.reach(Action::CreateNetwork, true);
        if let Reach::Nothing(why) = reach {
            return Err(why);
        }
        let held = world
            .net
            .bridges
            .get(&network.bridge)
            .is_some_and(|bridge| !bridge.ours);
        if held {
            return Err(error(ErrorKind::Foreign, "the bridge is a stranger's"));
        }
        let address = Ipv4Net::new(network.gateway, network.subnet.prefix_len()).ok();
        let whole = matches!(reach, Reach::Whole);
        let bridge = Bridge {
            ours: true,
            up: whole,
            address: address.filter(|_| whole),
        };
        world.net.bridges.insert(network.bridge.clone(), bridge);
        world.net.forward |= network.forward;
        world.log(format_args!("bridge {} is made", network.bridge));
        world.tell(Event::Network);
        match reach {
            Reach::Half(why) => Err(why),
            _ => Ok(()),
        }
    }

    fn remove(&self, bridge: &str) -> Result<()> {
        let mut world = self.lock();
        if world
            .net
            .bridges
            .get(bridge)
            .is_some_and(|bridge| !bridge.ours)
        {
            world.violate(format!("it asks to remove bridge `{bridge}`, a stranger's"));
        }
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::RemoveNetwork, false) {
            return Err(why);
        }
        let used = world
            .net
            .namespaces
            .iter()
            .find(|(_, space)| space.link.as_ref().is_some_and(|(_, to)| to == bridge));
        if let Some((name, _)) = used {
            let what = format!("bridge `{bridge}` goes while `{name}` is linked to it");
            world.violate(what);
        }
        world.net.bridges.remove(bridge);
        world.log(format_args!("bridge {bridge} is removed"));
        world.tell(Event::Network);
        Ok(())
    }

    fn attach(&self, attachment: &Attachment) -> Result<()> {
        let mut world = self.lock();
        let reach = world.reach(Action::Attach, true);
        if let Reach::Nothing(why) = reach {
            return Err(why);
        }
        let name = &attachment.namespace;
        let bridge = world.net.bridges.get(&attachment.bridge);
        if bridge.is_none_or(|bridge| !bridge.ours) {
            return Err(error(ErrorKind::Gone, "the bridge is not there"));
        }
        if world
            .net
            .namespaces
            .get(name)
            .is_some_and(|space| space.foreign.is_some())
        {
            return Err(error(ErrorKind::Foreign, "the namespace is a stranger's"));
        }
        let wanted = attachment.address;
        let other = world.net.namespaces.iter().find(|(other, space)| {
            *other != name
                && space
                    .address
                    .is_some_and(|address| address.addr() == wanted)
        });
        if let Some((other, _)) = other {
            let what = format!("{name} gets {wanted}, which {other} has");
            world.violate(what);
        }
        let space = world.net.namespaces.entry(name.clone()).or_default();
        space.link = Some((attachment.link.clone(), attachment.bridge.clone()));
        if let Reach::Half(why) = reach {
            return Err(why);
        }
        space.address = Ipv4Net::new(attachment.address, attachment.prefix).ok();
        space.gateway = Some(attachment.gateway);
        world.hang_up_all(attachment.address);
        world.log(format_args!("{name} is attached at {}", attachment.address));
        world.tell(Event::Network);
        Ok(())
    }

    fn firewall(&self, namespace: &str, firewall: Option<&Firewall>) -> Result<()> {
        let mut world = self.lock();
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Firewall, false) {
            return Err(why);
        }
        match world.net.namespaces.get_mut(namespace) {
            Some(space) if space.foreign.is_none() => {
                space.firewall = firewall.map(firewall::hash);
                Ok(())
            }
            Some(_) => Err(error(ErrorKind::Foreign, "the namespace is a stranger's")),
            None => Err(error(ErrorKind::Gone, "there is no such namespace")),
        }
    }

    fn detach(&self, namespace: &str) -> Result<()> {
        let mut world = self.lock();
        let stranger = |space: &Space| space.foreign.is_some();
        if world.net.namespaces.get(namespace).is_some_and(stranger) {
            world.violate(format!("it asks to remove `{namespace}`, a stranger's"));
        }
        if let Reach::Nothing(why) | Reach::Half(why) = world.reach(Action::Detach, false) {
            return Err(why);
        }
        let inside = world.cgroups.iter().find(|(_, cgroup)| {
            cgroup.namespace.as_deref() == Some(namespace) && cgroup.main.is_some()
        });
        if let Some((life, _)) = inside {
            let what = format!(
                "namespace `{namespace}` goes while {} runs in it",
                life.node
            );
            world.violate(what);
        }
        world.net.namespaces.remove(namespace);
        world.log(format_args!("{namespace} is removed"));
        world.tell(Event::Network);
        Ok(())
    }
}

impl World {
    /// Somebody else makes a bridge, where there is none.
    pub fn foreign_bridge(&mut self, name: &str) -> bool {
        let address = "10.99.0.1/24".parse().ok();
        let free = !self.net.bridges.contains_key(name);
        self.net.bridges.entry(name.to_owned()).or_insert(Bridge {
            ours: false,
            up: true,
            address,
        });
        free
    }

    /// How much of somebody else's is in the way.
    pub fn strange(&self) -> usize {
        let bridges = self.net.bridges.values().filter(|bridge| !bridge.ours);
        let spaces = self.net.namespaces.values();
        let spaces = spaces.filter(|space| space.foreign.is_some());
        bridges.count() + spaces.count() + self.held_ports.len()
    }

    /// Somebody else makes a namespace, where there is none.
    pub fn foreign_namespace(&mut self, name: &str) -> bool {
        let free = !self.net.namespaces.contains_key(name);
        self.net.namespaces.entry(name.to_owned()).or_insert(Space {
            foreign: Some("a stranger".to_owned()),
            ..Space::default()
        });
        free
    }
}
