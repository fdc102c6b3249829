//! "Where is my file?": `explain` of what a run took, `restore` by the path alone, `trash`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use purge_tests::ctl::{Ctl, number, path_of, text};
use purge_tests::files::{age, age_tree, files_and_directories, make, make_one, read, trash_is_empty};
use purge_tests::wait::let_pass;
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

const ALICE: u32 = 4001;

/// Files go by `old`, and the jobs as a whole by `jobs`.
fn config(root: &Path, grace: &str) -> Config {
    Config::backdated_with(root, &format!("exclude = [\"jobs/**\"]\ngrace = \"{grace}\"\nremove_empty_dirs = false")).rule(
        "jobs",
        &format!(
            "ttl = \"1h\"\nclock = [\"access\"]\ntarget = \"directory\"\ndepth = 2\ninclude = [\"jobs/**\"]\ngrace = \"{grace}\"\nremove_empty_dirs = false"
        ),
    )
}

fn json<S: AsRef<OsStr>>(ctl: &Ctl, words: &[S]) -> Value {
    let words = words.iter().map(AsRef::as_ref);
    ctl.run(words.chain(["--output", "json"].map(OsStr::new)))
        .ok()
        .json()
}

fn explain(ctl: &Ctl, path: &Path) -> Value {
    json(ctl, &[OsStr::new("explain"), path.as_os_str()])
}

/// What is told of the newest run that took a path.
fn taken(ctl: &Ctl, path: &Path) -> Value {
    let said = explain(ctl, path);
    assert_eq!(said["exists"], false, "{said}");
    said["taken"][0].clone()
}

fn apply(ctl: &Ctl, more: &[&str]) -> String {
    let plan = ctl.plan();
    let words = ["apply", &plan.id, "--yes"]
        .into_iter()
        .chain(more.iter().copied());
    let run = ctl.run(words.chain(["--output", "json"])).ok().json();
    text(&run, "run_id").to_owned()
}

struct Volume {
    mount: Mount,
    file: PathBuf,
    job: PathBuf,
}

impl Volume {
    fn new() -> Result<Self, purge_tests::skip::Unmet> {
        let mount = Mount::new(Fs::Ext4)?;
        let root = mount.path();
        let job = root.join("jobs/run 1");
        make(&job.join("sub"), 4);
        fs::create_dir_all(root.join("alice")).unwrap();
        let file = make_one(&root.join("alice/a.dat"));
        chown(&file, Some(ALICE), Some(ALICE)).unwrap();
        age_tree(&root);
        Ok(Self { mount, file, job })
    }
}

#[test]
fn explain_says_what_became_of_a_file_and_of_a_directory() {
    let volume = need!(Volume::new());
    let (file, job) = (&volume.file, &volume.job);
    let mut agent = Agent::tracking(&config(&volume.mount.path(), "1h"));
    let ctl = agent.ctl();
    // To look into the directory is no use of what is in it.
    assert_eq!(fs::read_dir(job).unwrap().count(), 1);
    let run = apply(&ctl, &[]);
    let told = taken(&ctl, file);
    assert_eq!(path_of(&told), *file, "{told}");
    let used = text(&told, "last_access").to_owned();
    assert_eq!(
        (
            text(&told, "run_id"),
            text(&told, "rule"),
            text(&told, "requested_by")
        ),
        (run.as_str(), "old", "uid 0"),
        "{told}"
    );
    assert_eq!(
        (text(&told, "state"), text(&told, "owner")),
        ("trashed", "4001"),
        "{told}"
    );
    assert_eq!(
        (number(&told, "/bytes"), text(&told, "kind")),
        (20, "file"),
        "{told}"
    );
    assert!(
        told["trash_until"].is_string() && told["last_access"].is_string(),
        "{told}"
    );
    // The directory, what lay in it, and a directory of which only the files went.
    let told = taken(&ctl, job);
    assert_eq!(
        (number(&told, "/files_inside"), number(&told, "/bytes")),
        (4, 80),
        "{told}"
    );
    assert!(text(&told, "last_access") <= used.as_str(), "{told}");
    let inside = job.join("sub/f000002");
    let told = taken(&ctl, &inside);
    assert_eq!(
        (path_of(&told), text(&told, "rule")),
        (job.clone(), "jobs"),
        "{told}"
    );
    let above = explain(&ctl, &volume.mount.path().join("alice"));
    assert_eq!(
        (&above["exists"], &above["taken"][0]["only_below"]),
        (&true.into(), &true.into()),
        "{above}"
    );
    // People read how it comes back.
    let said = ctl.run([OsStr::new("explain"), inside.as_os_str()]).ok().text();
    let back = format!("purgectl restore '{}'", inside.display());
    for words in [
        "by jobs",
        "asked for by root",
        "in the trash until",
        back.as_str(),
    ] {
        assert!(said.contains(words), "{words} is missing in:\n{said}");
    }
    // The next process knows it as well.
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(text(&taken(&agent.ctl(), file), "state"), "trashed");
    let _ = json(&agent.ctl(), &["restore", run.as_str()]);
    let said = explain(&agent.ctl(), file);
    assert_eq!(
        (&said["exists"], &said["taken"]),
        (&true.into(), &Value::Array(vec![])),
        "{said}"
    );
}

