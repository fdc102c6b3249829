//! One host: its volumes, rules, plans, runs and holds, and what can be asked of them together.
//!
//! - [`planner`]    plans that rules, quotas and watermarks ask for
//! - [`brakes`]     stops a watermark whose runs free too little
//! - [`applier`]    runs
//! - [`archive`]    what archives hold
//! - [`trash`]      what runs leave in the trash: putting it back, freeing it
//! - [`unattended`] what begins without a request: rules whose time has come
//! - [`teller`]     what people are told
//! - [`views`]      answers that change nothing
//! - [`ground`]     what all of these stand on
//! - `judge`       whether a volume may be judged, and under which circumstances; `announced`: what announcing rules have named
//! - `asker`       who asks for plans besides rules; `space`: how full a volume is
//! - `notices`     notices of what the agent could not do
//! - [`holder`]     makes holds
//! - `owners`      whom the names of rules and overrides mean
//! - [`roster`]    which volumes are watched now; [`returner`]: opens one that has come back; [`resetter`]: for another file system
//! - `start`       starting, in phases; `left`: what earlier processes left
//! - [`place`]      where a path from a client leads; `user`: an ordinary user who asks for what is theirs; [`client`]: one that waits

mod announced;
pub mod applier;
pub mod archive;
mod asker;
pub mod brakes;
pub mod client;
mod error;
pub mod ground;
pub mod holder;
mod judge;
mod left;
mod notices;
mod owners;
pub mod place;
pub mod planner;
pub mod resetter;
pub mod returner;
pub mod roster;
mod space;
mod start;
pub mod teller;
pub mod trash;
pub mod unattended;
mod user;
pub mod views;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::applier::Applier;
pub use self::applier::Manner;
use self::brakes::Brakes;
pub use self::error::{HostError, lossy, shown};
pub use self::ground::Ground;
use self::holder::Holder;
pub use self::holder::Wish;
use self::judge::Judge;
use self::notices::Notices;
pub use self::planner::{Part, Planner, Wanted};
use self::resetter::Resetter;
use self::returner::Returner;
use self::teller::announce::Announcer;
use self::teller::lookout::Lookout;
use self::trash::TrashKeeper;
use self::unattended::Unattended;
pub use self::user::User;
use self::views::attention::Attention;
use self::views::forecast::Forecaster;
use self::views::questions::Questions;
use crate::volume::{Absent, Home, Volume};
use purge_base::probe::StateDir;
use purge_index::{Store, aside};
use purge_notify::preview;
use purge_notify::sender::Notifier;
use purge_removal::audit::Audit;
use purge_removal::holds::Holds;
use purge_removal::plans::Plans;
use purge_removal::runs::Runs;

/// At the end, all volumes together may take so long to read what waits. The unit's TimeoutStopSec leaves three times as much for
/// that, for runs that end, for notices that are being sent, and for writing the index.
const READS_WITHIN: Duration = Duration::from_secs(20);

/// A call of the store that does not end within so long, on a disk that answers, never will.
const STORE_LOST_AFTER: Duration = Duration::from_secs(40);

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Volumes, rules and limits.
    pub ground: Arc<Ground>,
    /// Saved plans.
    pub plans: Plans,
    /// Past and current runs.
    pub runs: Arc<Runs>,
    /// Holds.
    pub holds: Arc<Holds>,
    judge: Arc<Judge>,
    notices: Arc<Notices>,
    /// Notices.
    pub notifier: Arc<Notifier>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Applies plans.
    pub applier: Arc<Applier>,
    /// Makes plans.
    pub planner: Arc<Planner>,
    /// Publishes what announcing rules will take.
    pub announcer: Announcer,
    /// Answers what will expire, and which limits will be reached.
    pub forecaster: Forecaster,
    /// Answers what is known of paths and owners.
    pub questions: Questions,
    /// Answers what needs attention.
    pub attention: Arc<Attention>,
    /// Gives a volume's name to another file system.
    pub resetter: Arc<Resetter>,
    /// Opens volumes that have come back.
    pub returner: Arc<Returner>,
    /// Makes holds.
    pub holder: Holder,
    /// What runs leave in the trash.
    pub trash: Arc<TrashKeeper>,
    /// What stops quotas and watermarks.
    pub brakes: Arc<Brakes>,
    store: Store,
    /// Since when a call of the store does not end.
    silent_since: Mutex<Option<Instant>>,
    started: Instant,
    /// Begins what no client asked for.
    pub unattended: Arc<Unattended>,
}

