//! What is said of the trash: directories count the files in them, and no figure stays after what it counted.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{Ctl, Plan, number, tally};
use purge_tests::files::{age_tree, files_in_trash, make, trash_is_empty};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// Files, directories, files in these, bytes.
type Figures = (u64, u64, u64, u64);

/// As the helper `make` makes them.
const FILE_BYTES: u64 = 20;

fn figures(of: &Value, field: &str) -> Figures {
    let number = |part: &str| number(of, &format!("/{field}/{part}"));
    (
        number("files"),
        number("directories"),
        number("files_inside"),
        number("bytes"),
    )
}

fn in_trash(agent: &Agent) -> Figures {
    figures(&agent.status(), "trash")
}

fn until_figures(what: &str, agent: &Agent, expected: Figures) {
    until(&format!("{what}: {expected:?}"), SOON, || {
        (in_trash(agent) == expected).then_some(())
    });
}

fn restore(ctl: &Ctl, run: &str, paths: &[&Path]) -> Value {
    let command = ["restore", run, "--output", "json"].map(OsStr::new);
    let paths = paths.iter().map(|path| path.as_os_str());
    ctl.run(command.into_iter().chain(paths)).ok().json()
}

fn run(ctl: &Ctl, id: &str) -> Value {
    ctl.run(["run", id, "--output", "json"]).ok().json()
}

/// Jobs of ten files each as directories, and files by themselves.
struct Volume {
    mount: Mount,
    jobs: Vec<PathBuf>,
}

impl Volume {
    fn new(jobs: usize) -> Result<Self, purge_tests::skip::Unmet> {
        let mount = Mount::new(Fs::Ext4)?;
        let root = mount.path();
        let jobs = (0..jobs).map(|n| root.join(format!("jobs/j{n}")));
        let jobs: Vec<PathBuf> = jobs.collect();
        for job in &jobs {
            make(&job.join("sub"), 9);
            make(job, 1);
        }
        make(&root.join("single"), 5);
        age_tree(&root);
        Ok(Self { mount, jobs })
    }

    fn config(&self, grace_of_files: &str) -> Config {
        Config::backdated_with(
            &self.mount.path(),
            "target = \"directory\"\ndepth = 2\ninclude = [\"jobs/**\"]\ngrace = \"1h\"",
        )
        .rule(
            "files",
            &format!(
                "ttl = \"1h\"\nclock = [\"access\"]\ninclude = [\"single/**\"]\ngrace = \"{grace_of_files}\""
            ),
        )
    }

    /// An agent that has taken everything: with the plan, and the run.
    fn purged(&self) -> (Agent, Plan, Value) {
        let agent = Agent::tracking(&self.config("2h"));
        let plan = agent.ctl().plan();
        let run = agent.ctl().apply(&plan).ok().json();
        tally(&plan, &run);
        (agent, plan, run)
    }
}

#[test]
fn directories_count_the_files_in_them_everywhere() {
    let volume = need!(Volume::new(4));
    let (agent, plan, run) = volume.purged();
    let ctl = agent.ctl();
    let all = (5, 4, 40, 45 * FILE_BYTES);
    assert_eq!(figures(&plan.json, "candidates"), all, "{}", plan.json);
    assert_eq!(figures(&run, "trashed"), all, "{run}");
    assert_eq!(figures(&run, "in_trash"), all, "{run}");
    assert_eq!(in_trash(&agent), all);
    let shown = ctl.show(&plan);
    assert_eq!(number(&shown[&volume.jobs[0]], "/files_inside"), 10);
    // People read the number of files, and how much of them is back.
    let id = run["run_id"].as_str().unwrap();
    let said = ctl.run(["run", id]).ok().text();
    assert!(said.contains("45 files, 40 of them in 4 directories"), "{said}");
    let _ = restore(&ctl, id, &[&volume.jobs[0], &volume.jobs[1]]);
    let said = ctl.run(["runs"]).ok().text();
    assert!(said.contains("44%") && said.contains("root"), "{said}");
    let rules = self::run(&ctl, id)["rules"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 2, "{rules}");
}

