//! Symbolic links that may go, and when. Pure: where they lead is asked of the file system by others, between two looks at the index.
//!
//! ```text
//!   old_links    the index: links that were not changed within the ttl of a rule
//!   places       the index: where some of them lie, if a rule speaks of these places
//!   (survey)     the file system: where each of them leads; nothing is followed
//!   tail         the index again: which of them go
//! ```
//! A link's use cannot be seen: it has its own times only. A link stays if it leads out of the volume, or if its target is not known.

use std::sync::Arc;

use super::circumstances::{Circumstances, Lead};
use super::last_use::{is_expired, last_use};
use super::reach::Reach;
use super::rule::numbered;
use super::tables::Tables;
use super::verdicts::Verdicts;
use crate::rule::{Rule, Symlinks, Target};
use purge_index::{Attributes, DirId, Index, StoreError};
use purge_model::{Clocks, Inode, Kind, LastUse, Seconds, Source};

/// When a link was last changed, by the clocks that a rule believes. Its use cannot be seen; for a rule that asks for accesses alone it was used
/// when it was made, or came to its place, or by its modification time.
pub fn own_change((attributes, access): (&Attributes, LastUse), clocks: Clocks, now: Seconds) -> LastUse {
    let never = LastUse {
        at: Seconds::MIN,
        source: Source::Baseline,
    };
    let file = Clocks {
        access: false,
        ..clocks
    };
    match clocks.modify || clocks.change || clocks.birth {
        true => last_use(attributes, never, file, now),
        false => {
            let modify = Clocks {
                modify: true,
                ..clocks
            };
            last_use(attributes, access, modify, now)
        }
    }
}

/// Of the links on the way to a target, what a rule's clocks say of their changes.
pub(super) fn changed_on_the_way(lead: &Lead, clocks: Clocks) -> Seconds {
    match clocks.change || clocks.birth {
        true => lead.changed.max(lead.modified),
        false => lead.modified,
    }
}

/// A rule that takes links.
pub(super) struct LinkRule<'a> {
    pub number: u16,
    pub rule: &'a Rule,
    pub ttl: u64,
    pub how: Symlinks,
    /// A directory rule takes those that lie beside its directories: above this level.
    below_level: Option<u32>,
    verdicts: Option<Verdicts>,
}

/// The rules that take links.
pub(super) struct LinkRules<'a> {
    index: &'a Index,
    pub rules: Vec<LinkRule<'a>>,
    levels: Vec<u32>,
    /// Which of them can speak of a directory's links.
    reach: Reach,
}

impl<'a> LinkRules<'a> {
    pub fn new(index: &'a Index, rules: &'a [Rule]) -> Self {
        let of = |(number, rule): (u16, &'a Rule)| {
            let below_level = match rule.target {
                Target::File => None,
                Target::Directory { depth } => Some(depth),
            };
            Some(LinkRule {
                number,
                rule,
                // No list announces a link.
                ttl: match rule.symlinks {
                    Symlinks::Keep => return None,
                    Symlinks::WithTarget => rule.ttl?,
                    Symlinks::Expired => rule.ttl?.saturating_add(rule.announce),
                },
                how: rule.symlinks,
                below_level,
                verdicts: rule.scope.needs_path().then(|| Verdicts::new(index.dirs())),
            })
        };
        let rules: Vec<LinkRule<'_>> = numbered(rules).filter_map(of).collect();
        let levels = match rules.iter().any(|r| r.below_level.is_some()) {
            true => levels(index),
            false => Vec::new(),
        };
        Self {
            index,
            reach: Reach::new(index.dirs(), rules.iter().map(|r| &r.rule.scope)),
            rules,
            levels,
        }
    }

    /// The rules that speak of a link by its age and its owner. One with a second name stays.
    pub fn by_age<'s>(
        &'s self,
        (attributes, access): (&'s Attributes, LastUse),
        parent: DirId,
        now: Seconds,
    ) -> impl Iterator<Item = &'s LinkRule<'a>> {
        let is_one = attributes.kind == Kind::Symlink && attributes.links == 1;
        let near = self.reach.near(parent).iter();
        near.filter_map(|n| self.rules.get(usize::from(*n)))
            .filter(move |r| {
                let scope = &r.rule.scope;
                let is_in_scope = match r.how {
                    // Of what goes with its target, the target's size counts.
                    Symlinks::WithTarget => scope.admits_owner(attributes.uid, attributes.gid),
                    _ => scope.admits_attributes(attributes.uid, attributes.gid, attributes.size),
                };
                let changed = own_change((attributes, access), r.rule.clocks, now);
                is_one && is_in_scope && is_expired(changed.at, now, r.ttl)
            })
    }

    /// Whether a rule speaks of this place.
    pub fn admits(&self, rule: &LinkRule<'_>, (parent, name): (DirId, &[u8])) -> bool {
        let level = self.levels.get(parent.index()).copied().unwrap_or(u32::MAX);
        let dirs = self.index.dirs();
        rule.below_level.is_none_or(|depth| level < depth)
            && rule
                .verdicts
                .as_ref()
                .is_none_or(|v| v.admits(dirs, &rule.rule.scope, (parent, name), false))
    }
}

