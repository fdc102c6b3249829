//! The audit log: one JSON line for each thing that was deleted, trashed, restored, freed, or left alone, with who asked.
//!
//! It is root's alone (0600) and only appended to, by one `write(2)` for a batch. Rotate it with the usual tools: after SIGHUP the file is opened
//! again: a regular file in a directory that only root can change ([`trusted`]), never what a link leads to. What cannot be written stops
//! the run: nothing goes without a trace.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use parking_lot::RwLock;
use purge_proto::shown;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::candidate::Candidate;
use super::plans::RuleShare;
use crate::copying::Copy;
use crate::fate::Code;
use purge_model::{Kind, LastUse, Seconds, Source};
use purge_sys::private;
use purge_sys::trusted;

/// No line is longer.
const LINE_MAX: u64 = 64 << 10;
/// A path that takes more than this in JSON is cut: a path of the kernel's calls has 4 KiB, and users make longer ones, of characters
/// that take six bytes each.
const PATH_WRITTEN_MAX: usize = 4352;
/// As many bytes are left of it.
const CUT_TO: usize = 600;
/// An error may name paths as well.
const REASON_MAX: usize = 1000;
/// Lines are written when they have this many bytes.
const MANY_BYTES: usize = 64 << 10;

/// The mode of the file where the agent makes it, regardless of the umask: the log names the files of all users.
const MODE: u32 = 0o600;

/// The file.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: RwLock<File>,
}

impl Audit {
    /// Opens the file for appending.
    ///
    /// # Errors
    /// What `open(2)` says, with the path.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = RwLock::new(append_to(&path)?);
        Ok(Self { path, file })
    }

    /// Opens the file again: it may have been renamed. If it cannot be opened, the agent goes on writing to the old one.
    pub fn reopen(&self) {
        match append_to(&self.path) {
            Ok(file) => *self.file.write() = file,
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be opened again; the old one is written on")
            }
        }
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes lines.
    ///
    /// # Errors
    /// What `write(2)` says, with the path.
    pub fn write(&self, lines: &Lines) -> io::Result<()> {
        if lines.0.is_empty() {
            return Ok(());
        }
        let written = (&*self.file.read()).write_all(&lines.0);
        written.map_err(|e| io::Error::new(e.kind(), format!("audit log {}: {e}", self.path.display())))
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let opened = trusted::append(path, MODE).map_err(io::Error::from);
    let opened = opened.and_then(|file| {
        private::close_file(&file, path)?;
        end_torn_line(&file)?;
        Ok(file)
    });
    opened.map_err(|e| io::Error::new(e.kind(), format!("audit log {}: {e}", path.display())))
}

/// A process that is killed while it writes may leave half a line. The line was written again when the run was closed.
fn end_torn_line(mut file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let begin = length.saturating_sub(LINE_MAX);
    let mut end = vec![0; usize::try_from(length - begin).unwrap_or(0)];
    file.read_exact_at(&mut end, begin)?;
    let torn = end.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    if torn == 0 {
        return Ok(());
    }
    // A file that may only be appended to (`chattr +a`) keeps the half.
    file.set_len(length.saturating_sub(torn))
        .or_else(|_| file.write_all(b"\n"))
}

/// What happened to something.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// "deleted", "trashed", "skipped", "failed", "restored".
    pub event: &'a str,
    /// Why it was left alone: a counter's name, or an error.
    pub reason: &'a str,
    /// Absolute path.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Bytes that went with it.
    pub bytes: u64,
    /// Owner.
    pub uid: u32,
    /// Last use as the rule saw it.
    pub last: Option<LastUse>,
    /// The rule, quota or watermark.
    pub rule: &'a str,
}

/// What all lines of a run have in common.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Volume.
    pub volume: String,
    /// Its root.
    pub root: PathBuf,
    /// Plan.
    pub plan: String,
    /// Run.
    pub run: String,
    /// Who asked.
    pub by: String,
}

