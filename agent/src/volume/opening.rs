//! What an earlier process left of a volume: the store's rows and, beside them, journal and checkpoint.
//!
//! ```text
//! store whole                    its rows, and the uses in the journal that it may not hold yet
//! store lost or set aside        nothing of it: a scan finds the files, and their clocks come from the newest whole
//!                                checkpoint and the journal since
//! store older than what lies beside it    damaged: some of its writes are lost, so its clocks may be too early
//! ```

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use prost::Message;

use super::beside::directory;
use super::coverage::{Break, Cause, VolumeRecord};
use super::reset;
use super::{Home, Turns, VolumeConfig, VolumeError};
use purge_index::checkpoint::{self, Remembered};
use purge_index::journal::{self, Entry, Identity, Journal, Left};
use purge_index::{Index, Record, Store, StoreError, VolumeId};
use purge_model::{Inode, Seconds};
use purge_sys::stat::{self, magic};

/// What an earlier process left of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing: the first scan begins now.
    Unknown,
    /// Part of a first scan that was interrupted a moment ago: it begins again, and believes what it would have.
    Interrupted,
    /// An index, or the clocks of one that was lost. What is in neither was made unseen.
    Indexed,
}

impl Past {
    fn words(self) -> &'static str {
        match self {
            Self::Unknown => "nothing of an earlier process",
            Self::Interrupted => "a first scan that was interrupted",
            Self::Indexed => "an earlier index",
        }
    }
}

/// A volume as it was left, not watched yet.
#[derive(Debug)]
pub struct Opened {
    pub(super) record: VolumeRecord,
    pub(super) past: Past,
    pub(super) index: Index,
    pub(super) journal: Journal,
    /// Used, as the journal says, whether or not the index knows it.
    pub(super) used_lately: Vec<Inode>,
    /// Until when everything that was seen is here.
    pub(super) seen_until: Seconds,
    /// Something of what was seen is not here.
    pub(super) incomplete: bool,
    pub(super) cause: Cause,
    pub(super) turns: Turns,
}

impl Opened {
    /// Its number in the store: no other volume's.
    pub fn number(&self) -> u32 {
        self.record.id
    }

    /// Who worked in its trash before goes on with that.
    pub fn share(&mut self, turns: Turns) {
        self.turns = turns;
    }

    /// The stretch between the process that left this and one that has watched since `armed_at`.
    pub(super) fn time_between(&self, armed_at: Seconds, queued: bool, clock_unknown: bool) -> Break {
        Break {
            seen_until: self.seen_until,
            armed_at,
            unknown: self.past != Past::Unknown && (self.incomplete || (clock_unknown && !queued)),
            queued,
            ordered: false,
            cause: self.cause,
        }
    }
}

