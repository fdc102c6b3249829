//! File names: kept in the store, page by page. Changed pages wait here until they are written back.
//!
//! Names of what was removed stay in the store's rows until the row is written for another reason: a purge would read and
//! write them all for nothing. So a row counts only as far as its page has entries, and who makes an entry sees to it that
//! no old name comes back to life with it. Rows that wait here have no such names.

use std::borrow::Cow;
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
    pub fn of_page(&self, page: &Page, mut each: impl FnMut(NameEntry<'_>)) -> Result<(), StoreError> {
        let row = match self.changed.get(&page.number) {
            Some(row) => Cow::Borrowed(row.as_slice()),
            None => self.unchanged(page)?,
        };
        let mut counts = names(&row).filter(|e| e.as_ref().map_or(true, |e| page.rank(e.offset).is_some()));
        Ok(counts.try_for_each(|e| e.map(&mut each))?)
    }

    /// The names of one inode: its directories and names there.
    pub fn of_inode(&self, page: &Page, ino: Inode) -> Result<Vec<(DirId, Vec<u8>)>, StoreError> {
        let (_, offset) = place(ino);
        let mut found = Vec::new();
        self.of_page(page, |e| {
            if e.offset == offset {
                found.push((e.parent, e.name.to_vec()));
            }
        })?;
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
        let before = self.of_inode(page, ino)?;
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

    /// Forgets the names of entries that the page does not have any more.
    pub fn removed(&mut self, page: &Page) {
        if let Some(row) = self.changed.get_mut(&page.number) {
            let before = row.len();
            *row = of_entries(page, row);
            self.changed_bytes = self.changed_bytes.saturating_sub(before) + row.len();
        } else if page.present == 0 {
            self.changed.insert(page.number, Vec::new());
        }
    }

    /// A directory, which has no name here, gets an entry at `offset`, where a file may have been.
    pub fn make_way(&mut self, page: &Page, offset: u8) -> Result<(), StoreError> {
        if self.changed.contains_key(&page.number) {
            return Ok(());
        }
        let row = self.unchanged(page)?;
        if names(&row).any(|e| e.is_ok_and(|e| e.offset == offset)) {
            self.row_of(page)?;
        }
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

    /// The row of a page whose names have not changed since it was written, or began to be.
    fn unchanged(&self, page: &Page) -> Result<Cow<'_, [u8]>, StoreError> {
        if let Some(row) = self.committing.get(&page.number) {
            return Ok(Cow::Borrowed(row));
        }
        if !page.names_stored {
            return Ok(Cow::Borrowed(&[]));
        }
        let stored = self.store.row(Row::Names, self.volume, page.number)?;
        Ok(stored.map_or(Ok(Vec::new()), |row| unpack_names(&row))?.into())
    }

    fn row_of(&mut self, page: &Page) -> Result<&mut Vec<u8>, StoreError> {
        if !self.changed.contains_key(&page.number) {
            let row = of_entries(page, &self.unchanged(page)?);
            self.changed_bytes += row.len();
            self.changed.insert(page.number, row);
        }
        Ok(self.changed.entry(page.number).or_default())
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
