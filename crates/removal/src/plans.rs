//! Saved plans: what an evaluation found, with everything that apply compares later.
//!
//! A plan's head is one record (`stored`); candidates lie beside it in chunks, so that neither saving nor showing
//! nor applying holds all of them in memory.
//!
//! What clients can make the agent keep is bounded (`shelf`). A head is written first, as that of a plan that is being made, and last, as
//! that of one that can be applied: what a process that was killed has left of a plan is found by it, and removed.

mod fingerprint;
mod plan;
mod shelf;
mod stored;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::fingerprint::Fingerprint;
pub use self::plan::{
    EXPIRES_AFTER_SECONDS, IdlePattern, OwnerProbes, OwnerShare, Plan, Probe, Promise, RuleShare,
};
pub use self::shelf::By;
use self::shelf::{Leaving, Shelf, State, Stored};
use self::stored::Head;
use self::writer::ChunkWriter;
use super::candidate::{Candidate, decode};
use super::protection::Guard;
use super::runs::{RunState, Runs};
use super::stored::Damaged;
use purge_base::id::new_id;
use purge_index::{Batch, Index, Record, Store, StoreError};
use purge_model::{Seconds, Totals};
use purge_policy::apart::TOGETHER_MAX;
use purge_policy::evaluate::{Circumstances, Evaluation, Pick, Shape, part_of};
use purge_policy::forgiven::{Forgiven, forgiven};
use purge_policy::portion::Portion;
use purge_policy::quota::Reason;
use purge_policy::rule::{Rule, Target};
use purge_sys::failure::Failure;

/// Plans are kept for this long, to be looked at.
const KEPT_SECONDS: u64 = 30 * 24 * 3600;

/// A key in the store, and the head there, if it can be read.
type KeyedHead = (Vec<u8>, Result<Head, Damaged>);

/// Why a plan cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No plan has this name.
    #[error("there is no plan {0}; `purgectl plans` names them")]
    Unknown(String),
    /// There is no room for another.
    #[error("{0}")]
    Full(String),
    /// It is being applied already.
    #[error("plan {0} is being applied already; `purgectl runs` names the run")]
    Busy(String),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All saved plans.
#[derive(Debug, Clone)]
pub struct Plans {
    store: Store,
    shelf: Arc<Mutex<Shelf>>,
}

/// A plan that a run needs: it stays until this is dropped.
#[derive(Debug)]
pub struct Claim {
    shelf: Arc<Mutex<Shelf>>,
    id: String,
    /// What it is afterwards.
    then: State,
}

impl Claim {
    /// Its run has begun: it cannot be applied again.
    pub fn used(&mut self) {
        self.then = State::Used;
    }

    /// Its run has ended and could not do all that it should.
    pub fn failed(&mut self) {
        self.then = State::Failed;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(stored) = self.shelf.lock().get_mut(&self.id) {
            stored.state = self.then;
        }
    }
}

/// What is done when a plan cannot be read.
const READ: &str = "read a plan";
/// Chunks that are removed in one batch.
const REMOVED_AT_ONCE: u32 = 500;

/// What a plan is made from, besides the evaluation.
pub struct Occasion<'a> {
    /// The volume's name.
    pub volume: &'a str,
    /// The rules in the order of the evaluation.
    pub rules: &'a [Rule],
    /// When it was evaluated, and what decided besides.
    pub at: &'a Circumstances,
    /// When that began, in nanoseconds since 1970, by the wall clock: what is in the index by then was seen.
    pub began: i64,
    /// How long that took.
    pub seconds: f64,
    /// All files of the volume.
    pub whole: Portion,
    /// What was left out of the evaluation and why, for a person.
    pub left_out: Vec<String>,
    /// The TTL came with the request, not from the rules.
    pub own_ttl: bool,
    /// Names owners, those with most first; whom it does not name is shown by number.
    pub owner_names: fn(&[u32]) -> HashMap<u32, String>,
    /// The quota or watermark that asked for it.
    pub trigger: Option<&'a Trigger>,
    /// Exclude patterns of the rules that match nothing.
    pub idle: Vec<IdlePattern>,
    /// What keeps a file that is used in the moment of its removal.
    pub guard: Guard,
    /// Who asked for the plan.
    pub by: By<'a>,
}

