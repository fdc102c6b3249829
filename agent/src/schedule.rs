//! Makes the plans of rules whose time has come.

use std::sync::Arc;
use std::time::Duration;

use crate::host::Host;
use crate::model::Seconds;

/// The clock is looked at this often: a schedule is due to the minute, and a stepped clock is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Runs until it is aborted.
pub async fn keep(host: Arc<Host>) {
    let mut looked = Seconds::wall();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = Seconds::wall();
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
