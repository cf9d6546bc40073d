//! A container as a command line of systemd-nspawn(1).

use std::path::Path;

use crate::graph::desired::{ContainerRun, MountRun, NetworkRun, RootRun, Run};
use crate::spec::model::RootMode;

/// What nspawn leaves to a payload by default and docker does not, and CAP_MKNOD, which docker
/// leaves but guards by a device policy that does not exist here: with it the payload could
/// make a node of the host's disk. CAP_NET_RAW goes as well: with it a container answers for its
/// neighbour's address on their bridge, and speaks with it.
///
/// CAP_SYS_ADMIN is the one that matters most: with it a payload remounts the host's files
/// for writing.
const DROPPED: &str = "CAP_AUDIT_CONTROL,CAP_DAC_READ_SEARCH,CAP_IPC_OWNER,CAP_LEASE,\
CAP_LINUX_IMMUTABLE,CAP_MKNOD,CAP_NET_ADMIN,CAP_NET_BROADCAST,CAP_NET_RAW,CAP_SYS_ADMIN,\
CAP_SYS_BOOT,CAP_SYS_NICE,CAP_SYS_PTRACE,CAP_SYS_RESOURCE,CAP_SYS_TTY_CONFIG";

/// Where the folder with our notify socket is seen inside.
pub(super) const NOTIFY_INSIDE: &str = "/run/hatchery-notify";

/// What the command line needs beside the spec's own words.
pub(super) struct Around<'a> {
    /// Binds that every root of its kind gets: generated files, read-only.
    pub binds: Vec<MountRun>,
    /// The name that nspawn is to look up inside.
    pub user: Option<&'a str>,
    /// 32 hexadecimal digits.
    pub machine_id: &'a str,
    /// Whether systemd-machined is told.
    pub register: bool,
    /// The folder with the notify socket, for payloads that use it.
    pub notify: Option<&'a Path>,
}

/// Program and arguments. Values of environment variables are not in it, see [`handed`].
pub(super) fn command(run: &Run, container: &ContainerRun, around: &Around<'_>) -> Vec<String> {
    let mut line: Vec<String> = [
        "systemd-nspawn",
        "--quiet",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--console=pipe",
        "--as-pid2",
        "--resolv-conf=off",
        "--timezone=off",
        "--no-new-privileges=yes",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut add = |name: &str, value: &str| {
        line.push(match value {
            "" => format!("--{name}"),
            value => format!("--{name}={value}"),
        });
    };
    add("register", if around.register { "yes" } else { "no" });
    add("drop-capability", DROPPED);
    add("machine", &container.machine);
    add("hostname", &container.hostname);
    add("uuid", around.machine_id);
    root(&container.root, &mut add);
    if container.network == NetworkRun::None {
        add("private-network", "");
    }
    for mount in around.binds.iter().chain(&container.mounts) {
        let name = if mount.read_only { "bind-ro" } else { "bind" };
        let (from, to) = (escape(&mount.source), escape(&mount.destination));
        add(name, &format!("{from}:{to}"));
    }
    for folder in &container.tmpfs {
        add("tmpfs", &escape(folder));
    }
    for (name, value) in &run.environment {
        match handed(name) {
            true => add("setenv", name),
            false => add("setenv", &format!("{name}={value}")),
        }
    }
    if let Some(folder) = around.notify {
        add("bind-ro", &format!("{}:{NOTIFY_INSIDE}", escape(folder)));
        add("setenv", &format!("NOTIFY_SOCKET={NOTIFY_INSIDE}/socket"));
    }
    if let Some(user) = around.user {
        add("user", user);
    }
    if let Some(folder) = &run.working_dir {
        add("chdir", &folder.to_string_lossy());
    }
    line.push("--".to_owned());
    line.extend(run.command.iter().cloned());
    line
}

fn root(root: &RootRun, add: &mut impl FnMut(&str, &str)) {
    match root {
        RootRun::Host => {
            add("directory", "/");
            add("volatile", "yes");
        }
        RootRun::Path { path, mode } => {
            add("directory", &path.to_string_lossy());
            match mode {
                RootMode::ReadOnly => {
                    add("read-only", "");
                    for folder in ["/tmp", "/var/tmp"] {
                        if path.join(folder.trim_start_matches('/')).is_dir() {
                            add("tmpfs", &format!("{folder}:mode=1777"));
                        }
                    }
                }
                RootMode::Ephemeral => add("volatile", "overlay"),
                RootMode::Persistent => {}
            }
        }
    }
}

/// Whether a variable reaches the payload through nspawn's own environment, where other users
/// cannot read its value, or must stand on the command line, because nspawn or the loader
/// would follow it themselves.
pub(super) fn handed(name: &str) -> bool {
    const OWN: [&str; 6] = ["LD_", "SYSTEMD_", "NOTIFY_", "LISTEN_", "GLIBC_", "LC_"];
    const EXACT: [&str; 9] = [
        "PATH", "HOME", "SHELL", "TERM", "LANG", "TMPDIR", "TZ", "COLUMNS", "LOCPATH",
    ];
    !OWN.iter().any(|prefix| name.starts_with(prefix)) && !EXACT.contains(&name)
}

/// nspawn splits at colons; a backslash takes the next character as it is.
fn escape(path: &Path) -> String {
    let mut escaped = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, ':' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
