//! One run: workers take the candidates of a plan batch by batch, verify, remove, count.
//!
//! Before each batch the event queue is drained, so that every use up to that moment is in the index the batch is
//! compared with. Directories that are empty only when everything else is removed come last, one after another.

mod chain;
mod copied;
mod share;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLockReadGuard};

use self::chain::{Chain, Decided};
use self::share::FullTrash;
use crate::audit::{self, Audit, Heading, Lines};
use crate::candidate::{Candidate, Part};
use crate::copying::Copier;
use crate::fate::Code;
use crate::fate::Fate;
use crate::plans::{Plan, Plans};
use crate::refusal;
use crate::run::ending::{Stop, end};
use crate::run::ledger::{Ledger, Position};
use crate::run::pace::Pace;
use crate::run::parts::Parts;
pub use crate::run::surroundings::{Seen, Surroundings, Taken};
use crate::run::tally::{self, Faults};
use crate::runs::{LiveRun, Progress, Run};
use crate::take::batch::Batch;
use crate::take::guard::Ground;
use crate::take::room::Room;
use crate::trash::dir::Trash;
use crate::trash::lanes::WORKERS_MAX;
use crate::trash::share::Share;
use purge_base::accounts::user_name;
use purge_base::clock;
use purge_base::descriptors::{Pool, Taken as Descriptors};
use purge_collect::Watched;
use purge_model::Seconds;
use purge_policy::evaluate::Shape;
use purge_sys::failure::Failure;
use purge_sys::{beneath, stat};

/// With more uses waiting than this, the index catches up before anything is leased.
const BACKLOG_MAX: u64 = 1000;
/// A process that opens a file of a batch waits until the batch ends, which the end of the next batch decides. Each of the two batches may
/// wait this long for the uses before it, and no process waits for longer than a second.
const BARRIER_MAX: Duration = Duration::from_millis(250);
/// So long is waited where nothing is leased.
const UNLEASED_MAX: Duration = Duration::from_secs(5);
/// A batch that could not wait any longer is tried again, this many times in all, and each time after a rest that is twice as long.
const TRIES: u32 = 8;
/// With this many batches given up, the rest of the run would fare no better.
const GIVEN_UP_MAX: u32 = 3;
const REST_MIN: Duration = Duration::from_millis(50);
/// Workers of a run on a file server, where each waits for answers most of the time. More would only wait for each other: the kernel lets one
/// at a time rename from one directory to another, and the answer to a rename is waited for meanwhile.
const FAR_WORKERS: u8 = 16;
/// Fewer faults than this never stop a run: one file among ten that cannot be read is no sign of a broken volume.
const ERRORS_TOLERATED: u64 = 10;

/// What a run is to do.
pub struct Order<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where its candidates are.
    pub plans: &'a Plans,
    /// Candidates a second; 0: unlimited.
    pub max_rate: u64,
    /// How long what a rule takes stays in the trash, in seconds, in the order of the plan's rules.
    pub graces: Vec<u64>,
    /// What copies what a rule takes before it is taken, in the same order; none: it goes without a copy.
    pub copiers: Vec<Option<Arc<dyn Copier>>>,
    /// Where it is written down what is done.
    pub ledger: &'a Ledger,
    /// Where it is told what was done.
    pub audit: &'a Audit,
    /// For the audit log.
    pub heading: Heading,
    /// What its batches may have open, with those of other runs.
    pub descriptors: &'a Pool,
}

