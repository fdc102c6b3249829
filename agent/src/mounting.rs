//! `purge-agent mount`: the mount by which users come to a volume with `collector = "fuse"`. A process of its own, so that the agent may end and
//! come back without any user noticing.
//!
//! | what happens | what follows |
//! |---|---|
//! | SIGTERM, SIGINT | it unmounts; files that are open stay so for [`OPEN_FILES_END_WITHIN`] |
//! | SIGHUP | it ends without unmounting, and whom keeps its descriptors (systemd, the parent) starts it again: users wait for that moment |
//! | it is killed | the same |
//! | `umount` by others | it ends |

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::volume::beside;
use purge_base::handover::{self, BUFFER, Handover};
use purge_collect::fuse::asking;
use purge_collect::fuse::told::{self, Teller};
use purge_config::{Collector, Config, VolumeConfig};
use purge_mount::ground::Ground;
use purge_mount::running::{self, Kept, Place, Running};
use purge_mount::taking::KEPT_MAX;
use purge_removal::trash::layout::NAME;
use purge_sys::fanotify::{Feature, Features};
use purge_sys::{acting, fuse, lease, mountinfo, stat};

/// Files that are open when it is to end stay usable so long; the unit's TimeoutStopSec is longer.
const OPEN_FILES_END_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked whether it is unmounted.
const LOOKED_EVERY: Duration = Duration::from_millis(200);
/// It ends with this code to be started again with the descriptors that are kept: nothing has failed. The unit names it.
const GOES_ON: u8 = 75;
/// A table of mounts is not longer.
const TABLE_BYTES_MAX: u64 = 64 << 20;

/// Arguments of `mount`.
#[derive(Debug, clap::Args)]
pub struct Mounting {
    /// The directory behind the mount: the path of a volume with collector = "fuse".
    #[arg(required_unless_present = "volume")]
    pub backing: Option<PathBuf>,
    /// Where users are to see it.
    #[arg(required_unless_present = "volume")]
    pub mountpoint: Option<PathBuf>,
    /// The volume by its name: both places are those of the configuration.
    #[arg(long, conflicts_with_all = ["backing", "mountpoint"])]
    pub volume: Option<String>,
    /// The configuration file.
    #[arg(long, default_value = purge_config::DEFAULT_FILE)]
    pub config: PathBuf,
    /// Do without the parent process that keeps the mount over a crash where systemd does not.
    #[arg(long)]
    pub single_process: bool,
}

/// Mounts and serves until it is to end.
///
/// # Errors
/// When it cannot be mounted.
pub fn run(asked: &Mounting) -> anyhow::Result<ExitCode> {
    purge_sys::private::by_default();
    // Before any thread: each has it then.
    acting::heed_quotas().context("cannot give up CAP_SYS_RESOURCE")?;
    purge_sys::limits::raise_open_files();
    let mut handover = Handover::take();
    let config = Config::load(&asked.config).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(lines.join("\n"))
    })?;
    let volume = volume(&config, asked)?;
    let place = place(volume, asked)?;
    let told = told::place(&beside::directory(&config.state_dir, &volume.name));
    let teller = Teller::begin(&told).with_context(|| {
        format!(
            "cannot tell uses in {}: is another mount of the volume running?",
            told.display()
        )
    })?;
    let key = format!("mount.{}", volume.name);
    let ground =
        running::ground(&place, NAME).with_context(|| format!("cannot open {}", place.behind.display()))?;
    let place = Place {
        passthrough: place.passthrough && leases_see_mappings(&place, &ground),
        ..place
    };
    // What the agent keeps from users by an earlier process is decided on first.
    if !asking::wait_for_earlier(&told, KEPT_MAX).context("cannot lock what the agent takes")? {
        tracing::warn!("the agent has not decided on what it keeps from users: they do not wait any longer");
    }
    if !ground.has_handles() {
        tracing::warn!(
            "this file system has no file handles: each file that users know of is held open, and the mount does not outlive this process"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    // Before it is mounted: from then on it unmounts when it is told to end.
    let signals = runtime.block_on(async { Signals::new() })?;
    let kept = match claim(&mut handover, &key) {
        Some(kept) => kept,
        None => {
            detach_what_died(&place.point)?;
            let kept = running::mount(&place, &ground)
                .with_context(|| format!("cannot mount at {}", place.point.display()))?;
            handover::keep(&handover::queue_name(&key), &kept.device);
            if let Some(slots) = &kept.slots {
                handover::keep(&format!("{key}{BUFFER}"), slots);
            }
            kept
        }
    };
    let listener = asking::listen(&told).context("cannot listen for the agent")?;
    let agent = running::Agent { teller, listener };
    let running = Running::begin(&place, ground, kept, Some(agent)).context("cannot serve the mount")?;
    let agreed = running.agreed();
    let (behind, point) = (place.behind.display(), place.point.display());
    tracing::info!(volume = %volume.name, %behind, %point, passthrough = agreed.passthrough, resend = agreed.resend, "mounted");
    sd_notify::notify(false, &[sd_notify::NotifyState::Ready]).ok();
    let code = runtime.block_on(until_told(&running, &place.point, signals));
    if code == 0 {
        handover::release(&key);
    }
    Ok(ExitCode::from(code))
}

/// Which volume is meant.
fn volume<'c>(config: &'c Config, asked: &Mounting) -> anyhow::Result<&'c VolumeConfig> {
    let is_it = |volume: &&VolumeConfig| match (&asked.volume, &asked.backing) {
        (Some(name), _) => volume.name == *name,
        (None, Some(path)) => volume.path == *path,
        (None, None) => false,
    };
    let Some(volume) = config.volumes.iter().find(is_it) else {
        bail!(
            "no such volume in {}: name one with --volume, or its path",
            asked.config.display()
        );
    };
    if volume.collector != Collector::Fuse {
        bail!(
            "volume {} has no collector = \"fuse\": without it the agent does not hear what the mount tells",
            volume.name
        );
    }
    Ok(volume)
}

