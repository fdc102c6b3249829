//! The ledger of a run: what was begun and what was decided, batch by batch, so that a run that was killed can be closed
//! with every candidate's fate told exactly once.
//!
//! ```text
//!   STATE_DIR/runs/RUN.ledger     frames (see `format::frame`), only ever appended to
//!     opened   0  boot id:16
//!     origins  0  boot id:16 chunk (position origin)*   where the candidates of a batch are taken out of, see `crate::trash::origin`; only of what
//!                                              has no grace, before anything of it is moved
//!     begun    1  chunk first count            varints; written before anything of the batch is moved
//!     decided  2  chunk first fate*            a byte each; written before anything is removed for good
//!     amended  3  chunk position fate          a removal that failed after all
//!     told     4  chunk first count            the batch is in the audit log
//!     finer    4  chunk first 0 (position fate)*   a reason that earlier versions do not know, right after the frame that says `changed` for it
//!     copied   5  (chunk position sha256:32 key length, key)*   these are in a store, and its catalogue names them; on the disk before `begun`
//! ```
//! An earlier version reads all of it but `copied`, at which it stops as after a power cut. As for the others: in a frame of kind 4 with a count of 0, or of kind 0 with more than a boot id, it finds nothing to do.
//!
//! The page cache keeps it when the process is killed. A power cut may take its end: see [`crate::run::recover`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::candidate::CHUNK_CANDIDATES;
use crate::copying::Copy;
use crate::fate::{Code, Fate, Skip};
use crate::trash::origin::Origin;
use purge_format::Damaged;
use purge_format::frame::{Frames, put_frame};
use purge_format::integers::{Cursor, put_varint};
use purge_sys::time::{BootId, boot_id};

/// Bytes up to here are known to every version.
const PLAIN_MAX: u8 = 10;

impl Code {
    /// As it is written. What a byte means never changes.
    fn byte(self) -> u8 {
        match self {
            Self::Deleted => 1,
            Self::Trashed => 2,
            Self::Skipped(Skip::Accessed) => 3,
            Self::Skipped(Skip::Changed) => 4,
            Self::Skipped(Skip::Held) => 5,
            Self::Skipped(Skip::Gone) => 6,
            Self::Skipped(Skip::Hardlinked) => 7,
            Self::Skipped(Skip::Open) => 8,
            Self::Skipped(Skip::Locked) => 9,
            Self::Failed => PLAIN_MAX,
            Self::Skipped(Skip::Leased) => 11,
            Self::Skipped(Skip::Deep) => 12,
            Self::Skipped(Skip::Quota) => 13,
            Self::Skipped(Skip::Mounted) => 14,
            Self::Skipped(Skip::Protected) => 15,
            Self::Skipped(Skip::ManyNames) => 16,
        }
    }

    /// As a version before these reasons says it.
    fn plain(self) -> u8 {
        match self.byte() {
            byte if byte <= PLAIN_MAX => byte,
            _ => Self::Skipped(Skip::Changed).byte(),
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let skipped = Skip::ALL.into_iter().map(Self::Skipped);
        [Self::Deleted, Self::Trashed, Self::Failed]
            .into_iter()
            .chain(skipped)
    }

    fn from_u8(byte: u8) -> Option<Self> {
        Self::all().find(|c| c.byte() == byte)
    }
}

/// What is known of one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// The run had not come to it.
    #[default]
    Nothing,
    /// The run was processing it.
    Begun,
    /// Its fate.
    Decided {
        /// Which.
        code: Code,
        /// The audit log has it.
        told: bool,
    },
}

/// Where a batch lies in its plan: chunk, and position of its first candidate there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The chunk of the plan.
    pub chunk: u32,
    /// The candidate of the chunk.
    pub first: u32,
}

impl Position {
    /// This many candidates later in the same chunk.
    pub fn plus(self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            first: self.first.saturating_add(count),
            ..self
        }
    }
}

/// A ledger that is being written.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

/// Where the ledger of a run lies.
pub fn path(state_dir: &Path, run: &str) -> PathBuf {
    state_dir.join("runs").join(format!("{run}.ledger"))
}

impl Ledger {
    /// Opens the ledger of a new run.
    ///
    /// # Errors
    /// When it cannot be written: there must be no run then.
    pub fn create(state_dir: &Path, run: &str) -> io::Result<Self> {
        let path = path(state_dir, run);
        if let Some(dir) = path.parent() {
            purge_sys::private::dir(dir)?;
        }
        let file = purge_sys::private::options()
            .append(true)
            .create_new(true)
            .open(&path)?;
        let ledger = Self { file };
        ledger.write(0, |out| out.extend_from_slice(&boot_id()))?;
        ledger.file.sync_all()?;
        Ok(ledger)
    }

