//! The farm as a service of systemd, on a machine of its own that systemd runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod support;

use std::fs;

use serde_json::Value;
use support::host::{
    FOUR, Host, Pids, UNIT, a_hung_controller_is_replaced, an_upgrade_is_not_noticed,
};
use support::machine::{HATCHERY, SPEC, run};

#[test]
fn a_service_keeps_the_farm() {
    isolate!();
    let mut host = Host::boot();
    let pids = install_takes_over(&host);
    scopes_have_nothing_of_the_service(&host, &pids);
    the_journal_has_fields(&host);
    reload_says_what_came_of_it(&host, &pids);
    a_rollback_outlives_the_controller(&host, &pids);
    what_the_machine_lacks_costs_no_controller(&host, &pids);
    an_upgrade_is_not_noticed(&host, &pids);
    a_hung_controller_is_replaced(&host, &pids);
    host.machine.reboot();
    it_starts_at_boot(&host, &pids);
    down_stays_down(&host);
    uninstall_leaves_the_workloads(&host);
}

/// A controller in the background was there first.
fn install_takes_over(host: &Host) -> Pids {
    host.set("farm.conf", "Environment=PRIME_MAX=1000");
    let up = ["up", "-d", SPEC];
    let begin = [
        "systemd-run",
        "--quiet",
        "--wait",
        "--unit=first",
        "-p",
        "KillMode=process",
        "--setenv=PRIME_MAX=1000",
        HATCHERY,
    ];
    let other = [
        "-p",
        "KillMode=process",
        "--setenv=PRIME_MAX=1000",
        HATCHERY,
    ];
    let kept = ["systemd-run", "--quiet", "--unit=other"];
    host.must(&[&kept[..], &other[..], &["up", SPEC]].concat());
    host.pids();
    // One that another unit keeps would come back.
    let refused = host.fails(&[HATCHERY, "service", "install", SPEC]);
    assert!(refused.contains("other.service"), "{refused}");
    host.must(&["systemctl", "stop", "other"]);
    host.must(&[&begin[..], &up[..]].concat());
    let pids = host.pids();
    let print = host.must(&[HATCHERY, "service", "install", "--print", SPEC]);
    let dotted = "/opt/../opt/hatchery-test/hatchery";
    let same = host.must(&[dotted, "service", "install", "--print", SPEC]);
    assert_eq!(same, print);
    assert!(!host.machine.path("/etc/systemd/system").join(UNIT).exists());
    let said = host.must(&[HATCHERY, "service", "install", SPEC]);
    assert!(said.contains("ran outside of the service"), "{said}");
    let written = host.machine.path("/etc/systemd/system").join(UNIT);
    assert_eq!(fs::read_to_string(&written).unwrap(), print);
    assert_eq!(
        host.must(&["systemctl", "is-active", UNIT]).trim(),
        "active"
    );
    assert_eq!(
        host.must(&["systemctl", "is-enabled", UNIT]).trim(),
        "enabled"
    );
    assert_eq!(host.pids(), pids, "what ran was touched");
    let controller = host.controller();
    let again = host.must(&[HATCHERY, "service", "install", SPEC]);
    assert!(again.contains("runs already"), "{again}");
    assert_eq!(host.controller(), controller);
    // Another definition is taken at once.
    host.must(&[HATCHERY, "service", "install", "--no-follow", SPEC]);
    assert_ne!(host.controller(), controller);
    host.must(&[HATCHERY, "service", "install", SPEC]);
    host.wait("systemd to have heard how it is", |_| {
        let said = host.show("StatusText", UNIT);
        said.starts_with("converged, ").then_some(())
    });
    let status = host.must(&[HATCHERY, "service", "status"]);
    assert!(
        status.contains("active (running)") && status.contains("converged"),
        "{status}"
    );
    assert_eq!(host.pids(), pids, "what ran was touched");
    pids
}

