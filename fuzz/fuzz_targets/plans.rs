//! What a run reads back from the state directory before it removes anything: candidates of a saved plan, and the ledger of a run that
//! was killed. The first byte chooses which.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_format::frame::put_frame;
use purge_removal::candidate::{CHUNK_CANDIDATES, decode, encode};
use purge_removal::run::ledger::Account;

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 2 {
        0 => {
            if let Ok(candidates) = decode(bytes) {
                assert!(candidates.len() <= bytes.len());
                let again = decode(&encode(&candidates));
                assert_eq!(again.as_ref(), Ok(&candidates));
            }
        }
        _ => {
            // As pieces of a whole file: a damaged one ends at its first wrong sum.
            let mut framed = Vec::new();
            for body in bytes.split(|b| *b == 0xff) {
                put_frame(&mut framed, |out| out.extend_from_slice(body));
            }
            let account = Account::read(&framed, &Default::default());
            let _ = Account::read(bytes, &Default::default());
            assert!(account.chunks.values().all(|c| c.len() <= CHUNK_CANDIDATES));
            for chunk in 0..4 {
                for position in 0..40 {
                    let _ = account.known(chunk, position);
                }
            }
        }
    }
});
