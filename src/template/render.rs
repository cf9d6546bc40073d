//! Rendering a template's file from the catalog, noting all that it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind};

use super::engine::{engine, explain};
use super::{Inputs, Instance, Reads, Rendered, Snapshot, TemplateError};
use crate::spec::model::Status;

/// Steps that one render may take; also about 64 MiB of memory.
const FUEL: u64 = 1_000_000;

/// The longest text that a template may give, in bytes.
const LONGEST_TEXT: usize = 4 * 1024 * 1024;

/// The longest file that `file()` reads, in bytes.
pub const LONGEST_FILE: usize = 1024 * 1024;

/// How often a trial may ask for more files; each round knows those of the rounds before.
const TRIAL_ROUNDS: usize = 8;

/// What a render has read so far. The engine's functions outlive the borrow of our arguments,
/// so that they share this with the render by reference count.
#[derive(Default)]
struct Notes {
    reads: Reads,
    lacks: BTreeSet<PathBuf>,
}

type SharedNotes = Arc<Mutex<Notes>>;

/// A render that panicked while it held the lock left whole notes: there is no step between.
fn lock(notes: &SharedNotes) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renders `source`. `name` is how the engine calls it; errors leave it to the caller.
///
/// Templates have `service(name, tag=, passing=)`, `services()`, `nodes()`, `file(path)`, `env`
/// and `vars`. `service` gives instances whose every check passes; `passing="warning"` adds those
/// that warn, `passing=false` gives all. `tag` is a tag, or a list of which an instance must
/// have every one. A service that nobody registered has no instances; it is no error.
///
/// # Errors
/// When the template is wrong, names what is not defined, gives more than 4 MiB, or takes too
/// long. Files that are not among the inputs are no error, they are asked for.
pub fn render(
    name: &str,
    source: &str,
    snapshot: &Arc<Snapshot>,
    inputs: &Inputs,
) -> Result<Rendered, TemplateError> {
    let attempt = attempt(name, source, snapshot, inputs);
    // With a file missing the text is made from less than it needs, and so is an error.
    if !attempt.notes.lacks.is_empty() && !attempt.hopeless() {
        return Ok(Rendered::Lacks(attempt.notes.lacks));
    }
    match attempt.result {
        Ok(text) if text.len() > LONGEST_TEXT => Err(TemplateError {
            message: "its text is longer than 4 MiB".to_owned(),
            line: None,
            range: None,
        }),
        Ok(text) => Ok(Rendered::Text {
            text,
            reads: attempt.notes.reads,
        }),
        Err(error) => Err(explained(source, &error)),
    }
}

/// What `source` reads on an empty catalog, with files that are not among the inputs empty.
///
/// # Errors
/// When the template is wrong in itself. That a value is missing is no error here once the
/// template has looked into the catalog: with instances in it the value may be there.
pub fn trial(name: &str, source: &str, inputs: &Inputs) -> Result<Reads, TemplateError> {
    let empty = Arc::new(Snapshot::default());
    let mut inputs = inputs.clone();
    let mut known = attempt(name, source, &empty, &inputs);
    for _ in 0..TRIAL_ROUNDS {
        let lacks = std::mem::take(&mut known.notes.lacks);
        if lacks.is_empty() {
            break;
        }
        let texts = lacks.into_iter().map(|path| (path, Ok(String::new())));
        inputs.files.extend(texts);
        known = attempt(name, source, &empty, &inputs);
    }
    let excused = known.looked_into_emptiness() && !known.hopeless();
    match known.result {
        Err(error) if !excused => Err(explained(source, &error)),
        _ => Ok(known.notes.reads),
    }
}

fn explained(source: &str, error: &Error) -> TemplateError {
    let scope = ["env", "file", "nodes", "service", "services", "vars"];
    explain(error, source, &scope.map(str::to_owned).into())
}

/// One run of the engine.
struct Attempt {
    result: Result<String, Error>,
    notes: Notes,
}

impl Attempt {
    /// Whether it failed in a way that no catalog and no file could mend.
    fn hopeless(&self) -> bool {
        self.result.as_ref().is_err_and(|error| {
            matches!(
                error.kind(),
                ErrorKind::SyntaxError
                    | ErrorKind::BadEscape
                    | ErrorKind::TemplateNotFound
                    | ErrorKind::BadInclude
                    | ErrorKind::UnknownFilter
                    | ErrorKind::UnknownTest
                    | ErrorKind::UnknownFunction
                    | ErrorKind::TooManyArguments
                    | ErrorKind::OutOfFuel
            )
        })
    }

    fn looked_into_emptiness(&self) -> bool {
        let reads = &self.notes.reads;
        reads.catalog || !reads.services.is_empty() || !reads.files.is_empty()
    }
}

fn attempt(name: &str, source: &str, snapshot: &Arc<Snapshot>, inputs: &Inputs) -> Attempt {
    let notes = SharedNotes::default();
    let mut engine = engine(FUEL);
    add_catalog(&mut engine, snapshot, &notes);
    add_file(&mut engine, inputs, &notes);
    let context = Value::from(BTreeMap::from([
        ("env", Value::from(Serde(&inputs.env))),
        ("vars", Value::from(Serde(&inputs.vars))),
    ]));
    let result = engine
        .template_from_named_str(name, source)
        .and_then(|template| template.render(context));
    drop(engine);
    let notes = std::mem::take(&mut *lock(&notes));
    Attempt { result, notes }
}

