//! Takes a batch of candidates away: everything that must wait for the barrier happens to all of them at once.
//!
//! ```text
//!   Batch::begin   files are leased; directories that go as a whole are moved out of reach
//!        |         barrier: every use up to here is in the index
//!   Batch::take    verify, rename into the trash; put back what a process came for in the meantime
//!        |         the decisions are written to the run's ledger
//!        |         barrier: every rename by others up to the moves is known
//!   Batch::finish  remove what has no grace; what a process came for in the last moment is put back
//! ```
//! A file's lease is looked at after all renames of the batch: a process that found the file by its name before it was moved
//! has had that long to come to the lease.
//!
//! A file that was decided on is removed by the file of the next batch that is renamed to its name in the trash: one change of the
//! file system instead of two, and a process that found it before has a batch longer to come. What is left over is unlinked.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use crate::candidate::{Candidate, Part};
use crate::fate::Code;
use crate::fate::{Fate, Skip};
use crate::refusal::{self, settled};
use crate::take::emptying::ReadUses;
use crate::take::guard::{Ground, Leased, Name, Verified};
use crate::take::last::Last;
use crate::take::moves::{Finished, Move, into_a_lane, put_back, rename};
use crate::take::tree::{ENTRIES_TOGETHER_MAX, Tree};
use crate::trash::lanes::Lanes;
use purge_collect::mounted::InUse;
use purge_model::{Inode, Seconds};
use purge_policy::evaluate::Shape;
use purge_sys::{inside, stat};

/// This many are verified, then moved: what was verified must not get old, and those who wait for their turn must not be woken
/// for each.
const MOVED_AT_ONCE: usize = 128;

/// What was moved is looked at once more after at least this long. A process that had found a file by its name, and lost its processor
/// before it came to open it, has it again by then. About as long as a batch takes until it comes to the moves, so that few have to wait.
const SETTLED_AFTER: Duration = Duration::from_millis(10);

/// What is not decided on after so long goes back, and is for another batch: openers wait meanwhile, and what a candidate costs is up to
/// the user whose it is.
const HELD_MAX: Duration = Duration::from_millis(150);
/// One candidate alone has so long.
const ONE_HELD_MAX: Duration = Duration::from_millis(400);

/// A batch on its way.
#[derive(Debug)]
pub struct Batch<'a> {
    ground: Ground<'a>,
    part: Part,
    /// How far each of them is.
    steps: Vec<Step>,
    began: Instant,
    /// When the last of them was moved, if any was.
    moved: Option<Instant>,
    /// Those before this position have given way to a file of the batch that follows, or cannot.
    gave_way: usize,
}

/// How far a candidate is.
#[derive(Debug)]
enum Step {
    /// Its fate is known.
    Done(Fate),
    /// A file at its place, that no process can open.
    Leased(Leased),
    /// A file at its place that is as the plan and the index say, and where its names will go.
    Verified(Leased, Vec<Way>),
    /// A file in the trash.
    Moved(Leased, Vec<Move>),
    /// A file that was removed: one of the batch that follows has its name in the trash.
    Replaced(Leased),
    /// A directory at its place, and what is in it.
    Found(Box<Tree>),
    /// The same in the trash.
    Tree(Box<Tree>),
    /// A directory that should be empty, or a symbolic link, at its place; verified, if it says where.
    Last(Option<Box<Last>>),
}

/// A name that will be moved.
#[derive(Debug)]
struct Way {
    from: Name,
    to: To,
}

/// Where to.
#[derive(Debug)]
enum To {
    /// A directory of the trash that is like its own, under its own name: its path can be seen.
    ItsLike(Arc<OwnedFd>),
    /// A lane of the worker's, for a moment.
    ALane,
}

