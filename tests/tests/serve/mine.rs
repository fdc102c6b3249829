//! Ordinary users ask for what of theirs will expire: over the agent's socket, or in a file that they can read without it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use purge_tests::ctl::{number, path_of, purgectl_for_users, text};
use purge_tests::files::{assert_same, now, read, set_times, temp_dir};
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need, sh};
use serde_json::Value;

const DAY: i64 = 86_400;
const ALICE: u32 = 50_001;
const BOB: u32 = 50_002;
/// Has nothing there.
const CAROL: u32 = 50_003;

fn put(path: PathBuf, uid: u32, days: i64) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, [7; 100]).unwrap();
    chown(&path, Some(uid), Some(uid)).unwrap();
    set_times(&path, now() - days * DAY);
    path
}

/// What Alice and Bob have in directories of their own that no other user may enter, and in one that is open to all users.
struct Share {
    root: PathBuf,
    alices: BTreeSet<PathBuf>,
    bobs: PathBuf,
}

impl Share {
    fn make(mount: &Mount) -> Self {
        fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = mount.dir("volume");
        let alices = [
            put(root.join("home/alice/run/old"), ALICE, 12),
            put(root.join("home/alice/run/soon"), ALICE, 8),
            put(root.join("common/alices"), ALICE, 7),
        ];
        put(root.join("home/alice/young"), ALICE, 1);
        let bobs = put(root.join("home/bob/secret project/old"), BOB, 12);
        put(root.join("common/bobs"), BOB, 8);
        for (name, uid) in [("alice", ALICE), ("bob", BOB)] {
            let home = root.join("home").join(name);
            chown(&home, Some(uid), Some(uid)).unwrap();
            fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        }
        Self {
            root,
            alices: alices.into(),
            bobs,
        }
    }

    fn config(&self, more: &str) -> Config {
        let keys = format!("ttl = \"10d\"\nclock = [\"access\"]\n{more}");
        Config::new(&self.root, "baseline = \"mtime\"\nprecision = \"0s\"").rule("r", &keys)
    }
}

fn mine(ctl: &Ctl, more: &[&str]) -> Value {
    let words = ["mine", "--output", "json", "--expiring", "5d"];
    ctl.run(words.iter().chain(more)).ok().json()
}

fn directories(report: &Value) -> Vec<(PathBuf, u64)> {
    let rows = report.pointer("/directories").and_then(Value::as_array).unwrap();
    rows.iter().map(|r| (path_of(r), number(r, "/files"))).collect()
}

