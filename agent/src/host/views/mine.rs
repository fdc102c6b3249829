//! What will expire soon, for those whose it is.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::questions::Questions;
use crate::host::HostError;
use crate::volume::Volume;
use purge_base::accounts::user_name;
use purge_base::clock;
use purge_base::sight::Sight;
use purge_index::DirId;
use purge_model::{Inode, Seconds};
use purge_policy::circumstances::Circumstances;
use purge_policy::expiring::{Share, expiring, of_owner};
use purge_policy::rule::{Rule, Target};

/// Bytes that a directory takes in an answer besides its path, about.
const DIRECTORY_BYTES: usize = 48;

/// Whose files, and which.
#[derive(Debug, Clone)]
pub struct Whose {
    /// The owner.
    pub uid: u32,
    /// Volume by name; empty: all.
    pub volume: String,
    /// Seconds from now.
    pub within: u64,
    /// How deep directories are told apart.
    pub depth: u32,
    /// The owner asks, and is in these groups; none: the caller may know all.
    pub own: Option<Arc<[u32]>>,
}

/// One owner's files that the rules take soon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MineReport {
    /// The owner's name.
    pub user: String,
    /// How many files.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// What expires first comes first: as many as there was room for.
    pub directories: Vec<MineDirectory>,
    /// How many there are.
    pub directories_total: u64,
    /// How many of the files have expired already.
    pub expired_files: u64,
    /// Their sizes together.
    pub expired_bytes: u64,
    /// Files that would be among them, and that holds keep.
    pub held_files: u64,
    /// Their sizes together.
    pub held_bytes: u64,
    /// The rules that take some of them, those that run next first.
    pub rules: Vec<MineRule>,
}

/// A rule that takes files of the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MineRule {
    /// Its name.
    pub rule: String,
    /// The volume's name.
    pub volume: String,
    /// When it deletes by itself next; none: an operator applies its plans.
    pub next: Option<Seconds>,
    /// Seconds that what it takes stays in the trash.
    pub grace: u64,
}

/// What expires soon in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MineDirectory {
    /// The volume's name.
    pub volume: String,
    /// Its path on the host.
    pub path: Vec<u8>,
    /// How many files.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// When the first of them expires.
    pub first_expires: Seconds,
    /// How many of the files have expired already.
    pub expired_files: u64,
    /// These lie in directories that the owner cannot enter: `path` ends above those.
    pub hidden: bool,
}

impl Questions {
    /// What the volume's rules take within this number of seconds, and from when on; of one owner's files if only those are asked for.
    ///
    /// # Errors
    /// When the index is damaged.
    pub fn expiring(
        &self,
        volume: &Volume,
        (within, only): (u64, Option<u32>),
    ) -> Result<FxHashMap<Inode, Seconds>, HostError> {
        let at = self.judge.circumstances(volume);
        let mut rules = self.rules_that_delete(volume);
        if let Some(uid) = only {
            for rule in rules.iter_mut().filter(|r| r.target == Target::File) {
                // Files of other owners need not be looked at, or remembered.
                let is_theirs = rule.scope.users.as_ref().is_none_or(|users| users.contains(&uid));
                rule.scope.users = Some(if is_theirs { vec![uid] } else { Vec::new() });
            }
        }
        let index = volume.watched.index.read();
        Ok(expiring(&index, &rules, &at, (within, only))?)
    }

    /// One owner's files that the rules take soon, by directory; what expires first comes first.
    ///
    /// # Errors
    /// When the volume is unknown or the index damaged.
    /// About `bytes_max` bytes of directories of each volume are told one by one; the sums are of all of them.
    pub fn mine(&self, whose: &Whose, bytes_max: usize) -> Result<MineReport, HostError> {
        let mut report = MineReport {
            user: user_name(whose.uid),
            ..MineReport::default()
        };
        if !whose.volume.is_empty() {
            self.ground.volume(&whose.volume)?;
        }
        let wanted = |v: &&Arc<Volume>| whose.volume.is_empty() || v.config.name == whose.volume;
        for volume in self.ground.volumes().iter().filter(wanted) {
            volume.sync_soon();
            let mut at = self.judge.circumstances(volume);
            let index = volume.watched.index.read();
            let rules = self.rules_that_delete(volume);
            let of_them =
                |at: &Circumstances| of_owner(&index, &rules, at, whose.within, (whose.uid, whose.depth));
            let loss = of_them(&at)?;
            let mut shares: Vec<(DirId, Share)> = loss.shares.into_iter().collect();
            shares.sort_unstable_by_key(|(dir, share)| (share.first, *dir));
            let before = (report.files, report.bytes);
            let mut room = bytes_max;
            let mut told = Vec::new();
            for (dir, share) in shares {
                report.count(&share);
                // Paths are made of those alone that may be told.
                if room > 0 {
                    let below = index.dirs().path(dir).unwrap_or_default();
                    room = room.saturating_sub(below.len().saturating_add(DIRECTORY_BYTES));
                    told.push((below, share));
                }
            }
            if !at.held.is_empty() {
                at.held.clear();
                let unheld = of_them(&at)?;
                report.count_held(unheld.shares.values(), before);
            }
            // Directories are looked at without it.
            drop(index);
            let least = volume.last_guard().least_grace();
            let taking = loss.rules.iter().filter_map(|n| rules.get(usize::from(*n)));
            report.rules.extend(taking.map(|rule| mine_rule(rule, least)));
            let made = told.len();
            let rows = rows(volume, whose, told);
            let merged = u64::try_from(made.saturating_sub(rows.len())).unwrap_or(0);
            report.directories_total = report.directories_total.saturating_sub(merged);
            report.directories.extend(rows);
        }
        let key = |d: &MineDirectory| (d.first_expires, d.path.clone());
        report.directories.sort_by_cached_key(key);
        report
            .rules
            .sort_by_key(|rule| (rule.next.is_none(), rule.next, rule.rule.clone()));
        Ok(report)
    }

