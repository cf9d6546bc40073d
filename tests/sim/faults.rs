//! The table of faults: which are on in a seed, how often, and which really fired at what.

use std::collections::BTreeMap;

use crate::rng::Rng;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $words:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($variant,)* }

        impl $name {
            #[allow(dead_code)]
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            pub fn words(self) -> &'static str {
                match self { $($name::$variant => $words,)* }
            }
        }
    };
}

names! {
    /// What may go wrong.
    Fault {
        Foreign "error: foreign",
        Gone "error: gone",
        Failed "error: failed",
        TimedOut "error: timed out",
        HalfDone "fails half done",
        CrashBefore "crash before",
        CrashAfter "crash after",
        CrashWithin "crash within",
        Crash "crash between events",
        Reboot "reboot",
        Suspend "suspend",
        WallJump "wall clock jumps",
        InstantExit "instant exit",
        LateExit "exit by itself",
        BadCode "another exit code",
        SlowStart "slow start",
        DeafToTerm "ignored stop signal",
        Outlives "payload outlives its nspawn",
        NspawnKilled "nspawn alone is killed",
        Flapping "flapping check",
        HangingProbe "hanging probe",
        StaleView "stale observation",
        NoView "no observation",
        Uncounted "uncounted connections",
        Unreadable "unreadable file",
        LostEvent "lost notification",
        TwiceEvent "duplicated notification",
        KeepFails "state cannot be written",
        KeepBroken "state meets an input/output error",
        KeepGone "state is gone",
        KeepOld "state is older",
        KeepTorn "state is torn",
        KeepNewer "state is of a newer version",
        EditValid "valid edit",
        EditBack "back to an earlier spec",
        EditInvalid "invalid edit",
        EditEmpty "edit that removes everything",
        EditHalf "half-saved edit",
        EditWatched "watched file edited",
        EditSource "template source edited",
        EditBadSource "bad template source",
        EditRendered "rendered file edited by somebody",
        Refusal "validator refuses",
        Operate "operator's request",
        Down "down and up",
        Leave "controller leaves",
        Meddle "somebody changes the network",
        Stranger "foreign thing in the way",
        // What comes of a bad update, and of what fails again and again.
        BadUpdate "update to what cannot run",
        RolledBack "automatic rollback",
        Paused "update pauses",
        GaveUp "crash loop gives up",
    }
}

names! {
    /// At what it goes wrong.
    Action {
        Start "start",
        Signal "signal",
        Reload "reload",
        Kill "kill",
        Remove "clear",
        Note "note",
        CreateNetwork "create network",
        RemoveNetwork "remove network",
        Attach "attach",
        Firewall "firewall",
        Detach "detach",
        Write "write",
        Rewrite "rewrite",
        RemoveFile "remove file",
        Command "command",
        Validate "validate",
        OpenRegistry "open registry",
        Observe "observe lives",
        ObserveNetwork "observe network",
        Count "count connections",
        Look "look at file",
        Read "read file",
        Keep "keep",
        Process "process",
        Event "event",
        Outside "outside",
    }
}

/// Those of one run.
#[derive(Debug, Clone)]
pub struct Faults {
    rates: Vec<u64>,
    /// How often each fired, and at what.
    pub fired: BTreeMap<(Fault, Action), u64>,
    /// Off once the run is to converge.
    pub on: bool,
}

impl Faults {
    /// A random subset at random rates.
    pub fn draw(rng: &mut Rng) -> Self {
        // Some runs are calm, some are wild.
        let part = *rng.pick(&[100, 250, 450, 700]);
        let rates = Fault::ALL
            .iter()
            .map(|fault| {
                if !rng.chance(part) {
                    return 0;
                }
                let top = match fault {
                    Fault::CrashBefore | Fault::CrashAfter | Fault::CrashWithin => 15,
                    Fault::Foreign | Fault::Failed | Fault::TimedOut | Fault::Gone => 40,
                    Fault::NoView | Fault::StaleView | Fault::Unreadable => 60,
                    Fault::Uncounted => 100,
                    _ => 300,
                };
                rng.range(1, top)
            })
            .collect();
        Faults {
            rates,
            fired: BTreeMap::new(),
            on: true,
        }
    }

    /// How likely it is, of a thousand; for what is drawn by weight.
    pub fn rate(&self, fault: Fault) -> u64 {
        if self.on {
            self.rates[fault as usize]
        } else {
            0
        }
    }

    /// Whether it is to happen now. Draws nothing when it cannot.
    pub fn draws(&self, rng: &mut Rng, fault: Fault) -> bool {
        let rate = self.rate(fault);
        rate > 0 && rng.chance(rate)
    }

    /// It had its effect.
    pub fn note(&mut self, fault: Fault, action: Action) {
        *self.fired.entry((fault, action)).or_default() += 1;
    }
}
