//! What the outside may ask over sockets.

pub mod consul;
pub mod control;
pub mod listener;
