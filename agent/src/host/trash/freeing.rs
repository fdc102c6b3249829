//! Frees what runs leave in the trash when its time is over, or when the volume needs the space.
//!
//! No run waits for that, however much it is: a share is claimed, and the trash itself is held for a moment only.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use super::stuck::Stuck;
use super::{TrashKeeper, heading_of};
use crate::host::HostError;
use crate::volume::claimed::Doing;
use crate::volume::{State, Volume};
use crate::work::Outcome;
use purge_base::clock;
use purge_collect::collector::Barrier;
use purge_model::{Kind, Seconds, Totals};
use purge_removal::audit::{self, Event, Lines};
use purge_removal::runs::Run;
use purge_removal::trash::doubt::Doubt;
use purge_removal::trash::freeing::{Ended, Freer, Rest};
use purge_removal::trash::{Share, TRASH, Trash};

/// Uses that wait in the kernel's queue are read within this time, or nothing is freed now.
const USES_WITHIN: Duration = Duration::from_secs(5);
/// The same while some files are leased, and openers of these wait.
const LEASED_WITHIN: Duration = Duration::from_millis(500);

impl TrashKeeper {
    /// Frees what lies in a volume's trash and whose grace has ended.
    pub fn tend_trash(&self, volume: &Volume) {
        let now = clock::judged().unix();
        self.recount_trash(volume);
        self.keep_reserve(volume);
        let due = |s: &Share| i64::try_from(s.until).is_ok_and(|until| until <= now);
        if let Err(error) = self.free_shares(volume, due, |_| false) {
            tracing::error!(volume = %volume.config.name, %error, "the trash cannot be looked after");
        }
    }

    /// Makes what a run needs of a volume that will be full by then.
    fn keep_reserve(&self, volume: &Volume) {
        let may_make = matches!(volume.condition().state, State::Tracking) && !volume.config.only_looks;
        if !may_make || volume.check_identity().is_err() {
            return;
        }
        let Some(_one) = volume.turns.trash_work.try_lock() else {
            return;
        };
        match Trash::open_or_make(&volume.watched) {
            Ok(trash) => trash.keep_reserve(),
            Err(error) => tracing::debug!(volume = %volume.config.name, %error, "the trash cannot be made"),
        }
    }

    /// Frees what lies in the trash before its grace ends, oldest first, until there is room enough.
    pub(in crate::host) fn free_trash_early(
        &self,
        volume: &Volume,
        is_enough: impl Fn(&Share) -> bool,
    ) -> io::Result<()> {
        self.free_shares(volume, |_| true, is_enough)
    }

    /// A run with a grace finds no room in the trash: frees the share that has lain there longest, if the watermark of the volume says that the
    /// trash may be freed early. Whether one was.
    pub(in crate::host) fn free_trash_for_a_run(&self, volume: &Volume) -> bool {
        let name = &volume.config.name;
        let limits = self.ground.limits();
        let mut of_volume = limits.watermarks.iter().filter(|w| w.volume == *name);
        if !of_volume.any(|w| w.free_trash) {
            return false;
        }
        let before = self.trash_of(name);
        let begun = Cell::new(0u32);
        let is_enough = |_: &Share| begun.replace(begun.get().saturating_add(1)) > 0;
        let freed = self.free_trash_early(volume, is_enough);
        if let Err(error) = &freed {
            tracing::error!(volume = %name, %error, "the trash cannot be freed for a run that finds no room there");
        }
        let is_less = self.trash_of(name) != before;
        if is_less {
            tracing::warn!(volume = %name, "the trash has no room for a run: what lay there longest was freed before its grace ended (free_trash)");
        }
        freed.is_ok() && is_less
    }

