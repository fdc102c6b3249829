//! Stretches that were not watched, without systemd's keeping: what was read in one counts as used, unless the operator forgives it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, read, shell};
use purge_tests::sys::Mapping;
use purge_tests::wait::let_pass;
use purge_tests::{Agent, Config, Fs, Mount, need};
use rustix::fs::{Mode, OFlags, open};
use serde_json::Value;

/// Expired at once, as the modification times are set back.
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";
/// The helpers write a tolerance of their own unless its name is there.
const DEFAULT_TOLERANCE: &str = "baseline = \"mtime\"\n# gap_tolerance is not given";
/// The operator vouches that each read leaves an access time.
const VOUCHED: &str = "baseline = \"mtime\"\naccess_times = \"complete\"\n# gap_tolerance is not given";

fn end(agent: &mut Agent, killed: bool) {
    match killed {
        true => agent.kill(),
        false => agent.terminate(),
    }
}

/// Reads some files while an agent with the default tolerance is stopped for two seconds. Returns what was read and what it names then.
fn read_meanwhile(fs: Fs, killed: bool) -> Option<(BTreeSet<PathBuf>, BTreeSet<PathBuf>)> {
    let mount = match Mount::new(fs) {
        Ok(mount) => mount,
        Err(unmet) => {
            eprintln!("{unmet:?}");
            return None;
        }
    };
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    // What changed within some seconds of an agent's end may have changed afterwards.
    let_pass(6);
    let mut agent = Agent::tracking(&Config::new(&root, VOUCHED).rule("old", RULE));
    assert_eq!(agent.ctl().candidate_files().len(), 20, "all are expired");
    let_pass(2);
    end(&mut agent, killed);
    let used: BTreeSet<PathBuf> = files.iter().step_by(2).cloned().collect();
    used.iter().for_each(|file| read(file));
    let_pass(2);
    agent.launch();
    agent.wait_until_tracking();
    let named = agent.ctl().candidate_files();
    let status = agent.status();
    println!(
        "{fs:?}, killed {killed}: {} of 10 named; {}",
        named.intersection(&used).count(),
        status["gaps"]
    );
    Some((used, named))
}

#[test]
fn an_agent_that_was_stopped_for_two_seconds_names_no_file_that_was_read_meanwhile() {
    for fs in [Fs::Ext4, Fs::Ext4Relatime] {
        for killed in [false, true] {
            let Some((used, named)) = read_meanwhile(fs, killed) else {
                return;
            };
            let lost: Vec<_> = named.intersection(&used).collect();
            assert!(lost.is_empty(), "{fs:?}, killed {killed}: {lost:?}");
            if !servers_run() {
                let unread = if fs == Fs::Ext4Relatime { 10 } else { 0 };
                assert_eq!(named.len(), unread, "{fs:?}: access times tell what was not read");
            }
        }
    }
}

/// Clients of file servers read without a trace: then access times tell nothing.
fn servers_run() -> bool {
    let name = |process: std::fs::DirEntry| std::fs::read_to_string(process.path().join("comm")).ok();
    let names: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|p| name(p.ok()?))
        .collect();
    let has = |wanted: &str| names.iter().any(|name| name.trim() == wanted);
    ["nfsd", "ganesha.nfsd", "smbd"].into_iter().any(has) || !has("kthreadd")
}

/// What leaves no access time counts as used, and so does what changed.
#[test]
fn access_times_close_a_gap_only_where_each_read_leaves_one() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    // Its access time stays as it is. The other was read within the day before the gap.
    shell(&root, "chattr +A d/f000003");
    let_pass(6);
    shell(&root, "cat d/f000001 > /dev/null");
    let_pass(6);
    let mut agent = Agent::tracking(&Config::new(&root, VOUCHED).rule("old", RULE));
    let_pass(6);
    agent.terminate();
    for file in [&files[1], &files[3], &files[5], &files[7]] {
        read(file);
    }
    // An access time that is set back does not hide the use.
    shell(
        &root,
        "touch -a -d @1500000000 d/f000005; cp -p d/f000007 d/copy; mv d/copy d/f000009",
    );
    let_pass(2);
    agent.launch();
    agent.wait_until_tracking();
    let named = agent.ctl().candidate_files();
    println!("{} named; {}", named.len(), agent.status()["gaps"]);
    for used in [1, 3, 5, 7, 9] {
        assert!(!named.contains(&files[used]), "{used}");
    }
    if !servers_run() {
        assert!(named.contains(&files[0]), "{named:?}");
        assert_eq!(agent.status()["gaps"][0]["closed"], true);
    }

    // Another mount of the same file system keeps no access times, also one in another namespace.
    let elsewhere = format!(
        "mount -o bind {0} {0} && mount -o remount,bind,noatime {0} && exec sleep 1000",
        root.display()
    );
    let mut other = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", &elsewhere])
        .spawn()
        .unwrap();
    let_pass(2);
    agent.restart();
    let named = agent.ctl().candidate_files();
    let gaps = agent.status()["gaps"].clone();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(named.is_empty(), "{named:?}");
    assert_eq!(gaps[1]["counts"], true, "{gaps}");
}

