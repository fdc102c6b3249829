//! Several rules, several volumes, one agent: what one of them waits for keeps no other waiting.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, regular_files};
use purge_tests::volumes::{volume_named, wait_for_state, whole_status};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use serde_json::Value;

/// A cron expression is due to the minute.
const A_MINUTE_AND_MORE: Duration = Duration::from_secs(90);

#[test]
fn rules_with_one_schedule_run_one_after_another_and_none_loses_its_turn() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    let names = ["first", "second", "third"];
    names.iter().for_each(|name| drop(make(&root.join(name), 4000)));
    age_tree(&root);
    let mut config = Config::new(&root, "baseline = \"mtime\"");
    for name in names {
        config = config.rule(
            name,
            &format!(
                "ttl = \"1h\"\nclock = [\"access\"]\nschedule = \"* * * * *\"\nremove_empty_dirs = false\n\
                 include = [\"/{name}/**\"]\nauto_apply = true\nmax_fraction = 1.0"
            ),
        );
    }
    let agent = Agent::tracking(&config);
    let stages = until("one runs and others wait", A_MINUTE_AND_MORE, || {
        let status = whole_status(&agent)?;
        let schedules = status["schedules"].as_array().cloned().unwrap_or_default();
        let any = |state: &str| schedules.iter().any(|s| s["state"] == state);
        (any("running") && any("waiting")).then_some(schedules)
    });
    let table = agent.ctl().run(["status"]).ok().text();
    let is_whole = |s: &Value| s["next_at"].is_string() && s["since"].is_string() && s["volume"] == "v";
    assert!(stages.iter().all(is_whole), "{stages:?}");
    assert!(table.contains("SCHEDULE"), "{table}");
    // Each had a turn within the minute in which all came due.
    until("nothing of any rule is left", A_MINUTE_AND_MORE, || {
        let is_empty = |name: &&str| fs::read_dir(root.join(name)).unwrap().next().is_none();
        names.iter().all(is_empty).then_some(())
    });
    let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
    let real = runs.iter().filter(|r| number(r, "/deleted/files") > 0).count();
    assert_eq!(real, 3, "{runs:?}");
}

#[test]
fn a_long_run_on_one_volume_keeps_no_other_waiting() {
    let mounts = [
        need!(Mount::new(Fs::Tmpfs)),
        need!(Mount::sized(Fs::Tmpfs, 16, 1000)),
    ];
    let roots = mounts.each_ref().map(Mount::path);
    make(&roots[0].join("d"), 3000);
    age_tree(&roots[0]);
    let config = Config::backdated(&roots[0]).and_volume("full", &roots[1]).tables(
        "[[watermark]]\nvolume = \"full\"\nhigh = \"50%\"\nlow = \"20%\"\nrule = \"full\"\nmin_age = \"1h\"",
    );
    let fill = |n: usize| fs::write(roots[1].join(format!("f{n}")), vec![1u8; 1 << 20]).unwrap();
    (0..2).for_each(fill);
    age_tree(&roots[1]);
    let agent = Agent::tracking(&config);
    wait_for_state(&agent, "full", "tracking");
    let ctl = agent.ctl();
    let plan = ctl.plan_with(["--rule", "old"]);
    let slow = agent.ctl();
    // It ends with the agent.
    std::thread::spawn(move || slow.run(["apply", &plan.id, "--yes", "--max-rate", "10"]));
    let running = |status: &Value| {
        let runs = status["last_runs"].as_array().unwrap();
        runs.iter().any(|r| r["state"] == "running" && r["volume"] == "v")
    };
    until("the long run goes on", LONG, || {
        running(&whole_status(&agent)?).then_some(())
    });
    (2..11).for_each(fill);
    until("the other volume is purged meanwhile", A_MINUTE_AND_MORE, || {
        (0..2)
            .all(|n| !roots[1].join(format!("f{n}")).exists())
            .then_some(())
    });
    assert!(running(&whole_status(&agent).unwrap()), "it was no long run");
}