#[test]
fn users_see_what_of_theirs_expires_and_nothing_of_others() {
    let mount = need!(Mount::new(Fs::Ext4));
    let share = Share::make(&mount);
    let agent = Agent::tracking(&share.config("").access("self = true"));
    agent.reachable();
    let (_copy, program) = purgectl_for_users();
    let as_user = |uid| agent.ctl().as_user(uid, &program);
    let (alice, bob, carol) = (as_user(ALICE), as_user(BOB), as_user(CAROL));

    let report = mine(&alice, &["--depth", "3"]);
    assert_eq!(text(&report, "user"), ALICE.to_string());
    assert_eq!((number(&report, "/files"), number(&report, "/bytes")), (3, 300));
    // One is over the ten days already; the others have some left.
    assert_eq!(
        (
            number(&report, "/expired_files"),
            number(&report, "/expired_bytes")
        ),
        (1, 100)
    );
    assert_eq!(number(&report, "/directories/0/expired_files"), 1);
    assert_eq!(report.pointer("/rules/0/rule").unwrap(), "r");
    assert_eq!(report.pointer("/rules/0/next_at").unwrap(), &Value::Null);
    let expected = vec![
        (share.root.join("home/alice/run"), 2),
        (share.root.join("common"), 1),
    ];
    assert_eq!(directories(&report), expected);
    assert!(
        !report.to_string().contains("bob") && !report.to_string().contains("secret"),
        "{report}"
    );
    assert_same("named", &alice.find(["--expiring", "5d"]), &share.alices);
    assert_eq!(number(&mine(&bob, &[]), "/files"), 2);
    let nothing = mine(&carol, &[]);
    assert_eq!((number(&nothing, "/files"), directories(&nothing)), (0, vec![]));
    let words = carol.run(["mine", "--expiring", "5d"]).ok().text();
    assert!(words.contains("Nothing of 50003 expires within 5d"), "{words}");

    // Asking for another user's files is refused, asking for one's own by name is not.
    let refused = alice.run(["mine", "--user", &BOB.to_string()]).ends_with(1);
    assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    assert_eq!(
        mine(&alice, &["--user", &ALICE.to_string(), "--depth", "3"]),
        report
    );
    // Root may.
    assert_eq!(
        number(&mine(&agent.ctl(), &["--user", &BOB.to_string()]), "/files"),
        2
    );

    // What they do shows at once: one file is used, another is held.
    read(&share.root.join("home/alice/run/soon"));
    let held = share.root.join("common/alices");
    let _ = alice
        .run(["hold", "add", held.to_str().unwrap(), "--reason", "thesis"])
        .ok();
    let left = BTreeSet::from([share.root.join("home/alice/run/old")]);
    assert_same("left", &alice.find(["--expiring", "5d"]), &left);
    let report = mine(&alice, &[]);
    assert_eq!(number(&report, "/files"), 1);
    assert_eq!(
        (number(&report, "/held_files"), number(&report, "/held_bytes")),
        (1, 100)
    );
    let words = alice.run(["mine", "--expiring", "5d"]).ok().text();
    for part in [
        "1 file of 50001 (100 B) has expired",
        "The next run may take all of it. A file that is used stays.",
        "Rules that run when an administrator applies a plan: r (deletes at once).",
        "Kept by holds (purgectl hold list): 1 file (100 B).",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(number(&mine(&bob, &[]), "/held_files"), 0);
}

#[test]
fn without_the_role_only_root_is_told_anything() {
    let mount = need!(Mount::new(Fs::Ext4));
    let share = Share::make(&mount);
    let agent = Agent::tracking(&share.config(""));
    agent.reachable();
    let (_copy, program) = purgectl_for_users();
    let answer = agent.ctl().as_user(ALICE, &program).run(["mine"]);
    assert_ne!(answer.code, 0);
    assert!(!answer.text().contains("alice"), "{}", answer.text());
    assert_eq!(
        number(&mine(&agent.ctl(), &["--user", &ALICE.to_string()]), "/files"),
        3
    );
}

/// What this user can read of a file.
fn read_as(uid: u32, path: &Path) -> Result<String, String> {
    let id = uid.to_string();
    sh(Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--", "cat"])
        .arg(path))
}

#[test]
fn a_list_can_be_read_by_its_owner_without_the_agent() {
    let mount = need!(Mount::new(Fs::Ext4));
    let share = Share::make(&mount);
    let lists = temp_dir();
    fs::set_permissions(lists.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let keys = format!("announce = \"5d\"\nannounce_to = \"{}\"", lists.path().display());
    let mut agent = Agent::tracking(&share.config(&keys));
    let list = |uid: u32| lists.path().join("r").join(uid.to_string());
    until("the lists", Duration::from_secs(60), || {
        (list(ALICE).exists() && list(BOB).exists()).then_some(())
    });
    agent.terminate();
    let own = read_as(ALICE, &list(ALICE)).unwrap();
    let paths = own
        .lines()
        .map(|l| PathBuf::from(l.splitn(3, '\t').nth(2).unwrap()));
    assert_same("Alice's list", &paths.collect(), &share.alices);
    assert!(
        read_as(BOB, &list(BOB))
            .unwrap()
            .contains(share.bobs.to_str().unwrap())
    );
    assert!(read_as(ALICE, &list(BOB)).is_err(), "Bob's is his");
    assert!(!list(CAROL).exists());
}

/// Bob moved a file of Alice's into a directory of his that she cannot enter: its names are no business of hers.
/// A directory of mode 0711 is entered by name only.
#[test]
fn names_in_directories_that_a_user_cannot_list_are_not_told() {
    let mount = need!(Mount::new(Fs::Ext4));
    let share = Share::make(&mount);
    let way = share.root.join("way");
    put(way.join("merger-2027/patient"), ALICE, 12);
    put(way.join("alices/hers"), ALICE, 12);
    put(way.join("own"), ALICE, 12);
    fs::set_permissions(way.join("merger-2027"), fs::Permissions::from_mode(0o777)).unwrap();
    chown(way.join("alices"), Some(ALICE), Some(ALICE)).unwrap();
    chown(&way, Some(BOB), Some(BOB)).unwrap();
    fs::set_permissions(&way, fs::Permissions::from_mode(0o711)).unwrap();
    let agent = Agent::tracking(&share.config("").access("self = true"));
    agent.reachable();
    let (_copy, program) = purgectl_for_users();
    let alice = agent.ctl().as_user(ALICE, &program);
    let mine = ["mine", "--output", "json", "--expiring", "60d", "--depth", "9"];
    let answers = [
        alice.run(mine).ok().text(),
        alice.run(["find", "--output", "ndjson"]).ok().text(),
        alice.run(["find"]).ok().text(),
    ];
    for said in answers {
        assert!(!said.contains("merger") && !said.contains("patient"), "{said}");
        assert!(said.contains("way/alices"), "{said}");
    }
    let found = alice.run(["find"]).ok().text();
    assert!(found.contains("way/own"), "{found}");
}

#[test]
fn names_of_directories_that_a_user_cannot_enter_are_not_told() {
    let mount = need!(Mount::new(Fs::Ext4));
    let share = Share::make(&mount);
    let lists = temp_dir();
    fs::set_permissions(lists.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let merger = share.root.join("home/bob/merger");
    let (patient, other) = (merger.join("patient"), share.root.join("home/bob/lists/other"));
    put(patient.clone(), ALICE, 12);
    put(other.clone(), ALICE, 12);
    // To a group of hers it is open, and to one more user by an ACL.
    let team = share.root.join("team");
    let shared = put(team.join("in/shared"), ALICE, 12);
    chown(&team, Some(0), Some(50_050)).unwrap();
    fs::set_permissions(&team, fs::Permissions::from_mode(0o750)).unwrap();
    let keys = format!("announce = \"5d\"\nannounce_to = \"{}\"", lists.path().display());
    let agent = Agent::tracking(&share.config(&keys).access("self = true"));
    agent.reachable();
    let (_copy, program) = purgectl_for_users();
    let alice = agent.ctl().as_user(ALICE, &program);

    let words = ["mine", "--output", "json", "--expiring", "60d", "--depth", "9"];
    let report = alice.run(words).ok().json();
    assert_eq!(number(&report, "/files"), 7, "{report}");
    let home = share.root.join("home");
    let is_hidden = |row: &Value| row.get("hidden") == Some(&Value::Bool(true));
    let rows = report["directories"].as_array().unwrap();
    let row = rows.iter().find(|row| path_of(row) == home).unwrap();
    assert!(
        is_hidden(row) && number(row, "/files") == 2,
        "both as one: {report}"
    );
    let row = rows.iter().find(|row| path_of(row) == share.root).unwrap();
    assert!(
        is_hidden(row) && number(row, "/files") == 1,
        "not of the group: {report}"
    );
    let words = alice.run(["mine", "--expiring", "60d"]).ok().text();
    assert!(words.contains("in a directory that you cannot enter"), "{words}");

    let found = alice.run(["find", "--output", "ndjson"]).ok();
    assert_eq!(
        found.lines().iter().filter(|row| is_hidden(row)).count(),
        3,
        "{}",
        found.text()
    );
    let table = alice.run(["find"]).ok().text();
    let csv = alice.run(["find", "--output", "csv"]).ok().text();
    let names = alice.run(["find", "-0"]).ok();
    assert!(
        names
            .stderr
            .contains("3 entries lie in directories that you cannot enter"),
        "{}",
        names.stderr
    );
    for said in [report.to_string(), words, found.text(), table, csv, names.text()] {
        for name in ["merger", "patient", "lists", "other", "shared"] {
            assert!(!said.contains(name), "{name}: {said}");
        }
    }
    // To guess a name tells nothing.
    let guess = |path: &Path| {
        let path = path.to_str().unwrap();
        let found = alice.run(["find", path, "--output", "ndjson"]).ok().lines().len();
        let explained = alice.run(["explain", path]);
        let held = alice.run(["hold", "add", path, "--reason", "mine"]);
        (found, explained.code, held.code)
    };
    assert_eq!(guess(&merger), guess(&home.join("bob/nothing")));
    assert_eq!(guess(&patient), guess(&home.join("bob/merger/nothing")));

    // Her list says no more; those with a role see all of it.
    let list = lists.path().join("r").join(ALICE.to_string());
    until("the list", Duration::from_secs(60), || {
        list.exists().then_some(())
    });
    let list = read_as(ALICE, &list).unwrap();
    assert_eq!(list.lines().count(), 6, "{list}");
    assert_eq!(
        list.matches("(the rest is in a directory that you cannot enter)")
            .count(),
        3,
        "{list}"
    );
    assert!(!list.contains("merger") && !list.contains("other"), "{list}");
    let all = agent.ctl().find(["--user", &ALICE.to_string()]);
    assert!(all.contains(&patient) && all.contains(&other) && all.contains(&shared));

    // Bob opens them.
    fs::set_permissions(home.join("bob"), fs::Permissions::from_mode(0o755)).unwrap();
    until("they are shown", Duration::from_secs(60), || {
        let found = alice.find(["--type", "f"]);
        (found.contains(&patient) && found.contains(&other)).then_some(())
    });
}
