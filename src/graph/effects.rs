//! What a change of each field of the spec does to what runs.

use Effect::{InPlace, Nothing, Reload, Replace, Restart};

/// What a change of a field does to what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Nothing is touched; what comes next goes by it.
    Nothing,
    /// It is brought about at once, and every workload runs on.
    InPlace,
    /// A file is rendered anew or read by somebody else, and whoever reads it is told.
    Reload,
    /// The controller learns it when it begins anew (`up`); every workload runs on.
    Restart,
    /// The life ends, and one that has the new value takes its place.
    Replace,
}

impl Effect {
    /// The effect in a word or two, for a table.
    pub fn word(self) -> &'static str {
        match self {
            Nothing => "nothing",
            InPlace => "in place",
            Reload => "reload",
            Restart => "restart",
            Replace => "replace",
        }
    }
}

/// One field and what its change does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldEffect {
    /// The way to it from the top; `*` stands for a name that the spec chose, or for an item of a
    /// list.
    pub path: String,
    /// What changing it does.
    pub effect: Effect,
    /// One sentence for the reader.
    pub says: &'static str,
}

/// Fields that have the same effect.
struct Row {
    /// What they are fields of.
    of: &'static [&'static str],
    fields: &'static [&'static str],
    effect: Effect,
    says: &'static str,
}

const fn row(
    of: &'static [&'static str],
    fields: &'static [&'static str],
    effect: Effect,
    says: &'static str,
) -> Row {
    Row {
        of,
        fields,
        effect,
        says,
    }
}

const TOP: &[&str] = &[""];
const NETWORK: &[&str] = &["networks.*"];
const WORKLOAD: &[&str] = &["containers.*", "processes.*"];
const CONTAINER: &[&str] = &["containers.*"];
const PROCESS: &[&str] = &["processes.*"];
const SERVICE: &[&str] = &["services.*"];
const TEMPLATE: &[&str] = &["templates.*"];
const READY_CHECK: &[&str] = &["containers.*.ready.check", "processes.*.ready.check"];
const CHECK: &[&str] = &["checks.*", "services.*.checks.*"];
const CHECK_FIELDS: &[&str] = &[
    "http",
    "http.url",
    "http.method",
    "http.headers",
    "http.status",
    "http.body",
    "tcp",
    "exec",
    "ttl",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "start_interval",
];

