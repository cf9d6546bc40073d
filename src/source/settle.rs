//! When a change of a file is to be believed. Time is an argument.

use std::time::{Duration, Instant};

/// How long a complete save must rest.
pub(super) const QUIET: Duration = Duration::from_millis(200);

/// How long it may be put off by further saves.
pub(super) const LONGEST: Duration = Duration::from_secs(2);

/// How long a file rests that is written and not closed.
pub(super) const OPEN: Duration = Duration::from_secs(2);

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Its content changes, and more may follow.
    Writing,
    /// It is whole: closed after writing, renamed, removed, its link swapped.
    Whole,
    /// Mode, owner or attributes changed.
    Touched,
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Nothing is under way.
    #[default]
    Settled,
    /// Being written; believed when it rests long enough.
    Writing {
        /// The last write.
        last: Instant,
    },
    /// Whole; believed after a short rest.
    Resting {
        /// The first complete save that was not told yet.
        first: Instant,
        /// The last one.
        last: Instant,
    },
}

impl Phase {
    /// After `sign` at `now`.
    pub(super) fn after(self, sign: Sign, now: Instant) -> Phase {
        match (self, sign) {
            (_, Sign::Writing) => Phase::Writing { last: now },
            (Phase::Writing { .. }, Sign::Touched) => self,
            (Phase::Resting { first, .. }, _) => Phase::Resting { first, last: now },
            (_, Sign::Whole | Sign::Touched) => Phase::Resting {
                first: now,
                last: now,
            },
        }
    }

    /// When it will be believed if nothing else happens.
    pub(super) fn due(self) -> Option<Instant> {
        match self {
            Phase::Settled => None,
            Phase::Writing { last } => Some(last + OPEN),
            Phase::Resting { first, last } => Some((last + QUIET).min(first + LONGEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_save_is_believed_after_its_close() {
        let start = Instant::now();
        let phase = Phase::default().after(Sign::Writing, start);
        assert_eq!(phase.due(), Some(start + OPEN));
        let phase = phase.after(Sign::Writing, start + ms(1500));
        assert_eq!(
            phase.due(),
            Some(start + ms(3500)),
            "each write puts it off"
        );
        let phase = phase.after(Sign::Touched, start + ms(1600));
        assert_eq!(
            phase.due(),
            Some(start + ms(3500)),
            "a chmod completes nothing"
        );
        let phase = phase.after(Sign::Whole, start + ms(1700));
        assert_eq!(phase.due(), Some(start + ms(1900)));
        let phase = phase.after(Sign::Writing, start + ms(1750));
        assert_eq!(phase.due(), Some(start + ms(3750)), "the next save began");
    }

    #[test]
    fn saves_without_a_break_are_told_now_and_then() {
        let start = Instant::now();
        let mut phase = Phase::default();
        for at in (0..3000).step_by(100) {
            phase = phase.after(Sign::Whole, start + ms(at));
        }
        assert_eq!(phase.due(), Some(start + LONGEST));
        assert_eq!(Phase::Settled.due(), None);
    }
}
