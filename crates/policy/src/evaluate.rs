//! All rules of a volume against its index.
//!
//! File rules are one linear pass over the clock column: a page whose files were all used lately is passed over
//! without a look at its attributes. Whole directories come first ([`super::units`]), empty ones last.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::announced::Announced;
use super::apart::Apart;
use super::files::FilePass;
use super::limits::{apply_limits, is_limited};
use super::portion::{ByOwner, Portion};
use super::tail::Tail;
use super::units::{self, DirectoryRule};
use crate::rule::Rule;
use purge_index::{DirId, Index, StoreError};
use purge_model::{Inode, LastUse, Seconds};

/// What besides index and rules decides.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The present moment.
    pub now: Seconds,
    /// End of the last unobserved stretch that was too long to overlook: counts as a use of every file.
    pub gap_end: Option<Seconds>,
    /// Later unobserved stretches that the operator forgives, from and to: a file may have been used in them.
    pub forgiven: Vec<(Seconds, Seconds)>,
    /// Inodes on which a hold lies; a held directory holds everything below.
    pub held: FxHashSet<Inode>,
    /// What announcing rules have named.
    pub announced: Announced,
    /// Inodes that are in use by mounts: a run keeps them.
    pub mounted: Arc<FxHashSet<Inode>>,
    /// What the file system said of what no index knows.
    pub survey: Survey,
    /// Owners whose files stay this time, as if a limit kept them.
    pub left_out: FxHashSet<u32>,
}

/// What only the live file system can tell: where links lead, and who may write to a directory.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Where symbolic links lead. One that is not here stays.
    pub leads: FxHashMap<Inode, Lead>,
    /// Directories whose users could not make them again.
    pub spared: FxHashSet<Inode>,
}

/// What the file system says of a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lead {
    /// Where it leads.
    pub target: Leads,
    /// When the links on the way from it to its target were changed last, by their change times.
    pub changed: Seconds,
    /// By their modification times.
    pub modified: Seconds,
    /// Its access time: the kernel moves it when the link is followed.
    pub followed: Seconds,
}

/// Where a symbolic link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// To nothing.
    Nowhere,
    /// To this inode of the volume.
    To(Inode),
    /// Out of the volume, or it cannot be told.
    Unknown,
}

/// Why a symbolic link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It leads to nothing.
    Dangling,
    /// What it leads to goes by the same rule.
    WithTarget,
    /// It is old, whether its target exists or not.
    Expired,
}

impl Why {
    /// For a person.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Dangling => "a symbolic link that leads to nothing, and was not changed within the ttl",
            Self::WithTarget => {
                "a symbolic link whose target goes by the same rule, and was not changed within the ttl"
            }
            Self::Expired => "a symbolic link that was neither changed nor followed within the ttl",
        }
    }
}

/// Why an entry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An expired file.
    File,
    /// A directory in which everything has expired.
    Tree,
    /// A directory that is empty, or is when the candidates before it are gone.
    EmptyDirectory,
    /// A symbolic link.
    Link(Why),
}

impl Shape {
    /// Whether it goes after the others, in an order of its own: it may depend on them.
    pub fn is_last(self) -> bool {
        matches!(self, Self::EmptyDirectory | Self::Link(_))
    }
}

/// One entry that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Which.
    pub ino: Inode,
    /// The directory that holds it (the first, if it has several names).
    pub parent: DirId,
    /// As what.
    pub shape: Shape,
    /// Its last use as the rule sees it.
    pub last: LastUse,
    /// When it was made.
    pub birth: Seconds,
    /// Apparent bytes that go with it.
    pub bytes: u64,
    /// Of the files that go with it: of each the smaller of its size and its space on the disk.
    pub takes: u64,
    /// Regular files that go with it.
    pub files: u32,
    /// Position of the rule in the evaluated rules.
    pub rule: u16,
}

