//! What depends on everything else that goes: symbolic links whose targets go, and directories that are empty then. Each may make room for
//! the other, so they are found together, in the order in which they may go.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::circumstances::{Circumstances, Leads};
use super::evaluation::Evaluation;
use super::last_use::{covered, is_expired, last_use};
use super::links::{
    LinkRule, LinkRules, PageNames, changed_on_the_way, is_free, is_unfollowed, levels, own_change,
};
use super::pick::{Pick, Shape, Why};
use super::reach::Reach;
use super::rule::numbered;
use super::tables::Tables;
use super::verdicts::Verdicts;
use crate::rule::{Rule, Symlinks, Target};
use purge_index::codec::DirEntry;
use purge_index::{Attributes, DirId, Index, StoreError};
use purge_model::{Inode, LastUse};

/// A rule that takes empty directories.
struct Remover<'a> {
    number: u16,
    rule: &'a Rule,
    ttl: u64,
    /// How many more it takes.
    room: u64,
    verdicts: Verdicts,
}

/// What is found, and what is still to be looked at.
pub(super) struct Tail<'a> {
    index: &'a Index,
    rules: &'a [Rule],
    at: &'a Circumstances,
    tables: &'a Tables,
    found: &'a Evaluation,
    removers: Vec<Remover<'a>>,
    /// Which of the removers can speak of a directory.
    reach: Reach,
    /// By directory: how far below the root; empty where no rule asks.
    levels: Vec<u32>,
    /// By directory: entries that are left in it.
    left: Vec<u32>,
    /// Directories that go as a whole, and by which rule.
    trees: FxHashMap<DirId, u16>,
    /// Directories of which nothing is left.
    emptied: VecDeque<DirId>,
    /// Links whose target goes by no rule so far, by that target.
    waiting: FxHashMap<Inode, Vec<Pick>>,
    /// How many more links each rule takes.
    link_room: Vec<u64>,
    picks: Vec<Pick>,
}

impl<'a> Tail<'a> {
    pub fn new(
        index: &'a Index,
        rules: &'a [Rule],
        at: &'a Circumstances,
        tables: &'a Tables,
        found: &'a Evaluation,
    ) -> Self {
        let remover = |(number, rule): (u16, &'a Rule)| {
            let takes = rule.target == Target::File && rule.remove_empty_dirs;
            let room = match rule.max_empty_dirs {
                0 => u64::MAX,
                most => most,
            };
            Some(Remover {
                number,
                rule,
                ttl: rule.ttl.filter(|_| takes)?,
                room,
                verdicts: Verdicts::new(index.dirs()),
            })
        };
        let removers: Vec<Remover<'_>> = numbered(rules).filter_map(remover).collect();
        let levels = match removers.iter().any(|r| r.rule.keep_depth > 0) {
            true => levels(index),
            false => Vec::new(),
        };
        Self {
            index,
            rules,
            at,
            tables,
            found,
            reach: Reach::new(index.dirs(), removers.iter().map(|r| &r.rule.scope)),
            removers,
            levels,
            left: Vec::new(),
            trees: FxHashMap::default(),
            emptied: VecDeque::new(),
            waiting: FxHashMap::default(),
            link_room: Vec::new(),
            picks: Vec::new(),
        }
    }

    /// What goes, in the order in which it may: children before their parents, links after what they lead to.
    ///
    /// # Errors
    /// When names cannot be read from the store.
    pub fn run(mut self) -> Result<Vec<Pick>, StoreError> {
        let links = LinkRules::new(self.index, self.rules);
        let has_links = !links.rules.is_empty() && !self.at.survey.leads.is_empty();
        if self.removers.is_empty() && !has_links {
            return Ok(self.picks);
        }
        self.take_off_what_goes();
        if has_links {
            self.link_room = self.room_for_links();
            self.links(&links)?;
        }
        self.directories();
        Ok(self.picks)
    }

