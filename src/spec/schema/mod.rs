//! The JSON Schema of specs: what editors complete from. It speaks of the spec as it is once its
//! files are put together; where a number or a word is due, `${…}` may stand.
//!
//! The types mirror the language for the schema alone, and nothing is ever read into them. That
//! they say what the decoders say is held by tests, field by field and value by value.
#![expect(dead_code, reason = "only the shape of these types is used")]

mod scalar;
#[cfg(test)]
mod tests;
mod workload;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use self::scalar::{
    Assignment, Bool, Duration, Filled, Int, Many, Method, Mode, Named, Nullable, Package,
    Reference, Signal, SocketAddress, StackName, Subnet, Tag, Target, Text, Variable,
};
use self::workload::{Container, Process};

/// The schema, as JSON.
pub fn text() -> String {
    let mut text = format!("{:#}", schema().to_value());
    text.push('\n');
    text
}

/// The schema.
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with_transform(Given);
    settings.into_generator().into_root_schema_for::<Stack>()
}

/// A field that is left out is no null.
#[derive(Debug, Clone)]
struct Given;

impl Transform for Given {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        if let Some(Value::Array(words)) = object.get_mut("enum") {
            words.retain(|word| !word.is_null());
        }
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|one| one != "null");
        }
        let Some(Value::Array(forms)) = object.get_mut("anyOf") else {
            return;
        };
        let null = serde_json::json!({ "type": "null" });
        forms.retain(|form| *form != null);
        if let [Value::Object(only)] = forms.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// A Hatchery stack: containers, processes, services, checks and rendered files of one machine.
#[derive(JsonSchema)]
#[schemars(
    title = "Hatchery spec",
    deny_unknown_fields,
    extend("patternProperties" = { "^x-": true })
)]
struct Stack {
    /// The stack's name; everything of it on the host carries it.
    name: StackName,
    /// Further files that are parts of this spec; paths are relative to this file's folder.
    include: Option<Many<Filled>>,
    /// Free values for expressions and templates.
    vars: Option<Nullable<serde_json::Map<String, Value>>>,
    /// What must be on this machine before anything starts.
    requires: Option<Nullable<Vec<Requirement>>>,
    /// The registry; embedded and in process unless said otherwise.
    registry: Option<Nullable<Registry>>,
    /// Bridge networks by name.
    networks: Option<Nullable<Named<Network, 32, false>>>,
    /// Containers by name.
    containers: Option<Nullable<Named<Container, 32, false>>>,
    /// Host processes by name.
    processes: Option<Nullable<Named<Process, 32, false>>>,
    /// Services by name.
    services: Option<Nullable<Named<Service, 32, false>>>,
    /// Shared checks by name.
    checks: Option<Nullable<Named<Check, 32, true>>>,
    /// Rendered files by name.
    templates: Option<Nullable<Named<Template, 32, true>>>,
}

/// Something the machine must have: a command, a Python module, or a path.
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("oneOf" = [{ "required": ["command"] }, { "required": ["python"] }, { "required": ["path"] }])
)]
struct Requirement {
    /// A command on the PATH.
    command: Option<Filled>,
    /// A module that Debian's Python can import.
    python: Option<Filled>,
    /// A file or folder.
    path: Option<Filled>,
    /// The Debian package that brings it.
    debian: Option<Package>,
}

/// The registry.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Registry {
    /// The one that is built in.
    embedded: Option<Nullable<Embedded>>,
}

/// The built-in registry.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Embedded {
    /// Where it answers in Consul's form; in process only unless given.
    http: Option<SocketAddress>,
    /// A file whose content is the token that lifts the limits on callers from outside.
    token_file: Option<Filled>,
    /// The datacenter that it names; `dc1` unless given.
    datacenter: Option<Filled>,
}

/// A bridge network.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Network {
    /// Its addresses; the host takes the first one.
    subnet: Subnet,
    /// Turns on `net.ipv4.ip_forward`.
    forward: Option<Bool>,
    /// What must be ready first.
    depends_on: Option<DependsOn>,
}

/// What must be ready first: references, or references with a condition each.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum DependsOn {
    Many(Many<Reference>),
    Conditions(
        #[schemars(extend("propertyNames" = { "pattern": "^(registry|(networks|containers|processes|services|checks|templates)/.+)$" }))]
         std::collections::BTreeMap<String, Nullable<Condition>>,
    ),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Condition {
    Word(ConditionWord),
    Variable(Variable),
    Long(LongCondition),
}

