#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::plan::explain::Explanation;
use crate::plan::saved::SavedPlan;
use crate::plan::view::PlanView;
use crate::reconcile::handle::{Handle, Happening, Level, Proposal, Request, StackStatus};
use crate::reconcile::sync::Fault;
use crate::spec::generation::Cause;
use crate::spec::node::NodeId;

const SOON: Duration = Duration::from_secs(10);

/// A loop that answers as it is told, behind a real socket.
struct Bench {
    folder: tempfile::TempDir,
    happenings: broadcast::Sender<Happening>,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

fn status() -> StackStatus {
    StackStatus {
        stack: "prime".to_owned(),
        controller_pid: 7,
        version: "1".to_owned(),
        spec: "/s.yaml".into(),
        generation: 3,
        converged: true,
        spec_error: None,
        registry: None,
        nodes: Vec::new(),
        outstanding: Vec::new(),
        ..StackStatus::default()
    }
}

fn plan(stack: &str) -> PlanView {
    PlanView {
        format_version: 1,
        stack: stack.to_owned(),
        waves: vec![vec![NodeId::registry()]],
        items: Vec::new(),
        add: 1,
        change: 0,
        destroy: 0,
    }
}

fn proposal(spec: &SpecText) -> Proposal {
    Proposal {
        view: plan(&spec.text),
        saved: SavedPlan {
            hatchery_plan: 1,
            made_by: "1".to_owned(),
            stack: spec.text.clone(),
            spec: spec.path.clone(),
            overlays: Vec::new(),
            vars: Vec::new(),
            spec_hash: String::new(),
            by_controller: true,
            inputs: Default::default(),
            items: Vec::new(),
            world: [(NodeId::registry(), Default::default())].into(),
        },
    }
}

async fn answer(mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        match request {
            Request::Status(answer) => answer.send(status()).unwrap(),
            Request::Plan(spec, answer) => answer.send(Ok(proposal(&spec))).unwrap(),
            Request::Apply {
                spec,
                allow_empty,
                saved,
                cause,
                answer,
            } => answer
                .send(match cause {
                    Cause::Rollback { .. } => {
                        Err(Fault::Refused(serde_json::to_string(&cause).unwrap()))
                    }
                    _ if allow_empty || saved.is_some() => Ok(spec.text.len() as u64),
                    _ => Err(Fault::Refused(
                        "error: it would remove everything".to_owned(),
                    )),
                })
                .unwrap(),
            Request::Explain { spec, name, answer } => answer
                .send(match spec {
                    Some(_) => Ok(Explanation {
                        format_version: 1,
                        stack: name,
                        nodes: Vec::new(),
                    }),
                    None => Err(format!("nothing is called `{name}`")),
                })
                .unwrap(),
            Request::Reload { answer, .. } => answer.send(Ok(4)).unwrap(),
            Request::Suspend(_) => {}
            Request::Down { answer, .. } => {
                answer.send(Err("`/srv` is busy".to_owned())).unwrap();
            }
            Request::Operate { names, answer, .. } => answer
                .send(Ok(names.iter().map(|name| name.parse().unwrap()).collect()))
                .unwrap(),
            Request::Tell { .. } => {}
            Request::Leave(answer) => {
                answer.send(()).unwrap();
                return;
            }
        }
    }
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let (requests_in, requests) = mpsc::channel(4);
        let (happenings, _) = broadcast::channel(4);
        tokio::spawn(answer(requests));
        let handle = Handle::new(requests_in, happenings.clone());
        let shutdown = CancellationToken::new();
        let listener = bind(&socket(folder.path())).unwrap();
        let serving = tokio::spawn(serve(listener, handle, shutdown.clone()));
        Bench {
            folder,
            happenings,
            shutdown,
            serving,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(&socket(self.folder.path()), "prime")
            .await
            .unwrap()
    }

