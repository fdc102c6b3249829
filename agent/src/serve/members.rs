//! Whether a local user is still in the groups that give a role. The kernel says which groups a process had when it connected, and never
//! again; the host's accounts say which ones its user has now. A role by a group takes both.
//!
//! - What is asked of files (`/etc/passwd`, `/etc/group`) counts at the next call: each call looks whether they have changed.
//! - Directory services are asked by `getent`, at most every few seconds for each user. An answer that is a little older counts while the
//!   next one is fetched; where none comes, no user has a role by a group. Root needs none.
//! - What the accounts have never known, a number without a name, they cannot take away: there the kernel's word stands.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use purge_base::accounts::{Membership, membership};

/// An answer counts for so long without being asked for again.
const FRESH: Duration = Duration::from_secs(2);
/// And for so long while it is asked for again.
const USABLE: Duration = Duration::from_secs(10);
/// Users that are asked for at a time.
const ASKED_AT_ONCE: usize = 2;
/// Users that are remembered.
const KNOWN_MAX: usize = 10_000;

/// A file as it was.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What the accounts said of users. Clones are the same.
#[derive(Debug, Clone)]
pub struct Memberships(Arc<Known>);

#[derive(Debug)]
struct Known {
    users: Mutex<HashMap<u32, Arc<User>>>,
    /// Users and groups that the accounts once knew: if they know them no more, they were removed.
    removable: Mutex<(HashSet<u32>, HashSet<u32>)>,
    asking: Semaphore,
    files: [&'static str; 3],
}

#[derive(Debug, Default)]
struct User {
    said: Mutex<Option<Said>>,
    /// One asks, the others take what that one hears.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Said {
    at: Instant,
    stamps: [Stamp; 3],
    /// None: the accounts do not answer.
    membership: Option<Arc<Membership>>,
}

impl Default for Memberships {
    fn default() -> Self {
        Self(Arc::new(Known {
            users: Mutex::default(),
            removable: Mutex::default(),
            asking: Semaphore::new(ASKED_AT_ONCE),
            files: ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"],
        }))
    }
}

impl Memberships {
    /// Which of these groups a user is still in.
    ///
    /// # Errors
    /// What to tell them when the accounts do not answer.
    pub async fn still_in(&self, uid: u32, gids: &[u32]) -> Result<Vec<u32>, String> {
        let user = self.user(uid);
        let stamps = self.0.files.map(stamp);
        let usable = |said: &Said, age: Duration| said.stamps == stamps && said.at.elapsed() < age;
        let known = user.said.lock().clone();
        let said = match known {
            Some(said) if usable(&said, FRESH) => said,
            Some(said) if usable(&said, USABLE) && said.membership.is_some() => {
                let (known, gids) = (self.clone(), gids.to_vec());
                tokio::spawn(async move { known.ask(uid, &user, &gids).await });
                said
            }
            _ => self.ask(uid, &user, gids).await,
        };
        let membership = said.membership.ok_or_else(|| {
            format!("the accounts of this host do not answer, so it is unknown whether uid {uid} is still in the groups that have a role; ask again")
        })?;
        Ok(self.of(uid, gids, &membership))
    }

    fn user(&self, uid: u32) -> Arc<User> {
        let mut users = self.0.users.lock();
        if users.len() >= KNOWN_MAX && !users.contains_key(&uid) {
            users.retain(|_, user| Arc::strong_count(user) > 1);
        }
        Arc::clone(users.entry(uid).or_default())
    }

    /// Asks, or waits for the call that is asking.
    async fn ask(&self, uid: u32, user: &User, gids: &[u32]) -> Said {
        let _one = user.asking.lock().await;
        let stamps = self.0.files.map(stamp);
        let known = user.said.lock().clone();
        if let Some(said) = known.filter(|s| s.stamps == stamps && s.at.elapsed() < FRESH) {
            return said;
        }
        let _turn = self.0.asking.acquire().await;
        let (at, gids) = (Instant::now(), gids.to_vec());
        let asked = tokio::task::spawn_blocking(move || membership(uid, &gids)).await;
        let said = Said {
            // Of the moment before: what changes meanwhile is asked for again.
            at,
            stamps,
            membership: asked.ok().flatten().map(Arc::new),
        };
        *user.said.lock() = Some(said.clone());
        said
    }

    /// What counts of what the kernel said.
    fn of(&self, uid: u32, gids: &[u32], now: &Membership) -> Vec<u32> {
        let mut removable = self.0.removable.lock();
        if now.is_known {
            removable.0.insert(uid);
        }
        removable.1.extend(&now.known_groups);
        let user_was_known = removable.0.contains(&uid);
        let counts = |gid: &u32| {
            let of_accounts = user_was_known && removable.1.contains(gid);
            !of_accounts || now.groups.contains(gid)
        };
        gids.iter().copied().filter(counts).collect()
    }
}

fn stamp(path: &str) -> Stamp {
    let m = std::fs::metadata(path).ok()?;
    Some((m.ino(), m.size(), m.mtime(), m.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_accounts_knew_they_can_take_away_and_nothing_else() {
        let known = Memberships::default();
        let said = |is_known, groups: &[u32], known_groups: &[u32]| Membership {
            is_known,
            groups: groups.to_vec(),
            known_groups: known_groups.to_vec(),
        };
        let both = [100, 200];
        assert_eq!(known.of(7, &both, &said(true, &[100, 200], &both)), both);
        assert_eq!(
            known.of(7, &both, &said(true, &[200], &both)),
            [200],
            "taken off one"
        );
        assert_eq!(
            known.of(7, &both, &said(true, &[200], &[200])),
            [200],
            "the group was removed"
        );
        assert_eq!(
            known.of(7, &both, &said(false, &[], &both)),
            [0u32; 0],
            "the user was removed"
        );
        assert_eq!(
            known.of(8, &both, &said(false, &[], &both)),
            both,
            "there never was such a user here"
        );
        assert_eq!(
            known.of(7, &[300], &said(true, &[], &[])),
            [300],
            "nor such a group"
        );
    }

    #[tokio::test]
    async fn accounts_of_this_host_are_asked() {
        let known = Memberships::default();
        // Root is in its own group, and a number without a name keeps what the kernel said.
        assert_eq!(known.still_in(0, &[0]).await.unwrap(), [0]);
        assert_eq!(
            known.still_in(4_000_000_001, &[4_000_000_002]).await.unwrap(),
            [4_000_000_002]
        );
    }
}
