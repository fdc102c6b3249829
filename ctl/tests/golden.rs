//! The face of purgectl: whole commands against an agent with fixed answers, compared with `golden/*.out`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p purgectl` writes the files again; look at the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod fake;
mod schemas;
mod screens;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use purge_proto::v1::purge_agent_server::PurgeAgentServer;
use tokio_stream::wrappers::UnixListenerStream;

use self::fake::Fake;

/// (name of the golden file, exit code, arguments)
const CASES: &[(&str, i32, &[&str])] = &[
    ("plan", 0, &["plan"]),
    ("plan-nothing", 0, &["plan", "--ttl", "1y"]),
    (
        "plan-json",
        2,
        &["plan", "--detailed-exitcode", "--output", "json"],
    ),
    (
        "plan-nothing-csv",
        0,
        &["plan", "--ttl", "28d", "--detailed-exitcode", "--output", "csv"],
    ),
    ("quota", 0, &["quota"]),
    ("quota-json", 0, &["quota", "user", "--output", "json"]),
    ("schedule", 0, &["schedule"]),
    ("schedule-json", 0, &["schedule", "--output", "json"]),
    ("plan-unknown-rule", 1, &["plan", "--rule", "unknown"]),
    ("plan-tells", 0, &["plan", "--rule", "tells"]),
    (
        "plan-not-saved",
        0,
        &["plan", "/export/scratch/alice", "--user", "alice", "--no-save"],
    ),
    (
        "plan-quota-path",
        2,
        &["plan", "/export/scratch/alice", "--quota", "user"],
    ),
    ("plan-csv", 0, &["plan", "--output", "csv"]),
    ("plan-refused", 3, &["plan", "--rule", "refused"]),
    (
        "plan-refused-detailed",
        3,
        &[
            "plan",
            "--rule",
            "refused",
            "--detailed-exitcode",
            "--output",
            "json",
        ],
    ),
    (
        "plan-wrong-option-detailed",
        1,
        &["plan", "--rul", "x", "--detailed-exitcode"],
    ),
    ("plan-wrong-option", 2, &["plan", "--rul", "x"]),
    (
        "https-detailed",
        1,
        &["--endpoint", "https://host:7443", "plan", "--detailed-exitcode"],
    ),
    ("show", 0, &["show", "p1"]),
    ("show-json", 0, &["show", "p1", "--output", "json"]),
    (
        "show-ndjson",
        0,
        &[
            "--output", "ndjson", "show", "p1", "--sort", "size", "--limit", "4",
        ],
    ),
    ("show-csv", 0, &["show", "p1", "--output", "csv"]),
    ("plans-json", 0, &["plans", "--output", "json"]),
    ("plans-csv", 0, &["plans", "--output", "csv"]),
    ("apply", 0, &["apply", "p1", "--yes"]),
    ("apply-json", 0, &["apply", "p1", "--yes", "--output", "json"]),
    ("apply-rule", 0, &["apply", "--rule", "scratch-28d", "--yes"]),
    ("apply-not-asked", 2, &["apply", "p1"]),
    ("apply-stale", 3, &["apply", "stale", "--yes"]),
    ("apply-partial", 5, &["apply", "partial", "--yes"]),
    ("apply-failed", 1, &["apply", "failed", "--yes"]),
    ("apply-unknown", 1, &["apply", "nonsense", "--yes"]),
    ("run", 0, &["run", "r1"]),
    ("run-trashed", 0, &["run", "r2"]),
    ("run-trashed-json", 0, &["run", "r2", "--output", "json"]),
    ("restore", 5, &["restore", "r1"]),
    ("restore-json", 5, &["restore", "r1", "--output", "json"]),
    (
        "restore-dry",
        0,
        &["restore", "/export/scratch/alice", "--dry-run"],
    ),
    (
        "restore-dry-json",
        0,
        &[
            "restore",
            "/export/scratch/alice",
            "--dry-run",
            "--output",
            "json",
        ],
    ),
    ("trash-json", 0, &["trash", "--output", "json"]),
    ("archive-list", 0, &["archive", "list"]),
    ("archive-list-json", 0, &["archive", "list", "--output", "json"]),
    (
        "archive-show",
        0,
        &["archive", "show", "/export/scratch/closed/apollo/data.h5"],
    ),
    ("archive-verify", 5, &["archive", "verify"]),
    ("trash-csv", 0, &["trash", "/export/scratch", "--output", "csv"]),
    ("explain-taken", 0, &["explain", "/export/scratch/gone/a b.dat"]),
    (
        "explain-taken-json",
        0,
        &["explain", "/export/scratch/gone/a b.dat", "--output", "json"],
    ),
    ("runs-csv", 0, &["runs", "--output", "csv"]),
    ("cancel", 0, &["cancel", "r1"]),
    ("resume", 0, &["resume", "scratch"]),
    ("resume-json", 0, &["resume", "--output", "json"]),
    ("status-json", 0, &["status", "--output", "json"]),
    ("status-csv", 0, &["status", "--output", "csv"]),
    (
        "explain-csv",
        0,
        &["explain", "/export/scratch/a.dat", "--output", "csv"],
    ),
    ("mine-csv", 0, &["mine", "--output", "csv"]),
    ("forecast-csv", 0, &["forecast", "--output", "csv"]),
    ("usage-csv", 0, &["usage", "--age", "--output", "csv"]),
    ("doctor-csv", 1, &["doctor", "--output", "csv"]),
    (
        "explain-json",
        0,
        &["explain", "/export/scratch/../scratch/a.dat", "--output", "json"],
    ),
    ("find-ndjson", 0, &["find", "--output", "ndjson"]),
    ("find-null", 0, &["find", "/export/scratch", "-0"]),
    ("usage-json", 0, &["usage", "--age", "--output", "json"]),
    ("usage-project", 1, &["usage", "--by", "project"]),
    ("forecast", 0, &["forecast", "--by", "user"]),
    ("forecast-young", 0, &["forecast", "--volume", "young"]),
    ("touched-json", 0, &["usage", "--touched", "--output", "json"]),
    ("mine-json", 0, &["mine", "--output", "json"]),
    ("forecast-json", 0, &["forecast", "--output", "json"]),
    (
        "hold-add",
        0,
        &[
            "hold",
            "add",
            "/export/scratch/x",
            "--reason",
            "why",
            "--for",
            "1d",
        ],
    ),
    ("hold-list", 0, &["hold", "list"]),
    (
        "hold-remove-json",
        0,
        &["hold", "remove", "h1", "--output", "json"],
    ),
    (
        "hold-add-json",
        0,
        &[
            "hold",
            "add",
            "/export/scratch/x",
            "--reason",
            "why",
            "--output",
            "json",
        ],
    ),
    ("hold-list-json", 0, &["hold", "list", "--output", "json"]),
    ("rescan", 0, &["rescan", "--volume", "scratch"]),
    ("rescan-json", 0, &["rescan", "--output", "json"]),
    ("run-json", 0, &["run", "r1", "--output", "json"]),
    ("runs-json", 0, &["runs", "--output", "json"]),
    ("cancel-json", 0, &["cancel", "r1", "--output", "json"]),
    ("find-json", 0, &["find", "--output", "json"]),
    ("put-back-json", 5, &["restore", "r1", "--output", "json"]),
    (
        "show-by-directory-json",
        0,
        &["show", "p1", "--by", "directory", "--output", "json"],
    ),
    ("config-show", 0, &["config", "show"]),
    (
        "config-show-json",
        0,
        &["config", "show", "volume.", "--output", "json"],
    ),
    ("doctor", 1, &["doctor"]),
    ("doctor-json", 1, &["doctor", "--output", "json"]),
    ("notices", 0, &["notices"]),
    ("notices-json", 0, &["notices", "--output", "json"]),
    (
        "notices-sent-csv",
        0,
        &["notices", "--state", "sent", "--output", "csv"],
    ),
    ("volume-reset", 0, &["volume", "reset", "scratch", "--yes"]),
    ("volume-reset-unasked", 2, &["volume", "reset", "scratch"]),
    (
        "volume-reset-json",
        0,
        &["volume", "reset", "scratch", "--yes", "--output", "json"],
    ),
    ("notices-preview", 0, &["notices", "preview"]),
    (
        "notices-preview-nothing",
        0,
        &["notices", "preview", "--user", "carol"],
    ),
    (
        "notices-preview-json",
        0,
        &["notices", "preview", "--user", "alice", "--output", "json"],
    ),
    ("notices-release-refused", 3, &["notices", "release"]),
    ("notices-test", 0, &["notices", "test", "--sink", "smtp"]),
    (
        "notices-test-json",
        0,
        &["notices", "test", "--sink", "smtp", "--output", "json"],
    ),
    (
        "notices-test-refused",
        1,
        &["notices", "test", "--sink", "webhook"],
    ),
    ("usage-error", 2, &["plan", "--ttl", "28"]),
    ("no-such-command", 2, &["purge-everything"]),
    ("https", 2, &["--endpoint", "https://host:7443", "status"]),
    (
        "no-agent",
        4,
        &["--endpoint", "unix:///nonexistent/agent.sock", "status"],
    ),
];

