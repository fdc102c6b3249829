//! The clock column with its coverage, outside the store: what no scan can bring back.
//!
//! Two files, `clocks.0` and `clocks.1`, written in turn, each replaced atomically: there is always a whole one. An
//! entry is believed only of the same inode with the same birth, so another file that has taken the inode inherits
//! nothing.
//!
//! ```text
//! file   frames (see `frame`): head, pages*, end
//! head   kind:u8=11 version:u8  identity  number  taken  journal  record     (integers: varints; record: the rest)
//! pages  kind:u8=12  { page~  n x birth~  clock row as in `codec` }          length of a clock row follows from its bits
//! end    kind:u8=13  entries
//! ```
//! `number` grows with each checkpoint; `journal` is the last journal segment that it covers; `record` is what the store
//! remembers of the volume.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use rustc_hash::FxHashMap;

use super::codec::{Cursor, Damaged, put_clocks, put_signed, put_varint, read_clocks};
use super::frame::{Frames, put_frame};
use super::journal::{Entry, Identity};
use super::page::{PageView, place};
use crate::model::{Inode, LastUse, Seconds, Source};

const VERSION: u8 = 1;
const HEAD: u8 = 11;
const PAGES: u8 = 12;
const END: u8 = 13;
const FILES: [&str; 2] = ["clocks.0", "clocks.1"];

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of which file system.
    pub identity: Identity,
    /// Grows with each checkpoint.
    pub number: u64,
    /// When it was begun.
    pub taken: Seconds,
    /// The last journal segment that it covers.
    pub journal: u64,
    /// What the store remembers of the volume, as it stands there.
    pub record: Vec<u8>,
}

/// Clocks that were remembered, until a scan finds their files again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    pages: FxHashMap<u64, Clocks>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clocks {
    present: u64,
    births: Box<[u32]>,
    clocks: Box<[u32]>,
    sources: Box<[u8]>,
}

impl Clocks {
    fn rank(&self, ino: Inode) -> Option<usize> {
        let bit = 1u64 << place(ino).1;
        (self.present & bit != 0).then(|| (self.present & (bit - 1)).count_ones() as usize)
    }
}

impl Remembered {
    /// The last use of the file with this inode and birth.
    pub fn last_use(&self, ino: Inode, birth: Seconds) -> Option<LastUse> {
        let page = self.pages.get(&place(ino).0)?;
        let rank = page.rank(ino)?;
        if *page.births.get(rank)? != birth.0 {
            return None;
        }
        Some(LastUse {
            at: Seconds(*page.clocks.get(rank)?),
            source: Source::from_u8(*page.sources.get(rank)?)?,
        })
    }

    /// Uses that came after the checkpoint. `late` is how long a use may have been hidden by a precision window; nothing
    /// is put later than `now`.
    pub fn replay(&mut self, entry: &Entry, late: u64, now: Seconds) {
        let Entry::Uses(at, inodes) = entry else { return };
        let at = at.plus(late).min(now);
        for ino in inodes {
            let Some(page) = self.pages.get_mut(&place(*ino).0) else {
                continue;
            };
            let Some(rank) = page.rank(*ino) else { continue };
            if let (Some(clock), Some(source)) = (page.clocks.get_mut(rank), page.sources.get_mut(rank))
                && *clock <= at.0
            {
                (*clock, *source) = (at.0, Source::Observed as u8);
            }
        }
    }

    /// Observed uses after `since` may have been followed by hidden ones: they count as `late` seconds later, but not
    /// later than `now`; nothing else lies ahead of `now` either.
    pub fn delay(&mut self, since: Seconds, late: u64, now: Seconds) {
        for page in self.pages.values_mut() {
            for (clock, source) in page.clocks.iter_mut().zip(&page.sources) {
                if *source == Source::Observed as u8 && *clock >= since.0 {
                    *clock = Seconds(*clock).plus(late).0;
                }
                *clock = (*clock).min(now.0);
            }
        }
    }

