//! What a step is called in a trace.

use hatchery::plan::model::Step;

/// In one or two words.
pub fn name(step: Option<&Step>) -> &'static str {
    match step {
        None => "nothing",
        Some(Step::OpenRegistry(_)) => "open registry",
        Some(Step::CreateNetwork(_)) => "create network",
        Some(Step::RemoveNetwork(_)) => "remove network",
        Some(Step::Attach(_)) => "attach",
        Some(Step::Firewall { .. }) => "firewall",
        Some(Step::Detach(_)) => "detach",
        Some(Step::Rewrite { .. }) => "rewrite",
        Some(Step::PortFree(_)) => "port free",
        Some(Step::PreStart { .. }) => "pre-start",
        Some(Step::Start(_)) => "start",
        Some(Step::Signal { .. }) => "signal",
        Some(Step::Kill(_)) => "kill",
        Some(Step::Clear(_)) => "clear",
        Some(Step::Register(_)) => "register",
        Some(Step::Deregister(_)) => "deregister",
        Some(Step::Validate { .. }) => "validate",
        Some(Step::Write(_)) => "write",
        Some(Step::RemoveFile { .. }) => "remove file",
        Some(Step::Note { .. }) => "note",
        Some(Step::ReloadProcess { .. }) => "reload",
        Some(Step::ReloadCommand { .. }) => "reload command",
    }
}
