//! Names, reasons and words that others chose, through every command, error, notice and log line: nothing that a terminal obeys, that
//! turns a line around or that is not seen comes out as it is, and JSON says exactly what there is.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_proto::v1;
use purge_tests::ctl::{path_of, text};
use purge_tests::files::{age_tree, make_one, regular_files, set_times, temp_dir, walk};
use purge_tests::notices::PATIENCE;
use purge_tests::rpc;
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Ctl, Fs, Mount, binary, need};
use purgectl::connect::{Client, Connect};
use purgectl::tls::Tls;
use serde_json::Value;

/// What the tests look for is not taken from the product.
fn is_hostile(c: char) -> bool {
    let unseen = [
        (0xAD, 0xAD),
        (0x61C, 0x61C),
        (0x115F, 0x1160),
        (0x200B, 0x200F),
        (0x2028, 0x202E),
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFEFF, 0xFEFF),
        (0xFFF9, 0xFFFB),
        (0xE0000, 0xE0FFF),
    ];
    c.is_control()
        || unseen
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

/// Begins a line only where a name's line end came out.
const FAKED: &str = "FAKED";

/// Names of files and directories.
fn names() -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        "esc\x1b[31m\x1b]0;title\x07",
        "cr\rbegin",
        "nl\nFAKED line",
        "tab\there",
        "del\x7f",
        "c1\u{9b}31m\u{85}\u{90}",
        "bidi\u{202e}fdp.exe\u{202c}",
        "isolate\u{2066}x\u{2069}\u{200f}\u{61c}",
        "separators\u{2028}FAKED\u{2029}x",
        "unseen\u{200b}\u{feff}\u{ad}\u{2060}\u{e0041}\u{fe0f}",
        "=cmd|' !C calc'!A0",
        "+1+1",
        "-2+3",
        "@SUM(1)",
        "semi;=1+1",
        "back\\x1b[31m",
        "quote\"',",
    ]
    .map(OsString::from)
    .to_vec();
    all.push(OsString::from_vec(b"bytes\xff\xfe\x9b31m".to_vec()));
    all
}

/// A name that has everything in it, for what is given on a command line.
const EVIL: &str = "x\x1b[2J\x07\r\u{9b}\u{202e}\u{2028}\u{200b}\nFAKED";

fn assert_clean(what: &str, bytes: &[u8]) {
    let found = std::str::from_utf8(bytes).unwrap_or_else(|e| panic!("{what}: no UTF-8: {e}"));
    let wrong = found
        .lines()
        .find(|l| l.chars().any(is_hostile) || l.starts_with(FAKED));
    assert!(wrong.is_none(), "{what}: {wrong:?}");
}

/// A tree below `root` in which every name is hostile: a directory of each, with a file of each that has expired.
fn make_tree(root: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for (position, name) in names().iter().enumerate() {
        let dir = root.join(name);
        fs::create_dir(&dir).unwrap();
        let file = make_one(&dir.join(&names()[position]));
        chown(&dir, Some(54_321), None).unwrap();
        chown(&file, Some(54_321), None).unwrap();
        files.insert(file);
    }
    age_tree(root);
    // These expire soon.
    for file in files.iter().take(8) {
        let soon = make_one(&file.with_file_name(EVIL));
        chown(&soon, Some(54_321), None).unwrap();
        set_times(&soon, purge_tests::files::now() - 3000);
    }
    files
}

/// Makes a file of which nothing but its name can be read: its run fails in part.
fn spoil(mount: &mut Mount, path: &Path) {
    chown(path, Some(54321), Some(54321)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).unwrap();
    mount.spoil(&[path.to_owned()]);
}

fn config(root: &Path, more: &str) -> Config {
    Config::backdated_with(
        root,
        &format!("grace = \"1h\"\nmax_fraction = 1.0\nmax_errors = 1.0\n{more}"),
    )
    .table(
        "quota",
        "name = \"q\"\nsubject = \"directory\"\ndepth = 1\nhard = \"1B\"\nrule = \"old\"\nmin_age = \"1h\"",
    )
}

