//! What can be asked of one path.

use std::sync::Arc;

use crate::host::judge::Judge;
use crate::host::place::{AtEnd, Place};
use crate::host::planner::survey::survey_of;
use crate::host::trash::TrashKeeper;
use crate::host::trash::taken::{Taken, is_there_again};
use crate::host::user::User;
use crate::host::{Ground, HostError, shown};
use crate::volume::Volume;
use purge_index::{DirId, Index};
use purge_model::Inode;
use purge_policy::explain::{self, Subject, Verdict};
use purge_policy::rule::Rule;
use purge_removal::holds::{Hold, Holds};
use purge_sys::stat::Located;

/// Stands for a directory that is not there: nothing lies below it, and looking for that takes as long as below any other.
const NOWHERE: DirId = DirId(u32::MAX);

/// What is known of a path.
#[derive(Debug)]
pub struct Answer {
    /// Its volume.
    pub volume: Arc<Volume>,
    /// Its path, in plain words.
    pub path: Vec<u8>,
    /// What lies there.
    pub subject: Subject,
    /// What each rule says of it.
    pub verdicts: Vec<Verdict>,
    /// What holds it.
    pub holds: Vec<Hold>,
    /// So does at least one hold of another user, of which the caller may know no more.
    pub is_held_by_another: bool,
}

/// What is told of a path.
#[derive(Debug)]
pub enum Explained {
    /// Of what lies there, and of what runs took there before.
    There(Box<Answer>, Vec<Taken>),
    /// Nothing lies there: of what runs took.
    Taken(Place, Vec<Taken>),
}

/// Where something is looked for: a volume by name, and a directory of it.
pub type Below = (String, DirId);

/// Answers questions of paths and owners.
#[derive(Debug)]
pub struct Questions {
    pub(super) ground: Arc<Ground>,
    pub(super) judge: Arc<Judge>,
    holds: Arc<Holds>,
    trash: Arc<TrashKeeper>,
}

impl Questions {
    pub(in crate::host) fn new(
        (ground, judge): (Arc<Ground>, Arc<Judge>),
        holds: Arc<Holds>,
        trash: Arc<TrashKeeper>,
    ) -> Self {
        Self {
            ground,
            judge,
            holds,
            trash,
        }
    }

    /// What the index knows of a path, and what every rule says of it.
    ///
    /// # Errors
    /// When the path is no clean one, no volume holds it or nothing lies there.
    pub fn explain(&self, path: &[u8]) -> Result<Answer, HostError> {
        let place = self.ground.locate("path", path)?;
        place.volume.sync_soon();
        self.ground.meet_owners(&place.volume.config.name);
        let found = place.look(AtEnd::Anything)?;
        let known = known(&place, &found);
        let subject = known.ok_or_else(|| {
            let why = "is not in the index (yet); `purgectl rescan` looks again";
            HostError::NotFound(format!("{}: {why}", shown(&place.path())))
        })?;
        self.told_of(place, subject, true)
    }

    /// [`Questions::explain`] of a path, or [`Questions::explain_own`] for an ordinary user, and what runs took there.
    ///
    /// # Errors
    /// When nothing lies there, and no run is known to have taken anything.
    pub fn explain_path(&self, path: &[u8], user: Option<User<'_>>) -> Result<Explained, HostError> {
        let answer = match user {
            None => self.explain(path),
            Some(user) => self.explain_own(path, user),
        };
        let Ok(place) = self.ground.locate("path", path) else {
            return answer.map(|answer| Explained::There(Box::new(answer), Vec::new()));
        };
        // Asked in any case: how long it takes does not tell whether anything lies there.
        let mut taken = self.trash.taken_of(&place, user);
        match answer {
            Ok(answer) => {
                taken.retain(|taken| !is_there_again(taken, answer.subject.ino));
                Ok(Explained::There(Box::new(answer), taken))
            }
            // A user learns only of what was theirs.
            Err(HostError::Denied(_)) if !taken.is_empty() => Ok(Explained::Taken(place, taken)),
            Err(HostError::NotFound(_)) if !taken.is_empty() && place.look(AtEnd::Anything).is_err() => {
                Ok(Explained::Taken(place, taken))
            }
            Err(error) => Err(error),
        }
    }

    /// What is told of something that lies at a place. Where a link leads is looked at only for those who may know what lies there.
    pub(in crate::host) fn told_of(
        &self,
        place: Place,
        subject: Subject,
        looks: bool,
    ) -> Result<Answer, HostError> {
        let volume = &place.volume;
        let mut at = self.judge.circumstances(volume);
        if looks {
            at.survey = survey_of(volume, &subject);
        }
        let rules = self.ground.rules().into_iter();
        let rules: Vec<Rule> = rules.filter(|r| r.volume == volume.config.name).collect();
        let (verdicts, chain) = {
            let index = volume.watched.index.read();
            let verdicts = explain::explain(&index, &rules, &at, &subject)?;
            (verdicts, chain(&index, &subject))
        };
        let holds = self
            .holds
            .over(&volume.config.name, &volume.config.path, &place.below, &chain);
        Ok(Answer {
            path: place.path(),
            volume: place.volume,
            subject,
            verdicts,
            holds,
            is_held_by_another: false,
        })
    }

