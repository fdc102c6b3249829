//! The report of who uses how much.

use std::ops::Range;

use purge_proto::v1;
use rustc_hash::FxHashMap;

use super::convert;
use super::open::Open;
use crate::host::{Host, HostError, lossy};
use purge_base::accounts::{group_name, know_group_names, know_user_names, user_name};
use purge_base::clock;
use purge_index::Index;
use purge_model::Seconds;
use purge_query::snapshot::{Snapshot, lightness};
use purge_query::usage::{self, By, Subject};

/// Bytes of a row, of one among many, and of a directory in a copy of the tree.
const ROW_BYTES: usize = 512;
const PACKED_ROW_BYTES: usize = 48;
const DIRECTORY_BYTES: usize = 32;
/// More rows than these are packed.
const MANY: usize = 10_000;

/// This number of rows is sorted before the first is sent.
const SORTED_FIRST: usize = 4096;

/// An answer, before it is written down: all numbers are of one moment, and the index goes on.
#[derive(Debug)]
pub struct Report {
    volumes: Vec<OfVolume>,
    /// Every row: [`lightness`], volume and number in one, so that the smallest is the one with the most bytes.
    order: Vec<u128>,
    /// This number of them are the first ones, sorted. Of half a million rows the first are wanted first.
    sorted: usize,
    /// This number of them are in their final order: equally large ones in that of their names.
    settled: usize,
    now: Seconds,
}

/// A row of a volume.
#[derive(Clone, Copy)]
struct Place {
    volume: u16,
    row: u32,
}

impl Place {
    fn key(self, bytes: u64) -> u128 {
        lightness(bytes) | u128::from(self.volume) << u32::BITS | u128::from(self.row)
    }

    fn of(key: u128) -> Self {
        Self {
            volume: (key >> u32::BITS) as u16,
            row: key as u32,
        }
    }
}

#[derive(Debug)]
struct OfVolume {
    name: String,
    taken: Snapshot,
    /// Of users and groups.
    names: FxHashMap<u32, String>,
}

impl Report {
    /// Asks every volume that is wanted; with `only`, for this user alone. What it takes is charged to the call before.
    ///
    /// # Errors
    /// When there is no such volume or no room, the index is damaged, or project ids are not told.
    pub fn take(
        host: &Host,
        r: &v1::UsageRequest,
        by: By,
        only: Option<u32>,
        open: &Open,
    ) -> Result<Self, HostError> {
        let volumes = host.volumes();
        let mut wanted = volumes
            .iter()
            .filter(|v| r.volume.is_empty() || v.config.name == r.volume)
            .peekable();
        if wanted.peek().is_none() && !r.volume.is_empty() {
            host.volume(&r.volume)?;
        }
        let limit = usize::try_from(r.limit).unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        for volume in wanted {
            if by == By::Project && !volume.watched.projects.are_told() {
                return Err(HostError::Refused(format!(
                    "this kernel tells project ids only of open files (Linux 6.17 and later: of all), and the agent opens those of volume {} only \
                     if it is mounted with prjquota, or has a [[quota]] with subject = \"project\"",
                    volume.config.name
                )));
            }
            volume.sync_soon();
            let at = (clock::judged(), volume.condition().gap_end);
            usage::refresh(&volume.watched.index, &volume.watched.counting, at)?;
            let index = volume.watched.index.read();
            let takes = bytes_of(&index, by, limit);
            open.charge(takes)
                .map_err(|full| HostError::TooMuch(full.message().into()))?;
            let of_volume = Snapshot::of(&index, by, limit, only, !r.without_ages);
            taken.push((volume.config.name.clone(), of_volume));
        }
        Ok(Self::of(by, taken, limit))
    }

