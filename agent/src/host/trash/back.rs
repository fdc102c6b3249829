//! What comes back while a restore goes on: counted, told to the audit log and to the client.

use rustc_hash::FxHashSet;

use super::heading_of;
use crate::host::client::Client;
use crate::host::user::User;
use crate::volume::Volume;
use purge_base::clock;
use purge_index::StoreError;
use purge_model::path_set::PathSet;
use purge_model::{Kind, Totals, path};
use purge_removal::audit::{self, Audit, Event, Heading, Lines};
use purge_removal::runs::{Failure, Run};
use purge_removal::taken::hash;
use purge_removal::trash::restore::{Destination, Item, Refused};

/// Refusals of a restore that are named, and things that would go back.
pub(super) const NAMED_MAX: usize = 1000;

/// What a client wants back.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Of this run; empty: of whichever took it.
    pub run: &'a str,
    /// What lies at or below these paths; empty: all of the run.
    pub paths: &'a [Vec<u8>],
    /// Below this directory; none: where it came from.
    pub to: Option<&'a [u8]>,
    /// Nothing is changed: what would go back is told.
    pub is_dry: bool,
    /// Who asks, as it stands in records.
    pub by: &'a str,
    /// The client that waits for the answer.
    pub client: &'a Client,
    /// An ordinary user, who gets back only what is theirs.
    pub user: Option<User<'a>>,
}

/// What a restore came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// The runs whose trash it was, the newest first.
    pub runs: Vec<String>,
    /// What is back, or would be.
    pub restored: Totals,
    /// What stays in the trash, and why: the first of them.
    pub failed: Vec<Failure>,
    /// How many stay.
    pub failed_total: u64,
    /// Older versions of what is back: they stay in the trash.
    pub older_total: u64,
    /// What would go back, if nothing was changed: the first of it.
    pub items: Vec<Item>,
    /// How much that is.
    pub items_total: u64,
}

impl Restored {
    /// With that of another volume.
    pub(super) fn add(&mut self, more: Self) {
        self.runs.extend(more.runs);
        self.restored = self.restored.plus(more.restored);
        self.failed.extend(more.failed);
        self.failed.truncate(NAMED_MAX);
        self.failed_total = self.failed_total.saturating_add(more.failed_total);
        self.older_total = self.older_total.saturating_add(more.older_total);
        self.items.extend(more.items);
        self.items.truncate(NAMED_MAX);
        self.items_total = self.items_total.saturating_add(more.items_total);
    }

    /// Something stays, or is not there.
    pub(super) fn refuse(&mut self, path: Vec<u8>, error: String) {
        self.failed_total = self.failed_total.saturating_add(1);
        if self.failed.len() < NAMED_MAX {
            self.failed.push(Failure { path, error });
        }
    }
}

/// What comes back while a restore goes on.
pub(super) struct Back<'a> {
    volume: &'a Volume,
    wanted: Wanted<'a>,
    /// The paths that are wanted, and of which of them something was met.
    below: PathSet,
    met: Vec<bool>,
    /// Where it is put, relative to the volume; empty: where it came from.
    to: Vec<u8>,
    of: Option<(Heading, &'a Audit)>,
    /// The audit log could not be written.
    pub(super) untold: Option<std::io::Error>,
    /// The index could not be read or written.
    pub(super) trouble: Option<StoreError>,
    lines: Lines,
    time: String,
    pub(super) report: Restored,
    /// What is back of the present run.
    pub(super) of_run: Totals,
    /// What of it lies in the trash no longer: files of a directory that was taken as a whole count as files inside.
    pub(super) out: Totals,
    /// It comes from a share that is never freed, and that the run has not counted as trashed.
    pub(super) is_kept: bool,
    /// The paths that are back, where several runs may have had one.
    back: Option<FxHashSet<u64>>,
}

impl<'a> Back<'a> {
    pub(super) fn new(
        volume: &'a Volume,
        wanted: &Wanted<'a>,
        below: PathSet,
        to: Option<&Destination>,
    ) -> Self {
        Self {
            volume,
            wanted: *wanted,
            met: vec![false; below.len()],
            below,
            to: to.map(|to| to.path.clone()).unwrap_or_default(),
            of: None,
            untold: None,
            trouble: None,
            lines: Lines::default(),
            time: String::new(),
            report: Restored::default(),
            of_run: Totals::default(),
            out: Totals::default(),
            is_kept: false,
            back: wanted.run.is_empty().then(FxHashSet::default),
        }
    }

    /// What follows is of this run.
    pub(super) fn begin(&mut self, run: &Run, audit: &'a Audit) {
        self.of = Some((heading_of(run, self.volume, self.wanted.by), audit));
        self.time = audit::rfc3339(clock::now());
        (self.of_run, self.out) = (Totals::default(), Totals::default());
        // A run that is asked for is named, whether anything of it is back or not.
        if !self.wanted.run.is_empty() {
            self.report.runs = vec![run.id.clone()];
        }
    }

    /// Whether anything was met of what is wanted.
    pub(super) fn has_met(&self) -> bool {
        self.met.contains(&true)
    }

