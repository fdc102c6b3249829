//! [`Index`]: one volume's files in memory, every change that can be made to them, and writing them back.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::account::{Account, Ledger};
use super::checkpoint::Remembered;
use super::codec::{
    AttributeReader, Attributes, DirId, pack_names, put_clocks, read_clocks, read_dirs, split_present,
};
use super::dirs::Directories;
use super::names::Names;
use super::page::{Dirty, Page, place};
use super::store::{Batch, Record, Row, Store, StoreError, VolumeId};
use crate::model::{Inode, Kind, LastUse, Seconds, Source, Stat};

/// Sums over the volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Apparent bytes of the regular files.
    pub bytes: u64,
}

/// An entry that a scan or an event found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// What the file system says of it.
    pub stat: Stat,
    /// The directory that holds it.
    pub parent: DirId,
    /// Its name there.
    pub name: &'a [u8],
    /// The last use to assume if the file is new to the index.
    pub first_use: LastUse,
}

/// One page, for readers.
pub struct PageView<'a>(&'a Page);

impl<'a> PageView<'a> {
    /// `inode / 64`.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The inodes of the entries, ascending.
    pub fn inodes(&self) -> impl Iterator<Item = Inode> + use<'a> {
        self.0.inodes()
    }

    /// Which offsets have an entry, a bit each.
    pub(super) fn present(&self) -> u64 {
        self.0.present
    }

    /// Who says so of the access times, as stored.
    pub(super) fn sources(&self) -> &'a [u8] {
        &self.0.sources
    }

    /// The access times, in the order of the inodes.
    pub fn clocks(&self) -> &'a [u32] {
        &self.0.clocks
    }

    /// The access time and who says so, of the entry at `rank`.
    pub fn access(&self, rank: usize) -> LastUse {
        self.0.known_use(rank)
    }

    /// The attributes, in the order of the inodes.
    pub fn attributes(&self) -> AttributeReader<'a> {
        self.0.reader()
    }
}

/// One volume's index.
#[derive(Debug)]
pub struct Index {
    store: Store,
    volume: VolumeId,
    pages: Vec<Page>,
    by_number: FxHashMap<u64, u32>,
    dirs: Directories,
    names: Names,
    totals: Totals,
    /// Sums by owner, group, project and directory.
    account: Account,
    /// Pages that differ from the store.
    dirty: FxHashSet<u32>,
    scan: Option<ScanState>,
    /// Uses of inodes that are not in the index yet, while a scan may still find them.
    early: FxHashMap<Inode, Seconds>,
    /// The first scan is still to come: until it begins, uses of unknown files are remembered as well.
    awaits_scan: bool,
    /// Clocks from the time before the store was lost, until a scan has found their files.
    remembered: Remembered,
    scratch: Vec<u8>,
}

/// What a running scan must know of the changes beside it.
#[derive(Debug)]
struct ScanState {
    number: u32,
    /// It walks the whole volume, so it meets every name of a file with several.
    whole: bool,
    /// Inodes whose names changed while the scan ran: what it read of them may be stale.
    touched: FxHashSet<Inode>,
}

/// Distinct files used during a first scan that are remembered one by one; past this everything found later
/// counts as used at that moment.
const EARLY_USES_MAX: usize = 4_000_000;

impl Index {
    /// An empty index that writes to `store`.
    pub fn new(store: Store, volume: VolumeId) -> Self {
        Self {
            names: Names::new(store.clone(), volume),
            store,
            volume,
            pages: Vec::new(),
            by_number: FxHashMap::default(),
            dirs: Directories::default(),
            totals: Totals::default(),
            account: Account::default(),
            dirty: FxHashSet::default(),
            scan: None,
            early: FxHashMap::default(),
            awaits_scan: false,
            remembered: Remembered::default(),
            scratch: Vec::new(),
        }
    }

    /// The index as the store holds it. Rows that do not belong together (a crash may leave such) are dropped:
    /// the scan that follows every start finds the files again.
    ///
    /// # Errors
    /// When the store cannot be read or a row is damaged.
    pub fn load(store: Store, volume: VolumeId) -> Result<Self, StoreError> {
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
        store.rows(Row::Attributes, volume, |number, row| {
            let page = index
                .by_number
                .get(&number)
                .and_then(|i| index.pages.get_mut(*i as usize));
            if let (Some(page), Some((present, attributes))) = (page, split_present(row))
                && present == page.present
            {
                page.attributes = attributes.into();
            }
            Ok(())
        })?;
        index.drop_incomplete_pages();
        Ok(index)
    }

