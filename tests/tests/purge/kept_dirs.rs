//! Which empty directories go, and how those come back that went with a grace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_tests::ctl::{Plan, number, tally, text};
use purge_tests::files::{age_tree, assert_same, make, set_times, walk_users};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

const ALICE: u32 = 4001;
const BOB: u32 = 4002;
const TEAM: u32 = 4100;

/// A directory of a user's, with its parents, which are root's.
fn dir(path: &Path, (uid, gid): (u32, u32), mode: u32) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_owned()
}

fn dirs_of(agent: &Agent, plan: &Plan) -> BTreeSet<PathBuf> {
    let shown = agent.ctl().show(plan).into_iter();
    let dirs = shown.filter(|(_, c)| text(c, "kind") == "directory");
    dirs.map(|(path, _)| path).collect()
}

fn left(root: &Path) -> BTreeSet<PathBuf> {
    let all = walk_users(root).into_iter();
    all.filter(|e| e.stat.is_dir()).map(|e| e.path).collect()
}

#[test]
fn a_directory_that_its_users_could_not_make_again_stays() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let own = (ALICE, ALICE);
    let stays = BTreeSet::from([
        // A home that root has made.
        dir(&root.join("alice"), own, 0o700),
        dir(&root.join("bob"), (BOB, BOB), 0o700),
        // A group's, and one of everyone, that root has made.
        dir(&root.join("team"), (0, TEAM), 0o2770),
        dir(&root.join("tmp"), (0, 0), 0o1777),
        // The parent can be written to, and not be reached.
        dir(&root.join("closed"), (0, 0), 0o700),
        dir(&root.join("closed/open"), (0, 0), 0o777),
        dir(&root.join("closed/open/alice"), own, 0o700),
        // The parent belongs to another user.
        dir(&root.join("bob/for-alice"), own, 0o700),
        // The mask of the parent's ACL leaves nothing.
        dir(&root.join("acl-masked"), (0, 0), 0o755),
        dir(&root.join("acl-masked/alice"), own, 0o700),
        dir(&root.join("acl"), (0, 0), 0o755),
        // Root has made it, and an ACL of it names a user.
        dir(&root.join("named"), (0, 0), 0o755),
        // The group may write there, and no account says that the user is in it.
        dir(&root.join("of-team"), (0, TEAM), 0o775),
        dir(&root.join("of-team/alice"), own, 0o700),
    ]);
    let goes = BTreeSet::from([
        dir(&root.join("alice/project"), own, 0o775),
        dir(&root.join("alice/project/run"), own, 0o700),
        dir(&root.join("tmp/alice"), own, 0o700),
        dir(&root.join("acl/alice"), own, 0o700),
        dir(&root.join("by-root"), (0, 0), 0o755),
        dir(&root.join("by-root/below"), (0, 0), 0o775),
    ]);
    make(&root.join("alice/project/run"), 2);
    let acl =
        |rule: &str, dir: &str| sh(Command::new("setfacl").args(["-m", rule]).arg(root.join(dir))).unwrap();
    acl(&format!("u:{ALICE}:rwx"), "acl");
    acl(&format!("u:{ALICE}:rwx,m::rx"), "acl-masked");
    acl(&format!("u:{BOB}:rwx"), "named");
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_same("what goes", &dirs_of(&agent, &plan), &goes);
    tally(&plan, &ctl.apply(&plan).ok().json());
    let lost_and_found = root.join("lost+found");
    let is = left(&root).into_iter().filter(|d| *d != lost_and_found).collect();
    assert_same("what is left", &is, &stays);
    let told = ctl.explain(&root.join("alice"));
    assert!(
        text(&told["rules"][0], "because").contains("could not make it again"),
        "{told}"
    );
}

#[test]
fn all_of_them_go_where_the_rule_says_so() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let root = mount.path();
    let home = dir(&root.join("alice"), (ALICE, ALICE), 0o700);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "remove_empty_dirs = \"all\""));
    let plan = agent.ctl().plan();
    tally(&plan, &agent.ctl().apply(&plan).ok().json());
    assert!(!home.exists());
}

#[test]
fn levels_and_patterns_keep_directories_and_nothing_in_them() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.path();
    for keys in [
        "keep_depth = 2",
        "exclude = [\"/*/\", \"/*/*/\"]",
        "exclude = [\"/*/\", \"/a/b/.\", \"/d/e/.\"]",
    ] {
        make(&root.join("a/b/c"), 2);
        make(&root.join("a/b"), 2);
        make(&root.join("d/e"), 2);
        make(&root, 2);
        age_tree(&root);
        let agent = Agent::tracking(&Config::backdated_with(&root, keys));
        let plan = agent.ctl().plan();
        assert_eq!(number(&plan.json, "/candidates/files"), 8, "{keys}");
        tally(&plan, &agent.ctl().apply(&plan).ok().json());
        let kept: BTreeSet<PathBuf> = ["a", "a/b", "d", "d/e"].map(|d| root.join(d)).into();
        assert_same(keys, &left(&root), &kept);
    }
}

