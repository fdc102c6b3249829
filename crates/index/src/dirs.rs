//! The directories of a volume: dense ids, names and parents in memory, so that a path is rebuilt without the store
//! and a renamed directory is one changed record however much lies below it.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashSet};

use super::codec::{DirEntry, DirId, PAGE_INODES};
use purge_model::Inode;

/// An id rests until this number of others was freed after it: what still names a deleted directory must not find
/// another one in its place.
const RESTING_IDS: usize = 16_384;

/// Longer paths are not made: what lies there is known and counted, and is no candidate. The kernel takes 4,095 bytes in one call; a
/// chain of directories can be of any length, and to spell out each of its places would take the square of it.
pub const PATH_BYTES_MAX: usize = 32 << 10;
/// A path of this number of names is longer in any case.
const LEVELS_MAX: usize = PATH_BYTES_MAX / 2;

/// Most paths are shorter.
const PATH_USUAL: usize = 128;

/// Parents and names of all directories as they are at one moment: paths are made of them when the index has changed since.
#[derive(Debug)]
pub struct Tree {
    directories: Vec<Branch>,
    names: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Branch {
    parent: DirId,
    /// Where in the names its name begins; it ends where the next one's begins.
    begin: usize,
}

impl Tree {
    /// As [`Directories::path`]. Of a directory that there was not, it may be any.
    pub fn path(&self, id: DirId) -> Option<Vec<u8>> {
        path_by(id, |id| {
            let branch = self.directories.get(id.index())?;
            let next = self.directories.get(id.index().saturating_add(1));
            let end = next.map_or(self.names.len(), |next| next.begin);
            Some((self.names.get(branch.begin..end)?, branch.parent))
        })
    }
}

/// All directories of one volume.
#[derive(Debug, Default)]
pub struct Directories {
    slots: Vec<Option<Slot>>,
    /// Ids to be given out again, the longest free first.
    free: VecDeque<u32>,
    /// A scan runs: its workers hold ids, so none is given out again.
    keep_ids: bool,
    /// By the inode, which is looked up in its slot: there may be millions, and a map would hold each inode again.
    by_inode: HashTable<DirId>,
    /// Rows (64 slots each) that differ from the store.
    dirty: FxHashSet<u32>,
}

#[derive(Debug)]
struct Slot {
    entry: DirEntry,
    /// The scan that listed it last.
    listed_by: u32,
    /// Entries that have it as their (first) parent.
    children: u32,
}

/// Where the way from a directory towards the root ends.
enum Climb {
    Root,
    /// Where the caller wanted to know no more.
    Stopped,
    /// At a directory that is not known, or in a cycle.
    Nowhere,
    /// After more steps than any path has.
    Deep,
}

impl Directories {
    /// The directory with this inode.
    pub fn of_inode(&self, ino: Inode) -> Option<DirId> {
        let id = self.by_inode.find(hash_of(ino), has_inode(&self.slots, ino));
        id.copied()
    }

    /// What is known of a directory.
    pub fn get(&self, id: DirId) -> Option<&DirEntry> {
        self.slots.get(id.index())?.as_ref().map(|s| &s.entry)
    }

    /// How many there are, the root included.
    pub fn len(&self) -> usize {
        self.by_inode.len()
    }

    /// Whether not even the root is known.
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    /// One more than the highest id in use: the length of a table over directories.
    pub fn table_len(&self) -> usize {
        self.slots.len()
    }

    /// All directories, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (DirId, &DirEntry)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(i, s)| Some((id_of(i), &s.as_ref()?.entry)))
    }

