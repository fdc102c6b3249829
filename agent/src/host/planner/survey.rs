//! What a plan asks of the file system itself, because no index knows it: where symbolic links lead, and whether the users of an empty
//! directory could make it again. Nothing is asked while the index is locked, and nothing is changed, not even an access time.

use std::os::fd::OwnedFd;

use rustc_hash::FxHashMap;

use crate::host::HostError;
use crate::volume::Volume;
use purge_base::accounts::membership;
use purge_index::DirId;
use purge_model::{Inode, Kind};
use purge_policy::evaluate::{
    Circumstances, Evaluation, Lead, Leads, Shape, Survey, evaluate_with, reconsider,
};
use purge_policy::explain::Subject;
use purge_policy::links::{self, Place};
use purge_policy::rule::Rule;
use purge_sys::access::{Access, ENTER, WRITE, Who};
use purge_sys::beneath;
use purge_sys::leads::{End, Links};

/// Links that are looked at between two looks at the index.
const AT_ONCE: usize = 1 << 16;

/// Evaluates rules, and asks the file system what that takes.
pub(super) fn evaluate_surveyed(
    volume: &Volume,
    rules: &[Rule],
    at: &mut Circumstances,
    together: usize,
) -> Result<Evaluation, HostError> {
    let index = &volume.watched.index;
    at.survey = Survey {
        leads: leads(volume, rules, at)?,
        ..Survey::default()
    };
    let mut found = evaluate_with(&index.read(), rules, at, together)?;
    if rules.iter().any(|rule| rule.spares_dirs) {
        at.survey.spared = spared(volume, &found)?;
        if !at.survey.spared.is_empty() {
            reconsider(&index.read(), rules, at, &mut found)?;
        }
    }
    Ok(found)
}

/// What the file system says of one entry.
pub(in crate::host) fn survey_of(volume: &Volume, subject: &Subject) -> Survey {
    let mut survey = Survey::default();
    let ino = subject.ino;
    match subject.attributes.kind {
        Kind::Symlink => {
            let (dir, name) = subject.path.split_last();
            let place = Place {
                ino,
                dir: dir.into(),
                name: name.to_vec(),
                is_followed: true,
            };
            let live = volume.watched.links().ok();
            let lead = live.and_then(|mut live| look(&mut live, &place).map(|(_, lead)| lead));
            survey.leads.extend(lead.map(|lead| (ino, lead)));
        }
        Kind::Directory => {
            let root = volume.watched.open_root().ok();
            let could = root.and_then(|root| Makers::of(root).could_make_again(&subject.path));
            if could != Some(true) {
                survey.spared.insert(ino);
            }
        }
        Kind::File | Kind::Special => {}
    }
    survey
}

/// Where those links lead that rules may take.
fn leads(volume: &Volume, rules: &[Rule], at: &Circumstances) -> Result<FxHashMap<Inode, Lead>, HostError> {
    let index = &volume.watched.index;
    let old = links::old_links(&index.read(), rules, at)?;
    let mut leads = FxHashMap::default();
    if old.is_empty() {
        return Ok(leads);
    }
    let live = volume.watched.links();
    let mut live = live.map_err(|e| HostError::Refused(e.to_string()))?;
    for some in old.chunks(AT_ONCE) {
        let places = links::places(&index.read(), rules, at, some)?;
        let looked: Vec<_> = places.iter().filter_map(|place| look(&mut live, place)).collect();
        let index = index.read();
        // Most lead to what is in use, and need not be remembered.
        let matters = |lead: &Lead, place: &Place| match lead.target {
            Leads::To(target) => !place.is_followed || links::may_go(&index, rules, at, target),
            Leads::Nowhere => true,
            Leads::Unknown => rules
                .iter()
                .any(|r| r.symlinks == purge_policy::rule::Symlinks::Expired),
        };
        let kept = looked.into_iter().filter(|(place, lead)| matters(lead, place));
        leads.extend(kept.map(|(place, lead)| (place.ino, lead)));
    }
    Ok(leads)
}

/// What is there now; none if it is another, or cannot be read: then it stays.
fn look<'p>(live: &mut Links, place: &'p Place) -> Option<(&'p Place, Lead)> {
    let found = live.look(&place.dir, &place.name, place.is_followed).ok()?;
    (found.link.ino == place.ino).then_some((
        place,
        Lead {
            target: match found.end {
                End::Nowhere => Leads::Nowhere,
                End::At(ino) => Leads::To(ino),
                End::Unknown => Leads::Unknown,
            },
            changed: found.changed,
            modified: found.modified,
            followed: found.link.atime,
        },
    ))
}