/// Lines to be written together.
#[derive(Debug, Default)]
pub struct Lines(Vec<u8>);

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    event: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    /// Of a path that is cut: how long all of it is, and what `printf %s PATH | sha256sum` says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_sha256: Option<String>,
    kind: &'a str,
    bytes: u64,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_access: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    rule: &'a str,
    volume: &'a str,
    plan_id: &'a str,
    run_id: &'a str,
    by: &'a str,
    /// Of a copy: the store's key, and the hash of its content.
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    sha256: String,
}

impl Lines {
    /// Adds a line. `time` comes from [`rfc3339`], once for a batch.
    pub fn add(&mut self, time: &str, heading: &Heading, event: &Event<'_>) {
        self.push((time, heading), event, None);
    }

    /// Adds that a candidate is copied.
    pub fn add_copy(
        &mut self,
        time: &str,
        (heading, rules): (&Heading, &[RuleShare]),
        candidate: &Candidate,
        copy: &Copy,
    ) {
        let path = candidate.path_below(&heading.root);
        let event = event_of(rules, candidate, ("archived", ""), &path);
        self.push((time, heading), &event, Some(copy));
    }

    fn push(&mut self, (time, heading): (&str, &Heading), event: &Event<'_>, copy: Option<&Copy>) {
        let whole = String::from_utf8_lossy(event.path);
        let is_cut = is_too_long(&whole);
        let cut = shown::cut(event.path, CUT_TO);
        let path = if is_cut {
            String::from_utf8_lossy(&cut)
        } else {
            whole
        };
        let is_other = !is_cut && matches!(path, Cow::Owned(_));
        let reason = shown::cut(event.reason.as_bytes(), REASON_MAX);
        let line = Line {
            time,
            event: event.event,
            reason: &String::from_utf8_lossy(&reason),
            path_bytes: is_other.then(|| base64::engine::general_purpose::STANDARD.encode(event.path)),
            path_length: is_cut.then_some(event.path.len()),
            path_sha256: is_cut.then(|| in_hex(&Sha256::digest(event.path))),
            path: &path,
            kind: kind_name(event.kind),
            bytes: event.bytes,
            uid: event.uid,
            last_access: event.last.map(|l| rfc3339(l.at)),
            source: event.last.map(|l| source_name(l.source)),
            rule: event.rule,
            volume: &heading.volume,
            plan_id: &heading.plan,
            run_id: &heading.run,
            by: &heading.by,
            key: copy.map_or("", |copy| &copy.key),
            sha256: copy.map_or_else(String::new, |copy| in_hex(&copy.sha256)),
        };
        // Strings and numbers always become JSON.
        if let Ok(line) = serde_json::to_string(&line) {
            self.0.extend_from_slice(shown::json(&line).as_bytes());
            self.0.push(b'\n');
        }
    }

    /// Whether it is time to write them.
    pub fn are_many(&self) -> bool {
        self.0.len() >= MANY_BYTES
    }

    /// Adds what became of a candidate: its fate, and the error if it failed.
    pub fn add_fate(
        &mut self,
        time: &str,
        (heading, rules): (&Heading, &[RuleShare]),
        candidate: &Candidate,
        (code, error): (Code, &str),
    ) {
        let (event, reason) = match code {
            Code::Deleted => ("deleted", ""),
            Code::Trashed => ("trashed", ""),
            Code::Skipped(why) => ("skipped", why.name()),
            Code::Failed => ("failed", error),
        };
        let path = candidate.path_below(&heading.root);
        self.add(time, heading, &event_of(rules, candidate, (event, reason), &path));
    }
}

/// What a line says of a candidate.
fn event_of<'a>(
    rules: &'a [RuleShare],
    candidate: &Candidate,
    (event, reason): (&'a str, &'a str),
    path: &'a [u8],
) -> Event<'a> {
    let rule = rules.get(usize::from(candidate.rule));
    Event {
        event,
        reason,
        path,
        kind: candidate.kind(),
        bytes: candidate.size,
        uid: candidate.uid,
        last: Some(candidate.last),
        rule: rule.map_or("", |rule| rule.name.as_str()),
    }
}

