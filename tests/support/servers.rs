//! Servers and keys that repositories live behind, each of one test.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::followed::{Followed, until};
use super::wait_for;

/// Where a program lies; servers are not on everybody's path.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut places = folders.map(|folder| Path::new(folder).join(name));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| panic!("this test needs `{name}`: `apt-get install {package}`"))
}

pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that ends with its test.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command) -> Server {
        Server(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn answers(address: &str) {
    wait_for(address, Duration::from_secs(20), || {
        TcpStream::connect(address).ok()
    });
}

/// An SSH server for the repository of `followed`, and what its client needs.
pub struct Ssh {
    _server: Server,
    pub folder: PathBuf,
}

impl Ssh {
    pub const ADDRESS: &str = "127.0.0.1:2222";

    pub fn new(followed: &mut Followed) -> Ssh {
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
    pub fn client(&self, known_hosts: &str) -> String {
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

/// `git http-backend` behind nginx, for the repository of `followed`.
pub struct Http {
    _nginx: Server,
    _backend: Server,
}

impl Http {
    pub const ADDRESS: &str = "127.0.0.1:8080";

    pub fn new(followed: &mut Followed) -> Http {
        let nginx = program("nginx", "nginx-light");
        let fcgiwrap = program("fcgiwrap", "fcgiwrap");
        let root = followed.folder.path().to_owned();
        let folder = root.join("http");
        fs::create_dir(&folder).unwrap();
        let backend = PathBuf::from(followed.git(&["--exec-path"])).join("git-http-backend");
        assert!(backend.is_file(), "this test needs `{}`", backend.display());
        let text = format!(
            "user root;\ndaemon off;\nmaster_process off;\nerror_log stderr;\npid {folder}/pid;\nevents {{}}\nhttp \
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

pub const SECRET: &str = "5f0c1a9d7be24b86a3d5c7e9f1b2d4c6";

/// What a host says of a push, and who listens.
pub struct Host<'a> {
    followed: &'a Followed,
}

impl Host<'_> {
    pub const ADDRESS: &'static str = "127.0.0.1:9000";
    pub const BODY: &'static str = r#"{"ref":"refs/heads/main"}"#;

    pub fn new(followed: &Followed) -> Host<'_> {
        program("curl", "curl");
        program("openssl", "openssl");
        let secret = followed.folder.path().join("secret");
        fs::write(&secret, format!("{SECRET}\n")).unwrap();
        followed.up_by_file_every(
            "1h",
            &format!(
                "  webhook: {{ listen: \"{}\", secret_file: {} }}\n",
                Self::ADDRESS,
                secret.display()
            ),
        );
        Host { followed }
    }

    /// Sends a body with this header; gives the answer's number.
    pub fn send(&self, header: &str, body: &[u8]) -> String {
        let file = self.followed.folder.path().join("body");
        fs::write(&file, body).unwrap();
        run(Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST"])
            .args(["-H", header, "-H", "content-type: application/json"])
            .arg("--data-binary")
            .arg(format!("@{}", file.display()))
            .arg(format!("http://{}/", Self::ADDRESS)))
    }

    /// Is turned away by its headers, though a body was announced that never comes.
    pub fn hears_before_a_body(&self, header: &str) {
        let mut stream = TcpStream::connect(Self::ADDRESS).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nhost: x\r\n{header}\r\ncontent-length: 100000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"HTTP/1.1 401", "{header}");
    }

    pub fn signature(&self) -> String {
        let file = self.followed.folder.path().join("signed");
        fs::write(&file, Self::BODY).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-hmac", SECRET]).arg(file);
        let said = run(&mut openssl);
        said.trim().rsplit(' ').next().unwrap().to_owned()
    }

    /// A push that the host tells of with this header is soon in force.
    pub fn tells(&self, way: &str, header: &str) {
        let followed = self.followed;
        followed.write(way);
        let commit = followed.push(way);
        let begin = Instant::now();
        assert_eq!(self.send(header, Self::BODY.as_bytes()), "202", "{way}");
        until("the push", || followed.in_force(&commit));
        eprintln!("in force {:?} after {way}'s webhook", begin.elapsed());
        assert_eq!(followed.job().1, way);
    }
}

/// Keys of gpg, in a folder of their own.
pub struct Keys<'a> {
    followed: &'a Followed,
    pub folder: PathBuf,
}

impl Keys<'_> {
    /// When every key is made, and every commit is signed: time stands still then.
    pub const THEN: &'static str = "20240601T000000!";

    pub fn new(followed: &Followed) -> Keys<'_> {
        program("gpg", "gpg");
        program("gpg-agent", "gpg-agent");
        program("gpgv", "gpgv");
        let folder = followed.folder.path().join("gnupg");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let script = folder.join("sign");
        let text = format!(
            "#!/bin/sh\nGNUPGHOME={} exec gpg --faked-system-time {} \"$@\"\n",
            folder.display(),
            Self::THEN
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Keys { followed, folder }
    }

    pub fn gpg(&self, arguments: &[&str]) -> String {
        let mut gpg = Command::new("gpg");
        gpg.env("GNUPGHOME", &self.folder)
            .args(["--batch", "--quiet"]);
        run(gpg.args(arguments))
    }

    /// A key of this person that expires after so long; gives its fingerprint.
    pub fn make(&self, person: &str, expires: &str) -> String {
        let mut generate = vec!["--faked-system-time", Self::THEN, "--passphrase", ""];
        generate.extend(["--pinentry-mode", "loopback", "--quick-generate-key"]);
        generate.extend([person, "ed25519", "sign", expires]);
        self.gpg(&generate);
        let list = self.gpg(&["--with-colons", "--list-keys", person]);
        let line = list.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    pub fn revoke(&self, key: &str) {
        let made = self.folder.join(format!("openpgp-revocs.d/{key}.rev"));
        let text = fs::read_to_string(&made).unwrap();
        // Its armour is disabled by a colon, so that nobody takes it by mistake.
        fs::write(&made, text.replace(":-----BEGIN", "-----BEGIN")).unwrap();
        self.gpg(&["--import", &made.display().to_string()]);
    }

    /// Pushes a commit that this key signed.
    pub fn push(&self, word: &str, key: &str) -> String {
        let followed = self.followed;
        followed.write(word);
        followed.git(&["add", "--all"]);
        let program = format!("gpg.program={}", self.folder.join("sign").display());
        let key = format!("user.signingKey={key}");
        let mut commit = vec!["-c", "gpg.format=openpgp", "-c", &program, "-c", &key];
        commit.extend(["commit", "--quiet", "-S", "-m", word]);
        followed.git(&commit);
        followed.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]);
        followed.git(&["rev-parse", "HEAD"])
    }
}
