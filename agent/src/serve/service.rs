//! The calls of `purge.v1.PurgeAgent`.
//!
//! What reads the index or the store runs on blocking threads; streams go through bounded channels, so a slow
//! client holds one message back, never memory or a lock.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use purge_proto::v1::{self, purge_agent_server::PurgeAgent};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::gate::Caller;
use super::outlet::{Outlet, Until};
use super::roles::Scope;
use super::{convert, notices, usage};
use crate::config::{group_id, user_id};
use crate::doctor;
use crate::host::forecast::DAYS_MAX;
use crate::host::mine::Whose;
use crate::host::{Host, HostError, Manner, Wanted, Wish, lossy};
use crate::index::DirId;
use crate::model::{Kind, Seconds};
use crate::policy::forecast;
use crate::policy::scope::Globs;
use crate::purge::candidate::Candidate;
use crate::purge::holds::timestamp;
use crate::purge::plans::PlanRecord;
use crate::purge::runs::LiveRun;
use crate::query::find::{self, Filter, FindError, Order};
use crate::query::usage::By;
use crate::reload::InForce;
use crate::scan::Extent;

/// Messages that wait for a slow client.
const WAITING_MAX: usize = 256;
/// Rows of a page of a list, unless the client asks for fewer.
const PAGE_ROWS_MAX: usize = 100;
/// Candidates sorted at once; more are sorted in several passes over the plan.
const SORTED_AT_ONCE: usize = 200_000;
/// Days of a forecast, unless the client asks for another number.
const FORECAST_DAYS: u32 = 30;
/// How far ahead `mine` looks, in seconds, and how deep it tells directories apart, unless the client says otherwise.
const MINE_WITHIN: u64 = 30 * 86_400;
const MINE_DEPTH: u32 = 2;
/// How often a client hears of a scan.
const SCAN_NEWS_EVERY: Duration = Duration::from_millis(200);

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

