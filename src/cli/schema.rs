//! `hatchery schema`: what a spec may say, and what changing it does.

use std::process::ExitCode;

use anstyle::Style;

use super::error::CommandError;
use super::screen;
use super::table::{cell, columns};
use crate::graph::effects::effects;

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// Print what changing each field does to what runs, instead
    #[arg(long)]
    effects: bool,
}

/// Prints it.
///
/// # Errors
/// When nobody reads it.
pub fn run(args: &SchemaArgs) -> Result<ExitCode, CommandError> {
    match args.effects {
        true => screen::say(&table())?,
        false => screen::say(&crate::spec::schema::text())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table() -> String {
    let plain = |text: &str| cell(text, Style::new());
    let mut effects = effects();
    effects.sort_by(|one, other| one.path.cmp(&other.path));
    let rows: Vec<_> = effects
        .iter()
        .map(|field| {
            let effect = field.effect.word();
            vec![plain(&field.path), plain(effect), plain(field.says)]
        })
        .collect();
    columns(&["FIELD", "EFFECT", "WHAT HAPPENS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_line() {
        let table = table();
        assert_eq!(table.lines().count(), effects().len() + 1);
        let of = |path: &str| {
            let mut lines = table.lines();
            lines.find(|line| line.split_whitespace().next() == Some(path))
        };
        let command = of("containers.*.command").unwrap_or_default();
        assert!(command.contains(" replace "), "{command}");
        let delay = of("containers.*.restart.delay").unwrap_or_default();
        assert!(delay.contains(" nothing "), "{delay}");
    }
}
