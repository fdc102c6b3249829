//! How many things there are of each kind, and how large they are together.

use std::fmt;

/// What a plan takes, what a run took, what lies in a trash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Apparent sizes together, in bytes: those of the files in the directories too.
    pub bytes: u64,
    /// Files in the directories. `files` does not count them.
    pub files_inside: u64,
}

impl Totals {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// These without a part of them.
    #[must_use]
    pub fn minus(self, part: Self) -> Self {
        self.with(part, u64::saturating_sub)
    }

    /// Files, directories and links together.
    pub fn entries(&self) -> u64 {
        self.files
            .saturating_add(self.directories)
            .saturating_add(self.links)
    }

    /// All files: those by themselves, and those in the directories.
    pub fn all_files(&self) -> u64 {
        self.files.saturating_add(self.files_inside)
    }

    /// Counts one directory more, with as many files in it, which have this size together.
    pub fn add_directory(&mut self, files: u64, bytes: u64) {
        self.files_inside = self.files_inside.saturating_add(files);
        self.add(super::Kind::Directory, bytes);
    }

    /// Counts one entry more, of this size.
    pub fn add(&mut self, kind: super::Kind, bytes: u64) {
        let count = match kind {
            super::Kind::Directory => &mut self.directories,
            super::Kind::Symlink => &mut self.links,
            super::Kind::File | super::Kind::Special => &mut self.files,
        };
        *count = count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn with(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            files: each(self.files, other.files),
            directories: each(self.directories, other.directories),
            links: each(self.links, other.links),
            bytes: each(self.bytes, other.bytes),
            files_inside: each(self.files_inside, other.files_inside),
        }
    }
}

impl fmt::Display for Totals {
    /// For a log: `3 files, 1 directory, 4096 bytes`. The files in the directories are counted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |n: u64, one: &'static str, more: &'static str| (n, if n == 1 { one } else { more });
        let (files, file) = counted(self.all_files(), "file", "files");
        let (directories, directory) = counted(self.directories, "directory", "directories");
        write!(f, "{files} {file}, {directories} {directory}, ")?;
        if self.files_inside > 0 {
            let (inside, file) = counted(self.files_inside, "file", "files");
            write!(f, "{inside} {file} in directories, ")?;
        }
        if self.links > 0 {
            let (links, link) = counted(self.links, "link", "links");
            write!(f, "{links} {link}, ")?;
        }
        let (bytes, byte) = counted(self.bytes, "byte", "bytes");
        write!(f, "{bytes} {byte}")
    }
}
