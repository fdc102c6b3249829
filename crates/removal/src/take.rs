//! Takes candidates away: compares each with the live file, and moves or removes what is still as the plan says.
//!
//! - [`guard`]  compares a candidate with the live file and the live index
//! - [`batch`]  takes a batch of them away
//! - [`moves`]  names that were moved, and their way back
//! - `last`     symbolic links and empty directories, which go last
//! - [`tree`]   directories that go as a whole
//! - `emptying` removes what is in such a directory
//! - [`forget`] what was removed leaves the index
//! - [`went`]   the mount by which users come is told what was taken
//! - [`room`]   how many descriptors that takes (pure)

pub mod batch;
mod emptying;
pub mod forget;
pub mod guard;
mod last;
pub mod moves;
pub mod room;
pub mod tree;
pub mod went;
