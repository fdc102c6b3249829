//! What needs an operator's attention, and what happens next by itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purge_proto::units::{format_count, format_size};

use crate::host::asker::{namer, projects_of};
use crate::host::judge::Judge;
use crate::host::{Ground, HostError};
use purge_base::clock;
use purge_model::{Seconds, Totals};
use purge_notify::notice::Fate;
use purge_notify::sender::Notifier;
use purge_policy::allowance::Quota;
use purge_policy::quota::{self, Over};
use purge_removal::plans::Plans;
use purge_removal::runs::Runs;

/// Who is over a quota is looked for this often at most, and for a hundredth of a processor's time: it costs a pass over the index.
const PASS_EVERY: Duration = Duration::from_secs(30);
const PASS_SHARE: u32 = 100;
/// What is further away than this, or longer ago, is no news.
const DAY: u64 = 86_400;
/// Users over a quota that are named.
const NAMED_MAX: usize = 5;

/// Something to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matter {
    /// The volume; empty: the whole agent.
    pub volume: String,
    /// Such as "quota", "plan", "trash", "lists", "notices".
    pub check: &'static str,
    /// What it is.
    pub what: String,
    /// What to do.
    pub cure: String,
    /// From when on.
    pub at: Option<Seconds>,
}

/// A rule whose time comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    /// The rule.
    pub rule: String,
    /// Its volume.
    pub volume: String,
    /// When.
    pub at: Seconds,
    /// Its plan is applied as well.
    pub applies: bool,
}

/// Answers what needs attention.
#[derive(Debug)]
pub struct Attention {
    ground: Arc<Ground>,
    judge: Arc<Judge>,
    plans: Plans,
    runs: Arc<Runs>,
    notifier: Arc<Notifier>,
    over: Mutex<Looked>,
}

/// Who was over a quota when that was looked for last.
#[derive(Debug, Default)]
struct Looked {
    at: Option<Instant>,
    took: Duration,
    is_looking: bool,
    found: Vec<Matter>,
}

