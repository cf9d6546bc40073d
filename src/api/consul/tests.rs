#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use axum::http::request::Builder;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::registry::{Catalog, CheckKind, CheckSpec, Config, Origin, Registration};
use crate::spec::model::Status;
use crate::spec::time::Time;

const LOOPBACK: &str = "127.0.0.1:4000";
const GUEST: &str = "10.50.0.2:4000";
const OTHER: &str = "10.50.0.3:4000";

struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        Time(0)
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

fn registry() -> Arc<Registry> {
    let config = Config {
        node: "n1".into(),
        address: "10.50.0.1".into(),
        datacenter: "dc1".into(),
    };
    let mut catalog = Catalog::new(config, 1000);
    for n in 2..4 {
        let probe = CheckSpec {
            id: format!("web{n}:answers"),
            name: "answers".into(),
            kind: CheckKind::Probed,
            initial: Status::Passing,
            notes: String::new(),
            deregister_after: None,
        };
        let beat = CheckSpec {
            id: format!("web{n}:alive"),
            kind: CheckKind::Ttl(Duration::from_secs(30)),
            ..probe.clone()
        };
        let own = Registration {
            id: format!("web{n}"),
            service: "web".into(),
            address: format!("10.50.0.{n}"),
            port: 80,
            tags: vec!["a".into(), format!("n{n}")],
            meta: Default::default(),
            checks: vec![probe, beat],
            origin: Origin::Stack,
            hash: "h".into(),
        };
        catalog.register(own, Time(0)).unwrap();
    }
    let token = Token::default();
    token.set(Some("secret"));
    Arc::new(Registry {
        shared: SharedCatalog::new(catalog),
        settings: Settings {
            token,
            clock: Arc::new(Still),
            shutdown: CancellationToken::new(),
            version: "0.0.1".into(),
        },
    })
}

