//! The end of a grace, where much is freed: no run waits for that, a restore is told, and an end of the agent in the middle costs nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, files_in_trash, files_of_users, make, trash_is_empty};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Entries of each of the directories of the tree.
const EACH: usize = 1000;
const GRACE: &str = "5s";

/// How many directories the tree has.
fn wide() -> usize {
    match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => 150,
        false => 30,
    }
}

/// A tree of very many entries in the trash, and files of another user that are expired.
struct Freed {
    agent: Agent,
    root: PathBuf,
    run: String,
}

impl Freed {
    /// Some of it is away, and most of it is there.
    fn begun(mount: &Mount) -> Self {
        let root = mount.path();
        for wide in 0..wide() {
            let above = root.join(format!("m/t/{wide}"));
            fs::create_dir_all(&above).unwrap();
            (0..EACH).for_each(|n| fs::create_dir(above.join(n.to_string())).unwrap());
        }
        make(&root.join("m/t/0/0"), 3);
        make(&root.join("b"), 3);
        age_tree(&root);
        let trees = format!(
            "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"{GRACE}\"\ntarget = \"directory\"\ndepth = 2\ninclude = [\"m/**\"]"
        );
        let files = "ttl = \"1h\"\nclock = [\"access\"]\ninclude = [\"b/**\"]";
        let config = Config::new(&root, "baseline = \"mtime\"");
        let agent = Agent::tracking(&config.rule("trees", &trees).rule("files", files));
        let ctl = agent.ctl();
        let run = ctl.apply(&ctl.plan_with(["--rule", "trees"])).ok().json();
        let freed = Self {
            agent,
            root,
            run: text(&run, "run_id").to_owned(),
        };
        let all = wide() * EACH;
        assert_eq!(freed.left(), Some(all), "nothing is freed yet");
        freed
    }

    /// Waits until it is being freed.
    fn wait_until_it_goes(&self, all: usize) {
        until("it is being freed", SOON, || {
            let left = self.left();
            assert!(left.is_some(), "it was freed before this test looked");
            (left < Some(all)).then_some(())
        });
    }

    /// How many of the innermost directories are there; none: the tree is away.
    fn left(&self) -> Option<usize> {
        let tree = fs::read_dir(self.root.join(".purge-agent-trash"))
            .ok()?
            .find_map(|share| {
                let trees = fs::read_dir(share.ok()?.path().join("d")).ok()?;
                let place = trees.flatten().next()?;
                Some(place.path().join("t"))
            })?;
        let wide = fs::read_dir(tree).ok()?.flatten();
        Some(
            wide.map(|wide| fs::read_dir(wide.path()).map_or(0, Iterator::count))
                .sum(),
        )
    }
}

#[test]
fn no_run_waits_while_a_large_tree_is_freed_and_a_restore_of_it_is_told() {
    let mount = need!(Mount::sized(Fs::Ext4, 1024, 200_000));
    let freed = Freed::begun(&mount);
    let ctl = freed.agent.ctl();
    let plan = ctl.plan_with(["--rule", "files"]);
    freed.wait_until_it_goes(wide() * EACH);
    let began = Instant::now();
    let _ = ctl.apply(&plan).ok();
    let (took, left) = (began.elapsed(), freed.left());
    let refused = ctl.run(["restore", &freed.run]);
    let still = freed.left();
    println!("the run took {took:?}; {left:?} were left to be freed");
    assert!(
        left.is_some_and(|left| left > 0),
        "the run has waited for the trash"
    );
    assert_same("left", &files_of_users(&freed.root), &BTreeSet::new());
    if still.is_some() {
        let refused = refused.ends_with(3);
        assert!(
            refused.stderr.contains("its grace has ended"),
            "{}",
            refused.stderr
        );
    }
    until("all of it is freed", Duration::from_secs(60), || {
        trash_is_empty(&freed.root).then_some(())
    });
}

#[test]
fn what_was_being_freed_when_the_agent_ended_is_freed_by_the_next() {
    let mount = need!(Mount::sized(Fs::Ext4, 1024, 200_000));
    let mut freed = Freed::begun(&mount);
    let mut all = wide() * EACH;
    for is_killed in [false, true] {
        freed.wait_until_it_goes(all);
        let began = Instant::now();
        match is_killed {
            true => freed.agent.kill(),
            false => freed.agent.terminate(),
        }
        println!(
            "it ended within {:?}; {:?} are left",
            began.elapsed(),
            freed.left()
        );
        all = freed.left().expect("it has freed all of it first");
        freed.agent.launch();
    }
    until("all of it is freed", Duration::from_secs(60), || {
        trash_is_empty(&freed.root).then_some(())
    });
}

/// One of the names goes first, and that changes the file: it is no use of it.
#[test]
fn files_with_several_names_are_freed() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for dir in ["trees/t/deep", "files"] {
        let files = make(&root.join(dir), 2);
        for (n, file) in files.iter().enumerate() {
            fs::hard_link(file, root.join(dir).join(format!("second{n}"))).unwrap();
        }
    }
    fs::hard_link(root.join("trees/t/deep/f000000"), root.join("trees/t/third")).unwrap();
    age_tree(&root);
    let rule = |more: &str| format!("ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"3s\"\n{more}");
    let trees = rule("target = \"directory\"\ndepth = 2\ninclude = [\"trees/**\"]");
    let config = Config::new(&root, "baseline = \"mtime\"").rule("trees", &trees);
    let agent = Agent::tracking(&config.rule("files", &rule("include = [\"files/**\"]")));
    let ctl = agent.ctl();
    for rule in ["trees", "files"] {
        let _ = ctl.apply(&ctl.plan_with(["--rule", rule])).ok();
    }
    assert_same("left", &files_of_users(&root), &BTreeSet::new());
    assert_eq!(files_in_trash(&root).len(), 9);
    until("all of it is freed", SOON, || {
        let left = files_in_trash(&root);
        assert!(!left.iter().any(|path| path.contains(".kept/")), "{left:?}");
        trash_is_empty(&root).then_some(())
    });
}
