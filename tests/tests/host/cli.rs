//! Exit codes and refusals of purgectl.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use purge_tests::ctl::{number, path_of, text};
use purge_tests::files::{age_tree, make, make_one, read, regular_files, temp_dir};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, binary, need};

const NOBODY: u32 = 65_534;

#[test]
fn without_an_agent_the_exit_code_is_4_and_the_words_name_the_socket() {
    let dir = temp_dir();
    let socket = dir.path().join("agent.sock");
    let answer = Ctl::new(&socket).run(["status"]).ends_with(4);
    assert!(
        answer.stderr.contains(socket.to_str().unwrap()),
        "{}",
        answer.stderr
    );
    // A process listened there once.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let _ = Ctl::new(&socket).run(["status"]).ends_with(4);
}

#[test]
fn usage_errors_end_with_2_also_without_an_agent() {
    let dir = temp_dir();
    let ctl = Ctl::new(&dir.path().join("agent.sock"));
    for words in [
        &["frobnicate"][..],
        &["plan", "--no-such-flag"],
        &["plan", "--ttl", "soon"],
        &["show"],
        &["apply", "--yes"],
        &["find", "--min-size", "large"],
        &["usage", "--by", "colour"],
        &["status", "--output", "yaml"],
        &[],
    ] {
        let answer = ctl.run(words).ends_with(2);
        assert!(!answer.stderr.is_empty(), "{}: says what is wrong", answer.asked);
        assert!(answer.stdout.is_empty(), "{}: not on stdout", answer.asked);
    }
}

#[test]
fn version_help_and_completions_need_no_agent() {
    let dir = temp_dir();
    let ctl = Ctl::new(&dir.path().join("agent.sock"));
    assert!(ctl.run(["--version"]).ok().text().contains("purgectl"));
    let help = ctl.run(["--help"]).ok().text();
    for command in [
        "status", "plan", "show", "apply", "explain", "usage", "find", "hold", "rescan",
    ] {
        assert!(help.contains(command), "{command} is not in the help");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(ctl.run(["completions", shell]).ok().text().contains("purgectl"));
    }
    let version = Command::new(binary("purge-agent"))
        .arg("--version")
        .output()
        .unwrap();
    assert!(version.status.success() && String::from_utf8_lossy(&version.stdout).contains("purge-agent"));
}

#[test]
fn who_may_not_use_the_socket_gets_4() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 1);
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    // The directories are open, so the socket itself must keep users out.
    let dir = agent.socket().parent().unwrap().to_owned();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777,
        0o660
    );
    let reachable = temp_dir();
    fs::set_permissions(reachable.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = reachable.path().join("purgectl");
    fs::copy(binary("purgectl"), &copy).unwrap();
    let theirs = agent.ctl().as_user(NOBODY, &copy);
    assert!(
        theirs.run(["--version"]).ok().text().contains("purgectl"),
        "the copy runs"
    );
    let answer = theirs.run(["status"]).ends_with(4);
    assert!(
        answer.stderr.contains(agent.socket().to_str().unwrap()),
        "{}",
        answer.stderr
    );
}

#[test]
fn a_user_other_than_root_who_reaches_the_socket_may_do_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let plan = agent.ctl().plan();
    let dir = agent.socket().parent().unwrap().to_owned();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let reachable = temp_dir();
    fs::set_permissions(reachable.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = reachable.path().join("purgectl");
    fs::copy(binary("purgectl"), &copy).unwrap();
    let theirs = agent.ctl().as_user(NOBODY, &copy);
    for words in [&["plan"][..], &["apply", &plan.id, "--yes"], &["hold", "list"]] {
        let answer = theirs.run(words).ends_with(1);
        assert!(!answer.stderr.is_empty());
    }
    assert_eq!(regular_files(&root).len(), 3);
}

#[test]
fn unknown_plans_rules_runs_and_volumes_end_with_1_and_are_named() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 1);
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    let ctl = agent.ctl();
    for words in [
        &["show", "p-unknown"][..],
        &["apply", "p-unknown", "--yes"],
        &["run", "p-unknown"],
        &["cancel", "p-unknown"],
        &["plan", "--rule", "p-unknown"],
        &["apply", "--rule", "p-unknown", "--yes"],
        &["plan", "--volume", "p-unknown"],
        &["rescan", "--volume", "p-unknown"],
        &["hold", "remove", "p-unknown"],
    ] {
        let answer = ctl.run(words).ends_with(1);
        assert!(
            answer.stderr.contains("p-unknown"),
            "{}: {}",
            answer.asked,
            answer.stderr
        );
    }
    // An error about a mistyped rule lists the rules.
    assert!(
        ctl.run(["plan", "--rule", "odl"])
            .ends_with(1)
            .stderr
            .contains("old")
    );
}

#[test]
fn the_detailed_exit_code_says_whether_there_is_something_to_purge() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let _ = ctl.run(["plan", "--detailed-exitcode"]).ends_with(2);
    let _ = ctl.run(["plan"]).ok();
    files.iter().for_each(|f| read(f));
    let _ = ctl.run(["plan", "--detailed-exitcode"]).ok();
    let answer = ctl.run(["plan", "--detailed-exitcode", "--output", "json"]).ok();
    assert_eq!(number(&answer.json(), "/candidates/files"), 0);
}

