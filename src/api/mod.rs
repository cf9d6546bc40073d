//! What the outside may ask over sockets.

pub mod control;
pub mod consul;
pub mod listener;