#[test]
fn explain_says_what_was_deleted_and_what_was_never_there() {
    let volume = need!(Volume::new());
    let agent = Agent::tracking(&config(&volume.mount.path(), "1h"));
    let ctl = agent.ctl();
    let run = apply(&ctl, &["--no-grace"]);
    for path in [&volume.file, &volume.job, &volume.job.join("sub/f000000")] {
        let told = taken(&ctl, path);
        assert_eq!(
            (text(&told, "state"), text(&told, "run_id")),
            ("deleted", run.as_str()),
            "{told}"
        );
    }
    let words = [OsStr::new("restore"), volume.file.as_os_str()];
    let why = ctl.run(words).ends_with(1).stderr;
    assert!(
        why.contains("is in the trash") && why.contains(&format!("run {run} deleted it")),
        "{why}"
    );
    let never = volume.mount.path().join("alice/never");
    let why = ctl
        .run([OsStr::new("explain"), never.as_os_str()])
        .ends_with(1)
        .stderr;
    assert!(why.contains("nothing lies there"), "{why}");
    let why = ctl
        .run([OsStr::new("restore"), never.as_os_str()])
        .ends_with(1)
        .stderr;
    assert!(why.contains("no run took it"), "{why}");
}

#[test]
fn the_newest_comes_back_by_its_path_alone() {
    let volume = need!(Volume::new());
    let file = &volume.file;
    let next = volume.mount.path().join("alice/next");
    fs::write(&next, "the second").unwrap();
    age(&next);
    let agent = Agent::tracking(&config(&volume.mount.path(), "1h"));
    let ctl = agent.ctl();
    let hold = ctl.hold(&next, &[]);
    let first = apply(&ctl, &[]);
    // Names of runs are in the order of their seconds.
    let_pass(1);
    // As old as the first, and with its name by now.
    fs::rename(&next, file).unwrap();
    let _ = ctl.run(["hold", "remove", &hold]).ok();
    let second = apply(&ctl, &[]);
    assert_eq!(explain(&ctl, file)["taken"].as_array().unwrap().len(), 2);
    let words = |more: &[&str]| {
        let path = [file.as_os_str(), volume.job.as_os_str()];
        let more = more.iter().map(OsStr::new).collect::<Vec<_>>();
        json(&ctl, &[&[OsStr::new("restore")], &path[..], &more[..]].concat())
    };
    let dry = words(&["--dry-run"]);
    assert!(!file.exists() && !volume.job.exists(), "{dry}");
    let report = words(&[]);
    for report in [&dry, &report] {
        assert_eq!(number(report, "/restored/files"), 1, "{report}");
        assert_eq!(number(report, "/restored/files_inside"), 4, "{report}");
        assert_eq!(number(report, "/older_total"), 1, "{report}");
        assert_eq!(report["run_ids"], serde_json::json!([second, first]), "{report}");
    }
    assert_eq!(fs::read(file).unwrap(), b"the second");
    // The older one goes elsewhere.
    let to = volume.mount.dir("elsewhere");
    let words = [
        "restore",
        &first,
        file.to_str().unwrap(),
        "--to",
        to.to_str().unwrap(),
    ];
    let report = json(&ctl, &words);
    assert_eq!(number(&report, "/restored/files"), 1, "{report}");
    assert!(fs::read(to.join("alice/a.dat")).unwrap().starts_with(b"no user"));
    assert!(trash_is_empty(&volume.mount.path()));
}

