//! Runs: a plan that is applied in the background.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{MutexGuard, RwLockReadGuard};
use rustc_hash::FxHashSet;

use super::Applier;
use super::archiving::Copiers;
use crate::host::HostError;
use crate::volume::{State, Volume};
use crate::work::Phase;
use crate::work::rules::{Amount, How};
use purge_archive::settings::Settings;
use purge_base::clock;
use purge_base::descriptors;
use purge_base::id::new_id;
use purge_collect::collector::Barrier;
use purge_model::{Inode, Kind, Seconds};
use purge_notify::tally::Tally;
use purge_policy::rule::Rule;
use purge_removal::audit::Heading;
use purge_removal::candidate::Candidate;
use purge_removal::plans::{Claim, EXPIRES_AFTER_SECONDS, Fingerprint, Plan};
use purge_removal::protection::Guard;
use purge_removal::run::apply::{self, Order, Seen, Taken};
use purge_removal::run::ending::{Stop, end, failure_of};
use purge_removal::run::ledger::{self, Ledger};
use purge_removal::runs::{LiveRun, Run, Skipped};
use purge_removal::taken::{self, Writer};

/// How a plan is applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Candidates a second; 0: unlimited.
    pub max_rate: u64,
    /// What the rules would keep in the trash is freed at once.
    pub no_grace: bool,
}

impl Applier {
    /// Applies a saved plan in the background.
    ///
    /// # Errors
    /// When the plan is unknown, stale or over a limit, or the volume is busy or in doubt.
    pub fn apply(
        self: &Arc<Self>,
        plan_id: &str,
        how: Manner,
        by: &str,
    ) -> Result<(String, Arc<LiveRun>), HostError> {
        // It stays until the run has ended, and no other run gets it.
        let mut claim = self.plans.claim(plan_id)?;
        let mut plan = self.plans.get(plan_id)?;
        let now = clock::now();
        check_unused(&plan, now)?;
        self.check_rules_unchanged(&plan)?;
        let volume = self.ground.volume(&plan.volume)?;
        self.judge.check_certain(&volume)?;
        if !is_watched_since(&volume, plan.created) {
            return Err(HostError::Refused(format!(
                "plan {plan_id} was made before a stretch in which no agent watched (`purgectl status` names it), in \
                 which its files may have been used; make a new one"
            )));
        }
        volume.use_what_is_unwatched()?;
        let stores = self.stores_of(&plan, &volume, &wanted_graces(&plan, how))?;
        let graces = graces(&plan, how, volume.guard());
        let last = graces.iter().copied().max().unwrap_or(0);
        let run = Run {
            id: new_id('r', now),
            plan: plan_id.into(),
            volume: plan.volume.clone(),
            started: now,
            by: by.into(),
            rules: rules_of(&plan),
            skipped_inside: Skipped::not_reached(plan.totals.files_inside),
            trash_until: (last > 0).then(|| now.plus(last)),
            ..Run::default()
        };
        let run_id = run.id.clone();
        let heading = Heading {
            volume: plan.volume.clone(),
            root: volume.config.path.clone(),
            plan: plan_id.into(),
            run: run_id.clone(),
            by: by.into(),
        };
        let live = self.runs.begin(run, plan.candidates())?;
        // From here on the plan is used up, also when the run fails.
        plan.run = Some(run_id.clone());
        claim.used();
        self.plans.put(&plan)?;
        let begun = Begun {
            applier: Arc::clone(self),
            volume,
            plan,
            claim,
            heading,
            graces,
            stores,
            max_rate: how.max_rate,
            live: Arc::clone(&live),
        };
        let spawned = std::thread::Builder::new()
            .name("run".into())
            .spawn(move || begun.go_on());
        spawned.map_err(|e| HostError::Refused(format!("cannot start a thread for the run: {e}")))?;
        Ok((run_id, live))
    }

    /// Why the last run of a volume failed as a whole, with its name; none: it did not.
    pub fn run_failure(&self, volume: &str) -> Option<String> {
        let last = self.runs.last_of(volume)?;
        failure_of(&last).map(|why| format!("run {} failed: {why}", last.id))
    }

