//! Some forty ways to use or change a file.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use purge_sys::handle::Handle;
use purge_tests::files::{age, append, execute, make_executable, make_one, read, read_mapped};
use purge_tests::sys::{Mapping, splice_into_a_pipe};
use rustix::fs::{AtFlags, Mode, OFlags};

/// Where it is done.
pub(super) struct Place {
    /// The file, in a directory of its own of the volume.
    pub file: PathBuf,
    /// A directory of the same file system, outside of the volume.
    outside: PathBuf,
    /// What was done before the agent began.
    before: Option<Before>,
}

enum Before {
    Open(File),
    Mapped(Mapping),
    Link(PathBuf),
}

/// Whether it could be done there.
pub(super) type Done = std::io::Result<()>;

enum Act {
    Does(fn(&Place) -> Done),
    /// A line of a shell in the file's directory: `$f` is the file, and `$o` the directory outside.
    Sh(&'static str),
}

pub(super) struct Step {
    pub name: &'static str,
    before: Option<fn(&Path, &Path) -> Option<Before>>,
    act: Act,
}

impl Step {
    /// What is done before the agent begins.
    pub fn begin(&self, file: PathBuf, outside: PathBuf) -> Place {
        let before = self.before.and_then(|before| before(&file, &outside));
        Place {
            file,
            outside,
            before,
        }
    }

    pub fn act(&self, at: &mut Place) -> Done {
        let done = match self.act {
            Act::Does(act) => act(at),
            Act::Sh(line) => at.sh(line),
        };
        if self.name.starts_with("close of") {
            at.before = None;
        }
        done
    }
}

const fn step(name: &'static str, act: fn(&Place) -> Done) -> Step {
    Step {
        name,
        before: None,
        act: Act::Does(act),
    }
}

const fn after(
    name: &'static str,
    before: fn(&Path, &Path) -> Option<Before>,
    act: fn(&Place) -> Done,
) -> Step {
    Step {
        name,
        before: Some(before),
        act: Act::Does(act),
    }
}

const fn sh(name: &'static str, line: &'static str) -> Step {
    Step {
        name,
        before: None,
        act: Act::Sh(line),
    }
}

fn opened(file: &Path, _: &Path) -> Option<Before> {
    let file = OpenOptions::new().read(true).write(true).open(file);
    file.ok().map(Before::Open)
}

fn mapped(file: &Path, _: &Path) -> Option<Before> {
    let file = OpenOptions::new().read(true).write(true).open(file);
    file.ok().map(|file| Before::Mapped(Mapping::of(file)))
}

fn linked(file: &Path, outside: &Path) -> Option<Before> {
    let link = outside.join(format!("{}-link", file.file_name()?.to_str()?));
    fs::hard_link(file, &link).ok()?;
    Some(Before::Link(link))
}

fn unmet() -> std::io::Error {
    std::io::ErrorKind::Unsupported.into()
}

impl Place {
    fn open_before(&self) -> std::io::Result<&File> {
        match &self.before {
            Some(Before::Open(file)) => Ok(file),
            _ => Err(unmet()),
        }
    }

    fn dir(&self) -> &Path {
        self.file.parent().unwrap()
    }

    fn open(&self) -> std::io::Result<File> {
        File::open(&self.file)
    }

