//! Directory rules: a directory at a given depth (a *unit*) goes as a whole when everything in it has expired.
//!
//! One pass folds the latest use of anything into its unit; a second looks at the scope of what lies in the units
//! that are left. Anything doubtful in a unit keeps it: an unreadable directory, a mount point, a socket, a held or
//! excluded file.

use rustc_hash::FxHashMap;

use super::evaluate::{Circumstances, Pick, Shape, Tables, is_quota_file};
use super::last_use::{covered, is_expired, last_use};
use super::verdicts::Verdicts;
use crate::config::Rule;
use crate::index::{Attributes, DirId, Index, StoreError};
use crate::model::{Inode, Kind, LastUse, Seconds, Source};

/// What one directory rule finds.
#[derive(Debug, Default)]
pub(super) struct Units {
    pub picks: Vec<Pick>,
    pub examined: u64,
    pub held: u64,
    pub excluded: u64,
    pub uncovered: u64,
    pub by_owner: FxHashMap<u32, (u64, u64)>,
}

/// What lies in one unit.
#[derive(Debug, Clone, Copy)]
struct Unit {
    last: LastUse,
    /// As if nothing had gone unwatched.
    last_seen: Seconds,
    files: u64,
    bytes: u64,
    held: bool,
    excluded: bool,
    doubtful: bool,
}