    /// A plan from rules that have changed since says nothing of what the rules now want.
    fn check_rules_unchanged(&self, plan: &Plan) -> Result<(), HostError> {
        let (id, refused) = (&plan.id, |why: String| Err(HostError::Refused(why)));
        let of_older_agent = || {
            refused(format!(
                "plan {id} was made by another version of the agent, so it cannot be told whether its rules have changed since; make a new one"
            ))
        };
        if let Some(trigger) = &plan.trigger {
            return match self.ground.is_unchanged(plan) {
                _ if !plan.fingerprint.is_comparable() => of_older_agent(),
                true => Ok(()),
                false => refused(format!(
                    "the {trigger} or the rule of plan {id} changed since it was made; make a new one"
                )),
            };
        }
        let now = self.ground.rules();
        let named = plan.rules.iter();
        let named = named.filter_map(|share| now.iter().find(|r| r.name == share.name));
        let named: Vec<Rule> = named.cloned().collect();
        // A TTL given with the request is in no configuration; such a plan stands for itself.
        let configured = named.len() == plan.rules.len() && !plan.own_ttl;
        match configured {
            true if !plan.fingerprint.is_comparable() => of_older_agent(),
            true if Fingerprint::of_rules(&named) != plan.fingerprint => refused(format!(
                "the rules of plan {id} have changed since; make a new one"
            )),
            _ => Ok(()),
        }
    }
}

/// Refuses a plan that is too old, was applied already, or was never to be applied.
fn check_unused(plan: &Plan, now: Seconds) -> Result<(), HostError> {
    let id = &plan.id;
    if plan.created.age_at(now) >= EXPIRES_AFTER_SECONDS {
        return Err(HostError::Refused(format!(
            "plan {id} has expired (it is older than 24 h); make a new one"
        )));
    }
    if let Some(run) = &plan.run {
        return Err(HostError::Refused(format!(
            "plan {id} was applied already, by run {run}; make a new one"
        )));
    }
    if let Some(why) = &plan.refusal {
        return Err(HostError::Refused(format!("plan {id} is refused: {why}")));
    }
    Ok(())
}

/// A run that has begun, with all that it needs.
struct Begun {
    applier: Arc<Applier>,
    volume: Arc<Volume>,
    plan: Plan,
    claim: Claim,
    heading: Heading,
    graces: Vec<u64>,
    stores: Vec<Option<Settings>>,
    max_rate: u64,
    live: Arc<LiveRun>,
}

impl Begun {
    /// Applies the plan to its end, and writes down what came of it.
    fn go_on(self) {
        let Self {
            applier,
            volume,
            plan,
            mut claim,
            heading,
            graces,
            stores,
            max_rate,
            live,
        } = self;
        let (name, rules) = (volume.config.name.as_str(), names_of_rules(&plan).join(", "));
        let planned = plan.totals;
        tracing::info!(run = %heading.run, volume = name, by = %heading.by, plan = %plan.id, %rules, %planned, "run begins");
        let opened = Copiers::begin(&plan, stores, (&heading, &applier.ground.anchor)).and_then(|copiers| {
            let ledger = Ledger::create(&applier.ground.anchor, &heading.run);
            let ledger = ledger.map_err(|error| format!("the run's ledger cannot be made: {error}"))?;
            Ok((copiers, ledger))
        });
        let run = match opened {
            Ok((copiers, ledger)) => {
                let order = Order {
                    plan: &plan,
                    plans: &applier.plans,
                    max_rate,
                    graces,
                    copiers: copiers.of_rules.clone(),
                    ledger: &ledger,
                    audit: &applier.audit,
                    heading: heading.clone(),
                    descriptors: descriptors::for_runs(),
                };
                let around = Around {
                    applier: &applier,
                    volume: &volume,
                    planned_at: plan.created,
                    tally: applier.notifier.tally(&heading.run, &heading.root),
                    names: names_of_rules(&plan),
                    record: record(&applier, &heading.run, &plan),
                };
                let run = apply::apply(&volume.watched, &order, &around, &live);
                copiers.end(run.state.word());
                run
            }
            Err(why) => {
                let progress = live.watch().borrow().clone();
                end(progress, Some(Stop::Broken(why)), &live)
            }
        };
        if run.failed_total > 0 {
            claim.failed();
        }
        volume.keeping.work.phases.observe(Phase::Apply, run.seconds);
        match failure_of(&run) {
            Some(why) => {
                tracing::error!(run = %run.id, volume = %run.volume, by = %run.by, %rules, deleted = %run.deleted, trashed = %run.trashed, why, "the run failed")
            }
            None => {
                tracing::info!(run = %run.id, volume = %run.volume, by = %run.by, %rules, state = run.state.word(), deleted = %run.deleted, trashed = %run.trashed, "run ended");
            }
        }
        match applier.runs.end(&run) {
            // The record has it all by now.
            Ok(()) => drop(std::fs::remove_file(ledger::path(
                &applier.ground.anchor,
                &run.id,
            ))),
            Err(error) => {
                tracing::error!(run = %run.id, volume = %run.volume, %error, "cannot save the run's record")
            }
        }
        drop(claim);
    }
}

/// How long what each rule of a plan takes stays in the trash.
fn graces(plan: &Plan, how: Manner, guard: Guard) -> Vec<u64> {
    let wanted = wanted_graces(plan, how).into_iter();
    wanted.map(|grace| grace.max(guard.least_grace())).collect()
}