    /// What is left in each directory when everything that was found is away.
    fn take_off_what_goes(&mut self) {
        let dirs = self.index.dirs();
        self.left = dirs.children_table();
        let apart = self.found.apart.iter().flat_map(|apart| apart.by_directory());
        for (dir, count) in apart {
            if let Some(left) = self.left.get_mut(dir.index()) {
                *left = left.saturating_sub(count);
            }
        }
        for pick in &self.found.picks {
            if pick.shape == Shape::Tree
                && let Some(id) = dirs.of_inode(pick.ino)
            {
                self.trees.insert(id, pick.rule);
            }
            if let Some(left) = self.left.get_mut(pick.parent.index()) {
                *left = left.saturating_sub(1);
            }
        }
        let left = &self.left;
        let is_empty = |id: &DirId| left.get(id.index()) == Some(&0);
        self.emptied = dirs.iter().map(|(id, _)| id).filter(is_empty).collect();
    }

    /// By rule: how many links a limit of files leaves.
    fn room_for_links(&self) -> Vec<u64> {
        let mut room: Vec<u64> = self
            .rules
            .iter()
            .map(|rule| {
                if rule.max_files == 0 {
                    u64::MAX
                } else {
                    rule.max_files
                }
            })
            .collect();
        for pick in &self.found.picks {
            if let Some(room) = room.get_mut(usize::from(pick.rule)) {
                *room = room.saturating_sub(pick.files.max(1).into());
            }
        }
        room
    }

