//! Users and groups as files hold them, for containers.
//!
//! `systemd-nspawn --user=` takes nothing but a name that the container's own passwd knows,
//! with that entry's groups. Everything else that a spec may say (`1000`, `www-data:adm`) is
//! brought into this form by an entry of a generated passwd.

/// A container's account files and the name to look up in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accounts {
    /// The text of `/etc/passwd`.
    pub passwd: String,
    /// The text of `/etc/group`.
    pub group: String,
    /// The user's name in it; `None` for root.
    pub user: Option<String>,
    /// Whether `passwd` differs from what it was made of.
    pub changed: bool,
}

/// Finds `user` (`name`, `uid`, either with `:group` or `:gid`) in these files, and adds an
/// entry where there is none that says just that.
///
/// # Errors
/// A name that the files do not know.
pub(super) fn resolve(passwd: &str, group: &str, user: Option<&str>) -> Result<Accounts, String> {
    let mut accounts = Accounts {
        passwd: passwd.to_owned(),
        group: group.to_owned(),
        user: None,
        changed: false,
    };
    let Some(wanted) = user else {
        return Ok(accounts);
    };
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let known = entry(passwd, name);
    let uid = match (known, name.parse::<u32>()) {
        (Some(fields), _) => number(&fields, 2),
        (None, Ok(uid)) => Some(uid),
        (None, Err(_)) => None,
    };
    let uid = uid.ok_or_else(|| format!("its root knows no user `{name}`"))?;
    let own = known.and_then(|fields| number(&fields, 3));
    let gid = match group_name {
        Some(group_name) => group_id(group, group_name)?,
        None => own.unwrap_or(uid),
    };
    if let Some([login, ..]) = known.filter(|_| own == Some(gid)) {
        accounts.user = Some(login.to_owned());
        return Ok(accounts);
    }
    // The first entry wins a look-up by number, so that `id` inside names this one.
    let login = format!("u{uid}-{gid}");
    let home = known.map_or("/", |fields| fields[5]);
    accounts.passwd = format!("{login}:x:{uid}:{gid}::{home}:/bin/sh\n{passwd}");
    accounts.user = Some(login);
    accounts.changed = true;
    Ok(accounts)
}

/// Only accounts that programs are run as: the system's own, and `extra`, by name or number.
pub(super) fn system_only(passwd: &str, extra: Option<&str>) -> String {
    let extra = extra.map(|user| user.split(':').next().unwrap_or(user));
    keep(passwd, extra)
}

/// As [`system_only`], for groups.
pub(super) fn system_groups(group: &str, extra: Option<&str>) -> String {
    let extra = extra.and_then(|user| user.split_once(':')).map(|(_, g)| g);
    keep(group, extra)
}

/// In both files the name is the first field and the number the third.
fn keep(file: &str, extra: Option<&str>) -> String {
    const SYSTEM: u32 = 1000;
    const NOBODY: u32 = 65534;
    let mut kept = String::new();
    for line in file.lines() {
        let mut fields = line.split(':');
        let name = fields.next();
        let number = fields.nth(1);
        let system = number
            .and_then(|number| number.parse::<u32>().ok())
            .is_some_and(|number| number < SYSTEM || number == NOBODY);
        if system || extra.is_some() && (extra == name || extra == number) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The seven fields of a user's line, by name or number.
fn entry<'a>(passwd: &'a str, wanted: &str) -> Option<[&'a str; 7]> {
    let lines = || {
        passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            <[&str; 7]>::try_from(fields).ok()
        })
    };
    let by_name = lines().find(|fields| fields[0] == wanted);
    by_name.or_else(|| lines().find(|fields| fields[2] == wanted))
}

fn number(fields: &[&str; 7], field: usize) -> Option<u32> {
    fields.get(field)?.parse().ok()
}

fn group_id(group: &str, wanted: &str) -> Result<u32, String> {
    let found = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (name == wanted).then_some(number)
    });
    found
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| format!("its root knows no group `{wanted}`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n\
                          me:x:1000:1000::/home/me:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nadm:x:4:me\nme:x:1000:\n";

    #[test]
    fn a_known_name_needs_no_change() {
        let found = resolve(PASSWD, GROUP, Some("web")).unwrap();
        assert_eq!(found.user.as_deref(), Some("web"));
        assert!(!found.changed);
        let by_number = resolve(PASSWD, GROUP, Some("33")).unwrap();
        assert_eq!(by_number.user.as_deref(), Some("web"));
        let with_own_group = resolve(PASSWD, GROUP, Some("web:web")).unwrap();
        assert!(!with_own_group.changed);
        assert_eq!(resolve(PASSWD, GROUP, None).unwrap().user, None);
    }

    #[test]
    fn other_groups_and_numbers_get_an_entry() {
        let found = resolve(PASSWD, GROUP, Some("web:adm")).unwrap();
        assert_eq!(found.user.as_deref(), Some("u33-4"));
        assert!(
            found
                .passwd
                .starts_with("u33-4:x:33:4::/srv:/bin/sh\nroot:")
        );
        let numbers = resolve(PASSWD, GROUP, Some("7:8")).unwrap();
        assert!(numbers.passwd.starts_with("u7-8:x:7:8::/:/bin/sh\n"));
        let alone = resolve(PASSWD, GROUP, Some("7")).unwrap();
        assert_eq!(alone.user.as_deref(), Some("u7-7"));
    }

    #[test]
    fn unknown_names_are_named() {
        let error = resolve(PASSWD, GROUP, Some("ghost")).unwrap_err();
        assert!(error.contains("`ghost`"), "{error}");
        let error = resolve(PASSWD, GROUP, Some("web:ghosts")).unwrap_err();
        assert!(error.contains("`ghosts`"), "{error}");
    }

    #[test]
    fn people_stay_outside_unless_they_are_asked_for() {
        let kept = system_only(PASSWD, None);
        assert!(kept.contains("nobody:") && !kept.contains("me:"));
        assert!(system_only(PASSWD, Some("me:adm")).contains("\nme:"));
        assert!(system_only(PASSWD, Some("1000")).contains("\nme:"));
        assert!(!system_groups(GROUP, Some("web")).contains("\nme:"));
        assert!(system_groups(GROUP, Some("web:me")).contains("\nme:"));
    }
}
