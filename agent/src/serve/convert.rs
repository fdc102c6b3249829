//! The contract's messages from the agent's values.

mod outlook;
mod plans;
mod taken;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use purge_proto::shown;
use purge_proto::v1;
use tonic::Status;

pub(super) use self::outlook::{calendar, forecast, mine, schedule, standings, trigger};
pub(super) use self::plans::{hold, idle, plan, progress, restored, run, totals};
pub(super) use self::taken::{explained, in_trash};
use crate::doctor::{self, Finding};
use crate::host::roster::Member;
use crate::host::views::questions::Answer;
use crate::host::{Host, HostError};
use crate::volume::{Absent, Gap, State, Volume};
use purge_base::accounts::{group_name, user_name};
use purge_base::clock;
use purge_collect::touched::Touched;
use purge_collect::{arming, source};
use purge_config::Shown;
use purge_index::Totals;
use purge_index::sums::AGE_BOUNDS;
use purge_model::{Kind, LastUse, Seconds, Source};
use purge_policy::evaluate::Shape;
use purge_policy::last_use::{covered, last_use};
use purge_query::find::Hit;
use purge_query::rows::Row;
use purge_removal::candidate::Candidate;
use purge_removal::plans::Plan;
use purge_sys::fanotify::Feature;
use purge_sys::stat::Space;

/// Holds that an explanation names; of the others it says how many there are.
const HOLDS_NAMED_MAX: usize = 100;

/// A moment as the contract has it.
pub(super) fn timestamp(at: Seconds) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.unix(),
        nanos: 0,
    }
}

pub(super) fn status(error: HostError) -> Status {
    // Names that the caller gave, or that others gave to files, stand in it.
    let words = plain(error.to_string());
    match error {
        HostError::Invalid { .. } => Status::invalid_argument(words),
        HostError::NotFound(_) => Status::not_found(words),
        HostError::Denied(_) => Status::permission_denied(words),
        HostError::TooMuch(_) => Status::resource_exhausted(words),
        HostError::Refused(_) => Status::failed_precondition(words),
        HostError::Store(_) => Status::internal(words),
    }
}

/// The words of a [`Status`].
pub(super) fn plain(words: String) -> String {
    shown::Shown::from(words).into_string()
}

pub(super) fn kind(kind: Kind) -> v1::Kind {
    match kind {
        Kind::File => v1::Kind::File,
        Kind::Directory => v1::Kind::Directory,
        Kind::Symlink => v1::Kind::Symlink,
        Kind::Special => v1::Kind::Special,
    }
}

pub(super) fn source(source: Source) -> v1::Source {
    match source {
        Source::Baseline => v1::Source::Baseline,
        Source::Observed => v1::Source::Observed,
        Source::Atime => v1::Source::Atime,
        Source::Mtime => v1::Source::Mtime,
        Source::Ctime => v1::Source::Ctime,
        Source::Birth => v1::Source::Birth,
        Source::Gap => v1::Source::Gap,
    }
}

/// The absolute path of something below a volume.
pub(super) fn absolute(root: &Path, below: &[u8]) -> Vec<u8> {
    purge_model::path::absolute(root.as_os_str().as_bytes(), below)
}

/// Every volume of the configuration, in its order.
pub(super) fn volumes(host: &Host, totals: impl Fn(&Volume) -> Totals) -> Vec<v1::VolumeStatus> {
    let members = host.ground.members();
    let all = members.iter().map(|member| match member {
        Member::Watched(v) => volume(host, v, totals(v)),
        Member::Absent(away) => absent(host, away),
    });
    all.collect()
}

/// What the kernel lacks.
fn missing_feature(feature: Feature) -> v1::MissingFeature {
    v1::MissingFeature {
        name: feature.name().into(),
        means: feature.absence().into(),
    }
}

/// What watches a volume.
fn collector(kind: source::Kind) -> v1::Collector {
    match kind {
        source::Kind::Fanotify => v1::Collector::Fanotify,
        source::Kind::Inotify => v1::Collector::Inotify,
        source::Kind::Fuse => v1::Collector::Fuse,
        source::Kind::Scan => v1::Collector::Scan,
        // It is asked beside the one that watches.
        source::Kind::NfsServer => v1::Collector::Unspecified,
    }
}

