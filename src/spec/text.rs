//! The small notations inside a spec's strings: durations, sizes, file modes, shell words,
//! mounts, names.

use std::time::Duration;

/// The longest duration that a spec may name.
pub const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads `30s`, `1m30s`, `250ms` or a bare `0`.
///
/// # Errors
/// Says why the text is not a duration, for use after "cannot read `…` as a duration: ".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the unit is missing".to_owned());
    }
    let duration = humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => {
            "the unit is missing".to_owned()
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            format!("`{unit}` is not a unit of time")
        }
        humantime::DurationError::NumberOverflow => "the number is too large".to_owned(),
        _ => "it is not a number and a unit".to_owned(),
    })?;
    if duration > MAX_DURATION {
        return Err("it is longer than a year".to_owned());
    }
    Ok(duration)
}

/// Reads a number of bytes: `10MB` (decimal), `10MiB` or `10m` (binary, as container tools
/// read it), or bare bytes. `None` when the text is no size.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().ok()?;
    let factor: u64 = match unit.trim_start() {
        "" | "b" | "B" => 1,
        "kB" | "KB" | "kb" => 1_000,
        "MB" | "mb" => 1_000_000,
        "GB" | "gb" => 1_000_000_000,
        "k" | "K" | "KiB" | "Ki" => 1 << 10,
        "m" | "M" | "MiB" | "Mi" => 1 << 20,
        "g" | "G" | "GiB" | "Gi" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads a file mode: `0644`, `644` or `0o644`, always octal. `None` for anything else.
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal =
        (3..=5).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(digits, 8).ok()?;
    (octal && mode <= 0o7777).then_some(mode)
}

/// Where expressions and statements (`{{ … }}`, `{% … %}`) stand in a text.
struct Templates<'t> {
    text: &'t str,
    /// The last closing braces of each kind. Beyond them nothing is looked for, so that many
    /// openings without an end cost no more than one.
    last: [Option<usize>; 2],
}

impl<'t> Templates<'t> {
    fn of(text: &'t str) -> Self {
        Templates {
            text,
            last: [text.rfind("}}"), text.rfind("%}")],
        }
    }

    /// Where the expression ends that begins at byte `at`; `None` when none does.
    fn end(&self, at: usize) -> Option<usize> {
        let rest = self.text.get(at..)?;
        let (close, last) = match rest.get(..2)? {
            "{{" => ("}}", self.last[0]),
            "{%" => ("%}", self.last[1]),
            _ => return None,
        };
        if last? < at {
            return None;
        }
        rest.find(close).map(|found| at + found + 2)
    }
}

