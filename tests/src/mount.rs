//! File systems of a test's own. Unmounted, detached and removed when dropped, also when the test panics.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::sh;
use crate::skip::Unmet;
use crate::wait::until;

/// A kind of file system and how it keeps access times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fs {
    /// ext4, noatime; or ZFS, where `PURGE_TESTS_ZFS=1` wants that.
    Ext4,
    /// ext4, relatime.
    Ext4Relatime,
    /// xfs, noatime.
    Xfs,
    /// btrfs, noatime.
    Btrfs,
    /// tmpfs, noatime.
    Tmpfs,
}

impl Fs {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Relatime => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Ext4Relatime => "relatime",
            _ => "noatime",
        }
    }

    /// Whether ZFS takes its place.
    fn is_zfs(self) -> bool {
        let wanted = std::env::var("PURGE_TESTS_ZFS").is_ok_and(|v| v == "1");
        wanted && matches!(self, Self::Ext4 | Self::Ext4Relatime)
    }

    /// Smaller images are refused by their mkfs.
    fn mib_min(self) -> u64 {
        match self {
            Self::Ext4 | Self::Ext4Relatime | Self::Tmpfs => 16,
            Self::Btrfs => 256,
            Self::Xfs => 320,
        }
    }
}

/// A mounted file system.
#[derive(Debug)]
pub struct Mount {
    fs: Fs,
    mib: u64,
    mounted: bool,
    option: Option<String>,
    dir: TempDir,
    /// Its name, where it is a pool of ZFS.
    pool: Option<String>,
}

/// Others may take the loop device between its choice and its use.
const MOUNT_ATTEMPTS: usize = 10;

/// A pool takes some of it for itself.
const ZFS_MIB_MIN: u64 = 256;

/// Namespaces of tests live as long at most.
const LET_GO: Duration = Duration::from_secs(120);

impl Mount {
    /// Enough for some thousand small files.
    ///
    /// # Errors
    /// When this host cannot have it, or the agent could not watch it: a reason to skip.
    pub fn new(fs: Fs) -> Result<Self, Unmet> {
        Self::sized(fs, 128, 20_000)
    }

    /// A file system of `mib` MiB (sparse, or more where its mkfs wants more) with room for `inodes` files.
    ///
    /// # Errors
    /// See [`Mount::new`].
    pub fn sized(fs: Fs, mib: u64, inodes: u64) -> Result<Self, Unmet> {
        Self::made(fs, mib, inodes, &[])
    }

    /// The same, made with further arguments of its mkfs.
    ///
    /// # Errors
    /// See [`Mount::new`].
    pub fn made(fs: Fs, mib: u64, inodes: u64, arguments: &[&str]) -> Result<Self, Unmet> {
        can_watch()?;
        let dir = tempfile::Builder::new()
            .prefix("purge-tests-")
            .tempdir()
            .map_err(|e| Unmet(format!("no temporary directory: {e}")))?;
        let mib = mib.max(fs.mib_min());
        let mut mount = Self {
            fs,
            mib,
            mounted: false,
            option: None,
            pool: fs.is_zfs().then(|| pool_in(&dir)),
            dir,
        };
        fs::create_dir(mount.path()).map_err(|e| Unmet(e.to_string()))?;
        if let Some(pool) = &mount.pool {
            mount.make_pool(pool, arguments).map_err(Unmet)?;
            mount.mounted = true;
            return Ok(mount);
        }
        if fs != Fs::Tmpfs {
            let image = mount.image();
            File::create(&image)
                .and_then(|f| f.set_len(mib << 20))
                .map_err(|e| Unmet(format!("no image: {e}")))?;
            let mut mkfs = Command::new(format!("mkfs.{}", fs.name()));
            match fs {
                Fs::Ext4 | Fs::Ext4Relatime => mkfs.args(["-qF", "-I", "256", "-N"]).arg(inodes.to_string()),
                Fs::Xfs | Fs::Btrfs | Fs::Tmpfs => mkfs.args(["-q", "-f"]),
            };
            sh(mkfs.args(arguments).arg(&image)).map_err(Unmet)?;
        }
        mount.mount().map_err(Unmet)?;
        if fs == Fs::Tmpfs && rustix::fs::statvfs(mount.path()).is_ok_and(|s| s.f_fsid == 0) {
            return Err(Unmet(
                "this kernel's tmpfs has no id, and fanotify refuses it".into(),
            ));
        }
        Ok(mount)
    }

