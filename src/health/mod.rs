//! Thresholds and flapping, pure; who asks is a driver.

use serde::{Deserialize, Serialize};

use crate::spec::model::Status;

/// What one probe answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How it stands.
    pub status: Status,
    /// What it said, at most 4 KiB.
    pub output: String,
}
