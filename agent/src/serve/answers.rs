//! Answers that take a walk through index or plans, made bit by bit as the client takes them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use purge_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::budget::Share;
use super::convert;
use super::gate::Caller;
use super::open::Open;
use super::pages::TOUCHED_MAX;
use super::requests::FindAsked;
use super::usage::Report;
use super::walk::Walk;
use crate::host::views::questions::Below;
use crate::host::{Host, HostError, Wanted};
use crate::volume::{State, Volume};
use purge_base::clock;
use purge_base::sight::Sight;
use purge_index::DirId;
use purge_policy::forecast::By;
use purge_query::find::{Filter, Hit, Order, Search, room_for};
use purge_query::{STEP_BYTES, Step};
use purge_removal::candidate::Candidate;
use purge_removal::plans::Plan;

/// Bytes that sorting one answer may take: more is sorted in several passes. Root's large answers take fewer of them.
const SORT_BYTES_MAX: u64 = 8 << 20;
const SORT_BYTES_OF_ROOT_MAX: u64 = 96 << 20;
/// With less than this it would take too many.
const SORT_BYTES_MIN: u64 = 512 << 10;
/// Bytes that a candidate takes besides its path.
const CANDIDATE_BYTES: usize = 256;
/// Bytes of a chunk of a plan that is read, as a rule.
const CHUNK_BYTES: u64 = 512 << 10;
/// Bytes that one entry takes in a table of what expires, while that is made.
const EXPIRING_BYTES: u64 = 48;
/// A message of a stream has at most this number of rows of usage, and is some tens of KiB.
const ROWS_AT_ONCE: usize = 256;
/// How often a client hears of a scan.
const SCAN_NEWS_EVERY: Duration = Duration::from_millis(200);

/// What is found below some places, one place after another.
pub(super) struct Found {
    host: Arc<Host>,
    open: Arc<Open>,
    asked: FindAsked,
    places: VecDeque<Below>,
    left: u64,
    now: Option<(Arc<Volume>, Search)>,
    caller: Caller,
    /// How much of the volume's paths the caller may know; none: all.
    sight: Option<Sight>,
    /// What this client may take for sorting at most.
    room_max: u64,
}

impl Found {
    pub(super) fn new(host: Arc<Host>, caller: &Caller, asked: FindAsked, places: Vec<Below>) -> Self {
        Self {
            host,
            open: Arc::clone(&caller.open),
            left: if asked.limit == 0 { u64::MAX } else { asked.limit },
            asked,
            places: places.into(),
            now: None,
            caller: caller.clone(),
            sight: None,
            room_max: sort_max(caller),
        }
    }

    fn search(&self, volume: &Volume, below: DirId) -> Result<Search, Status> {
        let only = match self.asked.filter.uids.as_deref() {
            Some([one]) => Some(*one),
            _ => None,
        };
        let (entries, theirs, directories) = {
            let index = volume.watched.index.read();
            let totals = index.totals();
            let all = totals.files.saturating_add(totals.directories);
            let users = index.ledger().users();
            let theirs = only.map_or(all, |uid| users.get(&uid).map_or(0, |sums| sums.files));
            (all, theirs, index.dirs().table_len() as u64)
        };
        if below != DirId::ROOT {
            self.open.charge(directories)?;
        }
        let expiring = match self.asked.expiring {
            Some(within) => {
                self.open.charge(theirs.saturating_mul(EXPIRING_BYTES))?;
                let told = self.host.questions.expiring(volume, (within, only));
                Some(told.map_err(convert::status)?)
            }
            None => None,
        };
        let filter = Filter {
            below: Some(below),
            expiring,
            ..self.asked.filter.clone()
        };
        let wanted = room_for(self.asked.order, entries).min(self.room_max);
        let room = match self.asked.order {
            Order::None => 0,
            _ => self.open.charge_up_to(wanted, wanted.min(SORT_BYTES_MIN))?,
        };
        let at = (clock::judged(), volume.condition().gap_end);
        let index = &volume.watched.index;
        Ok(Search::new(
            index,
            filter,
            self.asked.order,
            (self.left, room),
            at,
        ))
    }
}

impl Walk for Found {
    type Item = v1::Entry;

