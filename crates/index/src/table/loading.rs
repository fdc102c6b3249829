//! Loading an index: every start waits for it, so several threads work.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{Builder, available_parallelism, scope};

use super::{Index, Page, Totals};
use crate::account::Ledger;
use crate::codec::{Attributes, read_clocks, read_dirs, split_present};
use crate::page::Dirty;
use crate::store::{Row, Store, StoreError, VolumeId};

/// Each thread that counts needs sums of all directories, 56 bytes each.
const COUNTERS_MAX: usize = 4;

/// Which page, whose inodes it has, and their attributes as they are stored.
type StoredAttributes = (u64, u64, Box<[u8]>);

/// What some of the pages hold.
#[derive(Default)]
struct Counted {
    totals: Totals,
    ledger: Ledger,
    /// By directory: how many entries have it as their first parent.
    children: Vec<u32>,
    /// Pages of which only a part is there, or nonsense.
    incomplete: Vec<u32>,
}

impl Index {
    /// The index as the store holds it. Rows that do not belong together (a crash may leave such) are dropped:
    /// the scan that follows every start finds the files again.
    ///
    /// # Errors
    /// When the store cannot be read or a row is damaged.
    pub fn load(store: Store, volume: VolumeId) -> Result<Self, StoreError> {
        let parts = Parts::of(&store, volume)?;
        // The largest rows are read beside the others; who is done with those helps with the rest.
        let (mut index, attributes) = scope(|scope| {
            let thread = Builder::new().spawn_scoped(scope, || parts.read(&store)).ok();
            let index = Self::load_clocks(&store, volume)?;
            let mut attributes = parts.read(&store)?;
            if let Some(thread) = thread {
                // What the store panics over is an error by now; any other panic goes on here.
                let others = thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))?;
                attributes.extend(others);
            }
            Ok::<_, StoreError>((index, attributes))
        })?;
        for (number, present, attributes) in attributes {
            let slot = index.by_number.get(&number);
            let page = slot.and_then(|i| index.pages.get_mut(*i as usize));
            if let Some(page) = page.filter(|page| page.present == present) {
                page.attributes = attributes;
            }
        }
        for counted in count_all(&index.pages, index.dirs.table_len()) {
            index.take_over(counted);
        }
        index.load_links(&store)?;
        Ok(index)
    }

    /// Rows of files that have one of their own.
    fn load_links(&mut self, store: &Store) -> Result<(), StoreError> {
        store.rows(Row::Links, self.volume, |ino, row| {
            let is_file = self.find(ino).is_some() && self.dirs.of_inode(ino).is_none();
            Ok(self.names.load(ino, row, is_file)?)
        })
    }

    /// Directories, and pages that have no attributes yet.
    fn load_clocks(store: &Store, volume: VolumeId) -> Result<Self, StoreError> {
        let mut index = Self::new(store.clone(), volume);
        store.rows(Row::Directories, volume, |number, row| {
            index
                .dirs
                .load(u32::try_from(number).unwrap_or(u32::MAX), read_dirs(row)?);
            Ok(())
        })?;
        index.dirs.loaded();
        store.rows(Row::Clocks, volume, |number, row| {
            let (present, clocks, sources) = read_clocks(row)?;
            let mut page = Page::new(number);
            (page.present, page.clocks, page.sources) = (present, clocks, sources);
            page.names_stored = true;
            index
                .by_number
                .insert(number, u32::try_from(index.pages.len()).unwrap_or(u32::MAX));
            index.pages.push(page);
            Ok(())
        })?;
        Ok(index)
    }

    fn take_over(&mut self, counted: Counted) {
        self.totals.merge(counted.totals);
        self.account.counted(counted.ledger);
        self.dirs.count_children(&counted.children);
        for slot in counted.incomplete {
            // After a crash: unknown files are found again by the scan, and what a scan finds new counts as used now.
            if let Some(page) = self.pages.get_mut(slot as usize) {
                *page = Page {
                    names_stored: true,
                    ..Page::new(page.number)
                };
                page.dirty = Dirty {
                    clocks: true,
                    attributes: true,
                };
                self.dirty.insert(slot);
            }
        }
    }
}

/// Rows of attributes in this number of parts: how full each of them is, is unknown before.
const PARTS: u64 = 64;

/// The rows of attributes, shared among threads.
struct Parts {
    volume: VolumeId,
    /// The highest page: parts are made by it.
    last: u64,
    /// Parts that a thread has taken.
    taken: AtomicU64,
}

impl Parts {
    fn of(store: &Store, volume: VolumeId) -> Result<Self, StoreError> {
        Ok(Self {
            volume,
            last: store.last_number(Row::Attributes, volume)?.unwrap_or(0),
            taken: AtomicU64::new(0),
        })
    }

