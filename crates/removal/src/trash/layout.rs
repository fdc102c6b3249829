//! What things are called in the trash. See [`super`] for where they lie.

use std::ffi::CStr;

pub use purge_collect::TRASH;

/// Its name at the volume's root, as the C library takes it.
pub const NAME: &CStr = c".purge-agent-trash";
/// What a directory that was taken as a whole is called in its place.
pub(crate) const TREE: &CStr = c"t";
/// Where it came from, beside it.
pub(crate) const ORIGIN: &CStr = c"at";
/// What the directories were like that it came from, beside that: see [`crate::trash::origin`].
pub(crate) const LIKE: &CStr = c"was";
/// The parts of a share.
pub(crate) const FILES: &str = "f";
pub(crate) const TREES: &str = "d";
pub(crate) const FLAT: &str = "n";
