//! A virus scanner: a process that opens a file through a mount waits until the scanner has answered (fanotify permission events).

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sys;

/// So long it is busy with something else before it looks.
const BUSY: Duration = Duration::from_millis(30);
/// `struct fanotify_event_metadata`, of which the descriptor follows 16 bytes and the process.
const EVENT_BYTES: usize = 24;
const FD_AT: usize = 16;

/// A scanner at work. When it is dropped, it allows every open that waits.
#[derive(Debug)]
pub struct Scanner {
    stop: Arc<AtomicBool>,
    looks: Option<JoinHandle<()>>,
}

impl Scanner {
    /// Of all files that are opened through the mount at `path`.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn of(path: &Path) -> Self {
        let mut group = sys::ask_before_opens(path).expect("permission events");
        let stop = Arc::new(AtomicBool::new(false));
        let looks = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Relaxed) {
                    std::thread::sleep(BUSY);
                    let_through(&mut group);
                }
            }
        });
        Self {
            stop,
            looks: Some(looks),
        }
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(looks) = self.looks.take() {
            let _ = looks.join();
        }
    }
}

/// Answers all that wait.
fn let_through(group: &mut File) {
    let mut events = [0; 4096];
    // None wait; or the file is leased, which the kernel takes for the scanner's own trouble and lets through.
    while let Ok(bytes @ 1..) = group.read(&mut events) {
        for event in events[..bytes].chunks_exact(EVENT_BYTES) {
            let fd = i32::from_ne_bytes(event[FD_AT..FD_AT + 4].try_into().unwrap());
            let _ = group.write_all(&[fd.to_ne_bytes(), libc::FAN_ALLOW.to_ne_bytes()].concat());
            drop(sys::received(fd));
        }
    }
}
