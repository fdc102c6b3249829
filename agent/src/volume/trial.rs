//! Whether volumes could be watched as things are now: what `run` asks before it watches one, asked by `check` in the same way.

use super::VolumeError;
use super::at_path::{Lies, identity};
use super::start::choice;
use purge_collect::arming;
use purge_collect::source::Reads;
use purge_config::{Config, VolumeConfig};
use purge_model::Inode;
use purge_sys::{beneath, stat, subvolumes};

/// What `check` says of the volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trial {
    /// What `run` would refuse. Later mounts change nothing of that.
    pub refusals: Vec<String>,
    /// What it would wait for, or do without.
    pub warnings: Vec<String>,
}

/// Tries all volumes. Each is watched for a moment, and nothing is written.
pub fn of(config: &Config) -> Trial {
    let mut trial = Trial::default();
    if !rustix::process::geteuid().is_root() {
        let words = "whether the volumes can be watched is not known: only root can try it";
        trial.warnings.push(words.into());
        return trial;
    }
    for volume in &config.volumes {
        match try_out(volume) {
            Ok(words) => trial.warnings.extend(words),
            Err(e) if e.is_absence() && !leads_elsewhere(volume) => trial.warnings.push(e.to_string()),
            Err(e) => trial.refusals.push(e.to_string()),
        }
    }
    trial
}

/// What is to be known of a volume that can be watched.
fn try_out(config: &VolumeConfig) -> Result<Vec<String>, VolumeError> {
    let lies = Lies::at(config)?;
    identity(&config.path).map_err(|e| VolumeError::missing(config, format!("cannot be read: {e}")))?;
    let mut words = Vec::new();
    let (profile, refusals) = arming::try_out(choice(config), &lies.wish(config, &[]), lies.on(config))
        .map_err(|source| VolumeError::collect(config, &lies.mount, source))?;
    if !refusals.is_empty() {
        let refused: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        words.push(format!(
            "volume {}: it is watched by {} {}, because the better ways are refused: {}",
            config.name,
            profile.kind.word(),
            profile.mode.word(),
            refused.join("; ")
        ));
    }
    words.extend(unknown_reads(config, profile.reads));
    if lies.mount.read_only {
        words.push(format!(
            "volume {}: {} is mounted read-only; nothing can be deleted until it is writable",
            config.name,
            config.path.display()
        ));
    }
    words.extend(not_covered(config, lies.root.stat.ino));
    Ok(words)
}

/// That scans do not know of reads there.
fn unknown_reads(config: &VolumeConfig, reads: Reads) -> Option<String> {
    (reads == Reads::Unknown).then(|| {
        format!(
            "volume {}: reads leave no access time on {}; plans are refused unless their rules say clock = [\"modify\", \"change\"]",
            config.name,
            config.path.display()
        )
    })
}

/// Subvolumes of btrfs below the volume, in numbers. Where the kernel does not tell, the first scan counts them.
fn not_covered(config: &VolumeConfig, root: Inode) -> Option<String> {
    let count = beneath::open_root(&config.path)
        .and_then(subvolumes::within)
        .ok()?;
    let how_many = match (count, root == subvolumes::TOP_INODE) {
        (0, _) => return None,
        (count, true) => count.to_string(),
        // They may lie beside the volume.
        (count, false) => format!("up to {count}"),
    };
    Some(format!(
        "volume {}: {how_many} subvolumes lie below {}; what is in them is neither indexed nor removed: make each of them a volume",
        config.name,
        config.path.display()
    ))
}

/// A symbolic link stays one: to wait for a mount there is of no use.
fn leads_elsewhere(config: &VolumeConfig) -> bool {
    stat::path(&config.path).is_ok_and(|found| found.stat.kind == purge_model::Kind::Symlink)
}