    /// A batch of `count` candidates is begun.
    ///
    /// # Errors
    /// What `write(2)` says, as for all that follow.
    pub fn begun(&self, at: Position, count: usize) -> io::Result<()> {
        self.write(1, |out| {
            put_position(out, at);
            put_varint(out, count as u64);
        })
    }

    /// Where the candidates of a batch are taken out of, each by how much later than the batch it begins.
    ///
    /// # Errors
    /// As above. Nothing may be moved then.
    pub fn origins(&self, at: Position, origins: &[(usize, Origin)]) -> io::Result<()> {
        if origins.is_empty() {
            return Ok(());
        }
        self.write(0, |out| {
            out.extend_from_slice(&boot_id());
            put_varint(out, at.chunk.into());
            for (later, origin) in origins {
                put_varint(out, at.plus(*later).first.into());
                origin.put(out);
            }
        })
    }

    /// These are copied, and the store's catalogue names them. It is on the disk when this returns.
    ///
    /// # Errors
    /// As above, and what `fdatasync(2)` says. Nothing of them may be taken then.
    pub fn copied<'a>(&self, copies: impl Iterator<Item = (Position, &'a Copy)>) -> io::Result<()> {
        self.write(5, |out| {
            for (at, copy) in copies {
                put_position(out, at);
                out.extend_from_slice(&copy.sha256);
                put_varint(out, copy.key.len() as u64);
                out.extend_from_slice(copy.key.as_bytes());
            }
        })?;
        self.file.sync_data()
    }

    /// What will become of the candidates of a batch.
    ///
    /// # Errors
    /// As above. Nothing may be removed then.
    pub fn decided<'a>(&self, at: Position, fates: impl Iterator<Item = &'a Fate>) -> io::Result<()> {
        let codes: Vec<Code> = fates.map(Code::of).collect();
        self.write_codes(2, at, &codes)
    }

    /// One of them turned out otherwise.
    ///
    /// # Errors
    /// As above.
    pub fn amended(&self, at: Position, fate: &Fate) -> io::Result<()> {
        self.write_codes(3, at, &[Code::of(fate)])
    }

    /// The batch is in the audit log.
    ///
    /// # Errors
    /// As above.
    pub fn told(&self, at: Position, count: usize) -> io::Result<()> {
        self.write(4, |out| {
            put_position(out, at);
            put_varint(out, count as u64);
        })
    }

    /// Codes from a position on, and what earlier versions do not know of them.
    fn write_codes(&self, kind: u8, at: Position, codes: &[Code]) -> io::Result<()> {
        let mut out = Vec::with_capacity(600);
        put_frame(&mut out, |body| {
            body.push(kind);
            put_position(body, at);
            body.extend(codes.iter().map(|code| code.plain()));
        });
        let finer = || {
            (at.first..)
                .zip(codes)
                .filter(|(_, code)| code.byte() > PLAIN_MAX)
        };
        if finer().next().is_some() {
            put_frame(&mut out, |body| {
                body.push(4);
                put_position(body, at);
                put_varint(body, 0);
                for (position, code) in finer() {
                    put_varint(body, position.into());
                    body.push(code.byte());
                }
            });
        }
        (&self.file).write_all(&out)
    }

    /// One `write(2)` at the end of the file: what other threads write is never in between.
    fn write(&self, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut out = Vec::with_capacity(300);
        put_frame(&mut out, |body| {
            body.push(kind);
            fill(body);
        });
        (&self.file).write_all(&out)
    }
}

/// What a ledger says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The machine has been started since: the ledger's end may be missing.
    pub may_lack_its_end: bool,
    /// By chunk, what is known of its candidates; shorter where nothing is known of the rest.
    pub chunks: BTreeMap<u32, Vec<Known>>,
    /// By chunk and position, where candidates were taken out of that are not told yet.
    pub origins: BTreeMap<(u32, u32), Origin>,
    /// By chunk and position, candidates of which a store has a copy.
    pub copied: BTreeSet<(u32, u32)>,
}

