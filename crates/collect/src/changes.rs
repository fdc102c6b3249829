//! Which process changed the metadata of a file, as far as events tell. Pure.

use rustc_hash::FxHashMap;

use super::event::By;
use purge_model::Inode;

/// At most this number of files is remembered. Beyond that it is unknown who changes what.
const FILES_MAX: usize = 1 << 17;
/// A change is remembered for at least one whole settlement: the attributes may be read again in the one after it was noted.
const SETTLEMENTS: u8 = 2;

/// Who changed the metadata of a file lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy {
    /// No event told of a change.
    Unchanged,
    /// This process, and no other.
    Only(By),
    /// Several processes, or a rename, or it is not known.
    Others,
}

/// The changes of the last settlements.
#[derive(Debug, Default)]
pub struct Changers {
    by_file: FxHashMap<Inode, Change>,
    /// Changes were not noted, for this number of settlements more.
    unknown: u8,
}

#[derive(Debug)]
struct Change {
    by: ChangedBy,
    /// The process that changed it first.
    process: By,
    settlements: u8,
}

impl Changers {
    /// A process changed the metadata of a file. Two that the source does not know may be two.
    pub fn note(&mut self, ino: Inode, by: By) {
        let told = match by.may_differ(by) {
            true => ChangedBy::Others,
            false => ChangedBy::Only(by),
        };
        self.add(ino, by, told);
    }

    /// A file was renamed: that changes its change time, and nothing else of it.
    pub fn note_rename(&mut self, ino: Inode) {
        self.add(ino, By::UNKNOWN, ChangedBy::Others);
    }

    fn add(&mut self, ino: Inode, process: By, by: ChangedBy) {
        if self.by_file.len() >= FILES_MAX && !self.by_file.contains_key(&ino) {
            return self.note_unknown();
        }
        let new = Change {
            by,
            process,
            settlements: 0,
        };
        let known = self.by_file.entry(ino).or_insert(new);
        known.settlements = 0;
        if known.by != by {
            known.by = ChangedBy::Others;
        }
        if known.process == By::UNKNOWN {
            known.process = process;
        }
    }

    /// Something changed, and it was not noted what.
    pub fn note_unknown(&mut self) {
        self.unknown = SETTLEMENTS;
    }

    /// Who changed a file.
    pub fn of(&self, ino: Inode) -> ChangedBy {
        match self.by_file.get(&ino) {
            _ if self.unknown > 0 => ChangedBy::Others,
            None => ChangedBy::Unchanged,
            Some(change) => change.by,
        }
    }

    /// A process that changed the metadata of a file, if one is known.
    pub fn one_of(&self, ino: Inode) -> Option<By> {
        self.by_file.get(&ino).map(|change| change.process)
    }

    /// A settlement is over: forgets what is older than the one before it, but for files that are `undecided`.
    pub fn settled(&mut self, undecided: impl Fn(Inode) -> bool) {
        self.unknown = self.unknown.saturating_sub(1);
        self.by_file.retain(|ino, change| {
            change.settlements = change.settlements.saturating_add(1);
            change.settlements < SETTLEMENTS || undecided(*ino)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_is_told_from_several() {
        let mut changes = Changers::default();
        assert_eq!(changes.of(7), ChangedBy::Unchanged);
        changes.note(7, By::process(1));
        changes.note(7, By::process(1));
        assert_eq!(changes.of(7), ChangedBy::Only(By::process(1)));
        changes.note(7, By::process(2));
        assert_eq!(changes.of(7), ChangedBy::Others);
        assert_eq!(changes.one_of(7), Some(By::process(1)));
        changes.note(8, By::process(1));
        changes.note_rename(8);
        assert_eq!(changes.of(8), ChangedBy::Others);
        changes.note(9, By::process(0));
        assert_eq!(changes.of(9), ChangedBy::Others, "it cannot be seen");
    }

    #[test]
    fn a_change_is_known_for_a_whole_settlement_and_while_it_is_undecided() {
        let mut changes = Changers::default();
        changes.note(7, By::process(1));
        changes.note(8, By::process(1));
        changes.settled(|_| false);
        assert_eq!(changes.of(7), ChangedBy::Only(By::process(1)));
        changes.settled(|ino| ino == 8);
        assert_eq!(
            (changes.of(7), changes.of(8)),
            (ChangedBy::Unchanged, ChangedBy::Only(By::process(1)))
        );
    }

    #[test]
    fn what_was_not_noted_may_be_anything() {
        let mut changes = Changers::default();
        for ino in 0..=FILES_MAX as u64 {
            changes.note(ino, By::process(1));
        }
        assert_eq!(changes.of(FILES_MAX as u64), ChangedBy::Others);
        assert_eq!(changes.of(1), ChangedBy::Others);
        changes.settled(|_| false);
        assert_eq!(changes.of(1), ChangedBy::Others);
        changes.settled(|_| false);
        assert_eq!(changes.of(1), ChangedBy::Unchanged);
    }
}
