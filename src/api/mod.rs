//! What the outside may ask over sockets.

pub mod control;