    /// A pool of ZFS in its image, with one data set.
    fn make_pool(&self, pool: &str, arguments: &[&str]) -> Result<(), String> {
        if !arguments.is_empty() {
            return Err(format!("ZFS has no {arguments:?}"));
        }
        let image = self.image();
        let made = File::create(&image).and_then(|f| f.set_len(self.mib.max(ZFS_MIB_MIN) << 20));
        made.map_err(|e| format!("no image: {e}"))?;
        let atime = match self.fs {
            Fs::Ext4Relatime => "atime=on",
            _ => "atime=off",
        };
        let mut create = Command::new("zpool");
        create.args([
            "create",
            "-f",
            "-O",
            atime,
            "-O",
            "relatime=on",
            "-O",
            "acltype=posixacl",
            "-O",
        ]);
        create.arg(format!("mountpoint={}", self.path().display()));
        sh(create.arg(pool).arg(image)).map(drop)
    }

    /// The pool of ZFS that it is, if it is one.
    pub fn pool(&self) -> Option<&str> {
        self.pool.as_deref()
    }

    /// The file system of an image that another program has filled; the image is moved.
    ///
    /// # Errors
    /// See [`Mount::new`].
    pub fn of_image(fs: Fs, image: &Path) -> Result<Self, Unmet> {
        can_watch()?;
        let mut mount = Self {
            fs,
            mib: 0,
            mounted: false,
            option: None,
            pool: None,
            dir: crate::files::temp_dir(),
        };
        fs::create_dir(mount.path()).map_err(|e| Unmet(e.to_string()))?;
        fs::rename(image, mount.image()).map_err(|e| Unmet(e.to_string()))?;
        mount.mount().map_err(Unmet)?;
        Ok(mount)
    }

    /// Its root.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A new directory at its root.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// The image of its device.
    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Mounts it again after [`Mount::unmount`]; a tmpfs is empty then.
    ///
    /// # Errors
    /// What mount says.
    pub fn mount(&mut self) -> Result<(), String> {
        if let Some(pool) = &self.pool {
            sh(Command::new("zpool")
                .args(["import", "-d"])
                .arg(self.dir.path())
                .arg(pool))?;
            self.mounted = true;
            return Ok(());
        }
        let mut last = String::new();
        for _ in 0..MOUNT_ATTEMPTS {
            let mut mount = Command::new("mount");
            mount.args(["-t", self.fs.name(), "-o"]);
            match self.fs {
                Fs::Tmpfs => mount
                    .arg(format!("{},size={}m,nr_inodes=0", self.fs.options(), self.mib))
                    .arg("purge-tests"),
                _ => {
                    let more = self.option.iter().map(|option| format!(",{option}"));
                    let options = format!("loop,{}{}", self.fs.options(), more.collect::<String>());
                    mount.arg(options).arg(self.image())
                }
            };
            match sh(mount.arg(self.path())) {
                Ok(_) => {
                    self.mounted = true;
                    return Ok(());
                }
                Err(e) => last = e,
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(last)
    }

    /// Unmounts it and mounts it again with one more option.
    ///
    /// # Panics
    /// When mount says no.
    pub fn remount(&mut self, option: &str) {
        self.unmount();
        self.option = Some(option.to_owned());
        self.mount().expect("mounts with the option");
    }

    /// Ends an ext4 in mid-flight, as a power cut would: nothing reaches the disk any more. With `flush_log` what its own
    /// journal holds still does.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn cut_power(&self, flush_log: bool) {
        let root = File::open(self.path()).expect("the root of the mount");
        crate::sys::shut_down(&root, flush_log).expect("EXT4_IOC_SHUTDOWN");
    }

    /// Freezes it as a snapshot does: each change waits until the answer is dropped.
    ///
    /// # Panics
    /// When fsfreeze says no.
    pub fn freeze(&self) -> Frozen {
        sh(Command::new("fsfreeze").arg("--freeze").arg(self.path())).expect("fsfreeze");
        Frozen(self.path())
    }

    /// Makes it read-only at once, as an error of the disk would.
    ///
    /// # Panics
    /// When mount says no.
    pub fn abort(&self) {
        sh(Command::new("mount")
            .args(["-o", "remount,abort"])
            .arg(self.path()))
        .expect("mount");
    }

    /// Damages an ext4 image by debugfs(8) commands, between unmounting and mounting it again.
    ///
    /// # Panics
    /// When debugfs or mount says no.
    pub fn damage(&mut self, commands: &[&str]) {
        self.unmount();
        for command in commands {
            let mut debugfs = Command::new("debugfs");
            sh(debugfs.args(["-w", "-R", command]).arg(self.image())).expect("debugfs");
        }
        self.mount().expect("mounts in spite of the damage");
    }

    /// Makes files of an ext4 that no process can open, though `stat` works: the block of their attributes is damaged (EUCLEAN). They must be
    /// another user's than root's, and open to their group.
    ///
    /// # Panics
    /// When debugfs or mount says no.
    pub fn spoil(&mut self, files: &[PathBuf]) {
        let command = |file: &PathBuf| {
            let ino = fs::symlink_metadata(file).expect("a file of this mount").ino();
            format!("sif <{ino}> file_acl 7000")
        };
        let commands: Vec<String> = files.iter().map(command).collect();
        self.damage(&commands.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Unmounts it; its directory stays. Comes back when the kernel has let go of it: a mount namespace that another test
    /// made in the meantime has a copy of the mount, and what is mounted again before that one ends is the same file system,
    /// be it read-only after an error. Returns how long a process on the host kept it busy: what other namespaces do is no part of that.
    pub fn unmount(&mut self) -> Duration {
        let mut busy = Duration::ZERO;
        if let Some(pool) = self.pool.as_ref().filter(|_| self.mounted) {
            self.mounted = false;
            until("the pool is exported", LET_GO, || {
                sh(Command::new("zpool").arg("export").arg(pool)).ok()
            });
        }
        if std::mem::take(&mut self.mounted) {
            let device = block_device(&self.path());
            let began = Instant::now();
            unmount(&self.path());
            busy = began.elapsed();
            if let Some(device) = device {
                let held = Path::new("/sys/fs").join(self.fs.name()).join(device);
                until("the file system is let go", LET_GO, || {
                    (!held.exists()).then_some(())
                });
            }
        }
        busy
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        match &self.pool {
            Some(pool) if self.mounted => {
                if let Err(e) = sh(Command::new("zpool").args(["destroy", "-f"]).arg(pool)) {
                    eprintln!("the pool {pool} stays: {e}");
                }
            }
            _ if self.mounted => unmount(&self.path()),
            _ => {}
        }
    }
}

/// A name for the pool of a directory of its own.
fn pool_in(dir: &TempDir) -> String {
    let name = dir.path().file_name().unwrap_or_default();
    format!("pool-{}", name.to_string_lossy())
}

/// The name of the device under a mount, where it has one.
fn block_device(path: &Path) -> Option<OsString> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(device.file_name()?.to_owned())
}

/// A file system that is frozen while this lives.
#[derive(Debug)]
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(e) = sh(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0)) {
            eprintln!("{} stays frozen: {e}", self.0.display());
        }
    }
}

