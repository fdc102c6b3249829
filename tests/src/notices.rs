//! A tree with something to tell each audience, and what was told.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::text;
use crate::files::{now, set_times};
use crate::{Config, Ctl, Mount};

const HOUR: i64 = 3600;
/// The uid of an owner with files that have expired and some that soon will.
pub const ALICE: u32 = 54_321;
/// Of one with expired files.
pub const BOB: u32 = 54_322;
/// Of one whose files lie where a rule only tells.
pub const CAROL: u32 = 54_323;
/// Several waits after failures are in it.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A file of `bytes` bytes, owned by `uid` and last used `hours` ago.
pub fn put(path: PathBuf, bytes: usize, uid: u32, hours: i64) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![7; bytes]).unwrap();
    chown(&path, Some(uid), Some(uid)).unwrap();
    set_times(&path, now() - hours * HOUR);
    path
}

/// What lies on the volume when the agent starts.
pub struct Tree {
    /// Where.
    pub root: PathBuf,
}

impl Tree {
    /// Alice's and Bob's files have expired, some of Alice's soon will, and Carol's lie where a rule only tells. One of Bob's cannot be opened:
    /// its run fails in part.
    pub fn make(mount: &mut Mount) -> Self {
        let root = mount.path();
        for i in 0..5 {
            put(root.join(format!("alice/old{i}")), 100, ALICE, 100);
        }
        for i in 0..3 {
            put(root.join(format!("alice/soon{i}")), 1000, ALICE, 2);
        }
        put(root.join("bob/old"), 50, BOB, 100);
        put(root.join("idle/carol"), 70, CAROL, 100 * 24);
        put(root.join("big.keep"), 3_000_000, 0, 1);
        let stuck = put(root.join("bob/stuck"), 50, BOB, 100);
        fs::set_permissions(&stuck, fs::Permissions::from_mode(0o660)).unwrap();
        mount.spoil(&[stuck]);
        Self { root }
    }

    /// Rules, a quota and a watermark under which something is to be told of all of them.
    pub fn config(&self, notify: &str) -> Config {
        self.config_with("", notify)
    }

    /// With further lines of the volume.
    pub fn config_with(&self, volume: &str, notify: &str) -> Config {
        Config::new(&self.root, &format!("baseline = \"mtime\"\n{volume}"))
            .rule(
                "old",
                "ttl = \"24h\"\nclock = [\"access\"]\nexclude = [\"*.keep\", \"idle/**\"]\nmax_errors = 1.0\nmax_fraction = 1.0",
            )
            .rule(
                "idle",
                "ttl = \"30d\"\nclock = [\"access\"]\ninclude = [\"idle/**\"]\naction = \"notify\"",
            )
            .table("quota", "name = \"user\"\nsubject = \"user\"\nhard = \"3200B\"\nrule = \"old\"")
            .table(
                "watermark",
                "rule = \"old\"\nhigh = \"2%\"\nlow = \"1%\"\nmin_age = \"3650d\"",
            )
            .notifying(notify)
    }
}

/// What `purgectl notices` lists.
///
/// # Panics
/// When it does not.
pub fn notices(ctl: &Ctl, more: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["notices", "--output", "json"];
    arguments.extend(more);
    let all = ctl.run(arguments).ok().json();
    all.as_array().expect("a list of notices").clone()
}

/// The events of a notice.
///
/// # Panics
/// When it has none.
pub fn events(notice: &Value) -> Vec<Value> {
    notice
        .get("events")
        .and_then(Value::as_array)
        .expect("events")
        .clone()
}

/// `EVENT AUDIENCE`, of each event.
pub fn told<'a>(notices: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for notice in notices {
        let to = notice.get("to").expect("an audience");
        let to = to.get("user").map_or("operator", |u| u.as_str().unwrap());
        all.extend(
            events(notice)
                .iter()
                .map(|e| format!("{} {to}", text(e, "event"))),
        );
    }
    all
}

/// What is told of a [`Tree`] before anything is removed.
pub const AT_FIRST: [&str; 4] = [
    "expired 54323",
    "over-quota 54321",
    "watermark-reached operator",
    "will-expire 54321",
];
/// And of the run.
pub const OF_THE_RUN: [&str; 4] = [
    "back-under 54321",
    "purged 54321",
    "purged 54322",
    "run-failed operator",
];

/// Waits until each of these lies in the outbox, sent or not.
///
/// # Panics
/// When one does not in time: with those that are missing, and what lies there.
pub fn until_told(ctl: &Ctl, expected: &[&str]) {
    wait(|| {
        let there = told(&notices(ctl, &[]));
        let missing: Vec<&&str> = expected.iter().filter(|e| !there.contains(**e)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "no sink was told of {missing:?}; the outbox has {there:?}"
            )),
        }
    });
}

/// Waits until nothing waits any more, but of these events.
///
/// # Panics
/// When something does: with what it is, and what the agent says of it.
pub fn until_nothing_waits(ctl: &Ctl, but: &[&str]) {
    wait(|| {
        let waiting = notices(ctl, &["--state", "waiting"]);
        let left: Vec<String> = waiting
            .iter()
            .filter(|n| told([*n]).iter().any(|w| !but.contains(&w.as_str())))
            .map(|n| format!("{:?}: {}", told([n]), n.get("error").unwrap_or(&Value::Null)))
            .collect();
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("still waiting: {left:#?}")),
        }
    });
}

/// Asks until all is well, and says at the end why it is not.
fn wait(mut ask: impl FnMut() -> Result<(), String>) {
    let began = Instant::now();
    while let Err(why) = ask() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {why}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// No notice and no event twice, and all of those expected.
pub fn assert_each_once(taken: &[Value], expected: &[&str]) {
    let mut notices = BTreeSet::new();
    let mut all = BTreeSet::new();
    for notice in taken {
        let id = text(notice, "notice_id");
        assert!(notices.insert(id.to_owned()), "notice {id} came twice");
        for event in events(notice) {
            let id = text(&event, "event_id").to_owned();
            assert!(all.insert(id.clone()), "event {id} came twice");
        }
    }
    let told = told(taken);
    for event in expected {
        assert!(told.contains(*event), "{event:?} is missing in {told:?}");
    }
}
