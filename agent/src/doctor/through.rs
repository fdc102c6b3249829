//! The mount by which users come to a volume: whether it is there.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Finding;
use crate::volume::Volume;
use purge_sys::{fuse, mountinfo};

/// A table of mounts is not longer.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// None: the volume has no such mount.
pub(super) fn examine(volume: &Volume) -> Option<Finding> {
    let point = volume.config.mount.as_ref()?;
    let shown = point.display();
    let read = mountinfo::read(Path::new("/proc/self/mountinfo"), TABLE_BYTES_MAX);
    let table = match read {
        Ok((table, _)) => table,
        Err(error) => {
            let found = format!("it is not known whether users see the volume at {shown}: {error}");
            return Some(Finding::note("fuse_mount", found, "mount /proc"));
        }
    };
    let wanted = point.as_os_str().as_bytes();
    let is_it = |line: &mountinfo::Line<'_>| line.kind == fuse::KIND.as_bytes() && *line.point() == *wanted;
    Some(match mountinfo::lines(&table).any(|line| is_it(&line)) {
        true => Finding::good("fuse_mount", format!("users see the volume at {shown}")),
        false => Finding::bad(
            "fuse_mount",
            format!("nothing is mounted at {shown}: users do not see the volume there"),
            format!("systemctl enable --now purge-agent-mount@{}", volume.config.name),
        ),
    })
}