/// A quota or watermark that asks for a plan.
pub struct Trigger {
    /// Which.
    pub name: String,
    /// Changes when it, or its rule, changes.
    pub fingerprint: Fingerprint,
    /// What a pick's `rule` points at.
    pub reasons: Vec<Reason>,
}

/// The forgiven stretches that a plan rests on, if there are any.
fn forgiven_in(on: &Occasion<'_>, by_rule: &[Totals]) -> Option<Forgiven> {
    // A directory that a file rule takes is empty.
    let taken = |rule: &Rule, t: &Totals| match rule.target {
        Target::File => t.files,
        Target::Directory { .. } => t.files.saturating_add(t.directories),
    };
    let by_rule: Vec<(&Rule, u64)> = match (on.trigger, on.rules) {
        // A quota or watermark has one rule, and as many totals as reasons.
        (Some(_), [rule, ..]) => by_rule.iter().map(|t| (rule, taken(rule, t))).collect(),
        _ => {
            let pairs = on.rules.iter().zip(by_rule);
            pairs.map(|(rule, t)| (rule, taken(rule, t))).collect()
        }
    };
    let found = forgiven(&on.at.forgiven, on.at.now, by_rule.iter().copied());
    (found.taken > 0).then_some(found)
}

impl Plans {
    /// Plans in a store that has none yet, or of which only some are looked at.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            shelf: Arc::default(),
        }
    }

    /// The plans in the store. What a process that was killed has left of plans is removed.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(store: Store, runs: &Runs) -> Result<Self, StoreError> {
        let plans = Self::new(store);
        for (key, head) in plans.heads()? {
            match head {
                Ok(Head::Partial(id)) => plans.remove_rows(&id, None)?,
                Ok(Head::Whole(plan)) => {
                    let stored = on_shelf(&plan, state_of(&plan, runs));
                    plans.shelf.lock().put(&plan.id, stored);
                }
                // It cannot be applied: that harms no file.
                Err(error) => {
                    tracing::error!(plan = %String::from_utf8_lossy(&key), %error, "a saved plan cannot be read")
                }
            }
        }
        Ok(plans)
    }

    /// Runs that earlier processes left have been closed, and none goes on: their plans are needed no more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn settle(&self, runs: &Runs) -> Result<(), StoreError> {
        for plan in self.list()? {
            let state = state_of(&plan, runs);
            if let Some(stored) = self.shelf.lock().get_mut(&plan.id)
                && stored.state == State::Running
            {
                stored.state = state;
            }
        }
        Ok(())
    }

    /// Saves what an evaluation found. Reads names from the index, which is asked page by page.
    ///
    /// # Errors
    /// When there is no room for it, or the store cannot be read or written.
    pub fn save(
        &self,
        index: &parking_lot::RwLock<Index>,
        found: Evaluation,
        on: &Occasion<'_>,
    ) -> Result<Plan, PlanError> {
        let plan_id = self.begin(on, found.candidates())?;
        let saved = self.write(index, found, on, &plan_id).and_then(|plan| {
            self.put(&plan)?;
            Ok(plan)
        });
        match saved {
            Ok(plan) => {
                self.shelf.lock().put(&plan_id, on_shelf(&plan, State::Ready));
                Ok(plan)
            }
            Err(error) => {
                let removed = self.remove_rows(&plan_id, None);
                self.shelf.lock().remove(&plan_id);
                removed?;
                Err(error.into())
            }
        }
    }

    /// Makes room for a plan, and writes down that it is being made.
    fn begin(&self, on: &Occasion<'_>, candidates: u64) -> Result<String, PlanError> {
        let now = on.at.now;
        let bytes = Shelf::estimate(candidates);
        let (plan_id, leaving, room) = {
            let mut shelf = self.shelf.lock();
            let (leaving, room) = shelf.make_room(on.by, bytes, now);
            let mut plan_id = new_id('p', now);
            // Two of one second may have drawn the same name.
            while shelf.get(&plan_id).is_some() {
                plan_id = new_id('p', now);
            }
            if room.is_ok() {
                let stored = Stored::new(on.by.name, now, (bytes, 0), State::Making);
                shelf.put(&plan_id, stored);
            }
            (plan_id, leaving, room)
        };
        let made = self.remove_all(leaving).map_err(PlanError::from);
        let made = made.and_then(|()| {
            room.map_err(PlanError::Full)?;
            let head = stored::encode_partial(&plan_id, Some((now, on.volume)));
            Ok(self.put_head(&plan_id, &head)?)
        });
        match made {
            Ok(()) => Ok(plan_id),
            Err(error) => {
                self.shelf.lock().remove(&plan_id);
                Err(error)
            }
        }
    }

    fn write(
        &self,
        index: &parking_lot::RwLock<Index>,
        found: Evaluation,
        on: &Occasion<'_>,
        plan_id: &str,
    ) -> Result<Plan, StoreError> {
        let now = on.at.now;
        let clocks = on.rules.iter().map(|r| r.clocks).collect();
        let rules = match on.trigger {
            Some(trigger) => trigger.reasons.len(),
            None => on.rules.len(),
        };
        let mut going = found.portion();
        let mut picks = found.picks;
        let split = picks.iter().position(|p| p.shape.is_last());
        let empty = picks.split_off(split.unwrap_or(picks.len()));
        let mut saving = Saving {
            writer: ChunkWriter::new(&self.store, plan_id, index, now, clocks),
            totals: Totals::default(),
            takes: 0,
            by_rule: vec![Totals::default(); rules],
        };
        saving.add_sorted(picks)?;
        if let Some(apart) = &found.apart {
            // No more than were counted: limits have been compared with that count, and the index has changed since.
            let mut room = usize::try_from(apart.files()).unwrap_or(usize::MAX);
            for part in apart.parts(TOGETHER_MAX) {
                let mut picks = part_of(apart, &index.read(), on.rules, on.at, part)?;
                picks.truncate(room);
                room -= picks.len();
                saving.add_sorted(picks)?;
            }
        }
        saving.writer.end_chunk()?;
        let first_empty_chunk = saving.writer.chunks;
        saving.add(&empty)?;
        let Saving {
            mut writer,
            totals,
            takes,
            by_rule,
        } = saving;
        let chunks = writer.finish()?;
        let bytes = writer.bytes;
        going.takes = takes;
        let forgiven = forgiven_in(on, &by_rule);
        let mut by_owner: Vec<_> = found.by_owner.into_iter().collect();
        by_owner.sort_unstable_by_key(|(uid, part)| (std::cmp::Reverse(part.bytes), *uid));
        let shares = rule_shares(on, &by_rule);
        let longest = shares.iter().map(|share| share.grace).max().unwrap_or(0);
        let uids: Vec<u32> = by_owner.iter().map(|(uid, _)| *uid).collect();
        let named = (on.owner_names)(&uids);
        let owners = by_owner.into_iter().map(|(uid, part)| OwnerShare {
            owner: named.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
            uid,
            files: part.files,
            bytes: part.bytes,
            takes: part.takes,
        });
        Ok(Plan {
            id: plan_id.to_owned(),
            created: now,
            expires: now.plus(EXPIRES_AFTER_SECONDS),
            volume: on.volume.into(),
            by: on.by.name.to_owned(),
            trigger: on.trigger.map(|t| t.name.clone()),
            rules: shares,
            totals,
            takes: Some(takes),
            kept: found.kept,
            by_owner: owners.collect(),
            mounted: found.mounted,
            times_ahead: found.ahead,
            left_out: on.left_out.clone(),
            forgiven,
            idle: on.idle.clone(),
            seconds: on.seconds,
            index_files: found.index_files,
            examined: found.examined,
            began: on.began,
            guard: Some(on.guard),
            grace: longest.max(on.guard.least_grace()),
            refusal: refusal(on, going),
            run: None,
            max_errors: on.rules.iter().map(|r| r.max_errors).fold(1.0, f64::min),
            fingerprint: on.trigger.map_or_else(
                || Fingerprint::of_rules(on.rules),
                |trigger| trigger.fingerprint.clone(),
            ),
            own_ttl: on.own_ttl,
            chunks,
            first_empty_chunk,
            bytes,
            promise: None,
            drawn: Vec::new(),
        })
    }

    /// Writes a plan's head.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put(&self, plan: &Plan) -> Result<(), StoreError> {
        self.put_head(&plan.id, &stored::encode(plan))
    }

    fn put_head(&self, id: &str, head: &[u8]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Record::Plan, id.as_bytes(), head);
        self.store.apply(batch)?;
        self.store.flush()
    }

    /// A plan's head.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn get(&self, id: &str) -> Result<Plan, PlanError> {
        let value = self
            .store
            .get(Record::Plan, id.as_bytes())?
            .ok_or_else(|| PlanError::Unknown(id.into()))?;
        match stored::decode(&value).map_err(|e| e.into_error(READ))? {
            Head::Partial(_) => Err(PlanError::Unknown(id.into())),
            Head::Whole(plan) => Ok(*plan),
        }
    }

    /// Keeps a plan for a run: it stays while the run needs it, and no other run can have it.
    ///
    /// # Errors
    /// When there is none of this name, or a run has it.
    pub fn claim(&self, id: &str) -> Result<Claim, PlanError> {
        let mut shelf = self.shelf.lock();
        let stored = shelf.get_mut(id).ok_or_else(|| PlanError::Unknown(id.into()))?;
        let then = stored.state;
        match then {
            State::Making => return Err(PlanError::Unknown(id.into())),
            State::Running => return Err(PlanError::Busy(id.into())),
            State::Ready | State::Used | State::Failed => stored.state = State::Running,
        }
        Ok(Claim {
            shelf: Arc::clone(&self.shelf),
            id: id.into(),
            then,
        })
    }

    /// All heads, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Plan>, StoreError> {
        let heads = self.heads()?.into_iter();
        // The start has told of those that cannot be read.
        let plans = heads.filter_map(|(_, head)| match head {
            Ok(Head::Whole(plan)) => Some(*plan),
            Ok(Head::Partial(_)) | Err(_) => None,
        });
        let mut all: Vec<Plan> = plans.collect();
        all.reverse();
        Ok(all)
    }

    /// Every head in the store, with its key.
    fn heads(&self) -> Result<Vec<KeyedHead>, StoreError> {
        let mut all = Vec::new();
        for record in self.store.records(Record::Plan, b"") {
            let (key, value) = record?;
            all.push((key, stored::decode(&value)));
        }
        Ok(all)
    }

    /// The candidates of one chunk.
    ///
    /// # Errors
    /// When the store cannot be read, or the chunk is damaged or missing.
    pub fn chunk(&self, id: &str, number: u32) -> Result<Vec<Candidate>, StoreError> {
        let missing = StoreError::Call {
            failure: Failure::Other,
            doing: READ,
            why: format!("chunk {number} of {id} is missing"),
        };
        let row = self
            .store
            .get(Record::PlanChunk, &chunk_key(id, number))?
            .ok_or(missing)?;
        Ok(decode(&row)?)
    }

    /// Forgets plans that are long past.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn tidy(&self, now: Seconds) -> Result<(), StoreError> {
        let old = self.shelf.lock().older_than(KEPT_SECONDS, now);
        self.remove_all(old)
    }

    fn remove_all(&self, leaving: Leaving) -> Result<(), StoreError> {
        for (id, chunks) in leaving {
            tracing::info!(plan = %id, "removed: it is past, or its client has made later ones");
            self.remove_rows(&id, Some(chunks))?;
        }
        Ok(())
    }

    /// Removes a plan from the store. Its head says so first and goes last: if this is cut short, the next start goes on. How many chunks there
    /// are is not known of one that was being made; they lie side by side.
    fn remove_rows(&self, id: &str, chunks: Option<u32>) -> Result<(), StoreError> {
        self.put_head(id, &stored::encode_partial(id, None))?;
        let mut next = 0u32;
        loop {
            let mut batch = Batch::default();
            let first = next;
            while next.saturating_sub(first) < REMOVED_AT_ONCE {
                let key = chunk_key(id, next);
                let is_there = match chunks {
                    Some(chunks) => next < chunks,
                    None => self.store.get(Record::PlanChunk, &key)?.is_some(),
                };
                if !is_there {
                    break;
                }
                batch.remove(Record::PlanChunk, &key);
                next = next.saturating_add(1);
            }
            let is_last = next.saturating_sub(first) < REMOVED_AT_ONCE;
            if is_last {
                batch.remove(Record::Plan, id.as_bytes());
            }
            self.store.apply(batch)?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// How far a plan is, by what its run says.
fn state_of(plan: &Plan, runs: &Runs) -> State {
    let Some(run) = &plan.run else {
        return State::Ready;
    };
    match runs.get(run) {
        Ok(run) if run.state == RunState::Running => State::Running,
        Ok(run) if run.failed_total > 0 => State::Failed,
        _ => State::Used,
    }
}

/// What a plan is on the shelf.
fn on_shelf(plan: &Plan, state: State) -> Stored {
    let bytes = match plan.bytes {
        // Older records do not say it.
        0 => Shelf::estimate(plan.candidates()),
        bytes => bytes.saturating_add(stored::encoded_len(plan) as u64),
    };
    Stored::new(&plan.by, plan.created, (bytes, plan.chunks), state)
}

/// What is taken by each rule, or for each reason of a quota or watermark.
fn rule_shares(on: &Occasion<'_>, by_rule: &[Totals]) -> Vec<RuleShare> {
    let share = |name: &str, totals: &Totals, grace, because| RuleShare {
        name: name.to_owned(),
        totals: *totals,
        grace,
        because,
    };
    match on.trigger {
        // A quota or watermark has one rule.
        Some(trigger) => {
            let grace = on.rules.first().map_or(0, |rule| rule.grace);
            let reasons = trigger.reasons.iter().zip(by_rule);
            reasons
                .map(|(r, totals)| share(&r.name, totals, grace, Some(r.because.clone())))
                .collect()
        }
        None => {
            let rules = on.rules.iter().zip(by_rule);
            rules
                .map(|(r, totals)| share(&r.name, totals, r.grace, None))
                .collect()
        }
    }
}

/// A plan on its way into the store.
struct Saving<'a> {
    writer: ChunkWriter<'a>,
    totals: Totals,
    /// Of the files that go: of each the smaller of its size and its space on the disk.
    takes: u64,
    by_rule: Vec<Totals>,
}

impl Saving<'_> {
    /// One directory after the other, as apply takes them.
    fn add_sorted(&mut self, mut picks: Vec<Pick>) -> Result<(), StoreError> {
        picks.sort_unstable_by_key(|p| (p.rule, p.parent, p.ino));
        self.add(&picks)
    }

    fn add(&mut self, picks: &[Pick]) -> Result<(), StoreError> {
        for pick in picks {
            if !self.writer.add(pick)? {
                continue;
            }
            self.takes = self.takes.saturating_add(pick.takes);
            let share = self.by_rule.get_mut(usize::from(pick.rule));
            for t in [Some(&mut self.totals), share].into_iter().flatten() {
                match pick.shape {
                    Shape::File => t.files += 1,
                    Shape::Tree | Shape::EmptyDirectory => t.directories += 1,
                    Shape::Link(_) => t.links += 1,
                }
                t.bytes = t.bytes.saturating_add(pick.bytes);
            }
        }
        Ok(())
    }
}

