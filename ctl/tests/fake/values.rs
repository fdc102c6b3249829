//! What the fake agent answers.

use std::sync::atomic::{AtomicI64, Ordering};

use prost_types::Timestamp;
use purge_proto::v1::*;

/// The moment that all times are told from.
static NOW: AtomicI64 = AtomicI64::new(1_790_000_000);

/// From here on, all times are those of an agent whose moment is this one.
pub fn set_now(unix: i64) {
    NOW.store(unix, Ordering::Relaxed);
}

pub fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: NOW.load(Ordering::Relaxed) + seconds,
        nanos: 0,
    })
}

pub fn plan(id: &str) -> Plan {
    let totals = |files, directories, bytes| {
        Some(Totals {
            files,
            directories,
            bytes,
            // Some of the directories are empty.
            files_inside: directories * 100,
            ..Totals::default()
        })
    };
    Plan {
        plan_id: id.into(),
        created_at: at(0),
        expires_at: at(20 * 86_400),
        volume: "scratch".into(),
        rules: vec![
            RuleShare {
                rule: "scratch-28d".into(),
                totals: totals(25_000, 12, 123_456_789_012),
                goes_with: vec![GoesWith {
                    rule: "jobs-14d".into(),
                    files: 11_057,
                }],
                ..RuleShare::default()
            },
            RuleShare {
                rule: "tmp-7d".into(),
                totals: totals(0, 0, 0),
                remark: "scope matches 0 of 1,000,000 files".into(),
                ..RuleShare::default()
            },
        ],
        evaluation_seconds: 0.031,
        forgiven: Some(Forgiven {
            stretches: 2,
            seconds: 34,
            candidates: 120,
        }),
        idle_patterns: vec![
            IdlePattern {
                rule: "scratch-28d".into(),
                pattern: "~/keep".into(),
                did_you_mean: "/keep".into(),
            },
            IdlePattern {
                rule: "tmp-7d".into(),
                pattern: "nothing".into(),
                did_you_mean: String::new(),
            },
        ],
        index_files: 1_000_000,
        examined_files: 25_013,
        candidates: totals(25_000, 12, 123_456_789_012),
        kept: Some(Kept {
            held: 1,
            excluded: 2,
            young: 974_000,
            uncovered: 7,
            limit: 0,
            out_of_scope: 500,
            announced: 490,
            ripe_from: at(5 * 86_400),
            ripe_until: at(6 * 86_400),
            ..Kept::default()
        }),
        by_owner: vec![
            OwnerShare {
                owner: "alice".into(),
                uid: 1000,
                files: 24_990,
                bytes: 123_000_000_000,
                takes: 122_000_000_000,
            },
            OwnerShare {
                owner: "4711".into(),
                uid: 4711,
                files: 10,
                bytes: 456_789_012,
                takes: 0,
            },
        ],
        takes: Some(122_000_000_000),
        left_out: vec!["9 files of mallory (uid 4001): too many".into()],
        refusal: if id == "refused" {
            "it would take 25.0% of the volume".into()
        } else {
            String::new()
        },
        requested_by: "uid 0".into(),
        ..Plan::default()
    }
}

/// A plan that takes nothing, and one of a quota.
pub fn further_plans() -> Vec<Plan> {
    let empty = Plan {
        candidates: Some(Totals::default()),
        requested_by: "uid 1001".into(),
        ..plan("p0")
    };
    let of_quota = Plan {
        trigger: "quota user".into(),
        requested_by: "schedule of quota user".into(),
        run_id: "r1".into(),
        ..plan("pq")
    };
    vec![of_quota, empty]
}

pub fn candidates() -> Vec<Candidate> {
    let candidate = |path: &[u8], kind: Kind, bytes, age_seconds, source: Source| Candidate {
        path: path.to_vec(),
        kind: kind.into(),
        bytes,
        owner: "alice".into(),
        last_access: at(-(age_seconds as i64)),
        source: source.into(),
        rule: "scratch-28d".into(),
        age_seconds,
        because: String::new(),
        files_inside: if kind == Kind::Directory { 7 } else { 0 },
    };
    vec![
        candidate(
            b"/export/scratch/a/plain.dat",
            Kind::File,
            4096,
            2_600_000,
            Source::Observed,
        ),
        candidate(
            b"/export/scratch/a/new\nline,\"quoted\"",
            Kind::File,
            0,
            90_000,
            Source::Baseline,
        ),
        candidate(
            b"/export/scratch/a/not\xffutf8\x1b[31m",
            Kind::File,
            5_000_000_000,
            5_000,
            Source::Mtime,
        ),
        candidate(b"/export/scratch/a", Kind::Directory, 0, 50, Source::Gap),
    ]
}