    /// The wanted paths of which nothing was.
    pub(super) fn missing(&self) -> PathSet {
        let all = self.below.iter().zip(&self.met);
        PathSet::new(
            all.filter(|(_, met)| !**met)
                .map(|(path, _)| path.to_vec())
                .collect(),
        )
    }

    /// Whether the client that asked has left, and what is left to do has no reader.
    pub(super) fn is_over(&self) -> bool {
        self.wanted.user.is_some() && self.wanted.client.has_left()
    }

    /// Whether anything of the present run is back.
    pub(super) fn has_any(&self) -> bool {
        (self.of_run, self.out) != (Totals::default(), Totals::default())
    }

    /// Writes the lines that were gathered.
    pub(super) fn write(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if let Some((_, audit)) = &self.of
            && let Err(error) = audit.write(&lines)
        {
            self.untold.get_or_insert(error);
        }
    }

    /// Directories that the run took as a whole are back in parts.
    pub(super) fn note_emptied(&mut self, directories: u64) {
        let emptied = if self.is_kept { 0 } else { directories };
        self.out.directories = self.out.directories.saturating_add(emptied);
    }

    pub(super) fn take(&mut self, told: Result<Item, Refused>) {
        match told {
            Ok(item) => {
                let from = self.from(&item.path);
                self.note_met(&from);
                // A newer one of this path would go back.
                if self.wanted.is_dry && self.back.as_ref().is_some_and(|back| back.contains(&hash(&from))) {
                    self.note_older();
                    return;
                }
                if let Some(back) = &mut self.back {
                    back.insert(hash(&from));
                }
                self.note_run();
                let told = match self.wanted.user {
                    Some(_) => item.without_others(),
                    None => item.clone(),
                };
                count_restored(&mut self.report.restored, &told);
                match self.wanted.is_dry {
                    true => self.note_item(told),
                    false => self.put_down(&item),
                }
            }
            Err(refused) => {
                self.note_met(&refused.path);
                if refused.is_name_taken && self.is_back(&refused.path) {
                    self.note_older();
                } else {
                    self.note_run();
                    let path = self.absolute(&refused.path);
                    self.report.refuse(path, refused.why);
                }
            }
        }
    }

    /// The run's record and the audit log will say that it is back.
    fn put_down(&mut self, item: &Item) {
        count_restored(&mut self.of_run, item);
        if !self.is_kept {
            count_out(&mut self.out, item);
        }
        let path = self.absolute(&item.path);
        let Some((heading, _)) = &self.of else { return };
        let event = Event {
            event: "restored",
            reason: "",
            path: &path,
            kind: item.kind,
            bytes: item.bytes,
            uid: item.uid,
            last: None,
            rule: "",
        };
        self.lines.add(&self.time, heading, &event);
        if self.lines.are_many() {
            self.write();
        }
    }

    fn note_item(&mut self, item: Item) {
        self.report.items_total = self.report.items_total.saturating_add(1);
        if self.report.items.len() < NAMED_MAX {
            let path = self.absolute(&item.path);
            self.report.items.push(Item { path, ..item });
        }
    }

    fn note_run(&mut self) {
        let Some((heading, _)) = &self.of else { return };
        if self.report.runs.last() != Some(&heading.run) {
            self.report.runs.push(heading.run.clone());
        }
    }

    fn note_met(&mut self, path: &[u8]) {
        for at in self.below.above(path) {
            match self.met.get_mut(at) {
                // Those above it were met with it.
                Some(true) => break,
                Some(met) => *met = true,
                None => {}
            }
        }
    }

    fn note_older(&mut self) {
        self.report.older_total = self.report.older_total.saturating_add(1);
    }

    /// Whether a newer one of this path is back, or would be, by itself or with a directory above.
    fn is_back(&self, path: &[u8]) -> bool {
        let Some(back) = &self.back else { return false };
        let slashes = path
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'/')
            .map(|(at, _)| at);
        let mut ends = slashes.chain([path.len()]);
        !back.is_empty() && ends.any(|end| path.get(..end).is_some_and(|p| back.contains(&hash(p))))
    }

    /// Where it came from, of the path where it is put.
    fn from(&self, placed: &[u8]) -> Vec<u8> {
        path::rest(&self.to, placed).unwrap_or(placed).to_vec()
    }

    fn absolute(&self, path: &[u8]) -> Vec<u8> {
        path::absolute(self.volume.config.path.as_os_str().as_encoded_bytes(), path)
    }
}

fn count_restored(restored: &mut Totals, item: &Item) {
    match item.kind {
        Kind::Directory => restored.add_directory(item.files_inside, item.bytes),
        kind => restored.add(kind, item.bytes),
    }
}

/// In the unit in which it was taken.
fn count_out(out: &mut Totals, item: &Item) {
    match (item.kind, item.is_part) {
        (_, false) => count_restored(out, item),
        (Kind::File, true) => {
            out.files_inside = out.files_inside.saturating_add(1);
            out.bytes = out.bytes.saturating_add(item.bytes);
        }
        (_, true) => {}
    }
}