#[test]
fn apply_deletes_nothing_where_no_person_can_be_asked() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 10);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    for words in [&["apply", &plan.id][..], &["apply", "--rule", "old"]] {
        let answer = ctl.run(words).ends_with(2);
        assert!(answer.stderr.contains("--yes"), "says how: {}", answer.stderr);
    }
    assert_eq!(regular_files(&root).len(), 10);
    assert!(
        ctl.run(["runs", "--output", "ndjson"]).ok().lines().is_empty(),
        "no run was begun"
    );
    let _ = ctl.apply(&plan).ok();
}

#[test]
fn an_answer_in_json_is_one_document_and_nothing_else() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 3);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let plan = ctl.plan();
    let file = files[0].to_str().unwrap();
    for words in [
        &["status"][..],
        &["plan"],
        &["plans"],
        &["runs"],
        &["show", &plan.id],
        &["explain", file],
        &["usage"],
        &["find"],
        &["hold", "list"],
        &["rescan"],
        &["apply", &plan.id, "--yes"],
    ] {
        let answer = ctl.run(words.iter().chain(&["--output", "json"])).ok();
        let _ = answer.json();
    }
    for field in ["created_at", "expires_at"] {
        let at = text(&plan.json, field);
        assert!(
            at.len() >= 20 && at.ends_with('Z') && at.as_bytes()[10] == b'T',
            "{field} is {at}"
        );
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5000);
    let agent = Agent::tracking(&Config::backdated(&root));
    let line = format!(
        "set -o pipefail; {} --endpoint unix://{} find -0 | head -c 10 > /dev/null",
        binary("purgectl").display(),
        agent.socket().display()
    );
    let status = Command::new("bash").args(["-c", &line]).status().unwrap();
    // 141: ended by SIGPIPE, as find itself is.
    assert!([Some(0), Some(141)].contains(&status.code()), "{status}");
}

#[test]
fn an_expired_plan_is_refused() {
    use purge_index::Store;
    use purge_removal::plans::Plans;

    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("d"), 5);
    age_tree(&root);
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let plan = agent.ctl().plan();
    agent.terminate();
    // A day later.
    let plans = Plans::new(Store::open(&agent.state_dir().join("index")).unwrap());
    let mut saved = plans.get(&plan.id).unwrap();
    saved.created = saved.created.minus(24 * 3600);
    plans.put(&saved).unwrap();
    drop(plans);
    agent.launch();
    agent.wait_until_tracking();
    let answer = agent.ctl().run(["apply", &plan.id, "--yes"]).ends_with(3);
    assert!(answer.stderr.contains("make a new one"), "{}", answer.stderr);
    assert_eq!(regular_files(&root).len(), 5);
}

/// Runs purgectl on a terminal of its own, on which `typed` is typed; its exit code, and what appeared there.
fn on_a_terminal(agent: &Agent, words: &str, pager: &Path, typed: &str) -> (i32, String) {
    let line = format!(
        "{} --endpoint unix:{} {words}",
        binary("purgectl").display(),
        agent.socket().display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("PAGER", format!("cat >{}", pager.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let code = out.status.code().unwrap();
    (code, String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn a_plan_is_looked_at_by_directory_and_page_by_page() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    make(&root.join("a/x"), 30);
    make(&root.join("b"), 5);
    make_one(&root.join("f"));
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated_with(&root, "grace = \"1d\""));
    let plan = agent.ctl().plan();
    let rows = agent.ctl().run([
        "show",
        &plan.id,
        "--by",
        "directory",
        "--depth",
        "2",
        "--output",
        "json",
    ]);
    let rows = rows.ok().json();
    let rows: BTreeMap<PathBuf, u64> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (path_of(r), number(r, "/files")))
        .filter(|(_, files)| *files > 0)
        .collect();
    assert_eq!(
        rows,
        [(root.join("a/x"), 30), (root.join("b"), 5), (root.clone(), 1)].into()
    );

    let dir = temp_dir();
    let pager = dir.path().join("paged");
    // A script that goes on after `apply` does not go on after a no.
    let (code, said) = on_a_terminal(&agent, &format!("apply {}", plan.id), &pager, "d\nn\n");
    assert_eq!(code, 1, "{said}");
    let paged = fs::read_to_string(&pager).unwrap();
    assert!(
        !said.contains("f000003") && said.contains("Nothing was done"),
        "{said}"
    );
    let (summary, all) = paged.split_once("\n\n").unwrap();
    assert!(
        summary.contains("DIRECTORY") && summary.contains("/a/x") && !summary.contains("f000003"),
        "{paged}"
    );
    assert_eq!(
        all.lines()
            .filter(|l| l.contains("/f0000") || l.ends_with("/f"))
            .count(),
        36
    );

    let (code, said) = on_a_terminal(&agent, &format!("apply {}", plan.id), &pager, "y\n");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("To the trash: 36 files") && !said.contains("Deleted 0"),
        "{said}"
    );
    let has_decimals = said.split("/s").any(|before| {
        let digits = before
            .rsplit(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','))
            .next();
        digits.is_some_and(|d| d.contains('.'))
    });
    assert!(!has_decimals, "a rate is told in whole items: {said}");
}