#[test]
fn what_comes_back_is_counted_with_what_is_in_it() {
    let volume = need!(Volume::new(4));
    let (agent, _, run) = volume.purged();
    let (ctl, id) = (agent.ctl(), run["run_id"].as_str().unwrap());
    let report = restore(&ctl, id, &[&volume.jobs[0]]);
    assert_eq!(
        figures(&report, "restored"),
        (0, 1, 10, 10 * FILE_BYTES),
        "{report}"
    );
    assert_eq!(in_trash(&agent), (5, 3, 30, 35 * FILE_BYTES));
    // A part of a directory, and the rest of it.
    let part = volume.jobs[1].join("sub/f000003");
    let report = restore(&ctl, id, &[&part]);
    assert_eq!(figures(&report, "restored"), (1, 0, 0, FILE_BYTES), "{report}");
    assert_eq!(in_trash(&agent), (5, 3, 29, 34 * FILE_BYTES));
    let report = restore(&ctl, id, &[&volume.jobs[1]]);
    assert_eq!(number(&report, "/failed_total"), 0, "{report}");
    assert_eq!(in_trash(&agent), (5, 2, 20, 25 * FILE_BYTES));
    let _ = restore(&ctl, id, &[]);
    assert_eq!(in_trash(&agent), (0, 0, 0, 0));
    assert!(trash_is_empty(&volume.mount.path()));
    let run = self::run(&ctl, id);
    assert_eq!(figures(&run, "in_trash"), (0, 0, 0, 0), "{run}");
    let restored = figures(&run, "restored");
    assert_eq!(
        (restored.0 + restored.2, restored.3),
        (45, 45 * FILE_BYTES),
        "{run}"
    );
}

#[test]
fn no_figure_stays_after_the_trash_is_removed() {
    let volume = need!(Volume::new(3));
    let (mut agent, _, run) = volume.purged();
    let id = run["run_id"].as_str().unwrap();
    let trash = volume.mount.path().join(".purge-agent-trash");
    // A part of it is removed behind the agent's back, and counted by the next start.
    let lost = files_in_trash(&volume.mount.path());
    let lost = lost.iter().find(|name| name.contains("single/")).unwrap();
    fs::remove_file(lost).unwrap();
    agent.restart();
    agent.wait_until_tracking();
    until_figures("the trash was counted again", &agent, (4, 3, 30, 34 * FILE_BYTES));
    // Without a restart, when a whole share is no longer there.
    fs::remove_dir_all(&trash).unwrap();
    until_figures("nothing is left", &agent, (0, 0, 0, 0));
    let run = self::run(&agent.ctl(), id);
    assert_eq!(figures(&run, "in_trash"), (0, 0, 0, 0), "{run}");
    let why = agent.ctl().run(["restore", id]).ends_with(3).stderr;
    assert!(why.contains("taken it out of there"), "{why}");
}

#[test]
fn what_was_freed_of_a_run_is_counted_no_longer() {
    let volume = need!(Volume::new(2));
    let agent = Agent::tracking(&volume.config("2s"));
    let run = agent.ctl().apply(&agent.ctl().plan()).ok().json();
    let id = run["run_id"].as_str().unwrap();
    until_figures(
        "the files are freed, the directories are not",
        &agent,
        (0, 2, 20, 20 * FILE_BYTES),
    );
    let run = self::run(&agent.ctl(), id);
    assert_eq!(figures(&run, "in_trash"), (0, 2, 20, 20 * FILE_BYTES), "{run}");
}

#[test]
fn a_part_that_was_restored_does_not_keep_the_rest_in_the_trash() {
    let volume = need!(Volume::new(2));
    let (agent, _, run) = volume.purged();
    let (ctl, id) = (agent.ctl(), run["run_id"].as_str().unwrap());
    let part = volume.jobs[1].join("sub/f000003");
    let _ = restore(&ctl, id, &[&part]);
    let report = restore(&ctl, id, &[]);
    assert_eq!(number(&report, "/failed_total"), 0, "{report}");
    assert!(trash_is_empty(&volume.mount.path()));
    assert_eq!(fs::read_dir(volume.jobs[1].join("sub")).unwrap().count(), 9);
}
