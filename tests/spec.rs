//! Every fixture of `fixtures/specs`: the good ones are read, the bad ones are refused with the
//! errors that they announce, at the places that they announce.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use hatchery::spec::{self, Diagnostic, position};

fn files(folder: &str) -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, PathBuf)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot read `{}`: {error}", folder.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, path)
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "`{}` is empty", folder.display());
    files
}

/// `LINE:COLUMN message` of each error.
fn told(text: &str, errors: &[Diagnostic]) -> Vec<String> {
    errors
        .iter()
        .map(|error| match &error.span {
            Some(span) => {
                let (line, column) = position(text, span.start);
                format!("{line}:{column} {}", error.message)
            }
            None => format!("- {}", error.message),
        })
        .collect()
}

/// A fixture announces its errors in comments `#! LINE:COLUMN message`.
fn announced(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("#! "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_bad_spec_is_refused_with_the_errors_that_it_announces() {
    let mut wrong = String::new();
    for (name, path) in files("fixtures/specs/bad") {
        let text = fs::read_to_string(&path).unwrap();
        let told = match spec::read(&name, &text) {
            Ok(_) => Vec::new(),
            Err(errors) => told(&text, &errors),
        };
        let announced = announced(&text);
        if told != announced || told.is_empty() {
            wrong.push_str(&format!("{name}:\n"));
            for line in &told {
                wrong.push_str(&format!("#! {line}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "these were told instead:\n{wrong}");
}

#[test]
fn reports_read_as_recorded() {
    for (name, path) in files("fixtures/specs/bad") {
        let text = fs::read_to_string(&path).unwrap();
        let errors = spec::read(&name, &text).expect_err(&name);
        let report = spec::report(&name, &text, &errors, false);
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), report);
    }
}

#[test]
fn every_good_spec_is_read() {
    let mut good = files("fixtures/specs/good");
    let prime = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs/prime/prime.yaml");
    good.push(("prime.yaml".to_owned(), prime));
    for (name, path) in good {
        let text = fs::read_to_string(&path).unwrap();
        if let Err(errors) = spec::read(&name, &text) {
            panic!("{}", spec::report(&name, &text, &errors, false));
        }
    }
}
