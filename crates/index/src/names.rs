//! File names: kept in the store, page by page. Changed rows wait in memory until they are written back (`rows`).
//!
//! A file with more than a few names has a row of its own ([`RowKey::Inode`]), so that its names are no burden for its neighbours, and
//! at most [`NAMES_MAX`] names of one file are kept. Every change touches one row of bounded length.
//!
//! Names of what was removed stay in the store's page rows until the row is written for another reason: a purge would read and
//! write them all for nothing. So a row counts only as far as its page has entries, and who makes an entry sees to it that
//! no old name comes back to life with it. Rows that wait here have no such names. A row of an inode goes with its inode.

mod rows;

use std::sync::Arc;

use rustc_hash::FxHashMap;

pub(super) use self::rows::RowKey;
use self::rows::Rows;
use super::codec::{DirId, NameEntry, cut_name, names, put_name, unpack_names};
use super::page::{Page, place};
use super::store::{Store, StoreError, VolumeId};
use purge_format::Damaged;
use purge_model::Inode;

/// At most this number of names of one file is kept. A file that has more is never a candidate:
/// it is unknown where it is used.
pub const NAMES_MAX: usize = 512;
/// A file with more names than this has a row of its own.
const FEW: usize = 8;

/// The names of a volume's files.
#[derive(Debug)]
pub(super) struct Names {
    rows: Rows,
    /// Files that have a row of their own.
    crowded: FxHashMap<Inode, Crowd>,
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
            rows: Rows::new(store, volume),
            crowded: FxHashMap::default(),
        }
    }

    /// Bytes of names that are not yet in the store.
    pub fn pending_bytes(&self) -> usize {
        self.rows.changed_bytes()
    }

    /// Takes over a file's own row from the store. One that belongs to nothing is removed.
    pub fn load(&mut self, ino: Inode, row: &[u8], is_file: bool) -> Result<(), Damaged> {
        if is_file {
            let count = names(&unpack_names(row)?).count();
            let has_more = count >= NAMES_MAX;
            self.crowded.insert(ino, Crowd { has_more, full: None });
        } else {
            self.rows.set(RowKey::Inode(ino), Vec::new());
        }
        Ok(())
    }

    /// Whether the file has names that are not kept.
    pub fn has_more(&self, ino: Inode) -> bool {
        self.crowded.get(&ino).is_some_and(|crowd| crowd.has_more)
    }

    /// Calls `each` with every name of the page.
    pub fn of_page(&self, page: &Page, mut each: impl FnMut(NameEntry<'_>)) -> Result<(), StoreError> {
        let row = self.rows.of_page(page)?;
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
            let row = self.rows.of_inode(ino)?;
            names(&row).try_for_each(|e| e.map(&mut each))?;
        }
        Ok(())
    }

    /// The names of one inode: its directories and names there.
    pub fn of_inode(&self, page: &Page, ino: Inode) -> Result<Vec<(DirId, Vec<u8>)>, StoreError> {
        let (_, offset) = place(ino);
        let row = match self.crowded.contains_key(&ino) {
            true => self.rows.of_inode(ino)?,
            false => self.rows.of_page(page)?,
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
        self.rows.change(page, key, |row| cut_name(row, entry))?;
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
            self.rows.remove(ino);
        }
    }

    /// Forgets the names of entries that the page does not have any more.
    pub fn removed(&mut self, page: &Page) {
        self.rows.removed(page);
    }

    /// A directory, which has no name here, gets an entry at `offset`, where a file may have been.
    pub fn make_way(&mut self, page: &Page, offset: u8) -> Result<(), StoreError> {
        self.rows.make_way(page, offset)
    }

    /// The changed rows, to be written to the store. Until [`Names::committed`] they are still answered from here.
    pub fn start_commit(&mut self) -> Arc<FxHashMap<RowKey, Vec<u8>>> {
        self.rows.start_commit()
    }

    /// The store holds the rows (or not: then they are changed still).
    pub fn committed(&mut self, written: bool) {
        self.rows.committed(written);
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
        let row = self.rows.look(page, key)?;
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

    fn make_only(&mut self, page: &Page, ino: Inode, entry: NameEntry<'_>) -> Result<(), StoreError> {
        self.forget(ino);
        let key = RowKey::Page(page.number);
        let sight = self.look(page, key, entry)?;
        if sight.has && sight.count == 1 {
            return Ok(());
        }
        self.rows.change(page, key, |row| {
            let old = std::mem::take(row);
            for other in names(&old).filter_map(Result::ok) {
                if other.offset != entry.offset {
                    put_name(row, other);
                }
            }
            put_name(row, entry);
        })
    }

    /// Gives a file a row of its own, with the names that it has. An older row of a page may hold more than are kept.
    fn set_apart(&mut self, page: &Page, ino: Inode) -> Result<RowKey, StoreError> {
        let (_, offset) = place(ino);
        let (mut own, mut count) = (Vec::new(), 0usize);
        self.rows.change(page, RowKey::Page(page.number), |row| {
            let old = std::mem::take(row);
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
        })?;
        let has_more = count > NAMES_MAX;
        self.crowded.insert(ino, Crowd { has_more, full: None });
        let key = RowKey::Inode(ino);
        self.rows.set(key, own);
        Ok(key)
    }

    fn append(&mut self, page: &Page, key: RowKey, entry: NameEntry<'_>) -> Result<(), StoreError> {
        self.rows.change(page, key, |row| put_name(row, entry))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::pack_names;
    use crate::store::{Batch, Row};
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
    fn of_tens_of_thousands_of_names_some_are_kept_and_the_file_outlives_them() {
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
