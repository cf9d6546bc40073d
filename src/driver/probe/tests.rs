#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::spec::node::NodeId;

fn check(probe: ProbeNode) -> CheckNode {
    CheckNode {
        id: "c".to_owned(),
        name: "c".to_owned(),
        probe,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(5),
    }
}

fn get(url: String) -> ProbeNode {
    ProbeNode::Http {
        url,
        method: "GET".to_owned(),
        headers: BTreeMap::new(),
        status: Vec::new(),
        body: None,
    }
}

fn probes() -> HostProbes {
    HostProbes::new(Arc::new(|pid, command: &[String]| {
        let mut made = Command::new("/bin/echo");
        made.arg(pid.to_string()).args(command);
        Ok(made)
    }))
}

async fn ask(probe: ProbeNode) -> Answer {
    probes().probe(&check(probe), None).await
}

fn sh(script: &str) -> ProbeNode {
    ProbeNode::Exec {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        target: None,
    }
}

/// Answers every connection with `answer`, then keeps it open when `linger`; gives its address
/// and what it was sent.
async fn server(
    answer: &'static [u8],
    linger: bool,
) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            request.truncate(length);
            let _ = sender.send(String::from_utf8(request).unwrap()).await;
            let _ = stream.write_all(answer).await;
            if linger {
                std::future::pending::<()>().await;
            }
        }
    });
    (address, receiver)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

#[tokio::test]
async fn http_passes_on_200_and_says_so() {
    let (address, mut requests) = server(OK, false).await;
    let url = format!("http://{address}/healthz");
    let mut probe = get(url.clone());
    if let ProbeNode::Http {
        headers, method, ..
    } = &mut probe
    {
        headers.insert("X-Asked-By".to_owned(), "a test".to_owned());
        "HEAD".clone_into(method);
    }
    assert_eq!(ask(probe).await.status, Status::Passing);
    let request = requests.recv().await.unwrap().to_lowercase();
    assert!(
        request.starts_with("head /healthz http/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("x-asked-by: a test\r\n"), "{request}");

    let answer = ask(get(url.clone())).await;
    assert_eq!(answer.output, format!("HTTP GET {url}: 200 OK Output: ok"));
    assert_eq!(answer.status, Status::Passing);
}

#[tokio::test]
async fn every_http_probe_opens_a_connection_of_its_own() {
    let (address, mut requests) = server(OK, false).await;
    let probes = probes();
    for _ in 0..3 {
        let asked = check(get(format!("http://{address}/")));
        assert_eq!(probes.probe(&asked, None).await.status, Status::Passing);
        requests.recv().await.unwrap();
    }
}

#[tokio::test]
async fn http_judges_status_and_body() {
    let busy = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
    let moved = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n";
    type Case = (&'static [u8], &'static [u16], Option<&'static str>, Status);
    let cases: [Case; 7] = [
        (busy, &[], None, Status::Warning),
        (busy, &[429], None, Status::Passing),
        (busy, &[200], None, Status::Critical),
        (moved, &[], None, Status::Critical),
        (moved, &[302], None, Status::Passing),
        (OK, &[], Some("ok"), Status::Passing),
        (OK, &[], Some("fine"), Status::Critical),
    ];
    for (reply, codes, text, expected) in cases {
        let (address, _requests) = server(reply, false).await;
        let mut probe = get(format!("http://{address}/"));
        if let ProbeNode::Http { status, body, .. } = &mut probe {
            *status = codes.to_vec();
            *body = text.map(str::to_owned);
        }
        let answer = ask(probe).await;
        assert_eq!(answer.status, expected, "{}", answer.output);
    }
}

#[tokio::test]
async fn refusals_are_told_in_plain_words() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let answer = ask(get(format!("http://me:secret@{address}/x"))).await;
    let expected = format!("HTTP GET http://{address}/x: connection refused");
    assert_eq!((answer.status, answer.output), (Status::Critical, expected));
    let answer = ask(ProbeNode::Tcp(address.clone())).await;
    let expected = format!("TCP connect {address}: connection refused");
    assert_eq!((answer.status, answer.output), (Status::Critical, expected));

    let answer = ask(get("ftp://127.0.0.1/".to_owned())).await;
    assert!(
        answer.output.ends_with("use http or https"),
        "{}",
        answer.output
    );
    let answer = ask(get("http://".to_owned())).await;
    assert!(answer.output.contains("not a URL"), "{}", answer.output);
    let (address, _requests) =
        server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", false).await;
    let answer = ask(get(format!("http://{address}/"))).await;
    assert_eq!(answer.status, Status::Critical);
    assert!(
        answer.output.contains("cannot read the answer's body"),
        "{}",
        answer.output
    );
}

#[tokio::test]
async fn tcp_passes_when_it_connects() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answer = ask(ProbeNode::Tcp(listener.local_addr().unwrap().to_string())).await;
    assert_eq!(answer.status, Status::Passing);
}

#[tokio::test]
async fn the_time_out_covers_the_body() {
    let (address, _requests) =
        server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", true).await;
    let mut slow = check(get(format!("http://{address}/")));
    slow.timeout = Duration::from_millis(80);
    let answer = probes().probe(&slow, None).await;
    assert_eq!(answer.status, Status::Critical);
    assert!(
        answer.output.ends_with(": timed out after 80ms"),
        "{}",
        answer.output
    );
}

#[tokio::test]
async fn long_answers_are_cut() {
    let long: &'static [u8] = Box::leak(
        [
            b"HTTP/1.1 200 OK\r\n\r\n".as_slice(),
            "ä".repeat(200_000).as_bytes(),
        ]
        .concat()
        .into_boxed_slice(),
    );
    let (address, _requests) = server(long, false).await;
    let answer = ask(get(format!("http://{address}/"))).await;
    assert_eq!(answer.status, Status::Passing);
    assert!((OUTPUT_LIMIT - 4..=OUTPUT_LIMIT).contains(&answer.output.len()));
}

