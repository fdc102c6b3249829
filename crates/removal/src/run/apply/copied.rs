//! What a rule archives is copied before it is taken.
//!
//! ```text
//!   lease     for a moment: no process has the file open or mapped; then it is compared with the plan, and the lease ends
//!   copy      read, sent, fetched back, compared: without any lease
//!   look      the file is as it was
//!   written   the catalogue in the store has a line of each copy; the ledger names them, and is on the disk
//!   batch     the guarded delete, as for every other rule
//! ```
//! A write through a mapping that was made before moves no time stamp, so that comparing these proves nothing. But no process had the file
//! open or mapped at the first lease. One that opens it later makes an event, which the barrier of the batch brings into the index, and
//! the lease of the batch says that none has it open still. So what was read is what is taken.
//!
//! What may never happen: a candidate of such a rule comes to a batch without a copy that is written down; a lease is held while bytes are sent.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::chain::Chain;
use super::{Runner, ledger_broken, with_cure};
use crate::audit::{self, Lines};
use crate::candidate::{Candidate, Part};
use crate::copying::{Copier, Copy, Original};
use crate::fate::{Fate, Skip};
use crate::refusal;
use crate::run::ending::Stop;
use crate::run::ledger::Position;
use crate::run::tally;
use crate::take::guard::{Ground, Leased, Name};
use purge_base::clock;
use purge_model::{Kind, Stat};
use purge_policy::evaluate::Shape;
use purge_sys::{beneath, stat};

/// After this long what was copied so far is taken, and the rest comes later.
const TAKEN_AFTER: Duration = Duration::from_secs(60);
/// The same when what is written down of it has this many bytes: users can give a file many attributes.
const LINES_MAX: usize = 8 << 20;
/// A larger file that takes less than a tenth of its size on the disk stays: its owner can make it as large as the file system allows.
const SPARSE_MIN: u64 = 1 << 30;
const SPARSE_RATIO: u64 = 10;

/// What came of each candidate of a part, from the first on.
type Outcomes = Vec<Result<Copy, Fate>>;

