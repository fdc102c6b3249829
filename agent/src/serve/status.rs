//! `status`: how the agent and its volumes are, what needs attention, and what comes next.

use purge_proto::v1;

use super::{convert, pages};
use crate::host::views::attention::{Matter, Upcoming};
use crate::host::{Host, HostError};
use crate::volume::Volume;
use purge_index::Totals;

/// The runs that are shown.
const RUNS_SHOWN: usize = 10;

/// How all is.
pub(super) fn status(host: &Host, totals: impl Fn(&Volume) -> Totals) -> v1::AgentStatus {
    // How the volumes are is told also while the store does not answer.
    let mut last_runs = host.runs.list().unwrap_or_default();
    last_runs.truncate(RUNS_SHOWN);
    let last_runs = last_runs
        .into_iter()
        .map(|run| pages::run_in_list(convert::run(run)));
    let volumes = convert::volumes(host, totals);
    let matters = host.attention.matters(&host.announcer.unpublished());
    let ill = volumes.iter().filter(|v| !v.reason.is_empty()).map(degraded);
    let schedules = host.unattended.schedules().into_iter();
    v1::AgentStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_seconds: host.uptime().as_secs(),
        attention: ill.chain(matters.into_iter().map(matter)).collect(),
        upcoming: host.attention.upcoming().into_iter().map(upcoming).collect(),
        last_runs: last_runs.collect(),
        resident_bytes: purge_sys::memory::resident_bytes(),
        schedules: schedules.map(convert::schedule).collect(),
        volumes,
    }
}

/// Gives a volume's name to the file system that lies there now.
pub(super) fn reset(
    host: &Host,
    r: &v1::ResetVolumeRequest,
    by: &str,
) -> Result<v1::ResetVolumeResponse, HostError> {
    let done = host.resetter.reset(&r.volume, r.confirmed, by)?;
    Ok(v1::ResetVolumeResponse {
        volume: done.volume,
        path: done.path.into_os_string().into_encoded_bytes(),
        holds: done.holds,
        set_aside: done.set_aside.display().to_string(),
        done: r.confirmed,
    })
}

fn degraded(v: &v1::VolumeStatus) -> v1::Attention {
    v1::Attention {
        volume: v.name.clone(),
        check: "volume".into(),
        what: v.reason.clone(),
        cure: "purgectl doctor".into(),
        at: None,
    }
}

fn matter(m: Matter) -> v1::Attention {
    v1::Attention {
        volume: m.volume,
        check: m.check.into(),
        what: convert::plain(m.what),
        cure: m.cure,
        at: m.at.map(convert::timestamp),
    }
}

fn upcoming(u: Upcoming) -> v1::Upcoming {
    v1::Upcoming {
        rule: u.rule,
        volume: u.volume,
        at: Some(convert::timestamp(u.at)),
        applies: u.applies,
    }
}