/// Files that stay, by the reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Somebody holds them.
    pub held: u64,
    /// Expired, but outside every rule's scope, or protected.
    pub excluded: u64,
    /// Used lately, or in no rule's scope at all.
    pub young: u64,
    /// Nobody watched long enough to know.
    pub uncovered: u64,
    /// Beyond `max_files` or `max_bytes`, or of an owner who was left out.
    pub limit: u64,
}

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// What goes, in the order in which it may: directories that are empty only then come last, children first.
    pub picks: Vec<Pick>,
    /// Files that go as well, and are too many to be among the picks.
    pub apart: Option<Apart>,
    /// What stays.
    pub kept: Kept,
    /// Files of the volume.
    pub index_files: u64,
    /// Files whose attributes were looked at.
    pub examined: u64,
    /// By uid: what goes.
    pub by_owner: ByOwner,
    /// Files with a time that lies ahead, among those that were looked at.
    pub ahead: u64,
    /// Candidates that are in use by mounts as far as is known now: a run keeps them.
    pub mounted: u64,
    /// Of the files that go those to which symbolic links lead, and the rule.
    pub(super) targets: FxHashMap<Inode, u16>,
}

/// Tables over directories that every part of the evaluation needs.
pub(super) struct Tables {
    /// Below a hold.
    pub held: Vec<bool>,
    /// Below something that is never a candidate: `lost+found`.
    pub protected: Vec<bool>,
    /// Connected to the root: the others' paths are not known.
    pub connected: Vec<bool>,
    /// Too deep to have a path.
    pub deep: Vec<bool>,
}

/// Names at the root of a file system that belong to it, not to users.
const LOST_AND_FOUND: &[u8] = b"lost+found";
const QUOTA_FILES: [&[u8]; 4] = [b"aquota.user", b"aquota.group", b"quota.user", b"quota.group"];

/// Evaluates `rules` in their order; the first that takes an entry is its reason.
///
/// # Errors
/// When the index is damaged or its names cannot be read: there is no plan for what cannot be seen whole.
pub fn evaluate(index: &Index, rules: &[Rule], at: &Circumstances) -> Result<Evaluation, StoreError> {
    evaluate_with(index, rules, at, usize::MAX)
}

/// The same for a plan, which may take all there is: more files than `together` are set apart, unless a rule's limit asks for an order
/// among all of them.
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_with(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    together: usize,
) -> Result<Evaluation, StoreError> {
    let tables = Tables::new(index, at);
    let mut out = Evaluation {
        index_files: index.totals().files,
        ..Evaluation::default()
    };
    let mut taken = vec![false; index.dirs().table_len()];
    let found = units::evaluate(index, &DirectoryRule::among(rules), at, &tables, &mut taken)?;
    out.examined = found.examined;
    out.kept.held = found.held;
    out.kept.excluded = found.excluded;
    out.kept.uncovered = found.uncovered;
    out.picks = found.picks;
    out.kept.limit = found.left_out;
    out.by_owner = found.by_owner;
    let together = match rules.iter().any(is_limited) {
        true => usize::MAX,
        false => together,
    };
    let pass = FilePass::new(index, rules, at, &tables, &taken).keeping(together);
    if pass.is_needed() {
        for part in pass.run()? {
            out.merge(part);
        }
    }
    out.know_taken(taken);
    let dropped = apply_limits(&mut out.picks, rules, at.now);
    for pick in &dropped {
        out.targets.remove(&pick.ino);
        let is_counted = pick.shape == Shape::File && at.mounted.contains(&pick.ino);
        out.mounted = out.mounted.saturating_sub(is_counted.into());
    }
    let beyond: u64 = dropped.iter().map(|p| u64::from(p.files)).sum();
    out.kept.limit = out.kept.limit.saturating_add(beyond);
    for pick in &dropped {
        if let Some((attributes, _)) = index.get(pick.ino) {
            remove_owner(&mut out.by_owner, attributes.uid, pick);
        }
    }
    let gone = out.files();
    let last = Tail::new(index, rules, at, &tables, &out).run()?;
    out.picks.extend(last);
    let others = out.picks.iter().filter(|pick| pick.shape != Shape::File);
    let others = others.filter(|pick| at.mounted.contains(&pick.ino)).count();
    out.mounted = out.mounted.saturating_add(others as u64);
    let kept = &mut out.kept;
    let named = gone + kept.held + kept.excluded + kept.uncovered + kept.limit;
    kept.young = out.index_files.saturating_sub(named);
    Ok(out)
}

