//! Each volume: what is wrong with it, its mount, its leases, what was seen of it.

use std::sync::atomic::Ordering::Relaxed;

use purge_proto::units::{format_count, format_duration};

use super::{Finding, Verdict, kernel, through};
use crate::host::Host;
use crate::volume::{Absent, Ailment, State, Volume};
use purge_base::clock;
use purge_collect::locks::Note;
use purge_collect::mounted;
use purge_collect::source::{Mode, Reads};
use purge_removal::protection::Guard;
use purge_removal::trash::{Share, Trash};

pub(super) fn examine(volume: &Volume) -> Vec<Finding> {
    let name = &volume.config.name;
    let ailments = volume.ailments().into_iter();
    let mut findings: Vec<Finding> = ailments.map(|ill| ailing(volume, ill)).collect();
    if volume.is_away() {
        // What lies at its path now is not the volume, so the other checks would tell of something else.
        findings.push(unobserved(volume));
        return findings.into_iter().map(|f| f.of(name)).collect();
    }
    if volume.silence().is_some() {
        // Each further question to it would wait.
        return findings.into_iter().map(|f| f.of(name)).collect();
    }
    if findings.is_empty() {
        findings.push(collector(volume));
    }
    findings.extend(ways(volume));
    findings.push(kernel::features(volume.profile().features));
    let ails = |check: &str| findings.iter().any(|f| f.check == check);
    if !ails("filesystem") {
        findings.push(mount(volume));
    }
    findings.extend(through::examine(volume));
    findings.push(guard(volume));
    findings.push(coverage(volume));
    findings.extend(trash(volume));
    findings.extend(subvolumes(volume));
    findings.extend(times_ahead(volume));
    findings.extend(locks(volume));
    findings.push(mounts(volume));
    findings.into_iter().map(|f| f.of(name)).collect()
}

/// A volume that cannot be watched for now.
pub(super) fn absent(volume: &Absent) -> Finding {
    let since = format_duration(volume.since.elapsed().as_secs());
    let found = format!("not watched for {since}: {}", volume.found_there);
    Finding::bad("mount", found, volume.cure.clone()).of(&volume.config.name)
}

fn ailing(volume: &Volume, (what, words): (Ailment, String)) -> Finding {
    let cure = match what {
        Ailment::Away => format!(
            "mount it again at {} (systemctl status, dmesg); if it was replaced on purpose: purgectl volume reset {}",
            volume.config.path.display(),
            volume.config.name
        ),
        _ => what.cure().to_owned(),
    };
    Finding::bad(what.check(), words, cure)
}

/// Of a volume that is away.
fn unobserved(volume: &Volume) -> Finding {
    let age = format_duration(volume.condition().coverage_since.age_at(clock::now()));
    Finding::note(
        "coverage",
        format!("nothing is observed now; the observation began {age} ago"),
        "mount the volume: what happens until then counts as use",
    )
}

/// What watches it and how, and what that cannot see.
fn watched_by(volume: &Volume) -> (String, String) {
    let profile = volume.profile();
    let mode = match profile.mode.word() {
        "" => String::new(),
        mode => format!(" ({mode})"),
    };
    let blind: Vec<&str> = profile.blind.iter().map(|b| b.words()).collect();
    let reads = match profile.reads {
        Reads::Seen => String::new(),
        reads => format!("; {}", reads.words()),
    };
    let unseen = format!("{reads}; not seen: {}", blind.join(", "));
    (format!("{}{mode}", profile.kind.word()), unseen)
}

fn collector(volume: &Volume) -> Finding {
    let (kind, unseen) = watched_by(volume);
    let condition = volume.condition();
    let lost = volume.watched.counters.lost.load(Relaxed);
    if lost > 0 {
        return Finding::note(
            "collector",
            format!("{kind}; {lost} events were lost since the start"),
            "the host is short of memory or of processor time: what was lost counts as a use of every file",
        );
    }
    match condition.state {
        State::Scanning => Finding::note(
            "collector",
            format!("{kind}; the first scan is running"),
            "wait: accesses are recorded, plans are made when it is done (purgectl status)",
        ),
        _ => Finding::good(
            "collector",
            format!("{kind}; {:.0} events/s{unseen}", condition.rate),
        ),
    }
}

