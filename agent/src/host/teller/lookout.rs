//! What people are told of: looks now and then at runs, gaps, space, quotas and what will expire, and gives what is new to
//! the outbox. Nothing here waits for a sink, and no purge waits for this. `owners` has quotas and expiries, `troubles` what does not work.

mod first;
mod owners;
mod troubles;

pub(in crate::host) use first::held_until;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::host::judge::Judge;
use crate::host::notices::Notices;
use crate::host::space::shares;
use crate::host::space::space_of;
use crate::host::trash::TrashKeeper;
use crate::host::{Ground, HostError};
use purge_base::accounts::user_account;
use purge_base::clock;
use purge_base::sight::Sight;
use purge_index::StoreError;
use purge_model::Seconds;
use purge_model::path;
use purge_notify::event::{Audience, Entry, Event, Fill, List, Purged, What, rfc3339};
use purge_notify::memory::{Episode, Memory};
use purge_notify::preview::Found;
use purge_notify::sender::Notifier;
use purge_notify::tally::{self, Lost};
use purge_policy::allowance::Watermark;
use purge_removal::plans::Plans;
use purge_removal::runs::{Run, RunState, Runs};

/// What costs a pass over the index is looked at this often at most, and seldom enough to cost a hundredth of a processor.
const PASS_EVERY: Duration = Duration::from_secs(60);
const PASS_SHARE: u32 = 100;
/// A volume's space is asked for this often.
const SPACE_EVERY: Duration = Duration::from_secs(15);
/// An owner hears of one rule at most so often.
const DAY: u64 = 86_400;
/// Where nothing is known of what was told, what is older than this is taken as told.
const RECENT: u64 = 3600;
/// Runs older than this are not told of any more.
const LATE: u64 = 60 * DAY;
/// What is over is tidied up this often.
const TIDY_EVERY: Duration = Duration::from_secs(3600);

