//! Coverage: since when a volume is observed, the stretches that were not, and what they count as. Pure.
//!
//! A gap longer than `gap_tolerance`, or one whose length is not known, counts as a use of every file at its end
//! ([`VolumeRecord::gap_end`]). By default the tolerance is 0, and every gap counts, also one within a second. Any
//! other is forgiven: it is listed, and a plan names it ([`purge_policy::forgiven`]). All times are the agent's own ([`purge_base::clock`]).

use prost::Message;

use purge_index::journal::Identity;
use purge_model::Seconds;

/// Gaps that are remembered.
const GAPS_MAX: usize = 100;
/// Gaps of one cause that follow each other within this number of seconds are one.
const MERGED_WITHIN: u32 = 60;

/// Why no agent watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The agent was not running.
    Stopped,
    /// The kernel dropped events.
    Overflow,
    /// More events waited than may lie in the kernel's memory.
    Backlog,
    /// More names changed than can be followed: no use is lost by that, and a scan finds them.
    Names,
    /// The volume was not mounted, or another file system lay there.
    Unmounted,
    /// Events could not be read.
    Collector,
    /// The agent's time had to follow the wall clock.
    ClockJump,
    /// The index was lost or damaged and made again.
    IndexRebuilt,
    /// The host was booted by order, and nothing was seen to use the volume meanwhile.
    Reboot,
}

impl Cause {
    /// As `status` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Overflow => "overflow",
            Self::Backlog => "backlog",
            Self::Names => "names",
            Self::Unmounted => "unmounted",
            Self::Collector => "collector",
            Self::ClockJump => "clock-jump",
            Self::IndexRebuilt => "index-rebuilt",
            Self::Reboot => "reboot",
        }
    }
}

/// A stretch that was not observed.
#[derive(Clone, PartialEq, Message)]
pub struct Gap {
    /// When observation stopped, seconds since 1970.
    #[prost(uint32, tag = "1")]
    pub from: u32,
    /// When it went on.
    #[prost(uint32, tag = "2")]
    pub to: u32,
    /// Why, as [`Cause::as_str`] says it.
    #[prost(string, tag = "3")]
    pub cause: String,
    /// It counts as a use of every file.
    #[prost(bool, tag = "4")]
    pub counts: bool,
    /// Access times have shown which files were not used in it; the others were.
    #[prost(bool, tag = "5")]
    pub closed: bool,
    /// Access times were kept through it as [`VolumeRecord::atimes`] says: each read in it has left one.
    #[prost(bool, tag = "6")]
    pub traced: bool,
}

impl Gap {
    /// The agent did not run, and nothing else is to be doubted.
    pub fn is_a_stop(&self) -> bool {
        self.counts && self.cause == Cause::Stopped.as_str()
    }

    /// Files may have been used in it that do not count as used.
    fn is_forgiven(&self) -> bool {
        !self.counts && !self.closed && !self.is_watched()
    }

    /// No use was lost: a clock was set back, or only names were not followed.
    pub(super) fn is_watched(&self) -> bool {
        [Cause::ClockJump, Cause::Names]
            .iter()
            .any(|c| c.as_str() == self.cause)
    }
}

