//! What a commit's tree holds, and where its symlinks lead.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::path::Path;

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// What lies at one path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its hash; of a symlink that of its target's text.
    pub hash: String,
    /// Where it leads, if it is a symlink.
    pub target: Option<String>,
}

impl Object {
    /// A file or a folder.
    pub fn plain(hash: String) -> Self {
        Object { hash, target: None }
    }
}

/// What tells the contents of a tree's files and folders apart: their hashes by their paths.
/// Nothing of it has to be read again, because a tree is never changed. Paths have no leading
/// `/`, no `.` or `..`, and that of the whole tree is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects(BTreeMap<String, Object>);

impl Objects {
    /// Reads lines of a hash, a blank, a path, and for a symlink a tab and its target. Neither
    /// holds a control character: a commit with such a name is refused.
    pub fn read(text: &str) -> Objects {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let objects = lines.map(|(hash, rest)| {
            let (path, target) = match rest.split_once('\t') {
                Some((path, target)) => (path, Some(target.to_owned())),
                None => (rest, None),
            };
            let hash = hash.to_owned();
            (path.to_owned(), Object { hash, target })
        });
        Objects(objects.collect())
    }

    /// The text that [`Objects::read`] reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (path, object) in &self.0 {
            // Writing to a string does not fail.
            let _ = write!(text, "{} {path}", object.hash);
            if let Some(target) = &object.target {
                let _ = write!(text, "\t{target}");
            }
            text.push('\n');
        }
        text
    }

    /// Notes what lies at a path.
    pub fn insert(&mut self, path: String, object: Object) {
        self.0.insert(path, object);
    }

    /// Every symlink, and its target.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter();
        all.filter_map(|(path, object)| Some((path.as_str(), object.target.as_deref()?)))
    }

    /// The hash of what is found at this path of the tree, through whichever symlinks.
    pub fn hash(&self, path: &Path) -> Option<&str> {
        let real = self.real(path.to_str()?)?;
        self.0.get(&real).map(|object| object.hash.as_str())
    }

    /// The path without symlinks; `None` where it leads out of the tree, or in a circle.
    pub fn real(&self, path: &str) -> Option<String> {
        let mut at: Vec<String> = Vec::new();
        let mut rest: VecDeque<String> = parts(path);
        let mut followed = 0;
        while let Some(part) = rest.pop_front() {
            if part == ".." {
                at.pop()?;
                continue;
            }
            at.push(part);
            let object = self.0.get(&at.join("/"));
            let Some(target) = object.and_then(|object| object.target.as_deref()) else {
                continue;
            };
            followed += 1;
            if target.starts_with('/') || target.is_empty() || followed > LINKS {
                return None;
            }
            at.pop();
            for part in parts(target).into_iter().rev() {
                rest.push_front(part);
            }
        }
        Some(at.join("/"))
    }
}

fn parts(path: &str) -> VecDeque<String> {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(path: &str, links: &[(&str, &str)]) -> Option<String> {
        let mut objects = Objects::default();
        for (path, target) in links {
            let (hash, target) = ("aa".to_owned(), Some((*target).to_owned()));
            objects.insert((*path).to_owned(), Object { hash, target });
        }
        objects.real(path)
    }

    #[test]
    fn inside_is_inside() {
        for (path, links, leads) in [
            ("a", &[("a", "b")][..], "b"),
            ("d/a", &[("d/a", "../b/./c")], "b/c"),
            ("d/e/a", &[("d/e/a", "../../x")], "x"),
            ("a", &[("a", "not/there")], "not/there"),
            ("d/a", &[("d/a", "../l/x"), ("l", "d")], "d/x"),
            ("l/x", &[("l", "d")], "d/x"),
            ("", &[("l", "d")], ""),
        ] {
            assert_eq!(real(path, links).as_deref(), Some(leads), "{path}");
        }
    }

    #[test]
    fn outside_is_found_on_every_way() {
        let leads_out = |path: &str, links: &[(&str, &str)]| real(path, links).is_none();
        assert!(leads_out("a", &[("a", "/etc/passwd")]));
        assert!(leads_out("a", &[("a", "..")]));
        assert!(leads_out("d/a", &[("d/a", "../../x")]));
        assert!(leads_out("a", &[("a", "d/../../x")]));
        // `up` leads to the top, and what follows it out of it.
        let chain = [("d/up", ".."), ("d/a", "up/../x")];
        assert!(!leads_out("d/up", &chain));
        assert!(leads_out("d/a", &chain));
        assert!(leads_out("a", &[("a", "b"), ("b", "c"), ("c", "../x")]));
        assert!(leads_out("a", &[("a", "a")]), "a circle leads nowhere");
        assert!(leads_out("a", &[("a", "")]));
    }

    #[test]
    fn a_link_has_the_hash_of_what_it_leads_to() {
        let text = "11 \n22 a b\n33 current\treleases/2\n44 releases\n55 releases/2\n66 \
                    releases/2/x\n";
        let objects = Objects::read(text);
        assert_eq!(objects.text(), text);
        let hash = |path: &str| objects.hash(Path::new(path));
        assert_eq!(hash(""), Some("11"));
        assert_eq!(hash("a b"), Some("22"));
        assert_eq!(hash("current"), Some("55"));
        assert_eq!(hash("current/x"), Some("66"));
        assert_eq!(hash("current/y"), None);
        let links: Vec<(&str, &str)> = objects.links().collect();
        assert_eq!(links, [("current", "releases/2")]);
    }
}