    fn rules_that_delete(&self, volume: &Volume) -> Vec<Rule> {
        let all = self.ground.rules().into_iter();
        all.filter(|r| r.volume == volume.config.name && r.action.is_applied())
            .collect()
    }
}

impl MineReport {
    fn count(&mut self, share: &Share) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        let bytes = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
        add(&mut self.files, share.files);
        add(&mut self.bytes, bytes(share.bytes));
        add(&mut self.expired_files, share.expired_files);
        add(&mut self.expired_bytes, bytes(share.expired_bytes));
        add(&mut self.directories_total, 1);
    }

    /// What there would be without holds, and is not. `before`: files and bytes of the volumes before this one.
    fn count_held<'s>(&mut self, unheld: impl Iterator<Item = &'s Share>, before: (u64, u64)) {
        let mut without = Self::default();
        unheld.for_each(|share| without.count(share));
        let more = |unheld: u64, now: u64, before: u64| unheld.saturating_sub(now.saturating_sub(before));
        let files = more(without.files, self.files, before.0);
        let bytes = more(without.bytes, self.bytes, before.1);
        self.held_files = self.held_files.saturating_add(files);
        self.held_bytes = self.held_bytes.saturating_add(bytes);
    }
}

/// What a rule means for an owner of whose files it takes some.
fn mine_rule(rule: &Rule, least_grace: u64) -> MineRule {
    let schedule = rule.schedule.as_ref().filter(|_| rule.auto_apply);
    MineRule {
        rule: rule.name.clone(),
        volume: rule.volume.clone(),
        next: schedule
            .and_then(|s| s.next_after(clock::wall().unix()))
            .map(Seconds::from_unix),
        grace: rule.grace.max(least_grace),
    }
}

/// Directories as they are told. Those that the owner cannot enter are one, by the last directory above them that they can.
fn rows(volume: &Volume, whose: &Whose, told: Vec<(Vec<u8>, Share)>) -> Vec<MineDirectory> {
    let root = &volume.config.path;
    let own = whose.own.as_ref();
    let mut sight = own.map(|gids| Sight::of(root, whose.uid, gids));
    let mut hidden: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut rows: Vec<MineDirectory> = Vec::with_capacity(told.len());
    for (below, share) in told {
        let cut = sight.as_mut().and_then(|sight| sight.shown_in(&below));
        let shown = below.get(..cut.unwrap_or(below.len())).unwrap_or_default();
        let bytes = u64::try_from(share.bytes).unwrap_or(u64::MAX);
        let before = hidden.get(shown).copied().filter(|_| cut.is_some());
        if let Some(row) = before.and_then(|n| rows.get_mut(n)) {
            // What expires first came first.
            row.files = row.files.saturating_add(share.files);
            row.bytes = row.bytes.saturating_add(bytes);
            row.expired_files = row.expired_files.saturating_add(share.expired_files);
            continue;
        }
        if cut.is_some() {
            hidden.insert(shown.to_vec(), rows.len());
        }
        rows.push(MineDirectory {
            volume: volume.config.name.clone(),
            path: absolute(root, shown),
            files: share.files,
            bytes,
            first_expires: share.first,
            expired_files: share.expired_files,
            hidden: cut.is_some(),
        });
    }
    rows
}

fn absolute(root: &Path, below: &[u8]) -> Vec<u8> {
    let below = Path::new(OsStr::from_bytes(below));
    let path = if below.as_os_str().is_empty() {
        root.into()
    } else {
        root.join(below)
    };
    path.into_os_string().into_vec()
}
