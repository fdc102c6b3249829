//! Rules whose time has come: those that apply themselves run one after another on a volume, and none is dropped.
//!
//! ```text
//! due      its time has come, and nothing has looked at it yet
//! waiting  something else runs on its volume, or the volume is in doubt; it is tried again until it can run
//! running  its plan is made, or its run goes on
//! ```
//!
//! A rule that comes due again while it waits has that time with the first one: one run serves both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::Unattended;
use crate::host::{HostError, Manner, Wanted};
use crate::volume::{State, Volume};
use purge_base::clock;
use purge_model::Seconds;
use purge_policy::rule::Rule;
use purge_removal::plans::By;

/// How often a run is looked at whose end is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far a rule is whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its time has come, and nothing has looked at it yet.
    Due,
    /// It is tried again until it can run.
    Waiting,
    /// Its plan is made, or its run goes on.
    Running,
}

impl Stage {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Waiting => "waiting",
            Self::Running => "running",
        }
    }
}

/// A rule whose time has come.
#[derive(Debug, Clone)]
struct Entry {
    lane: String,
    rule: String,
    volume: String,
    stage: Stage,
    since: Seconds,
    /// Why it waits was told.
    told: bool,
}

/// In the order in which they came due. Pure.
#[derive(Debug, Default)]
struct Queue(Vec<Entry>);

impl Queue {
    /// False: it waits already, and is served with that.
    fn come_due(&mut self, rule: &Rule, since: Seconds) -> bool {
        let waits = |e: &Entry| e.rule == rule.name && e.stage != Stage::Running;
        if self.0.iter().any(waits) {
            return false;
        }
        self.0.push(Entry {
            lane: lane(rule),
            rule: rule.name.clone(),
            volume: rule.volume.clone(),
            stage: Stage::Due,
            since,
            told: false,
        });
        true
    }

    /// The next one of a lane, which runs from now on; none while another of the lane runs.
    fn next(&mut self, lane: &str) -> Option<String> {
        let mut mine = self.0.iter_mut().filter(|e| e.lane == lane);
        let first = mine.next().filter(|e| e.stage != Stage::Running)?;
        first.stage = Stage::Running;
        let rule = first.rule.clone();
        for other in mine {
            other.stage = Stage::Waiting;
        }
        Some(rule)
    }

    /// It could not run, and keeps its place. Whether that is to be told.
    fn put_off(&mut self, rule: &str) -> bool {
        // It came due again meanwhile: that time is served with this one.
        self.0.retain(|e| e.rule != rule || e.stage == Stage::Running);
        let running = |e: &&mut Entry| e.rule == rule && e.stage == Stage::Running;
        self.0.iter_mut().find(running).is_some_and(|entry| {
            entry.stage = Stage::Waiting;
            !std::mem::replace(&mut entry.told, true)
        })
    }

    fn done(&mut self, rule: &str) {
        self.0.retain(|e| e.rule != rule || e.stage != Stage::Running);
    }

    fn lanes(&self) -> BTreeSet<String> {
        self.0.iter().map(|e| e.lane.clone()).collect()
    }
}

/// What takes turns: rules that apply themselves on one volume. A rule that only plans waits for no other.
fn lane(rule: &Rule) -> String {
    match rule.auto_apply && rule.action.is_applied() {
        true => rule.volume.clone(),
        false => format!("{}/{}", rule.volume, rule.name),
    }
}

/// Rules whose time has come.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    queue: Mutex<Queue>,
    /// Lanes that a thread works on.
    busy: Mutex<BTreeSet<String>>,
    /// The agent ends: nothing begins any more.
    closed: AtomicBool,
}

/// A rule whose time has come, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedule {
    /// The rule's name.
    pub rule: String,
    /// The volume's name.
    pub volume: String,
    /// How far it is.
    pub stage: Stage,
    /// When it came due.
    pub since: Seconds,
    /// When it comes due again.
    pub next: Option<Seconds>,
}

/// What became of a rule whose time had come.
enum Turn {
    Done,
    /// It cannot run now, for this reason. True: the operator should know.
    PutOff(String, bool),
}