    /// The volumes and directories that a path means; an empty one means everything.
    ///
    /// With `only`, a user asks who may know only of what is theirs. A directory that does not exist is answered with the same work as
    /// one that does, and holds nothing of theirs.
    ///
    /// # Errors
    /// When the path is no clean one, no volume holds it or no directory lies there.
    pub fn places(&self, path: &[u8], only: Option<User<'_>>) -> Result<Vec<Below>, HostError> {
        if path.is_empty() {
            let all = self.ground.volumes();
            return Ok(all
                .iter()
                .map(|volume| {
                    volume.sync_soon();
                    (volume.config.name.clone(), DirId::ROOT)
                })
                .collect());
        }
        let place = match self.ground.locate("path", path) {
            // The words alone say so: nothing was looked at.
            Err(HostError::NotFound(_)) if only.is_some() => return Ok(Vec::new()),
            located => located?,
        };
        place.volume.sync_soon();
        let found = match only {
            Some(user) => directory_evenly(&place, user)?,
            None => directory(&place)?,
        };
        Ok(vec![(place.volume.config.name.clone(), found)])
    }
}

/// The directory that lies at a place: found by its inode, so the index is held for a moment only.
fn directory(place: &Place) -> Result<DirId, HostError> {
    let found = place.look(AtEnd::NoLink)?;
    indexed(place, &found)
        .ok_or_else(|| HostError::NotFound(format!("{} is no directory in the index", shown(&place.path()))))
}

/// The same for a user who may know only of what is theirs: what is not there takes the same calls as what is there.
fn directory_evenly(place: &Place, user: User<'_>) -> Result<DirId, HostError> {
    let (found, is_there) = place.look_evenly((user.uid, user.gids))?;
    let found = indexed(place, &found);
    Ok(found.filter(|_| is_there).unwrap_or(NOWHERE))
}

fn indexed(place: &Place, found: &Located) -> Option<DirId> {
    let watched = &place.volume.watched;
    let known = watched.index.read().dirs().of_inode(found.stat.ino);
    known.filter(|_| found.device == watched.device)
}

/// What the index knows of what was found at a place.
pub(in crate::host) fn known(place: &Place, found: &Located) -> Option<Subject> {
    let watched = &place.volume.watched;
    let index = watched.index.read();
    let known = index
        .get(found.stat.ino)
        .filter(|_| found.device == watched.device);
    let (attributes, access) = known?;
    Some(Subject {
        ino: found.stat.ino,
        attributes,
        access,
        path: place.below.clone(),
    })
}

/// The inodes of an entry and of the directories above it.
fn chain(index: &Index, subject: &Subject) -> Vec<Inode> {
    let dirs = index.dirs();
    let mut chain = vec![subject.ino];
    let mut at = subject.attributes.parent;
    for _ in 0..=dirs.table_len() {
        let Some(entry) = dirs.get(at) else { break };
        chain.push(entry.ino);
        if at == DirId::ROOT {
            break;
        }
        at = entry.parent;
    }
    chain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use parking_lot::RwLock;

    use super::*;
    use purge_index::{Found, Store, VolumeId, testing};
    use purge_model::{Kind, LastUse, Seconds, Source};
    use purge_query::find::{Filter, Order, Search, find};

    /// A directory of another user with their files, and one of the asker's.
    fn index() -> Index {
        let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
        index.set_root(&testing::stat(2, Kind::Directory, 0, 1));
        let mut put = |ino, kind, parent, name: &str, uid| {
            let mut stat = testing::stat(ino, kind, 1, 1);
            stat.uid = uid;
            let first_use = LastUse {
                at: Seconds(1),
                source: Source::Observed,
            };
            let found = Found {
                stat,
                parent,
                name: name.as_bytes(),
                first_use,
            };
            index.upsert(found).unwrap();
            index.dirs().of_inode(ino)
        };
        let theirs = put(10, Kind::Directory, DirId::ROOT, "theirs", 8).unwrap();
        let inner = put(11, Kind::Directory, theirs, "inner", 8).unwrap();
        put(12, Kind::File, inner, "f", 8);
        let own = put(20, Kind::Directory, DirId::ROOT, "own", 7).unwrap();
        put(21, Kind::File, own, "f", 7);
        index
    }

    /// What is not there goes the same way as what is another user's: through the whole index, to the same answer.
    #[test]
    fn nothing_is_found_nowhere() {
        let index = RwLock::new(index());
        let theirs = index.read().dirs().of_inode(10).unwrap();
        let own = index.read().dirs().of_inode(20).unwrap();
        for order in [Order::None, Order::Path, Order::Age, Order::Size] {
            let hits = |below| {
                let filter = Filter {
                    below: Some(below),
                    uids: Some(vec![7]),
                    ..Filter::default()
                };
                let mut hits = Vec::new();
                let mut each = |hit| {
                    hits.push(hit);
                    true
                };
                let search = Search::new(&index, filter, order, (0, 1000), (Seconds(9), None));
                find(&index, search, &mut each).unwrap();
                hits.len()
            };
            assert_eq!((hits(theirs), hits(NOWHERE), hits(own)), (0, 0, 2), "{order:?}");
        }
    }
}
