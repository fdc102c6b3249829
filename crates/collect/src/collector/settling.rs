//! What cannot be decided by an event alone: uses that may have been changes of metadata, and attributes to be read again.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;

use super::{CollectError, Feed, Reader};
use crate::doubt::{Evidence, Suspect};
use crate::event::{Access, Node};
use crate::namespace::{Namespace, refresh, refresh_by_name, take_over};
use crate::touched::is_server;
use crate::unnamed::{Doubts, Judgement, judge};
use crate::whereabouts::{drop_names, drop_stale_names, look_at_names};
use crate::{places, reach};
use purge_model::{Inode, Kind, LastUse, Source};
use purge_sys::handle::Handle;

/// A suspect that is still incomplete after this number of settlements has the file open: a use.
const SUSPECT_ROUNDS_MAX: u8 = 2;
/// Suspects beyond this are believed to be uses at once.
const SUSPECTS_MAX: usize = 100_000;
/// Places of files with several names that one settlement looks at.
const LOOKS_MAX: usize = 20_000;

/// A settlement on its way.
pub(super) struct Settlement {
    /// Who was suspect when it began. They are decided on by what is known then.
    suspects: Vec<Inode>,
    /// Whose attributes are to be read again.
    dirty: Vec<Node>,
    /// The same of files that are found by name.
    written: Vec<Inode>,
    /// Files that may have fewer names than the index has.
    links: Vec<Inode>,
    /// Files in doubt, where reports do not say which file a name is of; with the looks that were in vain.
    doubts: Vec<(Inode, u8)>,
    looks_left: usize,
    /// It is one of those that come from time to time.
    counts: bool,
    done: Vec<mpsc::SyncSender<()>>,
}

impl Settlement {
    fn is_empty(&self) -> bool {
        self.suspects.is_empty()
            && self.dirty.is_empty()
            && self.written.is_empty()
            && self.links.is_empty()
            && self.doubts.is_empty()
    }

    /// It is over.
    pub fn tell_those_who_wait(self) {
        for done in self.done {
            // A caller that has given up does not wait.
            let _ = done.send(());
        }
    }
}

impl<F: Feed> Reader<F> {
    /// Notes a use that may turn out to be none.
    pub(super) fn suspect(&mut self, access: Access, handle: Handle, before: LastUse) {
        let Access {
            inode: ino,
            at: now,
            by,
            what: acts,
        } = access;
        if let Some(known) = self.suspects.get_mut(&ino) {
            known.add(acts, by, now);
        } else if (before.source, before.at) != (Source::Observed, now) && self.suspects.len() < SUSPECTS_MAX
        {
            let suspect = Suspect {
                acts,
                by,
                several: by.may_differ(by),
                before,
                recorded: now,
                handle,
                rounds: 0,
            };
            self.suspects.insert(ino, suspect);
        }
    }

    /// Begins to decide on suspects and to read changed attributes again; `done` are told when that is over.
    pub(super) fn begin_settlement(&mut self, counts: bool, done: Vec<mpsc::SyncSender<()>>) {
        let links = std::mem::take(&mut *self.watched.doubtful_links.lock());
        // Those who wait have waited until all that was queued is read and looked at.
        let is_drained = !done.is_empty();
        let doubts = self.namespace.doubts().filter(|_| is_drained).map(Doubts::take);
        self.settlement = Some(Settlement {
            suspects: self.suspects.keys().copied().collect(),
            dirty: self.namespace.take_dirty().collect(),
            written: self.namespace.take_written().collect(),
            doubts: doubts.unwrap_or_default(),
            links: links.into_iter().collect(),
            looks_left: LOOKS_MAX,
            counts,
            done,
        });
    }

    /// Goes on with a settlement until it is over or it `is_time` for something else. Whether it is over.
    pub(super) fn settle(
        &mut self,
        work: &mut Settlement,
        is_time: impl Fn() -> bool,
    ) -> Result<bool, CollectError> {
        if work.is_empty() {
            self.forget_changes(work.counts);
            return Ok(true);
        }
        let root = self.watched.open_mount();
        let root = root.map_err(|source| CollectError::Kernel {
            doing: "open the volume",
            source,
        })?;
        // The agent ends: what is not decided stays a use, and every start reads all attributes again.
        while !self.gives_up.load(Relaxed) {
            if let Some(ino) = work.suspects.pop() {
                self.settle_suspect(&root, ino, work.counts);
            } else if let Some(node) = work.dirty.pop() {
                self.settle_dirty(&root, node)?;
            } else if let Some(ino) = work.written.pop() {
                refresh_by_name(&self.watched, ino)?;
            } else if let Some(ino) = work.links.pop() {
                self.settle_links(ino, &mut work.looks_left)?;
            } else if let Some((ino, rounds)) = work.doubts.pop() {
                self.settle_doubt(ino, rounds, &mut work.looks_left)?;
            } else {
                break;
            }
            if is_time() && !work.is_empty() {
                return Ok(false);
            }
        }
        self.forget_changes(work.counts);
        Ok(true)
    }

    fn forget_changes(&mut self, counts: bool) {
        if counts {
            self.changers.settled(|ino| self.suspects.contains_key(&ino));
        }
    }

    /// One that was proven to be a use meanwhile is none any more.
    fn settle_suspect(&mut self, root: &OwnedFd, ino: Inode, counts: bool) {
        let Some(mut suspect) = self.suspects.remove(&ino) else {
            return;
        };
        if suspect.is_complete() {
            return self.decide(root, ino, &suspect);
        }
        suspect.rounds += u8::from(counts);
        if suspect.rounds < SUSPECT_ROUNDS_MAX {
            self.suspects.insert(ino, suspect);
        }
    }

