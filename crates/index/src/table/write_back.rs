//! Writing to the store what changed.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Index;
use crate::codec::{pack_names, put_clocks};
use crate::names::RowKey;
use crate::page::{Dirty, place};
use crate::store::{Batch, Record, Row, Store, StoreError, VolumeId};

impl Index {
    /// Bytes of file names that wait to be written back: what grows fastest during a scan.
    pub fn pending_name_bytes(&self) -> usize {
        self.names.pending_bytes()
    }

    /// Collects everything that differs from the store, or all but what was `removed`. Give the result to [`WriteBack::commit`] without
    /// holding the index, then tell [`Index::written_back`].
    pub fn start_write_back(&mut self, removed: bool) -> WriteBack {
        let mut slots = std::mem::take(&mut self.dirty);
        if removed {
            slots.extend(self.thinned.drain());
        }
        let mut rows = Vec::with_capacity(slots.len() * 2);
        for slot in slots {
            let Some(page) = self.pages.get_mut(slot as usize) else {
                continue;
            };
            if page.dirty.clocks {
                let mut row = Vec::new();
                if page.present != 0 {
                    put_clocks(&mut row, page.present, &page.clocks, &page.sources);
                }
                rows.push((page.number, Row::Clocks, row));
            }
            if page.dirty.attributes {
                let mut row = Vec::new();
                if page.present != 0 {
                    row.extend_from_slice(&page.present.to_le_bytes());
                    row.extend_from_slice(&page.attributes);
                }
                rows.push((page.number, Row::Attributes, row));
            }
            page.dirty = Dirty::default();
        }
        rows.extend(
            self.dirs
                .take_dirty()
                .into_iter()
                .map(|(n, row)| (n.into(), Row::Directories, row)),
        );
        let names = self.names.start_commit();
        for key in names.keys() {
            let RowKey::Page(number) = key else { continue };
            if let Some(page) = self
                .by_number
                .get(number)
                .and_then(|i| self.pages.get_mut(*i as usize))
            {
                page.names_stored = true;
            }
        }
        WriteBack {
            store: self.store.clone(),
            volume: self.volume,
            rows,
            names,
            record: None,
        }
    }

    /// The commit is over. After a failure everything is written again the next time.
    pub fn written_back(&mut self, ok: bool) {
        self.names.committed(ok);
        if !ok {
            for (slot, page) in self.pages.iter_mut().enumerate() {
                // What was removed while the rows were on their way is still in them.
                self.names.removed(page);
                page.dirty = Dirty {
                    clocks: true,
                    attributes: true,
                };
                self.dirty.insert(u32::try_from(slot).unwrap_or(u32::MAX));
            }
            self.dirs.touch_all();
        }
    }
}

/// Rows on their way to the store.
#[derive(Debug)]
pub struct WriteBack {
    store: Store,
    volume: VolumeId,
    rows: Vec<(u64, Row, Vec<u8>)>,
    names: Arc<FxHashMap<RowKey, Vec<u8>>>,
    record: Option<(Vec<u8>, Vec<u8>)>,
}

/// Rows of one batch: what sled replaces by one can be freed at its end only. Measured (`tests/tests/index/store.rs`): 26 to 29 MiB in batches of 1,000,
/// 270 of 16,000.
const ROWS_PER_BATCH: usize = 1000;

/// A longer row counts as several.
const LONG_ROW_BYTES: usize = 4096;

/// With which page a row goes.
fn page_of(row: Row, number: u64) -> u64 {
    match row {
        Row::Links => place(number).0,
        _ => number,
    }
}

