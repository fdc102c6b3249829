//! File names: kept in the store, page by page. Changed rows wait here until they are written back.
//!
//! A file with more than a few names has a row of its own ([`RowKey::Inode`]), so that its names are no burden for its neighbours, and
//! at most [`NAMES_MAX`] names of one file are kept. Every change touches one row of bounded length.
//!
//! Names of what was removed stay in the store's page rows until the row is written for another reason: a purge would read and
//! write them all for nothing. So a row counts only as far as its page has entries, and who makes an entry sees to it that
//! no old name comes back to life with it. Rows that wait here have no such names. A row of an inode goes with its inode.

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::codec::{DirId, NameEntry, cut_name, names, put_name, unpack_names};
use super::page::{Page, place};
use super::store::{Row, Store, StoreError, VolumeId};
use purge_format::Damaged;
use purge_model::Inode;

/// At most this number of names of one file is kept. A file that has more is never a candidate:
/// it is unknown where it is used.
pub const NAMES_MAX: usize = 512;
/// A file with more names than this has a row of its own.
const FEW: usize = 8;
/// Rows of inodes that are remembered beside the store while they do not change: some megabytes.
const LOOKED_AT_MAX: usize = 32;

/// Which row of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RowKey {
    /// Of the files of a page.
    Page(u64),
    /// Of one file.
    Inode(Inode),
}

#[derive(Debug)]
pub(super) struct Names {
    store: Store,
    volume: VolumeId,
    /// Whole rows that have changed.
    changed: FxHashMap<RowKey, Vec<u8>>,
    changed_bytes: usize,
    /// Rows that are on their way to the store: newer than what it holds.
    committing: Arc<FxHashMap<RowKey, Vec<u8>>>,
    /// Files that have a row of their own.
    crowded: FxHashMap<Inode, Crowd>,
    /// Rows of such files as they are in the store: events of one file come in runs.
    looked_at: FxHashMap<Inode, Vec<u8>>,
}

/// What is known of a file's own row without reading it.
#[derive(Debug, Clone, Copy, Default)]
struct Crowd {
    /// Names were left out of it.
    has_more: bool,
    /// It is full, and this is the directory of the first name in it: no name is kept, and none need be looked for.
    full: Option<DirId>,
}

/// What became of a name that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    /// The directory of the file's first name.
    pub first: DirId,
    /// The file has too many names: this one is not kept.
    pub left_out: bool,
}

/// What became of a name that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    /// It was there.
    pub was_there: bool,
    /// The directory of the first name that is left.
    pub first: Option<DirId>,
    /// The file has names that are not kept.
    pub has_more: bool,
}

/// What a row says of one file.
struct Sight {
    count: usize,
    first: Option<DirId>,
    has: bool,
}

impl Names {
    pub fn new(store: Store, volume: VolumeId) -> Self {
        Self {
            store,
            volume,
            changed: FxHashMap::default(),
            changed_bytes: 0,
            committing: Arc::default(),
            crowded: FxHashMap::default(),
            looked_at: FxHashMap::default(),
        }
    }

    /// Bytes of names that are not yet in the store.
    pub fn pending_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Takes over a file's own row from the store. One that belongs to nothing is removed.
    pub fn load(&mut self, ino: Inode, row: &[u8], is_file: bool) -> Result<(), Damaged> {
        if is_file {
            let count = names(&unpack_names(row)?).count();
            let has_more = count >= NAMES_MAX;
            self.crowded.insert(ino, Crowd { has_more, full: None });
        } else {
            self.changed.insert(RowKey::Inode(ino), Vec::new());
        }
        Ok(())
    }

    /// Whether the file has names that are not kept.
    pub fn has_more(&self, ino: Inode) -> bool {
        self.crowded.get(&ino).is_some_and(|crowd| crowd.has_more)
    }

