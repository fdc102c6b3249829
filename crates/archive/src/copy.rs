//! One file: found in the store or sent there, fetched back, and compared.
//!
//! ```text
//!   is there an object with its key?
//!     yes, the same bytes (fetched and hashed)   it was copied before: found
//!     yes, other bytes                           both are kept: the same again with a key beside it, which names its hash
//!     no                                         sent, fetched back, hashed: copied
//! ```
//! What may never happen: a copy is reported whose bytes were not fetched back and compared with what was read of the file.

use std::io;

use crate::content::{Content, Hash, hash_of};
use crate::key;
use crate::store::{Store, StoreError, Written};

/// Another process may write the same object meanwhile: it is looked at again, this often.
const LOOKS: usize = 3;

/// A copy whose bytes were fetched back and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its key.
    pub key: String,
    /// The hash of its bytes.
    pub hash: Hash,
    /// It was there before.
    pub is_found: bool,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file cannot be read, or has changed.
    #[error("{0}")]
    Source(#[source] io::Error),
    /// The store has no place for it.
    #[error("the store takes neither the path nor its hash as a key: {0}")]
    NoPlace(io::Error),
    /// The store has other bytes under each key that the file may have.
    #[error("the store has other content under {0:?}, and under the key beside it")]
    Taken(String),
    /// What was fetched back is not what was sent.
    #[error("the store returned other bytes than were sent to {0:?}")]
    Unfaithful(String),
    /// The store does not do what it is asked for.
    #[error("{0}")]
    Broken(String),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists => {
                Self::Broken("the store says that there is an object, and that there is none".into())
            }
            StoreError::NoPlace(error) => Self::NoPlace(error),
            StoreError::Source(error) => Self::Source(error),
            StoreError::Broken(why) => Self::Broken(why),
        }
    }
}

/// Copies the content of a path.
///
/// # Errors
/// Why there is no copy.
pub fn copy(store: &dyn Store, path: &[u8], content: &mut Content<'_>) -> Result<Copied, CopyError> {
    if let Some(key) = key::in_tree(path, store.limits()) {
        match at_key(store, &key, content) {
            Err(CopyError::NoPlace(error)) => {
                tracing::debug!(key, %error, "it goes to the store by the hash of its path");
            }
            other => return other,
        }
    }
    at_key(store, &key::by_hash(path), content)
}

/// At a key, or at the one beside it that names the content's hash.
fn at_key(store: &dyn Store, key: &str, content: &mut Content<'_>) -> Result<Copied, CopyError> {
    if let Some(copied) = at_just_this_key(store, key, content)? {
        return Ok(copied);
    }
    let hash = content.hash().map_err(CopyError::Source)?;
    let beside = at_just_this_key(store, &key::beside(key, &hash), content)?;
    beside.ok_or_else(|| CopyError::Taken(key.to_owned()))
}

/// None: other bytes lie there.
fn at_just_this_key(
    store: &dyn Store,
    key: &str,
    content: &mut Content<'_>,
) -> Result<Option<Copied>, CopyError> {
    for _ in 0..LOOKS {
        if let Some(size) = store.size(key)? {
            let hash = content.hash().map_err(CopyError::Source)?;
            let is_same = size == content.size() && is_there(store, key, (hash, size))?;
            let copied = || Copied {
                key: key.to_owned(),
                hash,
                is_found: true,
            };
            return Ok(is_same.then(copied));
        }
        match store.put(key, content) {
            Ok(written) => return fetch_back(store, key, (written, content.size())).map(Some),
            Err(StoreError::Exists) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Exists.into())
}

fn fetch_back(store: &dyn Store, key: &str, (written, size): (Written, u64)) -> Result<Copied, CopyError> {
    if is_there(store, key, (written.hash, size))? {
        return Ok(Copied {
            key: key.to_owned(),
            hash: written.hash,
            is_found: false,
        });
    }
    if let Err(error) = store.discard(key, &written) {
        tracing::warn!(key, %error, "what was sent and did not come back the same stays in the store");
    }
    Err(CopyError::Unfaithful(key.to_owned()))
}

/// Whether the store returns these bytes.
fn is_there(store: &dyn Store, key: &str, (hash, size): (Hash, u64)) -> Result<bool, CopyError> {
    let read = hash_of(store.get(key)?, size);
    let found = read.map_err(|e| CopyError::Broken(format!("cannot read {key:?} from the store: {e}")))?;
    Ok(found == Some(hash))
}
