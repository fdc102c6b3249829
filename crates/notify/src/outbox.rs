//! Notices that wait, were sent, or failed. Durable: one file a notice in `STATE_DIR/notices`, written beside and renamed.
//!
//! ```text
//!   notices/NOTICE.json       the notice with its events
//!   notices/lists/NAME.jsonl  the entries an event speaks of, one a line
//!   notices/memory.json       what was told already (see `memory`)
//!   notices/answered          what sinks have taken since (see `receipts`)
//! ```
//! A notice gathers events until it is due, then it is closed, and from then on its content stays as it is: every attempt sends the
//! same. An event that a sink has got already is not taken again.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

use super::digest::{Past, Place, place};
use super::event::{Audience, Entry, Event};
use super::file::{Sync, remove, replace};
use super::notice::{Fate, Notice};
use super::receipts::{Left, Receipt, Receipts};
use crate::settings::Sink;
use crate::url;
use purge_base::accounts::Persons;
use purge_base::clock;
use purge_base::handover::Handover;
use purge_base::id::new_id;
use purge_sys::private::shown;

/// Notices that are over are kept for this long, to be looked at.
const KEPT_SECONDS: u64 = 30 * 86_400;
/// And at most this number of them.
const KEPT_MAX: usize = 5000;
/// Notices of one sink that wait; of more, the oldest fail.
const WAITING_MAX: usize = 20_000;
/// Events of one digest.
const EVENTS_MAX: usize = 500;

/// All notices.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
    /// Events are added one after another.
    adding: Mutex<()>,
    inner: Mutex<Inner>,
    receipts: Arc<Receipts>,
    /// Told whenever a notice is added.
    pub added: tokio::sync::Notify,
    /// An earlier process had one here.
    pub was_there: bool,
}

#[derive(Debug, Default)]
struct Inner {
    notices: BTreeMap<String, Notice>,
    /// Sink and event.
    taken: FxHashSet<(String, String)>,
}

