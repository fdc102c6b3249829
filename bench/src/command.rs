//! Child processes, and what a signal does to them.
//!
//! The bench blocks in one child at a time (or in a short sleep). On SIGINT, SIGTERM or SIGHUP those children are
//! ended, the wait comes back with an error, and the guards run on the way out.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Children that a signal ends. Bounded by the few that the bench runs side by side.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Whether a signal asked the bench to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// From now on SIGINT, SIGTERM and SIGHUP end the children instead of this program.
pub fn end_children_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                    _ = hangup.recv() => (),
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
                let running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for pid in running.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                    // It may just have ended by itself.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
        });
    });
    Ok(())
}

/// A child that a signal ends; waited for when dropped.
pub struct Running(Child);

impl Running {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Result<Self> {
        ensure!(!interrupted(), "interrupted");
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        with_running(|running| running.insert(child.id()));
        Ok(Self(child))
    }

    /// What it prints; to be taken once.
    pub fn stdout(&mut self) -> Result<ChildStdout> {
        self.0.stdout.take().context("its output is not piped")
    }

    /// What it reads; to be taken once.
    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.0.stdin.take().context("its input is not piped")
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<ExitStatus> {
        Ok(self.0.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        with_running(|running| running.remove(&self.0.id()));
        // Waited for already, unless an error came between.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_running(change: impl FnOnce(&mut BTreeSet<u32>) -> bool) {
    change(&mut RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

/// Runs `command` and throws its output away.
pub fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = Running::start(command)?.wait()?;
    ensure!(!interrupted(), "interrupted");
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Runs `command` and returns how it ended and what it printed. The exit code is the caller's to judge.
pub fn output(command: &mut Command) -> Result<(ExitStatus, Vec<u8>)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(command)?;
    let mut printed = vec![];
    running.stdout()?.read_to_end(&mut printed)?;
    let status = running.wait()?;
    ensure!(!interrupted(), "interrupted");
    Ok((status, printed))
}

/// Sleeps, unless the bench is to stop.
pub fn pause(duration: Duration) -> Result<()> {
    ensure!(!interrupted(), "interrupted");
    sleep(duration);
    Ok(())
}