    fn free_shares(
        &self,
        volume: &Volume,
        due: impl Fn(&Share) -> bool,
        is_enough: impl Fn(&Share) -> bool,
    ) -> io::Result<()> {
        if matches!(volume.condition().state, State::Degraded(_)) && volume.check_identity().is_err() {
            return Ok(());
        }
        // It is another agent's, with what it knows of it.
        if volume.other_agent().is_some() {
            return Ok(());
        }
        let Some(trash) = Trash::open(&volume.watched)? else {
            return Ok(());
        };
        let shares = trash.shares()?;
        let (mut before, mut freed) = (None, Vec::new());
        for share in shares.iter().filter(|s| !s.open && !s.is_kept()) {
            let (doubt, ends) = self.doubt_of(volume, &trash, share);
            if !self.may_be_looked_at(volume, share, &doubt, ends) || !due(share) {
                continue;
            }
            if is_enough(share) || volume.is_stopping() {
                break;
            }
            // Another thread restores from it, or frees it.
            let Ok(_claim) = volume.turns.claimed.take(&share.name(), Doing::Freeing) else {
                continue;
            };
            // It waits for no claim of a thread that begins now.
            if volume.is_away() {
                break;
            }
            // It may have been restored, or freed, since the list was made.
            if !trash.has(share)? {
                continue;
            }
            // A use that the kernel has queued and the collector has not read yet is a use.
            if volume.barrier(USES_WITHIN) != Barrier::Passed {
                self.tell_late(volume, share);
                break;
            }
            before = before.or_else(|| self.brakes.before_freeing(volume));
            match free(volume, &trash, share, doubt) {
                Err(Ended::Stopping) => break,
                Err(Ended::Late) => {
                    self.tell_late(volume, share);
                    break;
                }
                Ok(rest) if rest.waiting > 0 && rest.stuck.stuck_total == 0 => {
                    self.waits(volume, share, ends);
                }
                other => freed.extend(self.end_share(volume, &trash, share, other)?),
            }
        }
        if let Some(before) = before {
            self.brakes.after_freeing(volume, before, &freed);
        }
        let left = trash.shares()?;
        self.stuck.keep(&volume.config.name, &left);
        self.waiting.keep(&volume.config.name, &left);
        let _one = volume.turns.trash_work.lock();
        trash.keep_reserve();
        Ok(())
    }

    fn tell_late(&self, volume: &Volume, share: &Share) {
        tracing::warn!(run = %share.run, volume = %volume.config.name, "not freed yet: uses wait to be read");
    }

    /// What of the uses of a share is not known, and when it is freed though that is so: a whole grace after the last use that may have been
    /// missed.
    fn doubt_of(&self, volume: &Volume, trash: &Trash, share: &Share) -> (Doubt, i64) {
        let run = self.runs.get(&share.run).ok();
        let began = run.as_ref().map(|run| run.started);
        let began = began.unwrap_or_else(|| trash.begun(share).unwrap_or(Seconds::MIN));
        let until = i64::try_from(share.until).unwrap_or(i64::MAX);
        let Some(unseen) = volume.unseen_since(began) else {
            return (Doubt::NONE, until);
        };
        let grace = until.saturating_sub(began.unix()).max(0);
        let ends = unseen.to.unix().saturating_add(grace).max(until);
        let doubt = Doubt {
            from: Some(unseen.from),
            traced: unseen.traced,
            moved_until: run.and_then(|run| run.finished).unwrap_or(Seconds::MAX),
            is_over: ends <= clock::judged().unix(),
        };
        (doubt, ends)
    }

    /// Whether some of a share may be freed now, as far as doubt goes.
    fn may_be_looked_at(&self, volume: &Volume, share: &Share, doubt: &Doubt, ends: i64) -> bool {
        if doubt.from.is_none() || doubt.is_over {
            self.waiting.forget(&volume.config.name, share);
            return true;
        }
        if !doubt.traced {
            self.waits(volume, share, ends);
            return false;
        }
        // What its access times tell was freed.
        !self.waiting.is_noted(&volume.config.name, share, ends)
    }

    /// Says once that what may have been used unseen stays for another grace.
    fn waits(&self, volume: &Volume, share: &Share, ends: i64) {
        if !self.waiting.note(&volume.config.name, share, ends) {
            return;
        }
        let until = audit::rfc3339(Seconds::from_unix(ends));
        tracing::warn!(
            run = %share.run, volume = %volume.config.name, until,
            "what lies in the trash may have been used while no agent was watching: it is not freed before then"
        );
        let _one = volume.turns.trash_work.lock();
        let noted = self.runs.get(&share.run).map(|mut run| {
            run.trash_until = run.trash_until.max(Some(Seconds::from_unix(ends)));
            self.runs.save(&run)
        });
        if !matches!(noted, Ok(Ok(()))) {
            tracing::debug!(run = %share.run, "no record says until when it stays");
        }
    }

    /// Until when some of the trash of a volume stays because it may have been used unseen; none: nothing does.
    pub fn trash_waits_until(&self, volume: &str) -> Option<i64> {
        self.waiting.until(volume)
    }

