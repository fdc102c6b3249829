//! What lies at the path of a volume: its root, its mount, and which file system that is.

use std::io;
use std::path::Path;

use super::VolumeError;
use purge_collect::arming::{On, Wish};
use purge_config::VolumeConfig;
use purge_index::journal::Identity;
use purge_model::{Inode, Kind, Seconds};
use purge_removal::trash::layout::NAME;
use purge_sys::stat::{self, Device, Located, Mount};
use purge_sys::{beneath, bounded, filesystem};

/// What lies at the path of a volume.
#[derive(Debug, Clone)]
pub(super) struct Lies {
    /// The root.
    pub root: Located,
    /// Its mount.
    pub mount: Mount,
}

impl Lies {
    /// Looks there.
    ///
    /// # Errors
    /// When no directory lies there. A symbolic link is not followed.
    pub fn at(config: &VolumeConfig) -> Result<Self, VolumeError> {
        let missing = |why| VolumeError::missing(config, why);
        let unreadable = |e: io::Error| missing(format!("cannot be read: {e}"));
        let root = bounded::path(&config.path).map_err(unreadable)?;
        match root.stat.kind {
            Kind::Directory => {}
            Kind::Symlink => {
                let words = "is a symbolic link, and the volume's path is not followed: write the path that it leads to";
                return Err(missing(words.into()));
            }
            Kind::File | Kind::Special => return Err(missing("is no directory".into())),
        }
        let mount = stat::mount(&config.path).map_err(unreadable)?;
        Ok(Self { root, mount })
    }

    /// Where it is to be watched.
    pub fn on<'a>(&'a self, config: &'a VolumeConfig) -> On<'a> {
        On {
            root: &config.path,
            mount: &self.mount,
            device: self.root.device,
        }
    }

    /// How it is to be watched.
    pub fn wish(&self, config: &VolumeConfig, own: &[(Device, Inode)]) -> Wish {
        let own = own.iter().filter(|(device, _)| *device == self.root.device);
        let own = own.map(|(_, ino)| *ino);
        // Beside those, the trash.
        let root = beneath::open_root(&config.path);
        let trash = root.and_then(|root| stat::entry(root, NAME)).ok();
        Wish {
            device: self.root.device,
            own: own.chain(trash.map(|trash| trash.stat.ino)).collect(),
            root: config.path.clone(),
            ino: self.root.stat.ino,
            is_shared: self.mount.may_be_shared(),
            filesystem: (self.mount.magic, self.mount.filesystem.clone()),
            ignored: config.ignore_accessors.clone(),
            precision: config.precision,
        }
    }
}

/// Which file system lies at a path.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    identity_by(path, filesystem::id)
}

/// The same, as far as it is told without an event of our own: the root is not opened for it.
pub(super) fn identity_at_a_glance(path: &Path) -> io::Result<Identity> {
    identity_by(path, filesystem::id_at_a_glance)
}

fn identity_by(path: &Path, id: impl Fn(&Path, u64) -> io::Result<u64>) -> io::Result<Identity> {
    let root = stat::path(path)?;
    let kind = stat::mount(path)?.magic;
    Ok(Identity {
        magic: Identity::fold(kind, id(path, kind)?),
        root: root.stat.ino,
        // The change time, which stands for it elsewhere, moves with everything that is done to the root.
        birth: match root.keeps_birth {
            true => root.stat.birth,
            false => Seconds::MIN,
        },
    })
}
