//! purgectl, and what it answered.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use purgectl::tls::Tls;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::files::temp_dir;

/// Longer than anything the tests ask for.
const PATIENCE: Duration = Duration::from_secs(600);
/// What timeout(1) ends with when it has ended what it ran, by SIGTERM or by SIGKILL.
const OUT_OF_TIME: [i32; 2] = [124, 137];

/// purgectl for one agent.
#[derive(Debug, Clone)]
pub struct Ctl {
    binary: PathBuf,
    endpoint: String,
    as_uid: Option<u32>,
    environment: Vec<(&'static str, PathBuf)>,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// The command line.
    pub asked: String,
    /// Exit code.
    pub code: i32,
    /// Its output.
    pub stdout: Vec<u8>,
    /// What it said beside.
    pub stderr: String,
}

/// A saved plan.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub id: String,
    /// What `plan --output json` printed.
    pub json: Value,
}

/// A copy of purgectl that every user may run, and the directory that it lies in: where it was built they may not go.
///
/// # Panics
/// When it cannot be made.
pub fn purgectl_for_users() -> (TempDir, PathBuf) {
    let dir = temp_dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a directory for all");
    let program = dir.path().join("purgectl");
    fs::copy(binary("purgectl"), &program).expect("a copy of purgectl");
    (dir, program)
}

impl Ctl {
    /// purgectl for the agent at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self {
            binary: binary("purgectl"),
            endpoint: format!("unix://{}", socket.display()),
            as_uid: None,
            environment: Vec::new(),
        }
    }

    /// purgectl for the agent at a port of the loopback.
    pub fn over_tls(port: u16, files: &Tls) -> Self {
        let variables = [
            ("PURGECTL_CA", &files.ca),
            ("PURGECTL_CERT", &files.cert),
            ("PURGECTL_KEY", &files.key),
        ];
        Self {
            binary: binary("purgectl"),
            endpoint: format!("https://localhost:{port}"),
            as_uid: None,
            environment: variables
                .into_iter()
                .filter_map(|(name, file)| Some((name, file.clone()?)))
                .collect(),
        }
    }

    /// The same as another user. `binary` is a copy that this user can reach.
    #[must_use]
    pub fn as_user(&self, uid: u32, binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            endpoint: self.endpoint.clone(),
            as_uid: Some(uid),
            environment: Vec::new(),
        }
    }

    /// Runs purgectl to its end; stdin is no terminal.
    ///
    /// # Panics
    /// When it cannot be started or does not end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Answer {
        let answer = self.run_within(PATIENCE, arguments);
        assert!(
            !OUT_OF_TIME.contains(&answer.code),
            "{} did not end within {PATIENCE:?}; it said {:?}",
            answer.asked,
            answer.stderr
        );
        answer
    }

    /// The same, ended by force if it takes longer than that: then its code is none of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run_within<S: AsRef<OsStr>>(
        &self,
        within: Duration,
        arguments: impl IntoIterator<Item = S>,
    ) -> Answer {
        let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &within.as_secs().to_string()]);
        if let Some(uid) = self.as_uid {
            command.arg("setpriv");
            command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
            command.args(["--clear-groups", "--"]);
        }
        let out = command
            .arg(&self.binary)
            .args(&arguments)
            .env("PURGECTL_ENDPOINT", &self.endpoint)
            .envs(self.environment.iter().map(|(name, file)| (name, file)))
            .stdin(Stdio::null())
            .output()
            .expect("timeout (coreutils) starts purgectl");
        let words: Vec<_> = arguments
            .iter()
            .map(|a| a.to_string_lossy().into_owned())
            .collect();
        let code = out.status.code().unwrap_or(-1);
        Answer {
            asked: format!("purgectl {}", words.join(" ")),
            code,
            stdout: out.stdout,
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Makes a plan of every rule.
    pub fn plan(&self) -> Plan {
        self.plan_with([])
    }

    /// Makes a plan with further arguments.
    pub fn plan_with<const N: usize>(&self, more: [&str; N]) -> Plan {
        let arguments = ["plan", "--output", "json"].into_iter().chain(more);
        // 3: apply would refuse it.
        let answer = self.run(arguments);
        let code = if answer.code == 3 { 3 } else { 0 };
        let json = answer.ends_with(code).json();
        let id = text(&json, "plan_id").to_owned();
        assert!(!id.is_empty(), "{json}");
        Plan { id, json }
    }

    /// The candidates of a plan: what `show` prints, by path.
    pub fn show(&self, plan: &Plan) -> BTreeMap<PathBuf, Value> {
        let lines = self.run(["show", &plan.id, "--output", "ndjson"]).ok().lines();
        let count = lines.len();
        let all: BTreeMap<PathBuf, Value> = lines.into_iter().map(|v| (path_of(&v), v)).collect();
        assert_eq!(all.len(), count, "a candidate is named twice");
        all
    }

    /// The paths a plan of every rule would take now.
    pub fn candidates(&self) -> BTreeSet<PathBuf> {
        let plan = self.plan();
        self.show(&plan).into_keys().collect()
    }

    /// The files among [`Ctl::candidates`].
    pub fn candidate_files(&self) -> BTreeSet<PathBuf> {
        let plan = self.plan();
        let all = self.show(&plan).into_iter();
        all.filter(|(_, c)| text(c, "kind") == "file")
            .map(|(p, _)| p)
            .collect()
    }

    /// Applies a plan and returns the answer, also if it is an error.
    pub fn apply(&self, plan: &Plan) -> Answer {
        self.run(["apply", &plan.id, "--yes", "--output", "json"])
    }

    /// Begins to apply a plan, with further arguments. What the client says is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_apply(&self, plan: &Plan, more: &[&str]) -> Child {
        assert_eq!(self.as_uid, None, "as the tests' own user only");
        Command::new(&self.binary)
            .args(["--quiet", "apply", &plan.id, "--yes"])
            .args(more)
            .env("PURGECTL_ENDPOINT", &self.endpoint)
            .envs(self.environment.iter().map(|(name, file)| (name, file)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("purgectl starts")
    }

    /// `find` with `-0`: the paths as raw bytes.
    ///
    /// # Panics
    /// When the last path is not ended.
    pub fn find<S: AsRef<OsStr>>(&self, filters: impl IntoIterator<Item = S>) -> BTreeSet<PathBuf> {
        let filters = filters.into_iter().map(|f| f.as_ref().to_owned());
        let out = self
            .run(["find".into(), "-0".into()].into_iter().chain(filters))
            .ok()
            .stdout;
        assert!(
            out.is_empty() || out.ends_with(&[0]),
            "the last path is not ended by NUL"
        );
        let paths = out.split(|b| *b == 0).filter(|p| !p.is_empty());
        paths.map(|p| OsString::from_vec(p.to_vec()).into()).collect()
    }

    /// What `explain PATH --output json` prints.
    pub fn explain(&self, path: &Path) -> Value {
        let words = [
            OsStr::new("explain"),
            path.as_os_str(),
            "--output".as_ref(),
            "json".as_ref(),
        ];
        self.run(words).ok().json()
    }

    /// Holds a path and returns the hold's name.
    pub fn hold(&self, path: &Path, more: &[&str]) -> String {
        let mut words = vec![OsStr::new("hold"), "add".as_ref(), path.as_os_str()];
        words.extend(["--reason", "a test", "--output", "json"].map(OsStr::new));
        words.extend(more.iter().map(OsStr::new));
        text(&self.run(words).ok().json(), "hold_id").to_owned()
    }
}

impl Answer {
    /// Fails unless it went well.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    pub fn ok(self) -> Self {
        self.ends_with(0)
    }

    /// Fails unless it ended with this exit code.
    ///
    /// # Panics
    /// When it ended with another.
    #[must_use]
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "exit code of `{}`\nstdout: {}\nstderr: {}",
            self.asked,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// The one JSON document on stdout.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("`{}` printed no JSON ({e}): {}", self.asked, self.text()))
    }

    /// The JSON documents on stdout, one a line.
    ///
    /// # Panics
    /// When a line is none.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines
            .map(|l| serde_json::from_slice(l).unwrap_or_else(|e| panic!("`{}`: {e}", self.asked)))
            .collect()
    }

    /// stdout and stderr, for a look at the words.
    pub fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.stdout), self.stderr)
    }
}