/// What is kept of plans, runs and holds, and where things are told.
#[derive(Clone)]
struct Records {
    plans: Plans,
    runs: Arc<Runs>,
    holds: Arc<Holds>,
    audit: Arc<Audit>,
    notifier: Arc<Notifier>,
}

impl Host {
    /// Joins the parts: each holds what it needs of those made before it.
    fn wire(ground: Arc<Ground>, records: Records, home: &Home) -> Arc<Self> {
        let all = records.clone();
        let Records {
            plans,
            runs,
            holds,
            audit,
            notifier,
        } = records;
        let notices = Notices::new(Arc::clone(&ground), Arc::clone(&notifier));
        let records = (plans.clone(), Arc::clone(&runs));
        let brakes = Brakes::load(Arc::clone(&ground), records, Arc::clone(&notices));
        let records = (Arc::clone(&runs), Arc::clone(&audit));
        let trash = TrashKeeper::new(Arc::clone(&ground), records, Arc::clone(&brakes));
        let judge = Judge::new(Arc::clone(&ground), Arc::clone(&holds));
        let planner = Planner::new(
            (Arc::clone(&ground), Arc::clone(&judge)),
            (plans.clone(), Arc::clone(&holds)),
            (Arc::clone(&brakes), Arc::clone(&trash)),
        );
        let applier = Applier::new(
            (Arc::clone(&ground), Arc::clone(&judge), Arc::clone(&trash)),
            (plans.clone(), Arc::clone(&runs), Arc::clone(&holds)),
            (Arc::clone(&audit), Arc::clone(&notifier)),
        );
        let unattended = Unattended::load(
            (Arc::clone(&ground), Arc::clone(&judge), Arc::clone(&runs)),
            (Arc::clone(&planner), Arc::clone(&applier)),
            (Arc::clone(&trash), Arc::clone(&brakes)),
            Arc::clone(&notices),
        );
        let announcer = Announcer::new(Arc::clone(&ground), Arc::clone(&judge));
        let of_now = (Arc::clone(&ground), Arc::clone(&judge));
        let forecaster = Forecaster::load(of_now, Arc::clone(&trash));
        let of_now = (Arc::clone(&ground), Arc::clone(&judge));
        let questions = Questions::new(of_now, Arc::clone(&holds), Arc::clone(&trash));
        let of_now = (Arc::clone(&ground), Arc::clone(&judge));
        let records = (plans.clone(), Arc::clone(&runs), Arc::clone(&notifier));
        let attention = Attention::new(of_now, records);
        let resetter = Resetter::new(Arc::clone(&ground), Arc::clone(&holds), Arc::clone(&runs));
        let parts = (Arc::clone(&trash), Arc::clone(&resetter));
        let returner = Returner::new((Arc::clone(&ground), home), &all, parts);
        let holder = Holder::new(Arc::clone(&ground), Arc::clone(&holds));
        Arc::new(Self {
            applier,
            judge,
            notices,
            ground,
            plans,
            runs,
            holds,
            notifier,
            audit,
            announcer,
            forecaster,
            questions,
            attention,
            resetter,
            returner,
            holder,
            trash,
            brakes,
            store: home.store.clone(),
            unattended,
            silent_since: Mutex::default(),
            started: Instant::now(),
            planner,
        })
    }

    /// What looks for what people must be told.
    ///
    /// # Errors
    /// When what was told already cannot be read.
    pub fn lookout(&self) -> std::io::Result<Lookout> {
        Lookout::new(
            (
                Arc::clone(&self.ground),
                Arc::clone(&self.judge),
                Arc::clone(&self.trash),
            ),
            (self.plans.clone(), Arc::clone(&self.runs)),
            (Arc::clone(&self.notices), Arc::clone(&self.notifier)),
        )
    }

