//! What expires soon if no process uses it: one by one, or one owner's by directory. Pure.

use rustc_hash::FxHashMap;

use super::circumstances::Circumstances;
use super::files::FilePass;
use super::pick::Pick;
use super::tables::{Tables, unit_table};

use super::last_use::expires_at;
use super::units::{self, DirectoryRule};
use crate::rule::{Rule, Target};
use purge_index::{Attributes, DirId, Index, StoreError};
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
}

/// Everything that a rule takes within `within` seconds, and from when on: files, and directories that go as a whole.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn expiring(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    within: u64,
) -> Result<FxHashMap<Inode, Seconds>, StoreError> {
    let mut all = FxHashMap::default();
    let each =
        |out: &mut Vec<(Inode, Seconds)>, ino: Inode, _: &Attributes, due: Seconds| out.push((ino, due));
    let (trees, parts) = pass(index, rules, at, within, each)?;
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
    let each =
        |out: &mut Vec<_>, ino: Inode, a: &Attributes, due: Seconds| out.push((ino, a.birth, last(due)));
    let (trees, parts) = pass(index, std::slice::from_ref(&unbound), at, rule.announce, each)?;
    let mut all: Vec<_> = trees
        .iter()
        .map(|tree| (tree.ino, tree.birth, last(tree.due)))
        .collect();
    parts.into_iter().for_each(|part| all.extend(part));
    Ok(all)
}

/// By directory at `depth`: what of `uid`'s files the rules take within `within` seconds. A directory that goes as a whole is
/// its owner's, with all that is in it.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn of_owner(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    within: u64,
    (uid, depth): (u32, u32),
) -> Result<FxHashMap<DirId, Share>, StoreError> {
    let units = unit_table(index, depth);
    let unit = |dir: DirId| units.get(dir.index()).copied().unwrap_or(DirId::ROOT);
    let add = |all: &mut FxHashMap<DirId, Share>, dir: DirId, more: Share| {
        let mine = all.entry(dir).or_insert(Share {
            files: 0,
            bytes: 0,
            first: more.first,
        });
        mine.files = mine.files.saturating_add(more.files);
        mine.bytes = mine.bytes.saturating_add(more.bytes);
        mine.first = mine.first.min(more.first);
    };
    let mut rules = rules.to_vec();
    for rule in rules.iter_mut().filter(|r| r.target == Target::File) {
        // No other user's files need be looked at.
        let is_theirs = rule.scope.users.as_ref().is_none_or(|users| users.contains(&uid));
        rule.scope.users = Some(if is_theirs { vec![uid] } else { Vec::new() });
    }
    let each = |out: &mut FxHashMap<DirId, Share>, _: Inode, a: &Attributes, due: Seconds| {
        let share = Share {
            files: 1,
            bytes: a.size.into(),
            first: due,
        };
        add(out, unit(a.parent), share);
    };
    let (trees, parts) = pass(index, &rules, at, within, each)?;
    let mut all = FxHashMap::default();
    for (dir, share) in parts.into_iter().flatten() {
        add(&mut all, dir, share);
    }
    for tree in trees.iter().filter(|tree| tree.uid == uid) {
        let share = Share {
            files: tree.files,
            bytes: tree.bytes.into(),
            first: tree.due,
        };
        add(&mut all, unit(tree.dir), share);
    }
    Ok(all)
}

/// A directory that goes as a whole.
pub(super) struct Tree {
    pub ino: Inode,
    pub dir: DirId,
    pub uid: u32,
    pub files: u64,
    pub bytes: u64,
    pub birth: Seconds,
    pub due: Seconds,
}

/// What `rules` take until `within` seconds from now: directories that go as a whole, and what `each` makes of every other file.
pub(super) fn pass<T: Default + Send>(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    within: u64,
    each: impl Fn(&mut T, Inode, &Attributes, Seconds) + Sync,
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
        let rule = among.iter().find(|r| r.number == pick.rule)?;
        let announced = at
            .announced
            .allows_from(rule.rule, pick.ino, pick.birth, pick.last.at);
        Some(Tree {
            ino: pick.ino,
            dir: index.dirs().of_inode(pick.ino).unwrap_or(pick.parent),
            uid: index.get(pick.ino).map_or(0, |(a, _)| a.uid),
            files: pick.files.into(),
            bytes: pick.bytes,
            birth: pick.birth,
            due: expires_at(pick.last.at, rule.ttl).max(announced),
        })
    };
    let trees = found.picks.iter().filter_map(tree).collect();
    let files = FilePass::new(index, rules, &horizon, &tables, &taken);
    let parts = match files.is_needed() {
        true => files.fold(each)?,
        false => Vec::new(),
    };
    Ok((trees, parts))
}
