//! What runs leave in the trash: put back. See [`super::figures`] for how much there is, and [`super::freeing`] for its end.

use std::sync::Arc;

use super::TrashKeeper;
use super::back::{Back, NAMED_MAX};
pub use super::back::{Restored, Wanted};
use super::records::PlacesOfRuns;
use crate::host::HostError;
use crate::host::place::{AtEnd, Place};
use crate::host::shown;
use crate::host::user::{User, hidden, not_theirs};
use crate::volume::Volume;
use crate::volume::claimed::{Claim, Doing};
use purge_model::path::absolute;
use purge_model::path_set::PathSet;
use purge_model::{Kind, Seconds, Stat, Totals};
use purge_removal::audit;
use purge_removal::runs::{Run, RunError};
use purge_removal::trash::restore::{Destination, Refused, Restore, Which};
use purge_removal::trash::take_in::take_in;
use purge_removal::trash::whom::Whom;
use purge_removal::trash::{Share, Trash};
use purge_sys::{beneath, mark};

/// A volume of which something is wanted back.
struct Job<'a> {
    wanted: Wanted<'a>,
    volume: Arc<Volume>,
    trash: Trash,
    /// Paths relative to the volume; empty: everything.
    below: PathSet,
    to: Option<Destination>,
}

impl TrashKeeper {
    /// Puts back what runs have moved to the trash: all that one has, or what lies at or below some paths.
    ///
    /// # Errors
    /// When there is no such run, or nothing of what is wanted lies in the trash any more.
    pub fn restore(&self, wanted: &Wanted<'_>) -> Result<Restored, HostError> {
        // Whether a path is one at all does not depend on the run.
        let places = wanted.paths.iter().map(|path| self.wanted_place(wanted, path));
        let places: Vec<Place> = places.collect::<Result<_, HostError>>()?;
        let to = wanted
            .to
            .map(|to| self.wanted_directory(wanted, to))
            .transpose()?;
        match wanted.run {
            "" => self.restore_paths(wanted, &places, to),
            run => self.restore_run(wanted, run, places, to),
        }
    }

    fn wanted_place(&self, wanted: &Wanted<'_>, path: &[u8]) -> Result<Place, HostError> {
        match wanted.user {
            // Where links stand is nothing that they may learn by this. None is followed.
            Some(user) => self
                .ground
                .locate("paths", path)
                .or_else(|e| hidden(e, path, user.uid)),
            None => {
                let place = self.ground.locate("paths", path)?;
                place.refuse_links(AtEnd::Anything)?;
                Ok(place)
            }
        }
    }

    /// A directory to restore to: of an ordinary user, one of their own.
    fn wanted_directory(&self, wanted: &Wanted<'_>, to: &[u8]) -> Result<Place, HostError> {
        let Some(user) = wanted.user else {
            let to = self.ground.locate("to", to)?;
            to.refuse_links(AtEnd::NoLink)?;
            return Ok(to);
        };
        let place = self
            .ground
            .locate("to", to)
            .or_else(|e| hidden(e, to, user.uid))?;
        let (found, is_there) = place.look_evenly((user.uid, user.gids))?;
        let own = |found: &Stat| found.uid == user.uid && found.kind == Kind::Directory;
        match is_there && own(&found.stat) {
            true => Ok(place),
            false => Err(not_theirs(&place.path(), user.uid)),
        }
    }

    /// Whether a run took something of each of these places which was a user's.
    fn check_theirs_of_run(&self, user: User<'_>, run: &str, places: &[Place]) -> Result<(), HostError> {
        if places.is_empty() {
            let why = "name the paths of what is yours".into();
            return Err(HostError::Invalid { field: "paths", why });
        }
        for (volume, below) in by_volume(places) {
            let runs = self.runs_of_theirs(user, (&volume, &below))?;
            let of_run = runs.get(run);
            let is_of_run = |place: &&[u8]| of_run.is_some_and(|of_run| of_run.position(place).is_some());
            if let Some(other) = below.iter().find(|place| !is_of_run(place)) {
                let root = volume.config.path.as_os_str().as_encoded_bytes();
                return Err(not_theirs(&absolute(root, other), user.uid));
            }
        }
        Ok(())
    }

