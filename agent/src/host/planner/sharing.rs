//! What really comes free when a file goes: not the blocks that a snapshot or a copy by reflink uses as well, and nothing at all
//! while it has a name outside of the volume.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use purge_proto::units::format_size;

use crate::volume::Volume;
use purge_index::Attributes;
use purge_model::Inode;
use purge_policy::blocks::{Lies, OnDisk};
use purge_policy::evaluate::Pick;
use purge_policy::needed::Need;
use purge_policy::sample::Kept;
use purge_sys::extents;
use purge_sys::stat::magic;

/// At most this number of files is asked for one plan, and for so long: the others are taken to be like these.
const ASKED_MAX: u64 = 50_000;
const ASKED_FOR: Duration = Duration::from_secs(20);

/// Bytes of the files that were looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Looked {
    /// Apparent.
    pub bytes: u64,
    /// On disk.
    pub allocated: u64,
    /// On disk, and used by nothing else.
    pub frees: u64,
}

/// Looks at files that were drawn of each subject of a quota, some seconds for all subjects together. None: copies share no blocks here, or the
/// file system does not tell.
pub(super) fn look_at(volume: &Volume, drawn: Vec<Kept>) -> Option<OnDisk> {
    // Here no two files share a block.
    let shares = !matches!(volume.mount.magic, magic::EXT4 | magic::TMPFS);
    let root = (shares && !drawn.is_empty()).then(|| volume.watched.open_root().ok())??;
    let (began, mut left) = (Instant::now(), u32::try_from(drawn.len()).unwrap_or(u32::MAX));
    let mut seen = OnDisk::default();
    for Kept { mut threshold, files } in drawn {
        let rest = ASKED_FOR.saturating_sub(began.elapsed());
        let share = rest.checked_div(left).unwrap_or_default();
        let until = Instant::now().checked_add(share).unwrap_or(began);
        left = left.saturating_sub(1);
        let mut looked = Vec::new();
        for file in files {
            if Instant::now() >= until {
                // The others are as if they had not been drawn.
                threshold = threshold.max(file.priority());
                break;
            }
            let found = path_of(volume, file.ino).map(|path| extents::places(&root, &path, file.ino));
            let lies = match found {
                Some(Ok(found)) => Lies {
                    own: found.own,
                    shared: found.shared,
                    is_whole: found.is_whole,
                },
                Some(Err(error)) if extents::is_untold(&error) => return None,
                // A file that cannot be looked at counts for nothing: its owner may have seen to that.
                Some(Err(_)) | None => Lies::default(),
            };
            looked.push((file, lies));
        }
        seen.add(looked.into_iter(), threshold);
    }
    Some(seen)
}

/// The path of a file below the volume, by the first of its names.
pub(super) fn path_of(volume: &Volume, ino: Inode) -> Option<Vec<u8>> {
    let index = volume.watched.index.read();
    let names = index.names(ino).ok()?;
    let (parent, name) = names.first()?;
    let mut path = index.dirs().path(*parent)?;
    purge_model::path::push(&mut path, name);
    Some(path)
}

/// Looks at candidates.
pub(super) struct Sharing<'a> {
    volume: &'a Volume,
    /// None: the file system does not tell.
    root: Option<OwnedFd>,
    /// What it tells is how much a file takes now. The index may know less: ZFS tells that of what was written some seconds later.
    lags: bool,
    began: Instant,
    asked: u64,
    all: Looked,
    /// Of those that bring something.
    pub(super) useful: Looked,
    /// Files with names outside of the volume.
    elsewhere: u64,
}

impl<'a> Sharing<'a> {
    pub(super) fn new(volume: &'a Volume) -> Self {
        // Others have no blocks that are shared, or do not tell.
        let lags = volume.mount.magic == magic::ZFS;
        let tells = lags || matches!(volume.mount.magic, magic::BTRFS | magic::XFS);
        Self {
            volume,
            root: tells.then(|| volume.watched.open_root().ok()).flatten(),
            lags,
            began: Instant::now(),
            asked: 0,
            all: Looked::default(),
            useful: Looked::default(),
            elsewhere: 0,
        }
    }

    /// Bytes and inodes that come free when this goes.
    pub(super) fn gain(&mut self, pick: &Pick) -> Need {
        let Some((entry, path)) = self.find(pick) else {
            return (0, 0);
        };
        let Some(path) = path else {
            self.elsewhere = self.elsewhere.saturating_add(1);
            return (0, 0);
        };
        let allocated = self.allocated(pick, entry.allocated, &path);
        let frees = match self.lags {
            true => allocated,
            false => self.frees(pick, allocated, &path),
        };
        self.all.add(entry.size, allocated, frees);
        if frees > 0 {
            self.useful.add(entry.size, allocated, frees);
        }
        (frees.into(), pick.files.into())
    }

    /// What the index says, and the path below the volume; without one the file has names that the index does not know.
    fn find(&self, pick: &Pick) -> Option<(Attributes, Option<Vec<u8>>)> {
        let index = self.volume.watched.index.read();
        let (entry, _) = index.get(pick.ino)?;
        if self.root.is_none() && entry.links <= 1 {
            return Some((entry, Some(Vec::new())));
        }
        let names = index.names(pick.ino).ok()?;
        if usize::try_from(entry.links).unwrap_or(usize::MAX) > names.len().max(1) {
            return Some((entry, None));
        }
        let (parent, name) = names.first()?;
        let mut path = index.dirs().path(*parent)?;
        purge_model::path::push(&mut path, name);
        Some((entry, Some(path)))
    }

    /// What it takes on disk.
    fn allocated(&self, pick: &Pick, known: u64, path: &[u8]) -> u64 {
        let asked = self
            .root
            .as_ref()
            .filter(|_| self.lags && self.began.elapsed() <= ASKED_FOR);
        let found = asked.and_then(|root| extents::allocated(root, path, pick.ino).ok());
        found.unwrap_or(known)
    }

    fn frees(&mut self, pick: &Pick, allocated: u64, path: &[u8]) -> u64 {
        let Some(root) = &self.root else {
            return allocated;
        };
        if self.asked >= ASKED_MAX || self.began.elapsed() > ASKED_FOR {
            let like = u128::from(allocated).saturating_mul(self.all.frees.into());
            let like = like.checked_div(self.all.allocated.into());
            return like.map_or(allocated, |n| u64::try_from(n).unwrap_or(u64::MAX));
        }
        self.asked = self.asked.saturating_add(1);
        match extents::of(root, path, pick.ino) {
            Ok(found) => found.frees(allocated),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                self.root = None;
                allocated
            }
            // What cannot be looked at is measured once it has been removed.
            Err(_) => allocated,
        }
    }

    /// What was passed over, for a person; nothing where nothing was.
    pub(super) fn in_words(&self) -> Option<String> {
        let shared = self.all.allocated.saturating_sub(self.all.frees);
        let mut parts = Vec::new();
        if shared > 0 {
            parts.push(format!(
                "{} of the files that may go lie in blocks that a snapshot or a copy (reflink) uses as well, and would not come free",
                format_size(shared)
            ));
        }
        if self.elsewhere > 0 {
            parts.push(format!(
                "{} of the files have names outside of the volume",
                self.elsewhere
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Looked {
    fn add(&mut self, bytes: u64, allocated: u64, frees: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.allocated = self.allocated.saturating_add(allocated);
        self.frees = self.frees.saturating_add(frees.min(allocated));
    }
}
