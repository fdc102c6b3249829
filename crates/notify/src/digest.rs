//! Into which notice an event goes, and when that is due. Pure.
//!
//! A sink with a digest sends an owner one notice in that time at most: what happens meanwhile gathers in the next one. What the
//! operator must know goes at once.

use super::event::Audience;

/// Events that are found together go together.
const GATHER_SECONDS: u64 = 5;

/// What is known of the notices of one sink for one audience.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past<'a> {
    /// The one that still gathers.
    pub gathering: Option<&'a str>,
    /// When the last one was closed, seconds since 1970.
    pub closed_at: Option<u64>,
}

/// Where an event goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Into the one that gathers.
    Into(&'a str),
    /// Into a new one that goes out then.
    New {
        /// Seconds since 1970.
        due: u64,
        /// Others may still join it.
        gathers: bool,
    },
}

/// Where an event for this audience goes, by a sink with a digest of this number of seconds (0: none).
pub fn place<'a>(to: &Audience, digest: u64, past: Past<'a>, now: u64) -> Place<'a> {
    if digest == 0 || *to == Audience::Operator {
        return Place::New {
            due: now,
            gathers: false,
        };
    }
    if let Some(id) = past.gathering {
        return Place::Into(id);
    }
    let soon = now.saturating_add(GATHER_SECONDS);
    // A clock that was set back must not silence any notice: no notice is due later than a digest from now.
    let next = past.closed_at.map_or(0, |at| at.min(now).saturating_add(digest));
    Place::New {
        due: soon.max(next),
        gathers: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner() -> Audience {
        Audience::Owner {
            user: "a".into(),
            uid: 1,
        }
    }

    #[test]
    fn the_operator_hears_at_once_and_so_does_a_sink_without_digests() {
        let past = Past {
            gathering: Some("n"),
            closed_at: Some(99),
        };
        let at_once = Place::New {
            due: 100,
            gathers: false,
        };
        assert_eq!(place(&Audience::Operator, 500, past, 100), at_once);
        assert_eq!(place(&owner(), 0, past, 100), at_once);
        assert_eq!(place(&owner(), 500, past, 100), Place::Into("n"));
    }

    proptest! {
        /// However often something happens, an owner's notices are a digest apart.
        #[test]
        fn notices_of_an_owner_are_a_digest_apart(digest in 10u64..1000, steps in proptest::collection::vec(0u64..200, 1..200)) {
            let (mut now, mut gathering, mut closed): (u64, Option<u64>, Vec<u64>) = (0, None, Vec::new());
            for step in steps {
                now += step;
                if let Some(due) = gathering.filter(|due| *due <= now) {
                    closed.push(due);
                    gathering = None;
                }
                let past = Past { gathering: gathering.map(|_| "n"), closed_at: closed.last().copied() };
                match place(&owner(), digest, past, now) {
                    Place::Into(_) => prop_assert!(gathering.is_some()),
                    Place::New { due, gathers } => {
                        prop_assert!(gathers && due >= now && due <= now + digest.max(GATHER_SECONDS));
                        gathering = Some(due);
                    }
                }
            }
            for pair in closed.windows(2) {
                prop_assert!(pair[1] - pair[0] >= digest);
            }
        }
    }
}
