//! Bugs on purpose, so that the simulator can show that it finds them. A build without the
//! feature `planted` has none: [`has`] is constantly false there, and what asks it is gone.

/// A bug at one place of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A workload starts though its needs are not met.
    StartBeforeNeed,
    /// A start under way is forgotten, so that a second one follows.
    DoubleStart,
    /// What runs and is not in the spec is not seen.
    Orphan,
    /// Nobody notes how a life ended.
    LostExit,
    /// A life gets its stop signal while it still serves.
    ForgottenDrain,
    /// A file is written before its validator was asked.
    WriteBeforeValidate,
    /// A long life does not end a row of failures.
    BackoffNeverReset,
    /// A check of a life that ended goes on, whoever has the number of its process now.
    ReusedPid,
    /// A stranger's bridge is removed.
    PruneForeign,
    /// What is done is not what the plan says.
    PlanDiffers,
}

impl Bug {
    /// All of them, with their names on the command line.
    pub const ALL: [(&'static str, Bug); 10] = [
        ("start-before-need", Bug::StartBeforeNeed),
        ("double-start", Bug::DoubleStart),
        ("orphan", Bug::Orphan),
        ("lost-exit", Bug::LostExit),
        ("forgotten-drain", Bug::ForgottenDrain),
        ("write-before-validate", Bug::WriteBeforeValidate),
        ("backoff-never-reset", Bug::BackoffNeverReset),
        ("reused-pid", Bug::ReusedPid),
        ("prune-foreign", Bug::PruneForeign),
        ("plan-differs", Bug::PlanDiffers),
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// From now on the product has this bug, on this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the product has this bug, on this thread.
    pub fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted")]
pub use switch::{has, plant};

/// Whether the product has this bug: never.
#[cfg(not(feature = "planted"))]
pub const fn has(_: Bug) -> bool {
    false
}
