//! Room in the state directory that is given up when its file system is full: plans, runs and the index go on for a while, so that what fills
//! another file system can be purged.

use std::fs;
use std::io;
use std::path::Path;

use purge_proto::units::format_size;
use rustix::fs::{FallocateFlags, fallocate};

use purge_sys::{private, stat};

/// Its name in the state directory.
const NAME: &str = "ballast";
/// So much of the file system, and no more than this.
const SHARE: u64 = 16;
const BYTES_MAX: u64 = 64 << 20;

/// What is to be done. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Nothing,
    GiveUp,
    Make(u64),
}

fn deed(is_there: bool, used: u64, available: u64) -> Deed {
    let size = (used.saturating_add(available) / SHARE).min(BYTES_MAX);
    match is_there {
        true if available < size / 4 => Deed::GiveUp,
        // Half of what was given up may be in use by then.
        false if available > size.saturating_mul(4) => Deed::Make(size),
        _ => Deed::Nothing,
    }
}

/// Gives it up where there is no room, and makes it where there is, if `may_make`. What cannot be done now is tried again.
pub(super) fn tend(state_dir: &Path, may_make: bool) {
    let file = state_dir.join(NAME);
    let Ok(space) = stat::space(state_dir) else { return };
    let dir = state_dir.display();
    match deed(stat::path(&file).is_ok(), space.used, space.available) {
        Deed::GiveUp if fs::remove_file(&file).is_ok() => {
            tracing::error!(%dir, "the file system of the state directory is full: its reserve is given up, so that purges go on for a while; free space there");
        }
        Deed::Make(bytes) if may_make => match make(&file, bytes) {
            Ok(()) => tracing::debug!(%dir, size = format_size(bytes), "the state directory has a reserve"),
            Err(error) => {
                let _ = fs::remove_file(&file);
                tracing::debug!(%dir, %error, "the state directory has no reserve");
            }
        },
        _ => {}
    }
}

fn make(file: &Path, bytes: u64) -> io::Result<()> {
    let file = private::create(file)?;
    Ok(fallocate(file, FallocateFlags::empty(), 0, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_in_need_and_made_again_when_there_is_room() {
        const MIB: u64 = 1 << 20;
        assert_eq!(deed(false, 0, 32 * MIB), Deed::Make(2 * MIB));
        assert_eq!(deed(true, 2 * MIB, 30 * MIB), Deed::Nothing);
        assert_eq!(deed(true, 32 * MIB, 0), Deed::GiveUp);
        assert_eq!(
            deed(false, 30 * MIB, 2 * MIB),
            Deed::Nothing,
            "what was given up is no room"
        );
        assert_eq!(deed(false, 0, 1 << 40), Deed::Make(64 * MIB));
    }
}
