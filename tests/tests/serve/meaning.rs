//! A path means the same in every call: the entry that has these names, and no link is followed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, make, make_one, temp_dir};
use purge_tests::{Agent, Answer, Config, Fs, Mount, need};

/// Calls that take a path.
const CALLS: [&str; 4] = ["explain", "hold", "find", "restore"];

fn call(agent: &Agent, what: &str, run: &str, path: &Path) -> Answer {
    let path: OsString = path.into();
    let words: Vec<OsString> = match what {
        "explain" => vec!["explain".into(), path],
        "hold" => ["hold", "add", "--reason", "why"]
            .map(OsString::from)
            .into_iter()
            .chain([path])
            .collect(),
        "find" => vec!["find".into(), path],
        "restore" => ["restore", run]
            .map(OsString::from)
            .into_iter()
            .chain([path])
            .collect(),
        other => panic!("{other}"),
    };
    agent.ctl().run(words)
}

#[test]
fn no_call_follows_a_link_and_each_says_where_it_leads() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let outside = temp_dir();
    make_one(&outside.path().join("f000000"));
    make(&root.join("real/sub"), 2);
    make(&root.join("trashed"), 2);
    symlink("real", root.join("link")).unwrap();
    symlink("../link/sub", root.join("real/again")).unwrap();
    symlink(root.join("real"), root.join("absolute")).unwrap();
    symlink(outside.path(), root.join("out")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    age_tree(&root);
    let config = Config::backdated_with(&root, "grace = \"1d\"\ninclude = [\"/trashed/**\"]").rule(
        "rest",
        "ttl = \"1h\"\nclock = [\"access\"]\nexclude = [\"/trashed\"]",
    );
    let agent = Agent::tracking(&config);
    let trashed = agent.ctl().plan_with(["--rule", "old"]);
    let run = agent.ctl().apply(&trashed).ok().json();
    let run = text(&run, "run_id").to_owned();
    let real = |path: &str| root.join(path).display().to_string();
    // A path through or to a link, and what each refusal names.
    let table = [
        ("link", real("real"), true),
        ("link/", real("real"), true),
        ("link/sub", real("real/sub"), false),
        ("link/sub/f000000", real("real/sub/f000000"), false),
        ("link/not-there", real("real/not-there"), false),
        ("real/again", real("link/sub"), true),
        ("absolute/sub", real("real/sub"), false),
        ("out", "out of the volume".into(), true),
        ("out/f000000", "out of the volume".into(), false),
        ("out/not-there", "out of the volume".into(), false),
        ("dangling", real("nowhere"), true),
        ("loop/x", real("loop/x"), false),
    ];
    for (path, names, is_link_itself) in &table {
        for what in CALLS {
            let answer = call(&agent, what, &run, &root.join(path));
            match (what, is_link_itself) {
                // A link is an entry of the volume: it is explained, and it may lie in the trash.
                ("explain", true) => assert!(answer.ok().text().contains("link"), "{path}"),
                ("restore", true) => {}
                _ => {
                    let said = answer.ends_with(1).stderr;
                    assert!(
                        said.contains("symbolic link") && said.contains(names),
                        "{what} {path}: {said}"
                    );
                    let tells = outside.path().display().to_string();
                    assert!(!said.contains(&tells), "{what} {path}: {said}");
                }
            }
        }
    }
    // What is named instead is held.
    let files: BTreeSet<_> = (0..2).map(|n| root.join(format!("real/sub/f00000{n}"))).collect();
    let rest = || {
        agent
            .ctl()
            .show(&agent.ctl().plan_with(["--rule", "rest"]))
            .into_keys()
    };
    assert_same(
        "before",
        &rest().filter(|p| p.is_file() && !p.is_symlink()).collect(),
        &files,
    );
    let _ = call(&agent, "hold", &run, &root.join("real")).ok();
    assert_same(
        "held",
        &rest().filter(|p| p.is_file() && !p.is_symlink()).collect(),
        &BTreeSet::new(),
    );
    let _ = call(&agent, "find", &run, &root.join("real/sub")).ok();
    let _ = call(&agent, "restore", &run, &root.join("trashed/f000000")).ok();
    assert!(root.join("trashed/f000000").exists() && !root.join("trashed/f000001").exists());
    // A link that has come to stand on the way keeps nothing from being said.
    fs::remove_dir_all(root.join("trashed")).unwrap();
    symlink("real", root.join("trashed")).unwrap();
    let said = call(&agent, "restore", &run, &root.join("trashed/f000001"))
        .ends_with(1)
        .stderr;
    assert!(said.contains("symbolic link"), "{said}");
}
