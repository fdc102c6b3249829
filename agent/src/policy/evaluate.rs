//! All rules of a volume against its index.
//!
//! File rules are one linear pass over the clock column: a page whose files were all used lately is passed over
//! without a look at its attributes. Whole directories come first ([`super::units`]), empty ones last.

use rustc_hash::{FxHashMap, FxHashSet};

use super::last_use::{covered, is_expired, last_use};
use super::units;
use crate::config::{Rule, Target};
use crate::index::{Attributes, DirId, Index, PageView, StoreError};
use crate::model::{Inode, Kind, LastUse, Seconds};

/// What besides index and rules decides.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The present moment.
    pub now: Seconds,
    /// End of the last unobserved stretch that was too long to overlook: counts as a use of every file.
    pub gap_end: Option<Seconds>,
    /// Inodes on which a hold lies; a held directory holds everything below.
    pub held: FxHashSet<Inode>,
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
    /// Apparent bytes that go with it.
    pub bytes: u64,
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
    /// Beyond `max_files` or `max_bytes`.
    pub limit: u64,
}

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// What goes, in the order in which it may: directories that are empty only then come last, children first.
    pub picks: Vec<Pick>,
    /// What stays.
    pub kept: Kept,
    /// Files of the volume.
    pub index_files: u64,
    /// Files whose attributes were looked at.
    pub examined: u64,
    /// By uid: files and bytes that go.
    pub by_owner: FxHashMap<u32, (u64, u64)>,
}

/// Tables over directories that every part of the evaluation needs.
pub(super) struct Tables {
    /// Below a hold.
    pub held: Vec<bool>,
    /// Below something that is never a candidate: `lost+found`.
    pub protected: Vec<bool>,
    /// Connected to the root: the others' paths are not known.
    pub connected: Vec<bool>,
}

/// Names at the root of a file system that belong to it, not to users.
const LOST_AND_FOUND: &[u8] = b"lost+found";
const QUOTA_FILES: [&[u8]; 4] = [b"aquota.user", b"aquota.group", b"quota.user", b"quota.group"];

/// Evaluates `rules` in their order; the first that takes an entry is its reason.
///
/// # Errors
/// When the index is damaged or its names cannot be read: there is no plan for what cannot be seen whole.
pub fn evaluate(index: &Index, rules: &[Rule], at: &Circumstances) -> Result<Evaluation, StoreError> {
    let tables = Tables::new(index, at);
    let mut out = Evaluation {
        index_files: index.totals().files,
        ..Evaluation::default()
    };
    let mut taken = vec![false; index.dirs().table_len()];
    for (number, rule) in numbered(rules) {
        if let Target::Directory { depth } = rule.target {
            let found = units::evaluate(index, rule, number, depth, at, &tables, &mut taken)?;
            out.examined = out.examined.max(found.examined);
            out.kept.held += found.held;
            out.kept.excluded += found.excluded;
            out.kept.uncovered += found.uncovered;
            out.picks.extend(found.picks);
            for (uid, (files, bytes)) in found.by_owner {
                add_owner(&mut out.by_owner, uid, files, bytes);
            }
        }
    }
    let pass = FilePass::new(index, rules, at, &tables, &taken);
    if pass.is_needed() {
        for part in pass.run()? {
            out.merge(part);
        }
    }
    let dropped = apply_limits(&mut out.picks, rules);
    out.kept.limit = dropped.iter().map(|p| u64::from(p.files)).sum();
    for pick in &dropped {
        if let Some((attributes, _)) = index.get(pick.ino) {
            remove_owner(&mut out.by_owner, attributes.uid, pick);
        }
    }
    let empty = empty_directories(index, rules, at, &tables, &out.picks);
    let gone: u64 = out.picks.iter().map(|p| u64::from(p.files)).sum();
    out.picks.extend(empty);
    let kept = &mut out.kept;
    let named = gone + kept.held + kept.excluded + kept.uncovered + kept.limit;
    kept.young = out.index_files.saturating_sub(named);
    Ok(out)
}

pub(super) fn numbered(rules: &[Rule]) -> impl Iterator<Item = (u16, &Rule)> {
    rules
        .iter()
        .enumerate()
        .map(|(i, r)| (u16::try_from(i).unwrap_or(u16::MAX), r))
}

