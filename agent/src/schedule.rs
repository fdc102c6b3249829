//! Makes the plans of rules whose time has come, empties the trash, looks at watermarks and quotas, and for what people
//! must be told.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::host::Host;
use crate::host::telling::Lookout;
use crate::model::Seconds;

/// The clock is looked at this often: a schedule is due to the minute, and a stepped clock is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The records of runs that are long past are looked for this often: all are read.
const RUNS_TIDIED_EVERY: Duration = Duration::from_secs(3600);

/// The first scan of a small volume is over by then.
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(5);
/// A volume's space is looked at this often.
const WATERMARKS_EVERY: Duration = Duration::from_secs(60);
/// Sums of owners and directories are made this often: a pass over the index.
const QUOTAS_EVERY: Duration = Duration::from_secs(600);

/// Looks at watermarks and quotas until it is aborted.
pub async fn keep_limits(host: Arc<Host>) {
    let mut watermarks = interval_at(Instant::now() + FIRST_LOOK_AFTER, WATERMARKS_EVERY);
    let mut quotas = interval_at(Instant::now() + WATERMARKS_EVERY, QUOTAS_EVERY);
    // A suspended machine has missed nothing: once is enough.
    watermarks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    quotas.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let of_quotas = tokio::select! {
            _ = watermarks.tick() => false,
            _ = quotas.tick() => true,
        };
        let host = Arc::clone(&host);
        let looked = tokio::task::spawn_blocking(move || {
            let limits = host.limits();
            if of_quotas {
                limits.quotas.iter().for_each(|q| host.keep_quota(q));
            } else {
                limits.watermarks.iter().for_each(|w| host.keep_watermark(w));
                host.note_growth();
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "looking at quotas or watermarks failed");
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
        let error = match Lookout::new(Arc::clone(&host)) {
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

/// Runs until it is aborted.
pub async fn keep(host: Arc<Host>) {
    let mut looked = Seconds::wall();
    let (mut freeing, mut publishing, mut tidying) = (None, None, None);
    let mut runs_tidied: Option<Instant> = None;
    let mut measuring: Vec<Option<JoinHandle<()>>> = host.volumes().iter().map(|_| None).collect();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Seconds::wall();
        let tended = Arc::clone(&host);
        // Freeing a million files takes a while, and delays no plan.
        if freeing.as_ref().is_none_or(JoinHandle::is_finished) {
            freeing = Some(tokio::task::spawn_blocking(move || tended.tend_trash()));
        }
        // A file system that is slow to write delays no plan, and no other volume.
        for (volume, task) in host.volumes().iter().zip(&mut measuring) {
            if task.as_ref().is_none_or(JoinHandle::is_finished) {
                let (host, volume) = (Arc::clone(&host), Arc::clone(volume));
                *task = Some(tokio::task::spawn_blocking(move || host.look_at_freed(&volume)));
            }
        }
        let publisher = Arc::clone(&host);
        // A list of a million files takes a while, and delays no plan.
        if publishing.as_ref().is_none_or(JoinHandle::is_finished) {
            publishing = Some(tokio::task::spawn_blocking(move || publisher.publish()));
        }
        if tidying.as_ref().is_none_or(JoinHandle::is_finished) {
            let runs_too = runs_tidied.is_none_or(|at| at.elapsed() >= RUNS_TIDIED_EVERY);
            if runs_too {
                runs_tidied = Some(Instant::now());
            }
            let tidied = Arc::clone(&host);
            tidying = Some(tokio::task::spawn_blocking(move || {
                tidied.tidy();
                if runs_too {
                    tidied.tidy_runs();
                }
            }));
        }
        for rule in host.rules() {
            let due = rule.schedule.as_ref().and_then(|s| s.next_after(looked.unix()));
            if due.is_some_and(|due| due <= now.unix()) {
                let host = Arc::clone(&host);
                // One rule's plan must not delay another's.
                tokio::task::spawn_blocking(move || host.run_scheduled(&rule));
            }
        }
        looked = now;
    }
}
