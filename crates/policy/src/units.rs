//! Directory rules: a directory at a given depth (a *unit*) goes as a whole when everything in it has expired.
//!
//! One pass for all rules folds the latest use of anything into its unit; a second looks at the scope of what lies in the units
//! that are left. Anything doubtful in a unit keeps it: an unreadable directory, a mount point, a socket, a held or
//! excluded file.
//!
//! Rules of a smaller depth come first: a directory that goes takes all directories in it along, also where other rules speak of these. Rules of
//! the same depth come in their order.

mod scopes;

use std::rc::Rc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::scopes::{Scopes, is_in_scope};
use super::circumstances::Circumstances;
use super::evaluation::add_owner;
use super::kept::{Kept, Stays};
use super::last_use::{covered, expires_at, is_expired, last_use};
use super::near;
use super::nothing::Nothing;
use super::pick::{Pick, Shape};
use super::portion::{ByOwner, Portion};
use super::rule::numbered;
use super::subject::Subject;
use super::tables::Tables;
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
    /// What was accessed at or after this is young for all of these rules; none when one of them does not ask for accesses.
    pub fn young_from(rules: &[Self], now: Seconds) -> Option<Seconds> {
        let all_ask = rules.iter().all(|rule| rule.rule.clocks.access);
        let shortest = rules.iter().map(|rule| rule.ttl).min().unwrap_or(u64::MAX);
        all_ask.then(|| now.minus(shortest))
    }

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
    pub by_owner: ByOwner,
    /// By directory: why no rule takes its files, where none does.
    pub stays: Vec<Stays>,
    /// By directory: how many files lie right in it. One with several names lies where its first is.
    pub files_in: Vec<u32>,
    /// By directory that goes: the rule.
    pub taken_by: Vec<u16>,
    /// Files that a rule would take and that go with a larger directory by another.
    pub gone_with: FxHashMap<(u16, u16), u64>,
    /// Of each unit that a rule takes, also in a larger one that goes: from when on the first of the rules does.
    pub due: FxHashMap<DirId, Seconds>,
    /// When units may go that wait for a list.
    pub ripe: Kept,
    /// Of rules that take nothing.
    pub nothing: Vec<(u16, Nothing)>,
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
    has_mounts: bool,
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
    out.files_in = vec![0; index.dirs().table_len()];
    out.taken_by = vec![0; index.dirs().table_len()];
    out.examined = pass.fold(&mut out.files_in)?;
    let scopes = Scopes::new(index, rules, &folds, &pass, at.now)?;
    let mut stays: Vec<FxHashMap<DirId, Stays>> = vec![FxHashMap::default(); pass.folds.len()];
    let mut waiting: Vec<FxHashSet<DirId>> = vec![FxHashSet::default(); pass.folds.len()];
    let mut order: Vec<(usize, &DirectoryRule<'_>)> = rules.iter().enumerate().collect();
    order.sort_by_key(|(_, rule)| rule.depth);
    for (n, rule) in order {
        let fold = folds.get(n).copied().unwrap_or_default();
        let (Some(units), Some(stays), Some(waiting)) = (
            pass.folds.get(fold).map(|f| &f.units),
            stays.get_mut(fold),
            waiting.get_mut(fold),
        ) else {
            continue;
        };
        let mut asked = Asked {
            index,
            rule,
            at,
            stays,
            waiting,
            nothing: Nothing {
                depth: Some(rule.depth),
                ttl: rule.ttl,
                ..Nothing::default()
            },
        };
        let first = out.picks.len();
        let known = out.gone_with.len();
        for id in scopes.near(n) {
            if let Some(unit) = units.get(id) {
                let is_taken = Tables::is(taken, *id);
                asked.unit((*id, unit), scopes.admits(n, *id), is_taken, &mut out);
            }
        }
        let nothing = asked.nothing;
        if (first, known) == (out.picks.len(), out.gone_with.len()) {
            let lie = near::depths(index, rule.rule);
            let near = near::nearest(&lie, rule.depth, nothing.in_scope);
            out.nothing.push((rule.number, Nothing { near, ..nothing }));
        }
        let mine = out.picks.get_mut(first..).unwrap_or_default();
        mine.sort_unstable_by_key(|p| p.ino);
        let (mine, taken_by) = (out.picks.get(first..).unwrap_or_default(), &mut out.taken_by);
        spread(index, mine, (rule.number, taken_by), taken);
    }
    out.stays = by_directory(&pass.folds, &stays, index.dirs().table_len());
    Ok(out)
}

/// By directory: the nearest of the reasons why the units that hold it stay.
fn by_directory(folds: &[Fold], stays: &[FxHashMap<DirId, Stays>], directories: usize) -> Vec<Stays> {
    let mut all = vec![Stays::OutOfScope; directories];
    for (fold, stays) in folds.iter().zip(stays) {
        for (place, unit) in all.iter_mut().zip(fold.unit_of.iter()) {
            let said = unit.and_then(|unit| stays.get(&unit)).copied();
            *place = (*place).max(said.unwrap_or_default());
        }
    }
    all
}

