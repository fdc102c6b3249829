//! `purge-agent demo`: the main job in one command, through the real agent, gRPC and purgectl.
//!
//! Everything it makes lies in one temporary directory and goes with it, also when it is interrupted.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use purge_proto::shown::Shown;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::host::Host;
use crate::serve;
use crate::volume::State;
use purge_base::handover::Handover;
use purge_config::Config;

/// What expires in the demo's own tree.
const DEMO_TTL_SECONDS: u64 = 3;
/// What counts as expired on a directory of the user's, unless he says otherwise.
const VOLUME_TTL_SECONDS: u64 = 28 * 86_400;
/// What an interrupted agent may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// A first scan of a large directory takes its time.
const SCAN_PATIENCE: Duration = Duration::from_secs(3600);

/// Runs the demo.
///
/// # Errors
/// When the kernel does not let the agent watch, or anything else the agent itself would report.
pub fn run(volume: Option<PathBuf>, ttl: Option<u64>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    // Before anything is made: an interrupted demo clears up.
    let (mut interrupted, mut ended) = {
        let _inside = runtime.enter();
        let waited_for = |kind| signal(kind).context("cannot wait for signals");
        (
            waited_for(SignalKind::interrupt())?,
            waited_for(SignalKind::terminate())?,
        )
    };
    let scratch = Scratch::new()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = show(&scratch, volume, ttl) => done,
            _ = interrupted.recv() => bail!("interrupted"),
            _ = ended.recv() => bail!("ended by SIGTERM"),
        }
    });
    // An agent that was just starting ends before its place goes.
    runtime.shutdown_timeout(ENDS_WITHIN);
    drop(scratch);
    done
}

async fn show(scratch: &Scratch, volume: Option<PathBuf>, ttl: Option<u64>) -> anyhow::Result<()> {
    match volume {
        Some(dir) => on_directory(scratch, &dir, ttl.unwrap_or(VOLUME_TTL_SECONDS)).await,
        None => on_small_tree(scratch, ttl.unwrap_or(DEMO_TTL_SECONDS)).await,
    }
}

// ---------------------------------------------------------------- a directory of the user's

async fn on_directory(scratch: &Scratch, dir: &Path, ttl: u64) -> anyhow::Result<()> {
    say(&format!("Indexing {}. Nothing will be deleted.", dir.display()));
    let mut agent = Agent::start(scratch, dir, ttl).await?;
    agent.wait_for_scan().await?;
    agent.purgectl(&["status"]).await?;
    agent.purgectl(&["usage"]).await?;
    agent.purgectl(&["plan"]).await?;
    say("Nothing was deleted: a demo on a directory of yours only looks.");
    agent.stop().await;
    Ok(())
}

// ---------------------------------------------------------------- a tree of its own

async fn on_small_tree(scratch: &Scratch, ttl: u64) -> anyhow::Result<()> {
    let tree = scratch.make_tree()?;
    say(&format!(
        "A small tree in {}, on {}.",
        tree.display(),
        scratch.describe()
    ));
    let mut agent = Agent::start(scratch, &tree, ttl).await?;
    agent.wait_for_scan().await?;
    agent.purgectl(&["status"]).await?;

    say(&format!(
        "Files expire when no process uses them for {ttl} s. Waiting until all of them have expired."
    ));
    tokio::time::sleep(Duration::from_secs(ttl + 2)).await;
    say("Two are used again: one is read, one is written. `stat` and `ls` are no use.");
    shell(&tree, "cat projects/alice/result-2.dat > /dev/null")?;
    shell(&tree, "echo more >> projects/bob/notes.txt")?;
    shell(
        &tree,
        "ls -lR . > /dev/null; stat projects/alice/result-1.dat > /dev/null",
    )?;
    agent
        .purgectl(&[
            "hold",
            "add",
            &tree.join("projects/carol").to_string_lossy(),
            "--reason",
            "paper under review",
        ])
        .await?;

    say("What would go, and why:");
    let plan = agent.make_plan().await?;
    agent.purgectl(&["show", &plan, "--limit", "8"]).await?;
    say("Removing exactly that:");
    agent.purgectl(&["apply", &plan, "--yes"]).await?;

    say("What is left, and why:");
    for file in files_below(&tree)? {
        let below = file.strip_prefix(&tree).unwrap_or(&file);
        println!("  {}", Shown::name(below.as_os_str().as_bytes()));
    }
    for file in [
        "projects/alice/result-2.dat",
        "projects/bob/notes.txt",
        "projects/carol/draft.tex",
    ] {
        let path = tree.join(file);
        if !path.exists() {
            bail!(
                "{file} was used or held, and was deleted all the same: this is a defect, please report it"
            );
        }
        agent.purgectl(&["explain", &path.to_string_lossy()]).await?;
    }
    if tree.join("projects/alice/result-1.dat").exists() {
        bail!("result-1.dat had expired and is still there: this is a defect, please report it");
    }
    agent.stop().await;
    Ok(())
}

