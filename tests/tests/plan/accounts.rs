//! Users and groups as directory services have them: whom rules, quotas, questions and lists mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::accounts::Accounts;
use purge_tests::ctl::{number, text};
use purge_tests::files::{age, assert_same, make_one, temp_dir};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};

const HIGH: u32 = (1 << 31) + 7;
const HIGHEST: u32 = u32::MAX - 1;

/// Name and number of users, of whom some are called oddly.
const USERS: [(&str, u32); 9] = [
    (r"DOM\alice", 5001),
    ("bob@example.org", 5002),
    ("john smith", 5003),
    ("twice", 5004),
    ("twice", 5005),
    ("first", 5006),
    ("second", 5006),
    ("high", HIGH),
    ("DOMalice", 5008),
];

fn lines(users: &[(&str, u32)]) -> String {
    let line = |(name, id): &(&str, u32)| format!("{name}:x:{id}:{id}::/:/bin/sh\n");
    users.iter().map(line).collect()
}

/// A file of a kilobyte for each number, named by it.
fn make_files(root: &Path, ids: &[u32]) -> BTreeMap<u32, PathBuf> {
    let make = |id: &u32| {
        let file = make_one(&root.join(id.to_string()));
        fs::write(&file, vec![0; 1024]).unwrap();
        chown(&file, Some(*id), Some(*id)).unwrap();
        age(&file);
        (*id, file)
    };
    ids.iter().map(make).collect()
}

const IDS: [u32; 10] = [5001, 5002, 5003, 5004, 5005, 5006, HIGH, 5008, 5009, HIGHEST];

fn ids(found: &BTreeSet<PathBuf>) -> Vec<u32> {
    let id = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let mut ids: Vec<u32> = found.iter().map(id).collect();
    ids.sort_unstable();
    ids
}

/// Agents that find all users in the files, and all of them in a directory service.
fn both() -> [Accounts; 2] {
    let all = lines(&USERS);
    [
        Accounts::new(&all, &all.replace(":/bin/sh", "")),
        Accounts::new("", "").with_directory(&all),
    ]
}

#[test]
fn a_rule_means_all_who_have_a_name_and_none_else() {
    let mount = need!(Mount::new(Fs::Ext4));
    make_files(&mount.path(), &IDS);
    let keys = |keys: &str| format!("ttl = \"1h\"\nclock = [\"access\"]\n{keys}");
    // What each rule takes.
    let table: [(&str, &str, &[u32]); 9] = [
        ("domain", r"users = ['DOM\alice']", &[5001]),
        ("mail", "users = ['bob@example.org']", &[5002]),
        ("blank", "users = ['john smith']", &[5003]),
        ("twice", "users = ['twice']", &[5004, 5005]),
        ("second", "users = ['second']", &[5006]),
        ("high", "users = ['high']", &[HIGH]),
        ("nameless", "users = ['5009', '4294967294']", &[5009, HIGHEST]),
        ("groups", "groups = ['5002', '+5003']", &[5002, 5003]),
        (
            "others",
            r"exclude_users = ['DOM\alice', 'bob@example.org', 'john smith', 'twice', 'second', 'high', '4294967294']",
            &[5008, 5009],
        ),
    ];
    for accounts in both() {
        let config = table.iter().fold(
            Config::new(&mount.path(), "baseline = \"mtime\""),
            |config, (name, k, _)| config.rule(name, &keys(k)),
        );
        let agent = accounts.agent(&config);
        let ctl = agent.ctl();
        for (name, _, expected) in table {
            let plan = ctl.plan_with(["--rule", name]);
            let taken: BTreeSet<PathBuf> = ctl.show(&plan).into_keys().collect();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(ids(&taken), expected, "{name}");
        }
        let twice = ctl.plan_with(["--rule", "twice"]);
        let owners: BTreeSet<String> = ctl
            .show(&twice)
            .values()
            .map(|c| text(c, "owner").to_owned())
            .collect();
        assert_eq!(
            owners,
            ["5005", "twice"].map(String::from).into(),
            "two users are shown as two"
        );
        assert_eq!(ids(&ctl.find(["--user", "second"])), [5006]);
        assert_eq!(ids(&ctl.find(["--user", r"DOM\alice"])), [5001]);
        assert_eq!(ids(&ctl.find(["--user", &HIGH.to_string()])), [HIGH]);
    }
}

#[test]
fn a_second_number_of_an_excluded_name_is_excluded_from_any_source() {
    let mount = need!(Mount::new(Fs::Ext4));
    make_files(&mount.path(), &[5001, 5002, 5003]);
    // The files know one, the directory another, and it prints another case than was written.
    let accounts = Accounts::new(&lines(&[("keeper", 5001)]), "")
        .with_directory(&lines(&[("keeper", 5002), (r"DOM\Keeper", 5003)]));
    let keys = r"exclude_users = ['keeper', 'dom\keeper']";
    let agent = accounts.agent(&Config::backdated_with(&mount.path(), keys));
    assert!(agent.ctl().candidates().is_empty());
    assert_eq!(
        text(&agent.ctl().explain(&mount.path().join("5002")), "owner"),
        "5002"
    );
}