/// Why apply would refuse such a plan.
fn refusal(on: &Occasion<'_>, going: Portion) -> Option<String> {
    if let Some(rule) = on.rules.iter().find(|r| !r.action.is_applied()) {
        return Some(match on.trigger {
            Some(trigger) => format!(
                "{} has action \"notify\": it tells, and deletes nothing",
                trigger.name
            ),
            None => format!(
                "rule {} has action \"notify\": it tells, and deletes nothing; to apply other rules, make a plan \
                 that names them (--rule)",
                rule.name
            ),
        });
    }
    let most = going.share_of(on.whole);
    let rule = on
        .rules
        .iter()
        .filter(|r| r.max_fraction.is_some_and(|limit| most > limit))
        .min_by(|a, b| {
            let limit = |r: &Rule| r.max_fraction.unwrap_or(1.0);
            limit(a).total_cmp(&limit(b))
        })?;
    let limit = rule.max_fraction.unwrap_or(1.0) * 100.0;
    Some(format!(
        "it would take {:.1}% of the volume, and rule {} has max_fraction {limit}%; if that is meant, raise \
         max_fraction in the rule, reload the agent, and make a new plan",
        most * 100.0,
        rule.name
    ))
}

fn chunk_key(id: &str, number: u32) -> Vec<u8> {
    let mut key = id.as_bytes().to_vec();
    key.push(b'/');
    key.extend_from_slice(&number.to_be_bytes());
    key
}

#[cfg(test)]
mod tests;