    fn drop_incomplete_pages(&mut self) {
        let mut totals = Totals::default();
        for (slot, page) in self.pages.iter_mut().enumerate() {
            match page.all_attributes() {
                Ok(all) => {
                    for (rank, entry) in all.iter().enumerate() {
                        totals.add(entry);
                        self.dirs.count_child(entry.parent, true);
                        self.account.counted(entry, page.known_use(rank));
                    }
                }
                // Present only in part after a crash: unknown files are found again by the scan, and what a scan
                // finds new counts as used now.
                Err(_) => {
                    *page = Page {
                        names_stored: true,
                        ..Page::new(page.number)
                    };
                    page.dirty = Dirty {
                        clocks: true,
                        attributes: true,
                    };
                    self.dirty.insert(u32::try_from(slot).unwrap_or(u32::MAX));
                }
            }
        }
        self.totals = totals;
    }

    // ------------------------------------------------------------ reading

    /// Sums over the volume.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Sums by owner, group, project and directory. Files and bytes are those of this moment, days and ages those of
    /// [`Ledger::as_of`].
    pub fn ledger(&self) -> &Ledger {
        self.account.ledger()
    }

    /// Begins to count everything anew, as of another moment; the sums stay true meanwhile.
    pub fn begin_recount(&mut self, as_of: Seconds, gap_end: Option<Seconds>) {
        self.account.begin_recount(as_of, gap_end);
    }