    fn step(&mut self) -> Result<Step<v1::Entry>, Status> {
        let Some((volume, search)) = &mut self.now else {
            let next = (self.left > 0).then(|| self.places.pop_front()).flatten();
            let Some((name, below)) = next else {
                return Ok(Step::Done);
            };
            let volume = self.host.volume(&name).map_err(convert::status)?;
            let search = self.search(&volume, below)?;
            self.sight = self.caller.sight(&volume.config.path);
            self.now = Some((volume, search));
            return Ok(Step::Working);
        };
        let step = search.step(&volume.watched.index);
        Ok(
            match step.map_err(|e| Status::internal(convert::plain(e.to_string())))? {
                Step::Items(hits) => {
                    let root = &volume.config.path;
                    let sight = &mut self.sight;
                    let mut shown = |hit: &Hit| sight.as_mut().and_then(|sight| sight.shown(&hit.path));
                    let entries = hits.iter().map(|hit| convert::entry(root, hit, shown(hit)));
                    Step::Items(entries.collect())
                }
                Step::Working => Step::Working,
                Step::Done => {
                    self.left = search.left();
                    self.now = None;
                    Step::Working
                }
            },
        )
    }
}

/// Bytes that this client may take for sorting one answer.
fn sort_max(caller: &Caller) -> u64 {
    match caller.share {
        Share::Root => SORT_BYTES_OF_ROOT_MAX,
        _ => SORT_BYTES_MAX,
    }
}

/// Patterns of rules that match nothing on a volume.
pub(super) fn idle_patterns(
    host: &Host,
    asked: v1::CheckPatternsRequest,
) -> Result<v1::CheckPatternsResponse, HostError> {
    let rules = asked.rules.into_iter().map(|r| (r.rule, r.exclude));
    let rules: Vec<_> = rules.collect();
    let idle = host.planner.check_patterns(&asked.volume, &rules)?.into_iter();
    Ok(v1::CheckPatternsResponse {
        idle: idle.map(convert::idle).collect(),
    })
}

/// Takes what a forecast will need out of the client's room.
pub(super) fn charge_forecast(
    host: &Host,
    open: &Open,
    wanted: &Wanted,
    (days, by): (u32, By),
) -> Result<(), HostError> {
    let takes = host.forecaster.forecast_bytes(wanted, days, by)?;
    open.charge(takes)
        .map_err(|full| HostError::TooMuch(full.message().into()))
}

/// Whose files are kept alive by mass changes of timestamps; an empty volume means all.
pub(super) fn touched(host: &Host, volume: &str) -> Result<v1::TouchedReport, HostError> {
    if !volume.is_empty() {
        host.volume(volume)?;
    }
    let volumes = host.volumes();
    let mut owners = Vec::new();
    for v in volumes
        .iter()
        .filter(|v| volume.is_empty() || v.config.name == volume)
    {
        v.sync_soon();
        let touched = v.watched.touched.lock().clone();
        let rows = touched.iter();
        owners.extend(rows.map(|(uid, t)| convert::touched(&v.config.name, *uid, t)));
    }
    let files = |o: &v1::TouchedOwner| o.stamped.saturating_add(o.read);
    owners.sort_by(|a, b| files(b).cmp(&files(a)).then_with(|| a.owner.cmp(&b.owner)));
    owners.truncate(TOUCHED_MAX);
    let since = clock::now().minus(host.uptime().as_secs());
    Ok(v1::TouchedReport {
        owners,
        since: Some(convert::timestamp(since)),
    })
}

/// Tells how far the scans of some volumes are, until each has ended.
pub(super) fn scans(
    volumes: Vec<Arc<Volume>>,
) -> impl Stream<Item = Result<v1::ScanProgress, Status>> + Send {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        for volume in volumes {
            let told = tokio::select! {
                told = scan(&volume, &send) => told,
                () = send.closed() => return,
            };
            let is_last = told.is_err();
            if send.send(told).await.is_err() || is_last {
                return;
            }
        }
    });
    ReceiverStream::new(receive)
}

