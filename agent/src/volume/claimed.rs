//! Which shares of the trash a thread frees or restores from: one at a time, and no thread waits for another's.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// What a thread does with a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// It frees what lies there.
    Freeing,
    /// It puts back what lies there.
    Restoring,
}

/// The shares that a thread works on, by name.
#[derive(Debug, Default)]
pub struct Claimed(Mutex<BTreeMap<String, Doing>>);

impl Claimed {
    /// No thread works on any.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Claims a share until the answer is dropped.
    ///
    /// # Errors
    /// What another thread does with it.
    pub fn take(&self, share: &str, doing: Doing) -> Result<Claim<'_>, Doing> {
        let mut all = self.0.lock();
        if let Some(doing) = all.get(share) {
            return Err(*doing);
        }
        all.insert(share.to_owned(), doing);
        Ok(Claim {
            of: self,
            share: share.to_owned(),
        })
    }
}

/// A share that a thread works on.
#[derive(Debug)]
pub struct Claim<'c> {
    of: &'c Claimed,
    share: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.of.0.lock().remove(&self.share);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_share_is_one_threads_until_it_is_let_go() {
        let all = Claimed::default();
        let first = all.take("a", Doing::Freeing).unwrap();
        assert_eq!(all.take("a", Doing::Restoring).unwrap_err(), Doing::Freeing);
        let other = all.take("b", Doing::Restoring).unwrap();
        drop(first);
        assert!(all.take("a", Doing::Restoring).is_ok());
        drop(other);
    }
}
