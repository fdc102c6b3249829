//! One user's files, and limits that bind the plans of all: what one user can make large must not keep everyone's files, and must not make
//! others' files go.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use purge_tests::ctl::{number, text};
use purge_tests::files::{count_files, now, set_times, temp_dir};
use purge_tests::notices::{ALICE, BOB};
use purge_tests::wait::{LONG, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use tempfile::TempDir;

const CAROL: u32 = 61_003;
const HOUR: i64 = 3600;
const TB: u64 = 1_000_000_000_000;
/// The first look at quotas and watermarks is five seconds after the start.
const LOOK_SECONDS: u64 = 8;

fn config(root: &Path, rule: &str) -> Config {
    let rule = format!("ttl = \"9d\"\nclock = [\"access\"]\nremove_empty_dirs = false\n{rule}");
    Config::new(root, "baseline = \"mtime\"").rule("old", &rule)
}

fn give(path: &Path, uid: u32, hours: i64) {
    chown(path, Some(uid), Some(uid)).unwrap();
    set_times(path, now() - hours * HOUR);
}

/// Files of `uid`, each of `bytes` bytes; the first is the oldest, last used `hours` ago.
fn put_many(dir: &Path, uid: u32, count: i64, bytes: usize, hours: i64) -> Vec<PathBuf> {
    fs::create_dir_all(dir).unwrap();
    let put = |i: i64| {
        let path = dir.join(format!("f{i:04}"));
        fs::write(&path, vec![7; bytes]).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        set_times(&path, now() - hours * HOUR + i);
        path
    };
    (0..count).map(put).collect()
}

/// A file of `bytes` bytes that takes no block.
fn sparse(path: &Path, uid: u32, bytes: u64, hours: i64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
    give(path, uid, hours);
}

/// Bob's forty files have expired, Carol's four hundred have not.
fn of_others(root: &Path) {
    put_many(&root.join("bob"), BOB, 40, 10_000, 240);
    put_many(&root.join("carol"), CAROL, 400, 20_000, 1);
}

#[test]
fn an_expired_sparse_file_of_one_user_has_no_plan_refused() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    of_others(&root);
    sparse(&root.join("s"), ALICE, TB, 300);
    let limits = "max_fraction = 0.25\nmax_bytes = \"1GB\"";
    let agent = Agent::tracking(&config(&root, limits));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(text(&plan.json, "refusal"), "", "{}", plan.json);
    assert_eq!(number(&plan.json, "/candidates/files"), 41, "{}", plan.json);
    assert!(number(&plan.json, "/takes") < 1_000_000, "{}", plan.json);
    assert_eq!(number(&ctl.apply(&plan).ok().json(), "/deleted/files"), 41);
    assert_eq!(count_files(&root.join("bob")), 0);
}

#[test]
fn a_young_sparse_file_of_one_user_lets_no_limit_pass() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    // Forty of forty-four files' bytes, and few by number: without the sparse file the limit holds.
    put_many(&root.join("bob"), BOB, 4, 4_000_000, 240);
    put_many(&root.join("carol"), CAROL, 100, 1000, 1);
    sparse(&root.join("s"), ALICE, TB, 1);
    let agent = Agent::tracking(&config(&root, "max_fraction = 0.25"));
    let plan = agent.ctl().plan();
    assert!(
        text(&plan.json, "refusal").contains("max_fraction 25%"),
        "{}",
        plan.json
    );
    let _ = agent.ctl().apply(&plan).ends_with(3);
    assert_eq!(count_files(&root.join("bob")), 4);
}

/// Some uids have too many files: with them a watermark's plan would be refused for everyone.
fn are_left_out_of_a_watermarks_plan(uids: &[u32], launcher: &[&str]) {
    let mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let root = mount.path();
    put_many(&root.join("bob"), BOB, 40, 1000, 400);
    put_many(&root.join("carol"), CAROL, 300, 1000, 1);
    let each = 1200 / i64::try_from(uids.len()).unwrap();
    for uid in uids {
        put_many(&root.join("alice").join(uid.to_string()), *uid, each, 0, 300);
    }
    let keys = "rule = \"old\"\nhigh = \"70%\"\nlow = \"40%\"\nmin_age = \"5h\"";
    let agent = Agent::tracking_under(&config(&root, "").table("watermark", keys), launcher);
    until("bob's expired files go", LONG, || {
        (count_files(&root.join("bob")) == 0).then_some(())
    });
    let taken = until("the run's end", LONG, || {
        let status = agent.status();
        let taken = number(&status, "/triggers/0/taken_lately/files");
        (taken > 0).then_some(taken)
    });
    println!("{taken} of 1540 files went");
    assert!((40..=385).contains(&taken), "{taken}");
    assert_eq!(count_files(&root.join("carol")), 300);
    assert!(count_files(&root.join("alice")) >= 1200 + 40 - 385);
    let plans = agent.ctl().run(["plans", "--output", "ndjson"]).ok().lines();
    let why = plans.iter().find_map(|p| p.pointer("/left_out/0")?.as_str());
    let why = why.expect("a plan that says what was left out");
    assert!(
        why.contains(&format!("(uid {}", uids[0])) && why.contains("max_fraction"),
        "{why}"
    );
}