    /// Calls `each` with every name of the page.
    pub fn of_page(&self, page: &Page, mut each: impl FnMut(NameEntry<'_>)) -> Result<(), StoreError> {
        let row = self.page_row(page)?;
        for entry in names(&row) {
            let entry = entry?;
            if page.rank(entry.offset).is_some() {
                each(entry);
            }
        }
        if self.crowded.is_empty() {
            return Ok(());
        }
        for ino in page.inodes().filter(|ino| self.crowded.contains_key(ino)) {
            let row = self.row(RowKey::Inode(ino))?;
            names(&row).try_for_each(|e| e.map(&mut each))?;
        }
        Ok(())
    }

    /// The names of one inode: its directories and names there.
    pub fn of_inode(&self, page: &Page, ino: Inode) -> Result<Vec<(DirId, Vec<u8>)>, StoreError> {
        let (_, offset) = place(ino);
        let row = match self.crowded.contains_key(&ino) {
            true => self.row(RowKey::Inode(ino))?,
            false => self.page_row(page)?,
        };
        let mut found = Vec::new();
        for entry in names(&row) {
            let entry = entry?;
            if entry.offset == offset && page.rank(offset).is_some() && found.len() < NAMES_MAX {
                found.push((entry.parent, entry.name.to_vec()));
            }
        }
        Ok(found)
    }

    /// Adds a name to an inode that has no entry yet.
    pub fn add_first(
        &mut self,
        page: &Page,
        ino: Inode,
        parent: DirId,
        name: &[u8],
    ) -> Result<(), StoreError> {
        let (_, offset) = place(ino);
        self.forget(ino);
        self.append(
            page,
            RowKey::Page(page.number),
            NameEntry { offset, parent, name },
        )
    }

    /// Adds a name to a file, or makes it its only one. Where nothing changes, nothing is written back.
    pub fn add(
        &mut self,
        page: &Page,
        ino: Inode,
        (parent, name): (DirId, &[u8]),
        is_only: bool,
    ) -> Result<Added, StoreError> {
        let (_, offset) = place(ino);
        let entry = NameEntry { offset, parent, name };
        if is_only {
            self.make_only(page, ino, entry)?;
            return Ok(Added {
                first: parent,
                left_out: false,
            });
        }
        if let Some(first) = self.crowded.get(&ino).and_then(|crowd| crowd.full) {
            return Ok(Added {
                first,
                left_out: true,
            });
        }
        let key = self.key_of(page, ino);
        let sight = self.look(page, key, entry)?;
        let first = sight.first.unwrap_or(parent);
        if sight.has {
            return Ok(Added {
                first,
                left_out: false,
            });
        }
        let key = match key {
            RowKey::Page(_) if sight.count >= FEW => self.set_apart(page, ino)?,
            key => key,
        };
        if sight.count >= NAMES_MAX {
            let full = Some(first);
            self.crowded.insert(ino, Crowd { has_more: true, full });
            return Ok(Added {
                first,
                left_out: true,
            });
        }
        self.append(page, key, entry)?;
        Ok(Added {
            first,
            left_out: false,
        })
    }

    /// Removes a name of a file.
    pub fn remove(
        &mut self,
        page: &Page,
        ino: Inode,
        (parent, name): (DirId, &[u8]),
    ) -> Result<Removed, StoreError> {
        let (_, offset) = place(ino);
        let entry = NameEntry { offset, parent, name };
        let key = self.key_of(page, ino);
        let has_more = self.has_more(ino);
        let before = self.look(page, key, entry)?;
        if !before.has {
            return Ok(Removed {
                was_there: false,
                first: before.first,
                has_more,
            });
        }
        if let Some(crowd) = self.crowded.get_mut(&ino) {
            crowd.full = None;
        }
        let row = self.row_of(page, key)?;
        let removed = cut_name(row, entry);
        self.changed_bytes = self.changed_bytes.saturating_sub(removed);
        let left = self.look(page, key, entry)?;
        Ok(Removed {
            was_there: true,
            first: left.first,
            has_more,
        })
    }

    /// An inode is no more: its own row goes, if it has one.
    pub fn forget(&mut self, ino: Inode) {
        if self.crowded.remove(&ino).is_some() {
            self.looked_at.remove(&ino);
            self.set_row(RowKey::Inode(ino), Vec::new());
        }
    }

    /// Forgets the names of entries that the page does not have any more.
    pub fn removed(&mut self, page: &Page) {
        let key = RowKey::Page(page.number);
        if let Some(row) = self.changed.get_mut(&key) {
            let before = row.len();
            *row = of_entries(page, row);
            self.changed_bytes = self.changed_bytes.saturating_sub(before) + row.len();
        } else if page.present == 0 {
            self.changed.insert(key, Vec::new());
        }
    }

    /// A directory, which has no name here, gets an entry at `offset`, where a file may have been.
    pub fn make_way(&mut self, page: &Page, offset: u8) -> Result<(), StoreError> {
        let key = RowKey::Page(page.number);
        if self.changed.contains_key(&key) {
            return Ok(());
        }
        let row = self.page_row(page)?;
        if names(&row).any(|e| e.is_ok_and(|e| e.offset == offset)) {
            self.row_of(page, key)?;
        }
        Ok(())
    }

    /// The changed rows, to be written to the store. Until [`Names::committed`] they are still answered from here.
    pub fn start_commit(&mut self) -> Arc<FxHashMap<RowKey, Vec<u8>>> {
        self.changed_bytes = 0;
        self.looked_at = FxHashMap::default();
        self.committing = Arc::new(std::mem::take(&mut self.changed));
        Arc::clone(&self.committing)
    }

    /// The store holds the rows (or not: then they are changed still).
    pub fn committed(&mut self, written: bool) {
        let rows = std::mem::take(&mut self.committing);
        if !written {
            for (key, row) in rows.iter() {
                self.changed.entry(*key).or_insert_with(|| row.clone());
            }
            self.changed_bytes = self.changed.values().map(Vec::len).sum();
        }
    }

    /// Where the names of an inode are.
    fn key_of(&self, page: &Page, ino: Inode) -> RowKey {
        match self.crowded.contains_key(&ino) {
            true => RowKey::Inode(ino),
            false => RowKey::Page(page.number),
        }
    }

    /// What a row says of the file of `entry`, and whether it has just that name.
    fn look(&mut self, page: &Page, key: RowKey, entry: NameEntry<'_>) -> Result<Sight, StoreError> {
        self.keep_at_hand(key)?;
        let kept = match key {
            RowKey::Inode(ino) if !self.changed.contains_key(&key) => self.looked_at.get(&ino),
            _ => None,
        };
        let row = match (kept, key) {
            (Some(row), _) => Cow::Borrowed(row.as_slice()),
            (None, RowKey::Page(_)) => self.page_row(page)?,
            (None, RowKey::Inode(_)) => self.row(key)?,
        };
        let mut sight = Sight {
            count: 0,
            first: None,
            has: false,
        };
        for other in names(&row) {
            let other = other?;
            if other.offset == entry.offset {
                sight.count += 1;
                sight.first.get_or_insert(other.parent);
                sight.has |= other == entry;
            }
        }
        Ok(sight)
    }

    /// A row that is only looked at is read from the store once in a while.
    fn keep_at_hand(&mut self, key: RowKey) -> Result<(), StoreError> {
        let RowKey::Inode(ino) = key else { return Ok(()) };
        if self.changed.contains_key(&key) || self.looked_at.contains_key(&ino) {
            return Ok(());
        }
        let row = self.row(key)?.into_owned();
        if self.looked_at.len() >= LOOKED_AT_MAX {
            self.looked_at.clear();
        }
        self.looked_at.insert(ino, row);
        Ok(())
    }

    fn make_only(&mut self, page: &Page, ino: Inode, entry: NameEntry<'_>) -> Result<(), StoreError> {
        self.forget(ino);
        let key = RowKey::Page(page.number);
        let sight = self.look(page, key, entry)?;
        if sight.has && sight.count == 1 {
            return Ok(());
        }
        let row = self.row_of(page, key)?;
        let old = std::mem::take(row);
        for other in names(&old).filter_map(Result::ok) {
            if other.offset != entry.offset {
                put_name(row, other);
            }
        }
        put_name(row, entry);
        let after = row.len();
        self.changed_bytes = self.changed_bytes.saturating_sub(old.len()) + after;
        Ok(())
    }

    /// Gives a file a row of its own, with the names that it has. An older row of a page may hold more than are kept.
    fn set_apart(&mut self, page: &Page, ino: Inode) -> Result<RowKey, StoreError> {
        let (_, offset) = place(ino);
        let row = self.row_of(page, RowKey::Page(page.number))?;
        let old = std::mem::take(row);
        let (mut own, mut count) = (Vec::new(), 0usize);
        for entry in names(&old).filter_map(Result::ok) {
            if entry.offset != offset {
                put_name(row, entry);
                continue;
            }
            count += 1;
            if count <= NAMES_MAX {
                put_name(&mut own, entry);
            }
        }
        let after = row.len();
        self.changed_bytes = self.changed_bytes.saturating_sub(old.len()) + after;
        let has_more = count > NAMES_MAX;
        self.crowded.insert(ino, Crowd { has_more, full: None });
        let key = RowKey::Inode(ino);
        self.set_row(key, own);
        Ok(key)
    }

    fn append(&mut self, page: &Page, key: RowKey, entry: NameEntry<'_>) -> Result<(), StoreError> {
        let row = self.row_of(page, key)?;
        let before = row.len();
        put_name(row, entry);
        let more = row.len() - before;
        self.changed_bytes += more;
        Ok(())
    }

    fn set_row(&mut self, key: RowKey, row: Vec<u8>) {
        self.changed_bytes += row.len();
        if let Some(before) = self.changed.insert(key, row) {
            self.changed_bytes = self.changed_bytes.saturating_sub(before.len());
        }
    }

    fn page_row(&self, page: &Page) -> Result<Cow<'_, [u8]>, StoreError> {
        let key = RowKey::Page(page.number);
        match page.names_stored || self.changed.contains_key(&key) || self.committing.contains_key(&key) {
            true => self.row(key),
            false => Ok(Cow::Borrowed(&[])),
        }
    }