impl Unattended {
    /// Looks whether the time of a rule has come, in a process that has looked since `began`. It runs as soon as it can.
    pub fn look_at_schedule(&self, rule: &Rule, (began, now): (i64, i64)) {
        if !self.served.comes_due(rule, (began, now)) {
            return;
        }
        if !self.schedules.queue.lock().come_due(rule, clock::now()) {
            tracing::info!(rule = %rule.name, volume = %rule.volume, "due again while it waits: one run serves both");
        }
    }

    /// Lets everything run that is due and can run.
    pub fn run_due(self: &Arc<Self>) {
        let lanes = self.schedules.queue.lock().lanes();
        for lane in lanes {
            if !self.schedules.busy.lock().insert(lane.clone()) {
                continue;
            }
            let working = Arc::clone(self);
            let name = lane.clone();
            let spawned = std::thread::Builder::new()
                .name("schedule".into())
                .spawn(move || {
                    working.work_off(&lane);
                    working.schedules.busy.lock().remove(&lane);
                });
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start a thread for what is due: it is tried again");
                self.schedules.busy.lock().remove(&name);
            }
        }
    }

    fn work_off(&self, lane: &str) {
        while !self.schedules.closed.load(Relaxed) {
            let Some(name) = self.schedules.queue.lock().next(lane) else {
                return;
            };
            let rule = self.ground.rules().into_iter().find(|r| r.name == name);
            let began = clock::wall().unix();
            let turn = rule.as_ref().map_or(Turn::Done, |rule| self.take_turn(rule));
            if let (Turn::Done, Some(rule), false) = (&turn, &rule, self.schedules.closed.load(Relaxed)) {
                self.served.end_turn(rule, began);
            }
            let mut queue = self.schedules.queue.lock();
            match turn {
                Turn::Done => queue.done(&name),
                Turn::PutOff(why, matters) => {
                    let is_news = queue.put_off(&name);
                    drop(queue);
                    if let Some(rule) = rule.filter(|_| is_news) {
                        self.tell_of_wait(&rule, why, matters);
                    }
                    return;
                }
            }
        }
    }

    fn tell_of_wait(&self, rule: &Rule, why: String, matters: bool) {
        let (name, volume) = (&rule.name, &rule.volume);
        if !matters {
            tracing::info!(rule = %name, %volume, why, "due, and waits");
            return;
        }
        tracing::error!(rule = %name, %volume, why, "due, and waits until its volume is well");
        let by = format!("rule {name}");
        self.notices
            .tell_of_failure(volume, &by, &HostError::Refused(why));
    }

    /// Makes (and with `auto_apply` applies) the plan of one rule whose time has come, and waits for the end of the run.
    fn take_turn(&self, rule: &Rule) -> Turn {
        if let Some(wait) = self.must_wait(rule) {
            return wait;
        }
        let wanted = Wanted {
            rules: vec![rule.name.clone()],
            volume: rule.volume.clone(),
            ttl: None,
            unattended: rule.auto_apply,
            candidates_max: None,
            ..Wanted::default()
        };
        let by = format!("rule {}", rule.name);
        let done = self.planner.create_plan(&wanted, By::agent(&by)).and_then(|plan| {
            tracing::info!(rule = %rule.name, volume = %rule.volume, plan = %plan.id, candidates = %plan.totals, "scheduled plan");
            if !rule.action.is_applied() {
                self.notices.ask_for(&rule.name);
            }
            if rule.auto_apply && rule.action.is_applied() {
                let (run, _) = self.applier.apply(&plan.id, Manner::default(), "schedule")?;
                self.await_end(&run);
            }
            Ok(())
        });
        let Err(error) = done else {
            return Turn::Done;
        };
        // Another run, or a trouble of the volume, may have come in between.
        if let Some(wait) = self.must_wait(rule) {
            return wait;
        }
        tracing::error!(rule = %rule.name, volume = %rule.volume, %error, "the scheduled plan was not made or not applied");
        self.notices.tell_of_failure(&rule.volume, &by, &error);
        Turn::Done
    }

    /// Why a rule cannot run now, though it will be able to.
    fn must_wait(&self, rule: &Rule) -> Option<Turn> {
        let volume = match self.ground.volume(&rule.volume) {
            Ok(volume) => volume,
            Err(error) => return Some(Turn::PutOff(error.to_string(), true)),
        };
        if rule.auto_apply && rule.action.is_applied() && self.runs.is_live_on(&rule.volume) {
            let why = format!("another run is going on on volume {}", rule.volume);
            return Some(Turn::PutOff(why, false));
        }
        let matters = |volume: &Volume| !matches!(volume.condition().state, State::Scanning);
        let doubt = self.judge.check_certain(&volume).err()?;
        Some(Turn::PutOff(doubt.to_string(), matters(&volume)))
    }

    fn await_end(&self, run: &str) {
        while self.runs.live(run).is_some() && !self.schedules.closed.load(Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until no run goes on on a volume. False: the agent ends.
    pub fn await_quiet(&self, volume: &str) -> bool {
        while self.runs.is_live_on(volume) {
            if self.schedules.closed.load(Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        !self.schedules.closed.load(Relaxed)
    }

    /// The agent ends: no run begins by itself any more, and those that go on are asked to stop.
    pub fn begin_nothing(&self) {
        self.schedules.closed.store(true, Relaxed);
        self.runs.cancel_all();
    }

    /// Rules whose time has come, and when it comes again.
    pub fn schedules(&self) -> Vec<DueSchedule> {
        let queue: Vec<Entry> = self.schedules.queue.lock().0.clone();
        let (rules, now) = (self.ground.rules(), clock::wall().unix());
        let shown = queue.into_iter().map(|entry| {
            let rule = rules.iter().find(|r| r.name == entry.rule);
            let next = rule.and_then(|r| r.schedule.as_ref()?.next_after(now));
            DueSchedule {
                rule: entry.rule,
                volume: entry.volume,
                stage: entry.stage,
                since: entry.since,
                next: next.map(Seconds::from_unix),
            }
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(name: &str, volume: &str, auto_apply: bool) -> Rule {
        Rule {
            name: name.into(),
            auto_apply,
            ..Rule::everything_older(volume, 1)
        }
    }

    fn stages(queue: &Queue) -> Vec<(&str, &str)> {
        let all = queue.0.iter();
        all.map(|e| (e.rule.as_str(), e.stage.name())).collect()
    }

    #[test]
    fn rules_of_one_volume_take_turns_and_none_is_dropped() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            assert!(queue.come_due(&rule(name, "v", true), Seconds(1)));
        }
        assert!(queue.come_due(&rule("other", "w", true), Seconds(1)));
        assert!(queue.come_due(&rule("plans", "v", false), Seconds(1)));
        assert_eq!(queue.lanes().len(), 3);
        assert_eq!(queue.next("v").unwrap(), "a");
        assert_eq!(queue.next("v"), None, "one at a time");
        assert_eq!(queue.next("w").unwrap(), "other");
        assert_eq!(queue.next("v/plans").unwrap(), "plans");
        // What runs and comes due again has another turn, after the others; what waits has one.
        assert!(queue.come_due(&rule("a", "v", true), Seconds(2)));
        assert!(!queue.come_due(&rule("b", "v", true), Seconds(2)));
        queue.done("a");
        assert_eq!(queue.next("v").unwrap(), "b");
        assert!(queue.put_off("b"), "told once");
        assert_eq!(queue.next("v").unwrap(), "b", "it keeps its place");
        assert!(!queue.put_off("b"));
        let all = [
            ("b", "waiting"),
            ("c", "waiting"),
            ("other", "running"),
            ("plans", "running"),
            ("a", "waiting"),
        ];
        assert_eq!(stages(&queue), all);
        for name in ["b", "c", "a"] {
            assert_eq!(queue.next("v").unwrap(), name);
            queue.done(name);
        }
        assert_eq!(queue.next("v"), None);
    }
}