/// Owner, group, mode, modification time, attributes.
type Likeness = (u32, u32, u32, i64, i64, Vec<(String, Vec<u8>)>);

/// What a directory is like, but for its inode, its change time and its access time.
fn likeness(path: &Path) -> Likeness {
    let m = fs::metadata(path).unwrap();
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names.truncate(len);
    let names = names.split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut attributes: Vec<(String, Vec<u8>)> = names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
            value.truncate(len);
            (name, value)
        })
        .collect();
    attributes.sort();
    (m.uid(), m.gid(), m.mode(), m.mtime(), m.mtime_nsec(), attributes)
}

#[test]
fn empty_directories_come_back_as_they_were() {
    for fs in [Fs::Ext4, Fs::Xfs] {
        let mount = need!(Mount::new(fs));
        let root = mount.path();
        let home = dir(&root.join("home"), (ALICE, TEAM), 0o2751);
        let dirs = [
            dir(&home.join("a"), (ALICE, TEAM), 0o3770),
            dir(&home.join("a/empty"), (ALICE, ALICE), 0o700),
            dir(&home.join("a/with-file"), (ALICE, BOB), 0o511),
            dir(&home.join("b/c/d"), (ALICE, ALICE), 0o755),
        ];
        let acl = |rule: &str, dir: &Path| sh(Command::new("setfacl").args(["-m", rule]).arg(dir)).unwrap();
        acl(&format!("u:{BOB}:rwx,d:u:{BOB}:r,d:o::-"), &dirs[0]);
        acl(&format!("g:{TEAM}:rx"), &dirs[3]);
        // What would be inherited if it were made again as a user makes it.
        acl("d:u:4999:rwx", &home);
        let value = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&dirs[1], "user.note", b"mine", value).unwrap();
        make(&dirs[2], 3);
        age_tree(&root);
        for (n, dir) in dirs.iter().enumerate() {
            set_times(dir, 1_000_000_000 + i64::try_from(n).unwrap());
        }
        let all: Vec<PathBuf> = dirs
            .iter()
            .cloned()
            .chain(["b", "b/c"].map(|d| home.join(d)))
            .collect();
        let before: BTreeMap<&PathBuf, _> = all.iter().map(|d| (d, likeness(d))).collect();
        let agent = Agent::tracking(&Config::backdated_with(
            &root,
            "grace = \"1h\"\nkeep_depth = 1\nremove_empty_dirs = \"all\"",
        ));
        let plan = agent.ctl().plan();
        let run = agent.ctl().apply(&plan).ok().json();
        tally(&plan, &run);
        assert_eq!(number(&run, "/trashed/directories"), 6, "{run}");
        assert!(fs::read_dir(&home).unwrap().next().is_none(), "{fs:?}");
        let restored = agent
            .ctl()
            .run(["restore", text(&run, "run_id"), "--output", "json"])
            .ok()
            .json();
        assert_eq!(number(&restored, "/restored/directories"), 6, "{restored}");
        assert_eq!(number(&restored, "/restored/files"), 3, "{restored}");
        let after: BTreeMap<&PathBuf, _> = all.iter().map(|d| (d, likeness(d))).collect();
        assert_eq!(after, before, "{fs:?}");
        let trash = mount.path().join(".purge-agent-trash");
        let left = walk_users(&trash)
            .into_iter()
            .filter(|e| e.path.ends_with("empty"));
        assert_eq!(left.count(), 0, "nothing of it is left in the trash");
    }
}

#[test]
fn one_empty_directory_is_restored_by_its_path_and_the_others_wait() {
    let mount = need!(Mount::new(Fs::Btrfs));
    let root = mount.path();
    for dir in ["a/b", "a/c", "d"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated_with(&root, "grace = \"1h\""));
    let plan = agent.ctl().plan();
    let run = agent.ctl().apply(&plan).ok().json();
    let id = text(&run, "run_id").to_owned();
    assert!(left(&root).is_empty());
    // Another process puts it back.
    agent.restart();
    let restore = |path: Option<&str>| {
        let path = path.map(|p| root.join(p));
        let ctl = agent.ctl();
        let mut arguments: Vec<std::ffi::OsString> = ["restore".into(), (&id).into()].into();
        arguments.extend(path.map(Into::into));
        arguments.extend(["--output", "json"].map(Into::into));
        ctl.run(arguments).ok().json()
    };
    let one = restore(Some("a/b"));
    assert_eq!(number(&one, "/restored/directories"), 1, "{one}");
    let some: BTreeSet<PathBuf> = ["a", "a/b"].map(|d| root.join(d)).into();
    assert_same("one and what lies above", &left(&root), &some);
    let rest = restore(None);
    assert_eq!(number(&rest, "/failed_total"), 0, "{rest}");
    let all: BTreeSet<PathBuf> = ["a", "a/b", "a/c", "d"].map(|d| root.join(d)).into();
    assert_same("all of them", &left(&root), &all);
}
