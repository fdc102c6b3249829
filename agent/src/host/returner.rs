//! Opens a volume again while the agent goes on: one that was unmounted and is mounted again, one whose file system comes late, and one that was
//! reset. The process, its sockets and the other volumes stay as they are.
//!
//! ```text
//!   leave    no plan, run or restore begins on the old one, and what has begun on it ends
//!   stop     its threads end; what they saw is in the store
//!   open     as at a start: the same checks, the same gap, the same end of runs that were cut short
//!   enter    it takes its place among the volumes
//! ```
//! What may never happen: two objects that write one volume's index or journal at the same time; a deletion by what the agent knew before the
//! volume was away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::resetter::Resetter;
use super::roster::Member;
use super::trash::TrashKeeper;
use super::{Ground, Records};
use crate::volume::{self, Absent, Home, Opened, Turns, Volume, VolumeError, found_at};
use purge_base::handover::Handover;
use purge_config::VolumeConfig;
use purge_index::StoreError;
use purge_removal::audit::Audit;
use purge_removal::plans::Plans;
use purge_removal::run::recover::{Unfinished, Witnesses};
use purge_removal::runs::Runs;

/// What waits in the queue of a volume that is closed is read for so long; the rest counts as a gap.
const READS_WITHIN: Duration = Duration::from_secs(20);
/// The end of the agent waits so long for a volume that is being opened.
const OPENED_WITHIN: Duration = Duration::from_secs(10);

/// Opens volumes that have come back.
#[derive(Debug)]
pub struct Returner {
    ground: Arc<Ground>,
    home: Home,
    plans: Plans,
    runs: Arc<Runs>,
    audit: Arc<Audit>,
    witnesses: Arc<dyn Witnesses>,
    trash: Arc<TrashKeeper>,
    resetter: Arc<Resetter>,
    /// Who works in the trash of each volume that was closed.
    turns: Mutex<BTreeMap<String, Turns>>,
    /// Volumes that wait for what has begun on them.
    waiting: Mutex<BTreeSet<String>>,
    /// The index is damaged, as a volume found that was opened.
    damage: Mutex<Option<String>>,
    /// Held for reading while a volume is opened.
    opening: RwLock<()>,
    is_ending: AtomicBool,
}

impl Returner {
    pub(super) fn new(
        (ground, home): (Arc<Ground>, &Home),
        records: &Records,
        (trash, resetter): (Arc<TrashKeeper>, Arc<Resetter>),
    ) -> Arc<Self> {
        Arc::new(Self {
            home: home.while_running(),
            plans: records.plans.clone(),
            runs: Arc::clone(&records.runs),
            audit: Arc::clone(&records.audit),
            witnesses: super::left::witnesses(&records.notifier, &home.state_dir),
            ground,
            trash,
            resetter,
            turns: Mutex::default(),
            waiting: Mutex::default(),
            damage: Mutex::default(),
            opening: RwLock::default(),
            is_ending: AtomicBool::new(false),
        })
    }

    /// Opens a volume if it has come back. To be called every second.
    pub fn look_at(&self, name: &str) {
        let _opening = self.opening.read();
        if self.is_ending.load(SeqCst) {
            return;
        }
        let is_reset = self.resetter.is_waiting(name);
        match self.ground.member(name) {
            Some(Member::Watched(volume)) if (is_reset || volume.is_back()) && self.has_left(&volume) => {
                let before = self.close(&volume);
                drop(volume);
                self.open(&before);
            }
            Some(Member::Absent(absent)) if is_reset || absent.is_back() => self.open(&absent),
            _ => {}
        }
    }

    /// The index is damaged, and the agent must be started again for that.
    pub fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// No volume is opened any more. One that is being opened is waited for.
    pub fn end(&self) {
        self.is_ending.store(true, SeqCst);
        if self.opening.try_write_for(OPENED_WITHIN).is_none() {
            tracing::warn!("the agent ends while a volume is being opened");
        }
    }

