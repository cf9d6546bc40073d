//! The loop: triggers, pass, execute.

pub mod handle;
pub mod shared;
