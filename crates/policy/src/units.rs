//! Directory rules: a directory at a given depth (a *unit*) goes as a whole when everything in it has expired.
//!
//! One pass for all rules folds the latest use of anything into its unit; a second looks at the scope of what lies in the units
//! that are left. Anything doubtful in a unit keeps it: an unreadable directory, a mount point, a socket, a held or
//! excluded file.

use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::circumstances::Circumstances;
use super::evaluation::add_owner;
use super::last_use::{covered, is_expired, last_use};
use super::pick::{Pick, Shape};
use super::portion::{ByOwner, Portion};
use super::reach::Reach;
use super::rule::numbered;
use super::subject::Subject;
use super::tables::{Tables, is_quota_file};
use super::verdicts::Verdicts;
use crate::rule::{Rule, Target};
use purge_index::codec::DirEntry;
use purge_index::{Attributes, DirId, Index, StoreError};
use purge_model::{Clocks, Inode, Kind, LastUse, Seconds};

/// A directory rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryRule<'a> {
    pub number: u16,
    pub rule: &'a Rule,
    depth: u32,
    pub ttl: u64,
}

impl<'a> DirectoryRule<'a> {
    /// Those among `rules` that have a ttl, in their order.
    pub fn among(rules: &'a [Rule]) -> Vec<Self> {
        let of = |(number, rule): (u16, &'a Rule)| match rule.target {
            Target::Directory { depth } => Some(Self {
                number,
                rule,
                depth,
                ttl: rule.ttl?,
            }),
            Target::File => None,
        };
        numbered(rules).filter_map(of).collect()
    }
}

/// What directory rules find.
#[derive(Debug, Default)]
pub(super) struct Units {
    pub picks: Vec<Pick>,
    pub examined: u64,
    pub held: u64,
    pub excluded: u64,
    pub uncovered: u64,
    pub by_owner: ByOwner,
    /// Files of owners who were left out.
    pub left_out: u64,
}

/// What lies in one unit.
#[derive(Debug, Clone, Copy)]
struct Unit {
    last: LastUse,
    /// The last use, as if no stretch had been unwatched.
    last_seen: Seconds,
    files: u64,
    bytes: u64,
    takes: u64,
    held: bool,
    /// Some of it is outside of what is asked for.
    outside: bool,
    protected: bool,
    doubtful: bool,
    /// Owner and group of everything in it, if they are the same.
    owner: Option<(u32, u32)>,
}

/// The units of some depth, by some clocks.
struct Fold {
    depth: u32,
    clocks: Clocks,
    /// For each directory the unit it belongs to.
    unit_of: Rc<Vec<Option<DirId>>>,
    units: FxHashMap<DirId, Unit>,
}

impl Fold {
    fn unit_of(&self, dir: DirId) -> Option<DirId> {
        self.unit_of.get(dir.index()).copied().flatten()
    }
}

/// For each directory the unit it belongs to.
fn unit_table(index: &Index, depth: u32) -> Vec<Option<DirId>> {
    let levels = index
        .dirs()
        .inherit((0u32, None), |id, _, (level, unit): (u32, Option<DirId>)| {
            let level = level.saturating_add(1);
            (level, if level == depth { Some(id) } else { unit })
        });
    levels.into_iter().map(|(_, unit)| unit).collect()
}

