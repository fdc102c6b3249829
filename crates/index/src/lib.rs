//! The index: what is known of every file of a volume, without asking the file system.
//!
//! ```text
//!   collect, scan --> Index (in memory) --write_back--> store (sled)
//!                       |  clock column   4+1 bytes a file, scanned linearly by rules
//!                       |  attributes     about ten bytes a file, encoded as on disk
//!                       |  directories    names and parents, so paths need no disk
//!                       `- file names     in the store only
//! ```
//! - [`codec`]   the rows, to the byte (pure)
//! - `page`      64 inodes in memory, and [`PageView`] of them
//! - [`dirs`]    directories: ids, parents, paths
//! - `names`     file names, read from and written to the store
//! - [`table`]   [`Index`]: all of it together, and every change that can be made to it
//! - [`account`], [`sums`]  sums by owner, group, project and directory, kept up with every change
//! - [`store`]   sled
//! - [`aside`]   opening the store, and setting a damaged one aside
//! - [`frame`], [`journal`], [`checkpoint`]  what survives the store: every use since the last checkpoint, and the clock
//!   column with its coverage, in plain files of checksummed frames
//!
//! What may never happen: a time of last use that moves backwards, except where the agent itself takes back what
//! it had recorded in doubt ([`Index::take_back_use`]).

pub mod account;
pub mod aside;
pub mod below;
pub mod checkpoint;
pub mod codec;
pub mod dirs;
pub mod journal;
mod names;
mod page;
pub mod store;
pub mod sums;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use codec::{Attributes, DirId};
pub use dirs::Directories;
pub use page::PageView;
pub use store::{Batch, Record, Row, Store, StoreError, VolumeId};
pub use table::{Found, Index, NAMES_MAX, Totals, Uses};
