//!
pub mod host;
