//! Runs: what became of the candidates of a plan, past and current.

pub mod counts;
mod run;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::watch;

use self::counts::EndedRuns;
pub use self::run::{Failure, OwnerFailures, REASONS, Run, RunState, Skipped};
use purge_index::{Batch, Record, Store, StoreError};
use purge_model::Seconds;

/// Failures that a run's record names; the others are counted.
pub const FAILURES_NAMED_MAX: usize = 1000;
/// What is done when a run cannot be read.
const READ: &str = "read a run";

/// Bounds of the records of past runs that are kept, the newest: their number, their days, and their bytes.
const RUNS_MAX: usize = 10_000;
const RUN_SECONDS_MAX: u64 = 366 * 86_400;
const RUN_BYTES_MAX: usize = 64 << 20;
/// Records that are removed in one batch.
const REMOVED_AT_ONCE: usize = 1000;

/// How far a run is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The run so far.
    pub run: Run,
    /// Candidates of its plan.
    pub total: u64,
    /// Candidates whose fate is known.
    pub done: u64,
}

/// A run that is going on.
#[derive(Debug)]
pub struct LiveRun {
    progress: watch::Sender<Progress>,
    cancelled: AtomicBool,
}

impl LiveRun {
    /// Follows the run; the sender is dropped when it ends.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Asks it to stop after the file that is being processed.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Tells everyone who follows.
    pub fn publish(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }
}

/// Past and current runs.
#[derive(Debug)]
pub struct Runs {
    store: Store,
    /// What they came to since the start.
    pub counts: EndedRuns,
    /// How many have ended since the start.
    ended: AtomicU64,
    live: Mutex<HashMap<String, Arc<LiveRun>>>,
    /// The last one of each volume that has ended, as far as it was asked for.
    last: Mutex<HashMap<String, Run>>,
}