    fn settle_dirty(&mut self, root: &OwnedFd, node: Node) -> Result<(), CollectError> {
        let ino = node.ino;
        // It is found by its place, and where that is may still be to be looked at.
        if places::is_place(&node.handle) && !self.namespace.pending().is_empty() {
            self.namespace.mark_dirty(node);
            return Ok(());
        }
        // An undecided suspect is judged by how its times moved: they are read again after the judgement.
        let undecided = self.suspects.contains_key(&ino);
        let before = self.changers.one_of(ino);
        let before = before.and_then(|by| Some((by, self.watched.index.read().get(ino)?.0)));
        let tell_whose_names = self.feed.tells_whose_names();
        if undecided || !refresh(&self.watched, root, node, tell_whose_names)? {
            self.namespace.mark_dirty(node);
        }
        if let Some((by, before)) = before.filter(|(_, a)| a.kind == Kind::File)
            && let Some((after, _)) = self.watched.index.read().get(ino)
            // Who unpacks or copies sets times back; who wants to keep files sets them forward.
            && after.mtime > before.mtime
            && after.size == before.size
        {
            self.suspicion
                .stamped(&self.watched.touched, by.number(), after.uid);
        }
        Ok(())
    }

    /// A file may have many names: only a limited number is looked at in one settlement.
    fn settle_links(&mut self, ino: Inode, looks_left: &mut usize) -> Result<(), CollectError> {
        // Its names may have changed, and not all be known yet.
        if let Some(doubts) = self.namespace.doubts() {
            doubts.again(ino, 0);
            return Ok(());
        }
        if *looks_left == 0 {
            self.watched.doubtful_links.lock().insert(ino);
            return Ok(());
        }
        let names = self.watched.index.read().names(ino)?.len();
        *looks_left = looks_left.saturating_sub(names);
        if !drop_stale_names(&self.watched, ino)? {
            self.watched.doubtful_links.lock().insert(ino);
        }
        Ok(())
    }

    /// Whether no name was reported since this number of reports: what waits now is read first.
    fn nothing_moved(&mut self, heard: Option<u64>, is_dir: bool) -> Result<bool, CollectError> {
        self.catch_up()?;
        let now = self.namespace.doubts().map(|doubts| doubts.heard());
        // Directories are followed by what is dirty.
        let is_followed = !(is_dir && self.namespace.has_dirty());
        Ok(heard == now && is_followed && self.namespace.pending().is_empty())
    }

    /// Looks at all names of a file that changed one of them.
    fn settle_doubt(&mut self, ino: Inode, rounds: u8, looks_left: &mut usize) -> Result<(), CollectError> {
        // Before the look: a scan may have read names that it hands over later.
        if self.watched.index.read().is_scanning() {
            self.watched.index.write().note_renamed(ino);
        }
        let heard = self.namespace.doubts().map(|doubts| doubts.heard());
        let looked = match *looks_left {
            0 => None,
            _ => look_at_names(&self.watched, ino)?,
        };
        let again = |namespace: &mut Namespace, rounds| {
            namespace.doubts().into_iter().for_each(|d| d.again(ino, rounds));
        };
        let Some(names) = looked else {
            again(&mut self.namespace, rounds);
            return Ok(());
        };
        *looks_left = looks_left.saturating_sub(names.len());
        let (is_dir, has_more) = {
            let index = self.watched.index.read();
            (index.dirs().of_inode(ino).is_some(), index.has_more_names(ino))
        };
        let seen: Vec<_> = names.iter().map(|name| name.seen).collect();
        // Where it makes no difference it is not asked.
        let is_quiet = has_more
            || (judge(&seen, false, None) == Judgement::Again && self.nothing_moved(heard, is_dir)?);
        match judge(&seen, is_quiet, (!is_dir).then_some(rounds)) {
            Judgement::Remove => drop_names(&self.watched, ino, &names)?,
            Judgement::Again => again(&mut self.namespace, rounds.saturating_add(1)),
            Judgement::Keep => {}
        }
        Ok(())
    }

    fn decide(&mut self, root: &OwnedFd, ino: Inode, suspect: &Suspect) {
        let Some((known, _)) = self.watched.index.read().get(ino) else {
            return;
        };
        // Before they are read, as in `refresh`.
        if self.watched.index.read().is_scanning() {
            self.watched.index.write().note_changed(ino);
        }
        let handle = suspect.handle;
        let found = reach::open(&self.watched, root, Node { ino, handle });
        let Ok(found) = found.and_then(|fd| self.watched.projects.open_file(&fd)) else {
            return;
        };
        let evidence = Evidence {
            ctime_moved: (found.stat.ctime, found.stat.ctime_nanos) > (known.ctime, known.ctime_nanos),
            fine: found.fine,
            mtime_set_back: found.stat.mtime < known.mtime,
            changed_by: self.changers.of(ino),
        };
        let pid = suspect.by.number();
        // All clients of a server are one process.
        if found.stat.ino != ino || !suspect.is_metadata_only(evidence) || is_server(pid) {
            return;
        }
        let recorder = self.watched.recorder();
        recorder.take_back(ino, suspect.recorded, suspect.before);
        // The next suspect is judged by what moves after this.
        if let Err(error) = take_over(&mut self.watched.index.write(), &found) {
            tracing::debug!(%error, ino, "cannot take over the attributes of a file that was touched");
        }
        if !evidence.mtime_set_back && found.stat.kind == Kind::File {
            self.suspicion.stamped(&self.watched.touched, pid, found.stat.uid);
        }
    }
}
