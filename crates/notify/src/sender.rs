//! One task a sink: sends what is due, waits, tries again. No other task waits for it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::event::{Audience, Entry, Event, What, rfc3339};
use super::notice::{Fate, Notice};
use super::outbox::Outbox;
use super::receipts::Receipt;
use super::sink::{Letter, SendError, Teller};
use super::tally::Tally;
use super::text::{About, Texts};
use crate::settings::{Notify, Sink};
use purge_base::clock;
use purge_base::handover::Handover;
use purge_removal::plans::Plan;
use purge_removal::run::recover::{Witness, Witnesses};

/// The first wait after a failure; each further one is twice as long.
const RETRY_FIRST_SECONDS: u64 = 5;
/// But no longer than this.
const RETRY_MAX_SECONDS: u64 = 300;
/// Notices taken up at once.
const BATCH: usize = 64;
/// The clock is looked at this often, should it have been stepped.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What cannot be written is tried again after this long.
const TROUBLE_WAIT: Duration = Duration::from_secs(5);
/// A sink that is sending when the agent ends may finish that.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Seconds to wait after this number of failures in a row.
pub fn backoff(failures: u32) -> u64 {
    let doubled = failures.saturating_sub(1).min(16);
    RETRY_FIRST_SECONDS
        .saturating_mul(1u64 << doubled)
        .min(RETRY_MAX_SECONDS)
}

/// What is in force.
#[derive(Debug)]
struct InForce {
    notify: Notify,
    texts: Texts,
    host: String,
}

/// Tells.
#[derive(Debug)]
pub struct Notifier {
    /// What waits, was sent, or failed.
    pub outbox: Outbox,
    in_force: RwLock<Arc<InForce>>,
    /// Changed when every sender is to end.
    round: watch::Sender<u64>,
    senders: Mutex<Vec<JoinHandle<()>>>,
    /// An operator wants the first notices to be sent.
    released: AtomicBool,
}

/// Why a sink cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// There is none of this name.
    #[error("{0}")]
    Unknown(String),
    /// It did not take the test.
    #[error("sink {sink}: {why}")]
    Failed {
        /// Which.
        sink: String,
        /// What it said.
        why: String,
    },
}

