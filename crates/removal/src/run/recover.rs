//! Closes runs that ended with their process: what was being processed goes back to its place, and the run's record tells every
//! candidate's fate.
//!
//! What was decided on and still lies there goes back as well. The leases ended with the process, and the agent did not see which
//! processes have come for it since: only what the run itself has removed is deleted, and only what it has told to be in the trash stays
//! there.
//!
//! After a power cut the ledger's end may be missing while the file system remembers what was removed: then a candidate
//! of a run without a grace that is nowhere counts as deleted by it. Or the ledger remembers what the file system does not:
//! then what lies at its place counts as not reached.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use purge_proto::shown;
use rustc_hash::FxHashMap;

use crate::audit::{self, Audit, Event, Heading, Lines};
use crate::candidate::Candidate;
use crate::fate::Code;
use crate::fate::Skip;
use crate::plans::{Plan, Plans};
use crate::run::apply::Taken;
use crate::run::ending::name_owners;
use crate::run::ledger::{self, Account, Known};
use crate::run::tally;
use crate::runs::{Run, RunState, Runs, Skipped};
use crate::trash::dir::Trash;
use crate::trash::origin::Origin;
use crate::trash::restore::{Restore, Settled, Which};
use crate::trash::share::Share;
use purge_base::clock;
use purge_collect::Watched;
use purge_index::StoreError;
use purge_model::{Inode, Kind, Stat, Totals};
use purge_policy::evaluate::Shape;
use purge_sys::walk::{self, Listed, Visitor};
use purge_sys::{beneath, stat};

/// Runs that earlier processes did not end, and what is needed to end them.
#[derive(Debug)]
pub struct Unfinished {
    runs: Mutex<Vec<Run>>,
    /// The plan of each run that did end.
    ended: FxHashMap<String, String>,
    closed: Mutex<Vec<Run>>,
    plans: Plans,
    state_dir: PathBuf,
    audit: Arc<Audit>,
    witnesses: Arc<dyn Witnesses>,
}