    /// How many files are remembered.
    pub fn len(&self) -> usize {
        self.pages.values().map(|p| p.present.count_ones() as usize).sum()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Remembers one file.
    #[cfg(test)]
    fn put(&mut self, ino: Inode, birth: u32, last: LastUse) {
        let page = Clocks {
            present: 1 << place(ino).1,
            births: [birth].into(),
            clocks: [last.at.0].into(),
            sources: [last.source as u8].into(),
        };
        self.pages.insert(place(ino).0, page);
    }
}

/// Bytes that are gathered for one write.
const BUFFER_BYTES: usize = 1 << 20;

/// A checkpoint that is being written.
#[derive(Debug)]
pub struct Writer<'a> {
    dir: &'a Path,
    number: u64,
    out: BufWriter<File>,
    body: Vec<u8>,
    page: u64,
    frame: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl<'a> Writer<'a> {
    /// Begins the checkpoint `head` in `dir`.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn begin(dir: &'a Path, head: &Head) -> io::Result<Self> {
        let mut writer = Self {
            dir,
            number: head.number,
            out: BufWriter::with_capacity(BUFFER_BYTES, File::create(dir.join("clocks.new"))?),
            body: Vec::new(),
            page: 0,
            frame: Vec::new(),
            entries: 0,
            bytes: 0,
        };
        put_head(&mut writer.frame, head);
        writer.write_frame()?;
        Ok(writer)
    }

    /// Adds a page to the frame in hand, in memory. A page whose attributes cannot be read is left out: its files count as
    /// new if the store is lost.
    pub fn page(&mut self, page: &PageView<'_>) {
        let mut attributes = page.attributes();
        let births: Result<Vec<u32>, _> = page
            .inodes()
            .map(|_| attributes.next_entry().map(|a| a.birth.0))
            .collect();
        let Ok(births) = births else { return };
        if births.is_empty() {
            return;
        }
        put_page(&mut self.body, &mut self.page, page, &births);
        self.entries = self.entries.saturating_add(births.len() as u64);
    }

    /// Writes the frame in hand. Call it every few thousand pages.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end_frame(&mut self) -> io::Result<()> {
        let body = std::mem::take(&mut self.body);
        if !body.is_empty() {
            put_frame(&mut self.frame, |out| {
                out.push(PAGES);
                out.extend_from_slice(&body);
            });
            self.write_frame()?;
        }
        self.body = body;
        self.body.clear();
        self.page = 0;
        Ok(())
    }

    fn write_frame(&mut self) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(self.frame.len() as u64);
        let written = self.out.write_all(&self.frame);
        self.frame.clear();
        written
    }

    /// Makes it durable and puts it in the older one's place. Returns its size in bytes.
    ///
    /// # Errors
    /// When it cannot be written: the older ones are as they were.
    pub fn finish(mut self) -> io::Result<u64> {
        self.end_frame()?;
        let entries = self.entries;
        put_end(&mut self.frame, entries);
        self.write_frame()?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let name = FILES.get(usize::from(self.number % 2 == 1)).unwrap_or(&FILES[0]);
        fs::rename(self.dir.join("clocks.new"), self.dir.join(name))?;
        File::open(self.dir)?.sync_all()?;
        Ok(self.bytes)
    }
}

fn put_head(out: &mut Vec<u8>, head: &Head) {
    put_frame(out, |body| {
        body.extend_from_slice(&[HEAD, VERSION]);
        head.identity.put(body);
        put_varint(body, head.number);
        put_varint(body, head.taken.0.into());
        put_varint(body, head.journal);
        body.extend_from_slice(&head.record);
    });
}

fn put_page(out: &mut Vec<u8>, before: &mut u64, page: &PageView<'_>, births: &[u32]) {
    put_signed(out, page.number().wrapping_sub(*before).cast_signed());
    *before = page.number();
    let mut birth = 0u32;
    let mut row = Vec::new();
    put_clocks(&mut row, page.present(), page.clocks(), page.sources());
    out.extend_from_slice(&row);
    for b in births {
        put_signed(out, i64::from(*b) - i64::from(birth));
        birth = *b;
    }
}

fn put_end(out: &mut Vec<u8>, entries: u64) {
    put_frame(out, |body| {
        body.push(END);
        put_varint(body, entries);
    });
}

/// Reads a checkpoint. None unless it is whole.
pub fn read(bytes: &[u8]) -> Option<(Head, Remembered)> {
    let mut frames = Frames::new(bytes);
    let head = read_head(frames.next()?).ok()?;
    let (mut remembered, mut entries) = (Remembered::default(), 0u64);
    while let Some(body) = frames.next() {
        match body.split_first()? {
            (&PAGES, pages) => entries = entries.checked_add(read_pages(pages, &mut remembered).ok()?)?,
            (&END, end) => {
                let said = Cursor::new(end, "checkpoint").varint().ok()?;
                return (said == entries && frames.next().is_none() && !frames.is_torn())
                    .then_some((head, remembered));
            }
            _ => return None,
        }
    }
    None
}

