//! A volume whose file system is read-only or dead, a run that fails as a whole, and what cannot be freed of the trash: each is told
//! everywhere with its cause and its cure, and is over by itself once the cause is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, walk};
use purge_tests::notices::{events, notices};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

const TRASH: &str = ".purge-agent-trash";

/// An agent that watches a volume with 40 old files, and has its trash by now.
fn with_trash(root: &Path, keys: &str) -> Agent {
    make(&root.join("d"), 40);
    age_tree(root);
    let agent = Agent::tracking(&Config::backdated_with(root, keys));
    until("the reserve is there", SOON, || {
        root.join(TRASH).join("ballast/47").exists().then_some(())
    });
    agent
}

/// Waits until the volume is degraded for this reason: status, doctor and log say so, and nothing is planned or applied.
fn is_ailing(agent: &Agent, plan: &str, reason: &str) {
    let status = until(&format!("it is told: {reason}"), SOON * 2, || {
        let status = agent.status();
        (text(&status, "state") == "degraded").then_some(status)
    });
    assert!(text(&status, "reason").contains(reason), "{status}");
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains(reason) && doctor.contains("dmesg"), "{doctor}");
    agent.wait_until_it_says(reason);
    for asked in [&["plan"][..], &["apply", plan, "--yes"][..]] {
        let refused = agent.ctl().run(asked).ends_with(3);
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    }
}

fn remount(root: &Path, how: &str) {
    sh(Command::new("mount")
        .args(["-o", &format!("remount,{how}")])
        .arg(root))
    .unwrap();
}

#[test]
fn a_volume_that_is_remounted_read_only_is_degraded_until_it_is_read_write() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let agent = with_trash(&root, "");
    let plan = agent.ctl().plan().id;
    remount(&root, "ro");
    is_ailing(&agent, &plan, "is read-only");
    remount(&root, "rw");
    agent.wait_until_well();
    let plan = agent.ctl().plan();
    let run = agent.ctl().apply(&plan).json();
    assert_eq!(number(&run, "/deleted/files"), 40, "{run}");
}

#[test]
fn a_volume_that_is_read_only_after_an_error_is_degraded_until_it_is_mounted_again() {
    let mut mount = need!(Mount::new(Fs::Ext4));
    let agent = with_trash(&mount.path(), "");
    let plan = agent.ctl().plan().id;
    mount.abort();
    is_ailing(&agent, &plan, "is read-only");
    mount.unmount();
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
}

fn a_dead_file_system_is_told(filesystem: Fs) {
    let mut mount = need!(Mount::new(filesystem));
    let agent = with_trash(&mount.path(), "");
    let plan = agent.ctl().plan().id;
    mount.cut_power(true);
    is_ailing(&agent, &plan, "nput/output error");
    mount.unmount();
    mount.mount().unwrap();
    agent.wait_until_it_says(WATCHED_AGAIN);
    agent.wait_until_well();
}

#[test]
fn an_ext4_that_was_shut_down_is_degraded_until_it_is_mounted_again() {
    a_dead_file_system_is_told(Fs::Ext4);
}

#[test]
fn an_xfs_that_was_shut_down_is_degraded_until_it_is_mounted_again() {
    a_dead_file_system_is_told(Fs::Xfs);
}

#[test]
fn a_run_that_fails_as_a_whole_is_told_everywhere_until_another_does_well() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let agent = with_trash(&root, "");
    let ctl = agent.ctl();
    let mode = |bits| fs::set_permissions(root.join(TRASH), fs::Permissions::from_mode(bits)).unwrap();
    mode(0o755);
    let failed = ctl
        .run(["apply", &ctl.plan().id, "--yes", "--output", "json"])
        .json();
    assert_eq!(text(&failed, "state"), "failed", "{failed}");
    let cause = "is open to other users";
    assert!(text(&failed, "error").contains(cause), "{failed}");
    let run = ctl.run(["run", text(&failed, "run_id")]).text();
    assert!(run.contains(cause), "{run}");
    let status = agent.status();
    assert!(text(&status, "run_failure").contains(cause), "{status}");
    for command in ["status", "doctor"] {
        let said = ctl.run([command]).text();
        assert!(
            said.contains(cause) && said.contains(text(&failed, "run_id")),
            "{said}"
        );
    }
    let log = agent.said();
    let line = log.lines().find(|l| l.contains("the run failed"));
    assert!(
        line.is_some_and(|l| l.contains("\"ERROR\"") && l.contains(cause)),
        "{log}"
    );
    mode(0o700);
    ctl.apply(&ctl.plan());
    assert_eq!(text(&agent.status(), "run_failure"), "");
}

