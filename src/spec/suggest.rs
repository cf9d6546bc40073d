//! "did you mean".

/// The candidate that `word` was most likely meant to be, if any is near enough.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Comparing is quadratic, and nobody mistypes a word of this length.
    if word.chars().count() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (score(&lower, candidate), candidate))
        .filter(|(score, _)| *score > 0.0)
        // The first of equals wins, so that the order of display decides.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        })
        .map(|(_, candidate)| candidate)
}

/// How near two words are, 0 when they are not near at all.
fn score(word: &str, candidate: &str) -> f64 {
    let target = candidate.to_lowercase();
    let edits = strsim::damerau_levenshtein(word, &target);
    let longest = word.chars().count().max(target.chars().count());
    // One edit in three letters, two in six, and so on; a plural or a prefix of a longer word
    // passes too.
    if edits * 3 <= longest.max(3) {
        let edits = u32::try_from(edits).unwrap_or(u32::MAX);
        return 2.0 - f64::from(edits) * 0.1;
    }
    let similar = strsim::jaro_winkler(word, &target);
    if similar >= 0.88 { similar } else { 0.0 }
}

/// The words as one enumeration, each in backticks: "`a`, `b` or `c`" with "or" as `joint`.
pub fn listed<'c>(words: impl IntoIterator<Item = &'c str>, joint: &str) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {joint} {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["replicas", "restart", "root", "ready"];
        assert_eq!(nearest("replica", words), Some("replicas"));
        assert_eq!(nearest("Restart", words), Some("restart"));
        assert_eq!(nearest("rediness", words), None);
        assert_eq!(nearest("raedy", words), Some("ready"));
        assert_eq!(nearest("elephant", words), None);
    }

    #[test]
    fn a_list_reads_as_a_sentence() {
        assert_eq!(listed([], "or"), "");
        assert_eq!(listed(["a"], "or"), "`a`");
        assert_eq!(listed(["a", "b", "c"], "or"), "`a`, `b` or `c`");
        assert_eq!(listed(["a", "b"], "and"), "`a` and `b`");
    }
}