/// Opens what was left of the volume. `now` is the present moment.
///
/// # Errors
/// [`VolumeError::Store`] when the store cannot be read or is damaged, [`VolumeError::Replaced`] when another file system
/// was indexed.
pub(super) fn open(
    home: &Home,
    config: &VolumeConfig,
    identity: Identity,
    now: Seconds,
) -> Result<Opened, VolumeError> {
    let failed = |source| VolumeError::Store {
        name: config.name.clone(),
        source,
    };
    let replaced = || VolumeError::Replaced {
        name: config.name.clone(),
        path: config.path.display().to_string(),
    };
    let (store, precision) = (&home.store, config.precision);
    let dir = directory(&home.state_dir, &config.name);
    let broken = |source| VolumeError::Journal {
        name: config.name.clone(),
        path: dir.clone(),
        source,
    };
    let mut stored = stored_record(store, &config.name).map_err(failed)?;
    let mut watched_since = now;
    if let Some(record) = stored.as_ref().filter(|r| !r.identity().is(identity)) {
        let is_reset = reset::is_approved(&home.state_dir, &config.name, identity);
        if !is_reset && !is_adopted(config, record.identity(), identity) {
            return Err(replaced());
        }
        tracing::warn!(volume = %config.name, "a new file system lies at the volume's path, and is adopted: its index starts from nothing");
        if is_reset {
            reset::set_aside(&home.state_dir, &config.name).map_err(broken)?;
        }
        let id = VolumeId(u16::try_from(record.id).unwrap_or(u16::MAX));
        store.clear_volume(id).map_err(failed)?;
        remove_dir(&dir).map_err(broken)?;
        stored = None;
        // A plan of this second may be of the file system that lay here before.
        watched_since = now.plus(1);
    }
    if stored.is_some() {
        reset::forget(&home.state_dir, &config.name);
    }
    let (journal, left) = Journal::open(&dir, identity).map_err(broken)?;
    let newest = checkpoint::newest_head(&dir, identity);
    if let Some(head) = &newest {
        journal.begin_after(head.journal);
    }
    let Some(mut record) = stored else {
        return rebuild(
            (home, &config.name),
            journal,
            left,
            None,
            watched_since,
            precision,
        )
        .map_err(failed);
    };
    // What an earlier agent did not know of it.
    record.identify(identity);
    let beside = newest
        .as_ref()
        .and_then(|head| VolumeRecord::decode(&*head.record).ok())
        .map_or(0, |r| r.stored_journal)
        .max(left.stored_until);
    if record.scanned && beside > record.stored_journal {
        let why = format!(
            "it has lost writes: it holds uses up to journal segment {}, and {beside} were stored",
            record.stored_journal
        );
        let doing = "be believed";
        return Err(failed(StoreError::Corrupt { doing, why }));
    }
    journal.begin_after(record.stored_journal);
    if !record.scanned {
        return rebuild((home, &config.name), journal, left, Some(record), now, precision).map_err(failed);
    }
    let id = VolumeId(u16::try_from(record.id).unwrap_or(u16::MAX));
    let mut index = Index::load(store.clone(), id).map_err(failed)?;
    let mut opened_until = Seconds(record.last_alive);
    let mut used_lately = Vec::new();
    for entry in &left.uses {
        match entry {
            // What lies ahead was written before the agent's time was set back, and says nothing of this one.
            Entry::Seen(until) if *until <= now => opened_until = opened_until.max(*until),
            Entry::Seen(_) => {}
            Entry::Uses(at, inodes) => {
                let mut uses = index.uses();
                inodes.iter().for_each(|ino| {
                    uses.record(*ino, *at);
                });
                // Also what the index knows: it may still have what went to the trash shortly before a kill.
                used_lately.extend(inodes);
            }
            Entry::Gap(at, _) => {
                record.add_gap(*at, *at, Cause::Overflow, config.gap_tolerance, true);
            }
        }
    }
    Ok(Opened {
        record,
        past: Past::Indexed,
        index,
        journal,
        used_lately,
        seen_until: opened_until,
        incomplete: false,
        cause: Cause::Stopped,
        turns: Turns::default(),
    })
}

/// Whether another file system than the one in the index is taken in its place: a tmpfs is a new one with each mount; else the
/// configuration says so. A directory on which nothing is mounted is none: its file system may be about to be mounted.
pub(super) fn is_adopted(config: &VolumeConfig, known: Identity, found: Identity) -> bool {
    let is_tmpfs = |i: Identity| i.kind() == magic::TMPFS;
    let may_be = config.adopt || (is_tmpfs(known) && is_tmpfs(found));
    may_be && stat::path(&config.path).is_ok_and(|root| root.mount_root)
}