/// Tells of one scan while it goes on, and how it ended.
async fn scan(
    volume: &Volume,
    send: &mpsc::Sender<Result<v1::ScanProgress, Status>>,
) -> Result<v1::ScanProgress, Status> {
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
        // A slow client hears less often.
        let _ = send.try_send(Ok(last.clone()));
        tokio::time::sleep(SCAN_NEWS_EVERY).await;
    }
    last.finished = true;
    match volume.condition().state {
        State::Degraded(reason) => Err(Status::internal(convert::plain(format!(
            "volume {}: {reason}",
            volume.config.name
        )))),
        _ => Ok(last),
    }
}

/// A candidate's place in the order that was asked for.
type Key = (u64, Vec<u8>, u64);

/// The candidates of a plan, in as many passes over it as memory asks for.
pub(super) struct Shown {
    host: Arc<Host>,
    root: PathBuf,
    plan: Plan,
    sort: v1::Sort,
    left: u64,
    /// Bytes that may be taken for sorting.
    room: usize,
    stage: Stage,
}

enum Stage {
    /// The chunk that comes next, and what is left of the one before.
    Lying(u32, std::vec::IntoIter<Candidate>),
    /// The first ones after a key are gathered.
    Gathering(Gathered),
    /// They are sent; the last one's key, if there are more.
    Sending(
        std::collections::btree_map::IntoValues<Key, Candidate>,
        Option<Key>,
    ),
}

#[derive(Default)]
struct Gathered {
    after: Option<Key>,
    /// The chunk that comes next, and how many candidates were before it.
    chunk: u32,
    position: u64,
    best: BTreeMap<Key, Candidate>,
    bytes: usize,
    is_cut: bool,
}

impl Gathered {
    fn add(&mut self, key: Key, candidate: Candidate, room: usize) {
        let is_behind = |last: &Key| self.is_cut && key > *last;
        let last = self.best.last_key_value().map(|(key, _)| key);
        if self.after.as_ref().is_some_and(|a| key <= *a) || last.is_some_and(is_behind) {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes_of(&key, &candidate));
        self.best.insert(key, candidate);
        while self.bytes > room && self.best.len() > 1 {
            let Some((key, candidate)) = self.best.pop_last() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(bytes_of(&key, &candidate));
            self.is_cut = true;
        }
    }
}

fn bytes_of((_, path, _): &Key, candidate: &Candidate) -> usize {
    let own = path
        .len()
        .saturating_add(candidate.name.to_bytes().len())
        .saturating_add(candidate.dir.len());
    own.saturating_add(CANDIDATE_BYTES)
}

impl Shown {
    /// Of a plan that there is.
    ///
    /// # Errors
    /// When its volume is no more, or there is no room for sorting it.
    pub(super) fn new(
        host: Arc<Host>,
        caller: &Caller,
        plan: Plan,
        (sort, limit): (v1::Sort, u64),
    ) -> Result<Self, Status> {
        let root = host
            .volume(&plan.volume)
            .map_err(convert::status)?
            .config
            .path
            .clone();
        let wanted = plan
            .candidates()
            .saturating_mul(2 * CANDIDATE_BYTES as u64)
            .min(sort_max(caller));
        // A chunk is read whole.
        caller.open.charge(CHUNK_BYTES)?;
        let room = match sort {
            v1::Sort::Unspecified => 0,
            _ => caller.open.charge_up_to(wanted, wanted.min(SORT_BYTES_MIN))?,
        };
        Ok(Self {
            root,
            sort,
            left: if limit == 0 { u64::MAX } else { limit },
            room: usize::try_from(room).unwrap_or(usize::MAX),
            stage: match sort {
                v1::Sort::Unspecified => Stage::Lying(0, Vec::new().into_iter()),
                _ => Stage::Gathering(Gathered::default()),
            },
            plan,
            host,
        })
    }

    fn chunk(&self, number: u32) -> Result<Vec<Candidate>, Status> {
        let read = self.host.plans.chunk(&self.plan.id, number);
        read.map_err(|e| Status::internal(convert::plain(e.to_string())))
    }

    fn key(&self, c: &Candidate, position: u64) -> Key {
        match self.sort {
            v1::Sort::Age => (c.last.at.0.into(), Vec::new(), position),
            v1::Sort::Size => (u64::MAX - c.size, Vec::new(), position),
            v1::Sort::Path | v1::Sort::Unspecified => (0, c.path(), position),
        }
    }

