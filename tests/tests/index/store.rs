//! The store below the index, through a large run.

use purge_index::store::Row;
use purge_index::{Batch, Store, VolumeId};
use purge_sys::memory::resident_bytes;

/// As many as the agent writes at once.
const ROWS_AT_ONCE: usize = 1000;
const ROWS: u64 = 300_000;
const ROW_BYTES: usize = 700;

/// Changes all rows, as the agent does it.
fn change_all(store: &Store, value: &[u8]) {
    for first in (0..ROWS).step_by(ROWS_AT_ONCE) {
        let mut batch = Batch::default();
        for number in (first..ROWS).take(ROWS_AT_ONCE) {
            batch.put_row(Row::Names, VolumeId(1), number, value);
        }
        store.apply(batch).unwrap();
    }
    store.flush().unwrap();
}

/// sled alone keeps a kilobyte for each row that is written or removed, until it is closed.
#[test]
fn what_rows_took_that_are_written_and_removed_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let before = resident_bytes();
    change_all(&store, &[7; ROW_BYTES]);
    change_all(&store, &[]);
    let grown = resident_bytes().saturating_sub(before);
    println!("grown by {} MiB", grown >> 20);
    assert_eq!(store.last_number(Row::Names, VolumeId(1)).unwrap(), None);
    assert!(grown < 100 << 20, "grown by {} MiB", grown >> 20);
}
