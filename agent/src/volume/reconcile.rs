//! What an earlier process left, and what is watched since: the gap between the two, and what the first scan believes of the time before.
//!
//! ```text
//!   earlier process ... seen until | not watched = gap | armed since ... this process
//! ```
//! What may never happen: a stretch that no process watched and that is not recorded as a gap; a past that is believed of a file which
//! was made, or lost from the index, unseen.

use super::at_path::Lies;
use super::closing::Closing;
use super::opening::{Opened, Past};
use crate::reboot;
use purge_base::clock::Start;
use purge_collect::atimes::{self, AtimeKeeping};
use purge_collect::source::{Reads, Since};
use purge_config::{Baseline, VolumeConfig};
use purge_scan::Belief;
use purge_sys::beneath;

/// What the first scan does with the time before.
#[derive(Debug)]
pub(super) struct Before {
    /// What it believes of files that are new to the index.
    pub belief: Belief,
    /// The same, in the configuration's words.
    pub baseline: &'static str,
    /// A gap that it may close.
    pub closing: Option<Closing>,
}

/// Brings the record of `opened` up to what is watched now.
pub(super) fn reconcile(
    opened: &mut Opened,
    config: &VolumeConfig,
    lies: &Lies,
    (since, reads): (Since, Reads),
    clock: &Start,
) -> Before {
    let complete = config.access_times_are_complete;
    let keeping = complete
        .then(|| AtimeKeeping::find(&lies.mount, lies.root.device))
        .flatten();
    let closing = match opened.past {
        Past::Unknown => {
            let record = &mut opened.record;
            (record.coverage_since, record.last_alive) = (since.at.0, since.at.0);
            None
        }
        Past::Interrupted | Past::Indexed => note_gap(opened, config, since, clock, keeping.as_ref()),
    };
    opened.record.atimes = keeping.map_or_else(String::new, |k| k.word().to_owned());
    let baseline = baseline(config, lies, reads);
    Before {
        belief: belief(baseline, opened.past, since),
        baseline,
        closing,
    }
}

/// Records the stretch that no process watched. Returns how the first scan may close it.
fn note_gap(
    opened: &mut Opened,
    config: &VolumeConfig,
    since: Since,
    clock: &Start,
    keeping: Option<&AtimeKeeping>,
) -> Option<Closing> {
    let mut between = opened.time_between(since.at, since.nothing_missed, clock.unknown);
    let record = &mut opened.record;
    let vouched = config.reboots_are_ordered;
    let ended_boot = std::mem::take(&mut record.ended_boot);
    between.ordered = vouched && !since.nothing_missed && was_a_reboot(config, &ended_boot, clock.rebooted);
    let is_known = !between.unknown;
    let counts = record.forgive_no_more_than(config.gap_tolerance, vouched)
        | record.believe_access_times(config.access_times_are_complete);
    let (earlier_end, unread) = (record.gap_end, record.unread);
    let missed = record.resume(between, config.gap_tolerance);
    let mut closing = None;
    if missed && opened.past == Past::Indexed && record.scanned && is_known && !unread {
        closing = Closing::of(record, earlier_end, &record.atimes, keeping);
        if closing.is_some()
            && let Some(gap) = record.gaps.last_mut()
        {
            gap.traced = true;
        }
    }
    // What an interrupted first scan would have believed holds only if nothing was missed since.
    if (missed || counts) && opened.past == Past::Interrupted {
        opened.past = Past::Indexed;
    }
    closing
}

fn baseline(config: &VolumeConfig, lies: &Lies, reads: Reads) -> &'static str {
    // A scan knows how far access times can be believed.
    match (config.baseline, reads) {
        (Baseline::Auto, Reads::AtScans) => return "atime",
        (Baseline::Auto, Reads::Unknown) => return "mtime",
        _ => {}
    }
    // Where one of several mounts keeps no access times, a reader there left none.
    // What the options of a mount say holds for no file server.
    let keeps_atime = lies.mount.keeps_atime
        && lies.mount.is_local()
        && beneath::open_root(&config.path).is_ok_and(|root| !atimes::some_mount_keeps_none(root));
    match (config.baseline, keeps_atime) {
        (Baseline::Atime, _) | (Baseline::Auto, true) => "atime",
        (Baseline::Mtime, _) => "mtime",
        (Baseline::Observed, _) | (Baseline::Auto, false) => "observed",
    }
}

/// Only what the very first scan finds has a past that no process watched. What is found new later was made unseen, or the index lost it in
/// a crash: doubt counts as use.
fn belief(baseline: &str, past: Past, since: Since) -> Belief {
    match baseline {
        _ if past == Past::Indexed => Belief::Since(since.at),
        "atime" => Belief::Atime(since.at),
        "mtime" => Belief::Mtime,
        _ => Belief::Since(since.at),
    }
}

/// Whether the stretch that nothing watched was a reboot by order, as far as that can be known.
fn was_a_reboot(config: &VolumeConfig, ended_boot: &[u8], is_first: bool) -> bool {
    let known = match ended_boot {
        [] => Err("the agent did not end in a shutdown by order".into()),
        ended => reboot::has_begun(ended, is_first, beneath::open_root(&config.path)),
    };
    match known {
        Ok(()) => true,
        Err(why) => {
            tracing::warn!(
                volume = %config.name,
                "this is not taken for a reboot by order, and counts as a gap: {why}"
            );
            false
        }
    }
}