    /// The notices that would be sent now; `again`: as if none had been sent yet. At most `most` are written, and all
    /// are counted. Nothing is sent, and nothing is noted.
    ///
    /// # Errors
    /// When the configuration names no sink, or what is there cannot be read.
    pub fn preview_notices(
        &self,
        again: bool,
        wanted: &preview::Wanted,
        most: usize,
    ) -> Result<(Vec<preview::Draft>, usize), HostError> {
        if self.notifier.config().sinks.is_empty() {
            let why = "the configuration has no [notify]: no notice is sent";
            return Err(HostError::Refused(why.into()));
        }
        let failed = |why: String| HostError::Refused(format!("what would be told cannot be found: {why}"));
        let lookout = self.lookout().map_err(|e| failed(e.to_string()))?;
        let found = lookout.preview(again).map_err(|e| failed(e.to_string()))?;
        Ok(self.notifier.drafts(&found, wanted, most))
    }

    /// When the first notices to owners are sent (seconds since 1970), if they wait.
    pub fn first_notices_at(&self) -> Option<u64> {
        let tells = self.notifier.tells();
        tells.then(|| teller::lookout::held_until(self.notifier.outbox.dir()))?
    }

    /// Why the agent must be started again, if so: an index that must be set aside, or a store that does not answer.
    pub fn wants_restart(&self) -> Option<String> {
        let damage = self.returner.damage();
        if let Some(why) = damage.or_else(|| self.volumes().iter().find_map(|v| v.damage())) {
            return match aside::condemn(&self.ground.anchor, &why) {
                Ok(()) => Some(format!("the index is damaged: {why}")),
                Err(error) => {
                    tracing::error!(%error, "the damaged index cannot be set aside");
                    None
                }
            };
        }
        self.ground.state.tell();
        let is_lost = self.is_store_lost();
        is_lost.then(|| "the index store does not answer, and its directory does".into())
    }

    /// A call of the store does not end though nothing is wrong with its directory any more: only another process can open it.
    fn is_store_lost(&self) -> bool {
        let mut since = self.silent_since.lock();
        if !self.store.is_silent() || self.ground.state.defect().is_some() {
            *since = None;
            return false;
        }
        since.get_or_insert_with(Instant::now).elapsed() > STORE_LOST_AFTER
    }

    /// Ends everything; what was seen is in the store afterwards.
    pub fn stop(&self) {
        self.unattended.begin_nothing();
        self.returner.end();
        let patience = Instant::now();
        while self.runs.any_live() && patience.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let began = Instant::now();
        for volume in self.volumes() {
            volume.stop(READS_WITHIN.saturating_sub(began.elapsed()));
        }
    }

    /// The volumes.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.ground.volumes()
    }

    /// Volumes of the configuration that cannot be watched for now.
    pub fn absent(&self) -> Vec<Arc<Absent>> {
        self.ground.absent()
    }

    /// A volume by name; an empty name means the only one.
    ///
    /// # Errors
    /// When there is none of this name, or several and none was named.
    pub fn volume(&self, name: &str) -> Result<Arc<Volume>, HostError> {
        self.ground.volume(name)
    }

    /// How the state directory is.
    pub fn state(&self) -> &StateDir {
        self.ground.state()
    }

    /// Why what must be written at the end cannot be, if that is so; asks for so long at most.
    pub fn hindrance(&self, at_most: Duration) -> Option<String> {
        if self.store.is_silent() {
            return Some("the index store does not answer".into());
        }
        self.ground.state.look_now(at_most).map(|defect| defect.words)
    }

    /// Opens the audit log by its name again, as after a rotation; not where it lies in a state directory that is another one.
    pub fn reopen_audit(&self) {
        if self.ground.state.is_away() && self.audit.path().starts_with(&self.ground.state_dir) {
            tracing::warn!(
                "the audit log lies in the state directory, which is not there: the open one is written on"
            );
            return;
        }
        self.audit.reopen();
    }

    /// How long the agent has been running.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Bytes of the index on disk.
    pub fn index_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }
}
