//! Files and bytes by age, of many lines.

use crate::index::codec::{Cursor, put_varint};
use crate::index::sums::AGES;

/// Files and apparent bytes by age.
pub type Ages = [(u64, u64); AGES];

/// More lines than these are packed.
const PLAIN_MAX: usize = 10_000;

/// Bucket, files and bytes.
pub(super) type Age = (usize, u64, u64);

/// What was added to each line, once or several times.
#[derive(Debug)]
pub(super) enum AgesOfLines {
    Plain(Vec<Ages>),
    /// A line may have seven ages, and there may be millions of lines: what costs then is memory that is touched for the first time.
    Packed(Packed),
}

impl AgesOfLines {
    /// Of so many lines, with no files yet.
    pub fn of(lines: usize) -> Self {
        match lines {
            ..=PLAIN_MAX => Self::Plain(vec![Ages::default(); lines]),
            _ => Self::Packed(Packed::of(lines)),
        }
    }

    /// Adds what somebody has of some ages to a line.
    pub fn add(&mut self, line: u32, added: impl Iterator<Item = Age> + Clone) {
        match self {
            Self::Plain(lines) => {
                if let Some(ages) = lines.get_mut(line as usize) {
                    added.for_each(|age| add(ages, age));
                }
            }
            Self::Packed(packed) => packed.add(line, added),
        }
    }

    /// The ages of a line, if there is such a line.
    pub fn get(&self, line: u32) -> Option<Ages> {
        match self {
            Self::Plain(lines) => lines.get(line as usize).copied(),
            Self::Packed(packed) => packed.get(line),
        }
    }
}

fn add(ages: &mut Ages, (bucket, files, bytes): Age) {
    if let Some(age) = ages.get_mut(bucket) {
        *age = (age.0.saturating_add(files), age.1.saturating_add(bytes));
    }
}

#[derive(Debug)]
pub(super) struct Packed {
    /// Of each line, where what was added last begins; 0 if nothing was.
    last: Vec<usize>,
    /// For each time: how far back the time before begins for the same line (0: there was none), how many ages follow, and
    /// bucket, files and bytes of each; all varints.
    bytes: Vec<u8>,
}

impl Packed {
    fn of(lines: usize) -> Self {
        Self {
            last: vec![0; lines],
            // So that nothing begins at 0.
            bytes: vec![0],
        }
    }

    fn add(&mut self, line: u32, added: impl Iterator<Item = Age> + Clone) {
        let Some(last) = self.last.get_mut(line as usize) else {
            return;
        };
        let begin = self.bytes.len();
        let back = if *last == 0 {
            0
        } else {
            begin.saturating_sub(*last)
        };
        *last = begin;
        put_varint(&mut self.bytes, back as u64);
        put_varint(&mut self.bytes, added.clone().count() as u64);
        for (bucket, files, bytes) in added {
            put_varint(&mut self.bytes, bucket as u64);
            put_varint(&mut self.bytes, files);
            put_varint(&mut self.bytes, bytes);
        }
    }

    fn get(&self, line: u32) -> Option<Ages> {
        let mut ages = Ages::default();
        let mut at = *self.last.get(line as usize)?;
        while at > 0 {
            let mut cursor = Cursor::new(self.bytes.get(at..)?, "ages");
            let back = usize::try_from(cursor.varint().ok()?).ok()?;
            for _ in 0..cursor.varint().ok()? {
                let bucket = usize::try_from(cursor.varint().ok()?).ok()?;
                add(&mut ages, (bucket, cursor.varint().ok()?, cursor.varint().ok()?));
            }
            at = if back == 0 { 0 } else { at.checked_sub(back)? };
        }
        Some(ages)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_equals_what_is_plain(added in prop::collection::vec((0u32..5, prop::collection::vec((0usize..AGES, any::<u32>(), any::<u32>()), 0..4)), 0..40)) {
            let mut plain = AgesOfLines::of(4);
            let mut packed = Packed::of(4);
            for (line, ages) in &added {
                let ages = ages.iter().map(|(bucket, files, bytes)| (*bucket, u64::from(*files), u64::from(*bytes)));
                plain.add(*line, ages.clone());
                packed.add(*line, ages);
            }
            for line in 0..5 {
                prop_assert_eq!(packed.get(line), plain.get(line));
            }
        }
    }
}