/// Hears of what was taken.
pub type Witness = Box<dyn Fn(&[Taken<'_>])>;

/// Makes the witnesses that must know what was taken in a run that is counted again.
pub trait Witnesses: std::fmt::Debug + Send + Sync {
    /// The witness that hears of this run of a plan on the volume at `root`, from its first candidate on.
    fn of_run(&self, run: &str, plan: &Plan, root: &Path) -> Witness;
}

impl Unfinished {
    /// The runs in the store that are said to be going on, and are not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find(
        runs: &Runs,
        plans: Plans,
        state_dir: &Path,
        audit: Arc<Audit>,
        witnesses: Arc<dyn Witnesses>,
    ) -> Result<Self, StoreError> {
        let all = runs.list()?.into_iter();
        let (left, ended): (Vec<_>, Vec<_>) =
            all.partition(|r| r.state == RunState::Running && runs.live(&r.id).is_none());
        Ok(Self {
            runs: Mutex::new(left),
            ended: ended.into_iter().map(|r| (r.id, r.plan)).collect(),
            closed: Mutex::default(),
            plans,
            state_dir: state_dir.to_owned(),
            audit,
            witnesses,
        })
    }

    /// Ends the runs of a volume. To be called before the volume is scanned.
    ///
    /// # Errors
    /// When the trash cannot be opened or listed: what is in it stays there.
    pub fn end_those_of(&self, volume: &str, watched: &Watched) -> io::Result<()> {
        let mine: Vec<Run> = {
            let mut all = self.runs.lock();
            let (mine, others) = all.drain(..).partition(|r| r.volume == volume);
            *all = others;
            mine
        };
        let trash = Trash::open(watched)?;
        for run in mine {
            let id = run.id.clone();
            let closed = Closing {
                watched,
                trash: trash.as_ref(),
                plans: &self.plans,
                audit: &self.audit,
                witnesses: &*self.witnesses,
                account: Account::load(&self.state_dir, &run.id)?,
                run,
                refusals: Refusals::default(),
            };
            match closed.close() {
                Ok(run) => self.closed.lock().push(run),
                // Its share stays as it is, and the next start tries again. The others' runs end.
                Err(error) => tracing::error!(run = %id, %error, "a run that was killed cannot be ended"),
            }
        }
        if let Some(trash) = trash {
            for share in trash.shares()?.into_iter().filter(|s| s.open) {
                if let Err(error) = self.put_back_the_rest(watched, &trash, &share) {
                    tracing::error!(run = %share.run, %error, "what a killed run had taken cannot be put back");
                }
            }
            trash.tidy();
            trash.remember(watched)?;
        }
        Ok(())
    }

    /// Runs that ended and could not put everything back (a disk that failed), or of which no record tells: all that lies there
    /// goes back.
    fn put_back_the_rest(&self, watched: &Watched, trash: &Trash, share: &Share) -> io::Result<()> {
        let mut settled = Settled::default();
        let flat = flat(trash, [share])?;
        let plan = self.ended.get(&share.run).filter(|_| !flat.is_empty());
        if let Some((id, plan)) = plan.and_then(|id| Some((id, self.plans.get(id).ok()?))) {
            for chunk in 0..plan.chunks {
                let candidates = self.plans.chunk(id, chunk).map_err(io::Error::other)?;
                for c in candidates.iter().filter(|c| is_one_of(&flat, c)) {
                    settled.paths.insert(c.ino, c.path());
                }
            }
        }
        put_back(watched, trash, share, &settled)?;
        if let Err(error) = trash.end(share) {
            tracing::error!(run = %share.run, %error, "it is unknown where this belongs");
        }
        Ok(())
    }

    /// Saves the records of what was ended. A run whose volume is no longer configured stays as it is; one whose volume comes later is
    /// ended then.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn save(&self, runs: &Runs, comes_later: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for run in self.closed.lock().drain(..) {
            runs.save(&run)?;
            let _ = std::fs::remove_file(ledger::path(&self.state_dir, &run.id));
        }
        for mut run in self.runs.lock().drain(..) {
            if comes_later(&run.volume) {
                continue;
            }
            run.state = RunState::Failed;
            let why = "the agent ended while the run was going on, and its volume is not configured any more";
            run.error = Some(why.into());
            runs.save(&run)?;
        }
        Ok(())
    }
}

/// What could not be put back, and why.
type Refusals = HashMap<Vec<u8>, String>;

/// Puts back what is not settled, and keeps what cannot go back.
fn put_back(watched: &Watched, trash: &Trash, share: &Share, settled: &Settled) -> io::Result<Refusals> {
    let mut back = 0u64;
    let mut refusals = Refusals::default();
    let kept = trash.kept(&share.run)?;
    let mut restore = Restore {
        whom: None,
        is_dry: false,
        is_stopping: &|| false,
        has_no_trees: false,
        emptied: 0,
        which: Which::Unsettled(settled),
        to: None,
        knows: &|dir, path| is_known(watched, dir, path),
        tell: &mut |told| match told {
            Ok(_) => back += 1,
            Err(refused) => {
                let path = shown::cut(&refused.path, shown::LOGGED_MAX);
                let (path, why) = (String::from_utf8_lossy(&path), &refused.why);
                tracing::error!(run = %share.run, %path, why, "a killed run was taking it");
                refusals.insert(refused.path, refused.why);
            }
        },
        kept: Some(&kept),
        // The scan that follows finds it.
        placed: &mut |_, _| {},
    };
    restore.run(trash, share)?;
    if back > 0 {
        tracing::info!(run = %share.run, back, "put back what a killed run was taking");
    }
    Ok(refusals)
}

struct Closing<'a> {
    watched: &'a Watched,
    trash: Option<&'a Trash>,
    plans: &'a Plans,
    audit: &'a Audit,
    witnesses: &'a dyn Witnesses,
    account: Account,
    run: Run,
    refusals: Refusals,
}

