//! Files that are kept alive without being used: told, and nothing follows from it. One test, so that what this process reads is
//! what the test reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, now, set_times};
use purge_tests::wait::{let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

fn tree(root: &Path, name: &str, uid: u32, files: usize) -> Vec<PathBuf> {
    let files = make(&root.join(name), files);
    for file in &files {
        fs::write(file, vec![7; 3000]).unwrap();
        chown(file, Some(uid), Some(uid)).unwrap();
    }
    files
}

/// Reads `bytes` bytes of each file, slowly enough to be looked at meanwhile.
fn read_each(files: &[PathBuf], bytes: usize) {
    let mut buffer = vec![0; bytes];
    for (i, file) in files.iter().enumerate() {
        File::open(file).unwrap().read_exact(&mut buffer).unwrap();
        if i % 64 == 0 {
            std::thread::sleep(Duration::from_millis(40));
        }
    }
}

#[test]
fn mass_changes_of_timestamps_and_reads_for_show_are_told_and_honest_use_is_not() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let stamped = tree(&root, "stamped", 50_001, 150);
    let by_touch = tree(&root, "by-touch", 50_002, 150);
    let shown = tree(&root, "shown", 50_003, 1200);
    let honest = tree(&root, "honest", 50_004, 1200);
    let few = tree(&root, "few", 50_005, 20);
    let changed = tree(&root, "changed", 50_006, 300);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let told = || -> BTreeMap<String, (u64, u64)> {
        let rows = agent
            .ctl()
            .run(["usage", "--touched", "--output", "ndjson"])
            .ok()
            .lines();
        let row = |r: &serde_json::Value| {
            (
                text(r, "owner").to_owned(),
                (number(r, "/stamped"), number(r, "/read")),
            )
        };
        rows.iter().map(row).collect()
    };
    // What many do: read their files, change modes, unpack with old times, touch a few.
    read_each(&honest, 3000);
    sh(Command::new("chmod").arg("640").args(&changed)).unwrap();
    let_pass(2);
    changed.iter().for_each(|f| set_times(f, now() - 900 * 86_400));
    few.iter().for_each(|f| set_times(f, now()));
    let_pass(2);
    assert_eq!(told(), BTreeMap::new());
    // What is told.
    stamped.iter().for_each(|f| set_times(f, now()));
    sh(Command::new("touch").args(&by_touch)).unwrap();
    until("the timestamps are told", Duration::from_secs(30), || {
        let told = told();
        let of = |uid: &str| told.get(uid).map_or(0, |t| t.0);
        (of("50001") >= 150 && of("50002") >= 150).then_some(())
    });
    read_each(&shown, 1);
    until("the reads are told", Duration::from_secs(30), || {
        (told().get("50003")?.1 >= 256).then_some(())
    });
    let told = told();
    assert!(
        !told.contains_key("50004") && !told.contains_key("50006"),
        "{told:?}"
    );
    let table = agent.ctl().run(["usage", "--touched"]).ok().text();
    assert!(table.contains("50002") && table.contains("150"), "{table}");
    // Nothing follows from it.
    assert_eq!(agent.status().pointer("/state").unwrap(), "tracking");
}
