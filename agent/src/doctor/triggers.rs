//! Watermarks and quotas that ought to delete and do not.

use super::Finding;
use crate::host::Host;
use crate::host::brakes::status::TriggerState;
use crate::volume::State;

const STOPPED: &str = "find what keeps the blocks: snapshots, copies that share blocks (cp --reflink), deleted files that processes hold \
                       open (lsof +L1); remove that, then: purgectl resume VOLUME";
const WAITING: &str = "see what it says; purgectl plan --watermark (or --quota NAME) shows what would go, and an operator may apply that";
const KEPT: &str = "end the process, or have it close the deleted files (lsof +L1 does not list what is opened with O_PATH; ls -l /proc/PID/fd \
                    does); the watermark then goes on by itself. To have it try in spite of that: purgectl resume VOLUME";

/// Those of every volume.
pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    for volume in &host.volumes() {
        let name = &volume.config.name;
        for trigger in host.brakes.triggers(name) {
            let found = format!("{}: {}", trigger.name, trigger.reason);
            let finding = match trigger.state {
                TriggerState::Stopped => Finding::bad(
                    "trigger",
                    format!("{}: stopped, {}", trigger.name, trigger.reason),
                    STOPPED.replace("VOLUME", name),
                ),
                // What the volume itself waits for has a finding of its own.
                TriggerState::Waiting if volume.condition().state != State::Tracking => {
                    Finding::note("trigger", found, WAITING)
                }
                TriggerState::Waiting => Finding::bad("trigger", found, WAITING),
                _ => Finding::good(
                    "trigger",
                    format!("{}: deletes when it is asked to", trigger.name),
                ),
            };
            findings.push(finding.of(name));
            for why in &trigger.left_out {
                let found = format!("{}: it leaves out {why}", trigger.name);
                findings.push(Finding::bad("trigger", found, KEPT.replace("VOLUME", name)).of(name));
            }
        }
    }
    findings
}