/// Runs a command in every form, and returns what it answered as a table and as JSON.
fn every_form(ctl: &Ctl, words: &[&OsStr]) -> Vec<Value> {
    let mut all = Vec::new();
    for form in ["table", "json", "ndjson", "csv"] {
        let arguments = words.iter().copied().chain(["--output".as_ref(), form.as_ref()]);
        let answer = ctl.run(arguments);
        let what = format!("{:?} --output {form}", words);
        assert_clean(&format!("{what}: stdout"), &answer.stdout);
        assert_clean(&format!("{what}: stderr"), answer.stderr.as_bytes());
        match form {
            "json" if answer.code == 0 => all.push(answer.json()),
            "ndjson" if answer.code == 0 => drop(answer.lines()),
            "csv" => assert_no_formula(&what, std::str::from_utf8(&answer.stdout).unwrap()),
            _ => {}
        }
    }
    all
}

/// No field of CSV is computed by a spreadsheet, whether commas or semicolons end fields for it.
fn assert_no_formula(what: &str, csv: &str) {
    for line in csv.lines() {
        let (mut fields, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' | ';' | '\t' if !quoted => fields.push(String::new()),
                c => fields.last_mut().unwrap().push(c),
            }
        }
        assert!(!quoted, "{what}: a field goes on: {line}");
        for field in fields {
            let begins = field.trim_start().starts_with(['=', '+', '-', '@']);
            assert!(
                !begins || field.parse::<f64>().is_ok(),
                "{what}: {field:?} in {line}"
            );
        }
    }
}

fn words<const N: usize>(all: [&str; N]) -> Vec<&OsStr> {
    all.into_iter().map(OsStr::new).collect()
}