fn is_too_long(path: &str) -> bool {
    let written = |c: char| match c {
        '"' | '\\' => 2,
        c if shown::is_hostile(c) => 6 * c.len_utf16(),
        c => c.len_utf8(),
    };
    // No byte is written as more than six.
    if path.len() <= PATH_WRITTEN_MAX / 6 {
        return false;
    }
    let mut room = PATH_WRITTEN_MAX;
    path.chars().any(|c| match room.checked_sub(written(c)) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    })
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A moment, UTC.
pub fn rfc3339(at: Seconds) -> String {
    chrono::DateTime::<chrono::Utc>::from_timestamp(at.unix(), 0)
        .map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
        .unwrap_or_default()
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::Special => "special",
    }
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Baseline => "baseline",
        Source::Observed => "observed",
        Source::Atime => "atime",
        Source::Mtime => "mtime",
        Source::Ctime => "ctime",
        Source::Birth => "birth",
        Source::Gap => "gap",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_json_with_any_path_and_go_to_the_new_file_after_rotation() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        let heading = Heading {
            volume: "v".into(),
            root: "/v".into(),
            plan: "p1".into(),
            run: "r1".into(),
            by: "uid 0".into(),
        };
        let event = |path| Event {
            event: "deleted",
            reason: "",
            path,
            kind: Kind::File,
            bytes: 3,
            uid: 7,
            last: Some(LastUse {
                at: Seconds::from_unix(86400),
                source: Source::Observed,
            }),
            rule: "old",
        };
        let mut lines = Lines::default();
        lines.add("1970-01-02T00:00:00Z", &heading, &event(b"/v/a\n\"b"));
        lines.add("1970-01-02T00:00:00Z", &heading, &event(b"/v/\xff"));
        audit.write(&lines).unwrap();
        std::fs::rename(&path, tmp.path().join("old")).unwrap();
        audit.write(&lines).unwrap();
        audit.reopen();
        audit.write(&lines).unwrap();
        let read = |name: &str| -> Vec<serde_json::Value> {
            let text = std::fs::read_to_string(tmp.path().join(name)).unwrap();
            text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
        };
        assert_eq!((read("old").len(), read("audit.jsonl").len()), (4, 2));
        std::fs::write(tmp.path().join("torn.jsonl"), "{\"half").unwrap();
        Audit::open(tmp.path().join("torn.jsonl"))
            .unwrap()
            .write(&lines)
            .unwrap();
        let torn = std::fs::read_to_string(tmp.path().join("torn.jsonl")).unwrap();
        assert_eq!((torn.lines().count(), torn.contains("half")), (2, false));
        let first = &read("old")[0];
        assert_eq!(first["path"], "/v/a\n\"b");
        assert_eq!(first["last_access"], "1970-01-02T00:00:00Z");
        assert!(first.get("path_bytes").is_none());
        assert_eq!(read("old")[1]["path_bytes"], "L3Yv/w==");
    }

    #[test]
    fn a_line_has_a_bound_however_users_name_their_files() {
        let heading = Heading {
            volume: "v".into(),
            root: "/v".into(),
            plan: "p1".into(),
            run: "r1".into(),
            by: "uid 0".into(),
        };
        let line = |path: &[u8]| -> (usize, serde_json::Value) {
            let mut lines = Lines::default();
            let event = Event {
                event: "failed",
                reason: &"x".repeat(40_000),
                path,
                kind: Kind::File,
                bytes: 3,
                uid: 7,
                last: None,
                rule: "old",
            };
            lines.add("1970-01-02T00:00:00Z", &heading, &event);
            (lines.0.len(), serde_json::from_slice(&lines.0).unwrap())
        };
        for hostile in [
            &b"\x01"[..],
            b"\xff",
            "\u{202e}".as_bytes(),
            "\u{e0001}".as_bytes(),
            b"a",
        ] {
            let (length, told) = line(&hostile.repeat(32_000 / hostile.len()));
            assert!(length < 8000, "{length}");
            assert!(told["path"].as_str().unwrap().contains("bytes]..."));
            assert_eq!(told["path_sha256"].as_str().unwrap().len(), 64);
        }
        // What the kernel takes as a path is told whole.
        let (_, told) = line(&b"a".repeat(4095));
        assert_eq!(told["path"].as_str().unwrap().len(), 4095);
    }
}
