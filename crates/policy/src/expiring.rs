//! What expires soon if no process uses it: one by one, or one owner's by directory. Pure.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::circumstances::Circumstances;
use super::files::{Due, FilePass, Going};
use super::pick::Pick;
use super::tables::{Tables, unit_table};

use super::units::{self, DirectoryRule};
use crate::rule::{Rule, Target};
use purge_index::{DirId, Index, StoreError};
use purge_model::{Inode, Seconds};

/// What one owner loses soon from one directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Regular files.
    pub files: u64,
    /// Apparent bytes.
    pub bytes: u128,
    /// When the first of them expires.
    pub first: Seconds,
    /// How many of the files have expired already.
    pub expired_files: u64,
    /// Their bytes.
    pub expired_bytes: u128,
}

impl Share {
    /// One file.
    fn of(size: u64, due: Seconds, now: Seconds) -> Self {
        let (files, bytes) = (1, u128::from(size));
        let is_expired = due <= now;
        Self {
            files,
            bytes,
            first: due,
            expired_files: if is_expired { files } else { 0 },
            expired_bytes: if is_expired { bytes } else { 0 },
        }
    }

    fn add(&mut self, more: Self) {
        self.files = self.files.saturating_add(more.files);
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.first = self.first.min(more.first);
        self.expired_files = self.expired_files.saturating_add(more.expired_files);
        self.expired_bytes = self.expired_bytes.saturating_add(more.expired_bytes);
    }
}

/// Everything that a rule takes within `within` seconds, and from when on: files, directories that go as a whole, and the files in these; of
/// `only` one owner if only theirs are asked for.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn expiring(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    (within, only): (u64, Option<u32>),
) -> Result<FxHashMap<Inode, Seconds>, StoreError> {
    let mut all = FxHashMap::default();
    let each = |out: &mut Vec<(Inode, Seconds)>, file: &Due<'_>| {
        if file.with.is_none() || only.is_none_or(|uid| uid == file.entry.uid) {
            out.push((file.ino, file.due));
        }
    };
    let (trees, parts) = pass(index, rules, at, (within, true), each)?;
    all.extend(trees.iter().map(|tree| (tree.ino, tree.due)));
    parts.into_iter().for_each(|part| all.extend(part));
    Ok(all)
}

/// What the next list of an announcing rule names: inode, birth and last use of everything that expires within the time that
/// it announces.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn named_by(
    index: &Index,
    rule: &Rule,
    at: &Circumstances,
) -> Result<Vec<(Inode, Seconds, Seconds)>, StoreError> {
    let Some(ttl) = rule.ttl else {
        return Ok(Vec::new());
    };
    let last = |due: Seconds| due.minus(ttl.saturating_add(1));
    // It names what it is not allowed to take yet.
    let unbound = Rule {
        announce: 0,
        ..rule.clone()
    };
    let each = |out: &mut Vec<_>, file: &Due<'_>| out.push((file.ino, file.entry.birth, last(file.due)));
    let unbound = std::slice::from_ref(&unbound);
    let (trees, parts) = pass(index, unbound, at, (rule.announce, false), each)?;
    let mut all: Vec<_> = trees
        .iter()
        .map(|tree| (tree.ino, tree.birth, last(tree.due)))
        .collect();
    parts.into_iter().for_each(|part| all.extend(part));
    Ok(all)
}

/// What one owner loses soon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// By directory.
    pub shares: FxHashMap<DirId, Share>,
    /// The rules that take something of it, by their places among all that were asked for.
    pub rules: BTreeSet<u16>,
}

/// By directory at `depth`: what of `uid`'s files the rules take within `within` seconds, with all files in directories of theirs that go as a
/// whole.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn of_owner(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    within: u64,
    (uid, depth): (u32, u32),
) -> Result<Loss, StoreError> {
    let units = unit_table(index, depth);
    let unit = |dir: DirId| units.get(dir.index()).copied().unwrap_or(DirId::ROOT);
    let add = |all: &mut FxHashMap<DirId, Share>, dir: DirId, more: Share| {
        all.entry(dir).and_modify(|mine| mine.add(more)).or_insert(more);
    };
    let mut rules = rules.to_vec();
    for rule in rules.iter_mut().filter(|r| r.target == Target::File) {
        // No other user's files need be looked at.
        let is_theirs = rule.scope.users.as_ref().is_none_or(|users| users.contains(&uid));
        rule.scope.users = Some(if is_theirs { vec![uid] } else { Vec::new() });
    }
    let each = |out: &mut Loss, file: &Due<'_>| {
        if file.entry.uid == uid || file.with == Some(uid) {
            let share = Share::of(file.entry.size, file.due, at.now);
            add(&mut out.shares, unit(file.entry.parent), share);
            out.rules.extend(file.rules);
        }
    };
    let (_, parts) = pass(index, &rules, at, (within, true), each)?;
    let mut all = Loss::default();
    for part in parts {
        all.rules.extend(part.rules);
        for (dir, share) in part.shares {
            add(&mut all.shares, dir, share);
        }
    }
    Ok(all)
}

/// A directory that goes as a whole.
pub(super) struct Tree {
    pub ino: Inode,
    pub dir: DirId,
    pub uid: u32,
    pub birth: Seconds,
    pub due: Seconds,
}

/// What `rules` take until `within` seconds from now: directories that go as a whole, and what `each` makes of every file. Files in these
/// directories are told as well if it `opens` them.
pub(super) fn pass<T: Default + Send>(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    (within, opens): (u64, bool),
    each: impl Fn(&mut T, &Due<'_>) + Sync,
) -> Result<(Vec<Tree>, Vec<T>), StoreError> {
    let horizon = Circumstances {
        now: at.now.plus(within),
        ..at.clone()
    };
    let tables = Tables::new(index, &horizon);
    let mut taken = vec![false; index.dirs().table_len()];
    let among = DirectoryRule::among(rules);
    let found = units::evaluate(index, &among, &horizon, &tables, &mut taken)?;
    let tree = |pick: &Pick| {
        let dir = index.dirs().of_inode(pick.ino).unwrap_or(pick.parent);
        Some(Tree {
            ino: pick.ino,
            dir,
            uid: index.get(pick.ino).map_or(0, |(a, _)| a.uid),
            birth: pick.birth,
            due: *found.due.get(&dir)?,
        })
    };
    let trees: Vec<Tree> = found.picks.iter().filter_map(tree).collect();
    let with = match opens {
        true => inside(index, &found),
        false => Vec::new(),
    };
    let files = FilePass::new(index, rules, &horizon, &tables, &taken);
    let parts = match files.is_needed() || !with.is_empty() {
        true => files.fold(&with, each)?,
        false => Vec::new(),
    };
    Ok((trees, parts))
}

/// By directory: what goes as a whole and holds it, if something does. Of several the largest is meant, and the time of the first.
fn inside(index: &Index, found: &units::Units) -> Vec<Option<Going>> {
    let due = &found.due;
    if due.is_empty() {
        return Vec::new();
    }
    let dirs = index.dirs();
    dirs.inherit(None, |id, dir, above: Option<Going>| {
        let Some(due) = due.get(&id).copied() else {
            return above;
        };
        let uid = || index.get(dir.ino).map_or(0, |(a, _)| a.uid);
        Some(Going {
            due: above.map_or(due, |above| above.due.min(due)),
            uid: above.map_or_else(uid, |above| above.uid),
            rule: above.map_or_else(
                || found.taken_by.get(id.index()).copied().unwrap_or_default(),
                |above| above.rule,
            ),
        })
    })
}
