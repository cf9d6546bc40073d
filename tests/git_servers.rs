//! Repositories behind real servers: how a push comes over SSH and HTTP, what a host's webhook
//! does, whose signatures count, and what is too large or comes from elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::followed::{Followed, until};
use support::wait_for;

/// Where a program lies; servers are not on everybody's path.
fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut places = folders.map(|folder| Path::new(folder).join(name));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| panic!("this test needs `{name}`: `apt-get install {package}`"))
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that ends with its test.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Server {
        Server(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers(address: &str) {
    wait_for(address, Duration::from_secs(20), || {
        TcpStream::connect(address).ok()
    });
}

/// An SSH server for the repository of `followed`, and what its client needs.
struct Ssh {
    _server: Server,
    folder: PathBuf,
}

impl Ssh {
    const ADDRESS: &str = "127.0.0.1:2222";

    fn new(followed: &mut Followed) -> Ssh {
        program("ssh", "openssh-client");
        let sshd = program("sshd", "openssh-server");
        let folder = followed.folder.path().join("ssh");
        fs::create_dir(&folder).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
        }
        fs::rename(at("user.pub"), at("authorized_keys")).unwrap();
        let host = fs::read_to_string(at("host.pub")).unwrap();
        fs::write(at("known_hosts"), format!("[127.0.0.1]:2222 {host}")).unwrap();
        let config = format!(
            "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes \
             no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            Self::ADDRESS,
            at("host"),
            at("authorized_keys"),
        );
        fs::write(at("sshd_config"), config).unwrap();
        let server = Server::start(Command::new(sshd).args(["-D", "-e", "-f", &at("sshd_config")]));
        answers(Self::ADDRESS);
        let url = format!("ssh://root@{}{}", Self::ADDRESS, followed.bare().display());
        followed.address = Some(url);
        Ssh {
            _server: server,
            folder,
        }
    }

    /// The client's command, which knows the hosts of this file.
    fn client(&self, known_hosts: &str) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let text = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile \
             /dev/null\n",
            at("user"),
            at(known_hosts),
        );
        let file = at(&format!("client-{known_hosts}"));
        fs::write(&file, text).unwrap();
        format!("ssh -F {file}")
    }
}

#[test]
fn a_push_comes_over_ssh() {
    isolate!();
    let mut followed = Followed::new();
    let ssh = Ssh::new(&mut followed);
    let client = ssh.client("known_hosts");
    followed.environment = vec![("GIT_SSH_COMMAND".to_owned(), client)];
    followed.up(&[]);
    followed.converges("ssh", "two");
    followed.converges("ssh", "one");
}

#[test]
fn a_users_setting_says_how_ssh_is_spoken() {
    isolate!();
    let mut followed = Followed::new();
    let ssh = Ssh::new(&mut followed);
    let client = ssh.client("known_hosts");
    let settings = followed.folder.path().join(".gitconfig");
    fs::write(settings, format!("[core]\n\tsshCommand = {client}\n")).unwrap();
    followed.up(&[]);
    followed.converges("ssh as set", "two");
}

#[test]
fn an_unknown_host_is_refused_and_nobody_is_asked() {
    isolate!();
    let mut followed = Followed::new();
    let ssh = Ssh::new(&mut followed);
    let client = ssh.client("nobody");
    followed.environment = vec![("GIT_SSH_COMMAND".to_owned(), client.clone())];
    let url = followed.url();
    let arguments = ["up", "-d", "--wait", "--git", &url, "--path", "farm"];
    let output = followed.hatchery(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("Host key verification failed"), "{said}");
    assert!(said.contains("known_hosts"), "{said}");

    // On a terminal it could ask.
    let script = program("script", "bsdutils");
    let terminal = Command::new("timeout")
        .arg("60")
        .arg(script)
        .args(["-qec"])
        .arg(format!(
            "{} plan --git {url} --path farm",
            env!("CARGO_BIN_EXE_hatchery")
        ))
        .arg("/dev/null")
        .env("GIT_SSH_COMMAND", client)
        .env("DISPLAY", ":0")
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&terminal.stdout).into_owned();
    assert!(said.contains("Host key verification failed"), "{said}");
    assert!(!ssh.folder.join("nobody").exists());
}

/// `git http-backend` behind nginx, for the repository of `followed`.
struct Http {
    _nginx: Server,
    _backend: Server,
}

impl Http {
    const ADDRESS: &str = "127.0.0.1:8080";

    fn new(followed: &mut Followed) -> Http {
        let nginx = program("nginx", "nginx-light");
        let fcgiwrap = program("fcgiwrap", "fcgiwrap");
        let root = followed.folder.path().to_owned();
        let folder = root.join("http");
        fs::create_dir(&folder).unwrap();
        let backend = PathBuf::from(followed.git(&["--exec-path"])).join("git-http-backend");
        assert!(backend.is_file(), "this test needs `{}`", backend.display());
        let text = format!(
            "user root;\ndaemon off;\nerror_log stderr;\npid {folder}/pid;\nevents {{}}\nhttp \
             {{\naccess_log off;\nclient_body_temp_path {folder}/body;\nfastcgi_temp_path \
             {folder}/fastcgi;\nproxy_temp_path {folder}/proxy;\nuwsgi_temp_path \
             {folder}/uwsgi;\nscgi_temp_path {folder}/scgi;\nserver {{\nlisten {};\nlocation / \
             {{\nfastcgi_pass unix:{folder}/socket;\nfastcgi_param SCRIPT_FILENAME \
             {};\nfastcgi_param GIT_PROJECT_ROOT {};\nfastcgi_param GIT_HTTP_EXPORT_ALL \
             1;\nfastcgi_param PATH_INFO $uri;\nfastcgi_param QUERY_STRING \
             $query_string;\nfastcgi_param REQUEST_METHOD $request_method;\nfastcgi_param \
             CONTENT_TYPE $content_type;\nfastcgi_param CONTENT_LENGTH $content_length;\n}}\n}}\n}}\n",
            Self::ADDRESS,
            backend.display(),
            root.display(),
            folder = folder.display(),
        );
        let config = folder.join("nginx.conf");
        fs::write(&config, text).unwrap();
        let socket = folder.join("socket");
        let backend = Server::start(
            Command::new(fcgiwrap)
                .arg("-s")
                .arg(format!("unix:{}", socket.display())),
        );
        wait_for("fcgiwrap", Duration::from_secs(20), || {
            socket.exists().then_some(())
        });
        let nginx = Server::start(Command::new(nginx).arg("-c").arg(config));
        answers(Self::ADDRESS);
        followed.address = Some(format!("http://{}/specs.git", Self::ADDRESS));
        Http {
            _nginx: nginx,
            _backend: backend,
        }
    }
}

#[test]
fn a_push_comes_over_http() {
    isolate!();
    let mut followed = Followed::new();
    let http = Http::new(&mut followed);
    followed.up(&[]);
    let second = followed.converges("http", "two");
    drop(http);
    until("the server's absence", || {
        followed.source()["sync"] == "stalled"
    });
    assert_eq!(followed.job().1, "two");
    fs::remove_dir_all(followed.folder.path().join("http")).unwrap();
    let _http = Http::new(&mut followed);
    until("the server", || followed.in_force(&second));
    followed.git(&["revert", "--no-edit", &second]);
    let reverted = followed.push("reverted");
    until("the revert", || followed.in_force(&reverted));
    assert_eq!(followed.job().1, "one");
}
