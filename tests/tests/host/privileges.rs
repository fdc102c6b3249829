//! With fewer privileges, as the image has them in a container: what the agent watches and removes then, and what `doctor` says that it lacks.
//! Each is started with exactly these capabilities (setpriv(1)).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, make, read, temp_dir};
use purge_tests::once::with_file_server;
use purge_tests::skip::Unmet;
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const KEYS: &str = "baseline = \"mtime\"";
const RULE: &str = "ttl = \"1h\"\nclock = [\"access\"]\nremove_empty_dirs = false";
/// A user of no name.
const USER: u32 = 4711;
/// Whose files are not the agent's.
const OTHER: u32 = 4712;

const NEEDED: [&str; 2] = [
    "--bounding-set=-all,+dac_read_search,+dac_override,+lease,+fowner",
    "--inh-caps=-all",
];
const NONE: [&str; 2] = ["--bounding-set=-all", "--inh-caps=-all"];

struct Started {
    agent: Agent,
    /// The agent's own files, and another user's.
    own: Vec<PathBuf>,
    others: Vec<PathBuf>,
    _program: TempDir,
    _mount: Mount,
}

/// An agent of this user with these privileges, on a volume with files of its own and of another user.
fn started(mount: Mount, uid: u32, privileges: &[&str], keys: &str) -> Started {
    with_file_server(false);
    let root = mount.path();
    let own = make(&root.join("own"), 10);
    let others = make(&root.join("others"), 10);
    age_tree(&root);
    let give = |paths: &[PathBuf], to: u32| {
        paths
            .iter()
            .for_each(|path| chown(path, Some(to), Some(to)).unwrap())
    };
    give(&own, uid);
    give(&others, OTHER);
    give(&[root.clone(), root.join("own"), root.join("others")], uid);
    // Where it can be reached by any user.
    let place = temp_dir();
    let program = place.path().join("purge-agent");
    fs::copy(binary("purge-agent"), &program).unwrap();
    for path in [place.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
    let begin = format!("exec {} \"$@\"", program.display());
    let mut launcher = vec!["setpriv", &user, &group, "--clear-groups"];
    launcher.extend_from_slice(privileges);
    launcher.extend(["sh", "-c", &begin]);
    let config = Config::new(&root, &format!("{KEYS}\n{keys}")).rule("old", RULE);
    let mut agent = Agent::prepared(&config).under(&launcher).with_parent();
    if uid != 0 {
        agent.belongs_to(uid);
    }
    agent.launch();
    agent.wait_until_tracking();
    let status = agent.status();
    assert_eq!(text(&status, "collector_mode"), "directories", "{status}");
    Started {
        agent,
        own,
        others,
        _program: place,
        _mount: mount,
    }
}

/// What doctor says of capabilities: one line.
fn capabilities(agent: &Agent) -> String {
    let said = agent.ctl().run(["doctor", "--output", "json"]).text();
    let all: serde_json::Value = serde_json::from_str(&said).unwrap();
    let findings = all["findings"].as_array().unwrap();
    let of = findings.iter().find(|f| f["check"] == "capabilities").unwrap();
    of.to_string()
}

/// Kills the agent's process; its parent starts another one.
fn killed(agent: &Agent) {
    let child = agent.below_parent().unwrap();
    kill_process(Pid::from_raw(child.cast_signed()).unwrap(), Signal::KILL).unwrap();
    until("another one runs", SOON, || {
        agent.below_parent().filter(|now| *now != child)
    });
    until("it answers", SOON, || {
        (agent.ctl().run(["status"]).code == 0).then_some(())
    });
    agent.wait_until_tracking();
}

#[test]
fn root_with_four_capabilities_removes_everything_and_survives_a_kill() {
    let mount = need!(Mount::new(Fs::Ext4));
    let it = started(mount, 0, &NEEDED, "");
    let status = it.agent.status();
    assert_eq!(text(&status, "guard"), "leases", "{status}");
    let said = capabilities(&it.agent);
    assert!(
        said.contains("CAP_SYS_ADMIN") && !said.contains("CAP_LEASE"),
        "{said}"
    );
    read(&it.own[0]);
    killed(&it.agent);
    assert_eq!(it.agent.status()["gaps"].as_array().map_or(0, Vec::len), 0);
    read(&it.others[0]);
    let ctl = it.agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), 18, "{}", plan.json);
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(tally(&plan, &run).deleted, 18, "{run}");
    assert!(it.own[0].exists() && it.others[0].exists() && !it.others[1].exists());
}

/// What a run made of the files: deleted, in the trash, skipped as protected, because their owner is another.
fn applied(it: &Started) -> (u64, u64, u64) {
    let ctl = it.agent.ctl();
    let plan = ctl.plan();
    let run = ctl.apply(&plan).json();
    let counts = tally(&plan, &run);
    println!("{run}");
    (counts.deleted, counts.trashed, number(&run, "/skipped/protected"))
}

/// Without capabilities: what it lacks is said, and files of others stay.
fn removes_its_own_files_alone(uid: u32, lacks: [&str; 2]) -> Result<(), Unmet> {
    let it = started(Mount::new(Fs::Ext4)?, uid, &NONE, "");
    let said = capabilities(&it.agent);
    assert!(lacks.iter().all(|name| said.contains(name)), "{said}");
    read(&it.own[0]);
    read(&it.others[0]);
    assert_eq!(applied(&it), (9, 0, 9));
    assert!(it.own[0].exists() && it.others.iter().all(|file| file.exists()));
    Ok(())
}

#[test]
fn root_without_capabilities_removes_its_own_files() {
    need!(removes_its_own_files_alone(
        0,
        ["CAP_LEASE", "CAP_DAC_READ_SEARCH"]
    ));
}

#[test]
fn another_user_removes_its_own_files() {
    need!(removes_its_own_files_alone(USER, ["CAP_LEASE", "CAP_SYS_ADMIN"]));
}

/// What needs to know who uses a file is refused, in each of them.
#[test]
fn accessors_cannot_be_ignored_without_privileges() {
    let mount = need!(Mount::new(Fs::Ext4));
    for privileges in [NEEDED, NONE] {
        let mut launcher = vec!["setpriv"];
        launcher.extend(privileges);
        let keys = format!("{KEYS}\nignore_accessors = [ {{ comm = \"find\" }} ]");
        let config = Config::new(&mount.path(), &keys).rule("old", RULE);
        let mut agent = Agent::prepared(&config).under(&launcher);
        let (status, said) = agent.launch_in_vain();
        assert!(
            !status.success() && said.contains("ignore_accessors needs CAP_SYS_ADMIN"),
            "{said}"
        );
    }
}
