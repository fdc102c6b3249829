//! What processes of this host have open, where no lease tells: `/proc/PID/fd` of all of them, looked at each second.
//!
//! No server is asked for it. Processes of other hosts are not seen, and those of other users only by root.

use std::fs;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use purge_model::Inode;
use purge_sys::stat::{self, Device};
use rustc_hash::FxHashSet;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The files that are open.
#[derive(Debug)]
pub(super) struct Held {
    device: Device,
    open: RwLock<FxHashSet<Inode>>,
    looked: Mutex<Instant>,
}

impl Held {
    pub fn new(device: Device) -> Self {
        Self {
            device,
            open: RwLock::new(look(device)),
            looked: Mutex::new(Instant::now()),
        }
    }

    /// Whether a process has it open, as of the last second.
    pub fn has(&self, ino: Inode) -> bool {
        if let Some(mut looked) = self.looked.try_lock()
            && looked.elapsed() >= LOOK_EVERY
        {
            let open = look(self.device);
            *self.open.write() = open;
            *looked = Instant::now();
        }
        self.open.read().contains(&ino)
    }
}

fn look(device: Device) -> FxHashSet<Inode> {
    let own = std::process::id().to_string();
    let mut open = FxHashSet::default();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let is_process = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_process || name.to_str() == Some(&own) {
            continue;
        }
        for file in fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // Sockets and pipes have no path.
            if fs::read_link(file.path()).is_ok_and(|to| !to.has_root()) {
                continue;
            }
            if let Ok(found) = stat::behind(&file.path())
                && found.device == device
            {
                open.insert(found.stat.ino);
            }
        }
    }
    open
}