impl Outbox {
    /// Reads what earlier processes left in `dir`. What cannot be cleared away there is left for the next one: no use is
    /// missed for it.
    ///
    /// # Errors
    /// When the directory cannot be made or read. A notice that cannot be read is set aside and said aloud.
    pub fn open(dir: &Path, handover: &mut Handover) -> io::Result<Self> {
        let was_there = dir.exists();
        purge_sys::private::dir(&dir.join("lists"))?;
        let mut inner = Inner::default();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|x| x == super::file::UNFINISHED) {
                let removed = remove(&path);
                removed.unwrap_or_else(
                    |error| tracing::warn!(path = %shown(&path).display(), %error, "an unfinished file is left as it is"),
                );
            }
            let is_notice = path.extension().is_some_and(|x| x == "json")
                && path.file_name().is_some_and(|n| n != super::memory::FILE);
            if !is_notice {
                continue;
            }
            match read(&path) {
                Ok(notice) => inner.take(notice),
                Err(error) => {
                    tracing::error!(path = %shown(&path).display(), %error, "a notice cannot be read: it is set aside");
                    fs::rename(&path, path.with_extension("damaged")).unwrap_or_else(
                        |error| tracing::warn!(path = %shown(&path).display(), %error, "it is left as it is"),
                    );
                }
            }
        }
        let (receipts, left) = Receipts::open(dir, handover)?;
        let outbox = Self {
            dir: dir.to_owned(),
            adding: Mutex::default(),
            inner: Mutex::new(inner),
            receipts,
            added: tokio::sync::Notify::new(),
            was_there,
        };
        left.into_iter().for_each(|left| outbox.settle(left));
        Ok(outbox)
    }

    /// What the process before was sending when it ended.
    fn settle(&self, Left { receipt, taken }: Left) {
        let id = receipt.id();
        let waits = self.inner.lock().notices.get(id).is_some_and(|n| !n.is_over());
        if waits && taken {
            if let Err(error) = self.sent(receipt, clock::wall().0.into()) {
                tracing::warn!(%error, "a notice was taken, but its file cannot say so yet");
            }
            return;
        }
        if waits {
            tracing::warn!(notice = %id,
                "this notice was being sent when the agent ended: it is sent again, under the same id");
        }
        receipt.settled();
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes an event for every sink that is told of its kind, unless it has it already. `entries` are its list.
    ///
    /// # Errors
    /// When it cannot be made durable: the event is to be given again.
    pub fn add(&self, mut event: Event, entries: &[Entry], sinks: &[Sink], now: u64) -> io::Result<()> {
        let kind = event.what.kind();
        let _one_at_a_time = self.adding.lock();
        let wanting: Vec<&Sink> = {
            let inner = self.inner.lock();
            let key = |sink: &Sink| (sink.name.clone(), event.event_id.clone());
            let of_kind = sinks.iter().filter(|s| s.events.contains(&kind));
            of_kind.filter(|s| !inner.taken.contains(&key(s))).collect()
        };
        if wanting.is_empty() {
            return Ok(());
        }
        if !entries.is_empty() {
            let name = self.inner.lock().unused_name('l', &self.dir.join("lists"));
            let name = format!("{name}.jsonl");
            self.write_list(&name, entries)?;
            if let Some(list) = &mut event.list {
                list.file = name;
            }
        }
        for sink in wanting {
            self.add_for(sink, &event, now)?;
        }
        self.added.notify_waiters();
        Ok(())
    }

    /// No sender waits for the disk while a new notice is written: one that has sent a notice must be able to note it at once.
    fn add_for(&self, sink: &Sink, event: &Event, now: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let past = inner.past(&sink.name, &event.to);
        match place(&event.to, sink.digest, past, now) {
            Place::Into(id) => {
                let mut notice = inner.notices.get(id).cloned().unwrap_or_else(|| {
                    // Not reached: `past` names only what is there.
                    Notice::new(id.to_owned(), sink, &event.to, now)
                });
                notice.events.push(event.clone());
                // It must not be closed meanwhile.
                self.write(&notice, Sync::First)?;
                inner.take(notice);
            }
            Place::New { due, gathers } => {
                let id = inner.unused_name('n', &self.dir);
                let mut notice = Notice::new(id, sink, &event.to, now);
                notice.due_at = due;
                if !gathers {
                    notice.fate = Fate::Waiting;
                    notice.closed_at = now;
                }
                notice.events.push(event.clone());
                drop(inner);
                self.write(&notice, Sync::First)?;
                inner = self.inner.lock();
                inner.take(notice);
            }
        }
        inner.fail_oldest(&sink.name, now, |n| self.write(n, Sync::First))
    }

    /// The notices of a sink that are due, oldest first, at most this number; and when the next one is.
    ///
    /// # Errors
    /// When one that is due cannot be closed durably.
    pub fn due(&self, sink: &str, now: u64, most: usize) -> io::Result<(Vec<Notice>, Option<u64>)> {
        let mut inner = self.inner.lock();
        let open = |n: &&Notice| n.sink == sink && !n.is_over();
        let due = inner.notices.values().filter(open).filter(|n| n.due_at <= now);
        let mut order: Vec<(u64, &str)> = due.map(|n| (n.due_at, n.notice_id.as_str())).collect();
        order.sort_unstable();
        order.truncate(most);
        let found = order
            .into_iter()
            .filter_map(|(_, id)| inner.notices.get(id).cloned());
        let mut due: Vec<Notice> = found.collect();
        for notice in due.iter_mut().filter(|n| n.fate == Fate::Gathering) {
            notice.fate = Fate::Waiting;
            notice.closed_at = now;
            self.write(notice, Sync::First)?;
            inner.take(notice.clone());
        }
        let later = inner.notices.values().filter(open).map(|n| n.due_at);
        let next = later.filter(|at| *at > now).min();
        Ok((due, next))
    }

    /// A notice is about to be sent: where its sink's answer is noted. It ends in [`Self::sent`] or [`Self::not_sent`].
    pub fn begin(&self, id: &str) -> Receipt {
        self.receipts.begin(id)
    }

    /// The sink has taken it. Written at once, and only then made to survive a power cut.
    ///
    /// # Errors
    /// When that cannot be noted: this process does not send it again, nor the next one, if the receipt says that it was taken.
    pub fn sent(&self, receipt: Receipt, now: u64) -> io::Result<()> {
        self.change(receipt.id(), Sync::After, |n| n.has_been_sent(now))?;
        receipt.settled();
        Ok(())
    }

    /// The sink has not taken it: the next attempt is at `again`, or there is none.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn not_sent(&self, receipt: Receipt, error: &str, again: Option<u64>, now: u64) -> io::Result<()> {
        self.change(receipt.id(), Sync::First, |n| {
            n.attempts = n.attempts.saturating_add(1);
            n.error = error.to_owned();
            match again {
                Some(at) => n.due_at = at,
                None => (n.fate, n.ended_at) = (Fate::Failed, now),
            }
        })?;
        receipt.settled();
        Ok(())
    }

    fn change(&self, id: &str, sync: Sync, change: impl FnOnce(&mut Notice)) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let Some(notice) = inner.notices.get_mut(id) else {
            return Ok(());
        };
        change(notice);
        let notice = notice.clone();
        drop(inner);
        self.write(&notice, sync)
    }

    /// The notices that are asked for, newest first.
    pub fn list(&self, wanted: impl Fn(&Notice) -> bool) -> Vec<Notice> {
        let inner = self.inner.lock();
        let all = inner.notices.values().rev().filter(|n| wanted(n));
        all.cloned().collect()
    }

    /// How many notices of each sink have which fate.
    pub fn counts(&self) -> BTreeMap<String, [u64; 3]> {
        let mut all: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for notice in self.inner.lock().notices.values() {
            let [waiting, sent, failed] = all.entry(notice.sink.clone()).or_default();
            let count = match notice.fate {
                Fate::Gathering | Fate::Waiting => waiting,
                Fate::Sent => sent,
                Fate::Failed => failed,
            };
            *count = count.saturating_add(1);
        }
        all
    }

    /// The entries that an event speaks of. A list that is no longer there is an empty one: what was counted is in the event.
    pub fn entries(&self, event: &Event) -> Vec<Entry> {
        let Some(file) = event
            .list
            .as_ref()
            .map(|l| l.file.as_str())
            .filter(|f| !f.is_empty())
        else {
            return Vec::new();
        };
        let text = fs::read_to_string(self.dir.join("lists").join(file)).unwrap_or_default();
        text.lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect()
    }

    /// Forgets what is long over.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn tidy(&self, now: u64) -> io::Result<()> {
        // A list is written before the notice that names it.
        let _nothing_is_added = self.adding.lock();
        let mut inner = self.inner.lock();
        let mut over: Vec<(u64, String)> = inner
            .notices
            .values()
            .filter(|n| n.is_over())
            .map(|n| (n.ended_at, n.notice_id.clone()))
            .collect();
        over.sort_unstable_by(|a, b| b.cmp(a));
        let old =
            |(i, (at, _)): &(usize, &(u64, String))| *i >= KEPT_MAX || now.saturating_sub(*at) > KEPT_SECONDS;
        let forgotten: Vec<String> = over
            .iter()
            .enumerate()
            .filter(old)
            .map(|(_, o)| o.1.clone())
            .collect();
        for id in forgotten {
            remove(&self.dir.join(format!("{id}.json")))?;
            inner.forget(&id);
        }
        let used: FxHashSet<String> = inner
            .notices
            .values()
            .flat_map(|n| n.events.iter())
            .filter_map(|e| Some(e.list.as_ref()?.file.clone()))
            .collect();
        for entry in fs::read_dir(self.dir.join("lists"))? {
            let entry = entry?;
            if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn write(&self, notice: &Notice, sync: Sync) -> io::Result<()> {
        let bytes = serde_json::to_vec(notice)?;
        replace(&self.dir.join(format!("{}.json", notice.notice_id)), &bytes, sync)
    }

    fn write_list(&self, name: &str, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        replace(&self.dir.join("lists").join(name), &text, Sync::First)
    }
}

