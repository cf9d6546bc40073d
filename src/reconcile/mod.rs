//! The loop: triggers, pass, execute.

pub mod handle;
