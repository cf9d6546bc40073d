//! Reads all texts of a spec. The disk is the caller's.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::assemble::{MAX_FILES, split};
use super::texts::{Further, Part, SpecText};
use super::variables::read_file;
use super::yaml::load::{self, MAX_INPUT, Text};

/// Which files a spec is to be read from; all paths are absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sought {
    /// The first file, or a folder.
    pub path: PathBuf,
    /// It is a folder whose files are equal parts.
    pub folder: bool,
    /// What is laid over it.
    pub overlays: Vec<PathBuf>,
    /// Files of variables.
    pub vars: Vec<PathBuf>,
    /// Variables that are known to be in the environment, or not to be: nobody else is asked
    /// about them.
    pub environment: BTreeMap<String, Option<String>>,
}

/// What reading needs of the world.
pub trait Reading {
    /// A file's text.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence that names the file.
    fn read(&mut self, path: &Path) -> Result<String, String>;
    /// Whether something is there.
    fn is_there(&mut self, path: &Path) -> bool;
    /// The names in a folder, in any order.
    ///
    /// # Errors
    /// Why it cannot be read, as a sentence that names the folder.
    fn names(&mut self, folder: &Path) -> Result<Vec<String>, String>;
    /// A variable of the environment.
    fn variable(&mut self, name: &str) -> Option<String>;
}

impl SpecText {
    /// What this one was read from.
    pub fn sought(&self) -> Sought {
        let further = &self.further;
        Sought {
            path: self.path.clone(),
            folder: further.folder,
            overlays: further
                .overlays
                .iter()
                .map(|part| part.path.clone())
                .collect(),
            vars: further.vars.clone(),
            environment: further.environment.clone(),
        }
    }
}

/// Reads them. What is wrong inside the texts, an include that cannot be read among it, is told
/// when they are put together.
///
/// # Errors
/// Which of the files that were named cannot be read, and why.
pub fn gather(sought: &Sought, world: &mut dyn Reading) -> Result<SpecText, String> {
    let mut spec = SpecText::of(sought.path.clone(), "");
    spec.further.folder = sought.folder;
    spec.further.vars.clone_from(&sought.vars);
    if sought.folder {
        spec.further.parts = folder(&sought.path, world)?;
    } else {
        spec.text = world.read(&sought.path)?;
    }
    for path in &sought.overlays {
        let text = world.read(path)?;
        spec.further.overlays.push(part(path, text));
    }
    let mut variables = Variables {
        sought,
        files: None,
        used: BTreeSet::new(),
    };
    if !sought.vars.is_empty() {
        variables.read_files(&spec, world)?;
    }
    follow_includes(&mut spec, &mut variables, world)?;
    variables.keep(&mut spec.further, world);
    Ok(spec)
}

fn part(path: &Path, text: String) -> Part {
    Part {
        path: path.to_owned(),
        text,
        unread: None,
    }
}

/// The files of a folder that are parts of a spec, in the order of their names.
fn folder(path: &Path, world: &mut dyn Reading) -> Result<Vec<Part>, String> {
    let mut names = world.names(path)?;
    names.retain(|name| is_part(name));
    names.sort();
    if names.len() > MAX_FILES {
        return Err(format!(
            "`{}` holds {} files that end in `.yaml`; a spec has at most {MAX_FILES}",
            path.display(),
            names.len()
        ));
    }
    let mut parts = Vec::new();
    for name in names {
        let path = path.join(name);
        let text = world.read(&path)?;
        parts.push(part(&path, text));
    }
    Ok(parts)
}

/// Whether a file of this name is a part of the spec that its folder holds.
pub fn is_part(name: &str) -> bool {
    let ending = [".yaml", ".yml"].into_iter().any(|end| name.ends_with(end));
    ending && !name.starts_with('.')
}

