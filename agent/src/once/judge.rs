//! When a file was used last, by what the file system says of it now, and whether that is long enough ago. Pure.

use purge_model::Clocks;
use purge_sys::exact::{Exact, Moment};
use purge_sys::trying::Traces;

/// relatime moves an access time that is as old as this, in seconds.
const DAY: i64 = 24 * 3600;

/// What goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Seconds since the last use.
    pub ttl: u64,
    /// The last use is the latest of these.
    pub clocks: Clocks,
    /// What reads leave behind on the file system.
    pub traces: Traces,
}

impl Rule {
    /// Whether it rests on access times, and reads leave none.
    pub fn is_blind(&self) -> bool {
        self.clocks.access && self.traces == Traces::None
    }

    /// The last use as of `now`. A chosen time that lies ahead says nothing, so the file counts as used now.
    pub fn last_use(&self, file: &Exact, now: Moment) -> Moment {
        let mut latest = Moment::default();
        let mut or = |chosen: bool, at: Moment| {
            if chosen {
                latest = latest.max(at);
            }
        };
        or(self.clocks.modify, file.mtime);
        or(self.clocks.change, file.ctime);
        or(self.clocks.birth, file.birth.unwrap_or_default());
        or(self.clocks.access, self.last_read(file, now));
        latest.min(now)
    }

    /// Whether a directory was not changed within the ttl. Listing moves its access time, and is no use.
    pub fn is_settled(&self, dir: &Exact, now: Moment) -> bool {
        let clocks = Clocks {
            access: false,
            modify: self.clocks.modify || !self.clocks.change,
            ..self.clocks
        };
        Self { clocks, ..*self }.is_expired(dir, now)
    }

    /// The latest moment at which it may have been read.
    fn last_read(&self, file: &Exact, now: Moment) -> Moment {
        match self.traces {
            Traces::Each => file.atime,
            // A read after the last change would have moved it.
            Traces::Daily if file.atime <= file.mtime || file.atime <= file.ctime => file.atime,
            Traces::Daily => file.atime.plus(DAY).min(now).max(file.atime),
            Traces::None => now,
        }
    }

    /// Whether it goes. Times are cut off to whole seconds: late, never early.
    pub fn is_expired(&self, file: &Exact, now: Moment) -> bool {
        let age = now.seconds.saturating_sub(self.last_use(file, now).seconds);
        u64::try_from(age).is_ok_and(|age| age > self.ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use purge_model::Kind;
    use purge_sys::stat::Device;

    fn at(seconds: i64) -> Moment {
        Moment { seconds, nanos: 0 }
    }

    fn file(atime: i64, mtime: i64, ctime: i64) -> Exact {
        Exact {
            ino: 1,
            kind: Kind::File,
            size: 1,
            uid: 0,
            links: 1,
            device: Device { major: 0, minor: 1 },
            atime: at(atime),
            mtime: at(mtime),
            ctime: at(ctime),
            birth: None,
            mount_root: false,
            protected: false,
        }
    }

    fn rule(traces: Traces) -> Rule {
        Rule {
            ttl: 10,
            clocks: Clocks::ALL,
            traces,
        }
    }

    #[test]
    fn a_read_that_relatime_hides_is_a_use() {
        let now = at(1_000_000);
        // Never read since it was written.
        assert!(rule(Traces::Daily).is_expired(&file(100, 100, 100), now));
        // Read once after that: it may have been read again for a day.
        let read = file(now.seconds - 50, 100, 100);
        assert!(!rule(Traces::Daily).is_expired(&read, now));
        assert!(rule(Traces::Each).is_expired(&read, now));
        assert!(rule(Traces::Daily).is_expired(&file(now.seconds - DAY - 50, 100, 100), now));
        assert!(rule(Traces::None).is_blind());
        assert!(
            !rule(Traces::None).is_expired(&file(1, 1, 1), now),
            "reads are not known"
        );
    }

    #[test]
    fn what_lies_ahead_is_a_use_and_expiry_is_strict() {
        let now = at(1_000);
        for ahead in [file(2_000, 1, 1), file(1, 2_000, 1), file(1, 1, 2_000)] {
            assert!(!rule(Traces::Each).is_expired(&ahead, now));
        }
        assert!(!rule(Traces::Each).is_expired(&file(1, 1, 990), now));
        assert!(rule(Traces::Each).is_expired(&file(1, 1, 989), now));
    }

    proptest! {
        /// However a file of a relatime mount was read and changed: it counts as used no earlier than it was.
        #[test]
        fn no_use_is_later_than_what_is_believed(
            born in 0i64..100_000,
            steps in prop::collection::vec((1i64..100_000, any::<bool>()), 1..8),
        ) {
            let mut f = file(born, born, born);
            let (mut now, mut used) = (born, born);
            for (later, is_read) in steps {
                now += later;
                used = now;
                if !is_read {
                    (f.mtime, f.ctime) = (at(now), at(now));
                } else if f.atime <= f.mtime || f.atime <= f.ctime || now - f.atime.seconds >= DAY {
                    f.atime = at(now);
                }
            }
            for after in [0, 5, 1_000, 200_000] {
                let now = at(now + after);
                prop_assert!(rule(Traces::Daily).last_use(&f, now) >= at(used));
            }
        }
    }
}
