//! Where symlinks inside a tree lead.

use std::collections::BTreeMap;
use std::collections::VecDeque;

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// Whether the link at `path`, whose target is in `links`, stays inside the tree however the
/// links on its way lead. Paths have no leading `/` and no `.` or `..`.
pub(super) fn stays_inside(path: &str, links: &BTreeMap<String, String>) -> bool {
    let mut at: Vec<String> = Vec::new();
    let mut rest: VecDeque<String> = parts(path);
    let mut followed = 0;
    while let Some(part) = rest.pop_front() {
        match part.as_str() {
            ".." => {
                if at.pop().is_none() {
                    return false;
                }
            }
            _ => {
                at.push(part);
                let Some(target) = links.get(&at.join("/")) else {
                    continue;
                };
                followed += 1;
                if target.starts_with('/') || target.is_empty() || followed > LINKS {
                    return false;
                }
                at.pop();
                for part in parts(target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
        }
    }
    true
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

    fn stays(path: &str, links: &[(&str, &str)]) -> bool {
        let links = links
            .iter()
            .map(|(path, target)| ((*path).to_owned(), (*target).to_owned()))
            .collect();
        stays_inside(path, &links)
    }

    #[test]
    fn inside_is_inside() {
        assert!(stays("a", &[("a", "b")]));
        assert!(stays("d/a", &[("d/a", "../b/./c")]));
        assert!(stays("d/e/a", &[("d/e/a", "../../x")]));
        assert!(stays("a", &[("a", "not/there")]));
        assert!(stays("d/a", &[("d/a", "../l/x"), ("l", "d")]));
    }

    #[test]
    fn outside_is_found_on_every_way() {
        assert!(!stays("a", &[("a", "/etc/passwd")]));
        assert!(!stays("a", &[("a", "..")]));
        assert!(!stays("d/a", &[("d/a", "../../x")]));
        assert!(!stays("a", &[("a", "d/../../x")]));
        // `up` leads to the top, and what follows it out of it.
        let chain = [("d/up", ".."), ("d/a", "up/../x")];
        assert!(stays("d/up", &chain));
        assert!(!stays("d/a", &chain));
        assert!(!stays("a", &[("a", "b"), ("b", "c"), ("c", "../x")]));
        assert!(!stays("a", &[("a", "a")]), "a circle leads nowhere");
        assert!(!stays("a", &[("a", "")]));
    }
}
