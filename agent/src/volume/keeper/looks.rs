//! What may be wrong around the index, looked at every second: the mount, the collector, the journal, the clock.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use purge_proto::shown;

use super::Rounds;
use crate::volume::coverage::Cause;
use crate::volume::{Volume, found_at, opening};
use purge_base::clock;
use purge_base::clock::Step;
use purge_collect::precision::Windows;
use purge_collect::source::{Barrier, Mode};
use purge_scan::Extent;
use purge_sys::failure::Defect;
use purge_sys::stat;

/// A collector that made no error for so long works again.
const WELL_AFTER: Duration = Duration::from_secs(3);
/// A file system answers within so long, however busy it is.
const UNANSWERED: Duration = Duration::from_secs(60);

impl Volume {
    /// Tells whether the volume was unmounted. When it is back, another of its name is opened ([`crate::host::returner`]).
    pub(super) fn look_for_the_volume(&self, last: &mut Rounds) {
        let lost = self.presence.lock().is_lost(|| self.source.is_watching());
        if !matches!(lost, Ok(true)) {
            if lost.is_ok() {
                last.present = clock::now();
            }
            return self.look_for_the_root(lost.err());
        }
        let mut health = self.health.lock();
        if health.away.is_none() {
            tracing::error!(volume = %self.config.name, "the volume was unmounted");
            health.away = Some(self.unmounted());
            health.record.away_since = last.present.0;
            health.urgent = true;
        }
    }

    /// Whether something else lies at the volume's path though it is still mounted: its files are watched, and none can be removed.
    fn look_for_the_root(&self, blind: Option<std::io::Error>) {
        let unknown = |e: std::io::Error| {
            let path = self.config.path.display();
            format!(
                "nothing tells whether {path} is still watched: inotify gives no watch, and the marks in /proc cannot be read ({e})"
            )
        };
        let hidden = self.check_identity().err().map(|e| e.to_string());
        let hidden = hidden.or(blind.map(unknown));
        let mut health = self.health.lock();
        if health.hidden == hidden {
            return;
        }
        match &hidden {
            Some(words) => tracing::error!(volume = %self.config.name, "{words}"),
            None => tracing::info!(volume = %self.config.name, "the volume lies at its path again"),
        }
        health.hidden = hidden;
        // A scan that found the other one has failed meanwhile.
        health.missed_names = true;
    }

    /// The volume is not mounted, and not watched.
    pub fn is_away(&self) -> bool {
        self.health.lock().away.is_some()
    }

    fn unmounted(&self) -> String {
        let path = self.config.path.display();
        format!("{path} was unmounted; mount it, and it is watched again")
    }

    /// The volume was away and lies there again, the same as before. Of another that lies there instead its state tells.
    pub fn is_back(&self) -> bool {
        if !self.is_away() {
            return false;
        }
        let known = self.watched.journal.identity();
        let found = found_at(&self.config.path);
        if found.is_some_and(|found| known.is(found) || opening::is_adopted(&self.config, known, found)) {
            return true;
        }
        // Where nothing is mounted, the directory below is no other volume.
        let is_other = found.is_some() && stat::path(&self.config.path).is_ok_and(|root| root.mount_root);
        let words = match is_other {
            true => self.replaced().to_string(),
            false => self.unmounted(),
        };
        let mut health = self.health.lock();
        if health.away.as_ref() != Some(&words) {
            tracing::error!(volume = %self.config.name, "{words}");
            health.away = Some(words);
        }
        false
    }

    /// A collector that has made no error for a while works again; what it may have missed is a gap.
    pub(super) fn judge_collector(&self) {
        let mut health = self.health.lock();
        let well = health
            .collector_trouble
            .as_ref()
            .is_some_and(|t| t.last.elapsed() >= WELL_AFTER);
        if !well {
            return;
        }
        if let Some(trouble) = health.collector_trouble.take() {
            let now = clock::now();
            health.record.add_gap(
                trouble.since,
                now,
                Cause::Collector,
                self.config.gap_tolerance,
                false,
            );
            health.urgent = true;
            tracing::info!(volume = %self.config.name, "events are recorded again");
            drop(health);
            self.request_scan(Extent::Volume);
        }
    }

    /// Writes into the log when the file system of the volume takes no changes, and when it does again.
    pub(super) fn tell_of_the_file_system(&self) {
        match self.file_system.news() {
            Some(Some(defect)) => {
                let cure = defect.failure.cure_of_volume();
                tracing::error!(volume = %self.config.name, cure, "{}", defect.words);
            }
            Some(None) => tracing::info!(volume = %self.config.name, "the file system takes changes again"),
            None => {}
        }
    }

    pub(super) fn judge_journal(&self) {
        self.watched.journal.probe();
        let trouble = self.watched.journal.trouble().map(|defect| {
            let (why, cure) = (defect.words, defect.failure.cure_of_state());
            Defect {
                failure: defect.failure,
                words: format!("the journal of uses cannot be written: {why}; {cure}"),
            }
        });
        let mut health = self.health.lock();
        if health.journal_trouble != trouble {
            match &trouble {
                Some(defect) => tracing::error!(volume = %self.config.name, "{}", defect.words),
                None => tracing::info!(volume = %self.config.name, "the journal can be written again"),
            }
            health.journal_trouble = trouble;
        }
    }