/// One directory mounted on another.
#[derive(Debug)]
pub struct Bind(PathBuf);

impl Bind {
    /// Mounts `from` on `to`.
    ///
    /// # Errors
    /// When this host does not let it: a reason to skip.
    pub fn new(from: &Path, to: &Path) -> Result<Self, Unmet> {
        sh(Command::new("mount").arg("--bind").arg(from).arg(to)).map_err(Unmet)?;
        Ok(Self(to.to_owned()))
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

fn unmount(path: &Path) {
    // A process may still be about to close its last file.
    for _ in 0..50 {
        if sh(Command::new("umount").arg(path)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!(
        "{} is in use and unmounted all the same: {:?}",
        path.display(),
        held_by(path)
    );
    if let Err(e) = sh(Command::new("umount").arg("-l").arg(path)) {
        eprintln!("cannot unmount {}: {e}", path.display());
    }
}

/// Unmounts what no process is to have open, at the first try.
///
/// # Panics
/// When a process has: it says which, and what.
pub fn unmount_at_once(path: &Path) {
    if let Err(error) = sh(Command::new("umount").arg(path)) {
        panic!("{error}: {:?}", held_by(path));
    }
}

/// What is open below a path, by links of `/proc`.
fn held_by(path: &Path) -> Vec<String> {
    let listed = |dir: PathBuf| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    let links = listed("/proc".into()).flat_map(|process| {
        let own = ["cwd", "root", "exe"].map(|name| process.join(name));
        own.into_iter().chain(listed(process.join("fd")))
    });
    let held = links.filter_map(|link| {
        let to = fs::read_link(&link).ok().filter(|to| to.starts_with(path))?;
        Some(format!("{} -> {}", link.display(), to.display()))
    });
    held.collect()
}

/// Whether an agent can watch anything here.
fn can_watch() -> Result<(), Unmet> {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let mask = mask
        .and_then(|m| u64::from_str_radix(m.trim(), 16).ok())
        .unwrap_or(0);
    if mask & (1 << CAP_SYS_ADMIN) == 0 {
        return Err(Unmet("needs root (CAP_SYS_ADMIN)".into()));
    }
    Ok(())
}

/// An overlayfs of directories of one file system.
#[derive(Debug)]
pub struct Overlay(PathBuf);

impl Overlay {
    /// Mounts one at `merged` in `dir`, over `lower`, `upper` and `work` there.
    ///
    /// # Errors
    /// When this host does not let it: a reason to skip.
    pub fn new(dir: &Path) -> Result<Self, Unmet> {
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(dir.join(name)).map_err(|e| Unmet(e.to_string()))?;
        }
        let of = |name: &str| dir.join(name).display().to_string();
        let options = format!(
            "noatime,lowerdir={},upperdir={},workdir={}",
            of("lower"),
            of("upper"),
            of("work")
        );
        let at = dir.join("merged");
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&at);
        sh(&mut mount).map_err(Unmet)?;
        Ok(Self(at))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}