impl Account {
    /// Reads the ledger of a run. One that is not there says nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(state_dir: &Path, run: &str) -> io::Result<Self> {
        match std::fs::read(path(state_dir, run)) {
            Ok(bytes) => Ok(Self::read(&bytes, &boot_id())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self {
                may_lack_its_end: true,
                ..Self::default()
            }),
            Err(e) => Err(e),
        }
    }

    /// What `bytes` say to a machine that was started as `boot`. A torn or damaged frame ends the reading.
    pub fn read(bytes: &[u8], boot: &BootId) -> Self {
        let mut account = Self {
            may_lack_its_end: true,
            ..Self::default()
        };
        let mut frames = Frames::new(bytes);
        for body in frames.by_ref() {
            if account.take(body, boot).is_err() {
                account.may_lack_its_end = true;
                return account;
            }
        }
        account.may_lack_its_end |= frames.is_torn();
        account
    }

    fn take(&mut self, body: &[u8], boot: &BootId) -> Result<(), Damaged> {
        let mut from = Cursor::new(body, "ledger");
        let kind = from.byte()?;
        if kind == 0 {
            let is_of_now = from.take(16)? == boot;
            if from.is_empty() {
                self.may_lack_its_end = !is_of_now;
                return Ok(());
            }
            let chunk = from.varint32()?;
            while !from.is_empty() {
                let position = from.varint32()?;
                self.origins.insert((chunk, position), Origin::take(&mut from)?);
            }
            return Ok(());
        }
        if kind == 5 {
            return self.take_copies(&mut from);
        }
        let at = Position {
            chunk: from.varint32()?,
            first: from.varint32()?,
        };
        let code = |byte| Code::from_u8(byte).ok_or(Damaged { row: "ledger", at: 0 });
        match kind {
            1 | 4 => {
                let count = from.varint32()?.min(CHUNK_CANDIDATES as u32);
                for position in at.first..at.first.saturating_add(count) {
                    let known = match (kind, self.known(at.chunk, position as usize)) {
                        (4, Known::Decided { code, .. }) => Known::Decided { code, told: true },
                        (4, other) => other,
                        _ => Known::Begun,
                    };
                    self.note(at.chunk, position, known);
                    if kind == 4 {
                        self.origins.remove(&(at.chunk, position));
                    }
                }
                while kind == 4 && !from.is_empty() {
                    let (position, finer) = (from.varint32()?, code(from.byte()?)?);
                    if let Known::Decided { told, .. } = self.known(at.chunk, position as usize) {
                        self.note(at.chunk, position, Known::Decided { code: finer, told });
                    }
                }
            }
            2 | 3 => {
                let mut n = 0;
                while !from.is_empty() {
                    let known = Known::Decided {
                        code: code(from.byte()?)?,
                        told: false,
                    };
                    self.note(at.chunk, at.first.saturating_add(n), known);
                    n += 1;
                }
            }
            _ => {
                return Err(Damaged { row: "ledger", at: 0 });
            }
        }
        Ok(())
    }

    fn take_copies(&mut self, from: &mut Cursor<'_>) -> Result<(), Damaged> {
        while !from.is_empty() {
            let (chunk, position) = (from.varint32()?, from.varint32()?);
            from.take(32)?;
            let key = from.varint32()?;
            from.take(usize::try_from(key).unwrap_or(usize::MAX))?;
            self.copied.insert((chunk, position));
        }
        Ok(())
    }

    fn note(&mut self, chunk: u32, position: u32, known: Known) {
        let position = position as usize;
        if position >= CHUNK_CANDIDATES {
            return;
        }
        let chunk = self.chunks.entry(chunk).or_default();
        if chunk.len() <= position {
            chunk.resize(position + 1, Known::Nothing);
        }
        if let Some(slot) = chunk.get_mut(position) {
            *slot = known;
        }
    }

    /// What is known of a candidate.
    pub fn known(&self, chunk: u32, position: usize) -> Known {
        self.chunks
            .get(&chunk)
            .and_then(|c| c.get(position))
            .copied()
            .unwrap_or_default()
    }
}

