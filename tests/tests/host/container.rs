//! The image of package/Containerfile: as root with what it needs, as root without capabilities, and as another user. What it watches and removes
//! then, and what `doctor` says that it lacks.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use purge_tests::container::{Container, Image, SOCKET_DIR, mounted};
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, read, temp_dir};
use purge_tests::job::Job;
use purge_tests::once::with_file_server;
use purge_tests::{Fs, Mount, need, sh};
use serde_json::Value;
use tempfile::TempDir;

/// Whose files are not the agent's.
const OTHER: u32 = 4712;

/// What the unit has as well.
const ALL: [&str; 8] = [
    "SYS_ADMIN",
    "DAC_READ_SEARCH",
    "DAC_OVERRIDE",
    "FOWNER",
    "LEASE",
    "CHOWN",
    "FSETID",
    "SYS_PTRACE",
];
const FOUR: [&str; 4] = ["DAC_READ_SEARCH", "DAC_OVERRIDE", "FOWNER", "LEASE"];

const CONFIG: &str = r#"state_dir = "/var/lib/purge-agent"
[listen]
unix = "/run/purge-agent/agent.sock"
[[volume]]
name = "v"
path = "/volume"
baseline = "mtime"
[[rule]]
name = "old"
volume = "v"
ttl = "1h"
clock = ["access"]
remove_empty_dirs = false
grace = "0s"
[access]
admin = { users = ["4711"] }
"#;
/// The user of the last cases: of no name, and root has no socket of its own there.
const USER: u32 = 4711;

/// How a container runs, and what that gives.
struct Case {
    name: &'static str,
    uid: u32,
    capabilities: &'static [&'static str],
    /// Older podman lets `fanotify_init` through only with CAP_SYS_ADMIN: its filter of system calls.
    unfiltered: bool,
    /// Collectors and modes of which it takes one.
    collector: &'static [(&'static str, &'static str)],
    /// What `doctor` says is missing.
    lacks: &'static [&'static str],
    /// Deleted and protected files of twenty, of which two were read.
    applied: (u64, u64),
}

const DIRECTORIES: (&str, &str) = ("fanotify", "directories");

const CASES: [Case; 5] = [
    Case {
        name: "root-with-all",
        uid: 0,
        capabilities: &ALL,
        unfiltered: false,
        collector: &[("fanotify", "filesystem")],
        lacks: &[],
        applied: (18, 0),
    },
    Case {
        name: "root-with-four",
        uid: 0,
        capabilities: &FOUR,
        unfiltered: true,
        collector: &[DIRECTORIES],
        lacks: &["CAP_SYS_ADMIN"],
        applied: (18, 0),
    },
    Case {
        name: "root-without",
        uid: 0,
        capabilities: &[],
        unfiltered: true,
        collector: &[DIRECTORIES],
        lacks: &["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_LEASE"],
        applied: (9, 9),
    },
    Case {
        name: "another-user",
        uid: USER,
        capabilities: &[],
        unfiltered: true,
        collector: &[DIRECTORIES],
        lacks: &["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_LEASE"],
        applied: (9, 9),
    },
    Case {
        name: "another-user-filtered",
        uid: USER,
        capabilities: &[],
        unfiltered: false,
        collector: &[DIRECTORIES, ("inotify", "")],
        lacks: &["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_LEASE"],
        applied: (9, 9),
    },
];

/// A volume with files of the agent's user and of another one, and what the agent keeps.
struct Ground {
    mount: Mount,
    own: Vec<PathBuf>,
    others: Vec<PathBuf>,
    kept: TempDir,
}

impl Ground {
    fn of(mount: Mount, uid: u32) -> Self {
        let root = mount.path();
        let own = make(&root.join("own"), 10);
        let others = make(&root.join("others"), 10);
        age_tree(&root);
        let kept = temp_dir();
        fs::write(kept.path().join("agent.toml"), CONFIG).unwrap();
        for dir in ["state", "run"] {
            fs::create_dir(kept.path().join(dir)).unwrap();
        }
        let mut of_agent = own.clone();
        of_agent.extend([root.clone(), root.join("own"), root.join("others")]);
        of_agent.extend(["agent.toml", "state", "run"].map(|name| kept.path().join(name)));
        of_agent
            .iter()
            .for_each(|path| chown(path, Some(uid), Some(uid)).unwrap());
        others
            .iter()
            .for_each(|path| chown(path, Some(OTHER), Some(OTHER)).unwrap());
        Self {
            mount,
            own,
            others,
            kept,
        }
    }