/// Finds again what depends on the rest: symbolic links, and directories that are empty then. To be called when more is known of them.
///
/// # Errors
/// As for [`evaluate`].
pub fn reconsider(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    found: &mut Evaluation,
) -> Result<(), StoreError> {
    found.picks.retain(|pick| !pick.shape.is_last());
    let tables = Tables::new(index, at);
    let last = Tail::new(index, rules, at, &tables, found).run()?;
    found.picks.extend(last);
    Ok(())
}

pub(super) fn numbered(rules: &[Rule]) -> impl Iterator<Item = (u16, &Rule)> {
    rules
        .iter()
        .enumerate()
        .map(|(i, r)| (u16::try_from(i).unwrap_or(u16::MAX), r))
}

pub(super) fn add_owner(owners: &mut ByOwner, uid: u32, part: Portion) {
    let share = owners.entry(uid).or_default();
    *share = share.plus(part);
}

fn remove_owner(owners: &mut ByOwner, uid: u32, pick: &Pick) {
    if let Some(share) = owners.get_mut(&uid) {
        *share = share.minus(pick.portion());
        if share.files == 0 {
            owners.remove(&uid);
        }
    }
}

impl Pick {
    /// What goes with it.
    pub fn portion(&self) -> Portion {
        Portion {
            files: self.files.into(),
            bytes: self.bytes,
            takes: self.takes,
        }
    }
}

impl Evaluation {
    /// What goes.
    pub fn portion(&self) -> Portion {
        let all = self.by_owner.values().copied();
        Portion {
            files: self.files(),
            ..all.fold(Portion::default(), Portion::plus)
        }
    }

    /// How many candidates there are.
    pub fn candidates(&self) -> u64 {
        (self.picks.len() as u64).saturating_add(self.files_apart())
    }

    /// How many regular files go.
    pub fn files(&self) -> u64 {
        let picked: u64 = self.picks.iter().map(|p| u64::from(p.files)).sum();
        picked.saturating_add(self.files_apart())
    }

    fn files_apart(&self) -> u64 {
        self.apart.as_ref().map_or(0, Apart::files)
    }

    fn merge(&mut self, part: Self) {
        self.take_all(part.picks, part.apart);
        self.examined += part.examined;
        self.kept.held += part.kept.held;
        self.kept.excluded += part.kept.excluded;
        self.kept.uncovered += part.kept.uncovered;
        self.ahead += part.ahead;
        self.mounted += part.mounted;
        self.targets.extend(part.targets);
        self.kept.limit += part.kept.limit;
        for (uid, portion) in part.by_owner {
            add_owner(&mut self.by_owner, uid, portion);
        }
    }
}

impl Tables {
    pub fn new(index: &Index, at: &Circumstances) -> Self {
        let dirs = index.dirs();
        let root_held = dirs.get(DirId::ROOT).is_some_and(|d| at.held.contains(&d.ino));
        let held = dirs.inherit(root_held, |_, d, above| above || at.held.contains(&d.ino));
        let protected = dirs.inherit(false, |_, d, above| {
            above || (d.parent == DirId::ROOT && *d.name == *LOST_AND_FOUND)
        });
        let connected = dirs.inherit(true, |_, _, above| above);
        Self {
            held,
            protected,
            connected,
            deep: dirs.too_deep(),
        }
    }

    pub fn is(table: &[bool], dir: DirId) -> bool {
        table.get(dir.index()).copied().unwrap_or(false)
    }
}

/// Whether the file system itself keeps this file: never a candidate, whatever the rules say.
pub(super) fn is_quota_file(parent: DirId, name: &[u8]) -> bool {
    parent == DirId::ROOT && QUOTA_FILES.contains(&name)
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
