//! What of the uses of a share is not known: for some of the time that it has lain in the trash the agent may have missed them.
//!
//! ```text
//!   access or modification time at or after the move     used: it is kept
//!   the access time shows that it was not read           unused: it is freed
//!   anything else                                        unknown: it waits until a whole grace has passed since then
//! ```

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use purge_collect::atimes::was_unused_since;
use purge_model::{Seconds, Stat};
use purge_sys::project;

/// What of the uses of a share is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Since when uses may have been missed; none: each was seen.
    pub from: Option<Seconds>,
    /// Each read since then has left an access time: the operator vouches for it, and the mounts were the same all the time.
    pub traced: bool,
    /// By then everything in the share had been moved there.
    pub moved_until: Seconds,
    /// A whole grace has passed since the last of the time that was not seen.
    pub is_over: bool,
}

/// What the times of a file say of its uses in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was used, or may have been.
    Used,
    /// It was not.
    Unused,
    /// They do not tell.
    Unknown,
}

impl Doubt {
    /// Every use was seen.
    pub const NONE: Self = Self {
        from: None,
        traced: false,
        moved_until: Seconds::MIN,
        is_over: false,
    };

    /// Judges the file `name` of `dir`. `moved`: when the directory that it lies in was moved; none: the file itself was.
    pub fn verdict(&self, (dir, name): (&OwnedFd, &CStr), stat: &Stat, moved: Option<Seconds>) -> Verdict {
        let verdict = self.verdict_by_times(stat, moved);
        // A file may have a flag that keeps its access time as it is.
        let is_told = verdict == Verdict::Unused && self.from.is_some() && !self.is_over;
        match is_told && !project::moves_atime(dir, name).unwrap_or(false) {
            true => Verdict::Unknown,
            false => verdict,
        }
    }

    fn verdict_by_times(&self, stat: &Stat, moved: Option<Seconds>) -> Verdict {
        let Some(from) = self.from else {
            return Verdict::Unused;
        };
        // A rename changes the change time of what is renamed.
        let moved = moved.unwrap_or(stat.ctime).min(self.moved_until);
        // Who only writes leaves no access time.
        if stat.atime >= moved || stat.mtime >= moved {
            return Verdict::Used;
        }
        match self.is_over || (self.traced && was_unused_since(stat, from)) {
            true => Verdict::Unused,
            false => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use purge_model::Kind;

    const MOVED: u32 = 1_000_000;

    fn file(atime: u32, ctime: u32) -> Stat {
        Stat {
            ino: 7,
            kind: Kind::File,
            size: 1,
            allocated: 512,
            project: 0,
            uid: 0,
            gid: 0,
            links: 1,
            atime: Seconds(atime),
            mtime: Seconds(MOVED - 900_000),
            ctime: Seconds(ctime),
            ctime_nanos: 0,
            birth: Seconds(MOVED - 900_000),
        }
    }

    fn doubt(from: u32, traced: bool, is_over: bool) -> Doubt {
        Doubt {
            from: Some(Seconds(from)),
            traced,
            moved_until: Seconds(MOVED + 5),
            is_over,
        }
    }

    #[test]
    fn without_a_gap_events_tell_all() {
        let verdict = Doubt::NONE.verdict_by_times(&file(MOVED + 10, MOVED), None);
        assert_eq!(verdict, Verdict::Unused);
    }

    #[test]
    fn times_that_tell_nothing_are_waited_for() {
        let old = file(MOVED - 800_000, MOVED);
        let of = |stat, traced, is_over| doubt(MOVED + 100, traced, is_over).verdict_by_times(stat, None);
        assert_eq!(of(&old, true, false), Verdict::Unused);
        assert_eq!(of(&old, false, false), Verdict::Unknown);
        assert_eq!(of(&old, false, true), Verdict::Unused);
        let read = file(MOVED + 120, MOVED);
        for (traced, is_over) in [(true, false), (false, false), (false, true)] {
            assert_eq!(of(&read, traced, is_over), Verdict::Used);
        }
        let read_then_changed = file(MOVED + 120, MOVED + 130);
        assert_eq!(of(&read_then_changed, true, false), Verdict::Used);
    }

    #[test]
    fn what_was_written_is_never_freed() {
        let mut written = file(MOVED - 800_000, MOVED + 120);
        written.mtime = Seconds(MOVED + 120);
        for (traced, is_over) in [(true, false), (false, false), (false, true)] {
            let verdict = doubt(MOVED + 100, traced, is_over).verdict_by_times(&written, None);
            assert_eq!(verdict, Verdict::Used);
        }
    }

    proptest! {
        /// relatime, a file that was moved by itself: its access time lies before the move, and so the first read after that moves it.
        #[test]
        fn no_read_of_a_moved_file_is_taken_for_none(
            atime in MOVED - 800_000..MOVED,
            gap in 0u32..200_000,
            later in 0u32..200_000,
            is_over: bool,
        ) {
            let read = file(MOVED + gap + later, MOVED);
            prop_assert!(atime < MOVED);
            let verdict = doubt(MOVED + gap, true, is_over).verdict_by_times(&read, None);
            prop_assert_eq!(verdict, Verdict::Used);
        }

        /// In a tree only the directory was moved: an access time of the last day may stay as it is.
        #[test]
        fn no_read_in_a_tree_is_taken_for_none(
            atime in MOVED - 800_000..MOVED,
            ctime in MOVED - 900_000..MOVED,
            gap in 0u32..200_000,
            later in 0u32..200_000,
        ) {
            let mut stat = file(atime, ctime);
            let at = MOVED + gap + later;
            let is_moved = stat.mtime >= stat.atime || stat.ctime >= stat.atime || at - atime >= 24 * 3600;
            if is_moved {
                stat.atime = Seconds(at);
            }
            let verdict = doubt(MOVED + gap, true, false).verdict_by_times(&stat, Some(Seconds(MOVED)));
            prop_assert_ne!(verdict, Verdict::Unused);
        }
    }
}
