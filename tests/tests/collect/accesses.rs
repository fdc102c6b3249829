//! Which uses keep a file, and what is no use, on every file system the agent watches.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use purge_tests::ctl::text;
use purge_tests::files::{
    age_tree, append, assert_same, execute, inode, make, make_executable, make_one, now, read, read_mapped,
    regular_files, set_times, shell,
};
use purge_tests::sys::Mapping;
use purge_tests::wait::{let_pass, until_same};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Each promise on each file system.
macro_rules! on_every_file_system {
    ($($promise:ident),+ $(,)?) => {
        mod ext4 { $( #[test] fn $promise() { super::$promise(&purge_tests::need!(purge_tests::Mount::new(purge_tests::Fs::Ext4))); } )+ }
        mod xfs { $( #[test] fn $promise() { super::$promise(&purge_tests::need!(purge_tests::Mount::new(purge_tests::Fs::Xfs))); } )+ }
        mod btrfs { $( #[test] fn $promise() { super::$promise(&purge_tests::need!(purge_tests::Mount::new(purge_tests::Fs::Btrfs))); } )+ }
        mod tmpfs { $( #[test] fn $promise() { super::$promise(&purge_tests::need!(purge_tests::Mount::new(purge_tests::Fs::Tmpfs))); } )+ }
    };
}

on_every_file_system!(
    files_used_after_they_expired_are_in_no_plan_and_all_others_are,
    looking_at_files_is_no_use_of_them,
    a_use_through_a_writable_mapping_stays_one_when_metadata_change_meanwhile,
    what_was_unused_for_its_ttl_expires_and_what_was_read_does_not,
);

fn files_used_after_they_expired_are_in_no_plan_and_all_others_are(mount: &Mount) {
    const EACH: usize = 30;
    let root = mount.path();
    let plain = make(&root.join("plain"), 850);
    let moved = make(&root.join("moved"), 100);
    let names = root.join("names");
    fs::create_dir(&names).unwrap();
    let linked = make(&root.join("linked"), EACH);
    for (i, file) in linked.iter().enumerate() {
        fs::hard_link(file, names.join(format!("other-{i}"))).unwrap();
    }
    fs::create_dir(root.join("bin")).unwrap();
    let programs: Vec<PathBuf> = (0..20)
        .map(|i| make_executable(&root.join(format!("bin/p{i}"))))
        .collect();
    age_tree(&root);
    let before = regular_files(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();

    // A file with two names is one candidate, under either of them.
    let expired = ctl.candidate_files();
    assert_eq!(expired.len(), before.len() - EACH, "everything has expired");

    let (read_ones, rest) = plain.split_at(EACH);
    let (mapped, rest) = rest.split_at(EACH);
    let (appended, rest) = rest.split_at(EACH);
    let (rewritten, _) = rest.split_at(EACH);
    read_ones.iter().for_each(|f| read(f));
    mapped.iter().for_each(|f| read_mapped(f));
    appended.iter().for_each(|f| append(f));
    rewritten.iter().for_each(|f| fs::write(f, b"new").unwrap());
    programs.iter().take(10).for_each(|f| execute(f));
    for i in 0..EACH / 2 {
        read(&names.join(format!("other-{i}")));
    }
    fs::rename(root.join("moved"), root.join("elsewhere")).unwrap();
    let at_new_place = |f: &PathBuf| root.join("elsewhere").join(f.file_name().unwrap());
    let moved_now: Vec<PathBuf> = moved.iter().map(at_new_place).collect();
    moved_now.iter().take(EACH).for_each(|f| read(f));

    let mut used: BTreeSet<u64> = BTreeSet::new();
    for group in [read_ones, mapped, appended, rewritten] {
        used.extend(group.iter().map(|f| inode(f)));
    }
    used.extend(programs.iter().take(10).map(|f| inode(f)));
    used.extend(linked.iter().take(EACH / 2).map(|f| inode(f)));
    used.extend(moved_now.iter().take(EACH).map(|f| inode(f)));
    let all: BTreeSet<u64> = regular_files(&root).iter().map(|f| inode(f)).collect();
    let expected: BTreeSet<u64> = all.difference(&used).copied().collect();

    let planned = ctl.candidate_files();
    for path in &planned {
        assert!(
            path.exists(),
            "{} is planned under a name it no longer has",
            path.display()
        );
    }
    let found: BTreeSet<u64> = planned.iter().map(|p| inode(p)).collect();
    let lost: Vec<_> = planned.iter().filter(|p| used.contains(&inode(p))).collect();
    assert!(lost.is_empty(), "used, and in the plan: {lost:?}");
    assert_eq!(found, expected, "everything else is in the plan");
}

fn looking_at_files_is_no_use_of_them(mount: &Mount) {
    let root = mount.path();
    make(&root.join("a/b"), 200);
    make(&root.join("c"), 100);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let before = ctl.candidate_files();
    assert_eq!(before.len(), 300);

    shell(&root, "find . -type f -exec stat {} + > /dev/null");
    shell(
        &root,
        "ls -lR . > /dev/null; find . -printf '%s %T@ %A@ %C@\\n' > /dev/null; du -s . > /dev/null",
    );
    assert_same("after stat, ls and find", &ctl.candidate_files(), &before);

    // With clock = ["access"] neither a new access time nor new permissions are a use.
    shell(&root.join("a/b"), "touch -a f00000*");
    shell(&root.join("a/b"), "chmod 640 f00001*");
    shell(&root.join("c"), "chown 12:34 f00002*");
    // The agent takes back what looked like a use at first: that may take it a moment, but no more.
    until_same("touch -a, chmod and chown are no use", &before, || {
        ctl.candidate_files()
    });
}

/// Opens a file to read and write, maps it, reads through the mapping, and closes it: no event but OPEN and CLOSE_WRITE tells of it. The file
/// is changed meanwhile.
fn use_mapped(path: &Path, change: impl FnOnce(&fs::File)) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mapping = Mapping::of(file.try_clone().unwrap());
    assert!(mapping.first_byte() > 0);
    change(&file);
}

fn a_use_through_a_writable_mapping_stays_one_when_metadata_change_meanwhile(mount: &Mount) {
    let root = mount.path();
    let dir = root.join("d");
    let files = make(&dir, 12);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    assert_eq!(ctl.candidate_files().len(), 12);
    let mode = |file: &fs::File| file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    let by_another = |line: &str| {
        let line = line.to_owned();
        let dir = dir.clone();
        move |_: &fs::File| drop(shell(&dir, &line))
    };
    use_mapped(&files[0], mode);
    use_mapped(&files[1], |_| fs::hard_link(&files[1], dir.join("name")).unwrap());
    use_mapped(&files[2], by_another("chmod 640 f000002"));
    use_mapped(&files[3], by_another("ln f000003 other; rm other"));
    use_mapped(&files[4], by_another("mv f000004 g; mv g f000004"));
    use_mapped(&files[5], by_another("touch -a f000005"));
    use_mapped(&files[6], by_another("touch -d @1000000000 f000006"));
    use_mapped(&files[7], |_| set_attribute(&files[7]));
    use_mapped(&files[8], by_another("chown 12:34 f000008; chmod 600 f000008"));
    // What sets times and nothing else is still no use.
    shell(&dir, "touch -a f000009; touch -d @1000000000 f000010");
    let unused: BTreeSet<PathBuf> = files[9..].iter().cloned().collect();
    until_same("each use stays, and touch is none", &unused, || {
        ctl.candidate_files()
    });
    // By then everything has been settled twice.
    let_pass(3);
    assert_same("and so it is later", &ctl.candidate_files(), &unused);
}

fn set_attribute(file: &Path) {
    // An older tmpfs takes none; the mapping is a use all the same.
    let _ = rustix::fs::setxattr(file, "user.x", b"1", rustix::fs::XattrFlags::empty());
}

fn what_was_unused_for_its_ttl_expires_and_what_was_read_does_not(mount: &Mount) {
    let root = mount.path();
    let files = make(&root.join("d"), 60);
    // The default clocks: ctime and birth are those of the test itself, so this one has to wait.
    let agent = Agent::tracking(&Config::new(&root, "").rule("short", "ttl = \"3s\""));
    let ctl = agent.ctl();
    let all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    until_same("all files have expired", &all, || ctl.candidate_files());
    files.iter().take(10).for_each(|f| read(f));
    shell(&root.join("d"), "chmod 600 f000010 f000011");
    let young: BTreeSet<PathBuf> = files.iter().take(12).cloned().collect();
    let expected: BTreeSet<PathBuf> = all.difference(&young).cloned().collect();
    let planned = ctl.candidate_files();
    assert!(
        young.iter().take(10).all(|f| !planned.contains(f)),
        "a file that was just read is in the plan"
    );
    assert!(
        young.iter().skip(10).all(|f| !planned.contains(f)),
        "under the default clock a change of permissions counts"
    );
    assert_same("the others stay expired", &planned, &expected);
}

#[test]
fn an_open_descriptor_read_after_the_agent_started_is_a_use() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 10);
    age_tree(&root);
    let mut open = fs::File::open(&files[0]).unwrap();
    let agent = Agent::tracking(&Config::backdated(&root));
    std::io::Read::read_exact(&mut open, &mut [0; 4]).unwrap();
    let planned = agent.ctl().candidate_files();
    assert!(
        !planned.contains(&files[0]),
        "read through a descriptor opened before"
    );
    assert_eq!(planned.len(), 9);
}

#[test]
fn a_file_written_through_a_second_process_in_a_pipeline_is_a_use() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 4);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    shell(
        &root.join("d"),
        "cat f000000 | dd of=f000001 conv=notrunc status=none",
    );
    let planned = agent.ctl().candidate_files();
    assert_same(
        "only what was not touched",
        &planned,
        &files[2..].iter().cloned().collect(),
    );
}

#[test]
fn nothing_expires_before_it_was_observed_for_its_ttl_on_noatime() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"auto\"").rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let agent = Agent::tracking(&config);
    assert_same(
        "on noatime nothing is known",
        &agent.ctl().candidates(),
        &BTreeSet::new(),
    );
    // `explain` names the latest of all clocks: that may also be the change or birth that the test itself made.
    let explained = agent.ctl().explain(&files[0]);
    assert!(
        ["baseline", "ctime", "birth"].contains(&text(&explained, "source")),
        "{explained}"
    );
}

#[test]
fn access_times_are_believed_where_the_mount_keeps_them() {
    let mount = need!(Mount::new(Fs::Ext4Relatime));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    files.iter().take(5).for_each(|f| set_times(f, now() - 60));
    let config = Config::new(&root, "baseline = \"auto\"").rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let agent = Agent::tracking(&config);
    let expected = files.iter().skip(5).cloned().collect();
    assert_same("old by atime", &agent.ctl().candidate_files(), &expected);
}

#[test]
fn a_file_modified_long_ago_expires_under_the_modify_clock_though_it_is_read() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 20);
    age_tree(&root);
    let config =
        Config::new(&root, "baseline = \"mtime\"").rule("cold", "ttl = \"1h\"\nclock = [\"modify\"]");
    let agent = Agent::tracking(&config);
    files.iter().take(5).for_each(|f| read(f));
    files.iter().skip(5).take(5).for_each(|f| append(f));
    let ctl = agent.ctl();
    let expected: BTreeSet<PathBuf> = files
        .iter()
        .take(5)
        .chain(files.iter().skip(10))
        .cloned()
        .collect();
    until_same("what was written is young", &expected, || ctl.candidate_files());
}

#[test]
fn a_new_file_is_young_with_any_times_it_was_given() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let copied = make_one(&root.join("unpacked"));
    set_times(&copied, 1_000_000_000);
    let planned = agent.ctl().candidate_files();
    assert!(
        !planned.contains(&copied),
        "made a moment ago, although tar set old times"
    );
    assert_eq!(planned.len(), 3);
}