/// How far below the root each directory lies.
pub(super) fn levels(index: &Index) -> Vec<u32> {
    index
        .dirs()
        .inherit(0u32, |_, _, above: u32| above.saturating_add(1))
}

/// Whether an entry of this directory may go at all.
pub(super) fn is_free(tables: &Tables, parent: DirId) -> bool {
    let stays = [&tables.held, &tables.protected, &tables.deep, &tables.outside];
    Tables::is(&tables.connected, parent) && !stays.into_iter().any(|table| Tables::is(table, parent))
}

/// The links that were not changed within the ttl of a rule that takes links, in the order of their inodes.
///
/// # Errors
/// When the index is damaged.
pub fn old_links(index: &Index, rules: &[Rule], at: &Circumstances) -> Result<Vec<Inode>, StoreError> {
    let rules = LinkRules::new(index, rules);
    let mut old = Vec::new();
    if rules.rules.is_empty() {
        return Ok(old);
    }
    let tables = Tables::new(index, at);
    for page in index.pages() {
        let mut attributes = page.attributes();
        for (rank, ino) in page.inodes().enumerate() {
            let entry = attributes.next_entry()?;
            if entry.kind == Kind::Symlink
                && rules
                    .by_age((&entry, page.access(rank)), entry.parent, at.now)
                    .next()
                    .is_some()
                && is_free(&tables, entry.parent)
                && !at.held.contains(&ino)
            {
                old.push(ino);
            }
        }
    }
    old.sort_unstable();
    Ok(old)
}

/// A link, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which.
    pub ino: Inode,
    /// The directory that holds it, relative to the volume.
    pub dir: Arc<[u8]>,
    /// Its name there.
    pub name: Vec<u8>,
    /// A rule asks where it leads.
    pub is_followed: bool,
}

/// Where some of the old links lie, if a rule speaks of these places.
///
/// # Errors
/// When the index is damaged or its names cannot be read.
pub fn places(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    links: &[Inode],
) -> Result<Vec<Place>, StoreError> {
    let rules = LinkRules::new(index, rules);
    let mut places = Vec::new();
    let mut names = PageNames::default();
    let mut last: Option<(DirId, Arc<[u8]>)> = None;
    for ino in links {
        let Some((attributes, access)) = index.get(*ino) else {
            continue;
        };
        let Some((parent, name)) = names.of(index, *ino)? else {
            continue;
        };
        let hows: Vec<Symlinks> = rules
            .by_age((&attributes, access), parent, at.now)
            .filter(|rule| rules.admits(rule, (parent, &name)))
            .map(|rule| rule.how)
            .collect();
        if hows.is_empty() {
            continue;
        }
        let dir = match &last {
            Some((id, path)) if *id == parent => Arc::clone(path),
            _ => match index.dirs().path(parent) {
                Some(path) => path.into(),
                None => continue,
            },
        };
        last = Some((parent, Arc::clone(&dir)));
        places.push(Place {
            ino: *ino,
            dir,
            name,
            is_followed: hows.contains(&Symlinks::WithTarget),
        });
    }
    Ok(places)
}

/// The names of the links of one page, read when first asked for.
#[derive(Default)]
pub(super) struct PageNames {
    page: Option<u64>,
    names: Vec<(u8, DirId, Vec<u8>)>,
}

impl PageNames {
    /// The only name of an inode.
    pub fn of(&mut self, index: &Index, ino: Inode) -> Result<Option<(DirId, Vec<u8>)>, StoreError> {
        let page = ino / purge_index::codec::PAGE_INODES;
        if self.page != Some(page) {
            let names = &mut self.names;
            names.clear();
            index.names_of_page(page, |offset, parent, name| {
                names.push((offset, parent, name.to_vec()));
            })?;
            self.page = Some(page);
        }
        let offset = (ino % purge_index::codec::PAGE_INODES) as u8;
        let mut found = self.names.iter().filter(|(of, ..)| *of == offset);
        let first = found.next().map(|(_, parent, name)| (*parent, name.clone()));
        Ok(first.filter(|_| found.next().is_none()))
    }
}

/// Whether what a link leads to may be taken by a rule that takes such links: the others need not be remembered.
pub fn may_go(index: &Index, rules: &[Rule], at: &Circumstances, target: Inode) -> bool {
    let takes = |rule: &Rule| rule.symlinks == Symlinks::WithTarget;
    let shortest = rules.iter().filter(|r| takes(r)).filter_map(|r| r.ttl).min();
    let Some((attributes, access)) = index.get(target) else {
        return false;
    };
    let may_be = |rule: &Rule| {
        let last = last_use(&attributes, access, rule.clocks, at.now);
        shortest.is_some_and(|ttl| is_expired(last.at, at.now, ttl))
    };
    match attributes.kind {
        Kind::File => rules.iter().filter(|r| takes(r)).any(may_be),
        Kind::Directory => true,
        Kind::Symlink | Kind::Special => false,
    }
}

/// Whether a link that is old by its own change was not followed either.
pub(super) fn is_unfollowed(lead: &Lead, now: Seconds, ttl: u64) -> bool {
    // An access time that lies ahead was set.
    lead.followed > now || is_expired(lead.followed, now, ttl)
}