    /// All that a run has left in the trash, or what of that lies at or below some paths.
    fn restore_run(
        &self,
        wanted: &Wanted<'_>,
        run_id: &str,
        places: Vec<Place>,
        to: Option<Place>,
    ) -> Result<Restored, HostError> {
        if let Some(user) = wanted.user {
            self.check_theirs_of_run(user, run_id, &places)?;
        }
        let run = self.runs.get(run_id)?;
        let volume = self.ground.volume(&run.volume)?;
        if let Some(other) = places.iter().find(|p| p.volume.config.name != volume.config.name) {
            return Err(HostError::Invalid {
                field: "paths",
                why: format!("{} is not on volume {}", shown(&other.path()), run.volume),
            });
        }
        if self.runs.live(run_id).is_some() {
            return Err(HostError::Refused(format!(
                "run {run_id} is going on; wait for it or `purgectl cancel {run_id}`"
            )));
        }
        let below = PathSet::new(places.into_iter().map(|place| place.below.into_bytes()).collect());
        let _one = volume.turns.restoring.lock();
        let nothing = || HostError::Refused(why_nothing(&run));
        let job = self.job(wanted, &volume, below, to)?.ok_or_else(nothing)?;
        let shares = job.shares()?;
        let shares: Vec<&Share> = shares.iter().filter(|s| s.run == run_id).collect();
        let claims = job.claims(&shares);
        match claims
            .iter()
            .find(|(_, claim)| claim.is_some())
            .or(claims.first())
        {
            None => return Err(nothing()),
            Some((share, None)) => return Err(HostError::Refused(why_freed(share))),
            Some((_, Some(_))) => {}
        }
        let mut back = Back::new(&job.volume, wanted, job.below.clone(), job.to.as_ref());
        self.put_back((&job, &job.below), run, claims, &mut back)?;
        self.settle(&job, &mut back);
        Ok(back.report)
    }

    /// What lies at or below some paths, whichever run took it. Of what several took, the newest goes back.
    fn restore_paths(
        &self,
        wanted: &Wanted<'_>,
        places: &[Place],
        to: Option<Place>,
    ) -> Result<Restored, HostError> {
        if places.is_empty() {
            let why = "name a run, or the paths of what is wanted back".into();
            return Err(HostError::Invalid { field: "paths", why });
        }
        let mut report = Restored::default();
        let (mut is_anything, mut missing) = (false, Vec::new());
        for (volume, below) in by_volume(places) {
            let runs = match wanted.user {
                Some(user) => Some(self.runs_of_theirs(user, (&volume, &below))?),
                None => None,
            };
            let _one = volume.turns.restoring.lock();
            let Some(job) = self.job(wanted, &volume, below.clone(), to.clone())? else {
                missing.push((Arc::clone(&volume), below));
                continue;
            };
            let mut back = Back::new(&job.volume, wanted, below, job.to.as_ref());
            self.put_back_newest(&job, runs.as_ref(), &mut back)?;
            self.settle(&job, &mut back);
            is_anything |= back.has_met();
            missing.push((Arc::clone(&volume), back.missing()));
            report.add(back.report);
        }
        self.refuse_missing(wanted, &missing, &mut report);
        match report.failed.first().filter(|_| !is_anything) {
            Some(missing) => Err(HostError::NotFound(missing.error.clone())),
            None => Ok(report),
        }
    }

    /// Of paths of which nothing is in the trash, the first are told with their reason.
    fn refuse_missing(&self, wanted: &Wanted<'_>, missing: &[(Arc<Volume>, PathSet)], report: &mut Restored) {
        for (volume, places) in missing {
            let room = NAMED_MAX.saturating_sub(report.failed.len());
            let first = PathSet::new(places.iter().take(room).map(<[u8]>::to_vec).collect());
            let mut why = self.why_not_in_trash(volume, &first, wanted.user).into_iter();
            let root = volume.config.path.as_os_str().as_encoded_bytes();
            for place in places.iter() {
                report.refuse(absolute(root, place), why.next().unwrap_or_default());
            }
        }
    }

