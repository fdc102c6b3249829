//! What a process came for while it was being taken, and what cannot be put back because its name is another's by now or
//! its directory no longer exists: it is kept apart, it says itself where it belongs, and the agent never frees it.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::refusal;
use crate::trash::layout::{LIKE, ORIGIN, TRASH, TREE, TREES};
use crate::trash::origin::Origin;
use crate::trash::reserve;
use crate::trash::share::Share;
use purge_model::Inode;
use purge_sys::{inside, vacant};

/// As many names of one file are kept, no more: with that many something else is wrong.
const NAMES_MAX: u32 = 1000;

/// Where a run's things are kept.
#[derive(Debug)]
pub struct Stranded {
    trash: OwnedFd,
    share: Share,
    failed: Arc<AtomicBool>,
}

impl Stranded {
    /// Below an open trash. `failed` is set when something cannot even be kept: nothing of the run may be freed then.
    pub fn of_run(trash: OwnedFd, run: &str, failed: Arc<AtomicBool>) -> Self {
        let share = Share {
            run: run.into(),
            until: Share::KEPT,
            open: false,
        };
        Self { trash, share, failed }
    }

    /// Keeps what lies at `name` in a directory of the trash and belongs at `path`, relative to the volume, where it
    /// could not go because of `error`. What is known of the directories there is kept with it. Returns what to tell of it.
    pub fn take(
        &self,
        (dir, name): (&OwnedFd, &CStr),
        ino: Inode,
        (path, origin): (&[u8], Option<&Origin>),
        error: &io::Error,
    ) -> io::Error {
        let what = format!("it may have been used while it was being taken, and cannot be put back: {error}");
        let place = reserve::with_ballast(&self.trash, || self.place(ino, path, origin));
        match place.and_then(|place| vacant::take(dir, name, place, TREE)) {
            Ok(()) => refusal::failure(
                format!(
                    "{what}; it is kept in {TRASH}/{}: move away what has its name, then `purgectl restore {}`",
                    self.share.name(),
                    self.share.run
                ),
                &[error],
            ),
            Err(e) => {
                self.failed.store(true, SeqCst);
                refusal::failure(format!("{what}; it stays in {TRASH} ({e})"), &[error, &e])
            }
        }
    }

    /// A new directory that says where what will lie in it belongs.
    fn place(&self, ino: Inode, path: &[u8], origin: Option<&Origin>) -> io::Result<OwnedFd> {
        let mut at = self.trash.try_clone()?;
        for part in [&*self.share.name(), TREES] {
            at = inside::make_own_dir(&at, part.as_bytes())?.0;
        }
        for n in 0..NAMES_MAX {
            let name = match n {
                0 => ino.to_string(),
                n => format!("{ino}.{n}"),
            };
            let (place, is_new) = inside::make_own_dir(&at, name.as_bytes())?;
            if is_new {
                inside::write_note(&place, ORIGIN, path).inspect_err(|_| {
                    let _ = inside::unlink(&place, ORIGIN);
                    let _ = inside::remove_dir(&at, &*name);
                })?;
                // Without space for it the thing is kept all the same, and goes back only where it is as safe as can be.
                if let Some(error) = origin.and_then(|o| inside::write_note(&place, LIKE, &o.to_note()).err())
                {
                    tracing::debug!(%error, "what is kept has no note of its directories");
                }
                return Ok(place);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}
