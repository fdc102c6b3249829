//! File rules: one linear pass over the clock column, on a few threads.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::chosen::{Choices, Lasts};
use super::circumstances::{Circumstances, Leads};
use super::evaluation::{Evaluation, add_owner};
use super::kept::Stays;
use super::last_use::{expires_at, is_ahead, is_expired};
use super::pick::{Pick, Shape};
use super::reach::Reach;
use super::rule::numbered;
use super::tables::{Tables, is_quota_file};
use super::verdicts::Verdicts;
use crate::rule::{Rule, Target};
use purge_index::{Attributes, DirId, Index, NAMES_MAX, PageView, StoreError};
use purge_model::{Inode, Kind, LastUse, Seconds};

/// The file rules of a volume, ready to run.
pub(super) struct FilePass<'a> {
    index: &'a Index,
    rules: Vec<(u16, &'a Rule, u64)>,
    /// What the globs of each rule say of directories, by the rule's number; none for a rule without globs.
    verdicts: FxHashMap<u16, Verdicts>,
    at: &'a Circumstances,
    tables: &'a Tables,
    /// Directories that go as a whole, and all below.
    taken: &'a [bool],
    /// A file accessed at or after this is young for every rule; none when a rule does not ask for accesses.
    young_from: Option<Seconds>,
    needs_names: bool,
    /// Only files of these directories are looked for.
    within: Range<usize>,
    /// More files than this are set apart by each thread.
    together: usize,
    /// What symbolic links lead to.
    targets: FxHashSet<Inode>,
    /// Which of the rules can speak of a directory's files.
    reach: Reach,
    /// What stays is counted by its reason.
    counting: Option<Counting<'a>>,
    /// Files that every rule finds young are looked at as well, in each page whose number is a multiple of this.
    looks_at_all: Option<u64>,
}

/// A directory that goes as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Going {
    /// When.
    pub due: Seconds,
    /// Whose it is.
    pub uid: u32,
    /// The rule that takes it, by its number.
    pub rule: u16,
}

/// A file that goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due<'e> {
    pub ino: Inode,
    pub entry: &'e Attributes,
    /// When.
    pub due: Seconds,
    /// It lies in a directory that goes as a whole, whose owner this is.
    pub with: Option<u32>,
    /// The rules that take it, by their numbers: by itself, or with its directory.
    pub rules: &'e [u16],
}

/// What directory rules say, for counting by reason what stays.
#[derive(Clone, Copy)]
pub(super) struct Counting<'a> {
    /// By directory: why directory rules leave its files; none: there are no such rules.
    pub stays: Option<&'a [Stays]>,
    /// Files that were accessed at or after this are young for all directory rules; none when one of them does not ask for accesses.
    pub young_from: Option<Seconds>,
    /// By directory that goes as a whole: the rule.
    pub taken_by: &'a [u16],
}

/// Threads of an evaluation.
const THREADS_MAX: usize = 8;
/// Below this many entries more threads cost more than they bring.
const ENTRIES_PER_THREAD_MIN: u64 = 200_000;

impl<'a> FilePass<'a> {
    pub fn new(
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
        let with_globs = rules.iter().filter(|(_, r, _)| r.scope.needs_path());
        let verdicts: FxHashMap<_, _> = with_globs
            .map(|(n, _, _)| (*n, Verdicts::new(index.dirs())))
            .collect();
        let leads = at.survey.leads.values();
        let targets = leads.filter_map(|lead| match lead.target {
            Leads::To(target) => Some(target),
            Leads::Nowhere | Leads::Unknown => None,
        });
        Self {
            targets: targets.collect(),
            reach: Reach::new(index.dirs(), rules.iter().map(|(_, r, _)| &r.scope)),
            index,
            needs_names: !verdicts.is_empty(),
            rules,
            verdicts,
            at,
            tables,
            taken,
            young_from,
            within: 0..usize::MAX,
            counting: None,
            looks_at_all: None,
            together: usize::MAX,
        }
    }

    /// The same for the files of some directories.
    pub fn within(self, directories: Range<usize>) -> Self {
        Self {
            within: directories,
            ..self
        }
    }

    /// The same, with more files than `together` set apart.
    pub fn keeping(self, together: usize) -> Self {
        Self {
            together: together / self.threads(),
            ..self
        }
    }