#[test]
fn what_cannot_be_freed_is_named_and_counted_apart_and_the_rest_is_freed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let agent = with_trash(&root, "grace = \"6s\"");
    let run = agent.ctl().apply(&agent.ctl().plan()).json();
    assert_eq!(number(&run, "/trashed/files"), 40, "{run}");
    let in_trash = || -> Vec<PathBuf> {
        let all = walk(&root.join(TRASH)).into_iter();
        all.map(|e| e.path).filter(|p| p.is_file()).collect()
    };
    let stuck = in_trash().into_iter().find(|p| p.ends_with("d/f000007")).unwrap();
    let chattr = |flag: &str| sh(Command::new("chattr").arg(flag).arg(&stuck)).unwrap();
    chattr("+i");
    let status = until("what is stuck is told", SOON * 2, || {
        let status = agent.status();
        status["stuck_trash"].is_object().then_some(status)
    });
    let left = in_trash();
    let path = text(&status["stuck_trash"], "path").to_owned();
    let doctor = agent.ctl().run(["doctor"]).text();
    let log = agent.said();
    chattr("-i");
    assert_eq!(left, std::slice::from_ref(&stuck), "the rest is freed");
    assert_eq!(Path::new(&path), stuck);
    assert_eq!(number(&status, "/stuck_trash/totals/files"), 1, "{status}");
    assert_eq!(
        number(&status, "/trash/files"),
        0,
        "it is not promised as free: {status}"
    );
    for said in [&doctor, &log, &status.to_string()] {
        assert!(said.contains("chattr -i") && said.contains("f000007"), "{said}");
    }
    assert_eq!(
        log.matches("some of the trash cannot be freed").count(),
        1,
        "told once:\n{log}"
    );
    fs::remove_file(&stuck).unwrap();
    until("it is not told any more", SOON, || {
        agent.status()["stuck_trash"].is_null().then_some(())
    });
}

#[test]
fn the_operators_hear_of_what_does_not_work_and_that_it_is_over() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    age_tree(&root);
    let config = Config::backdated_with(&root, "grace = \"5s\"");
    let agent = Agent::tracking(&config.notifying("webhook = { url = \"http://127.0.0.1:9/\" }"));
    let ctl = agent.ctl();
    ctl.apply(&ctl.plan());
    let in_trash = || {
        let mut all = walk(&root.join(TRASH)).into_iter();
        all.find(|e| e.path.file_name() == files[0].file_name())
    };
    let stuck = in_trash().expect("a file in the trash").path;
    sh(Command::new("chattr").arg("+i").arg(&stuck)).unwrap();
    let told = |event: &str| -> BTreeSet<String> {
        let all = notices(&ctl, &[]).iter().flat_map(events).collect::<Vec<_>>();
        let of = all.iter().filter(|e| text(e, "event") == event);
        of.map(|e| text(e, "event_id").split('/').nth(2).unwrap().to_owned())
            .collect()
    };
    until("the trash is told of", SOON * 2, || {
        told("trouble").contains("trash").then_some(())
    });
    remount(&root, "ro");
    until("the file system is told of", SOON * 2, || {
        told("trouble").contains("filesystem").then_some(())
    });
    remount(&root, "rw");
    sh(Command::new("chattr").arg("-i").arg(&stuck)).unwrap();
    fs::remove_file(&stuck).unwrap();
    until("it is over", SOON * 2, || {
        (told("trouble-ended") == ["filesystem", "trash"].map(String::from).into()).then_some(())
    });
}

#[test]
fn an_immutable_file_in_a_directory_that_went_as_a_whole_keeps_nothing_else() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for n in 0..3 {
        make(&root.join(format!("old/d{n}")), 10);
    }
    age_tree(&root);
    let stuck = root.join("old/d1/f000004");
    let chattr = |flag: &str, path: &Path| sh(Command::new("chattr").arg(flag).arg(path)).unwrap();
    chattr("+i", &stuck);
    let keys = "grace = \"3s\"\ntarget = \"directory\"\ndepth = 2";
    let agent = Agent::tracking(&Config::backdated_with(&root, keys));
    let run = agent.ctl().apply(&agent.ctl().plan()).json();
    if stuck.exists() {
        chattr("-i", &stuck);
        return assert!(
            number(&run, "/skipped/protected") > 0,
            "it went, or was left alone: {run}"
        );
    }
    let status = until("what is stuck is told", SOON * 2, || {
        let status = agent.status();
        status["stuck_trash"].is_object().then_some(status)
    });
    let path = PathBuf::from(text(&status["stuck_trash"], "path"));
    chattr("-i", &path);
    assert!(path.ends_with("t/f000004"), "{status}");
    assert_eq!(number(&status, "/stuck_trash/totals/files"), 1, "{status}");
    assert_eq!(number(&status, "/trash/files"), 0, "{status}");
}
