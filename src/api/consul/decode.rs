//! Request bodies. Consul's decoder takes keys in any case, and some in snake case too; it
//! refuses what it does not know. So does this one, and it refuses as well what it knows
//! but cannot do: a registration is taken whole or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::duration;
use super::fault::Fault;
use crate::registry::{CheckKind, CheckSpec, Origin, Registration};
use crate::spec::model::Status;

/// The least of `DeregisterCriticalServiceAfter`; less counts as this.
const LEAST_DEREGISTER_AFTER: Duration = Duration::from_secs(60);

/// The keys that an object may have, in lower case.
struct Keys {
    understood: &'static [&'static str],
    /// Known, and refused unless they say nothing (null, false, 0, empty).
    inert: &'static [&'static str],
    /// What to do instead.
    instead: &'static str,
}

const SERVICE: Keys = Keys {
    understood: &[
        "id", "name", "tags", "meta", "address", "port", "check", "checks", "weights",
    ],
    inert: &[
        "kind",
        "taggedaddresses",
        "enabletagoverride",
        "proxy",
        "connect",
        "namespace",
    ],
    instead: "leave it out, or write the service into the spec",
};
const CHECK: Keys = Keys {
    understood: &[
        "checkid",
        "id",
        "name",
        "notes",
        "status",
        "ttl",
        "deregistercriticalserviceafter",
        "serviceid",
    ],
    inert: &[
        "args",
        "scriptargs",
        "http",
        "header",
        "method",
        "body",
        "tcp",
        "grpc",
        "grpcusetls",
        "dockercontainerid",
        "shell",
        "interval",
        "timeout",
        "aliasnode",
        "aliasservice",
        "tlsskipverify",
        "tlsservername",
        "proxyhttp",
        "proxygrpc",
        "outputmaxsize",
        "successbeforepassing",
        "failuresbeforecritical",
    ],
    instead: "clients register TTL checks; other checks belong into the spec",
};
const WEIGHTS: Keys = Keys {
    understood: &["passing", "warning"],
    inert: &[],
    instead: "leave it out",
};
const UPDATE: Keys = Keys {
    understood: &["status", "output"],
    inert: &[],
    instead: "leave it out",
};
/// Keys that Consul takes in snake case too.
const SNAKE: [&str; 6] = [
    "enable_tag_override",
    "tagged_addresses",
    "deregister_critical_service_after",
    "script_args",
    "docker_container_id",
    "tls_skip_verify",
];

/// A registration by a client. It is not validated yet: the catalog does that.
pub(super) fn registration(body: &[u8]) -> Result<Registration, Fault> {
    let mut fields = Fields::of(parsed(body)?, SERVICE)?;
    let service = fields.text("name")?;
    if service.is_empty() {
        return Err(Fault::bad("Missing service name"));
    }
    let id = match fields.text("id")? {
        id if id.is_empty() => service.clone(),
        id => id,
    };
    if let Some(weights) = fields.take("weights") {
        even_weights(weights)?;
    }
    let mut checks = fields.list("checks")?;
    checks.extend(fields.take("check").filter(|check| !is_blank(check)));
    let several = checks.len() > 1;
    let checks = checks.into_iter().enumerate().map(|(at, check)| {
        let fallback = match several {
            true => format!("service:{id}:{}", at + 1),
            false => format!("service:{id}"),
        };
        self::check(check, fallback, &service)
    });
    let checks = checks.collect::<Result<_, _>>()?;
    Ok(Registration {
        address: fields.text("address")?,
        port: fields.port()?,
        tags: fields.texts("tags")?,
        meta: fields.text_map("meta")?,
        checks,
        origin: Origin::Client,
        hash: String::new(),
        id,
        service,
    })
}

/// A check's verdict in the body of `check/update`.
pub(super) fn verdict(body: &[u8]) -> Result<(Status, String), Fault> {
    let mut fields = Fields::of(parsed(body)?, UPDATE)?;
    let status = fields.text("status")?;
    let Some(known) = self::status(&status) else {
        return Err(Fault::bad(format!(
            "Invalid check status: '{}'",
            status.escape_debug()
        )));
    };
    Ok((known, fields.text("output")?))
}

