//! What lies in the trash, for those who look for it.

use std::io;
use std::sync::Arc;

use super::TrashKeeper;
use crate::host::user::{User, hidden};
use crate::host::{HostError, shown};
use crate::volume::Volume;
use purge_model::path_set::PathSet;
use purge_removal::trash::listing::Listing;
use purge_removal::trash::{Share, Trash};

impl TrashKeeper {
    /// What lies in the trash at or below a path, or of a volume, or of all, the newest run first; for an ordinary user only what is theirs.
    ///
    /// # Errors
    /// When the path lies in no volume; for an ordinary user, when nothing that was theirs was taken there.
    pub fn trash_below(
        &self,
        path: &[u8],
        volume: &str,
        user: Option<User<'_>>,
    ) -> Result<Vec<(Arc<Volume>, Listing)>, HostError> {
        let (volumes, below) = match (path, volume) {
            ([], "") => (self.ground.volumes(), Vec::new()),
            ([], name) => (vec![self.ground.volume(name)?], Vec::new()),
            (path, name) => {
                let place = self.ground.locate("path", path);
                let place = match user {
                    Some(user) => place.or_else(|e| hidden(e, path, user.uid))?,
                    None => place?,
                };
                if let Some(user) = user {
                    let asked = PathSet::new(vec![place.below.to_vec()]);
                    self.runs_of_theirs(user, (&place.volume, &asked))?;
                }
                if !name.is_empty() && name != place.volume.config.name {
                    let why = format!("{} is not on volume {name}", shown(&place.path()));
                    return Err(HostError::Invalid { field: "path", why });
                }
                (vec![place.volume], place.below.into_bytes())
            }
        };
        let mut all = Vec::new();
        for volume in volumes {
            let listing = list(&volume, &below, user.map(|user| user.uid));
            let listing = listing.map_err(|e| {
                HostError::Refused(format!("the trash of volume {}: {e}", volume.config.name))
            })?;
            all.extend(listing.map(|listing| (volume, listing)));
        }
        Ok(all)
    }
}

fn list(volume: &Volume, below: &[u8], only: Option<u32>) -> io::Result<Option<Listing>> {
    let Some(trash) = Trash::open(&volume.watched)? else {
        return Ok(None);
    };
    let mut shares: Vec<Share> = trash.shares()?.into_iter().filter(|s| !s.open).collect();
    // Names of runs are in the order of time.
    shares.reverse();
    Listing::new(&trash, shares, below.to_vec(), only).map(Some)
}