/// A run that took directories as a whole into the trash, and some of whose files are back.
pub fn trashed_run() -> Run {
    let totals = |files, directories, files_inside, bytes| {
        Some(Totals {
            files,
            directories,
            bytes,
            files_inside,
            ..Totals::default()
        })
    };
    Run {
        run_id: "r2".into(),
        deleted: totals(0, 0, 0, 0),
        trashed: totals(0, 811, 11_057, 333_660_000),
        restored: totals(33, 70, 962, 30_030_000),
        in_trash: totals(0, 741, 10_062, 303_630_000),
        trash_until: at(604_800),
        rules: vec!["jobs-14d".into(), "scratch-28d".into()],
        ..run(RunState::Completed, false)
    }
}

/// What lies in the trash of two runs.
pub fn trash() -> Vec<TrashEntry> {
    let entry = |path: &[u8], kind: Kind, files_inside, trash_until| TrashEntry {
        path: path.to_vec(),
        kind: kind.into(),
        bytes: 4096,
        files_inside,
        owner: "alice".into(),
        uid: 1000,
        run_id: "r2".into(),
        volume: "scratch".into(),
        taken_at: at(10),
        trash_until,
    };
    vec![
        entry(
            b"/export/scratch/alice/run-0001",
            Kind::Directory,
            13,
            at(604_800),
        ),
        entry(b"/export/scratch/alice/not\xffutf8", Kind::File, 0, None),
    ]
}

/// What would come back by a path.
pub fn dry_restore() -> RestoreReport {
    let item = |path: &[u8], kind: Kind, bytes, files_inside| RestoreItem {
        path: path.to_vec(),
        kind: kind.into(),
        bytes,
        files_inside,
    };
    RestoreReport {
        run_id: "r2".into(),
        run_ids: vec!["r2".into(), "r1".into()],
        restored: Some(Totals {
            files: 1,
            directories: 1,
            bytes: 259_000,
            files_inside: 13,
            ..Totals::default()
        }),
        older_total: 2,
        items: vec![
            item(b"/export/scratch/alice/run-0001", Kind::Directory, 253_600, 13),
            item(b"/export/scratch/alice/a\n.dat", Kind::File, 5_400, 0),
        ],
        items_total: 2,
        dry_run: true,
        ..RestoreReport::default()
    }
}

/// A path that two runs took: the newer one as a part of a directory.
pub fn explanation_of_taken(path: Vec<u8>) -> Explanation {
    let newer = Taken {
        path: b"/export/scratch/gone".to_vec(),
        kind: Kind::Directory.into(),
        bytes: 253_600,
        files_inside: 13,
        owner: "alice".into(),
        last_access: at(-3_456_000),
        taken_at: at(10),
        run_id: "r2".into(),
        rule: "jobs-14d".into(),
        requested_by: "uid 0".into(),
        state: TakenState::Trashed.into(),
        trash_until: at(604_800),
        ..Taken::default()
    };
    let older = Taken {
        path: path.clone(),
        kind: Kind::File.into(),
        bytes: 4096,
        files_inside: 0,
        run_id: "r1".into(),
        rule: String::new(),
        requested_by: "watermark scratch".into(),
        state: TakenState::Deleted.into(),
        trash_until: None,
        ..newer.clone()
    };
    Explanation {
        path,
        owner: "alice".into(),
        volume: "scratch".into(),
        taken: vec![newer, older],
        ..Explanation::default()
    }
}

pub fn run(state: RunState, failed: bool) -> Run {
    Run {
        run_id: "r1".into(),
        plan_id: "p1".into(),
        volume: "scratch".into(),
        state: state.into(),
        started_at: at(10),
        finished_at: at(12),
        deleted: Some(Totals {
            files: 24_980,
            directories: 12,
            bytes: 123_400_000_000,
            files_inside: 1200,
            ..Totals::default()
        }),
        trashed: Some(Totals::default()),
        archived: Some(Totals::default()),
        skipped: Some(Skipped {
            accessed: 11,
            changed: 3,
            gone: 5,
            leased: 2,
            ..Skipped::default()
        }),
        failed: match failed {
            true => vec![Failure {
                path: b"/export/scratch/fixed\n".to_vec(),
                error: "Structure needs cleaning (os error 117)".into(),
            }],
            false => Vec::new(),
        },
        failed_total: failed.into(),
        failed_by_owner: match failed {
            true => vec![OwnerFailures {
                uid: 1000,
                owner: "alice".into(),
                failed: 1,
            }],
            false => Vec::new(),
        },
        seconds: 2.5,
        requested_by: "uid 0".into(),
        ..Run::default()
    }
}