/// Everything below a directory that goes is taken.
fn spread(index: &Index, picks: &[Pick], (rule, taken_by): (u16, &mut [u16]), taken: &mut [bool]) {
    let mut is_new = false;
    for id in picks.iter().filter_map(|pick| index.dirs().of_inode(pick.ino)) {
        if let (Some(place), Some(by)) = (taken.get_mut(id.index()), taken_by.get_mut(id.index())) {
            *place = true;
            *by = rule;
            is_new = true;
        }
    }
    if !is_new {
        return;
    }
    let spread = index
        .dirs()
        .inherit(false, |id, _, above| above || Tables::is(taken, id));
    let places = taken.iter_mut().zip(taken_by).zip(spread);
    for ((place, by), _) in places.filter(|((place, _), is)| *is && !**place) {
        *place = true;
        *by = rule;
    }
}

/// One rule, asked of each unit near it.
struct Asked<'a> {
    index: &'a Index,
    rule: &'a DirectoryRule<'a>,
    at: &'a Circumstances,
    /// Why units stay, by what all rules say.
    stays: &'a mut FxHashMap<DirId, Stays>,
    /// Units that wait until a list of a rule before this one has named them for long enough: that time is their owners', and no rule after it
    /// takes them meanwhile.
    waiting: &'a mut FxHashSet<DirId>,
    nothing: Nothing,
}

impl Asked<'_> {
    fn unit(&mut self, (id, unit): (DirId, &Unit), is_admitted: bool, is_taken: bool, out: &mut Units) {
        let said = self.judge((id, unit), is_admitted);
        if let Err((Stays::Announced, _)) = said {
            self.waiting.insert(id);
        }
        let is_waiting = said.is_ok() && self.waiting.contains(&id);
        if is_waiting && !is_taken {
            self.nothing.count(Stays::Announced);
            return;
        }
        if said.is_ok() {
            let due = expires_at(unit.last.at, self.rule.ttl).max(self.announced(id, unit));
            let known = out.due.entry(id).or_insert(due);
            *known = (*known).min(due);
        }
        match (said, is_taken) {
            (Ok(_), true) => {
                let by = out.taken_by.get(id.index()).copied().unwrap_or_default();
                let count = out.gone_with.entry((self.rule.number, by)).or_default();
                *count = count.saturating_add(unit.files);
            }
            (Ok(birth), false) => self.take((id, unit), birth, out),
            (Err(_), true) => {}
            (Err((why, ripe)), false) => {
                self.nothing.count(why);
                let known = self.stays.entry(id).or_default();
                *known = (*known).max(why);
                if let Some(ripe) = ripe.filter(|_| unit.files > 0) {
                    out.ripe.ripens(ripe);
                }
            }
        }
    }

    /// From when on the lists of the rule let it go.
    fn announced(&self, id: DirId, unit: &Unit) -> Seconds {
        let ino = self.index.dirs().get(id).map(|dir| dir.ino);
        let found = ino.and_then(|ino| Some((ino, self.index.get(ino)?.0.birth)));
        let (ino, birth) = found.unwrap_or((0, self.at.now));
        let announced = &self.at.announced;
        announced.allows_from(self.rule.rule, ino, birth, unit.last.at)
    }

    /// When the directory was made, if it goes; otherwise why it stays, and when it may go that waits for a list.
    fn judge(
        &self,
        (id, unit): (DirId, &Unit),
        is_admitted: bool,
    ) -> Result<Seconds, (Stays, Option<Seconds>)> {
        let (now, ttl) = (self.at.now, self.rule.ttl);
        let Some(dir) = self.index.dirs().get(id) else {
            return Err((Stays::Excluded, None));
        };
        let attributes = self.index.get(dir.ino).map(|(a, _)| a);
        let birth = attributes.map_or(now, |a| a.birth);
        let announced = || self.announced(id, unit);
        let is_left_out = attributes.is_some_and(|a| self.at.left_out.contains(&a.uid));
        let is_old = |at: Seconds| is_expired(at, now, ttl);
        let why = match () {
            () if !is_in_scope(self.index, self.rule, (id, unit)) => Stays::OutOfScope,
            () if !is_old(unit.last.at) && is_old(unit.last_seen) => Stays::Uncovered,
            () if !is_old(unit.last.at) => Stays::Young,
            () if unit.has_mounts => Stays::Mounted,
            () if unit.doubtful || unit.protected || !is_admitted => Stays::Excluded,
            () if unit.outside => Stays::Limit,
            () if announced() > now => return Err((Stays::Announced, Some(announced()))),
            () if unit.held => Stays::Held,
            () if is_left_out => Stays::Limit,
            () => return Ok(birth),
        };
        Err((why, None))
    }

    fn take(&self, (id, unit): (DirId, &Unit), birth: Seconds, out: &mut Units) {
        let Some(dir) = self.index.dirs().get(id) else {
            return;
        };
        if let Some((attributes, _)) = self.index.get(dir.ino) {
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
            rule: self.rule.number,
        });
    }
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
    fn fold(&mut self, files_in: &mut [u32]) -> Result<u64, StoreError> {
        let index = self.index;
        let mut files = 0u64;
        for page in index.pages() {
            let mut attributes = page.attributes();
            for (rank, ino) in page.inodes().enumerate() {
                let entry = attributes.next_entry()?;
                let access = page.access(rank);
                if entry.kind == Kind::File {
                    files = files.saturating_add(1);
                    if let Some(count) = files_in.get_mut(entry.parent.index()) {
                        *count = count.saturating_add(1);
                    }
                }
                match entry.kind {
                    Kind::Directory => {
                        if let Some(id) = index.dirs().of_inode(ino) {
                            self.add(id, ino, &entry, (access, false));
                        }
                    }
                    // A file with several names is used in every directory where it has one.
                    _ if entry.links > 1 => {
                        let mut is_new = true;
                        for (parent, _) in index.names(ino)? {
                            let counts = is_new && parent == entry.parent;
                            is_new &= !counts;
                            self.add(parent, ino, &entry, (access, counts));
                        }
                    }
                    _ => self.add(entry.parent, ino, &entry, (access, true)),
                }
            }
        }
        Ok(files)
    }

    /// Folds an entry into the unit of `dir`. A file `counts` once, where its first name is.
    fn add(&mut self, dir: DirId, ino: Inode, entry: &Attributes, (access, counts): (LastUse, bool)) {
        let (at, tables) = (self.at, self.tables);
        let held = Tables::is(&tables.held, dir) || at.held.contains(&ino);
        let is_outside = Tables::is(&tables.outside, dir) || !at.only.has_owner(entry.uid);
        let is_open = |d: &DirEntry| d.unreadable || d.has_mounts || d.crowded;
        let is_doubtful = !Tables::is(&tables.connected, dir)
            || entry.kind == Kind::Special
            || entry.kind == Kind::Directory && self.index.dirs().get(dir).is_none_or(is_open);
        let has_mounts =
            entry.kind == Kind::Directory && self.index.dirs().get(dir).is_some_and(|d| d.has_mounts);
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
                has_mounts: false,
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
            unit.has_mounts |= has_mounts;
            unit.owner = unit.owner.filter(|known| *known == owner);
            if counts && entry.kind == Kind::File {
                unit.files = unit.files.saturating_add(1);
                unit.bytes = unit.bytes.saturating_add(entry.size);
                unit.takes = unit.takes.saturating_add(entry.takes());
            }
        }
    }
}

