//! A FUSE file system whose server answers no more: a process that touches it waits until it is unmounted.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::skip::Unmet;

const HEADER_BYTES: u32 = 16;
const INIT_BYTES: u32 = 64;

/// It, mounted. What waits for it goes on when this is dropped.
#[derive(Debug)]
pub struct Silent {
    at: PathBuf,
    server: Option<File>,
}

impl Silent {
    /// Mounts it on a directory, and answers to nothing but the first question of the kernel.
    ///
    /// # Errors
    /// When this host does not let it: a reason to skip.
    pub fn new(at: &Path) -> Result<Self, Unmet> {
        let unmet = |e: std::io::Error| Unmet(format!("no FUSE: {e}"));
        let mut server = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(unmet)?;
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let data = CString::new(data).expect("no NUL");
        mount("silent", at, "fuse", MountFlags::empty(), data.as_c_str()).map_err(|e| unmet(e.into()))?;
        let mut silent = Self {
            at: at.to_owned(),
            server: None,
        };
        silent.server = Some(server.try_clone().map_err(unmet)?);
        let mut question = vec![0; 8192];
        server.read(&mut question).map_err(unmet)?;
        let unique = question.get(8..16).expect("a header");
        let mut answer = Vec::new();
        answer.extend((HEADER_BYTES + INIT_BYTES).to_ne_bytes());
        answer.extend(0i32.to_ne_bytes());
        answer.extend_from_slice(unique);
        // The protocol's version, and how much is written at once.
        answer.extend([7u32, 31, 4096, 0].iter().flat_map(|n| n.to_ne_bytes()));
        answer.extend([0, 0, 0, 0]);
        answer.extend(4096u32.to_ne_bytes());
        answer.resize((HEADER_BYTES + INIT_BYTES) as usize, 0);
        server.write_all(&answer).map_err(unmet)?;
        Ok(silent)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // With its server it ends: what waits gets an error.
        self.server.take();
        let _ = unmount(&self.at, UnmountFlags::DETACH | UnmountFlags::FORCE);
    }
}
