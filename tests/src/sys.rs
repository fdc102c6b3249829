//! What the tests need and has no safe wrapper: a mapping whose descriptor is closed before it is read, the end of a file
//! system in mid-flight, connecting as another user, a thread that gets no further, and being asked before files are opened.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Maps the first page of a file for reading, closes the descriptor, and reads a byte through the mapping.
pub(crate) fn read_through_mapping(file: File) -> io::Result<u8> {
    const BYTES: usize = 4096;
    // SAFETY: the kernel chooses the address; no Rust object is aliased.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    drop(file);
    // SAFETY: the page is mapped readable, and the callers map files that are not empty.
    let byte = unsafe { at.cast::<u8>().read_volatile() };
    // SAFETY: exactly what was mapped above, and no reference into it is left.
    unsafe { libc::munmap(at, BYTES) };
    Ok(byte)
}

/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;

/// Shuts an ext4 down.
pub(crate) fn shut_down(root: &File, flush_log: bool) -> io::Result<()> {
    let how: u32 = if flush_log { 1 } else { 2 };
    // SAFETY: the kernel reads four bytes from the pointer and keeps nothing.
    match unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Connects to a unix socket as another user: identities belong to threads, and the socket keeps that of the one that connects.
pub(crate) fn connect_as(socket: &Path, uid: u32, groups: &[u32]) -> io::Result<UnixStream> {
    let check = |result: libc::c_long| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let connect = || {
        // SAFETY: the kernel reads as many gids as the slice has. The C library's own wrappers would change every thread.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_setresgid, uid, uid, uid) })?;
        // SAFETY: numbers only.
        check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
        UnixStream::connect(socket)
    };
    std::thread::scope(|s| s.spawn(connect).join().unwrap())
}

/// A page of a file, mapped: it keeps the file in use after its descriptor is closed.
#[derive(Debug)]
pub struct Mapping(*mut std::ffi::c_void);

// SAFETY: an address that no other thread unmaps; bytes are read and written by volatile accesses.
unsafe impl Send for Mapping {}

/// Bytes that a [`Mapping`] covers.
const PAGE: usize = 4096;

impl Mapping {
    /// Maps the beginning of a file and closes it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn of(file: File) -> Self {
        Self::with(&file, rustix::mm::ProtFlags::READ)
    }

    /// Maps the beginning of a file for reading and writing, and closes it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn writable(file: File) -> Self {
        Self::with(&file, rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE)
    }

    fn with(file: &File, protection: rustix::mm::ProtFlags) -> Self {
        use rustix::mm::{MapFlags, mmap};
        // SAFETY: a fresh mapping of an open file at an address of the kernel's choice; no code reads it.
        let at = unsafe { mmap(std::ptr::null_mut(), PAGE, protection, MapFlags::SHARED, file, 0) };
        Self(at.expect("a mapping"))
    }

    /// Writes its first byte. It must have been made by [`Mapping::writable`], of a file that is not empty.
    pub fn write_first_byte(&self, byte: u8) {
        // SAFETY: mapped by `writable` for writing, and its callers map files that are not empty.
        unsafe { self.0.cast::<u8>().write_volatile(byte) }
    }

    /// Reads through it. The file must not be empty.
    pub fn first_byte(&self) -> u8 {
        // SAFETY: mapped by `of` for reading, and its callers map files that are not empty.
        unsafe { self.0.cast::<u8>().read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` with this length, and read by no code.
        unsafe { rustix::mm::munmap(self.0, PAGE).expect("munmap") };
    }
}

/// Moves the first byte of a file into a pipe, with splice(2).
///
/// # Errors
/// What the kernel says.
pub fn splice_into_a_pipe(file: &File) -> io::Result<()> {
    let (_from, to) = io::pipe()?;
    let (file, to) = (file.as_raw_fd(), to.as_raw_fd());
    // SAFETY: numbers and no offsets: the kernel reads and writes no memory of this process.
    match unsafe { libc::splice(file, std::ptr::null_mut(), to, std::ptr::null_mut(), 1, 0) } {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A fanotify group that is asked before a file is opened through the mount at `path`.
pub(crate) fn ask_before_opens(path: &Path) -> io::Result<File> {
    let class = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: numbers only.
    let raw = unsafe { libc::fanotify_init(class, (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned()) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    let group = File::from(received(raw));
    let path = CString::new(path.as_os_str().as_bytes())?;
    let how = libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT;
    // SAFETY: the path ends with a zero and outlives the call.
    match unsafe { libc::fanotify_mark(raw, how, libc::FAN_OPEN_PERM, libc::AT_FDCWD, path.as_ptr()) } {
        0 => Ok(group),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that the kernel has just given.
pub(crate) fn received(fd: i32) -> OwnedFd {
    // SAFETY: the callers have just got it from the kernel, and no other code knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A thread of another process that is held where it is, while the rest of its process goes on.
#[derive(Debug)]
pub struct Held(libc::pid_t);

impl Held {
    /// Holds it, until its process or the calling thread ends.
    pub(crate) fn hold(thread: libc::pid_t) -> io::Result<Self> {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: neither request reads or writes memory of this process.
            if unsafe { libc::ptrace(request, thread, nothing, nothing) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Self(thread).next_state()
    }

    /// Waits until its process has ended.
    pub(crate) fn ended(self) -> io::Result<()> {
        self.next_state().map(drop)
    }

    fn next_state(self) -> io::Result<Self> {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(self),
        }
    }
}

/// Takes the mark of a file system away from a fanotify group of another process, all but one event that nothing there makes: the list of the marks
/// still has it.
///
/// # Errors
/// When the process has no such group, or the kernel refuses.
pub fn make_deaf(pid: u32, volume: &Path) -> io::Result<()> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    const REMOVE_FROM_FILESYSTEM: libc::c_uint = 0x2 | 0x100;
    /// ACCESS MODIFY CLOSE_WRITE CLOSE_NOWRITE OPEN CREATE DELETE DELETE_SELF OPEN_EXEC RENAME; ATTRIB stays.
    const ALL_BUT_ATTRIB: u64 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x1000_0000;
    let process = Pid::from_raw(i32::try_from(pid).unwrap_or(0)).ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    for file in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let file = file?.path();
        if !std::fs::read_link(&file).is_ok_and(|to| to.as_os_str() == "anon_inode:[fanotify]") {
            continue;
        }
        let number = file
            .file_name()
            .and_then(|n| n.to_str()?.parse().ok())
            .unwrap_or(-1);
        let group = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        let path = CString::new(volume.as_os_str().as_bytes())?;
        let at = libc::AT_FDCWD;
        // SAFETY: the path ends with NUL and outlives the call; the descriptor is open.
        let done = unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                REMOVE_FROM_FILESYSTEM,
                ALL_BUT_ATTRIB,
                at,
                path.as_ptr(),
            )
        };
        return match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
    }
    Err(io::ErrorKind::NotFound.into())
}
