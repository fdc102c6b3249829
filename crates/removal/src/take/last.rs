//! What goes last, one after the other: symbolic links, and directories that are empty by then. Neither can be leased; each is looked at once
//! more in its turn, when everything it may depend on is away.
//!
//! A link is moved out of every user's reach before it is removed: what was moved is looked at, so that a file which has taken its name in
//! the last moment goes back. A directory is removed where it lies, which the kernel does only if nothing is in it. With a grace the trash
//! remembers what it was like, and that it was removed.

use std::sync::Arc;

use crate::candidate::Candidate;
use crate::fate::{Fate, Skip};
use crate::refusal;
use crate::take::guard::{Ground, Name};
use crate::take::moves::{Finished, Freed, Move, into_a_lane, put_back, rename};
use purge_model::Stat;
use purge_policy::evaluate::{Shape, Why};
use purge_sys::leads::{End, Found};
use purge_sys::{beneath, inside, likeness, stat, walk};

/// One of them, verified, at its place.
#[derive(Debug)]
pub struct Last {
    name: Name,
    freed: Freed,
}

impl Last {
    /// Compares it with the plan and the index.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn verify(ground: &mut Ground<'_>, candidate: &Candidate) -> Result<Self, Fate> {
        ground.find(candidate)?;
        let name = ground.verify(candidate, None)?.names.pop();
        let name = name.ok_or(Fate::Skipped(Skip::Changed))?;
        let ino = candidate.ino;
        let known = ground.watched.index.read().get(ino);
        let (known, _) = known.ok_or(Fate::Skipped(Skip::Changed))?;
        Ok(Self {
            name,
            freed: Freed { ino, known },
        })
    }

    /// Removes it, or moves it into the trash.
    ///
    /// # Errors
    /// The fate of a candidate that does not go.
    pub fn finish(self, ground: &mut Ground<'_>, candidate: &Candidate, finished: &mut Finished) -> Fate {
        let freed = self.freed;
        let fate = match candidate.shape {
            Shape::Link(why) => self.link(ground, candidate, why),
            _ => self.directory(ground),
        };
        match (fate, candidate.shape) {
            // It is still there, in the trash.
            (Ok(Fate::Trashed), Shape::Link(_)) => {
                finished.gone.push(freed.ino);
                Fate::Trashed
            }
            (Ok(fate), _) => {
                finished.freed.push(freed);
                fate
            }
            (Err(fate), _) => fate,
        }
    }

    fn directory(&self, ground: &mut Ground<'_>) -> Result<Fate, Fate> {
        if !ground.keeps() {
            return self.remove_dir().map(|()| Fate::Deleted);
        }
        let dir = beneath::open_dir(&self.name.dir, self.name.name.to_bytes()).map_err(refusal::fate)?;
        // What is not empty leaves no trace in the trash.
        if !walk::list(&dir).map_err(refusal::fate)?.is_empty() {
            return Err(Fate::Skipped(Skip::Changed));
        }
        let place = ground.bin.place(&self.name.full(), &dir);
        let place = place.map_err(|e| ground.not_taken(e))?;
        let place = beneath::open_dir(&place, b"").map_err(Fate::Failed)?;
        // First: a process that is killed in between leaves a note of one that is there, and that makes no difference to a restore.
        let is_noted = likeness::note_removed(&place, true).map_err(refusal::fate)?;
        self.remove_dir().inspect_err(|_| {
            let _ = likeness::note_removed(&place, false);
        })?;
        Ok(match is_noted {
            true => Fate::Trashed,
            false => Fate::Deleted,
        })
    }

    fn remove_dir(&self) -> Result<(), Fate> {
        // Also when something is in it that the plan did not know of: ENOTEMPTY.
        inside::remove_dir(&self.name.dir, &*self.name.name).map_err(refusal::fate)
    }

    fn link(self, ground: &mut Ground<'_>, candidate: &Candidate, why: Why) -> Result<Fate, Fate> {
        let is_followed = why != Why::Expired;
        let found = ground.look_at_link(&self.name.path, &self.name.name, is_followed);
        let found = found.map_err(refusal::fate)?;
        check(ground, candidate, why, &found)?;
        let keeps = ground.keeps();
        let (place, there, in_lane) = match keeps {
            true => {
                let place = ground.bin.place(&self.name.path, &self.name.dir);
                let place = place.map_err(|e| ground.not_taken(e))?;
                rename(&self.name, &place, &self.name.name).map_err(|e| ground.not_taken(e))?;
                (place, Arc::clone(&self.name.name), false)
            }
            false => {
                let moved = into_a_lane(ground.lanes.as_mut(), &self.name);
                let (place, there) = moved.map_err(|e| ground.not_taken(e))?;
                (place, there, true)
            }
        };
        let moved = [Move {
            from: self.name,
            place,
            there,
            in_lane,
            was: found.link,
        }];
        let [only] = &moved;
        let done = match stat::entry(&only.place, &only.there) {
            Ok(found) if !is_it(candidate, &found.stat) => Err(Fate::Skipped(Skip::Changed)),
            // To follow a link is to read it: of one that is followed here, the access time may be the agent's.
            Ok(found) if !is_followed && !only.has_changed_nothing_of(&found.stat) => {
                Err(Fate::Skipped(Skip::Changed))
            }
            Ok(_) if keeps => Ok(Fate::Trashed),
            Ok(_) => inside::unlink(&only.place, &*only.there)
                .map(|()| Fate::Deleted)
                .map_err(refusal::fate),
            Err(e) => Err(refusal::fate(e)),
        };
        done.map_err(|fate| put_back(ground, candidate, &moved).map_or_else(Fate::Failed, |()| fate))
    }
}

/// The link is the one that the plan names, and is still to go.
fn check(ground: &Ground<'_>, candidate: &Candidate, why: Why, found: &Found) -> Result<(), Fate> {
    let s = &found.link;
    let own = (s.birth, s.ctime, s.ctime_nanos);
    let is_unchanged =
        is_it(candidate, s) && own == (candidate.birth, candidate.ctime, candidate.ctime_nanos);
    let is_used = i128::from(s.atime.unix()) * 1_000_000_000 > ground.evaluated;
    match why {
        _ if !is_unchanged => Err(Fate::Skipped(Skip::Changed)),
        Why::Expired if is_used => Err(Fate::Skipped(Skip::Accessed)),
        Why::Expired => Ok(()),
        // What it led to has stayed after all, or something has come there.
        Why::Dangling | Why::WithTarget if found.end != End::Nowhere => Err(Fate::Skipped(Skip::Changed)),
        Why::Dangling | Why::WithTarget => Ok(()),
    }
}

/// But for the change time, which a rename moves, and the birth, which is the change time where none is kept.
fn is_it(candidate: &Candidate, found: &Stat) -> bool {
    let c = candidate;
    (found.ino, found.kind, found.size, found.mtime, found.links)
        == (c.ino, c.kind(), c.size, c.mtime, c.links)
}
