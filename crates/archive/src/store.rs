//! What a store can do, and what it may answer.

use std::fmt::Debug;
use std::io::{self, Read};

use crate::content::{Content, Hash};
use crate::key::Limits;

/// A store of objects, each with a key and bytes. No object is ever replaced.
pub trait Store: Send + Sync + Debug {
    /// Which keys it takes.
    fn limits(&self) -> Limits;

    /// How many bytes the object with this key has; none: there is none.
    ///
    /// # Errors
    /// Why that cannot be said.
    fn size(&self, key: &str) -> Result<Option<u64>, StoreError>;

    /// Writes an object where there is none. It lasts when this returns.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is one, and why else nothing was written.
    fn put(&self, key: &str, content: &mut Content<'_>) -> Result<Written, StoreError>;

    /// The bytes of an object, as the store has them: not those that this process has just sent.
    ///
    /// # Errors
    /// Why they cannot be had.
    fn get(&self, key: &str) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Removes an object that this process has just written, and no other.
    ///
    /// # Errors
    /// Why it stays.
    fn discard(&self, key: &str, written: &Written) -> Result<(), StoreError>;

    /// The keys that begin with a directory's name, at any depth below it, in no order.
    ///
    /// # Errors
    /// Why they cannot be listed.
    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError>;
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The hash of the bytes that were sent.
    pub hash: Hash,
    /// By which the store tells this object from another with the same key.
    pub id: u64,
}

/// What a store may answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is an object with this key.
    #[error("there is an object with this key already")]
    Exists,
    /// The store has no place for this key: too long, or a name in it is that of an object.
    #[error("the store takes no such key: {0}")]
    NoPlace(io::Error),
    /// The file that is sent cannot be read, or has changed.
    #[error("{0}")]
    Source(#[source] io::Error),
    /// The store does not do what it is asked for: what follows would fare no better.
    #[error("{0}")]
    Broken(String),
}