impl Runner<'_> {
    /// Copies a part and takes what was copied. Each candidate is counted, also if this fails.
    pub(super) fn copy_and_take<'r>(
        &'r self,
        copier: &dyn Copier,
        (at, part): (Position, Part),
        chain: &mut Chain<'r>,
    ) -> Result<(), Stop> {
        let (mut at, mut rest) = (at, part);
        while !rest.is_empty() {
            // What is leased would wait for the store.
            self.end_chain(chain);
            if self.should_stop() {
                self.count_unreached(rest.len());
                return Ok(());
            }
            let copied = self
                .copy_some(copier, &rest)
                .and_then(|outcomes| self.write_down(copier, at, &rest, outcomes));
            let outcomes = copied.inspect_err(|_| self.count_unreached(rest.len()))?;
            let count = outcomes.len();
            let (now, after) = rest.split(count);
            let taken = self.take_copied((at, &now), outcomes, chain);
            taken.inspect_err(|_| self.count_unreached(after.len()))?;
            (at, rest) = (at.plus(count), after);
        }
        self.end_chain(chain);
        Ok(())
    }

    /// Copies the first candidates, as many as there is time for, and at least one.
    fn copy_some(&self, copier: &dyn Copier, part: &Part) -> Result<Outcomes, Stop> {
        let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let written = AtomicUsize::new(0);
        let began = Instant::now();
        let outcomes: Mutex<Vec<Option<Result<Copy, Fate>>>> = Mutex::new(Vec::new());
        let stop = Mutex::new(None);
        let work = || {
            let ended = self.ground_for_copies(part).and_then(|mut ground| {
                loop {
                    if is_over.load(Relaxed) || self.live.is_cancelled() {
                        return Ok(());
                    }
                    let number = next.fetch_add(1, Relaxed);
                    let Some(candidate) = part.get(number) else {
                        return Ok(());
                    };
                    let outcome = copy_one(copier, &mut ground, candidate)?;
                    let bytes = outcome.as_ref().map_or(0, |copy| copy.line.len());
                    let before = written.fetch_add(bytes, Relaxed);
                    let mut all = outcomes.lock();
                    if all.len() <= number {
                        all.resize_with(number + 1, || None);
                    }
                    if let Some(slot) = all.get_mut(number) {
                        *slot = Some(outcome);
                    }
                    if began.elapsed() > TAKEN_AFTER || before.saturating_add(bytes) > LINES_MAX {
                        is_over.store(true, Relaxed);
                    }
                }
            });
            if let Err(why) = ended {
                is_over.store(true, Relaxed);
                stop.lock().get_or_insert(why);
            }
        };
        let threads = copier.at_a_time().div_ceil(usize::from(self.workers)).max(1);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(part.len()) {
                // Where the system gives no thread, fewer do the work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        match stop.into_inner() {
            Some(why) => Err(why),
            None if self.live.is_cancelled() => Err(Stop::Cancelled),
            None => Ok(outcomes.into_inner().into_iter().map_while(|one| one).collect()),
        }
    }

    fn ground_for_copies(&self, part: &Part) -> Result<Ground<'_>, Stop> {
        let broken = |e| Stop::Broken(with_cure("cannot open the volume", &e));
        let share = self.share(part.first().map_or(0, |c| c.rule));
        let bin = self.trash.bin(&share).map_err(broken)?;
        let mut ground = Ground::new(self.watched, bin, None, self.quiet.as_ref()).map_err(broken)?;
        ground.hold(self.around.held(), self.watched.mounted.last());
        Ok(ground)
    }

    /// Writes down what was copied, in the store and here.
    fn write_down(
        &self,
        copier: &dyn Copier,
        at: Position,
        part: &Part,
        outcomes: Outcomes,
    ) -> Result<Outcomes, Stop> {
        let copied = || part.iter().zip(&outcomes).enumerate();
        let copied = || copied().filter_map(|(n, (c, one))| Some((n, c, one.as_ref().ok()?)));
        if copied().next().is_none() {
            return Ok(outcomes);
        }
        let lines = copied().flat_map(|(_, _, copy)| copy.line.iter().copied());
        copier.write_down(lines.collect()).map_err(Stop::Broken)?;
        let noted = copied().map(|(n, _, copy)| (at.plus(n), copy));
        self.order.ledger.copied(noted).map_err(ledger_broken)?;
        let (heading, rules) = (&self.order.heading, &self.order.plan.rules);
        let (mut lines, time) = (Lines::default(), audit::rfc3339(clock::now()));
        for (_, candidate, copy) in copied() {
            lines.add_copy(&time, (heading, rules), candidate, copy);
        }
        let told = self.order.audit.write(&lines);
        told.map_err(|e| Stop::Broken(e.to_string()))?;
        let mut tally = self.tally.lock();
        copied().for_each(|(_, candidate, _)| tally::archived(&mut tally.run, candidate));
        self.live.publish(tally.clone());
        drop(tally);
        Ok(outcomes)
    }

    /// Gives each stretch of copied candidates to the guarded delete. The others are told and counted.
    fn take_copied<'r>(
        &'r self,
        (at, part): (Position, &Part),
        outcomes: Outcomes,
        chain: &mut Chain<'r>,
    ) -> Result<(), Stop> {
        let mut outcomes = outcomes.into_iter().peekable();
        let mut done = 0;
        while let Some(outcome) = outcomes.next() {
            let (from, first) = (at.plus(done), part.clone().split(done).1);
            let ended = match outcome {
                Ok(_) => {
                    let mut together = 1;
                    while outcomes.next_if(Result::is_ok).is_some() {
                        together += 1;
                    }
                    done += together;
                    self.batch(from, first.split(together).0, chain)
                }
                Err(fate) => {
                    done += 1;
                    self.leave(from, first.first(), fate)
                }
            };
            if let Err(stop) = ended {
                self.count_unreached(part.len().saturating_sub(done));
                return Err(stop);
            }
        }
        Ok(())
    }

    /// A candidate that was not copied stays.
    fn leave(&self, at: Position, candidate: Option<&Candidate>, fate: Fate) -> Result<(), Stop> {
        let Some(candidate) = candidate else { return Ok(()) };
        let ledger = self.order.ledger;
        let decided = ledger
            .begun(at, 1)
            .and_then(|()| ledger.decided(at, std::iter::once(&fate)));
        let fates = [(candidate, fate)];
        let told = self.tell(&fates);
        self.count(&fates);
        decided.map_err(ledger_broken)?;
        told.map_err(|e| Stop::Broken(e.to_string()))?;
        ledger.told(at, 1).map_err(ledger_broken)
    }
}