/// Reads only what a checkpoint says of itself.
fn read_head(body: &[u8]) -> Result<Head, Damaged> {
    let mut from = Cursor::new(body, "checkpoint");
    if (from.byte()?, from.byte()?) != (HEAD, VERSION) {
        return Err(Damaged {
            row: "checkpoint",
            at: 0,
        });
    }
    Ok(Head {
        identity: Identity::read(&mut from)?,
        number: from.varint()?,
        taken: Seconds(from.varint32()?),
        journal: from.varint()?,
        record: from.rest().to_vec(),
    })
}

fn read_pages(body: &[u8], into: &mut Remembered) -> Result<u64, Damaged> {
    let mut from = Cursor::new(body, "checkpoint");
    let (mut number, mut entries) = (0u64, 0u64);
    while !from.is_empty() {
        number = number.wrapping_add_signed(from.signed()?);
        let mut ahead = from.clone();
        let bits = ahead.take(8)?;
        let count = u64::from_le_bytes(bits.try_into().unwrap_or_default()).count_ones() as usize;
        let (present, clocks, sources) = read_clocks(from.take(8 + count * 5)?)?;
        let mut birth = 0i64;
        let mut births = Vec::with_capacity(count);
        for _ in 0..count {
            birth = birth.wrapping_add(from.signed()?);
            let b = u32::try_from(birth).map_err(|_| Damaged {
                row: "checkpoint",
                at: births.len(),
            })?;
            births.push(b);
        }
        entries = entries.saturating_add(count as u64);
        let page = Clocks {
            present,
            births: births.into(),
            clocks: clocks.into(),
            sources: sources.into(),
        };
        into.pages.insert(number, page);
    }
    Ok(entries)
}

/// The heads of the checkpoints in `dir` whose first frame can be read, newest first, with their files' names.
fn heads(dir: &Path) -> Vec<(Head, &'static str)> {
    let mut heads: Vec<_> = FILES
        .into_iter()
        .filter_map(|name| {
            // A head is short: its record holds a hundred gaps at most.
            let mut start = vec![0; 1 << 16];
            let read = std::os::unix::fs::FileExt::read_at(&File::open(dir.join(name)).ok()?, &mut start, 0);
            start.truncate(read.ok()?);
            let head = read_head(Frames::new(&start).next()?).ok()?;
            Some((head, name))
        })
        .collect();
    heads.sort_by_key(|(head, _)| std::cmp::Reverse(head.number));
    heads
}

/// The newest checkpoint's own words, for this file system, without its clocks.
pub fn newest_head(dir: &Path, identity: Identity) -> Option<Head> {
    let newest = heads(dir).into_iter().map(|(head, _)| head);
    newest.into_iter().find(|head| head.identity == identity)
}

/// Whether there is a checkpoint, readable or not, of whatever file system.
pub fn exists(dir: &Path) -> bool {
    FILES.iter().any(|name| dir.join(name).exists())
}

/// The number that the next checkpoint gets: beyond every file that is there.
pub fn next_number(dir: &Path) -> u64 {
    heads(dir).first().map_or(1, |(h, _)| h.number.saturating_add(1))
}

