//! What becomes of the recorded uses when the index is damaged, lost, or cut off by a power failure.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, make, read};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// A volume of expired files, the agent that watches it, and what was used when.
struct Scene {
    agent: Agent,
    files: Vec<PathBuf>,
    used: BTreeSet<PathBuf>,
    _mount: Mount,
}

impl Scene {
    /// Some files are in the checkpoint as used, others only in store and journal.
    fn new(mount: Mount, state: Option<PathBuf>) -> Self {
        let root = mount.path();
        let files = make(&root.join("d"), 1000);
        age_tree(&root);
        let mut agent = Agent::tracking_in(&Config::backdated(&root), state, &[]);
        let mut used = BTreeSet::new();
        let mut read_some = |from: usize| {
            for file in files.iter().skip(from).step_by(10) {
                read(file);
                used.insert(file.clone());
            }
        };
        read_some(0);
        // The stop takes a checkpoint; what is used from here on is not in it.
        agent.restart();
        let checkpoints = checkpoints(&agent.state_dir());
        until("the first checkpoint of this process", SOON, || {
            (self::checkpoints(&agent.state_dir()) != checkpoints).then_some(())
        });
        read_some(3);
        let_pass(3);
        Self {
            agent,
            files,
            used,
            _mount: mount,
        }
    }

    fn unused(&self) -> BTreeSet<PathBuf> {
        self.files
            .iter()
            .filter(|f| !self.used.contains(*f))
            .cloned()
            .collect()
    }

    fn launch(&mut self) {
        self.agent.launch();
        self.agent.wait_until_tracking();
    }

    fn assert_nothing_forgotten(&self, when: &str) {
        assert_same(when, &self.agent.ctl().candidate_files(), &self.unused());
    }
}

/// Names and sizes do not tell: the contents do.
fn checkpoints(state: &Path) -> Vec<Vec<u8>> {
    ["clocks.0", "clocks.1"]
        .iter()
        .filter_map(|name| fs::read(state.join("volumes/v.d").join(name)).ok())
        .collect()
}

fn kept(state: &Path) -> usize {
    let names = fs::read_dir(state).unwrap().map(|e| e.unwrap().file_name());
    names
        .filter(|n| n.to_string_lossy().starts_with("index.damaged-"))
        .count()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files_below(&path)),
            false => all.push(path),
        }
    }
    all
}

/// Turns a bit in every 997th byte of every file.
fn flip_bits(dir: &Path) {
    for path in files_below(dir) {
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().skip(100).step_by(997).for_each(|b| *b ^= 0x10);
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_damaged_index_is_kept_and_rebuilt_and_no_use_is_forgotten() {
    let mut scene = Scene::new(need!(Mount::new(Fs::Ext4)), None);
    let hold = scene.agent.ctl().hold(&scene.files[1], &[]);
    let_pass(3);
    scene.agent.kill();
    flip_bits(&scene.agent.state_dir().join("index"));
    scene.launch();
    assert_eq!(kept(&scene.agent.state_dir()), 1, "the damaged one is kept");
    scene.used.insert(scene.files[1].clone());
    scene.assert_nothing_forgotten("after flipped bits; the hold holds as well");
    let _ = scene.agent.ctl().run(["hold", "remove", &hold]).ok();
    let status = scene.agent.status();
    let gaps = status["gaps"].as_array().unwrap();
    assert!(gaps.iter().any(|g| g["cause"] == "index-rebuilt"), "{status}");
    let explained = scene.agent.ctl().explain(&scene.files[3]);
    assert_eq!(text(&explained, "source"), "observed", "{explained}");
}

#[test]
fn an_index_that_was_cut_short_is_not_believed() {
    for keep in [0, 10, 50, 90, 99] {
        let mut scene = Scene::new(need!(Mount::new(Fs::Xfs)), None);
        scene.agent.kill();
        for path in files_below(&scene.agent.state_dir().join("index")) {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(len * keep / 100).unwrap();
        }
        scene.launch();
        scene.assert_nothing_forgotten(&format!("with {keep}% left"));
    }
}

#[test]
fn an_index_that_was_deleted_comes_back_with_its_clocks_and_holds() {
    let mut scene = Scene::new(need!(Mount::new(Fs::Ext4)), None);
    scene.agent.ctl().hold(&scene.files[1], &[]);
    scene.used.insert(scene.files[1].clone());
    let since = text(&scene.agent.status(), "coverage_since").to_owned();
    scene.agent.terminate();
    fs::remove_dir_all(scene.agent.state_dir().join("index")).unwrap();
    scene.launch();
    scene.assert_nothing_forgotten("without an index");
    assert_eq!(text(&scene.agent.status(), "coverage_since"), since);
    // And once more: what came back is as good as what was seen.
    scene.agent.restart();
    scene.assert_nothing_forgotten("after another restart");
}

#[test]
fn an_index_of_yesterday_is_not_believed() {
    let mut scene = Scene::new(need!(Mount::new(Fs::Ext4)), None);
    scene.agent.terminate();
    let index = scene.agent.state_dir().join("index");
    let old = scene.agent.state_dir().join("old");
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status();
        assert!(done.unwrap().success());
    };
    copy(&index, &old);
    scene.launch();
    let file = scene.files[7].clone();
    read(&file);
    scene.used.insert(file);
    let_pass(3);
    scene.agent.terminate();
    fs::remove_dir_all(&index).unwrap();
    fs::rename(&old, &index).unwrap();
    scene.launch();
    scene.assert_nothing_forgotten("with an old copy of the index put in its place");
}

#[test]
fn where_the_newest_checkpoint_is_damaged_as_well_everything_counts_as_used() {
    let mut scene = Scene::new(need!(Mount::new(Fs::Ext4)), None);
    scene.agent.terminate();
    let state = scene.agent.state_dir();
    flip_bits(&state.join("index"));
    for name in ["clocks.0", "clocks.1"] {
        let path = state.join("volumes/v.d").join(name);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&[0xAA; 4], end - 40).unwrap();
    }
    scene.launch();
    assert_same(
        "nothing is known any more",
        &scene.agent.ctl().candidate_files(),
        &BTreeSet::new(),
    );
}

