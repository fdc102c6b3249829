//! The calls of `purge.v1.PurgeAgent`.
//!
//! What reads the index or the store runs on blocking threads; streams go through bounded channels, so a slow
//! client holds one message back, never memory or a lock.

use std::pin::Pin;
use std::sync::Arc;

use purge_proto::v1::{self, purge_agent_server::PurgeAgent};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::gate::Caller;
use super::outlet::{Outlet, Until};
use super::requests::{self, PlanAsked};
use super::roles::Scope;
use super::{answers, convert, notices, usage};
use crate::doctor;
use crate::host::{Host, HostError, Wish};
use crate::purge::holds::Asker;
use crate::purge::plans::{By, PlanRecord};
use crate::purge::runs::LiveRun;
use crate::reload::InForce;
use crate::scan::Extent;

/// Messages that wait for a slow client.
const WAITING_MAX: usize = 256;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    host: Arc<Host>,
    in_force: Arc<InForce>,
}

impl Service {
    /// Serves this host, with this configuration.
    pub fn new(host: Arc<Host>, in_force: Arc<InForce>) -> Self {
        Self { host, in_force }
    }

    /// Runs something that waits for the index, the store or the disk.
    async fn wait<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Host>) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, Status> {
        let host = Arc::clone(&self.host);
        // A panic is contained to the request that met it.
        let done = tokio::task::spawn_blocking(move || work(&host)).await;
        done.map_err(|e| Status::internal(format!("the request failed inside the agent: {e}")))?
            .map_err(convert::status)
    }

    /// Streams what `work` sends; `work` ends when the client has gone, is too slow, or waits no longer.
    fn stream<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&Host, &mut dyn FnMut(T) -> bool) -> Result<(), Status> + Send + 'static,
    ) -> Response<Answers<T>> {
        let (send, receive) = mpsc::channel(WAITING_MAX);
        let host = Arc::clone(&self.host);
        let outlet = Outlet::new(send, caller.deadline);
        tokio::task::spawn_blocking(move || {
            if let Err(status) = work(&host, &mut |item| outlet.give(item)) {
                outlet.end(status);
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receive)))
    }
}

/// Parses a request where names may have to be looked up, which can take a while.
async fn parsed<T: Send + 'static>(
    parse: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let parsed = tokio::task::spawn_blocking(parse).await;
    parsed.map_err(|e| Status::internal(format!("the request failed inside the agent: {e}")))?
}

fn plan_of(record: PlanRecord) -> v1::Plan {
    record.plan.unwrap_or_default()
}

/// What a client hears of a run; a slow one hears the latest only.
fn follow(live: &LiveRun, caller: &Caller) -> Answers<v1::RunProgress> {
    let news = tokio_stream::wrappers::WatchStream::new(live.watch());
    let news = news.map(|p| {
        Ok(v1::RunProgress {
            run: Some(p.run),
            total: p.total,
            done: p.done,
        })
    });
    match caller.deadline {
        Some(deadline) => Box::pin(Until::new(news, deadline)),
        None => Box::pin(news),
    }
}