    /// Some of what comes next, as it is sent.
    fn some(&mut self, all: &mut impl Iterator<Item = Candidate>) -> Vec<v1::Candidate> {
        let (mut some, mut bytes) = (Vec::new(), 0usize);
        while bytes < STEP_BYTES && self.left > 0 {
            let Some(c) = all.next() else { break };
            let told = convert::candidate(&self.root, &c, &self.plan);
            bytes = bytes.saturating_add(told.encoded_len());
            self.left = self.left.saturating_sub(1);
            some.push(told);
        }
        some
    }

    fn gather(&self, mut gathered: Gathered) -> Result<Stage, Status> {
        if gathered.chunk < self.plan.chunks {
            for c in self.chunk(gathered.chunk)? {
                gathered.position = gathered.position.saturating_add(1);
                gathered.add(self.key(&c, gathered.position), c, self.room);
            }
            gathered.chunk = gathered.chunk.saturating_add(1);
            return Ok(Stage::Gathering(gathered));
        }
        let last = gathered.best.last_key_value().map(|(key, _)| key.clone());
        let last = last.filter(|_| gathered.is_cut);
        Ok(Stage::Sending(gathered.best.into_values(), last))
    }
}

impl Walk for Shown {
    type Item = v1::Candidate;

    fn step(&mut self) -> Result<Step<v1::Candidate>, Status> {
        if self.left == 0 {
            return Ok(Step::Done);
        }
        let nothing = Stage::Lying(u32::MAX, Vec::new().into_iter());
        let (stage, some) = match std::mem::replace(&mut self.stage, nothing) {
            Stage::Lying(next, mut rest) => {
                let some = self.some(&mut rest);
                match (some.is_empty(), next < self.plan.chunks) {
                    (false, _) => (Stage::Lying(next, rest), some),
                    (true, true) => {
                        let rest = self.chunk(next)?.into_iter();
                        (Stage::Lying(next.saturating_add(1), rest), some)
                    }
                    (true, false) => return Ok(Step::Done),
                }
            }
            Stage::Gathering(gathered) => (self.gather(gathered)?, Vec::new()),
            Stage::Sending(mut rest, last) => {
                let some = self.some(&mut rest);
                match (some.is_empty(), last) {
                    (false, last) => (Stage::Sending(rest, last), some),
                    (true, Some(last)) => {
                        let after = Some(last);
                        (
                            Stage::Gathering(Gathered {
                                after,
                                ..Gathered::default()
                            }),
                            some,
                        )
                    }
                    (true, None) => return Ok(Step::Done),
                }
            }
        };
        self.stage = stage;
        Ok(match some.is_empty() {
            true => Step::Working,
            false => Step::Items(some),
        })
    }
}

/// The rows of a report of usage.
pub(super) struct Rows {
    report: Report,
    sent: usize,
}

impl Rows {
    pub(super) fn of(report: Report) -> Self {
        Self { report, sent: 0 }
    }
}

impl Walk for Rows {
    type Item = v1::UsageReport;

    fn step(&mut self) -> Result<Step<v1::UsageReport>, Status> {
        // One message at least, also of no rows.
        if self.sent > 0 && self.sent >= self.report.len() {
            return Ok(Step::Done);
        }
        let end = self.sent.saturating_add(ROWS_AT_ONCE).min(self.report.len());
        let part = self.report.part(self.sent..end);
        self.sent = end.max(1);
        Ok(Step::Items(vec![part]))
    }
}

/// The rows with the most bytes, as many as one message holds.
pub(super) fn first_rows(report: &mut Report, bytes_max: usize) -> v1::UsageReport {
    let mut all = report.part(0..0);
    let mut bytes = 0usize;
    for begin in (0..report.len()).step_by(ROWS_AT_ONCE) {
        let end = begin.saturating_add(ROWS_AT_ONCE).min(report.len());
        let part = report.part(begin..end);
        bytes = bytes.saturating_add(part.encoded_len());
        if bytes > bytes_max {
            break;
        }
        all.rows.extend(part.rows);
    }
    all
}
