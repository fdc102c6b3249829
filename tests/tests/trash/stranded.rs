//! A file that a process opens while a run takes it, and whose name belongs to another file by then, is kept apart and never freed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use purge_tests::ctl::{Plan, number, tally, text};
use purge_tests::files::{
    age_tree, files_and_directories, inode, make, regular_files, shell, trash_is_empty,
};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};
use serde_json::Value;

const TRASH: &str = ".purge-agent-trash";
const FILES: usize = 5000;
const NEW: &str = "another user's by now";

/// Files in the middle of being taken, with the agent stopped: where each lies, and where it belongs.
struct Caught {
    client: Child,
    plan: Plan,
    files: Vec<(PathBuf, PathBuf)>,
}

/// Stops the agent in a moment in which files lie in the trash that are to be removed.
///
/// None if none were there in that moment.
fn catch(agent: &Agent, root: &Path) -> Option<Caught> {
    let belongs: BTreeMap<u64, PathBuf> = regular_files(root).into_iter().map(|p| (inode(&p), p)).collect();
    let plan = agent.ctl().plan();
    let client = agent.ctl().start_apply(&plan, &[]);
    let trash = root.join(TRASH);
    until("the first are moved", SOON, || {
        (fs::read_dir(root.join("d")).unwrap().count() < FILES).then_some(())
    });
    let mut caught = Caught {
        client,
        plan,
        files: Vec::new(),
    };
    caught.files = frozen_when(agent, &mut caught.client, || {
        let here = if trash.exists() {
            regular_files(&trash)
        } else {
            BTreeSet::new()
        };
        let belongs = |p: PathBuf| (p.clone(), belongs[&inode(&p)].clone());
        (here.len() > 2).then(|| here.into_iter().map(belongs).collect())
    })?;
    Some(caught)
}

/// Stops the agent again and again until it has stopped in a moment in which there is `something`; none if the run has ended before.
fn frozen_when<T>(agent: &Agent, run: &mut Child, something: impl Fn() -> Option<T>) -> Option<T> {
    while run.try_wait().unwrap().is_none() {
        agent.freeze();
        let found = something();
        if found.is_some() {
            return found;
        }
        agent.thaw();
        std::thread::sleep(Duration::from_micros(700));
    }
    None
}

fn copy(from: &Path, to: &Path) {
    sh(Command::new("cp").arg("-a").arg(from).arg(to)).unwrap();
}

fn kept(root: &Path) -> Vec<PathBuf> {
    let shares = fs::read_dir(root.join(TRASH)).into_iter().flatten();
    let shares = shares.map(|s| s.unwrap().path());
    let kept = shares.filter(|p| p.to_string_lossy().ends_with(".kept"));
    kept.flat_map(|p| regular_files(&p)).collect()
}

fn run_of(agent: &Agent, plan: &Plan) -> Value {
    let runs = agent.ctl().run(["runs", "--output", "ndjson"]).ok().lines();
    runs.into_iter()
        .find(|r| text(r, "plan_id") == plan.id)
        .expect("the run")
}

/// The keeper's rounds, the end of every grace, a restart: it stays. The operator gets it back once its name is free.
fn stays_until_it_is_restored(
    agent: &mut Agent,
    root: &Path,
    plan: &Plan,
    contents: &BTreeMap<PathBuf, Vec<u8>>,
) {
    let there = kept(root);
    assert!(!there.is_empty());
    agent.restart();
    agent.wait_until_tracking();
    assert_eq!(kept(root), there, "a restart frees nothing of it");
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains("trash") && doctor.contains("kept"), "{doctor}");
    let run = run_of(agent, plan);
    let run = text(&run, "run_id");
    let report = agent.ctl().run(["restore", run, "--output", "json"]).json();
    assert_eq!(number(&report, "/failed_total"), there.len() as u64, "{report}");
    assert!(contents.keys().all(|p| !p.exists()
        || fs::read(p).unwrap() == NEW.as_bytes()
        || contents[p] == fs::read(p).unwrap()));
    for path in contents
        .keys()
        .filter(|p| fs::read(p).is_ok_and(|now| now == NEW.as_bytes()))
    {
        fs::remove_file(path).unwrap();
    }
    let report = agent.ctl().run(["restore", run, "--output", "json"]).ok().json();
    assert_eq!(number(&report, "/restored/files"), there.len() as u64, "{report}");
    let again = agent.ctl().run(["restore", run]).ends_with(3);
    assert!(
        again.stderr.contains("all of it has been restored"),
        "{}",
        again.stderr
    );
    assert!(kept(root).is_empty());
    assert!(trash_is_empty(root), "nothing is left behind");
}

/// Leases of a process for which another process waits.
fn waited_for(pid: u32) -> usize {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let pid = format!(" {pid} ");
    locks
        .lines()
        .filter(|l| l.contains("BREAKING") && l.contains(&pid))
        .count()
}

