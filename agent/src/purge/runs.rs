//! Runs: what became of the candidates of a plan, past and current.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use prost::Message;
use purge_proto::v1;
use tokio::sync::watch;

use super::counts::EndedRuns;
use crate::index::{Batch, Record, Store, StoreError};

/// Failures that a run's record names; the others are counted.
pub const FAILURES_NAMED_MAX: usize = 1000;

/// How far a run is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The run so far.
    pub run: v1::Run,
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

    /// Asks it to stop after the file in hand.
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
        }
    }

    /// Begins a run: one at a time on a volume.
    ///
    /// # Errors
    /// [`RunError::Busy`] when another is going on.
    pub fn begin(&self, run: v1::Run, total: u64) -> Result<Arc<LiveRun>, RunError> {
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
        let id = run.run_id.clone();
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
    pub fn end(&self, run: &v1::Run) -> Result<(), StoreError> {
        self.live.lock().remove(&run.run_id);
        self.counts.add(run);
        let saved = self.save(run);
        self.ended.fetch_add(1, Relaxed);
        saved
    }

    /// How many have ended since the start: whoever waits for the end of runs need not read them all to see one.
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

    /// Whether any run is going on.
    pub fn any_live(&self) -> bool {
        !self.live.lock().is_empty()
    }

    /// A run, past or current.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn get(&self, id: &str) -> Result<v1::Run, RunError> {
        if let Some(live) = self.live(id) {
            return Ok(live.progress.borrow().run.clone());
        }
        let value = self
            .store
            .get(Record::Run, id.as_bytes())?
            .ok_or_else(|| RunError::Unknown(id.into()))?;
        v1::Run::decode(&*value).map_err(|e| {
            StoreError::Call {
                doing: "read a run",
                why: e.to_string(),
            }
            .into()
        })
    }

    /// All runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<v1::Run>, StoreError> {
        let mut all = Vec::new();
        for record in self.store.records(Record::Run, b"") {
            let (key, value) = record?;
            let live = std::str::from_utf8(&key).ok().and_then(|id| self.live(id));
            match live {
                Some(live) => all.push(live.progress.borrow().run.clone()),
                None => all.extend(v1::Run::decode(&*value).ok()),
            }
        }
        all.reverse();
        Ok(all)
    }

    /// Writes a run's record.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn save(&self, run: &v1::Run) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Record::Run, run.run_id.as_bytes(), &run.encode_to_vec());
        self.store.apply(batch)?;
        self.store.flush()
    }
}