/// A page of `all` (newest first) after the one that `token` names, and the next token.
fn page<T>(all: Vec<T>, size: u32, token: &str, id: impl Fn(&T) -> &str) -> (Vec<T>, String) {
    let size = match size {
        0 => PAGE_ROWS_MAX,
        n => (n as usize).min(PAGE_ROWS_MAX),
    };
    let rest = all
        .into_iter()
        .skip_while(|item| !token.is_empty() && id(item) >= token);
    let mut rows: Vec<T> = rest.take(size + 1).collect();
    let more = rows.len() > size;
    rows.truncate(size);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|last| id(last).to_owned())
        .unwrap_or_default();
    (rows, next)
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
        let max = Some(Caller::of(&request)?.candidates_max);
        let r = request.into_inner();
        let wanted = Wanted {
            rules: r.rules,
            volume: r.volume,
            ttl: r.ttl_seconds,
            unattended: false,
            candidates_max: max,
        };
        let triggers = (!r.quota.is_empty(), r.watermark);
        if triggers.0 && triggers.1
            || (triggers.0 || triggers.1) && (!wanted.rules.is_empty() || wanted.ttl.is_some())
        {
            return Err(Status::invalid_argument(
                "quota, watermark, rules: a plan is made for a quota, for a watermark, or for rules",
            ));
        }
        let quota = r.quota;
        let made = self.wait(move |host| match triggers {
            (true, _) => host.create_quota_plan(&quota, max),
            (_, true) => host.create_watermark_plan(&wanted.volume, max),
            _ => host.create_plan(&wanted),
        });
        let plan = plan_of(made.await?);
        let last = v1::PlanProgress {
            step: Some(v1::plan_progress::Step::Plan(plan)),
        };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn get_plan(&self, request: Request<v1::GetPlanRequest>) -> Result<Response<v1::Plan>, Status> {
        let id = request.into_inner().plan_id;
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
        let (plans, next_page_token) = page(all, r.page_size, &r.page_token, |p| &p.plan_id);
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
        let id = r.plan_id.clone();
        let record = self.wait(move |host| Ok(host.plans.get(&id)?)).await?;
        Ok(self.stream(&caller, move |host, each| {
            show(host, &record, r.sort(), r.limit, each)
        }))
    }

    type ApplyStream = Answers<v1::RunProgress>;
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<Self::ApplyStream>, Status> {
        let caller = Caller::of(&request)?;
        let by = caller.name.clone();
        let r = request.into_inner();
        let (_, live) = self
            .wait(move |host| {
                let how = Manner {
                    max_rate: r.max_rate,
                    no_grace: r.no_grace,
                };
                host.apply(&r.plan_id, how, &by)
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
        let id = request.into_inner().run_id;
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
        let id = request.into_inner().run_id;
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
        let (runs, next_page_token) = page(all, r.page_size, &r.page_token, |r| &r.run_id);
        Ok(Response::new(v1::ListRunsResponse {
            runs,
            next_page_token,
        }))
    }

    async fn cancel_run(&self, request: Request<v1::CancelRunRequest>) -> Result<Response<v1::Run>, Status> {
        let id = request.into_inner().run_id;
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
        let r = request.into_inner();
        let report = self.wait(move |host| host.restore(&r.run_id, &r.paths, &by));
        Ok(Response::new(report.await?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        let only = Caller::of(&request)?.only();
        let path = request.into_inner().path;
        let answer = self.wait(move |host| {
            let (volume, subject, verdicts) = match only {
                None => host.explain(&path)?,
                Some(uid) => host.explain_own(&path, uid)?,
            };
            let holds = host.holds_over(&path);
            Ok(convert::explanation(&volume, path, &subject, verdicts, holds))
        });
        Ok(Response::new(answer.await?))
    }

    type FindStream = Answers<v1::Entry>;
    async fn find(&self, request: Request<v1::FindRequest>) -> Result<Response<Self::FindStream>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let mut filter = filter_of(&r)?;
        let only = caller.only();
        if let Some(uid) = only {
            if filter.uid.is_some_and(|asked| asked != uid) {
                return Err(theirs("user"));
            }
            filter.uid = Some(uid);
        }
        let order = match r.sort() {
            v1::Sort::Unspecified => Order::None,
            v1::Sort::Age => Order::Age,
            v1::Sort::Size => Order::Size,
            v1::Sort::Path => Order::Path,
        };
        let (path, limit, expiring) = (r.path, r.limit, r.expiring_seconds);
        let places = self.wait(move |host| match (places(host, &path), only) {
            // Whether a directory of others exists is not theirs to know.
            (Err(HostError::NotFound(_)), Some(_)) => Ok(Vec::new()),
            (found, _) => found,
        });
        let places = places.await?;
        Ok(self.stream(&caller, move |host, each| {
            let mut left = if limit == 0 { u64::MAX } else { limit };
            for (name, below) in places {
                let volume = Arc::clone(host.volume(&name).map_err(convert::status)?);
                let filter = Filter {
                    below: Some(below),
                    expiring: match expiring {
                        Some(within) => Some(host.expiring(&volume, within).map_err(convert::status)?),
                        None => None,
                    },
                    ..filter.clone()
                };
                let at = (Seconds::judged(), volume.condition().gap_end);
                let (mut gone, mut given) = (false, 0);
                let mut give = |hit: find::Hit| {
                    given += 1;
                    gone = !each(convert::entry(&volume.config.path, &hit));
                    !gone
                };
                let asked = if left == u64::MAX { 0 } else { left };
                find::find(&volume.watched.index, &filter, order, asked, at, &mut give)
                    .map_err(convert::find_status)?;
                left = left.saturating_sub(given);
                if gone {
                    return Err(convert::find_status(FindError::Gone));
                }
                if left == 0 {
                    break;
                }
            }
            Ok(())
        }))
    }

    async fn get_touched(
        &self,
        request: Request<v1::TouchedRequest>,
    ) -> Result<Response<v1::TouchedReport>, Status> {
        let r = request.into_inner();
        let told = self.wait(move |host| {
            if !r.volume.is_empty() {
                host.volume(&r.volume)?;
            }
            let volumes = host.volumes().iter();
            let mut owners = Vec::new();
            for volume in volumes.filter(|v| r.volume.is_empty() || v.config.name == r.volume) {
                volume.sync();
                let touched = volume.watched.touched.lock().clone();
                let rows = touched.iter();
                owners.extend(rows.map(|(uid, t)| convert::touched(&volume.config.name, *uid, t)));
            }
            let files = |o: &v1::TouchedOwner| o.stamped.saturating_add(o.read);
            owners.sort_by(|a, b| files(b).cmp(&files(a)).then_with(|| a.owner.cmp(&b.owner)));
            let since = Seconds::now().minus(host.uptime().as_secs());
            Ok(v1::TouchedReport {
                owners,
                since: Some(timestamp(since)),
            })
        });
        Ok(Response::new(told.await?))
    }

    async fn mine(&self, request: Request<v1::MineRequest>) -> Result<Response<v1::MineReport>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        let unknown = || Status::invalid_argument(format!("user: {:?} is unknown here", r.user));
        let uid = match r.user.as_str() {
            "" => Some(caller.uid.ok_or_else(|| {
                Status::invalid_argument("user: a certificate owns no files; say whose you mean")
            })?),
            name => Some(user_id(name).ok_or_else(unknown)?),
        };
        let is_theirs = |uid: &u32| caller.only().is_none_or(|own| own == *uid);
        let Some(uid) = uid.filter(is_theirs) else {
            return Err(theirs("user"));
        };
        let whose = Whose {
            uid,
            volume: r.volume,
            within: if r.expiring_seconds == 0 {
                MINE_WITHIN
            } else {
                r.expiring_seconds
            },
            depth: if r.depth == 0 { MINE_DEPTH } else { r.depth },
        };
        Ok(Response::new(self.wait(move |host| host.mine(&whose)).await?))
    }

    async fn get_forecast(
        &self,
        request: Request<v1::ForecastRequest>,
    ) -> Result<Response<v1::Forecast>, Status> {
        let r = request.into_inner();
        let by = match r.by() {
            v1::UsageBy::Unspecified => forecast::By::Nothing,
            v1::UsageBy::User => forecast::By::User,
            v1::UsageBy::Directory => forecast::By::Directory(r.depth.max(1)),
            v1::UsageBy::Group | v1::UsageBy::Project => {
                return Err(Status::invalid_argument(
                    "by: a forecast is told by user or directory",
                ));
            }
        };
        let days = match r.days {
            0 => FORECAST_DAYS,
            n if n > DAYS_MAX => {
                let why = format!("days: {n} is more than {DAYS_MAX}");
                return Err(Status::invalid_argument(why));
            }
            n => n,
        };
        let wanted = Wanted {
            rules: r.rules,
            volume: r.volume,
            ttl: r.ttl_seconds,
            unattended: false,
            candidates_max: None,
        };
        let told = self.wait(move |host| host.forecast(&wanted, days, by));
        Ok(Response::new(told.await?))
    }

    async fn usage(&self, request: Request<v1::UsageRequest>) -> Result<Response<v1::UsageReport>, Status> {
        let only = Caller::of(&request)?.only();
        let r = request.into_inner();
        let by = usage::by(&r);
        if only.is_some() && by != By::User {
            return Err(theirs("by"));
        }
        let report = self.wait(move |host| usage::report(host, &r, by, only));
        Ok(Response::new(report.await?))
    }

    async fn add_hold(&self, request: Request<v1::AddHoldRequest>) -> Result<Response<v1::Hold>, Status> {
        let caller = Caller::of(&request)?;
        let r = request.into_inner();
        if r.reason.trim().is_empty() {
            return Err(Status::invalid_argument(
                "reason: say why, so that others know when it may go",
            ));
        }
        if r.for_seconds == Some(0) {
            return Err(Status::invalid_argument(
                "for_seconds: is 0; leave it out for a hold without an end",
            ));
        }
        let hold = self.wait(move |host| match caller.scope {
            Scope::All => {
                let name = host.locate(&r.path)?.0.config.name.clone();
                Ok(host
                    .holds
                    .add(&name, &r.path, &r.reason, r.for_seconds, &caller.name)?)
            }
            Scope::Own { uid, hold_max } => {
                let wanted = Wish {
                    path: &r.path,
                    reason: &r.reason,
                    seconds: r.for_seconds,
                };
                host.hold_own(&wanted, (uid, hold_max), &caller.name)
            }
        });
        Ok(Response::new(hold.await?))
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut holds = self.wait(|host| Ok(host.holds.list())).await?;
        if caller.only().is_some() {
            holds.retain(|h| h.created_by == caller.name);
        }
        Ok(Response::new(v1::ListHoldsResponse { holds }))
    }

    async fn remove_hold(
        &self,
        request: Request<v1::RemoveHoldRequest>,
    ) -> Result<Response<v1::Hold>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().hold_id;
        let removed = self.wait(move |host| {
            let is_theirs = |h: &v1::Hold| h.hold_id == id && h.created_by == caller.name;
            if caller.only().is_some() && !host.holds.list().iter().any(is_theirs) {
                return Err(HostError::Denied(format!(
                    "{} holds nothing of the name {id}",
                    caller.name
                )));
            }
            Ok(host.holds.remove(&id)?)
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
        let volumes = self.wait(move |host| match name.is_empty() {
            true => Ok(host.volumes().to_vec()),
            false => Ok(vec![Arc::clone(host.volume(&name)?)]),
        });
        let volumes = volumes.await?;
        volumes.iter().for_each(|v| v.request_scan(Extent::Volume));
        Ok(self.stream(&caller, move |_, each| {
            for volume in volumes {
                let mut last = v1::ScanProgress {
                    volume: volume.config.name.clone(),
                    ..Default::default()
                };
                while let Some((entries, directories, unreadable, seconds)) = volume.condition().scan {
                    last = v1::ScanProgress {
                        entries,
                        directories,
                        unreadable,
                        seconds,
                        ..last
                    };
                    if !each(last.clone()) {
                        return Ok(());
                    }
                    std::thread::sleep(SCAN_NEWS_EVERY);
                }
                last.finished = true;
                if let crate::volume::State::Degraded(reason) = volume.condition().state {
                    return Err(Status::internal(format!(
                        "volume {}: {reason}",
                        volume.config.name
                    )));
                }
                each(last);
            }
            Ok(())
        }))
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
        let (rows, next_page_token) = page(all, r.page_size, &r.page_token, |n| &n.notice_id);
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
        let tested = self.host.notifier.test(&sink).await;
        let notice_id = tested.map_err(|e| notices::status(&e))?;
        Ok(Response::new(v1::TestNoticeResponse { sink, notice_id }))
    }
}

fn theirs(field: &str) -> Status {
    Status::permission_denied(format!("{field}: you may only ask for what is yours"))
}

/// The volumes and directories that a path means; an empty one means everything.
fn places(host: &Host, path: &[u8]) -> Result<Vec<(String, DirId)>, HostError> {
    if path.is_empty() {
        for volume in host.volumes() {
            volume.sync();
        }
        return Ok(host
            .volumes()
            .iter()
            .map(|v| (v.config.name.clone(), DirId::ROOT))
            .collect());
    }
    let (volume, below) = host.locate(path)?;
    volume.sync();
    let index = volume.watched.index.read();
    let dir = index
        .dirs()
        .iter()
        .find(|(id, _)| index.dirs().path(*id).is_some_and(|p| p == below));
    let (id, _) =
        dir.ok_or_else(|| HostError::NotFound(format!("{} is no directory in the index", lossy(path))))?;
    Ok(vec![(volume.config.name.clone(), id)])
}

fn filter_of(r: &v1::FindRequest) -> Result<Filter, Status> {
    let unknown =
        |field: &str, name: &str| Status::invalid_argument(format!("{field}: {name:?} is unknown here"));
    let id = |field, name: &str, of: fn(&str) -> Option<u32>| match name {
        "" => Ok(None),
        name => of(name).map(Some).ok_or_else(|| unknown(field, name)),
    };
    let name = match r.name.as_str() {
        "" => None,
        glob => {
            let globs = Globs::compile(&[glob.to_owned()]);
            Some(globs.map_err(|e| Status::invalid_argument(format!("name: {e}")))?)
        }
    };
    let kind = match r.kind() {
        v1::Kind::Unspecified => None,
        v1::Kind::File => Some(Kind::File),
        v1::Kind::Directory => Some(Kind::Directory),
        v1::Kind::Symlink => Some(Kind::Symlink),
        v1::Kind::Special => Some(Kind::Special),
    };
    Ok(Filter {
        below: None,
        older: r.older_seconds,
        newer: r.newer_seconds,
        uid: id("user", &r.user, user_id)?,
        gid: id("group", &r.group, group_id)?,
        min_size: r.min_size,
        max_size: r.max_size,
        name,
        kind,
        expiring: None,
    })
}

/// Sends the candidates of a plan. Sorting takes as many passes over the plan as memory asks for.
fn show(
    host: &Host,
    record: &PlanRecord,
    sort: v1::Sort,
    limit: u64,
    each: &mut dyn FnMut(v1::Candidate) -> bool,
) -> Result<(), Status> {
    let plan = record.plan.clone().unwrap_or_default();
    let volume = host.volume(&plan.volume).map_err(convert::status)?;
    let created = Seconds::from_unix(plan.created_at.map_or(0, |t| t.seconds));
    let mut left = if limit == 0 { u64::MAX } else { limit };
    let mut give = |c: &Candidate| {
        left = left.saturating_sub(1);
        each(convert::candidate(&volume.config.path, c, record, created)) && left > 0
    };
    let chunk = |n| {
        host.plans
            .chunk(&plan.plan_id, n)
            .map_err(|e| Status::internal(e.to_string()))
    };
    if sort == v1::Sort::Unspecified {
        for number in 0..record.chunks {
            for c in chunk(number)? {
                if !give(&c) {
                    return Ok(());
                }
            }
        }
        return Ok(());
    }
    type Key = (u64, Vec<u8>, u64);
    let key = |c: &Candidate, position: u64| -> Key {
        match sort {
            v1::Sort::Age => (c.last.at.0.into(), Vec::new(), position),
            v1::Sort::Size => (u64::MAX - c.size, Vec::new(), position),
            v1::Sort::Path | v1::Sort::Unspecified => (0, c.path(), position),
        }
    };
    let mut after: Option<Key> = None;
    loop {
        let mut best: std::collections::BTreeMap<Key, Candidate> = std::collections::BTreeMap::new();
        let mut position = 0;
        for number in 0..record.chunks {
            for c in chunk(number)? {
                position += 1;
                let key = key(&c, position);
                if after.as_ref().is_some_and(|a| key <= *a) {
                    continue;
                }
                if best.len() < SORTED_AT_ONCE || best.last_key_value().is_some_and(|(last, _)| key < *last) {
                    best.insert(key, c);
                }
                if best.len() > SORTED_AT_ONCE {
                    best.pop_last();
                }
            }
        }
        let Some((last, _)) = best.last_key_value() else {
            return Ok(());
        };
        after = Some(last.clone());
        for c in best.values() {
            if !give(c) {
                return Ok(());
            }
        }
    }
}
