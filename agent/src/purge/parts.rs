//! Hands the candidates of a plan to the workers of a run, part by part and in the plan's order.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::candidate::{Candidate, Part};
use super::ledger::Position;
use super::pace::Pace;
use super::plans::Plans;
use crate::index::StoreError;

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

    /// The next candidates, all of one rule and as many as fit together; none when nothing is left.
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
        let of_a_rule = self
            .chunk
            .get(first..)?
            .chunk_by(|a, b| a.rule == b.rule)
            .next()?;
        let end = first + pace.batch_len(of_a_rule);
        self.at.first = u32::try_from(end).ok()?;
        Some((at, Part::of(&self.chunk, first..end)))
    }
}