/// What the store remembers of a volume.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeRecord {
    /// Its number in keys.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Identity of the file system: its type and own id, and its root's inode and birth.
    #[prost(uint64, tag = "2")]
    pub magic: u64,
    /// See `magic`.
    #[prost(uint64, tag = "3")]
    pub root_ino: u64,
    /// See `magic`.
    #[prost(uint32, tag = "4")]
    pub root_birth: u32,
    /// When observation began.
    #[prost(uint32, tag = "5")]
    pub coverage_since: u32,
    /// Until when everything that was seen is in store or journal.
    #[prost(uint32, tag = "6")]
    pub last_alive: u32,
    /// End of the last gap that counts as a use of every file; 0: none.
    #[prost(uint32, tag = "7")]
    pub gap_end: u32,
    /// The last gaps, oldest first.
    #[prost(message, repeated, tag = "8")]
    pub gaps: Vec<Gap>,
    /// A scan has seen the whole volume.
    #[prost(bool, tag = "9")]
    pub scanned: bool,
    /// End of the last precision window: what the clocks of files say whose further uses were hidden.
    #[prost(uint32, tag = "10")]
    pub window_end: u32,
    /// The last journal segment that the store holds.
    #[prost(uint64, tag = "11")]
    pub stored_journal: u64,
    /// Since when the volume has not been there, while that is so; 0: it is there.
    #[prost(uint32, tag = "12")]
    pub away_since: u32,
    /// How many gaps there have been.
    #[prost(uint64, tag = "13")]
    pub gaps_total: u64,
    /// The process that watched last ended before it had read every event that waited.
    #[prost(bool, tag = "14")]
    pub unread: bool,
    /// How the volume's access times are kept ([`purge_collect::atimes`]); empty: not so that they tell each read.
    #[prost(string, tag = "15")]
    pub atimes: String,
    /// The boot that was ended by order after the process that watched last, as its last act; empty: not so.
    #[prost(bytes = "vec", tag = "24")]
    pub ended_boot: Vec<u8>,
    /// End of the last gap that is no longer remembered and in which a use in the trash may have been missed; 0: none.
    #[prost(uint32, tag = "25")]
    pub unseen_until: u32,
}

/// What is known of the stretch between an earlier process and this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Break {
    /// Until when everything was seen.
    pub seen_until: Seconds,
    /// When this process began to watch.
    pub armed_at: Seconds,
    /// Its length is unknown, or what was seen until then is not all there.
    pub unknown: bool,
    /// The kernel went on queueing for this process: nothing was missed.
    pub queued: bool,
    /// It was a reboot by order, and the operator vouches for it ([`crate::reboot`]).
    pub ordered: bool,
    /// Why.
    pub cause: Cause,
}

impl VolumeRecord {
    /// A volume that is seen for the first time.
    pub fn new(id: u32, identity: Identity, now: Seconds) -> Self {
        Self {
            id,
            magic: identity.magic,
            root_ino: identity.root,
            root_birth: identity.birth.0,
            coverage_since: now.0,
            last_alive: now.0,
            ..Self::default()
        }
    }

    /// Takes over what is known of the file system now.
    pub fn identify(&mut self, identity: Identity) {
        self.magic = identity.magic;
        self.root_ino = identity.root;
        self.root_birth = identity.birth.0;
    }

    /// Which file system it is.
    pub fn identity(&self) -> Identity {
        Identity {
            magic: self.magic,
            root: self.root_ino,
            birth: Seconds(self.root_birth),
        }
    }

    /// A gap from `from` to `to`. It counts as a use of every file if it is longer than `tolerance` seconds or `counts`
    /// says so. Returns whether it does.
    pub fn add_gap(
        &mut self,
        from: Seconds,
        to: Seconds,
        cause: Cause,
        tolerance: u64,
        counts: bool,
    ) -> bool {
        let mut gap = Gap {
            from: from.min(to).0,
            to: to.0,
            cause: cause.as_str().into(),
            counts,
            closed: false,
            traced: false,
        };
        if let Some(last) = self.gaps.last()
            && last.cause == gap.cause
            && cause != Cause::Stopped
            && gap.from <= last.to.saturating_add(MERGED_WITHIN)
        {
            gap.from = gap.from.min(last.from);
            gap.to = gap.to.max(last.to);
            gap.counts |= last.counts;
            self.gaps.pop();
        } else {
            self.gaps_total = self.gaps_total.saturating_add(1);
        }
        gap.counts |= Seconds(gap.from).age_at(Seconds(gap.to)) > tolerance;
        let counts = gap.counts;
        if counts {
            self.gap_end = self.gap_end.max(gap.to);
        }
        self.gaps.push(gap);
        let excess = self.gaps.len().saturating_sub(GAPS_MAX);
        for forgotten in self.gaps.drain(..excess).filter(Gap::has_lost_uses) {
            self.unseen_until = self.unseen_until.max(forgotten.to);
        }
        counts
    }

