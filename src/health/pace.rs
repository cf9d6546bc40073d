//! When the next probe is due.

use std::time::Duration;

/// The shortest pause between two probes of a check that has not passed yet.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

/// How much of the time since the start the next pause may be: a fifth, so that what comes up
/// is noticed at most that much later than it could have been.
const PART_OF_AGE: u32 = 5;

/// The pause between the starts of two probes before the first pass.
///
/// It grows with the time since the start, up to `longest`. A probe that took long is asked for
/// less often, so that the asking itself does not slow the start down.
pub(super) fn starting(age: Duration, took: Duration, longest: Duration) -> Duration {
    (age / PART_OF_AGE)
        .max(took.saturating_mul(2))
        .max(SHORTEST_PAUSE)
        .min(longest)
}

/// A small generator of pseudo-random numbers (splitmix64): it spreads probes, nothing more.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// One seed gives one sequence.
    pub fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// `duration`, up to a tenth longer or shorter.
    pub fn spread(&mut self, duration: Duration) -> Duration {
        let permille = u128::from(900 + self.next() % 201);
        let nanos = duration.as_nanos().saturating_mul(permille) / 1000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