pub fn hold() -> Hold {
    Hold {
        hold_id: "h1".into(),
        path: b"/export/scratch/carol".to_vec(),
        reason: "paper under review".into(),
        created_at: at(0),
        expires_at: at(86_400),
        created_by: "uid 0".into(),
    }
}

pub fn notices() -> Vec<Notice> {
    let event = |id: &str, event: &str| NoticeEvent {
        event_id: id.into(),
        event: event.into(),
        volume: "scratch".into(),
        at: at(0),
    };
    let waiting = Notice {
        notice_id: "n3".into(),
        sink: "webhook".into(),
        state: NoticeState::Waiting.into(),
        created_at: at(0),
        due_at: at(40),
        attempts: 2,
        error: "http://127.0.0.1:1/: connection refused".into(),
        events: vec![event("gap/scratch/1/stopped", "coverage-gap")],
        ..Notice::default()
    };
    let sent = Notice {
        notice_id: "n2".into(),
        sink: "smtp".into(),
        state: NoticeState::Sent.into(),
        user: "alice".into(),
        uid: Some(1001),
        created_at: at(0),
        ended_at: at(5),
        attempts: 1,
        events: vec![
            event("purged/r1/1001", "purged"),
            event("quota/q/alice/1/begun", "over-quota"),
        ],
        ..Notice::default()
    };
    let failed = Notice {
        notice_id: "n1".into(),
        state: NoticeState::Failed.into(),
        error: "550 no such user".into(),
        ..sent.clone()
    };
    vec![waiting, sent, failed]
}

pub fn status() -> AgentStatus {
    let volume = VolumeStatus {
        subvolumes: 0,
        times_ahead: 0,
        locked_by: Vec::new(),
        stuck_trash: None,
        trash_waits_until: None,
        run_failure: String::new(),
        name: "scratch".into(),
        path: b"/export/scratch".to_vec(),
        collector: Collector::Fanotify.into(),
        state: VolumeState::Degraded.into(),
        reason: "the index cannot be written".into(),
        files: 1_000_000,
        directories: 50_000,
        bytes: 1 << 40,
        coverage_since: at(0),
        gaps: vec![Gap {
            from: at(100),
            to: at(200),
            cause: "stopped".into(),
            counts: true,
            closed: false,
        }],
        events_total: 5,
        events_lost_total: 0,
        index_bytes: 70_000_000,
        events_per_second: 0.5,
        scan: None,
        unreadable: 2,
        filesystem: "ext4".into(),
        baseline: "observed".into(),
        precision_seconds: 3600,
        ignore_marks: 12,
        events_ignored_total: 3,
        keeping: Some(Keeping {
            flushes_total: 7,
            journal_bytes: 4096,
            checkpoints_total: 1,
            ..Keeping::default()
        }),
        trash: Some(Totals {
            files: 3,
            directories: 0,
            bytes: 4096,
            ..Totals::default()
        }),
        guard: "leases".into(),
        triggers: vec![stopped()],
    };
    AgentStatus {
        version: "0.1.0".into(),
        uptime_seconds: 90_000,
        volumes: vec![volume],
        last_runs: Vec::new(),
        resident_bytes: 120 << 20,
        schedules: Vec::new(),
        attention: attention(),
        upcoming: vec![
            Upcoming {
                rule: "scratch-28d".into(),
                volume: "scratch".into(),
                at: at(3600),
                applies: false,
            },
            Upcoming {
                rule: "tmp-7d".into(),
                volume: "scratch".into(),
                at: at(3600),
                applies: false,
            },
        ],
    }
}

