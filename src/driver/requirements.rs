//! What the machine must have before anything starts, and how what is missing gets there.

mod apt;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::commands::{PATH, Tie, capture, prepare};
use crate::graph::desired::{Desired, Node};
use crate::spec::model::{Needed, Requirement};

pub use self::apt::{InstallError, install};

/// How long Python may take to say which modules it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks for modules without importing any, their parents included, because to import one
/// is to run it. It prints the position of each argument that was not found.
const FIND_MODULES: &str = r"
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
def found(name):
    path, full = None, ''
    for part in name.split('.'):
        full = full + '.' + part if full else part
        spec = PathFinder.find_spec(full, path)
        if spec is None and path is None:
            spec = BuiltinImporter.find_spec(full) or FrozenImporter.find_spec(full)
        if spec is None:
            return False
        path = spec.submodule_search_locations or []
    return True
for position, name in enumerate(sys.argv[1:]):
    if not found(name):
        print('missing', position)
print('done')
";

/// What this stack needs though its spec does not say so, and not yet in its `requires`.
pub fn implied(desired: &Desired) -> Vec<Requirement> {
    let workloads = || {
        desired.nodes.values().filter_map(|node| match node {
            Node::Workload(workload) => Some(workload),
            _ => None,
        })
    };
    let containers = workloads().any(|workload| workload.run.container.is_some());
    let firewalls = workloads()
        .filter_map(|workload| workload.attachment.as_ref())
        .any(|attachment| attachment.firewall.is_some());
    [
        (containers, "systemd-nspawn", "systemd-container"),
        (firewalls, "nft", "nftables"),
    ]
    .into_iter()
    .filter(|(needed, ..)| *needed)
    .map(|(_, command, package)| Requirement {
        what: Needed::Command(command.to_owned()),
        debian: Some(package.to_owned()),
    })
    .filter(|one| desired.requires.iter().all(|other| other.what != one.what))
    .collect()
}

/// What this machine does not have of all that this stack needs.
pub fn lacking(desired: &Desired) -> Vec<Requirement> {
    let mut needed = desired.requires.clone();
    needed.extend(implied(desired));
    missing(&needed)
}

/// Those of `requirements` that this machine does not have. It runs nothing but Debian's
/// Python, which imports none of the modules.
pub fn missing(requirements: &[Requirement]) -> Vec<Requirement> {
    let modules: Vec<&str> = requirements
        .iter()
        .filter_map(|requirement| match &requirement.what {
            Needed::Python(module) => Some(module.as_str()),
            _ => None,
        })
        .collect();
    let modules = missing_modules(&modules);
    requirements
        .iter()
        .filter(|requirement| match &requirement.what {
            Needed::Command(command) => !has_command(command),
            Needed::Python(module) => modules.contains(module.as_str()),
            Needed::Path(path) => !path.exists(),
        })
        .cloned()
        .collect()
}

/// A requirement in words: "command `nginx` (Debian package `nginx-light`)".
pub fn describe(requirement: &Requirement) -> String {
    let what = match &requirement.what {
        Needed::Command(command) => format!("command `{command}`"),
        Needed::Python(module) => format!("Python module `{module}`"),
        Needed::Path(path) => format!("path `{}`", path.display()),
    };
    match &requirement.debian {
        Some(package) => format!("{what} (Debian package `{package}`)"),
        None => what,
    }
}

fn has_command(command: &str) -> bool {
    let is_program = |path: &Path| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if command.contains('/') {
        return is_program(Path::new(command));
    }
    PATH.split(':')
        .any(|folder| is_program(&Path::new(folder).join(command)))
}

fn missing_modules<'a>(modules: &[&'a str]) -> BTreeSet<&'a str> {
    let all = || modules.iter().copied().collect();
    if modules.is_empty() {
        return BTreeSet::new();
    }
    let mut command = ["/usr/bin/python3", "-I", "-c", FIND_MODULES]
        .map(str::to_owned)
        .to_vec();
    command.extend(modules.iter().map(|module| (*module).to_owned()));
    let Ok(prepared) = prepare(&command) else {
        return all();
    };
    // Without Python no module of it is there.
    let Ok(captured) = capture(prepared, PATIENCE, Tie::Nothing) else {
        return all();
    };
    let text = captured.text();
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.pop() != Some("done") {
        return all();
    }
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("missing ")?.parse::<usize>().ok())
        .filter_map(|position| modules.get(position).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(what: Needed) -> Requirement {
        Requirement { what, debian: None }
    }

    #[test]
    fn only_what_is_missing_is_told() {
        let there = [
            Needed::Command("sh".to_owned()),
            Needed::Command("/bin/sh".to_owned()),
            Needed::Python("json.decoder".to_owned()),
            Needed::Python("sys".to_owned()),
            Needed::Python("flask".to_owned()),
            Needed::Path("/etc".into()),
        ]
        .map(requirement);
        assert_eq!(missing(&there), []);
        let absent = [
            Needed::Command("no-such-command".to_owned()),
            Needed::Command("/etc/passwd".to_owned()),
            Needed::Python("no_such_module".to_owned()),
            Needed::Python("json.no_such_module".to_owned()),
            Needed::Python("no_such_module.json".to_owned()),
            Needed::Path("/no/such/path".into()),
        ]
        .map(requirement);
        assert_eq!(missing(&absent), absent);
    }

    #[test]
    fn requirements_read_well() {
        let nginx = Requirement {
            what: Needed::Command("nginx".to_owned()),
            debian: Some("nginx-light".to_owned()),
        };
        assert_eq!(
            describe(&nginx),
            "command `nginx` (Debian package `nginx-light`)"
        );
        let flask = requirement(Needed::Python("flask".to_owned()));
        assert_eq!(describe(&flask), "Python module `flask`");
    }
}
