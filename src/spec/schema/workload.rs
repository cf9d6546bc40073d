//! Containers and processes.

use schemars::JsonSchema;

use super::scalar::{
    Bool, Duration, Filled, Host, Int, Many, Nullable, ShortMount, Signal, Size, Sources, Variable,
};
use super::{CheckRef, Command, DependsOn, KeyValues};

/// What containers and processes have in common.
#[derive(JsonSchema)]
struct Workload {
    /// The main process, first its program.
    command: Command,
    /// Its environment.
    environment: Option<KeyValues>,
    /// `user`, `user:group` or numbers; root unless given.
    user: Option<Filled>,
    /// The folder that it starts in.
    working_dir: Option<Filled>,
    /// Files whose content is part of what runs: an edit replaces the instances.
    watch: Option<Many<Filled>>,
    /// How many copies, numbered from 1.
    replicas: Option<Int<0, 1000>>,
    /// What happens after its exit; `on-failure` unless given.
    restart: Option<RestartForm>,
    /// The signal that asks it to end; `SIGTERM` unless given.
    stop_signal: Option<Signal>,
    /// How long after it the rest is killed; 10s unless given.
    stop_grace_period: Option<Duration>,
    /// What must be ready first.
    depends_on: Option<DependsOn>,
    /// When it counts as ready; when it is started unless given.
    ready: Option<ReadyForm>,
    /// How instances are replaced.
    update: Option<Update>,
    /// How connections are waited for before a stop.
    drain: Option<Drain>,
    /// How much of its output is kept.
    log: Option<Log>,
}

/// A container.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Container {
    #[schemars(flatten)]
    workload: Workload,
    /// Its file system: this machine's (`host`), or a folder.
    root: Option<RootForm>,
    /// A network of the spec, `host` or `none`; `host` unless given.
    network: Option<Filled>,
    /// Its address; chosen unless given.
    address: Option<Filled>,
    /// What of the host it sees.
    mounts: Option<Mounts>,
    /// Folders in memory.
    tmpfs: Option<Many<Filled>>,
    /// What may reach it.
    firewall: Option<Firewall>,
}

/// A host process.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Process {
    #[schemars(flatten)]
    workload: Workload,
    /// Commands that must end with 0 before each start.
    pre_start: Option<Vec<Command>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum RestartForm {
    Word(Policy),
    Variable(Variable),
    Full(Restart),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum PolicyForm {
    Word(Policy),
    Variable(Variable),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Policy {
    No,
    OnFailure,
    Always,
    UnlessStopped,
}

/// What happens after an exit.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Restart {
    /// After which exits; `on-failure` unless given.
    policy: Option<PolicyForm>,
    /// The first delay; 1s unless given. It doubles.
    delay: Option<Duration>,
    /// The longest delay; 60s unless given.
    max_delay: Option<Duration>,
    /// After so many in a row it stays failed.
    max_attempts: Option<Int<1, { u32::MAX }>>,
    /// Attempts count within this time.
    window: Option<Duration>,
    /// After running so long the delay starts anew; 10s unless given.
    reset_after: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ReadyForm {
    Word(ReadyWord),
    Variable(Variable),
    Full(Ready),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum ReadyWord {
    Started,
    Notify,
    SdNotify,
}

/// When it counts as ready: when it listens, when a check passes, or when it says so.
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("oneOf" = [
        { "required": ["tcp"] }, { "required": ["check"] },
        { "anyOf": [{ "required": ["notify"] }, { "required": ["sd_notify"] }] }
    ])
)]
struct Ready {
    /// An address and a port that it listens on.
    tcp: Option<Filled>,
    /// A check, by name or written here.
    check: Option<CheckRef>,
    /// It says so (sd_notify).
    notify: Option<Nullable<NotifyForm>>,
    /// The same.
    sd_notify: Option<Nullable<NotifyForm>>,
    /// How long a start may take; 60s unless given.
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum NotifyForm {
    Yes(#[schemars(extend("const" = true))] bool),
    Variable(Variable),
    Full(Notify),
}

/// How it says so.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Notify {
    /// How long a start may take.
    timeout: Option<Duration>,
}

/// How instances are replaced.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Update {
    /// How many may be away at once; 1 unless given.
    max_unavailable: Option<Int<1, 1000>>,
    /// Which comes first; `stop-first` unless given.
    order: Option<OrderForm>,
    /// How long a new instance must be well before the next one's turn; unless given, 500ms
    /// where it has neither a check nor a way to say that it is ready, else nothing.
    min_healthy_time: Option<Duration>,
    /// How long it may take to become well.
    healthy_deadline: Option<Duration>,
    /// What follows when it does not.
    failure_action: Option<ActionForm>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum OrderForm {
    Word(Order),
    Variable(Variable),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Order {
    StartFirst,
    StopFirst,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ActionForm {
    Word(Action),
    Variable(Variable),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Action {
    Rollback,
    Pause,
    Continue,
}

/// How connections are waited for before a stop.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Drain {
    /// No connection for so long.
    quiet: Option<Duration>,
    /// But no longer than this.
    timeout: Option<Duration>,
}

/// How much of its output is kept.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Log {
    /// The size at which a file is rotated; 10MB unless given.
    max_size: Option<Size>,
    /// How many rotated files stay; 3 unless given.
    max_files: Option<Int<0, 100>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum RootForm {
    Host(Host),
    Variable(Variable),
    Path(RootPath),
}

/// A folder.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RootPath {
    /// Where it is.
    path: Filled,
    /// It is shared unchanged.
    read_only: Option<Bool>,
    /// It is written to in a copy that goes with the container.
    ephemeral: Option<Bool>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Mounts {
    List(Vec<MountForm>),
    One(ShortMount),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum MountForm {
    Short(ShortMount),
    Long(Mount),
}

/// Something of the host that a container sees.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Mount {
    /// On the host.
    source: Filled,
    /// In the container.
    target: Filled,
    /// It cannot be written to.
    read_only: Option<Bool>,
}

/// What may reach a container.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Firewall {
    /// TCP ports.
    allow_tcp: Option<Many<Int<1, 65535>>>,
    /// UDP ports.
    allow_udp: Option<Many<Int<1, 65535>>>,
    /// Whether pings are answered; they are unless given.
    allow_ping: Option<Bool>,
    /// Who may: networks and addresses; anybody unless given.
    allow_from: Option<Many<Sources>>,
}
