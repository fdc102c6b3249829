//! Answers that take a walk through index or plans. What streams, sends one item after another and ends when nobody takes them.

use std::sync::Arc;
use std::time::Duration;

use purge_proto::v1;
use tonic::Status;

use super::convert;
use super::requests::FindAsked;
use crate::host::questions::Below;
use crate::host::{Host, HostError};
use crate::model::Seconds;
use crate::purge::candidate::Candidate;
use crate::purge::holds::timestamp;
use crate::purge::plans::PlanRecord;
use crate::query::find::{self, Filter, FindError};
use crate::volume::{State, Volume};

/// Candidates sorted at once; more are sorted in several passes over the plan.
const SORTED_AT_ONCE: usize = 200_000;
/// How often a client hears of a scan.
const SCAN_NEWS_EVERY: Duration = Duration::from_millis(200);

/// Sends what is found below these places.
pub(super) fn find(
    host: &Host,
    asked: &FindAsked,
    places: Vec<Below>,
    each: &mut dyn FnMut(v1::Entry) -> bool,
) -> Result<(), Status> {
    let mut left = if asked.limit == 0 { u64::MAX } else { asked.limit };
    for (name, below) in places {
        let volume = Arc::clone(host.volume(&name).map_err(convert::status)?);
        let filter = Filter {
            below: Some(below),
            expiring: match asked.expiring {
                Some(within) => Some(host.expiring(&volume, within).map_err(convert::status)?),
                None => None,
            },
            ..asked.filter.clone()
        };
        let at = (Seconds::judged(), volume.condition().gap_end);
        let (mut gone, mut given) = (false, 0);
        let mut give = |hit: find::Hit| {
            given += 1;
            gone = !each(convert::entry(&volume.config.path, &hit));
            !gone
        };
        let most = if left == u64::MAX { 0 } else { left };
        find::find(&volume.watched.index, &filter, asked.order, most, at, &mut give)
            .map_err(convert::find_status)?;
        left = left.saturating_sub(given);
        if gone {
            return Err(convert::find_status(FindError::Gone));
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Whose files are kept alive by mass changes of timestamps; an empty volume means all.
pub(super) fn touched(host: &Host, volume: &str) -> Result<v1::TouchedReport, HostError> {
    if !volume.is_empty() {
        host.volume(volume)?;
    }
    let volumes = host.volumes().iter();
    let mut owners = Vec::new();
    for v in volumes.filter(|v| volume.is_empty() || v.config.name == volume) {
        v.sync();
        let touched = v.watched.touched.lock().clone();
        let rows = touched.iter();
        owners.extend(rows.map(|(uid, t)| convert::touched(&v.config.name, *uid, t)));
    }
    let files = |o: &v1::TouchedOwner| o.stamped.saturating_add(o.read);
    owners.sort_by(|a, b| files(b).cmp(&files(a)).then_with(|| a.owner.cmp(&b.owner)));
    let since = Seconds::now().minus(host.uptime().as_secs());
    Ok(v1::TouchedReport {
        owners,
        since: Some(timestamp(since)),
    })
}

/// Sends how far the scans of some volumes are, until each has ended.
pub(super) fn scans(
    volumes: &[Arc<Volume>],
    each: &mut dyn FnMut(v1::ScanProgress) -> bool,
) -> Result<(), Status> {
    for volume in volumes {
        let mut last = v1::ScanProgress {
            volume: volume.config.name.clone(),
            ..Default::default()
        };
        while let Some((entries, directories, unreadable, seconds)) = volume.condition().scan {
            last = v1::ScanProgress {
                entries,
                directories,
                unreadable,
                seconds,
                ..last
            };
            if !each(last.clone()) {
                return Ok(());
            }
            std::thread::sleep(SCAN_NEWS_EVERY);
        }
        last.finished = true;
        if let State::Degraded(reason) = volume.condition().state {
            let words = format!("volume {}: {reason}", volume.config.name);
            return Err(Status::internal(convert::plain(words)));
        }
        each(last);
    }
    Ok(())
}

/// Sends the candidates of a plan. Sorting takes as many passes over the plan as memory asks for.
pub(super) fn show(
    host: &Host,
    record: &PlanRecord,
    sort: v1::Sort,
    limit: u64,
    each: &mut dyn FnMut(v1::Candidate) -> bool,
) -> Result<(), Status> {
    let plan = record.plan.clone().unwrap_or_default();
    let volume = host.volume(&plan.volume).map_err(convert::status)?;
    let created = Seconds::from_unix(plan.created_at.map_or(0, |t| t.seconds));
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut give = |c: &Candidate| {
        left = left.saturating_sub(1);
        each(convert::candidate(&volume.config.path, c, record, created)) && left > 0
    };
    let chunk = |n| {
        host.plans
            .chunk(&plan.plan_id, n)
            .map_err(|e| Status::internal(convert::plain(e.to_string())))
    };
    if sort == v1::Sort::Unspecified {
        for number in 0..record.chunks {
            for c in chunk(number)? {
                if !give(&c) {
                    return Ok(());
                }
            }
        }
        return Ok(());
    }
    type Key = (u64, Vec<u8>, u64);
    let key = |c: &Candidate, position: u64| -> Key {
        match sort {
            v1::Sort::Age => (c.last.at.0.into(), Vec::new(), position),
            v1::Sort::Size => (u64::MAX - c.size, Vec::new(), position),
            v1::Sort::Path | v1::Sort::Unspecified => (0, c.path(), position),
        }
    };
    let mut after: Option<Key> = None;
    loop {
        let mut best: std::collections::BTreeMap<Key, Candidate> = std::collections::BTreeMap::new();
        let mut position = 0;
        for number in 0..record.chunks {
            for c in chunk(number)? {
                position += 1;
                let key = key(&c, position);
                if after.as_ref().is_some_and(|a| key <= *a) {
                    continue;
                }
                if best.len() < SORTED_AT_ONCE || best.last_key_value().is_some_and(|(last, _)| key < *last) {
                    best.insert(key, c);
                }
                if best.len() > SORTED_AT_ONCE {
                    best.pop_last();
                }
            }
        }
        let Some((last, _)) = best.last_key_value() else {
            return Ok(());
        };
        after = Some(last.clone());
        for c in best.values() {
            if !give(c) {
                return Ok(());
            }
        }
    }
}