#[test]
fn many_empty_files_of_one_user_are_left_out_of_a_watermarks_plan_and_the_rest_goes() {
    are_left_out_of_a_watermarks_plan(&[ALICE], &[]);
}

#[test]
fn many_empty_files_of_several_uids_are_left_out_of_a_watermarks_plan_and_the_rest_goes() {
    are_left_out_of_a_watermarks_plan(&[ALICE, 61_101, 61_102], &[]);
}

/// A user has 65,536 more uids by default.
#[test]
fn subordinate_uids_are_left_out_with_the_user_whose_they_are() {
    let uids: Vec<u32> = std::iter::once(ALICE).chain(700_000..700_099).collect();
    let etc = temp_dir();
    let launcher = with_etc(&etc, "subuid", &format!("{ALICE}:700000:65536"));
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    are_left_out_of_a_watermarks_plan(&uids, &launcher);
}

/// Another `/etc`, which the agent alone sees, with one file that has one line.
fn with_etc(etc: &TempDir, name: &str, line: &str) -> Vec<String> {
    fs::set_permissions(etc.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let line = format!(
        "cp -a /etc/. {0}/ && echo '{line}' > {0}/{name} && mount --bind {0} /etc && exec \"$@\"",
        etc.path().display(),
    );
    ["unshare", "--mount", "sh", "-c", &line, "sh"]
        .map(str::to_owned)
        .to_vec()
}

/// Sets the project id of a directory or file, as one who owns it.
fn set_project(path: &Path, id: u32, uid: u32) {
    let uid = uid.to_string();
    let mut chattr = Command::new("setpriv");
    chattr.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "chattr"]);
    if path.is_dir() {
        chattr.arg("+P");
    }
    sh(chattr.args(["-p", &id.to_string()]).arg(path)).unwrap();
}

fn project_quota(root: &Path, name: &str, hard: &str) -> Config {
    let keys = format!(
        "name = \"{name}\"\nsubject = \"project\"\nhard = \"{hard}\"\naction = \"purge\"\nmin_age = \"2d\""
    );
    config(root, "max_fraction = 1.0").table("quota", &keys)
}

#[test]
fn a_project_id_that_a_user_sets_deletes_nothing_of_the_project() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    let team = root.join("team");
    fs::create_dir(&team).unwrap();
    set_project(&team, 42, 0);
    let of_team = put_many(&team, BOB, 60, 10_000, 72);
    // In a directory of her own: what is in the file is real, and more than the project may have.
    let hers = put_many(&root.join("alice"), ALICE, 1, 8_000_000, 72).remove(0);
    chown(root.join("alice"), Some(ALICE), Some(ALICE)).unwrap();
    set_project(&hers, 42, ALICE);
    // And in one that has the id as well, by her word.
    let more = put_many(&root.join("alice/p"), ALICE, 1, 8_000_000, 72).remove(0);
    chown(root.join("alice/p"), Some(ALICE), Some(ALICE)).unwrap();
    set_project(&root.join("alice/p"), 42, ALICE);
    set_project(&more, 42, ALICE);
    let agent = Agent::tracking(&project_quota(&root, "q", "2MB"));
    let plan = agent.ctl().plan_with(["--quota", "q"]);
    assert_eq!(number(&plan.json, "/candidates/files"), 0, "{}", plan.json);
    let why = plan.json.pointer("/left_out/0").and_then(|w| w.as_str());
    let why = why.expect("what does not count");
    assert!(why.contains("2 files") && why.contains("(42)"), "{why}");
    let usage = agent
        .ctl()
        .run(["usage", "--by", "project", "--output", "ndjson"])
        .ok();
    let of_42 = usage.lines().into_iter().find(|row| text(row, "subject") == "42");
    assert_eq!(
        number(&of_42.expect("project 42"), "/files"),
        62,
        "usage shows all"
    );
    let_pass(LOOK_SECONDS);
    assert_eq!(count_files(&root), 62, "nothing went by itself");
    // What members write counts, and the project's oldest files go.
    put_many(&team.join("more"), BOB, 1, 3_000_000, 60);
    let plan = agent.ctl().plan_with(["--quota", "q"]);
    let run = agent.ctl().apply(&plan).ok().json();
    assert!(number(&run, "/deleted/files") > 0, "{run}");
    assert!(!of_team[0].exists() && hers.exists() && more.exists());
}