/// Of the directories that are empty, or will be, those whose users could not make them again.
fn spared(volume: &Volume, found: &Evaluation) -> Result<rustc_hash::FxHashSet<Inode>, HostError> {
    let mut spared = rustc_hash::FxHashSet::default();
    let mut asked = None;
    let empty: Vec<(Inode, DirId)> = found
        .picks
        .iter()
        .filter(|pick| pick.shape == Shape::EmptyDirectory)
        .map(|pick| (pick.ino, pick.parent))
        .collect();
    for some in empty.chunks(AT_ONCE) {
        let paths: Vec<(Inode, Option<Vec<u8>>)> = {
            let index = volume.watched.index.read();
            let dirs = index.dirs();
            let path = |ino: Inode| dirs.of_inode(ino).and_then(|id| dirs.path(id));
            some.iter().map(|(ino, _)| (*ino, path(*ino))).collect()
        };
        for (ino, path) in paths {
            if asked.is_none() {
                let root = volume.watched.open_root();
                asked = Some(Makers::of(root.map_err(|e| HostError::Refused(e.to_string()))?));
            }
            let could = match (&mut asked, path) {
                (Some(makers), Some(path)) => makers.could_make_again(&path),
                _ => None,
            };
            if could != Some(true) {
                spared.insert(ino);
            }
        }
    }
    Ok(spared)
}

/// Tells whether the users of a directory could make it again where it lies.
struct Makers {
    root: OwnedFd,
    /// The directories above the one that was looked at last, from the root on.
    above: Vec<(Vec<u8>, Access)>,
    /// The groups of users.
    groups: FxHashMap<u32, Vec<u32>>,
    /// A directory service has not answered: it is not asked again.
    is_silent: bool,
}

impl Makers {
    pub fn of(root: OwnedFd) -> Self {
        Self {
            root,
            above: Vec::new(),
            groups: FxHashMap::default(),
            is_silent: false,
        }
    }

    /// Whether the owner could; of one that root owns, all others who may write there. None: it cannot be told.
    pub fn could_make_again(&mut self, path: &[u8]) -> Option<bool> {
        let dir = Access::of(&beneath::open_dir(&self.root, path).ok()?).ok()?;
        self.look_above(path)?;
        let makers = match dir.uid {
            0 => dir.other_writers(),
            uid => vec![Who {
                uid: Some(uid),
                gids: Vec::new(),
            }],
        };
        let mut all = true;
        for mut who in makers {
            all &= match (who.uid, self.without_groups(&who)) {
                (_, Some(decided)) => decided,
                (Some(uid), None) => {
                    who.gids = self.groups_of(uid);
                    self.may_make(&who)
                }
                (None, None) => self.may_make(&who),
            };
        }
        Some(all)
    }

    /// Whether a user may reach the directory above and write to it.
    fn may_make(&self, who: &Who) -> bool {
        let Some(((_, parent), above)) = self.above.split_last() else {
            return false;
        };
        above.iter().all(|(_, dir)| dir.allows(who, ENTER)) && parent.allows(who, WRITE | ENTER)
    }

    /// The same where it does not matter in which groups a user is: a directory service need not be asked.
    fn without_groups(&self, who: &Who) -> Option<bool> {
        who.uid?;
        let in_none = self.may_make(who);
        let mut mentioned = self.above.iter().flat_map(|(_, dir)| dir.groups());
        let is_same = mentioned.all(|gid| {
            let in_one = Who {
                uid: who.uid,
                gids: vec![gid],
            };
            self.may_make(&in_one) == in_none
        });
        is_same.then_some(in_none)
    }

    /// Asks of the directories above a path; those that are known are not asked again.
    fn look_above(&mut self, path: &[u8]) -> Option<()> {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/');
        let above = std::iter::once(0).chain(ends.map(|(n, _)| n));
        let above: Vec<&[u8]> = above.filter_map(|end| path.get(..end)).collect();
        let known = self
            .above
            .iter()
            .zip(&above)
            .take_while(|((a, _), b)| a == *b)
            .count();
        self.above.truncate(known);
        for dir in above.get(known..)? {
            let access = Access::of(&beneath::open_dir(&self.root, dir).ok()?).ok()?;
            self.above.push((dir.to_vec(), access));
        }
        Some(())
    }

    /// The groups that a user is known to be in: of one whom no account names, or when none answers, there are none.
    fn groups_of(&mut self, uid: u32) -> Vec<u32> {
        if let Some(known) = self.groups.get(&uid) {
            return known.clone();
        }
        let asked = (!self.is_silent).then(|| membership(uid, &[])).flatten();
        self.is_silent |= asked.is_none();
        let groups = asked.map(|m| m.groups).unwrap_or_default();
        self.groups.insert(uid, groups.clone());
        groups
    }
}
