//! What a store keeps of its promises: two objects are written, and the store must return the first, refuse to replace it, and know that a third is
//! not there. A store that does not is not used.

use crate::content::{Content, hash_of};
use crate::key;
use crate::store::{Store, StoreError};

/// Tries a store. `token` is given to no other probe.
///
/// # Errors
/// Which promise it does not keep.
pub fn probe(store: &dyn Store, token: &str) -> Result<(), StoreError> {
    let key = format!("{}/probe/{token}", key::OWN);
    let broken = |why: &str| Err(StoreError::Broken(format!("the store cannot be used: it {why}")));
    if store.size(&key)?.is_some() {
        return broken("has an object that was never written");
    }
    let mut first = Content::of_bytes(token.as_bytes().to_vec());
    let written = store.put(&key, &mut first)?;
    let tried = try_first(store, &key, (token.as_bytes(), &written.hash));
    store.discard(&key, &written)?;
    if let Some(why) = tried? {
        return broken(why);
    }
    match store.size(&key)? {
        Some(_) => broken("does not remove what this agent has written and rejects"),
        None => Ok(()),
    }
}

/// The promise about an object that is there which the store does not keep.
fn try_first(
    store: &dyn Store,
    key: &str,
    (bytes, hash): (&[u8], &[u8; 32]),
) -> Result<Option<&'static str>, StoreError> {
    let size = bytes.len() as u64;
    if store.size(key)? != Some(size) {
        return Ok(Some("does not know the size of an object"));
    }
    let is_same = |key: &str| {
        let read = hash_of(store.get(key)?, size);
        let found =
            read.map_err(|e| StoreError::Broken(format!("cannot read {key:?} from the store: {e}")))?;
        Ok::<_, StoreError>(found.as_ref() == Some(hash))
    };
    if !is_same(key)? {
        return Ok(Some("returns other bytes than were sent"));
    }
    match store.put(key, &mut Content::of_bytes(b"another".to_vec())) {
        Err(StoreError::Exists) => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(Some("replaces an object although it is told not to")),
    }
    Ok((!is_same(key)?).then_some("has replaced an object and says that it has not"))
}
