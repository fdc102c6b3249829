//! The calls of `purge.v1.PurgeAgent`.
//!
//! What reads the index or the store runs on threads that are set aside for clients (`crew`); streams are made bit by bit, as the client
//! takes them (`walk`), so a slow one holds some tens of KiB, and no thread and no lock.

use std::sync::Arc;

use purge_proto::v1::{self, purge_agent_server::PurgeAgent};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::archive::{Fetched, Listed};
use super::budget::Share;
use super::deadline::Until;
use super::desk::{Answers, Service};
use super::gate::Caller;
use super::requests::{self, PlanAsked};
use super::trash::InTrash;
use super::{answers, convert, named, narrowed, notices, pages, status, usage};
use crate::doctor;
use crate::host::trash::restore::Wanted;
use crate::host::{Host, HostError, Wish};
use crate::roles::Scope;
use purge_removal::holds::Asker;
use purge_removal::plans::{By, Plan};
use purge_removal::runs::{LiveRun, Run};
use purge_scan::Extent;

/// A plan without its files.
fn plan_of(host: &Host, plan: Plan) -> v1::Plan {
    convert::plan_on(host, plan, pages::OWNERS_MAX)
}

/// A run by itself.
fn run_of(run: Run) -> v1::Run {
    pages::run(convert::run(run))
}

/// What a client hears of a run; a slow one hears the latest only.
fn follow(live: &LiveRun, caller: &Caller) -> Answers<v1::RunProgress> {
    let news = tokio_stream::wrappers::WatchStream::new(live.watch());
    let news = news.map(|p| Ok(convert::progress(p, pages::run)));
    match caller.deadline {
        Some(deadline) => Box::pin(Until::new(news, deadline)),
        None => Box::pin(news),
    }
}

#[tonic::async_trait]
impl PurgeAgent for Service {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::AgentStatus>, Status> {
        let caller = Caller::of(&request)?;
        let service = self.clone();
        let status = self.wait(&caller, move |host| {
            Ok(status::status(host, |v| service.totals_of(v)))
        });
        Ok(Response::new(status.await?))
    }

    type CreatePlanStream = Answers<v1::PlanProgress>;
    async fn create_plan(
        &self,
        request: Request<v1::CreatePlanRequest>,
    ) -> Result<Response<Self::CreatePlanStream>, Status> {
        let caller = Caller::of(&request)?;
        let max = Some(caller.candidates_max);
        let request = request.into_inner();
        let wish = self.parsed(&caller, move || requests::plan(request, max)).await?;
        let name = caller.name.clone();
        let made = self.wait(&caller, move |host| {
            let (by, limits) = (By::client(&name), (max, wish.is_draft));
            let plan = match wish.asked {
                PlanAsked::Quota(name) => host.planner.create_quota_plan(&name, limits, by),
                PlanAsked::Watermark(volume) => host.planner.create_watermark_plan(&volume, limits, by),
                PlanAsked::Rules(wanted) => {
                    let wanted = narrowed::narrowed(host, wanted, wish.path)?;
                    host.planner.create_plan(&wanted, by)
                }
            };
            plan.map(|plan| plan_of(host, plan))
        });
        let plan = made.await?;
        let last = v1::PlanProgress {
            step: Some(v1::plan_progress::Step::Plan(plan)),
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn get_plan(&self, request: Request<v1::GetPlanRequest>) -> Result<Response<v1::Plan>, Status> {
        let caller = Caller::of(&request)?;
        let id = requests::id("plan_id", request.into_inner().plan_id)?;
        let record = self
            .wait(&caller, move |host| {
                Ok(plan_of(host, host.plans.get(&named::plan(host, id)?)?))
            })
            .await?;
        Ok(Response::new(record))
    }

    async fn list_plans(
        &self,
        request: Request<v1::ListPlansRequest>,
    ) -> Result<Response<v1::ListPlansResponse>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let page = self.wait(&caller, move |host| {
            let all = host.plans.list()?.into_iter();
            let all = all
                .map(|plan| convert::plan(plan, pages::OWNERS_IN_LIST_MAX))
                .collect();
            Ok(pages::plans(all, r.page_size, &r.page_token))
        });
        let (plans, next_page_token) = page.await?;
        Ok(Response::new(v1::ListPlansResponse {
            plans,
            next_page_token,
        }))
    }

    type ShowPlanStream = Answers<v1::Candidate>;
    async fn show_plan(
        &self,
        request: Request<v1::ShowPlanRequest>,
    ) -> Result<Response<Self::ShowPlanStream>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let id = requests::id("plan_id", r.plan_id.clone())?;
        let record = self
            .wait(&caller, move |host| {
                Ok(host.plans.get(&named::plan(host, id)?)?)
            })
            .await?;
        let asked = (r.sort(), r.limit);
        let shown = answers::Shown::new(Arc::clone(&self.host), &caller, record, asked)?;
        Ok(self.stream(&caller, shown))
    }