impl<'a> Batch<'a> {
    /// Takes leases on files, and directories out of reach: on as many of the first as there is time for ([`Self::len`]).
    pub fn begin(mut ground: Ground<'a>, part: Part) -> Self {
        let began = Instant::now();
        let mut steps = Vec::with_capacity(part.len());
        let mut entries = 0usize;
        for candidate in part.iter() {
            ground.follower.follow(candidate.ino);
            let step = match candidate.shape {
                Shape::File if !steps.is_empty() && began.elapsed() > HELD_MAX => break,
                Shape::File => ground.lease(candidate).map(Step::Leased),
                // What the plan knows of it says whether to look at all.
                Shape::Tree
                    if !steps.is_empty()
                        && entries.saturating_add(files_of(candidate)) > ENTRIES_TOGETHER_MAX =>
                {
                    break;
                }
                Shape::Tree => Tree::find(&mut ground, candidate).map(|tree| Step::Found(Box::new(tree))),
                Shape::EmptyDirectory | Shape::Link(_) => Ok(Step::Last(None)),
            };
            if let Ok(Step::Found(tree)) = &step {
                entries = entries.saturating_add(tree.entries());
                if entries > ENTRIES_TOGETHER_MAX && !steps.is_empty() {
                    break;
                }
            }
            steps.push(step.unwrap_or_else(|fate| Step::Done(settled(fate))));
        }
        // All of them have been looked at: those that are moved first are not away for as long as that takes.
        let has_trees = part.first().is_some_and(|c| c.shape == Shape::Tree);
        let began = if has_trees { Instant::now() } else { began };
        for (candidate, step) in part.iter().zip(&mut steps) {
            advance(step, |step| match step {
                Step::Found(tree) => {
                    let tree = tree.take(&mut ground, candidate)?;
                    Ok(Step::Tree(Box::new(tree)))
                }
                other => Ok(other),
            });
        }
        Self {
            ground,
            part: part.split(steps.len()).0,
            steps,
            began,
            moved: None,
            gave_way: 0,
        }
    }

    /// How many candidates there are.
    pub fn len(&self) -> usize {
        self.part.len()
    }