/// A program that keeps its standard input and its environment as files in `DIR/got`.
fn keeper(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(dir.join("got")).unwrap();
    let path = dir.join("keep");
    let script = "#!/bin/sh\ncd \"$1/got\" || exit 1\nenv > env.$$\ncat > new.$$\nprintf 'no \\033[2J\\n' >&2\nmv new.$$ $$.json\nexit 1\n";
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn nothing_that_others_chose_comes_out_raw() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 4000));
    let root = mount.dir("v");
    let files = make_tree(&root);
    let stuck = files.iter().last().unwrap();
    spoil(&mut mount, stuck);
    let dir = temp_dir();
    let program = keeper(dir.path());
    let lists = mount.dir("lists");
    let rule = format!("announce = \"2s\"\nannounce_to = {lists:?}");
    let sink = format!(
        "warn_before = \"1d\"\nexec = {{ command = [{program:?}, {:?}], digest = \"0s\" }}",
        dir.path()
    );
    let agent = Agent::tracking(
        &config(&root, "")
            .rule("named", &format!("ttl = \"50d\"\nclock = [\"access\"]\n{rule}"))
            .rule("told", "ttl = \"30d\"\nclock = [\"access\"]\naction = \"notify\"")
            .notifying(&sink),
    );
    let ctl = agent.ctl();

    // Holds on hostile paths, with hostile reasons.
    let hold = files.iter().next().unwrap();
    for reason in [EVIL, "=1+1", "-x"] {
        let add = [
            OsStr::new("hold"),
            "add".as_ref(),
            hold.as_os_str(),
            "--reason".as_ref(),
            reason.as_ref(),
        ];
        every_form(&ctl, &add);
    }
    let holds = every_form(&ctl, &words(["hold", "list"]));
    assert!(
        holds[0]
            .as_array()
            .unwrap()
            .iter()
            .any(|h| text(h, "reason") == EVIL),
        "{holds:?}"
    );

    look_by_every_command(&ctl, &root, &files);
    fail_by_every_command(&ctl, &root, &agent.socket());

    // A run of which one part fails, and what is put back.
    let plan = ctl.plan_with(["--rule", "old"]);
    every_form(&ctl, &words(["show", &plan.id]));
    let run = ctl.run(["apply", &plan.id, "--yes"]);
    assert_clean("apply", &run.stdout);
    assert_clean("apply", run.stderr.as_bytes());
    assert!(run.text().contains("1 candidate failed"), "{}", run.text());
    let runs = every_form(&ctl, &words(["runs"]));
    let id = text(&runs[0][0], "run_id").to_owned();
    let told = every_form(&ctl, &words(["run", &id]));
    assert_eq!(path_of(&told[0]["failed"][0]), *stuck);
    for file in files.iter().skip(2).take(4) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "in the way").unwrap();
    }
    let restored = ctl.run(["restore", &id]);
    assert_clean("restore", restored.text().as_bytes());
    every_form(&ctl, &words(["restore", &id, EVIL]));
    let _ = ctl.run(["rescan"]).ok();

    // What was told.
    until("a notice of each kind", PATIENCE, || {
        let all = ctl.run(["notices", "--output", "json"]).ok().text();
        ["over-quota", "will-expire", "expired", "purged", "run-failed"]
            .iter()
            .all(|kind| all.contains(kind))
            .then_some(())
    });
    until("each was tried", PATIENCE, || {
        let count = regular_files(&dir.path().join("got"))
            .iter()
            .filter(|f| f.extension().is_some_and(|x| x == "json"))
            .count();
        (count > 4).then_some(())
    });
    every_form(&ctl, &words(["notices"]));
    every_form(&ctl, &words(["notices", "test", "--sink", "exec"]));
    every_form(&ctl, &words(["notices", "test", "--sink", EVIL]));
    let mut named = BTreeSet::new();
    for file in regular_files(&dir.path().join("got")) {
        // The program renames a file once it is complete; one that it still writes may have another name by now.
        let content = match fs::read(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            read => read.unwrap(),
        };
        assert_clean(&file.display().to_string(), &content);
        if let Ok(notice) = serde_json::from_slice::<Value>(&content) {
            // The text is for people: clean also once the JSON is read.
            assert_clean("the subject", text(&notice, "subject").as_bytes());
            assert_clean("the text", text(&notice, "text").as_bytes());
            let events = notice["events"].as_array().unwrap().clone();
            let lists = events
                .iter()
                .filter_map(|e| e.pointer("/list/entries")?.as_array());
            named.extend(lists.flatten().map(path_of));
        }
    }
    assert!(
        files.iter().any(|f| named.contains(f)),
        "names are whole in JSON: {named:?}"
    );
    let lists: Vec<Vec<u8>> = walk(&lists)
        .iter()
        .filter(|e| e.stat.is_file())
        .map(|e| fs::read(&e.path).unwrap())
        .collect();
    assert!(!lists.is_empty(), "nothing is announced");
    for list in lists {
        assert_clean(
            "a list of what is announced",
            &list
                .iter()
                .map(|b| if *b == b'\t' { b' ' } else { *b })
                .collect::<Vec<_>>(),
        );
    }
    assert_clean(
        "the audit log",
        &fs::read(agent.state_dir().join("audit.jsonl")).unwrap(),
    );
    assert_clean("the log", agent.said().as_bytes());
}

/// What can be looked at.
fn look_by_every_command(ctl: &Ctl, root: &Path, files: &BTreeSet<PathBuf>) {
    for all in [
        words(["status"]),
        words(["plan"]),
        words(["plan", "--rule", "old"]),
        words(["plan", "--quota", "q"]),
        words(["plans"]),
        words(["usage", "--by", "directory"]),
        words(["usage", "--by", "directory", "--depth", "2", "--age"]),
        words(["usage", "--touched"]),
        words(["forecast", "--by", "directory"]),
        words(["forecast", "--by", "user"]),
        words(["mine", "--user", "54321"]),
        words(["config", "show"]),
        words(["doctor"]),
        words(["find", "--name", "*\u{202e}*"]),
        words(["find", "--expiring", "7d", "--sort", "path"]),
    ] {
        every_form(ctl, &all);
    }
    let quota = text(
        &ctl.run(["plan", "--quota", "q", "--output", "json"]).ok().json(),
        "plan_id",
    )
    .to_owned();
    let candidates = every_form(ctl, &words(["show", &quota]));
    let rules = candidates[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(c, "rule").to_owned());
    assert!(
        rules.into_iter().any(|r| r.contains("\x1b[31m")),
        "the rule column has names in it: {candidates:?}"
    );
    let found = every_form(
        ctl,
        &[
            OsStr::new("find"),
            root.as_os_str(),
            "--type".as_ref(),
            "f".as_ref(),
        ],
    );
    let found: BTreeSet<PathBuf> = found[0].as_array().unwrap().iter().map(path_of).collect();
    assert!(found.is_superset(files), "JSON names exactly what there is");
    for file in files {
        let told = every_form(ctl, &[OsStr::new("explain"), file.as_os_str()]);
        assert_eq!(path_of(&told[0]), *file);
        every_form(ctl, &[OsStr::new("find"), file.parent().unwrap().as_os_str()]);
    }
    // Raw only where raw bytes are asked for, and no person reads them.
    let raw = ctl.run(["find", "-0"]).ok().stdout;
    assert!(raw.contains(&0x1b) && raw.ends_with(&[0]));
    assert!(ctl.find(["--type", "f"]).is_superset(files));
}

