//! Thresholds and flapping, pure; who asks is a driver.

use serde::{Deserialize, Serialize};

use crate::spec::model::Status;

mod monitor;
mod pace;
#[cfg(test)]
mod tests;

pub use monitor::{First, Flip, Monitor, Outcome};
pub use pace::Jitter;

/// What one probe answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How it stands.
    pub status: Status,
    /// What it said, at most 4 KiB.
    pub output: String,
}

/// The longest output of a check that is kept, in bytes.
pub const OUTPUT_LIMIT: usize = 4096;
