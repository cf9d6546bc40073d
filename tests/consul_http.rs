//! The registry's HTTP API over a real listener.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hatchery::api::consul::{Settings, Token, router};
use hatchery::api::serve::{Limits, Patience, serve};
use hatchery::driver::Clock;
use hatchery::reconcile::shared::SharedCatalog;
use hatchery::registry::{Catalog, CheckKind, CheckSpec, Config, Origin, Registration};
use hatchery::spec::model::Status;
use hatchery::spec::time::Time;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const FIRST: u64 = 1_000_000;

struct Running(Instant);

impl Clock for Running {
    fn now(&self) -> Time {
        Time(0) + self.0.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

struct Server {
    shared: SharedCatalog,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Server {
        let config = Config {
            node: "n1".into(),
            address: "10.50.0.1".into(),
            datacenter: "dc1".into(),
        };
        let shared = SharedCatalog::new(Catalog::new(config, FIRST));
        let clock: Arc<dyn Clock> = Arc::new(Running(Instant::now()));
        let shutdown = CancellationToken::new();
        // The loop lets TTLs run out; here a ticking task stands in for it.
        let (ticking, ticks) = (shared.clone(), Arc::clone(&clock));
        tokio::spawn(async move {
            loop {
                ticking.with(|catalog| catalog.expire(ticks.now()));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let settings = Settings {
            token: Token::default(),
            clock,
            shutdown: shutdown.clone(),
            version: "0.0.1".into(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router(shared.clone(), settings);
        let task = tokio::spawn(serve(
            listener,
            router,
            Limits {
                all: 64,
                guests: 32,
                one_guest: 16,
                patience: Patience::Silence(Duration::from_secs(660)),
            },
            shutdown.clone(),
        ));
        Server {
            shared,
            address,
            shutdown,
            task,
        }
    }

    /// The stack's web farm: two instances, both healthy.
    fn register_web(&self) {
        for n in 1..=2 {
            let check = CheckSpec {
                id: format!("web{n}:answers"),
                name: "answers".into(),
                kind: CheckKind::Probed,
                initial: Status::Passing,
                notes: String::new(),
                deregister_after: None,
            };
            let registration = Registration {
                id: format!("web{n}"),
                service: "web".into(),
                address: format!("10.50.0.{}", n + 1),
                port: 8080,
                tags: vec!["nginx".into()],
                meta: BTreeMap::new(),
                checks: vec![check],
                origin: Origin::Stack,
                hash: "h".into(),
            };
            self.shared
                .with(|catalog| catalog.register(registration, Time(0)).unwrap());
        }
    }

    fn flip(&self, status: Status) {
        let flipped = self
            .shared
            .with(|catalog| catalog.set_check("web1:answers", status, "", Time(0)));
        assert!(flipped.unwrap());
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        send(self.address, method, path, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        let answer = self.send("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn index(&self) -> u64 {
        self.headers["x-consul-index"].parse().unwrap()
    }
}

async fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    Answer {
        status,
        headers: headers
            .map(|(key, value)| (key.to_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

/// Sends a query, and returns once it is being held.
async fn blocked(server: &Server, path: String) -> JoinHandle<Answer> {
    let before = server.shared.waiting();
    let address = server.address;
    let task = tokio::spawn(async move { send(address, "GET", &path, "").await });
    let end = Instant::now() + PATIENCE;
    while server.shared.waiting() == before {
        assert!(Instant::now() < end, "the query is not held");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task
}

#[tokio::test]
async fn an_instance_looks_as_consul_shows_it() {
    let server = Server::start().await;
    server.register_web();
    let answer = server.get("/v1/health/service/web?passing").await;
    let expected = json!({
        "ID": "web1",
        "Service": "web",
        "Tags": ["nginx"],
        "Address": "10.50.0.2",
        "TaggedAddresses": {
            "lan_ipv4": {"Address": "10.50.0.2", "Port": 8080},
            "wan_ipv4": {"Address": "10.50.0.2", "Port": 8080}
        },
        "Meta": {},
        "Port": 8080,
        "Weights": {"Passing": 1, "Warning": 1},
        "EnableTagOverride": false,
        "Proxy": {"MeshGateway": {}, "Expose": {}},
        "Connect": {},
        "CreateIndex": FIRST + 1,
        "ModifyIndex": FIRST + 1,
    });
    let first = &answer.json()[0];
    assert_eq!(first["Service"], expected);
    assert_eq!(first["Node"]["Node"], "n1");
    assert_eq!(first["Node"]["ID"].as_str().unwrap().len(), 36);
    assert_eq!(first["Checks"][0]["CheckID"], "serfHealth");
    assert_eq!(first["Checks"][1]["Status"], "passing");
    assert_eq!(answer.index(), FIRST + 2);
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-consul-knownleader", "true"),
        ("x-consul-lastcontact", "0"),
        ("x-consul-effective-consistency", "leader"),
    ] {
        assert_eq!(answer.headers[name], value);
    }
    let names = server.get("/v1/catalog/services").await.json();
    assert_eq!(names, json!({"web": ["nginx"]}));
    let pretty = server.get("/v1/catalog/services?pretty").await.body;
    assert_eq!(pretty, "{\n    \"web\": [\n        \"nginx\"\n    ]\n}\n");
}

#[tokio::test]
async fn every_read_answers_on_an_empty_catalog() {
    let server = Server::start().await;
    for (path, expected) in [
        ("/v1/agent/services", json!({})),
        ("/v1/agent/checks", json!({})),
        ("/v1/catalog/services", json!({})),
        ("/v1/catalog/datacenters", json!(["dc1"])),
        ("/v1/catalog/service/none", json!([])),
        ("/v1/catalog/node/none", Value::Null),
        ("/v1/health/service/none", json!([])),
        ("/v1/health/state/critical", json!([])),
        ("/v1/health/node/none", json!([])),
        ("/v1/health/checks/none", json!([])),
        ("/v1/status/leader", json!("10.50.0.1:8300")),
        ("/v1/status/peers", json!(["10.50.0.1:8300"])),
    ] {
        assert_eq!(server.get(path).await.json(), expected, "{path}");
    }
    let myself = server.get("/v1/agent/self").await.json();
    assert_eq!(myself["Config"]["NodeName"], "n1");
    assert_eq!(myself["Config"]["Datacenter"], "dc1");
    let members = server.get("/v1/agent/members?segment=_all").await.json();
    assert_eq!(
        (&members[0]["Name"], &members[0]["Status"]),
        (&json!("n1"), &json!(1))
    );
    assert_eq!(
        server.get("/v1/catalog/nodes").await.json()[0]["Address"],
        "10.50.0.1"
    );
    let node = server.get("/v1/catalog/node/n1").await.json();
    assert_eq!(node["Services"], json!({}));
    assert!(server.get("/v1/health/service/none").await.index() > 0);
}

#[tokio::test]
async fn errors_are_plain_text_with_consuls_words() {
    let server = Server::start().await;
    for (method, path, status, text) in [
        (
            "POST",
            "/v1/catalog/services",
            405,
            "method POST not allowed",
        ),
        (
            "GET",
            "/v1/agent/service/register",
            405,
            "method GET not allowed",
        ),
        ("GET", "/v1/health/service/", 400, "Missing service name"),
        ("GET", "/v1/catalog/services?index=x", 400, "Invalid index"),
        (
            "GET",
            "/v1/catalog/services?index=1&wait=1",
            400,
            "Invalid wait time",
        ),
        (
            "GET",
            "/v1/catalog/services?dc=dc2",
            500,
            "No path to datacenter",
        ),
        (
            "PUT",
            "/v1/agent/check/pass/x",
            500,
            "CheckID \"x\" does not have associated TTL",
        ),
        (
            "GET",
            "/v1/health/service/web?passing=junk",
            400,
            "Invalid value for ?passing",
        ),
    ] {
        let answer = server.send(method, path, "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, text),
            "{path}"
        );
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    let both = server
        .send("GET", "/v1/catalog/services?stale&consistent", "")
        .await;
    assert_eq!(both.status, 400);
    assert_eq!(server.send("GET", "/v1/none", "").await.status, 404);
    let options = server.send("OPTIONS", "/v1/catalog/nodes", "").await;
    assert_eq!(
        (options.status, options.headers["allow"].as_str()),
        (200, "OPTIONS,GET")
    );
}

#[tokio::test]
async fn a_blocked_query_wakes_for_its_own_service() {
    let server = Server::start().await;
    server.register_web();
    let index = server.get("/v1/health/service/web").await.index();
    let missing = server.get("/v1/health/service/later").await.index();
    let web = blocked(&server, format!("/v1/health/service/web?index={index}")).await;
    let later = blocked(&server, format!("/v1/health/service/later?index={missing}")).await;

    let other = server
        .send("PUT", "/v1/agent/service/register", r#"{"Name":"other"}"#)
        .await;
    assert_eq!(other.status, 200);
    server.get("/v1/health/service/other").await;
    assert!(!web.is_finished() && !later.is_finished());

    server.flip(Status::Critical);
    let woken = web.await.unwrap();
    assert_eq!(woken.json().as_array().unwrap().len(), 2);
    assert_eq!(woken.json()[0]["Checks"][1]["Status"], "critical");
    assert!(woken.index() > index);
    assert!(!later.is_finished());

    let body = r#"{"Name":"later","Port":1}"#;
    server.send("PUT", "/v1/agent/service/register", body).await;
    assert_eq!(later.await.unwrap().json()[0]["Service"]["Port"], 1);
}

#[tokio::test]
async fn a_silent_ttl_wakes_who_waits_for_it() {
    let server = Server::start().await;
    let body = r#"{"Name":"db","Check":{"TTL":"200ms","Status":"passing"}}"#;
    let registered = server.send("PUT", "/v1/agent/service/register", body).await;
    assert_eq!(registered.status, 200);
    // Held until the TTL runs out, or answered at once if it did before the query came.
    let path = format!("/v1/health/checks/db?index={}", FIRST + 1);
    let answer = server.get(&path).await;
    assert_eq!(answer.json()[0]["Status"], "critical");
    assert_eq!(answer.json()[0]["Output"], "TTL expired");

    let beat = server
        .send("PUT", "/v1/agent/check/pass/service%3Adb?note=here", "")
        .await;
    assert_eq!(beat.status, 200);
}

#[tokio::test]
async fn a_leaving_registry_answers_who_waits() {
    let server = Server::start().await;
    let index = server.get("/v1/catalog/services").await.index();
    let held = blocked(&server, format!("/v1/catalog/services?index={index}")).await;
    server.shutdown.cancel();
    let answer = held.await.unwrap();
    assert_eq!((answer.status, answer.index()), (200, index));
    let ended = tokio::time::timeout(PATIENCE, server.task)
        .await
        .expect("an end in time");
    ended.unwrap().unwrap();
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        let request = format!(
            "GET /v1/status/leader HTTP/1.1\r\nHost: {}\r\n\r\n",
            server.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        while !text.ends_with("\"10.50.0.1:8300\"") {
            let mut buffer = [0; 1024];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
            let read = read.expect("an answer in time").unwrap();
            assert_ne!(read, 0, "closed after {text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
    }
}