/// The newest whole checkpoint of this file system, and whether it is the newest that was written.
pub fn recall(dir: &Path, identity: Identity) -> Option<(Head, Remembered, bool)> {
    let mut is_newest = true;
    for (head, name) in heads(dir) {
        let whole = fs::read(dir.join(name)).ok().and_then(|bytes| read(&bytes));
        if let Some((_, remembered)) = whole.filter(|(h, _)| h.identity == identity && *h == head) {
            return Some((head, remembered, is_newest));
        }
        is_newest = false;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::DirId;
    use super::super::store::{Store, VolumeId};
    use super::super::table::{Found, Index};
    use super::*;
    use crate::model::{Kind, Stat};
    use proptest::prelude::*;

    const ME: Identity = Identity {
        magic: 0xEF53,
        root: 2,
        birth: Seconds(7),
    };

    fn head(number: u64) -> Head {
        Head {
            identity: ME,
            number,
            taken: Seconds(100),
            journal: 3,
            record: vec![1, 2, 3],
        }
    }

    fn found(ino: Inode, kind: Kind, birth: u32, at: u32, name: &[u8]) -> Found<'_> {
        let t = Seconds(birth);
        Found {
            stat: Stat {
                ino,
                kind,
                size: 1,
                allocated: 512,
                project: 0,
                uid: 0,
                gid: 0,
                links: 1,
                atime: t,
                mtime: t,
                ctime: t,
                ctime_nanos: 0,
                birth: t,
            },
            parent: DirId::ROOT,
            name,
            first_use: LastUse {
                at: Seconds(at),
                source: Source::Observed,
            },
        }
    }

    fn index(files: &[(Inode, u32, u32)]) -> Index {
        let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
        index.set_root(&found(2, Kind::Directory, 7, 0, b"").stat);
        for (ino, birth, at) in files {
            let name = format!("n{ino}");
            index
                .upsert(found(*ino, Kind::File, *birth, *at, name.as_bytes()))
                .unwrap();
        }
        index
    }

    fn write(dir: &Path, number: u64, files: &[(Inode, u32, u32)]) {
        let index = index(files);
        let mut writer = Writer::begin(dir, &head(number)).unwrap();
        index.pages().for_each(|p| writer.page(&p));
        writer.finish().unwrap();
    }

    #[test]
    fn the_newest_whole_one_is_recalled_and_damage_falls_back_to_the_other() {
        let dir = tempfile::tempdir().unwrap();
        assert!(recall(dir.path(), ME).is_none());
        write(dir.path(), 1, &[(70, 5, 10)]);
        write(dir.path(), 2, &[(70, 5, 20)]);
        let (h, remembered, newest) = recall(dir.path(), ME).unwrap();
        assert_eq!((h, newest), (head(2), true));
        assert_eq!(remembered.last_use(70, Seconds(5)).unwrap().at, Seconds(20));
        assert_eq!(
            remembered.last_use(70, Seconds(6)),
            None,
            "another file has the inode"
        );
        assert_eq!(next_number(dir.path()), 3);
        let file = dir.path().join(FILES[0]);
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.len() - 20;
        bytes[at] ^= 4;
        fs::write(&file, bytes).unwrap();
        let (h, remembered, newest) = recall(dir.path(), ME).unwrap();
        assert_eq!((h.number, newest), (1, false));
        assert_eq!(remembered.last_use(70, Seconds(5)).unwrap().at, Seconds(10));
        assert!(recall(dir.path(), Identity { root: 9, ..ME }).is_none());
    }

    #[test]
    fn later_uses_are_replayed_late_but_never_ahead_of_now() {
        let mut remembered = Remembered::default();
        let last = LastUse {
            at: Seconds(50),
            source: Source::Mtime,
        };
        remembered.put(70, 5, last);
        remembered.replay(&Entry::Uses(Seconds(60), vec![70, 71]), 10, Seconds(1000));
        assert_eq!(remembered.last_use(70, Seconds(5)).unwrap().at, Seconds(70));
        remembered.delay(Seconds(65), 100, Seconds(120));
        assert_eq!(remembered.last_use(70, Seconds(5)).unwrap().at, Seconds(120));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_clock_comes_back_and_no_cut_file_is_believed(
            files in prop::collection::btree_map(10u64..1_000_000, (any::<u32>(), any::<u32>()), 0..60), cut: prop::sample::Index
        ) {
            let dir = tempfile::tempdir().unwrap();
            let files: Vec<_> = files.into_iter().map(|(ino, (birth, at))| (ino, birth, at)).collect();
            write(dir.path(), 1, &files);
            let bytes = fs::read(dir.path().join(FILES[1])).unwrap();
            let (h, remembered) = read(&bytes).unwrap();
            prop_assert_eq!(h, head(1));
            prop_assert_eq!(remembered.len(), files.len() + 1);
            for (ino, birth, at) in files {
                prop_assert_eq!(remembered.last_use(ino, Seconds(birth)).unwrap().at.0, at);
            }
            prop_assert!(read(&bytes[..cut.index(bytes.len())]).is_none());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let mut framed = Vec::new();
            put_head(&mut framed, &head(1));
            put_frame(&mut framed, |b| { b.push(PAGES); b.extend_from_slice(&bytes) });
            put_end(&mut framed, 1);
            let _ = read(&framed);
        }
    }
}
