//! A spec that has everything, and a change of each of its fields.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

/// One field's change: what stands at `at` before and after it. `null` is nothing.
pub struct Edit {
    pub field: String,
    pub at: &'static str,
    pub before: Value,
    pub after: Value,
}

fn edit(field: &'static str, before: Value, after: Value) -> Edit {
    within(field, field, before, after)
}

/// A change of a field that stands in a mapping which must be as a whole what it is.
fn within(field: &'static str, at: &'static str, before: Value, after: Value) -> Edit {
    Edit {
        field: field.to_owned(),
        at,
        before,
        after,
    }
}

/// What is known of a field without a change: the path's beginning, and the edits below it.
pub fn edits() -> Vec<(&'static str, Vec<Edit>)> {
    vec![
        ("", top()),
        ("", requires()),
        ("networks.prime0.", network()),
        ("containers.prime.", container()),
        ("processes.nginx.", process()),
        ("services.prime.", service()),
        ("services.prime.checks.0.", check("")),
        ("checks.answers.", check("")),
        ("templates.upstream.", template()),
    ]
}

fn top() -> Vec<Edit> {
    let job = json!({ "command": "x" });
    vec![
        within("vars", "vars.v", json!("1"), json!("2")),
        edit(
            "registry",
            Value::Null,
            json!({ "embedded": { "http": "127.0.0.1:1" } }),
        ),
        edit(
            "registry.embedded",
            json!({ "http": "127.0.0.1:1" }),
            Value::Null,
        ),
        edit(
            "registry.embedded.http",
            json!("127.0.0.1:1"),
            json!("127.0.0.1:2"),
        ),
        edit("registry.embedded.token_file", Value::Null, json!("/token")),
        edit("registry.embedded.datacenter", Value::Null, json!("dc2")),
        within(
            "networks",
            "networks.new",
            Value::Null,
            json!({ "subnet": "10.70.0.0/24" }),
        ),
        within("containers", "containers.new", Value::Null, job.clone()),
        within("processes", "processes.new", Value::Null, job),
        within(
            "services",
            "services.new",
            Value::Null,
            json!({ "address": "192.0.2.1", "port": 80 }),
        ),
        within(
            "checks",
            "checks.new",
            Value::Null,
            json!({ "tcp": "192.0.2.1:1" }),
        ),
        within(
            "templates",
            "templates.new",
            Value::Null,
            json!({ "source": "./upstream.j2", "destination": "/etc/new" }),
        ),
    ]
}

fn requires() -> Vec<Edit> {
    let needed = |what| json!([what]);
    let nginx = json!({ "command": "nginx", "debian": "nginx-light" });
    vec![
        edit("requires", Value::Null, needed(nginx.clone())),
        within(
            "requires.0.command",
            "requires",
            needed(nginx.clone()),
            needed(json!({ "command": "curl", "debian": "nginx-light" })),
        ),
        within(
            "requires.0.python",
            "requires",
            needed(json!({ "python": "flask" })),
            needed(json!({ "python": "yaml" })),
        ),
        within(
            "requires.0.path",
            "requires",
            needed(json!({ "path": "/a" })),
            needed(json!({ "path": "/b" })),
        ),
        within(
            "requires.0.debian",
            "requires",
            needed(nginx),
            needed(json!({ "command": "nginx", "debian": "nginx" })),
        ),
    ]
}

fn depends_on() -> Vec<Edit> {
    let condition = |word| json!({ "registry": { "condition": word } });
    vec![
        edit("depends_on", Value::Null, json!(["registry"])),
        within(
            "depends_on.*.condition",
            "depends_on",
            condition("started"),
            condition("healthy"),
        ),
    ]
}

fn network() -> Vec<Edit> {
    let mut edits = depends_on();
    edits.push(edit("subnet", json!("10.50.0.0/24"), json!("10.51.0.0/24")));
    edits.push(edit("forward", json!(false), json!(true)));
    edits
}