/// Something went wrong while looking: it is looked at again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub(in crate::host) enum LookError {
    #[error("the outbox cannot be written: {0}")]
    Outbox(#[from] io::Error),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pass over the index that is made now and then.
#[derive(Debug)]
struct Pass {
    next: Instant,
}

impl Pass {
    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn made(&mut self, began: Instant) {
        self.next = Instant::now() + PASS_EVERY.max(began.elapsed().saturating_mul(PASS_SHARE));
    }
}

/// Looks.
#[derive(Debug)]
pub struct Lookout {
    ground: Arc<Ground>,
    judge: Arc<Judge>,
    plans: Plans,
    runs: Arc<Runs>,
    trash: Arc<TrashKeeper>,
    notices: Arc<Notices>,
    notifier: Arc<Notifier>,
    memory: Memory,
    /// Runs that had ended when it looked last; none: it has not.
    ended: Option<u64>,
    space: Instant,
    quotas: Pass,
    expiring: Pass,
    tidied: Option<Instant>,
    /// What is wrong and was not told yet, and since when.
    wrong: BTreeMap<String, Instant>,
    began: Seconds,
    /// The agent has run without notices before it has them.
    was_silent: bool,
    /// What is found is only to be shown: it is put here, and not into the outbox.
    shown: Option<Mutex<Vec<Found>>>,
}

impl Lookout {
    /// Reads what was told.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(in crate::host) fn new(
        (ground, judge, trash): (Arc<Ground>, Arc<Judge>, Arc<TrashKeeper>),
        (plans, runs): (Plans, Arc<Runs>),
        (notices, notifier): (Arc<Notices>, Arc<Notifier>),
    ) -> io::Result<Self> {
        let memory = Memory::open(notifier.outbox.dir())?;
        let now = Instant::now();
        let was_silent = notifier.outbox.was_there;
        Ok(Self {
            ground,
            judge,
            plans,
            runs,
            trash,
            notices,
            notifier,
            memory,
            ended: None,
            space: now,
            quotas: Pass { next: now },
            expiring: Pass { next: now },
            tidied: None,
            wrong: BTreeMap::new(),
            began: clock::wall(),
            was_silent,
            shown: None,
        })
    }

    /// Looks at everything whose time it is.
    pub fn look(&mut self) {
        if self.tidied.is_none_or(|at| at.elapsed() > TIDY_EVERY) {
            self.tidied = Some(Instant::now());
            let tidied = self.notifier.outbox.tidy(wall());
            said("what was sent long ago", tidied.map_err(LookError::from));
        }
        if !self.notifier.tells() {
            self.was_silent = true;
            return;
        }
        let begun = self.begin();
        said("the first notices", begun);
        let runs = self.runs();
        said("runs", runs);
        let gaps = self.gaps();
        said("gaps", gaps);
        let troubles = self.troubles();
        said("what does not work", troubles);
        if Instant::now() >= self.space {
            self.space = Instant::now() + SPACE_EVERY;
            for watermark in self.ground.limits().watermarks {
                let looked = self.watermark(&watermark);
                said("a watermark", looked);
            }
        }
        if self.quotas.is_due() {
            self.ground.meet_all_owners();
            let began = Instant::now();
            for quota in self.ground.limits().quotas {
                let looked = self.quota(&quota);
                said("a quota", looked);
            }
            self.quotas.made(began);
        }
        let is_held = self.is_held();
        let asked = match is_held {
            true => Default::default(),
            false => self.notices.take_asked(),
        };
        let due = self.expiring.is_due() && !is_held;
        if due || !asked.is_empty() {
            let began = Instant::now();
            for rule in self.ground.rules() {
                // A rule that only tells does so by its schedule, if it has one.
                let waits = !rule.action.is_applied() && rule.schedule.is_some();
                if asked.contains(&rule.name) || (due && !waits) {
                    let looked = self.rule(&rule);
                    said("what will expire", looked);
                }
            }
            if due {
                self.expiring.made(began);
            }
        }
        let saved = self.memory.save(wall());
        said("what was told", saved.map_err(LookError::from));
    }

    /// Gives an event to the outbox; what was told may be noted afterwards.
    fn tell(&self, mut event: Event, entries: Vec<Entry>, total: u64) -> Result<(), LookError> {
        let entries = &*self.seen_by(&event, entries);
        event.list = list_of(total, entries);
        if let Some(shown) = &self.shown {
            shown.lock().push((event, entries.to_vec()));
            return Ok(());
        }
        Ok(self.notifier.tell(event, entries)?)
    }

    /// Entries as they may be told to an owner: of what lies in a directory that they cannot enter the path ends above it. What was purged
    /// lay in directories that may not exist any more.
    fn seen_by(&self, event: &Event, entries: Vec<Entry>) -> Vec<Entry> {
        let volume = self.ground.volume(&event.volume).ok();
        let (Audience::Owner { uid, .. }, Some(volume)) = (&event.to, volume) else {
            return entries;
        };
        let root = &volume.config.path;
        let mut sight = Sight::of_account(root, *uid);
        if matches!(event.what, What::Purged(_)) {
            sight = sight.of_the_past();
        }
        let root = root.as_os_str().as_encoded_bytes();
        let seen = |entry: Entry| {
            let path = entry.raw_path();
            let below = path.get(root.len().saturating_add(1)..).unwrap_or_default();
            match sight.shown(below) {
                _ if entry.seen => Entry { seen: false, ..entry },
                Some(end) => {
                    let shown = path::absolute(root, below.get(..end).unwrap_or_default());
                    entry.cut(&shown)
                }
                None => entry,
            }
        };
        entries.into_iter().map(seen).collect()
    }

    // ------------------------------------------------------------ runs

    fn runs(&mut self) -> Result<(), LookError> {
        let ended = self.runs.ended();
        if self.ended == Some(ended) {
            return Ok(());
        }
        for run in self.runs.list()? {
            let key = format!("run/{}", run.id);
            let over = run.finished.unwrap_or(run.started);
            let age = over.age_at(clock::now());
            if run.state == RunState::Running || self.memory.has(&key) || age > LATE {
                continue;
            }
            let long_past = self.memory.is_new && over.age_at(self.began) > RECENT;
            if !long_past {
                self.run(&run)?;
            }
            self.memory.note(&key, wall());
            self.memory.save(wall())?;
            tally::forget(self.notifier.outbox.dir(), &run.id)?;
        }
        self.ended = Some(ended);
        Ok(())
    }

    fn run(&self, run: &Run) -> Result<(), LookError> {
        let rules = self
            .plans
            .get(&run.plan)
            .map_or_else(|_| Vec::new(), |plan| plan.rule_names());
        for lost in tally::read(self.notifier.outbox.dir(), &run.id)? {
            self.lost(run, &rules, lost)?;
        }
        let failed = matches!(run.state, RunState::Failed | RunState::Partial);
        if failed {
            let first = || run.failed.first().map(|f| f.error.clone());
            let error = run.error.clone().or_else(first).unwrap_or_default();
            let what = What::RunFailed {
                run_id: run.id.clone(),
                by: run.by.clone(),
                error,
                failed: run.failed_total,
            };
            let id = format!("run-failed/{}", run.id);
            let event = self.notices.event(id, &run.volume, Audience::Operator, what);
            self.tell(event, Vec::new(), 0)?;
        }
        Ok(())
    }

    fn lost(&self, run: &Run, rules: &[String], lost: Lost) -> Result<(), LookError> {
        let to = Audience::Owner {
            user: user_account(lost.uid),
            uid: lost.uid,
        };
        let what = What::Purged(Purged {
            run_id: run.id.clone(),
            rules: rules.to_vec(),
            files: lost.files,
            directories: lost.directories,
            bytes: lost.bytes,
            restorable_until: lost
                .until
                .map(|at| rfc3339(Seconds::from_unix(i64::try_from(at).unwrap_or(i64::MAX)))),
        });
        let id = format!("purged/{}/{}", run.id, lost.uid);
        let event = self.notices.event(id, &run.volume, to, what);
        let total = lost.files.saturating_add(lost.directories);
        self.tell(event, lost.entries, total)
    }

    // ------------------------------------------------------------ gaps

    fn gaps(&mut self) -> Result<(), LookError> {
        for volume in self.ground.volumes() {
            let name = &volume.config.name;
            for gap in volume.condition().gaps.iter().filter(|g| g.counts) {
                // Its end may still move.
                let key = format!("gap/{name}/{}/{}", gap.from, gap.cause);
                if self.memory.has(&key) {
                    continue;
                }
                let long_past = self.memory.is_new && Seconds(gap.to).age_at(self.began) > RECENT;
                if !long_past {
                    let what = What::CoverageGap {
                        from: rfc3339(Seconds(gap.from)),
                        until: rfc3339(Seconds(gap.to)),
                        cause: gap.cause.clone(),
                        counts: gap.counts,
                    };
                    let event = self.notices.event(key.clone(), name, Audience::Operator, what);
                    self.tell(event, Vec::new(), 0)?;
                }
                self.memory.note(&key, wall());
            }
        }
        Ok(())
    }

    // ------------------------------------------------------------ watermarks

    fn watermark(&mut self, w: &Watermark) -> Result<(), LookError> {
        let volume = self.ground.volume(&w.volume)?;
        let (space, inodes) = shares(&space_of(&volume)?);
        let key = format!("watermark/{}", w.volume);
        let before = self.memory.episode(&key);
        let fullest = space.max(inodes);
        // What swings around the mark is not told each time: it has ended half way down.
        let is_on = match before.on {
            true => fullest > (w.high + w.low) / 2.0,
            false => fullest > w.high,
        };
        if is_on == before.on {
            return Ok(());
        }
        let fill = Fill {
            space_percent: space * 100.0,
            inodes_percent: inodes * 100.0,
            high_percent: w.high * 100.0,
            low_percent: w.low * 100.0,
            rule: w.rule.clone(),
        };
        let what = match is_on {
            true => What::WatermarkReached(fill),
            false => What::WatermarkEnded(fill),
        };
        self.turn(&key, &before, is_on, (&w.volume, Audience::Operator, what))
    }

    /// Tells that an episode begins or ends, and then notes it.
    fn turn(
        &mut self,
        key: &str,
        before: &Episode,
        on: bool,
        (volume, to, what): (&str, Audience, What),
    ) -> Result<(), LookError> {
        let number = match on {
            true => before.number.saturating_add(1),
            false => before.number,
        };
        let state = if on { "begun" } else { "ended" };
        let event = self
            .notices
            .event(format!("{key}/{number}/{state}"), volume, to.clone(), what);
        self.tell(event, Vec::new(), 0)?;
        self.memory.turn(
            key,
            Episode {
                number,
                on,
                to: Some(to),
            },
        );
        Ok(())
    }
}

fn list_of(total: u64, entries: &[Entry]) -> Option<List> {
    (!entries.is_empty()).then(|| List {
        total,
        shown: entries.len() as u64,
        file: String::new(),
    })
}

fn said(what: &str, looked: Result<(), LookError>) {
    if let Err(error) = looked {
        tracing::error!(%error, "{what}: the notice could not be sent; the agent tries again");
    }
}

fn wall() -> u64 {
    clock::wall().0.into()
}
