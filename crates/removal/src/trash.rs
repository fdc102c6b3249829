//! The trash of a volume: where candidates lie between the rename that takes them away and their end.
//!
//! ```text
//!   VOLUME/.purge-agent-trash/        root's alone (0700), on the volume's own file system, invisible to the index
//!     RUN.UNTIL.open/                 a run that is going on, or was killed; UNTIL in unix seconds, 0: no grace
//!     RUN.UNTIL/                      a finished run, restorable until then
//!     RUN.kept/                       what could not be put back: never freed, see [`crate::trash::stranded`]
//!     new/                            where a directory is made that goes back, see [`crate::trash::way`]
//!     ready/, ballast/                for a volume that is full, see [`crate::trash::reserve`]
//!       f/DIR/DIR/NAME                files below the directories they came from, which carry owner and mode
//!       d/INODE/t                     a directory that was taken as a whole, or anything that is kept,
//!       d/INODE/at -> PATH            and where it came from
//!       d/INODE/was                   what the directories were like that it came from
//!       n/LANE/NUMBER                 without a grace: a file for the milliseconds until another takes its name or it is unlinked
//! ```
//! What has a grace says itself where it belongs: it can be put back by hand, without the agent. See [`crate::trash::restore`].
//!
//! - [`dir`]       the directory itself: opened, made, listed, given to a run
//! - [`layout`]    what things are called in it
//! - [`share`]     a run's part of it
//! - [`bin`]       where a run's worker puts what it takes
//! - [`lanes`]     the same for what lies there for a moment
//! - [`origin`]    the directories that things came from, and how these protected what was in them
//! - [`reserve`]   what a run needs of a volume that is full
//! - [`stranded`]  what cannot go back, and is never freed
//! - [`listing`]   lists what lies there, bit by bit
//! - `contents`    what lies there: counted, and remembered for its uses
//! - [`freeing`]   frees what lies there, unless it was used in the trash
//! - [`doubt`]     what of its uses is not known (pure)
//! - [`restore`]   puts back what lies there
//! - [`way`]       the directories on the way back: compared, or made again
//! - [`whom`]      for whom: an ordinary user gets back only what is theirs
//! - [`take_in`]   what came back is in the index, and young
//! - [`places`]    where a directory that was taken as a whole lies, and how the agent knows its own places from what is a user's
//! - [`placeholder`] keeps the name of such a directory while it is compared

pub mod bin;
mod contents;
pub mod dir;
pub mod doubt;
pub mod freeing;
pub mod lanes;
pub mod layout;
pub mod listing;
pub mod origin;
pub mod placeholder;
pub mod places;
pub mod reserve;
pub mod restore;
pub mod share;
pub mod stranded;
pub mod take_in;
pub mod way;
pub mod whom;

pub use dir::Trash;
pub use layout::{NAME, TRASH};
pub use share::Share;