fn add_catalog(engine: &mut Environment<'static>, snapshot: &Arc<Snapshot>, notes: &SharedNotes) {
    let (catalog, noted) = (snapshot.clone(), notes.clone());
    engine.add_function("service", move |name: &str, wanted: Kwargs| {
        let wanted = Wanted::from_arguments(&wanted)?;
        let instances: Vec<&Instance> = catalog
            .services
            .get(name)
            .into_iter()
            .flatten()
            .filter(|instance| wanted.takes(instance))
            .collect();
        let mut noted = lock(&noted);
        let least = noted.reads.services.entry(name.to_owned());
        let least = least.or_insert(instances.len());
        *least = instances.len().min(*least);
        Ok::<_, Error>(Value::from(Serde(instances)))
    });
    let (catalog, noted) = (snapshot.clone(), notes.clone());
    engine.add_function("services", move || {
        lock(&noted).reads.catalog = true;
        Value::from(Serde(list_services(&catalog)))
    });
    let (catalog, noted) = (snapshot.clone(), notes.clone());
    engine.add_function("nodes", move || {
        lock(&noted).reads.catalog = true;
        Value::from(Serde(&catalog.nodes))
    });
}

/// One entry of `services()`.
#[derive(serde::Serialize)]
struct ServiceEntry<'a> {
    name: &'a str,
    tags: BTreeSet<&'a str>,
}

fn list_services(catalog: &Snapshot) -> Vec<ServiceEntry<'_>> {
    catalog
        .services
        .iter()
        .map(|(name, instances)| ServiceEntry {
            name,
            tags: instances
                .iter()
                .flat_map(|instance| instance.tags.iter().map(String::as_str))
                .collect(),
        })
        .collect()
}

fn add_file(engine: &mut Environment<'static>, inputs: &Inputs, notes: &SharedNotes) {
    let noted = notes.clone();
    let spec_dir = inputs.spec_dir.clone();
    let files: BTreeMap<PathBuf, Result<Value, String>> = inputs
        .files
        .iter()
        .map(|(path, text)| (path.clone(), contents(text)))
        .collect();
    engine.add_function("file", move |path: &str| {
        let absolute = normalise(&spec_dir, path);
        let mut noted = lock(&noted);
        noted.reads.files.insert(absolute.clone());
        match files.get(&absolute) {
            Some(Ok(text)) => Ok(text.clone()),
            Some(Err(why)) => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("cannot read `{}`: {why}", absolute.display()),
            )),
            None => {
                noted.lacks.insert(absolute);
                Ok(Value::from(""))
            }
        }
    });
}

fn contents(text: &Result<String, String>) -> Result<Value, String> {
    let text = text.as_ref().map_err(String::clone)?;
    if text.len() > LONGEST_FILE {
        return Err("it is longer than 1 MiB".to_owned());
    }
    Ok(Value::from(text.as_str()))
}

/// `path` below `dir` unless it is absolute, without `.` and `..`.
///
/// It looks at no file: a `..` behind a symbolic link is the link's parent, not its target's.
pub fn normalise(dir: &Path, path: &str) -> PathBuf {
    let mut whole = PathBuf::from("/");
    for part in dir.join(path).components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    whole
}

/// Which instances a call of `service()` wants.
struct Wanted {
    tags: Vec<String>,
    /// The worst status that it takes.
    worst: Status,
}

impl Wanted {
    fn from_arguments(arguments: &Kwargs) -> Result<Wanted, Error> {
        let tag: Option<Value> = arguments.get("tag")?;
        let passing: Option<Value> = arguments.get("passing")?;
        arguments.assert_all_used()?;
        Ok(Wanted {
            tags: tag.as_ref().map_or(Ok(Vec::new()), tags)?,
            worst: passing.as_ref().map_or(Ok(Status::Passing), worst)?,
        })
    }

    fn takes(&self, instance: &Instance) -> bool {
        instance.status <= self.worst && self.tags.iter().all(|tag| instance.tags.contains(tag))
    }
}

fn tags(value: &Value) -> Result<Vec<String>, Error> {
    let refusal = || {
        Error::new(
            ErrorKind::InvalidOperation,
            "`tag` must be a text or a list of texts",
        )
    };
    if value.is_none() {
        return Ok(Vec::new());
    }
    if let Some(tag) = value.as_str() {
        return Ok(vec![tag.to_owned()]);
    }
    value
        .try_iter()
        .map_err(|_| refusal())?
        .map(|tag| tag.as_str().map(str::to_owned).ok_or_else(refusal))
        .collect()
}

fn worst(value: &Value) -> Result<Status, Error> {
    if let Ok(passing) = bool::try_from(value.clone()) {
        return Ok(if passing {
            Status::Passing
        } else {
            Status::Critical
        });
    }
    match value.as_str() {
        Some("warning") => Ok(Status::Warning),
        Some("any") => Ok(Status::Critical),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "`passing` must be `true`, `false`, `\"warning\"` or `\"any\"`",
        )),
    }
}