/// What repeats what it was given.
fn fail_by_every_command(ctl: &Ctl, root: &Path, socket: &Path) {
    let (nowhere, outside) = (root.join(EVIL), Path::new("/nowhere").join(EVIL));
    let mut all: Vec<Vec<&OsStr>> = Vec::new();
    for command in ["show", "run", "cancel", "restore"] {
        all.push(words([command, EVIL]));
    }
    for path in [&nowhere, &outside] {
        let path = path.as_os_str();
        all.push(vec!["explain".as_ref(), path]);
        all.push(vec!["find".as_ref(), path]);
        all.push(vec![
            "hold".as_ref(),
            "add".as_ref(),
            path,
            "--reason".as_ref(),
            "r".as_ref(),
        ]);
    }
    all.extend([
        words(["apply", EVIL, "--yes"]),
        words(["apply", EVIL]),
        words(["hold", "remove", EVIL]),
        words(["plan", "--rule", EVIL]),
        words(["plan", "--volume", EVIL]),
        words(["plan", "--quota", EVIL]),
        words(["plan", "--ttl", EVIL]),
        words(["usage", "--volume", EVIL]),
        words(["usage", "--by", EVIL]),
        words(["forecast", "--volume", EVIL]),
        words(["forecast", "--rule", EVIL]),
        words(["mine", "--user", EVIL]),
        words(["mine", "--volume", EVIL]),
        words(["find", "--user", EVIL]),
        words(["find", "--name", "[\x1b\u{202e}"]),
        words(["rescan", "--volume", EVIL]),
        words(["notices", "--sink", EVIL]),
        words(["config", "show", EVIL]),
        words(["--endpoint", EVIL, "status"]),
        words(["--endpoint", "unix:///nowhere/\x1b[2J\u{202e}", "status"]),
        words(["--endpoint", "https://\x1b[2J:7443", "status"]),
        words([EVIL]),
        words(["status", EVIL]),
    ]);
    for words in all {
        every_form(ctl, &words);
    }
    over_grpc(socket, &outside);
    let check = |file: &Path| {
        Command::new(binary("purge-agent"))
            .args(["check", "--config"])
            .arg(file)
            .output()
            .unwrap()
    };
    let dir = temp_dir();
    let file = dir.path().join(EVIL);
    for text in [
        "state_dir = \"x\\u001B\\u202E\\nFAKED\"",
        "\"\\u001B[2J\" = 1",
        "[[volume]]\nname = \"\\u202E\"\npath = \"x\\u009B\\nFAKED\"\nbaseline = \"\\u001b\"",
        "[[volume]]\nname = \"\x7f\"",
    ] {
        fs::write(&file, text).unwrap();
        let out = check(&file);
        assert!(!out.status.success(), "{text}");
        assert_clean(text, &[out.stdout, out.stderr].concat());
    }
    let out = Command::new(binary("purge-agent"))
        .args(["run", EVIL])
        .output()
        .unwrap();
    assert_clean("purge-agent's arguments", &[out.stdout, out.stderr].concat());
}