fn contents_of(files: &[(PathBuf, PathBuf)]) -> BTreeMap<PathBuf, Vec<u8>> {
    files
        .iter()
        .map(|(here, belongs)| (belongs.clone(), fs::read(here).unwrap()))
        .collect()
}

/// Catches a run in the middle of a batch, as often as it takes until `goes_on` keeps some of them.
fn caught_until_kept(
    mount: &Mount,
    goes_on: impl Fn(&mut Agent, &Path, &mut Caught) -> BTreeMap<PathBuf, Vec<u8>>,
) {
    for attempt in 0..20 {
        let root = mount.dir(&format!("v{attempt}"));
        make(&root.join("d"), FILES);
        age_tree(&root);
        let mut agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
        let Some(mut caught) = catch(&agent, &root) else {
            continue;
        };
        let contents = goes_on(&mut agent, &root, &mut caught);
        // Or the files of the batch had been unlinked by then.
        if !kept(&root).is_empty() {
            stays_until_it_is_restored(&mut agent, &root, &caught.plan, &contents);
            return;
        }
    }
    panic!("no run was caught in the middle of a batch");
}

#[test]
fn what_a_killed_run_was_processing_is_kept_if_its_name_is_taken() {
    let mount = need!(Mount::new(Fs::Ext4));
    caught_until_kept(&mount, |agent, _, caught| {
        agent.kill();
        caught.client.wait().unwrap();
        let contents = contents_of(&caught.files);
        contents.keys().for_each(|p| fs::write(p, NEW).unwrap());
        agent.launch();
        agent.wait_until_tracking();
        assert!(
            contents.keys().all(|p| fs::read(p).unwrap() == NEW.as_bytes()),
            "nothing is overwritten"
        );
        contents
    });
}

#[test]
fn what_is_opened_while_it_is_taken_is_kept_if_its_name_is_taken() {
    let mount = need!(Mount::new(Fs::Ext4));
    caught_until_kept(&mount, |agent, root, caught| {
        // They wait at the leases, like a process that found the file by its name a moment ago.
        let openers: Vec<_> = caught
            .files
            .iter()
            .take(50)
            .cloned()
            .map(|(here, belongs)| std::thread::spawn(move || (belongs, File::open(here))))
            .collect();
        until("all of them wait", SOON, || {
            (waited_for(agent.pid()) >= openers.len()).then_some(())
        });
        caught.files.iter().for_each(|(_, p)| fs::write(p, NEW).unwrap());
        agent.thaw();
        let mut contents = BTreeMap::new();
        for opener in openers {
            let (belongs, file) = opener.join().unwrap();
            let read = file.and_then(|mut f| {
                let mut all = Vec::new();
                std::io::Read::read_to_end(&mut f, &mut all).map(|_| all)
            });
            contents.insert(belongs, read.unwrap());
        }
        caught.client.wait().unwrap();
        let there = kept(root);
        if !there.is_empty() {
            let run = run_of(agent, &caught.plan);
            let run = agent
                .ctl()
                .run(["run", text(&run, "run_id"), "--output", "json"])
                .ok()
                .json();
            assert!(number(&run, "/failed_total") >= there.len() as u64, "{run}");
            assert!(run.to_string().contains("cannot be put back"), "{run}");
        }
        contents
    });
}

/// The second process was killed as well, after it had put back what it could and before it wrote that down.
#[test]
fn a_second_kill_does_not_make_a_kept_file_one_that_was_deleted() {
    let mount = need!(Mount::new(Fs::Ext4));
    caught_until_kept(&mount, |agent, root, caught| {
        agent.kill();
        caught.client.wait().unwrap();
        let contents = contents_of(&caught.files);
        contents.keys().for_each(|p| fs::write(p, NEW).unwrap());
        let (state, before) = (agent.state_dir(), root.with_extension("state"));
        copy(&state, &before);
        agent.launch();
        agent.wait_until_tracking();
        agent.kill();
        fs::remove_dir_all(&state).unwrap();
        copy(&before, &state);
        agent.launch();
        agent.wait_until_tracking();
        let run = run_of(agent, &caught.plan);
        let run = agent.ctl().run(["run", text(&run, "run_id"), "--output", "json"]);
        let run = run.ok().json();
        assert_eq!(number(&run, "/failed_total"), kept(root).len() as u64, "{run}");
        tally(&caught.plan, &run);
        contents
    });
}