impl Closing<'_> {
    fn close(mut self) -> io::Result<Run> {
        let plan = self.plans.get(&self.run.plan);
        let plan = plan.map_err(|e| io::Error::other(e.to_string()))?;
        if let Some(trash) = self.trash {
            let mut mine = trash.shares()?;
            mine.retain(|s| s.run == self.run.id);
            // By the run itself, or by a process before this one that did not come to its end either.
            for share in mine.iter().filter(|s| s.is_kept()) {
                let kept = trash.origins(share)?.into_iter();
                self.refusals.extend(kept.map(|path| (path, KEPT_BEFORE.into())));
            }
            mine.retain(|s| s.open);
            let settled = self.settled(plan.chunks, trash, &mine)?;
            for share in mine {
                self.refusals
                    .extend(put_back(self.watched, trash, &share, &settled)?);
                if let Err(error) = trash.end(&share) {
                    tracing::error!(run = %share.run, %error, "the trash");
                }
            }
        }
        self.count_all(&plan)?;
        let why = "the agent ended while the run was going on; what it was taking is back at its place. Make a new plan for the rest";
        self.run.error = Some(why.into());
        self.run.state = RunState::Failed;
        self.run.finished = Some(clock::now());
        let (run, deleted, trashed) = (&self.run.id, self.run.deleted, self.run.trashed);
        tracing::warn!(
            run,
            %deleted,
            %trashed,
            "closed a run that ended with its process"
        );
        Ok(self.run)
    }

    fn chunk(&self, number: u32) -> io::Result<Vec<Candidate>> {
        let chunk = self.plans.chunk(&self.run.plan, number);
        chunk.map_err(|e| io::Error::other(e.to_string()))
    }

    /// What the run has told to be in the trash, and where the rest belongs whose place there does not tell.
    fn settled(&self, chunks: u32, trash: &Trash, shares: &[Share]) -> io::Result<Settled> {
        let mut settled = Settled::default();
        let flat = flat(trash, shares)?;
        for number in self.chunks_begun(chunks) {
            let mut noted: HashMap<Arc<[u8]>, Arc<Origin>> = HashMap::new();
            for (position, c) in self.chunk(number)?.iter().enumerate() {
                let at = u32::try_from(position).unwrap_or(u32::MAX);
                // The first of each directory in a batch has it.
                if let Some(origin) = self.account.origins.get(&(number, at)) {
                    noted.insert(Arc::clone(&c.dir), Arc::new(origin.clone()));
                }
                let is_out = c.shape == Shape::Tree || flat.contains_key(&c.ino);
                if let Some(origin) = noted.get(&c.dir).filter(|_| is_out) {
                    settled.origins.insert(c.ino, Arc::clone(origin));
                }
                if is_one_of(&flat, c) {
                    settled.paths.insert(c.ino, c.path());
                } else if self.account.known(number, position) == TRASHED {
                    settled.trashed.push(c.ino);
                }
            }
        }
        settled.trashed.sort_unstable();
        Ok(settled)
    }

    fn chunks_begun(&self, chunks: u32) -> Vec<u32> {
        match self.account.may_lack_its_end {
            true => (0..chunks).collect(),
            false => {
                let copied = self.account.copied.iter().map(|(chunk, _)| *chunk);
                let begun: BTreeSet<u32> = self.account.chunks.keys().copied().chain(copied).collect();
                begun.into_iter().filter(|n| *n < chunks).collect()
            }
        }
    }

    /// Counts every candidate once, and tells the audit log what it has not been told.
    fn count_all(&mut self, plan: &Plan) -> io::Result<()> {
        let mut run = self.run.clone();
        (run.deleted, run.trashed) = (Totals::default(), Totals::default());
        run.archived = Totals::default();
        run.skipped = Skipped::default();
        run.skipped_inside = Skipped::not_reached(plan.totals.files_inside);
        (run.failed, run.failed_total) = (Vec::new(), 0);
        run.failed_by_owner = Vec::new();
        let heading = Heading {
            volume: run.volume.clone(),
            root: self.watched.path.clone(),
            plan: run.plan.clone(),
            run: run.id.clone(),
            by: run.by.clone(),
        };
        let time = audit::rfc3339(clock::now());
        let root = self.watched.open_root()?;
        let witness = self.witnesses.of_run(&run.id, plan, &self.watched.path);
        let mut counted = 0u64;
        for number in self.chunks_begun(plan.chunks) {
            let mut lines = Lines::default();
            let mut taken = Vec::new();
            let candidates = self.chunk(number)?;
            for (position, c) in candidates.iter().enumerate() {
                let known = self.account.known(number, position);
                let place = u32::try_from(position).unwrap_or(u32::MAX);
                if self.account.copied.contains(&(number, place)) {
                    tally::archived(&mut run, c);
                }
                let fate = self.fate_of(&root, c, known);
                if self.was_undone(known, fate.as_ref()) {
                    tell_undone(&mut lines, &time, &heading, c);
                }
                let Some(Fate { code, told, why }) = fate else {
                    continue;
                };
                counted = counted.saturating_add(1);
                tally::count(&mut run, c, code);
                if was_taken(code) {
                    let until = (code == Code::Trashed).then(|| self.grace_end(plan, c));
                    taken.push(Taken { candidate: c, until });
                }
                if code == Code::Failed {
                    tally::name_failure(&mut run, c.path_below(&self.watched.path), why.clone());
                }
                if !told {
                    lines.add_fate(&time, (&heading, &plan.rules), c, (code, &why));
                }
            }
            self.audit.write(&lines)?;
            witness(&taken);
        }
        tally::count_unreached(&mut run, plan.candidates().saturating_sub(counted));
        name_owners(&mut run);
        self.run = run;
        Ok(())
    }

    /// Until when it lies in the trash, or a little less: what is told to people must hold.
    fn grace_end(&self, plan: &Plan, c: &Candidate) -> u64 {
        let grace = plan.rules.get(usize::from(c.rule)).map_or(0, |rule| rule.grace);
        let end = u64::from(self.run.started.0).saturating_add(grace);
        end.min(self.run.trash_until.map_or(0, |until| u64::from(until.0)))
    }

    /// The audit log may say that it was removed, and it is at its place: the file system lost its removal in a power cut, or it is back
    /// from the trash. Of what could not go back, or not as a whole, a line of its own tells.
    fn was_undone(&self, known: Known, fate: Option<&Fate>) -> bool {
        let may_be_told = match known {
            Known::Decided { code, .. } if self.account.may_lack_its_end => was_taken(code),
            Known::Decided { code, .. } => code == Code::Trashed,
            Known::Begun | Known::Nothing => false,
        };
        may_be_told && fate.is_none()
    }

    /// What became of a candidate; none: it is as if the run had not come to it.
    fn fate_of(&self, root: &OwnedFd, c: &Candidate, known: Known) -> Option<Fate> {
        let fate = |code, told, why: &str| {
            let why = why.into();
            Some(Fate { code, told, why })
        };
        if !self.refusals.is_empty()
            && known != FAILED
            && let Some(why) = self.refusals.get(&c.path())
        {
            return fate(Code::Failed, false, why);
        }
        let lacks_its_end = self.account.may_lack_its_end;
        match known {
            Known::Decided { code, told } if was_taken(code) && (!told || lacks_its_end) => {
                match is_at_its_place(root, c) {
                    true if c.shape == Shape::Tree && lacks_files(root, c) => {
                        fate(Code::Failed, false, HALF_REMOVED)
                    }
                    true => None,
                    false => fate(code, told, ""),
                }
            }
            Known::Decided { code, told } => fate(code, told, "see the agent's log of that time"),
            Known::Nothing if !lacks_its_end => None,
            Known::Begun | Known::Nothing if is_at_its_place(root, c) => None,
            // An empty directory is removed before anything is written down of it.
            _ if c.shape == Shape::EmptyDirectory || lacks_its_end => fate(Code::Deleted, false, ""),
            _ => fate(Code::Skipped(Skip::Gone), false, ""),
        }
    }
}

