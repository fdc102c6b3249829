//! Project ids, also where the kernel has no call that tells them by name (before Linux 6.17). On xfs, which has them without a quota; ext4, and
//! quotas of both, are shown by `tests/run --with-kernels`: not every kernel has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, make_one};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need, sh};

/// Becomes another program for which file_getattr(2), number 468, is not there: a filter of four instructions answers ENOSYS.
const WITHOUT_THE_CALL: &str = "\
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 468), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *c) for c in code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
    sys.exit('prctl: ' + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
";

fn start(config: &Config, kernel: Kernel) -> Agent {
    match kernel {
        Kernel::New => Agent::tracking(config),
        Kernel::Old => Agent::tracking_under(config, &["/usr/bin/python3", "-c", WITHOUT_THE_CALL]),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// As it is here.
    New,
    /// As on Debian 12.
    Old,
}

/// Who wants the ids, besides clients that ask for usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ByNobody,
    ByQuota,
}

const QUOTA: &str = "name = \"p\"\nsubject = \"project\"\nhard = \"1TB\"";

fn set_project(id: &str, flag: &[&str], path: &Path) {
    sh(Command::new("chattr").args(["-p", id]).args(flag).arg(path)).unwrap();
}

fn files(ctl: &Ctl) -> BTreeMap<String, u64> {
    let words = ["usage", "--output", "ndjson", "--by", "project"];
    let lines = ctl.run(words).ok().lines();
    let row = |r: &serde_json::Value| (text(r, "subject").to_owned(), number(r, "/files"));
    lines.iter().map(row).collect()
}

fn of(zero: u64, p77: u64, p78: u64) -> BTreeMap<String, u64> {
    let rows = [("0", zero), ("77", p77), ("78", p78)];
    BTreeMap::from(rows.map(|(subject, n)| (subject.to_owned(), n)))
}

fn projects_are_told_apart(kernel: Kernel, wanted: Wanted) {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    // Before the first directory with an id is met, and moved out of one.
    make(&root.join("a"), 20);
    let project = root.join("z/project");
    fs::create_dir_all(&project).unwrap();
    let moved = make_one(&project.join("moved"));
    set_project("77", &["+P"], &project);
    set_project("78", &[], &moved);
    make(&project, 5);
    fs::rename(&moved, root.join("a/moved")).unwrap();
    // No process can open it.
    sh(Command::new("mkfifo").arg(project.join("fifo"))).unwrap();
    std::os::unix::fs::symlink("/dev/null", project.join("link")).unwrap();

    age_tree(&root);

    let mut config = Config::backdated(&root);
    if wanted == Wanted::ByQuota {
        config = config.table("quota", QUOTA);
    }
    let mut agent = start(&config, kernel);
    until("files met before", SOON, || {
        (files(&agent.ctl()) == of(20, 5, 1)).then_some(())
    });
    // New files inherit the id, and changed ones keep it.
    make(&project.join("below"), 3);
    fs::write(project.join("f000001"), b"more").unwrap();
    until("they are counted where they belong", SOON, || {
        (files(&agent.ctl()) == of(20, 8, 1)).then_some(())
    });
    let_pass(2);
    assert_eq!(files(&agent.ctl()), of(20, 8, 1));
    agent.restart();
    agent.wait_until_tracking();
    fs::write(project.join("f000002"), b"more").unwrap();
    let_pass(2);
    assert_eq!(files(&agent.ctl()), of(20, 8, 1));
    // Asking is no use: all but what was written has expired and goes, by a rescan's word as well.
    let _ = agent.ctl().run(["rescan"]).ok();
    let found = agent.ctl().candidate_files();
    let young = ["f000001", "f000002"].map(|name| project.join(name));
    assert!(young.iter().all(|path| !found.contains(path)), "{found:?}");
    let below = fs::read_dir(project.join("below")).unwrap().count();
    assert_eq!(found.len() + young.len() + below, 29, "{found:?}");
    // And what is removed under its lease goes in spite of it.
    let plan = agent.ctl().plan();
    let run = agent.ctl().apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/files"), found.len() as u64, "{run}");
}

#[test]
fn projects_of_xfs_are_told_apart() {
    projects_are_told_apart(Kernel::New, Wanted::ByNobody);
}

#[test]
fn projects_of_xfs_are_told_apart_by_an_older_kernel() {
    projects_are_told_apart(Kernel::Old, Wanted::ByQuota);
}

#[test]
fn an_older_kernel_is_asked_where_a_quota_needs_it_and_else_refuses_in_words() {
    let mount = need!(Mount::new(Fs::Xfs));
    let root = mount.dir("volume");
    make(&root.join("a"), 4);
    fs::create_dir(root.join("p")).unwrap();
    set_project("77", &["+P"], &root.join("p"));
    make(&root.join("p"), 6);
    age_tree(&root);
    let config = Config::backdated(&root);
    let agent = start(&config, Kernel::Old);
    let refused = agent.ctl().run(["usage", "--by", "project"]).ends_with(3);
    assert!(refused.stderr.contains("prjquota"), "{}", refused.stderr);
    let users = agent.ctl().run(["usage", "--output", "ndjson"]).ok().lines();
    assert_eq!(number(&users[0], "/files"), 10);

    agent.write_config(&config.table("quota", QUOTA));
    agent.reload();
    let expected = BTreeMap::from([("0".to_owned(), 4), ("77".to_owned(), 6)]);
    until("the ids of what was there", SOON, || {
        let answer = agent
            .ctl()
            .run(["usage", "--output", "ndjson", "--by", "project"]);
        (answer.code == 0 && files(&agent.ctl()) == expected).then_some(())
    });
    let all: BTreeSet<_> = agent.ctl().candidate_files();
    assert_eq!(all.len(), 10, "asking is no use");
}
