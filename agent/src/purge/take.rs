//! Takes a batch of candidates away: everything that must wait for the barrier happens to all of them at once.
//!
//! ```text
//!   Batch::begin   files are leased; directories that go as a whole are moved out of reach
//!        |         barrier: every use up to here is in the index
//!   Batch::take    verify, rename into the trash; put back what somebody came for in the meantime
//!        |         the decisions are written to the run's ledger
//!   Batch::finish  unlink what has no grace; nothing is put back from here on
//! ```
//! A file's lease is looked at after all renames of the batch: whoever found the file by its name before it was moved
//! has had that long to come to the lease.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use rustix::fs::{AtFlags, RenameFlags};

use super::candidate::Candidate;
use super::guard::{Fate, Ground, Leased, Name, Skip, Verified, gone_or_failed};
use super::ledger::Code;
use super::tree::Tree;
use crate::index::codec::Attributes;
use crate::model::Inode;
use crate::policy::evaluate::Shape;
use crate::sys::stat;

/// So many are verified, then moved: what was verified must not get old, and those who wait for their turn must not be woken
/// for each.
const MOVED_AT_ONCE: usize = 32;

/// A batch on its way.
#[derive(Debug)]
pub struct Batch<'a> {
    ground: Ground<'a>,
    on_way: Vec<(&'a Candidate, Step)>,
}

/// How far a candidate is.
#[derive(Debug)]
enum Step {
    /// Its fate is known.
    Done(Fate),
    /// A file at its place, that nobody can open.
    Leased(Leased),
    /// A file at its place that is as the plan and the index say, and where it will go.
    Verified(Leased, Vec<Move>),
    /// A file in the trash.
    Moved(Leased, Vec<Move>),
    /// A directory, and everything in it, in the trash.
    Tree(Tree),
    /// A directory that should be empty, at its place; verified, if it says where.
    Empty(Option<(Name, Freed)>),
}

/// Where a name is, or was, and where it goes, or is.
#[derive(Debug)]
struct Move {
    from: Name,
    place: Arc<OwnedFd>,
    there: Arc<CStr>,
}

impl<'a> Batch<'a> {
    /// Takes leases on files, and directories out of reach.
    pub fn begin(mut ground: Ground<'a>, candidates: &'a [Candidate]) -> Self {
        let mut on_way = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let step = match candidate.shape {
                Shape::File => ground.lease(candidate).map(Step::Leased),
                Shape::Tree => Tree::take(&mut ground, candidate).map(Step::Tree),
                Shape::EmptyDirectory => Ok(Step::Empty(None)),
            };
            on_way.push((candidate, step.unwrap_or_else(Step::Done)));
        }
        Self { ground, on_way }
    }

    /// The batch will not be taken: everything goes back to its place. A candidate has a fate only if it could not.
    pub fn abandon(self) -> Vec<(&'a Candidate, Option<Fate>)> {
        let ground = self.ground;
        let back = |(candidate, step)| {
            let fate = match step {
                Step::Done(fate) => Some(fate),
                Step::Tree(tree) => tree.put_back(&ground).err().map(Fate::Failed),
                Step::Moved(_, moved) => put_back(&ground, candidate, &moved).err().map(Fate::Failed),
                Step::Leased(_) | Step::Verified(..) | Step::Empty(..) => None,
            };
            (candidate, fate)
        };
        self.on_way.into_iter().map(back).collect()
    }

    /// Verifies everything and moves it into the trash, a few at a time and when it is this worker's `turn`. To be called
    /// when every use up to the leases is in the index, with what is held after that.
    pub fn take(&mut self, held: FxHashSet<Inode>, turn: &Mutex<()>) {
        let ground = &mut self.ground;
        ground.hold(held);
        for few in self.on_way.chunks_mut(MOVED_AT_ONCE) {
            for (candidate, step) in &mut *few {
                advance(step, |step| verify(ground, candidate, step));
            }
            let _turn = turn.lock();
            for (candidate, step) in few {
                advance(step, |step| match step {
                    Step::Verified(leased, ways) => {
                        let moved = move_away(ground, candidate, ways)?;
                        Ok(Step::Moved(leased, moved))
                    }
                    other => Ok(other),
                });
            }
        }
        for (candidate, step) in &mut self.on_way {
            let Step::Moved(leased, moved) = step else {
                continue;
            };
            if let Err(fate) = check_moved(candidate, leased, moved) {
                let fate = put_back(ground, candidate, moved).map_or_else(Fate::Failed, |()| fate);
                *step = Step::Done(fate);
            }
        }
    }

    /// What will become of each candidate if nothing fails any more.
    pub fn decisions(&self) -> impl Iterator<Item = &Fate> {
        let keep = self.ground.keep;
        self.on_way.iter().map(move |(_, step)| step.decision(keep))
    }

    /// Removes what has no grace.
    pub fn finish(mut self) -> Finished<'a> {
        let ground = &self.ground;
        let mut finished = Finished::default();
        for (position, (candidate, step)) in self.on_way.drain(..).enumerate() {
            let decided = Code::of(step.decision(ground.keep));
            let fate = match step {
                Step::Done(fate) => fate,
                Step::Leased(_) | Step::Verified(..) | Step::Empty(None) => Fate::Skipped(Skip::Changed),
                // It can still be put back, for those who came a moment later.
                Step::Moved(leased, moved) if !leased.is_whole() => put_back(ground, candidate, &moved)
                    .map_or_else(Fate::Failed, |()| Fate::Skipped(Skip::Open)),
                Step::Moved(leased, moved) => {
                    let fate = finish_file(ground, candidate, &moved);
                    if matches!(fate, Fate::Deleted | Fate::Trashed) {
                        finished.gone.push(candidate.ino);
                    }
                    // Those who wait at the lease come when all is over.
                    finished.leases.push(leased);
                    fate
                }
                Step::Tree(tree) => tree.finish(ground, &mut finished),
                Step::Empty(Some((name, freed))) => {
                    let fate = remove_empty(&name);
                    if matches!(fate, Fate::Deleted) {
                        finished.freed.push(freed);
                    }
                    fate
                }
            };
            if Code::of(&fate) != decided {
                finished.amended.push(position);
            }
            finished.fates.push((candidate, fate));
        }
        finished
    }
}