    /// How long the first of them has been leased.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether a process waits for one of its files.
    pub fn is_awaited(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Moved(leased, _) => !leased.is_still_granted(),
            Step::Tree(tree) => !tree.is_still_granted(),
            _ => false,
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// The batch will not be taken: everything goes back to its place. A candidate has a fate only if it could not.
    pub fn abandon(self) -> (Part, Vec<Option<Fate>>) {
        let (ground, part) = (self.ground, self.part);
        let back = |(candidate, step)| match step {
            Step::Done(fate) => Some(fate),
            Step::Tree(tree) => tree.put_back(&ground).err().map(Fate::Failed),
            Step::Moved(_, moved) => put_back(&ground, candidate, &moved).err().map(Fate::Failed),
            Step::Leased(_) | Step::Verified(..) | Step::Found(_) | Step::Last(..) => None,
            Step::Replaced(_) => Some(Fate::Deleted),
        };
        let fates = part.iter().zip(self.steps).map(back).collect();
        (part, fates)
    }

    /// Verifies everything and moves it into the trash, a few at a time and when it is this worker's `turn`, over what is decided of the
    /// batch `before`; as many of the first as there is time for ([`Self::len`]). To be called when every use up to the leases is in the
    /// index, with what is held and what is in use by mounts after that. Mounts that were made before the moves of the batch `before` are
    /// among these.
    pub fn take(
        &mut self,
        (held, mounted): (FxHashSet<Inode>, Arc<InUse>),
        turn: &Mutex<()>,
        mut before: Option<&mut Self>,
    ) {
        let (ground, part) = (&mut self.ground, &self.part);
        if let Some(before) = &mut before {
            before.ground.mounted = Arc::clone(&mounted);
        }
        ground.hold(held, mounted);
        let few = part
            .chunks(MOVED_AT_ONCE)
            .zip(self.steps.chunks_mut(MOVED_AT_ONCE));
        let mut done = 0;
        for (candidates, steps) in few {
            let before_these = done;
            for (candidate, step) in candidates.iter().zip(&mut *steps) {
                if done > 0 && self.began.elapsed() > HELD_MAX && matches!(step, Step::Leased(_)) {
                    break;
                }
                ground.until = Instant::now().checked_add(ONE_HELD_MAX);
                advance(step, |step| verify(ground, candidate, step));
                done += 1;
            }
            let is_late = done - before_these < candidates.len();
            let steps = steps.get_mut(..done - before_these).unwrap_or_default();
            if let Some(before) = &before {
                before.settle();
            }
            let _turn = turn.lock();
            for (candidate, step) in candidates.iter().zip(steps) {
                advance(step, |step| match step {
                    Step::Verified(leased, ways) => {
                        let moved = move_away(ground, candidate, ways, before.as_deref_mut())?;
                        Ok(Step::Moved(leased, moved))
                    }
                    other => Ok(other),
                });
            }
            // Nothing of a later chunk comes before what is left of this one.
            if is_late {
                break;
            }
        }
        // The others have their leases back, and come with another batch.
        self.steps.truncate(done);
        self.part = self.part.clone().split(done).0;
        let (ground, part) = (&mut self.ground, &self.part);
        let is_moved = |step: &Step| matches!(step, Step::Moved(..) | Step::Tree(_));
        self.moved = self.steps.iter().any(is_moved).then(Instant::now);
        for (candidate, step) in part.iter().zip(&mut self.steps) {
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
        let keep = self.ground.keeps();
        self.steps.iter().map(move |step| step.decision(keep))
    }

    /// The lanes, for the batch that follows.
    pub fn lanes(&self) -> Option<Lanes> {
        self.ground.lanes.clone()
    }

    /// Waits until no process can be on its way any more to what was moved.
    fn settle(&self) {
        if let Some(moved) = self.moved {
            std::thread::sleep(SETTLED_AFTER.saturating_sub(moved.elapsed()));
        }
    }

    /// Whether another process has renamed or changed what was moved, as far as the last barrier tells.
    fn is_altered(&self, ino: Inode) -> bool {
        self.ground.follower.has_seen(ino)
    }

    /// Where the next file lies that is decided on and that no process has come for: a file that is renamed to there removes it. A barrier
    /// has passed since it was moved.
    fn giving_way(&mut self) -> Option<(Arc<OwnedFd>, Arc<CStr>)> {
        while let Some(step) = self.steps.get(self.gave_way) {
            let ino = self.part.get(self.gave_way).map(|candidate| candidate.ino);
            if let Step::Moved(leased, moved) = step
                && let [only] = &**moved
                && only.in_lane
                && ino.is_some_and(|ino| !self.ground.mounted.has(ino) && !self.is_altered(ino))
                && leased.is_still_granted()
            {
                return Some((Arc::clone(&only.place), Arc::clone(&only.there)));
            }
            self.gave_way += 1;
        }
        None
    }

    /// What [`Self::giving_way`] said was done.
    fn has_given_way(&mut self) {
        if let Some(step) = self.steps.get_mut(self.gave_way) {
            advance(step, |step| match step {
                Step::Moved(leased, _) => Ok(Step::Replaced(leased)),
                other => Ok(other),
            });
        }
        self.gave_way += 1;
    }

    /// When the last candidate was moved, if any was: what is said to be in use by mounts at the end must have been looked at later.
    pub fn moved_at(&self) -> Option<Instant> {
        let is_empty = |step: &Step| matches!(step, Step::Last(Some(_)));
        let empty = || self.steps.iter().any(is_empty).then(Instant::now);
        self.moved.or_else(empty)
    }

    /// Removes what has no grace and has not given way. `barrier`: one has passed since it was moved; without it nothing says that no process
    /// has renamed a file in the moment before.
    pub fn finish(
        mut self,
        mounted: Arc<InUse>,
        barrier: bool,
        read_uses: &ReadUses<'_>,
    ) -> (Part, Finished) {
        self.settle();
        self.ground.mounted = mounted;
        let (mut ground, part) = (self.ground, self.part);
        let mut finished = Finished::default();
        for (position, (candidate, step)) in part.iter().zip(self.steps).enumerate() {
            let ground = &mut ground;
            let decided = Code::of(step.decision(ground.keeps()));
            let fate = match step {
                Step::Done(fate) => fate,
                Step::Leased(_) | Step::Verified(..) | Step::Found(_) | Step::Last(None) => {
                    Fate::Skipped(Skip::Changed)
                }
                // It can still be put back, for a mount that was made, or a process that came, a moment before it was moved.
                Step::Moved(_, moved) if ground.mounted.has(candidate.ino) => {
                    put_back(ground, candidate, &moved)
                        .map_or_else(Fate::Failed, |()| Fate::Skipped(Skip::Mounted))
                }
                Step::Moved(leased, moved) if !leased.is_still_granted() => {
                    put_back(ground, candidate, &moved)
                        .map_or_else(Fate::Failed, |()| Fate::Skipped(Skip::Open))
                }
                Step::Moved(_, moved) if !barrier || ground.follower.has_seen(candidate.ino) => {
                    put_back(ground, candidate, &moved)
                        .map_or_else(Fate::Failed, |()| Fate::Skipped(Skip::Changed))
                }
                // Without a lease a process may have opened it before it was moved.
                Step::Moved(leased, moved)
                    if !leased.holds_up_all() && ground.check_index(candidate).is_err() =>
                {
                    put_back(ground, candidate, &moved)
                        .map_or_else(Fate::Failed, |()| Fate::Skipped(Skip::Accessed))
                }
                Step::Moved(leased, moved) => {
                    let fate = finish_file(ground, candidate, &moved);
                    match fate {
                        Fate::Deleted => finished.gone.push(candidate.ino),
                        Fate::Trashed => finished.trashed.push((candidate.ino, candidate.last_use())),
                        _ => {}
                    }
                    // Those who wait at the lease come when all is over.
                    finished.leases.push(leased);
                    fate
                }
                Step::Replaced(leased) => {
                    finished.gone.push(candidate.ino);
                    finished.leases.push(leased);
                    Fate::Deleted
                }
                Step::Tree(tree) => settled(tree.finish(ground, barrier, (read_uses, &mut finished))),
                Step::Last(Some(_)) if ground.mounted.has(candidate.ino) => Fate::Skipped(Skip::Mounted),
                Step::Last(Some(last)) => settled(last.finish(ground, candidate, &mut finished)),
            };
            if Code::of(&fate) != decided {
                finished.amended.push(position);
            }
            finished.fates.push(fate);
        }
        (part, finished)
    }
}

impl Step {
    /// What becomes of it if nothing fails.
    fn decision(&self, keep: bool) -> &Fate {
        match self {
            Self::Done(fate) => fate,
            Self::Leased(_) | Self::Verified(..) | Self::Found(_) | Self::Last(None) => {
                &Fate::Skipped(Skip::Changed)
            }
            Self::Moved(..) | Self::Tree(_) | Self::Last(Some(_)) if keep => &Fate::Trashed,
            Self::Moved(..) | Self::Replaced(_) | Self::Tree(_) | Self::Last(Some(_)) => &Fate::Deleted,
        }
    }
}

/// Goes on with a candidate, or ends it.
fn advance(step: &mut Step, next: impl FnOnce(Step) -> Result<Step, Fate>) {
    let now = std::mem::replace(step, Step::Last(None));
    *step = next(now).unwrap_or_else(|fate| Step::Done(settled(fate)));
}

fn files_of(candidate: &Candidate) -> usize {
    usize::try_from(candidate.files).unwrap_or(usize::MAX)
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
        Step::Last(_) => Ok(Step::Last(Some(Box::new(Last::verify(ground, candidate)?)))),
        other @ (Step::Done(_)
        | Step::Verified(..)
        | Step::Moved(..)
        | Step::Replaced(_)
        | Step::Found(_)) => Ok(other),
    }
}

/// Where the names of a verified file will go.
fn ways(ground: &mut Ground<'_>, verified: Verified) -> Result<Vec<Way>, Fate> {
    let in_its_place = ground.keeps() || verified.names.len() > 1;
    let way = |from: Name| {
        if ground.is_late() {
            return Err(Fate::Skipped(Skip::ManyNames));
        }
        let to = match in_its_place {
            true => To::ItsLike(
                ground
                    .bin
                    .place(&from.path, &from.dir)
                    .map_err(|e| ground.not_taken(e))?,
            ),
            false => To::ALane,
        };
        Ok(Way { from, to })
    };
    verified.names.into_iter().map(way).collect()
}

/// Moves a verified file into the trash, with all its names or none.
fn move_away(
    ground: &mut Ground<'_>,
    candidate: &Candidate,
    ways: Vec<Way>,
    mut before: Option<&mut Batch<'_>>,
) -> Result<Vec<Move>, Fate> {
    let mut moved: Vec<Move> = Vec::with_capacity(ways.len());
    for way in ways {
        let one = changed_last(candidate, moved.last())
            .and_then(|changed| move_one(ground, (candidate.ino, changed), way, before.as_deref_mut()));
        match one {
            Ok(one) => moved.push(one),
            Err(fate) => return Err(put_back(ground, candidate, &moved).map_or_else(Fate::Failed, |()| fate)),
        }
    }
    Ok(moved)
}

/// When a file was changed last, as far as the plan knows and the agent has renamed it.
fn changed_last(candidate: &Candidate, moved: Option<&Move>) -> Result<(Seconds, u32), Fate> {
    let Some(moved) = moved else {
        return Ok((candidate.ctime, candidate.ctime_nanos));
    };
    let found = stat::entry(&moved.place, &moved.there)
        .map_err(refusal::fate)?
        .stat;
    Ok((found.ctime, found.ctime_nanos))
}

fn move_one(
    ground: &mut Ground<'_>,
    (ino, changed): (Inode, (Seconds, u32)),
    way: Way,
    before: Option<&mut Batch<'_>>,
) -> Result<Move, Fate> {
    let Way { from, to } = way;
    // Nothing waits between this look and the rename: what has taken the name meanwhile should not be seen to leave. A user who has
    // renamed the file to and fro since it was verified has changed it, and a rename of the agent's would hide that.
    let found = stat::entry(&from.dir, &from.name).map_err(refusal::fate)?;
    if found.mount_root {
        return Err(Fate::Skipped(Skip::Mounted));
    }
    let was = found.stat;
    if (was.ino, (was.ctime, was.ctime_nanos)) != (ino, changed) {
        return Err(Fate::Skipped(Skip::Changed));
    }
    let (place, there, in_lane) = match to {
        To::ItsLike(place) => {
            rename(&from, &place, &from.name).map_err(|e| ground.not_taken(e))?;
            (place, Arc::clone(&from.name), false)
        }
        To::ALane => {
            let moved = over_or_into_a_lane(ground.lanes.as_mut(), &from, before);
            let (place, there) = moved.map_err(|e| ground.not_taken(e))?;
            (place, there, true)
        }
    };
    Ok(Move {
        from,
        place,
        there,
        in_lane,
        was,
    })
}

/// Moves a name over one that gives way, or else into a lane.
fn over_or_into_a_lane(
    lanes: Option<&mut Lanes>,
    from: &Name,
    before: Option<&mut Batch<'_>>,
) -> io::Result<(Arc<OwnedFd>, Arc<CStr>)> {
    if let Some(before) = before
        && let Some((place, there)) = before.giving_way()
    {
        inside::move_over(&from.dir, &from.name, &place, &there)?;
        before.has_given_way();
        return Ok((place, there));
    }
    into_a_lane(lanes, from)
}

/// What lies in the trash must be the file that is leased, as the plan knows it, and no process may be waiting for it.
fn check_moved(candidate: &Candidate, leased: &Leased, moved: &[Move]) -> Result<(), Fate> {
    let c = candidate;
    for m in moved {
        let found = stat::entry(&m.place, &m.there).map_err(refusal::fate)?.stat;
        // A lease stops openers only: not truncate(2) by a kernel's NFS server, not link(2), not utimensat(2) by a path.
        let is_planned =
            (found.ino, found.size, found.mtime, found.links) == (c.ino, c.size, c.mtime, c.links);
        if !is_planned || !m.has_changed_nothing_of(&found) {
            return Err(Fate::Skipped(Skip::Changed));
        }
    }
    match leased.is_whole() {
        true => Ok(()),
        false => Err(Fate::Skipped(Skip::Open)),
    }
}

fn finish_file(ground: &Ground<'_>, candidate: &Candidate, moved: &[Move]) -> Fate {
    if ground.keeps() {
        return Fate::Trashed;
    }
    for (n, m) in moved.iter().enumerate() {
        if let Err(e) = inside::unlink(&m.place, &*m.there) {
            let left = moved.get(n..).unwrap_or_default();
            return match put_back(ground, candidate, left) {
                Err(kept) => Fate::Failed(kept),
                Ok(()) if n == 0 => refusal::fate(e),
                Ok(()) => Fate::Failed(refusal::failure(
                    format!("some of its names are deleted, and it is back at the others: {e}"),
                    &[&e],
                )),
            };
        }
    }
    Fate::Deleted
}
