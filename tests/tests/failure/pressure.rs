//! Memory that runs out: the kernel charges the queue of events to the agent's memory cgroup. Whether events are dropped or the
//! agent is killed, nothing that was used looks unused afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make, shell};
use purge_tests::skip::Unmet;
use purge_tests::wait::{LONG, let_pass, until};
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
    // Whoever is killed has seen nothing until the next start, however short that was.
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
    // What the kernel dropped, nobody knows: then everything counts as used.
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