impl Default for Unit {
    fn default() -> Self {
        let last = LastUse {
            at: Seconds::MIN,
            source: Source::Mtime,
        };
        let last_seen = Seconds::MIN;
        Self {
            last,
            last_seen,
            files: 0,
            bytes: 0,
            held: false,
            excluded: false,
            doubtful: false,
        }
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

pub(super) fn evaluate(
    index: &Index,
    rule: &Rule,
    number: u16,
    depth: u32,
    at: &Circumstances,
    tables: &Tables,
    taken: &mut [bool],
) -> Result<Units, StoreError> {
    let Some(ttl) = rule.ttl else {
        return Ok(Units::default());
    };
    let unit_of = unit_table(index, depth);
    let mut pass = Pass {
        index,
        rule,
        at,
        tables,
        unit_of: &unit_of,
        units: FxHashMap::default(),
    };
    let mut out = Units::default();
    pass.fold(&mut out)?;
    let now = at.now;
    let expired = |u: &Unit| is_expired(u.last.at, now, ttl);
    let mut units = pass.units;
    let open: FxHashMap<DirId, Unit> = units
        .iter()
        .filter(|(_, u)| expired(u) && !u.doubtful)
        .map(|(id, u)| (*id, *u))
        .collect();
    for (id, unit) in check_scope(index, rule, tables, &unit_of, open)? {
        units.insert(id, unit);
    }
    for (id, unit) in units {
        let Some(dir) = index.dirs().get(id) else { continue };
        if Tables::is(taken, id) {
            continue;
        }
        let birth = index.get(dir.ino).map_or(at.now, |(a, _)| a.birth);
        let announced = at.announced.allows_from(rule, dir.ino, birth, unit.last.at);
        match () {
            () if !expired(&unit) => {
                if is_expired(unit.last_seen, now, ttl) {
                    out.uncovered += unit.files;
                }
            }
            () if announced > now => {}
            () if unit.held => out.held += unit.files,
            () if unit.excluded || unit.doubtful => out.excluded += unit.files,
            () => {
                if let Some(place) = taken.get_mut(id.index()) {
                    *place = true;
                }
                if let Some((attributes, _)) = index.get(dir.ino) {
                    let share = out.by_owner.entry(attributes.uid).or_default();
                    *share = (share.0 + unit.files.max(1), share.1.saturating_add(unit.bytes));
                }
                out.picks.push(Pick {
                    ino: dir.ino,
                    parent: dir.parent,
                    shape: Shape::Tree,
                    last: unit.last,
                    birth,
                    bytes: unit.bytes,
                    files: u32::try_from(unit.files).unwrap_or(u32::MAX),
                    rule: number,
                });
            }
        }
    }
    // Everything below a directory that goes is taken.
    let spread = index
        .dirs()
        .inherit(false, |id, _, above| above || Tables::is(taken, id));
    for (place, is) in taken.iter_mut().zip(spread) {
        *place |= is;
    }
    out.picks.sort_unstable_by_key(|p| p.ino);
    Ok(out)
}

struct Pass<'a> {
    index: &'a Index,
    rule: &'a Rule,
    at: &'a Circumstances,
    tables: &'a Tables,
    unit_of: &'a [Option<DirId>],
    units: FxHashMap<DirId, Unit>,
}

impl Pass<'_> {
    fn fold(&mut self, out: &mut Units) -> Result<(), StoreError> {
        let index = self.index;
        for page in index.pages() {
            let mut attributes = page.attributes();
            for (rank, ino) in page.inodes().enumerate() {
                let entry = attributes.next_entry()?;
                let access = page.access(rank);
                if entry.kind == Kind::File {
                    out.examined += 1;
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
        Ok(())
    }

    /// Folds an entry into the unit of `dir`.
    fn add(&mut self, dir: DirId, ino: Inode, entry: &Attributes, access: LastUse) {
        let Some(id) = self.unit_of.get(dir.index()).copied().flatten() else {
            return;
        };
        let unit = self.units.entry(id).or_default();
        // What a link points to cannot be seen to be used through it: its own times count.
        let now = self.at.now;
        let last = last_use(entry, covered(access, self.at.gap_end), self.rule.clocks, now);
        if last.at > unit.last.at {
            unit.last = last;
        }
        unit.last_seen = unit
            .last_seen
            .max(last_use(entry, access, self.rule.clocks, now).at);
        unit.held |= Tables::is(&self.tables.held, dir) || self.at.held.contains(&ino);
        unit.excluded |= Tables::is(&self.tables.protected, dir);
        // A directory of a user in scope may hold files of one who is not: these are no rule's to take.
        unit.excluded |= !self.rule.scope.admits_owner(entry.uid, entry.gid);
        unit.doubtful |= !Tables::is(&self.tables.connected, dir) || entry.kind == Kind::Special;
        if entry.kind == Kind::Directory {
            unit.doubtful |= self
                .index
                .dirs()
                .get(dir)
                .is_none_or(|d| d.unreadable || d.has_mounts || d.crowded);
        }
        if entry.kind == Kind::File {
            unit.files += 1;
            unit.bytes = unit.bytes.saturating_add(entry.size);
        }
    }
}

/// Marks those of the expired units as excluded that hold anything outside the rule's scope.
fn check_scope(
    index: &Index,
    rule: &Rule,
    tables: &Tables,
    unit_of: &[Option<DirId>],
    mut units: FxHashMap<DirId, Unit>,
) -> Result<FxHashMap<DirId, Unit>, StoreError> {
    for (id, unit) in &mut units {
        let owner = index
            .dirs()
            .get(*id)
            .and_then(|d| index.get(d.ino))
            .map(|(a, _)| (a.uid, a.gid));
        let path = index.dirs().path(*id);
        let admitted = owner.is_some_and(|(uid, gid)| rule.scope.admits_attributes(uid, gid, unit.bytes))
            && path.is_some_and(|p| rule.scope.admits_path(&p, true));
        unit.excluded |= !admitted || Tables::is(&tables.protected, *id);
    }
    if !rule.scope.needs_path() {
        return Ok(units);
    }
    let verdicts = Verdicts::new(index.dirs());
    for page in index.pages() {
        let mut wanted = false;
        let mut attributes = page.attributes();
        for _ in page.inodes() {
            let entry = attributes.next_entry()?;
            let unit = unit_of.get(entry.parent.index()).copied().flatten();
            wanted |= unit.is_some_and(|u| units.contains_key(&u));
        }
        if !wanted {
            continue;
        }
        index.names_of_page(page.number(), |_, parent, name| {
            let Some(unit) = unit_of
                .get(parent.index())
                .copied()
                .flatten()
                .and_then(|u| units.get_mut(&u))
            else {
                return;
            };
            unit.excluded |= is_quota_file(parent, name)
                || !verdicts.admits(index.dirs(), &rule.scope, (parent, name), false);
        })?;
    }
    Ok(units)
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
    subject: &super::explain::Subject,
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
        rule,
        at,
        tables: &tables,
        unit_of: &unit_of,
        units: FxHashMap::default(),
    };
    pass.fold(&mut Units::default())?;
    Ok(index.dirs().path(unit).zip(pass.units.get(&unit).map(|u| u.last)))
}
