//! What rules say of a volume: what goes, and what stays (values).

use rustc_hash::FxHashMap;

use super::apart::Apart;
pub use super::kept::Kept;
use super::nothing::Nothing;
use super::pick::{Pick, Shape};
use super::portion::{ByOwner, Portion};
use purge_model::Inode;

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// What goes, in the order in which it may: directories that are empty only then come last, children first.
    pub picks: Vec<Pick>,
    /// Files that go as well, and are too many to be among the picks.
    pub apart: Option<Apart>,
    /// What stays.
    pub kept: Kept,
    /// Files of the volume.
    pub index_files: u64,
    /// Files whose attributes were looked at.
    pub examined: u64,
    /// By uid: what goes.
    pub by_owner: ByOwner,
    /// Files with a time that lies ahead, among those that were looked at.
    pub ahead: u64,
    /// Candidates that are in use by mounts as far as is known now: a run keeps them.
    pub mounted: u64,
    /// Files that a rule would take by itself and that go with directories which another takes, by the places of the two rules.
    pub gone_with: FxHashMap<(u16, u16), u64>,
    /// Why a rule takes nothing, and what lies near: by the rule's place.
    pub nothing: Vec<(u16, Nothing)>,
    /// The file rules that take something, each once.
    pub(super) took: Vec<u16>,
    /// Of the files that go those to which symbolic links lead, and the rule.
    pub(super) targets: FxHashMap<Inode, u16>,
}

impl Evaluation {
    /// What goes.
    pub fn portion(&self) -> Portion {
        let all = self.by_owner.values().copied();
        Portion {
            files: self.files(),
            ..all.fold(Portion::default(), Portion::plus)
        }
    }

    /// How many candidates there are.
    pub fn candidates(&self) -> u64 {
        (self.picks.len() as u64).saturating_add(self.files_apart())
    }

    /// How many regular files go.
    pub fn files(&self) -> u64 {
        let picked: u64 = self.picks.iter().map(|p| u64::from(p.files)).sum();
        picked.saturating_add(self.files_apart())
    }

    /// Notes that a file rule takes something.
    pub(super) fn took_by(&mut self, rule: u16) {
        if self.took.last() != Some(&rule) && !self.took.contains(&rule) {
            self.took.push(rule);
        }
    }

    /// Counts files that the first of two rules would take and that go with directories which the second takes.
    pub(super) fn goes_with(&mut self, rules: (u16, u16), files: u64) {
        let count = self.gone_with.entry(rules).or_default();
        *count = count.saturating_add(files);
    }

    fn files_apart(&self) -> u64 {
        self.apart.as_ref().map_or(0, Apart::files)
    }

    pub(super) fn merge(&mut self, part: Self) {
        self.take_all(part.picks, part.apart);
        self.examined += part.examined;
        self.kept.add(&part.kept);
        self.ahead += part.ahead;
        self.mounted += part.mounted;
        self.targets.extend(part.targets);
        part.took.into_iter().for_each(|rule| self.took_by(rule));
        for (pair, files) in part.gone_with {
            self.goes_with(pair, files);
        }
        for (uid, portion) in part.by_owner {
            add_owner(&mut self.by_owner, uid, portion);
        }
    }

    /// Takes a file, and sets files apart if there are more than `most` by then.
    pub(super) fn take(&mut self, pick: Pick, most: usize) {
        match &mut self.apart {
            Some(apart) => apart.add(&pick),
            None => {
                self.picks.push(pick);
                if self.picks.len() > most {
                    self.set_files_apart();
                }
            }
        }
    }

    /// Where they are to be found again: not in the directories that were `taken`.
    pub(super) fn know_taken(&mut self, taken: Vec<bool>) {
        if let Some(apart) = &mut self.apart {
            apart.know_taken(taken);
        }
    }

    /// Adds the files of another part of the index, which may be set apart there.
    pub(super) fn take_all(&mut self, picks: Vec<Pick>, apart: Option<Apart>) {
        if self.apart.is_none() && apart.is_none() {
            self.picks.extend(picks);
            return;
        }
        self.set_files_apart();
        let Some(all) = &mut self.apart else { return };
        picks.iter().for_each(|pick| all.add(pick));
        if let Some(apart) = apart {
            all.add_all(&apart);
        }
    }

    fn set_files_apart(&mut self) {
        let apart = self.apart.get_or_insert_default();
        self.picks.retain(|pick| {
            let is_file = pick.shape == Shape::File;
            if is_file {
                apart.add(pick);
            }
            !is_file
        });
        self.picks.shrink_to_fit();
    }
}

pub(super) fn add_owner(owners: &mut ByOwner, uid: u32, part: Portion) {
    let share = owners.entry(uid).or_default();
    *share = share.plus(part);
}

pub(super) fn remove_owner(owners: &mut ByOwner, uid: u32, pick: &Pick) {
    if let Some(share) = owners.get_mut(&uid) {
        *share = share.minus(pick.portion());
        if share.files == 0 {
            owners.remove(&uid);
        }
    }
}