fn check(value: Value, fallback: String, service: &str) -> Result<CheckSpec, Fault> {
    let mut fields = Fields::of(value, CHECK)?;
    let ttl = fields.duration("ttl")?;
    if ttl.is_zero() {
        return Err(Fault::bad("Invalid check: TTL must be > 0 for TTL checks"));
    }
    let initial = match fields.text("status")?.as_str() {
        "" => Status::Critical,
        given => status(given)
            .ok_or_else(|| Fault::bad("Status for checks must 'passing', 'warning', 'critical'"))?,
    };
    // `ID` is an older name of `CheckID`; `ServiceID` is the service's own in any case.
    let older = fields.text("id")?;
    fields.text("serviceid")?;
    let ids = [fields.text("checkid")?, older, fallback];
    let id = ids.into_iter().find(|id| !id.is_empty());
    let name = match fields.text("name")? {
        name if name.is_empty() => format!("Service '{service}' check"),
        name => name,
    };
    let after = fields.duration("deregistercriticalserviceafter")?;
    Ok(CheckSpec {
        id: id.unwrap_or_default(),
        name,
        kind: CheckKind::Ttl(ttl),
        initial,
        notes: fields.text("notes")?,
        deregister_after: (!after.is_zero()).then(|| after.max(LEAST_DEREGISTER_AFTER)),
    })
}

fn status(text: &str) -> Option<Status> {
    match text {
        "passing" => Some(Status::Passing),
        "warning" => Some(Status::Warning),
        "critical" => Some(Status::Critical),
        _ => None,
    }
}

fn even_weights(weights: Value) -> Result<(), Fault> {
    let mut fields = Fields::of(weights, WEIGHTS)?;
    let even = |weight: Option<Value>| weight.is_none_or(|weight| weight == 1);
    if even(fields.take("passing")) && even(fields.take("warning")) {
        return Ok(());
    }
    Err(Fault::bad("Invalid Weights: only 1 and 1 are supported"))
}

fn parsed(body: &[u8]) -> Result<Value, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Fault::decode("EOF"));
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Fault::decode("unexpected EOF"),
        _ => Fault::decode(error),
    })
}

/// Says nothing: what Go leaves at its zero value.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || duration::parse(text) == Some(Duration::ZERO),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_blank),
    }
}

/// An object's fields by their names in lower case, without those that are null.
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn of(value: Value, keys: Keys) -> Result<Fields, Fault> {
        let Value::Object(object) = value else {
            return Err(Fault::decode("json: expected an object"));
        };
        let mut fields = BTreeMap::new();
        for (key, value) in object {
            let mut name = key.to_lowercase();
            if SNAKE.contains(&name.as_str()) {
                name.retain(|sign| sign != '_');
            }
            if keys.inert.contains(&name.as_str()) {
                if !is_blank(&value) {
                    let instead = keys.instead;
                    return Err(Fault::bad(format!(
                        "cannot register: `{key}` is not supported here; {instead}"
                    )));
                }
            } else if !keys.understood.contains(&name.as_str()) {
                return Err(Fault::decode(format!("json: unknown field {key:?}")));
            } else if value != Value::Null {
                fields.insert(name, value);
            }
        }
        Ok(Fields(fields))
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn text(&mut self, name: &str) -> Result<String, Fault> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(mismatch(&other, name, "string")),
        }
    }

    fn port(&mut self) -> Result<u16, Fault> {
        let Some(value) = self.take("port") else {
            return Ok(0);
        };
        let Some(number) = value.as_u64() else {
            return Err(mismatch(&value, "port", "int"));
        };
        u16::try_from(number).map_err(|_| Fault::bad("Invalid port: it must be at most 65535"))
    }

    fn list(&mut self, name: &str) -> Result<Vec<Value>, Fault> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(mismatch(&other, name, "list")),
        }
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        let items = self.list(name)?.into_iter();
        items.map(|item| text_of(item, name)).collect()
    }

    fn text_map(&mut self, name: &str) -> Result<BTreeMap<String, String>, Fault> {
        let entries = match self.take(name) {
            None => Map::new(),
            Some(Value::Object(entries)) => entries,
            Some(other) => return Err(mismatch(&other, name, "map")),
        };
        let entries = entries.into_iter();
        entries
            .map(|(key, value)| Ok((key, text_of(value, name)?)))
            .collect()
    }

    /// A duration, in Go's words or as a number of nanoseconds; zero when it is left out.
    fn duration(&mut self, name: &str) -> Result<Duration, Fault> {
        match self.take(name) {
            None => Ok(Duration::ZERO),
            Some(Value::String(text)) if text.is_empty() => Ok(Duration::ZERO),
            Some(Value::String(text)) => duration::parse(&text).ok_or_else(|| {
                Fault::decode(format!(
                    "time: invalid duration {text:?}; write it like \"15s\""
                ))
            }),
            Some(other) => match other.as_u64() {
                Some(nanos) => Ok(Duration::from_nanos(nanos)),
                None => Err(mismatch(&other, name, "duration")),
            },
        }
    }
}

fn text_of(value: Value, field: &str) -> Result<String, Fault> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(mismatch(&other, field, "string")),
    }
}

fn mismatch(value: &Value, field: &str, wanted: &str) -> Fault {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Fault::decode(format!(
        "json: cannot unmarshal {kind} into field {field} of type {wanted}"
    ))
}
