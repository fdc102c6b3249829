//! The face of purgectl: whole commands against an agent with fixed answers, compared with `golden/*.out`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p purgectl` writes the files anew; look at the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};

use prost_types::Timestamp;
use purge_proto::v1::purge_agent_server::{PurgeAgent, PurgeAgentServer};
use purge_proto::v1::*;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1_790_000_000 + seconds,
        nanos: 0,
    })
}

fn plan(id: &str) -> Plan {
    let totals = |files, directories, bytes| {
        Some(Totals {
            files,
            directories,
            bytes,
        })
    };
    Plan {
        plan_id: id.into(),
        created_at: at(0),
        expires_at: at(86_400),
        volume: "scratch".into(),
        rules: vec![
            RuleShare {
                rule: "scratch-28d".into(),
                totals: totals(25_000, 12, 123_456_789_012),
            },
            RuleShare {
                rule: "tmp-7d".into(),
                totals: totals(0, 0, 0),
            },
        ],
        evaluation_seconds: 0.031,
        index_files: 1_000_000,
        examined_files: 25_013,
        candidates: totals(25_000, 12, 123_456_789_012),
        kept: Some(Kept {
            held: 1,
            excluded: 2,
            young: 974_990,
            uncovered: 7,
            limit: 0,
        }),
        by_owner: vec![
            OwnerShare {
                owner: "alice".into(),
                uid: 1000,
                files: 24_990,
                bytes: 123_000_000_000,
            },
            OwnerShare {
                owner: "4711".into(),
                uid: 4711,
                files: 10,
                bytes: 456_789_012,
            },
        ],
        refusal: if id == "refused" {
            "it would take 25.0% of the volume".into()
        } else {
            String::new()
        },
        ..Plan::default()
    }
}

fn candidates() -> Vec<Candidate> {
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

fn run(state: RunState, failed: bool) -> Run {
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
        }),
        trashed: Some(Totals::default()),
        archived: Some(Totals::default()),
        skipped: Some(Skipped {
            accessed: 11,
            changed: 3,
            gone: 5,
            ..Skipped::default()
        }),
        failed: match failed {
            true => vec![Failure {
                path: b"/export/scratch/fixed\n".to_vec(),
                error: "Operation not permitted".into(),
            }],
            false => Vec::new(),
        },
        failed_total: failed.into(),
        seconds: 2.5,
        requested_by: "uid 0".into(),
        ..Run::default()
    }
}

fn hold() -> Hold {
    Hold {
        hold_id: "h1".into(),
        path: b"/export/scratch/carol".to_vec(),
        reason: "paper under review".into(),
        created_at: at(0),
        expires_at: at(86_400),
        created_by: "uid 0".into(),
    }
}

fn stream<T: Send + 'static>(items: Vec<T>) -> Response<Answers<T>> {
    Response::new(Box::pin(tokio_stream::iter(items.into_iter().map(Ok))))
}

struct Fake;

