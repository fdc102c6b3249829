//! Files that the kernel knows by their numbers, and how each is found again: by its handle, so that no descriptor is held.
//!
//! What is needed after the end of this process lies in memory that another process keeps ([`Slots`]).
//!
//! What may never happen: a number that leads to another file than the kernel means. A number may belong to a new file after the old one was
//! deleted; its handle does not.

use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::slots::{Slot, Slots};
use crate::taking::{Moment, Taking};
use purge_sys::handle::Handle;

use std::os::fd::OwnedFd;

/// The top, in the kernel's words.
pub const TOP: u64 = 1;

/// Room for this number of files is kept.
const ROOM_KEPT: usize = 1 << 14;

/// How a file is found again.
#[derive(Debug, Clone)]
pub enum Leads {
    /// By its handle.
    Handle(Handle),
    /// It is held open, where handles lead nowhere.
    Held(Arc<OwnedFd>),
}

#[derive(Debug)]
struct Node {
    leads: Leads,
    /// How often the kernel was told of it.
    times: u64,
    /// Open files of it.
    opens: u32,
    /// Those that are being opened, or cut.
    uses: u32,
    /// The kernel reads and writes it by itself.
    backing: Option<i32>,
    slot: Option<u32>,
    /// Since then it lies at no place that users see.
    away: Option<Moment>,
}

impl Node {
    fn is_in_use(&self) -> bool {
        self.opens > 0 || self.uses > 0
    }

