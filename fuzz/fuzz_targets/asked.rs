//! Any bytes on the socket by which the agent asks a mount: questions or an error, and no more is read than there is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_collect::fuse::asking::Question;

fuzz_target!(|input: &[u8]| {
    let mut left = input;
    loop {
        let before = left.len();
        match Question::read(&mut left) {
            Ok(Some(Question::Went(went))) => assert!(went.name.len() <= 255 && went.name.len() < before),
            Ok(Some(_)) => {}
            // None: only where no whole head is left.
            Ok(None) => return assert!(before < 24),
            Err(_) => return,
        }
        assert!(left.len() + 24 <= before);
    }
});