/// A batch whose end has come.
#[derive(Debug, Default)]
pub struct Finished<'a> {
    /// What became of each.
    pub fates: Vec<(&'a Candidate, Fate)>,
    /// Those of which something else became than was decided, by position.
    pub amended: Vec<usize>,
    /// Inodes that are no more at their places. Their leases keep them from being given to new files.
    pub gone: Vec<Inode>,
    /// To be dropped once the index has forgotten those.
    pub leases: Vec<Leased>,
    /// What was removed and may have left its inode to a new file by now.
    pub freed: Vec<Freed>,
}

/// An inode that was removed, and what the index knew of it then.
#[derive(Debug, Clone, Copy)]
pub struct Freed {
    /// Which.
    pub ino: Inode,
    /// What has the same inode and is not this is something new.
    pub known: Attributes,
}

impl Step {
    /// What becomes of it if nothing fails.
    fn decision(&self, keep: bool) -> &Fate {
        match self {
            Self::Done(fate) => fate,
            Self::Leased(_) | Self::Verified(..) | Self::Empty(None) => &Fate::Skipped(Skip::Changed),
            Self::Moved(..) | Self::Tree(_) if keep => &Fate::Trashed,
            Self::Moved(..) | Self::Tree(_) | Self::Empty(Some(_)) => &Fate::Deleted,
        }
    }
}

/// Goes on with a candidate, or ends it.
fn advance(step: &mut Step, next: impl FnOnce(Step) -> Result<Step, Fate>) {
    let now = std::mem::replace(step, Step::Empty(None));
    *step = next(now).unwrap_or_else(Step::Done);
}

/// The step after the barrier.
fn verify(ground: &mut Ground<'_>, candidate: &Candidate, step: Step) -> Result<Step, Fate> {
    match step {
        Step::Leased(leased) => {
            let verified = ground.verify(candidate, Some(&leased))?;
            Ok(Step::Verified(leased, ways(ground, verified)?))
        }
        Step::Tree(mut tree) => match tree.verify(ground) {
            Ok(()) => Ok(Step::Tree(tree)),
            Err(fate) => Err(tree.put_back(ground).map_or_else(Fate::Failed, |()| fate)),
        },
        Step::Empty(_) => {
            let mut names = ground
                .find(candidate)
                .and_then(|_| ground.verify(candidate, None))?
                .names;
            let ino = candidate.ino;
            let known = ground.watched.index.read().get(ino);
            let freed = known.map(|(known, _)| Freed { ino, known });
            Ok(Step::Empty(names.pop().zip(freed)))
        }
        other @ (Step::Done(_) | Step::Verified(..) | Step::Moved(..)) => Ok(other),
    }
}

/// Where the names of a verified file will go.
fn ways(ground: &mut Ground<'_>, verified: Verified) -> Result<Vec<Move>, Fate> {
    let in_its_place = ground.keep || verified.names.len() > 1;
    let way = |from: Name| {
        let (place, there) = match in_its_place {
            // Where its path can be seen.
            true => (ground.bin.place(&from.path, &from.dir)?, Arc::clone(&from.name)),
            // For a moment.
            false => ground.bin.flat(),
        };
        Ok(Move { from, place, there })
    };
    let ways: io::Result<Vec<Move>> = verified.names.into_iter().map(way).collect();
    ways.map_err(gone_or_failed)
}

