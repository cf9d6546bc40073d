//! What serves others: the control socket, and the registry in Consul's form.

pub mod consul;
pub mod control;
pub mod listener;
