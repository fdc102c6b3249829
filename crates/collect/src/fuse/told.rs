//! What a mount tells the agent: which files are about to be used. A log in the page cache, so that what was told survives the end of
//! either process.
//!
//! ```text
//! told/N      segments; N grows. Each is a row of inode numbers: u64, little-endian
//!               0                  nothing
//!               u64::MAX           any file may have been used: something could not be told, or was told and given up
//! told/read   how far the agent has recorded it: segment and byte, two u64, little-endian
//! told/owes   a byte, 1: something could not be told, and any file may have been used. It is there from the start, for it is needed when the disk is full
//! told/lock   locked by the mount: there is one
//! ```
//! The mount writes, and makes segments; the agent reads, and removes them. A use counts when it is read: late, never early.
//!
//! What may never happen: a use that was told and is neither recorded nor counted as one of any file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::FlockOperation;

use purge_model::Inode;

/// A segment is no longer: what is read again after a crash of the host.
const SEGMENT_BYTES: u64 = 1 << 20;
/// At most this number of segments waits for the agent. Beyond that they are given up, and any file may have been used.
const SEGMENTS_MAX: usize = 64;
/// One number.
const NUMBER_BYTES: usize = 8;
/// What of a segment is read at once.
const READ_BYTES: usize = 64 << 10;
/// Any file.
const ANY: u64 = u64::MAX;

/// Where it lies, beside what else is kept of a volume.
pub fn place(beside: &Path) -> PathBuf {
    beside.join("told")
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(number.to_string())
}

/// The numbers of the segments that there are, in order.
fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        found.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok()),
        );
    }
    found.sort_unstable();
    Ok(found)
}

/// The mount's end.
#[derive(Debug)]
pub struct Teller {
    dir: PathBuf,
    segment: Mutex<Segment>,
    /// What the next process is to know.
    owes: File,
    _lock: File,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    bytes: u64,
    /// Something could not be told.
    owes: bool,
}

impl Teller {
    /// Goes on with the log in `dir`, in a new segment.
    ///
    /// # Errors
    /// EWOULDBLOCK when another mount tells there, and what `open(2)` says.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        purge_sys::private::dir(dir)?;
        let lock = purge_sys::private::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let last = segments(dir)?.last().copied().unwrap_or(0);
        let read = Read::of(dir).segment;
        let owes = purge_sys::private::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join("owes"))?;
        let mut byte = [0];
        let _ = owes.read_at(&mut byte, 0)?;
        owes.write_all_at(&byte, 0)?;
        let mut segment = Segment::make(dir, last.max(read).saturating_add(1))?;
        segment.owes = byte != [0];
        let teller = Self {
            segment: Mutex::new(segment),
            dir: dir.to_owned(),
            owes,
            _lock: lock,
        };
        teller.pay(&mut teller.segment.lock());
        Ok(teller)
    }

    /// Says what an earlier process could not.
    fn pay(&self, segment: &mut Segment) {
        if segment.owes && segment.put(ANY).is_ok() {
            segment.owes = false;
            self.note(false);
        }
    }

    fn note(&self, owes: bool) {
        if let Err(error) = self.owes.write_all_at(&[u8::from(owes)], 0) {
            tracing::error!(%error, "what this mount owes the agent is not known to the next one");
        }
    }

    /// A file is about to be used. Once this has returned, that is told, or counts as a use of any file as soon as that can be told.
    pub fn used(&self, ino: Inode) {
        let mut segment = self.segment.lock();
        self.pay(&mut segment);
        if let Err(error) = segment.put(ino)
            && !std::mem::replace(&mut segment.owes, true)
        {
            self.note(true);
            tracing::error!(%error, "uses cannot be told to the agent: as soon as it can be said, every file counts as used");
        }
        if segment.bytes < SEGMENT_BYTES {
            return;
        }
        // While this is locked nothing is told: what is in a segment that has a successor is complete.
        match self.after(&segment) {
            Ok(next) => *segment = next,
            Err(error) => tracing::error!(%error, "a new segment for uses cannot be made: the old one grows"),
        }
    }

    /// The segment after this one. Where too many wait, they are given up.
    fn after(&self, current: &Segment) -> io::Result<Segment> {
        let waiting = segments(&self.dir)?;
        let mut next = Segment::make(&self.dir, current.number.saturating_add(1))?;
        next.owes = current.owes;
        if waiting.len() >= SEGMENTS_MAX {
            // First what stands for them, then they go.
            next.put(ANY)?;
            for number in waiting {
                remove(&self.dir, number)?;
            }
        }
        Ok(next)
    }
}

