//! Rows of usage while they are added up: a few as numbers, many packed.

use super::usage::Subject;
use purge_format::Damaged;
use purge_format::integers::Cursor;
use purge_index::DirId;
use purge_index::sums::{AGES, DirSums, Sums};
use purge_model::Seconds;

/// Files and apparent bytes by age.
pub type Ages = [(u64, u64); AGES];

/// More rows than these are packed.
pub(super) const PLAIN_MAX: usize = 10_000;

/// What a subject has.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Who or what.
    pub subject: Subject,
    /// Regular files.
    pub files: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Size-days.
    pub byte_days: u128,
    /// Oldest and newest last use.
    pub span: (Seconds, Seconds),
    /// If asked for.
    pub ages: Option<Ages>,
}

impl Row {
    fn empty(subject: Subject, with_ages: bool) -> Self {
        Self {
            subject,
            files: 0,
            bytes: 0,
            allocated: 0,
            byte_days: 0,
            span: (Seconds::MAX, Seconds::MIN),
            ages: with_ages.then(Ages::default),
        }
    }

    /// Of an owner, a group or a project.
    pub(super) fn of_id(id: u32, sums: &Sums, with_ages: bool) -> Self {
        Self {
            subject: Subject::Id(id),
            files: sums.files,
            bytes: clip(sums.bytes),
            allocated: clip(sums.allocated),
            byte_days: sums.byte_days,
            span: sums.span.unwrap_or_default(),
            ages: with_ages.then(|| sums.ages.map(|(files, bytes)| (files, clip(bytes)))),
        }
    }

    fn add(&mut self, sums: &DirSums) {
        self.files = self.files.saturating_add(sums.files());
        self.bytes = self.bytes.saturating_add(sums.bytes());
        self.allocated = self.allocated.saturating_add(sums.allocated());
        self.byte_days = self.byte_days.saturating_add(sums.byte_days().into());
        let (oldest, newest) = sums.span();
        self.span = (self.span.0.min(oldest), self.span.1.max(newest));
        for (bucket, files, bytes) in sums.ages() {
            self.add_age(bucket, files, bytes);
        }
    }

    fn add_age(&mut self, bucket: usize, files: u64, bytes: u64) {
        if let Some(age) = self.ages.as_mut().and_then(|ages| ages.get_mut(bucket)) {
            *age = (age.0.saturating_add(files), age.1.saturating_add(bytes));
        }
    }
}

