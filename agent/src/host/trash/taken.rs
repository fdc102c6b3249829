//! "Where is my file?": what runs took of a path, where that is now, and how it comes back.
//!
//! The records of runs are asked by hashes of the path and of the directories above it (see [`purge_removal::taken`]), so the work depends on
//! what is asked and on the number of runs, not on what is found. Only what is found is looked for in the trash.

use super::TrashKeeper;
use crate::host::place::Place;
use crate::host::user::{User, not_theirs};
use crate::host::{HostError, shown};
use purge_base::clock;
use purge_base::sight::Sight;
use purge_model::{Inode, Seconds};
use purge_removal::audit::rfc3339;
use purge_removal::runs::{Run, RunState};
use purge_removal::taken::{Entry, Reader, What, hash, lies_in};
use purge_removal::trash::{Share, Trash};

/// Runs that are asked, the newest first.
const RUNS_MAX: usize = 2000;
/// Directories above that are asked for, from the volume's root on: those that rules take lie there.
const ABOVE_MAX: usize = 32;
/// What is told of one path, the newest first.
const TOLD_MAX: usize = 16;

/// Something that a run took.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The run.
    pub run: Run,
    /// Its rule; none: no record says it.
    pub rule: Option<String>,
    /// Its path, relative to the volume: what was asked for, or a directory above it that went as a whole.
    pub path: Vec<u8>,
    /// As what it went.
    pub entry: Entry,
    /// Where it is.
    pub now: Now,
}

/// Where something is that a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    /// In the trash until then.
    InTrash(Seconds),
    /// In the trash, and never freed: it was used while it was being taken, or in the trash.
    Kept,
    /// Deleted by the run.
    Deleted,
    /// In the trash until then; freed by now.
    Freed(Seconds),
    /// It was in the trash, and was put back, or root has removed it.
    Back,
}

impl TrashKeeper {
    /// What runs took of a place, the newest first; for an ordinary user only what was theirs, and that they could see.
    pub(in crate::host) fn taken_of(&self, place: &Place, user: Option<User<'_>>) -> Vec<Taken> {
        let asked = asked_of(&place.below);
        let hashes: Vec<u64> = asked.iter().map(|end| hash(part(place, *end))).collect();
        let mut sight =
            user.map(|user| Sight::of(&place.volume.config.path, user.uid, user.gids).of_the_past());
        let trash = Trash::open(&place.volume.watched).ok().flatten();
        let runs = self.runs.list().unwrap_or_default().into_iter();
        let runs = runs.filter(|run| run.volume == place.volume.config.name);
        let mut all = Vec::new();
        for run in runs.take(RUNS_MAX) {
            let Ok(Some(record)) = Reader::open(&self.ground.anchor, &run.id) else {
                continue;
            };
            let mut best: Option<(usize, Entry)> = None;
            for found in record.find(&hashes).unwrap_or_default() {
                let entry = found.entry;
                let is_it = found.asked == 0 || entry.what == What::Tree;
                let is_theirs = user.is_none_or(|user| user.uid == entry.uid);
                let is_better = best
                    .as_ref()
                    .is_none_or(|(_, best)| rank(entry.what) < rank(best.what));
                if is_it && is_theirs && is_better && all.len() < TOLD_MAX {
                    best = Some((found.asked, entry));
                }
            }
            let Some((n, entry)) = best else { continue };
            let path = part(place, asked.get(n).copied().unwrap_or(0)).to_vec();
            // In a directory that they cannot enter, they learn nothing of what was theirs either.
            if sight.as_mut().is_some_and(|sight| sight.shown(&path).is_some()) {
                continue;
            }
            all.push(Taken {
                now: now_of(trash.as_ref(), &run, &path, &entry),
                rule: record.rule(&entry).map(str::to_owned),
                path,
                entry,
                run,
            });
        }
        all
    }

    /// The runs that took something of each of these places which was a user's.
    ///
    /// # Errors
    /// When of one of them nothing was: also when nothing was taken there.
    pub(super) fn runs_of_theirs(&self, user: User<'_>, places: &[&Place]) -> Result<Vec<String>, HostError> {
        let mut runs = Vec::new();
        for place in places {
            let taken = self.taken_of(place, Some(user));
            if taken.is_empty() {
                return Err(not_theirs(&place.path(), user.uid));
            }
            runs.extend(taken.into_iter().map(|taken| taken.run.id));
        }
        Ok(runs)
    }