    /// Reads parts until none is left.
    fn read(&self, store: &Store) -> Result<Vec<StoredAttributes>, StoreError> {
        let mut rows = Vec::new();
        let pages = self.last / PARTS + 1;
        loop {
            let part = self.taken.fetch_add(1, Relaxed);
            if part >= PARTS {
                return Ok(rows);
            }
            let first = part.saturating_mul(pages);
            // The last one has no end: even if the store named a wrong last row, none is left out.
            let last = match part + 1 {
                PARTS => u64::MAX,
                _ => first.saturating_add(pages - 1),
            };
            store.rows_between(Row::Attributes, self.volume, first..=last, |number, row| {
                rows.extend(
                    split_present(row).map(|(present, attributes)| (number, present, attributes.into())),
                );
                Ok(())
            })?;
        }
    }
}

/// Counts in several threads. There are ids for `directories`, as far as these were stored.
fn count_all(pages: &[Page], directories: usize) -> Vec<Counted> {
    // A directory is an entry itself: an id that is higher is damage, or of directories that came and went in the last second before a
    // crash. Tables over directories are as long as the highest id.
    let entries = pages.iter().map(Page::len);
    let ids = entries.fold(directories, usize::saturating_add);
    let counters = available_parallelism().map_or(1, NonZero::get).min(COUNTERS_MAX);
    let share = pages.len().div_ceil(counters).max(1);
    scope(|scope| {
        let mut threads = Vec::new();
        let mut all = Vec::new();
        for (n, part) in pages.chunks(share).enumerate() {
            let first = n.saturating_mul(share);
            let last = first.saturating_add(share) >= pages.len();
            let thread = (!last)
                .then(|| {
                    Builder::new()
                        .spawn_scoped(scope, move || Counted::of(first, part, ids))
                        .ok()
                })
                .flatten();
            match thread {
                Some(thread) => threads.push(thread),
                None => all.push(Counted::of(first, part, ids)),
            }
        }
        let joined = threads.into_iter().map(|thread| thread.join());
        all.extend(joined.map(|counted| counted.unwrap_or_else(|p| std::panic::resume_unwind(p))));
        all
    })
}

impl Counted {
    /// Of pages in slots from `first` on, whose parents are among this number of `ids`.
    fn of(first: usize, pages: &[Page], ids: usize) -> Self {
        let mut counted = Self::default();
        let mut counting = counted.ledger.counting();
        let mut all: Vec<Attributes> = Vec::new();
        for (n, page) in pages.iter().enumerate() {
            if page.unpack(&mut all).is_err() || all.iter().any(|entry| entry.parent.index() >= ids) {
                let slot = first.saturating_add(n);
                counted.incomplete.extend(u32::try_from(slot));
                continue;
            }
            for (rank, entry) in all.iter().enumerate() {
                counting.add(entry, page.known_use(rank));
                counted.totals.add(entry);
                add_child(&mut counted.children, entry.parent.index());
            }
        }
        drop(counting);
        counted
    }
}

fn add_child(children: &mut Vec<u32>, parent: usize) {
    if children.len() <= parent {
        children.resize(parent.saturating_add(1), 0);
    }
    if let Some(children) = children.get_mut(parent) {
        *children = children.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirId;
    use purge_model::{Kind, LastUse, Seconds, Source};

    fn page_below(parent: u32) -> Page {
        let used = LastUse {
            at: Seconds(1),
            source: Source::Observed,
        };
        let mut page = Page::new(u64::from(parent));
        page.insert_clock(0, used);
        let file = Attributes {
            parent: DirId(parent),
            kind: Kind::File,
            size: 1000,
            allocated: 4096,
            project: 0,
            uid: 0,
            gid: 0,
            links: 1,
            mtime: used.at,
            ctime: used.at,
            ctime_nanos: 0,
            birth: used.at,
        };
        page.set_all_attributes(&[file], &mut Vec::new());
        page
    }

    #[test]
    fn a_parent_that_cannot_be_makes_no_tables_of_its_length() {
        let pages: Vec<Page> = [0, 1, u32::MAX, 2, 3].map(page_below).into();
        let counted = count_all(&pages, 4);
        let incomplete: Vec<u32> = counted.iter().flat_map(|c| c.incomplete.clone()).collect();
        assert_eq!(incomplete, [2]);
        assert_eq!(counted.iter().map(|c| c.totals.files).sum::<u64>(), 4);
        assert!(counted.iter().all(|c| c.children.len() <= 4));
    }
}
