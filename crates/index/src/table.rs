//! [`Index`]: one volume's files in memory, and every change that can be made to them.
//!
//! - this file      what there is, and reading it
//! - `loading`      from the store
//! - `uses`         last uses: recording, moving, taking back
//! - `behind`       clocks that moved before the sums did
//! - `entries`      entries that are found or changed
//! - `removal`      entries that go
//! - `scans`        what a scan must know of the changes beside it
//! - `write_back`   writing to the store what changed

mod behind;
mod entries;
mod loading;
mod removal;
mod scans;
mod uses;
mod write_back;

use rustc_hash::{FxHashMap, FxHashSet};

use self::behind::Behind;
use self::scans::ScanState;
pub use self::uses::Uses;
pub use self::write_back::WriteBack;
use super::account::{Account, Ledger};
use super::checkpoint::Remembered;
use super::codec::{Attributes, DirId};
use super::dirs::Directories;
pub use super::names::NAMES_MAX;
use super::names::Names;
use super::page::{Page, PageView, place};
use super::store::{Store, StoreError, VolumeId};
use purge_model::{Inode, Kind, LastUse, Seconds, Stat};

/// Sums over the volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Apparent bytes of the regular files.
    pub bytes: u64,
    /// What the regular files take on disk.
    pub allocated: u64,
    /// Of each regular file the smaller of both.
    pub takes: u64,
    /// Files with a time that lies ahead: see [`Ledger::ahead`].
    pub times_ahead: u64,
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
    /// Pages that differ from the store by what was removed alone: that is no knowledge of any use, and can wait.
    thinned: FxHashSet<u32>,
    scan: Option<ScanState>,
    /// Uses of inodes that are not in the index yet, while a scan may still find them.
    early: FxHashMap<Inode, Seconds>,
    /// The first scan is still to come: until it begins, uses of unknown files are remembered as well.
    awaits_scan: bool,
    /// Clocks from the time before the store was lost, until a scan has found their files.
    remembered: Remembered,
    scratch: Vec<u8>,
    /// A page's attributes while they are changed.
    unpacked: Vec<Attributes>,
    /// Clocks that moved before the sums did: nothing else of an entry changes as long as there are any.
    behind: Behind,
}

impl Index {
    /// Where it is stored.
    pub fn home(&self) -> (&Store, VolumeId) {
        (&self.store, self.volume)
    }

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
            thinned: FxHashSet::default(),
            scan: None,
            early: FxHashMap::default(),
            awaits_scan: false,
            remembered: Remembered::default(),
            scratch: Vec::new(),
            unpacked: Vec::new(),
            behind: Behind::default(),
        }
    }

    /// Sums over the volume.
    pub fn totals(&self) -> Totals {
        Totals {
            times_ahead: self.ledger().ahead(),
            ..self.totals
        }
    }

    /// Sums by owner, group, project and directory. Files and bytes are those of this moment, days and ages those of
    /// [`Ledger::as_of`], and ages may lack the uses of the last second, or of a storm that goes on.
    pub fn ledger(&self) -> &Ledger {
        self.account.ledger()
    }

    /// Begins to count everything again, as of another moment; the sums stay true meanwhile.
    pub fn begin_recount(&mut self, as_of: Seconds, gap_end: Option<Seconds>) {
        self.settle_uses();
        self.account.begin_recount(as_of, gap_end);
    }

    /// Counts this number of pages more. True when all are counted, and [`Index::ledger`] is the new one.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn recount_some(&mut self, pages: usize) -> Result<bool, StoreError> {
        self.settle_uses();
        let start = self.account.cursor();
        let end = start.saturating_add(pages).min(self.pages.len());
        if let Some(mut counting) = self.account.recounting() {
            for page in self.pages.get(start..end).unwrap_or(&[]) {
                let mut reader = page.reader();
                for rank in 0..page.len() {
                    counting.add(&reader.next_entry()?, page.known_use(rank));
                }
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
        self.pages.iter().filter(|p| p.present != 0).map(PageView::of)
    }

    /// All pages, cut into about `parts` equal runs for as many threads.
    pub fn page_runs(&self, parts: usize) -> Vec<impl Iterator<Item = PageView<'_>>> {
        let size = self.pages.len().div_ceil(parts.max(1)).max(1);
        self.pages
            .chunks(size)
            .map(|run| run.iter().filter(|p| p.present != 0).map(PageView::of))
            .collect()
    }

    /// A run of pages, for readers that let go of the index now and then. An empty run is the end.
    pub fn pages_from(&self, start: usize, count: usize) -> impl ExactSizeIterator<Item = PageView<'_>> {
        let end = start.saturating_add(count).min(self.pages.len());
        self.pages
            .get(start.min(end)..end)
            .unwrap_or(&[])
            .iter()
            .map(PageView::of)
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

    /// The names of one inode: directories and names there. For directories and files alike; of a file at most [`NAMES_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn names(&self, ino: Inode) -> Result<Vec<(DirId, Vec<u8>)>, StoreError> {
        match self.dirs.of_inode(ino).and_then(|id| self.dirs.get(id)) {
            Some(dir) => Ok(vec![(dir.parent, dir.name.to_vec())]),
            None => match self.find(ino) {
                Some((page, _)) => self.names.of_inode(page, ino),
                None => Ok(Vec::new()),
            },
        }
    }

    /// Whether a file has names that are not kept: it has, or had, more than [`NAMES_MAX`].
    pub fn has_more_names(&self, ino: Inode) -> bool {
        self.names.has_more(ino)
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
        let page = self
            .by_number
            .get(&number)
            .and_then(|slot| self.pages.get(*slot as usize));
        page.map_or(Ok(()), |page| {
            self.names.of_page(page, |e| each(e.offset, e.parent, e.name))
        })
    }

    fn find(&self, ino: Inode) -> Option<(&Page, usize)> {
        let (number, offset) = place(ino);
        let page = self.pages.get(*self.by_number.get(&number)? as usize)?;
        Some((page, page.rank(offset)?))
    }
}

impl Totals {
    fn add(&mut self, a: &Attributes) {
        match a.kind {
            Kind::File => {
                self.files = self.files.saturating_add(1);
                self.bytes = self.bytes.saturating_add(a.size);
                self.allocated = self.allocated.saturating_add(a.allocated);
                self.takes = self.takes.saturating_add(a.takes());
            }
            Kind::Directory => self.directories = self.directories.saturating_add(1),
            Kind::Symlink | Kind::Special => {}
        }
    }

    fn merge(&mut self, other: Self) {
        self.files = self.files.saturating_add(other.files);
        self.directories = self.directories.saturating_add(other.directories);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.allocated = self.allocated.saturating_add(other.allocated);
        self.takes = self.takes.saturating_add(other.takes);
    }

    fn subtract(&mut self, a: &Attributes) {
        match a.kind {
            Kind::File => {
                self.files = self.files.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(a.size);
                self.allocated = self.allocated.saturating_sub(a.allocated);
                self.takes = self.takes.saturating_sub(a.takes());
            }
            Kind::Directory => self.directories = self.directories.saturating_sub(1),
            Kind::Symlink | Kind::Special => {}
        }
    }
}