#[test]
fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let volume = need!(Volume::new());
    let root = volume.mount.path();
    let agent = Agent::tracking(&config(&root, "1h"));
    let ctl = agent.ctl();
    let run = apply(&ctl, &[]);
    let _ = fs::remove_dir_all(root.join("alice"));
    // Of a directory that is there again a part is in the way.
    fs::create_dir_all(volume.job.join("sub")).unwrap();
    make_one(&volume.job.join("sub/f000001"));
    let everything = || {
        (
            files_and_directories(&root),
            purge_tests::files::files_in_trash(&root),
        )
    };
    let (before, figures) = (everything(), agent.status()["trash"].clone());
    for words in [
        vec!["restore", run.as_str(), "--dry-run"],
        vec!["restore", root.to_str().unwrap(), "--dry-run"],
    ] {
        let report = ctl
            .run(words.into_iter().chain(["--output", "json"]))
            .ends_with(5)
            .json();
        assert_eq!(number(&report, "/restored/files"), 4, "{report}");
        let items = report["items"].as_array().unwrap();
        assert!(items.iter().any(|item| path_of(item) == volume.file), "{report}");
        assert_eq!(number(&report, "/failed_total"), 1, "{report}");
        assert_eq!(
            path_of(&report["failed"][0]),
            volume.job.join("sub/f000001"),
            "{report}"
        );
    }
    assert_eq!(everything(), before);
    assert_eq!(agent.status()["trash"], figures);
    let said = ctl.run(["restore", &run, "--dry-run"]).ends_with(5).text();
    assert!(
        said.contains("Would restore 4 files") && said.contains("Nothing has been changed"),
        "{said}"
    );
    let report = ctl.run(["restore", &run, "--output", "json"]).ends_with(5).json();
    assert_eq!(
        (
            number(&report, "/restored/files"),
            number(&report, "/failed_total")
        ),
        (4, 1),
        "{report}"
    );
}

#[test]
fn the_trash_is_listed() {
    let volume = need!(Volume::new());
    let agent = Agent::tracking(&config(&volume.mount.path(), "1h"));
    let ctl = agent.ctl();
    let run = apply(&ctl, &[]);
    let list = |more: &[&str]| {
        let words = ["trash", "--output", "ndjson"]
            .into_iter()
            .chain(more.iter().copied());
        ctl.run(words).ok().lines()
    };
    let all = list(&[]);
    let mut paths: Vec<PathBuf> = all.iter().map(path_of).collect();
    paths.sort();
    assert_eq!(paths, [volume.file.clone(), volume.job.clone()], "{all:?}");
    let job = all.iter().find(|e| path_of(e) == volume.job).unwrap();
    assert_eq!(
        (number(job, "/files_inside"), number(job, "/bytes")),
        (4, 80),
        "{job}"
    );
    assert_eq!(
        (text(job, "run_id"), text(job, "kind")),
        (run.as_str(), "directory"),
        "{job}"
    );
    assert!(
        job["trash_until"].is_string() && job["taken_at"].is_string(),
        "{job}"
    );
    let below = volume.mount.path().join("alice");
    assert_eq!(list(&[below.to_str().unwrap()]).len(), 1);
    assert_eq!(list(&[volume.file.to_str().unwrap()]).len(), 1);
    let inside = list(&[volume.job.join("sub").to_str().unwrap()]);
    assert_eq!(number(&inside[0], "/files_inside"), 4, "{inside:?}");
    assert_eq!(
        (list(&["--limit", "1"]).len(), list(&["--volume", "v"]).len()),
        (1, 2)
    );
    let said = ctl.run(["trash"]).ok().text();
    assert!(said.contains("5 files, 4 of them in 1 directory"), "{said}");
    let _ = json(&ctl, &["restore", run.as_str()]);
    assert!(list(&[]).is_empty());
}

