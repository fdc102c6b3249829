//! What the fake agent answers.

mod plans;

use std::sync::atomic::{AtomicI64, Ordering};

use prost_types::Timestamp;
use purge_proto::v1::*;

pub use self::plans::*;

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

/// What the collector does not see.
pub fn blind() -> Vec<BlindSpot> {
    let spot = |name: &str, words: &str| BlindSpot {
        name: name.into(),
        words: words.into(),
    };
    vec![
        spot("client_caches", "reads of NFS clients from their own caches"),
        spot(
            "mappings",
            "memory mappings that are used after the file was closed",
        ),
    ]
}

pub fn status() -> AgentStatus {
    let volume = VolumeStatus {
        subvolumes: 0,
        missing_features: vec![MissingFeature {
            name: "rename".into(),
            means: "the agent finds out by a look which file a changed name is of".into(),
        }],
        times_ahead: 0,
        disk: Some(Disk {
            used_bytes: 4 << 40,
            available_bytes: 1 << 40,
            inodes: 400_000_000,
            inodes_used: 364_000_000,
            high: Some(0.95),
            low: Some(0.9),
        }),
        locked_by: Vec::new(),
        stuck_trash: None,
        trash_waits_until: None,
        run_failure: String::new(),
        name: "scratch".into(),
        path: b"/export/scratch".to_vec(),
        collector: Collector::Fanotify.into(),
        collector_mode: "filesystem".into(),
        blind: blind(),
        reads: "seen".into(),
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
    let absent = VolumeStatus {
        name: "home".into(),
        path: b"/export/home".to_vec(),
        collector: Collector::Fanotify.into(),
        state: VolumeState::Degraded.into(),
        reason: "it is not watched, and is taken up when it is there".into(),
        trash: Some(Totals::default()),
        ..VolumeStatus::default()
    };
    AgentStatus {
        version: "0.1.0".into(),
        uptime_seconds: 90_000,
        volumes: vec![volume, absent],
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
        blind: blind(),
        reads: "seen".into(),
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
        expired_files: files / 3,
    };
    let rule = |name: &str, next_at, grace_seconds| MineRule {
        rule: name.into(),
        volume: "scratch".into(),
        next_at,
        grace_seconds,
    };
    MineReport {
        user: "alice".into(),
        files: 46,
        bytes: 46_000_000,
        directories: vec![directory("alice/run1", 12), directory("alice/run2", 34)],
        directories_total: 2,
        expired_files: 15,
        expired_bytes: 15_000_000,
        held_files: 2_064,
        held_bytes: 60_600_000,
        rules: vec![
            rule("jobs-14d", at(3600), 604_800),
            rule("scratch-28d", None, 86_400),
        ],
    }
}

/// Of a volume that has been watched for some minutes.
pub fn young_forecast() -> Forecast {
    let limit = LimitForecast {
        limit: "watermark young".into(),
        measure: "bytes".into(),
        used: 40e12,
        most: 50e12,
        ..LimitForecast::default()
    };
    Forecast {
        noted_seconds: 720,
        volume: "young".into(),
        subjects: Vec::new(),
        limits: vec![limit],
        ..forecast()
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
        noted_seconds: 604_800,
        needed_seconds: 86_400,
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