/// What would watch it better and was refused; and directories that are not watched.
fn ways(volume: &Volume) -> Vec<Finding> {
    let refused = volume.refused.iter();
    let mut findings: Vec<Finding> = refused
        .map(|why| {
            Finding::note(
                "collector",
                format!("refused: {why}"),
                "see docs/handbook/collectors.md for what each way needs; a better one is taken at the next start",
            )
        })
        .collect();
    let full = volume.watched.tree.as_ref().and_then(|tree| tree.nearly_full());
    findings.extend(full.map(|(marks, limit, name)| {
        Finding::note(
            "collector",
            format!("{marks} directories and files are watched by themselves, of {limit} that may be"),
            format!("raise {name} (sysctl) before there are more: what is beyond it is in no plan"),
        )
    }));
    let unwatched = volume.watched.unwatched();
    if unwatched > 0 {
        findings.push(Finding::bad(
            "collector",
            format!(
                "{unwatched} directories could not be watched: their files count as used, and are in no plan"
            ),
            "raise fs.fanotify.max_user_marks or fs.inotify.max_user_watches (sysctl), then purgectl rescan",
        ));
    }
    findings
}

fn mount(volume: &Volume) -> Finding {
    let mount = &volume.mount;
    let place = volume.config.path.display();
    let atime = if mount.keeps_atime {
        "keeps access times"
    } else {
        "noatime"
    };
    let found = format!("{} at {place}, {atime}", mount.filesystem);
    if mount.read_only {
        return Finding::bad(
            "filesystem",
            format!("{found}, read-only"),
            "mount it read-write: nothing can be removed",
        );
    }
    if volume.profile().mode == Mode::Scans {
        return Finding::good("filesystem", found);
    }
    match mount.keeps_atime {
        false => Finding::good("filesystem", found),
        true => Finding::note(
            "filesystem",
            found,
            "the agent needs no access times: mount it noatime and spare the writes",
        ),
    }
}

/// Locks on the volume's root.
fn locks(volume: &Volume) -> Vec<Finding> {
    let notes = volume.watched.locks_on_root().unwrap_or_default();
    let finding = |note: Note| match note.counts {
        true => Finding::bad(
            "locks",
            note.words,
            "end that process, or have it lock another directory: until then runs remove nothing here",
        ),
        false => Finding::note(
            "locks",
            note.words,
            "nothing: only root's locks on a volume's root count",
        ),
    };
    notes.into_iter().map(finding).collect()
}

/// What of a btrfs is not covered.
fn subvolumes(volume: &Volume) -> Option<Finding> {
    let count = volume.condition().subvolumes;
    let found = format!("{count} subvolumes lie below it; what is in them is neither indexed nor removed");
    let cure = "mount each of them at a path outside of this volume (mount -o subvol=NAME) and make that path a [[volume]] of its own, or watch the \
                subvolumes instead of this volume";
    (count > 0).then(|| Finding::note("subvolumes", found, cure))
}

/// Files whose times say nothing of their use.
fn times_ahead(volume: &Volume) -> Option<Finding> {
    let count = volume.watched.index.read().ledger().ahead();
    let found = format!(
        "{count} files have a modification, change or birth time that lies more than an hour in the future: each counts as used when it was seen first"
    );
    let cure = "correct the clock of the host that set them; touch(1) gives a file another time";
    (count > 0).then(|| Finding::note("times", found, cure))
}

