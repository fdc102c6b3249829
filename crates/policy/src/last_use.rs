//! A file's last use, from the clocks that a rule believes. Pure.

use purge_index::Attributes;
use purge_model::{Clocks, LastUse, Seconds, Source};

/// The latest of the chosen clocks, and which it is. Among equal ones what was observed comes first.
///
/// A time that lies ahead of `now` says nothing: users can set a modification time, and a clock may have been wrong. It counts as the moment
/// in which the agent saw it first, which the access clock keeps (see [`is_ahead`]), or as what else the file says of itself.
pub fn last_use(attributes: &Attributes, access: LastUse, clocks: Clocks, now: Seconds) -> LastUse {
    let file = [
        (clocks.modify, attributes.mtime, Source::Mtime),
        (clocks.change, attributes.ctime, Source::Ctime),
        (clocks.birth, attributes.birth, Source::Birth),
    ];
    let never = LastUse {
        at: Seconds::MIN,
        source: Source::Mtime,
    };
    let is_believed = matches!(access.source, Source::Atime | Source::Mtime);
    let mut latest = match clocks.access {
        true if is_believed && access.at > now => seen_first(attributes, never, now),
        true => access,
        false => never,
    };
    for (chosen, at, source) in file {
        let own = match at > now {
            true => seen_first(attributes, access, now),
            false => LastUse { at, source },
        };
        if chosen && own.at > latest.at {
            latest = own;
        }
    }
    latest
}

/// Since when a time that lies ahead may have been there, at most.
fn seen_first(attributes: &Attributes, access: LastUse, now: Seconds) -> LastUse {
    let all = [
        access,
        LastUse {
            at: attributes.ctime,
            source: Source::Ctime,
        },
        LastUse {
            at: attributes.mtime,
            source: Source::Mtime,
        },
        LastUse {
            at: attributes.birth,
            source: Source::Birth,
        },
    ];
    let latest = all.into_iter().filter(|t| t.at <= now).max_by_key(|t| t.at);
    latest.filter(|t| t.at > Seconds::MIN).unwrap_or(LastUse {
        at: now,
        source: Source::Baseline,
    })
}

/// Whether a time of a file lies ahead of `now`.
pub fn is_ahead(attributes: &Attributes, now: Seconds) -> bool {
    attributes.mtime > now || attributes.ctime > now || attributes.birth > now
}

/// The access, no earlier than the end of the last unwatched stretch.
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
    use purge_index::DirId;
    use purge_model::Kind;

    const NOW: Seconds = Seconds(1000);

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
            last_use(&a, access, Clocks::ALL, NOW),
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
        assert_eq!(last_use(&a, access, only(true, false, false), NOW), access);
        assert_eq!(
            last_use(&a, access, only(false, true, false), NOW).at,
            Seconds(10)
        );
        assert_eq!(
            last_use(&a, access, only(false, true, true), NOW).source,
            Source::Birth
        );
    }

    #[test]
    fn what_lies_ahead_counts_as_the_moment_in_which_it_was_seen() {
        let seen = LastUse {
            at: Seconds(900),
            source: Source::Observed,
        };
        let modify = Clocks {
            access: false,
            modify: true,
            change: false,
            birth: false,
        };
        // Set by a user: the change time says when, and the agent has seen it.
        let ahead = attributes(5000, 800, 20);
        assert_eq!(last_use(&ahead, seen, modify, NOW), seen);
        let unseen = LastUse {
            at: Seconds(30),
            source: Source::Atime,
        };
        assert_eq!(last_use(&ahead, unseen, modify, NOW).at, Seconds(800));
        assert_eq!(last_use(&ahead, unseen, Clocks::ALL, NOW).at, Seconds(800));
        // All of it by a wrong clock, also what was believed of the time before.
        let wrong = attributes(5000, 5000, 5000);
        assert_eq!(last_use(&wrong, seen, Clocks::ALL, NOW), seen);
        let believed = LastUse {
            at: Seconds(5000),
            source: Source::Atime,
        };
        assert_eq!(last_use(&wrong, believed, Clocks::ALL, NOW).at, NOW);
        // Once it has come it counts as any other.
        assert_eq!(last_use(&ahead, seen, modify, Seconds(5001)).at, Seconds(5000));
        assert!(is_ahead(&ahead, NOW) && !is_ahead(&ahead, Seconds(5000)));
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
