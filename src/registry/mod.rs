//! The catalog: services, checks and the index that moves with them. A pure state machine.
//!
//! What is registered, how its checks stand and when that last changed. Every change that a
//! reader can see takes the next index; each service, and each list, remembers the index of
//! its own last change, so that whoever waits for one service sleeps through the others'.
//! Time is an argument; nothing here waits, locks or asks a clock.

mod catalog;
mod entry;
mod model;
mod valid;

pub use catalog::Catalog;
pub use model::{
    CatalogError, CheckEntry, CheckKind, CheckSpec, Config, Expired, Origin, Registration,
    ServiceEntry,
};

/// The largest number of services in one catalog, whoever registered them.
pub const MAX_SERVICES: usize = 32_768;
/// How many of them outsiders may hold; the rest stays free for the stack.
pub const MAX_CLIENT_SERVICES: usize = 4096;
/// The largest number of checks of one service.
pub const MAX_CHECKS: usize = 32;
/// The largest number of tags of one service.
pub const MAX_TAGS: usize = 64;
/// The largest number of meta entries of one service.
pub const MAX_META: usize = 64;
/// The longest output of a check, in bytes; what is longer loses its end.
pub const MAX_OUTPUT: usize = 4096;
/// The largest index plus one: JSON readers that count in doubles still tell neighbours apart.
pub const INDEX_LIMIT: u64 = 1 << 53;

/// The check of the node itself that Consul's readers expect; it always passes, and no
/// registration may take its id.
pub const NODE_CHECK: &str = "serfHealth";

#[cfg(test)]
mod tests;