/// What mounts of all namespaces keep, and what of them is not seen.
fn mounts(volume: &Volume) -> Finding {
    let seen = volume.watched.mounted.lately(&volume.watched);
    if let Some(why) = &seen.failed {
        let cure =
            "mount /proc for the agent: until then everything counts as in use, and runs remove nothing";
        return Finding::bad(
            "mounts",
            format!("the mounts of this host cannot be read: {why}"),
            cure,
        );
    }
    let found = format!(
        "{} files and directories are kept as mount points, or as mounted elsewhere, in {} mount namespaces",
        seen.len(),
        seen.namespaces
    );
    if !mounted::sees_all_processes() {
        return Finding::note(
            "mounts",
            format!(
                "{found}; the agent has a process namespace of its own, and does not see the mounts of the host's other processes"
            ),
            "run the agent in the host's process namespace (docker --pid=host, Kubernetes hostPID): a run may detach mounts of containers and jobs",
        );
    }
    match seen.unknown {
        0 => Finding::good("mounts", found),
        n => Finding::note(
            "mounts",
            format!("{found}; of {n} namespaces not every mount is known"),
            "a user has very many mounts, or a process has another root directory in its namespace (chroot): a run may detach those",
        ),
    }
}

fn guard(volume: &Volume) -> Finding {
    match volume.guard() {
        Guard::Leases => Finding::good(
            "guard",
            "leases: a process that opens a file in the moment of its removal keeps it",
        ),
        Guard::Requests => Finding::note(
            "guard",
            "no leases here: the mount keeps its users from what is being removed",
            format!(
                "close the directory behind the mount to users (chmod 700 above it): for who goes around the mount, what is taken stays in \
                 the trash for {} at least",
                format_duration(Guard::Requests.least_grace())
            ),
        ),
        Guard::Grace => Finding::note(
            "guard",
            "no leases here",
            format!(
                "what is taken stays in the trash for {} at least; see `leases` below",
                format_duration(Guard::Grace.least_grace())
            ),
        ),
    }
}

/// A run that failed as a whole, and what cannot be freed of the trash.
pub(super) fn runs_and_trash(host: &Host, volume: &str) -> Vec<Finding> {
    let failed = host.applier.run_failure(volume).map(|why| {
        let cure = "see what it says (purgectl run RUN), then make another plan and apply it";
        Finding::bad("run", why, cure)
    });
    let stuck = host
        .trash
        .stuck_in(volume)
        .map(|stuck| Finding::bad("trash", stuck.words(), stuck.cure));
    failed.into_iter().chain(stuck).map(|f| f.of(volume)).collect()
}

/// What lies in the trash and waits for the operator.
fn trash(volume: &Volume) -> Option<Finding> {
    let cure = "see what has their names now (purgectl run RUN), move it away, then: purgectl restore RUN";
    let shares = Trash::open(&volume.watched).and_then(|trash| trash.map_or(Ok(Vec::new()), |t| t.shares()));
    let runs: Vec<String> = match shares {
        Ok(shares) => shares.into_iter().filter(Share::is_kept).map(|s| s.run).collect(),
        Err(error) => {
            let cure = "correct what the message names below the volume's .purge-agent-trash: until then nothing is restored or freed here";
            return Some(Finding::bad("trash", error.to_string(), cure));
        }
    };
    let found = format!(
        "kept: what may have been used while it was being taken, and could not be put back, by {}",
        runs.join(", ")
    );
    (!runs.is_empty()).then(|| Finding::note("trash", found, cure))
}

fn coverage(volume: &Volume) -> Finding {
    let condition = volume.condition();
    let age = format_duration(condition.coverage_since.age_at(clock::now()));
    let found = format!("observed for {age}, {} gaps", condition.gaps_total);
    if condition.unreadable > 0 {
        return Finding {
            verdict: Verdict::Note,
            cure: "what cannot be read is in no plan: see the log, and purgectl rescan".into(),
            ..Finding::good(
                "coverage",
                format!(
                    "{found}; {} entries could not be read",
                    format_count(condition.unreadable)
                ),
            )
        };
    }
    match condition.gap_end {
        Some(end) => Finding::note(
            "coverage",
            found,
            format!(
                "the last gap counts as a use of every file, {} ago: nothing younger than that expires",
                format_duration(end.age_at(clock::now()))
            ),
        ),
        None => Finding::good("coverage", found),
    }
}