    /// The same of one run, which must be named with paths.
    pub(super) fn check_theirs_of_run(
        &self,
        user: User<'_>,
        run: &str,
        places: &[Place],
    ) -> Result<(), HostError> {
        if places.is_empty() {
            let why = "name the paths of what is yours".into();
            return Err(HostError::Invalid { field: "paths", why });
        }
        for place in places {
            let runs = self.runs_of_theirs(user, &[place])?;
            if !runs.iter().any(|id| id == run) {
                return Err(not_theirs(&place.path(), user.uid));
            }
        }
        Ok(())
    }

    /// Why nothing of a place is in the trash, for a person.
    pub(super) fn why_not_in_trash(&self, place: &Place, user: Option<User<'_>>) -> String {
        let path = shown(&place.path());
        let why = match self.taken_of(place, user).first() {
            None => "no run took it, as far as records go back; `audit.jsonl` may tell of older ones".into(),
            Some(taken) => in_words(taken),
        };
        format!("nothing of {path} is in the trash: {why}")
    }
}

/// Of what was taken, where it is now.
fn in_words(taken: &Taken) -> String {
    let run = &taken.run.id;
    let at = rfc3339(taken.entry.at);
    match taken.now {
        Now::Deleted => format!("run {run} deleted it {at}"),
        Now::Freed(when) => format!("run {run} took it {at}, and its grace ended {}", rfc3339(when)),
        Now::Back => format!("run {run} took it {at}, and it was restored or removed since"),
        Now::InTrash(_) | Now::Kept if taken.run.state == RunState::Running => {
            format!("run {run} is going on; wait for it or `purgectl cancel {run}`")
        }
        Now::InTrash(_) | Now::Kept => {
            format!("run {run} took it {at}, and nothing of it can be put back now")
        }
    }
}

/// The ends of what is asked for: the path itself, then directories above it.
fn asked_of(below: &[u8]) -> Vec<usize> {
    let slashes = below
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .map(|(at, _)| at);
    std::iter::once(below.len())
        .chain(slashes.take(ABOVE_MAX))
        .collect()
}

fn part(place: &Place, end: usize) -> &[u8] {
    place.below.get(..end).unwrap_or(&place.below)
}

/// What tells most comes first.
fn rank(what: What) -> u8 {
    match what {
        What::Tree | What::File | What::Link => 0,
        What::Above => 1,
        What::EmptyDirectory => 2,
    }
}

fn now_of(trash: Option<&Trash>, run: &Run, path: &[u8], entry: &Entry) -> Now {
    let shares = trash.and_then(|trash| trash.shares().ok()).unwrap_or_default();
    let mut shares: Vec<Share> = shares.into_iter().filter(|share| share.run == run.id).collect();
    // One that is freed some time, rather than one that is kept.
    shares.sort_by_key(|share| share.until);
    let holding = shares.iter().find(|share| {
        let is_its = share.is_kept() || entry.what == What::Above || share.until == u64::from(entry.until);
        is_its && trash.is_some_and(|trash| lies_in(trash, share, path, entry))
    });
    let until = |until: u64| Seconds::from_unix(i64::try_from(until).unwrap_or(i64::MAX));
    match holding {
        Some(share) if share.is_kept() => Now::Kept,
        Some(share) => Now::InTrash(until(share.until)),
        None if entry.until == 0 && (entry.what != What::Above || run.trash_until.is_none()) => Now::Deleted,
        None => no_longer_there(run, entry),
    }
}

/// It was in the trash, and is there no longer.
fn no_longer_there(run: &Run, entry: &Entry) -> Now {
    let until = match entry.until {
        0 => run.trash_until.unwrap_or(Seconds::MAX),
        until => Seconds::from_unix(until.into()),
    };
    match run.trash_freed {
        Some(freed) => Now::Freed(freed.min(until)),
        None if until <= clock::now() => Now::Freed(until),
        None => Now::Back,
    }
}

/// Which inode lies at a place now, if any.
pub(in crate::host) fn is_there_again(taken: &Taken, ino: Inode) -> bool {
    taken.now == Now::Back || (taken.entry.ino == ino && taken.entry.what != What::Above)
}
