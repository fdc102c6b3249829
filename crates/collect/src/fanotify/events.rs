//! What a record means, in the values that all sources share. Pure, but for the descriptor of the process.

use std::sync::Arc;

use purge_model::Inode;
use purge_sys::descriptor;
use purge_sys::fanotify::{ACCESS_EVENTS, NAMESPACE_EVENTS, mask};
use purge_sys::handle::Handle;

use super::decode::{self, Record};
use super::learnt::{Inodes, Leads};
use crate::collector::Processes;
use crate::event::{Acts, By, Change, Changes, Event, Node, Place, Used};

/// How records lead to inodes.
pub(super) trait Ids {
    /// Where a handle leads.
    fn leads(&self, handle: &Handle) -> Leads;

    /// How the inode is found again.
    fn kept(&self, handle: Handle, _ino: Inode) -> Handle {
        handle
    }

    /// What lies at a place, where no handle says it.
    fn at(&self, _place: &Place<'_>) -> Option<Node> {
        None
    }

    /// Something was used at a place of which that is not known.
    fn note_stranger(&self, _place: &Place<'_>) {}
}

impl Ids for Arc<Inodes> {
    #[inline]
    fn leads(&self, handle: &Handle) -> Leads {
        self.of(handle)
    }
}

/// What a record tells. Files of other subvolumes than the volume's are left out. If a file cannot be asked for its inode, the event is a loss.
#[inline]
pub(super) fn event<'a>(record: Record<'a>, ids: &impl Ids, processes: Processes) -> Event<'a> {
    let bits = record.mask;
    let mut is_unknown = false;
    let mut node = |handle| match ids.leads(&handle) {
        Leads::To(ino) => Some(Node {
            ino,
            handle: ids.kept(handle, ino),
        }),
        Leads::Nowhere => None,
        Leads::Unknown => {
            is_unknown = true;
            None
        }
    };
    let named = record.place.and_then(|named| place(named, &mut node));
    let old = record.old.and_then(|named| place(named, &mut node));
    let new = record.new.and_then(|named| place(named, &mut node));
    let of = record.file.and_then(&mut node);
    // Of a rename: what lay at the old place.
    let of = of.or_else(|| ids.at(&old.or(named)?));
    let itself = record
        .place
        .filter(|named| bits & mask::MOVE_SELF != 0 && is_itself(named));
    let change = (bits & NAMESPACE_EVENTS != 0).then(|| Change {
        kinds: changes(bits),
        // A directory that moved is told by itself, as its own place.
        of: of.or_else(|| node(itself?.dir)),
        place: named,
        old,
        new,
    });
    // Listing a directory uses no file.
    let is_access = bits & ACCESS_EVENTS != 0 && bits & mask::ONDIR == 0;
    if is_access
        && of.is_none()
        && let Some(place) = &named
    {
        ids.note_stranger(place);
    }
    // Owned at once: it is closed, no matter what becomes of the event.
    let process = record.pidfd.filter(|_| processes == Processes::Known);
    Event {
        is_loss: bits & mask::OVERFLOW != 0 || is_unknown,
        by: By::process(record.pid),
        process: process.and_then(descriptor::adopt),
        change,
        access: of
            .filter(|_| is_access)
            .map(|node| (acts(bits), Used::from(node))),
    }
}

fn is_itself(named: &decode::Place<'_>) -> bool {
    matches!(named.name, b"" | b".")
}

fn place<'a>(named: decode::Place<'a>, node: impl FnOnce(Handle) -> Option<Node>) -> Option<Place<'a>> {
    let name = named.name;
    node(named.dir).map(|dir| Place { dir, name })
}

/// Names may have been merged into it.
#[inline]
pub(crate) fn acts(bits: u64) -> Acts {
    const ACTS: [(u64, Acts); 6] = [
        (mask::ACCESS, Acts::READ),
        (mask::MODIFY, Acts::WRITE),
        (mask::OPEN, Acts::OPEN),
        (mask::OPEN_EXEC, Acts::EXEC),
        (mask::CLOSE_NOWRITE, Acts::CLOSE_READER),
        (mask::CLOSE_WRITE, Acts::CLOSE_WRITER),
    ];
    let those = ACTS.iter().filter(|(bit, _)| bits & bit != 0);
    those.fold(Acts::NONE, |all, (_, act)| all | *act)
}

