//! Four processes change names as fast as they can, and directories among them: when they have ended, the index has exactly the names that
//! there are. On kernels that say which file a name is of, and on those that do not.

use std::path::Path;
use std::process::{Command, Stdio};

use purge_tests::ctl::number;
use purge_tests::files::files_and_directories;
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

const PROCESSES: u64 = 4;
/// As a kernel has it without FAN_REPORT_TARGET_FID and FAN_RENAME.
const UNNAMED: &str = "target_fid,rename";

/// Changes names for this long. Returns how many steps that were.
fn storm(root: &Path, round: u64, seconds: u64) -> u64 {
    let run = |process: u64| {
        let seed = round * 97 + process * 1_234_567 + 5;
        let mut command = Command::new(env!("CARGO_BIN_EXE_storm"));
        command.arg(root).args([seed.to_string(), seconds.to_string()]);
        command.stdout(Stdio::piped()).spawn().expect("a storm")
    };
    let processes: Vec<_> = (0..PROCESSES).map(run).collect();
    let ends = processes
        .into_iter()
        .map(|process| process.wait_with_output().expect("its end"));
    ends.map(|end| {
        String::from_utf8_lossy(&end.stdout)
            .trim()
            .parse::<u64>()
            .expect("a count")
    })
    .sum()
}

fn no_name_is_lost(fs: Fs, without: &str) {
    let mount = need!(Mount::sized(fs, 512, 200_000));
    let root = mount.path();
    let agent = Agent::tracking_in(
        &Config::backdated(&root),
        None,
        &[("PURGE_AGENT_WITHOUT", Path::new(without))],
    );
    let ctl = agent.ctl();
    let is_long = std::env::var_os("PURGE_TESTS_LONG").is_some_and(|v| v == "1");
    let (rounds, seconds) = if is_long { (4, 15) } else { (2, 2) };
    for round in 0..rounds {
        let steps = storm(&root, round, seconds);
        let there = files_and_directories(&root);
        let mut looks = 0;
        // A look of the agent's waits for what is queued; what came in as a directory is listed within seconds.
        until("the index has the names that there are", SOON, || {
            let mut found = ctl.find::<&str>([]);
            found.remove(&root);
            looks += 1;
            let differences: Vec<_> = found.symmetric_difference(&there).collect();
            println!(
                "{fs:?} without {without:?}, round {round}: {steps} steps, {} names, {} differences {:?}",
                there.len(),
                differences.len(),
                differences
                    .iter()
                    .map(|path| (path.strip_prefix(&root).ok(), found.contains(*path)))
                    .take(5)
                    .collect::<Vec<_>>()
            );
            differences.is_empty().then_some(())
        });
        println!("{fs:?}: after {looks} looks");
    }
    assert_eq!(number(&agent.status(), "/events_lost_total"), 0);
}

#[test]
fn every_name_is_right_where_events_say_whose_it_is() {
    no_name_is_lost(Fs::Ext4, "");
}

#[test]
fn every_name_is_right_where_events_do_not_say_whose_it_is() {
    no_name_is_lost(Fs::Ext4, UNNAMED);
}

#[test]
fn every_name_is_right_there_on_xfs() {
    no_name_is_lost(Fs::Xfs, UNNAMED);
}