fn attention() -> Vec<Attention> {
    let of = |volume: &str, check: &str, what: &str, cure: &str| Attention {
        volume: volume.into(),
        check: check.into(),
        what: what.into(),
        cure: cure.into(),
        at: None,
    };
    let mut all = vec![
        of(
            "scratch",
            "volume",
            "the index cannot be written",
            "purgectl doctor",
        ),
        of(
            "scratch",
            "quota",
            "over quota user: bob by 54.7 MiB",
            "purgectl plan --quota user",
        ),
        of(
            "",
            "notices",
            "3 notices not accepted yet, the last by smtp: connection refused",
            "purgectl notices",
        ),
        of(
            "scratch",
            "trash",
            "7,699 files (237.6 MiB) in the trash are deleted for good",
            "purgectl restore RUN brings them back until then",
        ),
    ];
    if let Some(trash) = all.last_mut() {
        trash.at = at(7200);
    }
    all
}

pub fn explanation(path: Vec<u8>) -> Explanation {
    let verdict = |name: &str, matches, expires_at, because: &str| RuleVerdict {
        name: name.into(),
        matches,
        expires_at,
        because: because.into(),
    };
    Explanation {
        taken: Vec::new(),
        path,
        kind: Kind::File.into(),
        bytes: 42,
        owner: "alice".into(),
        last_access: at(0),
        source: Source::Observed.into(),
        coverage_since: at(-100),
        rules: vec![
            verdict(
                "scratch-28d",
                true,
                at(2_419_201),
                "young: its last access was observed",
            ),
            verdict("tmp-7d", false, None, "excluded by pattern \"software/**\""),
        ],
        holds: vec![hold()],
        access: at(0),
        access_source: Source::Observed.into(),
        modify: at(-50),
        change: at(-50),
        birth: at(-60),
        inode: 4711,
        links: 1,
        volume: "scratch".into(),
        holds_total: 1,
        gaps: vec![Gap {
            from: at(-90),
            to: at(-80),
            cause: "overflow".into(),
            counts: true,
            closed: false,
        }],
    }
}

pub fn touched() -> TouchedReport {
    let owner = TouchedOwner {
        volume: "scratch".into(),
        owner: "mallory".into(),
        uid: 1001,
        stamped: 12_345,
        read: 512,
        first: at(0),
        last: at(10),
        process: "touch".into(),
        pid: 4711,
    };
    TouchedReport {
        owners: vec![owner],
        since: at(0),
    }
}

pub fn mine() -> MineReport {
    let directory = |name: &str, files| MineDirectory {
        volume: "scratch".into(),
        path: format!("/export/scratch/{name}").into_bytes(),
        files,
        bytes: files * 1_000_000,
        first_expires_at: at(0),
        hidden: false,
    };
    MineReport {
        user: "alice".into(),
        files: 46,
        bytes: 46_000_000,
        directories: vec![directory("alice/run1", 12), directory("alice/run2", 34)],
        directories_total: 2,
    }
}

pub fn forecast() -> Forecast {
    let due = |seconds, files| Due {
        until: at(seconds),
        files,
        bytes: files * 1_000_000,
    };
    let limit = LimitForecast {
        limit: "quota user".into(),
        subject: "alice".into(),
        measure: "bytes".into(),
        used: 40e12,
        most: 50e12,
        growth_per_day: Some(1e12),
        measured_seconds: 604_800,
        reached_at: at(864_000),
        would_go: Some(Totals {
            files: 100,
            directories: 0,
            bytes: 5_000_000_000_000,
            ..Totals::default()
        }),
    };
    Forecast {
        subjects_total: 0,
        volume: "scratch".into(),
        rules: vec!["scratch-28d".into()],
        from: at(0),
        due: Some(due(0, 12)),
        days: vec![due(86_400, 0), due(172_800, 34)],
        subjects: vec![SubjectForecast {
            subject: "alice".into(),
            files: 46,
            bytes: 46_000_000,
            due: Some(due(0, 12)),
            days: vec![due(172_800, 34)],
        }],
        limits: vec![limit],
    }
}

pub fn config() -> ConfigReport {
    let value = |key: &str, value: &str, origin: &str, pending: Option<&str>| ConfigValue {
        key: key.into(),
        value: value.into(),
        origin: origin.into(),
        pending: pending.map(Into::into),
    };
    let file = "/etc/purge-agent/agent.toml";
    let values = vec![
        value("listen.unix", "\"/run/purge-agent/agent.sock\"", "default", None),
        value(
            "volume.scratch.precision",
            "\"1h\"",
            &format!("{file}:12:13"),
            Some("\"5m\""),
        ),
        value(
            "rule.scratch-28d.volume",
            "\"scratch\"",
            "/etc/purge-agent/rules.d/a.toml:3:10",
            None,
        ),
        value(
            "rule.scratch-28d.ttl",
            "\"28d\"",
            "/etc/purge-agent/rules.d/a.toml:4:7",
            None,
        ),
    ];
    ConfigReport { values }
}

