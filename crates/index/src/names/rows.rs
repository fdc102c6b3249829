//! Rows of names: read from the store, changed here, and written back together.

use std::borrow::Cow;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::codec::{names, put_name, unpack_names};
use crate::page::Page;
use crate::store::{Row, Store, StoreError, VolumeId};
use purge_model::Inode;

/// Rows of inodes that are remembered beside the store while they do not change: some megabytes.
const LOOKED_AT_MAX: usize = 32;

/// Which row of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RowKey {
    /// Of the files of a page.
    Page(u64),
    /// Of one file.
    Inode(Inode),
}

/// All rows of a volume: those that changed are here, the others in the store.
#[derive(Debug)]
pub(super) struct Rows {
    store: Store,
    volume: VolumeId,
    /// Whole rows that have changed.
    changed: FxHashMap<RowKey, Vec<u8>>,
    changed_bytes: usize,
    /// Rows that are on their way to the store: newer than what it holds.
    committing: Arc<FxHashMap<RowKey, Vec<u8>>>,
    /// Rows of single files as they are in the store: events of one file come in runs.
    looked_at: FxHashMap<Inode, Vec<u8>>,
}

impl Rows {
    pub fn new(store: Store, volume: VolumeId) -> Self {
        Self {
            store,
            volume,
            changed: FxHashMap::default(),
            changed_bytes: 0,
            committing: Arc::default(),
            looked_at: FxHashMap::default(),
        }
    }

    /// Bytes of changed rows.
    pub fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// The changed rows, to be written to the store. Until [`Rows::committed`] they are still answered from here.
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

    /// The row of a page.
    pub fn of_page(&self, page: &Page) -> Result<Cow<'_, [u8]>, StoreError> {
        let key = RowKey::Page(page.number);
        match page.names_stored || self.changed.contains_key(&key) || self.committing.contains_key(&key) {
            true => self.read(key),
            false => Ok(Cow::Borrowed(&[])),
        }
    }

    /// The row of a file that has one of its own.
    pub fn of_inode(&self, ino: Inode) -> Result<Cow<'_, [u8]>, StoreError> {
        self.read(RowKey::Inode(ino))
    }

    /// A row that is only looked at. One of a single file is then remembered.
    pub fn look(&mut self, page: &Page, key: RowKey) -> Result<Cow<'_, [u8]>, StoreError> {
        let RowKey::Inode(ino) = key else {
            return self.of_page(page);
        };
        if self.changed.contains_key(&key) {
            return self.read(key);
        }
        self.remember(ino)?;
        match self.looked_at.get(&ino) {
            Some(row) => Ok(Cow::Borrowed(row.as_slice())),
            None => self.read(key),
        }
    }

    fn remember(&mut self, ino: Inode) -> Result<(), StoreError> {
        if self.looked_at.contains_key(&ino) {
            return Ok(());
        }
        let row = self.read(RowKey::Inode(ino))?.into_owned();
        if self.looked_at.len() >= LOOKED_AT_MAX {
            self.looked_at.clear();
        }
        self.looked_at.insert(ino, row);
        Ok(())
    }

    /// A row as it is now.
    fn read(&self, key: RowKey) -> Result<Cow<'_, [u8]>, StoreError> {
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

    /// Changes a row. Names of entries that its page does not have are left out beforehand.
    pub fn change<T>(
        &mut self,
        page: &Page,
        key: RowKey,
        change: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<T, StoreError> {
        self.load(page, key)?;
        let row = self.changed.entry(key).or_default();
        let before = row.len();
        let changed = change(row);
        let after = row.len();
        self.changed_bytes = self.changed_bytes.saturating_sub(before) + after;
        Ok(changed)
    }

    /// Takes a row among those that have changed.
    fn load(&mut self, page: &Page, key: RowKey) -> Result<(), StoreError> {
        if !self.changed.contains_key(&key) {
            let row = match key {
                RowKey::Page(_) => of_entries(page, &self.of_page(page)?),
                RowKey::Inode(ino) => match self.looked_at.remove(&ino) {
                    Some(row) => row,
                    None => self.read(key)?.into_owned(),
                },
            };
            self.set(key, row);
        }
        Ok(())
    }

    /// Replaces a row.
    pub fn set(&mut self, key: RowKey, row: Vec<u8>) {
        self.changed_bytes += row.len();
        if let Some(before) = self.changed.insert(key, row) {
            self.changed_bytes = self.changed_bytes.saturating_sub(before.len());
        }
    }

    /// Removes the row of a single file.
    pub fn remove(&mut self, ino: Inode) {
        self.looked_at.remove(&ino);
        self.set(RowKey::Inode(ino), Vec::new());
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
        let row = self.of_page(page)?;
        if names(&row).any(|e| e.is_ok_and(|e| e.offset == offset)) {
            self.load(page, key)?;
        }
        Ok(())
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
