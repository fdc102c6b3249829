//! Any bytes that a damaged disk returns for the files beside the store (journal, checkpoint, clock): they are read or refused,
//! and a journal's entry that was read is read the same again after it was written.
//!
//! The first byte of an input chooses what the rest is. Where a checksum would keep the fuzzer out, the rest is a frame's
//! body and gets its checksum here.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_base::clock;
use purge_format::frame::{Frames, put_frame};
use purge_index::checkpoint;
use purge_index::journal::{Identity, put_entry, read_entry, read_segment};
use purge_model::Seconds;

/// Kinds of a checkpoint's frames.
const HEAD: u8 = 11;
const PAGES: u8 = 12;
const END: u8 = 13;

const ME: Identity = Identity {
    magic: 1,
    root: 2,
    birth: Seconds(3),
};

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 6 {
        0 => frames(rest),
        1 => drop(read_segment(rest, ME)),
        2 => journal_entry(rest),
        3 => drop(checkpoint::read(rest)),
        4 => checkpoint_pages(rest),
        _ => clock_state(rest),
    }
});

/// What is not torn is written back byte by byte.
fn frames(bytes: &[u8]) {
    let mut frames = Frames::new(bytes);
    let mut written = vec![];
    for body in frames.by_ref() {
        put_frame(&mut written, |out| out.extend_from_slice(body));
    }
    assert!(bytes.starts_with(&written));
    assert_eq!(frames.is_torn(), written.len() < bytes.len());
}

fn journal_entry(body: &[u8]) {
    let Ok(entry) = read_entry(body) else {
        return;
    };
    let mut written = vec![];
    put_entry(&mut written, &entry);
    let again = Frames::new(&written).next().map(read_entry);
    assert_eq!(again, Some(Ok(entry)));
}

/// A checkpoint is whole only if it says how many entries it has.
fn checkpoint_pages(body: &[u8]) {
    let mut whole = 0;
    for entries in 0..3u8 {
        let mut file = vec![];
        put_frame(&mut file, |out| {
            out.extend_from_slice(&[HEAD, 1, 1, 2, 3, 1, 9, 0])
        });
        put_frame(&mut file, |out| {
            out.push(PAGES);
            out.extend_from_slice(body);
        });
        put_frame(&mut file, |out| out.extend_from_slice(&[END, entries]));
        if let Some((head, remembered)) = checkpoint::read(&file) {
            assert_eq!((head.identity, head.number, head.taken), (ME, 1, Seconds(9)));
            // A page may be there twice: the later one counts.
            assert!(remembered.len() <= usize::from(entries));
            whole += 1;
        }
    }
    assert!(whole <= 1);
}

fn clock_state(body: &[u8]) {
    let _ = clock::decode(body);
    let mut framed = vec![];
    put_frame(&mut framed, |out| out.extend_from_slice(body));
    if let Some(saved) = clock::decode(&framed) {
        assert_eq!(clock::decode(&clock::encode(saved)), Some(saved));
    }
}