    type ApplyStream = Answers<v1::RunProgress>;
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<Self::ApplyStream>, Status> {
        let caller = Caller::of(&request)?;
        let by = caller.name.clone();
        let r = request.into_inner();
        let id = requests::id("plan_id", r.plan_id.clone())?;
        let (_, live) = self
            .wait(&caller, move |host| {
                let id = named::plan_to_apply(host, id)?;
                host.applier.apply(&id, requests::manner(&r), &by)
            })
            .await?;
        Ok(Response::new(follow(&live, &caller)))
    }

    type WatchRunStream = Answers<v1::RunProgress>;
    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let caller = Caller::of(&request)?;
        let id = requests::id("run_id", request.into_inner().run_id)?;
        let id = match named::is_whole(&id) {
            true => id,
            false => self.wait(&caller, move |host| named::run(host, id)).await?,
        };
        if let Some(live) = self.host.runs.live(&id) {
            return Ok(Response::new(follow(&live, &caller)));
        }
        let run = self.wait(&caller, move |host| Ok(host.runs.get(&id)?)).await?;
        let last = v1::RunProgress {
            run: Some(run_of(run)),
            total: 0,
            done: 0,
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::Run>, Status> {
        let caller = Caller::of(&request)?;
        let id = requests::id("run_id", request.into_inner().run_id)?;
        let run = self
            .wait(&caller, move |host| Ok(host.runs.get(&named::run(host, id)?)?))
            .await?;
        Ok(Response::new(run_of(run)))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let page = self.wait(&caller, move |host| {
            let all = host.runs.list()?.into_iter().map(convert::run).collect();
            Ok(pages::runs(all, r.page_size, &r.page_token))
        });
        let (runs, next_page_token) = page.await?;
        Ok(Response::new(v1::ListRunsResponse {
            runs,
            next_page_token,
        }))
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Result<Response<v1::Run>, Status> {
        let caller = Caller::of(&request)?;
        let id = requests::id("run_id", request.into_inner().run_id)?;
        let run = self.wait(&caller, move |host| {
            let id = named::run(host, id)?;
            let run = host.runs.get(&id)?;
            match host.runs.live(&id) {
                Some(live) => live.cancel(),
                None => return Err(HostError::Refused(format!("run {id} has ended already"))),
            }
            Ok(run)
        });
        Ok(Response::new(run_of(run.await?)))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreReport>, Status> {
        let caller = Caller::of(&request)?;
        let by = caller.name.clone();
        let r = requests::restore(request.into_inner())?;
        caller.open.charge(requests::restore_bytes(&r))?;
        let asker = caller.clone();
        let report = self.wait_as(&caller, move |host, client| {
            // Users learn of no other run than one that they name in full.
            let run_id = match r.run_id.is_empty() || asker.user().is_some() {
                true => r.run_id,
                false => named::run(host, r.run_id)?,
            };
            let report = host.trash.restore(&Wanted {
                run: &run_id,
                paths: &r.paths,
                to: Some(&*r.to).filter(|to| !to.is_empty()),
                is_dry: r.dry_run,
                by: &by,
                client,
                user: asker.user(),
            })?;
            Ok(convert::restored(report, (&run_id, r.dry_run)))
        });
        Ok(Response::new(pages::restored(report.await?)))
    }

    type ListTrashStream = Answers<v1::TrashEntry>;
    async fn list_trash(
        &self,
        request: Request<v1::ListTrashRequest>,
    ) -> Result<Response<Self::ListTrashStream>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        requests::names([("volume", &r.volume)])?;
        let by = caller.clone();
        let shelves = self.wait(&caller, move |host| {
            let found = host.trash.trash_below(&r.path, &r.volume, by.user())?;
            Ok((found, r.limit))
        });
        let (shelves, limit) = shelves.await?;
        Ok(self.stream(&caller, InTrash::new(&caller, shelves, limit)))
    }

    type ListArchiveStream = Answers<v1::ArchiveEntry>;
    async fn list_archive(
        &self,
        request: Request<v1::ListArchiveRequest>,
    ) -> Result<Response<Self::ListArchiveStream>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let limit = r.limit;
        let asked = requests::archived(r)?;
        let opened = self
            .wait(&caller, move |host| host.ground.open_archive(asked))
            .await?;
        Ok(self.stream(&caller, Listed::new(opened, limit, None)))
    }

    type VerifyArchiveStream = Answers<v1::ArchiveEntry>;
    async fn verify_archive(
        &self,
        request: Request<v1::VerifyArchiveRequest>,
    ) -> Result<Response<Self::VerifyArchiveStream>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let which = r.which.unwrap_or_default();
        let limit = which.limit;
        let asked = requests::archived(which)?;
        let opened = self
            .wait(&caller, move |host| host.ground.open_archive(asked))
            .await?;
        Ok(self.stream(&caller, Listed::new(opened, limit, Some(r.one_in))))
    }

