//! File names: kept in the store, page by page. Changed pages wait here until they are written back.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::codec::{DirId, NameEntry, names, put_name, unpack_names};
use super::page::{Page, place};
use super::store::{Row, Store, StoreError, VolumeId};
use crate::model::Inode;

#[derive(Debug)]
pub(super) struct Names {
    store: Store,
    volume: VolumeId,
    /// Whole rows of the pages whose names have changed.
    changed: FxHashMap<u64, Vec<u8>>,
    changed_bytes: usize,
    /// Rows that are on their way to the store: newer than what it holds.
    committing: Arc<FxHashMap<u64, Vec<u8>>>,
}

impl Names {
    pub fn new(store: Store, volume: VolumeId) -> Self {
        Self {
            store,
            volume,
            changed: FxHashMap::default(),
            changed_bytes: 0,
            committing: Arc::default(),
        }
    }

    /// Bytes of names that are not yet in the store.
    pub fn pending_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Calls `each` with every name of the page.
    pub fn of_page(&self, number: u64, mut each: impl FnMut(NameEntry<'_>)) -> Result<(), StoreError> {
        if let Some(row) = self.changed.get(&number).or_else(|| self.committing.get(&number)) {
            names(row).try_for_each(|e| e.map(&mut each))?;
        } else if let Some(row) = self.store.row(Row::Names, self.volume, number)? {
            let row = unpack_names(&row)?;
            names(&row).try_for_each(|e| e.map(&mut each))?;
        }
        Ok(())
    }

    /// The names of one inode: its directories and names there.
    pub fn of_inode(&self, ino: Inode) -> Result<Vec<(DirId, Vec<u8>)>, StoreError> {
        let (number, offset) = place(ino);
        let mut found = Vec::new();
        self.of_page(number, |e| {
            if e.offset == offset {
                found.push((e.parent, e.name.to_vec()));
            }
        })?;
        Ok(found)
    }

    /// Adds a name to an inode that has none yet.
    pub fn add_first(
        &mut self,
        page: &Page,
        ino: Inode,
        parent: DirId,
        name: &[u8],
    ) -> Result<(), StoreError> {
        let (_, offset) = place(ino);
        let row = self.row_of(page)?;
        let before = row.len();
        put_name(row, NameEntry { offset, parent, name });
        self.changed_bytes += row.len() - before;
        Ok(())
    }

    /// Replaces the names of an inode by what `edit` makes of them. A page whose names stay as they were is not
    /// written back.
    pub fn edit(
        &mut self,
        page: &Page,
        ino: Inode,
        edit: impl FnOnce(&mut Vec<(DirId, Vec<u8>)>),
    ) -> Result<(), StoreError> {
        let (_, offset) = place(ino);
        let before = self.of_inode(ino)?;
        let mut after = before.clone();
        edit(&mut after);
        if after == before {
            return Ok(());
        }
        let row = self.row_of(page)?;
        let old = std::mem::take(row);
        for entry in names(&old).filter_map(Result::ok).filter(|e| e.offset != offset) {
            put_name(row, entry);
        }
        for (parent, name) in &after {
            put_name(
                row,
                NameEntry {
                    offset,
                    parent: *parent,
                    name,
                },
            );
        }
        let after = row.len();
        self.changed_bytes = self.changed_bytes.saturating_sub(old.len()) + after;
        Ok(())
    }

    /// Forgets the names of all offsets in `gone` (a bit each).
    pub fn remove(&mut self, page: &Page, gone: u64) -> Result<(), StoreError> {
        let row = self.row_of(page)?;
        let old = std::mem::take(row);
        for entry in names(&old)
            .filter_map(Result::ok)
            .filter(|e| gone & (1 << e.offset) == 0)
        {
            put_name(row, entry);
        }
        let after = row.len();
        self.changed_bytes = self.changed_bytes.saturating_sub(old.len()) + after;
        Ok(())
    }

    /// The changed rows, to be written to the store. Until [`Names::committed`] they are still answered from here.
    pub fn start_commit(&mut self) -> Arc<FxHashMap<u64, Vec<u8>>> {
        self.changed_bytes = 0;
        self.committing = Arc::new(std::mem::take(&mut self.changed));
        Arc::clone(&self.committing)
    }

    /// The store holds the rows (or not: then they are changed still).
    pub fn committed(&mut self, written: bool) {
        let rows = std::mem::take(&mut self.committing);
        if !written {
            for (number, row) in rows.iter() {
                self.changed.entry(*number).or_insert_with(|| row.clone());
            }
            self.changed_bytes = self.changed.values().map(Vec::len).sum();
        }
    }

    fn row_of(&mut self, page: &Page) -> Result<&mut Vec<u8>, StoreError> {
        use std::collections::hash_map::Entry;
        match self.changed.entry(page.number) {
            Entry::Occupied(row) => Ok(row.into_mut()),
            Entry::Vacant(place) => {
                let row = match self.committing.get(&page.number) {
                    Some(row) => row.clone(),
                    None if page.names_stored => {
                        let stored = self.store.row(Row::Names, self.volume, page.number)?;
                        stored.map_or(Ok(Vec::new()), |row| unpack_names(&row))?
                    }
                    None => Vec::new(),
                };
                self.changed_bytes += row.len();
                Ok(place.insert(row))
            }
        }
    }
}
