//!

pub mod consul;
