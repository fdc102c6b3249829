//! Deleted files that processes keep on the disk: by descriptors opened with O_PATH, which no lease sees, in sockets' queues, by mounts.
//!
//! ```text
//!   plan        a few files of each owner are drawn, with their handles      policy::sample
//!   run         deletes
//!   too little came free
//!               a handle that still opens, of a file without a name: a process keeps it
//!               what those stand for is taken off the promise
//!   half of what an owner lost, or more, is kept
//!               the owner's files are left out of the watermark's plans, as long as it is
//! ```
//! So one user who keeps deleted files does not stop a volume's watermark, and a snapshot, which keeps blocks and no file, still does.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use prost::Message;
use purge_proto::units::format_size;
use rustc_hash::FxHashSet;

use super::Brakes;
use super::promised::Sum;
use crate::volume::Volume;
use purge_base::accounts::user_name;
use purge_base::clock;
use purge_collect::open_files;
use purge_model::{Inode, Seconds};
use purge_policy::sample::stands_for;
use purge_removal::plans::{OwnerProbes, Probe};
use purge_sys::handle::Handle;
use purge_sys::stat;

/// The number of processes that are named.
const HOLDERS_NAMED_MAX: usize = 3;
/// A process that keeps files ends, or its owner is told to: afterwards they count again in any case.
const LEFT_OUT_FOR: u64 = 7 * 86_400;

/// An owner whose deleted files do not come free.
#[derive(Clone, PartialEq, Message)]
pub(in crate::host) struct LeftOut {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    at: u32,
    /// What is kept, by the look at some.
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(uint64, tag = "4")]
    files: u64,
    /// Some of the files.
    #[prost(message, repeated, tag = "5")]
    probes: Vec<Probe>,
    /// Who keeps them, for a person.
    #[prost(string, tag = "6")]
    holders: String,
}

impl LeftOut {
    pub(in crate::host) fn in_words(&self) -> String {
        format!(
            "files of {} (uid {}): {} in {} deleted files of theirs did not come free, for {} keeps them; the owner's other files stay \
             until that ends",
            user_name(self.uid),
            self.uid,
            format_size(self.bytes),
            self.files,
            self.holders
        )
    }

    /// Whether at least half of what was kept still is.
    fn is_kept(&self, mount: &OwnedFd) -> bool {
        let kept = self
            .probes
            .iter()
            .filter(|probe| fate(mount, probe) == Fate::Kept)
            .count();
        let is_late = Seconds(self.at).age_at(clock::now()) > LEFT_OUT_FOR;
        kept > 0 && kept.saturating_mul(2) >= self.probes.len() && !is_late
    }
}

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is on the disk, and has no name.
    Kept,
    /// It has a name: it was not deleted.
    There,
    Freed,
}

fn fate(mount: &OwnedFd, probe: &Probe) -> Fate {
    let handle = Handle::new(probe.kind, &probe.handle);
    let opened = handle.and_then(|handle| handle.open_path(mount).ok());
    let found = opened.and_then(|fd| stat::open_file(fd).ok());
    match found.filter(|found| found.stat.ino == probe.ino) {
        Some(found) if found.stat.links == 0 => Fate::Kept,
        Some(_) => Fate::There,
        None => Fate::Freed,
    }
}

/// What became of one owner's files that were drawn: bytes and files.
#[derive(Default)]
struct Found {
    all: (f64, f64),
    of_kept: (f64, f64),
    kept: Vec<Probe>,
}

impl Found {
    fn add(&mut self, part: (f64, f64), probe: &Probe, fate: Fate) {
        if fate == Fate::There {
            return;
        }
        let plus = |sum: (f64, f64)| (sum.0 + part.0, sum.1 + part.1);
        self.all = plus(self.all);
        if fate == Fate::Kept {
            self.of_kept = plus(self.of_kept);
            self.kept.push(probe.clone());
        }
    }

    /// Half of it is kept, or more.
    fn is_withheld(&self) -> bool {
        let half = |kept: f64, all: f64| kept > 0.0 && kept * 2.0 >= all;
        half(self.of_kept.0, self.all.0) || half(self.of_kept.1, self.all.1)
    }
}

impl Brakes {
    /// Owners whose files a watermark leaves alone now.
    pub(in crate::host) fn left_out(&self, volume: &Volume) -> Vec<LeftOut> {
        let name = &volume.config.name;
        let known = self.known.get(name).left_out;
        if known.is_empty() {
            return known;
        }
        let Ok(mount) = volume.watched.open_mount() else {
            return known;
        };
        let (left, past): (Vec<_>, Vec<_>) = known.into_iter().partition(|of| of.is_kept(&mount));
        if !past.is_empty() {
            for owner in &past {
                tracing::info!(volume = %name, uid = owner.uid, "no process keeps deleted files of that owner: the watermark may take others again");
            }
            self.known.change(name, |k| k.left_out.clone_from(&left));
        }
        left
    }
}

/// What of a run's promise processes keep: it is taken off, and owners of whom half is kept are named.
pub(super) fn without_kept(volume: &Volume, drawn: &[OwnerProbes], sum: Sum) -> (Sum, Vec<LeftOut>) {
    let Ok(mount) = volume.watched.open_mount() else {
        return (sum, Vec::new());
    };
    let mut of_owner: BTreeMap<u32, Found> = BTreeMap::new();
    for of in drawn {
        for probe in &of.probes {
            let part = stands_for((probe.takes, probe.weight), of.threshold);
            let owner = if probe.uid == 0 { of.uid } else { probe.uid };
            let found = of_owner.entry(owner).or_default();
            found.add(part, probe, fate(&mount, probe));
        }
    }
    let kept = of_owner.values().map(|found| found.of_kept);
    let (bytes, files) = kept.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let withheld = of_owner.into_iter().filter(|(_, found)| found.is_withheld());
    let left_out = withheld.map(|(uid, found)| LeftOut {
        uid,
        at: clock::now().0,
        bytes: found.of_kept.0 as u64,
        files: found.of_kept.1 as u64,
        holders: holders(&found.kept),
        probes: found.kept,
    });
    let owners: Vec<LeftOut> = left_out.collect();
    for owner in &owners {
        tracing::warn!(volume = %volume.config.name, uid = owner.uid, why = %owner.in_words(), "deleted files do not come free");
    }
    (sum.without(bytes as u64, files as u64), owners)
}

/// Which processes keep some of these files, for a person.
fn holders(kept: &[Probe]) -> String {
    let inodes: FxHashSet<Inode> = kept.iter().map(|probe| probe.ino).collect();
    named(open_files::who_keeps(&inodes)).unwrap_or_else(|| {
        "a process that cannot be found (a descriptor that waits in a socket, or a mount)".into()
    })
}

/// Some of these processes, and how many more there are.
pub(super) fn named(mut found: Vec<String>) -> Option<String> {
    let more = found.len().saturating_sub(HOLDERS_NAMED_MAX);
    found.truncate(HOLDERS_NAMED_MAX);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    (!found.is_empty()).then(|| found.join(", "))
}
