//! What there was at earlier times: a sample an hour of each volume's space and of what its quotas sum, for the last week.
//!
//! It lies in `STATE_DIR/growth`, a run of checksummed frames, and is of no use but for forecasts: a damaged one is begun again.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use parking_lot::Mutex;
use prost::Message;

use purge_format::frame::{Frames, put_frame};
use purge_model::Seconds;
use purge_policy::growth::{MEASURED_MIN, worth_keeping};

/// What a volume held at one moment.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// When.
    #[prost(uint32, tag = "1")]
    pub at: u32,
    /// The volume's name.
    #[prost(string, tag = "2")]
    pub volume: String,
    /// Bytes in use on the file system.
    #[prost(uint64, tag = "3")]
    pub used: u64,
    /// Inodes in use.
    #[prost(uint64, tag = "4")]
    pub inodes: u64,
    /// What its quotas sum.
    #[prost(message, repeated, tag = "5")]
    pub shares: Vec<Share>,
}

/// What one subject of a quota used.
#[derive(Clone, PartialEq, Message)]
pub struct Share {
    /// The quota's name.
    #[prost(string, tag = "1")]
    pub quota: String,
    /// Whose.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// Apparent bytes.
    #[prost(double, tag = "3")]
    pub bytes: f64,
    /// Byte-days.
    #[prost(double, tag = "4")]
    pub byte_days: f64,
}

/// A volume is sampled so often, in seconds.
const SAMPLE_EVERY: u64 = 3600;
/// Subjects of one sample, the largest: more people than this do not reach a quota at once.
pub const SHARES_MAX: usize = 10_000;

/// For tests: growth is known after this number of seconds.
const LEAST_VARIABLE: &str = "PURGE_AGENT_GROWTH_SECONDS";

/// Over how many seconds growth must be measured before anything is said of it.
pub fn measured_for_at_least() -> u64 {
    static LEAST: LazyLock<u64> = LazyLock::new(|| {
        let seconds = std::env::var(LEAST_VARIABLE).ok().and_then(|s| s.parse().ok());
        seconds.unwrap_or(MEASURED_MIN)
    });
    *LEAST
}

/// The samples of all volumes.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    samples: Mutex<Vec<Sample>>,
}

impl History {
    /// What was sampled by earlier processes.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("growth");
        let bytes = fs::read(&path).unwrap_or_default();
        let samples = Frames::new(&bytes).filter_map(|body| Sample::decode(body).ok());
        let mut samples: Vec<Sample> = samples.collect();
        samples.sort_by_key(|s| s.at);
        Self {
            path,
            samples: Mutex::new(samples),
        }
    }

    /// Whether a volume is to be sampled again.
    pub fn is_due(&self, volume: &str, now: Seconds) -> bool {
        let last = self.of(volume).last().map(|s| Seconds(s.at));
        // A clock that was set back makes samples of the future.
        last.is_none_or(|last| last > now || last.age_at(now) >= SAMPLE_EVERY)
    }

    /// The samples of a volume, oldest first.
    pub fn of(&self, volume: &str) -> Vec<Sample> {
        let all = self.samples.lock();
        all.iter().filter(|s| s.volume == volume).cloned().collect()
    }

    /// Adds a sample, and forgets what is too old.
    ///
    /// # Errors
    /// When it cannot be written; it is known until the agent ends in any case.
    pub fn add(&self, sample: Sample) -> io::Result<()> {
        let now = Seconds(sample.at);
        let mut all = self.samples.lock();
        all.retain(|s| s.at < sample.at);
        all.push(sample);
        let mut volumes: Vec<String> = all.iter().map(|s| s.volume.clone()).collect();
        volumes.sort_unstable();
        volumes.dedup();
        for volume in volumes {
            let of_volume = all.iter().filter(|s| s.volume == volume);
            let at: Vec<Seconds> = of_volume.map(|s| Seconds(s.at)).collect();
            let mut keep = worth_keeping(&at, now).into_iter();
            all.retain(|s| s.volume != volume || keep.next().unwrap_or(true));
        }
        let mut bytes = Vec::new();
        for sample in all.iter() {
            put_frame(&mut bytes, |body| body.extend(sample.encode_to_vec()));
        }
        let next = self.path.with_extension("new");
        let mut file = purge_sys::private::create(&next)?;
        file.write_all(&bytes)?;
        fs::rename(&next, &self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn samples_outlive_the_process_and_damage_only_loses_some() {
        let dir = tempfile::tempdir().unwrap();
        let sample = |at: u32, volume: &str| Sample {
            at,
            volume: volume.into(),
            used: u64::from(at),
            ..Sample::default()
        };
        let history = History::load(dir.path());
        assert!(history.is_due("a", Seconds(1000)));
        for at in [1000, 5000, 9000] {
            history.add(sample(at, "a")).unwrap();
        }
        history.add(sample(9500, "b")).unwrap();
        assert!(!history.is_due("a", Seconds(9600)) && history.is_due("a", Seconds(12_600)));
        let again = History::load(dir.path());
        let times: Vec<u32> = again.of("a").iter().map(|s| s.at).collect();
        assert_eq!(times, [1000, 5000, 9000]);
        let path = dir.path().join("growth");
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 3);
        fs::write(&path, bytes).unwrap();
        assert_eq!(
            (
                History::load(dir.path()).of("a").len(),
                History::load(dir.path()).of("b").len()
            ),
            (3, 0)
        );
    }
}
