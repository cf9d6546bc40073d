//! What is meant at each place of a spec, in the order of the schema.

/// What is meant, and in which ways it may be written.
pub(super) enum Shape {
    /// Anything: a boolean, a number, what is only handed on.
    Free,
    /// A text; a number stands for its digits.
    Text,
    Duration,
    Size,
    Mode,
    Signal,
    /// A word in capitals.
    Upper,
    /// A text around which space means nothing.
    Trimmed,
    /// A network, or one address.
    Net,
    Condition,
    /// Words, or a line.
    Command,
    Mount,
    /// A mapping to texts, or `NAME=VALUE` items.
    Pairs,
    DependsOn,
    Ready,
    /// A mapping with these fields.
    Fields(&'static [(&'static str, Shape)]),
    /// The same, or the value of this one of them.
    FieldsOr(&'static str, &'static [(&'static str, Shape)]),
    /// A check, or the name of one.
    CheckOrName,
    /// A list, or one item of it.
    List(&'static Shape),
    /// A mapping from names.
    Named(&'static Shape),
}

use Shape::{
    CheckOrName, Command, DependsOn, Duration, Fields, FieldsOr, Free, List, Mode, Mount, Named,
    Net, Pairs, Ready, Signal, Size, Text, Trimmed, Upper,
};

pub(super) const TOP: &[(&str, Shape)] = &[
    ("name", Text),
    ("vars", Named(&Free)),
    ("requires", List(&Fields(REQUIREMENT))),
    ("registry", Fields(REGISTRY)),
    ("networks", Named(&Fields(NETWORK))),
    ("containers", Named(&Fields(CONTAINER))),
    ("processes", Named(&Fields(PROCESS))),
    ("services", Named(&Fields(SERVICE))),
    ("checks", Named(&Fields(CHECK))),
    ("templates", Named(&Fields(TEMPLATE))),
];

const REQUIREMENT: &[(&str, Shape)] = &[
    ("command", Text),
    ("python", Text),
    ("path", Text),
    ("debian", Text),
];

const REGISTRY: &[(&str, Shape)] = &[(
    "embedded",
    Fields(&[
        ("http", Trimmed),
        ("token_file", Text),
        ("datacenter", Text),
    ]),
)];

const NETWORK: &[(&str, Shape)] = &[
    ("subnet", Net),
    ("forward", Free),
    ("depends_on", DependsOn),
];

const CONTAINER: &[(&str, Shape)] = &[
    ("command", Command),
    ("environment", Pairs),
    ("user", Text),
    ("working_dir", Text),
    ("watch", List(&Text)),
    ("replicas", Free),
    ("restart", FieldsOr("policy", RESTART)),
    ("stop_signal", Signal),
    ("stop_grace_period", Duration),
    ("depends_on", DependsOn),
    ("ready", Ready),
    ("update", Fields(UPDATE)),
    ("drain", Fields(DRAIN)),
    ("log", Fields(LOG)),
    ("root", Fields(ROOT)),
    ("network", Text),
    ("address", Text),
    ("mounts", List(&Mount)),
    ("tmpfs", List(&Text)),
    ("firewall", Fields(FIREWALL)),
];

const PROCESS: &[(&str, Shape)] = &[
    ("command", Command),
    ("environment", Pairs),
    ("user", Text),
    ("working_dir", Text),
    ("watch", List(&Text)),
    ("replicas", Free),
    ("restart", FieldsOr("policy", RESTART)),
    ("stop_signal", Signal),
    ("stop_grace_period", Duration),
    ("depends_on", DependsOn),
    ("ready", Ready),
    ("update", Fields(UPDATE)),
    ("drain", Fields(DRAIN)),
    ("log", Fields(LOG)),
    ("pre_start", List(&Command)),
];

const RESTART: &[(&str, Shape)] = &[
    ("policy", Text),
    ("delay", Duration),
    ("max_delay", Duration),
    ("max_attempts", Free),
    ("window", Duration),
    ("reset_after", Duration),
];

/// What says so itself has a form of its own.
pub(super) const READY: &[(&str, Shape)] =
    &[("tcp", Text), ("check", CheckOrName), ("timeout", Duration)];

const UPDATE: &[(&str, Shape)] = &[
    ("max_unavailable", Free),
    ("order", Text),
    ("min_healthy_time", Duration),
    ("healthy_deadline", Duration),
    ("failure_action", Text),
];

const DRAIN: &[(&str, Shape)] = &[("quiet", Duration), ("timeout", Duration)];

const LOG: &[(&str, Shape)] = &[("max_size", Size), ("max_files", Free)];

const ROOT: &[(&str, Shape)] = &[("path", Text), ("read_only", Free), ("ephemeral", Free)];

pub(super) const MOUNT: &[(&str, Shape)] =
    &[("source", Text), ("target", Text), ("read_only", Free)];

const FIREWALL: &[(&str, Shape)] = &[
    ("allow_tcp", List(&Free)),
    ("allow_udp", List(&Free)),
    ("allow_ping", Free),
    ("allow_from", List(&Net)),
];

const SERVICE: &[(&str, Shape)] = &[
    ("target", Text),
    ("address", Text),
    ("port", Free),
    ("tags", List(&Text)),
    ("meta", Pairs),
    ("checks", List(&CheckOrName)),
    ("depends_on", DependsOn),
];

pub(super) const CHECK: &[(&str, Shape)] = &[
    ("http", FieldsOr("url", HTTP)),
    ("tcp", Text),
    ("exec", Command),
    ("ttl", Duration),
    ("interval", Duration),
    ("timeout", Duration),
    ("retries", Free),
    ("start_period", Duration),
    ("start_interval", Duration),
];

const HTTP: &[(&str, Shape)] = &[
    ("url", Text),
    ("method", Upper),
    ("headers", Pairs),
    ("status", List(&Free)),
    ("body", Text),
];

const TEMPLATE: &[(&str, Shape)] = &[
    ("source", Text),
    ("destination", Text),
    ("mode", Mode),
    ("owner", Text),
    ("validate", Command),
    ("reload", Fields(RELOAD)),
    ("wait", Fields(&[("min", Duration), ("max", Duration)])),
    ("when_empty", Text),
    ("depends_on", DependsOn),
];

const RELOAD: &[(&str, Shape)] = &[
    ("process", Text),
    ("command", Command),
    ("signal", Signal),
    ("confirm", Text),
];