/// As compose writes it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LongCondition {
    /// How far it must be.
    condition: Option<ConditionWord>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum ConditionWord {
    Started,
    Healthy,
    Completed,
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// A command: a list of words, or a line that is split as a shell splits it.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Command {
    Words(#[schemars(length(min = 1, max = 1000))] Vec<Text>),
    Line(#[schemars(regex(pattern = "\\S"))] String),
}

/// `NAME: value`, or a list of `NAME=value`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum KeyValues {
    Map(std::collections::BTreeMap<String, Text>),
    List(Vec<Assignment>),
}

/// A service: instances that others find by its name.
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend("anyOf" = [{ "required": ["target"] }, { "required": ["address"] }])
)]
struct Service {
    /// The containers or processes that serve.
    target: Option<Target>,
    /// Where it answers; its target's address unless given.
    address: Option<Filled>,
    /// The port.
    port: Int<1, 65535>,
    /// Words that templates choose by.
    tags: Option<Many<Tag>>,
    /// Free values that go with each instance.
    meta: Option<KeyValues>,
    /// Checks, by name or written here.
    checks: Option<Checks>,
    /// What must be ready first.
    depends_on: Option<DependsOn>,
}

/// Checks, or the name of one.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Checks {
    List(Vec<CheckRef>),
    Named(Filled),
}

/// A check by name, or written in place.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum CheckRef {
    Named(Filled),
    Inline(Check),
}

/// A health check: asked over HTTP or TCP, by a command, or told within a time (`ttl`).
#[derive(JsonSchema)]
#[schemars(
    deny_unknown_fields,
    extend(
        "oneOf" = [
            { "required": ["http"] }, { "required": ["tcp"] },
            { "required": ["exec"] }, { "required": ["ttl"] }
        ],
        "dependentSchemas" = { "ttl": { "properties": {
            "interval": false, "timeout": false, "retries": false,
            "start_period": false, "start_interval": false
        } } }
    )
)]
struct Check {
    /// A URL, or a request in full.
    http: Option<Http>,
    /// An address and a port that must take connections.
    tcp: Option<Filled>,
    /// A command that must end with 0.
    exec: Option<Command>,
    /// Somebody says how it stands, at least this often.
    ttl: Option<Duration>,
    /// Between two probes; 10s unless given.
    interval: Option<Duration>,
    /// For one probe; 3s unless given.
    timeout: Option<Duration>,
    /// Failures in a row that make it critical; 1 unless given.
    retries: Option<Int<1, 1000>>,
    /// After a start failures do not count so long.
    start_period: Option<Duration>,
    /// Between two probes in that time.
    start_interval: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Http {
    Url(Filled),
    Request(Request),
}

/// An HTTP request, and what must come back.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Request {
    /// Where.
    url: Filled,
    /// `GET` unless given.
    method: Option<Method>,
    /// Its headers.
    headers: Option<KeyValues>,
    /// Codes that are good; any below 400 unless given.
    status: Option<Many<Int<100, 599>>>,
    /// What the body must hold.
    body: Option<Text>,
}

/// A file that is rendered from the catalog.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Template {
    /// The template's file.
    source: Filled,
    /// Where it is written.
    destination: Filled,
    /// Its permissions; `0644` unless given.
    mode: Option<Mode>,
    /// `user` or `user:group`.
    owner: Option<Filled>,
    /// A command that must take the rendered file before it is used.
    validate: Option<Command>,
    /// Who is told of a new content, and how.
    reload: Option<Reload>,
    /// How long changes are gathered.
    wait: Option<Wait>,
    /// What becomes of the file when no instance is there: `keep` unless given.
    when_empty: Option<WhenEmptyForm>,
    /// What must be ready first.
    depends_on: Option<DependsOn>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Reload {
    Signal(SignalReload),
    Command(CommandReload),
}

/// A process that is signalled.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct SignalReload {
    /// Its name.
    process: Filled,
    /// `SIGHUP` unless given.
    signal: Option<Signal>,
    /// How it is known to have reloaded.
    confirm: Option<ConfirmForm>,
}

/// A command that is run.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CommandReload {
    /// The command.
    command: Command,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ConfirmForm {
    Word(Confirm),
    Variable(Variable),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Confirm {
    None,
    NewChild,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum WhenEmptyForm {
    Word(WhenEmpty),
    Variable(Variable),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum WhenEmpty {
    Keep,
    Render,
}

/// How long changes are gathered before a render.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Wait {
    /// Quiet for so long.
    min: Option<Duration>,
    /// But no longer than this.
    max: Option<Duration>,
}
