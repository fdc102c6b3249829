//! Opening the store of a state directory, and setting it aside when it is damaged.
//!
//! A damaged store is kept, under a name with the time: an operator may want to know what happened. A fresh one takes its
//! place; clocks come back from checkpoint and journal, the rest by a scan. Holds are no knowledge that a scan brings back
//! either, so they (and the heads of runs) are mirrored in `STATE_DIR/records`: frames of `tag:u8 len:u8 key value`.

use purge_sys::time;
use std::fs::{self};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::store::{Batch, Record, Store, StoreError};
use purge_format::frame::{Frames, put_frame};
use purge_sys::failure::Failure;
use purge_sys::private::shown;

/// Damaged stores that are kept: the newest.
const KEPT: usize = 2;
/// The records that are mirrored.
const MIRRORED: [Record; 2] = [Record::Hold, Record::Run];

fn index(state_dir: &Path) -> PathBuf {
    state_dir.join("index")
}

fn mark(state_dir: &Path) -> PathBuf {
    state_dir.join("index.condemned")
}

fn mirror(state_dir: &Path) -> PathBuf {
    state_dir.join("records")
}

/// Opens the store; one that is damaged or was condemned is set aside first, and one that is missing (removed, or left out of a backup) is
/// made again in the same way. Whether any of that was so.
///
/// # Errors
/// When it cannot be opened for another reason, such as a full disk or another agent.
pub fn open(state_dir: &Path) -> Result<(Store, bool), StoreError> {
    let fresh = |store| (store, true);
    if let Ok(why) = fs::read_to_string(mark(state_dir)) {
        return set_aside(state_dir, &why).map(fresh);
    }
    if !index(state_dir).exists() && mirror(state_dir).exists() {
        return set_aside(state_dir, "it is no longer there").map(fresh);
    }
    match Store::open(&index(state_dir)) {
        Err(error) if error.is_damage() => set_aside(state_dir, &error.to_string()).map(fresh),
        opened => opened.map(|store| (store, false)),
    }
}

/// Sets the store aside and opens a fresh one with the records that are mirrored. The old one must be closed.
///
/// # Errors
/// When the directory cannot be renamed or the fresh store not be opened.
pub fn set_aside(state_dir: &Path, why: &str) -> Result<Store, StoreError> {
    let failed = |error: io::Error| StoreError::Open {
        path: index(state_dir),
        failure: Failure::of(&error),
        why: format!("it is damaged ({why}), and cannot be set aside: {error}"),
        damaged: false,
    };
    let kept = unused_name(state_dir);
    match fs::rename(index(state_dir), &kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    match fs::remove_file(mark(state_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    tracing::error!(why, kept = %shown(&kept).display(), "the index is damaged: it was set aside, and a scan makes it again");
    forget_oldest(state_dir);
    let store = Store::open(&index(state_dir))?;
    let restored = restore(&store, state_dir)?;
    tracing::info!(records = restored, "holds and runs were taken over");
    Ok(store)
}

fn unused_name(state_dir: &Path) -> PathBuf {
    let at = time::wall_seconds().0;
    let name = |n: u32| state_dir.join(format!("index.damaged-{}", at.saturating_add(n)));
    (0..).map(name).find(|p| !p.exists()).unwrap_or_else(|| name(0))
}

fn forget_oldest(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir) else {
        return;
    };
    let mut kept: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str());
            name.is_some_and(|n| n.starts_with("index.damaged-"))
        })
        .collect();
    kept.sort();
    for old in kept.iter().rev().skip(KEPT) {
        if let Err(error) = fs::remove_dir_all(old) {
            tracing::warn!(path = %shown(old).display(), %error, "an old damaged index cannot be removed");
        }
    }
}

/// The next start sets the store aside.
///
/// # Errors
/// When that cannot be noted.
pub fn condemn(state_dir: &Path, why: &str) -> io::Result<()> {
    let mut file = purge_sys::private::create(&mark(state_dir))?;
    file.write_all(why.as_bytes())?;
    file.sync_all()
}

/// Mirrors the records that nothing else could bring back, if they changed since the last time.
///
/// # Errors
/// When the store cannot be read: they stay to be mirrored.
pub fn mirror_records(store: &Store, state_dir: &Path) -> Result<(), StoreError> {
    if !store.take_records_changed() {
        return Ok(());
    }
    let mirrored = collect(store).and_then(|bytes| {
        write(&mirror(state_dir), &bytes).map_err(|e| StoreError::Call {
            failure: Failure::of(&e),
            doing: "mirror holds",
            why: e.to_string(),
        })
    });
    if mirrored.is_err() {
        store.note_records_changed();
    }
    mirrored
}

fn collect(store: &Store) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::new();
    for record in MIRRORED {
        for entry in store.records(record, b"") {
            let (key, value) = entry?;
            let Ok(len) = u8::try_from(key.len()) else {
                continue;
            };
            put_frame(&mut out, |body| {
                body.extend_from_slice(&[record.tag(), len]);
                body.extend_from_slice(&key);
                body.extend_from_slice(&value);
            });
        }
    }
    Ok(out)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = purge_sys::private::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

fn restore(store: &Store, state_dir: &Path) -> Result<usize, StoreError> {
    let Ok(bytes) = fs::read(mirror(state_dir)) else {
        tracing::warn!("no copy of the holds: what was held must be held again");
        return Ok(0);
    };
    let (mut batch, mut count) = (Batch::default(), 0);
    let mut frames = Frames::new(&bytes);
    for body in frames.by_ref() {
        let Some((record, key, value)) = parse(body) else {
            continue;
        };
        batch.put(record, key, value);
        count += 1;
    }
    if frames.is_torn() {
        tracing::error!("the copy of the holds is damaged: some may be missing; see `purgectl hold list`");
    }
    store.apply(batch)?;
    store.flush()?;
    Ok(count)
}

fn parse(body: &[u8]) -> Option<(Record, &[u8], &[u8])> {
    let (tag, rest) = body.split_first()?;
    let (len, rest) = rest.split_first()?;
    let (key, value) = rest.split_at_checked(usize::from(*len))?;
    let record = MIRRORED.into_iter().find(|r| r.tag() == *tag)?;
    Some((record, key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_condemned_store_is_kept_and_its_holds_live_on() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path()).unwrap();
        let mut batch = Batch::default();
        batch.put(Record::Hold, b"h1", b"held");
        batch.put(Record::Plan, b"p1", b"planned");
        store.apply(batch).unwrap();
        mirror_records(&store, dir.path()).unwrap();
        store.close();
        condemn(dir.path(), "for a test").unwrap();
        let (store, is_fresh) = open(dir.path()).unwrap();
        assert!(is_fresh);
        assert_eq!(&*store.get(Record::Hold, b"h1").unwrap().unwrap(), b"held");
        assert!(store.get(Record::Plan, b"p1").unwrap().is_none());
        store.close();
        let (store, is_fresh) = open(dir.path()).unwrap();
        assert!(!is_fresh && store.get(Record::Hold, b"h1").unwrap().is_some());
        let kept = fs::read_dir(dir.path()).unwrap().filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("index.damaged-")
        });
        assert_eq!(kept.count(), 1);
    }
}
