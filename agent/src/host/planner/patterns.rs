//! Exclude patterns that match nothing on a volume.
//!
//! One pass looks for all patterns: first over the directories, which are in memory, and only if a pattern is left over the names of files.
//! It runs on a thread of its own and holds the index for short stretches. What is found is remembered for a multiple of the time
//! that the pass took, so plans that follow each other cost one pass.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Planner;
use crate::host::HostError;
use crate::volume::Volume;
use purge_index::codec::DirEntry;
use purge_index::{DirId, StoreError};
use purge_policy::idle::{Idle, Search};
use purge_policy::rule::Rule;
use purge_policy::scope::Globs;
use purge_removal::plans::IdlePattern;

/// A plan waits so long for what its patterns match. On a large volume the first plan does without, and the next one tells.
const PLAN_WAITS: Duration = Duration::from_secs(3);
/// A question about patterns waits so long.
const QUESTION_WAITS: Duration = Duration::from_secs(60);
/// What a pass found is believed for this multiple of the time that the pass took.
const BELIEVED_TIMES: u32 = 20;
/// A pattern that matched something is looked for again after this at the earliest.
const MET_FOR: Duration = Duration::from_secs(600);
/// Patterns that are remembered for a volume.
const REMEMBERED_MAX: usize = 4000;
/// Directories, and pages of files, whose paths are made while the index is held. They are compared when it is not.
const DIRECTORIES_AT_ONCE: u32 = 500;
const PAGES_AT_ONCE: usize = 16;
/// Longer paths are not looked at: a user may make many of 32 KiB.
const PATH_BYTES_MAX: usize = 4096;

/// What was looked for, by volume.
#[derive(Debug, Default)]
pub(super) struct Looked(Mutex<HashMap<String, Arc<OfVolume>>>);

#[derive(Debug, Default)]
struct OfVolume {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    patterns: HashMap<String, Found>,
    took: Duration,
    runs: bool,
}

#[derive(Debug, Clone)]
struct Found {
    at: Instant,
    /// None: it matches something.
    idle: Option<Idle>,
}

impl Known {
    fn get(&self, pattern: &str) -> Option<&Found> {
        let found = self.patterns.get(pattern)?;
        let believed = self.took.saturating_mul(BELIEVED_TIMES);
        let believed = match found.idle {
            Some(_) => believed,
            None => believed.max(MET_FOR),
        };
        (found.at.elapsed() < believed).then_some(found)
    }

    fn missing(&self, patterns: &[String]) -> Vec<String> {
        let unknown = |p: &&String| self.get(p).is_none();
        patterns.iter().filter(unknown).cloned().collect()
    }
}

impl Planner {
    /// The exclude patterns of rules that match nothing on their volume; those of a large volume may not be known yet.
    pub(super) fn idle_patterns(&self, volume: &Arc<Volume>, rules: &[Rule]) -> Vec<IdlePattern> {
        let excludes = |rule: &Rule| {
            let patterns = rule.scope.exclude.iter().flat_map(Globs::patterns);
            (rule.name.clone(), patterns.cloned().collect())
        };
        let wanted: Vec<(String, Vec<String>)> = rules.iter().map(excludes).collect();
        let found = self.look_for(volume, &wanted, PLAN_WAITS);
        found.unwrap_or_default()
    }

    /// The same for rules that are not in force: each with its exclude patterns.
    ///
    /// # Errors
    /// When the volume is unknown, or what it holds is not known yet.
    pub fn check_patterns(
        &self,
        volume: &str,
        wanted: &[(String, Vec<String>)],
    ) -> Result<Vec<IdlePattern>, HostError> {
        let volume = self.ground.volume(volume)?;
        self.judge.check_certain(&volume)?;
        volume.sync_soon();
        self.look_for(&volume, wanted, QUESTION_WAITS).ok_or_else(|| {
            let name = &volume.config.name;
            HostError::Refused(format!(
                "volume {name}: the patterns are still being looked for; ask again"
            ))
        })
    }

    fn look_for(
        &self,
        volume: &Arc<Volume>,
        wanted: &[(String, Vec<String>)],
        patience: Duration,
    ) -> Option<Vec<IdlePattern>> {
        let mut patterns: Vec<String> = wanted.iter().flat_map(|(_, all)| all.clone()).collect();
        patterns.sort_unstable();
        patterns.dedup();
        let of_volume = {
            let mut all = self.patterns.0.lock();
            Arc::clone(all.entry(volume.config.name.clone()).or_default())
        };
        let until = Instant::now() + patience;
        let mut known = of_volume.known.lock();
        let mut found = HashMap::new();
        loop {
            // What was found once is not asked for again in the same question, however short it is believed.
            patterns.retain(|p| {
                known
                    .get(p)
                    .map(|f| found.insert(p.clone(), f.idle.clone()))
                    .is_none()
            });
            if patterns.is_empty() {
                break;
            }
            if !known.runs {
                known.runs = begin(volume, &of_volume, known.missing(&patterns));
            }
            if !known.runs || of_volume.changed.wait_until(&mut known, until).timed_out() {
                return None;
            }
        }
        drop(known);
        let of_rule = |(rule, patterns): &(String, Vec<String>)| {
            let idle = patterns.iter().filter_map(|p| found.get(p)?.clone());
            let told = idle.map(|idle| IdlePattern {
                rule: rule.clone(),
                pattern: idle.pattern,
                did_you_mean: idle.did_you_mean,
            });
            told.collect::<Vec<_>>()
        };
        Some(wanted.iter().flat_map(of_rule).collect())
    }
}