/// Splits a command line as a shell splits words: blanks, both kinds of quotes, backslashes;
/// nothing is expanded. An expression `{{ … }}` is never split.
///
/// # Errors
/// Says which quote is not closed.
pub fn split_words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let templates = Templates::of(line);
    let mut at = 0;
    while let Some(c) = line.get(at..).and_then(|rest| rest.chars().next()) {
        if let Some(end) = templates.end(at) {
            word.get_or_insert_default()
                .push_str(line.get(at..end).unwrap_or(""));
            at = end;
            continue;
        }
        at += c.len_utf8();
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => {
                let escaped = line
                    .get(at..)
                    .and_then(|rest| rest.chars().next())
                    .ok_or_else(|| "a backslash ends it".to_owned())?;
                at += escaped.len_utf8();
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(escaped, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some('"') => Err("a double quote is not closed".to_owned()),
        Some(_) => Err("a single quote is not closed".to_owned()),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

/// Splits at every `:` that is not inside an expression.
pub fn split_colons(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let templates = Templates::of(text);
    let mut start = 0;
    let mut at = 0;
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        if let Some(end) = templates.end(at) {
            at = end;
            continue;
        }
        if c == ':' {
            parts.push(text.get(start..at).unwrap_or(""));
            start = at + 1;
        }
        at += c.len_utf8();
    }
    parts.push(text.get(start..).unwrap_or(""));
    parts
}

/// Whether the text holds an expression, so that it is not known yet.
pub fn is_dynamic(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// The longest name of a stack. With the longest name inside it, a replica's number and two
/// separators it stays within the 64 characters of a machine's name.
pub const MAX_STACK_NAME: usize = 24;
/// The longest name of a container, process and so on.
pub const MAX_NAME: usize = 32;

/// Whether `name` may name something: lower-case letters, digits and inner `-` (and `_`, where
/// the name reaches no hostname), at most `most` characters.
pub fn is_name(name: &str, most: usize, underscore: bool) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| fits(b) || b == b'-' || (underscore && b == b'_');
    let bytes = name.as_bytes();
    name.len() <= most
        && bytes.iter().copied().all(inner)
        && bytes.first().copied().is_some_and(fits)
        && bytes.last().copied().is_some_and(fits)
}

/// A name as near to `name` as the rules allow, if there is one.
pub fn name_like(name: &str, most: usize, underscore: bool) -> Option<String> {
    let mapped: String = name
        .chars()
        .map(|c| match c {
            '_' if underscore => '_',
            c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
            _ => '-',
        })
        .take(most)
        .collect();
    let name = mapped.trim_matches(['-', '_']);
    is_name(name, most, underscore).then(|| name.to_owned())
}

/// The names of a workload's instances: its own without `replicas`, else numbered from 1.
pub fn instance_names(name: &str, replicas: Option<u32>) -> Vec<String> {
    match replicas {
        None => vec![name.to_owned()],
        Some(count) => (1..=count).map(|n| format!("{name}{n}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for text in [
            "",
            "5",
            "5x",
            "s",
            "-1s",
            "2years",
            "99999999999999999999s",
            "1e9s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("10MB"), Some(10_000_000));
        assert_eq!(parse_size("10 MiB"), Some(10 << 20));
        assert_eq!(parse_size("10m"), Some(10 << 20));
        assert_eq!(parse_size("512"), Some(512));
        for text in ["", "MB", "1.5MB", "10 apples", "99999999999g", "-1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0644"), Some(0o644));
        assert_eq!(parse_mode("644"), Some(0o644));
        assert_eq!(parse_mode("0o4755"), Some(0o4755));
        for text in ["", "0o", "8", "0888", "77777", "u+x", "+644", "+0644"] {
            assert_eq!(parse_mode(text), None, "{text}");
        }
    }

    #[test]
    fn words_split_as_in_a_shell() {
        let words = |line| split_words(line).unwrap();
        assert_eq!(words("  a  b "), ["a", "b"]);
        assert_eq!(
            words(r#"nginx -g "daemon off;""#),
            ["nginx", "-g", "daemon off;"]
        );
        assert_eq!(
            words(r#"a'b c'd '' "x\"y\n" \ "#),
            ["ab cd", "", "x\"y\\n", " "]
        );
        assert_eq!(
            words(r#"echo {{ name ~ " of " }}-x '{{ a }} b'"#),
            ["echo", r#"{{ name ~ " of " }}-x"#, "{{ a }} b"]
        );
        assert_eq!(words(""), Vec::<String>::new());
        assert!(split_words("a 'b").is_err());
        assert!(split_words("a \"b").is_err());
        assert!(split_words("a\\").is_err());
    }

    #[test]
    fn colons_split_outside_of_expressions() {
        assert_eq!(split_colons("a:b:ro"), ["a", "b", "ro"]);
        assert_eq!(split_colons("{{ a[1:2] }}:/x"), ["{{ a[1:2] }}", "/x"]);
        assert_eq!(split_colons("{{ open:b"), ["{{ open", "b"]);
        assert_eq!(split_colons("ä:"), ["ä", ""]);
    }

    #[test]
    fn names() {
        for name in ["a", "prime", "a-1", "9", "0-0"] {
            assert!(is_name(name, 8, false), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a_b", "ä", "a.b", "a/b", "123456789"] {
            assert!(!is_name(name, 8, false), "{name}");
        }
        assert!(is_name("a_b", 8, true));
        assert!(!is_name("_b", 8, true));
        assert_eq!(name_like("Prime_1", 24, false).as_deref(), Some("prime-1"));
        assert_eq!(name_like("__", 24, true), None);
    }

    #[test]
    fn instances_are_numbered_when_replicas_are_given() {
        assert_eq!(instance_names("a", None), ["a"]);
        assert_eq!(instance_names("a", Some(1)), ["a1"]);
        assert_eq!(instance_names("a", Some(0)), Vec::<String>::new());
    }
}