/// Applies a plan and returns the finished run.
pub fn apply(watched: &Watched, order: &Order<'_>, around: &dyn Surroundings, live: &LiveRun) -> Run {
    let run = live.watch().borrow().run.clone();
    let progress = Progress {
        run,
        total: order.plan.candidates(),
        done: 0,
    };
    let alone = around.alone_in_the_trash();
    let trash = match Trash::open_or_make(watched) {
        Ok(trash) => trash,
        Err(error) => {
            let why = with_cure("cannot open the volume's trash", &error);
            return end(progress, Some(Stop::Broken(why)), live);
        }
    };
    let is_far = is_far(watched, order);
    let workers = Room::workers(
        order.descriptors.max(),
        if is_far { FAR_WORKERS } else { workers() },
    );
    let room = Room::of(order.descriptors.max(), workers.into());
    let runner = Runner {
        watched,
        workers,
        is_far,
        quiet: quiet(watched, around),
        order,
        around,
        live,
        run_id: progress.run.id.clone(),
        started: clock::now(),
        began: Instant::now(),
        trash: &trash,
        tally: Mutex::new(progress),
        faults: Mutex::default(),
        pace: Pace::begin(order.max_rate, room),
        stop: Mutex::new(None),
        renaming: Mutex::default(),
        given_up: AtomicU32::new(0),
        full: FullTrash::default(),
    };
    runner.begin(alone);
    let run = runner.run();
    let _alone = around.alone_in_the_trash();
    trash.keep_reserve();
    run
}

struct Runner<'a> {
    watched: &'a Watched,
    workers: u8,
    /// A server is asked for everything.
    is_far: bool,
    /// See [`Ground::new`].
    quiet: Option<OwnedFd>,
    order: &'a Order<'a>,
    around: &'a dyn Surroundings,
    live: &'a LiveRun,
    run_id: String,
    /// Graces are counted from here.
    started: Seconds,
    began: Instant,
    trash: &'a Trash,
    tally: Mutex<Progress>,
    faults: Mutex<Faults>,
    pace: Pace,
    stop: Mutex<Option<Stop>>,
    /// Whose turn it is to rename. The kernel lets only one at a time rename from one directory to another, and those who
    /// wait for it there burn their processor; here they sleep, and others unlink.
    renaming: Mutex<()>,
    /// Batches that were tried in vain.
    given_up: AtomicU32,
    /// Whether the trash takes no more.
    full: FullTrash,
}

/// What came of a try with a batch.
enum Tried {
    /// All of it is decided on.
    All,
    /// This many are, and for the rest there was no time.
    Some(usize, Part),
    /// Nothing is: the uses before it could not be awaited.
    Late(Part),
}

