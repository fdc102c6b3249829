//! What ordinary users may ask for: what is theirs. What is not is told apart from what is not there only for its owner.

use std::sync::Arc;

use purge_proto::v1;

use super::{Host, HostError, lossy};
use crate::policy::explain::{Subject, Verdict};
use crate::purge::holds::Owned;
use crate::volume::Volume;

/// Each hold is looked up again for every batch of a run.
const HOLDS_MAX: usize = 100;

/// What an ordinary user wants to hold.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// What.
    pub path: &'a [u8],
    /// Why.
    pub reason: &'a str,
    /// For how long; none: for as long as they may.
    pub seconds: Option<u64>,
}

impl Host {
    /// [`Host::explain`] of what `uid` owns.
    ///
    /// # Errors
    /// When nothing of theirs lies there, or it is not in the index.
    pub fn explain_own(
        &self,
        path: &[u8],
        uid: u32,
    ) -> Result<(Arc<Volume>, Subject, Vec<Verdict>), HostError> {
        match self.explain(path) {
            // The index knows the owner of the very inode that is explained, whatever lies at the path by now.
            Ok(found) if found.1.attributes.uid == uid => Ok(found),
            Ok(_) | Err(HostError::NotFound(_)) => Err(not_theirs(path, uid)),
            Err(other) => Err(other),
        }
    }

    /// Holds what `uid` owns, for at most `hold_max` seconds.
    ///
    /// # Errors
    /// When it is not theirs, or they ask for more than they may have.
    pub fn hold_own(
        &self,
        wish: &Wish<'_>,
        (uid, hold_max): (u32, u64),
        by: &str,
    ) -> Result<v1::Hold, HostError> {
        if wish.seconds.is_some_and(|s| s > hold_max) {
            return Err(HostError::Invalid {
                field: "for_seconds",
                why: format!("you may hold for {hold_max} seconds at most (self_hold_max)"),
            });
        }
        if self.holds.list().iter().filter(|h| h.created_by == by).count() >= HOLDS_MAX {
            return Err(HostError::TooMuch(format!(
                "you hold {HOLDS_MAX} paths already; remove some of them, or hold a directory as a whole"
            )));
        }
        let (volume, below) = self.locate(wish.path).map_err(|_| not_theirs(wish.path, uid))?;
        let owned = Owned {
            uid,
            root: &volume.config.path,
            below,
        };
        let seconds = wish.seconds.unwrap_or(hold_max);
        Ok(self
            .holds
            .add_own(&volume.config.name, &owned, wish.reason, seconds, by)?)
    }
}

fn not_theirs(path: &[u8], uid: u32) -> HostError {
    HostError::Denied(format!(
        "uid {uid} owns nothing that is watched at {}",
        lossy(path)
    ))
}