fn workload() -> Vec<Edit> {
    let notify = |time| json!({ "notify": { "timeout": time } });
    let tcp = |port, time| json!({ "tcp": format!("192.0.2.1:{port}"), "timeout": time });
    let mut edits = depends_on();
    edits.extend([
        edit("command", json!("x {{ vars.v }}"), json!("y {{ vars.v }}")),
        edit("environment", json!({ "A": "1" }), json!({ "A": "2" })),
        edit("user", Value::Null, json!("nobody")),
        edit("working_dir", Value::Null, json!("/srv")),
        edit("watch", Value::Null, json!(["./watched"])),
        edit("replicas", json!(2), json!(3)),
        edit("restart", json!("no"), json!("always")),
        edit("restart.policy", json!("no"), json!("always")),
        edit("restart.delay", json!("1s"), json!("2s")),
        edit("restart.max_delay", json!("5m"), json!("6m")),
        edit("restart.max_attempts", Value::Null, json!(5)),
        edit("restart.window", json!("1m"), json!("2m")),
        edit("restart.reset_after", json!("1s"), json!("2s")),
        edit("stop_signal", Value::Null, json!("SIGINT")),
        edit("stop_grace_period", Value::Null, json!("1m")),
        edit("ready", json!("started"), json!("notify")),
        within("ready.notify", "ready", tcp(1, "5s"), notify("5s")),
        within("ready.sd_notify", "ready", json!("sd_notify"), tcp(1, "5s")),
        within("ready.notify.timeout", "ready", notify("5s"), notify("6s")),
        within("ready.tcp", "ready", tcp(1, "5s"), tcp(2, "5s")),
        within("ready.timeout", "ready", tcp(1, "5s"), tcp(1, "6s")),
        within(
            "ready.check",
            "ready",
            tcp(1, "5s"),
            json!({ "check": "answers" }),
        ),
        edit("drain", Value::Null, json!({ "timeout": "1m" })),
        edit("drain.quiet", Value::Null, json!("1s")),
        edit("drain.timeout", Value::Null, json!("1m")),
        edit("log", Value::Null, json!({ "max_files": 7 })),
        edit("log.max_size", Value::Null, json!("64KiB")),
        edit("log.max_files", Value::Null, json!(7)),
        edit("update", Value::Null, json!({ "max_unavailable": 2 })),
        edit("update.max_unavailable", Value::Null, json!(2)),
        edit("update.order", Value::Null, json!("start-first")),
        edit("update.min_healthy_time", Value::Null, json!("1s")),
        edit("update.healthy_deadline", Value::Null, json!("1m")),
        edit("update.failure_action", Value::Null, json!("continue")),
    ]);
    edits.extend(check("ready.check."));
    edits
}

fn container() -> Vec<Edit> {
    let mount = |source, target, read_only| json!([{ "source": source, "target": target, "read_only": read_only }]);
    let mounts = || mount("./a", "/a", false);
    let root = |path, how: &str| json!({ "path": path, how: true });
    let mut edits = workload();
    edits.extend([
        edit("root", Value::Null, root("/x", "read_only")),
        within(
            "root.path",
            "root",
            root("/x", "read_only"),
            root("/y", "read_only"),
        ),
        within(
            "root.read_only",
            "root",
            root("/x", "read_only"),
            json!({ "path": "/x" }),
        ),
        within(
            "root.ephemeral",
            "root",
            root("/x", "ephemeral"),
            json!({ "path": "/x" }),
        ),
        edit("mounts", Value::Null, mounts()),
        within(
            "mounts.0.source",
            "mounts",
            mounts(),
            mount("./b", "/a", false),
        ),
        within(
            "mounts.0.target",
            "mounts",
            mounts(),
            mount("./a", "/b", false),
        ),
        within(
            "mounts.0.read_only",
            "mounts",
            mounts(),
            mount("./a", "/a", true),
        ),
        edit("tmpfs", Value::Null, json!("/scratch")),
        edit("network", json!("prime0"), json!("other0")),
        edit("address", Value::Null, json!("10.50.0.{{ 100 + replica }}")),
        edit("firewall", Value::Null, json!({ "allow_tcp": 80 })),
        edit("firewall.allow_tcp", json!(80), json!(81)),
        edit("firewall.allow_udp", json!(80), json!(81)),
        edit("firewall.allow_ping", json!(true), json!(false)),
        edit("firewall.allow_from", json!("10.0.0.0/8"), Value::Null),
    ]);
    edits
}

fn process() -> Vec<Edit> {
    let mut edits = workload();
    edits.push(edit("pre_start", Value::Null, json!([["true"]])));
    edits
}

fn service() -> Vec<Edit> {
    let mut edits = depends_on();
    edits.extend([
        edit(
            "target",
            json!("containers/prime"),
            json!("processes/nginx"),
        ),
        edit("address", Value::Null, json!("192.0.2.9")),
        edit("port", json!(8080), json!(8081)),
        edit("tags", Value::Null, json!("a")),
        edit("meta", Value::Null, json!({ "a": "1" })),
        edit("checks", json!([]), json!(["answers"])),
    ]);
    edits
}