/// All directory rules in their order, in one pass over the index. What is `taken` is added to.
pub(super) fn evaluate(
    index: &Index,
    rules: &[DirectoryRule<'_>],
    at: &Circumstances,
    tables: &Tables,
    taken: &mut [bool],
) -> Result<Units, StoreError> {
    let mut out = Units::default();
    if rules.is_empty() {
        return Ok(out);
    }
    let mut pass = Pass {
        index,
        at,
        tables,
        folds: Vec::new(),
    };
    let folds: Vec<usize> = rules
        .iter()
        .map(|r| pass.fold_of(r.depth, r.rule.clocks))
        .collect();
    out.examined = pass.fold()?;
    let scopes = Scopes::new(index, rules, &folds, &pass, at.now)?;
    let mut settled: FxHashSet<(usize, DirId)> = FxHashSet::default();
    for (n, (rule, fold)) in rules.iter().zip(&folds).enumerate() {
        let Some(units) = pass.folds.get(*fold).map(|f| &f.units) else {
            continue;
        };
        let first = out.picks.len();
        for id in scopes.near(n) {
            let (Some(unit), false) = (units.get(id), Tables::is(taken, *id)) else {
                continue;
            };
            if (unit.held || unit.outside) && settled.contains(&(*fold, *id)) {
                continue;
            }
            if let Some(is_settled) = take(index, rule, (*id, unit), scopes.admits(n, *id), at, &mut out)
                && is_settled
            {
                settled.insert((*fold, *id));
            }
        }
        let mine = out.picks.get_mut(first..).unwrap_or_default();
        mine.sort_unstable_by_key(|p| p.ino);
        spread(index, mine, taken);
    }
    for (n, fold) in pass.folds.iter().enumerate() {
        let ttls = rules.iter().zip(&folds).filter(|(_, f)| **f == n);
        let shortest = ttls.map(|(r, _)| r.ttl).min().unwrap_or(u64::MAX);
        for (id, unit) in fold.units.iter().filter(|(id, _)| !settled.contains(&(n, **id))) {
            count_what_stays(unit, *id, (at.now, shortest), taken, &mut out);
        }
    }
    Ok(out)
}

/// Everything below a directory that goes is taken.
fn spread(index: &Index, picks: &[Pick], taken: &mut [bool]) {
    let mut is_new = false;
    for id in picks.iter().filter_map(|pick| index.dirs().of_inode(pick.ino)) {
        if let Some(place) = taken.get_mut(id.index()) {
            *place = true;
            is_new = true;
        }
    }
    if !is_new {
        return;
    }
    let spread = index
        .dirs()
        .inherit(false, |id, _, above| above || Tables::is(taken, id));
    for (place, is) in taken.iter_mut().zip(spread) {
        *place |= is;
    }
}

/// Takes a unit if the rule may. True: it goes, or it is held, or was not announced, and is counted; none: another rule may speak of it.
fn take(
    index: &Index,
    rule: &DirectoryRule<'_>,
    (id, unit): (DirId, &Unit),
    is_admitted: bool,
    at: &Circumstances,
    out: &mut Units,
) -> Option<bool> {
    let dir = index.dirs().get(id)?;
    let now = at.now;
    if !is_expired(unit.last.at, now, rule.ttl) {
        return None;
    }
    let birth = index.get(dir.ino).map_or(now, |(a, _)| a.birth);
    let announced = at.announced.allows_from(rule.rule, dir.ino, birth, unit.last.at);
    match () {
        () if announced > now => return Some(true),
        () if unit.doubtful || unit.protected || !is_admitted => return None,
        () if unit.outside => {
            out.left_out = out.left_out.saturating_add(unit.files);
            return Some(true);
        }
        () if unit.held => {
            out.held = out.held.saturating_add(unit.files);
            return Some(true);
        }
        () => {}
    }
    if let Some((attributes, _)) = index.get(dir.ino) {
        if at.left_out.contains(&attributes.uid) {
            out.left_out = out.left_out.saturating_add(unit.files);
            return Some(true);
        }
        let part = Portion {
            files: unit.files.max(1),
            bytes: unit.bytes,
            takes: unit.takes,
        };
        add_owner(&mut out.by_owner, attributes.uid, part);
    }
    out.picks.push(Pick {
        ino: dir.ino,
        parent: dir.parent,
        shape: Shape::Tree,
        last: unit.last,
        birth,
        bytes: unit.bytes,
        takes: unit.takes,
        files: u32::try_from(unit.files).unwrap_or(u32::MAX),
        rule: rule.number,
    });
    Some(true)
}

/// Counts a unit that no rule takes by the reason, once.
fn count_what_stays(unit: &Unit, id: DirId, (now, ttl): (Seconds, u64), taken: &[bool], out: &mut Units) {
    if Tables::is(taken, id) {
        return;
    }
    let count = match () {
        () if is_expired(unit.last.at, now, ttl) => match unit.held {
            true => &mut out.held,
            false => &mut out.excluded,
        },
        () if is_expired(unit.last_seen, now, ttl) => &mut out.uncovered,
        () => return,
    };
    *count = count.saturating_add(unit.files);
}

struct Pass<'a> {
    index: &'a Index,
    at: &'a Circumstances,
    tables: &'a Tables,
    folds: Vec<Fold>,
}