fn put_position(out: &mut Vec<u8>, at: Position) {
    put_varint(out, at.chunk.into());
    put_varint(out, at.first.into());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn fate(n: u8) -> Fate {
        match n % 6 {
            0 => Fate::Deleted,
            1 => Fate::Trashed,
            2 => Fate::Failed(io::ErrorKind::Other.into()),
            _ => Fate::Skipped(Skip::ALL[usize::from(n) % Skip::ALL.len()]),
        }
    }

    /// What an earlier version takes from a ledger: it knows the codes 1 to 10, and takes each other byte for damage.
    fn read_before(bytes: &[u8]) -> Result<BTreeMap<(u32, u32), u8>, Damaged> {
        let mut codes = BTreeMap::new();
        for body in Frames::new(bytes) {
            let mut from = Cursor::new(body, "ledger");
            let kind = from.byte()?;
            if kind == 0 {
                continue;
            }
            let (chunk, first) = (from.varint32()?, from.varint32()?);
            match kind {
                1 | 4 => {
                    from.varint32()?;
                }
                2 | 3 => {
                    for position in first.. {
                        if from.is_empty() {
                            break;
                        }
                        let code = from.byte()?;
                        if !(1..=10).contains(&code) {
                            return Err(Damaged { row: "ledger", at: 0 });
                        }
                        codes.insert((chunk, position), code);
                    }
                }
                _ => return Err(Damaged { row: "ledger", at: 0 }),
            }
        }
        Ok(codes)
    }

    proptest! {
        #[test]
        fn what_was_decided_is_read_again_and_a_cut_ledger_tells_its_beginning(
            batches in prop::collection::vec((0u32..4, 0u32..4, prop::collection::vec(any::<u8>(), 1..8)), 0..20),
            cut: prop::sample::Index
        ) {
            let tmp = tempfile::tempdir().unwrap();
            let ledger = Ledger::create(tmp.path(), "r1").unwrap();
            let mut expected = Account { may_lack_its_end: false, ..Account::default() };
            for (chunk, quarter, fates) in &batches {
                let at = Position { chunk: *chunk, first: quarter * 256 };
                let fates: Vec<Fate> = fates.iter().map(|n| fate(*n)).collect();
                ledger.begun(at, fates.len()).unwrap();
                ledger.decided(at, fates.iter()).unwrap();
                ledger.told(at, fates.len()).unwrap();
                for (n, f) in fates.iter().enumerate() {
                    let known = Known::Decided { code: Code::of(f), told: true };
                    expected.note(at.chunk, at.first + n as u32, known);
                }
            }
            prop_assert_eq!(&Account::load(tmp.path(), "r1").unwrap(), &expected);
            let bytes = std::fs::read(path(tmp.path(), "r1")).unwrap();
            let part = Account::read(&bytes[..cut.index(bytes.len() + 1)], &boot_id());
            for (chunk, known) in &part.chunks {
                for (n, known) in known.iter().enumerate() {
                    let whole = expected.known(*chunk, n);
                    prop_assert!(*known == Known::Nothing || whole != Known::Nothing);
                }
            }
        }

        #[test]
        fn damaged_ledgers_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Account::read(&bytes, &[0; 16]);
        }
    }

    #[test]
    fn an_earlier_version_reads_every_reason_and_this_one_reads_the_earlier_ones() {
        let tmp = tempfile::tempdir().unwrap();
        let ledger = Ledger::create(tmp.path(), "r1").unwrap();
        let at = Position { chunk: 2, first: 5 };
        let fates: Vec<Fate> = Skip::ALL.into_iter().map(Fate::Skipped).collect();
        ledger.begun(at, fates.len()).unwrap();
        ledger.decided(at, fates.iter()).unwrap();
        ledger.amended(at, &Fate::Skipped(Skip::Quota)).unwrap();
        ledger.told(at, fates.len()).unwrap();
        let bytes = std::fs::read(path(tmp.path(), "r1")).unwrap();
        let before = read_before(&bytes).unwrap();
        let codes: Vec<u8> = before.into_values().collect();
        assert_eq!(codes, [4, 4, 5, 6, 7, 8, 9, 4, 4, 4, 4, 4, 4]);
        let now = Account::read(&bytes, &boot_id());
        assert!(!now.may_lack_its_end);
        for (position, why) in (5..).zip(Skip::ALL) {
            let why = if position == 5 { Skip::Quota } else { why };
            let (code, told) = (Code::Skipped(why), true);
            assert_eq!(now.known(2, position), Known::Decided { code, told });
        }
    }

    #[test]
    fn copies_are_known_again_and_say_nothing_of_what_became_of_the_files() {
        let tmp = tempfile::tempdir().unwrap();
        let ledger = Ledger::create(tmp.path(), "r1").unwrap();
        let copy = |key: &str| Copy {
            key: key.into(),
            sha256: [7; 32],
            line: b"{}".to_vec(),
        };
        let (a, b) = (copy("a/b"), copy(""));
        let at = Position { chunk: 1, first: 4 };
        ledger.copied([(at, &a), (at.plus(3), &b)].into_iter()).unwrap();
        ledger.begun(at, 1).unwrap();
        let account = Account::load(tmp.path(), "r1").unwrap();
        assert_eq!(account.copied, BTreeSet::from([(1, 4), (1, 7)]));
        assert_eq!(
            (account.known(1, 4), account.known(1, 7)),
            (Known::Begun, Known::Nothing)
        );
        assert!(!account.may_lack_its_end);
    }

    #[test]
    fn bytes_of_codes_differ() {
        let mut bytes: Vec<u8> = Code::all().map(Code::byte).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (1..=16).collect::<Vec<u8>>());
    }

    #[test]
    fn another_start_of_the_machine_may_have_taken_the_end() {
        let tmp = tempfile::tempdir().unwrap();
        Ledger::create(tmp.path(), "r1").unwrap();
        let bytes = std::fs::read(path(tmp.path(), "r1")).unwrap();
        assert!(!Account::read(&bytes, &boot_id()).may_lack_its_end);
        assert!(Account::read(&bytes, &[7; 16]).may_lack_its_end);
    }
}
