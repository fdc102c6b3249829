//! Limits of this process (`getrlimit(2)`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that leases of several batches and of a directory need, with room for clients.
const FILES_WANTED: u64 = 16_384;

/// Raises the number of descriptors that may be open to what is wanted, or to what is allowed.
pub fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(FILES_WANTED, |most| most.min(FILES_WANTED));
    if now.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        ..now
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files cannot be raised: large batches may fail");
    }
}
