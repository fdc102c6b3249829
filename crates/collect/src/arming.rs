//! Which source a volume gets: the one place that names them all.

use std::path::Path;
use std::sync::Arc;

use super::Watched;
use super::error::CollectError;
use super::fanotify;
pub use super::fanotify::Wish;
use super::nfsd::NfsServer;
use super::scans::Scans;
use super::source::{Armed, Kind, Profile};
use purge_base::handover::Handover;
use purge_sys::stat::{Device, Mount};

/// What a volume is to be watched by where nothing is known of it yet.
pub const FIRST_CHOICE: Kind = Kind::Fanotify;

/// What they need, for people whose volume cannot be watched. No version: distributions take parts of newer kernels over.
pub const NEEDS: &str = "fanotify needs root (CAP_SYS_ADMIN), a kernel that reports names and file handles of whole file systems (Linux 5.9 or \
                         later, or one that has it from there), and ext4, xfs, btrfs or tmpfs";

/// Watches a volume: takes over what an earlier process left, or begins. `volume` names the queue where it is kept, and must be another name
/// for another file system; files that must outlive this process lie in `beside`.
///
/// # Errors
/// What each source says of why it cannot watch there.
pub fn arm(
    wish: Wish,
    volume: &str,
    beside: &Path,
    handover: &mut Handover,
) -> Result<Box<dyn Armed>, CollectError> {
    let armed = fanotify::Armed::arm_or_take_over(wish, volume, beside, handover)?;
    Ok(Box::new(armed))
}

/// Has scans alone watch a volume.
pub fn arm_scans(root: &Path, mount: &Mount, device: Device) -> Box<dyn Armed> {
    Box::new(Scans::of(root, mount, device))
}

/// Whether a volume could be watched, and how. Nothing is left of the attempt.
///
/// # Errors
/// As for [`arm`].
pub fn try_out(wish: Wish) -> Result<Profile, CollectError> {
    use super::source::Armed as _;
    Ok(fanotify::Armed::arm(wish)?.profile())
}

/// The source that is asked beside the one that watches.
pub fn beside(watched: &Arc<Watched>) -> NfsServer {
    NfsServer::new(Arc::clone(watched))
}
