//! Memory that clients may take together, and each of them. It is charged before it is taken, and given back with the last byte of the
//! answer it was taken for. Root has a share of its own, which clients do not reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tonic::Status;

const MIB: u64 = 1 << 20;

/// All clients but root together.
pub const BYTES_OF_ALL: u64 = 160 * MIB;
/// A client that the configuration gives a role.
pub const BYTES_OF_ONE: u64 = 64 * MIB;
/// An ordinary user: the calls that they may have open, and no more.
pub const BYTES_OF_ORDINARY: u64 = 24 * MIB;
/// Root: apart from all others.
pub const BYTES_OF_ROOT: u64 = 512 * MIB;

/// Smaller amounts are not worth a pass over the heap when they are free.
const WORTH_GIVING_BACK: u64 = 256 << 10;

/// To whose share a client belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Root's own.
    Root,
    /// That of all other clients that have a role.
    Role,
    /// That of all other clients, which are ordinary users.
    Ordinary,
}

impl Share {
    fn of_one(self) -> u64 {
        match self {
            Self::Root => BYTES_OF_ROOT,
            Self::Role => BYTES_OF_ONE,
            Self::Ordinary => BYTES_OF_ORDINARY,
        }
    }
}

/// What is charged now. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<Books>);

#[derive(Debug, Default)]
struct Books {
    spent: Mutex<Spent>,
    /// Bytes in larger pieces that were given back, and may still be with the allocator.
    freed: AtomicU64,
}

#[derive(Debug, Default)]
struct Spent {
    of: HashMap<String, u64>,
    of_others: u64,
}

/// Bytes of one client that are charged until this is dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    who: String,
    share: Share,
    bytes: u64,
}

impl Budget {
    /// Charges a client.
    ///
    /// # Errors
    /// What to tell the client when there is no room.
    pub fn charge(&self, who: &str, share: Share, bytes: u64) -> Result<Charge, Status> {
        let mut charge = Charge {
            budget: self.clone(),
            who: who.to_owned(),
            share,
            bytes: 0,
        };
        charge.resize(bytes)?;
        Ok(charge)
    }

    /// Bytes that all but root have charged.
    pub fn of_others(&self) -> u64 {
        self.0.spent.lock().of_others
    }

    /// Bytes in larger pieces that were given back since this was asked last.
    pub fn take_freed(&self) -> u64 {
        self.0.freed.swap(0, Relaxed)
    }
}

impl Charge {
    /// How much it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Charges more, or gives back.
    ///
    /// # Errors
    /// What to tell the client when there is no room; then it stays what it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Status> {
        let mut spent = self.budget.0.spent.lock();
        let of_one = spent.of.get(&self.who).copied().unwrap_or(0);
        let one_then = of_one.saturating_sub(self.bytes).saturating_add(bytes);
        let others_then = match self.share {
            Share::Root => spent.of_others,
            _ => spent.of_others.saturating_sub(self.bytes).saturating_add(bytes),
        };
        if bytes > self.bytes {
            let most = self.share.of_one();
            if one_then > most {
                return Err(Status::resource_exhausted(format!(
                    "{} may have {} MiB of answers open, and this one does not fit in; read or end others first, or ask for less",
                    self.who,
                    most / MIB
                )));
            }
            if self.share != Share::Root && others_then > BYTES_OF_ALL {
                return Err(Status::resource_exhausted(format!(
                    "all clients together have {} MiB of answers open, as much as they may; ask again in a moment, or ask for less",
                    BYTES_OF_ALL / MIB
                )));
            }
        }
        match one_then {
            0 => drop(spent.of.remove(&self.who)),
            bytes => drop(spent.of.insert(self.who.clone(), bytes)),
        }
        spent.of_others = others_then;
        drop(spent);
        let less = self.bytes.saturating_sub(bytes);
        if less >= WORTH_GIVING_BACK {
            self.budget.0.freed.fetch_add(less, Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Charges more.
    ///
    /// # Errors
    /// As for [`Charge::resize`].
    pub fn grow(&mut self, more: u64) -> Result<(), Status> {
        self.resize(self.bytes.saturating_add(more))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Giving back is never refused.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tonic::Code;

    #[test]
    fn a_client_has_its_share_and_all_have_theirs_and_root_its_own() {
        let budget = Budget::default();
        let mut one = budget.charge("a", Share::Role, BYTES_OF_ONE).unwrap();
        let refused = one.grow(1).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("64 MiB"), "{refused}");
        assert_eq!(one.bytes(), BYTES_OF_ONE);
        let _two = budget.charge("b", Share::Role, BYTES_OF_ONE).unwrap();
        let refused = budget.charge("c", Share::Role, BYTES_OF_ONE).unwrap_err();
        assert!(refused.message().contains("all clients together"), "{refused}");
        let root = budget.charge("uid 0", Share::Root, BYTES_OF_ROOT).unwrap();
        drop(root);
        assert!(
            budget
                .charge("d", Share::Ordinary, BYTES_OF_ORDINARY + 1)
                .is_err()
        );
        one.resize(0).unwrap();
        let three = budget.charge("c", Share::Role, BYTES_OF_ONE).unwrap();
        drop((one, three, _two));
        assert_eq!(budget.of_others(), 0);
        assert!(
            budget.0.spent.lock().of.is_empty(),
            "nothing is left of clients that left"
        );
        assert!(budget.take_freed() >= BYTES_OF_ROOT);
    }
}