impl Pass<'_> {
    /// The position of a fold, which is begun if there is none.
    fn fold_of(&mut self, depth: u32, clocks: Clocks) -> usize {
        let known = |f: &Fold| (f.depth, f.clocks) == (depth, clocks);
        if let Some(known) = self.folds.iter().position(known) {
            return known;
        }
        let same_depth = self.folds.iter().find(|f| f.depth == depth);
        let unit_of = same_depth.map(|f| Rc::clone(&f.unit_of));
        self.folds.push(Fold {
            depth,
            clocks,
            unit_of: unit_of.unwrap_or_else(|| Rc::new(unit_table(self.index, depth))),
            units: FxHashMap::default(),
        });
        self.folds.len() - 1
    }

    /// Folds everything into its units. Returns how many files there are.
    fn fold(&mut self) -> Result<u64, StoreError> {
        let index = self.index;
        let mut files = 0u64;
        for page in index.pages() {
            let mut attributes = page.attributes();
            for (rank, ino) in page.inodes().enumerate() {
                let entry = attributes.next_entry()?;
                let access = page.access(rank);
                if entry.kind == Kind::File {
                    files = files.saturating_add(1);
                }
                match entry.kind {
                    Kind::Directory => {
                        if let Some(id) = index.dirs().of_inode(ino) {
                            self.add(id, ino, &entry, access);
                        }
                    }
                    // A file with several names is used in every directory where it has one.
                    _ if entry.links > 1 => {
                        for (parent, _) in index.names(ino)? {
                            self.add(parent, ino, &entry, access);
                        }
                    }
                    _ => self.add(entry.parent, ino, &entry, access),
                }
            }
        }
        Ok(files)
    }

    /// Folds an entry into the unit of `dir`.
    fn add(&mut self, dir: DirId, ino: Inode, entry: &Attributes, access: LastUse) {
        let (at, tables) = (self.at, self.tables);
        let held = Tables::is(&tables.held, dir) || at.held.contains(&ino);
        let is_outside = Tables::is(&tables.outside, dir) || !at.only.has_owner(entry.uid);
        let is_open = |d: &DirEntry| d.unreadable || d.has_mounts || d.crowded;
        let is_doubtful = !Tables::is(&tables.connected, dir)
            || entry.kind == Kind::Special
            || entry.kind == Kind::Directory && self.index.dirs().get(dir).is_none_or(is_open);
        for fold in &mut self.folds {
            let Some(id) = fold.unit_of(dir) else { continue };
            // What a link points to cannot be seen to be used through it: its own times count.
            let last = last_use(entry, covered(access, at.gap_end), fold.clocks, at.now);
            let last_seen = last_use(entry, access, fold.clocks, at.now).at;
            let owner = (entry.uid, entry.gid);
            let unit = fold.units.entry(id).or_insert(Unit {
                last,
                last_seen,
                files: 0,
                bytes: 0,
                takes: 0,
                held: false,
                outside: false,
                protected: Tables::is(&tables.protected, id),
                doubtful: false,
                owner: Some(owner),
            });
            if last.at > unit.last.at {
                unit.last = last;
            }
            unit.last_seen = unit.last_seen.max(last_seen);
            unit.held |= held;
            unit.outside |= is_outside;
            unit.protected |= Tables::is(&tables.protected, dir);
            unit.doubtful |= is_doubtful;
            unit.owner = unit.owner.filter(|known| *known == owner);
            if entry.kind == Kind::File {
                unit.files = unit.files.saturating_add(1);
                unit.bytes = unit.bytes.saturating_add(entry.size);
                unit.takes = unit.takes.saturating_add(entry.takes());
            }
        }
    }
}

/// Which rule speaks of which unit, and of everything in it.
struct Scopes {
    /// By rule: the units of which it can speak.
    near: Vec<Vec<DirId>>,
    /// By rule: expired units that are in its scope with all they hold.
    admitted: Vec<FxHashSet<DirId>>,
}

impl Scopes {
    fn new(
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

    fn near(&self, rule: usize) -> &[DirId] {
        self.near.get(rule).map_or(&[], |near| near)
    }

    fn admits(&self, rule: usize, unit: DirId) -> bool {
        self.admitted.get(rule).is_some_and(|all| all.contains(&unit))
    }
}

/// Whether an expired unit is in the rule's scope, but for what it holds.
fn is_admitted(index: &Index, rule: &DirectoryRule<'_>, (id, unit): (DirId, &Unit), now: Seconds) -> bool {
    let scope = &rule.rule.scope;
    if !is_expired(unit.last.at, now, rule.ttl) || unit.doubtful || unit.protected {
        return false;
    }
    let owner = index
        .dirs()
        .get(id)
        .and_then(|d| index.get(d.ino))
        .map(|(a, _)| (a.uid, a.gid));
    // A directory of a user in scope may hold files of one who is not: these are no rule's to take.
    let all = unit.owner.is_none_or(|(uid, gid)| scope.admits_owner(uid, gid));
    all && owner.is_some_and(|(uid, gid)| scope.admits_attributes(uid, gid, unit.bytes))
        && (!scope.needs_path() || index.dirs().path(id).is_some_and(|p| scope.admits_path(&p, true)))
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

/// The unit that `subject` is or lies in, and the latest use of anything in it; none above the rule's depth.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn newest_use(
    index: &Index,
    rule: &Rule,
    depth: u32,
    at: &Circumstances,
    subject: &Subject,
) -> Result<Option<(Vec<u8>, LastUse)>, StoreError> {
    let unit_of = unit_table(index, depth);
    let dir = index
        .dirs()
        .of_inode(subject.ino)
        .unwrap_or(subject.attributes.parent);
    let Some(unit) = unit_of.get(dir.index()).copied().flatten() else {
        return Ok(None);
    };
    let tables = Tables::new(index, at);
    let mut pass = Pass {
        index,
        at,
        tables: &tables,
        folds: Vec::new(),
    };
    let fold = pass.fold_of(depth, rule.clocks);
    pass.fold()?;
    let found = pass.folds.get(fold).and_then(|f| f.units.get(&unit));
    Ok(index.dirs().path(unit).zip(found.map(|u| u.last)))
}
