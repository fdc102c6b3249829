//! Limits of this process (`getrlimit(2)`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that leases of several batches and of a directory need, with room for clients.
const FILES_WANTED: u64 = 16_384;
/// This number is usual: leases of two batches of each worker, and the directories they lie in.
const FILES_USUAL: i32 = 8_192;

/// Raises the number of descriptors that may be open to what is wanted, or to what is allowed. To be called before there is a second thread.
pub fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.map_or(FILES_WANTED, |most| most.min(FILES_WANTED));
    if now.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..now
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the number of open files cannot be raised: large batches may fail");
        }
    }
    make_room();
}

/// How many files may be open.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The kernel's table of descriptors becomes large when the first of a high number is made, and stays so. It would grow all the same, but then
/// a thread that opens a file waits for RCU in all threads (`expand_files` of the kernel's fs/file.c), tens of milliseconds each time.
fn make_room() {
    // Where that many are not allowed it grows when it must.
    drop(rustix::io::fcntl_dupfd_cloexec(
        std::io::stderr(),
        FILES_USUAL - 1,
    ));
}