    /// Opens the volume's root, of which the kernel must tell. Where it does not, a mark was lost in a way that nothing else shows: what
    /// happened since it was heard last was seen by no process.
    pub(super) fn listen(&self, last: &mut Rounds) {
        /// A busy collector is not deaf.
        const WAITS: Duration = Duration::from_secs(1);
        if self.health.lock().away.is_some() || self.profile().mode == Mode::Scans {
            return;
        }
        let counters = &self.watched.counters;
        let events = || (counters.events.load(Relaxed), counters.own.load(Relaxed));
        let (before, began) = (events(), clock::now());
        if self.watched.open_mount().is_err() || self.barrier(WAITS) != Barrier::Passed {
            return;
        }
        let is_heard = events() != before;
        let was_deaf = self.health.lock().deaf.is_some();
        if is_heard && !was_deaf {
            last.heard = began;
            return;
        }
        let mut health = self.health.lock();
        let tolerance = self.config.gap_tolerance;
        let now = clock::now();
        health
            .record
            .add_gap(last.heard, now, Cause::Collector, tolerance, false);
        (health.urgent, health.missed_names) = (true, true);
        match is_heard {
            true => {
                tracing::info!(volume = %self.config.name, "the kernel tells of what happens again");
                health.deaf = None;
                last.heard = began;
            }
            false => {
                let words = "the kernel tells nothing of what happens in the volume, not even of what the agent does itself: it is asked to watch \
                             once more";
                if !was_deaf {
                    tracing::error!(volume = %self.config.name, "{words}");
                }
                health.deaf = Some(words.into());
                drop(health);
                if let Err(error) = self.source.watch_again() {
                    tracing::error!(volume = %self.config.name, %error, "the volume cannot be watched again");
                }
            }
        }
    }

    /// A scan that waits for a file system that does not answer says for what.
    pub(super) fn judge_scan(&self) {
        let progress = self.health.lock().scan.as_ref().map(|(p, _)| Arc::clone(p));
        let waits = progress.and_then(|progress| progress.unanswered(UNANSWERED));
        let words = waits.map(|(dir, name, waits)| {
            let below = self.watched.index.read().dirs().path(dir).unwrap_or_default();
            let mut path = self.config.path.as_os_str().as_bytes().to_vec();
            for part in [below, name].into_iter().filter(|part| !part.is_empty()) {
                path.push(b'/');
                path.extend_from_slice(&part);
            }
            let path = shown::cut(&path, shown::LOGGED_MAX);
            format!(
                "the scan has waited for {} for {} s: the file system there does not answer (dmesg)",
                String::from_utf8_lossy(&path),
                waits.as_secs()
            )
        });
        let mut health = self.health.lock();
        match (&health.unanswered, &words) {
            (None, Some(words)) => tracing::error!(volume = %self.config.name, "{words}"),
            (Some(_), None) => tracing::info!(volume = %self.config.name, "the scan goes on"),
            _ => {}
        }
        health.unanswered = words;
    }

    /// Takes over a change of the agent's time.
    pub(super) fn follow_clock(&self, last: &mut Rounds) {
        let change = self.home.clock.tick();
        if change.number == last.clock_change {
            return;
        }
        last.clock_change = change.number;
        let now = clock::now();
        let name = &self.config.name;
        match change.step {
            Step::None => {}
            Step::Ahead(by) => {
                let seconds = by / 1_000_000_000;
                tracing::warn!(volume = %name, seconds, "the wall clock was set forward: ages do not follow it");
            }
            Step::Corrected(_) => {
                tracing::warn!(volume = %name, "the wall clock was corrected after boot: everything counts as used now");
                let mut health = self.health.lock();
                let from = last.present.min(now);
                health.record.add_gap(from, now, Cause::ClockJump, 0, true);
                health.urgent = true;
            }
            Step::Back(_) => {
                tracing::warn!(volume = %name, "the wall clock was set back, and is believed");
                // First nothing is hidden any more, then the clocks that lie ahead move to this moment.
                let windows = self.source.windows();
                if let Some(Err(error)) = windows.map(Windows::begin_again) {
                    tracing::error!(volume = %name, %error, "the precision window cannot be ended");
                    return;
                }
                self.sync();
                // It speaks in the time before; the next write-back says it again.
                self.keeping.stored_until.store(0, Relaxed);
                let now = clock::now().plus(1);
                self.watched.recorder().none_later_than(now);
                let mut health = self.health.lock();
                health.record.set_back(now);
                if let Some(windows) = windows {
                    health.record.window_end = windows.end().0;
                }
                health
                    .record
                    .add_gap(now, now, Cause::ClockJump, self.config.gap_tolerance, false);
                health.urgent = true;
            }
        }
        last.present = now;
    }
}