    /// Observation goes on after another process. Returns whether the break counts as a use of every file.
    pub fn resume(&mut self, at: Break, tolerance: u64) -> bool {
        let away = Seconds(std::mem::take(&mut self.away_since));
        let (from, cause) = match away {
            Seconds(0) => (at.seen_until, at.cause),
            // A queue of a file system that was unmounted sees nothing of it when it is mounted again.
            _ => (away.min(at.seen_until), Cause::Unmounted),
        };
        let length = from.age_at(at.armed_at);
        // What waited then is lost with its queue, and its age is unknown.
        let lost = std::mem::take(&mut self.unread) && !at.queued;
        // Times are whole seconds: also a stretch within one may have had a use in it.
        let unwatched = !at.queued && (length > 0 || tolerance == 0);
        let missed = unwatched || at.unknown || lost || away.0 > 0;
        // What still waits in a queue that is taken over has yet to be read.
        if !at.queued {
            self.last_alive = at.armed_at.0;
        }
        let vouched = at.ordered && away.0 == 0;
        let (cause, tolerance) = match vouched {
            true => (Cause::Reboot, u64::MAX),
            false => (cause, tolerance),
        };
        let counts = at.unknown || lost || tolerance == 0;
        missed && self.add_gap(from, at.armed_at, cause, tolerance, counts)
    }

    /// A lower tolerance than earlier holds for the gaps that are remembered too, and so does it when reboots are `ordered` no more. Returns
    /// whether another of them counts now.
    pub fn forgive_no_more_than(&mut self, tolerance: u64, ordered: bool) -> bool {
        let mut more = false;
        for gap in &mut self.gaps {
            let length = Seconds(gap.from).age_at(Seconds(gap.to));
            let is_vouched = ordered && gap.cause == Cause::Reboot.as_str();
            if gap.is_forgiven() && !is_vouched && (length > tolerance || tolerance == 0) {
                gap.counts = true;
                self.gap_end = self.gap_end.max(gap.to);
                more = true;
            }
        }
        more
    }

    /// Access times are `complete` or not, as the operator says. Where they are not, gaps that they closed earlier count again. Returns
    /// whether there is one.
    pub fn believe_access_times(&mut self, complete: bool) -> bool {
        let mut more = false;
        for gap in self.gaps.iter_mut().filter(|gap| !complete && gap.closed) {
            (gap.counts, gap.closed) = (true, false);
            self.gap_end = self.gap_end.max(gap.to);
            more = true;
        }
        more
    }

    /// The remembered stretches that do not count as a use: from and to.
    pub fn forgiven(&self) -> Vec<(Seconds, Seconds)> {
        let forgiven = self.gaps.iter().filter(|g| g.is_forgiven());
        forgiven.map(|g| (Seconds(g.from), Seconds(g.to))).collect()
    }

    /// What was used in the gap is known: it does not count for the others. `earlier_end` is [`VolumeRecord::gap_end`] before it.
    pub fn close_gap(&mut self, from: Seconds, to: Seconds, earlier_end: u32) {
        for gap in self.gaps.iter_mut().filter(|g| g.is_a_stop()) {
            if (gap.from, gap.to) == (from.0, to.0) {
                (gap.counts, gap.closed) = (false, true);
            }
        }
        let later = self.gaps.iter().filter(|g| g.counts && g.to >= to.0);
        // Another gap came meanwhile, or this one is not remembered any more.
        let is_known = self.gaps.iter().any(|g| g.closed && g.to == to.0);
        let still = later.map(|g| g.to).max();
        match (still, is_known) {
            (Some(end), _) => self.gap_end = self.gap_end.max(end),
            (None, true) => self.gap_end = earlier_end,
            (None, false) => {}
        }
    }

    /// Everything was seen until `seen`; never said of a moment that is yet to come: the agent's time may have been set back since.
    pub fn saw(&mut self, seen: Seconds, now: Seconds) {
        self.last_alive = self.last_alive.max(seen.0).min(now.0);
    }

    /// The agent's time was set back to `now`: nothing that is remembered lies ahead of it.
    pub fn set_back(&mut self, now: Seconds) {
        let times = [
            &mut self.coverage_since,
            &mut self.last_alive,
            &mut self.gap_end,
            &mut self.unseen_until,
        ];
        for time in times {
            *time = (*time).min(now.0);
        }
        for gap in &mut self.gaps {
            gap.from = gap.from.min(now.0);
            gap.to = gap.to.min(now.0);
        }
    }