impl Runner<'_> {
    fn run(self) -> Run {
        self.watched.look_at_locks_again();
        let (first_empty, chunks) = (self.order.plan.first_empty_chunk, self.order.plan.chunks);
        let id = &self.order.plan.id;
        let files = Parts::of(self.order.plans, id, 0..first_empty);
        let work = |worker| self.work(worker, &files);
        std::thread::scope(|scope| {
            for worker in 1..self.workers {
                // Where the system gives no thread, fewer do the work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, move || work(worker));
            }
            work(0);
        });
        self.work(0, &Parts::of(self.order.plans, id, first_empty..chunks));
        self.tell_of_full_trash();
        for share in self.shares() {
            if let Err(e) = self.trash.end(&share) {
                self.halt(Stop::Broken(format!("the trash: {e}")));
            }
        }
        let mut progress = self.tally.into_inner();
        let locks = self.watched.locks_since(self.began).into_iter();
        progress.run.locked_by = locks.filter(|note| note.counts).map(|note| note.words).collect();
        progress.run.seconds = self.pace.elapsed().as_secs_f64();
        let stop = self.stop.into_inner();
        if matches!(stop, Some(Stop::TooManyErrors)) {
            // Only now have all workers counted, and the names of the owners may take a while.
            progress.run.error = Some(format!(
                "stopped: more than {:.0}% of the candidates failed (max_errors): {}",
                self.order.plan.max_errors * 100.0,
                self.faults.into_inner().describe(user_name)
            ));
        }
        end(progress, stop, self.live)
    }

    fn work(&self, worker: u8, parts: &Parts<'_>) {
        let mut chain = Chain::of(worker);
        loop {
            let (at, part) = match parts.next(&self.pace) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(e) => {
                    self.halt(Stop::Broken(e.to_string()));
                    continue;
                }
            };
            if self.should_stop() {
                self.count_unreached(part.len());
                continue;
            }
            if self.full.is_noted() {
                // Freeing may take long: nothing is leased meanwhile.
                self.end_chain(&mut chain);
                self.make_room();
            }
            self.pace.wait(part.len(), || self.live.is_cancelled());
            let rule = part.first().map_or(0, |c| c.rule);
            let copier = self.order.copiers.get(usize::from(rule)).cloned().flatten();
            let taken = match copier {
                Some(copier) => self.copy_and_take(&*copier, (at, part), &mut chain),
                None => self.batch(at, part, &mut chain),
            };
            if let Err(stop) = taken {
                self.halt(stop);
            }
        }
        self.end_chain(&mut chain);
    }

    /// Candidates whose grace is the same go to the same share of the trash. Every one of them is counted, also if this fails.
    fn batch<'r>(&'r self, at: Position, part: Part, chain: &mut Chain<'r>) -> Result<(), Stop> {
        let count = part.len();
        if let Err(error) = self.order.ledger.begun(at, count) {
            self.count_unreached(count);
            return Err(ledger_broken(error));
        }
        let (mut at, mut part, mut tries) = (at, part, 0);
        loop {
            part = match self.try_batch(at, part, chain)? {
                Tried::All => return Ok(()),
                Tried::Some(count, rest) => {
                    tries = 0;
                    at = at.plus(count);
                    rest
                }
                // A process fills the queue faster than it is read. Nothing is leased meanwhile.
                Tried::Late(part) => {
                    tries += 1;
                    part
                }
            };
            self.end_chain(chain);
            if self.should_stop() || tries == TRIES {
                break;
            }
            if tries > 0 {
                std::thread::sleep(REST_MIN.saturating_mul(1 << (tries - 1).min(16)));
            }
        }
        let count = part.len();
        self.count_unreached(count);
        let given_up = self.given_up.fetch_add(1, Relaxed).saturating_add(1);
        if given_up < GIVEN_UP_MAX || self.should_stop() {
            tracing::warn!(run = %self.run_id, count, "events come faster than they can be read: these stay for another run");
            return Ok(());
        }
        let why = "stopped: events come faster than they can be read, so that the agent could not say what is in use; apply another plan later";
        Err(Stop::Broken(why.into()))
    }

    /// One try.
    fn try_batch<'r>(&'r self, at: Position, part: Part, chain: &mut Chain<'r>) -> Result<Tried, Stop> {
        if let Some(why) = self.around.other_agent() {
            self.count_unreached(part.len());
            return Err(Stop::Broken(why));
        }
        let whole = part.clone();
        let descriptors = self.descriptors(&part, chain);
        let share = self.share(part.first().map_or(0, |c| c.rule));
        let mut ground = self
            .ground(&share, chain)
            .inspect_err(|_| self.count_unreached(whole.len()))?;
        ground.directories_max = Room::directories(descriptors.count());
        // Those who open one of them wait until the batch's end, and so not for what others have queued before.
        if self.around.backlog() > BACKLOG_MAX {
            self.end_chain(chain);
            if self.around.sync(UNLEASED_MAX) == Seen::Late {
                return Ok(Tried::Late(part));
            }
        }
        // Directories that go as a whole take long to compare: the files of the batch before are let go first.
        if part.first().is_some_and(|c| c.shape == Shape::Tree) {
            self.end_chain(chain);
            // They are moved before the barrier.
            ground.mounted = self.watched.mounted.look(self.watched, Instant::now());
        }
        if !ground.keeps() {
            let noted = self
                .order
                .ledger
                .origins(at, &ground.origins(&part, &mut chain.recent));
            noted
                .inspect_err(|_| self.count_unreached(whole.len()))
                .map_err(ledger_broken)?;
        }
        // A process that opens one of them waits from here until the end of the batch.
        let began = Instant::now();
        let mut batch = Batch::begin(ground, part);
        let decided = match self.around.sync(BARRIER_MAX) {
            Seen::Late => {
                let rest = whole.len().saturating_sub(batch.len());
                self.give_back(batch)
                    .inspect_err(|_| self.count_unreached(rest))?;
                return Ok(Tried::Late(whole));
            }
            _ if self.live.is_cancelled() => Err(Stop::Cancelled),
            Seen::Everything => {
                chain.note_seen();
                Ok(self.no_new_holds(chain))
            }
            Seen::NotEverything => {
                let why = "uses may have been missed since the plan was made; see `purgectl status`, then make a new plan";
                Err(Stop::Broken(why.into()))
            }
        };
        let decided = decided.and_then(|no_new_holds| {
            let mounted = self.watched.mounted.look(self.watched, Instant::now());
            let kept = (self.around.held(), mounted);
            // Who waits for a server burns no processor, and what belongs to a rename besides can go on beside those of others.
            let own = Mutex::default();
            let turn = if self.is_far { &own } else { &self.renaming };
            batch.take(kept, turn, chain.last_batch());
            let noted = self.order.ledger.decided(at, batch.decisions());
            noted.map_err(ledger_broken).map(|()| no_new_holds)
        });
        let (count, rest) = (batch.len(), whole.split(batch.len()).1);
        self.pace.adapt(count, began.elapsed());
        let no_new_holds = match decided {
            Ok(no_new_holds) => no_new_holds,
            Err(stop) => {
                self.count_unreached(rest.len());
                self.abandon(batch);
                return Err(stop);
            }
        };
        self.end_chain(chain);
        // With a rate it is long until there is another.
        let ends_here = self.order.max_rate > 0;
        chain.last = Some(Decided {
            at,
            batch,
            is_seen: false,
            _no_new_holds: no_new_holds,
            _descriptors: descriptors,
        });
        if ends_here {
            self.end_chain(chain);
        }
        Ok(match rest.is_empty() {
            true => Tried::All,
            false => Tried::Some(count, rest),
        })
    }

    /// What these may have open. To wait for it nothing else is held.
    fn descriptors<'r>(&'r self, part: &Part, chain: &mut Chain<'r>) -> Descriptors<'r> {
        let (pool, needed) = (self.order.descriptors, self.pace.room.needed(part));
        pool.try_take(needed).unwrap_or_else(|| {
            self.end_chain(chain);
            pool.take(needed)
        })
    }

    /// Everything of a batch is at its place again, and a process that waits for a file of it has that file.
    fn give_back(&self, batch: Batch<'_>) -> Result<(), Stop> {
        self.pace.adapt(batch.len(), BARRIER_MAX);
        let (part, fates) = batch.abandon();
        let is_lost =
            |fate: &Option<Fate>| matches!(fate, Some(Fate::Failed(_) | Fate::Deleted | Fate::Trashed));
        if !fates.iter().any(is_lost) {
            return Ok(());
        }
        self.count_abandoned(&part, fates);
        let why =
            "events came faster than they could be read, and not everything could be put back: see `failed`";
        Err(Stop::Broken(why.into()))
    }

    fn abandon(&self, batch: Batch<'_>) {
        let (part, fates) = batch.abandon();
        self.count_abandoned(&part, fates);
    }

    fn count_abandoned(&self, part: &Part, fates: Vec<Option<Fate>>) {
        let known = part.iter().zip(fates);
        let fates: Vec<_> = known.filter_map(|(c, f)| Some((c, f?))).collect();
        self.count(&fates);
        self.count_unreached(part.len().saturating_sub(fates.len()));
    }

    /// A caller that adds a hold waits for the batches before it, and so these must come to an end.
    fn no_new_holds<'r>(&'r self, chain: &mut Chain<'r>) -> RwLockReadGuard<'r, ()> {
        let at_once = self.around.no_new_holds_at_once();
        at_once.unwrap_or_else(|| {
            self.end_chain(chain);
            self.around.no_new_holds()
        })
    }

    fn ground<'r>(&'r self, share: &Share, chain: &Chain<'r>) -> Result<Ground<'r>, Stop> {
        let broken = |e| Stop::Broken(with_cure("cannot open the volume", &e));
        let lanes = match share.until {
            0 => Some(self.lanes(share, chain).map_err(broken)?),
            // What is kept takes the place of nothing.
            _ => None,
        };
        let bin = self.trash.bin(share).map_err(broken)?;
        let mut ground = Ground::new(self.watched, bin, lanes, self.quiet.as_ref()).map_err(broken)?;
        ground.evaluated = self.order.plan.evaluated();
        ground.leases_of_a_tree = self.pace.room.leases_of_a_tree();
        Ok(ground)
    }

    fn tell(&self, fates: &[(&Candidate, Fate)]) -> io::Result<()> {
        let mut lines = Lines::default();
        let time = audit::rfc3339(clock::now());
        let (heading, rules) = (&self.order.heading, &self.order.plan.rules);
        for (candidate, fate) in fates {
            let error = match fate {
                Fate::Failed(e) => e.to_string(),
                _ => String::new(),
            };
            lines.add_fate(&time, (heading, rules), candidate, (Code::of(fate), &error));
        }
        self.order.audit.write(&lines)
    }

    fn count(&self, fates: &[(&Candidate, Fate)]) {
        let taken: Vec<Taken<'_>> = fates
            .iter()
            .filter(|(_, fate)| matches!(fate, Fate::Deleted | Fate::Trashed))
            .map(|(candidate, fate)| Taken {
                candidate,
                until: match fate {
                    Fate::Trashed => Some(self.share(candidate.rule).until),
                    _ => None,
                },
            })
            .collect();
        if !taken.is_empty() {
            self.around.taken(&taken);
        }
        let mut tally = self.tally.lock();
        let Progress { run, total, done } = &mut *tally;
        let mut faults = self.faults.lock();
        for (candidate, fate) in fates {
            *done = done.saturating_add(1);
            tally::count(run, candidate, Code::of(fate));
            if let Fate::Failed(error) = fate {
                let words = error.to_string();
                if self.is_of_full_trash(candidate, error) {
                    self.full.note(error);
                } else if refusal::is_fault(error) {
                    faults.count(candidate.uid, &words);
                }
                tally::name_failure(run, candidate.path_below(&self.watched.path), words);
            }
        }
        let limit = self.order.plan.max_errors * *total as f64;
        let too_many = faults.total > ERRORS_TOLERATED && faults.total as f64 > limit;
        drop(faults);
        run.seconds = self.pace.elapsed().as_secs_f64();
        let progress = tally.clone();
        drop(tally);
        self.live.publish(progress);
        if too_many {
            self.halt(Stop::TooManyErrors);
        }
    }

    fn count_unreached(&self, count: usize) {
        let mut tally = self.tally.lock();
        tally.done += count as u64;
        tally::count_unreached(&mut tally.run, count as u64);
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
}

