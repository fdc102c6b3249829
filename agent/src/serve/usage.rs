//! The report of who uses how much.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;

use purge_proto::v1;
use rustc_hash::FxHashMap;
use tonic::Status;

use super::convert;
use crate::config::{group_name, know_group_names, know_user_names, user_name};
use crate::host::{Host, HostError, lossy};
use crate::model::Seconds;
use crate::purge::holds::timestamp;
use crate::query::snapshot::Snapshot;
use crate::query::usage::{self, By, Subject};

/// A message of a stream has so many rows at most, and is some tens of KiB.
const ROWS_AT_ONCE: usize = 512;

/// An answer, before it is written down: all numbers are of one moment, and the index goes on.
#[derive(Debug)]
pub struct Report {
    volumes: Vec<OfVolume>,
    /// Those with the most bytes first; of equal ones in the order of their names, as far as that is settled.
    order: Vec<Place>,
    /// So many of them are in their order. Half a million directories may be equally large, and the first rows are wanted first.
    settled: usize,
    now: Seconds,
}

/// A volume, and a line of its snapshot.
type Place = (u16, u32);

#[derive(Debug)]
struct OfVolume {
    name: String,
    taken: Snapshot,
    /// Of users and groups.
    names: FxHashMap<u32, String>,
}

impl Report {
    /// Asks every volume that is wanted; with `only`, for this user alone.
    ///
    /// # Errors
    /// When there is no such volume, the index is damaged, or project ids are not told.
    pub fn take(host: &Host, r: &v1::UsageRequest, by: By, only: Option<u32>) -> Result<Self, HostError> {
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
            volume.sync();
            let at = (Seconds::judged(), volume.condition().gap_end);
            usage::refresh(&volume.watched.index, &volume.watched.counting, at)?;
            let index = volume.watched.index.read();
            let of_volume = Snapshot::of(&index, by, limit, only, !r.without_ages);
            taken.push((volume.config.name.clone(), of_volume));
        }
        Ok(Self::of(by, taken, limit))
    }

    /// Of what was taken from each volume, the first so many rows (0: all).
    pub fn of(by: By, taken: Vec<(String, Snapshot)>, limit: usize) -> Self {
        let volumes: Vec<OfVolume> = taken
            .into_iter()
            .map(|(name, taken)| OfVolume::new(name, taken, by))
            .collect();
        let mut order: Vec<Place> = Vec::with_capacity(volumes.iter().map(|v| v.taken.order().len()).sum());
        for (v, volume) in (0u16..).zip(&volumes) {
            order.extend(volume.taken.order().iter().map(|i| (v, *i)));
        }
        if volumes.len() > 1 {
            // Each volume's come in order: these are merged.
            order.sort_by_key(|place| Reverse(bytes(&volumes, *place)));
        }
        if limit > 0 {
            order.truncate(limit);
        }
        Self {
            volumes,
            order,
            settled: 0,
            now: Seconds::now(),
        }
    }

    /// Brings the first `wanted` rows into their order.
    fn settle(&mut self, wanted: usize) {
        let Self {
            volumes,
            order,
            settled,
            ..
        } = self;
        while *settled < wanted {
            let rest = order.get_mut(*settled..).unwrap_or_default();
            let Some(first) = rest.first().map(|place| bytes(volumes, *place)) else {
                return;
            };
            let equal = rest.iter().take_while(|place| bytes(volumes, **place) == first);
            let equal = equal.count();
            if let Some(equal) = rest.get_mut(..equal).filter(|e| e.len() > 1) {
                equal.sort_unstable_by(|a, b| key(volumes, *a).cmp(&key(volumes, *b)));
            }
            *settled = settled.saturating_add(equal);
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
        let rows = rows.iter().filter_map(|(v, i)| {
            let volume = self.volumes.get(usize::from(*v))?;
            volume.row(*i, self.now)
        });
        let as_of = self.volumes.iter().map(|v| v.taken.as_of).min();
        let subjects: usize = self.volumes.iter().map(|v| v.taken.subjects).sum();
        v1::UsageReport {
            rows: rows.collect(),
            as_of: as_of.map(timestamp),
            subjects: u64::try_from(subjects).unwrap_or(u64::MAX),
        }
    }

    /// Sends all rows, a few at a time, in one message at least.
    ///
    /// # Errors
    /// None: whoever takes no more has heard enough.
    pub fn send(mut self, each: &mut dyn FnMut(v1::UsageReport) -> bool) -> Result<(), Status> {
        let mut begin = 0usize;
        loop {
            let end = begin.saturating_add(ROWS_AT_ONCE).min(self.len());
            if !each(self.part(begin..end)) || end >= self.len() {
                return Ok(());
            }
            begin = end;
        }
    }
}

fn bytes(volumes: &[OfVolume], (volume, line): Place) -> u64 {
    let volume = volumes.get(usize::from(volume));
    volume.and_then(|v| v.taken.line(line)).map_or(0, |l| l.bytes)
}

/// By what equally large rows are sorted.
fn key(volumes: &[OfVolume], (volume, line): Place) -> (Cow<'_, [u8]>, u16) {
    let of = volumes.get(usize::from(volume));
    (of.map_or_else(Cow::default, |v| v.subject(line)), volume)
}

impl OfVolume {
    /// Names are asked for only now, without the index: somebody may be slow to answer.
    fn new(name: String, taken: Snapshot, by: By) -> Self {
        let lines = taken.order().iter().filter_map(|i| taken.line(*i));
        let ids = lines.filter_map(|line| match line.subject {
            Subject::Id(id) => Some(id),
            Subject::Directory(_) => None,
        });
        let ids: Vec<u32> = ids.collect();
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
    fn subject(&self, line: u32) -> Cow<'_, [u8]> {
        match self.taken.line(line).map(|l| l.subject) {
            Some(Subject::Id(id)) => match self.names.get(&id) {
                Some(name) => Cow::Borrowed(name.as_bytes()),
                None => Cow::Owned(id.to_string().into_bytes()),
            },
            Some(Subject::Directory(_)) => match self.taken.path(line).unwrap_or_default() {
                [] => Cow::Borrowed(b"."),
                path => Cow::Borrowed(path),
            },
            None => Cow::default(),
        }
    }

    fn row(&self, line: u32, now: Seconds) -> Option<v1::UsageRow> {
        let subject = lossy(&self.subject(line));
        let sums = self.taken.line(line)?;
        Some(convert::usage_row(
            &self.name,
            subject,
            sums,
            self.taken.ages(line),
            now,
        ))
    }
}
