//! Any bytes that a read of the fanotify queue returns: decoding ends, keeps its promises and never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_collect::fanotify::decode::{Record, records};
use purge_collect::fanotify::layout::Layout;
use purge_sys::handle::Handle;

/// The shortest event there is: its metadata alone.
const METADATA_BYTES: usize = 24;

const LAYOUTS: [Layout; 5] = [
    Layout::Ino32,
    Layout::Tmpfs,
    Layout::Xfs,
    Layout::Zfs,
    Layout::Btrfs { subvolume: 5 },
];

fuzz_target!(|buffer: &[u8]| {
    let mut events = 0;
    let mut failed = false;
    for event in records(buffer) {
        assert!(!failed, "something was decoded after an error");
        match event {
            Ok(event) => {
                events += 1;
                read_handles(&event);
            }
            Err(error) => {
                failed = true;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(events * METADATA_BYTES <= buffer.len(), "more events than bytes");
});

/// Does with an event what the collector does: takes its inodes and names.
fn read_handles(event: &Record<'_>) {
    if let Some(file) = &event.file {
        read_inode(file);
    }
    for place in [&event.place, &event.old, &event.new].into_iter().flatten() {
        read_inode(&place.dir);
        assert!(!place.name.contains(&0), "a name holds a NUL");
    }
}

fn read_inode(handle: &Handle) {
    for layout in LAYOUTS {
        layout.inode(handle);
    }
    assert_eq!(Handle::new(handle.kind(), handle.content()), Some(*handle));
}