/// Copies one candidate, or says what becomes of it.
fn copy_one(
    copier: &dyn Copier,
    ground: &mut Ground<'_>,
    candidate: &Candidate,
) -> Result<Result<Copy, Fate>, Stop> {
    let opened = match candidate.shape {
        Shape::File => open_file(ground, candidate),
        Shape::EmptyDirectory | Shape::Link(_) => open_last(ground, candidate),
        Shape::Tree => Err(Fate::Failed(refusal::failure(
            "directories are not archived as a whole".into(),
            &[],
        ))),
    };
    let Opened { file, names, target } = match opened {
        Ok(opened) => opened,
        Err(fate) => return Ok(Err(refusal::settled(fate))),
    };
    let original = Original {
        candidate,
        open: &file,
        names: &names,
        target: &target,
    };
    let copy = match copier.copy(&original) {
        Ok(copy) => copy,
        Err(not) => return not.fate().map(Err).map_err(Stop::Broken),
    };
    if candidate.shape == Shape::File
        && let Err(fate) = check_unchanged(&file, candidate)
    {
        return Ok(Err(fate));
    }
    Ok(Ok(copy))
}

/// An entry that is to be copied.
struct Opened {
    file: File,
    names: Vec<Vec<u8>>,
    target: Vec<u8>,
}

/// Opens a file that no process has open, and that is as the plan says.
fn open_file(ground: &mut Ground<'_>, candidate: &Candidate) -> Result<Opened, Fate> {
    let leased = ground.lease(candidate)?;
    let verified = ground.verify(candidate, Some(&leased))?;
    let names = match verified.names.as_slice() {
        [_] => Vec::new(),
        several => several.iter().map(Name::full).collect(),
    };
    let file: File = match leased {
        Leased::Guarded(lease) => lease.end().map_err(Fate::Failed)?,
        Leased::Kept(file, _) | Leased::Unguarded(file) => file,
    }
    .into();
    let found = stat::open_file(&file).map_err(refusal::fate)?.stat;
    if found.size > SPARSE_MIN && found.size / SPARSE_RATIO > found.allocated {
        let why = "it is sparse: it takes less than a tenth of its size on the disk, and is not archived";
        return Err(Fate::Failed(refusal::failure(why.into(), &[])));
    }
    Ok(Opened {
        file,
        names,
        target: Vec::new(),
    })
}

/// Opens a directory or a symbolic link, for a look.
fn open_last(ground: &mut Ground<'_>, candidate: &Candidate) -> Result<Opened, Fate> {
    let name = ground.find(candidate)?;
    let opened = match candidate.kind() {
        Kind::Directory => beneath::open_dir(&name.dir, name.name.to_bytes()),
        _ => beneath::open_entry(&name.dir, name.name.to_bytes()),
    };
    let opened = opened.map_err(refusal::fate)?;
    let target = match candidate.kind() {
        Kind::Symlink => beneath::words_of_link(&opened).map_err(refusal::fate)?,
        _ => Vec::new(),
    };
    let found = stat::open_file(&opened).map_err(refusal::fate)?.stat;
    if (found.ino, found.kind) != (candidate.ino, candidate.kind()) {
        return Err(Fate::Skipped(Skip::Changed));
    }
    Ok(Opened {
        file: opened.into(),
        names: Vec::new(),
        target,
    })
}

/// The file is as it was before it was read.
fn check_unchanged(file: &File, candidate: &Candidate) -> Result<(), Fate> {
    let now = stat::open_file_now(file).map_err(refusal::fate)?.stat;
    let of = |s: &Stat| (s.ino, s.size, s.mtime, s.ctime, s.ctime_nanos, s.links);
    let c = candidate;
    match of(&now) == (c.ino, c.size, c.mtime, c.ctime, c.ctime_nanos, c.links) {
        true => Ok(()),
        false => Err(Fate::Skipped(Skip::Changed)),
    }
}