impl WriteBack {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.rows.is_empty()
    }

    /// Writes what is remembered of the volume with the last batch: (its name, the record).
    pub fn set_record(&mut self, name: &str, record: Vec<u8>) {
        self.record = Some((name.as_bytes().to_vec(), record));
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.names.len() + self.rows.len()
    }

    /// Writes the rows and makes them durable. Rows of one page go together; a crash between two batches leaves
    /// pages of different moments, which the scan after every start brings together again.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn commit(mut self) -> Result<(), StoreError> {
        self.rows.extend(self.names.iter().map(|(key, row)| match key {
            RowKey::Page(number) => (*number, Row::Names, pack_names(row)),
            RowKey::Inode(ino) => (*ino, Row::Links, pack_names(row)),
        }));
        // Neighbours go together: the store touches each of its own pages once.
        self.rows.sort_unstable_by_key(|(number, row, _)| {
            (*row == Row::Directories, page_of(*row, *number), *number)
        });
        let mut batch = Batch::default();
        let mut filled = 0;
        let mut last = None;
        for (number, row, value) in self.rows {
            let page = page_of(row, number);
            if filled >= ROWS_PER_BATCH && last != Some(page) {
                self.store.apply(std::mem::take(&mut batch))?;
                filled = 0;
            }
            batch.put_row(row, self.volume, number, &value);
            last = Some(page);
            filled += 1 + value.len() / LONG_ROW_BYTES;
        }
        if let Some((name, record)) = self.record {
            batch.put(Record::Volume, &name, &record);
        }
        self.store.apply(batch)?;
        self.store.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use crate::testing::{empty, found};
    use crate::{Index, VolumeId};
    use purge_model::{Inode, Kind, Seconds};

    /// What the map knows of an inode.
    struct Known {
        kind: Kind,
        size: u64,
        used: u32,
        name: Vec<u8>,
    }

    impl Known {
        fn new(kind: Kind) -> Self {
            Self {
                kind,
                size: 0,
                used: 5,
                name: Vec::new(),
            }
        }
    }

    fn save(index: &mut Index, removed: bool) {
        index.start_write_back(removed).commit().unwrap();
        index.written_back(true);
    }

    #[test]
    fn what_was_removed_can_wait_but_no_use_beside_it() {
        let (store, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        index.upsert(found(71, 1, b"b")).unwrap();
        save(&mut index, true);
        index.remove(&[70]).unwrap();
        save(&mut index, false);
        let stored = || Index::load(store.clone(), VolumeId(1)).unwrap();
        assert!(stored().get(70).is_some(), "it waits");
        index.record_use(71, Seconds(500));
        save(&mut index, false);
        assert_eq!(stored().last_use(71).unwrap().at, Seconds(500));
        index.remove(&[71]).unwrap();
        save(&mut index, true);
        assert!(stored().get(71).is_none());
    }

    #[test]
    fn what_is_removed_during_a_commit_that_fails_leaves_no_name_behind() {
        let (_store, mut index) = empty();
        index.upsert(found(70, 1, b"old")).unwrap();
        index.upsert(found(71, 1, b"other")).unwrap();
        drop(index.start_write_back(true));
        index.remove(&[70]).unwrap();
        index.written_back(false);
        index.upsert(found(70, 1, b"new")).unwrap();
        let names = index.names(70).unwrap().into_iter().map(|(_, name)| name);
        assert_eq!(names.collect::<Vec<_>>(), [b"new"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// After any change to the index, it holds what a map holds, and so does what is loaded from the store. Inodes come
        /// again, as files of other names or as directories: no name comes back to life with them.
        #[test]
        fn the_index_equals_a_map_also_after_a_restart(
            steps in prop::collection::vec((0u8..6, 60u64..80, 0u64..1000, 10u32..1000, 0u8..5, 0u8..4), 0..120)
        ) {
            let (store, mut index) = empty();
            let mut model: BTreeMap<Inode, Known> = BTreeMap::new();
            let mut on_its_way = false;
            for (what, ino, size, at, save_now, name) in steps {
                let name = format!("n{ino}.{name}").into_bytes();
                match what {
                    0..=2 => {
                        let kind = if what == 2 { Kind::Directory } else { Kind::File };
                        let mut new = found(ino, size, &name);
                        new.stat.kind = kind;
                        index.upsert(new).unwrap();
                        let known = model.entry(ino).or_insert(Known::new(kind));
                        if known.kind != kind {
                            *known = Known::new(kind);
                        }
                        (known.size, known.name) = (size, name);
                    }
                    3 => {
                        index.record_use(ino, Seconds(at));
                        model.entry(ino).and_modify(|m| m.used = m.used.max(at));
                    }
                    _ => {
                        index.remove(&[ino]).unwrap();
                        model.remove(&ino);
                    }
                }
                // A commit that fails, with this step in the middle of it.
                if std::mem::take(&mut on_its_way) {
                    index.written_back(false);
                }
                match save_now {
                    0 => save(&mut index, true),
                    // No matter what waits, nothing that is there is missing in the store, and none of its uses.
                    2 => {
                        save(&mut index, false);
                        let stored = Index::load(store.clone(), VolumeId(1)).unwrap();
                        for (ino, known) in &model {
                            let got = stored.get(*ino).map(|(a, last)| (a.kind, a.size, last.at.0));
                            prop_assert_eq!(got, Some((known.kind, known.size, known.used)));
                        }
                    }
                    1 => {
                        on_its_way = true;
                        drop(index.start_write_back(true));
                    }
                    _ => {}
                }
            }
            if on_its_way {
                index.written_back(false);
            }
            save(&mut index, true);
            for index in [&index, &Index::load(store, VolumeId(1)).unwrap()] {
                for ino in 60..80 {
                    let got = index.get(ino).map(|(a, last)| (a.kind, a.size, last.at.0));
                    prop_assert_eq!(got, model.get(&ino).map(|m| (m.kind, m.size, m.used)));
                    let names: Vec<_> = index.names(ino).unwrap().into_iter().map(|(_, name)| name).collect();
                    prop_assert_eq!(names, model.get(&ino).map(|m| m.name.clone()).into_iter().collect::<Vec<_>>());
                }
                let mut of_files = BTreeMap::new();
                for page in 0..2 {
                    index.names_of_page(page, |offset, _, name| {
                        of_files.insert(page * 64 + u64::from(offset), name.to_vec());
                    }).unwrap();
                }
                let files = || model.iter().filter(|(_, m)| m.kind == Kind::File);
                prop_assert_eq!(of_files, files().map(|(ino, m)| (*ino, m.name.clone())).collect());
                prop_assert_eq!(index.totals().files, files().count() as u64);
                prop_assert_eq!(index.totals().bytes, files().map(|(_, m)| m.size).sum::<u64>());
                prop_assert_eq!(u64::from(index.dirs().children_table()[0]), model.len() as u64 + 1);
            }
        }
    }
}