/// Whether a server is asked for what lies there. Only where everything stays in the trash: of lanes there are no more than for local workers.
fn is_far(watched: &Watched, order: &Order<'_>) -> bool {
    let keeps_all = order.graces.iter().all(|grace| *grace > 0);
    keeps_all && stat::mount(&watched.path).is_ok_and(|mount| mount.may_be_shared())
}

fn workers() -> u8 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u8::try_from(processors).unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
}

/// The volume through a mount without events: every file is opened once, and each open and close would be an event of the run's own.
fn quiet(watched: &Watched, around: &dyn Surroundings) -> Option<OwnedFd> {
    let mount = watched.open_root().and_then(beneath::mount_apart);
    let quiet = mount.and_then(|mount| around.hide_mount(mount.as_fd()).map(|()| mount));
    quiet
        .inspect_err(|error| tracing::debug!(%error, "the run hears of everything it does itself"))
        .ok()
}

/// What failed on the volume, and what mends it.
fn with_cure(what: &str, error: &io::Error) -> String {
    match Failure::of(error) {
        Failure::Other => format!("{what}: {error}"),
        failure => format!("{what}: {error}; {}", failure.cure_of_volume()),
    }
}

fn ledger_broken(error: io::Error) -> Stop {
    let cure = Failure::of(&error).cure_of_state();
    Stop::Broken(format!(
        "the run's ledger in the state directory cannot be written: {error}; {cure}"
    ))
}
