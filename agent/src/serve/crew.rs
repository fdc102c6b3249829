//! Threads that wait for the index, the store or the disk for clients. Their number is limited for all but root, and each client has
//! only a part of them: root and the agent's own work find a thread, however much others ask.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::Status;

use super::budget::Share;

/// Threads for all but root.
pub const THREADS_OF_OTHERS: usize = 8;
/// Threads for ordinary users, of those: clients that have a role find one, however many users ask.
const THREADS_OF_ORDINARY: usize = 4;
/// Threads for one of them.
const THREADS_OF_ONE: usize = 3;

/// Who works for clients. Clones are the same crew.
#[derive(Debug, Clone)]
pub struct Crew {
    others: Arc<Semaphore>,
    ordinary: Arc<Semaphore>,
    each: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

impl Default for Crew {
    fn default() -> Self {
        Self {
            others: Arc::new(Semaphore::new(THREADS_OF_OTHERS)),
            ordinary: Arc::new(Semaphore::new(THREADS_OF_ORDINARY)),
            each: Arc::default(),
        }
    }
}

impl Crew {
    /// Runs something that waits, when it is this client's turn.
    ///
    /// # Errors
    /// When it failed inside the agent.
    pub async fn run<T: Send + 'static>(
        &self,
        (who, share): (&str, Share),
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = match share {
            Share::Root => None,
            // First a place among the client's own, so that many questions of one do not stand before those of others.
            _ => {
                let own = self.of(who).acquire_owned().await;
                let ordinary = match share {
                    Share::Ordinary => Some(Arc::clone(&self.ordinary).acquire_owned().await),
                    Share::Role | Share::Root => None,
                };
                Some((own, ordinary, Arc::clone(&self.others).acquire_owned().await))
            }
        };
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            // The turn lasts until here, also if the client has disconnected meanwhile.
            drop(turn);
            done
        });
        // A panic is contained to the request that met it.
        done.await
            .map_err(|e| Status::internal(format!("the request failed inside the agent: {e}")))
    }

    fn of(&self, who: &str) -> Arc<Semaphore> {
        let mut each = self.each.lock();
        if let Some(own) = each.get(who).and_then(Weak::upgrade) {
            return own;
        }
        each.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(THREADS_OF_ONE));
        each.insert(who.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_user_who_takes_all_threads_takes_none_of_root_s_and_not_all_of_the_others() {
        let crew = Crew::default();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let mut held = Vec::new();
        for n in 0..40 {
            let (crew, ended) = (crew.clone(), Arc::clone(&ended));
            held.push(tokio::spawn(async move {
                let who = ("greedy", Share::Role);
                crew.run(who, move || {
                    let _ = ended.lock().recv_timeout(Duration::from_secs(20));
                    n
                })
                .await
            }));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let soon = Duration::from_secs(10);
        let root = tokio::time::timeout(soon, crew.run(("uid 0", Share::Root), || 1)).await;
        assert_eq!(root.unwrap().unwrap(), 1);
        let other = tokio::time::timeout(soon, crew.run(("other", Share::Ordinary), || 2)).await;
        assert_eq!(other.unwrap().unwrap(), 2);
        // Two more users with all that they can have leave a thread for a role.
        for who in ["first", "second"] {
            for n in 0..10 {
                let (crew, ended) = (crew.clone(), Arc::clone(&ended));
                held.push(tokio::spawn(async move {
                    let wait = move || {
                        let _ = ended.lock().recv_timeout(Duration::from_secs(20));
                        n
                    };
                    crew.run((who, Share::Ordinary), wait).await
                }));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let role = tokio::time::timeout(soon, crew.run(("viewer", Share::Role), || 3)).await;
        assert_eq!(role.unwrap().unwrap(), 3);
        drop(end);
        for task in held {
            task.await.unwrap().unwrap();
        }
        drop(crew.of("x"));
        assert_eq!(crew.each.lock().len(), 1, "nothing is kept of clients that left");
    }
}