    /// Counts so many pages more. True when all are counted, and [`Index::ledger`] is the new one.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn recount_some(&mut self, pages: usize) -> Result<bool, StoreError> {
        let start = self.account.cursor();
        let end = start.saturating_add(pages).min(self.pages.len());
        for page in self.pages.get(start..end).unwrap_or(&[]) {
            let mut reader = page.reader();
            for rank in 0..page.len() {
                self.account
                    .recounted(&reader.next_entry()?, page.known_use(rank));
            }
        }
        Ok(self.account.recounted_to(end, end == self.pages.len()))
    }

    /// The directories.
    pub fn dirs(&self) -> &Directories {
        &self.dirs
    }

    /// All pages, in no particular order.
    pub fn pages(&self) -> impl Iterator<Item = PageView<'_>> {
        self.pages.iter().filter(|p| p.present != 0).map(PageView)
    }

    /// All pages, cut into about `parts` equal runs for as many threads.
    pub fn page_runs(&self, parts: usize) -> Vec<impl Iterator<Item = PageView<'_>>> {
        let size = self.pages.len().div_ceil(parts.max(1)).max(1);
        self.pages
            .chunks(size)
            .map(|run| run.iter().filter(|p| p.present != 0).map(PageView))
            .collect()
    }

    /// A run of pages, for readers that let go of the index now and then. An empty run is the end.
    pub fn pages_from(&self, start: usize, count: usize) -> impl ExactSizeIterator<Item = PageView<'_>> {
        let end = start.saturating_add(count).min(self.pages.len());
        self.pages
            .get(start.min(end)..end)
            .unwrap_or(&[])
            .iter()
            .map(PageView)
    }

    /// What is known of one inode.
    pub fn get(&self, ino: Inode) -> Option<(Attributes, LastUse)> {
        let (page, rank) = self.find(ino)?;
        Some((page.attributes_at(rank).ok()?, page.last_use(rank)?))
    }

    /// The directory of an inode's first name.
    pub fn parent_of(&self, ino: Inode) -> Option<DirId> {
        self.get(ino).map(|(attributes, _)| attributes.parent)
    }

    /// The last use of one inode, if the index knows it.
    pub fn last_use(&self, ino: Inode) -> Option<LastUse> {
        let (page, rank) = self.find(ino)?;
        page.last_use(rank)
    }

    /// The names of one inode: directories and names there. For directories and files alike.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn names(&self, ino: Inode) -> Result<Vec<(DirId, Vec<u8>)>, StoreError> {
        match self.dirs.of_inode(ino).and_then(|id| self.dirs.get(id)) {
            Some(dir) => Ok(vec![(dir.parent, dir.name.to_vec())]),
            None => self.names.of_inode(ino),
        }
    }

    /// Calls `each(offset, parent, name)` with the names of all files of a page.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn names_of_page(
        &self,
        number: u64,
        mut each: impl FnMut(u8, DirId, &[u8]),
    ) -> Result<(), StoreError> {
        self.names.of_page(number, |e| each(e.offset, e.parent, e.name))
    }

    fn find(&self, ino: Inode) -> Option<(&Page, usize)> {
        let (number, offset) = place(ino);
        let page = self.pages.get(*self.by_number.get(&number)? as usize)?;
        Some((page, page.rank(offset)?))
    }

    // ------------------------------------------------------------ uses

    /// Whether uses of unknown files are remembered for a scan that may find them.
    pub fn remembers_unknown(&self) -> bool {
        self.scan.is_some() || self.awaits_scan
    }

    /// A first scan will come: uses of files that it has not met are remembered from now on.
    pub fn await_scan(&mut self) {
        self.awaits_scan = true;
    }

    /// Clocks to give back to files that the next whole scan finds, and uses that were read while nothing was known of
    /// their files.
    pub fn recall(&mut self, remembered: Remembered, early: &[(Inode, Seconds)]) {
        self.remembered = remembered;
        for (ino, at) in early {
            let known = self.early.entry(*ino).or_default();
            *known = (*at).max(*known);
        }
    }

    /// No clock lies ahead of `latest` any more: the clock they were taken from was wrong.
    pub fn clamp_uses(&mut self, latest: Seconds) {
        for (slot, page) in self.pages.iter_mut().enumerate() {
            for rank in 0..page.clocks.len() {
                if let Some(last) = page.last_use(rank).filter(|last| last.at > latest) {
                    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                    let now = LastUse { at: latest, ..last };
                    page.set_last_use(rank, now);
                    self.account.used(slot, page, rank, (last, now));
                    self.dirty.insert(slot);
                }
            }
        }
    }

    /// Records that the file was used. Times never move backwards. Returns the last use before, if the file is
    /// known.
    #[inline]
    pub fn record_use(&mut self, ino: Inode, at: Seconds) -> Option<LastUse> {
        let (number, offset) = place(ino);
        let slot = self.by_number.get(&number).copied();
        let found = slot.and_then(|slot| {
            let page = self.pages.get_mut(slot as usize)?;
            let rank = page.rank(offset)?;
            let before = page.last_use(rank)?;
            Some((slot, page, rank, before))
        });
        let Some((slot, page, rank, before)) = found else {
            self.record_early_use(ino, at);
            return None;
        };
        if at > before.at || (at == before.at && before.source != Source::Observed) {
            let clean = !page.dirty.clocks;
            let now = LastUse {
                at,
                source: Source::Observed,
            };
            page.set_last_use(rank, now);
            self.account.used(slot, page, rank, (before, now));
            if clean {
                self.dirty.insert(slot);
            }
        }
        Some(before)
    }

    fn record_early_use(&mut self, ino: Inode, at: Seconds) {
        if self.remembers_unknown() && self.early.len() < EARLY_USES_MAX {
            let known = self.early.entry(ino).or_default();
            *known = at.max(*known);
        }
    }

    /// Every observed use at exactly `from` becomes one at `to`.
    pub fn move_uses(&mut self, from: Seconds, to: Seconds) {
        let used = |at| LastUse {
            at,
            source: Source::Observed,
        };
        for (slot, page) in self.pages.iter_mut().enumerate() {
            for rank in 0..page.clocks.len() {
                if page.last_use(rank) == Some(used(from)) {
                    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                    page.set_last_use(rank, used(to));
                    self.account.used(slot, page, rank, (used(from), used(to)));
                    self.dirty.insert(slot);
                }
            }
        }
    }

    /// Restores the last use that [`Index::record_use`] replaced, for a use that turned out to be none. Does
    /// nothing when a later use has been recorded since.
    pub fn take_back_use(&mut self, ino: Inode, recorded: Seconds, before: LastUse) {
        let (number, offset) = place(ino);
        let Some(slot) = self.by_number.get(&number).copied() else {
            return;
        };
        let Some(page) = self.pages.get_mut(slot as usize) else {
            return;
        };
        let Some(rank) = page.rank(offset) else { return };
        let now = LastUse {
            at: recorded,
            source: Source::Observed,
        };
        if page.last_use(rank) == Some(now) {
            page.set_last_use(rank, before);
            self.account.used(slot, page, rank, (now, before));
            self.dirty.insert(slot);
        }
    }

    // ------------------------------------------------------------ entries

    /// Makes the volume's root known. Must come before anything else.
    pub fn set_root(&mut self, stat: &Stat) {
        if self.dirs.is_empty() {
            self.dirs.upsert(stat.ino, DirId::ROOT, b"");
        }
        let first_use = LastUse {
            at: stat.ctime,
            source: Source::Ctime,
        };
        let root = Found {
            stat: *stat,
            parent: DirId::ROOT,
            name: b"",
            first_use,
        };
        // The root is a directory: no name row is read or written for it.
        let _ = self.upsert_page(&mut [root], false);
    }

    /// Takes over entries that an event named: they are as the file system says.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn upsert(&mut self, found: Found<'_>) -> Result<(), StoreError> {
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(found.stat.ino);
        }
        self.upsert_page(&mut [found], false)
    }

    /// Takes over entries that a scan found. Returns the positions (in the reordered slice) of those whose names
    /// changed while the scan ran: their places must be looked at again.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn upsert_scanned(&mut self, found: &mut [Found<'_>]) -> Result<Vec<usize>, StoreError> {
        found.sort_unstable_by_key(|f| f.stat.ino);
        let mut doubtful = Vec::new();
        let mut start = 0;
        while let Some(first) = found.get(start) {
            let (number, _) = place(first.stat.ino);
            let len = found
                .iter()
                .skip(start)
                .take_while(|f| place(f.stat.ino).0 == number)
                .count();
            if let Some(scan) = &self.scan {
                let touched = found.iter().enumerate().skip(start).take(len);
                doubtful.extend(
                    touched
                        .filter(|(_, f)| scan.touched.contains(&f.stat.ino))
                        .map(|(i, _)| i),
                );
            }
            let group = found.get_mut(start..start + len).unwrap_or_default();
            self.upsert_page(group, true)?;
            start += len;
        }
        Ok(doubtful)
    }

    /// `group` lies in one page.
    fn upsert_page(&mut self, group: &mut [Found<'_>], scanned: bool) -> Result<(), StoreError> {
        let Some(first) = group.first() else { return Ok(()) };
        let (number, _) = place(first.stat.ino);
        let slot = self.page_slot(number);
        let Self {
            pages,
            dirs,
            names,
            totals,
            account,
            scan,
            early,
            remembered,
            scratch,
            ..
        } = self;
        let Some(page) = pages.get_mut(slot as usize) else {
            return Ok(());
        };
        let mut all = page.all_attributes()?;
        for f in group.iter() {
            let (_, offset) = place(f.stat.ino);
            let bit = 1u64 << offset;
            let touched = scan
                .as_ref()
                .is_some_and(|s| scanned && s.touched.contains(&f.stat.ino));
            if touched {
                page.seen |= bit;
                continue;
            }
            // Its directory was removed since it was looked at: so was it, or an event will tell where it is.
            if dirs.get(f.parent).is_none() {
                continue;
            }
            let mut known = page.rank(offset);
            // Another file has taken the inode: what was known of the old one is no knowledge of this one.
            if let Some(old) = known.and_then(|rank| all.get(rank)).copied()
                && (old.kind != f.stat.kind || old.birth != f.stat.birth)
            {
                totals.subtract(&old);
                if let Some(rank) = known {
                    account.change(slot, Some((&old, page.known_use(rank))), None);
                }
                dirs.count_child(old.parent, false);
                if old.kind == Kind::Directory {
                    dirs.remove(f.stat.ino);
                } else {
                    names.remove(page, bit)?;
                }
                if let Some(rank) = page.remove_clock(offset) {
                    all.remove(rank);
                }
                known = None;
            }
            let mut parent = f.parent;
            if f.stat.kind == Kind::Directory {
                dirs.upsert(f.stat.ino, f.parent, f.name);
            } else if known.is_none() {
                names.add_first(page, f.stat.ino, f.parent, f.name)?;
            } else {
                let this = (f.parent, f.name.to_vec());
                // The only name, or the first of several that this scan meets: names that are no more are forgotten.
                let whole = scan.as_ref().is_some_and(|s| s.whole);
                let replace = f.stat.links <= 1 || (scanned && whole && page.seen & bit == 0);
                let mut first = f.parent;
                names.edit(page, f.stat.ino, |all| {
                    if replace {
                        all.clear();
                    }
                    if !all.contains(&this) {
                        all.push(this);
                    }
                    first = all.first().map_or(first, |(parent, _)| *parent);
                })?;
                parent = first;
            }
            let new = attributes_of(&f.stat, parent);
            totals.add(&new);
            match known.and_then(|rank| Some((rank, all.get_mut(rank)?))) {
                Some((rank, old)) => {
                    totals.subtract(old);
                    let used = page.known_use(rank);
                    account.change(slot, Some((old, used)), Some((&new, used)));
                    if old.parent != new.parent {
                        dirs.count_child(old.parent, false);
                        dirs.count_child(new.parent, true);
                    }
                    *old = new;
                }
                None => {
                    dirs.count_child(new.parent, true);
                    let mut first_use = remembered
                        .last_use(f.stat.ino, f.stat.birth)
                        .unwrap_or(f.first_use);
                    if let Some(at) = early.remove(&f.stat.ino)
                        && at >= first_use.at
                    {
                        first_use = LastUse {
                            at,
                            source: Source::Observed,
                        };
                    }
                    account.change(slot, None, Some((&new, first_use)));
                    let rank = page.insert_clock(offset, first_use);
                    all.insert(rank.min(all.len()), new);
                }
            }
            if scanned {
                page.seen |= bit;
            }
        }
        page.set_all_attributes(&all, scratch);
        if page.dirty != Dirty::default() {
            self.dirty.insert(slot);
        }
        Ok(())
    }

    /// Takes over what the file system says now of an inode. Unknown inodes stay unknown.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn refresh(&mut self, stat: &Stat) -> Result<(), StoreError> {
        self.edit_attributes(stat.ino, |known| *known = attributes_of(stat, known.parent))
    }

    /// Forgets one name of a file; the file goes with its last name.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn remove_name(&mut self, ino: Inode, parent: DirId, name: &[u8]) -> Result<(), StoreError> {
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(ino);
        }
        if self.dirs.of_inode(ino).is_some() {
            // A directory has one name: if that is another by now, it was moved, not removed.
            let here = self.dirs.of_inode(ino).and_then(|id| self.dirs.get(id));
            return match here.is_some_and(|d| d.parent == parent && *d.name == *name) {
                true => self.remove(&[ino]),
                false => Ok(()),
            };
        }
        let (number, offset) = place(ino);
        let slot = self.by_number.get(&number);
        let page = slot.and_then(|slot| self.pages.get(*slot as usize));
        let Some(page) = page.filter(|p| p.rank(offset).is_some()) else {
            return Ok(());
        };
        let (mut left, mut removed) = (None, 0);
        self.names.edit(page, ino, |all| {
            let before = all.len();
            all.retain(|(p, n)| (*p, n.as_slice()) != (parent, name));
            removed = before - all.len();
            left = all.first().map(|(parent, _)| *parent);
        })?;
        match left {
            None => self.remove(&[ino]),
            Some(_) if removed == 0 => Ok(()),
            Some(first) => self.edit_attributes(ino, |known| {
                known.parent = first;
                known.links = known.links.saturating_sub(1).max(1);
            }),
        }
    }

    /// Forgets inodes with everything that is known of them.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn remove(&mut self, inodes: &[Inode]) -> Result<(), StoreError> {
        let mut inodes = inodes.to_vec();
        inodes.sort_unstable();
        if let Some(scan) = &mut self.scan {
            scan.touched.extend(inodes.iter().copied());
        }
        for group in inodes.chunk_by(|a, b| place(*a).0 == place(*b).0) {
            let Some(number) = group.first().map(|ino| place(*ino).0) else {
                continue;
            };
            let Some(slot) = self.by_number.get(&number).copied() else {
                continue;
            };
            let Some(page) = self.pages.get_mut(slot as usize) else {
                continue;
            };
            let mut all = page.all_attributes()?;
            let mut gone = 0u64;
            for ino in group {
                let offset = place(*ino).1;
                let used = page.rank(offset).map(|rank| page.known_use(rank));
                let (Some(used), Some(rank)) = (used, page.remove_clock(offset)) else {
                    continue;
                };
                let old = all.remove(rank.min(all.len().saturating_sub(1)));
                self.totals.subtract(&old);
                self.account.change(slot, Some((&old, used)), None);
                self.dirs.count_child(old.parent, false);
                match old.kind {
                    Kind::Directory => drop(self.dirs.remove(*ino)),
                    _ => gone |= 1 << offset,
                }
            }
            if gone != 0 {
                self.names.remove(page, gone)?;
            }
            page.set_all_attributes(&all, &mut self.scratch);
            page.dirty.attributes = true;
            self.dirty.insert(slot);
        }
        Ok(())
    }

    /// Forgets a directory and everything below it: it was moved out of the volume. Returns how many entries that
    /// were.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn remove_tree(&mut self, ino: Inode) -> Result<usize, StoreError> {
        let Some(top) = self.dirs.of_inode(ino) else {
            return Ok(0);
        };
        let below = self
            .dirs
            .inherit(false, |id, _, parent_is| parent_is || id == top);
        let is_below = |id: DirId| below.get(id.index()).copied().unwrap_or(false);
        let (mut gone, mut lost_names) = (Vec::new(), Vec::new());
        for page in &self.pages {
            let mut reader = page.reader();
            for ino in page.inodes() {
                let attributes = reader.next_entry()?;
                match attributes.kind {
                    Kind::Directory if self.dirs.of_inode(ino).is_some_and(is_below) => gone.push(ino),
                    Kind::Directory => {}
                    // Some of its names may lie below, and some not.
                    _ if attributes.links > 1 || is_below(attributes.parent) => {
                        let names = self.names.of_inode(ino)?;
                        let (inside, outside): (Vec<_>, Vec<_>) =
                            names.into_iter().partition(|(parent, _)| is_below(*parent));
                        match outside.is_empty() {
                            true => gone.push(ino),
                            false => lost_names.extend(inside.into_iter().map(|name| (ino, name))),
                        }
                    }
                    _ => {}
                }
            }
        }
        for (ino, (parent, name)) in lost_names {
            self.remove_name(ino, parent, &name)?;
        }
        self.remove(&gone)?;
        Ok(gone.len())
    }

    /// Moves a known directory, with everything below it. Not below itself: the kernel allows no such move, but events
    /// that come late could name one. Returns whether it is there now.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn move_dir(&mut self, ino: Inode, parent: DirId, name: &[u8]) -> Result<bool, StoreError> {
        let Some(id) = self.dirs.of_inode(ino) else {
            return Ok(false);
        };
        if let Some(scan) = &mut self.scan {
            scan.touched.insert(ino);
        }
        if id == DirId::ROOT || self.dirs.get(parent).is_none() || self.dirs.is_below(parent, id) {
            return Ok(false);
        }
        self.dirs.upsert(ino, parent, name);
        self.edit_attributes(ino, |attributes| attributes.parent = parent)?;
        Ok(true)
    }

    /// Changes what is known of one inode, with the sums that depend on it.
    fn edit_attributes(&mut self, ino: Inode, edit: impl FnOnce(&mut Attributes)) -> Result<(), StoreError> {
        let (number, offset) = place(ino);
        let Some(slot) = self.by_number.get(&number).copied() else {
            return Ok(());
        };
        let Some(page) = self.pages.get_mut(slot as usize) else {
            return Ok(());
        };
        let Some(rank) = page.rank(offset) else {
            return Ok(());
        };
        let mut all = page.all_attributes()?;
        if let Some(known) = all.get_mut(rank) {
            let old = *known;
            edit(known);
            self.totals.add(known);
            self.totals.subtract(&old);
            let used = page.known_use(rank);
            self.account.change(slot, Some((&old, used)), Some((known, used)));
            if old.parent != known.parent {
                self.dirs.count_child(old.parent, false);
                self.dirs.count_child(known.parent, true);
            }
        }
        page.set_all_attributes(&all, &mut self.scratch);
        if page.dirty != Dirty::default() {
            self.dirty.insert(slot);
        }
        Ok(())
    }

    /// Notes what listing a directory found out: whether something in it could not be read, and whether something is
    /// mounted in it.
    pub fn set_listed(&mut self, id: DirId, unreadable: bool, has_mounts: bool) {
        self.dirs.set_state(id, unreadable, has_mounts);
        if let Some(scan) = &self.scan {
            let number = scan.number;
            self.dirs.set_listed(id, number);
        }
    }

    /// Something in a directory could not be read: it stays, whatever is known of it, until a scan lists it.
    pub fn doubt_dir(&mut self, id: DirId) {
        let has_mounts = self.dirs.get(id).is_some_and(|d| d.has_mounts);
        self.dirs.set_state(id, true, has_mounts);
    }

    /// Something is mounted in a directory.
    pub fn note_mount(&mut self, id: DirId) {
        let unreadable = self.dirs.get(id).is_some_and(|d| d.unreadable);
        self.dirs.set_state(id, unreadable, true);
    }

    fn page_slot(&mut self, number: u64) -> u32 {
        let next = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        let slot = *self.by_number.entry(number).or_insert(next);
        if slot == next {
            self.pages.push(Page::new(number));
        }
        slot
    }

    // ------------------------------------------------------------ scans

    /// A scan begins: from now on changes beside it are remembered. `number` tells it from every earlier one; `whole`
    /// says that it walks the whole volume.
    pub fn start_scan(&mut self, number: u32, whole: bool) {
        self.pages.iter_mut().for_each(|p| p.seen = 0);
        self.dirs.keep_ids(true);
        self.awaits_scan = false;
        self.scan = Some(ScanState {
            number,
            whole,
            touched: FxHashSet::default(),
        });
    }

    /// Whether a scan is running.
    pub fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Whether more files were used during this scan than can be remembered one by one: everything found from now
    /// on must count as used.
    pub fn early_uses_overflowed(&self) -> bool {
        self.early.len() >= EARLY_USES_MAX
    }

    /// The directories that the running scan has not listed yet.
    pub fn unlisted(&self) -> Vec<DirId> {
        self.scan
            .as_ref()
            .map(|s| self.dirs.not_listed_by(s.number))
            .unwrap_or_default()
    }

    /// The scan is over. If it saw everything (`complete`), entries that it did not see and that no event touched
    /// are gone, and are forgotten. Returns how many.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn end_scan(&mut self, complete: bool) -> Result<usize, StoreError> {
        let Some(scan) = self.scan.take() else {
            return Ok(0);
        };
        self.dirs.keep_ids(false);
        self.early = FxHashMap::default();
        if !complete {
            return Ok(0);
        }
        self.remembered = Remembered::default();
        let root = self.dirs.get(DirId::ROOT).map(|d| d.ino);
        // Not seen is not gone: what lies below an unreadable directory stays as it was.
        let hidden = self
            .dirs
            .inherit(false, |_, dir, parent_is| parent_is || dir.unreadable);
        let root_hidden = self.dirs.get(DirId::ROOT).is_some_and(|d| d.unreadable);
        let is_hidden = |id: DirId| root_hidden || hidden.get(id.index()).copied().unwrap_or(false);
        let mut gone = Vec::new();
        for page in self.pages.iter().filter(|p| p.present & !p.seen != 0) {
            let mut reader = page.reader();
            for ino in page.inodes() {
                let attributes = reader.next_entry()?;
                let unseen = page.seen & (1 << place(ino).1) == 0;
                if unseen
                    && !scan.touched.contains(&ino)
                    && Some(ino) != root
                    && !is_hidden(attributes.parent)
                {
                    gone.push(ino);
                }
            }
        }
        self.remove(&gone)?;
        Ok(gone.len())
    }

    // ------------------------------------------------------------ writing back

    /// Bytes of file names that wait to be written back: what grows fastest during a scan.
    pub fn pending_name_bytes(&self) -> usize {
        self.names.pending_bytes()
    }

    /// Collects everything that differs from the store. Give the result to [`WriteBack::commit`] without holding
    /// the index, then tell [`Index::written_back`].
    pub fn start_write_back(&mut self) -> WriteBack {
        let mut rows = Vec::with_capacity(self.dirty.len() * 2);
        for slot in std::mem::take(&mut self.dirty) {
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
        for number in names.keys() {
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
    names: Arc<FxHashMap<u64, Vec<u8>>>,
    record: Option<(Vec<u8>, Vec<u8>)>,
}

/// Rows of one batch. Measured: sled took 200 MB for a batch of 16,000 rows of 1 KB, and 50 MB for the same rows in
/// batches of 2,000.
const ROWS_PER_BATCH: usize = 1000;

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
        self.rows.extend(
            self.names
                .iter()
                .map(|(number, row)| (*number, Row::Names, pack_names(row))),
        );
        // Neighbours go together: the store touches each of its own pages once.
        self.rows
            .sort_unstable_by_key(|(number, row, _)| (*row == Row::Directories, *number));
        let mut batch = Batch::default();
        let mut filled = 0;
        let mut last = None;
        for (number, row, value) in self.rows {
            if filled >= ROWS_PER_BATCH && last != Some(number) {
                self.store.apply(std::mem::take(&mut batch))?;
                filled = 0;
            }
            batch.put_row(row, self.volume, number, &value);
            last = Some(number);
            filled += 1;
        }
        if let Some((name, record)) = self.record {
            batch.put(Record::Volume, &name, &record);
        }
        self.store.apply(batch)?;
        self.store.flush()
    }
}