    /// Lets nothing begin on a volume. False: something that has begun goes on.
    fn has_left(&self, volume: &Volume) -> bool {
        volume.leave("it is about to be opened again");
        let name = &volume.config.name;
        // A run that goes on hears at its next batch that it cannot know of every use, and ends.
        let is_over = !self.runs.is_live_on(name) && volume.is_at_rest();
        let mut waiting = self.waiting.lock();
        match is_over {
            true => drop(waiting.remove(name)),
            false if waiting.insert(name.clone()) => {
                tracing::warn!(volume = %name, "the volume is there again; it is opened when what has begun on it has ended");
            }
            false => {}
        }
        is_over
    }

    /// Ends a volume that it is left by all who change something there.
    fn close(&self, volume: &Volume) -> Absent {
        let config = &volume.config;
        let absent = || Absent::opening(config, volume.watched.journal.identity());
        self.turns
            .lock()
            .insert(config.name.clone(), volume.turns.clone());
        self.ground.leave(absent());
        volume.stop(READS_WITHIN);
        volume.release();
        absent()
    }

    fn open(&self, before: &Absent) {
        let (config, began) = (&before.config, Instant::now());
        let found = found_at(&config.path);
        let opened = self.try_open(config);
        self.resetter.is_done(&config.name);
        match opened {
            Ok(volume) if self.is_ending.load(SeqCst) => volume.stop(Duration::ZERO),
            Ok(volume) => {
                self.runs.forget_last_of(&config.name);
                self.trash.begin_again(&config.name);
                self.ground.enter(volume);
                let seconds = began.elapsed().as_secs_f64();
                tracing::info!(volume = %config.name, seconds, "the volume is watched again");
            }
            Err(error) => {
                if let VolumeError::Store { source, .. } = &error
                    && source.is_damage()
                {
                    *self.damage.lock() = Some(source.to_string());
                }
                let absent = Absent::new(config, &self.home, found, &error);
                self.ground.leave(absent.after(Some(before)));
            }
        }
        purge_sys::memory::give_back();
    }

    fn try_open(&self, config: &VolumeConfig) -> Result<Arc<Volume>, VolumeError> {
        let failed = |source| VolumeError::Store {
            name: config.name.clone(),
            source,
        };
        let mut opened = volume::open(config, &self.home)?;
        self.check_number(&opened).map_err(failed)?;
        let turns = self.turns.lock().get(&config.name).cloned();
        opened.share(turns.unwrap_or_default());
        let (plans, audit) = (self.plans.clone(), Arc::clone(&self.audit));
        let witnesses = Arc::clone(&self.witnesses);
        let unfinished = Unfinished::find(&self.runs, plans, &self.home.state_dir, audit, witnesses);
        let unfinished = unfinished.map_err(failed)?;
        // What was in keeping for this volume was of a mark that is no more.
        let mut nothing = Handover::default();
        let volume = Volume::start(config.clone(), &self.home, opened, &mut nothing, &unfinished)?;
        let saved = unfinished.save(&self.runs, |other| other != config.name);
        if let Err(error) = saved.and_then(|()| self.plans.settle(&self.runs)) {
            tracing::error!(volume = %config.name, %error, "how runs ended that were cut short cannot be saved");
        }
        Ok(volume)
    }

    /// Volumes that have one number would share an index.
    fn check_number(&self, opened: &Opened) -> Result<(), StoreError> {
        let is_the_same = |v: &Arc<Volume>| u32::from(v.watched.index.read().home().1.0) == opened.number();
        match self.ground.volumes().iter().find(|v| is_the_same(v)) {
            None => Ok(()),
            Some(other) => Err(StoreError::Corrupt {
                doing: "tell volumes apart",
                why: format!("volume {} has the number {}", other.config.name, opened.number()),
            }),
        }
    }
}
