//! What cannot be decided by an event alone: uses that may have been changes of metadata, and attributes to be read again.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;

use super::{CollectError, Reader};
use crate::collect::doubt::{Evidence, Suspect};
use crate::collect::namespace::refresh;
use crate::collect::whereabouts::drop_stale_names;
use crate::model::{Inode, Kind, LastUse, Seconds, Source};
use crate::sys::handle::Handle;
use crate::sys::stat;

/// A suspect that is still incomplete after so many settlements has the file open: a use.
const SUSPECT_ROUNDS_MAX: u8 = 2;
/// Suspects beyond this are believed to be uses at once.
const SUSPECTS_MAX: usize = 100_000;

impl Reader {
    /// Notes a use that may turn out to be none.
    pub(super) fn suspect(
        &mut self,
        (events, pid): (u64, i32),
        ino: Inode,
        handle: Handle,
        before: LastUse,
        now: Seconds,
    ) {
        if let Some(known) = self.suspects.get_mut(&ino) {
            known.add(events, pid, now);
        } else if (before.source, before.at) != (Source::Observed, now) && self.suspects.len() < SUSPECTS_MAX
        {
            let suspect = Suspect {
                events,
                pid,
                several: false,
                before,
                recorded: now,
                handle,
                rounds: 0,
            };
            self.suspects.insert(ino, suspect);
        }
    }

    /// Decides on suspects and reads changed attributes again.
    pub(super) fn settle(&mut self, count_round: bool) -> Result<(), CollectError> {
        let dirty = self.namespace.take_dirty();
        let links = std::mem::take(&mut *self.watched.doubtful_links.lock());
        let nothing = self.suspects.is_empty() && dirty.is_empty() && links.is_empty();
        if nothing {
            self.attrib_seen.clear();
            return Ok(());
        }
        let root = match self.watched.open_mount() {
            Ok(root) => root,
            Err(source) => {
                return Err(CollectError::Kernel {
                    doing: "open the volume",
                    source,
                });
            }
        };
        let suspects = std::mem::take(&mut self.suspects);
        for (ino, mut suspect) in suspects {
            // The agent ends: what is not decided stays a use.
            if self.gives_up.load(Relaxed) {
                return Ok(());
            }
            if suspect.is_complete() {
                self.decide(&root, ino, &suspect);
                continue;
            }
            suspect.rounds += u8::from(count_round);
            if suspect.rounds < SUSPECT_ROUNDS_MAX {
                self.suspects.insert(ino, suspect);
            }
        }
        for (ino, handle) in dirty {
            // Every start reads all attributes again.
            if self.gives_up.load(Relaxed) {
                return Ok(());
            }
            // An undecided suspect is judged by how its times moved: they are read again after the judgement.
            let undecided = self.suspects.contains_key(&ino);
            let before = self.attrib_seen.get(&ino).copied();
            let before = before.and_then(|pid| Some((pid, self.watched.index.read().get(ino)?.0)));
            if undecided || !refresh(&self.watched, &root, ino, handle)? {
                self.namespace.mark_dirty(ino, handle);
            }
            if let Some((pid, before)) = before.filter(|(_, a)| a.kind == Kind::File)
                && let Some((after, _)) = self.watched.index.read().get(ino)
                // Who unpacks or copies sets times back; who wants to keep files sets them forward.
                && after.mtime > before.mtime
                && after.size == before.size
            {
                self.suspicion.stamped(&self.watched.touched, pid, after.uid);
            }
        }
        for ino in links {
            if self.gives_up.load(Relaxed) {
                return Ok(());
            }
            if !drop_stale_names(&self.watched, ino)? {
                self.watched.doubtful_links.lock().push(ino);
            }
        }
        if count_round {
            self.attrib_seen.retain(|ino, _| self.suspects.contains_key(ino));
        }
        Ok(())
    }

    fn decide(&mut self, root: &OwnedFd, ino: Inode, suspect: &Suspect) {
        let Some((known, _)) = self.watched.index.read().get(ino) else {
            return;
        };
        let Ok(found) = suspect.handle.open_path(root).and_then(stat::open_file) else {
            return;
        };
        let evidence = Evidence {
            ctime_moved: (found.stat.ctime, found.stat.ctime_nanos) > (known.ctime, known.ctime_nanos),
            fine: found.fine,
            attrib_seen: self.attrib_seen.contains_key(&ino),
        };
        if found.stat.ino == ino && suspect.is_metadata_only(evidence) {
            self.watched
                .index
                .write()
                .take_back_use(ino, suspect.recorded, suspect.before);
            self.watched.counters.taken_back.fetch_add(1, Relaxed);
            // With the modification time it is seen when the attributes are read again.
            if found.fine.atime_is_ctime && !found.fine.mtime_is_ctime && found.stat.kind == Kind::File {
                self.suspicion
                    .stamped(&self.watched.touched, suspect.pid, found.stat.uid);
            }
        }
    }
}