/// A number at a JSON pointer.
///
/// # Panics
/// When there is none.
pub fn number(json: &Value, pointer: &str) -> u64 {
    let found = json.pointer(pointer).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number at {pointer} in {json}"))
}

/// A string field.
///
/// # Panics
/// When there is none.
pub fn text<'a>(json: &'a Value, field: &str) -> &'a str {
    let found = json.get(field).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text at {field} in {json}"))
}

/// The path of a JSON object, from its raw bytes where it is no UTF-8.
///
/// # Panics
/// When there is none.
pub fn path_of(json: &Value) -> PathBuf {
    match json.get("path_bytes").and_then(Value::as_str) {
        Some(raw) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(raw);
            OsString::from_vec(bytes.expect("base64 in path_bytes")).into()
        }
        None => text(json, "path").into(),
    }
}

/// Every candidate of a plan in exactly one of deleted, trashed, skipped, failed: how many each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Files and directories removed.
    pub deleted: u64,
    /// Files and directories moved to the trash.
    pub trashed: u64,
    /// Left alone, for any reason.
    pub skipped: u64,
    /// The kernel refused.
    pub failed: u64,
}

/// Counts what `apply --output json` printed, and checks it against the plan's candidates.
///
/// # Panics
/// When it does not add up.
pub fn tally(plan: &Plan, run: &Value) -> Tally {
    let entries = |json: &Value, what: &str| {
        let kinds = ["files", "directories", "links"].iter();
        kinds
            .map(|kind| {
                json.pointer(&format!("/{what}/{kind}"))
                    .and_then(Value::as_u64)
                    .unwrap_or(0)
            })
            .sum::<u64>()
    };
    let skipped = run.get("skipped").and_then(Value::as_object).expect("`skipped`");
    let tally = Tally {
        deleted: entries(run, "deleted"),
        trashed: entries(run, "trashed"),
        skipped: skipped.values().filter_map(Value::as_u64).sum(),
        failed: number(run, "/failed_total"),
    };
    let candidates = entries(&plan.json, "candidates");
    assert_eq!(
        tally.deleted + tally.trashed + tally.skipped + tally.failed,
        candidates,
        "every candidate is counted exactly once: {run}"
    );
    assert_eq!(text(run, "plan_id"), plan.id);
    tally
}
