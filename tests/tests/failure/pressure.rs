//! Memory that runs out: the kernel charges the queue of events to the agent's memory cgroup. Whether events are dropped or the
//! agent is killed, nothing that was used looks unused afterwards. Events that memory holds are read, however many there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make, read, shell};
use purge_tests::skip::Unmet;
use purge_tests::wait::{LONG, let_pass, until, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};

const DIRECTORIES: usize = 10;
const FILES_EACH: usize = 2000;
/// Another process reads everything each time: its events are none that the kernel merges with those before.
const ROUNDS: usize = 12;
/// What the agent may take beyond what it has.
const ROOM: u64 = 6 << 20;

/// A memory cgroup of its own, of either version.
struct Cgroup {
    dir: PathBuf,
    limit: &'static str,
    usage: &'static str,
}

impl Cgroup {
    fn make() -> Result<Self, Unmet> {
        let name = format!("purge-tests-{}", std::process::id());
        let old = Path::new("/sys/fs/cgroup/memory");
        let (root, limit, usage) = match old.is_dir() {
            true => (old, "memory.limit_in_bytes", "memory.usage_in_bytes"),
            false => {
                let root = Path::new("/sys/fs/cgroup");
                // Refused where it is on already in a way that cannot be changed: then the files below tell.
                let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
                (root, "memory.max", "memory.current")
            }
        };
        let group = Self {
            dir: root.join(name),
            limit,
            usage,
        };
        match fs::create_dir(&group.dir).map(|()| group.dir.join(limit).is_file()) {
            Ok(true) => Ok(group),
            _ => Err(Unmet("no memory cgroup can be made and limited here".into())),
        }
    }

    fn usage(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join(self.usage)).unwrap();
        text.trim().parse().unwrap()
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.dir.join(self.limit), bytes.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

#[test]
fn memory_that_runs_out_makes_nothing_look_unused() {
    let mount = need!(Mount::sized(Fs::Ext4, 256, 40_000));
    let cgroup = need!(Cgroup::make());
    let root = mount.path();
    let dirs: Vec<PathBuf> = (0..DIRECTORIES).map(|n| root.join(format!("d{n}"))).collect();
    let used: BTreeSet<PathBuf> = dirs.iter().flat_map(|dir| make(dir, FILES_EACH)).collect();
    make(&root.join("unused"), 10);
    age_tree(&root);
    // An agent that was killed has seen nothing until the next start, however short that was.
    let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"0s\"")
        .rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let procs = cgroup.dir.join("cgroup.procs");
    let enter = [
        "sh",
        "-c",
        "echo $$ > \"$0\" && exec \"$@\"",
        procs.to_str().unwrap(),
    ];
    let mut agent = Agent::tracking_under(&config, &enter);
    assert!(
        fs::read_to_string(&procs)
            .unwrap()
            .lines()
            .any(|pid| pid == agent.pid().to_string())
    );
    assert_eq!(agent.ctl().candidate_files().len(), used.len() + 10);

    agent.freeze();
    cgroup.limit(cgroup.usage() + ROOM);
    for _ in 0..ROUNDS {
        shell(&root, "cat d*/* > /dev/null");
    }
    agent.thaw();
    let mut events = 0;
    let survived = until("it has caught up, or was killed", LONG, || {
        if !agent.is_running() {
            return Some(false);
        }
        let asked = agent.ctl().run(["status", "--output", "json"]);
        let before = std::mem::replace(
            &mut events,
            number(asked.json().pointer("/volumes/0")?, "/events_total"),
        );
        let_pass(1);
        (events > 0 && events == before).then_some(true)
    });
    cgroup.limit(4 << 30);
    if !survived {
        // As systemd does.
        agent.launch();
        agent.wait_until_tracking();
    }
    agent.wait_until_well();
    // What the kernel dropped is unknown: then everything counts as used.
    let planned = agent.ctl().candidate_files();
    let wrong: Vec<_> = planned.intersection(&used).collect();
    assert!(
        wrong.is_empty(),
        "{} used files are planned, such as {:?}",
        wrong.len(),
        wrong.first()
    );
    drop(agent);
}

/// More than may wait while names are followed (1 << 20).
const RENAMES: usize = 1_200_000;

/// A user who renames faster than names are followed makes no other user's file young, and no use is lost.
#[test]
fn a_storm_of_renames_costs_names_and_no_clock() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    let files = make(&root.join("old"), 20);
    let storm = make(&root.join("storm"), 1).remove(0);
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"0s\"").rule(
        "old",
        "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false",
    );
    let agent = Agent::tracking(&config);
    assert_eq!(agent.ctl().candidate_files().len(), 21);
    let_pass(2);

    agent.freeze();
    let mut at = storm;
    for n in 0..RENAMES {
        let next = root.join("storm").join(n.to_string());
        fs::rename(&at, &next).unwrap();
        at = next;
        if n == RENAMES / 2 {
            read(&files[0]);
        }
    }
    agent.thaw();
    agent.wait_until_well();
    let expected: BTreeSet<PathBuf> = files.iter().skip(1).cloned().collect();
    until("the agent says what it let go", LONG, || {
        let gaps = agent.status()["gaps"].clone();
        gaps.as_array().is_some_and(|gaps| !gaps.is_empty()).then_some(())
    });
    agent.wait_until_well();
    until_same(
        "all clocks are as before, but for what was read",
        &expected,
        || {
            let mut all = agent.ctl().candidate_files();
            all.retain(|path| files.contains(path));
            all
        },
    );
    let status = agent.status();
    let gaps = status["gaps"].as_array().unwrap();
    assert!(gaps.iter().all(|gap| gap["counts"] == false), "{status}");
    assert!(gaps.iter().any(|gap| gap["cause"] == "names"), "{status}");
    // Names are followed again.
    let moved = root.join("old/moved");
    fs::rename(&files[1], &moved).unwrap();
    until("the new name is known", LONG, || {
        agent.ctl().candidate_files().contains(&moved).then_some(())
    });
}
