//! Plans that are kept in files: `plan --out` writes them, `apply` reads them.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::error::CommandError;
use super::spec_file;
use crate::driver::because;
use crate::plan::saved::{MARK, SavedPlan, VERSION};

/// The largest file that is read as a plan, in bytes.
pub const LIMIT: u64 = 4 << 20;

/// Writes the plan in one step, readable by its owner alone: it tells what runs here.
///
/// # Errors
/// When the plan is larger than what is read back, or what the disk said.
pub fn write(path: &Path, plan: &SavedPlan) -> Result<(), CommandError> {
    let cannot =
        |why: &str| CommandError::new(format!("cannot write the plan `{}`: {why}", path.display()));
    let mut text = serde_json::to_vec_pretty(plan).map_err(|error| cannot(&error.to_string()))?;
    text.push(b'\n');
    if text.len() as u64 > LIMIT {
        return Err(cannot(&format!("it is larger than {} MiB", LIMIT >> 20)));
    }
    let path = std::path::absolute(path).map_err(|error| cannot(&because(&error)))?;
    let Some(folder) = path.parent() else {
        return Err(cannot("it is a folder"));
    };
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => return Err(cannot("it is a folder")),
        // It would be replaced: a device such as `/dev/null` for every program of the machine.
        Ok(found) if !found.is_file() => return Err(cannot("it is no regular file")),
        _ => {}
    }
    let persist = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    persist().map_err(|error| cannot(&because(&error)))
}

/// The plan in a file that must hold one.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read(path: &Path) -> Result<SavedPlan, CommandError> {
    let text = spec_file::text(path, "plan", LIMIT)?.text;
    recognise(path, &text)?.ok_or_else(|| {
        CommandError::new(format!("`{}` is no plan of hatchery", path.display()))
            .hint("`hatchery plan SPEC --out FILE` makes one")
    })
}

/// The plan that this text is; `None` when it is something else, such as a spec.
///
/// # Errors
/// When it is a plan of another form.
pub fn recognise(path: &Path, text: &str) -> Result<Option<SavedPlan>, CommandError> {
    let Ok(Value::Object(found)) = serde_json::from_str(text) else {
        return Ok(None);
    };
    let Some(version) = found.get(MARK) else {
        return Ok(None);
    };
    let cannot = |why: String| {
        CommandError::new(format!("cannot read the plan `{}`: {why}", path.display()))
            .hint("make it again with `hatchery plan SPEC --out FILE`")
    };
    if version.as_u64() != Some(u64::from(VERSION)) {
        return Err(cannot(format!(
            "its form has version {version}, and this hatchery reads version {VERSION}"
        )));
    }
    match serde_json::from_value(Value::Object(found)) {
        Ok(plan) => Ok(Some(plan)),
        Err(error) => Err(cannot(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn plan() -> SavedPlan {
        SavedPlan {
            hatchery_plan: VERSION,
            made_by: "1".to_owned(),
            stack: "s".to_owned(),
            spec: "/s.yaml".into(),
            overlays: Vec::new(),
            vars: Vec::new(),
            spec_hash: String::new(),
            by_controller: false,
            inputs: [("/a".into(), "b".to_owned())].into(),
            items: Vec::new(),
            world: [("containers/a1".parse().unwrap(), Default::default())].into(),
        }
    }

    #[test]
    fn a_plan_comes_back_as_it_was_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        write(&path, &plan()).unwrap();
        assert_eq!(read(&path).unwrap(), plan());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_plan_is_told_from_a_spec_by_its_content() {
        let path = Path::new("x");
        assert_eq!(recognise(path, "name: prime\n"), Ok(None));
        assert_eq!(recognise(path, r#"{"name": "prime"}"#), Ok(None));
        let of_later = recognise(path, r#"{"hatchery_plan": 2}"#).unwrap_err();
        insta::assert_snapshot!(anstream::adapter::strip_str(&of_later.to_string()), @r"
        error: cannot read the plan `x`: its form has version 2, and this hatchery reads version 1
        hint: make it again with `hatchery plan SPEC --out FILE`
        ");
        let torn = recognise(path, r#"{"hatchery_plan": 1}"#).unwrap_err();
        insta::assert_snapshot!(anstream::adapter::strip_str(&torn.to_string()), @r"
        error: cannot read the plan `x`: missing field `made_by`
        hint: make it again with `hatchery plan SPEC --out FILE`
        ");
    }
}
