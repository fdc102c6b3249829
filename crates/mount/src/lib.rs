//! A mount by which users come to a volume. The agent is told of each use before it happens.
//!
//! ```text
//!   user ── system call ──> kernel ── request ──> Server ── by descriptor ──> file system behind
//!                             │                      └── told (a log) ──> the agent, at once or when it comes back
//!                             └── reads and writes open files by itself (passthrough, Linux 6.9)
//! ```
//! - [`protocol`]  the kernel's words (pure)
//! - [`device`]    the kernel's end
//! - [`ground`]    the file system behind
//! - [`nodes`]     files that the kernel knows by numbers
//! - [`slots`]     what of that a successor needs
//! - [`taking`]    files that the agent is taking, or has taken
//! - [`asked`]     what the agent asks about them
//! - [`patience`]  requests that wait for a lease or a lock
//! - [`serve`]     the answers
//! - [`crew`]      which threads read requests
//! - [`running`]   threads, beginning and end
//!
//! The mount is a process of its own: the agent may end, be killed and come back, and no user notices.

pub mod asked;
pub mod crew;
pub mod device;
pub mod ground;
pub mod nodes;
pub mod patience;
pub mod protocol;
pub mod running;
pub mod serve;
pub mod slots;
pub mod taking;
