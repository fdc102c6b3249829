//! A file's last use, from the clocks that a rule believes. Pure.

use crate::index::Attributes;
use crate::model::{Clocks, LastUse, Seconds, Source};

/// The latest of the chosen clocks, and which it is. Among equal ones what was observed comes first.
pub fn last_use(attributes: &Attributes, access: LastUse, clocks: Clocks) -> LastUse {
    let file = [
        (clocks.modify, attributes.mtime, Source::Mtime),
        (clocks.change, attributes.ctime, Source::Ctime),
        (clocks.birth, attributes.birth, Source::Birth),
    ];
    let mut latest = match clocks.access {
        true => access,
        false => LastUse {
            at: Seconds::MIN,
            source: Source::Mtime,
        },
    };
    for (chosen, at, source) in file {
        if chosen && at > latest.at {
            latest = LastUse { at, source };
        }
    }
    latest
}

/// The access, no earlier than the end of the last stretch that nobody watched.
pub fn covered(access: LastUse, gap_end: Option<Seconds>) -> LastUse {
    match gap_end {
        Some(end) if end > access.at => LastUse {
            at: end,
            source: Source::Gap,
        },
        _ => access,
    }
}

/// Whether a last use at `at` is more than `ttl` seconds ago.
///
/// Times are whole seconds, cut off. A difference of exactly `ttl` may be almost a second less in truth, so it
/// does not count as expired: late, never early.
pub fn is_expired(at: Seconds, now: Seconds, ttl: u64) -> bool {
    at.age_at(now) > ttl
}

/// The first second at which [`is_expired`] says yes.
pub fn expires_at(at: Seconds, ttl: u64) -> Seconds {
    at.plus(ttl.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::DirId;
    use crate::model::Kind;

    fn attributes(mtime: u32, ctime: u32, birth: u32) -> Attributes {
        Attributes {
            parent: DirId::ROOT,
            kind: Kind::File,
            size: 0,
            allocated: 0,
            project: 0,
            uid: 0,
            gid: 0,
            links: 1,
            mtime: Seconds(mtime),
            ctime: Seconds(ctime),
            ctime_nanos: 0,
            birth: Seconds(birth),
        }
    }

    #[test]
    fn the_latest_chosen_clock_counts() {
        let access = LastUse {
            at: Seconds(50),
            source: Source::Observed,
        };
        let a = attributes(10, 60, 20);
        assert_eq!(
            last_use(&a, access, Clocks::ALL),
            LastUse {
                at: Seconds(60),
                source: Source::Ctime
            }
        );
        let only = |access_, modify, birth| Clocks {
            access: access_,
            modify,
            change: false,
            birth,
        };
        assert_eq!(last_use(&a, access, only(true, false, false)), access);
        assert_eq!(last_use(&a, access, only(false, true, false)).at, Seconds(10));
        assert_eq!(
            last_use(&a, access, only(false, true, true)).source,
            Source::Birth
        );
    }

    #[test]
    fn a_gap_counts_as_a_use_at_its_end() {
        let access = LastUse {
            at: Seconds(50),
            source: Source::Observed,
        };
        assert_eq!(covered(access, None), access);
        assert_eq!(covered(access, Some(Seconds(40))), access);
        assert_eq!(
            covered(access, Some(Seconds(70))),
            LastUse {
                at: Seconds(70),
                source: Source::Gap
            }
        );
    }

    #[test]
    fn whole_seconds_expire_late_never_early() {
        assert!(!is_expired(Seconds(100), Seconds(110), 10));
        assert!(is_expired(Seconds(100), Seconds(111), 10));
        assert!(!is_expired(Seconds(200), Seconds(111), 10));
    }
}
