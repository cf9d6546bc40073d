//! Who has a machine's name, from the state that systemd-machined keeps for libsystemd:
//! `/run/systemd/machines/NAME`, lines of `KEY=VALUE`.

use std::fs;
use std::path::Path;

/// Where machined keeps it.
pub(super) const MACHINES: &str = "/run/systemd/machines";

/// The process and unit that a machine of this name runs as, while it does.
pub(super) fn holder(machines: &Path, name: &str) -> Option<String> {
    let state = fs::read_to_string(machines.join(name)).ok()?;
    let field = |key: &str| {
        let mut lines = state.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    };
    let leader: u32 = field("LEADER")?.parse().ok()?;
    // What a machine leaves behind when machined was not there to see its end holds nothing.
    let program = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
    let unit = field("SCOPE").map_or_else(String::new, |unit| format!(" in unit `{unit}`"));
    Some(format!("{} (pid {leader}){unit}", program.trim()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_machine_that_runs_holds_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("web", &format!("NAME=web\nSCOPE=lab.scope\nLEADER={own}\n"));
        let holder = |name: &str| holder(folder.path(), name);
        let said = holder("web").unwrap();
        let expected = format!("(pid {own}) in unit `lab.scope`");
        assert!(said.ends_with(&expected), "{said}");
        // No process has a number this high.
        put("gone", "NAME=gone\nLEADER=4194305\n");
        put("torn", "NAME=torn\nLEAD");
        for name in ["gone", "torn", "missing"] {
            assert_eq!(holder(name), None);
        }
    }
}
