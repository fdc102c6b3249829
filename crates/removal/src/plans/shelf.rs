//! What stored plans take, and how much of that each client may. Pure.
//!
//! A plan that is new has room made for it: plans that no client can apply any more go first, oldest first, then the same client's oldest
//! that were not applied. Never another client's that could still be applied, and never one that is being made or applied.

use std::collections::BTreeMap;

use purge_base::id;
use purge_model::Seconds;

/// All plans together.
const PLANS_MAX: usize = 1000;
const BYTES_MAX: u64 = 1 << 30;
/// Those of one client, or of one rule, quota or watermark. A single larger one has room if there is no other of theirs.
const PLANS_OF_ONE_MAX: usize = 100;
const BYTES_OF_ONE_MAX: u64 = 256 << 20;
/// A client may have this many made at a time: each takes memory while it is made.
const MAKING_OF_ONE_MAX: usize = 4;
/// A candidate takes about this many bytes.
const CANDIDATE_BYTES: u64 = 120;

/// Who asks for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'a> {
    /// As it stands in records.
    pub name: &'a str,
    /// Root, or the agent itself: what others keep is no reason to refuse them.
    pub always: bool,
}

impl<'a> By<'a> {
    /// The agent itself: for a rule, quota or watermark of this name.
    pub fn agent(name: &'a str) -> Self {
        Self { name, always: true }
    }

    /// A client of this name, as it stands in records.
    pub fn client(name: &'a str) -> Self {
        let always = name == "uid 0";
        Self { name, always }
    }
}

/// How far a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is being made, or taken away.
    Making,
    /// It can be applied.
    Ready,
    /// A run that is going on needs it.
    Running,
    /// Its run has ended.
    Used,
    /// Its run has ended and could not do all that it should: the next start may need the plan to put something back.
    Failed,
}

/// A plan, as far as room is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) by: String,
    pub(super) created: Seconds,
    pub(super) bytes: u64,
    pub(super) chunks: u32,
    pub(super) state: State,
    /// Among those of one second the one with the lowest was made first.
    order: u64,
}

impl Stored {
    /// A plan of this many bytes and chunks.
    pub(super) fn new(by: &str, created: Seconds, (bytes, chunks): (u64, u32), state: State) -> Self {
        Self {
            by: by.to_owned(),
            created,
            bytes,
            chunks,
            state,
            order: 0,
        }
    }
}

/// How soon a plan goes when room is needed; none: it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// No client can apply it any more.
    Past,
    /// It can be applied.
    Ready,
    Failed,
}

/// The part of a name that says when it was given.
fn time_of(id: &str) -> &str {
    id.get(..id::TIMED).unwrap_or(id)
}

/// Every plan.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    plans: BTreeMap<String, Stored>,
    /// How many there have been.
    order: u64,
}

/// Plans that have to go, with their chunks.
pub(super) type Leaving = Vec<(String, u32)>;