    fn options(&self, case: &Case) -> Vec<String> {
        let mut options = vec!["--cap-drop=all".to_owned(), format!("--user={0}:{0}", case.uid)];
        options.extend(case.capabilities.iter().map(|name| format!("--cap-add={name}")));
        if case.unfiltered {
            options.extend(["--security-opt".into(), "seccomp=unconfined".into()]);
        }
        let kept = self.kept.path();
        options.extend(mounted(&self.mount.path(), "/volume"));
        options.extend(mounted(
            &kept.join("agent.toml"),
            "/etc/purge-agent/agent.toml:ro",
        ));
        options.extend(mounted(&kept.join("state"), "/var/lib/purge-agent"));
        options.extend(mounted(&kept.join("run"), SOCKET_DIR));
        options
    }
}

fn capabilities(container: &Container<'_>) -> Value {
    // It says that something is missing by its exit code as well.
    let said = container.answer(&["doctor"]);
    let findings = said["findings"].as_array().unwrap();
    let of = findings.iter().find(|f| f["check"] == "capabilities");
    of.unwrap().clone()
}

fn runs_as(case: &Case, image: &Image, ground: &Ground) {
    let container = image.start(case.name, &ground.options(case), &[]);
    let status = container.tracking();
    let took = (text(&status, "collector"), text(&status, "collector_mode"));
    let missing = capabilities(&container);
    println!("{}: {took:?}, {missing}", case.name);
    assert!(case.collector.contains(&took), "{status}\n{}", container.log());
    for name in case.lacks {
        assert!(missing.to_string().contains(name), "{missing}");
    }
    assert!(
        !case.lacks.is_empty() || missing["verdict"] == "good",
        "{missing}"
    );
    read(&ground.own[0]);
    read(&ground.others[0]);
    let plan = container.ctl(&["plan"]).unwrap();
    assert_eq!(number(&plan, "/candidates/files"), 18, "{plan}");
    let id = text(&plan, "plan_id").to_owned();
    let run = container.answer(&["apply", &id, "--yes"]);
    let done = (number(&run, "/deleted/files"), number(&run, "/skipped/protected"));
    assert_eq!(done, case.applied, "{run}");
    assert!(ground.own[0].exists() && ground.others[0].exists() && !ground.own[1].exists());
}

/// What is left of it goes with a job, in a container that ends: without capabilities the files of its user, and it ends with 5 (partly done).
fn a_job_runs_as(case: &Case, image: &Image, ground: &Ground) {
    let mut options = ground.options(case);
    options.push("--rm".into());
    let mut run = image.run(&options);
    run.args(["once", "--volume", "/volume", "--ttl", "1h", "--clock", "modify"]);
    let job = Job::of(&run.output().unwrap());
    println!("{}: {}", case.name, job.statistics);
    let left = 20 - case.applied.0;
    let (code, purged) = if case.capabilities.is_empty() {
        (5, 1)
    } else {
        (0, left)
    };
    assert_eq!(job.number("/files_to_purge"), left, "{job:?}");
    assert_eq!((job.code, job.number("/files_purged")), (code, purged), "{job:?}");
}

#[test]
fn the_image_runs_with_what_it_needs_without_capabilities_and_as_another_user() {
    let image = need!(Image::build());
    with_file_server(false);
    for case in &CASES {
        let ground = Ground::of(need!(Mount::new(Fs::Ext4)), case.uid);
        runs_as(case, &image, &ground);
        a_job_runs_as(case, &image, &ground);
    }
}

/// The image holds the programs and nothing else, and needs no file of the host.
#[test]
fn the_image_holds_two_programs_and_says_its_version() {
    let image = need!(Image::build());
    let version = sh(image.run(&["--rm".into()]).arg("--version")).unwrap();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let dir = temp_dir();
    let tar = dir.path().join("image.tar");
    let named = sh(image.podman().args([
        "create",
        "--network=none",
        "--ulimit",
        "nproc=4096:4096",
        "purge-agent",
    ]))
    .unwrap();
    sh(image
        .podman()
        .args(["export", "--output"])
        .arg(&tar)
        .arg(named.trim()))
    .unwrap();
    let listed = sh(Command::new("tar").arg("-tf").arg(&tar)).unwrap();
    let mut files: Vec<&str> = listed
        .lines()
        .filter(|name| name.starts_with("usr/") && !name.ends_with('/'))
        .collect();
    files.sort_unstable();
    assert_eq!(files, ["usr/bin/purgectl", "usr/sbin/purge-agent"], "{listed}");
}
