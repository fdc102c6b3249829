//! What this host gives, each with a verdict and the cure. Looks only, and answers at any time, in any state of the host.
//!
//! - `agent`    the agent itself: its certificate, changes that wait for a restart, lists that it could not publish
//! - `kernel`   what the kernel of this host lacks, and what follows for the guard
//! - `machine`  the kernel, what the process may do, its limits, systemd
//! - `memory`   the bound of the unit's memory
//! - `nfs`      servers that stand between the volumes and their users
//! - `through`  the mount by which users come to a volume
//! - `triggers` watermarks and quotas that ought to delete and do not
//! - `volumes`  each volume: troubles, mount, leases, coverage

mod agent;
mod kernel;
mod machine;
mod memory;
mod nfs;
mod through;
mod triggers;
mod volumes;

use std::sync::Arc;

use crate::host::Host;
use crate::in_force::InForce;
use crate::volume::Volume;
use purge_collect::source::Kind;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but less well than it could, or only the operator can know.
    Note,
    /// The agent does not do what it is there for.
    Bad,
}

/// What was looked at, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A fixed name.
    pub check: &'static str,
    /// The volume it is about; empty: the host.
    pub volume: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty where all is well.
    pub cure: String,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            volume: String::new(),
            verdict: Verdict::Good,
            found: found.into(),
            cure: String::new(),
        }
    }

    fn note(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Note,
            cure: cure.into(),
            ..Self::good(check, found)
        }
    }

    fn bad(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::note(check, found, cure)
        }
    }

    fn of(self, volume: &str) -> Self {
        Self {
            volume: volume.into(),
            ..self
        }
    }
}

/// Looks at everything: the volumes first.
pub fn examine(host: &Host, in_force: &InForce) -> Vec<Finding> {
    let mut findings: Vec<Finding> = host
        .volumes()
        .iter()
        .flat_map(|volume| {
            let mut all = volumes::examine(volume);
            all.extend(volumes::runs_and_trash(host, &volume.config.name));
            all
        })
        .collect();
    findings.extend(triggers::examine(host));
    findings.extend(host.absent().iter().map(|a| volumes::absent(a)));
    findings.push(machine::kernel());
    findings.push(machine::capabilities());
    findings.push(machine::open_files());
    let by_inotify = |volume: &&Arc<Volume>| volume.profile().kind == Kind::Inotify;
    findings.push(machine::inotify(host.volumes().iter().filter(by_inotify).count()));
    findings.push(machine::leases());
    findings.push(kernel::waiting_openers());
    findings.extend(machine::systemd());
    let watched = host.volumes();
    let entries = watched.iter().map(|v| {
        let totals = v.watched.index.read().totals();
        totals.files.saturating_add(totals.directories)
    });
    findings.push(memory::examine(entries.fold(0, u64::saturating_add)));
    findings.push(machine::state_dir(host.ground.state_dir(), host.state().defect()));
    findings.push(nfs::server());
    findings.extend(agent::lists(&host.announcer.unpublished()));
    findings.extend(agent::examine(in_force));
    findings
}