/// What watches the volume cannot see.
fn blind(profile: &source::Profile) -> Vec<v1::BlindSpot> {
    let spot = |blind: &source::Blind| v1::BlindSpot {
        name: blind.word().into(),
        words: blind.words().into(),
    };
    profile.blind.iter().map(spot).collect()
}

/// A volume that cannot be watched for now: of its content nothing is known.
fn absent(host: &Host, volume: &Absent) -> v1::VolumeStatus {
    v1::VolumeStatus {
        name: volume.config.name.clone(),
        path: volume.config.path.as_os_str().as_bytes().to_vec(),
        collector: collector(arming::FIRST_CHOICE).into(),
        state: v1::VolumeState::Degraded.into(),
        reason: format!(
            "it is not watched, and is taken up when it is there: {}",
            volume.words
        ),
        trash: Some(totals(host.trash.trash_of(&volume.config.name))),
        ..v1::VolumeStatus::default()
    }
}

pub(super) fn volume(host: &Host, volume: &Volume, totals: Totals) -> v1::VolumeStatus {
    let (condition, profile) = (volume.condition(), volume.profile());
    let counters = &volume.watched.counters;
    let (state, reason) = match condition.state {
        State::Scanning => (v1::VolumeState::Scanning, String::new()),
        State::Tracking => (v1::VolumeState::Tracking, String::new()),
        State::Degraded(reason) => (v1::VolumeState::Degraded, reason),
    };
    v1::VolumeStatus {
        name: volume.config.name.clone(),
        path: volume.config.path.as_os_str().as_bytes().to_vec(),
        collector: collector(profile.kind).into(),
        collector_mode: profile.mode.word().into(),
        blind: blind(&profile),
        reads: profile.reads.word().into(),
        state: state.into(),
        reason,
        files: totals.files,
        directories: totals.directories,
        bytes: totals.bytes,
        coverage_since: Some(timestamp(condition.coverage_since)),
        gaps: condition.gaps.iter().map(gap).collect(),
        keeping: Some(keeping(volume, condition.gaps_total)),
        trash: Some(self::totals(host.trash.trash_of(&volume.config.name))),
        triggers: host
            .brakes
            .triggers(&volume.config.name)
            .into_iter()
            .map(trigger)
            .collect(),
        trash_waits_until: host
            .trash
            .trash_waits_until(&volume.config.name)
            .map(|until| timestamp(Seconds::from_unix(until))),
        stuck_trash: host
            .trash
            .stuck_in(&volume.config.name)
            .map(|stuck| v1::StuckTrash {
                totals: Some(self::totals(stuck.totals)),
                path: stuck.path,
                why: stuck.why,
                cure: stuck.cure,
            }),
        run_failure: host.applier.run_failure(&volume.config.name).unwrap_or_default(),
        guard: volume.last_guard().name().into(),
        events_total: counters.events.load(Relaxed),
        events_lost_total: counters.lost.load(Relaxed),
        index_bytes: host.index_bytes(),
        events_per_second: condition.rate,
        scan: condition
            .scan
            .map(|(entries, directories, unreadable, seconds)| v1::ScanProgress {
                volume: volume.config.name.clone(),
                entries,
                directories,
                unreadable,
                seconds,
                finished: false,
            }),
        unreadable: condition.unreadable,
        subvolumes: condition.subvolumes,
        missing_features: volume.profile().features.missing().map(missing_feature).collect(),
        times_ahead: totals.times_ahead,
        disk: volume
            .space()
            .and_then(|space| disk(host, &volume.config.name, space)),
        locked_by: volume
            .watched
            .locks_on_root()
            .unwrap_or_default()
            .into_iter()
            .map(|note| note.words)
            .collect(),
        filesystem: volume.mount.filesystem.clone(),
        baseline: volume.baseline.into(),
        precision_seconds: condition.precision.window_seconds,
        ignore_marks: condition.precision.marks,
        events_ignored_total: counters.ignored.load(Relaxed),
    }
}