/// The same, as the rules and the request want it.
fn wanted_graces(plan: &Plan, how: Manner) -> Vec<u64> {
    let rules = plan.rules.iter();
    rules
        .map(|rule| if how.no_grace { 0 } else { rule.grace })
        .collect()
}

/// Whether every use since then has been seen.
fn is_watched_since(volume: &Volume, at: Seconds) -> bool {
    let condition = volume.condition();
    // A file system that was adopted since is another one.
    let is_newer = condition.coverage_since > at;
    // The keeper looks every second only, and what follows an unmount was not seen.
    !is_newer
        && !volume.was_unmounted()
        && !matches!(condition.state, State::Degraded(_))
        && condition.gap_end.is_none_or(|end| end < at)
}

/// What a run's rules are called in metrics. A quota has a reason for each subject that is over it, but one name.
fn names_of_rules(plan: &Plan) -> Vec<String> {
    match &plan.trigger {
        None => plan.rule_names(),
        Some(trigger) => vec![trigger.clone(); plan.rules.len()],
    }
}

/// The rules that take something, or the quota or watermark that asked for the plan.
fn rules_of(plan: &Plan) -> Vec<String> {
    let takes = plan.rules.iter().filter(|rule| rule.totals.entries() > 0);
    match &plan.trigger {
        None => takes.map(|rule| rule.name.clone()).collect(),
        Some(trigger) => vec![trigger.clone()],
    }
}

/// The record of what a run takes. A run goes on without one.
fn record(applier: &Applier, run: &str, plan: &Plan) -> Option<Writer> {
    let anchor = &applier.ground.anchor;
    let names = plan.rules.iter().map(|rule| rule.name.as_str());
    let made = taken::tidy(anchor).and_then(|_| Writer::create(anchor, run, names));
    let told = made.inspect_err(|error| {
        tracing::warn!(run, %error, "what the run takes cannot be noted: `purgectl explain` will not find it");
    });
    told.ok()
}

fn how_taken(taken: &Taken<'_>) -> How {
    match taken.until {
        Some(_) => How::Trashed,
        None => How::Deleted,
    }
}

fn amount_of(candidate: &Candidate) -> Amount {
    Amount {
        files: candidate.files,
        directories: u64::from(candidate.kind() == Kind::Directory),
        bytes: candidate.size,
    }
}

struct Around<'a> {
    applier: &'a Applier,
    volume: &'a Volume,
    planned_at: Seconds,
    tally: Option<Tally>,
    /// What each candidate's `rule` is called in metrics.
    names: Vec<String>,
    /// What was taken, for those who look for it.
    record: Option<Writer>,
}

impl apply::Surroundings for Around<'_> {
    fn free_trash(&self) -> bool {
        self.applier.trash.free_trash_for_a_run(self.volume)
    }
    fn sync(&self, at_most: Duration) -> Seen {
        match self.volume.barrier(at_most) {
            Barrier::Passed if is_watched_since(self.volume, self.planned_at) => Seen::Everything,
            Barrier::Passed | Barrier::Dead => Seen::NotEverything,
            Barrier::Late => Seen::Late,
        }
    }
    fn other_agent(&self) -> Option<String> {
        self.volume.other_agent()
    }
    fn backlog(&self) -> u64 {
        self.volume.queued()
    }
    fn hide_own(&self, dir: BorrowedFd<'_>) {
        self.volume.hide_own(dir);
    }
    fn hide_mount(&self, mount: BorrowedFd<'_>) -> std::io::Result<()> {
        self.volume.hide_mount(mount)
    }
    fn no_new_holds(&self) -> RwLockReadGuard<'_, ()> {
        self.applier.holds.taking()
    }
    fn no_new_holds_at_once(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.applier.holds.taking_at_once()
    }
    fn held(&self) -> FxHashSet<Inode> {
        let volume = &self.volume.config;
        self.applier.holds.held(&volume.name, &volume.path)
    }
    fn alone_in_the_trash(&self) -> MutexGuard<'_, ()> {
        self.volume.turns.trash_work.lock()
    }
    fn taken(&self, candidates: &[Taken<'_>]) {
        if let Some(tally) = &self.tally {
            tally.note(candidates);
        }
        if let Some(record) = &self.record {
            record.note(candidates, clock::now());
        }
        for each in candidates {
            let (rule, how) = (usize::from(each.candidate.rule), how_taken(each));
            let name = self.names.get(rule).map_or("", String::as_str);
            let by_rule = &self.volume.keeping.work.by_rule;
            by_rule.add(name, how, amount_of(each.candidate));
        }
    }
}
