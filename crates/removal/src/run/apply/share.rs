//! The places of a run in the trash, and a trash that takes no more: what has a grace needs directories there, and a volume without a free
//! block or inode has no room for these.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::chain::Chain;
use super::{Runner, with_cure};
use crate::candidate::Candidate;
use crate::run::ending::Stop;
use crate::trash::lanes::Lanes;
use crate::trash::reserve::is_full;
use crate::trash::share::Share;

/// Whether the trash has refused to take something for lack of space, and in which words.
#[derive(Debug, Default)]
pub(super) struct FullTrash(Mutex<Full>);

#[derive(Debug, Default)]
struct Full {
    why: Option<String>,
    /// When there was made room last.
    room: Option<Instant>,
}

/// Batches that began before there was room have ended by then.
const BATCHES_END_WITHIN: Duration = Duration::from_secs(3);

impl FullTrash {
    pub(super) fn note(&self, error: &io::Error) {
        self.0.lock().why.get_or_insert_with(|| takes_no_more(error));
    }

    pub(super) fn is_noted(&self) -> bool {
        self.0.lock().why.is_some()
    }
}

impl Full {
    fn may_be_old(&self) -> bool {
        self.room.is_some_and(|room| room.elapsed() < BATCHES_END_WITHIN)
    }
}

fn takes_no_more(error: &io::Error) -> String {
    format!(
        "stopped: the trash takes no more: {error}. What has a grace needs directories there, and the volume has no block or inode left for \
         them (df, df -i). Apply without a grace (purgectl apply PLAN --no-grace), set free_trash = true in the volume's watermark, or free \
         some space by hand"
    )
}

impl Runner<'_> {
    /// Makes the run's places in the trash: from here on the trash is not empty, and so is not removed.
    pub(super) fn begin(&self, alone: MutexGuard<'_, ()>) {
        let mut begun = self.begin_shares();
        drop(alone);
        if begun.as_ref().is_err_and(is_full) && self.around.free_trash() {
            let _alone = self.around.alone_in_the_trash();
            begun = self.begin_shares();
        }
        if let Err(error) = begun {
            let why = match is_full(&error) && self.shares().iter().any(|share| share.until != 0) {
                true => takes_no_more(&error),
                false => with_cure("cannot begin in the volume's trash", &error),
            };
            self.halt(Stop::Broken(why));
        }
    }

    fn begin_shares(&self) -> io::Result<()> {
        self.shares().iter().try_for_each(|share| self.trash.begin(share))
    }

    /// Whether a candidate stays because the trash has no room.
    pub(super) fn is_of_full_trash(&self, candidate: &Candidate, error: &io::Error) -> bool {
        is_full(error) && self.share(candidate.rule).until != 0
    }

    /// Where the trash has taken no more: frees what lies there longest if the configuration says so, and otherwise stops the run.
    pub(super) fn make_room(&self) {
        let mut full = self.full.0.lock();
        // Another worker may have made room meanwhile.
        let Some(why) = full.why.take() else { return };
        if self.around.free_trash() {
            full.room = Some(Instant::now());
        } else if !full.may_be_old() {
            self.halt(Stop::Broken(why));
        }
    }

    /// What the last batches met.
    pub(super) fn tell_of_full_trash(&self) {
        let mut full = self.full.0.lock();
        if let Some(why) = full.why.take()
            && !full.may_be_old()
        {
            self.halt(Stop::Broken(why));
        }
    }

    /// Those of the batch before, with the names that were given there, or new ones.
    pub(super) fn lanes(&self, share: &Share, chain: &Chain<'_>) -> io::Result<Lanes> {
        let before = chain.last.as_ref().and_then(|last| last.batch.lanes());
        let lanes = before.map_or_else(|| self.trash.lanes(share, chain.worker), Ok)?;
        lanes.dirs().for_each(|dir| self.around.hide_own(dir.as_fd()));
        Ok(lanes)
    }

    /// Where in the trash the candidates of a rule go.
    pub(super) fn share(&self, rule: u16) -> Share {
        let grace = self.order.graces.get(usize::from(rule)).copied().unwrap_or(0);
        let end = self.started.plus(grace).unix();
        Share {
            run: self.run_id.clone(),
            until: if grace == 0 {
                0
            } else {
                u64::try_from(end).unwrap_or(u64::MAX)
            },
            open: true,
        }
    }

    pub(super) fn shares(&self) -> Vec<Share> {
        let rules = u16::try_from(self.order.graces.len()).unwrap_or(u16::MAX).max(1);
        let mut all: Vec<Share> = (0..rules).map(|rule| self.share(rule)).collect();
        all.sort_unstable_by_key(|s| s.until);
        all.dedup();
        all
    }
}
