//! The journal of uses: what was read from the kernel's queue is in the page cache before it is in the index, so that
//! a killed process loses nothing of it.
//!
//! One directory a volume, in segments:
//!
//! ```text
//! uses.N     uses that the store may not hold yet; N grows by one with every write-back
//! stored.N   the store holds them, durably, but no checkpoint does: needed when the store is lost
//! ```
//! A write-back begins with [`Journal::rotate`]; once it is durable, [`Journal::stored`] renames what it covers, and a
//! checkpoint removes it ([`Journal::covered`]). The numbers have no hole, so a missing segment is seen.
//!
//! ```text
//! segment  frames (see `frame`); the first is a head
//! head     kind:u8=1 version:u8  identity: magic inode birth      (integers: varints)
//! uses     kind:u8=2  at  { inode~ }                              x~: difference to the one before, zigzag
//! gap      kind:u8=3  at  cause                                   the rest of the body, UTF-8
//! seen     kind:u8=4  at                                          every use before then is recorded
//! ```

mod entries;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::entries::{Entry, Identity, put_entry, read_entry, read_segment};
use self::entries::{put_head, put_uses};
use purge_model::{Inode, Seconds};
use purge_sys::failure::{Defect, Failure};

/// A thread that holds the index waits for the journal no longer, nor does one that asks how it is.
const ROTATED_WITHIN: Duration = Duration::from_millis(500);
/// The disk lets an entry wait no longer, however busy it is.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// A frame holds at most this number of uses: a torn one loses no more.
const USES_PER_FRAME: usize = 8192;
/// Past this many bytes a checkpoint is wanted at once.
pub const BYTES_WANT_CHECKPOINT: u64 = 64 << 20;
/// Past this many bytes (checkpoints fail for days) segments that the store holds are given up: if the store is lost as
/// well, the stretch counts as a gap.
pub const BYTES_MAX: u64 = 512 << 20;

/// What an earlier process left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// What the store may not hold yet, oldest first.
    pub uses: Vec<Entry>,
    /// What the store holds and no checkpoint does, oldest first; empty numbers between them are holes.
    pub stored: Vec<(u64, PathBuf)>,
    /// Number of the newest segment that the store holds; 0: none.
    pub stored_until: u64,
    /// Number of the oldest segment there is; 0: none.
    pub oldest: u64,
    /// No number between the oldest and the newest is missing, and all could be read.
    pub whole: bool,
}

