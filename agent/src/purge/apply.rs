//! One run: workers take the candidates of a plan batch by batch, verify, remove, count.
//!
//! Before each batch the event queue is drained, so that every use up to that moment is in the index the batch is
//! compared with. Directories that are empty only when everything else is gone come last, one after another.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use purge_proto::v1;
use rustc_hash::FxHashSet;

use super::candidate::Candidate;
use super::guard::{Fate, Ground, Skip};
use super::plans::{PlanRecord, Plans};
use super::runs::{FAILURES_NAMED_MAX, LiveRun, Progress};
use super::trash::{Share, Trash};
use crate::collect::Watched;
use crate::index::StoreError;
use crate::model::{Inode, Seconds};
use crate::policy::evaluate::Shape;

/// Candidates verified and removed between two looks at the event queue.
const BATCH_CANDIDATES: usize = 256;
/// Workers of one run: deleting is bound by the file system's journal, not by processors.
const WORKERS_MAX: usize = 4;
/// Fewer failures than this never stop a run: one undeletable file among ten is no sign of a broken volume.
const ERRORS_TOLERATED: u64 = 10;

/// What a run needs from the volume around it.
pub trait Surroundings: Sync {
    /// Everything the kernel has queued reaches the index; false when a use since the plan may have gone unseen.
    fn sync(&self) -> bool;
    /// The inodes held now.
    fn held(&self) -> FxHashSet<Inode>;
}

/// What a run is to do.
#[derive(Debug)]
pub struct Order<'a> {
    /// The plan.
    pub plan: &'a PlanRecord,
    /// Where its candidates are.
    pub plans: &'a Plans,
    /// Candidates a second; 0: unlimited.
    pub max_rate: u64,
    /// How long what a rule takes stays in the trash, in seconds, in the order of the plan's rules.
    pub graces: &'a [u64],
}

/// Applies a plan and returns the finished run.
pub fn apply(watched: &Watched, order: &Order<'_>, around: &dyn Surroundings, live: &LiveRun) -> v1::Run {
    let run = live.watch().borrow().run.clone();
    let progress = Progress {
        run,
        total: order.plan.candidates(),
        done: 0,
    };
    let trash = match Trash::open_or_make(watched) {
        Ok(trash) => trash,
        Err(error) => return refuse(progress, live, &error),
    };
    let runner = Runner {
        watched,
        order,
        around,
        live,
        run_id: progress.run.run_id.clone(),
        until: Seconds::now(),
        trash: &trash,
        tally: Mutex::new(progress),
        began: Instant::now(),
        taken: AtomicU64::new(0),
        stop: Mutex::new(None),
    };
    let run = runner.run();
    trash.remove_if_empty(watched);
    run
}

/// Without a trash nothing is taken.
fn refuse(mut progress: Progress, live: &LiveRun, error: &std::io::Error) -> v1::Run {
    let run = &mut progress.run;
    run.skipped.get_or_insert_default().cancelled = progress.total;
    progress.done = progress.total;
    run.error = format!("cannot open the volume's trash: {error}");
    run.finished_at = Some(super::holds::timestamp(Seconds::now()));
    run.set_state(v1::RunState::Failed);
    let run = run.clone();
    live.publish(progress);
    run
}

/// Why a run ends before its last candidate.
#[derive(Debug, Clone)]
enum Stop {
    Cancelled,
    TooManyErrors(String),
    Broken(String),
}

struct Runner<'a> {
    watched: &'a Watched,
    order: &'a Order<'a>,
    around: &'a dyn Surroundings,
    live: &'a LiveRun,
    run_id: String,
    /// Graces are counted from here.
    until: Seconds,
    trash: &'a Trash,
    tally: Mutex<Progress>,
    began: Instant,
    /// Candidates begun, for the rate limit.
    taken: AtomicU64,
    stop: Mutex<Option<Stop>>,
}