/// A user replaces a file in the last moment before the agent moves it, and the agent is killed before it sees that.
#[test]
fn another_users_file_that_a_killed_run_was_processing_is_kept() {
    let mount = need!(Mount::new(Fs::Ext4));
    let caught = (0..20).find_map(|attempt| {
        let root = mount.dir(&format!("v{attempt}"));
        make(&root.join("d"), FILES);
        age_tree(&root);
        let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = false"));
        let caught = catch(&agent, &root)?;
        Some((root, agent, caught))
    });
    let (root, mut agent, mut caught) = caught.expect("a run in the middle of a batch");
    // Files that are removed are older than this; it may get the inode of one of them.
    std::thread::sleep(Duration::from_millis(1100));
    let theirs = root.join("theirs");
    fs::write(&theirs, NEW).unwrap();
    let ino = inode(&theirs);
    let (replaced, others) = caught.files.split_first().unwrap();
    fs::rename(&theirs, &replaced.0).unwrap();
    agent.kill();
    caught.client.wait().unwrap();
    agent.launch();
    agent.wait_until_tracking();

    let there = kept(&root);
    assert_eq!(there.len(), 1, "{there:?}");
    assert_eq!(fs::read(&there[0]).unwrap(), NEW.as_bytes());
    assert!(
        others.iter().all(|(_, belongs)| belongs.exists()),
        "it is unknown whether the rest was opened meanwhile"
    );
    let run = run_of(&agent, &caught.plan);
    let run = text(&run, "run_id");
    let _ = agent.ctl().run(["restore", run]).ok();
    let found = root.join(format!("purge-agent-found.{ino}"));
    assert_eq!(fs::read(found).unwrap(), NEW.as_bytes());
    assert!(trash_is_empty(&root), "nothing is left behind");
}

/// The note beside it, which says where it belongs, is lost.
#[test]
fn what_is_kept_stays_also_if_its_place_is_not_known_any_more() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("v");
    make(&root.join("d"), 10);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated_with(&root, "grace = \"1s\""));
    agent.kill();
    let lost = root.join(TRASH).join("r1.kept/d/77");
    fs::create_dir_all(&lost).unwrap();
    fs::set_permissions(root.join(TRASH), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(lost.join("t"), NEW).unwrap();
    agent.launch();
    agent.wait_until_tracking();
    let plan = agent.ctl().plan();
    let _ = agent.ctl().run(["apply", &plan.id, "--yes"]).ok();
    until("the run's share is freed", SOON, || {
        let left = regular_files(&root.join(TRASH)).len();
        (left == 1).then_some(())
    });
    assert_eq!(fs::read(lost.join("t")).unwrap(), NEW.as_bytes());
    let doctor = agent.ctl().run(["doctor"]).text();
    assert!(doctor.contains("kept"), "{doctor}");
}

/// What happened to it between the kill and the next start is unknown.
#[test]
fn the_rest_of_a_directory_that_a_killed_run_was_removing_goes_back() {
    let mount = need!(Mount::new(Fs::Ext4));
    let caught = (0..20).find_map(|attempt| {
        let root = mount.dir(&format!("v{attempt}"));
        fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).unwrap();
        make(&root.join("d/sub"), FILES);
        age_tree(&root);
        let config = Config::backdated_with(&root, "target = \"directory\"\ndepth = 1");
        let agent = Agent::tracking(&config);
        let plan = agent.ctl().plan();
        let mut client = agent.ctl().start_apply(&plan, &[]);
        let trash = root.join(TRASH);
        let left = frozen_when(&agent, &mut client, || {
            let left = regular_files(trash.exists().then_some(&trash)?).len();
            (left > 0 && left < FILES).then_some(left)
        });
        let Some(left) = left else {
            // What this one has left must not fill the volume for the next.
            drop(agent);
            fs::remove_dir_all(&root).unwrap();
            return None;
        };
        Some((root, agent, plan, client, left))
    });
    let (root, mut agent, plan, mut client, left) = caught.expect("a directory of which some is deleted");
    // Another user, who may make names there, does not get its name.
    let takes_it = "mkdir x && ! mkdir d && ! mv -T x d && ! rmdir d && rmdir x";
    shell(
        &root,
        &format!("setpriv --reuid 4001 --regid 4001 --clear-groups sh -c '{takes_it}'"),
    );
    agent.kill();
    client.wait().unwrap();
    agent.launch();
    agent.wait_until_tracking();
    assert_eq!(regular_files(&root.join("d/sub")).len(), left);
    assert!(trash_is_empty(&root), "nothing is left behind");
    let directories = files_and_directories(&root);
    assert!(!directories.iter().any(|dir| is_closed(dir)), "{directories:?}");
    let run = run_of(&agent, &plan);
    let run = agent.ctl().run(["run", text(&run, "run_id"), "--output", "json"]);
    let run = run.ok().json();
    assert_eq!(number(&run, "/failed_total"), 1, "{run}");
    assert!(run.to_string().contains("some of it is deleted"), "{run}");
}

/// What keeps a name.
fn is_closed(dir: &Path) -> bool {
    fs::metadata(dir).unwrap().permissions().mode() & 0o777 == 0
}