impl Notifier {
    /// Opens the outbox. Nothing is sent yet.
    ///
    /// # Errors
    /// When the outbox cannot be opened.
    pub fn open(
        state_dir: &std::path::Path,
        notify: Notify,
        handover: &mut Handover,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            outbox: Outbox::open(&state_dir.join("notices"), handover)?,
            in_force: RwLock::new(Arc::new(InForce::new(notify))),
            round: watch::Sender::new(0),
            senders: Mutex::default(),
            released: AtomicBool::new(false),
        }))
    }

    /// The configuration in force.
    pub fn config(&self) -> Notify {
        self.in_force.read().notify.clone()
    }

    /// Whether any notice is sent.
    pub fn tells(&self) -> bool {
        let in_force = self.in_force.read();
        !in_force.notify.sinks.is_empty() && !in_force.notify.dry_run
    }

    /// The first notices need not wait any longer.
    pub fn release(&self) {
        self.released.store(true, Relaxed);
    }

    /// Whether that was said since it was asked last.
    pub fn take_release(&self) -> bool {
        self.released.swap(false, Relaxed)
    }

    /// A notice in the words of a sink.
    pub(crate) fn letter(&self, sink: &Sink, notice: Notice, lists: Vec<Vec<Entry>>) -> Letter {
        let in_force = Arc::clone(&self.in_force.read());
        in_force.letter(sink, notice, lists)
    }

    /// The tally of a run on the volume at `root`, where notices are sent. One that was begun is begun again.
    pub fn tally(&self, run: &str, root: &std::path::Path) -> Option<Tally> {
        let in_force = Arc::clone(&self.in_force.read());
        if in_force.notify.sinks.is_empty() || in_force.notify.dry_run {
            return None;
        }
        Tally::begin(self.outbox.dir(), run, root, in_force.notify.list_max)
            .map_err(|error| tracing::error!(run, %error, "who loses what cannot be noted: its owners hear nothing of it"))
            .ok()
    }

    /// Takes an event for every sink that wants it.
    ///
    /// # Errors
    /// When it cannot be made durable: it is to be given again.
    pub fn tell(&self, event: Event, entries: &[Entry]) -> io::Result<()> {
        let in_force = Arc::clone(&self.in_force.read());
        if in_force.notify.dry_run {
            let (event, to) = (event.what.kind().as_str(), event.to.name().to_owned());
            tracing::info!(event, to, "a notice is not sent: notify.dry_run is on");
            return Ok(());
        }
        self.outbox.add(event, entries, &in_force.notify.sinks, now())
    }

    /// Starts to send, on the runtime that this is called in.
    pub fn start(self: &Arc<Self>) {
        let in_force = Arc::clone(&self.in_force.read());
        if in_force.notify.dry_run {
            tracing::info!("no notice is sent (notify.dry_run): `purgectl notices preview` shows them");
            return;
        }
        let mut senders = self.senders.lock();
        for sink in &in_force.notify.sinks {
            let keeping = Arc::clone(self).keep(Arc::clone(&in_force), sink.clone(), self.round.subscribe());
            senders.push(tokio::spawn(keeping));
        }
    }

    /// Sends by one sink until the round is over. A panic ends neither the others nor, for long, this one.
    async fn keep(self: Arc<Self>, in_force: Arc<InForce>, sink: Sink, mut round: watch::Receiver<u64>) {
        loop {
            let sender = Sender {
                notifier: Arc::clone(&self),
                in_force: Arc::clone(&in_force),
                teller: Teller::new(&sink, &in_force.notify),
                sink: sink.clone(),
                failures: 0,
            };
            let ended = tokio::spawn(sender.keep(round.clone())).await;
            let Err(error) = ended else { return };
            tracing::error!(sink = %sink.name, %error, "sending failed inside the agent: it begins again later");
            tokio::select! {
                _ = round.changed() => return,
                () = tokio::time::sleep(Duration::from_secs(RETRY_MAX_SECONDS)) => {}
            }
        }
    }

    /// Puts another configuration in force. What waits for a sink that is there no more goes on waiting for its return.
    pub async fn replace(self: &Arc<Self>, notify: Notify) {
        if self.in_force.read().notify == notify && notify.templates.is_none() {
            return;
        }
        self.stop().await;
        *self.in_force.write() = Arc::new(InForce::new(notify));
        self.start();
    }

    /// Ends every sender, once it has sent what it is sending.
    pub async fn stop(&self) {
        self.round.send_modify(|n| *n = n.wrapping_add(1));
        let senders: Vec<_> = std::mem::take(&mut *self.senders.lock());
        let ended = async {
            for sender in senders {
                let _ = sender.await;
            }
        };
        let _ = tokio::time::timeout(ENDS_WITHIN, ended).await;
    }

    /// Sends a test by one sink, at once, and says how it is called.
    ///
    /// # Errors
    /// When there is no such sink, or it does not take it.
    pub async fn test(&self, name: &str) -> Result<String, TestError> {
        let in_force = Arc::clone(&self.in_force.read());
        let sinks = &in_force.notify.sinks;
        let known: Vec<&str> = sinks.iter().map(|s| s.name.as_str()).collect();
        let sink = sinks.iter().find(|s| s.name == name).ok_or_else(|| {
            TestError::Unknown(match known.is_empty() {
                true => format!("there is no sink {name:?}: the configuration has no [notify]"),
                false => format!("there is no sink {name:?}; there are {}", known.join(", ")),
            })
        })?;
        let now = now();
        let id = purge_base::id::new_id('t', clock::wall());
        let notice = Notice {
            notice_id: id.clone(),
            sink: name.into(),
            fate: Fate::Waiting,
            to: Audience::Operator,
            created_at: now,
            due_at: now,
            closed_at: now,
            ended_at: 0,
            attempts: 0,
            error: String::new(),
            events: vec![Event {
                event_id: format!("test/{now}"),
                at: rfc3339(clock::wall()),
                volume: "test".into(),
                path: String::new(),
                to: Audience::Operator,
                what: What::Test { sink: name.into() },
                list: None,
            }],
        };
        let letter = in_force.letter(sink, notice, Vec::new());
        let sent = Teller::new(sink, &in_force.notify)
            .send(&letter, &Receipt::nowhere(&id))
            .await;
        sent.map(|()| id).map_err(|e| TestError::Failed {
            sink: name.into(),
            why: e.to_string(),
        })
    }

    /// How many notices of each sink wait, were sent and failed; sinks that nothing was told by are named too.
    pub fn counts(&self) -> BTreeMap<String, [u64; 3]> {
        let mut all = self.outbox.counts();
        for sink in &self.in_force.read().notify.sinks {
            all.entry(sink.name.clone()).or_default();
        }
        all
    }
}

impl Witnesses for Notifier {
    fn of_run(&self, run: &str, _: &Plan, root: &std::path::Path) -> Witness {
        let tally = self.tally(run, root);
        Box::new(move |taken| {
            if let Some(tally) = &tally {
                tally.note(taken);
            }
        })
    }
}

