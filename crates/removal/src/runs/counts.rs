//! What runs came to since the agent started, for metrics. Every series of a volume is there from the beginning: what appears only with
//! its first failure is not seen to rise.

use parking_lot::Mutex;

use super::run::{REASONS, Run, RunState, Skipped};
use purge_model::Totals;

/// States that a run can end in, as the contract names them.
pub const STATES: [(&str, RunState); 4] = [
    ("completed", RunState::Completed),
    ("partial", RunState::Partial),
    ("cancelled", RunState::Cancelled),
    ("failed", RunState::Failed),
];

/// What can become of a candidate.
pub const FATES: [&str; 4] = ["deleted", "trashed", "skipped", "failed"];

/// The runs of one volume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunCounts {
    volume: String,
    /// Runs, in the order of [`STATES`].
    pub runs: [u64; STATES.len()],
    /// Files and directories, in the order of [`FATES`].
    pub candidates: [u64; FATES.len()],
    /// What was left alone, in the order of [`reasons`].
    pub skipped: [u64; REASONS],
    /// Bytes that were deleted, and trashed.
    pub bytes: [u64; 2],
    /// Files that were deleted, and trashed: those in directories that went as a whole too.
    pub files: [u64; 2],
    /// What the runs took together, seconds.
    pub seconds: f64,
    /// When the last one ended, seconds since 1970; 0: none has.
    pub last_end: i64,
}

/// The runs of all volumes.
#[derive(Debug, Default)]
pub struct EndedRuns(Mutex<Vec<RunCounts>>);

impl EndedRuns {
    /// Counts a run that is over.
    pub fn add(&self, run: &Run) {
        let mut all = self.0.lock();
        if !all.iter().any(|of| of.volume == run.volume) {
            all.push(RunCounts {
                volume: run.volume.clone(),
                ..RunCounts::default()
            });
        }
        if let Some(counts) = all.iter_mut().find(|of| of.volume == run.volume) {
            counts.add(run);
        }
    }

    /// The runs of a volume; all zero if there was none.
    pub fn of(&self, volume: &str) -> RunCounts {
        let all = self.0.lock();
        all.iter()
            .find(|of| of.volume == volume)
            .cloned()
            .unwrap_or_default()
    }
}

impl RunCounts {
    fn add(&mut self, run: &Run) {
        for (count, (_, state)) in self.runs.iter_mut().zip(STATES) {
            *count = count.saturating_add(u64::from(state == run.state));
        }
        let things = |totals: &Totals| totals.files.saturating_add(totals.directories);
        let fates = [
            things(&run.deleted),
            things(&run.trashed),
            run.skipped.total(),
            run.failed_total,
        ];
        for (count, (_, more)) in self.skipped.iter_mut().zip(run.skipped.by_reason()) {
            *count = count.saturating_add(more);
        }
        for (count, more) in self.candidates.iter_mut().zip(fates) {
            *count = count.saturating_add(more);
        }
        for (count, more) in self.bytes.iter_mut().zip([run.deleted.bytes, run.trashed.bytes]) {
            *count = count.saturating_add(more);
        }
        let files = [run.deleted.all_files(), run.trashed.all_files()];
        for (count, more) in self.files.iter_mut().zip(files) {
            *count = count.saturating_add(more);
        }
        self.seconds += run.seconds;
        self.last_end = run.finished.map_or(self.last_end, |at| at.unix());
    }
}

/// Why candidates are left alone, as the contract names it.
pub fn reasons() -> [&'static str; REASONS] {
    Skipped::default().by_reason().map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fate::Skip;

    #[test]
    fn every_candidate_is_counted_once_for_its_volume() {
        let totals = |files, directories, bytes| Totals {
            files,
            directories,
            bytes,
            ..Totals::default()
        };
        let mut skipped = Skipped::default();
        skipped.add(Skip::Open, 3);
        skipped.add(Skip::Held, 1);
        skipped.add(Skip::Leased, 1);
        let run = Run {
            volume: "a".into(),
            state: RunState::Partial,
            deleted: Totals {
                files_inside: 40,
                ..totals(3, 1, 100)
            },
            trashed: totals(2, 0, 10),
            skipped,
            failed_total: 7,
            seconds: 1.5,
            ..Run::default()
        };
        let runs = EndedRuns::default();
        runs.add(&run);
        runs.add(&run);
        let of = runs.of("a");
        assert_eq!(of.runs, [0, 2, 0, 0]);
        assert_eq!(of.candidates, [8, 4, 10, 14]);
        let skipped: Vec<_> = reasons()
            .into_iter()
            .zip(of.skipped)
            .filter(|(_, n)| *n > 0)
            .collect();
        assert_eq!(skipped, [("held", 2), ("open", 6), ("leased", 2)]);
        assert_eq!((of.bytes, of.files), ([200, 20], [86, 4]));
        assert!((of.seconds - 3.0).abs() < f64::EPSILON);
        assert_eq!(runs.of("b"), RunCounts::default());
    }
}
