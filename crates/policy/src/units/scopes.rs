//! Which directory rule speaks of which unit, and of everything in it.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{DirectoryRule, Fold, Pass, Unit};
use crate::last_use::is_expired;
use crate::reach::Reach;
use crate::rule::Rule;
use crate::tables::is_quota_file;
use crate::verdicts::Verdicts;
use purge_index::{DirId, Index, StoreError};
use purge_model::Seconds;

/// Which rule speaks of which unit, and of everything in it.
pub(super) struct Scopes {
    /// By rule: the units of which it can speak.
    near: Vec<Vec<DirId>>,
    /// By rule: expired units that are in its scope with all they hold.
    admitted: Vec<FxHashSet<DirId>>,
}

impl Scopes {
    pub fn new(
        index: &Index,
        rules: &[DirectoryRule<'_>],
        folds: &[usize],
        pass: &Pass<'_>,
        now: Seconds,
    ) -> Result<Self, StoreError> {
        let reach = Reach::new(index.dirs(), rules.iter().map(|r| &r.rule.scope));
        let mut near = vec![Vec::new(); rules.len()];
        for (number, fold) in pass.folds.iter().enumerate() {
            for id in fold.units.keys() {
                let parent = index.dirs().get(*id).map_or(DirId::ROOT, |d| d.parent);
                for n in reach.near(parent).iter().map(|n| usize::from(*n)) {
                    if folds.get(n) == Some(&number)
                        && let Some(near) = near.get_mut(n)
                    {
                        near.push(*id);
                    }
                }
            }
        }
        let mut all = Self {
            admitted: vec![FxHashSet::default(); rules.len()],
            near,
        };
        let mut looked = Looked::default();
        for (n, (rule, fold)) in rules.iter().zip(folds).enumerate() {
            let Some(fold) = pass.folds.get(*fold) else {
                continue;
            };
            let near = all.near.get(n).map_or(&[][..], |near| near);
            let open = near.iter().filter(|id| {
                let unit = fold.units.get(id);
                unit.is_some_and(|u| is_admitted(index, rule, (**id, u), now))
            });
            for id in open {
                let unit = fold.units.get(id);
                if rule.rule.scope.needs_path() || unit.is_some_and(|u| u.owner.is_none()) {
                    looked.by_unit.entry(*id).or_default().push(n);
                }
                if let Some(admitted) = all.admitted.get_mut(n) {
                    admitted.insert(*id);
                }
            }
        }
        looked.look_into(index, rules, &pass.folds, &mut all.admitted)?;
        Ok(all)
    }

    pub fn near(&self, rule: usize) -> &[DirId] {
        self.near.get(rule).map_or(&[], |near| near)
    }

    pub fn admits(&self, rule: usize, unit: DirId) -> bool {
        self.admitted.get(rule).is_some_and(|all| all.contains(&unit))
    }
}

/// Whether an expired unit is in the rule's scope, but for what it holds.
fn is_admitted(index: &Index, rule: &DirectoryRule<'_>, (id, unit): (DirId, &Unit), now: Seconds) -> bool {
    let scope = &rule.rule.scope;
    if !is_expired(unit.last.at, now, rule.ttl) || unit.doubtful || unit.protected {
        return false;
    }
    is_in_scope(index, rule, (id, unit))
        && (!scope.needs_path() || index.dirs().path(id).is_some_and(|p| scope.admits_path(&p, true)))
}

/// Whether a unit is in the rule's scope but for what `exclude` says, and for what it holds.
pub(super) fn is_in_scope(index: &Index, rule: &DirectoryRule<'_>, (id, unit): (DirId, &Unit)) -> bool {
    let scope = &rule.rule.scope;
    let owner = index
        .dirs()
        .get(id)
        .and_then(|d| index.get(d.ino))
        .map(|(a, _)| (a.uid, a.gid));
    // A directory of a user in scope may hold files of one who is not: these are no rule's to take.
    let all = unit.owner.is_none_or(|(uid, gid)| scope.admits_owner(uid, gid));
    all && owner.is_some_and(|(uid, gid)| scope.admits_attributes(uid, gid, unit.bytes))
        && (scope.has_all_paths() || index.dirs().path(id).is_some_and(|p| scope.is_included(&p, true)))
}

/// Units whose entries are looked at one by one, and for which rules.
#[derive(Default)]
struct Looked {
    by_unit: FxHashMap<DirId, Vec<usize>>,
}

impl Looked {
    /// One pass over the index for all rules: takes the units out of `admitted` that hold anything outside a rule's scope.
    fn look_into(
        &self,
        index: &Index,
        rules: &[DirectoryRule<'_>],
        folds: &[Fold],
        admitted: &mut [FxHashSet<DirId>],
    ) -> Result<(), StoreError> {
        if self.by_unit.is_empty() {
            return Ok(());
        }
        let verdicts: Vec<Verdicts> = rules.iter().map(|_| Verdicts::new(index.dirs())).collect();
        let mut refuse = |dir: DirId, is_outside: &dyn Fn(usize, &Rule) -> bool| {
            let units: FxHashSet<DirId> = folds.iter().filter_map(|f| f.unit_of(dir)).collect();
            for unit in units {
                for n in self.by_unit.get(&unit).into_iter().flatten() {
                    if let (Some(rule), Some(all)) = (rules.get(*n), admitted.get_mut(*n))
                        && is_outside(*n, rule.rule)
                    {
                        all.remove(&unit);
                    }
                }
            }
        };
        let is_wanted = |dir: DirId| {
            let mut units = folds.iter().filter_map(|f| f.unit_of(dir));
            units.any(|unit| self.by_unit.contains_key(&unit))
        };
        for page in index.pages() {
            let mut wanted = false;
            let mut attributes = page.attributes();
            for ino in page.inodes() {
                let entry = attributes.next_entry()?;
                let dir = index.dirs().of_inode(ino).unwrap_or(entry.parent);
                if is_wanted(dir) || entry.links > 1 {
                    wanted = true;
                    refuse(dir, &|_, rule| !rule.scope.admits_owner(entry.uid, entry.gid));
                }
            }
            if !wanted {
                continue;
            }
            index.names_of_page(page.number(), |_, parent, name| {
                refuse(parent, &|n, rule| {
                    let verdicts = verdicts.get(n).filter(|_| rule.scope.needs_path());
                    is_quota_file(parent, name)
                        || verdicts
                            .is_some_and(|v| !v.admits(index.dirs(), &rule.scope, (parent, name), false))
                });
            })?;
        }
        Ok(())
    }
}