/// What a directory rule says of one unit.
pub(super) struct Said {
    /// Its path below the volume.
    pub path: Vec<u8>,
    /// The latest use of anything in it.
    pub last: LastUse,
    /// From when on the rule would take it, but for what keeps it.
    pub due: Seconds,
    /// Why it stays even then; none: it goes.
    pub stays: Option<Stays>,
}

/// What a rule says of the unit that `subject` is or lies in; none above the rule's depth.
///
/// # Errors
/// When the index cannot be read.
pub(super) fn said_of(
    index: &Index,
    rule: &Rule,
    depth: u32,
    at: &Circumstances,
    subject: &Subject,
) -> Result<Option<Said>, StoreError> {
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
    pass.fold(&mut [])?;
    let (Some(path), Some(ttl)) = (index.dirs().path(unit), rule.ttl) else {
        return Ok(None);
    };
    let Some(found) = pass.folds.get_mut(fold).and_then(|f| {
        // No other unit is asked for.
        f.units.retain(|id, _| *id == unit);
        f.units.get(&unit).copied()
    }) else {
        return Ok(None);
    };
    let dir = index.dirs().get(unit).map_or(subject.ino, |d| d.ino);
    let birth = index.get(dir).map_or(at.now, |(a, _)| a.birth);
    let announced = at.announced.allows_from(rule, dir, birth, found.last.at);
    let due = expires_at(found.last.at, ttl).max(announced);
    let then = Circumstances {
        now: due.max(at.now),
        ..at.clone()
    };
    let only = DirectoryRule {
        number: 0,
        rule,
        depth,
        ttl,
    };
    let scopes = Scopes::new(index, &[only], &[fold], &pass, then.now)?;
    let asked = Asked {
        index,
        rule: &only,
        at: &then,
        stays: &mut FxHashMap::default(),
        waiting: &mut FxHashSet::default(),
        nothing: Nothing::default(),
    };
    let is_near = scopes.near(0).contains(&unit);
    let said = asked.judge((unit, &found), scopes.admits(0, unit));
    let stays = match is_near {
        true => said.err().map(|(why, _)| why),
        false => Some(Stays::OutOfScope),
    };
    Ok(Some(Said {
        path,
        last: found.last,
        due,
        stays,
    }))
}
