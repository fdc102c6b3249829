//! Rules that take only what was announced.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{assert_same, make_one, now, read, set_times};
use purge_tests::wait::{let_pass, until, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

const HOUR: i64 = 3600;

#[test]
fn a_rule_takes_only_what_a_list_that_is_old_enough_has_named() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let old = |path: PathBuf| {
        make_one(&path);
        set_times(&path, now() - 5 * HOUR);
        path
    };
    let files: Vec<PathBuf> = (0..6).map(|i| old(root.join(format!("f{i}")))).collect();
    let elsewhere = mount.dir("elsewhere");
    let late = old(elsewhere.join("late"));
    let keys = "ttl = \"1h\"\nclock = [\"access\"]\nannounce = \"20s\"\nmax_fraction = 1.0";
    let config = Config::new(&root, "baseline = \"mtime\"\nprecision = \"0s\"").rule("r", keys);
    let mut agent = Agent::tracking(&config);
    let because = |agent: &Agent| {
        let told = agent.ctl().explain(&files[0]);
        text(told.pointer("/rules/0").unwrap(), "because").to_owned()
    };
    assert_same(
        "before any list is old",
        &agent.ctl().candidate_files(),
        &BTreeSet::new(),
    );
    assert!(because(&agent).contains("announced for"), "{}", because(&agent));
    until("the first list", Duration::from_secs(30), || {
        because(&agent).contains("was named").then_some(())
    });
    // A file that is used starts again, also with a TTL that it has passed again; so does what comes into the volume now.
    read(&files[1]);
    set_times(&files[1], now() - 5 * HOUR);
    fs::rename(&late, root.join("late")).unwrap();
    let hold = agent.ctl().hold(&files[2], &[]);
    // A restart forgets nothing.
    agent.restart();
    let_pass(7);
    let _ = agent.ctl().run(["hold", "remove", &hold]).ok();
    let expected: BTreeSet<PathBuf> = [0, 3, 4, 5].iter().map(|i| files[*i].clone()).collect();
    until_same("named for long enough", &expected, || {
        agent.ctl().candidate_files()
    });
    let plan = agent.ctl().plan();
    let done = agent.ctl().apply(&plan).ok().json();
    assert_eq!(number(&done, "/deleted/files"), 4);
    assert!(files[1].exists() && files[2].exists() && root.join("late").exists());
    // The hold ended: the file is named again, and deleted when its time has come. What was read stays, it is young.
    let left = BTreeSet::from([files[2].clone()]);
    until_same("named again", &left, || agent.ctl().candidate_files());
    // A damaged list names nothing.
    let list = agent.state_dir().join("announced/r");
    fs::write(&list, b"nonsense").unwrap();
    assert_same("a damaged list", &agent.ctl().candidate_files(), &BTreeSet::new());
}

#[test]
fn what_will_come_is_told_for_the_time_at_which_it_may_go() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let file = make_one(&root.join("f"));
    set_times(&file, now() - 5 * HOUR);
    let keys = "ttl = \"1h\"\nclock = [\"access\"]\nannounce = \"3d\"";
    let agent = Agent::tracking(&Config::new(&root, "baseline = \"mtime\"").rule("r", keys));
    let told = agent
        .ctl()
        .run(["forecast", "--days", "5", "--output", "json"])
        .ok()
        .json();
    let days = told.pointer("/days").and_then(Value::as_array).unwrap();
    let files: Vec<u64> = days.iter().map(|d| number(d, "/files")).collect();
    assert_eq!((number(&told, "/due/files"), files), (0, vec![0, 0, 0, 1, 0]));
    assert_same("soon", &agent.ctl().find(["--expiring", "2d"]), &BTreeSet::new());
    assert_same(
        "later",
        &agent.ctl().find(["--expiring", "4d"]),
        &BTreeSet::from([file]),
    );
}

#[test]
fn owners_find_a_list_that_they_alone_can_read() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let lists = purge_tests::files::temp_dir();
    fs::set_permissions(lists.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let put = |name: &str, uid: u32| {
        let path = make_one(&root.join(name));
        chown(&path, Some(uid), Some(uid)).unwrap();
        set_times(&path, now() - 5 * HOUR);
        path
    };
    let mine = put("mine", 50_001);
    put("two\nlines", 50_001);
    let other = put("other", 50_002);
    let keys = format!(
        "ttl = \"1h\"\nclock = [\"access\"]\nannounce = \"20s\"\nannounce_to = \"{}\"",
        lists.path().display()
    );
    let config = Config::new(&root, "baseline = \"mtime\"\nprecision = \"0s\"").rule("r", &keys);
    let _agent = Agent::tracking(&config);
    let list = |uid: &str| lists.path().join("r").join(uid);
    until("the lists", Duration::from_secs(30), || {
        (list("50001").exists() && list("50002").exists()).then_some(())
    });
    let text = fs::read_to_string(list("50001")).unwrap();
    let mut paths: Vec<&str> = text.lines().map(|l| l.splitn(3, '\t').nth(2).unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [mine.to_str().unwrap(), &format!("{}/two\\nlines", root.display())]
    );
    let is = fs::metadata(list("50001")).unwrap();
    assert_eq!((is.uid(), is.mode() & 0o777), (50_001, 0o400));
    // What is used goes from the next list.
    read(&other);
    until("a list goes with its last file", Duration::from_secs(30), || {
        (!list("50002").exists()).then_some(())
    });
    assert!(list("50001").exists());
}
