//! Rust source, read just well enough for the rules: without comments, strings and, if wished,
//! tests.

use std::path::{Path, PathBuf};

/// A word or a sign of the source, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// The tokens of a file.
pub struct Code {
    tokens: Vec<Token>,
}

impl Code {
    /// All of it.
    pub fn whole(text: &str) -> Self {
        Code {
            tokens: tokenize(text),
        }
    }

    /// Without the items under `#[cfg(test)]`.
    pub fn product(text: &str) -> Self {
        let mut code = Code::whole(text);
        while let Some(start) = code.find(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            let end = code.end_of_item(start);
            code.tokens.drain(start..end);
        }
        code
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn find(&self, wanted: &[&str]) -> Option<usize> {
        (0..self.tokens.len()).find(|at| {
            wanted
                .iter()
                .enumerate()
                .all(|(n, want)| self.text(at + n) == *want)
        })
    }

    /// Behind the item that starts at `start`: its closing brace, or its semicolon.
    fn end_of_item(&self, start: usize) -> usize {
        let mut depth = 0usize;
        for at in start..self.tokens.len() {
            match self.text(at) {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && self.text(at) == "}" {
                        return at + 1;
                    }
                }
                ";" if depth == 0 => return at + 1,
                _ => {}
            }
        }
        self.tokens.len()
    }

    /// Lines where `name` is called.
    pub fn calls_of(&self, name: &str) -> Vec<usize> {
        self.followed(name, "(")
            .filter(|at| self.text(at.wrapping_sub(1)) != "fn")
            .map(|at| self.tokens[at].line)
            .collect()
    }

    /// Lines where the macro `name` is used.
    pub fn macros_of(&self, name: &str) -> Vec<usize> {
        self.followed(name, "!")
            .map(|at| self.tokens[at].line)
            .collect()
    }

    fn followed<'a>(&'a self, name: &'a str, sign: &'a str) -> impl Iterator<Item = usize> + 'a {
        (0..self.tokens.len()).filter(move |at| self.text(*at) == name && self.text(at + 1) == sign)
    }

    /// Names that are declared by one of these keywords.
    pub fn declared(&self, keywords: &[&str]) -> Vec<(usize, String)> {
        (0..self.tokens.len())
            .filter(|at| keywords.contains(&self.text(*at)) && is_word(self.text(at + 1)))
            .map(|at| (self.tokens[at].line, self.text(at + 1).to_owned()))
            .collect()
    }

    /// Every function with a body: its name, its line, its length in lines.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let starts = (0..self.tokens.len())
            .filter(|at| self.text(*at) == "fn" && is_word(self.text(at + 1)));
        starts
            .filter_map(|at| {
                let end = self.end_of_item(at);
                let last = self.tokens.get(end.checked_sub(1)?)?;
                let first = self.tokens[at].line;
                let body = last.text == "}";
                body.then(|| (self.text(at + 1).to_owned(), first, last.line - first + 1))
            })
            .collect()
    }
}

/// Every path in the code, groups of `use` spelt out, with its line.
pub fn paths(code: &Code) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.tokens.len() {
        let starts = is_word(code.text(at)) && code.text(at.wrapping_sub(1)) != ".";
        at = if starts {
            tree(code, at, &[], &mut found)
        } else {
            at + 1
        };
    }
    found
}

/// Reads one path, or one tree of paths, that starts at `at`; gives what comes behind it.
fn tree(
    code: &Code,
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let line = code.tokens[at].line;
    loop {
        path.push(code.text(at).to_owned());
        at += 1;
        if code.text(at) != "::" {
            break;
        }
        let next = code.text(at + 1);
        if next == "{" {
            return group(code, at + 2, &path, found);
        }
        if !is_word(next) && next != "*" {
            break;
        }
        at += 1;
    }
    found.push((line, path));
    at
}

fn group(
    code: &Code,
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    while at < code.tokens.len() && code.text(at) != "}" {
        at = match code.text(at) {
            "," => at + 1,
            _ => tree(code, at, prefix, found),
        };
    }
    at + 1
}

/// The files, and folders, of modules that are declared under `#[cfg(test)]`.
pub fn test_only_files(all: &[(PathBuf, String)]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, text) in all {
        let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") => path.parent().unwrap_or(Path::new("")).to_owned(),
            _ => path.with_extension(""),
        };
        let code = Code::whole(text);
        let signs = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
        for at in 0..code.tokens.len() {
            let here = (0..signs.len()).all(|n| code.text(at + n) == signs[n]);
            if here && code.text(at + signs.len() + 1) == ";" {
                let name = code.text(at + signs.len());
                found.push(folder.join(name));
                found.push(folder.join(format!("{name}.rs")));
            }
        }
    }
    found
}

/// The words of a name, in lower case: `HttpProbe` and `http_probe` are `http` and `probe`.
pub fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for sign in name.chars() {
        if (sign == '_' || sign.is_uppercase()) && words.last().is_some_and(|w| !w.is_empty()) {
            words.push(String::new());
        }
        if sign != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(sign.to_lowercase());
        }
    }
    words
}

fn is_word(text: &str) -> bool {
    text.starts_with(|sign: char| sign.is_alphabetic() || sign == '_')
}

fn tokenize(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut line = 1;
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (length, keep) = next_token(rest);
        let (token, behind) = rest.split_at(length);
        if keep {
            tokens.push(Token {
                text: token.to_owned(),
                line,
            });
        }
        line += token.matches('\n').count();
        rest = behind;
    }
    tokens
}

/// How many bytes the next token has, and whether it is one that the rules read.
fn next_token(rest: &str) -> (usize, bool) {
    let first = rest.chars().next().unwrap_or(' ');
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (end_of_block_comment(rest), false);
    }
    if let Some(length) = string_length(rest) {
        return (length, false);
    }
    if first == '\'' {
        return (quote_length(rest), false);
    }
    if rest.starts_with("::") {
        return (2, true);
    }
    if first.is_alphanumeric() || first == '_' {
        let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_');
        return (end.unwrap_or(rest.len()), true);
    }
    (first.len_utf8(), !first.is_whitespace())
}

fn end_of_block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(here) = rest.get(at..) {
        if here.is_empty() {
            break;
        } else if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a string literal, prefixes and hashes included, if one starts here.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let behind = rest.strip_prefix(prefix).unwrap_or("x");
        behind.trim_start_matches('#').starts_with('"')
            && (prefix.ends_with('r') || behind.starts_with('"'))
    })?;
    let behind = &rest[prefix.len()..];
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let start = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let close = format!("\"{}", "#".repeat(hashes));
        let end = rest[start..].find(&close);
        return Some(end.map_or(rest.len(), |end| start + end + close.len()));
    }
    let mut escaped = false;
    for (at, sign) in rest[start..].char_indices() {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// A character literal whole, or only the quote of a lifetime.
fn quote_length(rest: &str) -> usize {
    let mut signs = rest.char_indices().skip(1);
    match signs.next() {
        Some((_, '\\')) => {
            // The sign behind the backslash may be a quote itself.
            let behind = signs.nth(1);
            match behind.and_then(|(at, _)| rest[at..].find('\'').map(|end| at + end + 1)) {
                Some(end) => end,
                None => rest.len(),
            }
        }
        Some((at, sign)) if rest[at + sign.len_utf8()..].starts_with('\'') => {
            at + sign.len_utf8() + 1
        }
        _ => 1,
    }
}
