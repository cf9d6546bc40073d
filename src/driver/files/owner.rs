//! `user`, `user:group` or numbers, as the host's user database has them.

use nix::unistd::{Group, User};

/// The ids that `owner` stands for. The group is the user's own unless it is given; a number
/// that no user has stands for the group of the same number.
///
/// # Errors
/// Says which name is unknown.
pub(crate) fn resolve(owner: &str) -> Result<(u32, u32), String> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let (uid, own_group) = user_id(user)?;
    let gid = match group {
        Some(group) => group_id(group)?,
        None => own_group,
    };
    Ok((uid, gid))
}

fn user_id(name: &str) -> Result<(u32, u32), String> {
    if let Ok(number) = name.parse::<u32>() {
        let known = User::from_uid(number.into()).ok().flatten();
        let group = known.map_or(number, |user| user.gid.as_raw());
        return Ok((number, group));
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(format!("this machine has no user `{name}`")),
        Err(error) => Err(format!("cannot look up the user `{name}`: {error}")),
    }
}

fn group_id(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("this machine has no group `{name}`")),
        Err(error) => Err(format!("cannot look up the group `{name}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::resolve;

    #[test]
    fn names_and_numbers() {
        assert_eq!(resolve("root").unwrap(), (0, 0));
        assert_eq!(resolve("root:12").unwrap(), (0, 12));
        assert_eq!(resolve("54321").unwrap(), (54321, 54321));
        assert_eq!(resolve("7:root").unwrap(), (7, 0));
        let error = resolve("nobody-of-this-name").unwrap_err();
        assert_eq!(error, "this machine has no user `nobody-of-this-name`");
        let error = resolve("root:no-such-group").unwrap_err();
        assert_eq!(error, "this machine has no group `no-such-group`");
    }
}