/// How full a file system is; none where it does not say.
fn disk(host: &Host, volume: &str, space: Space) -> Option<v1::Disk> {
    let watermarks = host.ground.limits().watermarks;
    let watermark = watermarks.into_iter().find(|w| w.volume == volume);
    let watermark = watermark.as_ref();
    (space.used.saturating_add(space.available) > 0).then(|| v1::Disk {
        used_bytes: space.used,
        available_bytes: space.available,
        inodes: space.inodes,
        inodes_used: space.inodes_used,
        high: watermark.map(|w| w.high),
        low: watermark.map(|w| w.low),
    })
}

fn gap(g: &Gap) -> v1::Gap {
    v1::Gap {
        from: Some(timestamp(Seconds(g.from))),
        to: Some(timestamp(Seconds(g.to))),
        cause: g.cause.clone(),
        counts: g.counts,
        closed: g.closed,
    }
}

fn keeping(volume: &Volume, gaps_total: u64) -> v1::Keeping {
    let k = &volume.keeping;
    let seconds = |micros: u64| micros as f64 / 1e6;
    v1::Keeping {
        flushes_total: k.flushes.load(Relaxed),
        flushes_failed_total: k.flushes_failed.load(Relaxed),
        flush_seconds_total: seconds(k.flush_micros.load(Relaxed)),
        flush_seconds_max: seconds(k.flush_micros_max.load(Relaxed)),
        journal_bytes: volume.watched.journal.bytes(),
        journal_bytes_written_total: volume.watched.journal.bytes_written(),
        checkpoints_total: k.checkpoints.load(Relaxed),
        checkpoint_bytes: k.checkpoint_bytes.load(Relaxed),
        gaps_total,
        scans_total: k.scans.load(Relaxed),
        clock_ahead_seconds: clock::ahead_seconds(),
    }
}

pub(super) fn candidate(root: &Path, c: &Candidate, plan: &Plan) -> v1::Candidate {
    let kind = match c.shape {
        Shape::File => v1::Kind::File,
        Shape::Tree | Shape::EmptyDirectory => v1::Kind::Directory,
        Shape::Link(_) => v1::Kind::Symlink,
    };
    let share = plan.rules.get(usize::from(c.rule));
    v1::Candidate {
        path: absolute(root, &c.path()),
        kind: kind.into(),
        bytes: c.size,
        owner: user_name(c.uid),
        last_access: Some(timestamp(c.last.at)),
        source: source(c.last.source).into(),
        rule: share.map(|share| share.name.clone()).unwrap_or_default(),
        because: match c.shape {
            Shape::Link(why) => why.in_words().into(),
            _ => share.and_then(|share| share.because.clone()).unwrap_or_default(),
        },
        age_seconds: c.last.at.age_at(plan.created),
        files_inside: match c.shape {
            Shape::Tree => c.files,
            Shape::File | Shape::EmptyDirectory | Shape::Link(_) => 0,
        },
    }
}

/// An entry of which only the first `shown` bytes of the path may be told, if that is not all.
pub(super) fn entry(root: &Path, hit: &Hit, shown: Option<usize>) -> v1::Entry {
    let path = hit
        .path
        .get(..shown.unwrap_or(hit.path.len()))
        .unwrap_or_default();
    v1::Entry {
        path: absolute(root, path),
        hidden: shown.is_some(),
        kind: kind(hit.attributes.kind).into(),
        bytes: hit.attributes.size,
        owner: user_name(hit.attributes.uid),
        group: group_name(hit.attributes.gid),
        last_access: Some(timestamp(seen(hit.last))),
        source: source(hit.last.source).into(),
        expires_at: hit.expires.map(timestamp),
    }
}

pub(super) fn touched(volume: &str, uid: u32, t: &Touched) -> v1::TouchedOwner {
    v1::TouchedOwner {
        volume: volume.into(),
        owner: user_name(uid),
        uid,
        stamped: t.stamped,
        read: t.read,
        first: Some(timestamp(t.span.0)),
        last: Some(timestamp(t.span.1)),
        process: t.process.0.clone(),
        pid: t.process.1,
    }
}

