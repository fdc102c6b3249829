//! How full a volume is.

use super::HostError;
use crate::volume::Volume;
use purge_model::Totals;
use purge_policy::allowance::Watermark;
use purge_policy::needed::Need;
use purge_sys::stat::{self, Space};

/// Space and inodes of a volume, in use and in all.
pub(super) fn space_of(volume: &Volume) -> Result<Space, HostError> {
    // Another file system at this path, or none, says nothing of the volume.
    let identity = volume.check_identity();
    identity.map_err(|e| HostError::Refused(e.to_string()))?;
    stat::space(&volume.config.path)
        .map_err(|e| HostError::Refused(format!("{}: {e}", volume.config.path.display())))
}

/// Shares of the space and of the inodes in use.
pub(super) fn shares(space: &Space) -> (f64, f64) {
    let share = |used: u64, all: u64| if all == 0 { 0.0 } else { used as f64 / all as f64 };
    (
        share(space.used, space.used.saturating_add(space.available)),
        share(space.inodes_used, space.inodes),
    )
}

/// What must go to come down to `low`, and why in words; nothing while use is at or below `high`. What lies in the trash
/// will be free when its grace ends, and is not asked for again.
pub(super) fn above(w: &Watermark, space: &Space, trash: &Totals) -> (Need, String) {
    let part = |used: u64, all: u64, trash: u64| {
        let used = used.saturating_sub(trash);
        let share = if all == 0 { 0.0 } else { used as f64 / all as f64 };
        let goal = (all as f64 * w.low) as u64;
        let need = if share > w.high {
            used.saturating_sub(goal)
        } else {
            0
        };
        (share * 100.0, u128::from(need))
    };
    let (bytes, inodes) = (
        part(
            space.used,
            space.used.saturating_add(space.available),
            trash.bytes,
        ),
        part(
            space.inodes_used,
            space.inodes,
            trash.all_files().saturating_add(trash.directories),
        ),
    );
    let because = format!(
        "watermark: {:.1}% of the space and {:.1}% of the inodes used, high {:.1}%, low {:.1}%",
        bytes.0,
        inodes.0,
        w.high * 100.0,
        w.low * 100.0
    );
    ((bytes.1, inodes.1), because)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_and_inodes_are_freed_down_to_low_once_they_are_above_high() {
        let w = Watermark {
            volume: "v".into(),
            high: 0.85,
            low: 0.75,
            rule: "r".into(),
            min_age: 1,
            free_trash: false,
        };
        let trash = |files, bytes| Totals {
            files,
            bytes,
            ..Totals::default()
        };
        let none = trash(0, 0);
        let space = |used, inodes_used| Space {
            used,
            available: 1000 - used,
            inodes: 100,
            inodes_used,
        };
        assert_eq!(above(&w, &space(850, 85), &none).0, (0, 0));
        assert_eq!(above(&w, &space(860, 10), &none).0, (110, 0));
        assert_eq!(above(&w, &space(100, 90), &none).0, (0, 15));
        assert_eq!(above(&w, &space(900, 90), &trash(10, 100)).0, (0, 0));
        let no_inodes = Space {
            inodes: 0,
            ..space(860, 0)
        };
        assert_eq!(above(&w, &no_inodes, &none).0, (110, 0));
    }
}
