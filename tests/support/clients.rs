//! A client that keeps a connection to a workload, step by step.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use hatchery::driver::Workloads;
use hatchery::plan::world::LifeId;

use super::bench::{Bench, LIMIT};

/// Listens at 8080. It reads what a client says until its end, and then keeps its own side open
/// until somebody comes to 8081.
pub const SERVER: &str = "
import socket
def listen(port):
    return socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
talk, finish = listen(8080), listen(8081)
print('listening', flush=True)
while True:
    client, _ = talk.accept()
    while client.recv(100): pass
    finish.accept()[0].close()
    client.close()
";

const CLIENT: &str = "
import socket, sys
there = sys.argv[1]
talk = socket.create_connection((there, 8080))
print('connected', flush=True)
input()
talk.shutdown(socket.SHUT_WR)
print('half closed', flush=True)
input()
socket.create_connection((there, 8081)).close()
talk.recv(100)
print('closed', flush=True)
input()
";

struct Client {
    child: Child,
    words: BufReader<std::process::ChildStdout>,
}

impl Client {
    /// `enter` is the command line that leads into the right namespace, if any.
    fn new(enter: &[&str], there: &str) -> Client {
        let line: Vec<&str> = [enter, &["python3", "-c", CLIENT, there]].concat();
        let mut child = Command::new(line[0])
            .args(&line[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = BufReader::new(child.stdout.take().unwrap());
        Client { child, words }
    }

    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        self.words.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted);
    }

    fn go_on(&mut self) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
    }
}

/// Follows one connection to a [`SERVER`] from its beginning to its end.
pub fn follow(bench: &Bench, life: &LifeId, enter: &[&str], there: &str) {
    let count = |ports: &[u16]| {
        let ports: BTreeSet<u16> = ports.iter().copied().collect();
        bench.workloads.connections(life, &ports).unwrap()
    };
    assert_eq!(count(&[8080, 8081]), 0);
    let mut client = Client::new(enter, there);
    client.says("connected");
    assert_eq!(count(&[8080]), 1);
    assert_eq!(count(&[8081, 8080, 80]), 1);
    assert_eq!(count(&[80, 8081]), 0);
    assert_eq!(count(&[]), 0);
    client.go_on();
    client.says("half closed");
    // Who stopped speaking may still listen.
    assert_eq!(count(&[8080]), 1);
    client.go_on();
    client.says("closed");
    super::wait_for("no connection", LIMIT, || {
        (count(&[8080, 8081]) == 0).then_some(())
    });
    client.go_on();
    assert!(client.child.wait().unwrap().success());
}
