//! Copies of files in a store: sent, fetched back and compared, and named in a catalogue that lies in the store as well.
//!
//! ```text
//!   file (open, proven unopened for a moment) ──> content ──> copy ──> Store (file://)
//!                                                    │          └── fetched back, SHA-256 compared
//!                                                    └── catalogue line ──> catalogue object, fetched back and compared
//! ```
//! From the bottom up, each uses what stands above it:
//!
//! - [`settings`]  a store as the configuration names it
//! - [`key`]       a volume's path becomes a key, and back (pure)
//! - [`content`]   what is sent: read once for its hash, or from memory
//! - [`store`]     what a store can do, and what it may answer
//! - [`file`]      a store in a directory
//! - [`probe`]     what a store keeps of its promises
//! - [`copy`]      one file: found or sent, fetched back, compared
//! - [`catalogue`] a line for each copy, and the objects that hold them
//! - [`archive`]   one store in use by one run
//! - [`reading`]   what a catalogue says, and whether a copy is still what it was
//!
//! Nothing here removes a file of a volume, holds a lease, or knows of plans.
//!
//! What may never happen: [`copy::copy`] returns a copy whose bytes were not fetched back and compared; an object is replaced; an object is
//! removed that this process has not written itself.

pub mod archive;
pub mod catalogue;
pub mod content;
pub mod copy;
pub mod file;
pub mod key;
pub mod probe;
pub mod reading;
pub mod settings;
pub mod store;
