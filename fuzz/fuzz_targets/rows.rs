//! Any bytes that a damaged disk returns for a row of the index: it is read or refused, and what was read is
//! read the same again after it was written.
//!
//! The first byte of an input chooses the kind of row, the rest is the row.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_format::integers::Cursor;
use purge_index::codec::{
    AttributeReader, NameEntry, names, pack_names, put_attributes, put_clocks, put_dir, put_name,
    read_clocks, read_dirs, split_present, unpack_names,
};

fuzz_target!(|input: &[u8]| {
    let Some((kind, row)) = input.split_first() else {
        return;
    };
    match kind % 6 {
        0 => clock_row(row),
        1 => attribute_row(row),
        2 => name_row(row),
        3 => directory_row(row),
        4 => packed_names(row),
        _ => varints(row),
    }
});

/// A clock row has one form only, so it is written back byte by byte.
fn clock_row(row: &[u8]) {
    let Ok((present, clocks, sources)) = read_clocks(row) else {
        return;
    };
    assert_eq!(clocks.len(), present.count_ones() as usize);
    assert_eq!(sources.len(), clocks.len());
    let mut written = vec![];
    put_clocks(&mut written, present, &clocks, &sources);
    assert_eq!(written, row);
}

fn attribute_row(row: &[u8]) {
    let Some((present, entries)) = split_present(row) else {
        return;
    };
    let mut reader = AttributeReader::new(entries);
    let read: Vec<_> = (0..present.count_ones())
        .map_while(|_| reader.next_entry().ok())
        .collect();
    let mut written = vec![];
    put_attributes(&mut written, read.iter());
    let mut again = AttributeReader::new(&written);
    for entry in &read {
        assert_eq!(again.next_entry().as_ref(), Ok(entry));
    }
    assert!(
        again.next_entry().is_err(),
        "the written row holds more entries than were read"
    );
}

fn name_row(row: &[u8]) {
    let read: Vec<NameEntry<'_>> = names(row).map_while(Result::ok).collect();
    let mut written = vec![];
    for entry in &read {
        put_name(&mut written, *entry);
    }
    let again: Result<Vec<_>, _> = names(&written).collect();
    assert_eq!(again.as_ref(), Ok(&read));
}

fn packed_names(row: &[u8]) {
    let Ok(unpacked) = unpack_names(row) else {
        return;
    };
    let again = unpack_names(&pack_names(&unpacked));
    let sorted = |row: &[u8]| {
        let mut entries: Vec<_> = names(row)
            .map_while(Result::ok)
            .map(|e| (e.offset, e.parent, e.name.to_vec()))
            .collect();
        entries.sort_by_key(|e| e.0);
        entries
    };
    assert_eq!(again.as_deref().map(sorted), Ok(sorted(&unpacked)));
}

fn directory_row(row: &[u8]) {
    let Ok(read) = read_dirs(row) else {
        return;
    };
    let mut written = vec![];
    for slot in &read {
        put_dir(&mut written, slot.as_ref());
    }
    assert_eq!(read_dirs(&written).as_ref(), Ok(&read));
}

/// Every read moves the cursor on, so a loop over a cursor ends.
fn varints(row: &[u8]) {
    let mut cursor = Cursor::new(row, "fuzzed");
    let mut read = 0;
    while cursor.varint().is_ok() {
        read += 1;
        assert!(read <= row.len());
    }
}
