//! How much clients may make the agent keep by holding: each of them, and all together. Pure.
//!
//! Every batch of a run looks up every hold, and every hold is in memory, so their number and their bytes are bounded. Ordinary users share a
//! tenth of all, and clients with a role three quarters, so root can always hold something.

use super::{HoldError, Wanted};

/// A reason has at most this many bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// And a held path: as many as one system call takes.
pub const PATH_BYTES_MAX: usize = 4095;
/// An ordinary user has at most this many holds.
pub const HOLDS_OF_USER_MAX: usize = 100;
/// What a hold takes besides its path and its reason, about.
pub(super) const HOLD_BYTES: usize = 200;

/// All holds together.
const HOLDS_MAX: usize = 100_000;
const BYTES_MAX: usize = 64 << 20;

/// Who asks, as far as room is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Root on the unix socket.
    Root,
    /// A client with a role.
    Role,
    /// An ordinary user, for what is theirs.
    User(u32),
}

/// What a hold takes, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<'a> {
    pub(super) by: &'a str,
    pub(super) is_users: bool,
    pub(super) bytes: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    holds: usize,
    bytes: usize,
}

impl Sum {
    const fn part(part: usize, of: usize) -> Self {
        Self {
            holds: HOLDS_MAX / of * part,
            bytes: BYTES_MAX / of * part,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.holds = self.holds.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn exceeds(self, most: Self) -> bool {
        self.holds > most.holds || self.bytes > most.bytes
    }
}

const OF_ALL: Sum = Sum::part(1, 1);
const OF_ALL_BUT_ROOT: Sum = Sum::part(3, 4);
const OF_ONE_ROLE: Sum = Sum::part(1, 4);
const OF_USERS: Sum = Sum::part(1, 10);
const OF_ONE_USER: Sum = Sum {
    holds: HOLDS_OF_USER_MAX,
    bytes: OF_USERS.bytes,
};

/// Whether one more has room beside those that there are.
pub(super) fn room_for<'a>(
    wanted: &Wanted<'_>,
    bytes: usize,
    there_are: impl Iterator<Item = Taken<'a>>,
) -> Result<(), HoldError> {
    let (mut all, mut own, mut users) = (Sum::default(), Sum::default(), Sum::default());
    for taken in there_are {
        all.add(taken.bytes);
        if taken.by == wanted.by {
            own.add(taken.bytes);
        }
        if taken.is_users {
            users.add(taken.bytes);
        }
    }
    for sum in [&mut all, &mut own, &mut users] {
        sum.add(bytes);
    }
    let checks = match wanted.asker {
        Asker::Root => [None, None, Some((all, OF_ALL, "all clients"))],
        Asker::Role => [
            Some((own, OF_ONE_ROLE, wanted.by)),
            None,
            Some((all, OF_ALL_BUT_ROOT, "all clients but root")),
        ],
        Asker::User(_) => [
            Some((own, OF_ONE_USER, wanted.by)),
            Some((users, OF_USERS, "all ordinary users")),
            Some((all, OF_ALL_BUT_ROOT, "all clients but root")),
        ],
    };
    match checks
        .into_iter()
        .flatten()
        .find(|(sum, most, _)| sum.exceeds(*most))
    {
        None => Ok(()),
        Some((_, most, whose)) => Err(HoldError::Full(format!(
            "{whose} may have {} holds in force, with {} KiB of paths and reasons, and has no room for this one; remove some of them, or hold \
             a directory as a whole",
            most.holds,
            most.bytes / 1024
        ))),
    }
}