    /// The same, counting what stays by its reason. What no rule can take, because it was used within the shortest TTL, is young, also if
    /// it is in no scope: it is not looked at.
    pub fn counting(self, counting: Counting<'a>) -> Self {
        let young_from = match counting.stays {
            Some(_) => self.young_from.zip(counting.young_from).map(|(a, b)| a.max(b)),
            None => self.young_from,
        };
        Self {
            counting: Some(counting),
            young_from,
            ..self
        }
    }

    /// The same, looking also at what is young, in one page of `stride`.
    pub fn looking_at_all(self, stride: u64) -> Self {
        Self {
            looks_at_all: Some(stride.max(1)),
            ..self
        }
    }

    pub fn is_needed(&self) -> bool {
        !self.rules.is_empty()
    }

    pub fn run(&self) -> Result<Vec<Evaluation>, StoreError> {
        self.on_threads(|pages| self.pages(pages))
    }

    /// Calls `each` with every file that goes, by a rule or with a directory in which it lies, and from when on. `with`: these directories and
    /// what lies in them; without any, only files that go by themselves are told.
    pub fn fold<T: Default + Send>(
        &self,
        with: &[Option<Going>],
        each: impl Fn(&mut T, &Due<'_>) + Sync,
    ) -> Result<Vec<T>, StoreError> {
        self.on_threads(|pages| {
            let mut out = T::default();
            let mut choices = Choices::of(&self.rules, &self.reach);
            for page in pages.filter(|page| !with.is_empty() || self.is_looked_at(page)) {
                let mut attributes = page.attributes();
                let mut paths = Paths::default();
                let mut rules = Vec::new();
                for (rank, ino) in page.inodes().enumerate() {
                    let entry = attributes.next_entry()?;
                    let going = with.get(entry.parent.index()).copied().flatten();
                    if entry.kind != Kind::File || going.is_none() && Tables::is(self.taken, entry.parent) {
                        continue;
                    }
                    rules.clear();
                    let found_out = (&mut choices, &mut paths, &mut rules);
                    let own = self.due(&page, (ino, &entry), page.access(rank), found_out)?;
                    // A rule may take it before its directory goes.
                    let due = own.into_iter().chain(going.map(|going| going.due)).min();
                    if let Some(due) = due {
                        rules.extend(going.map(|going| going.rule));
                        let with = going.map(|going| going.uid);
                        each(
                            &mut out,
                            &Due {
                                ino,
                                entry: &entry,
                                due,
                                with,
                                rules: &rules,
                            },
                        );
                    }
                }
            }
            Ok(out)
        })
    }

    /// From when on the first rule takes a file that is old enough for one at `at.now`; none if none does. `takes` then has the rules.
    fn due(
        &self,
        page: &PageView<'_>,
        (ino, entry): (Inode, &Attributes),
        access: LastUse,
        (choices, paths, takes): (&mut Choices<'_>, &mut Paths, &mut Vec<u16>),
    ) -> Result<Option<Seconds>, StoreError> {
        let mut first = None;
        let mut lasts = Lasts::of((entry, access), self.at);
        let chosen = choices.of_file(entry);
        for (number, rule, ttl) in chosen
            .rules
            .iter()
            .filter_map(|n| self.rules.get(usize::from(*n)))
        {
            let last = lasts.by(rule.clocks);
            if is_expired(last.at, self.at.now, *ttl)
                && Tables::is(&self.tables.connected, entry.parent)
                && self.is_in_scope(page, ino, entry, (*number, rule), paths)?
            {
                let announced = self.at.announced.allows_from(rule, ino, entry.birth, last.at);
                let due = expires_at(last.at, *ttl).max(announced);
                first = Some(first.map_or(due, |first: Seconds| first.min(due)));
                if due <= self.at.now {
                    takes.push(*number);
                }
            }
        }
        let held = Tables::is(&self.tables.held, entry.parent) || self.at.held.contains(&ino);
        if held {
            takes.clear();
        }
        Ok(first.filter(|due| !held && *due <= self.at.now))
    }

    fn threads(&self) -> usize {
        let most = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
        let wanted = usize::try_from(self.index.totals().files / ENTRIES_PER_THREAD_MIN).unwrap_or(most);
        wanted.clamp(1, most)
    }

    fn on_threads<'i, T: Send>(
        &'i self,
        work: impl Fn(&mut dyn Iterator<Item = PageView<'i>>) -> Result<T, StoreError> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let work = &work;
        let runs = self.index.page_runs(self.threads());
        std::thread::scope(|scope| {
            let threads: Vec<_> = runs
                .into_iter()
                .map(|mut run| scope.spawn(move || work(&mut run)))
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
        let mut choices = Choices::of(&self.rules, &self.reach);
        for page in pages.filter(|page| self.is_looked_at(page)) {
            self.page(&page, &mut choices, &mut out)?;
        }
        Ok(out)
    }

    fn is_looked_at(&self, page: &PageView<'_>) -> bool {
        match self.looks_at_all {
            Some(stride) => page.number().is_multiple_of(stride),
            None => self
                .young_from
                .is_none_or(|limit| page.clocks().iter().any(|clock| *clock < limit.0)),
        }
    }

    fn page(
        &self,
        page: &PageView<'_>,
        choices: &mut Choices<'_>,
        out: &mut Evaluation,
    ) -> Result<(), StoreError> {
        let mut attributes = page.attributes();
        let mut paths = Paths::default();
        for (rank, ino) in page.inodes().enumerate() {
            let entry = attributes.next_entry()?;
            let is_outside = !self.within.contains(&entry.parent.index());
            if entry.kind != Kind::File || is_outside {
                continue;
            }
            let (file, access) = ((ino, &entry), page.access(rank));
            if Tables::is(self.taken, entry.parent) {
                self.goes_with_directory(page, file, access, (choices, &mut paths), out)?;
                continue;
            }
            if self.looks_at_all.is_none() && self.young_from.is_some_and(|limit| access.at >= limit) {
                continue;
            }
            out.examined += 1;
            out.ahead += u64::from(is_ahead(&entry, self.at.now));
            self.file(page, file, access, (choices, &mut paths), out)?;
        }
        Ok(())
    }

    /// Counts a file of a directory that goes as a whole, if a file rule would have taken it.
    fn goes_with_directory(
        &self,
        page: &PageView<'_>,
        file: (Inode, &Attributes),
        access: LastUse,
        found_out: (&mut Choices<'_>, &mut Paths),
        out: &mut Evaluation,
    ) -> Result<(), StoreError> {
        let Some(counting) = &self.counting else {
            return Ok(());
        };
        let mut alone = Evaluation::default();
        self.file(page, file, access, found_out, &mut alone)?;
        let by = counting.taken_by.get(file.1.parent.index());
        if let (Some(rule), Some(by)) = (alone.took.first(), by) {
            out.goes_with((*rule, *by), 1);
        }
        Ok(())
    }

    fn file(
        &self,
        page: &PageView<'_>,
        (ino, entry): (Inode, &Attributes),
        access: LastUse,
        (choices, paths): (&mut Choices<'_>, &mut Paths),
        out: &mut Evaluation,
    ) -> Result<(), StoreError> {
        let mut why = self.said_of(entry.parent);
        let mut ripe: Option<Seconds> = None;
        let mut lasts = Lasts::of((entry, access), self.at);
        let chosen = choices.of_file(entry);
        for (number, rule, ttl) in chosen
            .rules
            .iter()
            .filter_map(|n| self.rules.get(usize::from(*n)))
        {
            let last = lasts.by(rule.clocks);
            let rule = (*number, *rule);
            if !is_expired(last.at, self.at.now, *ttl) {
                let is_old = is_expired(lasts.seen_by(rule.1.clocks).at, self.at.now, *ttl);
                let young = if is_old { Stays::Uncovered } else { Stays::Young };
                why = self.nearer(page, (ino, entry), rule, paths, (why, young))?;
                continue;
            }
            if !Tables::is(&self.tables.connected, entry.parent) {
                why = why.max(Stays::Uncovered);
                continue;
            }
            if !self.is_in_scope(page, ino, entry, rule, paths)? {
                why = self.nearer(page, (ino, entry), rule, paths, (why, Stays::Excluded))?;
                continue;
            }
            let announced = self.at.announced.allows_from(rule.1, ino, entry.birth, last.at);
            if announced > self.at.now {
                why = why.max(Stays::Announced);
                ripe = Some(ripe.map_or(announced, |first| first.min(announced)));
                continue;
            }
            if Tables::is(&self.tables.outside, entry.parent) || !self.at.only.has_owner(entry.uid) {
                out.kept.limit += 1;
                return Ok(());
            }
            if Tables::is(&self.tables.held, entry.parent) || self.at.held.contains(&ino) {
                out.kept.count(Stays::Held, 1);
                return Ok(());
            }
            if self.at.left_out.contains(&entry.uid) {
                out.kept.count(Stays::Limit, 1);
                return Ok(());
            }
            let pick = Pick {
                ino,
                parent: entry.parent,
                shape: Shape::File,
                last,
                birth: entry.birth,
                bytes: entry.size,
                takes: entry.takes(),
                files: 1,
                rule: *number,
            };
            out.mounted += u64::from(self.at.mounted.contains(&ino));
            out.take(pick, self.together);
            out.took_by(pick.rule);
            if self.targets.contains(&ino) {
                out.targets.insert(ino, *number);
            }
            add_owner(&mut out.by_owner, entry.uid, pick.portion());
            return Ok(());
        }
        // What is young is what is left of all files in the end: not all of it is looked at.
        if why != Stays::Young {
            out.kept.count(why, 1);
        }
        if let Some(ripe) = ripe.filter(|_| why == Stays::Announced) {
            out.kept.ripens(ripe);
        }
        Ok(())
    }

    /// Why directory rules leave the files of a directory.
    fn said_of(&self, dir: DirId) -> Stays {
        let all = self.counting.and_then(|counting| counting.stays);
        all.and_then(|all| all.get(dir.index()))
            .copied()
            .unwrap_or_default()
    }

    /// Of two reasons the nearer one, if the rule has the file in its scope.
    fn nearer(
        &self,
        page: &PageView<'_>,
        (ino, entry): (Inode, &Attributes),
        rule: (u16, &Rule),
        paths: &mut Paths,
        (known, nearer): (Stays, Stays),
    ) -> Result<Stays, StoreError> {
        let is_nearer = nearer > known && self.counting.is_some();
        match is_nearer && self.has_in_scope(page, (ino, entry), rule, paths)? {
            true => Ok(nearer),
            false => Ok(known),
        }
    }

    /// Whether a file is in the scope of a rule but for what `exclude` and the agent's own protection say.
    fn has_in_scope(
        &self,
        page: &PageView<'_>,
        (ino, entry): (Inode, &Attributes),
        (number, rule): (u16, &Rule),
        paths: &mut Paths,
    ) -> Result<bool, StoreError> {
        let scope = &rule.scope;
        if !scope.admits_attributes(entry.uid, entry.gid, entry.size) {
            return Ok(false);
        }
        let Some(verdicts) = self.verdicts.get(&number).filter(|_| !scope.has_all_paths()) else {
            return Ok(true);
        };
        let dirs = self.index.dirs();
        if entry.links <= 1 && verdicts.of(dirs, scope, entry.parent).included {
            return Ok(true);
        }
        paths.load(self.index, page.number())?;
        let mut names = paths.of(ino).iter();
        Ok(names.all(|(parent, name)| verdicts.includes(dirs, scope, (*parent, name))))
    }

    fn is_in_scope(
        &self,
        page: &PageView<'_>,
        ino: Inode,
        entry: &Attributes,
        (number, rule): (u16, &Rule),
        paths: &mut Paths,
    ) -> Result<bool, StoreError> {
        if Tables::is(&self.tables.protected, entry.parent)
            || Tables::is(&self.tables.deep, entry.parent)
            || has_too_many_names(self.index, ino, entry)
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
            let verdicts = self.verdicts.get(&number);
            let admits = |v: &Verdicts| v.admits(self.index.dirs(), &rule.scope, (*parent, name), false);
            if !verdicts.is_none_or(admits) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether a file has more names than are kept: the index does not know all places where it is used, so it stays.
pub(super) fn has_too_many_names(index: &Index, ino: Inode, entry: &Attributes) -> bool {
    entry.links as usize > NAMES_MAX || entry.links > 1 && index.has_more_names(ino)
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
        let offset = (ino % purge_index::codec::PAGE_INODES) as u8;
        self.names
            .as_ref()
            .and_then(|n| n.get(&offset))
            .map_or(&[], Vec::as_slice)
    }
}
