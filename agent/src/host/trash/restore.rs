//! What runs leave in the trash: put back, and counted. See [`super::freeing`] for its end.

use std::sync::Arc;

use super::{TrashKeeper, heading_of};
use crate::host::HostError;
use crate::host::place::{AtEnd, Place};
use crate::volume::Volume;
use crate::volume::claimed::Doing;
use purge_base::clock;
use purge_model::{Seconds, Totals};
use purge_removal::audit::{self, Audit, Event, Heading, Lines};
use purge_removal::runs::{Failure, Run};
use purge_removal::trash::restore::{Destination, Item, Refused, Restore, Which};
use purge_removal::trash::take_in::take_in;
use purge_removal::trash::{Share, Trash};
use purge_sys::{beneath, mark};

/// Refusals of a restore that are named.
const REFUSALS_NAMED_MAX: usize = 1000;

/// What a restore came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// The run whose trash it was.
    pub run: String,
    /// What is back.
    pub restored: Totals,
    /// What stays in the trash, and why: the first of them.
    pub failed: Vec<Failure>,
    /// How many stay.
    pub failed_total: u64,
}

impl TrashKeeper {
    /// Puts back what a run has moved to the trash: all of it, or what lies at or below some paths.
    ///
    /// # Errors
    /// When there is no such run, or nothing of it lies in the trash any more.
    pub fn restore(
        &self,
        run_id: &str,
        paths: &[Vec<u8>],
        to: Option<&[u8]>,
        by: &str,
    ) -> Result<Restored, HostError> {
        // Whether a path is one at all does not depend on the run.
        let places = paths.iter().map(|path| self.ground.locate("paths", path));
        let places: Vec<Place> = places.collect::<Result<_, HostError>>()?;
        let to = to.map(|to| self.ground.locate("to", to)).transpose()?;
        places
            .iter()
            .try_for_each(|place| place.refuse_links(AtEnd::Anything))?;
        if let Some(to) = &to {
            to.refuse_links(AtEnd::NoLink)?;
        }
        let mut run = self.runs.get(run_id)?;
        let volume = Arc::clone(self.ground.volume(&run.volume)?);
        volume
            .check_identity()
            .map_err(|e| HostError::Refused(e.to_string()))?;
        let below: Vec<Vec<u8>> = places
            .into_iter()
            .map(|place| match place.volume.config.name == volume.config.name {
                true => Ok(place.below.into_bytes()),
                false => Err(HostError::Invalid {
                    field: "paths",
                    why: format!(
                        "{} is not on volume {}",
                        crate::host::shown(&place.path()),
                        run.volume
                    ),
                }),
            })
            .collect::<Result<_, HostError>>()?;
        let to = to.map(|to| destination(&volume, to)).transpose()?;
        if self.runs.live(run_id).is_some() {
            return Err(HostError::Refused(format!(
                "run {run_id} is going on; wait for it or `purgectl cancel {run_id}`"
            )));
        }
        let _one = volume.restoring.lock();
        let broken =
            |e: std::io::Error| HostError::Refused(format!("the trash of volume {}: {e}", run.volume));
        let nothing = || HostError::Refused(why_nothing(&run));
        let trash = Trash::open(&volume.watched)
            .map_err(broken)?
            .ok_or_else(nothing)?;
        let shares = trash.shares().map_err(broken)?;
        let mine = shares.iter().filter(|s| s.run == run_id);
        let claims = mine.map(|s| (s, volume.claimed.take(&s.name(), Doing::Restoring)));
        let claims: Vec<_> = claims.collect();
        match claims.iter().find(|(_, claim)| claim.is_ok()).or(claims.first()) {
            None => return Err(nothing()),
            Some((share, Err(_))) => return Err(HostError::Refused(why_freed(share))),
            Some((_, Ok(_))) => {}
        }
        // What went to the trash a moment ago leaves the store before it comes back: if the process is killed, the next one finds it as new,
        // and not as old as it was.
        if !volume.write_back() {
            tracing::warn!(
                run = run_id,
                volume = %volume.config.name,
                "the store cannot be written: restored files may count as unused after a crash"
            );
        }
        let heading = heading_of(&run, &volume, by);
        let mut back = Back {
            heading,
            lines: Lines::default(),
            time: audit::rfc3339(clock::now()),
            audit: &self.audit,
            untold: None,
            report: Restored {
                run: run_id.into(),
                ..Restored::default()
            },
        };
        let which = match below.is_empty() {
            true => Which::All,
            false => Which::Below(&below),
        };
        let mut trouble = None;
        for (share, claim) in &claims {
            if claim.is_err() {
                let why = why_freed(share);
                let path = Vec::new();
                back.take(Err(Refused { path, why }));
                continue;
            }
            let mut restore = Restore {
                which,
                to: to.as_ref(),
                tell: &mut |told| back.take(told),
                placed: &mut |dir, name| {
                    if let Err(error) = take_in(&volume.watched, dir, name) {
                        trouble.get_or_insert(error);
                    }
                },
                kept: None,
                knows: &|_, _| false,
            };
            if let Err(error) = restore.run(&trash, share) {
                // The next share follows, and what is back is told and counted in any case.
                let why = format!("what the run left in the trash until {}: {error}", share.until);
                back.take(Err(Refused {
                    path: Vec::new(),
                    why,
                }));
            }
        }
        trash.tidy();
        if let Some(error) = trouble {
            tracing::error!(run = run_id, volume = %volume.config.name, %error, "what was restored is not in the index yet: a scan will find it");
            volume.request_scan(purge_scan::Extent::Volume);
        }
        back.write();
        if let Some(error) = &back.untold {
            tracing::error!(run = run_id, volume = %volume.config.name, %error, "restored, and the audit log does not say so of all");
        }
        let _one = volume.trash_work.lock();
        // It may have been changed meanwhile: another part of what the run took was freed.
        run = self.runs.get(run_id)?;
        run.restored = run.restored.plus(back.report.restored);
        self.runs.save(&run)?;
        let (restored, refused) = (back.report.restored, back.report.failed_total);
        tracing::info!(run = run_id, volume = %volume.config.name, by, %restored, refused, "restored from the trash");
        Ok(back.report)
    }

