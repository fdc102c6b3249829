//! What ordinary users may ask for: what is theirs.
//!
//! That something is another's, and that it is not there, is answered with the same words, after the same work. So nothing is learnt of
//! what lies in a directory that its owner keeps closed.

use super::place::{AtEnd, Place};
use super::views::questions::{Answer, User, known};
use super::{Host, HostError, shown};
use purge_model::Kind;
use purge_policy::explain::Subject;
use purge_removal::holds::{Asker, Hold, PATH_BYTES_MAX, Wanted};
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

impl Host {
    /// [`Host::explain`] of what a user owns, and of its holds their own: of others' only that there is one.
    ///
    /// # Errors
    /// When nothing of theirs lies there, or it is not in the index.
    pub fn explain_own(&self, path: &[u8], user: User<'_>) -> Result<Answer, HostError> {
        let place = self.locate("path", path).or_else(|e| hidden(e, path, user.uid))?;
        let (_, known) = self.theirs(&place, user)?;
        // The index knows the owner of the very inode that is explained, also if another file lies at the path by now.
        let known = known.filter(|s| s.attributes.uid == user.uid);
        let subject = known.ok_or_else(|| not_theirs(&place.path(), user.uid))?;
        let mut answer = self.told_of(place, subject, false)?;
        let count = answer.holds.len();
        answer.holds.retain(|h| h.by == user.name);
        answer.is_held_by_another = answer.holds.len() < count;
        Ok(answer)
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
                why: format!("you may hold for {hold_max} seconds at most (self_hold_max)"),
            });
        }
        let place = self.place_to_hold(wish.path);
        let place = place.or_else(|e| hidden(e, wish.path, user.uid))?;
        let (found, _) = self.theirs(&place, user)?;
        let wish = Wish {
            seconds: wish.seconds.or(Some(hold_max)),
            ..*wish
        };
        self.keep(&place, &found, (&wish, user.name, Asker::User(user.uid)))
    }

    fn place_to_hold(&self, path: &[u8]) -> Result<Place, HostError> {
        let place = self.locate("path", path)?;
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

    /// What lies at a place and what the index knows of it, if it is theirs, and in no directory that they cannot enter.
    fn theirs(&self, place: &Place, user: User<'_>) -> Result<(Located, Option<Subject>), HostError> {
        let uid = user.uid;
        place.volume.sync_soon();
        let looked = place.look_evenly((uid, user.gids));
        let (found, is_there) =
            looked.map_err(|e| HostError::Refused(format!("volume {}: {e}", place.volume.config.name)))?;
        // Asked in any case: how long it takes does not tell whose it is.
        let known = known(place, &found);
        match is_there && found.stat.uid == uid {
            true => Ok((found, known)),
            false => Err(not_theirs(&place.path(), uid)),
        }
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

/// What lies in no volume is not theirs either.
fn hidden<T>(error: HostError, path: &[u8], uid: u32) -> Result<T, HostError> {
    match error {
        HostError::NotFound(_) => Err(not_theirs(path, uid)),
        other => Err(other),
    }
}

fn not_theirs(path: &[u8], uid: u32) -> HostError {
    HostError::Denied(format!(
        "uid {uid} owns nothing that is watched at {}",
        shown(path)
    ))
}