#[test]
fn an_inode_that_another_file_has_taken_inherits_no_clock() {
    let mount = need!(Mount::sized(Fs::Ext4, 32, 64));
    let root = mount.path();
    let mut scene = {
        let files = make(&root.join("d"), 30);
        age_tree(&root);
        Scene {
            agent: Agent::tracking(&Config::backdated(&root)),
            files,
            used: BTreeSet::new(),
            _mount: mount,
        }
    };
    scene.agent.terminate();
    let (gone, stays) = scene.files.split_at(15);
    let inode = |path: &PathBuf| purge_tests::files::inode(path);
    let before: BTreeSet<u64> = gone.iter().map(inode).collect();
    gone.iter().for_each(|f| fs::remove_file(f).unwrap());
    let_pass(1);
    let new = make(&root.join("new"), 20);
    let reused: Vec<_> = new
        .iter()
        .filter(|f| before.contains(&inode(f)))
        .cloned()
        .collect();
    assert!(!reused.is_empty(), "ext4 takes the lowest free inode again");
    let stays: BTreeSet<_> = stays.iter().cloned().collect();
    fs::remove_dir_all(scene.agent.state_dir().join("index")).unwrap();
    scene.launch();
    assert_same(
        "the new files are young",
        &scene.agent.ctl().candidate_files(),
        &stays,
    );
}

/// The state directory's file system is shut down under the running agent, as a power cut would.
#[test]
fn a_power_cut_forgets_nothing_older_than_the_flush_interval() {
    let rounds = match std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1") {
        true => 50,
        false => 4,
    };
    let mut disk = need!(Mount::sized(Fs::Ext4, 128, 2000));
    let state = disk.dir("state");
    let mut scene = Scene::new(need!(Mount::new(Fs::Ext4)), Some(state));
    for round in 0..rounds {
        let at = (round * 7 + 4) % 1000;
        for file in scene.files.iter().skip(at).take(5) {
            read(file);
            scene.used.insert(file.clone());
        }
        // Older than this is on the disk; then a storm of uses keeps the store busy while the power goes.
        let_pass(2);
        let busy = scene.used.clone();
        std::thread::scope(|scope| {
            let storm = scope.spawn(|| busy.iter().for_each(|f| read(f)));
            disk.cut_power(round % 2 == 0);
            storm.join().unwrap();
        });
        if round == 0 {
            let why = scene.agent.wait_until_degraded();
            assert!(why.contains("cannot be written"), "{why}");
            let refused = scene.agent.ctl().run(["plan"]).ends_with(3);
            assert!(refused.stderr.contains("degraded"), "{}", refused.stderr);
        }
        assert!(scene.agent.is_running(), "round {round}: the agent stays up");
        scene.agent.kill();
        until("the disk is whole again", SOON, || {
            disk.unmount();
            disk.mount().unwrap();
            // As long as another mount namespace holds on to the old mount, it is the one that was shut down.
            fs::write(disk.path().join("probe"), "x").ok()
        });
        scene.launch();
        scene.assert_nothing_forgotten(&format!("round {round}"));
    }
}