    /// Takes the links that may go now, and notes those that may once their target goes.
    fn links(&mut self, rules: &LinkRules<'_>) -> Result<(), StoreError> {
        let leads = &self.at.survey.leads;
        let mut inodes: Vec<Inode> = leads.keys().copied().collect();
        inodes.sort_unstable();
        let mut names = PageNames::default();
        for ino in inodes {
            let Some((attributes, access)) = self.index.get(ino) else {
                continue;
            };
            let Some((parent, name)) = names.of(self.index, ino)? else {
                continue;
            };
            let stays = !is_free(self.tables, parent) || self.at.held.contains(&ino);
            if stays || !self.at.only.has_owner(attributes.uid) || self.tree_of(parent).is_some() {
                continue;
            }
            let speaking = rules
                .by_age((&attributes, access), parent, self.at.now)
                .filter(|rule| rules.admits(rule, (parent, &name)));
            for rule in speaking {
                let own = own_change((&attributes, access), rule.rule.clocks, self.at.now);
                if self.link((ino, &attributes, own), parent, rule) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes a link if this rule may take it now.
    fn link(
        &mut self,
        (ino, attributes, own): (Inode, &Attributes, LastUse),
        parent: DirId,
        rule: &LinkRule<'_>,
    ) -> bool {
        let now = self.at.now;
        let Some(lead) = self.at.survey.leads.get(&ino).copied() else {
            return false;
        };
        let pick = |why: Why, last: LastUse| Pick {
            ino,
            parent,
            shape: Shape::Link(why),
            last,
            birth: attributes.birth,
            bytes: attributes.size,
            takes: 0,
            files: 0,
            rule: rule.number,
        };
        if rule.how == Symlinks::Expired {
            let goes = is_unfollowed(&lead, now, rule.ttl);
            return goes && self.take_link(pick(Why::Expired, own));
        }
        // A link on the way that was changed lately may be about to lead somewhere.
        if !is_expired(changed_on_the_way(&lead, rule.rule.clocks), now, rule.ttl) {
            return false;
        }
        match lead.target {
            Leads::Unknown => false,
            Leads::Nowhere => self.take_link(pick(Why::Dangling, own)),
            Leads::To(target) => {
                let pick = pick(Why::WithTarget, own);
                if self.taken_by(target) == Some(rule.number) {
                    return self.take_link(pick);
                }
                self.waiting.entry(target).or_default().push(pick);
                false
            }
        }
    }

    fn take_link(&mut self, pick: Pick) -> bool {
        let Some(room) = self.link_room.get_mut(usize::from(pick.rule)).filter(|n| **n > 0) else {
            return false;
        };
        *room -= 1;
        self.picks.push(pick);
        self.one_less(pick.parent);
        true
    }

    /// An entry of a directory goes.
    fn one_less(&mut self, parent: DirId) {
        if let Some(left) = self.left.get_mut(parent.index()) {
            let before = *left;
            *left = left.saturating_sub(1);
            if before == 1 {
                self.emptied.push_back(parent);
            }
        }
    }

    /// The rule that takes what a link leads to.
    fn taken_by(&self, target: Inode) -> Option<u16> {
        if let Some(rule) = self.found.targets.get(&target) {
            return Some(*rule);
        }
        let dirs = self.index.dirs();
        let dir = dirs.of_inode(target).or_else(|| self.index.parent_of(target))?;
        self.tree_of(dir)
    }

    /// The rule that takes a directory, or one above it, as a whole.
    fn tree_of(&self, dir: DirId) -> Option<u16> {
        if self.trees.is_empty() {
            return None;
        }
        let dirs = self.index.dirs();
        let mut at = dir;
        for _ in 0..=dirs.table_len() {
            if let Some(rule) = self.trees.get(&at) {
                return Some(*rule);
            }
            if at == DirId::ROOT {
                break;
            }
            at = dirs.get(at)?.parent;
        }
        None
    }

    /// Directories that are empty, the links to them, the directories that are empty then, and so on.
    fn directories(&mut self) {
        let mut freed = Vec::new();
        while !self.emptied.is_empty() {
            while let Some(id) = self.emptied.pop_front() {
                if let Some(pick) = self.directory(id) {
                    self.picks.push(pick);
                    freed.push((pick.ino, pick.rule));
                    self.one_less(pick.parent);
                }
            }
            for (target, rule) in freed.drain(..) {
                let links = self.waiting.remove(&target).unwrap_or_default();
                for link in links.into_iter().filter(|link| link.rule == rule) {
                    self.take_link(link);
                }
            }
        }
    }

    /// A directory of which nothing is left, if a rule takes it.
    fn directory(&mut self, id: DirId) -> Option<Pick> {
        let (index, at) = (self.index, self.at);
        let dirs = index.dirs();
        let dir = dirs.get(id)?;
        let is_open = dir.unreadable || dir.has_mounts || dir.crowded;
        if id == DirId::ROOT || is_open || self.trees.contains_key(&id) || !is_free(self.tables, id) {
            return None;
        }
        let (attributes, access) = index.get(dir.ino)?;
        if !at.only.has_owner(attributes.uid) {
            return None;
        }
        let level = self.levels.get(id.index()).copied().unwrap_or(u32::MAX);
        let takes = |remover: &Remover<'_>| {
            let last = last_use(
                &attributes,
                covered(access, at.gap_end),
                remover.rule.clocks,
                at.now,
            );
            let goes = is_expired(last.at, at.now, remover.ttl)
                && remover.takes(index, at, (dir, level), &attributes);
            goes.then_some(last)
        };
        let near = self.reach.near(dir.parent).iter().map(|n| usize::from(*n));
        let (remover, last) = near
            .filter_map(|n| Some((n, takes(self.removers.get(n)?)?)))
            .next()?;
        let remover = self.removers.get_mut(remover)?;
        remover.room = remover.room.saturating_sub(1);
        Some(Pick {
            ino: dir.ino,
            parent: dir.parent,
            shape: Shape::EmptyDirectory,
            last,
            birth: attributes.birth,
            bytes: 0,
            takes: 0,
            files: 0,
            rule: remover.number,
        })
    }
}

impl Remover<'_> {
    /// Whether it takes an empty directory that is old enough.
    fn takes(
        &self,
        index: &Index,
        at: &Circumstances,
        (dir, level): (&DirEntry, u32),
        attributes: &Attributes,
    ) -> bool {
        let is_spared = self.rule.spares_dirs && at.survey.spared.contains(&dir.ino);
        self.room > 0
            && level > self.rule.keep_depth
            && !is_spared
            && self.rule.scope.admits_owner(attributes.uid, attributes.gid)
            && self
                .verdicts
                .admits(index.dirs(), &self.rule.scope, (dir.parent, &dir.name), true)
    }
}