/// What backup programs and git do: a read with `O_NOATIME`, and one through a mapping that is older than the gap.
#[test]
fn what_is_read_in_a_gap_without_an_access_time_is_kept_unless_the_operator_vouches() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 4);
    let mapped = Mapping::of(File::open(&files[1]).unwrap());
    age_tree(&root);
    let_pass(6);
    let mut agent = Agent::tracking(&Config::new(&root, DEFAULT_TOLERANCE).rule("old", RULE));
    assert_eq!(agent.ctl().candidate_files().len(), 4, "all are expired");
    let_pass(6);
    agent.terminate();
    let unseen = OFlags::RDONLY | OFlags::NOATIME;
    let mut content = Vec::new();
    File::from(open(&files[0], unseen, Mode::empty()).unwrap())
        .read_to_end(&mut content)
        .unwrap();
    assert!(!content.is_empty() && mapped.first_byte() == content[0]);
    drop(mapped);
    let_pass(2);
    agent.launch();
    agent.wait_until_tracking();
    let named = agent.ctl().candidate_files();
    assert!(named.is_empty(), "{named:?}");
    let gap = agent.status()["gaps"][0].clone();
    assert_eq!(
        (&gap["counts"], &gap["closed"]),
        (&true.into(), &false.into()),
        "{gap}"
    );

    // With the key, `check` says what access times miss.
    let vouched = Config::new(&root, VOUCHED).rule("old", RULE);
    agent.write_config(&vouched);
    let (is_accepted, said) = agent.check();
    assert!(
        is_accepted && said.contains("access_times") && said.contains("O_NOATIME"),
        "{said}"
    );
}

/// A gap that access times closed counts again when the operator does not vouch for them any more.
#[test]
fn a_gap_that_was_closed_counts_again_without_the_key() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    make(&root.join("d"), 4);
    age_tree(&root);
    let_pass(6);
    let mut agent = Agent::tracking(&Config::new(&root, VOUCHED).rule("old", RULE));
    let_pass(6);
    agent.restart();
    let closed = agent.status()["gaps"][0]["closed"] == true;
    assert!(closed || servers_run(), "{}", agent.status());
    agent.write_config(&Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"1h\"").rule("old", RULE));
    agent.restart();
    let gaps = agent.status()["gaps"].clone();
    assert_eq!(gaps[0]["counts"], closed, "{gaps}");
}

/// Stopped and started within one second: times are whole seconds, and the gap seems to have no length.
#[test]
fn a_stop_within_a_second_is_a_gap_too() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::new(&root, DEFAULT_TOLERANCE).rule("old", RULE));
    for (killed, file) in [false, true].into_iter().zip(&files) {
        end(&mut agent, killed);
        read(file);
        agent.launch();
        agent.wait_until_tracking();
        let named = agent.ctl().candidate_files();
        assert!(!named.contains(file), "killed {killed}: {:?}", agent.status());
    }
}

#[test]
fn a_plan_says_how_many_candidates_a_forgiven_stretch_may_concern() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let keys = "baseline = \"mtime\"\ngap_tolerance = \"1h\"";
    let mut agent = Agent::tracking(&Config::new(&root, keys).rule("old", RULE));
    assert_eq!(agent.ctl().plan().json["forgiven"], Value::Null, "no stretch yet");
    for _ in 0..2 {
        agent.terminate();
        let_pass(2);
        agent.launch();
        agent.wait_until_tracking();
    }
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 20);
    assert_eq!(number(&plan.json, "/forgiven/stretches"), 2, "{}", plan.json);
    assert_eq!(number(&plan.json, "/forgiven/candidates"), 20, "{}", plan.json);
    assert!(number(&plan.json, "/forgiven/seconds") >= 4, "{}", plan.json);
    let said = ctl.run(["plan"]).ok().text();
    assert!(said.contains("2 unwatched stretches, "), "{said}");
    assert!(
        said.contains("20 candidates might have been used in them"),
        "{said}"
    );
    let explained = ctl.explain(&files[0]);
    let because = text(&explained["rules"][0], "because");
    assert!(because.contains("2 unwatched stretches"), "{because}");
    assert_eq!(explained["gaps"].as_array().unwrap().len(), 2, "{explained}");
    let said = ctl.run(["explain", files[0].to_str().unwrap()]).ok().text();
    assert!(said.contains("forgiven"), "{said}");

    // Without a tolerance from now on, what was forgiven before is not.
    agent.write_config(&Config::new(&root, DEFAULT_TOLERANCE).rule("old", RULE));
    agent.restart();
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 0, "{}", plan.json);
    assert_eq!(plan.json["forgiven"], Value::Null);
}
