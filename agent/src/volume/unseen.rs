//! Uses of what lies in the trash that the agent cannot have seen. Pure.
//!
//! A gap counts as a use of every file in the index. What lies in the trash is not in the index: it is judged here, when its grace ends.

use super::coverage::{Gap, VolumeRecord};
use purge_model::Seconds;

/// Stretches in which uses may have been missed, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen {
    /// Their beginning.
    pub from: Seconds,
    /// Their end.
    pub to: Seconds,
    /// Each read in them has left an access time.
    pub traced: bool,
}

impl Gap {
    /// Whether a use in it may have been missed, and the operator has not forgiven that.
    pub(super) fn has_lost_uses(&self) -> bool {
        (self.counts || self.closed) && !self.is_watched()
    }
}

impl VolumeRecord {
    /// What was not seen since a moment; none: every use since then was.
    pub fn unseen_since(&self, since: Seconds) -> Option<Unseen> {
        let gaps = self.gaps.iter().filter(|gap| gap.has_lost_uses());
        let gaps = gaps.map(|gap| Unseen {
            from: Seconds(gap.from),
            to: Seconds(gap.to),
            traced: gap.traced,
        });
        let unknown = |to| Unseen {
            from: Seconds::MIN,
            to: Seconds(to),
            traced: false,
        };
        // What lies in the trash may have come there under an earlier agent, whose records are lost.
        let before = (since.0 < self.coverage_since).then(|| unknown(self.coverage_since));
        let forgotten = (self.unseen_until > 0).then(|| unknown(self.unseen_until));
        gaps.chain(before)
            .chain(forgotten)
            .filter(|unseen| unseen.to >= since)
            .reduce(|a, b| Unseen {
                from: a.from.min(b.from),
                to: a.to.max(b.to),
                traced: a.traced && b.traced,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::coverage::Cause;
    use super::*;

    fn watched_since(since: u32) -> VolumeRecord {
        VolumeRecord {
            coverage_since: since,
            ..VolumeRecord::default()
        }
    }

    fn unseen(from: u32, to: u32, traced: bool) -> Option<Unseen> {
        let (from, to) = (Seconds(from), Seconds(to));
        Some(Unseen { from, to, traced })
    }

    #[test]
    fn only_gaps_after_the_move_that_lost_uses_matter() {
        let mut record = watched_since(10);
        let at = Seconds;
        record.add_gap(at(100), at(110), Cause::Stopped, 0, false);
        record.add_gap(at(200), at(200), Cause::Names, u64::MAX, false);
        record.add_gap(at(300), at(300), Cause::ClockJump, 0, true);
        record.add_gap(at(400), at(405), Cause::Stopped, 600, false);
        assert_eq!(record.unseen_since(at(50)), unseen(100, 110, false));
        assert_eq!(
            record.unseen_since(at(110)),
            unseen(100, 110, false),
            "within a second"
        );
        assert_eq!(record.unseen_since(at(111)), None);
        assert_eq!(record.unseen_since(at(9)), unseen(0, 110, false));
    }

    #[test]
    fn one_gap_without_traces_is_enough() {
        let mut record = watched_since(10);
        for (from, traced) in [(100, true), (200, true), (300, false)] {
            record.add_gap(Seconds(from), Seconds(from + 5), Cause::Stopped, 0, true);
            if let Some(gap) = record.gaps.last_mut() {
                gap.traced = traced;
            }
            let expected = unseen(100, from + 5, traced);
            assert_eq!(record.unseen_since(Seconds(50)), expected);
        }
        record.close_gap(Seconds(300), Seconds(305), 0);
        assert_eq!(record.unseen_since(Seconds(250)), unseen(300, 305, false));
    }

    #[test]
    fn a_gap_that_is_remembered_no_more_is_not_forgotten() {
        let mut record = watched_since(10);
        record.add_gap(Seconds(100), Seconds(105), Cause::Stopped, 0, true);
        for n in 10..210 {
            let at = Seconds(n * 100);
            record.add_gap(at, at, Cause::ClockJump, u64::MAX, false);
        }
        assert!(record.gaps.iter().all(|gap| gap.to >= 1000));
        assert_eq!(record.unseen_until, 105);
        assert_eq!(record.unseen_since(Seconds(50)), unseen(0, 105, false));
        assert_eq!(record.unseen_since(Seconds(106)), None);
    }
}