#[test]
fn a_directory_that_etc_projects_names_is_the_projects() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    let lab = root.join("lab");
    fs::create_dir(&lab).unwrap();
    chown(&lab, Some(BOB), Some(BOB)).unwrap();
    set_project(&lab, 43, BOB);
    put_many(&lab, BOB, 10, 10_000, 72);
    let config = project_quota(&root, "q", "50kB");
    let agent = Agent::tracking(&config);
    let plan = agent.ctl().plan_with(["--quota", "q"]);
    assert_eq!(
        number(&plan.json, "/candidates/files"),
        0,
        "the directory is a user's"
    );
    drop(agent);
    let etc = temp_dir();
    let launcher = with_etc(&etc, "projects", &format!("43:{}", lab.display()));
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let agent = Agent::tracking_under(&config, &launcher);
    let plan = agent.ctl().plan_with(["--quota", "q"]);
    assert_eq!(number(&plan.json, "/candidates/files"), 6, "{}", plan.json);
}

/// Opens what its arguments name with O_PATH, which no lease tells of, and says when it is done.
const KEEP: &str = "\
import os, sys
kept = [os.open(path, os.O_PATH) for path in sys.argv[1:]]
print('kept', flush=True)
sys.stdin.read()
";

/// Alice opens files in this way until the process ends.
fn keep(root: &Path, files: &[PathBuf]) -> Child {
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    let uid = ALICE.to_string();
    let mut keeper = Command::new("setpriv");
    keeper.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    keeper.args(["/usr/bin/python3", "-c", KEEP]).args(files);
    let mut keeper = keeper
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(keeper.stdout.as_mut().unwrap())
        .read_line(&mut said)
        .unwrap();
    assert_eq!(said, "kept\n");
    keeper
}

/// However many uids she has: twenty are more than are looked at one by one.
#[test]
fn deleted_files_of_many_uids_stop_no_watermark_for_the_others() {
    const FILE: usize = 2_000_000;
    let mount = need!(Mount::sized(Fs::Ext4, 128, 2000));
    let root = mount.path();
    let of_uid = |uid: u32| put_many(&root.join("many").join(uid.to_string()), uid, 1, FILE, 400);
    let hers: Vec<PathBuf> = (700_000..700_020).flat_map(of_uid).collect();
    put_many(&root.join("bob"), BOB, 25, FILE, 300);
    let mut keeper = keep(&root, &hers);
    // The first run takes all of hers, and some of bob's.
    let keys = "rule = \"old\"\nhigh = \"70%\"\nlow = \"38%\"\nmin_age = \"5h\"";
    let mut agent = Agent::tracking(&config(&root, "max_fraction = 1.0").table("watermark", keys));
    let left_out = until("her uids are left out", LONG, || {
        let status = agent.status();
        let state = status.pointer("/triggers/0/state").unwrap();
        assert_ne!(state, "stopped", "{status}");
        let left_out = status.pointer("/triggers/0/left_out")?.as_array()?.len();
        (left_out > 0).then_some(left_out)
    });
    println!("{left_out} uids are left out");
    assert_eq!(left_out, 20);
    agent.restart();
    until("bob's expired files go", LONG, || {
        (count_files(&root.join("bob")) < 12).then_some(())
    });
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}

#[test]
fn deleted_files_that_one_user_keeps_stop_no_watermark_for_the_others() {
    const FILE: usize = 2_000_000;
    let mount = need!(Mount::sized(Fs::Ext4, 128, 2000));
    let root = mount.path();
    let hers = put_many(&root.join("alice"), ALICE, 30, FILE, 400);
    put_many(&root.join("bob"), BOB, 15, FILE, 300);
    let mut keeper = keep(&root, &hers);
    // Twelve files must go: hers, which are the oldest.
    let keys = "rule = \"old\"\nhigh = \"75%\"\nlow = \"58%\"\nmin_age = \"5h\"";
    let mut agent = Agent::tracking(&config(&root, "max_fraction = 1.0").table("watermark", keys));
    let why = until("she is left out", LONG, || {
        let status = agent.status();
        assert_ne!(
            status.pointer("/triggers/0/state").unwrap(),
            "stopped",
            "{status}"
        );
        status
            .pointer("/triggers/0/left_out/0")?
            .as_str()
            .map(str::to_owned)
    });
    println!("{why}");
    assert!(why.contains(&format!("(uid {ALICE})")), "{why}");
    assert!(
        why.contains(&format!("process {} (python3) of uid {ALICE}", keeper.id())),
        "{why}"
    );
    let left = count_files(&root.join("alice"));
    assert!(left < 30 && left > 10, "one run's worth went: {left}");
    // The watermark goes on, with the files of others.
    agent.restart();
    until("bob's expired files go", LONG, || {
        (count_files(&root.join("bob")) < 8).then_some(())
    });
    assert_eq!(count_files(&root.join("alice")), left);
    let table = agent.ctl().run(["status"]).ok().text();
    assert!(table.contains("leaves out files of"), "{table}");
    until("what that frees is known", LONG, || {
        let status = agent.status();
        let state = status.pointer("/triggers/0/state")?.as_str()?.to_owned();
        (state != "measuring").then_some(())
    });
    // Hers count again when nothing keeps them.
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    put_many(&root.join("carol"), CAROL, 25, FILE, 1);
    agent.restart();
    until("hers go again", LONG, || {
        (count_files(&root.join("alice")) < left).then_some(())
    });
}
