//! Saved plans: what an evaluation found, with everything that apply compares later.
//!
//! The head is the contract's own message; candidates lie beside it in chunks, so that neither saving nor showing
//! nor applying holds all of them in memory.
//!
//! What clients can make the agent keep is bounded (`shelf`). A head is written first, as that of a plan that is being made, and last, as
//! that of one that can be applied: what a process that was killed has left of a plan is found by it, and removed.

mod shelf;
mod writer;

use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use purge_proto::v1;

pub use self::shelf::By;
use self::shelf::{Leaving, Shelf, State, Stored};
use self::writer::ChunkWriter;
use super::candidate::{Candidate, decode};
use super::holds::timestamp;
use super::protection::Guard;
use super::runs::Runs;
use purge_base::id::new_id;
use purge_index::{Batch, Index, Record, Store, StoreError};
use purge_model::Seconds;
use purge_policy::apart::TOGETHER_MAX;
use purge_policy::evaluate::{Circumstances, Evaluation, Pick, Shape, part_of};
use purge_policy::forgiven::forgiven;
use purge_policy::portion::Portion;
use purge_policy::quota::Reason;
use purge_policy::rule::{Rule, Target};
use purge_sys::failure::Failure;

/// A plan can be applied for this long.
pub const EXPIRES_AFTER_SECONDS: u64 = 24 * 3600;
/// Plans are kept for this long, to be looked at.
const KEPT_SECONDS: u64 = 30 * 24 * 3600;

/// A stored plan: the contract's message, and what apply needs besides.
#[derive(Clone, PartialEq, Message)]
pub struct PlanRecord {
    /// What clients see.
    #[prost(message, optional, tag = "1")]
    pub plan: Option<v1::Plan>,
    /// Number of chunks.
    #[prost(uint32, tag = "2")]
    pub chunks: u32,
    /// The rules as they were, in words that change when they change.
    #[prost(string, tag = "3")]
    pub fingerprint: String,
    /// A run stops when more than this share of its candidates fails.
    #[prost(double, tag = "4")]
    pub max_errors: f64,
    /// First chunk of the directories that are empty only when everything before them is gone.
    #[prost(uint32, tag = "5")]
    pub first_empty_chunk: u32,
    /// The rules that took part.
    #[prost(string, repeated, tag = "6")]
    pub rules: Vec<String>,
    /// The TTL came with the request, not from the rules.
    #[prost(bool, tag = "7")]
    pub own_ttl: bool,
    /// The quota or watermark that asked for it; empty: the rules did.
    #[prost(string, tag = "8")]
    pub trigger: String,
    /// For a quota or watermark, beside each of `rules`: why, for a person.
    #[prost(string, repeated, tag = "9")]
    pub reasons: Vec<String>,
    /// Beside each of `rules`: how long what it takes stays in the trash, in seconds.
    #[prost(uint64, repeated, tag = "10")]
    pub graces: Vec<u64>,
    /// Who asked for it.
    #[prost(string, tag = "11")]
    pub created_by: String,
    /// What its chunks take.
    #[prost(uint64, tag = "12")]
    pub bytes: u64,
    /// It is being made, or being removed: nobody sees it.
    #[prost(bool, tag = "13")]
    pub is_partial: bool,
    /// When its evaluation began, in nanoseconds since 1970, by the wall clock.
    #[prost(int64, tag = "14")]
    pub evaluated_nanos: i64,
    /// For a watermark: what comes free when all of it goes, and what it is for.
    #[prost(message, optional, tag = "20")]
    pub promise: Option<Promise>,
    /// For a watermark: some of the files, of the owners of whom most goes.
    #[prost(message, repeated, tag = "21")]
    pub drawn: Vec<OwnerProbes>,
}

/// Some of the files that a plan takes of one owner (see `policy::sample`).
#[derive(Clone, PartialEq, Message)]
pub struct OwnerProbes {
    /// Whose.
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    /// The first priority that was not drawn.
    #[prost(uint64, tag = "2")]
    pub threshold: u64,
    /// The files.
    #[prost(message, repeated, tag = "3")]
    pub probes: Vec<Probe>,
}

/// A file that can be found again once it has no name.
#[derive(Clone, PartialEq, Message)]
pub struct Probe {
    /// Its inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// What it takes on disk.
    #[prost(uint64, tag = "2")]
    pub takes: u64,
    /// How its handle is laid out.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    /// Its handle.
    #[prost(bytes = "vec", tag = "4")]
    pub handle: Vec<u8>,
    /// What it counted for when it was drawn.
    #[prost(uint64, tag = "5")]
    pub weight: u64,
}

/// What comes free when everything that a plan names goes.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Promise {
    /// Bytes on disk that nothing else uses.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
    /// Inodes.
    #[prost(uint64, tag = "2")]
    pub files: u64,
    /// Bytes on disk.
    #[prost(uint64, tag = "3")]
    pub allocated: u64,
    /// Space was to come free.
    #[prost(bool, tag = "4")]
    pub wants_bytes: bool,
    /// Inodes were to come free.
    #[prost(bool, tag = "5")]
    pub wants_files: bool,
}