    /// Adds a directory, or moves and renames the one with this inode. The root has an empty name and is its own
    /// parent; it must be added first.
    pub fn upsert(&mut self, ino: Inode, parent: DirId, name: &[u8]) -> DirId {
        if let Some(id) = self.of_inode(ino) {
            if let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::as_mut)
                && id != DirId::ROOT
                && (slot.entry.parent != parent || *slot.entry.name != *name)
            {
                slot.entry.parent = parent;
                slot.entry.name = name.into();
                self.touch(id);
            }
            return id;
        }
        let entry = DirEntry {
            ino,
            parent,
            name: name.into(),
            unreadable: false,
            has_mounts: false,
            crowded: false,
        };
        let slot = Some(Slot {
            entry,
            listed_by: 0,
            children: 0,
        });
        let id = self.unused_id();
        match self.slots.get_mut(id.index()) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.enter_inode(ino, id);
        self.touch(id);
        id
    }

    /// From now on the directory in slot `id` is the one with this inode.
    fn enter_inode(&mut self, ino: Inode, id: DirId) {
        let slots = &self.slots;
        match self.by_inode.find_mut(hash_of(ino), has_inode(slots, ino)) {
            Some(known) => *known = id,
            None => {
                let hash = |id: &DirId| {
                    let slot = slots.get(id.index()).and_then(Option::as_ref);
                    slot.map_or(0, |slot| hash_of(slot.entry.ino))
                };
                self.by_inode.insert_unique(hash_of(ino), id, hash);
            }
        }
    }

    fn unused_id(&mut self) -> DirId {
        let rested = !self.keep_ids && self.free.len() > RESTING_IDS;
        let again = if rested { self.free.pop_front() } else { None };
        again.map_or_else(|| id_of(self.slots.len()), DirId)
    }

    /// While a scan runs no id is given out a second time.
    pub(super) fn keep_ids(&mut self, keep: bool) {
        self.keep_ids = keep;
    }

    /// Forgets a directory. An entry that still names it as parent is unreachable until a scan finds it again.
    pub fn remove(&mut self, ino: Inode) -> Option<DirEntry> {
        let id = self.of_inode(ino).filter(|id| *id != DirId::ROOT)?;
        if let Ok(found) = self
            .by_inode
            .find_entry(hash_of(ino), has_inode(&self.slots, ino))
        {
            found.remove();
        }
        let slot = self.slots.get_mut(id.index())?.take()?;
        self.free.push_back(id.0);
        self.touch(id);
        Some(slot.entry)
    }

    /// Entries by directory: how many have it as their first parent. An entry with several names counts once.
    pub fn children_table(&self) -> Vec<u32> {
        self.slots
            .iter()
            .map(|s| s.as_ref().map_or(0, |s| s.children))
            .collect()
    }

    /// An entry was added to (or taken from) a directory.
    pub(super) fn count_child(&mut self, parent: DirId, added: bool) {
        if let Some(slot) = self.slots.get_mut(parent.index()).and_then(Option::as_mut) {
            slot.children = match added {
                true => slot.children.saturating_add(1),
                false => slot.children.saturating_sub(1),
            };
        }
    }

    /// Adds this number of entries to each directory.
    pub(super) fn count_children(&mut self, more: &[u32]) {
        for (slot, more) in self.slots.iter_mut().zip(more) {
            if let Some(slot) = slot {
                slot.children = slot.children.saturating_add(*more);
            }
        }
    }

    /// Notes what a listing found out.
    pub fn set_state(&mut self, id: DirId, unreadable: bool, has_mounts: bool) {
        if let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::as_mut)
            && (slot.entry.unreadable, slot.entry.has_mounts) != (unreadable, has_mounts)
        {
            slot.entry.unreadable = unreadable;
            slot.entry.has_mounts = has_mounts;
            self.touch(id);
        }
    }

    /// Notes whether a directory holds names that are not kept.
    pub(super) fn set_crowded(&mut self, id: DirId, crowded: bool) {
        if let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::as_mut)
            && slot.entry.crowded != crowded
        {
            slot.entry.crowded = crowded;
            self.touch(id);
        }
    }

    /// No directory but these holds names that are not kept.
    pub(super) fn keep_crowded(&mut self, still: impl Fn(DirId) -> bool) {
        let crowded = self.iter().filter(|(id, entry)| entry.crowded && !still(*id));
        let no_more: Vec<DirId> = crowded.map(|(id, _)| id).collect();
        no_more.into_iter().for_each(|id| self.set_crowded(id, false));
    }

    /// How many entries have a directory as their first parent.
    pub(super) fn children(&self, id: DirId) -> u32 {
        let slot = self.slots.get(id.index()).and_then(Option::as_ref);
        slot.map_or(0, |slot| slot.children)
    }

    /// Notes that scan number `scan` has listed the directory.
    pub fn set_listed(&mut self, id: DirId, scan: u32) {
        if let Some(slot) = self.slots.get_mut(id.index()).and_then(Option::as_mut) {
            slot.listed_by = scan;
        }
    }

    /// The scan that listed a directory last; 0 if none has since the agent started.
    pub fn listed_by(&self, id: DirId) -> Option<u32> {
        self.slots.get(id.index())?.as_ref().map(|s| s.listed_by)
    }

    /// The directories that scan number `scan` has not listed.
    pub fn not_listed_by(&self, scan: u32) -> Vec<DirId> {
        let missing =
            |(i, s): (usize, &Option<Slot>)| s.as_ref().filter(|s| s.listed_by != scan).map(|_| id_of(i));
        self.slots.iter().enumerate().filter_map(missing).collect()
    }

    /// The path of a directory relative to the volume, without a leading slash; empty for the root. None where an
    /// ancestor is missing, or if it would be longer than [`PATH_BYTES_MAX`].
    pub fn path(&self, id: DirId) -> Option<Vec<u8>> {
        self.get(DirId::ROOT)?;
        path_by(id, |id| {
            let entry = self.get(id)?;
            Some((&*entry.name, entry.parent))
        })
    }

    /// What paths are made of.
    pub fn tree(&self) -> Tree {
        let mut tree = Tree {
            directories: Vec::with_capacity(self.slots.len()),
            names: Vec::new(),
        };
        for slot in &self.slots {
            let entry = slot.as_ref().map(|slot| &slot.entry);
            tree.directories.push(Branch {
                parent: entry.map_or(DirId::ROOT, |entry| entry.parent),
                begin: tree.names.len(),
            });
            tree.names
                .extend_from_slice(entry.map_or(&[], |entry| &entry.name));
        }
        tree
    }

    /// For each directory, whether its path is longer than [`PATH_BYTES_MAX`].
    pub fn too_deep(&self) -> Vec<bool> {
        let lengths = self.inherit(0usize, |_, entry, above| {
            above.saturating_add(entry.name.len()).saturating_add(1)
        });
        // A slash for each name but the first.
        lengths.into_iter().map(|len| len > PATH_BYTES_MAX + 1).collect()
    }

    /// Whether this directory lies so deep that it has no path. One that does not lead to the root now is being moved, and has a path
    /// later: of two renames the index may know one and not yet the other.
    pub fn is_too_deep(&self, id: DirId) -> bool {
        match self.climb(id, |_| false) {
            Climb::Root => self.path(id).is_none(),
            Climb::Deep => true,
            Climb::Nowhere | Climb::Stopped => false,
        }
    }

    /// Whether `id` is `ancestor` or lies below it. A directory that does not lead to the root now lies below nothing: it must be movable
    /// to where it is. One that is too deep may lie anywhere.
    pub fn is_below(&self, id: DirId, ancestor: DirId) -> bool {
        matches!(
            self.climb(id, |above| above == ancestor),
            Climb::Stopped | Climb::Deep
        )
    }

    /// From `id` towards the root, until `stop`. Any user can make the way long, so it ends after [`LEVELS_MAX`] steps. A cycle ends it
    /// sooner (R. P. Brent, "An improved Monte Carlo factorization algorithm", BIT 20, 1980, section 2).
    fn climb(&self, id: DirId, mut stop: impl FnMut(DirId) -> bool) -> Climb {
        let (mut at, mut mark, mut next_mark) = (id, None, 1);
        for step in 0..=LEVELS_MAX {
            if stop(at) {
                return Climb::Stopped;
            }
            match self.get(at) {
                Some(_) if at == DirId::ROOT => return Climb::Root,
                Some(_) if mark == Some(at) => return Climb::Nowhere,
                Some(entry) => {
                    if step == next_mark {
                        (mark, next_mark) = (Some(at), 2 * step);
                    }
                    at = entry.parent;
                }
                None => return Climb::Nowhere,
            }
        }
        Climb::Deep
    }

    /// For each directory id, what `of` gives for the root, or for the directory with its parent's value.
    /// Directories that are not connected to the root keep `T::default()`.
    pub fn inherit<T: Copy + Default>(&self, root: T, of: impl Fn(DirId, &DirEntry, T) -> T) -> Vec<T> {
        let mut values: Vec<Option<T>> = vec![None; self.slots.len()];
        if let Some(first) = values.first_mut() {
            *first = Some(root);
        }
        let mut chain = Vec::new();
        for start in 0..self.slots.len() {
            let mut at = id_of(start);
            while values.get(at.index()).is_some_and(Option::is_none) && chain.len() <= self.slots.len() {
                let Some(entry) = self.get(at) else { break };
                chain.push((at, entry));
                at = entry.parent;
            }
            let mut value = values.get(at.index()).copied().flatten();
            for (id, entry) in chain.drain(..).rev() {
                value = value.map(|v| of(id, entry, v));
                if let Some(place) = values.get_mut(id.index()) {
                    *place = value;
                }
            }
        }
        values.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn touch(&mut self, id: DirId) {
        self.dirty.insert(id.0 / PAGE_INODES as u32);
    }

    /// Every row differs from the store.
    pub(super) fn touch_all(&mut self) {
        self.dirty.extend(
            (0..self.slots.len())
                .step_by(PAGE_INODES as usize)
                .map(|i| id_of(i).0 / PAGE_INODES as u32),
        );
    }

    /// Rows to write, and forgets that they were dirty.
    pub(super) fn take_dirty(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut rows: Vec<u32> = self.dirty.drain().collect();
        rows.sort_unstable();
        rows.into_iter().map(|row| (row, self.encode(row))).collect()
    }

    fn encode(&self, row: u32) -> Vec<u8> {
        let first = row as usize * PAGE_INODES as usize;
        let mut out = Vec::new();
        for slot in self.slots.iter().skip(first).take(PAGE_INODES as usize) {
            super::codec::put_dir(&mut out, slot.as_ref().map(|s| &s.entry));
        }
        out
    }

    /// Takes over a row of the store.
    pub(super) fn load(&mut self, row: u32, slots: Vec<Option<DirEntry>>) {
        let first = row as usize * PAGE_INODES as usize;
        if self.slots.len() < first + slots.len() {
            self.slots.resize_with(first + slots.len(), || None);
        }
        for (i, entry) in slots.into_iter().enumerate() {
            let id = id_of(first + i);
            if let Some(entry) = entry
                && let Some(place) = self.slots.get_mut(id.index())
            {
                let ino = entry.ino;
                *place = Some(Slot {
                    entry,
                    listed_by: 0,
                    children: 0,
                });
                self.enter_inode(ino, id);
            }
        }
    }

    /// To be called once after all rows were loaded: free slots can be used again.
    pub(super) fn loaded(&mut self) {
        let empty = self.slots.iter().enumerate().skip(1).filter(|(_, s)| s.is_none());
        self.free = empty.map(|(i, _)| id_of(i).0).collect();
    }
}