    type FetchArchivedStream = Answers<v1::ArchivedBytes>;
    async fn fetch_archived(
        &self,
        request: Request<v1::FetchArchivedRequest>,
    ) -> Result<Response<Self::FetchArchivedStream>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let asked = requests::archived(v1::ListArchiveRequest {
            archive: r.archive,
            path: r.path,
            volume: r.volume,
            run_id: r.run_id,
            limit: 0,
        })?;
        let opened = self
            .wait(&caller, move |host| host.ground.open_archive(asked))
            .await?;
        Ok(self.stream(&caller, Fetched::new(opened)))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        let caller = Caller::of(&request)?;
        let path = request.into_inner().path;
        let by = caller.clone();
        let answer = self.wait(&caller, move |host| {
            Ok(convert::explained(host.questions.explain_path(&path, by.user())?))
        });
        Ok(Response::new(answer.await?))
    }

    type FindStream = Answers<v1::Entry>;
    async fn find(&self, request: Request<v1::FindRequest>) -> Result<Response<Self::FindStream>, Status> {
        let caller = Caller::of(&request)?;
        let only = caller.only();
        let mut r = request.into_inner();
        let path = std::mem::take(&mut r.path);
        let asked = self.parsed(&caller, move || requests::find(&r, only)).await?;
        let by = caller.clone();
        let places = self
            .wait(&caller, move |host| host.questions.places(&path, by.user()))
            .await?;
        let found = answers::Found::new(Arc::clone(&self.host), &caller, asked, places);
        Ok(self.stream(&caller, found))
    }

    async fn get_touched(
        &self,
        request: Request<v1::TouchedRequest>,
    ) -> Result<Response<v1::TouchedReport>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        requests::names([("volume", &r.volume)])?;
        let told = self.wait(&caller, move |host| answers::touched(host, &r.volume));
        Ok(Response::new(told.await?))
    }

    async fn mine(&self, request: Request<v1::MineRequest>) -> Result<Response<v1::MineReport>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let (uid, only) = (caller.uid, caller.only());
        let mut whose = self.parsed(&caller, move || requests::mine(r, uid, only)).await?;
        whose.own = only.map(|_| Arc::clone(&caller.gids));
        let told = self.wait(&caller, move |host| {
            host.questions.mine(&whose, pages::ANSWER_BYTES_MAX)
        });
        Ok(Response::new(convert::mine(told.await?)))
    }

    async fn get_forecast(
        &self,
        request: Request<v1::ForecastRequest>,
    ) -> Result<Response<v1::Forecast>, Status> {
        let caller = Caller::of(&request)?;
        let (wanted, days, by) = requests::forecast(request.into_inner())?;
        let open = Arc::clone(&caller.open);
        let told = self.wait(&caller, move |host| {
            let is_free = caller.share == Share::Root;
            (!is_free)
                .then(|| answers::charge_forecast(host, &open, &wanted, (days, by)))
                .transpose()?;
            host.forecaster.forecast(&wanted, days, by)
        });
        Ok(Response::new(convert::forecast(told.await?)))
    }

    async fn list_quotas(
        &self,
        request: Request<v1::ListQuotasRequest>,
    ) -> Result<Response<v1::QuotaReport>, Status> {
        let caller = Caller::of(&request)?;
        let told = self.wait(&caller, move |h| h.forecaster.standings(&request.get_ref().quota));
        Ok(Response::new(convert::standings(told.await?)))
    }

    async fn get_schedule(
        &self,
        request: Request<v1::GetScheduleRequest>,
    ) -> Result<Response<v1::Schedule>, Status> {
        let caller = Caller::of(&request)?;
        let told = self.wait(&caller, |host| Ok(convert::calendar(host.calendar())));
        Ok(Response::new(told.await?))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageReport>, Status> {
        let caller = Caller::of(&request)?;
        let only = caller.only();
        let r = request.into_inner();
        let by = requests::usage(&r, only)?;
        let open = Arc::clone(&caller.open);
        let report = self.wait(&caller, move |host| {
            let mut report = usage::Report::take(host, &r, by, only, &open)?;
            Ok(answers::first_rows(&mut report, pages::SUMS_BYTES_MAX))
        });
        Ok(Response::new(report.await?))
    }

    type ListUsageStream = Answers<v1::UsageReport>;
    async fn list_usage(
        &self,
        request: Request<v1::UsageRequest>,
    ) -> Result<Response<Self::ListUsageStream>, Status> {
        let caller = Caller::of(&request)?;
        let only = caller.only();
        let r = request.into_inner();
        let by = requests::usage(&r, only)?;
        let open = Arc::clone(&caller.open);
        let report = self
            .wait(&caller, move |host| {
                usage::Report::take(host, &r, by, only, &open)
            })
            .await?;
        Ok(self.stream(&caller, answers::Rows::of(report)))
    }

    async fn add_hold(&self, request: Request<v1::AddHoldRequest>) -> Result<Response<v1::Hold>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        requests::hold(&r)?;
        let by = caller.clone();
        let hold = self.wait(&by, move |host| {
            let wish = Wish {
                path: &r.path,
                reason: &r.reason,
                seconds: r.for_seconds,
            };
            match (caller.scope, caller.user()) {
                (Scope::Own { hold_max, .. }, Some(user)) => host.holder.hold_own(&wish, user, hold_max),
                _ if caller.uid == Some(0) => host.holder.hold(&wish, &caller.name, Asker::Root),
                _ => host.holder.hold(&wish, &caller.name, Asker::Role),
            }
        });
        Ok(Response::new(convert::hold(hold.await?)))
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let by = caller.clone();
        let listed = self.wait(&by, move |host| {
            let by = caller.user().map(|user| user.name);
            let size = usize::try_from(r.page_size).unwrap_or(usize::MAX);
            Ok(host.holds.page(&r.page_token, size, by))
        });
        let (holds, next) = listed.await?;
        Ok(Response::new(v1::ListHoldsResponse {
            holds: holds.into_iter().map(convert::hold).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn remove_hold(
        &self,
        request: Request<v1::RemoveHoldRequest>,
    ) -> Result<Response<v1::Hold>, Status> {
        let caller = Caller::of(&request)?;
        let id = requests::id("hold_id", request.into_inner().hold_id)?;
        let by = caller.clone();
        let removed = self.wait(&by, move |host| {
            let only = caller.user().map(|user| (user.uid, user.name));
            let id = named::hold(host, id, only.map(|(_, by)| by))?;
            Ok(host.holds.remove(&id, only)?)
        });
        Ok(Response::new(convert::hold(removed.await?)))
    }

    async fn resume_trigger(
        &self,
        request: Request<v1::ResumeTriggerRequest>,
    ) -> Result<Response<v1::ResumeTriggerResponse>, Status> {
        let caller = Caller::of(&request)?;
        let volume = request.into_inner().volume;
        let by = caller.name.clone();
        let resumed = self.wait(&caller, move |host| {
            let triggers = host.brakes.resume(&volume, &by)?.into_iter();
            let triggers = triggers.map(convert::trigger).collect();
            let volume = host.volume(&volume)?.config.name.clone();
            Ok(v1::ResumeTriggerResponse { volume, triggers })
        });
        Ok(Response::new(resumed.await?))
    }

    async fn check_patterns(
        &self,
        request: Request<v1::CheckPatternsRequest>,
    ) -> Result<Response<v1::CheckPatternsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = requests::patterns(request.into_inner())?;
        let looked = self.wait(&caller, move |host| answers::idle_patterns(host, asked));
        Ok(Response::new(looked.await?))
    }

    type RescanStream = Answers<v1::ScanProgress>;
    async fn rescan(
        &self,
        request: Request<v1::RescanRequest>,
    ) -> Result<Response<Self::RescanStream>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().volume;
        requests::names([("volume", &name)])?;
        let volumes = self.wait(&caller, move |host| match name.is_empty() {
            true => Ok(host.volumes()),
            false => Ok(vec![host.volume(&name)?]),
        });
        let volumes = volumes.await?;
        volumes.iter().for_each(|v| v.request_scan(Extent::Volume));
        let told = answers::scans(volumes);
        Ok(Response::new(match caller.deadline {
            Some(deadline) => Box::pin(Until::new(told, deadline)),
            None => Box::pin(told),
        }))
    }

    async fn get_config(
        &self,
        _: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::ConfigReport>, Status> {
        Ok(Response::new(convert::config(&self.in_force.shown())))
    }

    async fn doctor(
        &self,
        request: Request<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorReport>, Status> {
        let caller = Caller::of(&request)?;
        let in_force = Arc::clone(&self.in_force);
        let findings = self
            .wait(&caller, move |host| Ok(doctor::examine(host, &in_force)))
            .await?;
        Ok(Response::new(convert::findings(findings)))
    }

    async fn list_notices(
        &self,
        request: Request<v1::ListNoticesRequest>,
    ) -> Result<Response<v1::ListNoticesResponse>, Status> {
        Ok(Response::new(notices::list(&self.host, &request.into_inner())))
    }

    async fn preview_notices(
        &self,
        request: Request<v1::PreviewNoticesRequest>,
    ) -> Result<Response<v1::PreviewNoticesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = notices::wanted(request.into_inner())?;
        let found = self.wait(&caller, move |host| notices::preview(host, &asked));
        Ok(Response::new(found.await?))
    }

    async fn release_notices(
        &self,
        _: Request<v1::ReleaseNoticesRequest>,
    ) -> Result<Response<v1::ReleaseNoticesResponse>, Status> {
        notices::release(&self.host).map(Response::new)
    }

    async fn reset_volume(
        &self,
        request: Request<v1::ResetVolumeRequest>,
    ) -> Result<Response<v1::ResetVolumeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (r, name) = (request.into_inner(), caller.name.clone());
        requests::names([("volume", &r.volume)])?;
        let done = self.wait(&caller, move |host| status::reset(host, &r, &name));
        Ok(Response::new(done.await?))
    }

    async fn test_notice(
        &self,
        request: Request<v1::TestNoticeRequest>,
    ) -> Result<Response<v1::TestNoticeResponse>, Status> {
        let sink = request.into_inner().sink;
        requests::names([("sink", &sink)])?;
        let tested = self.host.notifier.test(&sink).await;
        let notice_id = tested.map_err(|e| notices::status(&e))?;
        Ok(Response::new(v1::TestNoticeResponse { sink, notice_id }))
    }
}
