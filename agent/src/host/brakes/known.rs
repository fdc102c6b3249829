//! What is known of each volume's watermark, in `STATE_DIR/freed`: no restart lets a trigger go on that has stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use prost::Message;

use super::promised::Sum;
use super::withheld::LeftOut;
use crate::host::HostError;
use crate::host::space::space_of;
use crate::volume::Volume;
use purge_format::frame::{Frames, put_frame};
use purge_policy::freed::Moment;
use purge_sys::stat::{Space, magic};

/// What is known of a volume.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Known {
    #[prost(string, tag = "1")]
    pub(super) volume: String,
    /// A run, or the freeing of trash, whose effect is not known yet.
    #[prost(message, optional, tag = "2")]
    pub(super) pending: Option<Pending>,
    /// What was promised and came free since the last verdict.
    #[prost(message, optional, tag = "3")]
    pub(super) sum: Option<Sum>,
    /// Why nothing more is deleted.
    #[prost(message, optional, tag = "4")]
    pub(super) stopped: Option<Stopped>,
    /// The last verdict's figures.
    #[prost(message, optional, tag = "5")]
    pub(super) last: Option<Sum>,
    /// Owners whose deleted files processes keep.
    #[prost(message, repeated, tag = "6")]
    pub(super) left_out: Vec<LeftOut>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pending {
    /// The plan; empty: only trash was freed.
    #[prost(string, tag = "1")]
    pub(super) plan: String,
    #[prost(message, optional, tag = "2")]
    pub(super) before: Option<Stored>,
    /// When it was over; 0: it is not, as far as is known.
    #[prost(uint32, tag = "3")]
    pub(super) ended: u32,
    #[prost(message, optional, tag = "4")]
    pub(super) at_end: Option<Stored>,
    /// When it began.
    #[prost(uint32, tag = "5")]
    pub(super) began: u32,
    /// What the trash promised that was freed meanwhile.
    #[prost(message, optional, tag = "6")]
    pub(super) trash: Option<Sum>,
    /// The plans of that trash.
    #[prost(string, repeated, tag = "7")]
    pub(super) trash_plans: Vec<String>,
}

/// A [`Moment`].
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Stored {
    #[prost(uint64, tag = "1")]
    pub(super) used: u64,
    #[prost(uint64, tag = "2")]
    pub(super) inodes_used: u64,
    #[prost(uint64, tag = "3")]
    pub(super) allocated: u64,
    #[prost(uint64, tag = "4")]
    pub(super) files: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stopped {
    #[prost(uint32, tag = "1")]
    pub(super) at: u32,
    #[prost(message, optional, tag = "2")]
    pub(super) sum: Option<Sum>,
    /// Use at that time.
    #[prost(message, optional, tag = "3")]
    pub(super) moment: Option<Stored>,
    /// Processes with files without a name at that time, for a person.
    #[prost(string, tag = "4")]
    pub(super) nameless: String,
}

/// What is known of all volumes.
#[derive(Debug)]
pub(super) struct AllKnown {
    path: PathBuf,
    all: Mutex<BTreeMap<String, Known>>,
}

impl AllKnown {
    /// What earlier processes knew.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("freed");
        let bytes = fs::read(&path).unwrap_or_default();
        let frames = Frames::new(&bytes).filter_map(|body| Known::decode(body).ok());
        Self {
            path,
            all: Mutex::new(frames.map(|k| (k.volume.clone(), k)).collect()),
        }
    }

    /// What is known of a volume; nothing, if it is new.
    pub(super) fn get(&self, volume: &str) -> Known {
        self.all.lock().get(volume).cloned().unwrap_or_default()
    }

    /// Changes what is known of a volume, on disk as well.
    pub(super) fn change(&self, volume: &str, change: impl FnOnce(&mut Known)) {
        let mut all = self.all.lock();
        let known = all.entry(volume.to_owned()).or_insert_with(|| Known {
            volume: volume.to_owned(),
            ..Known::default()
        });
        let before = known.clone();
        change(known);
        if *known == before {
            return;
        }
        if let Err(error) = write(&self.path, &all) {
            let path = purge_sys::private::shown(&self.path);
            let path = path.display();
            tracing::error!(volume, %path, %error, "what the volume's watermark freed cannot be written; a restart forgets it");
        }
    }
}

