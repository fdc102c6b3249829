//! What is done without while too many events wait: names.
//!
//! The kernel takes one lock for each event that is made or read. So users on several processors make events of names faster than one
//! thread reads them, and letting these go after they were read does not suffice: the agent asks the source to report none for a while. Uses
//! are read and recorded all the time.

use std::time::{Duration, Instant};

use super::backlog::Verdict;
use super::{CollectError, Feed, Reader};
use purge_base::clock;

/// It is asked how many events wait this often: the kernel counts them one by one.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// For this long no names are reported after too many events waited.
const LEFT_OUT_FOR: Duration = Duration::from_secs(10);

/// What is known of the events that wait, and of names that are left out.
#[derive(Debug, Default)]
pub(super) struct Spare {
    asked: Option<Instant>,
    /// Since when the source reports no names.
    left_out: Option<Instant>,
}

impl Spare {
    /// Whether names are followed.
    pub fn follows_names(&self) -> bool {
        self.left_out.is_none()
    }
}

impl<F: Feed> Reader<F> {
    /// How many events wait, if all of them must be let go.
    pub(super) fn too_many(&mut self) -> Option<u64> {
        if self
            .spare
            .asked
            .is_some_and(|asked| asked.elapsed() < ASKED_EVERY)
        {
            return None;
        }
        self.spare.asked = Some(Instant::now());
        let queued = self.feed.queued();
        (self.backlog.judge(queued) == Verdict::LetAllGo).then_some(queued)
    }

    /// Has names left out or reported, as the number of events that wait demands.
    ///
    /// # Errors
    /// When names are not reported again. It is tried with each pass; uses are recorded meanwhile.
    pub(super) fn spare_names(&mut self) -> Result<(), CollectError> {
        match (self.backlog.lets_names_go(), self.spare.left_out) {
            (false, None) => return Ok(()),
            (true, left_out) => {
                self.namespace.give_up();
                self.names_lost.get_or_insert_with(clock::now);
                if left_out.is_none() {
                    // Where that fails, names are read and let go.
                    let root = self.watched.open_root();
                    let _ = root.and_then(|root| self.feed.leave_names_out(&root));
                }
                self.spare.left_out = Some(Instant::now());
            }
            (false, Some(since)) if since.elapsed() >= LEFT_OUT_FOR => {
                let root = self.watched.open_root();
                let reported = root.and_then(|root| self.feed.report_names(&root));
                reported.map_err(CollectError::kernel("watch names again"))?;
                self.spare.left_out = None;
            }
            (false, Some(_)) => {}
        }
        // Nothing was reported of changed metadata.
        self.changers.note_unknown();
        Ok(())
    }
}
