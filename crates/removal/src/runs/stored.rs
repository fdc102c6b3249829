//! A run as it lies in the index store. See [`crate::stored`] for what may change.

use prost::Message;
use prost_types::Timestamp;

use super::run::{Failure, OwnerFailures, Run, RunState, Skipped};
use crate::fate::Skip;
use crate::stored::{Damaged, StoredTotals, seconds, timestamp, totals, words};
use purge_model::Totals;

/// Bytes of failures that a record names: paths may be long.
const FAILURES_BYTES_MAX: usize = 256 << 10;

#[derive(Clone, PartialEq, Message)]
struct StoredRun {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    plan: String,
    #[prost(string, tag = "3")]
    volume: String,
    #[prost(int32, tag = "4")]
    state: i32,
    #[prost(message, optional, tag = "5")]
    started: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    finished: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    deleted: Option<StoredTotals>,
    #[prost(message, optional, tag = "8")]
    trashed: Option<StoredTotals>,
    #[prost(message, optional, tag = "9")]
    archived: Option<StoredTotals>,
    #[prost(message, optional, tag = "10")]
    skipped: Option<StoredSkipped>,
    #[prost(message, repeated, tag = "11")]
    failed: Vec<StoredFailure>,
    #[prost(uint64, tag = "12")]
    failed_total: u64,
    #[prost(double, tag = "13")]
    seconds: f64,
    #[prost(string, tag = "14")]
    by: String,
    #[prost(string, tag = "15")]
    error: String,
    #[prost(message, optional, tag = "30")]
    trash_until: Option<Timestamp>,
    #[prost(message, optional, tag = "31")]
    restored: Option<StoredTotals>,
    #[prost(message, optional, tag = "32")]
    trash_freed: Option<Timestamp>,
    #[prost(message, optional, tag = "33")]
    trash_stuck: Option<StoredTotals>,
    #[prost(message, optional, tag = "34")]
    in_trash: Option<StoredTotals>,
    #[prost(message, repeated, tag = "40")]
    failed_by_owner: Vec<StoredOwner>,
    #[prost(string, repeated, tag = "70")]
    locked_by: Vec<String>,
    #[prost(string, repeated, tag = "80")]
    rules: Vec<String>,
    #[prost(message, optional, tag = "82")]
    skipped_inside: Option<StoredSkipped>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct StoredSkipped {
    #[prost(uint64, tag = "1")]
    accessed: u64,
    #[prost(uint64, tag = "2")]
    changed: u64,
    #[prost(uint64, tag = "3")]
    open: u64,
    #[prost(uint64, tag = "4")]
    locked: u64,
    #[prost(uint64, tag = "5")]
    held: u64,
    #[prost(uint64, tag = "6")]
    gone: u64,
    #[prost(uint64, tag = "7")]
    hardlinked: u64,
    #[prost(uint64, tag = "8")]
    unreached: u64,
    #[prost(uint64, tag = "9")]
    leased: u64,
    #[prost(uint64, tag = "10")]
    deep: u64,
    #[prost(uint64, tag = "11")]
    quota: u64,
    #[prost(uint64, tag = "12")]
    mounted: u64,
    #[prost(uint64, tag = "13")]
    protected: u64,
    #[prost(uint64, tag = "14")]
    many_names: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredFailure {
    #[prost(bytes = "vec", tag = "1")]
    path: Vec<u8>,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredOwner {
    #[prost(uint32, tag = "1")]
    uid: u32,
    #[prost(string, tag = "2")]
    owner: String,
    #[prost(uint64, tag = "3")]
    failed: u64,
}

impl StoredSkipped {
    fn counter(&mut self, why: Skip) -> &mut u64 {
        match why {
            Skip::Accessed => &mut self.accessed,
            Skip::Changed => &mut self.changed,
            Skip::Held => &mut self.held,
            Skip::Gone => &mut self.gone,
            Skip::Hardlinked => &mut self.hardlinked,
            Skip::Open => &mut self.open,
            Skip::Locked => &mut self.locked,
            Skip::Leased => &mut self.leased,
            Skip::Deep => &mut self.deep,
            Skip::Quota => &mut self.quota,
            Skip::Mounted => &mut self.mounted,
            Skip::Protected => &mut self.protected,
            Skip::ManyNames => &mut self.many_names,
        }
    }

    fn of(skipped: &Skipped) -> Self {
        let mut stored = Self {
            unreached: skipped.unreached,
            ..Self::default()
        };
        for why in Skip::ALL {
            *stored.counter(why) = skipped.count(why);
        }
        stored
    }

    fn read(mut self) -> Skipped {
        let mut skipped = Skipped {
            unreached: self.unreached,
            ..Skipped::default()
        };
        for why in Skip::ALL {
            skipped.add(why, *self.counter(why));
        }
        skipped
    }
}

/// The numbers of the states.
const STATES: [(i32, RunState); 5] = [
    (1, RunState::Running),
    (2, RunState::Completed),
    (3, RunState::Partial),
    (4, RunState::Cancelled),
    (5, RunState::Failed),
];

/// A run's record. Of its failures it names as many as it has room for.
pub(super) fn encode(run: &Run) -> Vec<u8> {
    let number = STATES.iter().find(|(_, state)| *state == run.state);
    let mut bytes = 0usize;
    let has_room = |f: &&Failure| {
        bytes = bytes.saturating_add(f.path.len()).saturating_add(f.error.len());
        bytes <= FAILURES_BYTES_MAX
    };
    let failed = run.failed.iter().take_while(has_room).map(|f| StoredFailure {
        path: f.path.clone(),
        error: f.error.clone(),
    });
    let owners = run.failed_by_owner.iter().map(|o| StoredOwner {
        uid: o.uid,
        owner: o.owner.clone(),
        failed: o.failed,
    });
    let stored = StoredRun {
        id: run.id.clone(),
        plan: run.plan.clone(),
        volume: run.volume.clone(),
        state: number.map_or(0, |(number, _)| *number),
        started: Some(timestamp(run.started)),
        finished: run.finished.map(timestamp),
        deleted: Some(run.deleted.into()),
        trashed: Some(run.trashed.into()),
        archived: Some(run.archived.into()),
        skipped: Some(StoredSkipped::of(&run.skipped)),
        failed: failed.collect(),
        failed_total: run.failed_total,
        seconds: run.seconds,
        by: run.by.clone(),
        error: run.error.clone().unwrap_or_default(),
        trash_until: run.trash_until.map(timestamp),
        restored: (run.restored != Totals::default()).then(|| run.restored.into()),
        trash_freed: run.trash_freed.map(timestamp),
        trash_stuck: run.trash_stuck.map(StoredTotals::from),
        in_trash: run.in_trash.map(StoredTotals::from),
        failed_by_owner: owners.collect(),
        locked_by: run.locked_by.clone(),
        rules: run.rules.clone(),
        // As earlier versions write it, where there is nothing to say.
        skipped_inside: (run.skipped_inside != Skipped::default())
            .then(|| StoredSkipped::of(&run.skipped_inside)),
    };
    stored.encode_to_vec()
}

/// The run that a record tells of.
pub(super) fn decode(bytes: &[u8]) -> Result<Run, Damaged> {
    let stored = StoredRun::decode(bytes)?;
    let state = STATES.iter().find(|(number, _)| *number == stored.state);
    let failed = stored.failed.into_iter().map(|f| Failure {
        path: f.path,
        error: f.error,
    });
    let owners = stored.failed_by_owner.into_iter().map(|o| OwnerFailures {
        uid: o.uid,
        owner: o.owner,
        failed: o.failed,
    });
    Ok(Run {
        id: stored.id,
        plan: stored.plan,
        volume: stored.volume,
        state: state.ok_or(Damaged::Unknown(stored.state, "state of a run"))?.1,
        started: seconds(stored.started.ok_or(Damaged::Lacks("time at which it began"))?),
        finished: stored.finished.map(seconds),
        seconds: stored.seconds,
        by: stored.by,
        deleted: totals(stored.deleted),
        trashed: totals(stored.trashed),
        archived: totals(stored.archived),
        skipped: stored.skipped.unwrap_or_default().read(),
        failed: failed.collect(),
        failed_total: stored.failed_total,
        failed_by_owner: owners.collect(),
        error: words(stored.error),
        trash_until: stored.trash_until.map(seconds),
        restored: totals(stored.restored),
        trash_freed: stored.trash_freed.map(seconds),
        trash_stuck: stored.trash_stuck.map(|t| totals(Some(t))),
        in_trash: stored.in_trash.map(|t| totals(Some(t))),
        locked_by: stored.locked_by,
        rules: stored.rules,
        skipped_inside: stored.skipped_inside.unwrap_or_default().read(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use purge_model::Seconds;

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let totals = |n| Totals {
            files: n,
            directories: n + 1,
            links: n + 2,
            bytes: n + 3,
            files_inside: n + 4,
        };
        let mut skipped = Skipped {
            unreached: 99,
            ..Skipped::default()
        };
        for (n, why) in (1..).zip(Skip::ALL) {
            skipped.add(why, n);
        }
        for (_, state) in STATES {
            let run = Run {
                id: "r1".into(),
                plan: "p1".into(),
                volume: "v".into(),
                state,
                started: Seconds(7),
                finished: Some(Seconds(9)),
                seconds: 1.5,
                by: "uid 0".into(),
                deleted: totals(10),
                trashed: totals(20),
                archived: totals(40),
                skipped,
                skipped_inside: skipped,
                failed: vec![Failure {
                    path: b"/v/a\xff".to_vec(),
                    error: "no".into(),
                }],
                failed_total: 5,
                failed_by_owner: vec![OwnerFailures {
                    uid: 7,
                    owner: "alice".into(),
                    failed: 5,
                }],
                error: Some("stopped".into()),
                trash_until: Some(Seconds(100)),
                restored: totals(30),
                trash_freed: Some(Seconds(101)),
                trash_stuck: Some(totals(0)),
                in_trash: Some(totals(2)),
                locked_by: vec!["flock".into()],
                rules: vec!["r".into(), "s".into()],
            };
            assert_eq!(decode(&encode(&run)).unwrap(), run);
        }
        let empty = Run::default();
        assert_eq!(decode(&encode(&empty)).unwrap(), empty);
    }

    #[test]
    fn a_record_without_a_state_or_a_beginning_is_damaged() {
        assert_eq!(decode(&[]), Err(Damaged::Unknown(0, "state of a run")));
        let stored = StoredRun {
            state: 1,
            ..StoredRun::default()
        };
        let lacks = decode(&stored.encode_to_vec()).unwrap_err();
        assert_eq!(
            lacks.to_string(),
            "the record is damaged: it has no time at which it began"
        );
    }
}