    /// End of the last gap that counts as a use of every file.
    pub fn counted_until(&self) -> Option<Seconds> {
        Some(Seconds(self.gap_end)).filter(|g| g.0 > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_that_were_never_read_are_a_use_of_everything_unless_their_queue_was_kept() {
        for queued in [true, false] {
            let mut record = VolumeRecord {
                unread: true,
                ..VolumeRecord::default()
            };
            let at = Break {
                queued,
                ..broken(100, 100)
            };
            assert_eq!(record.resume(at, 600), !queued);
            assert_eq!(record.counted_until(), (!queued).then_some(Seconds(100)));
            // It is told once.
            assert!(!record.resume(broken(100, 105), 600));
        }
    }

    fn broken(from: u32, to: u32) -> Break {
        Break {
            seen_until: Seconds(from),
            armed_at: Seconds(to),
            unknown: false,
            queued: false,
            ordered: false,
            cause: Cause::Stopped,
        }
    }

    #[test]
    fn a_reboot_that_is_vouched_for_is_forgiven_unless_something_else_is_in_doubt() {
        let at = Break {
            ordered: true,
            ..broken(100, 900)
        };
        let mut record = VolumeRecord::default();
        assert!(!record.resume(at, 0));
        assert_eq!(record.forgiven(), [(Seconds(100), Seconds(900))]);
        assert!(!record.forgive_no_more_than(0, true));
        assert!(record.forgive_no_more_than(0, false));
        assert_eq!(record.counted_until(), Some(Seconds(900)));
        for (unknown, unread, away_since) in [(true, false, 0), (false, true, 0), (false, false, 50)] {
            let mut record = VolumeRecord {
                unread,
                away_since,
                ..VolumeRecord::default()
            };
            assert!(record.resume(Break { unknown, ..at }, 0));
        }
    }

    #[test]
    fn a_time_that_was_set_back_hides_no_gap() {
        let mut record = VolumeRecord::default();
        record.saw(Seconds(90_000), Seconds(90_001));
        assert_eq!(record.last_alive, 90_000);
        record.saw(Seconds(80_000), Seconds(90_002));
        assert_eq!(record.last_alive, 90_000, "nothing is forgotten");
        record.set_back(Seconds(50_000));
        record.saw(Seconds(90_002), Seconds(50_001));
        assert_eq!(record.last_alive, 50_001);
        assert!(record.resume(broken(record.last_alive, 51_000), 600));
    }

    #[test]
    fn only_a_long_gap_counts_as_a_use() {
        let mut record = VolumeRecord::default();
        assert!(!record.resume(broken(100, 700), 600));
        assert_eq!((record.counted_until(), record.gaps.len()), (None, 1));
        assert!(record.resume(broken(1000, 1601), 600));
        assert_eq!(record.counted_until(), Some(Seconds(1601)));
    }

    #[test]
    fn without_a_tolerance_every_gap_counts_also_one_within_a_second() {
        for to in [100, 101, 102, 700] {
            let mut record = VolumeRecord::default();
            assert!(record.resume(broken(100, to), 0), "until {to}");
            assert_eq!(record.counted_until(), Some(Seconds(to)));
            assert_eq!(record.forgiven(), []);
            // What the kernel kept for this process was seen.
            let mut record = VolumeRecord::default();
            let at = Break {
                queued: true,
                ..broken(100, to)
            };
            assert!(!record.resume(at, 0), "until {to}");
            assert_eq!(record.counted_until(), None);
        }
    }

    #[test]
    fn a_gap_that_was_forgiven_counts_when_the_tolerance_is_lower() {
        let mut record = VolumeRecord::default();
        record.resume(broken(100, 400), 600);
        record.resume(broken(1000, 1030), 600);
        record.add_gap(Seconds(2000), Seconds(2000), Cause::ClockJump, 600, false);
        record.add_gap(Seconds(2100), Seconds(2300), Cause::Names, u64::MAX, false);
        let both = [(Seconds(100), Seconds(400)), (Seconds(1000), Seconds(1030))];
        assert_eq!(record.forgiven(), both);
        assert!(!record.forgive_no_more_than(300, false));
        assert!(record.forgive_no_more_than(60, false));
        assert_eq!(record.counted_until(), Some(Seconds(400)));
        assert!(record.forgive_no_more_than(0, false));
        assert_eq!(
            record.counted_until(),
            Some(Seconds(1030)),
            "no use was lost later"
        );
        assert_eq!(record.forgiven(), []);
    }

    #[test]
    fn a_gap_that_is_closed_counts_no_more_and_no_other_gap_is() {
        let mut record = VolumeRecord::default();
        record.resume(broken(100, 110), 0);
        let earlier = record.gap_end;
        record.resume(broken(200, 210), 0);
        let mut interrupted = record.clone();
        record.close_gap(Seconds(200), Seconds(210), earlier);
        assert_eq!(record.counted_until(), Some(Seconds(110)));
        assert!(!record.forgive_no_more_than(0, false), "and stays so");
        assert_eq!(record.forgiven(), []);
        // Events were lost before the scan was through.
        interrupted.add_gap(Seconds(300), Seconds(300), Cause::Overflow, 0, true);
        interrupted.close_gap(Seconds(200), Seconds(210), earlier);
        assert_eq!(interrupted.counted_until(), Some(Seconds(300)));
    }

    #[test]
    fn a_gap_that_access_times_closed_counts_again_when_they_are_not_believed() {
        let mut record = VolumeRecord::default();
        record.resume(broken(200, 210), 0);
        record.close_gap(Seconds(200), Seconds(210), 0);
        assert!(!record.believe_access_times(true));
        assert_eq!(record.counted_until(), None);
        assert!(record.believe_access_times(false));
        assert_eq!(record.counted_until(), Some(Seconds(210)));
        assert!(!record.believe_access_times(false), "it counts already");
    }

    #[test]
    fn a_queue_that_outlived_the_process_leaves_no_gap_and_has_yet_to_be_read() {
        let mut record = VolumeRecord {
            last_alive: 100,
            ..VolumeRecord::default()
        };
        let at = Break {
            queued: true,
            ..broken(100, 90_000)
        };
        assert!(!record.resume(at, 600));
        assert!(record.gaps.is_empty());
        assert_eq!(record.last_alive, 100);
    }

    #[test]
    fn a_volume_that_was_away_was_not_watched_even_if_events_were_queued() {
        let mut record = VolumeRecord {
            away_since: 90,
            ..VolumeRecord::default()
        };
        let at = Break {
            queued: true,
            ..broken(95, 120)
        };
        assert!(!record.resume(at, 600));
        let gap = record.gaps.last().map(|g| (g.from, g.to, g.cause.as_str()));
        assert_eq!((gap, record.away_since), (Some((90, 120, "unmounted")), 0));
    }

    #[test]
    fn an_unknown_gap_counts_at_any_length() {
        let mut record = VolumeRecord::default();
        let at = Break {
            unknown: true,
            queued: true,
            ..broken(100, 100)
        };
        assert!(record.resume(at, 600));
        assert_eq!(record.counted_until(), Some(Seconds(100)));
    }

    #[test]
    fn overflows_in_a_row_are_one_gap() {
        let mut record = VolumeRecord::default();
        for at in [100, 110, 165, 400] {
            record.add_gap(Seconds(at), Seconds(at), Cause::Overflow, 600, true);
        }
        let seen: Vec<_> = record.gaps.iter().map(|g| (g.from, g.to)).collect();
        assert_eq!(seen, [(100, 165), (400, 400)]);
        assert_eq!(record.counted_until(), Some(Seconds(400)));
    }

    proptest! {
        #[test]
        fn a_counted_end_never_moves_back_and_the_list_is_bounded(
            gaps in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>(), 0u64..2000), 0..150)
        ) {
            let mut record = VolumeRecord::default();
            let mut end = 0;
            for (from, to, counts, tolerance) in gaps {
                let counted = record.add_gap(Seconds(from), Seconds(to), Cause::Collector, tolerance, counts);
                prop_assert!(record.gap_end >= end);
                prop_assert!(!counted || record.gap_end >= to);
                prop_assert!(counted || u64::from(to.saturating_sub(from)) <= tolerance);
                end = record.gap_end;
                prop_assert!(record.gaps.len() <= GAPS_MAX);
            }
        }
    }
}
