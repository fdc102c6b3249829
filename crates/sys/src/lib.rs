//! The operating system, in small safe wrappers. The only place where `unsafe` and libc are allowed.
//!
//! - [`extents`]  blocks of a file that others use as well
//! - [`subvolumes`] how many of btrfs lie in one
//! - [`superblock`] the device of a whole file system
//! - [`acting`]   a thread that makes files for a user
//! - [`backing`]  what a mount of the agent's does on the file system behind it
//! - [`fuse`]     the kernel's side of such a mount
//! - [`absence`]  what an error says of the thing that was looked up
//! - [`exact`]    statx with times as exact as the file system keeps them
//! - [`failure`]  what an error of a file system means to an operator
//! - [`fanotify`] groups and marks; reading gives raw bytes, the decoder is in `collect`
//! - [`descriptor`] descriptors that are handed over as numbers
//! - [`handle`]   file handles: from a path, and back to an open file
//! - [`access`]   who may write to a directory
//! - [`leads`]    where symbolic links lead
//! - [`lease`]    write leases and advisory locks
//! - [`limits`]   how many files may be open
//! - [`memory`]   keeping the allocator from holding on to what a scan needed
//! - [`mountinfo`] the kernel's tables of mounts
//! - [`namespaces`] the mount namespaces of the host
//! - [`mountpoints`] names that are not touched without care
//! - [`bounded`]  a look that ends though a server does not answer
//! - [`objects`]  files of a store that the agent alone writes
//! - [`openers`]  whether a lease is refused while a process waits to open the file
//! - [`peer`]     who is at the other end of a unix socket
//! - [`processor`] on which processor a thread runs
//! - [`private`]  files and directories that are root's alone
//! - [`project`]  project ids
//! - [`shared`]   a buffer that outlives the process
//! - [`stat`]     statx -> [`purge_model::Stat`], and what a mount is
//! - [`socket`]   the unix socket that clients come by
//! - [`trusted`]  places that only root can change
//! - [`time`]     the clocks, and which boot this is
//! - [`beneath`]  opening what lies below a volume's root and nowhere else
//! - [`inside`]   changing names in directories that others may write to
//! - [`vacant`]   moving a name to a place that is free
//! - [`mark`] tells a directory that the agent made
//! - [`likeness`] owner, mode, ACLs and attributes of a directory, read and given by descriptor
//! - [`trying`]   what a file system does, found out with a file of our own
//! - [`walk`]     a tree of any depth, without recursion
//!
//! Every function names its man page. Nothing here knows of volumes, rules or plans.

#![allow(unsafe_code)]

pub mod absence;
pub mod access;
pub mod acting;
pub mod backing;
pub mod beneath;
pub mod bounded;
pub mod child;
pub mod descriptor;
pub mod exact;
pub mod extents;
pub mod failure;
pub mod fanotify;
pub mod filesystem;
pub mod fuse;
pub mod handle;
pub mod inside;
pub mod leads;
pub mod lease;
pub mod likeness;
pub mod limits;
pub mod mark;
pub mod memory;
pub mod mountinfo;
pub mod mountpoints;
pub mod namespaces;
pub mod objects;
pub mod openers;
pub mod peer;
pub mod private;
pub mod processor;
pub mod project;
pub mod protection;
pub mod shared;
pub mod socket;
pub mod stat;
pub mod subvolumes;
pub mod superblock;
pub mod time;
pub mod trusted;
pub mod trying;
pub mod vacant;
pub mod walk;