/// No subject has more than 18 exabytes.
fn clip(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Rows, numbered from 0.
#[derive(Debug)]
pub(super) enum Rows {
    Plain(Vec<Row>),
    /// There may be millions of rows: what costs then is memory that is touched for the first time.
    Packed(Box<Packed>),
}

impl Rows {
    /// None yet.
    pub fn none() -> Self {
        Self::Plain(Vec::new())
    }

    /// None yet, and there may be many.
    pub fn none_of_many(rows: usize) -> Self {
        Self::Packed(Box::new(Packed::with_capacity(rows)))
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Plain(rows) => rows.len(),
            Self::Packed(packed) => packed.heads.len(),
        }
    }

    /// A row more, of a directory in which nothing lies yet; its number, or None when there are four thousand million.
    pub fn push(&mut self, directory: DirId, with_ages: bool) -> Option<u32> {
        let number = u32::try_from(self.len()).ok()?;
        match self {
            Self::Plain(rows) => rows.push(Row::empty(Subject::Directory(directory), with_ages)),
            Self::Packed(packed) => packed.heads.push(Head {
                directory,
                bytes: 0,
                last: 0,
            }),
        }
        Some(number)
    }

    /// Adds what lies in one of the directories that belong to a row.
    pub fn add(&mut self, row: u32, sums: &DirSums, with_ages: bool) {
        match self {
            Self::Plain(rows) => {
                if let Some(row) = rows.get_mut(row as usize) {
                    row.add(sums);
                }
            }
            Self::Packed(packed) => packed.add(row, sums, with_ages),
        }
    }

    /// Apparent bytes of each row, in their order.
    pub fn bytes(&self) -> impl Iterator<Item = u64> {
        let (plain, packed): (&[Row], &[Head]) = match self {
            Self::Plain(rows) => (rows, &[]),
            Self::Packed(packed) => (&[], &packed.heads),
        };
        let plain = plain.iter().map(|row| row.bytes);
        plain.chain(packed.iter().map(|head| head.bytes))
    }

    pub fn get(&self, row: u32, with_ages: bool) -> Option<Row> {
        match self {
            Self::Plain(rows) => rows.get(row as usize).cloned(),
            Self::Packed(packed) => packed.get(row, with_ages),
        }
    }

    pub fn subject(&self, row: u32) -> Option<Subject> {
        match self {
            Self::Plain(rows) => rows.get(row as usize).map(|row| row.subject),
            Self::Packed(packed) => {
                let head = packed.heads.get(row as usize)?;
                Some(Subject::Directory(head.directory))
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Packed {
    heads: Vec<Head>,
    /// Of each directory that was added to a row, varints: how far back the one before begins that was added to the same row
    /// (0: it was the first); files, apparent bytes, bytes on disk, size-days, oldest use, and how much later the newest was;
    /// if ages are wanted: how many there are, and bucket, files and bytes of each.
    sums: Vec<u8>,
    /// What is added is put together here: a vector that is asked for room for every byte takes twice the time.
    added: Added,
}

#[derive(Debug)]
struct Head {
    /// The row's bytes: rows are sorted by them.
    bytes: u64,
    /// Where in `sums` that begins what was added last; 0 if nothing was.
    last: usize,
    directory: DirId,
}

impl Packed {
    fn with_capacity(rows: usize) -> Self {
        Self {
            heads: Vec::with_capacity(rows),
            // So that nothing begins at 0.
            sums: vec![0],
            added: Added {
                bytes: [0; ADDED_MAX],
                len: 0,
            },
        }
    }

    fn add(&mut self, row: u32, sums: &DirSums, with_ages: bool) {
        let Some(head) = self.heads.get_mut(row as usize) else {
            return;
        };
        let begin = self.sums.len();
        let back = match head.last {
            0 => 0,
            last => begin.saturating_sub(last),
        };
        head.last = begin;
        head.bytes = head.bytes.saturating_add(sums.bytes());
        let added = &mut self.added;
        added.len = 0;
        let (oldest, newest) = sums.span();
        let numbers = [
            back as u64,
            sums.files(),
            sums.bytes(),
            sums.allocated(),
            sums.byte_days(),
            oldest.0.into(),
            oldest.age_at(newest),
        ];
        numbers.into_iter().for_each(|n| added.put(n));
        if with_ages {
            added.put(sums.ages().count() as u64);
            for (bucket, files, bytes) in sums.ages() {
                [bucket as u64, files, bytes]
                    .into_iter()
                    .for_each(|n| added.put(n));
            }
        }
        self.sums
            .extend_from_slice(added.bytes.get(..added.len).unwrap_or_default());
    }

    fn get(&self, row: u32, with_ages: bool) -> Option<Row> {
        let head = self.heads.get(row as usize)?;
        let mut row = Row::empty(Subject::Directory(head.directory), with_ages);
        let mut at = head.last;
        while at > 0 {
            let back = usize::try_from(unpack(self.sums.get(at..)?, &mut row).ok()?).ok()?;
            at = if back == 0 { 0 } else { at.checked_sub(back)? };
        }
        Some(row)
    }
}

/// Eight numbers and three of each age, of ten bytes at most.
const ADDED_MAX: usize = (8 + 3 * AGES) * 10;

#[derive(Debug)]
struct Added {
    bytes: [u8; ADDED_MAX],
    len: usize,
}

impl Added {
    /// As [`put_varint`](purge_format::integers::put_varint).
    fn put(&mut self, mut n: u64) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for byte in room {
            self.len += 1;
            if n < 0x80 {
                *byte = n as u8;
                return;
            }
            *byte = n as u8 | 0x80;
            n >>= 7;
        }
    }
}

/// Adds what was packed to a row, and tells how far back the one before begins.
fn unpack(packed: &[u8], row: &mut Row) -> Result<u64, Damaged> {
    let mut cursor = Cursor::new(packed, "usage");
    let back = cursor.varint()?;
    row.files = row.files.saturating_add(cursor.varint()?);
    row.bytes = row.bytes.saturating_add(cursor.varint()?);
    row.allocated = row.allocated.saturating_add(cursor.varint()?);
    row.byte_days = row.byte_days.saturating_add(cursor.varint()?.into());
    let oldest = Seconds(u32::try_from(cursor.varint()?).unwrap_or(u32::MAX));
    let newest = oldest.plus(cursor.varint()?);
    row.span = (row.span.0.min(oldest), row.span.1.max(newest));
    if row.ages.is_some() {
        for _ in 0..cursor.varint()? {
            let bucket = usize::try_from(cursor.varint()?).unwrap_or(usize::MAX);
            row.add_age(bucket, cursor.varint()?, cursor.varint()?);
        }
    }
    Ok(back)
}