/// Adds what the texts include, and notes which variables they name.
fn follow_includes(
    spec: &mut SpecText,
    variables: &mut Variables<'_>,
    world: &mut dyn Reading,
) -> Result<(), String> {
    let further = &spec.further;
    let first = (!further.folder).then(|| (spec.path.clone(), spec.text.clone()));
    let others = further.parts.iter().chain(&further.overlays);
    let mut queue: Vec<(PathBuf, String)> = first
        .into_iter()
        .chain(others.map(|part| (part.path.clone(), part.text.clone())))
        .collect();
    let mut known: BTreeSet<PathBuf> = queue.iter().map(|(path, _)| path.clone()).collect();
    let mut bytes: usize = queue.iter().map(|(_, text)| text.len()).sum();
    let mut at = 0;
    while let Some((path, text)) = queue.get(at).cloned() {
        at += 1;
        // More is refused when the texts are put together.
        if bytes > MAX_INPUT {
            return Ok(());
        }
        for include in variables.includes(spec, &path, &text, world)? {
            if !known.insert(include.clone()) {
                continue;
            }
            let read = match known.len() > MAX_FILES {
                true => Err(format!("a spec has at most {MAX_FILES} files")),
                false => world.read(&include),
            };
            match read {
                Ok(text) => {
                    bytes += text.len();
                    queue.push((include.clone(), text.clone()));
                    spec.further.parts.push(part(&include, text));
                }
                Err(why) => spec.further.parts.push(Part {
                    path: include,
                    text: String::new(),
                    unread: Some(why),
                }),
            }
            if known.len() > MAX_FILES {
                return Ok(());
            }
        }
    }
    Ok(())
}

struct Variables<'a> {
    sought: &'a Sought,
    /// What files give; `None` until somebody wants to know.
    files: Option<BTreeMap<String, String>>,
    used: BTreeSet<String>,
}

impl Variables<'_> {
    fn read_files(&mut self, spec: &SpecText, world: &mut dyn Reading) -> Result<(), String> {
        let beside = spec.beside().filter(|path| world.is_there(path));
        let mut all = BTreeMap::new();
        for path in self.sought.vars.iter().chain(&beside) {
            let text = world.read(path)?;
            let values = read_file(&text).map_err(|why| {
                let path = path.display();
                format!("cannot read the variables in `{path}`: {why}")
            })?;
            all.extend(values);
        }
        self.files = Some(all);
        Ok(())
    }

    /// What a text includes; its variables are noted.
    fn includes(
        &mut self,
        spec: &SpecText,
        path: &Path,
        text: &str,
        world: &mut dyn Reading,
    ) -> Result<Vec<PathBuf>, String> {
        let has_variables = text.contains("${");
        if has_variables && self.files.is_none() {
            self.read_files(spec, world)?;
        }
        if !has_variables && !text.contains("include") {
            return Ok(Vec::new());
        }
        let asked = RefCell::new((&mut self.used, world));
        let (files, sought) = (&self.files, self.sought);
        let lookup = |name: &str| {
            let (used, world) = &mut *asked.borrow_mut();
            used.insert(name.to_owned());
            let known = sought.environment.get(name).cloned();
            let given = known.unwrap_or_else(|| world.variable(name));
            given.or_else(|| files.as_ref()?.get(name).cloned())
        };
        let read = load::load(&Text {
            name: "",
            source: text,
            base: 0,
            weight: 0,
            overlay: true,
            lookup: &lookup,
        });
        let Some(root) = read.root else {
            return Ok(Vec::new());
        };
        let (_, includes) = split(&root, path, &mut Vec::new());
        Ok(includes.into_iter().map(|include| include.path).collect())
    }

    /// Keeps what was used, and nothing else: the others are none of the spec's concern.
    fn keep(self, further: &mut Further, world: &mut dyn Reading) {
        for name in self.used {
            let known = self.sought.environment.get(&name).cloned();
            let given = known.unwrap_or_else(|| world.variable(&name));
            let value = self.files.as_ref().and_then(|files| files.get(&name));
            if let (None, Some(value)) = (&given, value) {
                further.values.insert(name.clone(), value.clone());
            }
            further.environment.insert(name, given);
        }
    }
}