impl Shelf {
    /// The names of plans that are made whole and begin with this, oldest first.
    pub(super) fn ids(&self, prefix: &str) -> Vec<String> {
        let whole = self.plans.iter().filter(|(_, plan)| plan.state != State::Making);
        let mut named: Vec<(u64, &String)> = whole
            .filter(|(id, _)| id.starts_with(prefix))
            .map(|(id, plan)| (plan.order, id))
            .collect();
        // Those of one second are in the order in which they were made.
        named.sort_unstable_by(|(a, x), (b, y)| time_of(x).cmp(time_of(y)).then(a.cmp(b)));
        named.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// About how many bytes this many candidates will take.
    pub(super) fn estimate(candidates: u64) -> u64 {
        candidates.saturating_mul(CANDIDATE_BYTES)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Stored> {
        self.plans.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Stored> {
        self.plans.get_mut(id)
    }

    /// Puts a plan there; one that is there already keeps its place in the order.
    pub(super) fn put(&mut self, id: &str, mut stored: Stored) {
        self.order = self.order.saturating_add(1);
        stored.order = self.plans.get(id).map_or(self.order, |known| known.order);
        self.plans.insert(id.to_owned(), stored);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.plans.remove(id);
    }

    /// Plans older than this, but for those that are needed.
    pub(super) fn older_than(&mut self, seconds: u64, now: Seconds) -> Leaving {
        let old = |p: &Stored| {
            !matches!(p.state, State::Making | State::Running) && p.created.age_at(now) > seconds
        };
        let ids = self.plans.iter().filter(|(_, p)| old(p));
        let ids: Vec<String> = ids.map(|(id, _)| id.clone()).collect();
        ids.iter().map(|id| self.leave(id)).collect()
    }

    /// Makes room for a plan of `bytes`. Those that leave are to be removed from the store, whether there is room in the end or not.
    ///
    /// # Errors
    /// Why there is none, for a person.
    pub(super) fn make_room(
        &mut self,
        by: By<'_>,
        bytes: u64,
        now: Seconds,
    ) -> (Leaving, Result<(), String>) {
        let mut leaving = Vec::new();
        let making = |p: &&Stored| p.by == by.name && p.state == State::Making;
        if !by.always && self.plans.values().filter(making).count() >= MAKING_OF_ONE_MAX {
            let why = format!(
                "{} has {MAKING_OF_ONE_MAX} plans made at this moment; wait for one of them",
                by.name
            );
            return (leaving, Err(why));
        }
        let of_one = |p: &Stored| p.by == by.name;
        while self.exceeds(of_one, bytes, (PLANS_OF_ONE_MAX, BYTES_OF_ONE_MAX)) {
            match self.oldest(of_one, Worth::Failed, now) {
                Some(id) => leaving.push(self.leave(&id)),
                None => break,
            }
        }
        while self.exceeds(|_| true, bytes, (PLANS_MAX, BYTES_MAX)) {
            let next = self.oldest(|_| true, Worth::Past, now);
            match next.or_else(|| self.oldest(of_one, Worth::Failed, now)) {
                Some(id) => leaving.push(self.leave(&id)),
                None => break,
            }
        }
        let is_full = self.exceeds(of_one, bytes, (PLANS_OF_ONE_MAX, BYTES_OF_ONE_MAX))
            || self.exceeds(|_| true, bytes, (PLANS_MAX, BYTES_MAX));
        let why = || {
            format!(
                "there is no room for the plan: {} may keep {PLANS_OF_ONE_MAX} plans with {} MiB, and all together {PLANS_MAX} with {} MiB; wait until \
                 runs have ended or plans have expired, or name fewer rules",
                by.name,
                BYTES_OF_ONE_MAX >> 20,
                BYTES_MAX >> 20
            )
        };
        match is_full && !by.always {
            true => (leaving, Err(why())),
            false => (leaving, Ok(())),
        }
    }

    /// Whether one more is too much beside those that there are. One that is larger than a client's share counts as that share, so a plan of
    /// all files of a large volume can be made, as the only one of its client.
    fn exceeds(
        &self,
        counts: impl Fn(&Stored) -> bool,
        bytes: u64,
        (count_max, bytes_max): (usize, u64),
    ) -> bool {
        let (mut count, mut sum) = (0usize, 0u64);
        for plan in self.plans.values().filter(|p| counts(p)) {
            count = count.saturating_add(1);
            sum = sum.saturating_add(plan.bytes.min(BYTES_OF_ONE_MAX));
        }
        let bytes = bytes.min(BYTES_OF_ONE_MAX);
        count > 0 && (count >= count_max || sum.saturating_add(bytes) > bytes_max)
    }

    /// The one that can be spared most easily, at most so worthy.
    fn oldest(&self, counts: impl Fn(&Stored) -> bool, most: Worth, now: Seconds) -> Option<String> {
        let all = self.plans.iter().filter(|(_, p)| counts(p));
        let spared = all.filter_map(|(id, p)| {
            let worth = worth(p, now).filter(|w| *w <= most)?;
            Some(((worth, p.created, p.order), id))
        });
        spared.min().map(|(_, id)| id.clone())
    }

    fn leave(&mut self, id: &str) -> (String, u32) {
        let left = self.plans.remove(id);
        (id.to_owned(), left.map_or(0, |p| p.chunks))
    }
}

fn worth(plan: &Stored, now: Seconds) -> Option<Worth> {
    match plan.state {
        State::Making | State::Running => None,
        State::Failed => Some(Worth::Failed),
        State::Used => Some(Worth::Past),
        State::Ready if plan.created.age_at(now) >= super::EXPIRES_AFTER_SECONDS => Some(Worth::Past),
        State::Ready => Some(Worth::Ready),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Seconds = Seconds(10_000_000);

    fn stored(by: u8, age: u32, bytes: u64, state: State) -> Stored {
        Stored::new(&format!("uid {by}"), Seconds(NOW.0 - age), (bytes, 1), state)
    }

    fn states() -> impl Strategy<Value = State> {
        prop::sample::select(vec![
            State::Making,
            State::Ready,
            State::Running,
            State::Used,
            State::Failed,
        ])
    }

    proptest! {
        /// For any stored plans: what is needed stays, another's that can be applied stays, and with room the bounds hold.
        #[test]
        fn room_is_made_of_what_may_go(
            plans in prop::collection::vec((0u8..4, 0u32..200_000, 0u64..(300 << 20), states()), 0..140),
            by in 0u8..4,
            bytes in 0u64..(300 << 20),
        ) {
            let mut shelf = Shelf::default();
            for (n, (by, age, bytes, state)) in plans.iter().enumerate() {
                shelf.put(&format!("p{n:03}"), stored(*by, *age, *bytes, *state));
            }
            let before = shelf.plans.clone();
            let name = format!("uid {by}");
            let asked = By::client(&name);
            let (leaving, room) = shelf.make_room(asked, bytes, NOW);
            for (id, _) in &leaving {
                let gone = &before[id];
                prop_assert!(!matches!(gone.state, State::Making | State::Running));
                prop_assert!(gone.by == name || worth(gone, NOW) == Some(Worth::Past));
                prop_assert!(shelf.get(id).is_none());
            }
            prop_assert_eq!(shelf.plans.len() + leaving.len(), before.len());
            if room.is_ok() && !asked.always {
                let own = || shelf.plans.values().filter(|p| p.by == name);
                let counted = |bytes: u64| bytes.min(BYTES_OF_ONE_MAX);
                let sum = |own: bool| -> u64 {
                    let plans = shelf.plans.values().filter(|p| !own || p.by == name);
                    plans.map(|p| counted(p.bytes)).sum::<u64>() + counted(bytes)
                };
                prop_assert!(own().count() == 0 || sum(true) <= BYTES_OF_ONE_MAX);
                prop_assert!(own().count() < PLANS_OF_ONE_MAX && shelf.plans.len() < PLANS_MAX);
                prop_assert!(sum(false) <= BYTES_MAX);
            }
        }
    }

    #[test]
    fn the_oldest_of_the_same_client_goes_and_the_newest_stays() {
        let mut shelf = Shelf::default();
        for n in (0..PLANS_OF_ONE_MAX as u32).rev() {
            shelf.put(&format!("p{n:03}"), stored(1, 1000 + n / 2, 1, State::Ready));
            shelf.put(&format!("q{n:03}"), stored(2, 5000, 1, State::Ready));
        }
        // Of one second the one that was made first, regardless of their names.
        let (leaving, room) = shelf.make_room(By::client("uid 1"), 1, NOW);
        assert_eq!((leaving, room), (vec![("p099".to_owned(), 1)], Ok(())));
    }

    #[test]
    fn one_client_has_few_made_at_a_time() {
        let mut shelf = Shelf::default();
        for n in 0..MAKING_OF_ONE_MAX {
            shelf.put(&format!("p{n}"), stored(1, 0, 1, State::Making));
        }
        assert!(shelf.make_room(By::client("uid 1"), 1, NOW).1.is_err());
        assert!(shelf.make_room(By::client("uid 2"), 1, NOW).1.is_ok());
        assert!(shelf.make_room(By::agent("uid 1"), 1, NOW).1.is_ok());
    }

    #[test]
    fn a_large_plan_has_room_when_it_is_the_only_one() {
        let mut shelf = Shelf::default();
        let large = BYTES_MAX * 2;
        for client in 1..=4 {
            let name = format!("uid {client}");
            assert!(shelf.make_room(By::client(&name), large, NOW).1.is_ok());
            shelf.put(&format!("p{client}"), stored(client, 0, large, State::Ready));
        }
        assert!(shelf.make_room(By::client("uid 5"), 1, NOW).1.is_err());
        assert!(shelf.make_room(By::client("uid 0"), 1, NOW).1.is_ok());
        let (leaving, room) = shelf.make_room(By::client("uid 1"), large, NOW);
        assert_eq!((leaving.len(), room), (1, Ok(())));
    }
}