fn scopes_have_nothing_of_the_service(host: &Host, pids: &Pids) {
    assert_eq!(host.machine.machines(), FOUR);
    let list = ["systemctl", "list-units", "--no-legend", "--plain"];
    let scopes = host.must(&[&list[..], &["hatchery-prime-*.scope"]].concat());
    let names: Vec<&str> = scopes
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names.len(), 5, "{scopes}");
    for name in names {
        assert_eq!(host.show("Slice", name), "hatchery.slice");
    }
    let score = |pid: &str| host.must(&["cat", &format!("/proc/{pid}/oom_score_adj")]);
    // Whether the kernel lets systemd do so is another matter.
    assert_eq!(host.show("OOMScoreAdjust", UNIT), "-900");
    let (_, nginx) = pids
        .iter()
        .find(|(node, _)| node.contains("nginx"))
        .expect("nginx");
    let nginx = nginx.to_string();
    assert_eq!(score(&nginx).trim(), "0");
    let limits = host.must(&["cat", &format!("/proc/{nginx}/limits")]);
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    assert!(
        files.is_some_and(|line| line.contains(" 1024 ")),
        "{limits}"
    );
    let environment = host.must(&["cat", &format!("/proc/{nginx}/environ")]);
    assert!(!environment.contains("WATCHDOG") && !environment.contains("NOTIFY"));
    // Its mounts are the machine's: namespaces that it pins outlive it.
    let mounts = |pid: &str| host.must(&["readlink", &format!("/proc/{pid}/ns/mnt")]);
    assert_eq!(mounts(&host.controller()), mounts("1"));
}

fn the_journal_has_fields(host: &Host) {
    let journal = host.journal();
    let adopted = journal
        .iter()
        .find(|entry| entry["HATCHERY_KIND"] == "adopted")
        .expect("an adoption in the journal");
    assert_eq!(adopted["HATCHERY_STACK"], "prime");
    assert_eq!(adopted["PRIORITY"], "6");
    assert_eq!(adopted["SYSLOG_IDENTIFIER"], "hatchery");
    assert!(
        adopted["HATCHERY_NODE"].as_str().unwrap().contains('/'),
        "{adopted}"
    );
    assert!(adopted["HATCHERY_INCARNATION"].is_string(), "{adopted}");
    let converged = journal
        .iter()
        .find(|entry| entry["HATCHERY_KIND"] == "converged");
    let converged = converged.expect("it says that it converged");
    assert_eq!(converged["_SYSTEMD_UNIT"], UNIT);
}