#[tokio::test]
async fn exit_codes_are_statuses() {
    let cases = [
        (
            "echo fine",
            Status::Passing,
            "exec /bin/sh: exit 0 Output: fine",
        ),
        (
            "echo so; echo so >&2; exit 1",
            Status::Warning,
            "exec /bin/sh: exit 1 Output: so\nso",
        ),
        ("exit 2", Status::Critical, "exec /bin/sh: exit 2 Output: "),
        (
            "kill -9 $$",
            Status::Critical,
            "exec /bin/sh: killed by signal 9 Output: ",
        ),
    ];
    for (script, status, output) in cases {
        let answer = ask(sh(script)).await;
        assert_eq!((answer.status, answer.output.as_str()), (status, output));
    }
    let command = vec!["/nowhere/check".to_owned()];
    let answer = ask(ProbeNode::Exec {
        command,
        target: None,
    })
    .await;
    let expected = "exec /nowhere/check: cannot run `/nowhere/check`: not found";
    assert_eq!(
        (answer.status, answer.output.as_str()),
        (Status::Critical, expected)
    );
}

#[tokio::test]
async fn the_end_of_a_long_output_is_kept() {
    let answer = ask(sh(
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
    ))
    .await;
    assert!(answer.output.starts_with("exec /bin/sh: exit 0"));
    assert!(answer.output.ends_with("line 2999"));
    assert!(answer.output.len() <= OUTPUT_LIMIT && answer.output.len() > 3000);
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_hold_its_answer() {
    let begin = Instant::now();
    let answer = ask(sh("sleep 3 & echo done")).await;
    assert_eq!(answer.output, "exec /bin/sh: exit 0 Output: done");
    assert!(begin.elapsed() < Duration::from_secs(2));
}

/// Waits, at most ten seconds, until the process is gone or a zombie that waits for its reaping.
async fn gone(pid: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    let stat = Path::new("/proc").join(pid).join("stat");
    while Instant::now() < deadline {
        match std::fs::read_to_string(&stat) {
            Ok(text) if !text.contains(") Z ") => {
                tokio::time::sleep(Duration::from_millis(5)).await
            }
            _ => return true,
        }
    }
    false
}

#[tokio::test]
async fn the_time_out_kills_the_command_and_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pids");
    let script = format!(
        "sleep 60 & echo $$ $! > {0}.new; mv {0}.new {0}; wait",
        note.display()
    );
    let mut slow = check(sh(&script));
    slow.timeout = Duration::from_secs(1);
    let answer = probes().probe(&slow, None).await;
    assert_eq!(answer.output, "exec /bin/sh: timed out after 1s");
    let pids = std::fs::read_to_string(&note).unwrap();
    for pid in pids.split_whitespace() {
        assert!(gone(pid).await, "process {pid} lives on");
    }

    // So does dropping the probe half-way.
    std::fs::remove_file(&note).unwrap();
    let running = tokio::spawn(probes().probe(&check(sh(&script)), None));
    while !note.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!running.is_finished(), "it ended early");
    }
    running.abort();
    let pids = std::fs::read_to_string(&note).unwrap();
    for pid in pids.split_whitespace() {
        assert!(gone(pid).await, "process {pid} lives on");
    }
}

#[tokio::test]
async fn a_container_is_entered_by_its_main_process() {
    let exec = |pid| {
        let probe = check(ProbeNode::Exec {
            command: vec!["check".to_owned()],
            target: Some(NodeId::new(Kind::Containers, "prime1")),
        });
        probes().probe(&probe, pid)
    };
    assert_eq!(
        exec(Some(12)).await.output,
        "exec check: exit 0 Output: 12 check"
    );
    let answer = exec(None).await;
    assert_eq!(answer.status, Status::Critical);
    assert_eq!(answer.output, "exec check: its container does not run");
}

#[tokio::test]
async fn tls_is_set_up_only_when_asked_for() {
    let (address, _requests) = server(OK, false).await;
    let probes = probes();
    probes
        .probe(&check(get(format!("http://{address}/"))), None)
        .await;
    assert!(probes.http.built() == (true, false));
    let answer = probes
        .probe(&check(get(format!("https://{address}/"))), None)
        .await;
    assert_eq!(answer.status, Status::Critical);
    assert!(probes.http.built() == (true, true));
}