#[tonic::async_trait]
impl PurgeAgent for Fake {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        let volume = VolumeStatus {
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
            }),
            guard: "leases".into(),
        };
        Ok(Response::new(AgentStatus {
            version: "0.1.0".into(),
            uptime_seconds: 90_000,
            volumes: vec![volume],
            last_runs: Vec::new(),
            resident_bytes: 120 << 20,
        }))
    }

    type CreatePlanStream = Answers<PlanProgress>;
    async fn create_plan(
        &self,
        r: Request<CreatePlanRequest>,
    ) -> Result<Response<Self::CreatePlanStream>, Status> {
        let r = r.into_inner();
        if r.rules.iter().any(|rule| rule == "unknown") {
            return Err(Status::not_found(
                "there is no rule \"unknown\"; there are scratch-28d, tmp-7d",
            ));
        }
        let mut plan = plan("p1");
        if r.ttl_seconds.is_some() {
            plan.candidates = Some(Totals::default());
            plan.rules.truncate(1);
            plan.rules[0].totals = Some(Totals::default());
            plan.by_owner.clear();
        }
        let examined = PlanProgress {
            step: Some(plan_progress::Step::Examined(5)),
        };
        Ok(stream(vec![
            examined,
            PlanProgress {
                step: Some(plan_progress::Step::Plan(plan)),
            },
        ]))
    }
    async fn get_plan(&self, r: Request<GetPlanRequest>) -> Result<Response<Plan>, Status> {
        match r.into_inner().plan_id.as_str() {
            id @ ("p1" | "stale" | "partial" | "failed") => Ok(Response::new(plan(id))),
            id => Err(Status::not_found(format!(
                "there is no plan {id}; `purgectl plans` names them"
            ))),
        }
    }
    async fn list_plans(&self, r: Request<ListPlansRequest>) -> Result<Response<ListPlansResponse>, Status> {
        // Two pages.
        let (id, next) = if r.into_inner().page_token.is_empty() {
            ("refused", "next")
        } else {
            ("p1", "")
        };
        Ok(Response::new(ListPlansResponse {
            plans: vec![plan(id)],
            next_page_token: next.into(),
        }))
    }
    type ShowPlanStream = Answers<Candidate>;
    async fn show_plan(&self, _: Request<ShowPlanRequest>) -> Result<Response<Self::ShowPlanStream>, Status> {
        Ok(stream(candidates()))
    }
    type ApplyStream = Answers<RunProgress>;
    async fn apply(&self, r: Request<ApplyRequest>) -> Result<Response<Self::ApplyStream>, Status> {
        let run = match r.into_inner().plan_id.as_str() {
            "stale" => {
                return Err(Status::failed_precondition(
                    "plan stale has expired; make a new one",
                ));
            }
            "partial" => run(RunState::Partial, true),
            "failed" => Run {
                error: "cannot open the volume".into(),
                ..run(RunState::Failed, false)
            },
            _ => run(RunState::Completed, false),
        };
        Ok(stream(vec![RunProgress {
            run: Some(run),
            total: 25_012,
            done: 25_012,
        }]))
    }
    type WatchRunStream = Answers<RunProgress>;
    async fn watch_run(&self, _: Request<WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        Ok(stream(Vec::new()))
    }
    async fn get_run(&self, _: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        Ok(Response::new(run(RunState::Partial, true)))
    }
    async fn list_runs(&self, _: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let runs = vec![run(RunState::Completed, false)];
        Ok(Response::new(ListRunsResponse {
            runs,
            next_page_token: String::new(),
        }))
    }
    async fn cancel_run(&self, _: Request<CancelRunRequest>) -> Result<Response<Run>, Status> {
        Ok(Response::new(run(RunState::Running, false)))
    }
    async fn restore(&self, request: Request<RestoreRequest>) -> Result<Response<RestoreReport>, Status> {
        let r = request.into_inner();
        Ok(Response::new(RestoreReport {
            run_id: r.run_id,
            restored: Some(Totals {
                files: 2,
                directories: 1,
                bytes: 4096,
            }),
            failed: vec![Failure {
                path: b"/export/scratch/taken".to_vec(),
                error: "something else has its name by now".into(),
            }],
            failed_total: 1,
        }))
    }

    async fn explain(&self, r: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        let verdict = |name: &str, matches, expires_at, because: &str| RuleVerdict {
            name: name.into(),
            matches,
            expires_at,
            because: because.into(),
        };
        Ok(Response::new(Explanation {
            path: r.into_inner().path,
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
            gaps: vec![Gap {
                from: at(-90),
                to: at(-80),
                cause: "overflow".into(),
                counts: true,
            }],
        }))
    }
    type FindStream = Answers<Entry>;
    async fn find(&self, _: Request<FindRequest>) -> Result<Response<Self::FindStream>, Status> {
        let entry = |c: Candidate| Entry {
            path: c.path,
            kind: c.kind,
            bytes: c.bytes,
            owner: c.owner,
            group: "staff".into(),
            last_access: c.last_access,
            source: c.source,
            expires_at: None,
        };
        Ok(stream(candidates().into_iter().map(entry).collect()))
    }
    async fn usage(&self, r: Request<UsageRequest>) -> Result<Response<UsageReport>, Status> {
        if r.into_inner().by() == UsageBy::Project {
            return Err(Status::invalid_argument(
                "by: project ids are not supported by this version",
            ));
        }
        let row = UsageRow {
            volume: "scratch".into(),
            subject: "alice".into(),
            files: 10,
            bytes: 5_000_000,
            allocated_bytes: 5_001_216,
            byte_days: 15_000_000.0,
            oldest: at(0),
            newest: at(10),
            ages: vec![AgeBucket {
                below_seconds: 86_400,
                files: 10,
                bytes: 5_000_000,
            }],
        };
        Ok(Response::new(UsageReport {
            rows: vec![row],
            as_of: at(20),
            subjects: 1,
        }))
    }
    async fn get_touched(&self, _: Request<TouchedRequest>) -> Result<Response<TouchedReport>, Status> {
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
        Ok(Response::new(TouchedReport {
            owners: vec![owner],
            since: at(0),
        }))
    }
    async fn mine(&self, _: Request<MineRequest>) -> Result<Response<MineReport>, Status> {
        let directory = |name: &str, files| MineDirectory {
            volume: "scratch".into(),
            path: format!("/export/scratch/{name}").into_bytes(),
            files,
            bytes: files * 1_000_000,
            first_expires_at: at(0),
        };
        Ok(Response::new(MineReport {
            user: "alice".into(),
            files: 46,
            bytes: 46_000_000,
            directories: vec![directory("alice/run1", 12), directory("alice/run2", 34)],
        }))
    }
    async fn get_forecast(&self, _: Request<ForecastRequest>) -> Result<Response<Forecast>, Status> {
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
            }),
        };
        Ok(Response::new(Forecast {
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
        }))
    }
    async fn add_hold(&self, r: Request<AddHoldRequest>) -> Result<Response<Hold>, Status> {
        Ok(Response::new(Hold {
            path: r.into_inner().path,
            ..hold()
        }))
    }
    async fn list_holds(&self, _: Request<ListHoldsRequest>) -> Result<Response<ListHoldsResponse>, Status> {
        Ok(Response::new(ListHoldsResponse { holds: vec![hold()] }))
    }
    async fn remove_hold(&self, _: Request<RemoveHoldRequest>) -> Result<Response<Hold>, Status> {
        Ok(Response::new(hold()))
    }
    type RescanStream = Answers<ScanProgress>;
    async fn rescan(&self, _: Request<RescanRequest>) -> Result<Response<Self::RescanStream>, Status> {
        let news = |finished| ScanProgress {
            volume: "scratch".into(),
            entries: 1_050_000,
            directories: 50_000,
            unreadable: 1,
            seconds: 1.5,
            finished,
        };
        Ok(stream(vec![news(false), news(true)]))
    }

    async fn get_config(&self, _: Request<GetConfigRequest>) -> Result<Response<ConfigReport>, Status> {
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
                "rule.scratch-28d.ttl",
                "\"28d\"",
                "/etc/purge-agent/rules.d/a.toml:4:7",
                None,
            ),
        ];
        Ok(Response::new(ConfigReport { values }))
    }

    async fn doctor(&self, _: Request<DoctorRequest>) -> Result<Response<DoctorReport>, Status> {
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
        Ok(Response::new(DoctorReport { findings }))
    }
    async fn list_notices(
        &self,
        r: Request<ListNoticesRequest>,
    ) -> Result<Response<ListNoticesResponse>, Status> {
        let r = r.into_inner();
        let mut notices = notices();
        notices.retain(|n| r.state() == NoticeState::Unspecified || n.state() == r.state());
        Ok(Response::new(ListNoticesResponse {
            notices,
            next_page_token: String::new(),
        }))
    }
    async fn test_notice(
        &self,
        r: Request<TestNoticeRequest>,
    ) -> Result<Response<TestNoticeResponse>, Status> {
        let sink = r.into_inner().sink;
        match sink.as_str() {
            "smtp" => Ok(Response::new(TestNoticeResponse {
                sink,
                notice_id: "t1".into(),
            })),
            _ => Err(Status::aborted(
                "sink webhook: http://127.0.0.1:1/: connection refused",
            )),
        }
    }
}