fn reload_says_what_came_of_it(host: &Host, pids: &Pids) {
    let file = host.machine.path(SPEC);
    let good = fs::read_to_string(&file).unwrap();
    let number = host.converged()["generation"].as_u64().unwrap();
    fs::write(&file, good.replace("replicas: 4", "replica: 4")).unwrap();
    host.fails(&["systemctl", "reload", UNIT]);
    assert!(host.fails(&[HATCHERY, "reload"]).contains("replicas"));
    assert_eq!(
        host.must(&["systemctl", "is-active", UNIT]).trim(),
        "active"
    );
    assert!(host.get(), "it serves no more");
    let refused = host
        .journal()
        .into_iter()
        .any(|entry| entry["HATCHERY_KIND"] == "refused" && entry["PRIORITY"] == "3");
    assert!(
        refused,
        "the journal does not say that the edit was refused"
    );
    // It would be found broken at its next start too, which must not end it.
    let controller = host.controller();
    host.must(&["systemctl", "restart", UNIT]);
    assert_ne!(host.controller(), controller);
    assert_eq!(host.converged()["generation"], number);
    host.wait("the edit to be refused", |machine| {
        machine
            .status()
            .filter(|status| status["spec_error"].is_string())
    });

    fs::write(&file, good.replace("interval: 5s", "interval: 4s")).unwrap();
    host.must(&["systemctl", "reload", UNIT]);
    let status = host.converged();
    assert!(status["generation"].as_u64().unwrap() > number, "{status}");
    assert!(status["spec_error"].is_null(), "{status}");
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

fn a_rollback_outlives_the_controller(host: &Host, pids: &Pids) {
    host.must(&[HATCHERY, "--stack", "prime", "rollback"]);
    let rolled = host.converged()["generation"].clone();
    host.must(&["systemctl", "restart", UNIT]);
    let status = host.converged();
    assert_eq!(status["generation"], rolled, "{status}");
    let said = status["spec_error"].as_str().unwrap_or_default();
    assert!(said.contains("rolled back"), "{status}");
    host.must(&["systemctl", "reload", UNIT]);
    let status = host.converged();
    assert!(status["generation"].as_u64() > rolled.as_u64(), "{status}");
    assert!(status["spec_error"].is_null(), "{status}");
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

fn what_the_machine_lacks_costs_no_controller(host: &Host, pids: &Pids) {
    let file = host.machine.path(SPEC);
    let good = fs::read_to_string(&file).unwrap();
    let first = "  - { command: nginx, debian: nginx-light }\n";
    assert!(good.contains(first), "{good}");
    let more = format!("{first}  - {{ command: /srv/tool, debian: the-tool }}\n");
    let before = host.converged()["generation"].clone();
    fs::write(&file, good.replace(first, &more)).unwrap();
    let said = host.fails(&[HATCHERY, "reload"]);
    assert!(said.contains("Debian package `the-tool`"), "{said}");
    // Nor is it begun with: what was taken last requires nothing that is not there.
    host.must(&["systemctl", "restart", UNIT]);
    let status = host.wait("the edit to be refused", |machine| {
        let status = machine.status()?;
        status["spec_error"].is_string().then_some(status)
    });
    let said = status["spec_error"].as_str().unwrap();
    assert!(said.contains("the-tool"), "{said}");
    assert_eq!(status["generation"], before);

    let tool = host.machine.path("/srv/tool");
    fs::copy(host.machine.path("/bin/true"), &tool).unwrap();
    host.must(&["systemctl", "reload", UNIT]);
    let taken = host.converged()["generation"].clone();
    assert_ne!(taken, before);
    // What is uninstalled under a spec that was taken is told of, and no more.
    fs::remove_file(&tool).unwrap();
    host.must(&["systemctl", "restart", UNIT]);
    assert_eq!(host.converged()["generation"], taken);
    let told = host.journal().into_iter().any(|entry| {
        let message = entry["MESSAGE"].as_str().unwrap_or_default();
        entry["HATCHERY_KIND"] == "warning" && message.contains("the-tool")
    });
    assert!(told, "the journal does not say what is missing");
    fs::write(&file, good).unwrap();
    host.must(&["systemctl", "reload", UNIT]);
    assert_eq!(host.pids(), *pids, "what ran was touched");
}

fn it_starts_at_boot(host: &Host, pids: &Pids) {
    host.wait("the service", |_| {
        (host.show("ActiveState", UNIT) == "active").then_some(())
    });
    host.converged();
    assert_eq!(host.machine.machines(), FOUR);
    assert!(host.get(), "it does not serve");
    assert_eq!(host.pids().len(), pids.len());
    // The machine ended the controller first: it took nothing for a failure.
    let events = host.must(&[HATCHERY, "--stack", "prime", "events", "--json"]);
    let kinds = events.lines().map(|line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        event["kind"].as_str().unwrap_or_default().to_owned()
    });
    let kinds: Vec<String> = kinds.collect();
    assert!(kinds.contains(&"adopted".to_owned()), "{kinds:?}");
    for kind in ["exited", "stopping", "killed", "crash_loop"] {
        assert!(!kinds.contains(&kind.to_owned()), "{kind}: {events}");
    }
    let history = host.must(&[HATCHERY, "--stack", "prime", "history", "--json"]);
    let history: Value = serde_json::from_str(&history).expect("JSON");
    assert!(history.to_string().contains("converged"), "{history}");
}

fn down_stays_down(host: &Host) {
    let said = host.must(&[HATCHERY, "--stack", "prime", "down"]);
    assert!(said.contains("comes back at the next boot"), "{said}");
    host.wait("the unit to rest", |_| {
        (host.show("ActiveState", UNIT) == "inactive").then_some(())
    });
    assert_eq!(host.show("ExecMainStatus", UNIT), "80");
    assert_eq!(host.show("Result", UNIT), "success");
    assert_eq!(host.machine.machines(), Vec::<String>::new());
    let status = run(host.machine.inside(&[HATCHERY, "service", "status"]));
    assert_eq!(status.status.code(), Some(3));
    host.must(&["systemctl", "start", UNIT]);
    host.converged();
}

fn uninstall_leaves_the_workloads(host: &Host) {
    let pids = host.pids();
    let said = host.must(&[HATCHERY, "service", "uninstall"]);
    assert!(said.contains("goes on without a controller"), "{said}");
    let unit = host.machine.path("/etc/systemd/system").join(UNIT);
    assert!(!unit.exists());
    assert!(
        run(host
            .machine
            .inside(&[HATCHERY, "service", "status", "prime"]))
        .status
        .code()
        .is_some_and(|code| code != 0)
    );
    assert_eq!(host.machine.machines(), FOUR);
    assert!(host.get(), "it serves no more");
    for (_, pid) in pids {
        host.must(&["test", "-d", &format!("/proc/{pid}")]);
    }
    // Somebody else's unit of that name is left alone.
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    assert!(
        host.fails(&[HATCHERY, "service", "install", SPEC])
            .contains("not ours")
    );
    fs::remove_file(&unit).unwrap();
    host.must(&[HATCHERY, "--stack", "prime", "down"]);
    assert_eq!(host.machine.machines(), Vec::<String>::new());
}