/// A watermark that has stopped.
pub fn stopped() -> TriggerStatus {
    TriggerStatus {
        name: "watermark scratch".into(),
        state: TriggerState::Stopped.into(),
        reason: "deleted 12.0 GB, 0 B came free: snapshots?".into(),
        since: at(1_790_000_000),
        measured: Some(Freed {
            deleted_bytes: 12_000_000_000,
            promised_bytes: 12_000_000_000,
            ..Freed::default()
        }),
        taken_lately: Some(Totals {
            files: 40,
            directories: 0,
            bytes: 12_000_000_000,
            ..Totals::default()
        }),
        left_out: vec!["files of mallory (uid 4001)".into()],
    }
}

pub fn doctor() -> DoctorReport {
    let finding = |check: &str, volume: &str, verdict: Verdict, found: &str, cure: &str| Finding {
        check: check.into(),
        volume: volume.into(),
        verdict: verdict.into(),
        found: found.into(),
        cure: cure.into(),
    };
    let findings = vec![
        finding("collector", "scratch", Verdict::Good, "fanotify; 12 events/s", ""),
        finding(
            "guard",
            "scratch",
            Verdict::Note,
            "no leases here",
            "see `leases` below",
        ),
        finding("kernel", "", Verdict::Bad, "Linux 5.10.0", "boot a newer kernel"),
    ];
    DoctorReport { findings }
}

pub fn preview(user: &str) -> PreviewNoticesResponse {
    let alice = NoticeDraft {
        sink: "smtp".into(),
        user: "alice".into(),
        uid: Some(1001),
        address: "alice@example.org".into(),
        events: vec!["will-expire".into()],
        subject: "[scratch] 12 files of yours expire until 2026-09-28".into(),
        text: "12 files of yours on volume scratch expire.\n\n  Keep them:  use them\n".into(),
        ..NoticeDraft::default()
    };
    let operator = NoticeDraft {
        sink: "webhook".into(),
        events: vec!["watermark-reached".into()],
        subject: "[scratch] over its watermark".into(),
        text: "Volume scratch is over its watermark.\n".into(),
        notice_id: "n9".into(),
        due_at: at(60),
        ..NoticeDraft::default()
    };
    let mut drafts = vec![alice, operator];
    drafts.retain(|d| user.is_empty() || d.user == user);
    PreviewNoticesResponse {
        drafts,
        held_until: at(3600),
        ..PreviewNoticesResponse::default()
    }
}

/// What subjects of a quota use.
pub fn quotas() -> QuotaReport {
    let one = |subject: &str, used: f64, most: f64| QuotaUse {
        quota: "user".into(),
        volume: "scratch".into(),
        subject: subject.into(),
        measure: "bytes".into(),
        files: 1_200,
        used,
        most: Some(most),
        over: used > most,
        over_since: at(-3 * 86_400).filter(|_| used > most),
        growth_per_day: (used > most).then_some(1e9),
        reached_at: at(0).filter(|_| used > most),
    };
    let free = QuotaUse {
        most: None,
        ..one("erin", 5e6, 1e9)
    };
    QuotaReport {
        uses: vec![one("bob", 2.1e11, 1.5e11), one("carol", 8.7e10, 1.5e11), free],
        uses_total: 3,
    }
}

/// What the agent does by itself.
pub fn schedule() -> Schedule {
    let one = |what: &str, name: &str, schedule: &str, every_seconds, next_at, deletes| ScheduledAct {
        what: what.into(),
        name: name.into(),
        volume: "scratch".into(),
        schedule: schedule.into(),
        every_seconds,
        next_at,
        deletes,
    };
    Schedule {
        acts: vec![
            one("watermark", "scratch", "", 60, at(30), true),
            one("quota", "user", "", 600, at(300), false),
            one("announce", "projects-91d", "", 86_400, at(7_200), false),
            one("purge", "scratch-28d", "daily", 0, at(40_000), true),
            one("plan", "tmp-7d", "", 0, None, false),
        ],
    }
}