    fn sh(&self, line: &str) -> Done {
        let name = self.file.file_name().unwrap();
        let script = format!(
            "set -e; f='{}'; o='{}'; {GONE}; {line}",
            name.to_str().unwrap(),
            self.outside.display()
        );
        let mut sh = Command::new("sh");
        let done = sh.args(["-c", &script]).current_dir(self.dir()).output()?;
        match done.status.success() {
            true => Ok(()),
            false => Err(std::io::Error::other(
                String::from_utf8_lossy(&done.stderr).into_owned(),
            )),
        }
    }
}

/// An event that carries a descriptor keeps a mount busy until it is read.
const GONE: &str =
    "unmount() { for _ in $(seq 50); do ! umount $1 2>/dev/null || return 0; sleep 0.1; done; umount $1; }";

pub(super) const STEPS: &[Step] = &[
    step("open, read, close", |at| {
        read(&at.file);
        Ok(())
    }),
    step("open, close", |at| at.open().map(drop)),
    after("read of a descriptor that was open before", opened, |at| {
        at.open_before()?.read_at(&mut [0; 1], 0).map(drop)
    }),
    after("write to a descriptor that was open before", opened, |at| {
        at.open_before()?.write_at(b"y", 0).map(drop)
    }),
    after("close of a descriptor that was open before", opened, |_| Ok(())),
    after("page of a mapping from before", mapped, |at| match &at.before {
        Some(Before::Mapped(mapping)) => {
            mapping.first_byte();
            Ok(())
        }
        _ => Err(unmet()),
    }),
    step("open, map, close, read", |at| {
        read_mapped(&at.file);
        Ok(())
    }),
    after(
        "execute",
        |file, _| {
            make_executable(file);
            None
        },
        |at| {
            execute(&at.file);
            Ok(())
        },
    ),
    step("open for writing, close", |at| {
        OpenOptions::new().write(true).open(&at.file).map(drop)
    }),
    step("append", |at| {
        append(&at.file);
        Ok(())
    }),
    sh(
        "read with O_DIRECT",
        "dd if=$f of=/dev/null bs=4096 iflag=direct status=none",
    ),
    sh(
        "read with O_NOATIME",
        "dd if=$f of=/dev/null iflag=noatime status=none",
    ),
    step("sendfile", |at| {
        let (file, out) = (at.open()?, File::create(at.outside.join("sent"))?);
        rustix::fs::sendfile(&out, &file, None, 1)
            .map(drop)
            .map_err(Into::into)
    }),
    step("splice into a pipe", |at| splice_into_a_pipe(&at.open()?)),
    step("copy_file_range from it", |at| {
        let (file, out) = (at.open()?, File::create(at.outside.join("copied"))?);
        rustix::fs::copy_file_range(&file, None, &out, None, 1)
            .map(drop)
            .map_err(Into::into)
    }),
    sh("clone of it", "cp --reflink=always $f $o/clone"),
    step("read again by /proc/self/fd", |at| {
        let held = rustix::fs::open(&at.file, OFlags::PATH, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held.as_fd()));
        fs::read(path).map(drop)
    }),
    after(
        "read by a hard link outside, from before",
        linked,
        |at| match &at.before {
            Some(Before::Link(link)) => {
                read(link);
                Ok(())
            }
            _ => Err(unmet()),
        },
    ),
    step("read by a hard link in the volume", |at| {
        let link = at.dir().with_file_name("by-link");
        fs::create_dir_all(&link)?;
        let link = link.join(at.file.file_name().unwrap());
        fs::hard_link(&at.file, &link)?;
        read(&link);
        Ok(())
    }),
    step("read by a hard link outside, made now", |at| {
        let link = at.outside.join("new-link");
        fs::hard_link(&at.file, &link)?;
        read(&link);
        Ok(())
    }),
    step("read by a symbolic link outside", |at| {
        let link = at.outside.join("symlink");
        symlink(&at.file, &link)?;
        read(&link);
        Ok(())
    }),
    step("read by file handle", |at| {
        let (handle, root) = (Handle::of_path(&at.file)?, File::open(at.dir())?);
        let held = handle.open_path(&root)?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held.as_fd()));
        fs::read(path).map(drop)
    }),
    sh(
        "read by a bind mount",
        "mkdir -p $o/b; mount --bind . $o/b; cat $o/b/$f >/dev/null; unmount $o/b",
    ),
    sh(
        "read in another mount namespace",
        "mkdir -p $o/n; unshare -m sh -c \"mount --bind . $o/n; cat $o/n/$f >/dev/null\"",
    ),
    sh(
        "read by an overlay whose layer it is",
        "mkdir -p $o/l $o/v; mount -t overlay o -o lowerdir=.:$o/l $o/v; cat $o/v/$f >/dev/null; unmount $o/v",
    ),
    sh(
        "attached to a loop device",
        "l=$(losetup -f --show -r $f); losetup -d $l",
    ),
    step("O_PATH, stat, access", |at| {
        let held = rustix::fs::open(&at.file, OFlags::PATH, Mode::empty())?;
        rustix::fs::fstat(&held)?;
        fs::metadata(&at.file)?;
        rustix::fs::accessat(
            rustix::fs::CWD,
            &at.file,
            rustix::fs::Access::READ_OK,
            AtFlags::empty(),
        )
        .map_err(Into::into)
    }),
    after("readahead of a descriptor from before", opened, |at| {
        let file = at.open_before()?;
        rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::WillNeed).map_err(Into::into)
    }),
    sh("ls and find", "ls -la >/dev/null; find . -size +1M -mtime +1"),
    step("chmod", |at| {
        fs::set_permissions(&at.file, PermissionsExt::from_mode(0o640))
    }),
    sh("touch -a", "touch -a $f"),
    sh("touch -d", "touch -d @1000000000 $f"),
    step("setfattr", |at| {
        rustix::fs::setxattr(&at.file, "user.x", b"1", rustix::fs::XattrFlags::empty()).map_err(Into::into)
    }),
    sh("truncate(2)", "perl -e 'truncate($ARGV[0], 2) or die' $f"),
    sh("fallocate", "fallocate -l 8192 $f"),
    step("renamed in its directory", |at| {
        fs::rename(&at.file, at.file.with_extension("new"))
            .and_then(|()| fs::rename(at.file.with_extension("new"), &at.file))
    }),
    step("renamed out of the volume, read there, and back", |at| {
        let away = at.outside.join("away");
        fs::rename(&at.file, &away)?;
        read(&away);
        fs::rename(&away, &at.file)
    }),
    step("read after its directory was renamed", |at| {
        let other = at.dir().with_extension("moved");
        fs::rename(at.dir(), &other)?;
        read(&other.join(at.file.file_name().unwrap()));
        fs::rename(&other, at.dir())
    }),
    step("replaced by a rename", |at| {
        let other = make_one(&at.dir().join("other"));
        age(&other);
        fs::rename(other, &at.file)
    }),
    step("removed and made again", |at| {
        fs::remove_file(&at.file)?;
        make_one(&at.file);
        age(&at.file);
        Ok(())
    }),
    sh(
        "read by another user",
        "chmod 755 . ; setpriv --reuid 65534 --clear-groups cat $f >/dev/null",
    ),
    step("nothing", |_| Ok(())),
];