fn add_owner(owners: &mut FxHashMap<u32, (u64, u64)>, uid: u32, files: u64, bytes: u64) {
    let share = owners.entry(uid).or_default();
    *share = (share.0.saturating_add(files), share.1.saturating_add(bytes));
}

fn remove_owner(owners: &mut FxHashMap<u32, (u64, u64)>, uid: u32, pick: &Pick) {
    if let Some(share) = owners.get_mut(&uid) {
        *share = (
            share.0.saturating_sub(pick.files.into()),
            share.1.saturating_sub(pick.bytes),
        );
        if share.0 == 0 {
            owners.remove(&uid);
        }
    }
}

impl Evaluation {
    fn merge(&mut self, part: Self) {
        self.picks.extend(part.picks);
        self.examined += part.examined;
        self.kept.held += part.kept.held;
        self.kept.excluded += part.kept.excluded;
        self.kept.uncovered += part.kept.uncovered;
        for (uid, (files, bytes)) in part.by_owner {
            add_owner(&mut self.by_owner, uid, files, bytes);
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

// ---------------------------------------------------------------- files

struct FilePass<'a> {
    index: &'a Index,
    rules: Vec<(u16, &'a Rule, u64)>,
    at: &'a Circumstances,
    tables: &'a Tables,
    /// Directories that go as a whole, and all below.
    taken: &'a [bool],
    /// A file accessed at or after this is young for every rule; none when a rule does not ask for accesses.
    young_from: Option<Seconds>,
    needs_names: bool,
}

/// Threads of an evaluation.
const THREADS_MAX: usize = 8;
/// Below this many entries more threads cost more than they bring.
const ENTRIES_PER_THREAD_MIN: u64 = 200_000;

impl<'a> FilePass<'a> {
    fn new(
        index: &'a Index,
        rules: &'a [Rule],
        at: &'a Circumstances,
        tables: &'a Tables,
        taken: &'a [bool],
    ) -> Self {
        let rules: Vec<_> = numbered(rules)
            .filter(|(_, r)| r.target == Target::File)
            .filter_map(|(n, r)| Some((n, r, r.ttl?)))
            .collect();
        let all_ask_for_access = rules.iter().all(|(_, r, _)| r.clocks.access);
        let shortest = rules.iter().map(|(_, _, ttl)| *ttl).min().unwrap_or(u64::MAX);
        let young_from = all_ask_for_access.then(|| at.now.minus(shortest));
        let needs_names = rules.iter().any(|(_, r, _)| r.scope.needs_path());
        Self {
            index,
            rules,
            at,
            tables,
            taken,
            young_from,
            needs_names,
        }
    }

    fn is_needed(&self) -> bool {
        !self.rules.is_empty()
    }

    fn run(&self) -> Result<Vec<Evaluation>, StoreError> {
        let most = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
        let wanted = usize::try_from(self.index.totals().files / ENTRIES_PER_THREAD_MIN).unwrap_or(most);
        let runs = self.index.page_runs(wanted.clamp(1, most));
        std::thread::scope(|scope| {
            let threads: Vec<_> = runs
                .into_iter()
                .map(|run| scope.spawn(move || self.pages(run)))
                .collect();
            // A panic in a thread goes on in this one: it is contained where the plan was asked for.
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
                .collect()
        })
    }

    fn pages<'p>(&self, pages: impl Iterator<Item = PageView<'p>>) -> Result<Evaluation, StoreError> {
        let mut out = Evaluation::default();
        for page in pages {
            let looked_at = match self.young_from {
                Some(limit) => page.clocks().iter().any(|clock| *clock < limit.0),
                None => true,
            };
            if looked_at {
                self.page(&page, &mut out)?;
            }
        }
        Ok(out)
    }

    fn page(&self, page: &PageView<'_>, out: &mut Evaluation) -> Result<(), StoreError> {
        let mut attributes = page.attributes();
        let mut paths = Paths::default();
        for (rank, ino) in page.inodes().enumerate() {
            let entry = attributes.next_entry()?;
            if entry.kind != Kind::File || Tables::is(self.taken, entry.parent) {
                continue;
            }
            let access = page.access(rank);
            if self.young_from.is_some_and(|limit| access.at >= limit) {
                continue;
            }
            out.examined += 1;
            self.file(page, ino, &entry, access, &mut paths, out)?;
        }
        Ok(())
    }

    fn file(
        &self,
        page: &PageView<'_>,
        ino: Inode,
        entry: &Attributes,
        access: LastUse,
        paths: &mut Paths,
        out: &mut Evaluation,
    ) -> Result<(), StoreError> {
        let (mut uncovered, mut excluded) = (false, false);
        for (number, rule, ttl) in &self.rules {
            let last = last_use(entry, covered(access, self.at.gap_end), rule.clocks);
            if !is_expired(last.at, self.at.now, *ttl) {
                uncovered |= is_expired(last_use(entry, access, rule.clocks).at, self.at.now, *ttl);
                continue;
            }
            if !Tables::is(&self.tables.connected, entry.parent) {
                uncovered = true;
                continue;
            }
            if !self.is_in_scope(page, ino, entry, rule, paths)? {
                excluded = true;
                continue;
            }
            if Tables::is(&self.tables.held, entry.parent) || self.at.held.contains(&ino) {
                out.kept.held += 1;
                return Ok(());
            }
            out.picks.push(Pick {
                ino,
                parent: entry.parent,
                shape: Shape::File,
                last,
                bytes: entry.size,
                files: 1,
                rule: *number,
            });
            add_owner(&mut out.by_owner, entry.uid, 1, entry.size);
            return Ok(());
        }
        out.kept.excluded += u64::from(excluded);
        out.kept.uncovered += u64::from(uncovered && !excluded);
        Ok(())
    }

    fn is_in_scope(
        &self,
        page: &PageView<'_>,
        ino: Inode,
        entry: &Attributes,
        rule: &Rule,
        paths: &mut Paths,
    ) -> Result<bool, StoreError> {
        if Tables::is(&self.tables.protected, entry.parent)
            || !rule.scope.admits_attributes(entry.uid, entry.gid, entry.size)
        {
            return Ok(false);
        }
        // Names are read from the store only where they decide: for globs, and for the few files of the root.
        if !rule.scope.needs_path() && entry.parent != DirId::ROOT {
            return Ok(true);
        }
        paths.load(self.index, page.number())?;
        let names = paths.of(ino);
        if names.is_empty() && self.needs_names {
            return Ok(false);
        }
        for (parent, name) in names {
            if is_quota_file(*parent, name) {
                return Ok(false);
            }
            let Some(mut path) = self.index.dirs().path(*parent) else {
                return Ok(false);
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if !rule.scope.admits_path(&path, false) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// By offset: the directories and names of one page's files.
type PageNames = FxHashMap<u8, Vec<(DirId, Vec<u8>)>>;

/// The names of one page's files, loaded when first asked for.
#[derive(Default)]
struct Paths {
    names: Option<PageNames>,
}

impl Paths {
    fn load(&mut self, index: &Index, page: u64) -> Result<(), StoreError> {
        if self.names.is_none() {
            let mut names = PageNames::default();
            index.names_of_page(page, |offset, parent, name| {
                names.entry(offset).or_default().push((parent, name.to_vec()));
            })?;
            self.names = Some(names);
        }
        Ok(())
    }

    fn of(&self, ino: Inode) -> &[(DirId, Vec<u8>)] {
        let offset = (ino % crate::index::codec::PAGE_INODES) as u8;
        self.names
            .as_ref()
            .and_then(|n| n.get(&offset))
            .map_or(&[], Vec::as_slice)
    }
}

// ---------------------------------------------------------------- limits

/// Keeps of each rule's picks the oldest that fit its limits; returns the others.
fn apply_limits(picks: &mut Vec<Pick>, rules: &[Rule]) -> Vec<Pick> {
    let mut dropped = Vec::new();
    for (number, rule) in numbered(rules).filter(|(_, r)| r.max_files > 0 || r.max_bytes > 0) {
        let (mut mine, others): (Vec<Pick>, Vec<Pick>) = picks.drain(..).partition(|p| p.rule == number);
        mine.sort_unstable_by_key(|p| (p.last.at, p.ino));
        let (mut files, mut bytes) = (0u64, 0u64);
        let fits = mine
            .iter()
            .take_while(|p| {
                files = files.saturating_add(p.files.max(1).into());
                bytes = bytes.saturating_add(p.bytes);
                (rule.max_files == 0 || files <= rule.max_files)
                    && (rule.max_bytes == 0 || bytes <= rule.max_bytes)
            })
            .count();
        dropped.extend(mine.split_off(fits));
        *picks = others;
        picks.extend(mine);
    }
    dropped
}

// ---------------------------------------------------------------- empty directories

/// Directories that are empty, or will be once `picks` are gone: children before their parents.
fn empty_directories(
    index: &Index,
    rules: &[Rule],
    at: &Circumstances,
    tables: &Tables,
    picks: &[Pick],
) -> Vec<Pick> {
    let mut removers: Vec<_> = numbered(rules)
        .filter(|(_, r)| r.target == Target::File && r.remove_empty_dirs)
        .filter_map(|(n, r)| {
            Some((
                n,
                r,
                r.ttl?,
                if r.max_empty_dirs == 0 {
                    u64::MAX
                } else {
                    r.max_empty_dirs
                },
            ))
        })
        .collect();
    let mut found = Vec::new();
    if removers.is_empty() {
        return found;
    }
    let dirs = index.dirs();
    let mut left: Vec<u32> = dirs.children_table();
    let mut tree = vec![false; left.len()];
    for pick in picks {
        if pick.shape == Shape::Tree
            && let Some(place) = dirs.of_inode(pick.ino).and_then(|id| tree.get_mut(id.index()))
        {
            *place = true;
        }
        if let Some(count) = left.get_mut(pick.parent.index()) {
            *count = count.saturating_sub(1);
        }
    }
    let mut ready: std::collections::VecDeque<DirId> = dirs
        .iter()
        .map(|(id, _)| id)
        .filter(|id| left.get(id.index()) == Some(&0))
        .collect();
    while let Some(id) = ready.pop_front() {
        let Some(dir) = dirs.get(id) else { continue };
        let stays = id == DirId::ROOT
            || dir.unreadable
            || dir.has_mounts
            || Tables::is(&tree, id)
            || Tables::is(&tables.held, id)
            || Tables::is(&tables.protected, id)
            || !Tables::is(&tables.connected, id);
        if stays {
            continue;
        }
        let Some((attributes, access)) = index.get(dir.ino) else {
            continue;
        };
        let taker = removers.iter_mut().find_map(|(number, rule, ttl, room)| {
            let last = last_use(&attributes, covered(access, at.gap_end), rule.clocks);
            let takes = *room > 0
                && is_expired(last.at, at.now, *ttl)
                && rule.scope.admits_owner(attributes.uid, attributes.gid)
                && dirs
                    .path(id)
                    .is_some_and(|path| rule.scope.admits_path(&path, true));
            takes.then(|| {
                *room -= 1;
                (*number, last)
            })
        });
        let Some((rule, last)) = taker else { continue };
        let (ino, parent) = (dir.ino, dir.parent);
        found.push(Pick {
            ino,
            parent,
            shape: Shape::EmptyDirectory,
            last,
            bytes: 0,
            files: 0,
            rule,
        });
        if let Some(count) = left.get_mut(dir.parent.index()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                ready.push_back(dir.parent);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::index::{Found, Store, VolumeId};
    use crate::model::{Clocks, Source, Stat};
    use crate::policy::scope::{Globs, Scope};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: u32 = 1_000_000;

    /// A file of the model: everything as it was put in.
    #[derive(Debug, Clone)]
    struct File {
        ino: Inode,
        dir: usize,
        name: String,
        size: u64,
        uid: u32,
        access: u32,
        mtime: u32,
        ctime: u32,
        birth: u32,
    }

    fn file() -> impl Strategy<Value = File> {
        let time = || NOW - 200..NOW;
        let name = prop_oneof![Just("a.tmp"), Just("b.dat"), Just(".keep"), Just("c")];
        (0usize..6, name, 0u64..50, 0u32..3, time(), time(), time(), time()).prop_map(
            |(dir, name, size, uid, access, mtime, ctime, birth)| File {
                ino: 0,
                dir,
                name: name.into(),
                size,
                uid,
                access,
                mtime,
                ctime,
                birth,
            },
        )
    }

    /// Directories 0 (the root) to 5: 1 and 2 at depth 1, 3 and 4 below 1, 5 below 4.
    const PARENT: [usize; 6] = [0, 0, 0, 1, 1, 4];

    fn path_of(dir: usize) -> String {
        match dir {
            0 => String::new(),
            d if PARENT[d] == 0 => format!("d{d}"),
            d => format!("{}/d{d}", path_of(PARENT[d])),
        }
    }

    fn unit_of(dir: usize) -> Option<usize> {
        match dir {
            0 => None,
            d if PARENT[d] == 0 => Some(d),
            d => unit_of(PARENT[d]),
        }
    }

    fn stat(ino: Inode, kind: Kind, f: Option<&File>) -> Stat {
        let time = |t: Option<u32>| Seconds(t.unwrap_or(NOW - 1000));
        Stat {
            ino,
            kind,
            size: f.map_or(0, |f| f.size),
            uid: f.map_or(0, |f| f.uid),
            gid: 0,
            links: 1,
            atime: Seconds(0),
            mtime: time(f.map(|f| f.mtime)),
            ctime: time(f.map(|f| f.ctime)),
            ctime_nanos: 0,
            birth: time(f.map(|f| f.birth)),
        }
    }

    fn build(files: &mut [File]) -> Index {
        let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
        index.set_root(&stat(100, Kind::Directory, None));
        let old = LastUse {
            at: Seconds(NOW - 1000),
            source: Source::Baseline,
        };
        for (d, parent) in PARENT.iter().enumerate().skip(1) {
            let parent = index.dirs().of_inode(100 + *parent as u64).unwrap();
            let name = format!("d{d}");
            let stat = stat(100 + d as u64, Kind::Directory, None);
            index
                .upsert(Found {
                    stat,
                    parent,
                    name: name.as_bytes(),
                    first_use: old,
                })
                .unwrap();
        }
        for (i, f) in files.iter_mut().enumerate() {
            // Sparse on purpose: several pages.
            f.ino = 1000 + 37 * i as u64;
            let parent = index.dirs().of_inode(100 + f.dir as u64).unwrap();
            let name = format!("{i}-{}", f.name);
            let first_use = LastUse {
                at: Seconds(f.access),
                source: Source::Observed,
            };
            index
                .upsert(Found {
                    stat: stat(f.ino, Kind::File, Some(f)),
                    parent,
                    name: name.as_bytes(),
                    first_use,
                })
                .unwrap();
            f.name = name;
        }
        index
    }

    fn model_last(f: &File, clocks: Clocks, gap_end: Option<u32>) -> u32 {
        let mut all = vec![0];
        if clocks.access {
            all.push(f.access.max(gap_end.unwrap_or(0)));
        }
        all.extend(clocks.modify.then_some(f.mtime));
        all.extend(clocks.change.then_some(f.ctime));
        all.extend(clocks.birth.then_some(f.birth));
        all.into_iter().max().unwrap()
    }

    fn rule(
        ttl: u64,
        clocks: Clocks,
        exclude: bool,
        users: Option<Vec<u32>>,
        min_size: u64,
        max_files: u64,
    ) -> Rule {
        let mut rule = Rule::everything_older("v", ttl);
        let globs = Globs::compile(&["*.tmp".into(), "/d1/d3".into()]).unwrap();
        rule.scope = Scope {
            exclude: exclude.then_some(globs),
            users,
            min_size,
            ..Scope::all()
        };
        (rule.clocks, rule.max_files) = (clocks, max_files);
        rule
    }

    fn clocks() -> impl Strategy<Value = Clocks> {
        (1u8..16).prop_map(|bits| Clocks {
            access: bits & 1 != 0,
            modify: bits & 2 != 0,
            change: bits & 4 != 0,
            birth: bits & 8 != 0,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// File rules take exactly what a model that looks at every file takes, and every file is counted once.
        #[test]
        fn file_rules_equal_a_naive_model(
            mut files in prop::collection::vec(file(), 0..40),
            ttl in 1u64..250,
            clocks in clocks(),
            exclude: bool,
            users in prop::option::of(prop::collection::vec(0u32..3, 1..3)),
            min_size in 0u64..50,
            max_files in 0u64..5,
            gap_end in prop::option::of(NOW - 200..NOW),
            held in prop::collection::btree_set(prop::sample::select(vec![101u64, 103, 105, 1000, 1037, 1074]), 0..2),
        ) {
            let index = build(&mut files);
            let rule = rule(ttl, clocks, exclude, users.clone(), min_size, max_files);
            let at = Circumstances {
                now: Seconds(NOW),
                gap_end: gap_end.map(Seconds),
                held: held.iter().copied().collect(),
            };
            let found = evaluate(&index, std::slice::from_ref(&rule), &at).unwrap();

            let mut expected: Vec<(u32, Inode)> = files.iter().filter(|f| {
                let mut dir = f.dir;
                let mut is_held = held.contains(&f.ino);
                while dir != 0 {
                    is_held |= held.contains(&(100 + dir as u64));
                    dir = PARENT[dir];
                }
                let excluded = exclude && (f.name.ends_with(".tmp") || path_of(f.dir).starts_with("d1/d3"));
                u64::from(NOW - model_last(f, clocks, gap_end)) > ttl
                    && !is_held && !excluded
                    && users.as_ref().is_none_or(|u| u.contains(&f.uid))
                    && f.size >= min_size
            }).map(|f| (model_last(f, clocks, gap_end), f.ino)).collect();
            expected.sort_unstable();
            let all = expected.len() as u64;
            if max_files > 0 {
                expected.truncate(max_files as usize);
            }
            let expected: BTreeSet<Inode> = expected.into_iter().map(|(_, ino)| ino).collect();
            let got: BTreeSet<Inode> =
                found.picks.iter().filter(|p| p.shape == Shape::File).map(|p| p.ino).collect();
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!(found.kept.limit, all - expected.len() as u64);
            let k = found.kept;
            let counted = got.len() as u64 + k.held + k.excluded + k.young + k.uncovered + k.limit;
            prop_assert_eq!(counted, files.len() as u64);
            let owned: u64 = found.by_owner.values().map(|(files, _)| files).sum();
            prop_assert_eq!(owned, got.len() as u64);
        }

        /// A directory goes exactly when everything in it, at any depth, has expired.
        #[test]
        fn directory_rules_equal_a_naive_model(
            mut files in prop::collection::vec(file(), 0..12),
            ttl in 1u64..250,
            clocks in clocks(),
            gap_end in prop::option::of(NOW - 400..NOW - 100),
        ) {
            let index = build(&mut files);
            let mut rule = rule(ttl, clocks, false, None, 0, 0);
            rule.target = Target::Directory { depth: 1 };
            let at = Circumstances { now: Seconds(NOW), gap_end: gap_end.map(Seconds), held: FxHashSet::default() };
            let found = evaluate(&index, &[rule], &at).unwrap();
            // The directories' own times are 1,000 s old; a gap counts as a use of them too.
            let own = if clocks.access { gap_end.unwrap_or(0) } else { 0 };
            let expected: BTreeSet<Inode> = [1usize, 2].into_iter().filter(|d| {
                let newest = files.iter().filter(|f| unit_of(f.dir) == Some(*d)).map(|f| model_last(f, clocks, gap_end));
                u64::from(NOW - newest.max().unwrap_or(0).max(own).max(NOW - 1000)) > ttl
            }).map(|d| 100 + d as u64).collect();
            let got: BTreeSet<Inode> = found.picks.iter().map(|p| p.ino).collect();
            prop_assert_eq!(got, expected);
        }

        /// Every directory that is picked as empty comes after everything in it, and the root never is.
        #[test]
        fn empty_directories_come_after_what_is_in_them(mut files in prop::collection::vec(file(), 0..30), ttl in 1u64..250) {
            let index = build(&mut files);
            let at = Circumstances { now: Seconds(NOW), ..Circumstances::default() };
            let found = evaluate(&index, &[rule(ttl, Clocks::ALL, false, None, 0, 0)], &at).unwrap();
            let mut gone: BTreeSet<Inode> = BTreeSet::new();
            for pick in &found.picks {
                if pick.shape == Shape::EmptyDirectory {
                    let dir = (pick.ino - 100) as usize;
                    prop_assert_ne!(dir, 0);
                    prop_assert!(files.iter().filter(|f| f.dir == dir).all(|f| gone.contains(&f.ino)));
                    for (child, _) in PARENT.iter().enumerate().skip(1).filter(|(_, p)| **p == dir) {
                        prop_assert!(gone.contains(&(100 + child as u64)));
                    }
                }
                gone.insert(pick.ino);
            }
        }
    }
}