/// Moves a verified file into the trash, with all its names or none.
fn move_away(
    ground: &mut Ground<'_>,
    candidate: &Candidate,
    mut moves: Vec<Move>,
) -> Result<Vec<Move>, Fate> {
    for n in 0..moves.len() {
        let Some(this) = moves.get_mut(n) else { break };
        if let Err(fate) = move_one(ground, candidate.ino, this) {
            let moved = moves.get(..n).unwrap_or_default();
            return Err(put_back(ground, candidate, moved).map_or_else(Fate::Failed, |()| fate));
        }
    }
    Ok(moves)
}

fn move_one(ground: &mut Ground<'_>, ino: Inode, this: &mut Move) -> Result<(), Fate> {
    let Move { from, place, there } = this;
    // Nothing waits between this look and the rename: what has taken the name meanwhile should not be seen to leave.
    let found = stat::entry(&from.dir, &from.name).map_err(gone_or_failed)?;
    if found.stat.ino != ino {
        return Err(Fate::Skipped(Skip::Changed));
    }
    loop {
        match rename(from, place, there) {
            // Something is stranded there.
            Err(rustix::io::Errno::EXIST) if Arc::ptr_eq(place, ground.bin.lane()) => {
                (_, *there) = ground.bin.flat();
            }
            other => return other.map_err(|e| gone_or_failed(e.into())),
        }
    }
}

fn rename(from: &Name, place: &OwnedFd, there: &CStr) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(&from.dir, &*from.name, place, there, RenameFlags::NOREPLACE)
}

/// What lies in the trash must be the file that is leased, as the plan knows it, and nobody may be waiting for it.
fn check_moved(candidate: &Candidate, leased: &Leased, moved: &[Move]) -> Result<(), Fate> {
    let c = candidate;
    for m in moved {
        let found = stat::entry(&m.place, &m.there).map_err(gone_or_failed)?.stat;
        // A lease stops openers only: not truncate(2) by a kernel's NFS server, not link(2).
        if (found.ino, found.size, found.mtime, found.links) != (c.ino, c.size, c.mtime, c.links) {
            return Err(Fate::Skipped(Skip::Changed));
        }
    }
    match leased.is_whole() {
        true => Ok(()),
        false => Err(Fate::Skipped(Skip::Open)),
    }
}

fn finish_file(ground: &Ground<'_>, candidate: &Candidate, moved: &[Move]) -> Fate {
    if ground.keep {
        return Fate::Trashed;
    }
    for (n, m) in moved.iter().enumerate() {
        if let Err(e) = rustix::fs::unlinkat(&m.place, &*m.there, AtFlags::empty()) {
            let left = moved.get(n..).unwrap_or_default();
            return Fate::Failed(
                put_back(ground, candidate, left)
                    .err()
                    .unwrap_or_else(|| e.into()),
            );
        }
    }
    Fate::Deleted
}

fn remove_empty(name: &Name) -> Fate {
    match rustix::fs::unlinkat(&name.dir, &*name.name, AtFlags::REMOVEDIR) {
        Ok(()) => Fate::Deleted,
        // Something is in it that the plan did not know of.
        Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => Fate::Skipped(Skip::Changed),
        Err(e) => gone_or_failed(e.into()),
    }
}

/// Puts every name back, or keeps what cannot go back.
fn put_back(ground: &Ground<'_>, candidate: &Candidate, moved: &[Move]) -> io::Result<()> {
    let mut result = Ok(());
    for m in moved.iter().rev() {
        let flags = RenameFlags::NOREPLACE;
        let back = rustix::fs::renameat_with(&m.place, &*m.there, &m.from.dir, &*m.from.name, flags);
        if let Err(e) = back {
            let from = (&*m.place, &*m.there);
            let kept = ground
                .bin
                .kept
                .take(from, candidate.ino, &m.from.full(), &e.into());
            result = Err(kept);
        }
    }
    // The renames have moved its change time, and its own renames are not in what the agent reads.
    if let Some(m) = moved.first()
        && let Ok(mut found) = stat::entry(&m.from.dir, &m.from.name)
    {
        let mut index = ground.watched.index.write();
        // Asking might mean opening, which would break what is left of the lease.
        if let Some((known, _)) = index.get(found.stat.ino) {
            found.stat.project = known.project;
        }
        index.refresh(&found.stat).map_err(io::Error::other)?;
    }
    result
}
