//! `purge-agent`: arguments, configuration, wiring.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use purge_agent::arguments::{Arguments, Command, Run};
use purge_agent::config::{Config, Fault};
use purge_agent::handover::Handover;
use purge_agent::host::Host;
use purge_agent::{demo, schedule, serve};
use tokio::signal::unix::{SignalKind, signal};

/// How often it is looked whether the agent must be started again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    purge_agent::sys::memory::few_arenas();
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Run(run) => {
            init_log();
            purge_agent::sys::limits::raise_open_files();
            let handover = Handover::take();
            read_config(&run)
                .map_err(|faults| anyhow::anyhow!(in_lines(&faults)))
                .and_then(|c| run_agent(&c, &run, handover))
                .and_then(|again| if again { start_again() } else { Ok(()) })
        }
        Command::Check { config } => return check(&config),
        Command::Demo { volume, ttl } => demo::run(volume, ttl),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("purge-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the program anew. Under systemd by ending, so that the event queues in its keeping are handed over.
fn start_again() -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        anyhow::bail!("ends, to be started again");
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot start again")
}

/// Logs go to stderr: for a person on a terminal, as JSON otherwise. `RUST_LOG` chooses what.
fn init_log() {
    use std::io::IsTerminal;
    // The AMQP library logs whole messages that came back; what became of a notice is said by its sender.
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,lapin=off".into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}

fn read_config(run: &Run) -> Result<Config, Vec<Fault>> {
    let Some(volume) = &run.volume else {
        return Config::load(&run.config);
    };
    let socket = run
        .listen
        .strip_prefix("unix:")
        .map(|p| p.strip_prefix("//").unwrap_or(p));
    let socket = socket.filter(|p| p.starts_with('/')).ok_or_else(|| {
        vec![Fault::elsewhere(
            "--listen",
            format!("{:?} is no address", run.listen),
            "write unix:/absolute/path",
        )]
    })?;
    Config::for_volume(volume, run.ttl, run.state_dir.clone(), socket.into())
}

fn in_lines(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn check(file: &std::path::Path) -> ExitCode {
    match Config::load(file) {
        Ok(config) => {
            config.warnings().iter().for_each(|w| eprintln!("warning: {w}"));
            let (volumes, rules) = (config.volumes.len(), config.rules.len());
            println!("{}: good ({volumes} volumes, {rules} rules)", file.display());
            ExitCode::SUCCESS
        }
        Err(faults) => {
            println!("{}", in_lines(&faults));
            ExitCode::FAILURE
        }
    }
}

/// True: it is to be started again.
fn run_agent(config: &Config, run: &Run, handover: Handover) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut reload = signal(SignalKind::hangup())?;
        let listener = serve::listen(&config.listen)?;
        let metrics = match config.listen.metrics {
            Some(address) => Some(serve::http::listen(address).await?),
            None => None,
        };
        let host = Host::start(config, handover)?;
        // From here on every access is recorded, even while the first scan is still running.
        tracing::info!(socket = %config.listen.unix.display(), volumes = config.volumes.len(), "ready");
        sd_notify::notify(false, &[sd_notify::NotifyState::Ready]).ok();
        if let Some(listener) = metrics {
            tokio::spawn(serve::http::serve(listener, Arc::clone(&host)));
        }
        let scheduler = tokio::spawn(schedule::keep(Arc::clone(&host)));
        let limits = tokio::spawn(schedule::keep_limits(Arc::clone(&host)));
        host.notifier.start();
        let telling = tokio::spawn(schedule::keep_telling(Arc::clone(&host)));
        let reloading = Arc::clone(&host);
        let again = Arc::new(AtomicBool::new(false));
        let begins_again = Arc::clone(&again);
        let shutdown = async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = reload.recv() => {
                        reloading.audit.reopen();
                        reload_rules(&reloading, run).await;
                    }
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        if let Some(why) = reloading.wants_restart() {
                            tracing::warn!(why, "starting again");
                            begins_again.store(true, Relaxed);
                            break;
                        }
                    }
                }
            }
            // Clients that follow a run hear how it ended before the server does.
            reloading.runs.cancel_all();
        };
        let served = serve::serve(Arc::clone(&host), listener, shutdown).await;
        sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]).ok();
        scheduler.abort();
        limits.abort();
        telling.abort();
        host.notifier.stop().await;
        tokio::task::spawn_blocking(move || host.stop()).await.ok();
        serve::unlisten(&config.listen.unix);
        tracing::info!("stopped");
        served?;
        Ok(again.load(Relaxed))
    })
}

/// SIGHUP: rules are read again. A file with a fault leaves the running ones in force.
async fn reload_rules(host: &Host, run: &Run) {
    match read_config(run) {
        Ok(config) => {
            tracing::info!(
                rules = config.rules.len(),
                "rules and notices were read again; other changes need a restart"
            );
            host.replace_rules(config.rules, config.limits);
            host.notifier.replace(config.notify).await;
        }
        Err(faults) => {
            for fault in faults {
                tracing::error!(%fault, "the configuration has a fault: the rules stay as they were");
            }
        }
    }
}