/// What became of a candidate.
struct Fate {
    code: Code,
    /// The audit log has it.
    told: bool,
    /// Of one that failed.
    why: String,
}

/// The run has said so, and nothing of it is left to be done.
const TRASHED: Known = Known::Decided {
    code: Code::Trashed,
    told: true,
};

/// The run has said so, and why.
const FAILED: Known = Known::Decided {
    code: Code::Failed,
    told: true,
};

const KEPT_BEFORE: &str = "it may have been used while it was being taken, and could not be put back: it is kept in the trash; move away \
                           what has its name, then restore the run";

const HALF_REMOVED: &str = "the agent was killed while it removed this directory: some of it is deleted, the rest is back at its place";

fn was_taken(code: Code) -> bool {
    matches!(code, Code::Deleted | Code::Trashed)
}

/// Whether a directory has fewer files in it than went with it. In doubt it has not.
fn lacks_files(root: &OwnedFd, c: &Candidate) -> bool {
    let mut files = Files::default();
    let counted =
        beneath::open_anchor(root, &c.dir).and_then(|parent| walk::walk(&parent, &c.name, &mut files));
    counted.is_ok() && files.count < c.files
}

/// Counts the files below a directory.
#[derive(Debug, Default)]
struct Files {
    count: u64,
}

impl Visitor for Files {
    type Stop = io::Error;