#[test]
fn a_volume_that_is_missing_is_degraded_and_the_agent_goes_on() {
    let mut mounts = [
        need!(Mount::new(Fs::Ext4)),
        need!(Mount::new(Fs::Ext4)),
        need!(Mount::new(Fs::Tmpfs)),
    ];
    let roots = mounts.each_ref().map(Mount::path);
    roots.iter().for_each(|root| drop(make(&root.join("d"), 10)));
    roots.iter().for_each(|root| age_tree(root));
    let config = Config::backdated(&roots[0])
        .and_volume("b", &roots[1])
        .and_volume("c", &roots[2]);
    let mut agent = Agent::tracking(&config);
    wait_for_state(&agent, "c", "tracking");
    mounts[1].unmount();
    mounts[2].unmount();
    wait_for_state(&agent, "b", "degraded");
    wait_for_state(&agent, "c", "degraded");
    mounts[1].mount().unwrap();
    let b = wait_for_state(&agent, "b", "tracking");
    assert_eq!(number(&b, "/files"), 10);
    let c = wait_for_state(&agent, "c", "degraded");
    assert!(text(&c, "reason").contains("mounted"), "{c}");
    assert!(agent.is_running());
    let doctor = agent.ctl().run(["doctor", "--output", "json"]).text();
    assert!(doctor.contains("was unmounted"), "{doctor}");
    let refused = agent.ctl().run(["plan", "--rule", "c"]).ends_with(3);
    assert!(refused.stderr.contains("is it mounted?"), "{}", refused.stderr);
    agent.ctl().plan_with(["--rule", "b"]);
    // A new tmpfs is taken up.
    mounts[2].mount().unwrap();
    make(&roots[2].join("new"), 3);
    let c = wait_for_state(&agent, "c", "tracking");
    assert_eq!(number(&c, "/files"), 3);
    assert!(agent.is_running());

    // The same at a start, also when there is nothing at its path.
    agent.terminate();
    mounts[1].unmount();
    fs::remove_dir(&roots[1]).unwrap();
    agent.launch();
    let b = wait_for_state(&agent, "b", "degraded");
    assert!(text(&b, "reason").contains("mount it"), "{b}");
    let place = roots[1].display();
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(
        doctor.contains(&format!("mount its file system at {place}")),
        "{doctor}"
    );
    // Of a volume that is not watched, status tells no figures.
    let screen = agent.ctl().run(["status"]).ok().text();
    let (_, of_b) = screen.split_once("\nb  degraded").unwrap();
    let of_b = of_b.split("\n\n").next().unwrap_or_default();
    assert!(
        of_b.contains("not watched") && !of_b.contains("observed  ") && !of_b.contains("0 files"),
        "{of_b}"
    );
    wait_for_state(&agent, "v", "tracking");
    fs::create_dir(&roots[1]).unwrap();
    mounts[1].mount().unwrap();
    let b = wait_for_state(&agent, "b", "tracking");
    assert_eq!(number(&b, "/files"), 10);
}

#[test]
fn a_tmpfs_that_is_new_is_watched_again_and_its_index_starts_from_nothing() {
    let mut mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    make(&root.join("old"), 20);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let plan = agent.ctl().plan();
    for while_running in [true, false] {
        if !while_running {
            agent.terminate();
        }
        mount.unmount();
        mount.mount().unwrap();
        make(&root.join("new"), 5);
        if while_running {
            agent.wait_until_it_says(WATCHED_AGAIN);
            agent.wait_until_well();
        } else {
            agent.launch();
        }
        until("the new one is watched", LONG, || {
            (number(&volume_named(&whole_status(&agent)?, "v"), "/files") == 5).then_some(())
        });
        let refused = agent.ctl().run(["apply", &plan.id, "--yes"]).ends_with(3);
        assert!(refused.stderr.contains("no agent watched"), "{}", refused.stderr);
        assert_eq!(regular_files(&root).len(), 5);
    }
}

/// An ext4 whose inodes have no room for a birth time.
struct Small(tempfile::TempDir);