/// Why there is no such run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No run has this name.
    #[error("there is no run {0}; `purgectl runs` names them")]
    Unknown(String),
    /// Another run is going on.
    #[error("run {run} is going on on volume {volume}; wait for it or `purgectl cancel {run}`")]
    Busy {
        /// The volume.
        volume: String,
        /// The other run.
        run: String,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Runs {
    /// The runs in the store.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            counts: EndedRuns::default(),
            ended: AtomicU64::new(0),
            live: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Begins a run: one at a time on a volume.
    ///
    /// # Errors
    /// [`RunError::Busy`] when another is going on.
    pub fn begin(&self, run: Run, total: u64) -> Result<Arc<LiveRun>, RunError> {
        let mut live = self.live.lock();
        let busy = live
            .iter()
            .find(|(_, l)| l.progress.borrow().run.volume == run.volume);
        if let Some((other, _)) = busy {
            return Err(RunError::Busy {
                volume: run.volume,
                run: other.clone(),
            });
        }
        self.save(&run)?;
        let id = run.id.clone();
        let (progress, _) = watch::channel(Progress { run, total, done: 0 });
        let run = Arc::new(LiveRun {
            progress,
            cancelled: AtomicBool::new(false),
        });
        live.insert(id, Arc::clone(&run));
        Ok(run)
    }

    /// The run is over.
    ///
    /// # Errors
    /// When its record cannot be written; it is over all the same.
    pub fn end(&self, run: &Run) -> Result<(), StoreError> {
        self.live.lock().remove(&run.id);
        self.counts.add(run);
        self.last.lock().insert(run.volume.clone(), run.clone());
        let saved = self.save(run);
        self.ended.fetch_add(1, Relaxed);
        saved
    }

    /// The last run of a volume that has ended.
    pub fn last_of(&self, volume: &str) -> Option<Run> {
        if let Some(run) = self.last.lock().get(volume) {
            return Some(run.clone());
        }
        let past = self.list().ok()?.into_iter();
        let ended = past.filter(|r| r.volume == volume && r.state != RunState::Running);
        let last = ended.max_by_key(|r| r.finished)?;
        let mut known = self.last.lock();
        Some(known.entry(volume.to_owned()).or_insert(last).clone())
    }

    /// The last one of a volume may have been ended by another hand.
    pub fn forget_last_of(&self, volume: &str) {
        self.last.lock().remove(volume);
    }

    /// How many have ended since the start: a caller that waits for the end of runs need not read them all to see one.
    pub fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// A run that is going on.
    pub fn live(&self, id: &str) -> Option<Arc<LiveRun>> {
        self.live.lock().get(id).cloned()
    }

    /// Asks every run to stop: the agent is shutting down.
    pub fn cancel_all(&self) {
        self.live.lock().values().for_each(|run| run.cancel());
    }

    /// Whether a run is going on on this volume.
    pub fn is_live_on(&self, volume: &str) -> bool {
        let live = self.live.lock();
        live.values().any(|l| l.progress.borrow().run.volume == volume)
    }

    /// Whether any run is going on.
    pub fn any_live(&self) -> bool {
        !self.live.lock().is_empty()
    }

    /// A run, past or current.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn get(&self, id: &str) -> Result<Run, RunError> {
        if let Some(live) = self.live(id) {
            return Ok(live.progress.borrow().run.clone());
        }
        let value = self
            .store
            .get(Record::Run, id.as_bytes())?
            .ok_or_else(|| RunError::Unknown(id.into()))?;
        Ok(stored::decode(&value).map_err(|e| e.into_error(READ))?)
    }

    /// The names of all runs that begin with this, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn ids(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let records = self.store.records(Record::Run, prefix.as_bytes());
        let keys = records.map(|record| record.map(|(key, _)| String::from_utf8_lossy(&key).into_owned()));
        keys.collect()
    }

    /// All runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Run>, StoreError> {
        let mut all = Vec::new();
        for record in self.store.records(Record::Run, b"") {
            let (key, value) = record?;
            let live = std::str::from_utf8(&key).ok().and_then(|id| self.live(id));
            match live {
                Some(live) => all.push(live.progress.borrow().run.clone()),
                None => all.extend(stored::decode(&value).ok()),
            }
        }
        all.reverse();
        Ok(all)
    }

    /// Writes a run's record.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn save(&self, run: &Run) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Record::Run, run.id.as_bytes(), &stored::encode(run));
        self.store.apply(batch)?;
        self.store.flush()
    }

    /// Removes the records of runs that are long past, and returns their names. What is going on stays, and what `is_needed` names.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn tidy(&self, now: Seconds, is_needed: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let mut past = Vec::new();
        for record in self.store.records(Record::Run, b"") {
            let (key, value) = record?;
            let (Ok(id), Ok(run)) = (String::from_utf8(key), stored::decode(&value)) else {
                continue;
            };
            if run.state == RunState::Running || self.live(&id).is_some() || is_needed(&id) {
                continue;
            }
            past.push((run.finished.unwrap_or(run.started), id, value.len()));
        }
        // Newest first.
        past.sort_unstable_by(|a, b| b.cmp(a));
        let (mut count, mut bytes) = (0usize, 0usize);
        let is_over = |(ended, _, size): &(Seconds, String, usize)| {
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(*size);
            count > RUNS_MAX || bytes > RUN_BYTES_MAX || ended.age_at(now) > RUN_SECONDS_MAX
        };
        let kept = past.iter().map(is_over).take_while(|over| !over).count();
        let gone: Vec<String> = past.into_iter().skip(kept).map(|(_, id, _)| id).collect();
        for some in gone.chunks(REMOVED_AT_ONCE) {
            let mut batch = Batch::default();
            some.iter()
                .for_each(|id| batch.remove(Record::Run, id.as_bytes()));
            self.store.apply(batch)?;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn run(id: &str, ended: u32, state: RunState) -> Run {
        Run {
            id: id.into(),
            state,
            finished: Some(Seconds(ended)),
            ..Run::default()
        }
    }

    #[test]
    fn runs_that_are_long_past_are_forgotten_but_for_what_is_needed() {
        let now = Seconds(2_000_000_000);
        let long_past = now.0 - 367 * 86_400;
        let runs = Runs::new(Store::temporary().unwrap());
        for (id, ended, state) in [
            ("r1", long_past, RunState::Completed),
            ("r2", long_past, RunState::Running),
            ("r3", long_past, RunState::Completed),
            ("r4", now.0, RunState::Partial),
        ] {
            runs.save(&run(id, ended, state)).unwrap();
        }
        assert_eq!(runs.tidy(now, |id| id == "r3").unwrap(), ["r1"]);
        let left: Vec<String> = runs.list().unwrap().into_iter().map(|r| r.id).collect();
        assert_eq!(left, ["r4", "r3", "r2"]);
    }

    #[test]
    fn the_newest_runs_are_kept_and_no_more_than_there_may_be() {
        let now = Seconds(2_000_000_000);
        let store = Store::temporary().unwrap();
        let runs = Runs::new(store.clone());
        let mut batch = Batch::default();
        for n in 0..=RUNS_MAX as u32 {
            let run = run(&format!("r{n:05}"), now.0 - 100_000 + n, RunState::Completed);
            batch.put(Record::Run, run.id.as_bytes(), &stored::encode(&run));
        }
        store.apply(batch).unwrap();
        assert_eq!(runs.tidy(now, |_| false).unwrap(), ["r00000"]);
        assert!(runs.tidy(now, |_| false).unwrap().is_empty());
    }

    #[test]
    fn a_record_names_failures_while_it_has_room() {
        let runs = Runs::new(Store::temporary().unwrap());
        let mut run = run("r1", 1, RunState::Partial);
        let failure = Failure {
            path: vec![b'x'; 4000],
            error: "no".into(),
        };
        run.failed = vec![failure; FAILURES_NAMED_MAX];
        run.failed_total = FAILURES_NAMED_MAX as u64;
        runs.save(&run).unwrap();
        let read = runs.get("r1").unwrap();
        assert!((50..70).contains(&read.failed.len()), "{}", read.failed.len());
        assert_eq!(read.failed_total, 1000);
    }
}
