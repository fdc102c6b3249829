//! Clients that have connected and not yet shown who they are. When there are too many, one is let go: of the address that has the most of
//! them, and before those that speak one that has said nothing yet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::task::AbortHandle;

/// All of them.
const ALL_MAX: usize = 128;
/// Those of one address.
const OF_ONE_MAX: usize = 64;

/// Whether a client has said anything yet. Clones are about the same client.
#[derive(Debug, Clone, Default)]
pub struct Spoken(Arc<AtomicBool>);

impl Spoken {
    /// It has.
    pub fn set(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Those that are being greeted, the oldest first.
#[derive(Debug, Default)]
pub struct Greetings(Vec<Greeting>);

#[derive(Debug)]
struct Greeting {
    from: IpAddr,
    spoken: Spoken,
    task: AbortHandle,
}

impl Greetings {
    /// Makes room for one more from an address.
    pub fn make_room(&mut self, from: IpAddr) {
        self.0.retain(|greeting| !greeting.task.is_finished());
        let from = network(from);
        let of_it = self.0.iter().filter(|greeting| greeting.from == from).count();
        let of = match (of_it >= OF_ONE_MAX, self.0.len() >= ALL_MAX) {
            (true, _) => from,
            (false, true) => self.most().unwrap_or(from),
            (false, false) => return,
        };
        let of_them = || {
            self.0
                .iter()
                .enumerate()
                .filter(|(_, greeting)| greeting.from == of)
        };
        let silent = of_them().find(|(_, greeting)| !greeting.spoken.is_set());
        if let Some((place, _)) = silent.or_else(|| of_them().next()) {
            self.0.remove(place).task.abort();
        }
    }

    /// One more.
    pub fn add(&mut self, from: IpAddr, spoken: Spoken, task: AbortHandle) {
        let from = network(from);
        self.0.push(Greeting { from, spoken, task });
    }

    /// The address that has the most.
    fn most(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for greeting in &self.0 {
            let count = counts.entry(greeting.from).or_default();
            *count = count.saturating_add(1);
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(from, _)| from)
    }
}

/// A host with IPv6 has as many addresses as it likes in a network of its own.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn waits(greetings: &mut Greetings, from: &str, has_spoken: bool) -> tokio::task::JoinHandle<()> {
        let from = from.parse().unwrap();
        greetings.make_room(from);
        let task = tokio::spawn(std::future::pending());
        let spoken = Spoken::default();
        if has_spoken {
            spoken.set();
        }
        greetings.add(from, spoken, task.abort_handle());
        task
    }

    async fn is_let_go(task: &mut tokio::task::JoinHandle<()>) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(50), task)
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_storm_of_one_address_takes_no_place_of_another() {
        let mut all = Greetings::default();
        let mut slow = waits(&mut all, "192.0.2.1", false);
        let storm: Vec<_> = (0..1000).map(|_| waits(&mut all, "192.0.2.9", true)).collect();
        assert!(!is_let_go(&mut slow).await && all.0.len() <= OF_ONE_MAX + 1);
        drop(storm);
    }

    #[tokio::test]
    async fn many_addresses_leave_those_that_have_few_alone() {
        let mut all = Greetings::default();
        let mut slow = waits(&mut all, "192.0.2.1", true);
        let storm = |n: u32| format!("2001:db8::{:x}:{:x}:0:1", n % 3, n);
        let storm: Vec<_> = (0..1000).map(|n| waits(&mut all, &storm(n), true)).collect();
        assert!(!is_let_go(&mut slow).await && all.0.len() <= ALL_MAX);
        drop(storm);
    }

    #[tokio::test]
    async fn one_that_speaks_is_greeted_beside_many_of_its_address_that_say_nothing() {
        let mut all = Greetings::default();
        let mut speaks = waits(&mut all, "127.0.0.1", true);
        let mut first = waits(&mut all, "127.0.0.1", false);
        let storm: Vec<_> = (0..1000).map(|_| waits(&mut all, "127.0.0.1", false)).collect();
        assert!(!is_let_go(&mut speaks).await && is_let_go(&mut first).await);
        drop(storm);
    }

    #[test]
    fn a_network_of_one_host_counts_as_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2:3::4"), of("2001:db8:1:3::"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