fn hash_of(ino: Inode) -> u64 {
    FxBuildHasher.hash_one(ino)
}

fn has_inode(slots: &[Option<Slot>], ino: Inode) -> impl Fn(&DirId) -> bool {
    move |id| matches!(slots.get(id.index()), Some(Some(slot)) if slot.entry.ino == ino)
}

/// The path that names and parents make, up to the root.
fn path_by<'a>(id: DirId, name_and_parent: impl Fn(DirId) -> Option<(&'a [u8], DirId)>) -> Option<Vec<u8>> {
    // From its end to its beginning, and turned round when the root is reached.
    let mut path = Vec::with_capacity(PATH_USUAL);
    let mut at = id;
    for _ in 0..=LEVELS_MAX {
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        if at == DirId::ROOT {
            path.reverse();
            return Some(path);
        }
        let (name, parent) = name_and_parent(at)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name.iter().rev());
        at = parent;
    }
    // Too long. A cycle, which the kernel does not make but damage can, is without end.
    None
}

/// There are fewer than 2^32 directories: their ids are given out here, one after another.
pub(super) fn id_of(index: usize) -> DirId {
    DirId(u32::try_from(index).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_renamed_directory_takes_everything_below_along() {
        let mut dirs = Directories::default();
        let root = dirs.upsert(2, DirId::ROOT, b"");
        let a = dirs.upsert(10, root, b"a");
        let b = dirs.upsert(11, a, b"b");
        assert_eq!(dirs.path(b).unwrap(), b"a/b");
        dirs.upsert(10, root, b"new");
        assert_eq!(dirs.path(b).unwrap(), b"new/b");
        assert!(dirs.is_below(b, a) && !dirs.is_below(a, b));
    }

    #[test]
    fn a_path_that_is_too_long_is_not_made() {
        let mut dirs = Directories::default();
        let root = dirs.upsert(2, DirId::ROOT, b"");
        let (mut at, mut all) = (root, Vec::new());
        for n in 0..40_000u64 {
            at = dirs.upsert(10 + n, at, b"d");
            all.push(at);
        }
        let (last, first) = (all[PATH_BYTES_MAX / 2 - 1], all[PATH_BYTES_MAX / 2]);
        let deep = dirs.too_deep();
        for (id, is_deep) in [(root, false), (last, false), (first, true), (at, true)] {
            assert_eq!(dirs.path(id).is_none(), is_deep);
            assert_eq!((dirs.is_too_deep(id), deep[id.index()]), (is_deep, is_deep));
        }
        assert!(dirs.is_below(all[5000], all[3]) && !dirs.is_below(all[3], all[5000]));
    }

    #[test]
    fn a_cycle_made_by_damage_has_no_path() {
        let mut dirs = Directories::default();
        dirs.upsert(2, DirId::ROOT, b"");
        let a = dirs.upsert(10, DirId(2), b"a");
        let b = dirs.upsert(11, a, b"b");
        assert_eq!(b, DirId(2));
        assert_eq!(dirs.path(a), None);
        assert!(!dirs.is_below(a, DirId::ROOT));
        assert!(
            !dirs.is_too_deep(a),
            "it is on the move, and a scan looks again where it is then"
        );
        assert_eq!(dirs.inherit(1u32, |_, _, v| v + 1), vec![1, 0, 0]);
    }

    proptest! {
        /// Paths equal those of a model that keeps whole paths, over random trees with renames.
        #[test]
        fn paths_equal_a_naive_model(parents in prop::collection::vec(any::<prop::sample::Index>(), 1..60), moves in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..20)) {
            let mut dirs = Directories::default();
            dirs.upsert(1, DirId::ROOT, b"");
            let mut parent_of = vec![0usize];
            let mut name_of = vec![String::new()];
            for (i, p) in parents.iter().enumerate() {
                let p = p.index(parent_of.len());
                let name = format!("n{i}");
                dirs.upsert(2 + i as u64, DirId(p as u32), name.as_bytes());
                parent_of.push(p);
                name_of.push(name);
            }
            for (k, (what, to)) in moves.iter().enumerate() {
                let (what, to) = (1 + what.index(parents.len()), to.index(parent_of.len()));
                if dirs.is_below(DirId(to as u32), DirId(what as u32)) {
                    continue;
                }
                let name = format!("m{k}");
                dirs.upsert(1 + what as u64, DirId(to as u32), name.as_bytes());
                parent_of[what] = to;
                name_of[what] = name;
            }
            let tree = dirs.tree();
            for i in 0..parent_of.len() {
                let mut model = Vec::new();
                let mut at = i;
                while at != 0 {
                    model.push(name_of[at].clone());
                    at = parent_of[at];
                }
                model.reverse();
                let model = model.join("/").into_bytes();
                prop_assert_eq!(tree.path(DirId(i as u32)).unwrap(), &*model);
                prop_assert_eq!(dirs.path(DirId(i as u32)).unwrap(), model);
            }
        }
    }
}
