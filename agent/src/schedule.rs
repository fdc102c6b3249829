//! Makes the plans of rules whose time has come, empties the trash, looks at watermarks and quotas, and for what people
//! must be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::host::Host;
use crate::host::teller::lookout::Lookout;
use crate::host::unattended::looks::{QUOTAS_EVERY, WATERMARKS_EVERY};
use purge_base::clock;

/// The clock is looked at this often: a schedule is due to the minute, and a stepped clock is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The records of runs that are long past are looked for this often: all are read.
const RUNS_TIDIED_EVERY: Duration = Duration::from_secs(3600);

/// The first scan of a small volume is over by then.
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(5);

/// What is looked at by itself: nothing that takes long on one volume delays the look at another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    Watermark(String),
    Quotas(String),
    Growth,
}

impl Look {
    fn take(&self, host: &Arc<Host>) {
        if let Self::Watermark(volume) | Self::Quotas(volume) = self {
            host.ground.meet_owners(volume);
        }
        let limits = host.ground.limits();
        match self {
            Self::Watermark(volume) => {
                let mine = limits.watermarks.iter().filter(|w| w.volume == *volume);
                mine.for_each(|w| host.unattended.keep_watermark(w));
            }
            Self::Quotas(volume) => {
                for quota in limits.quotas.iter().filter(|q| q.volume == *volume) {
                    // Each has its turn: one whose users are always over theirs keeps no other waiting for ever.
                    if host.unattended.await_quiet(volume) {
                        host.unattended.keep_quota(quota);
                    }
                }
            }
            Self::Growth => host.forecaster.note_growth(),
        }
    }
}

/// Looks that are being taken.
#[derive(Debug, Default)]
struct Looks(BTreeMap<Look, JoinHandle<()>>);

impl Looks {
    /// Takes a look unless the last one is still being taken.
    fn take(&mut self, look: Look, host: &Arc<Host>) {
        if self.0.get(&look).is_some_and(|taken| !taken.is_finished()) {
            return;
        }
        let (host, taken) = (Arc::clone(host), look.clone());
        let task = tokio::task::spawn_blocking(move || taken.take(&host));
        self.0.insert(look, task);
    }
}

/// Looks at watermarks and quotas until it is aborted.
pub async fn keep_limits(host: Arc<Host>) {
    let mut watermarks = interval_at(Instant::now() + FIRST_LOOK_AFTER, WATERMARKS_EVERY);
    let mut quotas = interval_at(Instant::now() + WATERMARKS_EVERY, QUOTAS_EVERY);
    // A suspended machine has missed nothing: once is enough.
    watermarks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    quotas.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut looks = Looks::default();
    let next = &host.unattended.looks;
    next.watermarks_in(FIRST_LOOK_AFTER);
    next.quotas_in(WATERMARKS_EVERY);
    loop {
        let of_quotas = tokio::select! {
            _ = watermarks.tick() => false,
            _ = quotas.tick() => true,
        };
        match of_quotas {
            true => next.quotas_in(QUOTAS_EVERY),
            false => next.watermarks_in(WATERMARKS_EVERY),
        }
        let limits = host.ground.limits();
        if of_quotas {
            let volumes: BTreeSet<String> = limits.quotas.into_iter().map(|q| q.volume).collect();
            volumes
                .into_iter()
                .for_each(|v| looks.take(Look::Quotas(v), &host));
        } else {
            let volumes: BTreeSet<String> = limits.watermarks.into_iter().map(|w| w.volume).collect();
            volumes
                .into_iter()
                .for_each(|v| looks.take(Look::Watermark(v), &host));
            looks.take(Look::Growth, &host);
        }
    }
}

/// What people are told of is looked at this often; what costs more, less often.
const NOTICES_EVERY: Duration = Duration::from_secs(5);

/// If looking failed inside the agent, it begins again after so long.
const NOTICES_AGAIN: Duration = Duration::from_secs(60);

/// Looks for what people must be told, until it is aborted.
pub async fn keep_telling(host: Arc<Host>) {
    loop {
        let error = match host.lookout() {
            Ok(lookout) => look(lookout).await.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            error,
            "looking for what people must be told failed: it begins again later"
        );
        tokio::time::sleep(NOTICES_AGAIN).await;
    }
}

/// Looks until that fails.
async fn look(mut lookout: Lookout) -> JoinError {
    loop {
        tokio::time::sleep(NOTICES_EVERY).await;
        let looked = tokio::task::spawn_blocking(move || {
            lookout.look();
            lookout
        });
        lookout = match looked.await {
            Ok(lookout) => lookout,
            Err(error) => return error,
        };
    }
}

/// Whether a volume has come back is looked at this often.
const VOLUMES_EVERY: Duration = Duration::from_secs(1);

/// Opens volumes that have come back, until it is aborted. One that takes long keeps no other waiting.
pub async fn keep_volumes(host: Arc<Host>) {
    let mut looking: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    loop {
        tokio::time::sleep(VOLUMES_EVERY).await;
        for name in host.ground.names() {
            if looking.get(&name).is_none_or(JoinHandle::is_finished) {
                let (host, volume) = (Arc::clone(&host), name.clone());
                let task = tokio::task::spawn_blocking(move || host.returner.look_at(&volume));
                looking.insert(name, task);
            }
        }
    }
}

/// Runs until it is aborted.
pub async fn keep(host: Arc<Host>) {
    let began = clock::wall().unix();
    let (mut publishing, mut tidying) = (None, None);
    let mut freeing: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let mut runs_tidied: Option<Instant> = None;
    let mut measuring: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = clock::wall().unix();
        // Freeing a million files takes a while, and delays no plan and no other volume.
        for volume in &host.volumes() {
            let name = &volume.config.name;
            if freeing.get(name).is_none_or(JoinHandle::is_finished) {
                let (tended, volume) = (Arc::clone(&host), Arc::clone(volume));
                let task = tokio::task::spawn_blocking(move || tended.trash.tend_trash(&volume));
                freeing.insert(name.clone(), task);
            }
        }
        // A file system that is slow to write delays no plan, and no other volume.
        for volume in host.volumes() {
            let name = volume.config.name.clone();
            if measuring.get(&name).is_none_or(JoinHandle::is_finished) {
                let host = Arc::clone(&host);
                let task = tokio::task::spawn_blocking(move || host.brakes.look_at_freed(&volume));
                measuring.insert(name, task);
            }
        }
        let publisher = Arc::clone(&host);
        // A list of a million files takes a while, and delays no plan.
        if publishing.as_ref().is_none_or(JoinHandle::is_finished) {
            publishing = Some(tokio::task::spawn_blocking(move || publisher.announcer.publish()));
        }
        if tidying.as_ref().is_none_or(JoinHandle::is_finished) {
            let runs_too = runs_tidied.is_none_or(|at| at.elapsed() >= RUNS_TIDIED_EVERY);
            if runs_too {
                runs_tidied = Some(Instant::now());
            }
            let tidied = Arc::clone(&host);
            tidying = Some(tokio::task::spawn_blocking(move || {
                tidied.applier.tidy();
                if runs_too {
                    tidied.applier.tidy_runs();
                }
            }));
        }
        for rule in host.ground.rules() {
            host.unattended.look_at_schedule(&rule, (began, now));
        }
        host.unattended.run_due();
    }
}
