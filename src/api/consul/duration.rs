//! Durations as Go writes them, which is how Consul's clients do: `15s`, `1h2m3.5s`,
//! `60000ms`, `15.000000s`.

use std::time::Duration;

/// Nanoseconds of the longest duration that Go knows, about 292 years.
const LONGEST: u128 = i64::MAX as u128;

/// The duration that `text` says; `None` when it is none, or a negative one.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let (number, tail) = rest.split_at_checked(number)?;
        let unit = tail.find(|sign: char| sign.is_ascii_digit() || sign == '.');
        let (unit, tail) = tail.split_at_checked(unit.unwrap_or(tail.len()))?;
        total = total.checked_add(nanos(number, unit)?)?;
        rest = tail;
    }
    if total > LONGEST {
        return None;
    }
    u64::try_from(total).ok().map(Duration::from_nanos)
}

fn nanos(number: &str, unit: &str) -> Option<u128> {
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    // Fifteen digits tell an hour to the nanosecond; more cannot be seen.
    let fraction: String = fraction.chars().take(15).collect();
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = digits(&fraction)?.checked_mul(unit)?.checked_div(scale)?;
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_clients_send_is_understood() {
        for (text, millis) in [
            ("15s", 15_000),
            ("15.000000s", 15_000),
            ("60000ms", 60_000),
            ("1h2m3.5s", 3_723_500),
            (".5s", 500),
            ("1.s", 1_000),
            ("+2m", 120_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("3µs"), Some(Duration::from_micros(3)));
    }

    #[test]
    fn the_rest_is_not() {
        for text in [
            "",
            "1",
            "s",
            ".s",
            "-1s",
            "1d",
            "1 s",
            "1.2.3s",
            "9999999999999h",
            "+",
            "10x",
            "5s3",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"9".repeat(1000)), None);
        assert_eq!(parse(&format!("{}s", "9".repeat(1000))), None);
    }
}
