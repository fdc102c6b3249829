//! A second hold on the queues of a running agent (`pidfd_getfd(2)`): what the agent has not read when it ends is still there,
//! so a test knows by the kernel's own word what had been read.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::wait::LONG;

/// Bytes of an event before what it tells of files (`struct fanotify_event_metadata`).
const METADATA: usize = 24;
/// Bytes before the handle of a file: the record's head, the file system's id, the handle's length and type.
const BEFORE_HANDLE: usize = 20;
/// Kinds of records that carry a file handle: FID, DFID_NAME, DFID, and the old and the new name of a rename.
const WITH_HANDLE: [u8; 5] = [1, 2, 3, 10, 12];

/// The queues of one process.
#[derive(Debug)]
pub struct Queues(Vec<std::fs::File>);

impl Queues {
    /// Those of the process `pid`, which is running.
    ///
    /// # Panics
    /// When it has none.
    pub fn of(pid: u32) -> Self {
        let process = Pid::from_raw(pid.cast_signed()).expect("a process id");
        let process = pidfd_open(process, PidfdFlags::empty()).expect("the agent's pidfd");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent's descriptors");
        let is_queue = |at: &std::path::Path| {
            std::fs::read_link(at).is_ok_and(|to| to.as_os_str() == "anon_inode:[fanotify]")
        };
        let numbers = open.filter_map(|entry| {
            let path = entry.ok()?.path();
            is_queue(&path).then(|| path.file_name()?.to_str()?.parse::<i32>().ok())?
        });
        let taken = numbers.map(|number| {
            let fd: OwnedFd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).expect("pidfd_getfd");
            std::fs::File::from(fd)
        });
        let taken: Vec<_> = taken.collect();
        assert!(!taken.is_empty(), "the agent has no queue");
        Self(taken)
    }

    /// Waits until the agent has taken everything that was in them at some moment from now on.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_read(&self) {
        let began = std::time::Instant::now();
        // The agent reads every few milliseconds, and a scan makes events of its own: no time to be lost between two looks.
        while self
            .0
            .iter()
            .any(|queue| rustix::io::ioctl_fionread(queue).expect("FIONREAD") > 0)
        {
            assert!(began.elapsed() < LONG, "the agent does not read its queue");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The inodes of what the agent, which has ended, has not read. The queues end with it.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn unread(self) -> BTreeSet<u64> {
        let mut inodes = BTreeSet::new();
        let mut buffer = vec![0; 1 << 20];
        for mut queue in self.0 {
            let flags = fcntl_getfl(&queue).expect("fcntl");
            fcntl_setfl(&queue, flags | OFlags::NONBLOCK).expect("fcntl");
            // An empty queue ends it.
            while let Ok(len) = queue.read(&mut buffer) {
                inodes_of(&buffer[..len], &mut inodes);
            }
        }
        inodes
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Of ext4, whose handles begin with the inode.
fn inodes_of(mut events: &[u8], inodes: &mut BTreeSet<u64>) {
    while events.len() >= METADATA {
        let (event, rest) = events.split_at(u32_at(events, 0) as usize);
        let mut records = &event[METADATA..];
        while records.len() >= 4 {
            let len = u16::from_ne_bytes([records[2], records[3]]);
            let (record, others) = records.split_at(len.into());
            if WITH_HANDLE.contains(&record[0]) {
                inodes.insert(u32_at(record, BEFORE_HANDLE).into());
            }
            records = others;
        }
        events = rest;
    }
}
