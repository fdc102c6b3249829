//! Files that are used again and again, and readers whose reads do not count.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, make_one, read};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

const BACKDATED: &str = "baseline = \"mtime\"\nprecision = ";

fn agent(root: &Path, precision: &str, more: &str) -> Agent {
    let config = Config::new(root, &format!("{BACKDATED}\"{precision}\"\n{more}"));
    Agent::tracking(&config.rule("old", "ttl = \"1h\"\nclock = [\"access\"]"))
}

fn volume(agent: &Agent, field: &str) -> u64 {
    number(&agent.status(), &format!("/{field}"))
}

/// Reads until the agent hides the file's further uses.
fn heat(agent: &Agent, file: &Path) {
    until("the file is marked", SOON, || {
        read(file);
        (volume(agent, "ignore_marks") > 0).then_some(())
    });
}

#[test]
fn repeated_uses_cost_nothing_until_the_window_ends() {
    for fs in [Fs::Ext4, Fs::Xfs, Fs::Btrfs, Fs::Tmpfs] {
        let mount = need!(Mount::new(fs));
        let root = mount.path();
        let files = make(&root.join("d"), 10);
        age_tree(&root);
        let agent = agent(&root, "1h", "");
        assert_eq!(volume(&agent, "precision_seconds"), 3600);
        heat(&agent, &files[3]);
        // Only the status calls themselves lie between the two numbers.
        let before = volume(&agent, "events_total");
        (0..1000).for_each(|_| read(&files[3]));
        let after = volume(&agent, "events_total");
        assert!(
            after - before < 20,
            "{} events for 1000 hidden reads",
            after - before
        );
        // Another file is seen as before, once.
        read(&files[4]);
        let planned = agent.ctl().candidate_files();
        let expected: BTreeSet<PathBuf> = files
            .iter()
            .filter(|f| **f != files[3] && **f != files[4])
            .cloned()
            .collect();
        assert_eq!(planned, expected);
    }
}

#[test]
fn a_hidden_use_is_recorded_late_and_never_early() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    age_tree(&root);
    let config =
        Config::new(&root, &format!("{BACKDATED}\"6s\"")).rule("old", "ttl = \"4s\"\nclock = [\"access\"]");
    let agent = Agent::tracking(&config);
    heat(&agent, &files[0]);
    // Used all the time, seen seldom: it must never be a candidate, across several windows.
    for _ in 0..40 {
        read(&files[0]);
        std::thread::sleep(std::time::Duration::from_millis(500));
        read(&files[0]);
        assert!(!agent.ctl().candidate_files().contains(&files[0]));
    }
    // Once it is not used any more, it expires, at most a window late.
    let_pass(6 + 4);
    until("it is a candidate", SOON, || {
        agent.ctl().candidate_files().contains(&files[0]).then_some(())
    });
}

#[test]
fn writes_and_names_of_a_marked_file_are_seen() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    let agent = agent(&root, "1h", "");
    heat(&agent, &files[0]);
    let mut file = fs::OpenOptions::new().append(true).open(&files[0]).unwrap();
    file.write_all(&[7; 5000]).unwrap();
    drop(file);
    let size = fs::metadata(&files[0]).unwrap().len();
    until("the new size is known", SOON, || {
        (number(&agent.ctl().explain(&files[0]), "/bytes") == size).then_some(())
    });
    let renamed = root.join("d/renamed");
    fs::rename(&files[0], &renamed).unwrap();
    until("the new name is known", SOON, || {
        agent.ctl().find::<&str>([]).contains(&renamed).then_some(())
    });
}

#[test]
fn a_killed_agent_leaves_no_hidden_use_behind() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    age_tree(&root);
    let mut agent = agent(&root, "1h", "");
    heat(&agent, &files[0]);
    (0..100).for_each(|_| read(&files[0]));
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    let known = agent.ctl().explain(&files[0]);
    assert_eq!(text(&known, "source"), "observed", "{known}");
    assert_eq!(agent.ctl().candidate_files().len(), 2);
}

#[test]
fn reads_of_ignored_accessors_are_no_use_and_writes_are() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 40);
    age_tree(&root);
    // A backup that lives longer than its reads, under a name of its own.
    let backup = mount.path().parent().unwrap().join("mybackup");
    fs::copy("/bin/bash", &backup).unwrap();
    let accessors = format!(
        "ignore_accessors = [ {{ exe = {:?} }} ]",
        backup.display().to_string()
    );
    let agent = agent(&root, "1h", &accessors);
    let script =
        "sleep 0.5; for f in d/f00000?; do read -n 1 -r x < $f; done; echo more >> d/f000015; sleep 0.5; :";
    let status = Command::new(&backup)
        .args(["-c", script])
        .current_dir(&root)
        .status()
        .unwrap();
    assert!(status.success());
    // The same reads by another process count.
    read(&files[20]);
    // So do those of a process that exited before the agent could ask which it was.
    let gone = Command::new(&backup)
        .args(["-c", "read -n 1 -r x < d/f000030"])
        .current_dir(&root)
        .status();
    assert!(gone.unwrap().success());
    let planned = agent.ctl().candidate_files();
    for backed_up in &files[..10] {
        assert!(
            planned.contains(backed_up),
            "{} was read by the backup alone",
            backed_up.display()
        );
    }
    assert!(!planned.contains(&files[15]), "it was written");
    assert!(!planned.contains(&files[20]), "another process read it");
    assert!(volume(&agent, "events_ignored_total") >= 10);
    // A file that an ignored process made is indexed all the same.
    let new = make_one(&root.join("d/new"));
    until("a new file is known", SOON, || {
        agent.ctl().find::<&str>([]).contains(&new).then_some(())
    });
}

#[test]
fn a_real_reader_beside_an_ignored_one_is_never_hidden() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 300);
    age_tree(&root);
    let backup = mount.path().parent().unwrap().join("mybackup");
    fs::copy("/bin/bash", &backup).unwrap();
    let accessors = format!(
        "ignore_accessors = [ {{ exe = {:?} }} ]",
        backup.display().to_string()
    );
    let agent = agent(&root, "2s", &accessors);
    let script = "for i in 1 2 3 4 5 6; do for f in d/*; do read -n 1 -r x < $f; done; done; sleep 0.3; :";
    let mut reading = Command::new(&backup)
        .args(["-c", script])
        .current_dir(&root)
        .spawn()
        .unwrap();
    let used: Vec<&PathBuf> = files.iter().step_by(7).collect();
    used.iter().for_each(|f| read(f));
    assert!(reading.wait().unwrap().success());
    let planned = agent.ctl().candidate_files();
    let lost: Vec<_> = used.iter().filter(|f| planned.contains(**f)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(
        planned.len() > 200,
        "only {} of the backup's files are left to go",
        planned.len()
    );
}
