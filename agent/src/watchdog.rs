//! Tells systemd that the agent lives (`WatchdogSec=`, sd_notify(3)): only as long as its loops really go round. An agent that
//! hangs is ended and started again by systemd, which keeps the event queues meanwhile.
//!
//! ```text
//!   collector    each round, each buffer      must move within half of WatchdogSec
//!   keeper       each round (a second)        within ten minutes: it waits for disks
//!   tasks        schedules, quotas            must not have ended
//!   this task    runs where clients are served: it says nothing while that hangs
//! ```
//! While the state directory does not answer (a frozen file system), collector and keeper wait for it, and another process would wait as well.
//! So it is with the threads of one volume while that does not answer (a file server that is away).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::task::AbortHandle;

use crate::host::Host;

/// Writing a large index to a slow disk takes long, and ending the agent in the middle of it would not help.
const KEEPER_MAX: Duration = Duration::from_secs(600);

/// A loop that is watched.
#[derive(Debug)]
struct Watch {
    beats: u64,
    moved: Instant,
    still_max: Duration,
}

impl Watch {
    fn new(now: Instant, still_max: Duration) -> Self {
        Self {
            beats: 0,
            moved: now,
            still_max,
        }
    }

    /// Whether it has made a round since, or has not stood still for too long.
    fn lives(&mut self, beats: u64, now: Instant) -> bool {
        if beats != self.beats {
            (self.beats, self.moved) = (beats, now);
        }
        now.saturating_duration_since(self.moved) <= self.still_max
    }
}

/// Collector and keeper of each volume that is watched, by where it lies in memory.
type Watches = HashMap<usize, (Watch, Watch)>;

/// Runs until it is aborted. Returns at once where systemd does not watch this process.
pub async fn keep(host: Arc<Host>, tasks: Vec<(&'static str, AbortHandle)>) {
    let mut micros = 0;
    if !sd_notify::watchdog_enabled(false, &mut micros) || micros == 0 {
        return;
    }
    let period = Duration::from_micros(micros);
    let mut watches = Watches::new();
    let mut told = String::new();
    loop {
        let hangs = what_hangs(&host, (&mut watches, period / 2), &tasks, Instant::now());
        match &hangs {
            None => drop(sd_notify::notify(false, &[NotifyState::Watchdog])),
            Some(what) if *what != told => {
                tracing::error!(
                    what,
                    "the agent hangs: systemd will start it again unless it goes on"
                );
            }
            Some(_) => {}
        }
        told = hangs.unwrap_or_default();
        tokio::time::sleep(period / 4).await;
    }
}

fn what_hangs(
    host: &Host,
    (watches, still_max): (&mut Watches, Duration),
    tasks: &[(&'static str, AbortHandle)],
    now: Instant,
) -> Option<String> {
    let waits = host.state().is_silent();
    let volumes = host.volumes();
    // One that is opened again begins again.
    watches.retain(|known, _| volumes.iter().any(|v| Arc::as_ptr(v).addr() == *known));
    for volume in &volumes {
        let new = || (Watch::new(now, still_max), Watch::new(now, KEEPER_MAX));
        let (collector, keeper) = watches.entry(Arc::as_ptr(volume).addr()).or_insert_with(new);
        // Its threads wait for a file system that does not answer: no other volume has to.
        if waits || volume.silence().is_some() {
            (collector.moved, keeper.moved) = (now, now);
        }
        let name = &volume.config.name;
        if !collector.lives(volume.watched.counters.pulse.beats(), now) {
            return Some(format!("the collector of volume {name}"));
        }
        if !keeper.lives(volume.keeping.pulse.beats(), now) {
            return Some(format!("the keeper of volume {name}"));
        }
    }
    let ended = tasks.iter().find(|(_, task)| task.is_finished());
    ended.map(|(what, _)| format!("{what} has ended"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use purge_base::pulse::Pulse;

    #[test]
    fn a_loop_lives_as_long_as_it_goes_round() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let pulse = Pulse::default();
        let mut watch = Watch::new(began, Duration::from_secs(30));
        assert!(watch.lives(pulse.beats(), at(30)), "it may take that long");
        assert!(!watch.lives(pulse.beats(), at(31)));
        pulse.beat();
        assert!(watch.lives(pulse.beats(), at(40)), "it goes on");
        assert!(watch.lives(pulse.beats(), at(70)));
        assert!(!watch.lives(pulse.beats(), at(71)));
        pulse.beat();
        pulse.beat();
        assert!(watch.lives(pulse.beats(), at(100)));
    }
}
