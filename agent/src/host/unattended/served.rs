//! Until when each rule's schedule was served: it lies in `STATE_DIR/schedules`, a line for each rule, and tells the next process what came
//! due while no agent ran. A damaged line counts as missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use purge_policy::rule::Rule;
use purge_sys::private;

/// A clock that was set back by more than this was wrong before: what it had served says nothing.
const BELIEVED_AHEAD: i64 = 86_400;

/// Up to when a schedule's times are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Up to here they came due.
    looked: i64,
    /// Up to here their turns are over.
    served: i64,
    /// An earlier process left it.
    left: bool,
}

/// Until when each rule's schedule was served.
#[derive(Debug)]
pub(super) struct Served {
    path: PathBuf,
    marks: Mutex<BTreeMap<String, Mark>>,
}

impl Served {
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("schedules");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Self {
            path,
            marks: Mutex::new(parse(&text)),
        }
    }

    /// Whether a rule has come due by now. What came due meanwhile is due once, however often it did. A process that has just begun catches
    /// up what a rule wants caught up, and nothing else.
    pub(super) fn comes_due(&self, rule: &Rule, (began, now): (i64, i64)) -> bool {
        let Some(schedule) = &rule.schedule else {
            return false;
        };
        let mut marks = self.marks.lock();
        let is_new = !marks.contains_key(&key(rule));
        let mark = marks.entry(key(rule)).or_insert(Mark {
            looked: now,
            served: now,
            left: false,
        });
        if mark.looked > now.saturating_add(BELIEVED_AHEAD) {
            (mark.looked, mark.served) = (now, now);
        }
        if std::mem::take(&mut mark.left) && !rule.catches_up {
            mark.looked = mark.looked.max(began.min(now));
        }
        // Set back by less, the clock shows again what was served.
        let is_due = schedule.next_after(mark.looked).is_some_and(|due| due <= now);
        if is_due {
            mark.looked = now;
        }
        drop(marks);
        if is_new {
            self.save();
        }
        is_due
    }

    /// The turn of a rule is over.
    pub(super) fn end_turn(&self, rule: &Rule, began: i64) {
        if let Some(mark) = self.marks.lock().get_mut(&key(rule)) {
            mark.served = mark.served.max(began.min(mark.looked));
        }
        self.save();
    }

    fn save(&self) {
        let lines = self
            .marks
            .lock()
            .iter()
            .fold(String::new(), |mut all, (key, mark)| {
                all.push_str(&format!("{} {key}\n", mark.served));
                all
            });
        let beside = self.path.with_extension("new");
        let written = private::write(&beside, lines.as_bytes());
        if let Err(error) = written.and_then(|()| std::fs::rename(&beside, &self.path)) {
            tracing::warn!(%error, path = %private::shown(&self.path).display(), "until when schedules were served cannot be saved");
        }
    }
}

/// Another schedule of a rule of this name has served nothing yet.
fn key(rule: &Rule) -> String {
    let schedule = rule.schedule.as_ref().map_or("", |s| s.text());
    format!("{} {schedule}", rule.name)
}

fn parse(text: &str) -> BTreeMap<String, Mark> {
    let line = |line: &str| {
        let (at, key) = line.split_once(' ')?;
        let at = at.parse().ok()?;
        Some((
            key.to_owned(),
            Mark {
                looked: at,
                served: at,
                left: true,
            },
        ))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_policy::schedule::Schedule;

    const HOUR: i64 = 3600;
    const NOON: i64 = 500_000 * HOUR;

    fn hourly(catches_up: bool) -> Rule {
        Rule {
            name: "r".into(),
            schedule: Some(Schedule::parse("hourly").unwrap()),
            catches_up,
            ..Rule::everything_older("v", 1)
        }
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_due_twice_and_stops_no_schedule() {
        let tmp = tempfile::tempdir().unwrap();
        let served = Served::load(tmp.path());
        let rule = hourly(false);
        let look = |at: i64| served.comes_due(&rule, (NOON + 60, at));
        assert!(!look(NOON + 60));
        assert!(look(NOON + HOUR + 3));
        assert!(!look(NOON + HOUR + 8));
        // Back by half an hour: the same hour again.
        assert!(!look(NOON + HOUR - 1800));
        assert!(!look(NOON + HOUR + 5));
        // Ahead by three: once.
        assert!(look(NOON + 4 * HOUR + 600));
        assert!(!look(NOON + 4 * HOUR + 605));
        // A clock that was wrong by years.
        assert!(look(NOON + 50_000 * HOUR));
        assert!(!look(NOON + 5 * HOUR - 5));
        assert!(look(NOON + 5 * HOUR));
    }

    #[test]
    fn what_came_due_while_no_agent_ran_is_caught_up_once_where_it_is_wanted() {
        for wanted in [true, false] {
            let tmp = tempfile::tempdir().unwrap();
            let rule = hourly(wanted);
            let first = Served::load(tmp.path());
            assert!(!first.comes_due(&rule, (NOON + 60, NOON + 60)));
            assert!(first.comes_due(&rule, (NOON + 60, NOON + HOUR)));
            first.end_turn(&rule, NOON + HOUR);
            let second = Served::load(tmp.path());
            let now = NOON + 10 * HOUR + 60;
            assert_eq!(second.comes_due(&rule, (now, now)), wanted);
            assert!(!second.comes_due(&rule, (now, now + 5)));
            // It came due, and the agent ended before its turn was over.
            let third = Served::load(tmp.path());
            assert_eq!(third.comes_due(&rule, (now + 9, now + 9)), wanted);
        }
    }
}