fn changes(bits: u64) -> Changes {
    const CHANGES: [(u64, Changes); 8] = [
        (mask::CREATE, Changes::MADE),
        (mask::DELETE, Changes::REMOVED),
        (mask::RENAME, Changes::MOVED),
        (mask::MOVED_FROM, Changes::MOVED),
        (mask::MOVED_TO, Changes::MOVED),
        (mask::MOVE_SELF, Changes::MOVED),
        (mask::DELETE_SELF, Changes::DELETED),
        (mask::ATTRIB, Changes::METADATA),
    ];
    let those = CHANGES.iter().filter(|(bit, _)| bits & bit != 0);
    those.fold(Changes::default(), |all, (_, change)| all | *change)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fanotify::layout::Layout;
    use purge_sys::fanotify::IGNORABLE;

    const ALL: [u64; 6] = [
        mask::ACCESS,
        mask::MODIFY,
        mask::OPEN,
        mask::OPEN_EXEC,
        mask::CLOSE_NOWRITE,
        mask::CLOSE_WRITE,
    ];

    fn of_ext4(ino: u8) -> Handle {
        Handle::new(1, &[ino, 0, 0, 0, 9, 9, 9, 9]).unwrap()
    }

    fn record(mask: u64) -> Record<'static> {
        Record {
            mask,
            pid: 5,
            pidfd: None,
            file: Some(of_ext4(12)),
            place: Some(decode::Place {
                dir: of_ext4(2),
                name: b"a",
            }),
            old: None,
            new: None,
        }
    }

    fn told(mask: u64) -> Event<'static> {
        event(
            record(mask),
            &Arc::new(Inodes::Read(Layout::Ino32)),
            Processes::Known,
        )
    }

    #[test]
    fn every_access_that_is_asked_for_is_an_act_and_no_two_are_the_same() {
        assert_eq!(ALL.iter().fold(0, |all, bit| all | bit), ACCESS_EVENTS);
        for bit in ALL {
            let (acts, node) = told(bit).access.unwrap();
            assert_eq!(node.ino, 12);
            assert!(
                ALL.iter()
                    .all(|other| super::acts(*other).any(acts) == (*other == bit))
            );
            // What an ignore mark hides is what windows take for repeatable.
            assert_eq!(acts.any(Acts::REPEATABLE), bit & IGNORABLE != 0);
        }
    }

    #[test]
    fn every_name_event_that_is_asked_for_is_a_change() {
        for bit in (0..64)
            .map(|n| 1u64 << n)
            .filter(|bit| NAMESPACE_EVENTS & bit != 0)
        {
            let change = told(bit).change.unwrap();
            assert_ne!(change.kinds, Changes::default());
            assert_eq!(change.place.unwrap().dir.ino, 2);
        }
        assert!(told(mask::OPEN).change.is_none());
        assert!(told(mask::CREATE).access.is_none());
    }

    #[test]
    fn a_directory_that_moved_is_told_by_its_own_place() {
        let moved = Record {
            file: None,
            place: Some(decode::Place {
                dir: of_ext4(7),
                name: b".",
            }),
            ..record(mask::MOVE_SELF | mask::ONDIR)
        };
        let change = event(moved, &Arc::new(Inodes::Read(Layout::Ino32)), Processes::Known)
            .change
            .unwrap();
        assert_eq!((change.kinds, change.of.unwrap().ino), (Changes::MOVED, 7));
        let at_a_place = Record {
            file: None,
            ..record(mask::MOVED_FROM)
        };
        let change = event(
            at_a_place,
            &Arc::new(Inodes::Read(Layout::Ino32)),
            Processes::Known,
        )
        .change
        .unwrap();
        assert_eq!((change.kinds, change.of), (Changes::MOVED, None));
    }

    #[test]
    fn a_listed_directory_is_no_use_and_a_loss_is_told() {
        assert!(told(mask::OPEN | mask::ONDIR).access.is_none());
        assert!(told(mask::OVERFLOW).is_loss);
        assert!(!told(mask::OPEN).is_loss);
    }
}
