//! The queue of an earlier process that watched the volume in another way, or asked for other events: it is read to its end as soon as the new
//! way is told of every use.
//!
//! ```text
//!   earlier process: its queue ─────── kept, and still told ───────┐
//!   this process:               the new way is armed, and waits    │
//!                               reads the old queue to its end <───┘ and lets it go
//!                               reads the new one ──────────────────────────────────>
//! ```
//! Each use is told by the one or by the other, so that a change of ways is no gap.
//!
//! What may never happen: a queue that is let go, and something that it told is neither recorded nor a gap. So as long as one lies in keeping it
//! is read, also where the new way has a queue of its own there: a process that was killed in between has left both.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Watched;
use super::error::CollectError;
use super::fanotify::Wish;
use super::source::{Armed, Barrier, Profile, Since, Watching};
use super::tree::Tree;
use super::{descriptors, fanotify};
use purge_base::handover::{self, Handover};
use purge_model::Seconds;

/// What waits in an old queue is read within this time, or the rest of it is a gap: nothing is recorded meanwhile.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// And what it told of names is looked at for so long; a scan looks at the rest.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// What earlier processes left of a volume.
#[derive(Debug, Default)]
pub(super) struct Former {
    queues: Vec<Box<dyn Armed>>,
    /// Some of it cannot be read.
    is_broken: bool,
}

impl Former {
    /// What is left of this volume and not taken over by now.
    pub fn of(wish: &Wish, volume: &str, beside: &Path, handover: &mut Handover) -> Self {
        let mut all = Self::default();
        for name in handover.names(&format!("{volume}."), handover::QUEUE) {
            match one(wish, (volume, &name), beside, handover) {
                Ok(Some(queue)) => all.queues.push(queue),
                // Of another volume, whose name begins like this one's.
                Ok(None) if is_anothers(volume, &name) => {}
                read => {
                    let why = read.err().map(|error| error.to_string());
                    let error = why.unwrap_or_else(|| "its kind is not known".into());
                    tracing::warn!(volume, queue = name, %error, "what an earlier process was told, which watched in another way, cannot be read");
                    handover.claim(&name);
                    handover::release(name.strip_suffix(handover::QUEUE).unwrap_or(&name));
                    all.is_broken = true;
                }
            }
        }
        all
    }

    /// What is armed now, with this before it.
    pub fn before(self, armed: Box<dyn Armed>) -> Box<dyn Armed> {
        match self.queues.is_empty() && !self.is_broken {
            true => armed,
            false => Box::new(After { former: self, armed }),
        }
    }
}

fn one(
    wish: &Wish,
    of: (&str, &str),
    beside: &Path,
    handover: &mut Handover,
) -> Result<Option<Box<dyn Armed>>, CollectError> {
    if let Some(queue) = fanotify::Armed::of_another(wish, of, beside, handover)? {
        return Ok(Some(Box::new(queue)));
    }
    let queue = descriptors::Armed::of_another(wish, of, beside, handover)?;
    Ok(queue.map(|queue| Box::new(queue) as Box<dyn Armed>))
}

/// Whether a queue that is none of the known ones of this volume is another volume's: names of volumes may have dots, and the kind of a queue
/// follows the last of them.
fn is_anothers(volume: &str, name: &str) -> bool {
    let rest = name.strip_prefix(volume).and_then(|rest| rest.strip_prefix('.'));
    let kind = rest.and_then(|rest| rest.strip_suffix(handover::QUEUE));
    kind.is_none_or(|kind| kind.contains('.'))
}

/// An armed source, and queues that are to be read before its own.
#[derive(Debug)]
struct After {
    former: Former,
    armed: Box<dyn Armed>,
}

pub(crate) type OnError = Arc<Mutex<Box<dyn Fn(CollectError) + Send>>>;

pub(crate) fn tell(on_error: &OnError) -> Box<dyn Fn(CollectError) + Send> {
    let on_error = Arc::clone(on_error);
    Box::new(move |error| on_error.lock()(error))
}

impl Armed for After {
    fn profile(&self) -> Profile {
        self.armed.profile()
    }

    fn since(&self) -> Since {
        let since = self.armed.since();
        let is_told = since.nothing_missed || !self.former.queues.is_empty();
        Since {
            nothing_missed: is_told && !self.former.is_broken,
            ..since
        }
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        self.armed.tree()
    }

    fn run(
        self: Box<Self>,
        watched: &Arc<Watched>,
        window_end: Seconds,
        on_error: Box<dyn Fn(CollectError) + Send>,
    ) -> Result<Box<dyn Watching>, CollectError> {
        let on_error: OnError = Arc::new(Mutex::new(on_error));
        for queue in self.former.queues {
            if let Err(error) = read_to_its_end(queue, watched, window_end, &on_error) {
                tell(&on_error)(CollectError::Former(error.to_string()));
            }
        }
        self.armed.run(watched, window_end, tell(&on_error))
    }
}

fn read_to_its_end(
    queue: Box<dyn Armed>,
    watched: &Arc<Watched>,
    window_end: Seconds,
    on_error: &OnError,
) -> Result<(), CollectError> {
    let (tree, profile) = (queue.tree(), queue.profile());
    let reading = queue.run(watched, window_end, tell(on_error))?;
    let is_read = reading.barrier(READ_WITHIN);
    // Names are looked at, or a scan looks.
    reading.sync_or_give_up(SETTLED_WITHIN);
    reading.end();
    if is_read != Barrier::Passed {
        return Err(CollectError::kernel("read all of it in time")(
            std::io::ErrorKind::TimedOut.into(),
        ));
    }
    if let Some(tree) = tree {
        watched.use_what_was_unwatched(&tree)?;
    }
    reading.release();
    let (collector, mode) = (profile.kind.word(), profile.mode.word());
    tracing::info!(root = %watched.path.display(), collector, mode, "what an earlier process was told is read: it watched in another way");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_leaves_the_queues_of_those_whose_names_begin_like_its_own() {
        for name in [
            "scratch.old.p.events",
            "scratch.old.fd.dirs.events",
            "scratches.p.events",
        ] {
            assert!(is_anothers("scratch", name), "{name}");
        }
        assert!(!is_anothers("scratch", "scratch.unheard-of.events"));
    }
}