impl Totals {
    fn add(&mut self, a: &Attributes) {
        match a.kind {
            Kind::File => {
                self.files = self.files.saturating_add(1);
                self.bytes = self.bytes.saturating_add(a.size);
            }
            Kind::Directory => self.directories = self.directories.saturating_add(1),
            Kind::Symlink | Kind::Special => {}
        }
    }

    fn subtract(&mut self, a: &Attributes) {
        match a.kind {
            Kind::File => {
                self.files = self.files.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(a.size);
            }
            Kind::Directory => self.directories = self.directories.saturating_sub(1),
            Kind::Symlink | Kind::Special => {}
        }
    }
}

fn attributes_of(stat: &Stat, parent: DirId) -> Attributes {
    Attributes {
        parent,
        kind: stat.kind,
        size: stat.size,
        allocated: stat.allocated,
        project: stat.project,
        uid: stat.uid,
        gid: stat.gid,
        links: stat.links,
        mtime: stat.mtime,
        ctime: stat.ctime,
        ctime_nanos: stat.ctime_nanos,
        birth: stat.birth,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn stat(ino: Inode, kind: Kind, size: u64, birth: u32) -> Stat {
        let at = Seconds(birth);
        Stat {
            ino,
            kind,
            size,
            allocated: size.next_multiple_of(512),
            project: 0,
            uid: 1,
            gid: 2,
            links: 1,
            atime: at,
            mtime: at,
            ctime: at,
            ctime_nanos: 0,
            birth: at,
        }
    }

    fn found(ino: Inode, size: u64, name: &[u8]) -> Found<'_> {
        let first_use = LastUse {
            at: Seconds(5),
            source: Source::Baseline,
        };
        Found {
            stat: stat(ino, Kind::File, size, 1),
            parent: DirId::ROOT,
            name,
            first_use,
        }
    }

    fn empty() -> (Store, Index) {
        let store = Store::temporary().unwrap();
        let mut index = Index::new(store.clone(), VolumeId(1));
        index.set_root(&stat(2, Kind::Directory, 0, 1));
        (store, index)
    }

    fn save(index: &mut Index) {
        index.start_write_back().commit().unwrap();
        index.written_back(true);
    }

    #[test]
    fn a_use_never_moves_backwards_and_can_be_taken_back_only_at_once() {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        let before = index.record_use(70, Seconds(9)).unwrap();
        assert_eq!(
            index.last_use(70).unwrap(),
            LastUse {
                at: Seconds(9),
                source: Source::Observed
            }
        );
        index.record_use(70, Seconds(7));
        assert_eq!(index.last_use(70).unwrap().at, Seconds(9));
        index.record_use(70, Seconds(11));
        index.take_back_use(70, Seconds(9), before);
        assert_eq!(index.last_use(70).unwrap().at, Seconds(11));
        index.take_back_use(70, Seconds(11), before);
        assert_eq!(index.last_use(70).unwrap(), before);
    }

    #[test]
    fn a_file_used_before_the_scan_finds_it_keeps_that_use() {
        let (_, mut index) = empty();
        index.start_scan(1, true);
        assert_eq!(index.record_use(70, Seconds(9)), None);
        index.upsert_scanned(&mut [found(70, 1, b"a")]).unwrap();
        assert_eq!(
            index.last_use(70).unwrap(),
            LastUse {
                at: Seconds(9),
                source: Source::Observed
            }
        );
    }

    #[test]
    fn what_an_event_removed_is_not_brought_back_by_a_stale_listing() {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        index.start_scan(1, true);
        index.remove_name(70, DirId::ROOT, b"a").unwrap();
        let doubtful = index.upsert_scanned(&mut [found(70, 1, b"a")]).unwrap();
        assert_eq!((doubtful.len(), index.get(70)), (1, None));
    }

    #[test]
    fn a_scan_forgets_what_is_gone_but_not_what_it_could_not_read() {
        let (_, mut index) = empty();
        let first_use = LastUse {
            at: Seconds(5),
            source: Source::Baseline,
        };
        let dir = Found {
            stat: stat(80, Kind::Directory, 0, 1),
            parent: DirId::ROOT,
            name: b"d",
            first_use,
        };
        index.upsert(dir).unwrap();
        let id = index.dirs().of_inode(80).unwrap();
        index.upsert(found(70, 1, b"gone")).unwrap();
        index
            .upsert(Found {
                parent: id,
                ..found(71, 1, b"hidden")
            })
            .unwrap();
        index.start_scan(1, true);
        index.upsert_scanned(&mut [dir]).unwrap();
        index.set_listed(DirId::ROOT, false, false);
        index.set_listed(id, true, false);
        assert_eq!(index.end_scan(true).unwrap(), 1);
        assert!(index.get(70).is_none() && index.get(71).is_some());
    }

    #[test]
    fn another_file_with_the_same_inode_inherits_nothing() {
        let (_, mut index) = empty();
        index.upsert(found(70, 1, b"a")).unwrap();
        index.record_use(70, Seconds(3));
        let reused = Found {
            stat: stat(70, Kind::File, 9, 50),
            ..found(70, 9, b"b")
        };
        index.upsert(reused).unwrap();
        assert_eq!(
            index.last_use(70).unwrap(),
            LastUse {
                at: Seconds(5),
                source: Source::Baseline
            }
        );
        assert_eq!(index.names(70).unwrap(), vec![(DirId::ROOT, b"b".to_vec())]);
        assert_eq!(index.totals().files, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is done to the index, it holds what a map holds, and so does what is loaded from the store.
        #[test]
        fn the_index_equals_a_map_also_after_a_restart(
            steps in prop::collection::vec((0u8..4, 60u64..200, 0u64..1000, 10u32..1000, any::<bool>()), 0..80)
        ) {
            let (store, mut index) = empty();
            let mut model: BTreeMap<Inode, (u64, u32)> = BTreeMap::new();
            for (what, ino, size, at, save_now) in steps {
                let name = format!("n{ino}");
                match what {
                    0 | 1 => {
                        index.upsert(found(ino, size, name.as_bytes())).unwrap();
                        model.entry(ino).or_insert((0, 5)).0 = size;
                    }
                    2 => {
                        index.record_use(ino, Seconds(at));
                        model.entry(ino).and_modify(|m| m.1 = m.1.max(at));
                    }
                    _ => {
                        index.remove(&[ino]).unwrap();
                        model.remove(&ino);
                    }
                }
                if save_now {
                    save(&mut index);
                }
            }
            save(&mut index);
            for index in [&index, &Index::load(store, VolumeId(1)).unwrap()] {
                for ino in 60..200 {
                    let got = index.get(ino).map(|(a, last)| (a.size, last.at.0));
                    prop_assert_eq!(got, model.get(&ino).copied());
                    let names = index.names(ino).unwrap().len();
                    prop_assert_eq!(names, usize::from(model.contains_key(&ino)));
                }
                prop_assert_eq!(index.totals().files, model.len() as u64);
                prop_assert_eq!(index.totals().bytes, model.values().map(|m| m.0).sum::<u64>());
                prop_assert_eq!(u64::from(index.dirs().children_table()[0]), model.len() as u64 + 1);
            }
        }
    }
}