impl PlanRecord {
    /// When its evaluation began, in nanoseconds since 1970.
    pub fn evaluated(&self) -> i128 {
        match (self.evaluated_nanos, &self.plan) {
            // An agent of before has made it.
            (0, Some(plan)) => plan
                .created_at
                .map_or(0, |t| i128::from(t.seconds) * 1_000_000_000),
            (nanos, _) => i128::from(nanos),
        }
    }

    /// What it is on the shelf.
    fn stored(&self, state: State) -> Stored {
        let plan = self.plan.clone().unwrap_or_default();
        let created = Seconds::from_unix(plan.created_at.map_or(0, |t| t.seconds));
        let bytes = match self.bytes {
            // Older records do not say it.
            0 => Shelf::estimate(self.candidates()),
            bytes => bytes.saturating_add(self.encoded_len() as u64),
        };
        Stored::new(&self.created_by, created, (bytes, self.chunks), state)
    }

    /// Number of candidates.
    pub fn candidates(&self) -> u64 {
        let totals = self.plan.as_ref().and_then(|p| p.candidates);
        totals.map_or(0, |t| {
            t.files.saturating_add(t.directories).saturating_add(t.links)
        })
    }
}

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
    /// Names an owner.
    pub owner_name: fn(u32) -> String,
    /// The quota or watermark that asked for it.
    pub trigger: Option<&'a Trigger>,
    /// Exclude patterns of the rules that match nothing.
    pub idle: Vec<v1::IdlePattern>,
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
    pub fingerprint: String,
    /// What a pick's `rule` points at.
    pub reasons: Vec<Reason>,
}

