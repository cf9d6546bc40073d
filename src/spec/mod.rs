//! YAML -> [`model::Spec`], with places; validation. The only user of the YAML crates.

pub mod diagnostic;
pub mod emit;
pub mod gather;
pub mod generation;
pub mod model;
pub mod node;
pub mod normal;
pub mod places;
pub mod report;
pub mod schema;
pub mod signal;
pub mod suggest;
pub mod text;
pub mod texts;
pub mod time;

mod assemble;
mod decode;
mod validate;
mod variables;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::HashSet;

pub use self::diagnostic::{Diagnostic, position};
pub use self::places::{Path, Places, Step};
pub use self::report::report;
pub use self::texts::{Sources, SpecText};
pub use self::validate::validate;

use self::model::{GitSource, Spec};

/// Reads a spec from YAML (or JSON, which is YAML). Messages about the file as a whole call it
/// `file_name`.
///
/// # Errors
/// As [`parse_texts`].
pub fn parse(file_name: &str, text: &str) -> Result<(Spec, Places), Vec<Diagnostic>> {
    let spec = SpecText::of(file_name, text);
    parse_texts(&spec, &spec.sources())
}

/// Reads a spec from all of its texts, which lie in this row.
///
/// # Errors
/// Every error of the files, in the order of their places. When the structure is wrong,
/// what could be read of it is validated all the same, so that semantic errors are among them;
/// without structural errors, [`validate`] is still to be called.
pub fn parse_texts(
    spec: &SpecText,
    sources: &Sources<'_>,
) -> Result<(Spec, Places), Vec<Diagnostic>> {
    let assembled = assemble::assemble(spec, sources);
    let mut errors = assembled.errors;
    let Some(root) = assembled.root else {
        return Err(in_order(errors));
    };
    let decoded = decode::decode(&root);
    let places = Places::new(root);
    errors.extend(decoded.errors);
    if errors.is_empty() {
        return Ok((decoded.sound, places));
    }
    let (sound, faulty) = (&decoded.sound, &decoded.faulty);
    errors.extend(validate::beyond_references(sound, &places));
    errors.extend(validate::references(sound, &[faulty], &places));
    errors.extend(validate::references(faulty, &[sound], &places));
    Err(in_order(errors))
}

/// Reads a spec and validates it; see [`parse`] and [`validate`].
///
/// # Errors
/// Every error of the file, in the order of their places.
pub fn read(file_name: &str, text: &str) -> Result<(Spec, Places), Vec<Diagnostic>> {
    let text = SpecText::of(file_name, text);
    read_texts(&text, &text.sources())
}

/// Reads a spec from all of its texts and validates it; see [`parse_texts`] and [`validate`].
///
/// # Errors
/// Every error of the files, in the order of their places.
pub fn read_texts(
    text: &SpecText,
    sources: &Sources<'_>,
) -> Result<(Spec, Places), Vec<Diagnostic>> {
    let (spec, places) = parse_texts(text, sources)?;
    let errors = validate(&spec, &places);
    if errors.is_empty() {
        Ok((spec, places))
    } else {
        Err(in_order(errors))
    }
}

/// Reads a file that names the git repository of a stack, in the form `source: { git: … }`.
///
/// # Errors
/// Every error of the file, in the order of their places.
pub fn read_source(file_name: &str, text: &str) -> Result<GitSource, Vec<Diagnostic>> {
    let loaded = yaml::load::load(&yaml::load::Text::alone(file_name, text));
    let mut errors = loaded.errors;
    let source = loaded.root.map(|root| decode::source::file(&root));
    match source {
        Some(Ok(source)) if errors.is_empty() => return Ok(source),
        Some(Err(more)) => errors.extend(more),
        _ => {}
    }
    Err(in_order(errors))
}

/// A path inside a repository's tree without `.`; `None` when it may lead out of it.
pub fn within_tree(path: &std::path::Path) -> Option<std::path::PathBuf> {
    decode::source::within_tree(path)
}

/// Sorted by place; what two aliases of one value say twice is said once.
fn in_order(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut said = HashSet::new();
    errors.retain(|error| said.insert((error.span.clone(), error.message.clone())));
    errors.sort_by_key(|error| error.span.as_ref().map(|span| (span.start, span.end)));
    errors
}
