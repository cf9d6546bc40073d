//! The kernel's boot clock.

use nix::time::{ClockId, clock_gettime};

use super::Clock;
use crate::spec::time::Time;

/// `CLOCK_BOOTTIME`: it never goes back, goes on while the machine sleeps, and is the same for
/// every process of one boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Time {
        // The call fails only for a clock that the kernel lacks or an address that is not ours;
        // this clock is there since Linux 2.6.39.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
        Time::default() + now.unwrap_or_default()
    }

    fn wall_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_the_clock_that_the_kernel_shows() {
        let before = BootClock.now();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let after = BootClock.now();
        assert!(after >= before);
        let shown: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        let shown = Time::default() + Duration::from_secs_f64(shown);
        // The file shows hundredths of a second.
        assert!(shown + Duration::from_millis(20) >= before);
        assert!(shown <= after + Duration::from_millis(20));
    }
}
