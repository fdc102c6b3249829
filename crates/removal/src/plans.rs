//! Saved plans: what an evaluation found, with everything that apply compares later.
//!
//! A plan's head is one record (`stored`); candidates lie beside it in chunks, so that neither saving nor showing
//! nor applying holds all of them in memory.
//!
//! What clients can make the agent keep is bounded (`shelf`). A head is written first, as that of a plan that is being made, and last, as
//! that of one that can be applied: what a process that was killed has left of a plan is found by it, and removed.

mod fingerprint;
mod plan;
mod saving;
mod shelf;
mod stored;
mod writer;

use std::sync::Arc;

use parking_lot::Mutex;

pub use self::fingerprint::Fingerprint;
pub use self::plan::{
    EXPIRES_AFTER_SECONDS, IdlePattern, OwnerProbes, OwnerShare, Plan, Probe, Promise, RuleShare,
};
pub use self::saving::{Occasion, Trigger};
pub use self::shelf::By;
use self::shelf::{Leaving, Shelf, State, Stored};
use self::stored::Head;
use super::candidate::{Candidate, decode};
use super::runs::{RunState, Runs};
use super::stored::Damaged;
use purge_base::id::new_id;
use purge_index::{Batch, Index, Record, Store, StoreError};
use purge_model::Seconds;
use purge_policy::evaluate::Evaluation;
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
        let saved = saving::write((Some(&self.store), index), found, on, &plan_id).and_then(|plan| {
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

    /// The plan of an evaluation, as [`Plans::save`] would make it, without a name: nothing of it is kept.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn draft(
        &self,
        index: &parking_lot::RwLock<Index>,
        found: Evaluation,
        on: &Occasion<'_>,
    ) -> Result<Plan, PlanError> {
        Ok(saving::write((None, index), found, on, "")?)
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

    /// The names of all plans that begin with this, oldest first.
    pub fn ids(&self, prefix: &str) -> Vec<String> {
        self.shelf.lock().ids(prefix)
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

fn chunk_key(id: &str, number: u32) -> Vec<u8> {
    let mut key = id.as_bytes().to_vec();
    key.push(b'/');
    key.extend_from_slice(&number.to_be_bytes());
    key
}

#[cfg(test)]
mod tests;