    /// Run after run, the newest first; of some runs only, if they are named.
    fn put_back_newest<'b>(
        &'b self,
        job: &Job<'_>,
        only: Option<&PlacesOfRuns>,
        back: &mut Back<'b>,
    ) -> Result<(), HostError> {
        let shares = job.shares()?;
        let closed = shares
            .iter()
            .filter(|s| !s.open && self.runs.live(&s.run).is_none());
        let mut runs: Vec<&str> = closed.map(|s| s.run.as_str()).collect();
        runs.dedup();
        for id in runs.into_iter().rev() {
            if back.is_over() {
                break;
            }
            let below = match only.map(|only| only.get(id)) {
                None => &job.below,
                Some(Some(of_run)) => of_run,
                Some(None) => continue,
            };
            let of_run: Vec<&Share> = shares.iter().filter(|s| s.run == id).collect();
            let claims = job.claims(&of_run);
            let run = match self.runs.get(id) {
                // Its record was lost, and what it left says itself where it belongs.
                Err(RunError::Unknown(_)) => Run {
                    id: id.to_owned(),
                    volume: job.volume.config.name.clone(),
                    ..Run::default()
                },
                run => run?,
            };
            let claims = claims.into_iter().filter(|(_, claim)| claim.is_some());
            self.put_back((job, below), run, claims.collect(), back)?;
        }
        Ok(())
    }

    /// What of a run is wanted. The record says afterwards what is back.
    fn put_back<'b>(
        &'b self,
        (job, below): (&Job<'_>, &PathSet),
        run: Run,
        claims: Vec<(&Share, Option<Claim<'_>>)>,
        back: &mut Back<'b>,
    ) -> Result<(), HostError> {
        back.begin(&run, &self.audit);
        for (share, claim) in &claims {
            if claim.is_none() {
                back.take(Err(Refused::of_share(why_freed(share))));
                continue;
            }
            back.is_kept = share.is_kept();
            let done = job.restore(share, below, back);
            if let Err(error) = done {
                // The next share follows, and what is back is told and counted in any case.
                let why = format!("what the run left in the trash until {}: {error}", share.until);
                back.take(Err(Refused::of_share(why)));
            }
        }
        drop(claims);
        back.write();
        if job.wanted.is_dry || !back.has_any() {
            return Ok(());
        }
        let _one = job.volume.turns.trash_work.lock();
        // It may have been changed meanwhile: another part of what the run took was freed.
        let mut run = match self.runs.get(&run.id) {
            Err(RunError::Unknown(_)) => return Ok(()),
            run => run?,
        };
        let left = run.left_in_trash().minus(back.out);
        run.restored = run.restored.plus(back.of_run);
        let is_lying = |s: &Share| s.run == run.id && !s.is_kept();
        let is_empty = job.trash.shares().is_ok_and(|left| !left.iter().any(is_lying));
        run.in_trash = Some(if is_empty { Totals::default() } else { left });
        self.runs.save(&run)?;
        let (volume, by) = (&job.volume.config.name, job.wanted.by);
        tracing::info!(run = %run.id, %volume, by, restored = %back.of_run, "restored from the trash");
        Ok(())
    }

    /// Nothing more goes back.
    fn settle(&self, job: &Job<'_>, back: &mut Back<'_>) {
        if job.wanted.is_dry {
            return;
        }
        job.trash.tidy();
        let volume = &job.volume;
        if let Some(error) = back.trouble.take() {
            tracing::error!(volume = %volume.config.name, %error, "what was restored is not in the index yet: a scan will find it");
            volume.request_scan(purge_scan::Extent::Volume);
        }
        if let Some(error) = back.untold.take() {
            tracing::error!(volume = %volume.config.name, %error, "restored, and the audit log does not say so of all");
        }
    }

    /// What is needed to put something back; none: the volume has no trash.
    fn job<'a>(
        &self,
        wanted: &Wanted<'a>,
        volume: &Arc<Volume>,
        below: PathSet,
        to: Option<Place>,
    ) -> Result<Option<Job<'a>>, HostError> {
        volume
            .check_identity()
            .map_err(|e| HostError::Refused(e.to_string()))?;
        if volume.is_away() {
            let name = &volume.config.name;
            let why = format!(
                "volume {name} was unmounted, or is about to be opened again: ask again when `purgectl status` says that it is watched"
            );
            return Err(HostError::Refused(why));
        }
        let to = to.map(|to| destination(volume, to)).transpose()?;
        let Some(trash) = Trash::open(&volume.watched).map_err(|e| broken(volume, &e))? else {
            return Ok(None);
        };
        // What went to the trash a moment ago leaves the store before it comes back: if the process is killed, the next one finds it as new,
        // and not as old as it was.
        if !wanted.is_dry && !volume.write_back() {
            tracing::warn!(
                volume = %volume.config.name,
                "the store cannot be written: restored files may count as unused after a crash"
            );
        }
        Ok(Some(Job {
            wanted: *wanted,
            volume: Arc::clone(volume),
            trash,
            below,
            to,
        }))
    }
}