/// Every field of the language, in the order of the README.
const ROWS: &[Row] = &[
    row(
        TOP,
        &["name"],
        Nothing,
        "another name is another stack; the one that runs refuses it",
    ),
    row(
        TOP,
        &["vars"],
        Replace,
        "a variable changes whatever reads it, as a change of that would",
    ),
    row(
        TOP,
        &[
            "requires",
            "requires.*.command",
            "requires.*.python",
            "requires.*.path",
            "requires.*.debian",
        ],
        Nothing,
        "requirements are looked for when the next spec is taken up",
    ),
    row(
        TOP,
        &["registry", "registry.embedded", "registry.embedded.http"],
        InPlace,
        "the registry listens elsewhere and keeps what it knows",
    ),
    row(
        TOP,
        &["registry.embedded.token_file"],
        InPlace,
        "another token counts from then on, as when the file's content changes",
    ),
    row(
        TOP,
        &["registry.embedded.datacenter"],
        Restart,
        "the registry takes it on when the controller begins anew",
    ),
    row(
        TOP,
        &[
            "networks",
            "containers",
            "processes",
            "services",
            "checks",
            "templates",
        ],
        InPlace,
        "what is added comes and what is removed goes; the others stay",
    ),
    row(
        NETWORK,
        &["subnet"],
        Replace,
        "the bridge gets its new address, and every container in it one of its own",
    ),
    row(
        NETWORK,
        &["forward"],
        InPlace,
        "forwarding is turned on at once, and never off",
    ),
    row(
        &[
            "networks.*",
            "containers.*",
            "processes.*",
            "services.*",
            "templates.*",
        ],
        &["depends_on", "depends_on.*.condition"],
        Nothing,
        "later starts and stops go by the new order",
    ),
    row(
        WORKLOAD,
        &["command", "environment", "user", "working_dir"],
        Replace,
        "a program keeps what it was started with",
    ),
    row(
        WORKLOAD,
        &["watch"],
        Replace,
        "the files are part of what runs, as is their content",
    ),
    row(
        WORKLOAD,
        &["replicas"],
        InPlace,
        "copies come or go at the end of the group; the others stay",
    ),
    row(
        WORKLOAD,
        &[
            "restart",
            "restart.policy",
            "restart.delay",
            "restart.max_delay",
            "restart.max_attempts",
            "restart.window",
            "restart.reset_after",
        ],
        Nothing,
        "the next exit is dealt with by it",
    ),
    row(
        WORKLOAD,
        &["stop_signal", "stop_grace_period"],
        InPlace,
        "noted on what runs; the next stop goes by it",
    ),
    row(
        WORKLOAD,
        &["ready", "ready.notify", "ready.sd_notify"],
        Replace,
        "from or to `notify` it needs another life, which has the socket or has it not; else \
         nothing is touched",
    ),
    row(
        WORKLOAD,
        &[
            "ready.tcp",
            "ready.check",
            "ready.timeout",
            "ready.notify.timeout",
        ],
        Nothing,
        "what is ready stays so; what starts is asked by it",
    ),
    row(
        READY_CHECK,
        CHECK_FIELDS,
        Nothing,
        "what is ready stays so; what starts is asked by it",
    ),
    row(
        WORKLOAD,
        &[
            "update",
            "update.max_unavailable",
            "update.min_healthy_time",
            "update.healthy_deadline",
            "update.failure_action",
        ],
        Nothing,
        "the next replacement goes by it",
    ),
    row(
        WORKLOAD,
        &["update.order"],
        Nothing,
        "the next replacement goes by it; with `stop-first`, what sits in a second seat then \
         moves to the first one",
    ),
    row(
        WORKLOAD,
        &["drain", "drain.quiet", "drain.timeout"],
        InPlace,
        "noted on what runs; the next stop waits by it",
    ),
    row(
        WORKLOAD,
        &["log", "log.max_size", "log.max_files"],
        Nothing,
        "the next life's log is bounded by it",
    ),
    row(
        CONTAINER,
        &[
            "root",
            "root.path",
            "root.read_only",
            "root.ephemeral",
            "mounts",
            "mounts.*.source",
            "mounts.*.target",
            "mounts.*.read_only",
            "tmpfs",
        ],
        Replace,
        "a container keeps the files that it was made with",
    ),
    row(
        CONTAINER,
        &["network", "address"],
        Replace,
        "a container keeps the network and the address that it was made with",
    ),
    row(
        CONTAINER,
        &[
            "firewall",
            "firewall.allow_tcp",
            "firewall.allow_udp",
            "firewall.allow_ping",
            "firewall.allow_from",
        ],
        InPlace,
        "the rules are exchanged at once; connections that they allow live on",
    ),
    row(
        PROCESS,
        &["pre_start"],
        Nothing,
        "the next start runs it first",
    ),
    row(
        SERVICE,
        &["target", "address", "port", "tags", "meta", "checks"],
        InPlace,
        "its instances are registered anew; templates that read them follow",
    ),
    row(
        CHECK,
        CHECK_FIELDS,
        InPlace,
        "instances are asked by it from now on",
    ),
    row(
        TEMPLATE,
        &["source", "when_empty"],
        Reload,
        "the file is rendered anew; where that makes a difference its readers are told",
    ),
    row(
        TEMPLATE,
        &["destination"],
        Reload,
        "the file is written at its new place, the old one removed, and the readers are told",
    ),
    row(
        TEMPLATE,
        &["mode", "owner", "validate", "wait", "wait.min", "wait.max"],
        Nothing,
        "the next text is written by it",
    ),
    row(
        TEMPLATE,
        &["reload", "reload.process", "reload.command"],
        Reload,
        "whoever is named anew is told of the file that is there",
    ),
    row(
        TEMPLATE,
        &["reload.signal", "reload.confirm"],
        Nothing,
        "the next reload is done by it",
    ),
];

/// What changing each field of the spec does, every field once.
pub fn effects() -> Vec<FieldEffect> {
    let mut effects = Vec::new();
    for row in ROWS {
        for of in row.of {
            effects.extend(row.fields.iter().map(|field| FieldEffect {
                path: match *of {
                    "" => (*field).to_owned(),
                    of => format!("{of}.{field}"),
                },
                effect: row.effect,
                says: row.says,
            }));
        }
    }
    effects
}