/// Fields of a check; below `ready.check` the check is a part of the field `ready`.
fn check(prefix: &str) -> Vec<Edit> {
    let http = |field: &str, value: Value| json!({ "http": { "url": "http://a/", field: value } });
    let plain = || json!({ "tcp": "192.0.2.1:1" });
    let changes = [
        ("http", plain(), json!({ "http": "http://a/" })),
        (
            "http.url",
            http("method", json!("GET")),
            json!({ "http": { "url": "http://b/" } }),
        ),
        (
            "http.method",
            http("method", json!("GET")),
            http("method", json!("HEAD")),
        ),
        (
            "http.headers",
            http("headers", json!({ "A": "1" })),
            http("headers", json!({ "A": "2" })),
        ),
        (
            "http.status",
            http("status", json!([200])),
            http("status", json!([204])),
        ),
        (
            "http.body",
            http("body", json!("a")),
            http("body", json!("b")),
        ),
        ("tcp", plain(), json!({ "tcp": "192.0.2.1:2" })),
        ("exec", plain(), json!({ "exec": "true" })),
        ("ttl", json!({ "ttl": "1m" }), json!({ "ttl": "2m" })),
    ];
    let ready = !prefix.is_empty();
    let whole = |check: Value| match ready {
        true => json!({ "check": check }),
        false => check,
    };
    changes
        .into_iter()
        .chain(timing())
        .map(|(field, before, after)| Edit {
            field: format!("{prefix}{field}"),
            at: if ready { "ready" } else { "" },
            before: whole(before),
            after: whole(after),
        })
        .collect()
}

/// When a check is asked, and how it is judged.
fn timing() -> Vec<(&'static str, Value, Value)> {
    let timed = |field: &str, value: Value| json!({ "tcp": "192.0.2.1:1", field: value });
    vec![
        (
            "interval",
            timed("interval", json!("1s")),
            timed("interval", json!("2s")),
        ),
        (
            "timeout",
            timed("timeout", json!("1s")),
            timed("timeout", json!("2s")),
        ),
        (
            "retries",
            timed("retries", json!(1)),
            timed("retries", json!(2)),
        ),
        (
            "start_period",
            timed("start_period", json!("1s")),
            timed("start_period", json!("2s")),
        ),
        (
            "start_interval",
            timed("start_interval", json!("1s")),
            timed("start_interval", json!("2s")),
        ),
    ]
}

fn template() -> Vec<Edit> {
    let nginx = || json!({ "process": "nginx" });
    let mut edits = depends_on();
    edits.extend([
        edit("source", json!("./upstream.j2"), json!("./other.j2")),
        edit("destination", json!("/etc/a"), json!("/etc/b")),
        edit("mode", Value::Null, json!("0600")),
        edit("owner", Value::Null, json!("nobody")),
        edit("validate", Value::Null, json!("nginx -t")),
        edit("reload", Value::Null, json!({ "process": "job" })),
        within(
            "reload.process",
            "reload",
            nginx(),
            json!({ "process": "job" }),
        ),
        within(
            "reload.command",
            "reload",
            nginx(),
            json!({ "command": "x" }),
        ),
        within(
            "reload.signal",
            "reload",
            nginx(),
            json!({ "process": "nginx", "signal": "SIGUSR1" }),
        ),
        within(
            "reload.confirm",
            "reload",
            nginx(),
            json!({ "process": "nginx", "confirm": "new_child" }),
        ),
        edit("wait", Value::Null, json!({ "min": "1s" })),
        edit("wait.min", Value::Null, json!("1ms")),
        edit("wait.max", Value::Null, json!("1s")),
        within(
            "when_empty",
            "",
            upstream_of("./empty.j2", "keep"),
            upstream_of("./empty.j2", "render"),
        ),
    ]);
    edits
}

fn upstream_of(source: &str, when_empty: &str) -> Value {
    json!({
        "source": source,
        "destination": "/etc/upstream.conf",
        "reload": { "process": "nginx" },
        "when_empty": when_empty,
    })
}

pub fn base() -> Value {
    json!({
        "name": "t",
        "vars": { "v": "1" },
        "registry": { "embedded": { "http": "127.0.0.1:1" } },
        "networks": {
            "prime0": { "subnet": "10.50.0.0/24" },
            "other0": { "subnet": "10.60.0.0/24" },
        },
        "containers": {
            "prime": { "command": "x {{ vars.v }}", "replicas": 2, "network": "prime0" },
        },
        "processes": {
            "nginx": { "command": "x {{ vars.v }}", "replicas": 2 },
            "job": { "command": "job" },
        },
        "services": {
            "prime": {
                "target": "containers/prime",
                "port": 8080,
                "checks": [{ "tcp": "192.0.2.1:1" }, "answers"],
            },
        },
        "checks": { "answers": { "tcp": "192.0.2.1:1" } },
        "templates": { "upstream": upstream_of("./upstream.j2", "keep") },
    })
}