fn place(volume: &VolumeConfig, asked: &Mounting) -> anyhow::Result<Place> {
    let point = asked.mountpoint.clone().or_else(|| volume.mount.clone());
    let point = point.context("no place to mount at")?;
    if !point.is_absolute() || point.starts_with(&volume.path) || volume.path.starts_with(&point) {
        bail!(
            "cannot mount at {}: name an absolute path apart from the volume's",
            point.display()
        );
    }
    let allowed = Features::allowed()?;
    Ok(Place {
        behind: volume.path.clone(),
        point,
        passthrough: allowed.has(Feature::FusePassthrough),
        resend: allowed.has(Feature::FuseResend),
    })
}

/// Whether a lease is refused while a file behind is mapped. Where there are none the mount has to know of each mapping, and does not if the kernel
/// reads files by itself.
fn leases_see_mappings(place: &Place, ground: &Ground) -> bool {
    let is_far = stat::mount(&place.behind).map_or(true, |mount| mount.may_be_shared());
    let are_given = !is_far && lease::are_enabled() && lease::are_given(ground.top()).unwrap_or(true);
    if !are_given {
        tracing::info!(
            "no leases here, or other hosts use the files: the mount reads and writes them, so that it knows which are in use"
        );
    }
    are_given
}

/// What an earlier process left.
fn claim(handover: &mut Handover, key: &str) -> Option<Kept> {
    let device = handover.claim(&handover::queue_name(key))?;
    let slots = handover.claim(&format!("{key}{BUFFER}"));
    // Without them nothing that the kernel names would be found.
    slots.is_some().then_some(Kept { device, slots })
}

/// Takes away what a mount left whose process was killed, and whose descriptor no process kept. That there is no other process the lock of the
/// log says.
fn detach_what_died(point: &Path) -> anyhow::Result<()> {
    let (table, _) = mountinfo::read(Path::new("/proc/self/mountinfo"), TABLE_BYTES_MAX)?;
    let wanted = point.as_os_str().as_bytes();
    let is_ours = |line: &mountinfo::Line<'_>| line.kind == fuse::KIND.as_bytes() && *line.point() == *wanted;
    for _ in mountinfo::lines(&table).filter(is_ours) {
        tracing::warn!(point = %point.display(), "unmounting what an earlier process left: files that were open there are lost to who has them open");
        fuse::unmount(point, true).with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// The signals by which it is told what to do.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    again: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            again: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for a signal, or for the end of the mount. With which code this process is to end.
async fn until_told(running: &Running, point: &Path, mut signals: Signals) -> u8 {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.again.recv() => return GOES_ON,
            () = tokio::time::sleep(LOOKED_EVERY) => {
                if running.has_ended() {
                    tracing::info!("unmounted");
                    return 0;
                }
            }
        }
    }
    unmount(running, point).await;
    0
}

async fn unmount(running: &Running, point: &Path) {
    if let Err(error) = fuse::unmount(point, false) {
        let open = running.open_files();
        tracing::warn!(%error, open, "users are still there: no path leads to the mount any more, and open files stay so for a while");
        if let Err(error) = fuse::unmount(point, true) {
            tracing::error!(%error, "cannot unmount");
        }
    }
    let began = Instant::now();
    while !running.has_ended() && began.elapsed() < OPEN_FILES_END_WITHIN {
        tokio::time::sleep(LOOKED_EVERY).await;
    }
}
