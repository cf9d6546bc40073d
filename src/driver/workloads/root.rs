//! The generated files that a container's root needs: hosts, accounts, name resolution.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::accounts::{self, Accounts};
use crate::graph::desired::{ContainerRun, MountRun, NetworkRun, RootRun};
use crate::spec::model::RootMode;

/// No file that we copy from is read further than this.
const MOST: u64 = 1 << 20;

/// What of the host's own `/etc` a shared `/usr` cannot do without.
const SHARED: [&str; 5] = [
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
];

/// What stands in nsswitch.conf: files, then DNS.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n";

/// The binds, and the user's name inside.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Generated files and shared folders, all read-only.
    pub binds: Vec<MountRun>,
    /// For `--user=`.
    pub user: Option<String>,
}

/// Generates a container's files in `scratch`, a folder of this life alone.
///
/// # Errors
/// In words, without the container's name.
pub(super) fn prepare(
    container: &ContainerRun,
    user: Option<&str>,
    machine_id: &str,
    scratch: &Path,
) -> Result<Prepared, String> {
    ensure_hosts(&container.hosts)?;
    let mut files = Generated {
        scratch,
        binds: Vec::new(),
    };
    let resolver = resolver(container.network != NetworkRun::Host);
    let user = match &container.root {
        RootRun::Host => {
            let passwd = accounts::system_only(&text(Path::new("/etc/passwd"))?, user);
            let group = accounts::system_groups(&text(Path::new("/etc/group"))?, user);
            let accounts = accounts::resolve(&passwd, &group, user)?;
            files.bind(&container.hosts, "/etc/hosts");
            files.add("passwd", &accounts.passwd)?;
            files.add("group", &accounts.group)?;
            files.add("nsswitch.conf", NSSWITCH)?;
            files.add("resolv.conf", &resolver)?;
            files.add("machine-id", &format!("{machine_id}\n"))?;
            for path in SHARED.iter().filter(|path| Path::new(path).exists()) {
                files.bind(Path::new(path), path);
            }
            accounts.user
        }
        RootRun::Path { path, mode } => {
            if !path.is_dir() {
                return Err(format!(
                    "its root `{}` is no directory on this host",
                    path.display()
                ));
            }
            let accounts = path_accounts(path, user)?;
            files.bind_onto(path, *mode, &container.hosts, "hosts")?;
            if accounts.changed {
                files.add("passwd", &accounts.passwd)?;
            }
            if *mode != RootMode::ReadOnly || inside(path, "/etc/resolv.conf").is_some() {
                files.add("resolv.conf", &resolver)?;
            }
            accounts.user
        }
    };
    Ok(Prepared {
        binds: files.binds,
        user,
    })
}

struct Generated<'a> {
    scratch: &'a Path,
    binds: Vec<MountRun>,
}

impl Generated<'_> {
    fn bind(&mut self, source: &Path, destination: &str) {
        self.binds.push(MountRun {
            source: source.to_owned(),
            destination: PathBuf::from(destination),
            read_only: true,
        });
    }

    /// A file of our own making, bound to its place in `/etc`.
    fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let path = self.scratch.join(name);
        fs::create_dir_all(self.scratch)
            .and_then(|()| fs::write(&path, text))
            .map_err(|error| format!("`{}` cannot be written: {error}", path.display()))?;
        self.bind(&path, &format!("/etc/{name}"));
        Ok(())
    }

    /// nspawn makes the place for a bind, but cannot in a root that is never written.
    fn bind_onto(
        &mut self,
        root: &Path,
        mode: RootMode,
        source: &Path,
        name: &str,
    ) -> Result<(), String> {
        let destination = format!("/etc/{name}");
        if mode == RootMode::ReadOnly && inside(root, &destination).is_none() {
            return Err(format!(
                "its read-only root `{}` has no `{destination}` to bind the instances' names \
                 onto: put an empty file there, or use `ephemeral: true`",
                root.display()
            ));
        }
        self.bind(source, &destination);
        Ok(())
    }
}

/// The hosts file is written by others and bound here; a container never waits for them.
fn ensure_hosts(path: &Path) -> Result<(), String> {
    let make = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
        {
            Ok(mut file) => io::Write::write_all(&mut file, b"127.0.0.1 localhost\n"),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    };
    make().map_err(|error| format!("its hosts file `{}`: {error}", path.display()))
}

fn path_accounts(root: &Path, user: Option<&str>) -> Result<Accounts, String> {
    let read = |name: &str| match inside(root, name) {
        Some(path) => text(&path),
        None => Ok(String::new()),
    };
    if user.is_none() {
        return accounts::resolve("", "", None);
    }
    accounts::resolve(&read("/etc/passwd")?, &read("/etc/group")?, user)
}

/// The regular file at `name` in a root; a link that leads elsewhere is not followed, since
/// it would be read on the host.
fn inside(root: &Path, name: &str) -> Option<PathBuf> {
    let path = root.join(name.trim_start_matches('/'));
    let real = fs::canonicalize(&path).ok()?;
    let root = fs::canonicalize(root).ok()?;
    (real.starts_with(root) && real.is_file()).then_some(real)
}

fn text(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<String> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, MOST), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

/// The host's name servers, as far as they can be reached from a container.
fn resolver(own_network: bool) -> String {
    let candidates = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let mut last = String::new();
    for path in candidates {
        let host = text(Path::new(path)).unwrap_or_default();
        last = reachable(&host, own_network);
        if last.contains("nameserver") {
            break;
        }
    }
    last
}

/// Loopback addresses of the host are not the container's own. Without any server a look-up
/// is to fail at once, not after the resolver's usual seconds.
fn reachable(host: &str, own_network: bool) -> String {
    let mut kept = String::new();
    for line in host.lines() {
        let mut words = line.split_ascii_whitespace();
        let keep = match words.next() {
            Some("nameserver") => words
                .next()
                .and_then(|address| address.split('%').next()?.parse::<IpAddr>().ok())
                .is_some_and(|address| !(own_network && address.is_loopback())),
            Some("search" | "domain" | "options") => true,
            _ => false,
        };
        if keep {
            kept.push_str(line.trim());
            kept.push('\n');
        }
    }
    if !kept.contains("nameserver") {
        kept.push_str("options timeout:1 attempts:1\n");
    }
    kept
}

/// A machine id that stays the same for an instance: 32 hexadecimal digits.
pub(super) fn machine_id(stack: &str, instance: &str) -> String {
    let hash = blake3::hash(format!("hatchery machine\0{stack}\0{instance}").as_bytes());
    hash.to_hex().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_resolvers_stay_on_the_host() {
        let host = "# made by\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch lan\n";
        assert_eq!(reachable(host, true), "nameserver 10.0.0.2\nsearch lan\n");
        assert!(reachable(host, false).starts_with("nameserver 127.0.0.53\n"));
        assert_eq!(
            reachable("nameserver ::1\nnameserver fe80::1%eth0\n", true),
            "nameserver fe80::1%eth0\n"
        );
        assert_eq!(reachable("", true), "options timeout:1 attempts:1\n");
    }

    #[test]
    fn a_root_does_not_lead_outside() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("etc/passwd")).unwrap();
        fs::write(root.path().join("etc/group"), "").unwrap();
        assert_eq!(inside(root.path(), "/etc/passwd"), None);
        assert!(inside(root.path(), "/etc/group").is_some());
    }

    #[test]
    fn a_machine_keeps_its_id() {
        let id = machine_id("prime", "prime1");
        assert_eq!(id.len(), 32);
        assert_eq!(id, machine_id("prime", "prime1"));
        assert_ne!(id, machine_id("prime", "prime2"));
    }
}