    /// A row as it is now.
    fn row(&self, key: RowKey) -> Result<Cow<'_, [u8]>, StoreError> {
        if let Some(row) = self.changed.get(&key).or_else(|| self.committing.get(&key)) {
            return Ok(Cow::Borrowed(row));
        }
        let (row, number) = match key {
            RowKey::Page(number) => (Row::Names, number),
            RowKey::Inode(ino) => (Row::Links, ino),
        };
        let stored = self.store.row(row, self.volume, number)?;
        Ok(stored.map_or(Ok(Vec::new()), |row| unpack_names(&row))?.into())
    }

    /// A row that is going to change.
    fn row_of(&mut self, page: &Page, key: RowKey) -> Result<&mut Vec<u8>, StoreError> {
        if !self.changed.contains_key(&key) {
            let row = match key {
                RowKey::Page(_) => of_entries(page, &self.page_row(page)?),
                RowKey::Inode(ino) => match self.looked_at.remove(&ino) {
                    Some(row) => row,
                    None => self.row(key)?.into_owned(),
                },
            };
            self.set_row(key, row);
        }
        Ok(self.changed.entry(key).or_default())
    }
}

/// What of a row belongs to entries that the page has.
fn of_entries(page: &Page, row: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(row.len());
    for entry in names(row).filter_map(Result::ok) {
        if page.rank(entry.offset).is_some() {
            put_name(&mut all, entry);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::pack_names;
    use crate::store::Batch;
    use crate::testing::{empty, found};
    use crate::{Found, Index};

    const FILE: Inode = 70;

    fn linked(name: &[u8], links: u32) -> Found<'_> {
        let mut one = found(FILE, 1, name);
        one.stat.links = links;
        one
    }

    fn save(index: &mut Index) {
        index.start_write_back(true).commit().unwrap();
        index.written_back(true);
    }

    fn named(index: &Index, ino: Inode) -> BTreeSet<Vec<u8>> {
        index
            .names(ino)
            .unwrap()
            .into_iter()
            .map(|(_, name)| name)
            .collect()
    }

    #[test]
    fn of_tens_of_thousands_of_names_so_many_are_kept_and_the_file_outlives_them() {
        let (store, mut index) = empty();
        index.upsert(found(71, 1, b"neighbour")).unwrap();
        let name = |n: u32| format!("l{n}").into_bytes();
        for n in 1..=60_000 {
            index.upsert(linked(&name(n), n)).unwrap();
            if n % 20_000 == 0 {
                save(&mut index);
            }
        }
        assert_eq!(named(&index, FILE).len(), NAMES_MAX);
        assert!(index.has_more_names(FILE) && index.dirs().get(DirId::ROOT).unwrap().crowded);
        assert_eq!(index.get(FILE).unwrap().0.links, 60_000);
        let mut of_page = 0;
        index.names_of_page(1, |_, _, _| of_page += 1).unwrap();
        assert_eq!(of_page, NAMES_MAX + 1);
        // Those that are kept go: it is still there, at an unknown place.
        for n in 1..=60_000 {
            index.remove_name(FILE, DirId::ROOT, &name(n)).unwrap();
        }
        assert!(named(&index, FILE).is_empty() && index.get(FILE).is_some());
        assert_eq!(index.totals().files, 2);
        save(&mut index);
        let index = Index::load(store, VolumeId(1)).unwrap();
        assert_eq!(named(&index, 71), BTreeSet::from([b"neighbour".to_vec()]));
    }

    #[test]
    fn a_row_of_all_names_in_one_is_still_read_and_made_smaller() {
        let (store, mut index) = empty();
        index.upsert(linked(b"n0", 3000)).unwrap();
        index.upsert(found(71, 1, b"neighbour")).unwrap();
        save(&mut index);
        let mut row = Vec::new();
        for n in 0..3000 {
            let name = format!("n{n}").into_bytes();
            put_name(
                &mut row,
                NameEntry {
                    offset: 6,
                    parent: DirId::ROOT,
                    name: &name,
                },
            );
        }
        put_name(
            &mut row,
            NameEntry {
                offset: 7,
                parent: DirId::ROOT,
                name: b"neighbour",
            },
        );
        let mut batch = Batch::default();
        batch.put_row(Row::Names, VolumeId(1), 1, &pack_names(&row));
        store.apply(batch).unwrap();
        let mut index = Index::load(store.clone(), VolumeId(1)).unwrap();
        assert_eq!(named(&index, FILE).len(), NAMES_MAX);
        index.upsert(linked(b"new", 3001)).unwrap();
        assert_eq!(named(&index, FILE).len(), NAMES_MAX);
        index.remove_name(FILE, DirId::ROOT, b"n1").unwrap();
        save(&mut index);
        let index = Index::load(store, VolumeId(1)).unwrap();
        assert_eq!(named(&index, 71), BTreeSet::from([b"neighbour".to_vec()]));
        assert!(named(&index, FILE).len() >= NAMES_MAX - 1);
        assert!(index.has_more_names(FILE) || index.get(FILE).unwrap().0.links as usize > NAMES_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Names come and go, files come again with the same inode, the store is loaded in between: what is kept is what a set holds.
        #[test]
        fn names_are_those_of_a_set(
            steps in prop::collection::vec((0u8..10, 0u64..3, 0u32..24, 0u8..6), 0..120)
        ) {
            let (store, mut index) = empty();
            let mut model: Vec<BTreeSet<Vec<u8>>> = vec![BTreeSet::new(); 3];
            for (what, file, n, then) in steps {
                let (ino, name) = (FILE + file, format!("x{n}").into_bytes());
                let known = &mut model[file as usize];
                match what {
                    0..=5 => {
                        let mut one = found(ino, 1, &name);
                        one.stat.links = 30;
                        index.upsert(one).unwrap();
                        known.insert(name);
                    }
                    6..=7 => {
                        index.remove_name(ino, DirId::ROOT, &name).unwrap();
                        known.remove(&name);
                    }
                    8 => {
                        index.upsert(found(ino, 1, &name)).unwrap();
                        *known = BTreeSet::from([name]);
                    }
                    _ => {
                        index.remove(&[ino]).unwrap();
                        known.clear();
                    }
                }
                match then {
                    0 => save(&mut index),
                    1 => {
                        drop(index.start_write_back(true));
                        index.written_back(false);
                    }
                    2 => {
                        save(&mut index);
                        index = Index::load(store.clone(), VolumeId(1)).unwrap();
                    }
                    _ => {}
                }
                for (file, known) in (0u64..).zip(&model) {
                    prop_assert_eq!(&named(&index, FILE + file), known);
                }
                let mut of_page = 0;
                index.names_of_page(1, |_, _, _| of_page += 1).unwrap();
                prop_assert_eq!(of_page, model.iter().map(BTreeSet::len).sum::<usize>());
            }
        }
    }
}
