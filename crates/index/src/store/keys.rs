//! The keys of the store.
//!
//! ```text
//! c vol:u16 page:u64        clock row         all numbers big-endian, so that rows of
//! a vol:u16 page:u64        attribute row     one kind and volume lie together
//! n vol:u16 page:u64        name row
//! l vol:u16 inode:u64       link row: the names of a file that has more than a few
//! d vol:u16 row:u64         directory row
//! t vol:u16 inode:u64       used while it lay in the trash
//! v NAME                    volume record
//! p ID  / P ID chunk:u32    plan / its candidates
//! r ID  / R ID chunk:u32    run / its failures
//! h ID                      hold
//! ```

/// A volume's number in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeId(pub u16);

/// The kinds of row that belong to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// Access times.
    Clocks,
    /// Attributes.
    Attributes,
    /// File names.
    Names,
    /// Names of one file that has more than a few.
    Links,
    /// Directories.
    Directories,
    /// Inodes in the trash that were used there.
    Trashed,
}

impl Row {
    /// Those that a scan makes again.
    pub(super) const OF_THE_INDEX: [Self; 5] = [
        Self::Clocks,
        Self::Attributes,
        Self::Names,
        Self::Links,
        Self::Directories,
    ];

    fn tag(self) -> u8 {
        match self {
            Self::Clocks => b'c',
            Self::Attributes => b'a',
            Self::Names => b'n',
            Self::Links => b'l',
            Self::Directories => b'd',
            Self::Trashed => b't',
        }
    }
}

/// The kinds of record that are not pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A volume: id, identity, coverage.
    Volume,
    /// A plan's head.
    Plan,
    /// A chunk of a plan's candidates.
    PlanChunk,
    /// A run.
    Run,
    /// A hold.
    Hold,
}

impl Record {
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Volume => b'v',
            Self::Plan => b'p',
            Self::PlanChunk => b'P',
            Self::Run => b'r',
            Self::Hold => b'h',
        }
    }
}

pub(super) fn prefix(row: Row, volume: VolumeId) -> [u8; 3] {
    let [hi, lo] = volume.0.to_be_bytes();
    [row.tag(), hi, lo]
}

pub(super) fn row_key(row: Row, volume: VolumeId, number: u64) -> [u8; 11] {
    let mut key = [0; 11];
    let (head, tail) = key.split_at_mut(3);
    head.copy_from_slice(&prefix(row, volume));
    tail.copy_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn record_key(record: Record, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1);
    out.push(record.tag());
    out.extend_from_slice(key);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Batch, Store};

    #[test]
    fn records_are_listed_in_order_and_only_those_asked_for() {
        let store = Store::temporary().unwrap();
        let mut batch = Batch::default();
        for (record, key) in [
            (Record::Plan, "a1"),
            (Record::Hold, "b"),
            (Record::Hold, "a2"),
            (Record::Hold, "a1"),
            (Record::Run, "a"),
        ] {
            batch.put(record, key.as_bytes(), b"x");
        }
        store.apply(batch).unwrap();
        let keys = |prefix: &[u8]| -> Vec<Vec<u8>> {
            store
                .records(Record::Hold, prefix)
                .map(|r| r.unwrap().0)
                .collect()
        };
        assert_eq!(keys(b""), [b"a1".to_vec(), b"a2".to_vec(), b"b".to_vec()]);
        assert_eq!(keys(b"a"), [b"a1".to_vec(), b"a2".to_vec()]);
    }
}
