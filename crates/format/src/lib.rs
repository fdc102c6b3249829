//! How values become bytes on disk: integers and checksummed frames. Pure: nothing panics on damaged input.
//!
//! - [`integers`] varints and bytes, every read checked
//! - [`frame`]    records of a file that is only appended to, with a checksum each

pub mod frame;
pub mod integers;

/// A row that cannot be what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged {row} row at byte {at}")]
pub struct Damaged {
    /// Which kind of row.
    pub row: &'static str,
    /// Where reading stopped making sense.
    pub at: usize,
}