#[test]
fn an_override_means_whom_it_names() {
    let mount = need!(Mount::new(Fs::Ext4));
    make_files(&mount.path(), &IDS);
    let overrides = [
        r"DOM\alice",
        "bob@example.org",
        "john smith",
        "twice",
        "second",
        "high",
        "5009",
        "4294967294",
    ];
    let more: String = overrides
        .iter()
        .map(|name| format!("\n[[quota.overrides]]\nmatch = '{name}'\nhard = \"1MB\"\n"))
        .collect();
    let quota = |action: &str| {
        format!(
            "name = \"q\"\nsubject = \"user\"\nhard = \"100B\"\nmin_age = \"1h\"\naction = \"{action}\"\nrule = \"old\"{more}"
        )
    };
    for accounts in both() {
        let agent = accounts.agent(&Config::backdated(&mount.path()).table("quota", &quota("notify")));
        let plan = agent.ctl().plan_with(["--quota", "q"]);
        let taken: BTreeSet<PathBuf> = agent.ctl().show(&plan).into_keys().collect();
        assert_eq!(ids(&taken), [5008], "only who has no limit of their own");
        let owners: Vec<(&str, u64)> = plan.json["by_owner"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| (text(o, "owner"), number(o, "/files")))
            .collect();
        assert_eq!(owners, [("DOMalice", 1)]);
    }
}

#[test]
fn each_owner_has_a_list_of_their_own() {
    let mount = need!(Mount::new(Fs::Ext4));
    make_files(&mount.path(), &IDS);
    let lists = temp_dir();
    let accounts = Accounts::new(&lines(&USERS), "");
    let keys = format!(
        "announce = \"14d\"\nannounce_to = {:?}",
        lists.path().join("lists")
    );
    let agent = accounts.agent(&Config::backdated_with(&mount.path(), &keys));
    agent.ctl().plan();
    let dir = lists.path().join("lists/old");
    let named = purge_tests::wait::until("the lists", purge_tests::wait::SOON, || {
        let names: BTreeSet<PathBuf> = fs::read_dir(&dir)
            .ok()?
            .map(|e| e.unwrap().file_name().into())
            .collect();
        (names.len() >= IDS.len() && names.iter().all(|n| !n.to_string_lossy().starts_with('.')))
            .then_some(names)
    });
    let expected = [
        r"DOM\alice",
        "bob@example.org",
        "john smith",
        "twice",
        "5005",
        "first",
        "high",
        "DOMalice",
        "5009",
        "4294967294",
    ];
    assert_same("lists", &named, &expected.map(PathBuf::from).into());
    for (list, id) in [("twice", 5004), ("5005", 5005)] {
        let text = fs::read_to_string(dir.join(list)).unwrap();
        assert!(
            text.lines().count() == 1 && text.trim_end().ends_with(&format!("/{id}")),
            "{list}: {text}"
        );
    }
}

#[test]
fn a_number_that_is_also_a_name_is_asked_about() {
    let mount = need!(Mount::new(Fs::Ext4));
    let accounts = Accounts::new(&lines(&[("4711", 5001)]), "");
    let check = |keys: &str, more: &str| {
        let config = Config::backdated_with(&mount.path(), keys).tables(more);
        let agent = Agent::prepared(&config);
        let launcher = accounts.launcher();
        let (program, words) = launcher.split_first().unwrap();
        let out = Command::new(program)
            .args(words)
            .arg(binary("purge-agent"))
            .args(["check", "--config"])
            .arg(agent.config_file())
            .output()
            .unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (good, said) = check("exclude_users = ['4711']", "");
    assert!(
        !good && said.contains("+4711") && said.contains("+5001"),
        "{said}"
    );
    assert!(check("exclude_users = ['+4711', '+5001', '4712']", "").0);
    let quota = "[[quota]]\nname = \"q\"\nvolume = \"v\"\nsubject = \"user\"\nhard = \"1TB\"\n\
                 overrides = [{ match = 'DOM\\gone', hard = \"2TB\" }, { match = 'DOM\\*', hard = \"2TB\" }]";
    let (good, said) = check("", quota);
    assert!(
        good && said.contains("warning") && said.contains("gone"),
        "{said}"
    );
    assert!(
        !said.contains('*'),
        "a glob may mean accounts that come later: {said}"
    );
}

/// One person can have 65,536 of them.
#[test]
fn owners_without_names_are_not_asked_for_one_by_one() {
    let mount = need!(Mount::new(Fs::Ext4));
    let accounts = Accounts::new("", "").with_directory(&lines(&[("large", 299_999)]));
    let uids: Vec<u32> = (200_000..202_500).chain([299_999]).collect();
    make_files(&mount.path(), &uids);
    fs::write(mount.path().join("299999"), vec![0; 100_000]).unwrap();
    age(&mount.path().join("299999"));
    let agent = accounts.agent(&Config::backdated(&mount.path()));
    let before = accounts.asked();
    let plan = agent.ctl().plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 2501, "{}", plan.json);
    let first = plan.json.pointer("/by_owner/0").unwrap();
    assert_eq!(text(first, "owner"), "large", "{first}");
    let forecast = agent.ctl().run(["forecast", "--by", "user"]).ok().text();
    assert!(forecast.contains("large"), "{forecast}");
    let asked = accounts.asked() - before;
    println!("asked {asked} times");
    assert!(asked < 100, "{asked}");
}