    /// What of a run lies in the trash.
    pub(in crate::host) fn in_trash_of(&self, run: &str) -> Totals {
        self.runs
            .get(run)
            .map_or_else(|_| Totals::default(), |run| run.left_in_trash())
    }

    /// What lies in the trash of a volume.
    pub fn trash_of(&self, volume: &str) -> Totals {
        let mut sum = Totals::default();
        for run in self.runs.list().unwrap_or_default() {
            if run.volume == volume {
                sum = sum.plus(run.left_in_trash());
            }
        }
        sum
    }
}

/// A directory of the volume to which things are restored instead of where they came from.
fn destination(volume: &Volume, to: Place) -> Result<Destination, HostError> {
    let invalid = |why: String| HostError::Invalid { field: "to", why };
    let name = &volume.config.name;
    if to.volume.config.name != *name {
        return Err(invalid(format!(
            "{} is not on volume {name}: a file cannot be moved to another volume",
            crate::host::shown(&to.path())
        )));
    }
    let root = volume.watched.open_root();
    let dir = root.and_then(|root| beneath::open_dir(&root, &to.below));
    let dir = dir.map_err(|e| {
        invalid(format!(
            "{}: {e}; name a directory that exists, without links on the way",
            crate::host::shown(&to.path())
        ))
    })?;
    if mark::is_placeholder(&dir) {
        let why = "a run is looking at it; ask again in a moment";
        return Err(invalid(format!("{}: {why}", crate::host::shown(&to.path()))));
    }
    let path = to.below.into_bytes();
    Ok(Destination { dir, path })
}

/// Why nothing of a run lies in the trash.
fn why_nothing(run: &Run) -> String {
    let id = &run.id;
    let is_before_its_end = |freed: Seconds| run.trash_until.is_none_or(|until| freed < until);
    let why = match run.trash_freed {
        Some(freed) if is_before_its_end(freed) => format!(
            "it was freed {} to make room, before its grace ended",
            audit::rfc3339(freed)
        ),
        Some(_) => format!(
            "its grace ended {}",
            audit::rfc3339(run.trash_until.unwrap_or(Seconds::MAX))
        ),
        // Also what a run without a grace could not put back, and kept.
        None if run.restored != Totals::default() && run.left_in_trash() == Totals::default() => {
            "all of it has been restored".into()
        }
        None if run.trash_until.is_none() => {
            return format!("run {id} put nothing into the trash: it had no grace");
        }
        None if run.trashed.entries() == 0 => return format!("run {id} put nothing into the trash"),
        None => "a user or a process has taken it out of there".into(),
    };
    format!("nothing of run {id} is in the trash any more: {why}")
}

/// Why nothing of a share can be put back now.
fn why_freed(share: &Share) -> String {
    let until = i64::try_from(share.until).unwrap_or(i64::MAX);
    let until = audit::rfc3339(Seconds::from_unix(until));
    format!(
        "what run {} left in the trash until {until} is being freed: its grace has ended, or the volume needs the space",
        share.run
    )
}

/// What comes back while a restore goes on.
struct Back<'a> {
    heading: Heading,
    audit: &'a Audit,
    /// The audit log could not be written.
    untold: Option<std::io::Error>,
    lines: Lines,
    time: String,
    report: Restored,
}

impl Back<'_> {
    /// Writes the lines that were gathered.
    fn write(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if let Err(error) = self.audit.write(&lines) {
            self.untold.get_or_insert(error);
        }
    }

    fn take(&mut self, told: Result<Item, Refused>) {
        let absolute = |path: &[u8]| {
            let mut all = self.heading.root.as_os_str().as_encoded_bytes().to_vec();
            all.push(b'/');
            all.extend_from_slice(path);
            all
        };
        match told {
            Ok(item) => {
                let event = Event {
                    event: "restored",
                    reason: "",
                    path: &absolute(&item.path),
                    kind: item.kind,
                    bytes: item.bytes,
                    uid: item.uid,
                    last: None,
                    rule: "",
                };
                self.lines.add(&self.time, &self.heading, &event);
                if self.lines.are_many() {
                    self.write();
                }
                self.report.restored.add(item.kind, item.bytes);
            }
            Err(refused) => {
                self.report.failed_total = self.report.failed_total.saturating_add(1);
                if self.report.failed.len() < REFUSALS_NAMED_MAX {
                    self.report.failed.push(Failure {
                        path: absolute(&refused.path),
                        error: refused.why,
                    });
                }
            }
        }
    }
}
