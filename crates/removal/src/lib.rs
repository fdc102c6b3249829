//! From an evaluation to removed files: saved plans, holds, and the run that applies a plan.
//!
//! ```text
//!   Evaluation --plans--> saved plan --apply--> batch --guard--> Verified --take--> trash --> unlink
//!                                       |         |                           |
//!                                     holds     ledger: what was begun,     restore
//!                                               decided and told            (or after a crash: recover)
//! ```
//! - [`candidate`] what a plan says of one entry, and how it is stored (pure)
//! - [`plans`]     saved plans
//! - [`holds`]     paths that stay, whatever the rules say
//! - [`protection`] whether leases are given, or a grace must protect
//! - [`guard`]     compares a candidate with the live file and the live index
//! - [`fate`]      what became of one
//! - [`refusal`]   what an error of the kernel means for a candidate (pure)
//! - [`take`]      takes a batch of them away
//! - `last`        the same for symbolic links and empty directories
//! - [`tree`]      the same for directories that go as a whole
//! - [`places`]    where such a directory lies, and how the agent knows its own places from what is a user's
//! - [`placeholder`] keeps the name of such a directory while it is compared
//! - [`trash`]     where things lie between being taken away and their end
//! - [`share`]     a run's part of it; `lying`: what lies there
//! - [`reserve`]   what a run needs of a volume that is full
//! - [`freeing`]   frees what lies there, unless it was used in the trash
//! - [`doubt`]     what of its uses is not known (pure)
//! - [`restore`]   putting back what lies there
//! - [`take_in`]   what came back is in the index, and young
//! - [`way`]       the directories on the way back: compared, or made again
//! - [`origin`]    which directories those were, and how they protected what was in them
//! - [`ledger`]    what a run has begun and decided, for the case that it is killed
//! - [`recover`]   closing runs that were
//! - [`tally`]     counting fates (pure)
//! - [`audit`]     a line for each thing that was deleted, trashed, restored or left alone
//! - [`apply`]     one run: workers over the candidates of a plan
//! - [`surroundings`] what it needs from the volume
//! - [`parts`]     hands them out
//! - [`pace`]      how many together, and how many in a second
//! - [`room`]      how many descriptors that takes (pure)
//! - [`ending`]    what its record says in the end
//! - [`runs`]      past and current runs
//! - [`counts`]    what they came to since the start, for metrics
//!
//! What may never happen: something is removed that is not a [`guard::Verified`] candidate of a saved plan.

pub mod apply;
pub mod audit;
pub mod bin;
pub mod candidate;
pub mod counts;
pub mod doubt;
pub mod ending;
pub mod fate;
pub mod forget;
pub mod freeing;
pub mod guard;
pub mod holds;
pub mod kept;
mod last;
pub mod ledger;
mod lying;
pub mod origin;
pub mod pace;
pub mod parts;
pub mod placeholder;
pub mod places;
pub mod plans;
pub mod protection;
pub mod recover;
pub mod refusal;
pub mod reserve;
pub mod restore;
pub mod room;
pub mod runs;
pub mod share;
mod stored;
pub mod surroundings;
pub mod take;
pub mod take_in;
pub mod tally;
pub mod trash;
pub mod tree;
pub mod way;
