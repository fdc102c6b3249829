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

mod format;
mod remembered;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use self::format::{Head, read};
use self::format::{PAGES, put_end, put_head, put_page, read_head};
pub use self::remembered::Remembered;
use super::PageView;
use super::journal::Identity;
use purge_format::frame::{Frames, put_frame};

const FILES: [&str; 2] = ["clocks.0", "clocks.1"];

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
            out: BufWriter::with_capacity(BUFFER_BYTES, purge_sys::private::create(&dir.join("clocks.new"))?),
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

    /// Adds a page to the current frame, in memory. A page whose attributes cannot be read is left out: its files count as
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

    /// Writes the current frame. Call it every few thousand pages.
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
    newest.into_iter().find(|head| head.identity.is(identity))
}

/// Whether there is a checkpoint, readable or not, of any file system.
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
        if let Some((_, remembered)) = whole.filter(|(h, _)| h.identity.is(identity) && *h == head) {
            return Some((head, remembered, is_newest));
        }
        is_newest = false;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::stat;
    use crate::{DirId, Found, Index, Store, VolumeId};
    use proptest::prelude::*;
    use purge_model::{Inode, Kind, LastUse, Seconds, Source};

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

    fn index(files: &[(Inode, u32, u32)]) -> Index {
        let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
        index.set_root(&stat(2, Kind::Directory, 0, 7));
        for (ino, birth, at) in files {
            let name = format!("n{ino}");
            let first_use = LastUse {
                at: Seconds(*at),
                source: Source::Observed,
            };
            let found = Found {
                stat: stat(*ino, Kind::File, 1, *birth),
                parent: DirId::ROOT,
                name: name.as_bytes(),
                first_use,
            };
            index.upsert(found).unwrap();
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
    }    }
}
