//! Hands the candidates of a plan to the workers of a run, part by part and in the plan's order.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::candidate::{Candidate, Part};
use crate::plans::Plans;
use crate::run::ledger::Position;
use crate::run::pace::Pace;
use purge_index::StoreError;

/// What is left of some chunks of a plan.
#[derive(Debug)]
pub struct Parts<'a> {
    plans: &'a Plans,
    plan_id: &'a str,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    /// Chunks that were not read yet.
    chunks: Range<u32>,
    /// The one that was read last, and how much of it was given.
    chunk: Arc<[Candidate]>,
    at: Position,
}

impl<'a> Parts<'a> {
    /// All of these chunks.
    pub fn of(plans: &'a Plans, plan_id: &'a str, chunks: Range<u32>) -> Self {
        Self {
            plans,
            plan_id,
            left: Mutex::new(Left {
                chunks,
                chunk: Arc::default(),
                at: Position { chunk: 0, first: 0 },
            }),
        }
    }

    /// The next candidates, all of one rule and one shape, and as many as fit together; none when nothing is left.
    ///
    /// # Errors
    /// When a chunk cannot be read: ask again for what follows it.
    pub fn next(&self, pace: &Pace) -> Result<Option<(Position, Part)>, StoreError> {
        let mut left = self.left.lock();
        loop {
            if let Some(next) = left.next(pace) {
                return Ok(Some(next));
            }
            let Some(number) = left.chunks.next() else {
                return Ok(None);
            };
            left.chunk = self.plans.chunk(self.plan_id, number)?.into();
            left.at = Position {
                chunk: number,
                first: 0,
            };
        }
    }
}

impl Left {
    fn next(&mut self, pace: &Pace) -> Option<(Position, Part)> {
        let at = self.at;
        let first = usize::try_from(at.first).ok()?;
        let alike = self
            .chunk
            .get(first..)?
            // Directories that go as a whole take long to compare: no process waits for them at the lease of a file.
            .chunk_by(|a, b| a.rule == b.rule && a.shape == b.shape)
            .next()?;
        let end = first + pace.batch_len(alike);
        self.at.first = u32::try_from(end).ok()?;
        Some((at, Part::of(&self.chunk, first..end)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::candidate::testing::candidate;
    use crate::take::room::Room;

    proptest! {
        #[test]
        fn every_candidate_is_given_once_and_neither_rules_nor_shapes_are_mixed(
            rows in prop::collection::vec((0u16..3, 0u64..4000), 0..600),
            max_rate in 0u64..300,
        ) {
            let chunk: Arc<[Candidate]> =
                (0..).zip(&rows).map(|(ino, (rule, files))| candidate(ino, *rule, *files)).collect();
            let mut left = Left { chunks: 0..0, chunk, at: Position { chunk: 7, first: 0 } };
            let pace = Pace::begin(max_rate, Room::of(10_000, 4));
            let mut given = Vec::new();
            while let Some((at, part)) = left.next(&pace) {
                prop_assert_eq!((at.chunk, at.first as usize), (7, given.len()));
                prop_assert!(!part.is_empty() && part.iter().all(|c| (c.rule, c.shape) == (part[0].rule, part[0].shape)));
                given.extend(part.iter().map(|c| c.ino));
            }
            prop_assert_eq!(given, (0..rows.len() as u64).collect::<Vec<_>>());
        }
    }
}
