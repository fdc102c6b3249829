//! What is answered.

use std::ffi::CStr;
use std::time::Duration;

use purge_sys::backing::Listed;
use rustix::fs::{StatVfs, Statx};

/// Bytes before each answer (`struct fuse_out_header`).
const HEAD_BYTES: usize = 16;
/// The bytes of a name, a kind and a place in a listing before the name (`struct fuse_dirent`).
const LISTED_BYTES: usize = 24;
/// What is said of a file (`struct fuse_entry_out`).
const ENTRY_BYTES: usize = 128;

/// For how long the kernel may believe a name, and what was said of a file. Others may change either behind the mount.
pub const BELIEVED: Duration = Duration::from_secs(1);

/// The bytes of an answer.
#[derive(Debug, Clone)]
pub struct Answer(Vec<u8>);

/// A file as the kernel gets to know it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// By this number it is asked for from now on.
    pub node: u64,
    /// Tells it from others that had the number.
    pub generation: u64,
    /// What is said of it.
    pub found: Statx,
}

impl Answer {
    /// Nothing but that it is done.
    pub fn done() -> Self {
        Self::with_room(0)
    }

    /// One with room for this number of bytes.
    pub fn with_room(bytes: usize) -> Self {
        let mut answer = Vec::with_capacity(HEAD_BYTES.saturating_add(bytes));
        answer.resize(HEAD_BYTES, 0);
        Self(answer)
    }

    /// An error.
    pub fn error(errno: i32, unique: u64) -> Vec<u8> {
        let mut answer = Self::done();
        if let Some(place) = answer.0.get_mut(4..8) {
            place.copy_from_slice(&errno.saturating_neg().to_ne_bytes());
        }
        answer.to(unique)
    }

    /// The bytes of a message that answers no question, of this kind (`FUSE_NOTIFY_*`).
    pub fn as_message(mut self, kind: i32) -> Vec<u8> {
        if let Some(place) = self.0.get_mut(4..8) {
            place.copy_from_slice(&kind.to_ne_bytes());
        }
        self.to(0)
    }

