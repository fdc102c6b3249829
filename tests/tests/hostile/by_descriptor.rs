//! What the agent does by name, and where. In a directory that others can write, a name may lead elsewhere from one call to the next: there
//! everything is done by descriptor, nothing follows a link, and nothing gets its owner or mode by a name. Found out twice: in the source,
//! and by looking on while the agent works.

mod calls;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, make, make_one, temp_dir};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

#[test]
fn names_are_used_only_where_that_was_looked_at() {
    let found = source::found();
    let known = source::known();
    let mut wrong = Vec::new();
    for (file, calls) in &found {
        let allowed = known.get(file.as_str()).cloned().unwrap_or_default();
        let new: Vec<&str> = calls.difference(&allowed).map(String::as_str).collect();
        if !new.is_empty() {
            wrong.push(format!("{file}: {}", new.join(" ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "calls with a path, outside of crates/sys. Move them there if others can write the directory; else say in \
         tests/tests/hostile/by_descriptor/source.rs why no other user can:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn what_is_on_the_list_is_still_needed() {
    let found = source::found();
    let left: Vec<String> = source::known()
        .iter()
        .map(|(file, allowed)| {
            let used = found.get(*file).cloned().unwrap_or_default();
            let left: Vec<&str> = allowed.difference(&used).map(String::as_str).collect();
            format!("{file}: {}", left.join(" "))
        })
        .filter(|line| !line.ends_with(": "))
        .collect();
    assert!(left.is_empty(), "take these off the list:\n{}", left.join("\n"));
}

#[test]
fn no_owner_mode_or_time_is_set_by_name_anywhere() {
    let wrong = source::changes_by_name();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_calls_of_a_trace_are_judged() {
    let judged = |line: &str| {
        let mut trace = calls::Trace::new(Path::new("/v"));
        trace.line(line);
        (trace.seen.len(), trace.wrong.len())
    };
    for good in [
        r#"7 openat2(5, "a/b", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_NO_XDEV|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS|RESOLVE_BENEATH}, 24) = 9"#,
        r#"7 openat(5, "x, \"y\"", O_RDONLY|O_NOFOLLOW|O_CLOEXEC) = 9"#,
        r#"7 openat(AT_FDCWD, "/v", O_RDONLY|O_NOFOLLOW|O_DIRECTORY) = 9"#,
        r#"7 openat(AT_FDCWD, "/var/lib/x", O_RDONLY) = 9"#,
        r#"7 openat(5, "..", O_PATH|O_CLOEXEC|O_DIRECTORY) = 9"#,
        r#"7 fchownat(9, "", 1, 1, AT_EMPTY_PATH) = 0"#,
        r#"7 utimensat(9, NULL, [{tv_sec=1, tv_nsec=0}, UTIME_OMIT], 0) = 0"#,
        r#"7 renameat2(5, "a", 6, "b", RENAME_NOREPLACE) = 0"#,
        r#"7 chmod("/proc/self/fd/9", 0660) = 0"#,
        r#"7 newfstatat(5, "a", {st_mode=S_IFREG|0644, st_size=3, ...}, AT_SYMLINK_NOFOLLOW) = 0"#,
        r#"7 statx(9, "", AT_STATX_SYNC_AS_STAT|AT_EMPTY_PATH, STATX_ALL, {stx_mask=0, ...}) = 0"#,
    ] {
        assert_eq!(judged(good), (1, 0), "{good}");
    }
    for bad in [
        r#"7 openat2(5, "a/b", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_NO_SYMLINKS}, 24) = 9"#,
        r#"7 openat2(5, "a/b", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_BENEATH}, 24) = 9"#,
        r#"7 openat(5, "a", O_RDONLY|O_CLOEXEC) = 9"#,
        r#"7 openat(5, "a/b", O_RDONLY|O_NOFOLLOW) = 9"#,
        r#"7 openat(AT_FDCWD, "/v/a", O_RDONLY|O_NOFOLLOW) = 9"#,
        r#"7 open("/v", O_RDONLY) = 9"#,
        r#"7 chmod("/v/a", 0660) = 0"#,
        r#"7 chown("/var/lib/x", 0, 0) = 0"#,
        r#"7 fchmodat(5, "a", 0755) = 0"#,
        r#"7 fchmodat2(5, "a", 0755, AT_SYMLINK_NOFOLLOW) = 0"#,
        r#"7 fchownat(5, "a", 1, 1, AT_SYMLINK_NOFOLLOW) = 0"#,
        r#"7 utimensat(5, "a", NULL, AT_SYMLINK_NOFOLLOW) = 0"#,
        r#"7 lsetxattr("/v/a", "user.x", "", 0, 0) = 0"#,
        r#"7 mkdirat(5, "a/b", 0700) = 0"#,
        r#"7 mkdir("/v/a", 0700) = 0"#,
        r#"7 unlink("/v/a") = 0"#,
        r#"7 renameat2(5, "a", 6, "b/c", RENAME_NOREPLACE) = 0"#,
        r#"7 newfstatat(5, "a", {st_mode=S_IFREG|0644, ...}, 0) = 0"#,
        r#"7 linkat(5, "a", 6, "b", AT_SYMLINK_FOLLOW) = 0"#,
    ] {
        assert_eq!(judged(bad), (1, 1), "{bad}");
    }
    // What another thread interrupts comes in two parts.
    let mut trace = calls::Trace::new(Path::new("/v"));
    trace.line(r#"7 newfstatat(5, "a",  <unfinished ...>"#);
    trace.line(r#"8 mkdirat(5, "a", 0700) = 0"#);
    trace.line(r#"7 <... newfstatat resumed>{st_mode=S_IFREG|0644, ...}, 0) = 0"#);
    trace.line(r#"8 openat(5, "b", O_RDONLY|O_CLOEXEC <unfinished ...>"#);
    trace.line("8 +++ killed by SIGKILL +++");
    trace.end();
    assert_eq!((trace.seen.len(), trace.wrong.len()), (3, 2), "{:?}", trace.wrong);
}

/// A tree of others: files, one of them with two names, and directories that go as a whole.
fn fill(root: &Path, round: &str) {
    for dir in ["files/a", "files/b/c", "trees/t1/x", "trees/t2"] {
        let dir = root.join(format!("{round}-{dir}"));
        for file in make(&dir, 6) {
            chown(&file, Some(50_001), Some(50_001)).unwrap();
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o2770)).unwrap();
        chown(&dir, Some(50_001), Some(50_002)).unwrap();
    }
    let first = root.join(format!("{round}-files/a/f000000"));
    fs::hard_link(first, root.join(format!("{round}-files/b/other"))).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join(format!("{round}-files/link"))).unwrap();
}

#[test]
fn at_work_it_uses_no_name_that_others_can_exchange() {
    let mount = need!(Mount::new(Fs::Ext4));
    need!(purge_tests::sh(Command::new("strace").arg("--version")).map_err(purge_tests::skip::Unmet));
    let root = mount.dir("volume");
    for round in ["apply", "restore", "killed", "freed"] {
        fill(&root, round);
    }
    fill(&root, "listed");
    age_tree(&root);
    let outside = temp_dir();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let told = outside.path().join("told");
    fs::write(&told, "#!/bin/sh\ncat >/dev/null\n").unwrap();
    fs::set_permissions(&told, fs::Permissions::from_mode(0o755)).unwrap();
    let rule = |round: &str, more: &str| {
        format!(
            "include = [\"/{round}-files/**\", \"/{round}-trees/**\"]\nttl = \"1h\"\nclock = [\"access\"]\n{more}"
        )
    };
    let lists = format!(
        "announce = \"20s\"\nannounce_to = \"{}/lists\"",
        outside.path().display()
    );
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule("apply", &rule("apply", "grace = \"0s\""))
        .rule("restore", &rule("restore", "grace = \"1h\""))
        .rule(
            "trees",
            "target = \"directory\"\ndepth = 2\ninclude = [\"/restore-trees/**\"]\nttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1h\"",
        )
        .rule("killed", &rule("killed", "grace = \"1h\""))
        .rule("freed", &rule("freed", "grace = \"1s\""))
        .rule("listed", &rule("listed", &lists))
        .notifying(&format!("exec = {{ command = [\"{}\"] }}", told.display()));
    let log = outside.path().join("trace");
    let words = [
        "strace",
        "-D",
        "-f",
        "-q",
        "--seccomp-bpf",
        "-s",
        "4200",
        "-e",
        "trace=%file",
        "-e",
        "signal=none",
        "-A",
        "-o",
        log.to_str().unwrap(),
        "--",
    ];
    let mut agent = Agent::tracking_under(&config, &words);
    let ctl = agent.ctl();
    let _ = ctl.find(["--older", "1h"]);
    let run_of = |name: &str| {
        let plan = agent.ctl().plan_with(["--rule", name]);
        let run = agent.ctl().apply(&plan).ok().json();
        text(&run, "run_id").to_owned()
    };
    run_of("apply");
    for rule in ["trees", "restore"] {
        let run = run_of(rule);
        // The directory above it was removed meanwhile.
        let _ = fs::remove_dir_all(root.join(format!("{rule}-files")));
        let _ = ctl.run(["restore", &run]).ok();
    }
    assert!(root.join("restore-files/b/c/f000003").exists());
    run_of("freed");
    until("its trash is freed", LONG, || {
        no_trash_of(&root, "freed").then_some(())
    });
    until("a list is there", Duration::from_secs(60), || {
        outside.path().join("lists/listed/50001").exists().then_some(())
    });
    let _ = ctl.run(["notices", "test", "--sink", "exec"]).ok();
    // Killed in a run, and put right at the next start.
    let plan = agent.ctl().plan_with(["--rule", "killed"]);
    let mut client = agent.ctl().start_apply(&plan, &[]);
    let first = root.join("killed-files/a/f000001");
    until("the first file is moved", LONG, || {
        (!first.exists()).then_some(())
    });
    agent.kill();
    client.wait().unwrap();
    agent.launch();
    agent.wait_until_tracking();
    make_one(&root.join("killed-files/later"));
    let _ = agent.ctl().run(["rescan"]);
    agent.terminate();
    until("the trace is whole", LONG, || {
        let text = fs::read_to_string(&log).ok()?;
        text.trim_end().ends_with("+++").then_some(())
    });
    let mut trace = calls::Trace::new(&root);
    for line in String::from_utf8_lossy(&fs::read(&log).unwrap()).lines() {
        trace.line(line);
    }
    trace.end();
    println!(
        "{} calls with a name, by kind: {:?}",
        trace.seen.len(),
        trace.kinds()
    );
    // Otherwise nothing was looked at.
    let needed: BTreeSet<&str> = [
        "openat2",
        "renameat2",
        "unlinkat",
        "mkdirat",
        "statx",
        "fanotify_mark",
    ]
    .into();
    let kinds = trace.kinds();
    let missing: Vec<_> = needed.into_iter().filter(|k| !kinds.contains_key(k)).collect();
    assert!(missing.is_empty(), "not seen at all: {missing:?}");
    let wrong: BTreeSet<&String> = trace.wrong.iter().collect();
    assert!(wrong.is_empty(), "{} kinds of calls:\n{}", wrong.len(), {
        let lines: Vec<&str> = wrong.iter().map(|w| w.as_str()).take(60).collect();
        lines.join("\n")
    });
}

/// Whether nothing of a round is in the trash.
fn no_trash_of(root: &Path, round: &str) -> bool {
    let trash = root.join(".purge-agent-trash");
    !trash.exists()
        || purge_tests::files::regular_files(&trash)
            .iter()
            .all(|file| !file.to_string_lossy().contains(round))
}