fn remove_dir(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

pub(super) fn stored_record(store: &Store, name: &str) -> Result<Option<VolumeRecord>, StoreError> {
    let stored = store.get(Record::Volume, name.as_bytes())?;
    stored
        .map(|value| {
            VolumeRecord::decode(&*value).map_err(|e| StoreError::Corrupt {
                doing: "read a volume's record",
                why: e.to_string(),
            })
        })
        .transpose()
}

/// A number that no volume has: neither one in the store, nor one that was opened beside this one.
fn fresh_id(home: &Home) -> Result<u32, StoreError> {
    let mut highest = 0;
    for record in home.store.records(Record::Volume, b"") {
        let (_, value) = record?;
        highest = VolumeRecord::decode(&*value).map_or(highest, |r| r.id.max(highest));
    }
    let given = home.numbers.fetch_max(highest, SeqCst).max(highest);
    let fresh = given.saturating_add(1);
    home.numbers.store(fresh, SeqCst);
    Ok(fresh)
}

/// There is no whole index: the next scan is a first one, with what is known of clocks.
fn rebuild(
    (home, name): (&Home, &str),
    journal: Journal,
    left: Left,
    stored: Option<VolumeRecord>,
    now: Seconds,
    precision: u64,
) -> Result<Opened, StoreError> {
    let store = &home.store;
    let identity = journal.identity();
    let recalled = checkpoint::recall(journal.dir(), identity);
    let is_rebuild = recalled.is_some();
    let id = match &stored {
        Some(record) => record.id,
        None => fresh_id(home)?,
    };
    let mut incomplete = !left.whole;
    let mut entries = Vec::new();
    let mut remembered = Remembered::default();
    let mut taken = None;
    let checkpointed = match recalled {
        Some((head, clocks, is_newest)) => {
            incomplete |= !is_newest || (left.oldest > head.journal.saturating_add(1));
            for (number, path) in left.stored.iter().filter(|(n, _)| *n > head.journal) {
                let (more, whole) = std::fs::read(path)
                    .map(|bytes| journal::read_segment(&bytes, identity))
                    .unwrap_or_default();
                tracing::info!(
                    volume = name,
                    segment = number,
                    entries = more.len(),
                    whole,
                    "uses come back from the journal"
                );
                incomplete |= !whole;
                entries.extend(more);
            }
            remembered = clocks;
            taken = Some(head.taken);
            VolumeRecord::decode(&*head.record).ok()
        }
        None => None,
    };
    entries.extend(left.uses);
    let past = match (is_rebuild, &stored) {
        (true, _) => Past::Indexed,
        // Something was there, and its clocks are lost.
        (false, _) if checkpoint::exists(journal.dir()) => Past::Indexed,
        (false, Some(_)) => Past::Interrupted,
        (false, None) if left.oldest > 0 || home.is_fresh => Past::Indexed,
        (false, None) => Past::Unknown,
    };
    incomplete |= past == Past::Indexed && !is_rebuild;
    let mut record = stored
        .or(checkpointed)
        .unwrap_or_else(|| VolumeRecord::new(id, identity, now));
    record.identify(identity);
    (record.id, record.scanned) = (id, false);
    record.stored_journal = record.stored_journal.max(left.stored_until);
    let mut seen_until = match past {
        Past::Unknown => now,
        Past::Indexed | Past::Interrupted => Seconds(record.last_alive),
    };
    let mut early: Vec<(Inode, Seconds)> = Vec::new();
    for entry in &entries {
        match entry {
            Entry::Seen(until) if *until <= now => seen_until = seen_until.max(*until),
            Entry::Seen(_) => {}
            Entry::Uses(at, inodes) => {
                remembered.replay(entry, precision, now);
                early.extend(inodes.iter().map(|ino| (*ino, *at)));
            }
            Entry::Gap(at, _) => {
                record.add_gap(*at, *at, Cause::Overflow, 0, true);
            }
        }
    }
    if let Some(taken) = taken {
        // What was hidden by a precision window when the checkpoint was taken, or is now.
        remembered.delay(taken.minus(precision), precision, now);
    }
    // Uses that were only remembered while a first scan ran are lost if the journal is not whole.
    if past == Past::Interrupted && !left.whole {
        seen_until = Seconds(record.coverage_since);
        incomplete = false;
    }
    let volume = VolumeId(u16::try_from(id).unwrap_or(u16::MAX));
    store.clear_volume(volume)?;
    let mut index = Index::new(store.clone(), volume);
    tracing::info!(
        volume = name,
        files = remembered.len(),
        uses = early.len(),
        found = past.words(),
        incomplete,
        "a scan makes the index"
    );
    index.await_scan();
    index.recall(remembered, &early);
    Ok(Opened {
        record,
        past,
        index,
        journal,
        used_lately: early.into_iter().map(|(ino, _)| ino).collect(),
        seen_until,
        incomplete,
        cause: match is_rebuild || past == Past::Indexed {
            true => Cause::IndexRebuilt,
            false => Cause::Stopped,
        },
        turns: Turns::default(),
    })
}