    fn slot(&self, number: u64) -> Option<Slot> {
        match &self.leads {
            Leads::Handle(handle) => Some(Slot {
                number,
                times: self.times,
                opens: self.opens,
                backing: self.backing.unwrap_or(0),
                handle: *handle,
            }),
            Leads::Held(_) => None,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Nodes {
    by_number: FxHashMap<u64, Node>,
    slots: Slots,
    taking: Taking,
    /// It is known of each file how often it is open. Not where an earlier process could not write it down.
    knows_all: bool,
}

/// What a user is to do who wants to use a file.
#[derive(Debug)]
pub enum Turn {
    /// Go on: how it is found.
    Now(Leads),
    /// The agent is about to take it: wait until that is decided.
    Later,
}

impl Nodes {
    /// Those that an earlier process left in the slots.
    pub fn of(mut slots: Slots) -> Self {
        let mut by_number = FxHashMap::default();
        let knows_all = !slots.lacks();
        for (place, slot) in slots.left() {
            let node = Node {
                leads: Leads::Handle(slot.handle),
                times: slot.times,
                opens: slot.opens,
                uses: 0,
                backing: (slot.backing != 0).then_some(slot.backing),
                slot: Some(place),
                away: None,
            };
            by_number.insert(slot.number, node);
        }
        Self {
            by_number,
            slots,
            taking: Taking::default(),
            knows_all,
        }
    }

    /// Whether it is known of each file whether it is open.
    pub fn knows_all(&self) -> bool {
        self.knows_all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// This moment, for those who look for names.
    pub fn now(&self) -> Moment {
        self.taking.now()
    }

    /// The kernel is about to be told of a file, which was found in this moment or later.
    ///
    /// # Errors
    /// ESTALE: it went after that.
    pub fn meet(&mut self, number: u64, leads: Leads, found: Moment) -> io::Result<()> {
        let is_away = |node: &Node| node.away.is_some_and(|away| away > found);
        if self.taking.went_since(number, found) || self.by_number.get(&number).is_some_and(is_away) {
            return Err(stale());
        }
        let node = self.by_number.entry(number).or_insert_with(|| Node {
            leads: leads.clone(),
            times: 0,
            opens: 0,
            uses: 0,
            backing: None,
            slot: None,
            away: None,
        });
        node.leads = leads;
        node.away = None;
        node.times = node.times.saturating_add(1);
        save(&mut self.slots, number, node);
        Ok(())
    }

    /// The kernel has forgotten what it was told so often. The end of an open file may come after that.
    pub fn forget(&mut self, number: u64, times: u64) {
        if let Some(node) = self.by_number.get_mut(&number) {
            node.times = node.times.saturating_sub(times);
            save(&mut self.slots, number, node);
            self.remove_if_unknown(number);
        }
    }

    fn remove_if_unknown(&mut self, number: u64) {
        let node = self.by_number.get(&number);
        let Some(node) = node.filter(|node| node.times == 0 && !node.is_in_use()) else {
            return;
        };
        if let Some(place) = node.slot {
            self.slots.free(place);
        }
        self.by_number.remove(&number);
        // After a look at everything, memory is given back with what the kernel forgets.
        let (len, room) = (self.by_number.len(), self.by_number.capacity());
        if room > ROOM_KEPT && len < room / 4 {
            self.by_number.shrink_to(len.saturating_mul(2));
        }
    }

    /// How a file is found.
    ///
    /// # Errors
    /// ESTALE: it is not known, or lies in the trash.
    pub fn leads(&self, number: u64) -> io::Result<Leads> {
        let node = self.by_number.get(&number);
        let node = node.filter(|node| node.away.is_none());
        node.map(|node| node.leads.clone()).ok_or_else(stale)
    }

    /// A user wants to use a file: [`Self::end_use`] follows where it may go on.
    ///
    /// # Errors
    /// As [`Self::leads`].
    pub fn begin_use(&mut self, number: u64) -> io::Result<Turn> {
        let leads = self.leads(number)?;
        if self.taking.want(number) {
            return Ok(Turn::Later);
        }
        if let Some(node) = self.by_number.get_mut(&number) {
            node.uses = node.uses.saturating_add(1);
        }
        Ok(Turn::Now(leads))
    }

    /// What was begun is done: if a file was opened, [`Self::opened`] has said so before.
    pub fn end_use(&mut self, number: u64) {
        if let Some(node) = self.by_number.get_mut(&number) {
            node.uses = node.uses.saturating_sub(1);
            self.remove_if_unknown(number);
        }
    }

    /// A user does something to a file for which no one has to wait: if the agent takes it, it will be told.
    pub fn touch(&mut self, number: u64) {
        self.taking.want(number);
    }

    /// Whether the agent takes files now.
    pub fn is_taking(&self) -> bool {
        !self.taking.is_empty()
    }

    /// The agent is about to take a file. False: a user has it open, or mapped.
    pub fn keep(&mut self, number: u64, by: u64) -> bool {
        let is_free = !self.by_number.get(&number).is_some_and(Node::is_in_use);
        self.knows_all && is_free && self.taking.keep(number, by)
    }

    /// See [`Taking`].
    pub fn taking(&mut self) -> &mut Taking {
        &mut self.taking
    }

    /// A file lies at its place no more. One that is in use did not go: it is a new one, which has the number of the one that did.
    pub fn go(&mut self, number: u64) {
        if self.by_number.get(&number).is_some_and(Node::is_in_use) {
            return;
        }
        let now = self.taking.go(number);
        if let Some(node) = self.by_number.get_mut(&number) {
            node.away = Some(now);
        }
    }

    /// A file was opened: by which number the kernel reads it by itself, if so. All open files of one node have the same. `register` gets one.
    pub fn opened(&mut self, number: u64, register: impl FnOnce() -> Option<i32>) -> Option<i32> {
        let node = self.by_number.get_mut(&number)?;
        if node.opens == 0 && node.backing.is_none() {
            node.backing = register();
        }
        node.opens = node.opens.saturating_add(1);
        save(&mut self.slots, number, node);
        node.backing
    }

    /// An open file was closed. What the kernel need not keep any longer.
    pub fn closed(&mut self, number: u64) -> Option<i32> {
        let node = self.by_number.get_mut(&number)?;
        node.opens = node.opens.saturating_sub(1);
        let left = match node.opens {
            0 => node.backing.take(),
            _ => None,
        };
        save(&mut self.slots, number, node);
        self.remove_if_unknown(number);
        left
    }
}

fn save(slots: &mut Slots, number: u64, node: &mut Node) {
    let slot = node.slot(number);
    if node.slot.is_none() && slot.is_some() {
        node.slot = slots.take();
    }
    match (node.slot, slot) {
        (Some(place), Some(slot)) => slots.put(place, &slot),
        // The next process will not know that it is open.
        _ if node.opens > 0 => slots.lack(),
        _ => {}
    }
}

/// The kernel looks for the file by its name then.
pub fn stale() -> io::Error {
    rustix::io::Errno::STALE.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::taking::MADE_NOW;

    fn leads(content: &[u8]) -> Leads {
        Leads::Handle(Handle::new(1, content).unwrap())
    }

    #[test]
    fn a_file_is_known_as_often_as_the_kernel_was_told_and_open_files_share_a_number() {
        let mut nodes = Nodes::of(Slots::none());
        nodes.meet(7, leads(b"a"), 0).unwrap();
        nodes.meet(7, leads(b"a"), 0).unwrap();
        nodes.forget(7, 1);
        assert!(nodes.leads(7).is_ok());
        assert_eq!(nodes.opened(7, || Some(3)), Some(3));
        assert_eq!(nodes.opened(7, || panic!("it has one")), Some(3));
        assert_eq!(nodes.closed(7), None);
        assert_eq!(nodes.closed(7), Some(3));
        nodes.forget(7, 1);
        assert!(nodes.leads(7).is_err() && nodes.is_empty());
    }

    #[test]
    fn what_was_opened_without_a_number_is_opened_without_one_until_it_is_closed() {
        let mut nodes = Nodes::of(Slots::none());
        nodes.meet(7, leads(b"a"), 0).unwrap();
        assert_eq!(nodes.opened(7, || None), None);
        assert_eq!(nodes.opened(7, || Some(3)), None);
        nodes.closed(7);
        nodes.closed(7);
        assert_eq!(nodes.opened(7, || Some(3)), Some(3));
    }

    #[test]
    fn memory_of_what_the_kernel_forgets_is_given_back() {
        let mut nodes = Nodes::of(Slots::none());
        let many = 10 * ROOM_KEPT as u64;
        (10..many).for_each(|number| nodes.meet(number, leads(b"a"), 0).unwrap());
        (10..many - 100).for_each(|number| nodes.forget(number, 1));
        assert!(nodes.by_number.capacity() <= ROOM_KEPT);
        assert!((many - 100..many).all(|number| nodes.leads(number).is_ok()));
    }

    #[test]
    fn another_process_knows_what_was_left() {
        let memory = Slots::memory().unwrap();
        let mut nodes = Nodes::of(Slots::of(&memory).unwrap());
        for number in 10..20 {
            nodes.meet(number, leads(&[number as u8; 12]), 0).unwrap();
        }
        assert_eq!(nodes.opened(12, || Some(3)), Some(3));
        nodes.forget(15, 1);
        drop(nodes);
        let mut nodes = Nodes::of(Slots::of(&memory).unwrap());
        assert_eq!(nodes.len(), 9);
        assert!(nodes.leads(15).is_err());
        let Leads::Handle(handle) = nodes.leads(12).unwrap() else {
            panic!("a handle")
        };
        assert_eq!(handle.content(), [12; 12]);
        assert_eq!(nodes.opened(12, || panic!("it is open")), Some(3));
        nodes.meet(15, leads(b"new"), 0).unwrap();
        assert_eq!(Nodes::of(Slots::of(&memory).unwrap()).len(), 10);
    }
    #[test]
    fn a_file_is_free_for_the_agent_only_while_no_user_has_it_open_or_is_about_to() {
        let mut nodes = Nodes::of(Slots::none());
        nodes.meet(7, leads(b"a"), 0).unwrap();
        let Turn::Now(_) = nodes.begin_use(7).unwrap() else {
            panic!("it is free")
        };
        assert!(!nodes.keep(7, 1), "it is being opened");
        nodes.opened(7, || None);
        nodes.end_use(7);
        assert!(!nodes.keep(7, 1), "it is open");
        // The kernel may forget a file before it says that it was closed.
        nodes.forget(7, 1);
        assert!(!nodes.keep(7, 1));
        nodes.closed(7);
        assert!(nodes.is_empty() && nodes.keep(7, 1));
        nodes.meet(7, leads(b"a"), 0).unwrap();
        assert!(matches!(nodes.begin_use(7).unwrap(), Turn::Later));
        assert!(!nodes.taking().is_whole(7, 1), "a process has come for it");
        nodes.taking().leave(7, 1);
        assert!(matches!(nodes.begin_use(7).unwrap(), Turn::Now(_)));
    }

    #[test]
    fn what_went_is_not_found_by_what_was_found_before() {
        let mut nodes = Nodes::of(Slots::none());
        let before = nodes.now();
        nodes.meet(7, leads(b"a"), before).unwrap();
        nodes.go(7);
        nodes.go(8);
        assert!(nodes.leads(7).is_err() && nodes.begin_use(7).is_err());
        assert!(nodes.meet(7, leads(b"a"), before).is_err());
        assert!(nodes.meet(8, leads(b"b"), before).is_err());
        // It was restored.
        nodes.meet(7, leads(b"a"), nodes.now()).unwrap();
        assert!(nodes.leads(7).is_ok());
    }

    #[test]
    fn a_new_file_that_has_the_number_of_one_that_went_is_used_as_ever() {
        let mut nodes = Nodes::of(Slots::none());
        let before = nodes.now();
        nodes.meet(7, leads(b"new"), MADE_NOW).unwrap();
        nodes.opened(7, || None);
        nodes.go(7);
        assert!(nodes.leads(7).is_ok(), "the agent told of the old one late");
        nodes.closed(7);
        nodes.go(7);
        assert!(nodes.leads(7).is_err() && nodes.meet(7, leads(b"old"), before).is_err());
        nodes.meet(7, leads(b"newer"), MADE_NOW).unwrap();
        assert!(nodes.leads(7).is_ok());
    }

    #[test]
    fn a_process_that_may_not_know_of_each_open_file_keeps_none_from_users() {
        let memory = Slots::memory().unwrap();
        let mut nodes = Nodes::of(Slots::of(&memory).unwrap());
        let held = tempfile::tempfile().unwrap();
        nodes.meet(7, Leads::Held(Arc::new(held.into())), 0).unwrap();
        nodes.opened(7, || None);
        assert!(nodes.keep(8, 1));
        let mut nodes = Nodes::of(Slots::of(&memory).unwrap());
        assert!(!nodes.knows_all() && !nodes.keep(8, 1));
    }
}
