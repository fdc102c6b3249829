//! Any text that people write for a duration or a size: it is read or refused with a reason, and never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_proto::units::{format_duration, format_size, parse_duration, parse_size};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match parse_duration(text) {
        Ok(seconds) => assert_eq!(parse_duration(&format_duration(seconds)), Ok(seconds)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match parse_size(text) {
        Ok(bytes) => {
            assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
            assert!(!format_size(bytes).is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
