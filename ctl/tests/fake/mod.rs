//! An agent that answers the same for ever.

pub mod values;

use std::pin::Pin;

use purge_proto::v1::purge_agent_server::PurgeAgent;
use purge_proto::v1::*;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use self::values::{at, candidates, hold, notices, plan, run};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stream<T: Send + 'static>(items: Vec<T>) -> Response<Answers<T>> {
    Response::new(Box::pin(tokio_stream::iter(items.into_iter().map(Ok))))
}

/// An agent whose answers never change.
pub struct Fake;

#[tonic::async_trait]
impl PurgeAgent for Fake {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<AgentStatus>, Status> {
        Ok(Response::new(values::status()))
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
        let is_refused = r.rules.iter().any(|rule| rule == "refused");
        let mut plan = plan(if is_refused { "refused" } else { "p1" });
        if r.rules.iter().any(|rule| rule == "tells") {
            plan.refusal = "rule tells has action \"notify\": it tells, and deletes nothing".into();
        }
        if r.no_save {
            plan.plan_id.clear();
        }
        if r.ttl_seconds.is_some() {
            plan.candidates = Some(Totals::default());
            plan.rules.truncate(1);
            plan.rules[0].totals = Some(Totals::default());
            plan.by_owner.clear();
            plan.forgiven = None;
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
        let (plans, next) = if r.into_inner().page_token.is_empty() {
            (vec![plan("refused")], "next")
        } else {
            let mut rest = vec![plan("p1")];
            rest.extend(values::further_plans());
            (rest, "")
        };
        Ok(Response::new(ListPlansResponse {
            plans,
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
    async fn get_run(&self, r: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        Ok(Response::new(match r.into_inner().run_id.as_str() {
            "r2" => values::trashed_run(),
            _ => run(RunState::Partial, true),
        }))
    }
    async fn list_runs(&self, _: Request<ListRunsRequest>) -> Result<Response<ListRunsResponse>, Status> {
        let runs = vec![run(RunState::Completed, false), values::trashed_run()];
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
        if r.dry_run {
            return Ok(Response::new(values::dry_restore()));
        }
        Ok(Response::new(RestoreReport {
            run_id: r.run_id,
            restored: Some(Totals {
                files: 2,
                directories: 1,
                bytes: 4096,
                files_inside: 708,
                ..Totals::default()
            }),
            failed: vec![Failure {
                path: b"/export/scratch/taken".to_vec(),
                error: "something else has its name by now".into(),
            }],
            failed_total: 1,
            ..RestoreReport::default()
        }))
    }

    type ListTrashStream = Answers<TrashEntry>;
    async fn list_trash(
        &self,
        _: Request<ListTrashRequest>,
    ) -> Result<Response<Self::ListTrashStream>, Status> {
        Ok(stream(values::trash()))
    }

    type ListArchiveStream = Answers<ArchiveEntry>;
    async fn list_archive(
        &self,
        _: Request<ListArchiveRequest>,
    ) -> Result<Response<Self::ListArchiveStream>, Status> {
        Ok(stream(values::archived(CopyState::Unspecified)))
    }

    type VerifyArchiveStream = Answers<ArchiveEntry>;
    async fn verify_archive(
        &self,
        _: Request<VerifyArchiveRequest>,
    ) -> Result<Response<Self::VerifyArchiveStream>, Status> {
        let mut all = values::archived(CopyState::Good);
        if let Some(last) = all.last_mut() {
            last.set_state(CopyState::Differs);
            last.trouble = "its bytes are not those that were copied".into();
        }
        Ok(stream(all))
    }

    type FetchArchivedStream = Answers<ArchivedBytes>;
    async fn fetch_archived(
        &self,
        _: Request<FetchArchivedRequest>,
    ) -> Result<Response<Self::FetchArchivedStream>, Status> {
        let entry = values::archived(CopyState::Unspecified).into_iter().next();
        let bytes = vec![b"some ".to_vec(), b"bytes".to_vec()];
        let first = ArchivedBytes {
            entry,
            bytes: Vec::new(),
        };
        let rest = bytes
            .into_iter()
            .map(|bytes| ArchivedBytes { entry: None, bytes });
        Ok(stream(std::iter::once(first).chain(rest).collect()))
    }

    async fn explain(&self, r: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        let path = r.into_inner().path;
        Ok(Response::new(match path.starts_with(b"/export/scratch/gone") {
            true => values::explanation_of_taken(path),
            false => values::explanation(path),
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
            hidden: false,
        };
        Ok(stream(candidates().into_iter().map(entry).collect()))
    }
    type ListUsageStream = Answers<UsageReport>;
    async fn list_usage(&self, r: Request<UsageRequest>) -> Result<Response<Self::ListUsageStream>, Status> {
        Ok(stream(vec![self.usage(r).await?.into_inner()]))
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
        let bucket = |bytes| AgeBucket {
            below_seconds: 86_400,
            files: 10,
            bytes,
        };
        let other = UsageRow {
            subject: "bob".into(),
            files: 2_000,
            bytes: 15_000_000_000,
            ages: [0, 1_000, 100_000_000, 0, 7_000_000_000, 7_800_000_000, 99_999_000]
                .map(bucket)
                .into(),
            ..row.clone()
        };
        Ok(Response::new(UsageReport {
            rows: vec![other, row],
            as_of: at(20),
            subjects: 2,
        }))
    }
    async fn get_touched(&self, _: Request<TouchedRequest>) -> Result<Response<TouchedReport>, Status> {
        Ok(Response::new(values::touched()))
    }
    async fn mine(&self, _: Request<MineRequest>) -> Result<Response<MineReport>, Status> {
        Ok(Response::new(values::mine()))
    }
    async fn get_forecast(&self, asked: Request<ForecastRequest>) -> Result<Response<Forecast>, Status> {
        Ok(Response::new(match asked.into_inner().volume.as_str() {
            "young" => values::young_forecast(),
            _ => values::forecast(),
        }))
    }
    async fn list_quotas(&self, _: Request<ListQuotasRequest>) -> Result<Response<QuotaReport>, Status> {
        Ok(Response::new(values::quotas()))
    }
    async fn get_schedule(&self, _: Request<GetScheduleRequest>) -> Result<Response<Schedule>, Status> {
        Ok(Response::new(values::schedule()))
    }
    async fn add_hold(&self, r: Request<AddHoldRequest>) -> Result<Response<Hold>, Status> {
        Ok(Response::new(Hold {
            path: r.into_inner().path,
            ..hold()
        }))
    }
    async fn list_holds(&self, _: Request<ListHoldsRequest>) -> Result<Response<ListHoldsResponse>, Status> {
        Ok(Response::new(ListHoldsResponse {
            holds: vec![hold()],
            next_page_token: String::new(),
        }))
    }
    async fn check_patterns(
        &self,
        _: Request<CheckPatternsRequest>,
    ) -> Result<Response<CheckPatternsResponse>, Status> {
        Err(Status::unimplemented("purgectl does not ask for it"))
    }

    async fn resume_trigger(
        &self,
        _: Request<ResumeTriggerRequest>,
    ) -> Result<Response<ResumeTriggerResponse>, Status> {
        Ok(Response::new(ResumeTriggerResponse {
            volume: "scratch".into(),
            triggers: vec![TriggerStatus {
                name: "watermark scratch".into(),
                state: TriggerState::Ready.into(),
                ..TriggerStatus::default()
            }],
        }))
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
        Ok(Response::new(values::config()))
    }

    async fn doctor(&self, _: Request<DoctorRequest>) -> Result<Response<DoctorReport>, Status> {
        Ok(Response::new(values::doctor()))
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
    async fn reset_volume(
        &self,
        request: Request<ResetVolumeRequest>,
    ) -> Result<Response<ResetVolumeResponse>, Status> {
        let r = request.into_inner();
        Ok(Response::new(ResetVolumeResponse {
            volume: r.volume,
            path: b"/export/scratch".to_vec(),
            holds: 3,
            set_aside: "/var/lib/purge-agent/volumes/scratch.before-1790000000".into(),
            done: r.confirmed,
        }))
    }

    async fn preview_notices(
        &self,
        request: Request<PreviewNoticesRequest>,
    ) -> Result<Response<PreviewNoticesResponse>, Status> {
        let r = request.into_inner();
        Ok(Response::new(values::preview(&r.user)))
    }

    async fn release_notices(
        &self,
        _: Request<ReleaseNoticesRequest>,
    ) -> Result<Response<ReleaseNoticesResponse>, Status> {
        Err(Status::failed_precondition("no first notices wait"))
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
