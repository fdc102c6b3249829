//! The source of volumes that nothing reports uses of: only scans find what happened, by what the file system says of its files.
//!
//! A read is known where it has moved the access time. Whether it does is tried with a file of our own, except on file systems of which
//! the kernel of this host decides alone.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Watched;
use super::atimes;
use super::error::CollectError;
use super::precision::Windows;
use super::source::{
    self, Barrier, Blind, Certainty, Kind, Mode, Profile, Reading, Reads, Since, Source, Watching, Who,
};
use purge_base::clock;
use purge_model::Seconds;
use purge_sys::beneath;
use purge_sys::fanotify::Features;
use purge_sys::stat::Mount;
use purge_sys::trying::{self, Traces};

/// Scans alone watch a volume.
#[derive(Debug, Clone, Copy)]
pub struct Scans {
    profile: Profile,
    since: Since,
}

/// What no scan sees.
const BLIND: &[Blind] = &[
    Blind::BetweenLooks,
    Blind::Names,
    Blind::OpenBefore,
    Blind::Mappings,
    Blind::Images,
    Blind::Who,
];
/// And where other hosts may use the file system.
const BLIND_SHARED: &[Blind] = &[
    Blind::OtherHosts,
    Blind::BetweenLooks,
    Blind::Names,
    Blind::OpenBefore,
    Blind::Mappings,
    Blind::Images,
    Blind::Who,
    Blind::Bypass,
];

/// How reads of the files of a mount are known to a scan.
pub fn reads(root: &Path, mount: &Mount) -> Reads {
    let known = |keeps: bool| match keeps {
        true => Reads::AtScans,
        false => Reads::Unknown,
    };
    let opened = beneath::open_root(root);
    if mount.is_local() {
        // Where one of several mounts keeps no access times, a reader there leaves none.
        return known(mount.keeps_atime && opened.is_ok_and(|root| !atimes::some_mount_keeps_none(root)));
    }
    match opened.and_then(|root| trying::try_in(&root)) {
        Ok(tried) => known(tried.traces != Traces::None),
        Err(error) => {
            tracing::warn!(root = %root.display(), %error, "it cannot be tried whether reads move access times: they are taken for unknown");
            Reads::Unknown
        }
    }
}

impl Scans {
    /// Of a volume on this mount.
    pub fn of(root: &Path, mount: &Mount) -> Self {
        Self {
            profile: Profile {
                kind: Kind::Scan,
                mode: Mode::Scans,
                // It needs none of them.
                features: Features::ALL,
                knows_names: false,
                knows_who: Who::Unknown,
                certainty: Certainty::LastLook,
                hides: false,
                outlives: true,
                reads: reads(root, mount),
                blind: match mount.may_be_shared() {
                    true => BLIND_SHARED,
                    false => BLIND,
                },
            },
            since: Since {
                at: clock::now(),
                // What happened while no agent ran is found by the first scan as well as by any other.
                nothing_missed: true,
            },
        }
    }
}

impl source::Armed for Scans {
    fn profile(&self) -> Profile {
        self.profile
    }

    fn since(&self) -> Since {
        self.since
    }

    fn run(
        self: Box<Self>,
        _: &Arc<Watched>,
        _: Seconds,
        _: Box<dyn Fn(CollectError) + Send>,
    ) -> Result<Box<dyn Watching>, CollectError> {
        Ok(self)
    }
}

impl Source for Scans {
    fn profile(&self) -> Profile {
        self.profile
    }

    fn queued(&self) -> u64 {
        0
    }

    fn barrier(&self, _: Duration) -> Barrier {
        Barrier::Passed
    }
}

impl Watching for Scans {
    fn reading(&self) -> Option<&dyn Reading> {
        None
    }

    fn end(&self) {}

    // Nothing is in keeping.
    fn release(&self) {}

    fn is_watching(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn watch_again(&self) -> io::Result<()> {
        Ok(())
    }

    fn windows(&self) -> Option<&Windows> {
        None
    }

    fn hide_own(&self, _: BorrowedFd<'_>) {}

    // Nothing is reported, so there is nothing to hide.
    fn hide_mount(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}