impl Job<'_> {
    fn shares(&self) -> Result<Vec<Share>, HostError> {
        self.trash.shares().map_err(|e| broken(&self.volume, &e))
    }

    /// Claims shares; none where another thread has one.
    fn claims<'s>(&self, shares: &[&'s Share]) -> Vec<(&'s Share, Option<Claim<'_>>)> {
        let claim = |share: &'s Share| {
            self.volume
                .turns
                .claimed
                .take(&share.name(), Doing::Restoring)
                .ok()
        };
        shares.iter().map(|share| (*share, claim(share))).collect()
    }

    /// What of a share is wanted: what lies at or below some paths, or all.
    fn restore(&self, share: &Share, below: &PathSet, back: &mut Back<'_>) -> std::io::Result<()> {
        let which = match below.is_empty() {
            true => Which::All,
            false => Which::Below(below),
        };
        let mut trouble = None;
        let mut restore = Restore {
            which,
            to: self.to.as_ref(),
            tell: &mut |told| back.take(told),
            placed: &mut |dir, name| {
                if let Err(error) = take_in(&self.volume.watched, dir, name) {
                    trouble.get_or_insert(error);
                }
            },
            kept: None,
            knows: &|_, _| false,
            whom: self.wanted.user.map(|user| Whom {
                uid: user.uid,
                gids: user.gids,
            }),
            is_dry: self.wanted.is_dry,
            // What has begun to go back comes to its end.
            is_stopping: &|| self.wanted.is_dry && self.wanted.client.has_left(),
            has_no_trees: false,
            emptied: 0,
        };
        let done = restore.run(&self.trash, share);
        let emptied = restore.emptied;
        back.note_emptied(emptied);
        if let Some(error) = trouble {
            back.trouble.get_or_insert(error);
        }
        done
    }
}

fn broken(volume: &Volume, error: &std::io::Error) -> HostError {
    HostError::Refused(format!("the trash of volume {}: {error}", volume.config.name))
}

/// Some places, by volume.
fn by_volume(places: &[Place]) -> Vec<(Arc<Volume>, PathSet)> {
    let mut all: Vec<(Arc<Volume>, Vec<Vec<u8>>)> = Vec::new();
    for place in places {
        let path = place.below.to_vec();
        let is_of = |volume: &Volume| volume.config.name == place.volume.config.name;
        match all.iter_mut().find(|(volume, _)| is_of(volume)) {
            Some((_, paths)) => paths.push(path),
            None => all.push((Arc::clone(&place.volume), vec![path])),
        }
    }
    let set = |(volume, paths)| (volume, PathSet::new(paths));
    all.into_iter().map(set).collect()
}

/// A directory of the volume to which things are restored instead of where they came from.
fn destination(volume: &Volume, to: Place) -> Result<Destination, HostError> {
    let invalid = |why: String| HostError::Invalid { field: "to", why };
    let name = &volume.config.name;
    if to.volume.config.name != *name {
        return Err(invalid(format!(
            "{} is not on volume {name}: a file cannot be moved to another volume",
            shown(&to.path())
        )));
    }
    let root = volume.watched.open_root();
    let dir = root.and_then(|root| beneath::open_dir(&root, &to.below));
    let dir = dir.map_err(|e| {
        invalid(format!(
            "{}: {e}; name a directory that exists, without links on the way",
            shown(&to.path())
        ))
    })?;
    if mark::is_placeholder(&dir) {
        let why = "a run is looking at it; ask again in a moment";
        return Err(invalid(format!("{}: {why}", shown(&to.path()))));
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
        None if run.restored != Totals::default() && run.restored.all_files() >= run.trashed.all_files() => {
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
