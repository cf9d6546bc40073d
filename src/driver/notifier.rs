//! Tells the service manager how this process is: sd_notify(3), in its own few lines.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a service manager that does not read may hold us up.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the service manager's variables asked for.
#[derive(Debug)]
pub struct Asked {
    /// Where it listens.
    pub notifier: Notifier,
    /// It ends us unless it hears of us so often.
    pub watchdog: Option<Duration>,
}

/// The service manager's socket.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// Takes the variables by which a service manager speaks with its service out of the
/// environment, so that nothing that is started later believes that it is meant.
///
/// `None` where nobody wants to be told.
///
/// # Errors
/// When the socket that they name is none.
///
/// # Safety
/// No other thread may run: changing the environment is only sound then.
pub unsafe fn take() -> io::Result<Option<Asked>> {
    let [socket, usec, pid] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| {
        let value = std::env::var_os(name);
        // SAFETY: the caller promises that this is the only thread.
        unsafe { std::env::remove_var(name) };
        value
    });
    let Some(socket) = socket else {
        return Ok(None);
    };
    Ok(Some(Asked {
        notifier: Notifier::new(socket.as_bytes())?,
        watchdog: watchdog(usec, pid, std::process::id()),
    }))
}

/// The interval, if it is meant for the process `own`.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |value: OsString| value.to_str()?.parse::<u64>().ok();
    if let Some(pid) = pid
        && number(pid) != Some(own.into())
    {
        return None;
    }
    let usec = number(usec?)?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

impl Notifier {
    /// A path, or a name in the abstract namespace after an `@`.
    ///
    /// # Errors
    /// When it is neither, or the kernel gives no socket.
    pub fn new(place: &[u8]) -> io::Result<Notifier> {
        let address = match place {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(place))?,
            _ => return Err(io::Error::other("NOTIFY_SOCKET names no unix socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Notifier { socket, address })
    }

    /// Sends assignments, one a line.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn say(&self, assignments: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(assignments.as_bytes(), &self.address)
            .map(|_| ())
    }

    /// Says that the configuration is read again; `READY=1` says that it was.
    ///
    /// # Errors
    /// As [`Notifier::say`].
    pub fn say_reloading(&self) -> io::Result<()> {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let usec = Duration::from(now).as_micros();
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn it_is_heard_on_a_path_and_on_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.as_os_str().as_bytes()).unwrap();
        notifier.say("READY=1").unwrap();
        assert_eq!(heard(&named), "READY=1");
        notifier.say_reloading().unwrap();
        let reloading = heard(&named);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(usec.unwrap().parse::<u64>().unwrap() > 0);

        let name = format!("hatchery-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let hidden = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(format!("@{name}").as_bytes()).unwrap();
        notifier.say("STATUS=x").unwrap();
        assert_eq!(heard(&hidden), "STATUS=x");
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        for odd in [&b""[..], b"relative", b"vsock:2:1", b"/with\0nul"] {
            assert!(Notifier::new(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let some = |text: &str| Some(OsString::from(text));
        let half = Duration::from_millis(500);
        assert_eq!(watchdog(some("500000"), None, 7), Some(half));
        assert_eq!(watchdog(some("500000"), some("7"), 7), Some(half));
        assert_eq!(watchdog(some("500000"), some("8"), 7), None);
        for odd in ["0", "-1", "x", ""] {
            assert_eq!(watchdog(some(odd), None, 7), None);
        }
        assert_eq!(watchdog(None, some("7"), 7), None);
    }
}
