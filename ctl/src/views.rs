//! The contract's messages as the JSON that scripts read. Times RFC 3339 UTC, sizes bytes, durations seconds.

use chrono::{DateTime, SecondsFormat, Utc};
use purge_proto::v1;
use serde_json::{Map, Value, json};

mod archive;
mod trash;

pub use self::archive::archive_entry;
pub use self::trash::{restore, taken_state, trash_entry};
use crate::paths;

/// A time, or null.
pub fn time(at: Option<prost_types::Timestamp>) -> Value {
    at.and_then(rfc3339).map_or(Value::Null, Value::String)
}

/// A time as RFC 3339 UTC.
pub fn rfc3339(at: prost_types::Timestamp) -> Option<String> {
    let nanos = u32::try_from(at.nanos).ok()?;
    Some(DateTime::<Utc>::from_timestamp(at.seconds, nanos)?.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The part of an enum's name after its prefix, in lower case: `SOURCE_OBSERVED` -> `observed`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// The source of a time, in a word.
pub fn source(s: v1::Source) -> String {
    word(s.as_str_name(), "SOURCE_")
}

/// The kind of an entry, in a word.
pub fn kind(k: v1::Kind) -> String {
    word(k.as_str_name(), "KIND_")
}

/// The state of a run, in a word.
pub fn run_state(s: v1::RunState) -> String {
    word(s.as_str_name(), "RUN_STATE_")
}

/// The state of a volume, in a word.
pub fn volume_state(s: v1::VolumeState) -> String {
    word(s.as_str_name(), "VOLUME_STATE_")
}

/// The kind of collector, in a word.
pub fn collector(c: v1::Collector) -> String {
    word(c.as_str_name(), "COLLECTOR_")
}

/// Files, directories and links together.
pub fn entries(t: &v1::Totals) -> u64 {
    t.files.saturating_add(t.directories).saturating_add(t.links)
}

fn totals(t: Option<v1::Totals>) -> Value {
    let t = t.unwrap_or_default();
    json!({
        "files": t.files,
        "directories": t.directories,
        "links": t.links,
        "bytes": t.bytes,
        "files_inside": t.files_inside,
    })
}

/// `status`.
pub fn status(s: &v1::AgentStatus) -> Value {
    json!({
        "version": s.version,
        "uptime_seconds": s.uptime_seconds,
        "resident_bytes": s.resident_bytes,
        "volumes": s.volumes.iter().map(volume).collect::<Vec<_>>(),
        "last_runs": s.last_runs.iter().map(run).collect::<Vec<_>>(),
        "schedules": s.schedules.iter().map(due).collect::<Vec<_>>(),
        "attention": s.attention.iter().map(attention).collect::<Vec<_>>(),
        "upcoming": s.upcoming.iter().map(upcoming).collect::<Vec<_>>(),
    })
}

fn attention(a: &v1::Attention) -> Value {
    json!({ "volume": a.volume, "check": a.check, "what": a.what, "cure": a.cure, "at": time(a.at) })
}

fn upcoming(u: &v1::Upcoming) -> Value {
    json!({ "rule": u.rule, "volume": u.volume, "at": time(u.at), "applies": u.applies })
}

/// `volume reset`.
pub fn volume_reset(r: &v1::ResetVolumeResponse) -> Value {
    let mut o = Map::new();
    o.insert("volume".into(), r.volume.clone().into());
    paths::insert(&mut o, &r.path);
    extend(
        &mut o,
        json!({ "holds": r.holds, "set_aside": r.set_aside, "done": r.done }),
    );
    Value::Object(o)
}

fn due(d: &v1::DueSchedule) -> Value {
    json!({
        "rule": d.rule,
        "volume": d.volume,
        "state": d.state,
        "since": time(d.since),
        "next_at": time(d.next_at),
    })
}

fn gap(g: &v1::Gap) -> Value {
    json!({ "from": time(g.from), "to": time(g.to), "cause": g.cause, "counts": g.counts, "closed": g.closed })
}

fn keeping(k: &v1::Keeping) -> Value {
    json!({
        "flushes_total": k.flushes_total,
        "flushes_failed_total": k.flushes_failed_total,
        "flush_seconds_total": k.flush_seconds_total,
        "flush_seconds_max": k.flush_seconds_max,
        "journal_bytes": k.journal_bytes,
        "journal_bytes_written_total": k.journal_bytes_written_total,
        "checkpoints_total": k.checkpoints_total,
        "checkpoint_bytes": k.checkpoint_bytes,
        "gaps_total": k.gaps_total,
        "scans_total": k.scans_total,
        "clock_ahead_seconds": k.clock_ahead_seconds,
    })
}

fn stuck_trash(s: &v1::StuckTrash) -> Value {
    at(
        &s.path,
        json!({ "totals": totals(s.totals), "why": s.why, "cure": s.cure }),
    )
}

fn disk(d: &v1::Disk) -> Value {
    json!({
        "used_bytes": d.used_bytes,
        "available_bytes": d.available_bytes,
        "inodes": d.inodes,
        "inodes_used": d.inodes_used,
        "high": d.high,
        "low": d.low,
    })
}

/// The words for programs of what a collector cannot see.
fn blind(spots: &[v1::BlindSpot]) -> Vec<&str> {
    spots.iter().map(|spot| spot.name.as_str()).collect()
}

fn missing_feature(f: &v1::MissingFeature) -> Value {
    json!({ "name": f.name, "means": f.means })
}

fn volume(v: &v1::VolumeStatus) -> Value {
    let mut o = Map::new();
    o.insert("name".into(), v.name.clone().into());
    paths::insert(&mut o, &v.path);
    let rest = json!({
        "collector": collector(v.collector()),
        "collector_mode": v.collector_mode,
        "blind": blind(&v.blind),
        "reads": v.reads,
        "state": volume_state(v.state()),
        "reason": v.reason,
        "filesystem": v.filesystem,
        "baseline": v.baseline,
        "precision_seconds": v.precision_seconds,
        "ignore_marks": v.ignore_marks,
        "files": v.files,
        "directories": v.directories,
        "bytes": v.bytes,
        "unreadable": v.unreadable,
        "subvolumes": v.subvolumes,
        "missing_features": v.missing_features.iter().map(missing_feature).collect::<Vec<_>>(),
        "times_ahead": v.times_ahead,
        "disk": v.disk.as_ref().map(disk),
        "locked_by": v.locked_by,
        "coverage_since": time(v.coverage_since),
        "gaps": v.gaps.iter().map(gap).collect::<Vec<_>>(),
        "events_total": v.events_total,
        "events_lost_total": v.events_lost_total,
        "events_ignored_total": v.events_ignored_total,
        "events_per_second": v.events_per_second,
        "index_bytes": v.index_bytes,
        "scan": v.scan.as_ref().map(scan),
        "trash": totals(v.trash),
        "trash_waits_until": time(v.trash_waits_until),
        "stuck_trash": v.stuck_trash.as_ref().map(stuck_trash),
        "run_failure": v.run_failure,
        "guard": v.guard,
        "triggers": v.triggers.iter().map(trigger).collect::<Vec<_>>(),
        "keeping": v.keeping.as_ref().map(keeping),
    });
    extend(&mut o, rest);
    Value::Object(o)
}

fn trigger(t: &v1::TriggerStatus) -> Value {
    let measured = t.measured.map(|m| {
        json!({
            "deleted_bytes": m.deleted_bytes,
            "promised_bytes": m.promised_bytes,
            "freed_bytes": m.freed_bytes,
            "promised_files": m.promised_files,
            "freed_files": m.freed_files,
        })
    });
    json!({
        "name": t.name,
        "state": word(t.state().as_str_name(), "TRIGGER_STATE_"),
        "reason": t.reason,
        "since": time(t.since),
        "measured": measured,
        "taken_lately": totals(t.taken_lately),
        "left_out": t.left_out,
    })
}

/// `resume`.
pub fn resumed(r: &v1::ResumeTriggerResponse) -> Value {
    json!({ "volume": r.volume, "triggers": r.triggers.iter().map(trigger).collect::<Vec<_>>() })
}

/// The state of a notice, in a word.
pub fn notice_state(s: v1::NoticeState) -> String {
    word(s.as_str_name(), "NOTICE_STATE_")
}

/// One of `notices`.
pub fn notice(n: &v1::Notice) -> Value {
    let to = match n.uid {
        Some(uid) => json!({ "audience": "owner", "user": n.user, "uid": uid }),
        None => json!({ "audience": "operator" }),
    };
    let event = |e: &v1::NoticeEvent| json!({ "event_id": e.event_id, "event": e.event, "volume": e.volume, "at": time(e.at) });
    json!({
        "notice_id": n.notice_id,
        "sink": n.sink,
        "state": notice_state(n.state()),
        "to": to,
        "created_at": time(n.created_at),
        "due_at": time(n.due_at),
        "ended_at": time(n.ended_at),
        "attempts": n.attempts,
        "error": n.error,
        "events": n.events.iter().map(event).collect::<Vec<_>>(),
    })
}

/// `notices preview`.
pub fn notices_preview(p: &v1::PreviewNoticesResponse) -> Value {
    let draft = |d: &v1::NoticeDraft| {
        let to = match d.uid {
            Some(uid) => json!({ "audience": "owner", "user": d.user, "uid": uid }),
            None => json!({ "audience": "operator" }),
        };
        json!({
            "sink": d.sink,
            "to": to,
            "address": d.address,
            "events": d.events,
            "subject": d.subject,
            "text": d.text,
            "notice_id": d.notice_id,
            "due_at": time(d.due_at),
        })
    };
    json!({
        "notices": p.drafts.iter().map(draft).collect::<Vec<_>>(),
        "left_out": p.left_out,
        "dry_run": p.dry_run,
        "held_until": time(p.held_until),
    })
}

/// `notices release`.
pub fn notices_released(r: &v1::ReleaseNoticesResponse) -> Value {
    json!({ "released": true, "held_until": time(r.held_until) })
}

/// `notices test`.
pub fn notice_test(t: &v1::TestNoticeResponse) -> Value {
    json!({ "sink": t.sink, "notice_id": t.notice_id, "sent": true })
}

/// How far a scan is.
pub fn scan(s: &v1::ScanProgress) -> Value {
    json!({
        "volume": s.volume,
        "entries": s.entries,
        "directories": s.directories,
        "unreadable": s.unreadable,
        "seconds": s.seconds,
        "finished": s.finished,
    })
}

/// An object that begins with its path.
fn at(path: &[u8], more: Value) -> Value {
    let mut o = Map::new();
    paths::insert(&mut o, path);
    extend(&mut o, more);
    Value::Object(o)
}

fn extend(object: &mut Map<String, Value>, more: Value) {
    if let Value::Object(more) = more {
        object.extend(more);
    }
}

/// `plan`.
pub fn plan(p: &v1::Plan) -> Value {
    let kept = p.kept.unwrap_or_default();
    let owner = |o: &v1::OwnerShare| json!({ "owner": o.owner, "files": o.files, "bytes": o.bytes, "takes": o.takes });
    let share = |r: &v1::RuleShare| {
        let mut o = Map::new();
        o.insert("rule".into(), r.rule.clone().into());
        extend(&mut o, totals(r.totals));
        let goes_with = |g: &v1::GoesWith| json!({ "rule": g.rule, "files": g.files });
        o.insert("remark".into(), r.remark.clone().into());
        o.insert("because".into(), r.because.clone().into());
        let archive = |to: &v1::Destination| json!({ "name": to.name, "url": to.url });
        o.insert("archive".into(), r.archive.as_ref().map_or(Value::Null, archive));
        o.insert("goes_with".into(), r.goes_with.iter().map(goes_with).collect());
        Value::Object(o)
    };
    json!({
        "plan_id": p.plan_id,
        "created_at": time(p.created_at),
        "expires_at": time(p.expires_at),
        "volume": p.volume,
        "rules": p.rules.iter().map(|r| r.rule.clone()).collect::<Vec<_>>(),
        "evaluation_seconds": p.evaluation_seconds,
        "index_files": p.index_files,
        "examined_files": p.examined_files,
        "candidates": totals(p.candidates),
        "kept": {
            "held": kept.held,
            "excluded": kept.excluded,
            "young": kept.young,
            "uncovered": kept.uncovered,
            "limit": kept.limit,
            "out_of_scope": kept.out_of_scope,
            "announced": kept.announced,
            "ripe_from": time(kept.ripe_from),
            "ripe_until": time(kept.ripe_until),
            "mounted": kept.mounted,
            "other_subjects": kept.other_subjects,
            "not_needed": kept.not_needed,
        },
        "by_owner": p.by_owner.iter().map(owner).collect::<Vec<_>>(),
        "rule_totals": p.rules.iter().map(share).collect::<Vec<_>>(),
        "refusal": p.refusal,
        "run_id": p.run_id,
        "guard": p.guard,
        "grace_seconds": p.grace_seconds,
        "forgiven": p.forgiven.map(|f| json!({
            "stretches": f.stretches,
            "seconds": f.seconds,
            "candidates": f.candidates,
        })),
        "idle_patterns": p.idle_patterns.iter().map(idle_pattern).collect::<Vec<_>>(),
        "times_ahead": p.times_ahead,
        "takes": p.takes,
        "left_out": p.left_out,
        "mounted": p.mounted,
        "requested_by": p.requested_by,
        "trigger": p.trigger,
        "blind": blind(&p.blind),
        "reads": p.reads,
    })
}

fn idle_pattern(i: &v1::IdlePattern) -> Value {
    let meant = (!i.did_you_mean.is_empty()).then_some(&i.did_you_mean);
    json!({ "rule": i.rule, "pattern": i.pattern, "did_you_mean": meant })
}

/// One line of `show`.
pub fn candidate(c: &v1::Candidate) -> Value {
    let mut o = Map::new();
    paths::insert(&mut o, &c.path);
    extend(
        &mut o,
        json!({
            "kind": kind(c.kind()),
            "bytes": c.bytes,
            "owner": c.owner,
            "last_access": time(c.last_access),
            "source": source(c.source()),
            "rule": c.rule,
            "age_seconds": c.age_seconds,
            "files_inside": c.files_inside,
        }),
    );
    if !c.because.is_empty() {
        o.insert("because".into(), c.because.clone().into());
    }
    Value::Object(o)
}

fn failure(f: &v1::Failure) -> Value {
    at(&f.path, json!({ "error": f.error }))
}

fn owner_failures(o: &v1::OwnerFailures) -> Value {
    json!({ "uid": o.uid, "owner": o.owner, "failed": o.failed })
}

/// `apply`, `run`.
pub fn run(r: &v1::Run) -> Value {
    let deleted = r.deleted.unwrap_or_default();
    let archived = r.archived.unwrap_or_default();
    let trashed = r.trashed.unwrap_or_default();
    let of = |t: &v1::Totals| entries(t).saturating_add(t.files_inside);
    let removed = of(&deleted).saturating_add(of(&trashed));
    let rate = if r.seconds > 0.0 {
        (removed as f64 / r.seconds).round() as u64
    } else {
        0
    };
    json!({
        "run_id": r.run_id,
        "plan_id": r.plan_id,
        "volume": r.volume,
        "state": run_state(r.state()),
        "started_at": time(r.started_at),
        "finished_at": time(r.finished_at),
        "requested_by": r.requested_by,
        "deleted": totals(r.deleted),
        "trashed": totals(r.trashed),
        "trash_until": time(r.trash_until),
        "trash_freed_at": time(r.trash_freed_at),
        "trash_stuck": totals(r.trash_stuck),
        "restored": totals(r.restored),
        "in_trash": totals(r.in_trash),
        "rules": r.rules,
        "archived": { "files": archived.files, "bytes": archived.bytes },
        "skipped": skipped(r.skipped),
        "failed": r.failed.iter().map(failure).collect::<Vec<_>>(),
        "failed_total": r.failed_total,
        "error": r.error,
        "seconds": r.seconds,
        "files_per_second": rate,
        "locked_by": r.locked_by,
        "failed_by_owner": r.failed_by_owner.iter().map(owner_failures).collect::<Vec<_>>(),
        "skipped_files_inside": skipped(r.skipped_files_inside),
    })
}

/// What was left alone, by the reason.
fn skipped(skipped: Option<v1::Skipped>) -> Value {
    let s = skipped.unwrap_or_default();
    json!({
        "accessed": s.accessed,
        "changed": s.changed,
        "open": s.open,
        "locked": s.locked,
        "held": s.held,
        "gone": s.gone,
        "hardlinked": s.hardlinked,
        "leased": s.leased,
        "deep": s.deep,
        "quota": s.quota,
        "mounted": s.mounted,
        "protected": s.protected,
        "many_names": s.many_names,
        "cancelled": s.cancelled,
    })
}

/// `explain`.
pub fn explanation(e: &v1::Explanation) -> Value {
    let mut o = Map::new();
    paths::insert(&mut o, &e.path);
    let rule = |r: &v1::RuleVerdict| json!({ "name": r.name, "matches": r.matches, "expires_at": time(r.expires_at), "because": r.because });
    extend(
        &mut o,
        json!({
            "kind": kind(e.kind()),
            "bytes": e.bytes,
            "owner": e.owner,
            "volume": e.volume,
            "last_access": time(e.last_access),
            "source": source(e.source()),
            "coverage_since": time(e.coverage_since),
            "gaps": e.gaps.iter().map(gap).collect::<Vec<_>>(),
            "rules": e.rules.iter().map(rule).collect::<Vec<_>>(),
            "holds": e.holds.iter().map(hold).collect::<Vec<_>>(),
            "access": time(e.access),
            "access_source": source(e.access_source()),
            "modify": time(e.modify),
            "change": time(e.change),
            "birth": time(e.birth),
            "inode": e.inode,
            "links": e.links,
            "exists": e.inode != 0,
            "taken": e.taken.iter().map(trash::taken).collect::<Vec<_>>(),
            "blind": blind(&e.blind),
            "reads": e.reads,
        }),
    );
    Value::Object(o)
}

/// A hold.
pub fn hold(h: &v1::Hold) -> Value {
    let mut o = Map::new();
    o.insert("hold_id".into(), h.hold_id.clone().into());
    paths::insert(&mut o, &h.path);
    extend(
        &mut o,
        json!({
            "reason": h.reason,
            "created_at": time(h.created_at),
            "expires_at": time(h.expires_at),
            "created_by": h.created_by,
        }),
    );
    Value::Object(o)
}

/// One answer of `find`.
pub fn entry(e: &v1::Entry) -> Value {
    let mut o = Map::new();
    paths::insert(&mut o, &e.path);
    extend(
        &mut o,
        json!({
            "kind": kind(e.kind()),
            "bytes": e.bytes,
            "owner": e.owner,
            "group": e.group,
            "last_access": time(e.last_access),
            "source": source(e.source()),
        }),
    );
    if e.expires_at.is_some() {
        o.insert("expires_at".into(), time(e.expires_at));
    }
    if e.hidden {
        o.insert("hidden".into(), true.into());
    }
    Value::Object(o)
}

/// One row of `usage`.
pub fn usage_row(r: &v1::UsageRow, ages: bool) -> Value {
    let mut o = json!({
        "volume": r.volume,
        "subject": r.subject,
        "files": r.files,
        "bytes": r.bytes,
        "allocated_bytes": r.allocated_bytes,
        "byte_days": r.byte_days,
        "oldest": time(r.oldest),
        "newest": time(r.newest),
    });
    if ages && let Value::Object(o) = &mut o {
        let bucket = |a: &v1::AgeBucket| {
            let below = if a.below_seconds == 0 {
                Value::Null
            } else {
                a.below_seconds.into()
            };
            json!({ "below_seconds": below, "files": a.files, "bytes": a.bytes })
        };
        o.insert(
            "ages".into(),
            r.ages.iter().map(bucket).collect::<Vec<_>>().into(),
        );
    }
    o
}

/// One row of `usage --touched`.
pub fn touched_owner(o: &v1::TouchedOwner) -> Value {
    json!({
        "volume": o.volume,
        "owner": o.owner,
        "uid": o.uid,
        "stamped": o.stamped,
        "read": o.read,
        "first": time(o.first),
        "last": time(o.last),
        "process": o.process,
        "pid": o.pid,
    })
}
