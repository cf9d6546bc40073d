//! What makes a running workload the one that the spec wants.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::desired::{ContainerRun, NetworkRun, Tree, WorkloadNode};

/// What was started, field by field: names of fields to short hashes of their values.
/// Two equal ones need no replacement; the names of those that differ are the reason.
///
/// Every plan compares that of each running life with what is wanted, so copies share their
/// fields, and others are told apart by a hash that is worked out once.
#[derive(Clone, Default)]
pub struct Identity(Arc<Fields>);

#[derive(Clone, Default)]
struct Fields {
    all: BTreeMap<String, String>,
    hash: OnceLock<blake3::Hash>,
}

impl Fields {
    fn hash(&self) -> &blake3::Hash {
        self.hash.get_or_init(|| {
            let mut hasher = blake3::Hasher::new();
            for word in self.all.iter().flat_map(|(name, value)| [name, value]) {
                hasher.update(&(word.len() as u64).to_le_bytes());
                hasher.update(word.as_bytes());
            }
            hasher.finalize()
        })
    }
}

impl From<BTreeMap<String, String>> for Identity {
    fn from(all: BTreeMap<String, String>) -> Self {
        let hash = OnceLock::new();
        Identity(Arc::new(Fields { all, hash }))
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.hash() == other.0.hash()
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(self.fields()).finish()
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.fields().serialize(s)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(d).map(Identity::from)
    }
}

impl Identity {
    /// Every field with the hash of its value.
    pub fn fields(&self) -> &BTreeMap<String, String> {
        &self.0.all
    }

    /// Gives a field another value.
    pub fn set(&mut self, field: String, value: String) {
        let fields = Arc::make_mut(&mut self.0);
        fields.all.insert(field, value);
        fields.hash = OnceLock::new();
    }

    /// The fields in which two identities differ, in order: the reason of a replacement.
    pub fn differences<'a>(&'a self, other: &'a Identity) -> Vec<&'a str> {
        let (own, others) = (self.fields(), other.fields());
        let mut names: Vec<&str> = own
            .keys()
            .chain(others.keys())
            .filter(|name| own.get(*name) != others.get(*name))
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The identity of `workload`. `watched` holds the content hash of every watched file that can
/// be read; one that cannot differs from each that can.
///
/// It holds exactly the fields that [`effects`](super::effects::effects) replaces for. Whether
/// it tells its readiness is one, since a running workload was given the socket or was not; the
/// hosts file is none, since it is rewritten in place.
pub fn identity(
    workload: &WorkloadNode,
    watched: &BTreeMap<PathBuf, String>,
    origin: Origin<'_>,
) -> Identity {
    let run = &workload.run;
    let mut fields = BTreeMap::from([
        ("command".to_owned(), origin.digest(&run.command)),
        ("environment".to_owned(), origin.digest(&run.environment)),
        ("user".to_owned(), digest(&run.user)),
        ("working_dir".to_owned(), origin.digest(&run.working_dir)),
        ("notify".to_owned(), digest(&run.notify)),
    ]);
    if let Some(container) = &run.container {
        fields.insert("hostname".to_owned(), digest(&container.hostname));
        fields.insert("root".to_owned(), origin.digest(&container.root));
        fields.insert("mounts".to_owned(), origin.digest(&container.mounts));
        fields.insert("tmpfs".to_owned(), digest(&container.tmpfs));
        fields.insert("network".to_owned(), network(workload, &container.network));
    }
    for path in &workload.watch {
        let content = watched.get(path).map_or("absent", String::as_str);
        fields.insert(origin.watch_field(path), digest(&content));
    }
    for path in run.container.iter().flat_map(ContainerRun::sources) {
        if let Some(hash) = origin.content(path) {
            fields
                .entry(origin.watch_field(path))
                .or_insert_with(|| digest(&hash));
        }
    }
    Identity::from(fields)
}

/// A namespace is made for one address; the firewall in it changes in place.
fn network(workload: &WorkloadNode, network: &NetworkRun) -> String {
    let place = workload.attachment.as_ref().map(|attachment| {
        (
            &attachment.network,
            &attachment.bridge,
            attachment.address,
            attachment.prefix,
            attachment.gateway,
        )
    });
    digest(&(network, place))
}

/// What the paths of a spec are relative to. Two trees that hold the same are told apart by
/// nothing: what a commit did not change goes on.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The spec's folder.
    pub spec_dir: &'a Path,
    /// The tree of the commit that it was read from.
    pub tree: Option<&'a Tree>,
}

impl<'a> Origin<'a> {
    /// The field that a watched file has in an [`Identity`]: its path as the spec's author
    /// knows it.
    pub fn watch_field(self, path: &Path) -> String {
        if let Ok(below) = path.strip_prefix(self.spec_dir) {
            return format!("watch:./{}", below.display());
        }
        let root = self.tree.map(|tree| path.strip_prefix(&tree.root));
        match root {
            Some(Ok(below)) => format!("watch:{}", below.display()),
            _ => format!("watch:{}", path.display()),
        }
    }

    /// The hash of what is found there, if the commit holds it: what a container has of a tree is
    /// part of what was reviewed, and so of what runs.
    fn content(self, path: &Path) -> Option<&'a str> {
        let tree = self.tree?;
        tree.objects.hash(path.strip_prefix(&tree.root).ok()?)
    }

    /// The hash of a value, whichever tree its paths lead into.
    fn digest<T: Serialize + fmt::Debug>(self, value: &T) -> String {
        match self.tree {
            None => digest(value),
            Some(tree) => {
                let root = tree.root.display().to_string();
                hash(text_of(value).replace(&root, "").as_bytes())
            }
        }
    }
}

/// 16 hex digits of the hash of a value's JSON.
fn digest<T: Serialize + fmt::Debug>(value: &T) -> String {
    hash(text_of(value).as_bytes())
}

/// A value as text; JSON has no form for a path that is not UTF-8.
fn text_of<T: Serialize + fmt::Debug>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| format!("{value:?}"))
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().chars().take(16).collect()
}