async fn send(registry: &Registry, peer: &str, builder: Builder, body: &str) -> (u16, String) {
    let request = builder.body(Body::from(body.to_owned())).unwrap();
    let response = answer(registry, peer.parse().unwrap(), request).await;
    let response = response.unwrap_or_else(Fault::into_response);
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn put(registry: &Registry, peer: &str, path: &str, body: &str) -> (u16, String) {
    send(registry, peer, Request::put(path), body).await
}

async fn get(registry: &Registry, path: &str) -> Value {
    let (status, body) = send(registry, LOOPBACK, Request::get(path), "").await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

const REGISTER: &str = "/v1/agent/service/register";

#[tokio::test]
async fn guests_change_what_is_at_their_own_address_only() {
    let registry = registry();
    let own = r#"{"Name":"db","ID":"db1","Port":1,"Check":{"TTL":"9s"}}"#;
    assert_eq!(put(&registry, GUEST, REGISTER, own).await.0, 200);
    let service = get(&registry, "/v1/agent/services").await;
    assert_eq!(service["db1"]["Address"], "10.50.0.2");

    let foreign = r#"{"Name":"db","Address":"10.50.0.9"}"#;
    let (status, text) = put(&registry, GUEST, REGISTER, foreign).await;
    assert_eq!(status, 403);
    assert!(
        text.starts_with("Permission denied: `10.50.0.2` may only change"),
        "{text}"
    );
    // Taking over another guest's id by registering it at one's own address.
    assert_eq!(put(&registry, OTHER, REGISTER, own).await.0, 403);

    let beat = "/v1/agent/check/pass/service:db1";
    assert_eq!(put(&registry, OTHER, beat, "").await.0, 403);
    assert_eq!(put(&registry, GUEST, beat, "").await.0, 200);
    let leave = "/v1/agent/service/deregister/db1";
    assert_eq!(put(&registry, OTHER, leave, "").await.0, 403);
    assert_eq!(
        put(&registry, "[::ffff:10.50.0.2]:4000", leave, "").await.0,
        200
    );
    let (status, _) = send(&registry, GUEST, Request::get("/v1/catalog/services"), "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn the_token_lifts_the_limits_wherever_it_stands() {
    let registry = registry();
    let foreign = r#"{"Name":"db","Address":"10.50.0.9"}"#;
    let wrong = Request::put(REGISTER).header("x-consul-token", "secre");
    assert_eq!(send(&registry, GUEST, wrong, foreign).await.0, 403);
    for request in [
        Request::put(REGISTER).header("X-Consul-Token", "secret"),
        Request::put(REGISTER).header("authorization", "Bearer secret"),
        Request::put("/v1/agent/service/register?token=secret"),
    ] {
        assert_eq!(send(&registry, GUEST, request, foreign).await.0, 200);
    }
    let with = || Request::put(REGISTER).header("X-Consul-Token", "secret");
    registry.settings.token.set(Some("another"));
    assert_eq!(send(&registry, GUEST, with(), foreign).await.0, 403);
    registry.settings.token.set(Some(""));
    let empty = Request::put(REGISTER).header("X-Consul-Token", "");
    assert_eq!(send(&registry, GUEST, empty, foreign).await.0, 403);
}

#[tokio::test]
async fn nobody_disturbs_the_stacks_services() {
    let registry = registry();
    for peer in [LOOPBACK, GUEST] {
        let request = Request::put("/v1/agent/service/deregister/web2");
        let request = request.header("x-consul-token", "secret");
        let (status, text) = send(&registry, peer, request, "").await;
        assert_eq!(
            (status, text.contains("belongs to the stack")),
            (403, true),
            "{text}"
        );
        let again = r#"{"Name":"web","ID":"web2","Port":8080,"Address":"10.50.0.2"}"#;
        let (status, text) = put(&registry, peer, REGISTER, again).await;
        assert_eq!(
            (status, text.contains("belongs to the stack")),
            (403, true),
            "{text}"
        );
        // Its TTL checks are there to be told; what is probed is not.
        let (status, _) = put(
            &registry,
            peer,
            "/v1/agent/check/warn/web2:alive?note=x",
            "",
        )
        .await;
        assert_eq!(status, 200);
        let (status, text) = put(&registry, peer, "/v1/agent/check/pass/web2:answers", "").await;
        assert_eq!(status, 500);
        assert_eq!(
            text,
            "CheckID \"web2:answers\" does not have associated TTL"
        );
    }
    assert_eq!(
        put(&registry, GUEST, "/v1/agent/check/pass/web3:alive", "")
            .await
            .0,
        403
    );
    let checks = get(&registry, "/v1/agent/checks").await;
    assert_eq!(checks["web2:alive"]["Status"], "warning");
    assert_eq!(checks["web2:alive"]["Output"], "x");
}

/// The guest's own address in its several spellings.
fn spelt(n: usize) -> &'static str {
    ["", "10.50.0.2", "::ffff:10.50.0.2", "::ffff:a32:2"][n % 4]
}

#[tokio::test]
async fn a_guest_neither_joins_the_stacks_services_nor_registers_what_none_can_connect_to() {
    let registry = registry();
    let join = r#"{"Name":"web","ID":"mine","Port":1}"#;
    let (status, text) = put(&registry, GUEST, REGISTER, join).await;
    assert_eq!(status, 403);
    assert!(text.contains("the service `web` is the stack's"), "{text}");
    let own = r#"{"Name":"db","ID":"mine","Port":1}"#;
    assert_eq!(put(&registry, GUEST, REGISTER, own).await.0, 200);
    // Not by way of what it has already, either.
    assert_eq!(put(&registry, GUEST, REGISTER, join).await.0, 403);
    for (path, answer) in [
        (REGISTER, 403),
        ("/v1/agent/service/register?token=secret", 200),
    ] {
        let bare = r#"{"Name":"queue","ID":"bare","Address":"10.50.0.2"}"#;
        let (status, text) = put(&registry, GUEST, path, bare).await;
        assert_eq!(status, answer, "{text}");
        assert_eq!(text.contains("with a port"), answer == 403, "{text}");
        let join = r#"{"Name":"web","ID":"guest","Port":1,"Address":"10.50.0.2"}"#;
        assert_eq!(put(&registry, GUEST, path, join).await.0, answer);
    }
}

#[tokio::test]
async fn a_guest_cannot_fill_the_catalog() {
    let registry = registry();
    for n in 0..64 {
        let body = format!(r#"{{"Name":"s{n}","Port":1,"Address":"{}"}}"#, spelt(n));
        assert_eq!(put(&registry, GUEST, REGISTER, &body).await.0, 200);
    }
    assert_eq!(
        put(&registry, GUEST, REGISTER, r#"{"Name":"more","Port":1}"#)
            .await
            .0,
        429
    );
    assert_eq!(
        put(&registry, GUEST, REGISTER, r#"{"Name":"s1","Port":1}"#)
            .await
            .0,
        200
    );
    assert_eq!(
        put(&registry, OTHER, REGISTER, r#"{"Name":"more","Port":1}"#)
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn web_pages_stay_out() {
    let registry = registry();
    let page = Request::put(REGISTER).header("origin", "http://localhost:8500");
    assert_eq!(
        send(&registry, LOOPBACK, page, r#"{"Name":"x"}"#).await.0,
        403
    );
    let path = "/v1/catalog/services";
    for (host, status) in [
        ("evil.example:8500", 403),
        ("127.0.0.1:8500", 200),
        ("n1", 200),
    ] {
        let request = Request::get(path).header("host", host);
        assert_eq!(
            send(&registry, LOOPBACK, request, "").await.0,
            status,
            "{host}"
        );
    }
    let request = Request::get(path).header("host", "registry.example");
    assert_eq!(send(&registry, GUEST, request, "").await.0, 200);
}

#[tokio::test]
async fn bodies_are_decoded_as_consul_does() {
    let registry = registry();
    for (body, status, text) in [
        ("", 400, "Request decode failed: EOF"),
        ("{", 400, "Request decode failed: unexpected EOF"),
        ("[]", 400, "Request decode failed: json: expected an object"),
        (
            r#"{"Bogus":1}"#,
            400,
            "Request decode failed: json: unknown field \"Bogus\"",
        ),
        (r#"{"ID":"x"}"#, 400, "Missing service name"),
        (
            r#"{"Name":"x","Port":"80"}"#,
            400,
            "Request decode failed: json: cannot unmarshal string into field port of type int",
        ),
        (
            r#"{"Name":"x","Port":65536}"#,
            400,
            "Invalid port: it must be at most 65535",
        ),
        (
            r#"{"Name":"x","Check":{"Name":"q"}}"#,
            400,
            "Invalid check: TTL must be > 0 for TTL checks",
        ),
        (
            r#"{"Name":"x","Check":{"TTL":"3x"}}"#,
            400,
            "Request decode failed: time: invalid duration \"3x\"; write it like \"15s\"",
        ),
        (
            r#"{"Name":"x","Check":{"TTL":"3s","Status":"bogus"}}"#,
            400,
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        (
            r#"{"Name":"x","Weights":{"Passing":5}}"#,
            400,
            "Invalid Weights: only 1 and 1 are supported",
        ),
        (
            r#"{"Name":"bad; }"}"#,
            400,
            "cannot register `bad; }`: the id `bad; }` must be 1 to 128 of letters, digits, `.`, `_` and `-`",
        ),
    ] {
        assert_eq!(
            put(&registry, LOOPBACK, REGISTER, body).await,
            (status, text.to_owned())
        );
    }
}

#[tokio::test]
async fn checks_of_clients_are_ttls_and_registrations_are_read_in_every_spelling() {
    let registry = registry();
    for kind in [
        r#""HTTP":"http://127.0.0.1/""#,
        r#""args":["true"]"#,
        r#""TCP":"x:1""#,
        r#""GRPC":"x:1""#,
    ] {
        let body = format!(r#"{{"Name":"x","Check":{{{kind},"Interval":"10s"}}}}"#);
        let (status, text) = put(&registry, LOOPBACK, REGISTER, &body).await;
        assert_eq!(status, 400);
        assert!(text.contains("clients register TTL checks"), "{text}");
    }
    let full = json!({
        "name": "x", "id": null, "tags": null, "PORT": 9, "Meta": {"k": "v; }"},
        "TaggedAddresses": {}, "tagged_addresses": null, "Connect": null, "Proxy": {"A": null},
        "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false,
        "Checks": [{"ttl": "15.000000s"}, {"TTL": 2_000_000_000, "CheckID": "own:id",
            "deregister_critical_service_after": "1s", "HTTP": "", "Interval": "0s"}],
    });
    let answered = put(&registry, LOOPBACK, REGISTER, &full.to_string()).await;
    assert_eq!(answered, (200, String::new()));
    let checks = get(&registry, "/v1/agent/checks").await;
    assert_eq!(checks["service:x:1"]["Name"], "Service 'x' check");
    assert_eq!(checks["own:id"]["ServiceID"], "x");
    let after = registry.shared.read(|catalog| {
        let (_, check) = catalog.check("own:id").unwrap();
        check.spec.deregister_after
    });
    assert_eq!(after, Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn instances_are_chosen_by_tags_and_health() {
    let registry = registry();
    for (query, expected) in [
        ("", 2),
        ("?tag=a", 2),
        ("?tag=a&tag=N2", 1),
        ("?tag=n2&tag=n3", 0),
        ("?passing", 2),
        ("?node-meta=a:b", 0),
        ("?node-meta=consul-network-segment:", 2),
    ] {
        let list = get(&registry, &format!("/v1/health/service/web{query}")).await;
        assert_eq!(list.as_array().unwrap().len(), expected, "{query}");
    }
    put(&registry, LOOPBACK, "/v1/agent/check/warn/web2:alive", "").await;
    let passing = get(&registry, "/v1/health/service/web?passing=true").await;
    assert_eq!(passing.as_array().unwrap().len(), 1);
    assert_eq!(passing[0]["Service"]["ID"], "web3");
    let all = get(&registry, "/v1/health/service/web?passing=false").await;
    let catalog = get(&registry, "/v1/catalog/service/web").await;
    let ids = |list: &Value, path: &str| -> Vec<String> {
        let items = list.as_array().unwrap().iter();
        items
            .map(|item| item.pointer(path).unwrap().to_string())
            .collect()
    };
    assert_eq!(ids(&all, "/Service/ID"), ids(&catalog, "/ServiceID"));
    let warnings = get(&registry, "/v1/health/state/warning").await;
    assert_eq!(ids(&warnings, "/CheckID"), [r#""web2:alive""#]);
    let any = get(&registry, "/v1/health/state/any").await;
    assert_eq!(any[0]["CheckID"], "serfHealth");
    assert_eq!(any.as_array().unwrap().len(), 5);
    assert_eq!(get(&registry, "/v1/health/state/bogus").await, json!([]));
    assert_eq!(get(&registry, "/v1/health/node/other").await, json!([]));
    assert_eq!(get(&registry, "/v1/catalog/node/other").await, Value::Null);
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let registry = registry();
    let long = "a".repeat(512 * 1024 + 1);
    let (status, text) = put(&registry, LOOPBACK, REGISTER, &long).await;
    assert_eq!(status, 413, "{text}");
}

async fn waiting(registry: &Arc<Registry>, path: String) -> JoinHandle<(u16, String)> {
    let registry = Arc::clone(registry);
    let task = tokio::spawn(async move { send(&registry, LOOPBACK, Request::get(path), "").await });
    // Runs until nothing but time can move anything.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test(start_paused = true)]
async fn a_query_wakes_for_its_own_service_only() {
    let registry = registry();
    let index = registry.shared.read(|catalog| catalog.service_index("web"));
    let started = tokio::time::Instant::now();
    let web = waiting(
        &registry,
        format!("/v1/health/service/web?index={index}&wait=60s"),
    )
    .await;
    let missing = registry
        .shared
        .read(|catalog| catalog.service_index("later"));
    let later = waiting(
        &registry,
        format!("/v1/health/service/later?index={missing}"),
    )
    .await;
    put(&registry, LOOPBACK, REGISTER, r#"{"Name":"other"}"#).await;
    put(
        &registry,
        LOOPBACK,
        "/v1/agent/check/pass/web2:alive?note=beat",
        "",
    )
    .await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(!web.is_finished() && !later.is_finished());
    put(&registry, LOOPBACK, REGISTER, r#"{"Name":"later"}"#).await;
    assert!(later.await.unwrap().1.contains("\"ID\":\"later\""));
    assert!(!web.is_finished());
    put(&registry, LOOPBACK, "/v1/agent/check/fail/web2:alive", "").await;
    assert!(web.await.unwrap().1.contains("critical"));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_by_itself_and_with_the_registry() {
    let registry = registry();
    let started = tokio::time::Instant::now();
    // An index from the future waits for the whole time.
    let path = "/v1/catalog/services?index=99999999&wait=16s";
    assert_eq!(
        send(&registry, LOOPBACK, Request::get(path), "").await.0,
        200
    );
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(16) && waited <= Duration::from_secs(17),
        "{waited:?}"
    );

    let started = tokio::time::Instant::now();
    let task = waiting(&registry, path.to_owned()).await;
    registry.settings.shutdown.cancel();
    assert_eq!(task.await.unwrap().0, 200);
    assert!(started.elapsed() < Duration::from_secs(1));
}
