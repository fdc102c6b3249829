//! Decoding what the kernel's queue holds. Pure.
//!
//! - [`decode`] event records -> [`decode::Event`]
//! - [`layout`] file handle -> inode, for each file system's layout

pub mod decode;
pub mod layout;