/// The journal of one volume, open for writing.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    identity: Identity,
    writing: Mutex<Writing>,
    /// Bytes in all segments.
    bytes: AtomicU64,
    /// Bytes written since the start.
    written: AtomicU64,
    /// Since when an entry is being written.
    since: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Writing {
    /// The segment that takes entries; made with the first one.
    number: u64,
    file: Option<File>,
    len: u64,
    trouble: Option<Defect>,
    /// Until when the last entry said that every use is recorded, and whether uses came since.
    seen: (Seconds, bool),
    /// Something that belongs into segments up to this one could not be written, and the store may not hold it yet.
    lacks: Option<u64>,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `dir` and reads what is left there of the volume.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, identity: Identity) -> io::Result<(Self, Left)> {
        purge_sys::private::dir(dir)?;
        let mut left = Left {
            whole: true,
            ..Left::default()
        };
        let mut found: Vec<(u64, bool, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some((number, is_stored)) = path.file_name().and_then(|n| parse(n.to_str()?)) {
                found.push((number, is_stored, path));
            }
        }
        found.sort();
        left.oldest = found.first().map_or(0, |f| f.0);
        let mut bytes = 0u64;
        let mut last = None;
        for (number, is_stored, path) in found {
            left.whole &= last.is_none_or(|l: u64| l.checked_add(1) == Some(number));
            last = Some(number);
            bytes = bytes.saturating_add(fs::metadata(&path)?.len());
            if is_stored {
                left.stored_until = number;
                left.stored.push((number, path));
                continue;
            }
            // A torn end is what a kill leaves of a write that was not acknowledged.
            let (entries, _) = read_segment(&fs::read(&path)?, identity);
            left.uses.extend(entries);
        }
        let journal = Self {
            dir: dir.to_owned(),
            identity,
            writing: Mutex::new(Writing {
                number: last.unwrap_or(0).saturating_add(1),
                file: None,
                len: 0,
                trouble: None,
                seen: (Seconds::MIN, false),
                lacks: None,
                buffer: Vec::new(),
            }),
            bytes: AtomicU64::new(bytes),
            written: AtomicU64::new(0),
            since: Mutex::default(),
        };
        Ok((journal, left))
    }

    /// Of which file system it speaks.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// No segment gets a number up to this one any more: a checkpoint covers them.
    pub fn begin_after(&self, number: u64) {
        let mut writing = self.writing.lock();
        if writing.file.is_none() {
            writing.number = writing.number.max(number.saturating_add(1));
        }
    }

    /// Records uses. What cannot be written is told by [`Journal::trouble`].
    pub fn uses(&self, at: Seconds, inodes: &[Inode]) {
        if !inodes.is_empty() {
            self.append(|out| inodes.chunks(USES_PER_FRAME).for_each(|c| put_uses(out, at, c)));
            self.writing.lock().seen.1 = true;
        }
    }

    /// Every use before `until` is recorded. Said when uses came since it was said last, once for each second: it costs
    /// nothing, and where nothing is used the volume's record is told often enough. Not said while something could
    /// not be written.
    pub fn seen(&self, until: Seconds) {
        {
            let mut writing = self.writing.lock();
            if !writing.seen.1 || until <= writing.seen.0 || writing.lacks.is_some() {
                return;
            }
            writing.seen = (until, false);
        }
        self.append(|out| put_entry(out, &Entry::Seen(until)));
    }

    /// Records that uses were lost.
    pub fn gap(&self, at: Seconds, cause: &str) {
        self.append(|out| put_entry(out, &Entry::Gap(at, cause.into())));
    }

    fn append(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut writing = self.writing.lock();
        let mut buffer = std::mem::take(&mut writing.buffer);
        buffer.clear();
        fill(&mut buffer);
        *self.since.lock() = Some(Instant::now());
        let done = self.write(&mut writing, &buffer);
        *self.since.lock() = None;
        writing.buffer = buffer;
        writing.trouble = done.err().map(|e| Defect {
            failure: Failure::of(&e),
            words: e.to_string(),
        });
    }

    fn write(&self, writing: &mut Writing, bytes: &[u8]) -> io::Result<()> {
        if writing.file.is_none() {
            let path = self.dir.join(format!("uses.{}", writing.number));
            let mut file = match purge_sys::private::options()
                .create_new(true)
                .write(true)
                .open(path)
            {
                Ok(file) => file,
                Err(error) => return self.count(writing, 0, Err(error)),
            };
            let mut head = Vec::new();
            put_head(&mut head, self.identity);
            let written = file.write_all(&head);
            writing.file = Some(file);
            writing.len = 0;
            self.count(writing, head.len(), written)?;
        }
        let Some(file) = &mut writing.file else {
            return Ok(());
        };
        let written = file.write_all_at(bytes, writing.len);
        self.count(writing, bytes.len(), written)
    }

    /// A frame that was written in part would hide every later one: after a failure the next goes to another segment, and
    /// the number between says that something is missing.
    fn count(&self, writing: &mut Writing, len: usize, written: io::Result<()>) -> io::Result<()> {
        if let Err(error) = written {
            writing.file = None;
            writing.len = 0;
            writing.lacks = Some(writing.number.saturating_add(1));
            writing.number = writing.number.saturating_add(2);
            return Err(error);
        }
        let len = len as u64;
        writing.len = writing.len.saturating_add(len);
        self.bytes.fetch_add(len, Relaxed);
        self.written.fetch_add(len, Relaxed);
        Ok(())
    }

    /// From now on entries go to a new segment. Returns the number up to which segments are complete. Call it while the
    /// index cannot change. None: the file system lets an entry that is being written wait, and the index must not wait with it.
    pub fn rotate(&self) -> Option<u64> {
        let mut writing = self.writing.try_lock_for(ROTATED_WITHIN)?;
        if writing.file.take().is_some() {
            writing.len = 0;
            writing.number = writing.number.saturating_add(1);
        }
        Some(writing.number.saturating_sub(1))
    }

    /// The store holds all segments up to `number`, durably.
    ///
    /// # Errors
    /// When a segment cannot be made durable or renamed: it is read once more at the next start, which does no harm.
    pub fn stored(&self, number: u64) -> io::Result<()> {
        self.writing.lock().lacks.take_if(|lacks| *lacks <= number);
        let give_up = self.bytes.load(Relaxed) > BYTES_MAX;
        for (n, is_stored, path) in self.segments()? {
            match (is_stored, give_up) {
                (false, false) if n <= number => {
                    // If the store is lost by a power cut, this is where its uses come back from.
                    File::open(&path)?.sync_data()?;
                    fs::rename(&path, self.dir.join(format!("stored.{n}")))?;
                }
                (_, true) if n <= number => self.remove(&path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A checkpoint holds all segments up to `number`.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn covered(&self, number: u64) -> io::Result<()> {
        for (n, _, path) in self.segments()? {
            if n <= number {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let len = fs::metadata(path)?.len();
        fs::remove_file(path)?;
        let taken = |bytes: u64| Some(bytes.saturating_sub(len));
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, taken);
        Ok(())
    }

    fn segments(&self) -> io::Result<Vec<(u64, bool, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if let Some((number, is_stored)) = path.file_name().and_then(|n| parse(n.to_str()?)) {
                found.push((number, is_stored, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Why the last entry could not be written, if so; or that one has been waiting for too long to be written.
    pub fn trouble(&self) -> Option<Defect> {
        if let Some(writing) = self.writing.try_lock_for(ROTATED_WITHIN) {
            return writing.trouble.clone();
        }
        let since = (*self.since.lock())?;
        (since.elapsed() >= WRITTEN_WITHIN).then(|| Defect {
            failure: Failure::Silent,
            words: "an entry waits to be written".into(),
        })
    }

    /// Tries once more whether entries can be written: writes an empty one.
    pub fn probe(&self) {
        let writing = self.writing.try_lock();
        if writing.is_some_and(|writing| writing.trouble.is_some()) {
            self.append(|out| put_uses(out, Seconds::MIN, &[]));
        }
    }

    /// Bytes in all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes written since the start.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Relaxed)
    }
}

fn parse(name: &str) -> Option<(u64, bool)> {
    let (kind, number) = name.split_once('.')?;
    let is_stored = match kind {
        "uses" => false,
        "stored" => true,
        _ => return None,
    };
    Some((number.parse().ok()?, is_stored))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ME: Identity = Identity {
        magic: 0xEF53,
        root: 2,
        birth: Seconds(7),
    };

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_was_appended_is_left_for_the_next_process() {
        let dir = dir();
        let (journal, left) = Journal::open(dir.path(), ME).unwrap();
        assert!(left.whole && left.uses.is_empty());
        journal.uses(Seconds(5), &[9, 3, 3, u64::MAX, 0]);
        assert_eq!(journal.rotate(), Some(1));
        journal.gap(Seconds(6), "overflow");
        journal.stored(1).unwrap();
        drop(journal);
        let (journal, left) = Journal::open(dir.path(), ME).unwrap();
        assert_eq!(left.uses, [Entry::Gap(Seconds(6), "overflow".into())]);
        assert_eq!((left.stored.len(), left.stored_until, left.whole), (1, 1, true));
        let bytes = fs::read(&left.stored[0].1).unwrap();
        let (entries, whole) = read_segment(&bytes, ME);
        assert_eq!(entries, [Entry::Uses(Seconds(5), vec![9, 3, 3, u64::MAX, 0])]);
        assert!(whole);
        let other = Identity { root: 3, ..ME };
        assert_eq!(read_segment(&bytes, other), (vec![], false));
        journal.covered(2).unwrap();
        let (_, left) = Journal::open(dir.path(), ME).unwrap();
        assert_eq!((left.oldest, left.uses.len(), left.stored.len()), (0, 0, 0));
    }

    #[test]
    fn it_is_said_until_when_uses_are_known_but_not_after_one_that_could_not_be_written() {
        let dir = dir();
        let (journal, _) = Journal::open(dir.path(), ME).unwrap();
        journal.seen(Seconds(4));
        journal.uses(Seconds(5), &[9]);
        journal.seen(Seconds(5));
        journal.seen(Seconds(6));
        let uses = Entry::Uses(Seconds(5), vec![9]);
        let said = [uses, Entry::Seen(Seconds(5))];
        assert_eq!(Journal::open(dir.path(), ME).unwrap().1.uses, said);
        journal.rotate();
        // Where the next segment belongs lies something else.
        fs::create_dir(dir.path().join("uses.2")).unwrap();
        journal.uses(Seconds(7), &[9]);
        assert!(journal.trouble().is_some());
        fs::remove_dir(dir.path().join("uses.2")).unwrap();
        journal.uses(Seconds(8), &[9]);
        journal.seen(Seconds(8));
        journal.stored(journal.rotate().unwrap()).unwrap();
        journal.uses(Seconds(9), &[9]);
        journal.seen(Seconds(9));
        let (_, left) = Journal::open(dir.path(), ME).unwrap();
        let uses = Entry::Uses(Seconds(9), vec![9]);
        assert_eq!(left.uses, [uses, Entry::Seen(Seconds(9))]);
        let stored = left
            .stored
            .iter()
            .flat_map(|(_, path)| read_segment(&fs::read(path).unwrap(), ME).0);
        let stored: Vec<_> = stored.collect();
        assert_eq!(
            stored.last(),
            Some(&Entry::Uses(Seconds(8), vec![9])),
            "{stored:?}"
        );
    }

    #[test]
    fn nothing_to_write_makes_no_segment_and_a_missing_one_is_seen() {
        let dir = dir();
        let (journal, _) = Journal::open(dir.path(), ME).unwrap();
        assert_eq!((journal.rotate(), journal.rotate()), (Some(0), Some(0)));
        for n in 1..4 {
            journal.uses(Seconds(n), &[1]);
            journal.rotate();
        }
        fs::remove_file(dir.path().join("uses.2")).unwrap();
        let (journal, left) = Journal::open(dir.path(), ME).unwrap();
        assert!(!left.whole);
        journal.uses(Seconds(9), &[1]);
        assert!(dir.path().join("uses.4").exists());
    }
}
