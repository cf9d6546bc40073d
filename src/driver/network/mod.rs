//! Bridges, namespaces, links and firewalls of the host, over netlink.
//!
//! The truth is the kernel's: nothing is remembered but open sockets. Every link and
//! namespace of ours carries the alias `hatchery:STACK:NAME` from the moment at which it can be
//! found; a firewall's table is named after its content. What is half-made is completed or
//! remade by asking for it again.

mod attach;
mod bridge;
mod connections;
mod events;
mod filter;
mod links;
mod mark;
mod namespace;
mod observe;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::SockProtocol;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

pub(in crate::driver) use self::connections::connections;
use self::namespace::{Found, Namespace};
use self::socket::Socket;
use super::{DriverError, ErrorKind, Event, Networks, Result};
use crate::graph::desired::{Attachment, NetworkNode};
use crate::plan::world::NetworkView;
use crate::spec::model::Firewall;

/// The networks of one stack on this host. Its methods block, a few milliseconds as a rule.
#[derive(Debug)]
pub struct HostNetworks {
    stack: String,
    host: Mutex<Socket>,
    /// Open namespaces by name, each with what tells it from another one of that name.
    open: Mutex<BTreeMap<String, Opened>>,
    listener: JoinHandle<()>,
}

#[derive(Debug)]
struct Opened {
    id: (u64, u64),
    namespace: Arc<Namespace>,
}

impl HostNetworks {
    /// The networks of `stack`, in the calling thread's network namespace. From now on each
    /// change of a link or address on the host sends [`Event::Network`], from a task on `runtime`.
    ///
    /// # Errors
    /// When the kernel opens no netlink socket.
    pub fn new(stack: &str, runtime: Handle, events: UnboundedSender<Event>) -> Result<Self> {
        let failed = |error| cannot("cannot open a netlink socket", &error);
        Ok(HostNetworks {
            stack: stack.to_owned(),
            host: Mutex::new(Socket::open(SockProtocol::NetlinkRoute).map_err(failed)?),
            open: Mutex::new(BTreeMap::new()),
            listener: events::listen(&runtime, events).map_err(failed)?,
        })
    }

    fn host(&self) -> MutexGuard<'_, Socket> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<String, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live namespace `name`, or what is there instead.
    fn namespace(&self, name: &str) -> io::Result<std::result::Result<Arc<Namespace>, Found>> {
        match namespace::look(name)? {
            Found::Live(file, id) => self.open(name, &file, id).map(Ok),
            other => {
                // Sockets would keep a namespace alive that has lost its name.
                self.opened().remove(name);
                Ok(Err(other))
            }
        }
    }

    fn open(&self, name: &str, file: &File, id: (u64, u64)) -> io::Result<Arc<Namespace>> {
        if let Some(known) = self.opened().get(name).filter(|known| known.id == id) {
            return Ok(known.namespace.clone());
        }
        let namespace = Arc::new(Namespace::open(file)?);
        let opened = Opened {
            id,
            namespace: namespace.clone(),
        };
        self.opened().insert(name.to_owned(), opened);
        Ok(namespace)
    }
}

impl Drop for HostNetworks {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Networks for HostNetworks {
    fn observe(&self, names: &[String]) -> Result<NetworkView> {
        self.view(names)
            .map_err(|error| cannot("cannot look at the host's networks", &error))
    }

    fn create(&self, network: &NetworkNode) -> Result<()> {
        bridge::create(&mut self.host(), &self.stack, network)
    }

    fn remove(&self, bridge: &str) -> Result<()> {
        bridge::remove(&mut self.host(), &self.stack, bridge)
    }

    fn attach(&self, attachment: &Attachment) -> Result<()> {
        self.settle(attachment)
    }

    fn firewall(&self, namespace: &str, firewall: Option<&Firewall>) -> Result<()> {
        let what = format!("cannot set the firewall of `{namespace}`");
        let failed = |error| cannot(&what, &error);
        let Ok(inside) = self.owned(namespace).map_err(failed)? else {
            let message = format!("{what}: this stack has no such namespace");
            return Err(error(ErrorKind::Gone, message));
        };
        filter::set(&inside, firewall).map_err(failed)
    }

    fn detach(&self, namespace: &str) -> Result<()> {
        self.release(namespace)
    }
}

fn error(kind: ErrorKind, message: String) -> DriverError {
    DriverError { message, kind }
}

/// Somebody else's thing is in the way.
fn foreign(message: String) -> DriverError {
    error(ErrorKind::Foreign, message)
}

/// `what` failed because of `why`.
fn cannot(what: &str, why: &io::Error) -> DriverError {
    let kind = match why.kind() {
        io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::Failed,
    };
    let remedy = match why.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        _ => "",
    };
    error(kind, format!("{what}: {why}{remedy}"))
}