impl Segment {
    fn make(dir: &Path, number: u64) -> io::Result<Self> {
        let file = purge_sys::private::options()
            .write(true)
            .create_new(true)
            .open(segment(dir, number))?;
        Ok(Self {
            number,
            file,
            bytes: 0,
            owes: false,
        })
    }

    /// What was written in part is written over by the next.
    fn put(&mut self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&number.to_le_bytes(), self.bytes)?;
        self.bytes = self.bytes.saturating_add(NUMBER_BYTES as u64);
        Ok(())
    }
}

fn remove(dir: &Path, number: u64) -> io::Result<()> {
    match fs::remove_file(segment(dir, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// How far the agent has recorded what it was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Read {
    segment: u64,
    byte: u64,
}

impl Read {
    fn of(dir: &Path) -> Self {
        let bytes = fs::read(dir.join("read")).unwrap_or_default();
        let number = |at: usize| {
            let part = bytes.get(at..at.saturating_add(NUMBER_BYTES))?;
            Some(u64::from_le_bytes(part.try_into().ok()?))
        };
        Self {
            segment: number(0).unwrap_or(0),
            byte: number(NUMBER_BYTES).unwrap_or(0),
        }
    }

    fn write(self, file: &File) -> io::Result<()> {
        let [segment, byte] = [self.segment.to_le_bytes(), self.byte.to_le_bytes()];
        file.write_all_at(&[segment, byte].concat(), 0)
    }
}

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// This file is used.
    Use(Inode),
    /// Any file may have been used.
    Any,
}

/// The agent's end.
#[derive(Debug)]
pub struct Listener {
    dir: PathBuf,
    read: Read,
    saved: File,
    /// The segment that is read.
    file: Option<File>,
}

impl Listener {
    /// Goes on where an earlier process ended.
    ///
    /// # Errors
    /// What `open(2)` says.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        purge_sys::private::dir(dir)?;
        let read = Read::of(dir);
        let saved = purge_sys::private::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("read"))?;
        Ok(Self {
            dir: dir.to_owned(),
            read,
            saved,
            file: None,
        })
    }

    /// Reads everything that was told before this call. `take` records what it gets; only when it has returned that counts as read.
    ///
    /// # Errors
    /// When it cannot be read: what was told is not known then.
    pub fn listen(&mut self, mut take: impl FnMut(&[Told])) -> io::Result<()> {
        let mut told = Vec::new();
        loop {
            // Before the segment at hand is read to its end: once there is a next one, nothing is added to it.
            let next = segments(&self.dir)?
                .into_iter()
                .find(|number| *number > self.read.segment);
            self.open_segment()?;
            while self.read_some(&mut told)? {
                take(&told);
                self.read.write(&self.saved)?;
            }
            let Some(next) = next else {
                return Ok(());
            };
            self.file = None;
            remove(&self.dir, self.read.segment)?;
            self.read = Read {
                segment: next,
                byte: 0,
            };
            self.read.write(&self.saved)?;
        }
    }

    fn open_segment(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = match File::open(segment(&self.dir, self.read.segment)) {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// False: nothing is left.
    fn read_some(&mut self, told: &mut Vec<Told>) -> io::Result<bool> {
        told.clear();
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let mut bytes = vec![0; READ_BYTES];
        let length = file.read_at(&mut bytes, self.read.byte)?;
        let whole = bytes.get(..length).unwrap_or_default().chunks_exact(NUMBER_BYTES);
        let numbers = whole.filter_map(|number| Some(u64::from_le_bytes(number.try_into().ok()?)));
        told.extend(numbers.map(|number| match number {
            ANY => Told::Any,
            ino => Told::Use(ino),
        }));
        self.read.byte = self
            .read
            .byte
            .saturating_add((told.len().saturating_mul(NUMBER_BYTES)) as u64);
        Ok(!told.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(listener: &mut Listener) -> Vec<Told> {
        let mut all = Vec::new();
        listener.listen(|told| all.extend_from_slice(told)).unwrap();
        all
    }

    #[test]
    fn what_was_told_is_heard_once_also_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let teller = Teller::begin(dir.path()).unwrap();
        let mut listener = Listener::begin(dir.path()).unwrap();
        assert_eq!(heard(&mut listener), []);
        teller.used(7);
        teller.used(8);
        assert_eq!(heard(&mut listener), [Told::Use(7), Told::Use(8)]);
        teller.used(9);
        drop(teller);
        let teller = Teller::begin(dir.path()).unwrap();
        teller.used(10);
        let mut listener = Listener::begin(dir.path()).unwrap();
        assert_eq!(heard(&mut listener), [Told::Use(9), Told::Use(10)]);
        assert_eq!(heard(&mut listener), []);
        assert_eq!(segments(dir.path()).unwrap().len(), 1, "what was read goes");
    }

    #[test]
    fn what_could_not_be_told_is_owed_by_the_next_process_too() {
        let dir = tempfile::tempdir().unwrap();
        let teller = Teller::begin(dir.path()).unwrap();
        let mut listener = Listener::begin(dir.path()).unwrap();
        teller.used(6);
        // Nothing can be written to it.
        let number = teller.segment.lock().number;
        teller.segment.lock().file = File::open(segment(dir.path(), number)).unwrap();
        teller.used(7);
        teller.used(8);
        assert_eq!(heard(&mut listener), [Told::Use(6)]);
        drop(teller);
        let teller = Teller::begin(dir.path()).unwrap();
        assert_eq!(heard(&mut listener), [Told::Any], "before any file is used");
        drop(teller);
        drop(Teller::begin(dir.path()).unwrap());
        assert_eq!(heard(&mut listener), [], "it is paid once");
    }

    #[test]
    fn two_mounts_cannot_tell_in_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let _teller = Teller::begin(dir.path()).unwrap();
        assert!(Teller::begin(dir.path()).is_err());
    }

    #[test]
    fn nothing_is_lost_between_segments() {
        let dir = tempfile::tempdir().unwrap();
        let teller = Teller::begin(dir.path()).unwrap();
        let mut listener = Listener::begin(dir.path()).unwrap();
        const EACH: u64 = 100_000;
        let mut all = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let teller = &teller;
                scope.spawn(move || (1..=EACH).for_each(|n| teller.used(thread * EACH + n)));
            }
            while all.len() < 4 * EACH as usize {
                all.extend(heard(&mut listener));
            }
        });
        all.sort_by_key(|told| match told {
            Told::Use(ino) => *ino,
            Told::Any => 0,
        });
        let wanted: Vec<Told> = (1..=4 * EACH).map(Told::Use).collect();
        assert!(all == wanted);
    }

    #[test]
    fn what_is_never_heard_is_given_up_and_stands_for_any_file() {
        let dir = tempfile::tempdir().unwrap();
        let teller = Teller::begin(dir.path()).unwrap();
        let wanted = SEGMENT_BYTES / NUMBER_BYTES as u64 * (SEGMENTS_MAX as u64 + 1);
        (0..wanted).for_each(|_| teller.used(5));
        assert!(segments(dir.path()).unwrap().len() <= SEGMENTS_MAX + 1);
        let mut listener = Listener::begin(dir.path()).unwrap();
        assert_eq!(heard(&mut listener).first(), Some(&Told::Any));
    }
}