/// The forgiven stretches that a plan rests on, if there are any.
fn forgiven_in(on: &Occasion<'_>, by_rule: &[v1::Totals]) -> Option<v1::Forgiven> {
    // A directory that a file rule takes is empty.
    let taken = |rule: &Rule, t: &v1::Totals| match rule.target {
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
    (found.taken > 0).then_some(v1::Forgiven {
        stretches: found.stretches,
        seconds: found.seconds,
        candidates: found.taken,
    })
}

/// What two equal rule sets have in common, and different ones do not.
pub fn fingerprint(rules: &[Rule]) -> String {
    format!("{rules:?}")
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
        for record in plans.records()? {
            let plan = record.plan.clone().unwrap_or_default();
            if record.is_partial {
                plans.remove_rows(&plan.plan_id, None)?;
                continue;
            }
            let state = state_of(&plan, runs);
            plans.shelf.lock().put(&plan.plan_id, record.stored(state));
        }
        Ok(plans)
    }

    /// Runs that earlier processes left have been closed, and none goes on: their plans are needed no more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn settle(&self, runs: &Runs) -> Result<(), StoreError> {
        for record in self.list()? {
            let plan = record.plan.unwrap_or_default();
            let state = state_of(&plan, runs);
            if let Some(stored) = self.shelf.lock().get_mut(&plan.plan_id)
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
    ) -> Result<PlanRecord, PlanError> {
        let plan_id = self.begin(on, found.candidates())?;
        let saved = self.write(index, found, on, &plan_id).and_then(|record| {
            self.put(&record)?;
            Ok(record)
        });
        match saved {
            Ok(record) => {
                self.shelf.lock().put(&plan_id, record.stored(State::Ready));
                Ok(record)
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
            let head = v1::Plan {
                plan_id: plan_id.clone(),
                created_at: Some(timestamp(now)),
                volume: on.volume.into(),
                ..v1::Plan::default()
            };
            self.put(&PlanRecord {
                plan: Some(head),
                is_partial: true,
                ..PlanRecord::default()
            })?;
            Ok(())
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
    ) -> Result<PlanRecord, StoreError> {
        let now = on.at.now;
        let clocks = on.rules.iter().map(|r| r.clocks).collect();
        let names: Vec<&str> = match on.trigger {
            Some(trigger) => trigger.reasons.iter().map(|r| r.name.as_str()).collect(),
            None => on.rules.iter().map(|r| r.name.as_str()).collect(),
        };
        let mut going = found.portion();
        let mut picks = found.picks;
        let split = picks.iter().position(|p| p.shape.is_last());
        let empty = picks.split_off(split.unwrap_or(picks.len()));
        let mut saving = Saving {
            writer: ChunkWriter::new(&self.store, plan_id, index, now, clocks),
            totals: v1::Totals::default(),
            takes: 0,
            by_rule: vec![v1::Totals::default(); names.len()],
        };
        saving.add_sorted(picks)?;
        if let Some(apart) = &found.apart {
            // No more than were counted, which limits have been compared with: the index has gone on since.
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
        let kept = found.kept;
        let mut by_owner: Vec<_> = found.by_owner.into_iter().collect();
        by_owner.sort_unstable_by_key(|(uid, part)| (std::cmp::Reverse(part.bytes), *uid));
        let graces: Vec<u64> = match (on.trigger, on.rules) {
            // A quota or watermark has one rule, and as many names as reasons.
            (Some(_), [rule, ..]) => vec![rule.grace; names.len()],
            _ => on.rules.iter().map(|r| r.grace).collect(),
        };
        let rule_shares = names.iter().zip(&by_rule);
        let plan = v1::Plan {
            plan_id: plan_id.to_owned(),
            created_at: Some(timestamp(now)),
            expires_at: Some(timestamp(now.plus(EXPIRES_AFTER_SECONDS))),
            volume: on.volume.into(),
            rules: rule_shares
                .map(|(name, t)| v1::RuleShare {
                    rule: (*name).to_owned(),
                    totals: Some(*t),
                })
                .collect(),
            evaluation_seconds: on.seconds,
            index_files: found.index_files,
            examined_files: found.examined,
            candidates: Some(totals),
            kept: Some(v1::Kept {
                held: kept.held,
                excluded: kept.excluded,
                young: kept.young,
                uncovered: kept.uncovered,
                limit: kept.limit,
            }),
            by_owner: by_owner
                .into_iter()
                .map(|(uid, part)| v1::OwnerShare {
                    owner: (on.owner_name)(uid),
                    uid,
                    files: part.files,
                    bytes: part.bytes,
                    takes: part.takes,
                })
                .collect(),
            refusal: refusal(on, going).unwrap_or_default(),
            run_id: String::new(),
            guard: on.guard.name().into(),
            grace_seconds: graces
                .iter()
                .copied()
                .max()
                .unwrap_or(0)
                .max(on.guard.least_grace()),
            forgiven,
            idle_patterns: on.idle.clone(),
            times_ahead: found.ahead,
            takes: Some(takes),
            left_out: on.left_out.clone(),
            mounted: found.mounted,
        };
        let record = PlanRecord {
            plan: Some(plan),
            chunks,
            fingerprint: on
                .trigger
                .map_or_else(|| fingerprint(on.rules), |t| t.fingerprint.clone()),
            max_errors: on.rules.iter().map(|r| r.max_errors).fold(1.0, f64::min),
            first_empty_chunk,
            rules: names.iter().map(|name| (*name).to_owned()).collect(),
            own_ttl: on.own_ttl,
            trigger: on.trigger.map(|t| t.name.clone()).unwrap_or_default(),
            graces,
            reasons: on.trigger.map_or_else(Vec::new, |t| {
                t.reasons.iter().map(|r| r.because.clone()).collect()
            }),
            created_by: on.by.name.to_owned(),
            bytes,
            is_partial: false,
            evaluated_nanos: on.began,
            promise: None,
            drawn: Vec::new(),
        };
        Ok(record)
    }

    /// Writes a plan's head.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put(&self, record: &PlanRecord) -> Result<(), StoreError> {
        let id = record
            .plan
            .as_ref()
            .map(|p| p.plan_id.as_str())
            .unwrap_or_default();
        let mut batch = Batch::default();
        batch.put(Record::Plan, id.as_bytes(), &record.encode_to_vec());
        self.store.apply(batch)?;
        self.store.flush()
    }

    /// A plan's head.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn get(&self, id: &str) -> Result<PlanRecord, PlanError> {
        let value = self
            .store
            .get(Record::Plan, id.as_bytes())?
            .ok_or_else(|| PlanError::Unknown(id.into()))?;
        let record = PlanRecord::decode(&*value).map_err(|e| StoreError::Call {
            failure: Failure::Other,
            doing: "read a plan",
            why: e.to_string(),
        })?;
        match record.is_partial {
            true => Err(PlanError::Unknown(id.into())),
            false => Ok(record),
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
    pub fn list(&self) -> Result<Vec<PlanRecord>, StoreError> {
        let mut all = self.records()?;
        all.retain(|r| !r.is_partial);
        all.reverse();
        Ok(all)
    }

    fn records(&self) -> Result<Vec<PlanRecord>, StoreError> {
        let mut all = Vec::new();
        for record in self.store.records(Record::Plan, b"") {
            let (_, value) = record?;
            // A head that cannot be read is a plan that cannot be applied: leaving it out harms nobody.
            all.extend(PlanRecord::decode(&*value).ok());
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
            doing: "read a plan",
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
        let head = v1::Plan {
            plan_id: id.into(),
            ..v1::Plan::default()
        };
        self.put(&PlanRecord {
            plan: Some(head),
            is_partial: true,
            ..PlanRecord::default()
        })?;
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
fn state_of(plan: &v1::Plan, runs: &Runs) -> State {
    if plan.run_id.is_empty() {
        return State::Ready;
    }
    match runs.get(&plan.run_id) {
        Ok(run) if run.state() == v1::RunState::Running => State::Running,
        Ok(run) if run.failed_total > 0 => State::Failed,
        _ => State::Used,
    }
}

/// A plan on its way into the store.
struct Saving<'a> {
    writer: ChunkWriter<'a>,
    totals: v1::Totals,
    /// Of the files that go: of each the smaller of its size and its space on the disk.
    takes: u64,
    by_rule: Vec<v1::Totals>,
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
