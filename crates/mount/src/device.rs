//! The kernel's end of the mount.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::protocol::Answer;
use crate::protocol::opening::DATA_BYTES_MAX;
use purge_sys::fuse;
use rustix::io::Errno;

/// A request with all that comes before its data.
pub const REQUEST_BYTES_MAX: usize = DATA_BYTES_MAX as usize + (8 << 10);
/// `FUSE_NOTIFY_RESEND`.
const RESEND: i32 = 7;
/// `FUSE_NOTIFY_INVAL_ENTRY`.
const NAME_WENT: i32 = 3;
/// Set in the numbers of questions that are asked again (`FUSE_UNIQUE_RESEND`).
const ASKED_AGAIN: u64 = 1 << 63;

/// What comes of a request.
pub type Done = Result<Answer, Errno>;

/// The system's error in an error.
pub fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// `/dev/fuse`, of one mount.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Of this descriptor.
    pub fn of(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Reads a request. None: it is unmounted.
    ///
    /// # Errors
    /// What `read(2)` says.
    pub fn read<'b>(&self, into: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let length = fuse::read(self.0.as_fd(), into)?;
        Ok(length.and_then(|length| into.get(..length)))
    }

    fn write(&self, answer: &[u8]) {
        match fuse::write(self.0.as_fd(), answer) {
            Ok(()) => {}
            // Who asked was killed, or it is unmounted.
            Err(error) if matches!(errno(&error), Errno::NOENT | Errno::NODEV) => {}
            Err(error) => tracing::warn!(%error, "an answer to the kernel"),
        }
    }

    /// Has what an earlier process was asked and did not answer asked again.
    ///
    /// # Errors
    /// EINVAL before Linux 6.9.
    pub fn ask_again(&self) -> io::Result<()> {
        fuse::write(self.0.as_fd(), &Answer::done().as_message(RESEND))
    }

    /// The kernel is to ask again what has this name. It may wait for who is busy in that directory.
    ///
    /// # Errors
    /// ENOENT where it knows of no such name.
    pub fn name_went(&self, dir: u64, name: &CStr) -> io::Result<()> {
        let length = u32::try_from(name.count_bytes()).unwrap_or(0);
        let mut message = Answer::with_room(16).u64(dir).u32(length).u32(0);
        message.body().extend_from_slice(name.to_bytes_with_nul());
        fuse::write(self.0.as_fd(), &message.as_message(NAME_WENT))
    }

    /// Has the kernel read and write a file by itself.
    ///
    /// # Errors
    /// As [`fuse::register`].
    pub fn register(&self, file: BorrowedFd<'_>) -> io::Result<i32> {
        fuse::register(self.0.as_fd(), file)
    }

    /// The kernel need not keep a file any longer than it is open.
    pub fn forget(&self, number: i32) {
        fuse::forget(self.0.as_fd(), number);
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A question that gets exactly one answer.
#[derive(Debug)]
pub struct Ticket {
    device: Arc<Device>,
    unique: u64,
    answered: bool,
}

impl Ticket {
    /// For the question of this number.
    pub fn new(device: &Arc<Device>, unique: u64) -> Self {
        Self {
            device: Arc::clone(device),
            unique,
            answered: false,
        }
    }

    /// Which question.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// An earlier process may have done what is asked for, and not have answered.
    pub fn is_asked_again(&self) -> bool {
        self.unique & ASKED_AGAIN != 0
    }

    /// Answers.
    pub fn answer(mut self, done: Done) {
        self.answered = true;
        let bytes = match done {
            Ok(answer) => answer.to(self.unique),
            Err(errno) => Answer::error(errno.raw_os_error(), self.unique),
        };
        self.device.write(&bytes);
    }

    /// No answer is waited for.
    pub fn keep_silent(mut self) {
        self.answered = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.device
                .write(&Answer::error(Errno::IO.raw_os_error(), self.unique));
        }
    }
}
