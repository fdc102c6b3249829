//! Checksummed frames: how journal, checkpoint and clock lie on disk beside the store. Pure.
//!
//! ```text
//! frame   length:u32  crc32 of the body:u32  body          (little-endian)
//! ```
//! A file is a run of frames. A torn or damaged frame ends it: nothing behind it is believed, because no reader can tell
//! where the next one would begin.

/// A body is at most this long; a length beyond it is damage.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 8;

/// Appends a frame whose body `fill` writes. A body over [`BODY_BYTES_MAX`] cannot be read again: callers cut theirs.
pub fn put_frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    fill(out);
    let body = out.get(start + HEAD_BYTES..).unwrap_or(&[]);
    let (len, crc) = (
        u32::try_from(body.len()).unwrap_or(u32::MAX),
        crc32fast::hash(body),
    );
    if let Some(head) = out.get_mut(start..start + HEAD_BYTES) {
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&len.to_le_bytes());
        second.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The bodies of a run of frames.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    torn: bool,
}

impl<'a> Frames<'a> {
    /// The frames of a file's content.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, torn: false }
    }

    /// Whether reading ended before the end: a write was cut short there, or the bytes were damaged.
    pub fn is_torn(&self) -> bool {
        self.torn
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.bytes.is_empty() || self.torn {
            return None;
        }
        let split = split_frame(self.bytes);
        self.torn = split.is_none();
        let (body, rest) = split?;
        self.bytes = rest;
        Some(body)
    }
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let (body, rest) = (len <= BODY_BYTES_MAX).then(|| rest.split_at_checked(len))??;
    (crc32fast::hash(body) == u32::from_le_bytes(*crc)).then_some((body, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn written(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            put_frame(&mut out, |b| b.extend_from_slice(body));
        }
        out
    }

    proptest! {
        #[test]
        fn frames_come_back_and_a_cut_file_gives_its_beginning(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12), cut: prop::sample::Index
        ) {
            let bytes = written(&bodies);
            let mut frames = Frames::new(&bytes);
            let read: Vec<_> = frames.by_ref().map(<[u8]>::to_vec).collect();
            prop_assert!(!frames.is_torn());
            prop_assert_eq!(&read, &bodies);
            let cut = cut.index(bytes.len() + 1);
            let mut frames = Frames::new(&bytes[..cut]);
            let read: Vec<_> = frames.by_ref().map(<[u8]>::to_vec).collect();
            prop_assert!(bodies.starts_with(&read));
            prop_assert!(frames.is_torn() || written(&read).len() == cut);
        }

        #[test]
        fn a_flipped_bit_is_seen(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..6), at: prop::sample::Index, bit in 0u8..8
        ) {
            let mut bytes = written(&bodies);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let mut frames = Frames::new(&bytes);
            let read: Vec<_> = frames.by_ref().map(<[u8]>::to_vec).collect();
            prop_assert!(frames.is_torn());
            prop_assert!(bodies.starts_with(&read));
        }
    }
}
