//! Event queues that outlive the process: systemd keeps their descriptors (`FileDescriptorStoreMax=`, sd_notify(3)), or the agent's parent
//! does. The kernel goes on queueing, and the next process drains what came in between. So a restart by systemd, an
//! upgrade or a crash is no gap. The memory into which events are read is kept in the same way.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::{env, fs, io};

use rustix::process::{Pid, getppid};
use sd_notify::NotifyState;

use purge_sys::child;
use purge_sys::descriptor;
use purge_sys::shared::{self, SharedBuffer};

/// Names the parent's process to the agent.
pub const PARENT: &str = "PURGE_AGENT_PARENT";
/// Descriptors that are kept at most, as the unit has systemd keep.
pub const KEPT_MAX: usize = 256;
/// Ends the name of what is no queue, but memory.
pub const BUFFER: &str = ".memory";

/// What an earlier process of this service left.
#[derive(Debug, Default)]
pub struct Handover {
    left: HashMap<String, OwnedFd>,
}

impl Handover {
    /// Takes over what systemd or the parent has passed (`LISTEN_FDS`). To be called once, before any thread is started.
    pub fn take() -> Self {
        if parent().is_some() {
            let left = kept().into_iter().collect();
            return Self { left };
        }
        let passed = match sd_notify::listen_fds_with_names(true) {
            Ok(passed) => passed,
            Err(error) => {
                tracing::warn!(%error, "what systemd has kept cannot be taken over");
                return Self::default();
            }
        };
        let left = passed
            .filter_map(|(number, name)| Some((name, descriptor::adopt(number)?)))
            .collect();
        Self { left }
    }

    /// What was left under this name.
    pub fn claim(&mut self, name: &str) -> Option<OwnedFd> {
        self.left.remove(name)
    }

    /// What is left under names that begin and end so.
    pub fn names(&self, begin: &str, end: &str) -> Vec<String> {
        let names = self.left.keys();
        let these = names.filter(|name| name.starts_with(begin) && name.ends_with(end));
        these.cloned().collect()
    }

    /// No volume has claimed the rest: its volume is no longer configured, or was replaced.
    pub fn drop_rest(&mut self) {
        for (name, _) in self.left.drain() {
            forget(&name);
        }
    }
}

/// The process that started this one as its agent.
pub fn parent() -> Option<Pid> {
    let named: i32 = env::var(PARENT).ok()?.parse().ok()?;
    getppid().filter(|pid| Some(*pid) == Pid::from_raw(named))
}

/// The process that stands for the agent: the one that was started by hand and that signals are sent to.
pub fn visible_pid() -> i32 {
    let own = rustix::process::getpid();
    parent().unwrap_or(own).as_raw_nonzero().get()
}

/// What a parent has kept, by name. To be asked for once, before any thread is started.
fn kept() -> Vec<(String, OwnedFd)> {
    let count = env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok());
    let count: usize = count.unwrap_or(0).min(KEPT_MAX);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let named = names.split(':').take(count).enumerate();
    let kept = named.filter_map(|(nth, name)| Some((name.to_owned(), child::received(nth)?)));
    kept.collect()
}

/// Whether systemd, or a parent, can be asked to keep descriptors.
fn has_keeper() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// Gives a descriptor into systemd's keeping, or the parent's. Without either nothing happens.
pub fn keep(name: &str, fd: impl AsFd) {
    forget(name);
    // FDPOLL=0: systemd must not drop a queue because it looks at it (version 246).
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        NotifyState::Custom("FDPOLL=0"),
    ];
    if let Err(error) = sd_notify::notify_with_fds(false, &state, &[fd.as_fd()]) {
        tracing::warn!(%error, name, "a descriptor is not kept: a restart will be a gap");
    }
}

/// What is kept under this name is kept no longer.
fn forget(name: &str) {
    let _ = sd_notify::notify(false, &[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Ends the name of a queue.
pub const QUEUE: &str = ".events";

/// What the queue of this key is called.
pub fn queue_name(key: &str) -> String {
    format!("{key}{QUEUE}")
}

/// The queue and the memory of this key are kept no longer.
pub fn release(key: &str) {
    forget(&queue_name(key));
    forget(&format!("{key}{BUFFER}"));
}

/// Memory that outlives the process when it is killed: it lies where systemd or the parent keeps it, and where neither does, in `file`. What
/// an earlier process left in either is in it.
///
/// # Errors
/// ENOMEM.
pub fn memory(handover: &mut Handover, key: &str, file: &Path, len: usize) -> io::Result<SharedBuffer> {
    let name = format!("{key}{BUFFER}");
    if let Some(left) = handover.claim(&name) {
        match SharedBuffer::of_memory(left, len) {
            Ok(buffer) => return Ok(buffer),
            Err(error) => tracing::warn!(%error, name, "kept memory cannot be used"),
        }
    }
    let made = match has_keeper() {
        true => kept_memory(&name, file, len),
        false => SharedBuffer::of_file(file, len),
    };
    made.or_else(|error| {
        tracing::warn!(%error, name, "memory cannot be kept: what is in it is lost if the agent is killed");
        SharedBuffer::private(len)
    })
}

/// New memory, with what a process left that had it in a file.
fn kept_memory(name: &str, file: &Path, len: usize) -> io::Result<SharedBuffer> {
    let memory = shared::memory("kept", len)?;
    keep(name, &memory);
    let mut buffer = SharedBuffer::of_memory(memory, len)?;
    match fs::read(file) {
        Ok(left) => {
            let room = buffer.bytes().iter_mut();
            room.zip(left).for_each(|(to, from)| *to = from);
            fs::remove_file(file)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(buffer)
}