impl InForce {
    fn new(notify: Notify) -> Self {
        let texts = Texts::load(notify.templates.as_deref()).or_else(|why| {
            // The check of the configuration has said so already; the file was changed since.
            tracing::error!(why, "the templates cannot be read: the built-in texts are sent");
            Texts::load(None)
        });
        Self {
            notify,
            texts: texts.unwrap_or_default(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        }
    }

    fn letter(&self, sink: &Sink, notice: Notice, lists: Vec<Vec<Entry>>) -> Letter {
        let about = About {
            host: &self.host,
            warn_before: self.notify.warn_before,
            list_place: Teller::list_place(sink),
        };
        Letter::write(notice, lists, &self.texts, &about)
    }
}

/// One sink's.
struct Sender {
    notifier: Arc<Notifier>,
    in_force: Arc<InForce>,
    sink: Sink,
    teller: Teller,
    /// In a row.
    failures: u32,
}

impl Sender {
    async fn keep(mut self, mut round: watch::Receiver<u64>) {
        let notifier = Arc::clone(&self.notifier);
        loop {
            // Before looking: what is added while it looks is not overlooked.
            let added = notifier.outbox.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            let wait = self.pass(&round).await;
            let is_down = self.failures > 0;
            tokio::select! {
                _ = round.changed() => return,
                () = &mut added, if !is_down => {}
                () = tokio::time::sleep(if is_down { wait } else { wait.min(LOOK_EVERY) }) => {}
            }
        }
    }

    /// Sends what is due; how long nothing more is to be done.
    async fn pass(&mut self, round: &watch::Receiver<u64>) -> Duration {
        let name = self.sink.name.clone();
        let asked = self
            .with_outbox(move |outbox| outbox.due(&name, now(), BATCH))
            .await;
        let (due, next) = match asked {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(sink = %self.sink.name, %error, "the outbox cannot be written");
                return TROUBLE_WAIT;
            }
        };
        let full = due.len() >= BATCH;
        for notice in due {
            if round.has_changed().unwrap_or(true) {
                return Duration::ZERO;
            }
            if let Some(pause) = self.send(notice).await {
                return pause;
            }
        }
        match (full, next) {
            (true, _) => Duration::ZERO,
            (false, Some(at)) => Duration::from_secs(at.saturating_sub(now()).max(1)),
            (false, None) => LOOK_EVERY,
        }
    }

    /// Sends one; a pause if others need not be tried.
    async fn send(&mut self, notice: Notice) -> Option<Duration> {
        let id = notice.notice_id.clone();
        let (closed_at, attempts) = (notice.closed_at, notice.attempts);
        let events = notice.events.clone();
        let lists = self
            .with_outbox(move |outbox| events.iter().map(|e| outbox.entries(e)).collect())
            .await;
        let letter = self.in_force.letter(&self.sink, notice, lists);
        let begun = id.clone();
        let receipt = self.with_outbox(move |outbox| outbox.begin(&begun)).await;
        let done = self.teller.send(&letter, &receipt).await;
        let at = now();
        let (error, is_down, never) = match done {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(sink = %self.sink.name, "the sink takes notices again");
                }
                self.failures = 0;
                self.note(move |outbox| outbox.sent(receipt, at)).await;
                return None;
            }
            Err(SendError::Down(why)) => (why, true, false),
            Err(SendError::Refused(why)) => (why, false, false),
            Err(SendError::Never(why)) => (why, false, true),
        };
        let given_up = never || at.saturating_sub(closed_at) >= self.in_force.notify.retry_for;
        let pause = is_down.then(|| {
            self.failures = self.failures.saturating_add(1);
            backoff(self.failures)
        });
        let again = at.saturating_add(pause.unwrap_or_else(|| backoff(attempts.saturating_add(1))));
        match given_up {
            true => {
                tracing::error!(sink = %self.sink.name, notice = %id, why = error, "a notice is given up");
            }
            false if attempts == 0 || self.failures == 1 => {
                tracing::warn!(sink = %self.sink.name, notice = %id, why = error, "a notice was not taken: it is sent again later");
            }
            false => {}
        }
        let again = (!given_up).then_some(again);
        self.note(move |outbox| outbox.not_sent(receipt, &error, again, at))
            .await;
        pause.map(Duration::from_secs)
    }

    async fn note(&self, work: impl FnOnce(&Outbox) -> io::Result<()> + Send + 'static) {
        if let Err(error) = self.with_outbox(work).await {
            tracing::error!(sink = %self.sink.name, %error, "what became of a notice cannot be noted");
        }
    }

    async fn with_outbox<T: Send + 'static>(&self, work: impl FnOnce(&Outbox) -> T + Send + 'static) -> T {
        let notifier = Arc::clone(&self.notifier);
        // The runtime has several threads: one of them may wait for the disk.
        tokio::task::block_in_place(move || work(&notifier.outbox))
    }
}

fn now() -> u64 {
    clock::wall().0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_minutes() {
        let waits: Vec<u64> = [0, 1, 2, 3, 8, 9, 99].map(backoff).to_vec();
        assert_eq!(waits, [5, 5, 10, 20, 300, 300, 300]);
    }
}
