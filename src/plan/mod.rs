//! (desired, observed, memory, now) -> plan; reasons; back-off; how a plan reads.

pub mod firewall;
pub mod model;
pub mod world;