    /// What the server answers to these bytes, whole.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(socket(self.folder.path()))
            .await
            .unwrap();
        let (mut reading, mut writing) = stream.split();
        let mut answer = Vec::new();
        // A server that has read enough closes; what it said before is still there to be read.
        let both = async {
            let _ = writing.write_all(request.as_bytes()).await;
            let _ = reading.read_to_end(&mut answer).await;
        };
        tokio::time::timeout(SOON, both).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

fn spec(text: &str) -> SpecText {
    SpecText::of("/s.yaml", text)
}

#[tokio::test]
async fn each_request_reaches_the_loop_and_its_answer_comes_back() {
    let bench = Bench::new();
    let client = bench.client().await;
    assert_eq!(client.status().await, Ok(status()));
    assert_eq!(client.plan(&spec("p")).await, Ok(plan("p")));
    let proposed = proposal(&spec("p"));
    assert_eq!(client.proposal(&spec("p")).await, Ok(proposed.clone()));
    let told = client.explain(Some(spec("p")), "prime1").await.unwrap();
    assert_eq!(told.stack, "prime1");
    let refused = client.explain(None, "prime9").await.unwrap_err();
    assert_eq!(refused.to_string(), "nothing is called `prime9`");
    let of_plan = client.apply(spec("three"), false, Some(proposed.saved));
    assert_eq!(of_plan.await, Ok(5));
    assert_eq!(client.apply(spec("four"), true, None).await, Ok(4));
    let nodes = client
        .operate(Verb::Stop, vec!["containers/a".to_owned()])
        .await;
    assert_eq!(nodes, Ok(vec!["containers/a".parse().unwrap()]));
    let version = client.version().await.unwrap();
    assert_eq!(version.pid, std::process::id());
    assert_eq!(version.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(client.reload().await, Ok(4));
    assert_eq!(client.leave().await, Ok(()));
}

#[tokio::test]
async fn the_loop_is_told_who_asks_for_what() {
    let bench = Bench::new();
    let client = bench.client().await;
    let cause = Cause::Rollback {
        to: 7,
        by: Some(user(nix::unistd::geteuid().as_raw())),
    };
    let Err(ClientError::Refused { error, .. }) = client.roll_back(spec("x"), true, 7).await else {
        panic!("the loop refuses rollbacks here");
    };
    assert_eq!(serde_json::from_str::<Cause>(&error).unwrap(), cause);
}

#[tokio::test]
async fn a_refusal_comes_back_in_its_words() {
    let bench = Bench::new();
    let client = bench.client().await;
    let refused = |error: &str| ClientError::Refused {
        error: error.to_owned(),
        hint: None,
    };
    let applied = client.apply(spec("x"), false, None).await;
    assert_eq!(applied, Err(refused("error: it would remove everything")));
    assert_eq!(
        client.down(false, false).await,
        Err(refused("`/srv` is busy"))
    );
    client.leave().await.unwrap();
    // The loop has ended, the server has not.
    match client.status().await {
        Err(ClientError::Refused { error, hint }) => {
            assert_eq!(error, "the controller ended before it answered");
            assert!(hint.unwrap().contains("hatchery up"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_socket_is_private_and_replaces_a_stale_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(folder.path());
    // One that was killed while it made its own.
    let unfinished = folder.path().join(".controlAbCdEf");
    std::fs::create_dir(&unfinished).unwrap();
    drop(bind(&unfinished.join("s")).unwrap());
    drop(bind(&path).unwrap());
    let stale = Client::connect(&path, "prime").await.unwrap_err();
    assert_eq!(stale.to_string(), "no controller runs for stack `prime`");
    let _listener = bind(&path).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert!(Client::connect(&path, "prime").await.is_ok());
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "only the socket is left in the folder");
}

#[tokio::test]
async fn without_a_socket_nobody_runs() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::connect(&socket(folder.path()), "prime").await;
    assert_eq!(
        error.unwrap_err(),
        ClientError::NotRunning {
            stack: "prime".to_owned()
        }
    );
}

fn told(text: &str) -> Happening {
    Happening {
        node: Some("containers/a".parse().unwrap()),
        level: Level::Notice,
        ..Happening::warning(1, text.to_owned())
    }
}

#[tokio::test]
async fn the_story_misses_nothing_and_ends_with_the_server() {
    let bench = Bench::new();
    let client = bench.client().await;
    let mut story = client.events().await.unwrap();
    for text in ["one", "two\nlines"] {
        bench.happenings.send(told(text)).unwrap();
    }
    assert_eq!(story.next().await, Some(told("one")));
    assert_eq!(story.next().await, Some(told("two\nlines")));
    bench.shutdown.cancel();
    assert_eq!(tokio::time::timeout(SOON, story.next()).await, Ok(None));
    tokio::time::timeout(SOON, bench.serving)
        .await
        .expect("the server ends")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_slow_listener_is_told_of_what_it_missed() {
    let bench = Bench::new();
    // The server reads the channel only once it is polled again, so these overrun it.
    let client = bench.client().await;
    let mut story = client.events().await.unwrap();
    for number in 0..50 {
        bench.happenings.send(told(&number.to_string())).unwrap();
    }
    let first = story.next().await.unwrap();
    assert_eq!(first.level, Level::Warning);
    assert_eq!(
        first.text,
        "46 lines were lost: they came faster than they were read"
    );
    assert_eq!(story.next().await.unwrap().text, "46");
}

#[tokio::test]
async fn what_is_no_request_is_answered_as_json() {
    let bench = Bench::new();
    let close = "Host: h\r\nConnection: close\r\n";
    let cases = [
        (
            format!("GET /v2 HTTP/1.1\r\n{close}\r\n"),
            "404",
            "no such route",
        ),
        (
            format!("GET /v1/down HTTP/1.1\r\n{close}\r\n"),
            "405",
            "this method",
        ),
        (
            format!("POST /v1/plan HTTP/1.1\r\n{close}Content-Length: 0\r\n\r\n"),
            "415",
            "application/json",
        ),
        (
            format!(
                "POST /v1/operate HTTP/1.1\r\n{close}Content-Type: application/json\r\n\
                 Content-Length: 2\r\n\r\n{{}}"
            ),
            "422",
            "missing field `verb`",
        ),
        (
            format!(
                "POST /v1/plan HTTP/1.1\r\n{close}Content-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{}",
                BODY_LIMIT + 1,
                " ".repeat(BODY_LIMIT + 1)
            ),
            "413",
            "8 MiB",
        ),
    ];
    for (request, code, words) in cases {
        let answer = bench.raw(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
        assert!(
            answer.contains("{\"error\":") && answer.contains(words),
            "{answer}"
        );
    }
}