/// Begins a pass; false where no thread can be had.
fn begin(volume: &Arc<Volume>, of_volume: &Arc<OfVolume>, patterns: Vec<String>) -> bool {
    let (volume, of_volume) = (Arc::clone(volume), Arc::clone(of_volume));
    let look = move || {
        let began = Instant::now();
        let looked = pass(&volume, &patterns);
        let mut known = of_volume.known.lock();
        known.runs = false;
        known.took = began.elapsed().max(Duration::from_millis(10));
        if known.patterns.len() > REMEMBERED_MAX {
            known.patterns.clear();
        }
        match looked {
            Ok(idle) => {
                for pattern in patterns {
                    let idle = idle.iter().find(|i| i.pattern == pattern).cloned();
                    let at = Instant::now();
                    known.patterns.insert(pattern, Found { at, idle });
                }
            }
            Err(error) => {
                tracing::warn!(volume = %volume.config.name, %error, "patterns cannot be looked for");
            }
        }
        of_volume.changed.notify_all();
    };
    std::thread::Builder::new()
        .name("patterns".into())
        .spawn(look)
        .is_ok()
}

/// Looks for patterns among everything on a volume.
fn pass(volume: &Volume, patterns: &[String]) -> Result<Vec<Idle>, StoreError> {
    let broken = |why: purge_policy::scope::BadGlob| StoreError::Call {
        failure: purge_sys::failure::Failure::Other,
        doing: "compile patterns",
        why: why.to_string(),
    };
    let mut search = Search::new(patterns, &names_of(volume)).map_err(broken)?;
    let lengths = {
        let index = volume.watched.index.read();
        let length =
            |_, entry: &DirEntry, above: usize| above.saturating_add(entry.name.len()).saturating_add(1);
        index.dirs().inherit(0usize, length)
    };
    let is_short = |id: DirId| {
        lengths
            .get(id.index())
            .is_some_and(|bytes| *bytes <= PATH_BYTES_MAX)
    };
    look_at_directories(volume, &mut search, is_short);
    if !search.is_done() {
        look_at_files(volume, &mut search, is_short)?;
    }
    Ok(search.idle())
}

/// What the volume goes by: its name, and the ends of its path.
fn names_of(volume: &Volume) -> Vec<String> {
    let path = volume.config.path.to_string_lossy().into_owned();
    let mut rest = path.trim_matches('/');
    let mut names = Vec::new();
    while !rest.is_empty() {
        names.push(rest.to_owned());
        rest = rest.split_once('/').map_or("", |(_, rest)| rest);
    }
    names.push(volume.config.name.clone());
    names
}

fn look_at_directories(volume: &Volume, search: &mut Search, is_short: impl Fn(DirId) -> bool) {
    let mut next = 0u32;
    loop {
        let end = next.saturating_add(DIRECTORIES_AT_ONCE);
        let (paths, is_last) = {
            let index = volume.watched.index.read();
            let dirs = index.dirs();
            let ids = (next..end).map(DirId).filter(|id| is_short(*id));
            let paths: Vec<_> = ids.filter_map(|id| dirs.path(id)).collect();
            (paths, end as usize >= dirs.table_len())
        };
        paths.iter().for_each(|path| search.look(path, true));
        if is_last {
            return;
        }
        next = end;
    }
}

fn look_at_files(
    volume: &Volume,
    search: &mut Search,
    is_short: impl Fn(DirId) -> bool,
) -> Result<(), StoreError> {
    let mut page = 0usize;
    loop {
        let mut paths = Vec::new();
        let index = volume.watched.index.read();
        let pages: Vec<u64> = index
            .pages_from(page, PAGES_AT_ONCE)
            .map(|p| p.number())
            .collect();
        if pages.is_empty() {
            return Ok(());
        }
        page = page.saturating_add(pages.len());
        let mut above: Option<(DirId, Vec<u8>)> = None;
        for number in pages {
            index.names_of_page(number, |_, parent, name| {
                if !is_short(parent) {
                    return;
                }
                if above.as_ref().is_none_or(|(known, _)| *known != parent) {
                    above = index.dirs().path(parent).map(|path| (parent, path));
                }
                if let Some((_, above)) = &above {
                    let mut path = above.clone();
                    purge_model::path::push(&mut path, name);
                    paths.push(path);
                }
            })?;
        }
        drop(index);
        paths.iter().for_each(|path| search.look(path, false));
    }
}