fn shell(dir: &Path, line: &str) -> anyhow::Result<()> {
    // A process of its own: what the agent itself reads is no use.
    println!("  $ {}", Shown::text(line));
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .status()
        .context("cannot run sh")?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

fn files_below(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files_below(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn say(words: &str) {
    let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}{words}{off}");
    let _ = std::io::stdout().flush();
}

// ---------------------------------------------------------------- the agent

/// A host that is stopped when it is dropped, at any point of an interruption: it would go on writing where all is removed.
struct Running(Arc<Host>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Agent {
    host: Option<Running>,
    endpoint: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<Result<(), serve::ServeError>>>,
}

impl Agent {
    async fn start(scratch: &Scratch, volume: &Path, ttl: u64) -> anyhow::Result<Self> {
        let socket = scratch.dir.path().join("agent.sock");
        let mut config = Config::for_volume(
            volume,
            Some(ttl),
            scratch.dir.path().join("state"),
            socket.clone(),
        )
        .map_err(|faults| {
            anyhow::anyhow!(
                faults
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            )
        })?;
        let is_made_for_it = volume.starts_with(scratch.dir.path());
        for volume in &mut config.volumes {
            volume.only_looks = !is_made_for_it;
        }
        let listener = serve::incoming::listen(&config.listen, &config.access)?;
        let start = move || Host::start(&config, Handover::default()).map(Running);
        let host = tokio::task::spawn_blocking(start).await??;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(serve::serve(
            Arc::clone(&host.0),
            serve::Entrances {
                local: listener,
                tls: None,
            },
            Arc::default(),
            Arc::default(),
            shutdown,
        ));
        let endpoint = format!("unix://{}", socket.display());
        Ok(Self {
            host: Some(host),
            endpoint,
            stop: Some(stop),
            served: Some(served),
        })
    }

    async fn wait_for_scan(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let volumes = self.host.as_ref().map(|h| h.0.volumes()).unwrap_or_default();
        for volume in volumes {
            loop {
                match volume.condition().state {
                    State::Tracking => break,
                    State::Degraded(reason) => bail!("the volume is degraded: {reason}"),
                    State::Scanning if began.elapsed() > SCAN_PATIENCE => {
                        bail!("the scan takes more than an hour")
                    }
                    State::Scanning => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        }
        Ok(())
    }

    /// Runs purgectl in this process and shows what it prints.
    async fn purgectl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        println!("\n  $ purgectl {}", Shown::from(arguments.join(" ")));
        let all = ["purgectl", "--endpoint", &self.endpoint]
            .into_iter()
            .chain(arguments.iter().copied());
        match purgectl::run(all.map(OsString::from).collect()).await {
            0 => Ok(()),
            code => bail!("purgectl {} ended with exit code {code}", arguments.join(" ")),
        }
    }

    /// Shows a plan and returns its name.
    async fn make_plan(&self) -> anyhow::Result<String> {
        self.purgectl(&["plan"]).await?;
        let host = self.host.as_ref().context("the agent has stopped")?;
        let newest = host.0.plans.list()?.into_iter().next();
        Ok(newest.context("no plan was saved")?.id)
    }

    async fn stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(served) = self.served.take() {
            // Clients that linger need not be waited for.
            let _ = tokio::time::timeout(Duration::from_secs(2), served).await;
        }
        if let Some(host) = self.host.take() {
            let _ = tokio::task::spawn_blocking(move || drop(host)).await;
        }
    }
}

// ---------------------------------------------------------------- the place

/// Everything the demo makes; dropping it removes all of it.
struct Scratch {
    /// Something is known to be mounted on `dir/volume`.
    mounted: std::cell::Cell<bool>,
    dir: TempDir,
}

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("purge-agent-demo-")
            .tempdir()
            .context("cannot make a directory")?;
        Ok(Self {
            mounted: false.into(),
            dir,
        })
    }

    fn describe(&self) -> &'static str {
        if self.mounted.get() {
            "a noatime ext4 loop mount"
        } else {
            "this file system"
        }
    }

    /// A small tree, on a loop mount of its own where that may be.
    fn make_tree(&self) -> anyhow::Result<PathBuf> {
        let top = self.dir.path().join("volume");
        fs::create_dir(&top)?;
        self.mounted.set(self.mount(&top).is_some());
        let tree = top.join("scratch");
        for (file, bytes) in [
            ("projects/alice/result-1.dat", 4 << 20),
            ("projects/alice/result-2.dat", 3 << 20),
            ("projects/alice/tmp/cache-a.bin", 512 << 10),
            ("projects/alice/tmp/cache-b.bin", 512 << 10),
            ("projects/bob/notes.txt", 300),
            ("projects/bob/run-17/log.txt", 9_000),
            ("projects/bob/run-17/checkpoint.pt", 8 << 20),
            ("projects/carol/draft.tex", 20_000),
            ("shared/odd name\nwith a newline.csv", 100),
        ] {
            let path = tree.join(file);
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            File::create(&path)?.set_len(bytes)?;
        }
        std::os::unix::fs::symlink("projects/alice/result-2.dat", tree.join("latest"))?;
        Ok(tree)
    }

    fn mount(&self, at: &Path) -> Option<()> {
        let image = self.dir.path().join("image");
        File::create(&image).and_then(|f| f.set_len(64 << 20)).ok()?;
        quietly(Command::new("mkfs.ext4").args(["-qF"]).arg(&image))?;
        quietly(
            Command::new("mount")
                .args(["-o", "loop,noatime"])
                .arg(&image)
                .arg(at),
        )
    }
}

fn quietly(command: &mut Command) -> Option<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok()?;
    status.success().then_some(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An interruption from the terminal ends `mount` as well: with any exit status, it may have mounted.
        let volume = self.dir.path().join("volume");
        let umount = |flags: &[&str]| quietly(Command::new("umount").args(flags).arg(&volume));
        if self.dir.path().join("image").exists() && umount(&[]).is_none() {
            umount(&["-l"]);
        }
    }
}