#[test]
fn the_trash_is_listed_in_one_order_the_newest_run_first() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    // Made in another order than they are listed.
    for job in ["c", "a", "b"] {
        make(&root.join("jobs").join(job), 2);
    }
    fs::create_dir_all(root.join("d/c")).unwrap();
    for file in ["b", "d/z", "d/c/a", "d/a", "a"] {
        make_one(&root.join(file));
    }
    age_tree(&root);
    let agent = Agent::tracking(&config(&root, "1h"));
    let ctl = agent.ctl();
    for rule in ["old", "jobs"] {
        let _ = ctl.apply(&ctl.plan_with(["--rule", rule]));
        // Runs are told apart by the second.
        let_pass(1);
    }
    let listed = ctl.run(["trash", "--output", "ndjson"]).ok().lines();
    let listed: Vec<PathBuf> = listed.iter().map(path_of).collect();
    let expected = ["jobs/a", "jobs/b", "jobs/c", "a", "b", "d/a", "d/z", "d/c/a"];
    assert_eq!(listed, expected.map(|path| root.join(path)));
}

#[test]
fn a_directory_that_is_left_alone_counts_the_files_in_it() {
    let volume = need!(Volume::new());
    let agent = Agent::tracking(&config(&volume.mount.path(), "1h"));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    read(&volume.job.join("sub/f000001"));
    let run = ctl.apply(&plan).json();
    assert_eq!(number(&run, "/skipped/accessed"), 1, "{run}");
    assert_eq!(number(&run, "/skipped_files_inside/accessed"), 4, "{run}");
    assert_eq!(number(&run, "/skipped_files_inside/cancelled"), 0, "{run}");
    let said = ctl.run(["run", text(&run, "run_id")]).text();
    assert!(said.contains("FILES INSIDE"), "{said}");
}

#[test]
fn what_no_record_tells_of_is_found_in_the_trash_itself() {
    let volume = need!(Volume::new());
    let agent = Agent::tracking(&config(&volume.mount.path(), "1h"));
    let ctl = agent.ctl();
    let run = apply(&ctl, &[]);
    let record = agent.state_dir().join("runs").join(format!("{run}.taken"));
    fs::remove_file(record).unwrap();
    let inside = volume.job.join("sub/f000001");
    let above = volume.mount.path().join("alice");
    for (path, kind) in [
        (&volume.file, "file"),
        (&volume.job, "directory"),
        (&inside, "file"),
        (&above, "directory"),
    ] {
        let told = explain(&ctl, path)["taken"][0].clone();
        assert_eq!(
            (text(&told, "run_id"), text(&told, "state"), text(&told, "kind")),
            (run.as_str(), "trashed", kind),
            "{told}"
        );
        assert!(
            told["trash_until"].is_string() && told["last_access"].is_null(),
            "{told}"
        );
    }
    let never_there = volume.mount.path().join("never");
    let _ = ctl
        .run([OsStr::new("explain"), never_there.as_os_str()])
        .ends_with(1);
    for path in [&volume.file, &volume.job] {
        let report = json(&ctl, &[OsStr::new("restore"), path.as_os_str()]);
        assert_eq!(number(&report, "/failed_total"), 0, "{report}");
        assert!(path.exists());
    }
}