impl Attention {
    pub(in crate::host) fn new(
        (ground, judge): (Arc<Ground>, Arc<Judge>),
        (plans, runs, notifier): (Plans, Arc<Runs>, Arc<Notifier>),
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            judge,
            plans,
            runs,
            notifier,
            over: Mutex::default(),
        })
    }

    /// All of it, most urgent first. `unpublished`: rules whose lists cannot be written, and why.
    pub fn matters(self: &Arc<Self>, unpublished: &[(String, String)]) -> Vec<Matter> {
        let mut all: Vec<Matter> = unpublished.iter().map(|l| self.list(l)).collect();
        all.extend(self.over_quota());
        all.extend(self.refused());
        all.extend(self.notices());
        all.extend(self.trash());
        all
    }

    /// When each rule's time comes next, soonest first.
    pub fn upcoming(&self) -> Vec<Upcoming> {
        let now = clock::wall().unix();
        let next = |rule: &purge_policy::rule::Rule| {
            let at = rule.schedule.as_ref()?.next_after(now)?;
            Some(Upcoming {
                rule: rule.name.clone(),
                volume: rule.volume.clone(),
                at: Seconds::from_unix(at),
                applies: rule.auto_apply && rule.action.is_applied(),
            })
        };
        let mut all: Vec<Upcoming> = self.ground.rules().iter().filter_map(next).collect();
        all.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.rule.cmp(&b.rule)));
        all
    }

    fn list(&self, (rule, why): &(String, String)) -> Matter {
        let rules = self.ground.rules();
        let volume = rules.iter().find(|r| r.name == *rule).map(|r| r.volume.clone());
        Matter {
            volume: volume.unwrap_or_default(),
            check: "lists",
            what: format!("rule {rule}: its lists cannot be published, so nothing new is announced: {why}"),
            cure: "purgectl doctor".into(),
            at: None,
        }
    }

    /// Plans of the last day that an apply would refuse, where no later plan of the same rules is better.
    fn refused(&self) -> Vec<Matter> {
        let now = clock::now();
        let mut known = BTreeSet::new();
        let mut found = Vec::new();
        for plan in self.plans.list().unwrap_or_default() {
            let is_newest = known.insert((plan.volume.clone(), plan.rule_names()));
            let Some(why) = plan.refusal.as_ref().filter(|_| is_newest && plan.run.is_none()) else {
                continue;
            };
            if plan.created.age_at(now) < DAY {
                found.push(Matter {
                    volume: plan.volume.clone(),
                    check: "plan",
                    what: format!(
                        "plan {} ({}) is refused: {why}",
                        plan.id,
                        plan.rule_names().join(", ")
                    ),
                    cure: format!("purgectl show {}", plan.id),
                    at: None,
                });
            }
        }
        found
    }

    fn notices(&self) -> Vec<Matter> {
        let now: u64 = clock::wall().0.into();
        let mut found = Vec::new();
        if let Some(until) = self.first_at() {
            found.push(Matter {
                check: "notices",
                what: "the first notices to owners wait for you, and are sent".into(),
                cure: "purgectl notices preview, then purgectl notices release".into(),
                at: Some(until),
                ..Matter::default()
            });
        }
        let failed = self
            .notifier
            .outbox
            .list(|n| n.fate == Fate::Failed && now.saturating_sub(n.ended_at) < DAY);
        let stuck = self.notifier.outbox.list(|n| !n.is_over() && n.attempts > 0);
        for (notices, words) in [(failed, "given up"), (stuck, "not accepted yet")] {
            let Some(first) = notices.first() else { continue };
            let count = format_count(notices.len() as u64);
            found.push(Matter {
                check: "notices",
                what: format!(
                    "{count} notices {words}, the last by {}: {}",
                    first.sink, first.error
                ),
                cure: "purgectl notices".into(),
                ..Matter::default()
            });
        }
        found
    }

    /// When the first notices to owners are sent, if they wait.
    fn first_at(&self) -> Option<Seconds> {
        let until = crate::host::teller::lookout::held_until(self.notifier.outbox.dir());
        let until = until.filter(|_| self.notifier.tells())?;
        Some(Seconds::from_unix(i64::try_from(until).ok()?))
    }

    /// What leaves the trash within a day.
    fn trash(&self) -> Vec<Matter> {
        let soon = clock::now().plus(DAY);
        let mut found: Vec<(String, Totals, Seconds)> = Vec::new();
        for run in self.runs.list().unwrap_or_default() {
            let left = run.left_in_trash();
            let Some(until) = run
                .trash_until
                .filter(|at| *at <= soon && left != Totals::default())
            else {
                continue;
            };
            match found.iter_mut().find(|(volume, ..)| *volume == run.volume) {
                Some((_, totals, first)) => {
                    *totals = totals.plus(left);
                    *first = (*first).min(until);
                }
                None => found.push((run.volume.clone(), left, until)),
            }
        }
        let told = found.into_iter().map(|(volume, left, until)| Matter {
            volume,
            check: "trash",
            what: format!("{} in the trash are deleted for good", in_words(left)),
            cure: "purgectl restore RUN brings them back until then".into(),
            at: Some(until),
        });
        told.collect()
    }

    fn over_quota(self: &Arc<Self>) -> Vec<Matter> {
        let mut over = self.over.lock();
        let rest = PASS_EVERY.max(over.took.saturating_mul(PASS_SHARE));
        if !over.is_looking && over.at.is_none_or(|at| at.elapsed() >= rest) {
            // No client waits for a pass over the index: the next one gets what it finds.
            let looking = Arc::clone(self);
            let thread = std::thread::Builder::new().name("over-quota".into());
            over.is_looking = thread.spawn(move || looking.look_for_quotas()).is_ok();
        }
        over.found.clone()
    }

    fn look_for_quotas(&self) {
        let began = Instant::now();
        let mut found = Vec::new();
        for quota in self.ground.limits().quotas {
            match self.users_over(&quota) {
                Ok(over) => found.extend(told_of(&quota, &over)),
                Err(error) => {
                    tracing::warn!(quota = %quota.name, volume = %quota.volume, %error, "who is over the quota cannot be found");
                }
            }
        }
        *self.over.lock() = Looked {
            at: Some(Instant::now()),
            took: began.elapsed(),
            is_looking: false,
            found,
        };
    }

    fn users_over(&self, q: &Quota) -> Result<Vec<Over>, HostError> {
        let volume = self.ground.volume(&q.volume)?;
        if self.judge.check_certain(&volume).is_err() {
            return Ok(Vec::new());
        }
        let named = projects_of(q, &volume);
        let index = volume.watched.index.read();
        Ok(quota::over(&index, (q, &named), clock::judged(), namer(q))?)
    }
}

fn told_of(q: &Quota, over: &[Over]) -> Option<Matter> {
    if over.is_empty() {
        return None;
    }
    let excess = |used: u128, limit: Option<u64>| Some(used.saturating_sub(limit?.into()));
    let mut parts: Vec<String> = over
        .iter()
        .take(NAMED_MAX)
        .map(|o| {
            let size = |bytes: u128| format_size(u64::try_from(bytes).unwrap_or(u64::MAX));
            let bytes = excess(o.used.bytes, o.hard).map(size);
            let days = excess(o.used.byte_days, o.temporal).map(|d| format!("{} days", size(d)));
            let by: Vec<String> = bytes.into_iter().chain(days).collect();
            format!("{} by {}", o.name, by.join(" and "))
        })
        .collect();
    let more = over.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        parts.push(format!("{} more", format_count(more as u64)));
    }
    Some(Matter {
        volume: q.volume.clone(),
        check: "quota",
        what: format!("over quota {}: {}", q.name, parts.join(", ")),
        cure: format!("purgectl plan --quota {}", q.name),
        at: None,
    })
}

fn in_words(t: Totals) -> String {
    let part = |n: u64, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{} {more}", format_count(n))),
    };
    let parts = [
        part(
            t.files.saturating_add(t.links).saturating_add(t.files_inside),
            "file",
            "files",
        ),
        part(t.directories, "directory", "directories"),
    ];
    let things: Vec<String> = parts.into_iter().flatten().collect();
    format!("{} ({})", things.join(" and "), format_size(t.bytes))
}