    /// Notes and tells what came of freeing a share: the run, once all of it is freed but for what is stuck.
    fn end_share(
        &self,
        volume: &Volume,
        trash: &Trash,
        share: &Share,
        freed: Result<Rest, Ended>,
    ) -> io::Result<Option<(Run, Totals)>> {
        let stuck = stuck_of(volume, trash, share, freed);
        // The grace of the other shares has ended as well.
        let is_known = stuck.is_some() && !self.tell_of_stuck(volume, share, stuck.as_ref());
        if is_known {
            return Ok(None);
        }
        let outcome = if stuck.is_none() {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        volume.keeping.work.freed.count(outcome);
        if stuck.is_none() {
            self.stuck.note(&volume.config.name, share, None);
            tracing::info!(run = %share.run, volume = %volume.config.name, "freed from the trash");
        }
        let more = trash
            .shares()?
            .iter()
            .any(|s| s.run == share.run && !s.is_kept() && s != share);
        let noted = self.note_freed(volume, share, (more, stuck));
        Ok(noted.unwrap_or_else(|error| {
            tracing::error!(run = %share.run, %error, "freed from the trash, and the run's record does not say so");
            None
        }))
    }

    /// Whether something new cannot be freed: it is told then.
    fn tell_of_stuck(&self, volume: &Volume, share: &Share, stuck: Option<&Stuck>) -> bool {
        let Some(stuck) = stuck else { return false };
        let name = &volume.config.name;
        let is_news = self.stuck.note(name, share, Some(stuck.clone()));
        if is_news {
            let path = crate::host::shown(&stuck.path);
            tracing::error!(run = %share.run, volume = %name, path, why = stuck.why, cure = stuck.cure, "some of the trash cannot be freed: {}", stuck.words());
        }
        is_news
    }

    /// What of the trash of a volume cannot be freed.
    pub fn stuck_in(&self, volume: &str) -> Option<Stuck> {
        self.stuck.of(volume)
    }

    /// The run, and what of it lay in the trash, once all of that is freed but for what is stuck.
    fn note_freed(
        &self,
        volume: &Volume,
        share: &Share,
        (more, stuck): (bool, Option<Stuck>),
    ) -> Result<Option<(Run, Totals)>, HostError> {
        let _one = volume.turns.trash_work.lock();
        let mut run = self.runs.get(&share.run)?;
        let mut lines = Lines::default();
        let stuck = stuck.map(|s| s.totals);
        let (now, left) = (clock::now(), run.left_in_trash());
        let left = left.minus(stuck.unwrap_or_default());
        let event = Event {
            event: "freed",
            reason: "",
            path: volume.config.path.as_os_str().as_encoded_bytes(),
            kind: Kind::Directory,
            bytes: left.bytes,
            uid: 0,
            last: None,
            rule: "",
        };
        lines.add(&audit::rfc3339(now), &heading_of(&run, volume, "agent"), &event);
        self.audit
            .write(&lines)
            .map_err(|e| HostError::Refused(e.to_string()))?;
        if !more {
            run.trash_freed.get_or_insert(now);
            run.trash_stuck = stuck;
            self.runs.save(&run)?;
        }
        Ok((!more).then_some((run, left)))
    }
}

/// Frees a share, as far as it was not used.
fn free(volume: &Volume, trash: &Trash, share: &Share, doubt: Doubt) -> Result<Rest, Ended> {
    let watched = &volume.watched;
    let freer = Freer {
        kept: trash.kept(&share.run)?,
        trashed: &watched.trashed,
        busy: watched.mounted.look(watched, Instant::now()).inodes()?,
        doubt,
        read_uses: &|| volume.barrier(LEASED_WITHIN) == Barrier::Passed,
        is_stopping: &|| volume.is_stopping(),
    };
    trash.free(share, &freer)
}

/// What of a share could not be freed; none: all of it was.
fn stuck_of(volume: &Volume, trash: &Trash, share: &Share, freed: Result<Rest, Ended>) -> Option<Stuck> {
    let (path, error) = match freed {
        Ok(rest) => rest.stuck.stuck.into_iter().next()?,
        Err(Ended::Failed(error) | Ended::Used(error)) => (share.name().into_bytes(), error),
        Err(Ended::Late | Ended::Stopping | Ended::Waits) => return None,
    };
    let totals = trash.left_of(share, &|| false).unwrap_or_default();
    let root = volume.config.path.as_os_str().as_encoded_bytes();
    let path = [root, b"/", TRASH.as_bytes(), b"/", &path].concat();
    Some(Stuck::new(totals, path, &error))
}