/// Other clients print the words of an error as they come.
fn over_grpc(socket: &Path, outside: &Path) {
    let endpoint = format!("unix://{}", socket.display());
    rpc::runtime().block_on(async {
        let mut client = <Client as Connect>::connect(&endpoint, &Tls::default())
            .await
            .unwrap();
        let path = outside.as_os_str().as_bytes().to_vec();
        let (plan_id, run_id, evil) = (EVIL.to_owned(), EVIL.to_owned(), EVIL.to_owned());
        let words = [
            client.get_plan(v1::GetPlanRequest { plan_id }).await.err(),
            client.get_run(v1::GetRunRequest { run_id }).await.err(),
            client
                .explain(v1::ExplainRequest { path: path.clone() })
                .await
                .err(),
            client
                .add_hold(v1::AddHoldRequest {
                    path,
                    reason: evil.clone(),
                    for_seconds: None,
                })
                .await
                .err(),
            client
                .remove_hold(v1::RemoveHoldRequest {
                    hold_id: evil.clone(),
                })
                .await
                .err(),
            client
                .test_notice(v1::TestNoticeRequest { sink: evil.clone() })
                .await
                .err(),
            client.rescan(v1::RescanRequest { volume: evil }).await.err(),
        ];
        for status in words {
            let status = status.expect("an error");
            assert!(!status.message().contains('\n'), "{:?}", status.message());
            assert_clean("an error over gRPC", status.message().as_bytes());
        }
    });
}

/// What a command prints to a terminal.
fn on_a_terminal(agent: &Agent, command: &str) -> (i32, String) {
    let script =
        "import os,pty,sys\nstatus = pty.spawn(sys.argv[1:])\nsys.exit(os.waitstatus_to_exitcode(status))";
    let out = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(binary("purgectl"))
        .args(command.split(' '))
        .env(
            "PURGECTL_ENDPOINT",
            format!("unix://{}", agent.socket().display()),
        )
        .env_remove("NO_COLOR")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("python3");
    (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
}

#[test]
fn a_terminal_gets_no_other_escapes_than_those_of_headings_and_states() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 4000));
    let root = mount.dir("v");
    make_tree(&root);
    spoil(&mut mount, &root.join(&names()[0]).join(&names()[0]));
    let mut agent = Agent::prepared(&config(&root, ""));
    // The form that a person reads.
    agent.environment("PURGE_AGENT_LOG", Path::new("human"));
    agent.environment("RUST_LOG", Path::new("debug"));
    agent.launch();
    agent.wait_until_tracking();
    for command in [
        "find",
        "usage --by directory",
        "plan --quota q",
        "hold list",
        "explain /nowhere/x",
    ] {
        let (_, seen) = on_a_terminal(&agent, command);
        let seen = seen
            .replace("\x1b[1m", "")
            .replace("\x1b[1;31m", "")
            .replace("\x1b[32m", "")
            .replace("\x1b[33m", "")
            .replace("\x1b[0m", "")
            .replace("\r\n", "\n");
        assert_clean(command, seen.as_bytes());
    }
    let (code, seen) = on_a_terminal(&agent, "find -0");
    assert_eq!(code, 2, "{seen}");
    assert!(seen.contains("a terminal may obey them"), "{seen}");
    assert!(
        !seen
            .replace("\r\n", "\n")
            .chars()
            .any(|c| c != '\n' && is_hostile(c)),
        "{seen:?}"
    );

    // What is said of hostile names in the log: a run that fails.
    let ctl = agent.ctl();
    let _ = ctl.apply(&ctl.plan_with(["--rule", "old"])).ends_with(5);
    let _ = ctl.run(["rescan"]).ok();
    // Levels and times have colours of the log's own.
    let said = strip_colours(&agent.said());
    assert_clean("the log", said.as_bytes());
    assert!(OsStr::from_bytes(said.as_bytes()).len() > 100);
}

/// Without `ESC [ digits ; m`.
fn strip_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((code, rest)) if code.chars().all(|c| c.is_ascii_digit() || c == ';') => out.push_str(rest),
            _ => out.push_str(&format!("\x1b[{part}")),
        }
    }
    out
}
