//! "Where is my file?": what runs took of a path, where that is now, and how it comes back.
//!
//! The records of runs are asked (see [`super::records`]). Only what they tell of is looked for in the trash.

use std::sync::Arc;

use super::TrashKeeper;
use super::records::Took;
use crate::host::place::Place;
use crate::host::shown;
use crate::host::user::User;
use crate::volume::Volume;
use purge_base::clock;
use purge_model::path::absolute;
use purge_model::path_set::PathSet;
use purge_model::{Inode, Seconds};
use purge_removal::audit::rfc3339;
use purge_removal::runs::{Run, RunState};
use purge_removal::taken::{Entry, What, lies_in};
use purge_removal::trash::{Share, Trash};

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
    /// How much it was is not for the client who asks.
    pub is_amount_hidden: bool,
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
        let places = PathSet::new(vec![place.below.to_vec()]);
        let took = self.took(&place.volume, &places, user).into_iter().flatten();
        let lying = InTrash::of(&place.volume);
        let mut all: Vec<Taken> = took.map(|took| lying.taken(took)).collect();
        if user.is_some() {
            all.iter_mut().for_each(hide_others);
        }
        all
    }

    /// Why nothing of some places is in the trash, for a person: of each in their order.
    pub(super) fn why_not_in_trash(
        &self,
        volume: &Volume,
        places: &PathSet,
        user: Option<User<'_>>,
    ) -> Vec<String> {
        let root = volume.config.path.as_os_str().as_encoded_bytes();
        let lying = InTrash::of(volume);
        let all = places.iter().zip(self.took(volume, places, user));
        all.map(|(place, took)| {
            let path = shown(&absolute(root, place));
            let why = match took.into_iter().next() {
                None => {
                    "no run took it, as far as records go back; `audit.jsonl` may tell of older ones".into()
                }
                Some(took) => in_words(&lying.taken(took)),
            };
            format!("nothing of {path} is in the trash: {why}")
        })
        .collect()
    }
}

/// How many files of others lay in a directory of theirs, and how large these were, is no business of a user's.
fn hide_others(taken: &mut Taken) {
    if taken.entry.what == What::Tree {
        (taken.entry.files, taken.entry.bytes) = (0, 0);
        taken.is_amount_hidden = true;
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

/// What lies in the trash of a volume.
struct InTrash {
    trash: Option<Trash>,
    /// Those that are freed some time come first.
    shares: Vec<Share>,
}

impl InTrash {
    fn of(volume: &Volume) -> Self {
        let trash = Trash::open(&volume.watched).ok().flatten();
        let mut shares = trash
            .as_ref()
            .and_then(|trash| trash.shares().ok())
            .unwrap_or_default();
        shares.sort_by_key(|share| share.until);
        Self { trash, shares }
    }

    /// With where it is now.
    fn taken(&self, took: Took) -> Taken {
        let Took {
            run,
            rule,
            path,
            entry,
            lies_in,
        } = took;
        let now = match lies_in {
            Some(share) => lies_until(&share),
            None => self.now_of(&run, &path, &entry),
        };
        Taken {
            now,
            run: Arc::unwrap_or_clone(run),
            rule,
            path,
            entry,
            is_amount_hidden: false,
        }
    }

    fn now_of(&self, run: &Run, path: &[u8], entry: &Entry) -> Now {
        let mut of_run = self.shares.iter().filter(|share| share.run == run.id);
        let holding = of_run.find(|share| {
            let is_its =
                share.is_kept() || entry.what == What::Above || share.until == u64::from(entry.until);
            is_its
                && self
                    .trash
                    .as_ref()
                    .is_some_and(|trash| lies_in(trash, share, path, entry))
        });
        match holding {
            Some(share) => lies_until(share),
            None if entry.until == 0 && (entry.what != What::Above || run.trash_until.is_none()) => {
                Now::Deleted
            }
            None => no_longer_there(run, entry),
        }
    }
}

/// What lies in a share is there until then.
fn lies_until(share: &Share) -> Now {
    match share.is_kept() {
        true => Now::Kept,
        false => Now::InTrash(Seconds::from_unix(i64::try_from(share.until).unwrap_or(i64::MAX))),
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