/// A use that was seen: the index holds the end of its precision window, which may lie ahead.
fn seen(last: LastUse) -> Seconds {
    match last.source {
        Source::Observed => last.at.min(clock::now()),
        _ => last.at,
    }
}

fn explanation(mut answer: Answer) -> v1::Explanation {
    let mut holds = plans::holds_of(&mut answer);
    let Answer {
        volume,
        path,
        subject,
        verdicts,
        ..
    } = answer;
    let (condition, profile) = (volume.condition(), volume.profile());
    let a = &subject.attributes;
    let access = covered(subject.access, condition.gap_end);
    let holds_total = holds.len() as u64;
    holds.truncate(HOLDS_NAMED_MAX);
    let last = last_use(a, access, purge_model::Clocks::ALL, clock::judged());
    v1::Explanation {
        path,
        kind: kind(a.kind).into(),
        bytes: a.size,
        owner: user_name(a.uid),
        last_access: Some(timestamp(seen(last))),
        source: source(last.source).into(),
        coverage_since: Some(timestamp(condition.coverage_since)),
        rules: verdicts
            .into_iter()
            .map(|v| v1::RuleVerdict {
                name: v.rule,
                matches: v.matches,
                expires_at: v.expires_at.map(timestamp),
                because: v.because,
            })
            .collect(),
        holds,
        holds_total,
        access: Some(timestamp(seen(access))),
        access_source: source(access.source).into(),
        modify: Some(timestamp(a.mtime)),
        change: Some(timestamp(a.ctime)),
        birth: Some(timestamp(a.birth)),
        inode: subject.ino,
        links: a.links,
        volume: volume.config.name.clone(),
        gaps: condition.gaps.iter().map(gap).collect(),
        taken: Vec::new(),
        blind: blind(&profile),
        reads: profile.reads.word().into(),
    }
}

/// A plan, with what the collector of its volume cannot see.
pub(super) fn plan_on(host: &Host, plan: Plan, owners_max: usize) -> v1::Plan {
    let volume = host.volumes().into_iter().find(|v| v.config.name == plan.volume);
    let profile = volume.map(|v| v.profile());
    v1::Plan {
        blind: profile.as_ref().map(blind).unwrap_or_default(),
        reads: profile.map_or("", |p| p.reads.word()).into(),
        ..self::plan(plan, owners_max)
    }
}

pub(super) fn config(shown: &[Shown]) -> v1::ConfigReport {
    let values = shown.iter().cloned().map(|s| v1::ConfigValue {
        key: s.key,
        value: s.value,
        origin: s.origin,
        pending: s.pending,
    });
    v1::ConfigReport {
        values: values.collect(),
    }
}

pub(super) fn findings(findings: Vec<Finding>) -> v1::DoctorReport {
    let findings = findings.into_iter().map(|f| v1::Finding {
        check: f.check.into(),
        volume: f.volume,
        verdict: match f.verdict {
            doctor::Verdict::Good => v1::Verdict::Good,
            doctor::Verdict::Note => v1::Verdict::Note,
            doctor::Verdict::Bad => v1::Verdict::Bad,
        }
        .into(),
        found: f.found,
        cure: f.cure,
    });
    v1::DoctorReport {
        findings: findings.collect(),
    }
}

pub(super) fn usage_row(volume: &str, subject: String, row: &Row, now: Seconds) -> v1::UsageRow {
    let bounds = AGE_BOUNDS.iter().copied().chain([0]);
    let ages = bounds.zip(row.ages.into_iter().flatten());
    v1::UsageRow {
        volume: volume.into(),
        subject,
        files: row.files,
        bytes: row.bytes,
        allocated_bytes: row.allocated,
        byte_days: row.byte_days as f64,
        oldest: Some(timestamp(row.span.0.min(now))),
        // The index holds the end of a precision window, which may lie ahead.
        newest: Some(timestamp(row.span.1.min(now))),
        ages: ages
            .map(|(below_seconds, (files, bytes))| v1::AgeBucket {
                below_seconds,
                files,
                bytes,
            })
            .collect(),
    }
}