#[tonic::async_trait]
impl PurgeAgent for Service {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::AgentStatus>, Status> {
        let status = self.wait(|host| {
            let mut last_runs = host.runs.list()?;
            last_runs.truncate(10);
            Ok(v1::AgentStatus {
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_seconds: host.uptime().as_secs(),
                volumes: host.volumes().iter().map(|v| convert::volume(host, v)).collect(),
                last_runs,
                resident_bytes: crate::sys::memory::resident_bytes(),
            })
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
        let asked = requests::plan(request.into_inner(), max)?;
        let made = self.wait(move |host| {
            let by = By::client(&caller.name);
            match asked {
                PlanAsked::Quota(name) => host.create_quota_plan(&name, max, by),
                PlanAsked::Watermark(volume) => host.create_watermark_plan(&volume, max, by),
                PlanAsked::Rules(wanted) => host.create_plan(&wanted, by),
            }
        });
        let plan = plan_of(made.await?);
        let last = v1::PlanProgress {
            step: Some(v1::plan_progress::Step::Plan(plan)),
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn get_plan(&self, request: Request<v1::GetPlanRequest>) -> Result<Response<v1::Plan>, Status> {
        let id = requests::id("plan_id", request.into_inner().plan_id)?;
        let record = self.wait(move |host| Ok(host.plans.get(&id)?)).await?;
        Ok(Response::new(plan_of(record)))
    }

    async fn list_plans(
        &self,
        request: Request<v1::ListPlansRequest>,
    ) -> Result<Response<v1::ListPlansResponse>, Status> {
        let r = request.into_inner();
        let all = self.wait(|host| Ok(host.plans.list()?)).await?;
        let all: Vec<v1::Plan> = all.into_iter().map(plan_of).collect();
        let (plans, next_page_token) = requests::page(all, r.page_size, &r.page_token, |p| &p.plan_id);
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
        let record = self.wait(move |host| Ok(host.plans.get(&id)?)).await?;
        Ok(self.stream(&caller, move |host, each| {
            answers::show(host, &record, r.sort(), r.limit, each)
        }))
    }

    type ApplyStream = Answers<v1::RunProgress>;
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<Self::ApplyStream>, Status> {
        let caller = Caller::of(&request)?;
        let by = caller.name.clone();
        let r = request.into_inner();
        let id = requests::id("plan_id", r.plan_id.clone())?;
        let (_, live) = self
            .wait(move |host| host.apply(&id, requests::manner(&r), &by))
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
        if let Some(live) = self.host.runs.live(&id) {
            return Ok(Response::new(follow(&live, &caller)));
        }
        let run = self.wait(move |host| Ok(host.runs.get(&id)?)).await?;
        let last = v1::RunProgress {
            run: Some(run),
            total: 0,
            done: 0,
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::Run>, Status> {
        let id = requests::id("run_id", request.into_inner().run_id)?;
        Ok(Response::new(
            self.wait(move |host| Ok(host.runs.get(&id)?)).await?,
        ))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let r = request.into_inner();
        let all = self.wait(|host| Ok(host.runs.list()?)).await?;
        let (runs, next_page_token) = requests::page(all, r.page_size, &r.page_token, |r| &r.run_id);
        Ok(Response::new(v1::ListRunsResponse {
            runs,
            next_page_token,
        }))
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Result<Response<v1::Run>, Status> {
        let id = requests::id("run_id", request.into_inner().run_id)?;
        let run = self.wait(move |host| {
            let run = host.runs.get(&id)?;
            match host.runs.live(&id) {
                Some(live) => live.cancel(),
                None => return Err(HostError::Refused(format!("run {id} has ended already"))),
            }
            Ok(run)
        });
        Ok(Response::new(run.await?))
    }

    async fn restore(
        &self,
        request: Request<v1::RestoreRequest>,
    ) -> Result<Response<v1::RestoreReport>, Status> {
        let by = Caller::of(&request)?.name;
        let r = requests::restore(request.into_inner())?;
        let report = self.wait(move |host| {
            host.restore(&r.run_id, &r.paths, Some(&*r.to).filter(|to| !to.is_empty()), &by)
        });
        Ok(Response::new(report.await?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        let caller = Caller::of(&request)?;
        let path = request.into_inner().path;
        let answer = self.wait(move |host| {
            Ok(convert::explanation(match caller.user() {
                None => host.explain(&path)?,
                Some(user) => host.explain_own(&path, user)?,
            }))
        });
        Ok(Response::new(answer.await?))
    }

    type FindStream = Answers<v1::Entry>;
    async fn find(&self, request: Request<v1::FindRequest>) -> Result<Response<Self::FindStream>, Status> {
        let caller = Caller::of(&request)?;
        let only = caller.only();
        let mut r = request.into_inner();
        let path = std::mem::take(&mut r.path);
        let asked = parsed(move || requests::find(&r, only)).await?;
        let places = self.wait(move |host| host.places(&path, only)).await?;
        Ok(self.stream(&caller, move |host, each| {
            answers::find(host, &asked, places, each)
        }))
    }

    async fn get_touched(
        &self,
        request: Request<v1::TouchedRequest>,
    ) -> Result<Response<v1::TouchedReport>, Status> {
        let r = request.into_inner();
        requests::names([("volume", &r.volume)])?;
        let told = self.wait(move |host| answers::touched(host, &r.volume));
        Ok(Response::new(told.await?))
    }

    async fn mine(&self, request: Request<v1::MineRequest>) -> Result<Response<v1::MineReport>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let (uid, only) = (caller.uid, caller.only());
        let whose = parsed(move || requests::mine(r, uid, only)).await?;
        Ok(Response::new(self.wait(move |host| host.mine(&whose)).await?))
    }

    async fn get_forecast(
        &self,
        request: Request<v1::ForecastRequest>,
    ) -> Result<Response<v1::Forecast>, Status> {
        let (wanted, days, by) = requests::forecast(request.into_inner())?;
        let told = self.wait(move |host| host.forecast(&wanted, days, by));
        Ok(Response::new(told.await?))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageReport>, Status> {
        let only = Caller::of(&request)?.only();
        let r = request.into_inner();
        let by = requests::usage(&r, only)?;
        let report = self.wait(move |host| {
            let mut report = usage::Report::take(host, &r, by, only)?;
            Ok(report.part(0..report.len()))
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
        let report = self
            .wait(move |host| usage::Report::take(host, &r, by, only))
            .await?;
        Ok(self.stream(&caller, move |_, each| report.send(each)))
    }

    async fn add_hold(&self, request: Request<v1::AddHoldRequest>) -> Result<Response<v1::Hold>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        requests::hold(&r)?;
        let hold = self.wait(move |host| {
            let wish = Wish {
                path: &r.path,
                reason: &r.reason,
                seconds: r.for_seconds,
            };
            match (caller.scope, caller.user()) {
                (Scope::Own { hold_max, .. }, Some(user)) => host.hold_own(&wish, user, hold_max),
                _ if caller.uid == Some(0) => host.hold(&wish, &caller.name, Asker::Root),
                _ => host.hold(&wish, &caller.name, Asker::Role),
            }
        });
        Ok(Response::new(hold.await?))
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let listed = self.wait(move |host| {
            let by = caller.user().map(|user| user.name);
            let size = usize::try_from(r.page_size).unwrap_or(usize::MAX);
            Ok(host.holds.page(&r.page_token, size, by))
        });
        let (holds, next) = listed.await?;
        Ok(Response::new(v1::ListHoldsResponse {
            holds,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn remove_hold(
        &self,
        request: Request<v1::RemoveHoldRequest>,
    ) -> Result<Response<v1::Hold>, Status> {
        let caller = Caller::of(&request)?;
        let id = requests::id("hold_id", request.into_inner().hold_id)?;
        let removed = self.wait(move |host| {
            let only = caller.user().map(|user| (user.uid, user.name));
            Ok(host.holds.remove(&id, only)?)
        });
        Ok(Response::new(removed.await?))
    }

    type RescanStream = Answers<v1::ScanProgress>;
    async fn rescan(
        &self,
        request: Request<v1::RescanRequest>,
    ) -> Result<Response<Self::RescanStream>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().volume;
        requests::names([("volume", &name)])?;
        let volumes = self.wait(move |host| match name.is_empty() {
            true => Ok(host.volumes().to_vec()),
            false => Ok(vec![Arc::clone(host.volume(&name)?)]),
        });
        let volumes = volumes.await?;
        volumes.iter().for_each(|v| v.request_scan(Extent::Volume));
        Ok(self.stream(&caller, move |_, each| answers::scans(&volumes, each)))
    }

    async fn get_config(
        &self,
        _: Request<v1::GetConfigRequest>,
    ) -> Result<Response<v1::ConfigReport>, Status> {
        Ok(Response::new(convert::config(&self.in_force.shown())))
    }

    async fn doctor(&self, _: Request<v1::DoctorRequest>) -> Result<Response<v1::DoctorReport>, Status> {
        let in_force = Arc::clone(&self.in_force);
        let findings = self
            .wait(move |host| Ok(doctor::examine(host, &in_force)))
            .await?;
        Ok(Response::new(convert::findings(findings)))
    }

    async fn list_notices(
        &self,
        request: Request<v1::ListNoticesRequest>,
    ) -> Result<Response<v1::ListNoticesResponse>, Status> {
        let r = request.into_inner();
        let state = r.state();
        let all = self.host.notifier.outbox.list(|n| {
            (r.sink.is_empty() || n.sink == r.sink)
                && (state == v1::NoticeState::Unspecified || notices::state(n.fate) == state)
        });
        let (rows, next_page_token) = requests::page(all, r.page_size, &r.page_token, |n| &n.notice_id);
        Ok(Response::new(v1::ListNoticesResponse {
            notices: rows.iter().map(notices::notice).collect(),
            next_page_token,
        }))
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