    /// The bytes that answer a question.
    pub fn to(mut self, unique: u64) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        if let Some(place) = self.0.get_mut(8..HEAD_BYTES) {
            place.copy_from_slice(&unique.to_ne_bytes());
        }
        self.0
    }

    /// What follows the head, to be added to.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Its bytes after the head.
    pub fn length(&self) -> usize {
        self.0.len().saturating_sub(HEAD_BYTES)
    }

    /// Takes away what is more than this number of bytes.
    pub fn cut(&mut self, bytes: usize) {
        self.0.truncate(HEAD_BYTES.saturating_add(bytes));
    }

    /// These bytes.
    pub fn bytes(bytes: &[u8]) -> Self {
        let mut answer = Self::with_room(bytes.len());
        answer.0.extend_from_slice(bytes);
        answer
    }

    /// Adds a number.
    #[must_use]
    pub fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    /// A file that has a name.
    pub fn entry(entry: &Entry) -> Self {
        Self::with_room(ENTRY_BYTES).and_entry(entry)
    }

    fn and_entry(self, entry: &Entry) -> Self {
        let (seconds, nanos) = (BELIEVED.as_secs(), BELIEVED.subsec_nanos());
        self.u64(entry.node)
            .u64(entry.generation)
            .u64(seconds)
            .u64(seconds)
            .u32(nanos)
            .u32(nanos)
            .and_attributes(&entry.found)
    }

    /// What is said of a file.
    pub fn attributes(found: &Statx) -> Self {
        let (seconds, nanos) = (BELIEVED.as_secs(), BELIEVED.subsec_nanos());
        Self::with_room(104)
            .u64(seconds)
            .u32(nanos)
            .u32(0)
            .and_attributes(found)
    }

    fn and_attributes(self, found: &Statx) -> Self {
        let (major, minor) = (found.stx_rdev_major, found.stx_rdev_minor);
        let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        self.u64(found.stx_ino)
            .u64(found.stx_size)
            .u64(found.stx_blocks)
            .u64(found.stx_atime.tv_sec.cast_unsigned())
            .u64(found.stx_mtime.tv_sec.cast_unsigned())
            .u64(found.stx_ctime.tv_sec.cast_unsigned())
            .u32(found.stx_atime.tv_nsec)
            .u32(found.stx_mtime.tv_nsec)
            .u32(found.stx_ctime.tv_nsec)
            .u32(u32::from(found.stx_mode))
            .u32(found.stx_nlink)
            .u32(found.stx_uid)
            .u32(found.stx_gid)
            .u32(device)
            .u32(found.stx_blksize)
            .u32(0)
    }

    /// Adds an open file. `backing`: the kernel reads and writes it by itself.
    #[must_use]
    pub fn and_open(self, handle: u64, backing: Option<i32>) -> Self {
        /// `FOPEN_PASSTHROUGH`.
        const BY_ITSELF: u32 = 1 << 7;
        let flags = backing.map_or(0, |_| BY_ITSELF);
        self.u64(handle)
            .u32(flags)
            .u32(backing.unwrap_or(0).cast_unsigned())
    }

    /// Adds an open directory, whose listing the kernel keeps. `is_believed`: it uses what it has kept of it.
    #[must_use]
    pub fn and_open_dir(self, handle: u64, is_believed: bool) -> Self {
        /// `FOPEN_CACHE_DIR`.
        const KEEPS: u32 = 1 << 3;
        /// `FOPEN_KEEP_CACHE`.
        const USES: u32 = 1 << 1;
        let flags = if is_believed { KEEPS | USES } else { KEEPS };
        self.u64(handle).u32(flags).u32(0)
    }

    /// Room and limits of a file system.
    pub fn room(room: &StatVfs) -> Self {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let answer = Self::with_room(80)
            .u64(room.f_blocks)
            .u64(room.f_bfree)
            .u64(room.f_bavail)
            .u64(room.f_files)
            .u64(room.f_ffree)
            .u32(small(room.f_bsize))
            .u32(small(room.f_namemax))
            .u32(small(room.f_frsize));
        (0..7).fold(answer, |answer, _| answer.u32(0))
    }

    /// Adds an entry to a listing of at most this number of bytes. False: there is no room for it.
    pub fn add_listed(&mut self, listed: &Listed<'_>, most: usize) -> bool {
        if !self.has_room(LISTED_BYTES, listed.name, most) {
            return false;
        }
        self.add_dirent(listed);
        true
    }

    /// The same with what is said of it; none: nothing is.
    pub fn add_listed_with(&mut self, listed: &Listed<'_>, entry: Option<&Entry>) {
        let answer = std::mem::replace(self, Self(Vec::new()));
        *self = match entry {
            Some(entry) => answer.and_entry(entry),
            None => {
                let mut answer = answer;
                let to = answer.0.len().saturating_add(ENTRY_BYTES);
                answer.0.resize(to, 0);
                answer
            }
        };
        self.add_dirent(listed);
    }

    /// Whether [`Answer::add_listed_with`] has room.
    pub fn has_room_with(&self, name: &CStr, most: usize) -> bool {
        self.has_room(ENTRY_BYTES.saturating_add(LISTED_BYTES), name, most)
    }

    fn has_room(&self, before: usize, name: &CStr, most: usize) -> bool {
        let bytes = before.saturating_add(name.count_bytes()).next_multiple_of(8);
        self.length().saturating_add(bytes) <= most
    }

    fn add_dirent(&mut self, listed: &Listed<'_>) {
        let name = listed.name.to_bytes();
        let length = u32::try_from(name.len()).unwrap_or(0);
        let answer = std::mem::replace(self, Self(Vec::new()));
        *self = answer
            .u64(listed.ino)
            .u64(listed.next)
            .u32(length)
            .u32(listed.kind);
        self.0.extend_from_slice(name);
        let to = self.length().next_multiple_of(8).saturating_add(HEAD_BYTES);
        self.0.resize(to, 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_has_the_negative_number_and_the_question() {
        let bytes = Answer::error(2, 77);
        assert_eq!(bytes.len(), 16);
        assert_eq!(bytes[..4], 16u32.to_ne_bytes());
        assert_eq!(bytes[4..8], (-2i32).to_ne_bytes());
        assert_eq!(bytes[8..], 77u64.to_ne_bytes());
    }

    #[test]
    fn a_listing_ends_where_no_room_is_left_and_each_entry_is_a_multiple_of_eight() {
        let listed = Listed {
            ino: 5,
            kind: 8,
            name: c"abc",
            next: 9,
        };
        let mut answer = Answer::with_room(64);
        assert!(answer.add_listed(&listed, 64));
        assert_eq!(answer.length(), 32);
        assert!(answer.add_listed(&listed, 64));
        assert!(!answer.add_listed(&listed, 64));
        let mut answer = Answer::with_room(200);
        assert!(answer.has_room_with(c"abc", 160) && !answer.has_room_with(c"abc", 159));
        answer.add_listed_with(&listed, None);
        assert_eq!(answer.length(), 160);
    }
}
