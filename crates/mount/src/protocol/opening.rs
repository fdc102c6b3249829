//! The first exchange: what the kernel can, and what is asked of it.

use super::answer::Answer;
use super::request::Short;

/// The version that is spoken. Newer kernels keep to it.
const VERSION: (u32, u32) = (7, 40);
/// Older kernels (before 5.4) are not asked.
const MINOR_MIN: u32 = 31;

const ASYNC_READ: u64 = 1;
const ATOMIC_TRUNCATE: u64 = 1 << 3;
const EXPORTS: u64 = 1 << 4;
const BIG_WRITES: u64 = 1 << 5;
const NO_MASK: u64 = 1 << 6;
const FLOCKS: u64 = 1 << 10;
const REFRESHES_DATA: u64 = 1 << 12;
const LISTS_ATTRIBUTES: u64 = 1 << 13;
const LISTS_ATTRIBUTES_IF_USED: u64 = 1 << 14;
const ASYNC_DIRECT: u64 = 1 << 15;
const PARALLEL_DIRS: u64 = 1 << 18;
const ACLS: u64 = 1 << 20;
const MAX_PAGES: u64 = 1 << 22;
const KILLS_BITS: u64 = 1 << 28;
const EXTENDED: u64 = 1 << 30;
const GROUP: u64 = 1 << 34;
const PASSTHROUGH: u64 = 1 << 37;
const RESEND: u64 = 1 << 39;

/// What one write carries at most, and what is read at once.
pub const DATA_BYTES_MAX: u32 = 1 << 20;
/// The kernel counts in pages of 4 KiB here.
const PAGES_MAX: u16 = 256;
/// The kernel sends this number of requests at once that no process waits for (reading ahead).
const BACKGROUND_MAX: u16 = 64;

/// What both sides can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreed {
    /// The kernel reads and writes files by itself.
    pub passthrough: bool,
    /// It asks again what an earlier process was asked and did not answer.
    pub resend: bool,
    /// Bits, for the log.
    pub flags: u64,
}

impl Agreed {
    /// From the bits.
    pub fn of(flags: u64) -> Self {
        Self {
            passthrough: flags & PASSTHROUGH != 0,
            resend: flags & RESEND != 0,
            flags,
        }
    }
}

/// Answers the first request. `wants_passthrough`: the kernel may read and write files by itself.
///
/// # Errors
/// [`Short`], and none for a kernel that is too old.
pub fn answer(
    body: &[u8],
    wants_passthrough: bool,
    wants_resend: bool,
) -> Result<Option<(Answer, Agreed)>, Short> {
    let number = |at: usize| -> Result<u32, Short> {
        let bytes = body.get(at..at.saturating_add(4)).ok_or(Short)?;
        Ok(u32::from_ne_bytes(bytes.try_into().map_err(|_| Short)?))
    };
    let (major, minor, read_ahead, low) = (number(0)?, number(4)?, number(8)?, number(12)?);
    if major != VERSION.0 || minor < MINOR_MIN {
        return Ok(None);
    }
    let mut can = u64::from(low);
    if can & EXTENDED != 0 {
        can |= u64::from(number(16)?) << 32;
    }
    let mut wanted = ASYNC_READ
        | ATOMIC_TRUNCATE
        | EXPORTS
        | BIG_WRITES
        | NO_MASK
        | FLOCKS
        | REFRESHES_DATA
        | LISTS_ATTRIBUTES
        | LISTS_ATTRIBUTES_IF_USED
        | ASYNC_DIRECT
        | PARALLEL_DIRS
        | ACLS
        | MAX_PAGES
        | KILLS_BITS
        | EXTENDED
        | GROUP;
    if wants_passthrough {
        wanted |= PASSTHROUGH;
    }
    if wants_resend {
        wanted |= RESEND;
    }
    let flags = can & wanted;
    let agreed = Agreed::of(flags);
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    // Two numbers of 16 bits each; what they are is in `struct fuse_init_out`.
    let pair = |first: u16, second: u16| {
        let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    };
    // What is read by the kernel itself may lie on a file system that is not stacked.
    let depth = u32::from(agreed.passthrough);
    let answer = Answer::with_room(64)
        .u32(VERSION.0)
        .u32(VERSION.1)
        .u32(read_ahead)
        .u32(half(flags))
        .u32(pair(BACKGROUND_MAX, BACKGROUND_MAX / 4 * 3))
        .u32(DATA_BYTES_MAX)
        .u32(1)
        .u32(pair(PAGES_MAX, 0))
        .u32(half(flags >> 32))
        .u32(depth);
    let answer = (0..6).fold(answer, |answer, _| answer.u32(0));
    Ok(Some((answer, agreed)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked(minor: u32, flags: u64) -> Vec<u8> {
        let low = (flags & 0xffff_ffff) as u32;
        let numbers = [7, minor, 131_072, low, (flags >> 32) as u32];
        let mut body: Vec<u8> = numbers.into_iter().flat_map(u32::to_ne_bytes).collect();
        body.resize(64, 0);
        body
    }

    #[test]
    fn nothing_is_agreed_that_the_kernel_has_not_offered() {
        let (answer, agreed) = answer(&asked(40, EXTENDED | PASSTHROUGH | ACLS), true, true)
            .unwrap()
            .unwrap();
        assert!(agreed.passthrough && !agreed.resend);
        assert_eq!(agreed.flags, EXTENDED | PASSTHROUGH | ACLS);
        assert_eq!(answer.length(), 64);
    }

    #[test]
    fn what_is_not_wanted_is_not_agreed_and_an_old_kernel_is_refused() {
        let (_, agreed) = answer(&asked(45, u64::MAX), false, false).unwrap().unwrap();
        assert!(!agreed.passthrough && !agreed.resend);
        assert!(answer(&asked(30, u64::MAX), true, true).unwrap().is_none());
        assert!(answer(&[0; 15], true, true).is_err());
    }
}
