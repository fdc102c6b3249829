//! Plans, runs, what lies in the trash, and a hold.

use purge_proto::v1::*;

use super::at;

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
                archive: Some(Destination {
                    name: "cold".into(),
                    url: "file:///mnt/cold/scratch".into(),
                }),
                ..RuleShare::default()
            },
            RuleShare {
                rule: "tmp-7d".into(),
                totals: totals(0, 0, 0),
                remark: "scope matches 0 of 1,000,000 files".into(),
                ..RuleShare::default()
            },
        ],
        blind: super::blind(),
        reads: "seen".into(),
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
            young: 972_800,
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
        skipped_files_inside: Some(Skipped {
            accessed: 1240,
            ..Skipped::default()
        }),
        ..run(RunState::Completed, false)
    }
}

/// What lies in the trash of two runs.
pub fn archived(state: CopyState) -> Vec<ArchiveEntry> {
    let entry = |path: &[u8], kind: Kind, bytes| ArchiveEntry {
        path: path.to_vec(),
        kind: kind.into(),
        bytes,
        sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into(),
        key: "closed/apollo/data.h5".into(),
        archive: "cold".into(),
        volume: "scratch".into(),
        rule: "closed-projects".into(),
        run_id: "r0tpclxx1abc".into(),
        owner: "alice".into(),
        group: "users".into(),
        uid: 1001,
        gid: 100,
        mode: "0640".into(),
        mtime: "2026-01-02T03:04:05.678901234Z".into(),
        last_access: "2026-02-01T00:00:00Z".into(),
        archived_at: "2026-11-30T02:00:07Z".into(),
        names: vec![path.to_vec(), b"closed/second".to_vec()],
        xattrs: vec!["user.note".into()],
        state: state.into(),
        ..ArchiveEntry::default()
    };
    vec![
        entry(b"closed/apollo/data.h5", Kind::File, 123_456_789),
        entry(b"closed/apollo/odd\xff\x1b[31m", Kind::File, 20),
    ]
}

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