fn write(path: &Path, all: &BTreeMap<String, Known>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for known in all.values() {
        put_frame(&mut bytes, |body| body.extend(known.encode_to_vec()));
    }
    let next = path.with_extension("new");
    let mut file = purge_sys::private::create(&next)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)
}

impl Stored {
    pub(super) fn moment(self) -> Moment {
        Moment {
            used: self.used,
            inodes_used: self.inodes_used,
            allocated: self.allocated,
            files: self.files,
        }
    }
}

impl Stopped {
    /// For a person.
    pub(super) fn why(&self) -> String {
        let sum = self.sum.unwrap_or_default().in_words();
        let why = "snapshots, copies that share blocks (reflinks), files that processes hold open, or as much that was written to files \
                   outside of the volume or without a name?";
        match self.nameless.is_empty() {
            true => format!("{sum}: {why}"),
            false => format!("{sum}: {why} Files without a name are open in {}", self.nameless),
        }
    }

    /// Whether the space has moved since: as much came free as was promised.
    pub(super) fn has_moved(&self, now: Moment) -> bool {
        let (then, sum) = (
            self.moment.unwrap_or_default().moment(),
            self.sum.unwrap_or_default(),
        );
        let (bytes, files) = (
            then.used.saturating_sub(now.used),
            then.inodes_used.saturating_sub(now.inodes_used),
        );
        (sum.wants_bytes && sum.promised_bytes > 0 && bytes >= sum.promised_bytes)
            || (sum.wants_files && sum.promised_files > 0 && files >= sum.promised_files)
    }
}

/// How full a volume is now.
pub(super) fn stored(volume: &Volume) -> Result<Stored, HostError> {
    let space = space_of(volume)?;
    let totals = volume.watched.index.read().totals();
    Ok(Stored {
        used: in_use(&space, volume.mount.magic),
        inodes_used: space.inodes_used,
        allocated: totals.allocated,
        files: totals.files,
    })
}

/// Bytes in use, to be compared with those of another moment. A data set of ZFS tells what its files take, and not what its snapshots hold:
/// what a file leaves to a snapshot is not in use by that, and does not come free either. There only what is available says what came free.
fn in_use(space: &Space, magic: u64) -> u64 {
    match magic {
        magic::ZFS => u64::MAX.saturating_sub(space.available),
        _ => space.used,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_snapshot_of_zfs_holds_has_not_come_free() {
        let space = |used, available| Space {
            used,
            available,
            inodes: 0,
            inodes_used: 0,
        };
        // A file of 300 is removed.
        let (before, held, free) = (space(700, 300), space(400, 300), space(400, 600));
        let came_free = |magic, after| in_use(&before, magic).saturating_sub(in_use(after, magic));
        assert_eq!(
            (came_free(magic::ZFS, &held), came_free(magic::ZFS, &free)),
            (0, 300)
        );
        assert_eq!(
            (came_free(magic::XFS, &held), came_free(magic::XFS, &free)),
            (300, 300)
        );
    }

    #[test]
    fn a_stop_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let sum = Sum {
            promised_bytes: 100,
            wants_bytes: true,
            ..Sum::default()
        };
        let stopped = Stopped {
            at: 7,
            sum: Some(sum),
            moment: Some(Stored {
                used: 1000,
                ..Stored::default()
            }),
            nameless: String::new(),
        };
        let known = AllKnown::load(dir.path());
        known.change("v", |k| k.stopped = Some(stopped.clone()));
        let again = AllKnown::load(dir.path()).get("v").stopped.unwrap();
        assert_eq!(again, stopped);
        let now = |used| Moment {
            used,
            ..Moment::default()
        };
        assert!(!again.has_moved(now(901)) && again.has_moved(now(900)));
        known.change("v", |k| k.stopped = None);
        assert_eq!(AllKnown::load(dir.path()).get("v").stopped, None);
    }
}