    /// Of what was taken from each volume, the first `limit` rows (0: all).
    pub fn of(by: By, taken: Vec<(String, Snapshot)>, limit: usize) -> Self {
        let volumes: Vec<OfVolume> = taken
            .into_iter()
            .map(|(name, taken)| OfVolume::new(name, taken, by))
            .collect();
        let mut order: Vec<u128> = Vec::with_capacity(volumes.iter().map(|v| v.taken.len()).sum());
        for (volume, of) in (0u16..).zip(&volumes) {
            let rows = (0u32..).zip(of.taken.bytes());
            order.extend(rows.map(|(row, bytes)| Place { volume, row }.key(bytes)));
        }
        if (1..order.len()).contains(&limit) {
            order.select_nth_unstable(limit);
            order.truncate(limit);
        }
        Self {
            volumes,
            order,
            sorted: 0,
            settled: 0,
            now: clock::now(),
        }
    }

    /// Sorts the first `wanted` rows by their bytes; if there are more, a good many of them first and all others the next time.
    fn sort(&mut self, wanted: usize) {
        while self.sorted < wanted.min(self.order.len()) {
            let rest = self.order.get_mut(self.sorted..).unwrap_or_default();
            let most = match self.sorted {
                0 => wanted.max(SORTED_FIRST),
                _ => usize::MAX,
            };
            let sorted = match rest.len() > most {
                true => rest.select_nth_unstable(most).0,
                false => rest,
            };
            sorted.sort_unstable();
            self.sorted = self.sorted.saturating_add(sorted.len());
        }
    }

