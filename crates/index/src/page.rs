//! One page of the index in memory: 64 consecutive inodes, as many entries as there are files.
//!
//! The clock column (access times and who says so) lies open, ready for a linear scan. Attributes stay encoded as
//! they are on disk: about ten bytes a file instead of forty, and loading is a copy. Memory follows the number of
//! files, not of inode numbers, so a sparse inode space costs no more than a page head for each file.

use super::codec::{AttributeReader, Attributes, PAGE_INODES, put_attributes};
use purge_format::Damaged;
use purge_model::{Inode, LastUse, Seconds, Source};

/// Which of a page's rows differ from the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dirty {
    pub clocks: bool,
    pub attributes: bool,
}

#[derive(Debug, Default)]
pub(super) struct Page {
    /// `inode / 64`.
    pub number: u64,
    /// Which offsets have an entry.
    pub present: u64,
    /// Which offsets the running scan has found.
    pub seen: u64,
    pub clocks: Vec<u32>,
    pub sources: Vec<u8>,
    pub attributes: Box<[u8]>,
    pub dirty: Dirty,
    /// A name row of this page is in the store.
    pub names_stored: bool,
}

/// The page of an inode, and its offset there.
pub(super) fn place(ino: Inode) -> (u64, u8) {
    (ino / PAGE_INODES, (ino % PAGE_INODES) as u8)
}

impl Page {
    pub fn new(number: u64) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    pub fn len(&self) -> usize {
        self.present.count_ones() as usize
    }

    /// Where the entry of `offset` stands among the entries.
    #[inline]
    pub fn rank(&self, offset: u8) -> Option<usize> {
        let bit = 1u64 << offset;
        (self.present & bit != 0).then(|| (self.present & (bit - 1)).count_ones() as usize)
    }

    /// The inodes of the entries, in the order of the entries.
    pub fn inodes(&self) -> impl Iterator<Item = Inode> + use<> {
        let (mut left, base) = (self.present, self.number * PAGE_INODES);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let offset = left.trailing_zeros();
            left &= left - 1;
            Some(base + u64::from(offset))
        })
    }

    pub fn last_use(&self, rank: usize) -> Option<LastUse> {
        let source = Source::from_u8(*self.sources.get(rank)?)?;
        Some(LastUse {
            at: Seconds(*self.clocks.get(rank)?),
            source,
        })
    }

    /// The last use of the entry at `rank`. A source without meaning cannot be loaded; if it could, it would be doubt.
    #[inline]
    pub fn known_use(&self, rank: usize) -> LastUse {
        self.last_use(rank).unwrap_or(LastUse {
            at: Seconds::MAX,
            source: Source::Gap,
        })
    }

    #[inline]
    pub fn set_last_use(&mut self, rank: usize, last: LastUse) {
        if let (Some(clock), Some(source)) = (self.clocks.get_mut(rank), self.sources.get_mut(rank)) {
            *clock = last.at.0;
            *source = last.source as u8;
            self.dirty.clocks = true;
        }
    }

    pub fn reader(&self) -> AttributeReader<'_> {
        AttributeReader::new(&self.attributes)
    }

    /// The attributes of the entry at `rank`.
    pub fn attributes_at(&self, rank: usize) -> Result<Attributes, Damaged> {
        let mut reader = self.reader();
        for _ in 0..rank {
            reader.next_entry()?;
        }
        reader.next_entry()
    }

    /// All attributes, in the order of the entries, into memory that is there.
    pub fn unpack(&self, all: &mut Vec<Attributes>) -> Result<(), Damaged> {
        all.clear();
        all.reserve(self.len());
        let mut reader = self.reader();
        for _ in 0..self.len() {
            all.push(reader.next_entry()?);
        }
        Ok(())
    }

    pub fn set_all_attributes(&mut self, all: &[Attributes], scratch: &mut Vec<u8>) {
        scratch.clear();
        put_attributes(scratch, all.iter());
        if *scratch != *self.attributes {
            self.attributes = scratch.as_slice().into();
            self.dirty.attributes = true;
        }
    }

    /// Makes room for an entry at `offset`, which has none, and returns where it stands.
    pub fn insert_clock(&mut self, offset: u8, last: LastUse) -> usize {
        self.present |= 1u64 << offset;
        let rank = self.rank(offset).unwrap_or(0);
        // Pages fill up once and then stay: exact growth keeps memory at what the files need.
        if self.clocks.len() == self.clocks.capacity() {
            let more = if self.clocks.len() < 8 { 4 } else { 16 };
            self.clocks.reserve_exact(more);
            self.sources.reserve_exact(more);
        }
        self.clocks.insert(rank.min(self.clocks.len()), last.at.0);
        self.sources
            .insert(rank.min(self.sources.len()), last.source as u8);
        self.dirty.clocks = true;
        rank
    }

    /// Takes the clock of `offset` away and returns where it stood.
    pub fn remove_clock(&mut self, offset: u8) -> Option<usize> {
        let rank = self.rank(offset)?;
        self.present &= !(1u64 << offset);
        self.seen &= !(1u64 << offset);
        if rank < self.clocks.len() {
            self.clocks.remove(rank);
            self.sources.remove(rank);
        }
        self.dirty.clocks = true;
        Some(rank)
    }
}

/// One page, for readers.
pub struct PageView<'a>(&'a Page);

impl<'a> PageView<'a> {
    pub(super) fn of(page: &'a Page) -> Self {
        Self(page)
    }

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
