//! How instances are replaced, and how their connections are waited for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `update:`, how instances are replaced when what they run changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// So many instances may be away, or on their way in, at once; at least 1.
    pub max_unavailable: u32,
    /// Which of the two lives comes first.
    pub order: UpdateOrder,
    /// How long a new life must be well before it counts; unless given, it depends on who can
    /// tell whether it is, see
    /// [`WorkloadNode`](crate::graph::desired::WorkloadNode::min_healthy_time).
    pub min_healthy_time: Option<Duration>,
    /// How long a new life may take until it is well.
    pub healthy_deadline: Duration,
    /// What follows when it is not well by then.
    pub failure_action: FailureAction,
}

impl Default for Update {
    fn default() -> Self {
        Update {
            max_unavailable: 1,
            order: UpdateOrder::StopFirst,
            min_healthy_time: None,
            healthy_deadline: Duration::from_secs(300),
            failure_action: FailureAction::Pause,
        }
    }
}

/// Whether the new life begins before the old one ends; compose's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The new life joins before the old one leaves.
    StartFirst,
    /// The old life ends first.
    StopFirst,
}

/// What follows when a replacement does not become well in time; compose's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// The last converged generation comes back.
    Rollback,
    /// Nothing more is replaced until somebody changes something.
    Pause,
    /// The others are replaced all the same.
    Continue,
}

/// `drain:`, how established connections to an instance are waited for after the proxies
/// forgot it and before its stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// So long without a break there must be none.
    pub quiet: Duration,
    /// The longest wait; zero does not wait.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Drain {
            quiet: Duration::from_millis(200),
            timeout: Duration::from_secs(10),
        }
    }
}
