//! One check of one instance: its schedule, its thresholds, its state.

use std::time::Duration;

use super::Answer;
use super::pace::{self, Jitter};
use crate::graph::desired::{CheckNode, ProbeNode};
use crate::spec::model::Status;
use crate::spec::time::Time;

/// How long an output that changes while the status stays passing is kept back: a body with a
/// clock in it is no news.
const OUTPUT_PAUSE: Duration = Duration::from_secs(60);

/// What is known of the instance when its monitor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// It has just been started: critical until the first pass.
    Started,
    /// It was found running: nothing is known until it was asked.
    Adopted,
}

/// A change of status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flip {
    /// What it was. An adopted instance counts as critical until it was asked.
    pub from: Status,
    /// What it is.
    pub to: Status,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The status is known from this answer on, and was not before.
    pub first: bool,
    /// The status changed.
    pub flip: Option<Flip>,
    /// Somebody should be told: one of the above, or an output that says something new.
    pub tell: bool,
}

/// One check of one instance. It is asked what is due and told what was answered.
///
/// A status becomes critical after `retries` failures in a row, warning and passing at once.
/// Failures before the first pass do not count within `start_period`.
#[derive(Debug, Clone)]
pub struct Monitor {
    check: CheckNode,
    since: Time,
    jitter: Jitter,
    due: Time,
    began: Option<Time>,
    known: bool,
    served: bool,
    passed: bool,
    status: Status,
    failures: u32,
    output: String,
    told: Option<(Time, String)>,
}

impl Monitor {
    /// A monitor of `check` on what started at `since`. `seed` spreads its probes in time.
    pub fn new(check: CheckNode, since: Time, seed: u64, first: First) -> Self {
        let mut jitter = Jitter::new(seed);
        let due = match first {
            First::Started => {
                let pause = pace::starting(Duration::ZERO, Duration::ZERO, check.start_interval);
                since + jitter.spread(pause)
            }
            First::Adopted => since,
        };
        Monitor {
            check,
            since,
            jitter,
            due,
            began: None,
            known: first == First::Started,
            served: false,
            passed: false,
            status: Status::Critical,
            failures: 0,
            output: String::new(),
            told: None,
        }
    }

    /// The same instance under another definition of its check. The status stays until the new
    /// definition has an answer of its own, which is asked for at once.
    pub fn revise(&mut self, check: CheckNode, now: Time) {
        self.check = check;
        self.failures = 0;
        self.began = None;
        self.due = now;
    }

    /// What is checked.
    pub fn check(&self) -> &CheckNode {
        &self.check
    }

    /// When the instance began.
    pub fn since(&self) -> Time {
        self.since
    }

    /// When it is to be probed next; `None` while a probe is under way, and for a check that
    /// somebody else answers.
    pub fn next_due(&self) -> Option<Time> {
        match (&self.check.probe, self.began) {
            (ProbeNode::Ttl(_), _) | (_, Some(_)) => None,
            _ => Some(self.due),
        }
    }

    /// A probe begins. False when one is under way already: this one must not be made.
    pub fn begin(&mut self, now: Time) -> bool {
        if self.began.is_some() {
            return false;
        }
        self.began = Some(now);
        true
    }

    /// The probe that began is answered.
    pub fn finish(&mut self, answer: Answer, now: Time) -> Outcome {
        let before = self.status;
        let was_told = self.told.is_some();
        self.weigh(answer.status, now);
        self.output = answer.output;
        self.schedule(now);

        let flip = (before != self.status).then_some(Flip {
            from: before,
            to: self.status,
        });
        let first = self.known && !was_told;
        let tell = self.known && (first || flip.is_some() || self.output_is_news(now));
        if tell {
            self.told = Some((now, self.output.clone()));
        }
        Outcome { first, flip, tell }
    }

    fn weigh(&mut self, answer: Status, now: Time) {
        if answer != Status::Critical {
            self.failures = 0;
            self.served = true;
            self.passed |= answer == Status::Passing;
            self.status = answer;
            self.known = true;
            return;
        }
        if self.in_start_period(now) {
            // What was adopted in the middle of its start is known to be starting.
            self.known = true;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.check.retries {
            self.status = Status::Critical;
            self.known = true;
        }
    }

    fn in_start_period(&self, now: Time) -> bool {
        !self.served && now.since(self.since) < self.check.start_period
    }

    fn schedule(&mut self, now: Time) {
        let began = self.began.take().unwrap_or(now);
        let pause = if self.served {
            self.check.interval
        } else {
            pace::starting(
                began.since(self.since),
                now.since(began),
                self.check.start_interval,
            )
        };
        self.due = (began + self.jitter.spread(pause)).max(now);
    }

    fn output_is_news(&self, now: Time) -> bool {
        match &self.told {
            None => true,
            Some((_, output)) if *output == self.output => false,
            Some((at, _)) => self.status != Status::Passing || now.since(*at) >= OUTPUT_PAUSE,
        }
    }

    /// How it stands. Critical, too, while nothing is known of an adopted instance.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether the status rests on more than its beginning: always for a started instance; for
    /// an adopted one from its first pass, or from the failures that made it critical.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// What the last probe said.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Whether it ever passed.
    pub fn passed_once(&self) -> bool {
        self.passed
    }

    /// Whether enough failures in a row were counted; a critical check that is not failing is
    /// starting.
    pub fn failing(&self) -> bool {
        self.failures >= self.check.retries.max(1)
    }
}