impl Inner {
    fn take(&mut self, notice: Notice) {
        for event in &notice.events {
            self.taken.insert((notice.sink.clone(), event.event_id.clone()));
        }
        self.notices.insert(notice.notice_id.clone(), notice);
    }

    /// Its events are not known any more: the code that finds events remembers for longer what was told.
    fn forget(&mut self, id: &str) {
        let Some(notice) = self.notices.remove(id) else {
            return;
        };
        for event in notice.events {
            self.taken.remove(&(notice.sink.clone(), event.event_id));
        }
    }

    /// A name that neither a notice nor a file has.
    fn unused_name(&self, prefix: char, dir: &Path) -> String {
        loop {
            let name = new_id(prefix, clock::wall());
            let file = dir.join(format!("{name}.jsonl"));
            if !self.notices.contains_key(&name) && !file.exists() {
                return name;
            }
        }
    }

    fn past(&self, sink: &str, to: &Audience) -> Past<'_> {
        let mut past = Past::default();
        for notice in self.notices.values().filter(|n| n.sink == sink && n.to == *to) {
            match notice.fate {
                Fate::Gathering if notice.events.len() < EVENTS_MAX => {
                    past.gathering = Some(&notice.notice_id)
                }
                Fate::Gathering => {}
                _ => past.closed_at = past.closed_at.max(Some(notice.closed_at)),
            }
        }
        past
    }

    /// The notices of a sink that are too many, so that `most` are left: the oldest of the person who has most of them. Whose the uids are is
    /// asked for only then. The operator's are given up when there are no others.
    fn beyond(&self, sink: &str, most: usize, persons: impl FnOnce() -> Persons) -> Vec<String> {
        let waiting = || self.notices.values().filter(|n| n.sink == sink && !n.is_over());
        let excess = waiting().count().saturating_sub(most);
        if excess == 0 {
            return Vec::new();
        }
        let persons = persons();
        // In the order of their names, which is that of time.
        let mut of: BTreeMap<Option<u32>, VecDeque<&str>> = BTreeMap::new();
        for notice in waiting() {
            let person = match &notice.to {
                Audience::Owner { uid, .. } => Some(persons.of(*uid)),
                Audience::Operator => None,
            };
            of.entry(person).or_default().push_back(&notice.notice_id);
        }
        let mut beyond = Vec::new();
        for _ in 0..excess {
            let most = of
                .iter_mut()
                .max_by_key(|(person, ids)| (person.is_some() && !ids.is_empty(), ids.len()));
            let oldest = most.and_then(|(_, ids)| ids.pop_front());
            beyond.extend(oldest.map(str::to_owned));
        }
        beyond
    }

    fn fail_oldest(
        &mut self,
        sink: &str,
        now: u64,
        write: impl Fn(&Notice) -> io::Result<()>,
    ) -> io::Result<()> {
        for id in self.beyond(sink, WAITING_MAX, Persons::of_host) {
            let Some(notice) = self.notices.get_mut(&id) else {
                continue;
            };
            notice.fate = Fate::Failed;
            notice.ended_at = now;
            notice.error = format!(
                "more than {WAITING_MAX} notices wait for this sink: {}",
                notice.error
            );
            tracing::error!(sink, notice = %notice.notice_id, "too many notices wait: the oldest of the receiver who has most is given up");
            write(notice)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Notice> {
    let mut notice: Notice = serde_json::from_slice(&fs::read(path)?)?;
    notice.error = url::shown_at_begin(&notice.error);
    Ok(notice)
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
