//! The query string.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use axum::http::{StatusCode, Uri};

use super::duration;
use super::fault::Fault;

/// How long a blocking query without `wait` is held.
const DEFAULT_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long any is held, before the jitter.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);

/// Parameters in their order; one may come several times.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

/// Until when an answer may be held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// It waits for an index above this one; 0 does not wait.
    pub(super) index: u64,
    /// At most so long.
    pub(super) limit: Duration,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Result<Query, Fault> {
        axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(pairs)| Query(pairs))
            .map_err(|error| Fault::bad(format!("cannot read the query string: {error}")))
    }

    /// The first value of a parameter; empty when it came without one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let (_, value) = pairs.find(|(key, _)| key == name)?;
        Some(value)
    }

    /// Whether it came at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Every value of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// A flag: without a value it is on.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(_) => Err(Fault::bad(format!("Invalid value for ?{name}"))),
        }
    }

    /// `index` and `wait`.
    pub(super) fn hold(&self) -> Result<Hold, Fault> {
        let index = match self.get("index") {
            None | Some("") => 0,
            Some(index) => index.parse().map_err(|_| Fault::bad("Invalid index"))?,
        };
        let limit = match self.get("wait") {
            None | Some("") => Duration::ZERO,
            Some(wait) => duration::parse(wait).ok_or_else(|| Fault::bad("Invalid wait time"))?,
        };
        let limit = match limit {
            Duration::ZERO => DEFAULT_WAIT,
            limit => limit.min(LONGEST_WAIT),
        };
        Ok(Hold { index, limit })
    }

    /// What the catalog's and health's reads have in common: the consistency that is told
    /// back. There is one node, so each is the strongest.
    pub(super) fn consistency(&self, datacenter: &str) -> Result<&'static str, Fault> {
        let (stale, consistent) = (self.has("stale"), self.has("consistent"));
        if stale && consistent {
            return Err(Fault::bad(
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ));
        }
        if self
            .get("dc")
            .is_some_and(|dc| !dc.is_empty() && dc != datacenter)
        {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(Fault::new(status, "No path to datacenter"));
        }
        self.no_filter()?;
        Ok(match (stale, consistent) {
            (true, _) => "stale",
            (_, true) => "consistent",
            _ => "leader",
        })
    }

    /// An answer that ignores a filter would be a wrong one.
    pub(super) fn no_filter(&self) -> Result<(), Fault> {
        match self.get("filter") {
            None | Some("") => Ok(()),
            Some(_) => Err(Fault::bad(
                "cannot filter: `filter` expressions are not supported; leave the parameter out",
            )),
        }
    }

    /// Whether the one node has all the meta that is asked for; it has what every Consul
    /// node has, an empty network segment.
    pub(super) fn wants_this_node(&self) -> bool {
        self.all("node-meta")
            .all(|pair| pair.trim_end_matches(':') == "consul-network-segment")
    }
}

impl Hold {
    /// The limit with up to a sixteenth more, so that waiters do not come back all at once.
    pub(super) fn jittered(self) -> Duration {
        let random = RandomState::new().hash_one(self.index);
        let share = u32::try_from(random % 1024).unwrap_or(0);
        self.limit + self.limit / 16 * share / 1024
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn waits_have_a_default_and_a_limit() {
        assert_eq!(
            query("").hold().unwrap(),
            Hold {
                index: 0,
                limit: DEFAULT_WAIT
            }
        );
        assert_eq!(query("index=7&wait=0s").hold().unwrap().limit, DEFAULT_WAIT);
        assert_eq!(query("index=7&wait=9h").hold().unwrap().limit, LONGEST_WAIT);
        let index = query("index=18446744073709551615").hold().unwrap().index;
        assert_eq!(index, u64::MAX);
        for wrong in [
            "index=x",
            "index=-1",
            "wait=1",
            "wait=-1s",
            "index=18446744073709551616",
        ] {
            assert!(query(wrong).hold().is_err(), "{wrong}");
        }
    }

    #[test]
    fn jitter_stays_within_a_sixteenth() {
        let hold = query("index=7&wait=16s").hold().unwrap();
        for _ in 0..100 {
            let jittered = hold.jittered();
            assert!((Duration::from_secs(16)..=Duration::from_secs(17)).contains(&jittered));
        }
    }

    #[test]
    fn flags_need_no_value() {
        assert!(query("passing").flag("passing").unwrap());
        assert!(query("passing=1&x=2").flag("passing").unwrap());
        assert!(!query("passing=false").flag("passing").unwrap());
        assert!(!query("").flag("passing").unwrap());
        assert!(query("passing=junk").flag("passing").is_err());
        assert_eq!(query("tag=a&tag=b").all("tag").count(), 2);
    }
}
