//! What serves others: the control socket, the registry in Consul's form, and the word of a
//! repository's host that something was pushed.

pub mod consul;
pub mod control;
pub mod listener;
pub mod serve;
pub mod webhook;