fn purgectl(endpoint: &str, arguments: &[&str]) -> std::process::Output {
    purgectl_with(endpoint, arguments, &[("COLUMNS", "80")])
}

fn purgectl_with(endpoint: &str, arguments: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_purgectl"))
        .args(arguments)
        .env("PURGECTL_ENDPOINT", endpoint)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.out"))
}

/// What was expected, where that is not what was printed; or it is what is expected from now on.
fn compare(name: &str, printed: &[u8], wrong: &mut Vec<String>) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden(name).parent().unwrap()).unwrap();
        std::fs::write(golden(name), printed).unwrap();
    }
    let expected = std::fs::read(golden(name)).unwrap_or_default();
    if printed != expected {
        let (expected, printed) = (
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(printed),
        );
        wrong.push(format!("{name}: expected\n{expected}\nprinted\n{printed}"));
    }
}

/// A fake agent that listens.
struct Served {
    endpoint: String,
    _dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = {
        let _inside = runtime.enter();
        tokio::net::UnixListener::bind(&socket).unwrap()
    };
    let server = tonic::transport::Server::builder().add_service(PurgeAgentServer::new(Fake));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    Served {
        endpoint: format!("unix://{}", socket.display()),
        _dir: dir,
        _runtime: runtime,
    }
}

#[test]
fn commands_print_what_they_always_printed() {
    let served = serve();
    let endpoint = &served.endpoint;
    let (mut wrong, mut described) = (Vec::new(), BTreeSet::new());
    for (name, code, arguments) in CASES {
        let done = purgectl(endpoint, arguments);
        let mut printed = done.stdout.clone();
        if !done.stderr.is_empty() {
            printed.extend(b"--- stderr\n");
            printed.extend(&done.stderr);
        }
        compare(name, &printed, &mut wrong);
        if let Some(schema) = schemas::name_of(arguments)
            && !done.stdout.is_empty()
        {
            schemas::compare(&schema, &done.stdout, &mut wrong);
            described.insert(schema);
        }
        if done.status.code() != Some(*code) {
            wrong.push(format!(
                "{name}: exit code {:?}, expected {code}",
                done.status.code()
            ));
        }
        let table = !arguments.contains(&"--output") && !name.contains("null") && done.status.success();
        for line in String::from_utf8_lossy(&done.stdout)
            .lines()
            .filter(|l| table && !l.contains("/export/"))
        {
            if line.chars().count() > 80 {
                wrong.push(format!("{name}: longer than 80 columns: {line}"));
            }
        }
    }
    schemas::all_are_of(&described, &mut wrong);
    screens::compare_all(endpoint, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What a shell gets for the last of these words.
fn completed(endpoint: &str, words: &[&str]) -> String {
    let index = (words.len() - 1).to_string();
    let arguments: Vec<&str> = ["--"].iter().chain(words).copied().collect();
    let environment = [
        ("COMPLETE", "bash"),
        ("_CLAP_COMPLETE_INDEX", index.as_str()),
        ("_CLAP_IFS", "\n"),
        ("_CLAP_COMPLETE_COMP_TYPE", "9"),
        ("_CLAP_COMPLETE_SPACE", "true"),
    ];
    let done = purgectl_with(endpoint, &arguments, &environment);
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn shells_complete_what_only_the_agent_knows() {
    let served = serve();
    let endpoint = &served.endpoint;
    for (words, expected) in [
        (&["purgectl", "show", ""][..], "refused"),
        (&["purgectl", "apply", "la"], "latest"),
        (&["purgectl", "run", "r"], "r1"),
        (&["purgectl", "hold", "remove", "h"], "h1"),
        (&["purgectl", "plan", "--volume", ""], "scratch"),
        (&["purgectl", "plan", "--rule", ""], "scratch-28d"),
        (&["purgectl", "plan", "--det"], "--detailed-exitcode"),
    ] {
        let found = completed(endpoint, words);
        assert!(found.lines().any(|line| line == expected), "{words:?}: {found}");
    }
    // Where no agent answers, the rest is completed all the same.
    let nowhere = "unix:///nonexistent/agent.sock";
    assert_eq!(completed(nowhere, &["purgectl", "show", "p"]), "");
    assert!(completed(nowhere, &["purgectl", "stat"]).contains("status"));
}

#[test]
fn json_is_one_document_and_ndjson_one_object_a_line() {
    for name in [
        "plan-json",
        "show-json",
        "plans-json",
        "apply-json",
        "status-json",
        "explain-json",
        "usage-json",
        "notices-json",
        "notices-preview-json",
        "notices-test-json",
    ] {
        let text = std::fs::read_to_string(golden(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in ["show-ndjson", "find-ndjson"] {
        for line in std::fs::read_to_string(golden(name)).unwrap().lines() {
            assert!(
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap()
                    .is_object(),
                "{name}"
            );
        }
    }
}
