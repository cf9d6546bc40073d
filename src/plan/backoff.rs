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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::restart;
    use crate::spec::node::Kind;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tenth_at_most_is_added_to_what_doubles() {
        let mut restart = restart();
        (restart.delay, restart.max_delay) = (SECOND, 40 * SECOND);
        let mut added = Vec::new();
        for number in 0..40 {
            let node = NodeId::new(Kind::Containers, format!("c{number}"));
            assert_eq!(restart_delay(&restart, &node, 1), SECOND);
            for (failures, plain) in [(2, 2), (3, 4), (6, 32), (7, 40), (99, 40)] {
                let plain = plain * SECOND;
                let delay = restart_delay(&restart, &node, failures);
                assert!(delay >= plain && delay <= plain * 11 / 10, "{delay:?}");
                added.push((delay - plain).as_secs_f64() / plain.as_secs_f64());
            }
        }
        // They do not rise together.
        let (low, high) = (0.02, 0.08);
        assert!(added.iter().any(|part| *part < low) && added.iter().any(|part| *part > high));
    }

    #[test]
    fn a_delay_longer_than_the_longest_stays_as_it_is() {
        let mut restart = restart();
        (restart.delay, restart.max_delay) = (5 * SECOND, SECOND);
        let node = NodeId::new(Kind::Containers, "c");
        let delay = restart_delay(&restart, &node, 9);
        assert!(delay >= 5 * SECOND && delay <= 5 * SECOND * 11 / 10);
    }

    #[test]
    fn other_delays_double_up_to_their_ends() {
        let tried = [1, 2, 3, 8, 99].map(|failures| retry_delay(failures).as_millis());
        assert_eq!(tried, [250, 500, 1_000, 30_000, 30_000]);
        let asked = [1, 2, 3, 6, 99].map(|times| verdict_delay(times).as_secs());
        assert_eq!(asked, [2, 4, 8, 60, 60]);
    }
}