    fn enter(&mut self, _: &OwnedFd, _: &CStr, _: &OwnedFd) -> io::Result<bool> {
        Ok(true)
    }

    fn meet(&mut self, _: &OwnedFd, entry: &Listed) -> io::Result<()> {
        self.count = self.count.saturating_add(u64::from(entry.kind == Kind::File));
        Ok(())
    }

    fn leave(&mut self, _: &OwnedFd, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an open directory is the one that the index knows by this path.
fn is_known(watched: &Watched, dir: &OwnedFd, path: &[u8]) -> bool {
    let Ok(found) = stat::open_file(dir) else {
        return false;
    };
    let index = watched.index.read();
    let known = index.dirs().of_inode(found.stat.ino);
    let birth = index.get(found.stat.ino).map(|(known, _)| known.birth);
    found.device == watched.device
        && birth == Some(found.stat.birth)
        && known.and_then(|id| index.dirs().path(id)).as_deref() == Some(path)
}

fn flat<'s>(
    trash: &Trash,
    shares: impl IntoIterator<Item = &'s Share>,
) -> io::Result<FxHashMap<Inode, Stat>> {
    let mut flat = FxHashMap::default();
    for share in shares {
        flat.extend(trash.flat(share)?.into_iter().map(|s| (s.ino, s)));
    }
    Ok(flat)
}

fn is_one_of(flat: &FxHashMap<Inode, Stat>, c: &Candidate) -> bool {
    flat.get(&c.ino).is_some_and(|found| is_it(c, found))
}

fn is_at_its_place(root: &OwnedFd, c: &Candidate) -> bool {
    let there = beneath::open_anchor(root, &c.dir).and_then(|dir| stat::entry(&dir, &c.name));
    there.is_ok_and(|found| is_it(c, &found.stat))
}

/// An inode that was freed is soon a new file's. Where births are not kept, a rename counts as one, and what is in the file tells.
fn is_it(c: &Candidate, found: &Stat) -> bool {
    found.ino == c.ino && (found.birth == c.birth || (found.size, found.mtime) == (c.size, c.mtime))
}

/// What the audit log has said of it holds no longer.
fn tell_undone(lines: &mut Lines, time: &str, heading: &Heading, c: &Candidate) {
    let event = Event {
        event: "restored",
        reason: "the run was cut short",
        path: &c.path_below(&heading.root),
        kind: c.kind(),
        bytes: c.size,
        uid: c.uid,
        last: Some(c.last),
        rule: "",
    };
    lines.add(time, heading, &event);
}
