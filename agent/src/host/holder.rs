//! Making holds: for clients with a role, and for users of what is theirs.

use std::sync::Arc;

use super::place::{AtEnd, Place};
use super::user::hidden;
use super::views::own::theirs;
use super::{Ground, HostError, User, shown};
use purge_model::Kind;
use purge_proto::units::format_duration;
use purge_removal::holds::{Asker, Hold, Holds, PATH_BYTES_MAX, Wanted};
use purge_sys::stat::Located;

/// What a client wants to hold.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// What.
    pub path: &'a [u8],
    /// Why.
    pub reason: &'a str,
    /// For how long; none: for as long as they may.
    pub seconds: Option<u64>,
}

/// Makes holds.
#[derive(Debug)]
pub struct Holder {
    ground: Arc<Ground>,
    holds: Arc<Holds>,
}

impl Holder {
    pub(super) fn new(ground: Arc<Ground>, holds: Arc<Holds>) -> Self {
        Self { ground, holds }
    }

    /// Holds something, for a client with a role.
    ///
    /// # Errors
    /// When nothing lies there, or it is a symbolic link, or there are too many holds.
    pub fn hold(&self, wish: &Wish<'_>, by: &str, asker: Asker) -> Result<Hold, HostError> {
        let place = self.place_to_hold(wish.path)?;
        // A hold of a link would keep the link and nothing of what it leads to.
        let found = place.look(AtEnd::NoLink)?;
        self.keep(&place, &found, (wish, by, asker))
    }

    /// Holds what a user owns, for at most `hold_max` seconds.
    ///
    /// # Errors
    /// When it is not theirs, or they ask for more than they may have.
    pub fn hold_own(&self, wish: &Wish<'_>, user: User<'_>, hold_max: u64) -> Result<Hold, HostError> {
        if wish.seconds.is_some_and(|s| s > hold_max) {
            return Err(HostError::Invalid {
                field: "for_seconds",
                why: format!(
                    "you may hold for {} at most (self_hold_max)",
                    format_duration(hold_max)
                ),
            });
        }
        let place = self.place_to_hold(wish.path);
        let place = place.or_else(|e| hidden(e, wish.path, user.uid))?;
        let (found, _) = theirs(&place, user)?;
        let wish = Wish {
            seconds: wish.seconds.or(Some(hold_max)),
            ..*wish
        };
        self.keep(&place, &found, (&wish, user.name, Asker::User(user.uid)))
    }

    fn place_to_hold(&self, path: &[u8]) -> Result<Place, HostError> {
        let place = self.ground.locate("path", path)?;
        if place.path().len() > PATH_BYTES_MAX {
            let why = format!("is longer than {PATH_BYTES_MAX} bytes; hold a directory above it");
            return Err(HostError::Invalid { field: "path", why });
        }
        Ok(place)
    }

    fn keep(
        &self,
        place: &Place,
        found: &Located,
        (wish, by, asker): (&Wish<'_>, &str, Asker),
    ) -> Result<Hold, HostError> {
        if found.stat.kind == Kind::Symlink {
            let why = format!(
                "{} is a symbolic link, and links are not followed: a hold would keep nothing of what it leads to; give the path of that",
                shown(&place.path())
            );
            return Err(HostError::Invalid { field: "path", why });
        }
        let hold = self.holds.add(&Wanted {
            volume: &place.volume.config.name,
            root: &place.volume.config.path,
            below: &place.below,
            ino: found.stat.ino,
            reason: wish.reason,
            seconds: wish.seconds,
            by,
            asker,
        })?;
        // A batch that had asked before what is held has come to its end by now. It may have taken what was looked at.
        if !is_still_there(place, found) {
            self.holds.remove(&hold.id, None)?;
            return Err(HostError::NotFound(format!(
                "{}: it is not there any more. A run took it before the hold was made: `purgectl runs` names the run, and `purgectl \
                 restore` puts back what has a grace",
                shown(&place.path())
            )));
        }
        Ok(hold)
    }
}

/// Whether something lies where it was found, or a run has it that will put it back, or a user has moved it within the volume.
fn is_still_there(place: &Place, found: &Located) -> bool {
    match place.look(AtEnd::Anything) {
        Ok(now) if now.stat.ino == found.stat.ino => true,
        Err(HostError::Refused(_)) => true,
        Ok(_) | Err(_) => {
            let index = place.volume.watched.index.read();
            index.last_use(found.stat.ino).is_some()
        }
    }
}
