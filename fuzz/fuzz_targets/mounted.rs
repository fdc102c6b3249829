//! Any bytes of the kernel's end of a mount: a request or an error, and what is read of it lies in it. The first exchange agrees on nothing that was
//! not offered.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_mount::protocol::{Op, Request, opening, request};

fuzz_target!(|input: &[u8]| {
    let asker = request::asker(input);
    assert!(asker == 0 || input.len() >= 36);
    let Ok(request) = Request::parse(input) else {
        return;
    };
    assert!(input.len() >= request::HEAD_BYTES);
    match request.op {
        Op::Write { part, data, .. } => assert_eq!(data.len(), part.size as usize),
        Op::SetAttribute { value, .. } => assert!(value.len() <= input.len()),
        Op::Opening { body } => begins(body),
        _ => {}
    }
    // The same bytes are the same request.
    assert_eq!(Request::parse(input).as_ref(), Ok(&request));
});

fn begins(body: &[u8]) {
    let offered = |at: usize| {
        let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let Ok(Some((answer, agreed))) = opening::answer(body, true, true) else {
        return;
    };
    let can = u64::from(offered(12)) | u64::from(offered(16)) << 32;
    assert_eq!(agreed.flags & !can, 0, "not offered");
    assert_eq!(answer.length(), 64);
}
