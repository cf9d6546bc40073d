//! How long to wait before trying again.

use std::time::Duration;

use crate::spec::model::Restart;
use crate::spec::node::NodeId;

/// The delay before the restart that follows `failures` failures in a row: the first is
/// `delay`, each further one doubles it up to `max_delay`, and up to a tenth is added so
/// that workloads that fell together do not rise together. Which part is added follows from
/// the node and the count, so that the plan stays the same for the same arguments.
pub fn restart_delay(restart: &Restart, node: &NodeId, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let delay = restart
        .delay
        .checked_mul(1_u32 << doublings)
        .unwrap_or(restart.max_delay)
        .min(restart.max_delay.max(restart.delay));
    if failures <= 1 {
        return delay;
    }
    let hash = blake3::hash(format!("{node}#{failures}").as_bytes());
    let part = u32::from(hash.as_bytes()[0]);
    delay + delay * part / 2560
}

/// The delay before a failed action is tried again: 0.25 s doubled up to 30 s.
pub fn retry_delay(failures: u32) -> Duration {
    Duration::from_millis(250)
        .saturating_mul(1_u32 << failures.saturating_sub(1).min(10))
        .min(Duration::from_secs(30))
}

/// The delay before a validator that refused is asked about the same text again, in case that
/// what it reads beside it was mended: 2 s doubled up to a minute.
pub fn verdict_delay(times: u32) -> Duration {
    Duration::from_secs(2)
        .saturating_mul(1_u32 << times.saturating_sub(1).min(10))
        .min(Duration::from_secs(60))
}