    /// Brings the first `wanted` rows into their order.
    fn settle(&mut self, wanted: usize) {
        while self.settled < wanted.min(self.order.len()) {
            self.sort(self.settled.saturating_add(1));
            let bytes = |key: &u128| key >> u64::BITS;
            let rest = self.order.get(self.settled..self.sorted).unwrap_or_default();
            let equal = rest
                .iter()
                .take_while(|key| rest.first().map(bytes) == Some(bytes(key)));
            let equal = self.settled.saturating_add(equal.count());
            // More may be equal among those that are not sorted yet.
            if equal == self.sorted && self.sorted < self.order.len() {
                self.sort(usize::MAX);
                continue;
            }
            if let Some(equal) = self.order.get_mut(self.settled..equal).filter(|e| e.len() > 1) {
                let volumes = &self.volumes;
                equal.sort_by_cached_key(|key| {
                    let place = Place::of(*key);
                    let volume = volumes.get(usize::from(place.volume));
                    (volume.map(|v| v.subject(place.row)), place.volume)
                });
            }
            self.settled = equal;
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Some of the rows, with what concerns all of them.
    pub fn part(&mut self, range: Range<usize>) -> v1::UsageReport {
        self.settle(range.end);
        let rows = self.order.get(range).unwrap_or(&[]);
        let rows = rows.iter().filter_map(|key| {
            let place = Place::of(*key);
            let volume = self.volumes.get(usize::from(place.volume))?;
            volume.row(place.row, self.now)
        });
        let as_of = self.volumes.iter().map(|v| v.taken.as_of).min();
        let subjects: usize = self.volumes.iter().map(|v| v.taken.subjects).sum();
        v1::UsageReport {
            rows: rows.collect(),
            as_of: as_of.map(convert::timestamp),
            subjects: u64::try_from(subjects).unwrap_or(u64::MAX),
        }
    }
}

/// How many bytes the rows of a volume take at most.
fn bytes_of(index: &Index, by: By, limit: usize) -> u64 {
    let ledger = index.ledger();
    let (rows, more) = match by {
        By::User => (ledger.users().len(), 0),
        By::Group => (ledger.groups().len(), 0),
        By::Project => (ledger.projects().len(), 0),
        // Tables over all directories, and their names.
        By::Directory(_) => (
            index.dirs().len(),
            index.dirs().table_len().saturating_mul(DIRECTORY_BYTES),
        ),
    };
    let rows = if limit == 0 { rows } else { rows.min(limit) };
    // Many are packed.
    let each = if rows > MANY { PACKED_ROW_BYTES } else { ROW_BYTES };
    rows.saturating_mul(each).saturating_add(more) as u64
}

impl OfVolume {
    /// Names are asked for only now, without the index: a directory service may be slow to answer.
    fn new(name: String, taken: Snapshot, by: By) -> Self {
        let ids = (0u32..).take(taken.len()).map(|row| match taken.subject(row) {
            Some(Subject::Id(id)) => Some(id),
            _ => None,
        });
        let ids: Vec<u32> = match by {
            By::Directory(_) => Vec::new(),
            _ => ids.flatten().collect(),
        };
        let names = match by {
            By::User => {
                know_user_names(ids.iter().copied());
                ids.into_iter().map(|id| (id, user_name(id))).collect()
            }
            By::Group => {
                know_group_names(ids.iter().copied());
                ids.into_iter().map(|id| (id, group_name(id))).collect()
            }
            By::Project | By::Directory(_) => FxHashMap::default(),
        };
        Self { name, taken, names }
    }

    /// As it is told.
    fn subject(&self, row: u32) -> Vec<u8> {
        match self.taken.subject(row) {
            Some(Subject::Id(id)) => match self.names.get(&id) {
                Some(name) => name.clone().into_bytes(),
                None => id.to_string().into_bytes(),
            },
            Some(Subject::Directory(id)) => match self.taken.path(id).unwrap_or_default() {
                root if root.is_empty() => b".".to_vec(),
                path => path,
            },
            None => Vec::new(),
        }
    }

    fn row(&self, row: u32, now: Seconds) -> Option<v1::UsageRow> {
        let subject = lossy(&self.subject(row));
        Some(convert::usage_row(
            &self.name,
            subject,
            &self.taken.row(row)?,
            now,
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cmp::Reverse;

    use super::*;
    use purge_index::{Found, Store, VolumeId, testing};
    use purge_model::{Kind, LastUse, Source};

    /// Bytes, directory, volume.
    type Expected = (u64, String, String);

    /// Two volumes with this number of directories, each of them with a file of one of a few sizes.
    fn snapshots(directories: u64, sizes: u64) -> (Vec<(String, Snapshot)>, Vec<Expected>) {
        let mut expected = Vec::new();
        let snapshots = ["a", "b"].map(|volume| {
            let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
            index.set_root(&testing::stat(2, Kind::Directory, 0, 1));
            let mut put = |stat, parent, name: &str| {
                let found = Found {
                    stat,
                    parent,
                    name: name.as_bytes(),
                    first_use: LastUse {
                        at: Seconds(1),
                        source: Source::Observed,
                    },
                };
                index.upsert(found).unwrap();
                index.dirs().of_inode(stat.ino)
            };
            for i in 0..directories {
                let (name, size) = (format!("d{}", i * 7919 % directories), i % sizes);
                let root = purge_index::DirId::ROOT;
                let directory = put(testing::stat(10 + i, Kind::Directory, 0, 1), root, &name).unwrap();
                put(testing::stat(1_000_000 + i, Kind::File, size, 1), directory, "f");
                expected.push((size, name, volume.to_owned()));
            }
            (
                volume.to_owned(),
                Snapshot::of(&index, By::Directory(1), 0, None, false),
            )
        });
        expected.sort_by(|a, b| (Reverse(a.0), &a.1, &a.2).cmp(&(Reverse(b.0), &b.1, &b.2)));
        (snapshots.into(), expected)
    }

    /// Whether most rows are equally large or hardly any, and at any end of the first part.
    #[test]
    fn all_rows_come_sorted_by_bytes_and_then_by_name() {
        for sizes in [1, 2, 3, 100, 1_000_000] {
            let (taken, expected) = snapshots(3000, sizes);
            let mut rows = Vec::new();
            let mut report = Report::of(By::Directory(1), taken, 0);
            for begin in (0..report.len()).step_by(512) {
                let part = report.part(begin..report.len().min(begin + 512));
                rows.extend(
                    part.rows
                        .into_iter()
                        .map(|row| (row.bytes, row.subject, row.volume)),
                );
            }
            assert!(rows == expected, "{sizes} sizes");
        }
    }

    #[test]
    fn a_limit_takes_those_with_the_most_bytes_of_all_volumes() {
        let (taken, expected) = snapshots(100, 1_000_000);
        let mut report = Report::of(By::Directory(1), taken, 7);
        assert_eq!(report.len(), 7);
        let rows: Vec<u64> = report.part(0..7).rows.iter().map(|row| row.bytes).collect();
        assert_eq!(rows, expected.iter().take(7).map(|row| row.0).collect::<Vec<_>>());
    }
}