impl Runner<'_> {
    fn run(self) -> v1::Run {
        for share in self.shares() {
            if let Err(e) = self.trash.begin(&share) {
                self.halt(Stop::Broken(format!("cannot begin in the volume's trash: {e}")));
            }
        }
        let (first_empty, chunks) = (self.order.plan.first_empty_chunk, self.order.plan.chunks);
        let next = AtomicU32::new(0);
        let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, WORKERS_MAX));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let chunk = next.fetch_add(1, Relaxed);
                        if chunk >= first_empty {
                            return;
                        }
                        self.chunk(chunk);
                    }
                });
            }
        });
        (first_empty..chunks).for_each(|chunk| self.chunk(chunk));
        for share in self.shares() {
            if let Err(e) = self.trash.end(&share) {
                self.halt(Stop::Broken(format!("the trash: {e}")));
            }
        }
        self.finish()
    }

    fn chunk(&self, number: u32) {
        let id = self
            .order
            .plan
            .plan
            .as_ref()
            .map(|p| p.plan_id.as_str())
            .unwrap_or_default();
        let candidates = match self.order.plans.chunk(id, number) {
            Ok(candidates) => candidates,
            Err(e) => return self.halt(Stop::Broken(e.to_string())),
        };
        for batch in candidates.chunks(BATCH_CANDIDATES) {
            if self.should_stop() {
                self.count_unreached(batch.len());
                continue;
            }
            self.wait_for_rate(batch.len());
            self.batch(batch);
        }
    }

    /// Candidates of one batch whose grace is the same go to the same share of the trash.
    fn batch(&self, batch: &[Candidate]) {
        for part in batch.chunk_by(|a, b| a.rule == b.rule) {
            if let Err(stop) = self.part(part) {
                self.halt(stop);
                self.count_unreached(part.len());
            }
        }
    }

    /// Nothing of the part is decided if this fails.
    fn part(&self, part: &[Candidate]) -> Result<(), Stop> {
        let share = self.share(part.first().map_or(0, |c| c.rule));
        let bin = self.trash.bin(&share);
        let mut ground = bin
            .and_then(|bin| Ground::new(self.watched, bin, share.until > 0))
            .map_err(|e| Stop::Broken(format!("cannot open the volume: {e}")))?;
        // Whoever opens one of them waits from here until the end of the part.
        let leased: Vec<_> = part.iter().map(|c| ground.lease(c)).collect();
        if !self.around.sync() {
            let why = "uses may have gone unseen since the plan was made; see `purgectl status`, then make a new plan";
            return Err(Stop::Broken(why.into()));
        }
        ground.hold(self.around.held());
        let mut gone = Vec::new();
        let mut fates = Vec::with_capacity(part.len());
        for (candidate, leased) in part.iter().zip(leased) {
            if self.live.is_cancelled() {
                break;
            }
            let taken = leased.and_then(|leased| Ok((ground.verify(candidate)?, leased)));
            let fate = match taken {
                Ok((verified, leased)) => {
                    let (fate, inodes) = ground.take(&verified, &leased, &|| self.around.sync());
                    gone.extend(inodes);
                    fate
                }
                Err(fate) => fate,
            };
            fates.push((candidate, fate));
        }
        let unreached = part.len() - fates.len();
        let forgotten = self.forget(&gone);
        self.count(fates);
        self.count_unreached(unreached);
        if let Err(e) = forgotten {
            self.halt(Stop::Broken(e.to_string()));
        }
        Ok(())
    }

    /// Where in the trash the candidates of a rule go.
    fn share(&self, rule: u16) -> Share {
        let grace = self.order.graces.get(usize::from(rule)).copied().unwrap_or(0);
        let end = self.until.plus(grace).unix();
        Share {
            run: self.run_id.clone(),
            until: if grace == 0 {
                0
            } else {
                u64::try_from(end).unwrap_or(u64::MAX)
            },
            open: true,
        }
    }

    fn shares(&self) -> Vec<Share> {
        let rules = u16::try_from(self.order.graces.len()).unwrap_or(u16::MAX).max(1);
        let mut all: Vec<Share> = (0..rules).map(|rule| self.share(rule)).collect();
        all.sort_unstable_by_key(|s| s.until);
        all.dedup();
        all
    }

    /// The agent's own removals are not in the event stream it reads: it tells the index itself.
    fn forget(&self, gone: &[Inode]) -> Result<(), StoreError> {
        self.watched.index.write().remove(gone)
    }

    fn count(&self, fates: Vec<(&Candidate, Fate)>) {
        let mut tally = self.tally.lock();
        let Progress { run, total, done } = &mut *tally;
        for (candidate, fate) in fates {
            *done += 1;
            match fate {
                Fate::Deleted => {
                    let deleted = run.deleted.get_or_insert_default();
                    deleted.bytes = deleted.bytes.saturating_add(candidate.size);
                    match candidate.shape {
                        Shape::File => deleted.files += 1,
                        Shape::Tree | Shape::EmptyDirectory => deleted.directories += 1,
                    }
                }
                Fate::Trashed => {
                    let trashed = run.trashed.get_or_insert_default();
                    trashed.bytes = trashed.bytes.saturating_add(candidate.size);
                    match candidate.shape {
                        Shape::File => trashed.files += 1,
                        Shape::Tree | Shape::EmptyDirectory => trashed.directories += 1,
                    }
                }
                Fate::Skipped(why) => {
                    let skipped = run.skipped.get_or_insert_default();
                    let counter = match why {
                        Skip::Accessed => &mut skipped.accessed,
                        Skip::Changed => &mut skipped.changed,
                        Skip::Held => &mut skipped.held,
                        Skip::Gone => &mut skipped.gone,
                        Skip::Hardlinked => &mut skipped.hardlinked,
                        Skip::Open => &mut skipped.open,
                        Skip::Locked => &mut skipped.locked,
                    };
                    *counter += 1;
                }
                Fate::Failed(error) => {
                    run.failed_total += 1;
                    if run.failed.len() < FAILURES_NAMED_MAX {
                        let mut path = self.watched.path.as_os_str().as_encoded_bytes().to_vec();
                        path.push(b'/');
                        path.extend(candidate.path());
                        run.failed.push(v1::Failure {
                            path,
                            error: error.to_string(),
                        });
                    }
                }
            }
        }
        let limit = self.order.plan.max_errors * *total as f64;
        let too_many = run.failed_total > ERRORS_TOLERATED && run.failed_total as f64 > limit;
        let reason = too_many.then(|| {
            format!(
                "stopped: more than {:.0}% of the candidates failed (max_errors); see `failed` for why",
                self.order.plan.max_errors * 100.0
            )
        });
        run.seconds = self.began.elapsed().as_secs_f64();
        let progress = tally.clone();
        drop(tally);
        self.live.publish(progress);
        if let Some(reason) = reason {
            self.halt(Stop::TooManyErrors(reason));
        }
    }

    fn count_unreached(&self, count: usize) {
        let mut tally = self.tally.lock();
        tally.done += count as u64;
        tally.run.skipped.get_or_insert_default().cancelled += count as u64;
    }

    fn halt(&self, why: Stop) {
        self.stop.lock().get_or_insert(why);
    }

    fn should_stop(&self) -> bool {
        if self.live.is_cancelled() {
            self.halt(Stop::Cancelled);
        }
        self.stop.lock().is_some()
    }

    fn wait_for_rate(&self, count: usize) {
        let before = self.taken.fetch_add(count as u64, Relaxed);
        if self.order.max_rate == 0 {
            return;
        }
        let due = Duration::from_secs_f64(before as f64 / self.order.max_rate as f64);
        while self.began.elapsed() < due && !self.live.is_cancelled() {
            let left = due.saturating_sub(self.began.elapsed());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn finish(self) -> v1::Run {
        let mut progress = self.tally.into_inner();
        let run = &mut progress.run;
        // A chunk that could not be read leaves candidates that nobody touched: they are counted all the same.
        let unread = progress.total.saturating_sub(progress.done);
        run.skipped.get_or_insert_default().cancelled += unread;
        progress.done = progress.total;
        run.deleted.get_or_insert_default();
        run.seconds = self.began.elapsed().as_secs_f64();
        run.finished_at = Some(super::holds::timestamp(Seconds::now()));
        let state = match self.stop.into_inner() {
            Some(Stop::Broken(why)) => {
                run.error = why;
                v1::RunState::Failed
            }
            Some(Stop::TooManyErrors(why)) => {
                run.error = why;
                v1::RunState::Partial
            }
            Some(Stop::Cancelled) => v1::RunState::Cancelled,
            None if run.skipped.is_some_and(|s| s.cancelled > 0) => v1::RunState::Cancelled,
            None if run.failed_total > 0 => v1::RunState::Partial,
            None => v1::RunState::Completed,
        };
        run.set_state(state);
        let run = progress.run.clone();
        self.live.publish(progress);
        run
    }
}