fn notices() -> Vec<Notice> {
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

/// (name of the golden file, exit code, arguments)
const CASES: &[(&str, i32, &[&str])] = &[
    ("plan", 0, &["plan"]),
    ("plan-nothing", 0, &["plan", "--ttl", "1y"]),
    (
        "plan-json",
        2,
        &["plan", "--detailed-exitcode", "--output", "json"],
    ),
    (
        "plan-nothing-csv",
        0,
        &["plan", "--ttl", "28d", "--detailed-exitcode", "--output", "csv"],
    ),
    ("plan-unknown-rule", 1, &["plan", "--rule", "unknown"]),
    ("show", 0, &["show", "p1"]),
    ("show-json", 0, &["show", "p1", "--output", "json"]),
    (
        "show-ndjson",
        0,
        &[
            "--output", "ndjson", "show", "p1", "--sort", "size", "--limit", "4",
        ],
    ),
    ("show-csv", 0, &["show", "p1", "--output", "csv"]),
    ("plans-json", 0, &["plans", "--output", "json"]),
    ("apply", 0, &["apply", "p1", "--yes"]),
    ("apply-json", 0, &["apply", "p1", "--yes", "--output", "json"]),
    ("apply-rule", 0, &["apply", "--rule", "scratch-28d", "--yes"]),
    ("apply-not-asked", 2, &["apply", "p1"]),
    ("apply-stale", 3, &["apply", "stale", "--yes"]),
    ("apply-partial", 5, &["apply", "partial", "--yes"]),
    ("apply-failed", 1, &["apply", "failed", "--yes"]),
    ("apply-unknown", 1, &["apply", "nonsense", "--yes"]),
    ("run", 0, &["run", "r1"]),
    ("runs-csv", 0, &["runs", "--output", "csv"]),
    ("cancel", 0, &["cancel", "r1"]),
    ("status-json", 0, &["status", "--output", "json"]),
    (
        "explain-json",
        0,
        &["explain", "/export/scratch/../scratch/a.dat", "--output", "json"],
    ),
    ("find-ndjson", 0, &["find", "--output", "ndjson"]),
    ("find-null", 0, &["find", "/export/scratch", "-0"]),
    ("usage-json", 0, &["usage", "--age", "--output", "json"]),
    ("usage-project", 1, &["usage", "--by", "project"]),
    ("forecast", 0, &["forecast", "--by", "user"]),
    ("touched-json", 0, &["usage", "--touched", "--output", "json"]),
    ("mine-json", 0, &["mine", "--output", "json"]),
    ("forecast-json", 0, &["forecast", "--output", "json"]),
    (
        "hold-add",
        0,
        &[
            "hold",
            "add",
            "/export/scratch/x",
            "--reason",
            "why",
            "--for",
            "1d",
        ],
    ),
    ("hold-list", 0, &["hold", "list"]),
    (
        "hold-remove-json",
        0,
        &["hold", "remove", "h1", "--output", "json"],
    ),
    ("rescan", 0, &["rescan", "--volume", "scratch"]),
    ("config-show", 0, &["config", "show"]),
    (
        "config-show-json",
        0,
        &["config", "show", "volume.", "--output", "json"],
    ),
    ("doctor", 1, &["doctor"]),
    ("doctor-json", 1, &["doctor", "--output", "json"]),
    ("notices", 0, &["notices"]),
    ("notices-json", 0, &["notices", "--output", "json"]),
    (
        "notices-sent-csv",
        0,
        &["notices", "--state", "sent", "--output", "csv"],
    ),
    ("notices-test", 0, &["notices", "test", "--sink", "smtp"]),
    (
        "notices-test-json",
        0,
        &["notices", "test", "--sink", "smtp", "--output", "json"],
    ),
    (
        "notices-test-refused",
        1,
        &["notices", "test", "--sink", "webhook"],
    ),
    ("usage-error", 2, &["plan", "--ttl", "28"]),
    ("no-such-command", 2, &["purge-everything"]),
    ("https", 2, &["--endpoint", "https://host:7443", "status"]),
    (
        "no-agent",
        4,
        &["--endpoint", "unix:///nonexistent/agent.sock", "status"],
    ),
];

fn purgectl(endpoint: &str, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_purgectl"))
        .args(arguments)
        .env("PURGECTL_ENDPOINT", endpoint)
        .env("COLUMNS", "80")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.out"))
}

#[test]
fn commands_print_what_they_always_printed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = {
        let _inside = runtime.enter();
        tokio::net::UnixListener::bind(&socket).unwrap()
    };
    let server = tonic::transport::Server::builder().add_service(PurgeAgentServer::new(Fake));
    runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let endpoint = format!("unix://{}", socket.display());

    let mut wrong = Vec::new();
    for (name, code, arguments) in CASES {
        let done = purgectl(&endpoint, arguments);
        let mut printed = done.stdout.clone();
        if !done.stderr.is_empty() {
            printed.extend(b"--- stderr\n");
            printed.extend(&done.stderr);
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden(name), &printed).unwrap();
        }
        let expected = std::fs::read(golden(name)).unwrap_or_default();
        if done.status.code() != Some(*code) {
            wrong.push(format!(
                "{name}: exit code {:?}, expected {code}",
                done.status.code()
            ));
        }
        if printed != expected {
            let (expected, printed) = (
                String::from_utf8_lossy(&expected),
                String::from_utf8_lossy(&printed),
            );
            wrong.push(format!("{name}: expected\n{expected}\nprinted\n{printed}"));
        }
        let table = !arguments.contains(&"--output") && !name.contains("null") && done.status.success();
        for line in String::from_utf8_lossy(&done.stdout)
            .lines()
            .filter(|l| table && !l.contains("/export/"))
        {
            if line.chars().count() > 80 {
                wrong.push(format!("{name}: longer than 80 columns: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn json_is_one_document_and_ndjson_one_object_a_line() {
    for name in [
        "plan-json",
        "show-json",
        "plans-json",
        "apply-json",
        "status-json",
        "explain-json",
        "usage-json",
        "notices-json",
        "notices-test-json",
    ] {
        let text = std::fs::read_to_string(golden(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in ["show-ndjson", "find-ndjson"] {
        for line in std::fs::read_to_string(golden(name)).unwrap().lines() {
            assert!(
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap()
                    .is_object(),
                "{name}"
            );
        }
    }
}