impl Small {
    fn new() -> Self {
        let small = Self(tempfile::tempdir().unwrap());
        fs::create_dir(small.root()).unwrap();
        small.mkfs();
        small.mount();
        small
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("mnt")
    }

    fn mkfs(&self) {
        let image = self.0.path().join("image");
        fs::File::create(&image)
            .and_then(|f| f.set_len(32 << 20))
            .unwrap();
        sh(Command::new("mkfs.ext4").args(["-qF", "-I", "128"]).arg(image)).unwrap();
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "ext4", "-o", "loop,noatime"])
            .arg(self.0.path().join("image"));
        sh(mount.arg(self.root())).unwrap();
    }

    fn unmount(root: &Path) {
        until("it can be unmounted", LONG, || {
            sh(Command::new("umount").arg(root)).ok()
        });
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = sh(Command::new("umount").arg("-l").arg(self.root()));
    }
}

#[test]
fn a_file_system_without_births_is_known_by_its_id_and_another_is_adopted_only_where_told() {
    let _ = need!(Mount::new(Fs::Tmpfs));
    let small = Small::new();
    let root = small.root();
    let keys = |adopt| format!("baseline = \"mtime\"\nadopt = {adopt}");
    let rule = "ttl = \"1h\"\nclock = [\"access\"]";
    make(&root.join("d"), 10);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::new(&root, &keys(false)).rule("old", rule));
    sleep(Duration::from_millis(1100));
    // The change time of the root moves with this.
    fs::create_dir(root.join("more")).unwrap();
    let candidates = agent.ctl().candidate_files();
    assert_eq!(candidates.len(), 10);
    agent.restart();
    assert_eq!(agent.ctl().candidate_files().len(), 10);

    // Another one of the same kind, with the same root and on the same device.
    agent.terminate();
    Small::unmount(&root);
    small.mkfs();
    small.mount();
    make(&root.join("other"), 4);
    agent.launch();
    let why = agent.wait_until_degraded();
    assert!(
        why.contains("another file system") && why.contains("adopt"),
        "{why}"
    );
    agent.terminate();
    agent.write_config(&Config::new(&root, &keys(true)).rule("old", rule));
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(number(&agent.status(), "/files"), 4);
    // What is not mounted is not adopted.
    agent.terminate();
    Small::unmount(&root);
    agent.launch();
    let why = agent.wait_until_degraded();
    assert!(why.contains("another file system"), "{why}");
    small.mount();
    agent.wait_until_well();
    assert_eq!(number(&agent.status(), "/files"), 4);
}

#[test]
fn a_schedule_that_was_missed_is_caught_up_once_where_that_is_wanted() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    make(&root.join("d"), 10);
    age_tree(&root);
    let keys = |missed: &str| {
        format!(
            "ttl = \"1h\"\nclock = [\"access\"]\nschedule = \"0 0 1 1 *\"\nschedule_missed = \"{missed}\""
        )
    };
    let config = Config::new(&root, "baseline = \"mtime\"");
    let config = config.rule("once", &keys("run")).rule("not", &keys("skip"));
    let mut agent = Agent::tracking(&config);
    let file = agent.state_dir().join("schedules");
    until("the agent remembers when it looked", LONG, || {
        fs::read_to_string(&file).ok().filter(|t| t.lines().count() == 2)
    });
    agent.terminate();
    // The host was off over a turn of the year.
    let a_year_ago = "1700000000 not 0 0 1 1 *\n1700000000 once 0 0 1 1 *\n";
    fs::write(&file, a_year_ago).unwrap();
    for _ in 0..2 {
        agent.launch();
        let plans = until("a plan is made", LONG, || {
            let plans = agent.ctl().run(["plans", "--output", "ndjson"]).ok().lines();
            (!plans.is_empty()).then_some(plans)
        });
        sleep(Duration::from_secs(7));
        assert_eq!(plans.len(), 1, "{plans:?}");
        assert_eq!(plans[0]["rules"][0], "once");
        agent.terminate();
    }
}
