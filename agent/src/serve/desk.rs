//! What each call needs: the host, threads for what waits, and streams that are made as a client takes them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_stream::Stream;
use tonic::{Response, Status};

use super::convert;
use super::crew::Crew;
use super::deadline::Until;
use super::gate::Caller;
use super::walk::{self, Walk};
use crate::host::client::Client;
use crate::host::{Host, HostError};
use crate::in_force::InForce;
use crate::volume::Volume;
use purge_index::Totals;

/// Status waits so long for the index, and then tells how much there was a moment ago.
const TOTALS_WITHIN: Duration = Duration::from_millis(100);
/// What a stream answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A call whose client waits: when the client leaves, the call is dropped.
#[derive(Default)]
struct Waiting(Client);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    pub(super) host: Arc<Host>,
    pub(super) in_force: Arc<InForce>,
    pub(super) crew: Crew,
    /// How much there was on each volume when it was asked last.
    totals: Arc<Mutex<HashMap<String, Totals>>>,
}

impl Service {
    /// Serves this host, with this configuration.
    pub fn new(host: Arc<Host>, in_force: Arc<InForce>) -> Self {
        Self {
            host,
            in_force,
            crew: Crew::default(),
            totals: Arc::default(),
        }
    }

    /// Runs something that waits for the index, the store or the disk.
    pub(super) async fn wait<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&Arc<Host>) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, Status> {
        let host = Arc::clone(&self.host);
        let whose = (caller.name.as_str(), caller.share);
        self.crew
            .run(whose, move || work(&host))
            .await?
            .map_err(convert::status)
    }

    /// The same for work that ends early once the client does not wait for it any more.
    pub(super) async fn wait_as<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&Arc<Host>, &Client) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, Status> {
        let waiting = Waiting::default();
        let client = waiting.0.clone();
        self.wait(caller, move |host| work(host, &client)).await
    }

    /// Parses a request where names may have to be looked up, which can take a while.
    pub(super) async fn parsed<T: Send + 'static>(
        &self,
        caller: &Caller,
        parse: impl FnOnce() -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        self.crew.run((&caller.name, caller.share), parse).await?
    }

    /// Streams what a walk finds; it ends when the client has disconnected, takes nothing, or waits no longer.
    pub(super) fn stream<W: Walk>(&self, caller: &Caller, walk: W) -> Response<Answers<W::Item>> {
        let whose = (caller.name.clone(), caller.share);
        let found = walk::start(self.crew.clone(), whose, walk);
        Response::new(match caller.deadline {
            Some(deadline) => Box::pin(Until::new(found, deadline)),
            None => Box::pin(found),
        })
    }

    /// What is on a volume; while others hold its index, what there was a moment ago.
    pub(super) fn totals_of(&self, volume: &Volume) -> Totals {
        let now = volume
            .watched
            .index
            .try_read_for(TOTALS_WITHIN)
            .map(|index| index.totals());
        let mut known = self.totals.lock();
        match now {
            Some(now) => {
                known.insert(volume.config.name.clone(), now);
                now
            }
            None => known.get(&volume.config.name).copied().unwrap_or_default(),
        }
    }
}
