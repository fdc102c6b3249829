//! `purge-agent`: arguments, configuration, wiring.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use purge_agent::arguments::{Arguments, Command, Run};
use purge_agent::host::Host;
use purge_agent::in_force::InForce;
use purge_agent::reload::Reload;
use purge_agent::reload::answer::{self, Answers};
use purge_agent::serve::gate::Doors;
use purge_agent::tls::Certificates;
use purge_agent::{demo, parent, schedule, serve, watchdog};
use purge_base::descriptors;
use purge_base::handover::Handover;
use purge_base::secret;
use purge_config::{Config, Fault};
use purge_notify::settings::{Means, Sink};
use purge_proto::shown::{Shown, page};
use purge_sys::fanotify::Features;
use tokio::signal::unix::{SignalKind, signal};

/// The agent ends with this code to be started again at once: nothing has failed. The unit names it (SuccessExitStatus=,
/// RestartForceExitStatus=).
const STARTED_AGAIN: u8 = 75;
/// How often it is looked whether the agent must be started again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A state directory that takes no change within so long keeps the agent from ending no longer.
const STATE_ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// The end takes no longer. The unit's TimeoutStopSec is longer.
const ENDS_WITHIN: Duration = Duration::from_secs(50);
/// And so long do tasks have that still wait then.
const TASKS_END_WITHIN: Duration = Duration::from_secs(1);
/// Reading the configuration takes milliseconds; names of users may have to be asked of a directory service.
const RELOADED_WITHIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    purge_sys::memory::few_arenas();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version; everything else repeats what was given.
        Err(e) if !e.use_stderr() => e.exit(),
        Err(e) => {
            let given: Vec<OsString> = std::env::args_os().collect();
            purgectl::output::complain_of_arguments(Arguments::command(), &given, &e);
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(u8::MAX));
        }
    };
    // A switch for tests that says something else than it is meant to must not go unnoticed.
    if let Err(error) = Features::allowed() {
        return complain(&error.into());
    }
    let done = match arguments.command {
        Command::Run(run) => {
            purge_agent::log::init();
            if parent::is_wanted(run.single_process)
                && let Some(done) = parent::run(parent::OF_AN_AGENT).transpose()
            {
                return done.unwrap_or_else(|error| complain(&error));
            }
            purge_sys::private::by_default();
            purge_sys::limits::raise_open_files();
            let handover = Handover::take();
            read_config(&run)
                .map_err(|faults| anyhow::anyhow!(in_lines(&faults)))
                .and_then(|c| run_agent(&c, &run, handover))
                .and_then(|again| {
                    if again {
                        start_again()
                    } else {
                        Ok(ExitCode::SUCCESS)
                    }
                })
        }
        Command::Mount(mounting) => {
            purge_agent::log::init();
            if parent::is_wanted(mounting.single_process)
                && let Some(done) = parent::run(parent::OF_A_MOUNT).transpose()
            {
                return done.unwrap_or_else(|error| complain(&error));
            }
            purge_agent::mounting::run(&mounting)
        }
        Command::Check { config } => return check(&config),
        Command::Reload { config, pid } => reload(&config, pid).map(|()| ExitCode::SUCCESS),
        Command::Once(once) => {
            purge_agent::log::init_at(once.log_level.word());
            purge_sys::limits::raise_open_files();
            descriptors::divide(1, 0);
            return ExitCode::from(once.run());
        }
        Command::Demo { volume, ttl } => demo::run(volume, ttl).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| complain(&error))
}

fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("purge-agent: {}", page(&format!("{error:#}")));
    ExitCode::FAILURE
}

/// Starts the program again. Under systemd, or a parent, by ending, so that the event queues in its keeping are handed over.
fn start_again() -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        return Ok(ExitCode::from(STARTED_AGAIN));
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let error = std::process::Command::new(program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot start again")
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
    // Named by hand: a directory that is not there is a mistake, and nothing to wait for.
    if !volume.is_dir() {
        return Err(vec![Fault::elsewhere(
            "--volume",
            format!("{} is no directory", volume.display()),
            "name the directory of the volume; is it mounted?",
        )]);
    }
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
            let mut warnings = config.warnings();
            let files = config
                .listen
                .tls
                .as_ref()
                .filter(|files| !files.are_credentials());
            warnings.extend(files.and_then(|files| Certificates::load(files).err().map(|e| e.to_string())));
            warnings.extend(password_for_others(&config, file));
            warnings.extend(purge_agent::patterns::warnings(&config));
            let trial = purge_agent::volume::trial::of(&config);
            warnings.extend(trial.warnings);
            warnings
                .iter()
                .for_each(|w| eprintln!("warning: {}", Shown::text(w)));
            if !trial.refusals.is_empty() {
                trial.refusals.iter().for_each(|r| println!("{}", Shown::text(r)));
                return ExitCode::FAILURE;
            }
            let many = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
            let (volumes, rules) = (
                many(config.volumes.len(), "volume"),
                many(config.rules.len(), "rule"),
            );
            let file = Shown::name(file.as_os_str().as_bytes());
            println!("{file}: good ({volumes}, {rules})");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            println!("{}", in_lines(&faults));
            ExitCode::FAILURE
        }
    }
}

/// A broker's password may stand in its address, and then the configuration is a file with a secret.
fn password_for_others(config: &Config, file: &std::path::Path) -> Option<String> {
    let has_password = |sink: &Sink| match &sink.means {
        Means::Amqp(broker) => broker.url.login().is_some_and(|(_, word)| word.is_some()),
        _ => false,
    };
    if !config.notify.sinks.iter().any(has_password) {
        return None;
    }
    let (what, cure) = secret::exposed(file)?;
    Some(format!(
        "a broker's password stands in the configuration, and {what}: {cure}, or use password_file"
    ))
}

fn reload(file: &std::path::Path, pid: i32) -> anyhow::Result<()> {
    let config = Config::load(file).map_err(|faults| anyhow::anyhow!(in_lines(&faults)))?;
    Ok(answer::ask(&config.state_dir, pid, RELOADED_WITHIN)?)
}

/// True: it is to be started again.
fn run_agent(config: &Config, run: &Run, handover: Handover) -> anyhow::Result<bool> {
    let ask_who = config.volumes.iter().filter(|v| !v.ignore_accessors.is_empty());
    descriptors::divide(config.volumes.len(), ask_who.count());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    let done = runtime.block_on(serve_until_told(config, run, handover));
    // What waits for a disk that does not answer is not waited for.
    runtime.shutdown_timeout(TASKS_END_WITHIN);
    done
}

async fn serve_until_told(config: &Config, run: &Run, handover: Handover) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let entrances = open_entrances(config).await?;
    let certificates = entrances.tls.as_ref().map(|(_, c)| Arc::clone(c));
    let doors = Arc::new(Doors::new(config.access.clone()));
    let metrics = match config.listen.metrics {
        Some(address) => Some(serve::http::listen(address).await?),
        None => None,
    };
    let host = Host::start(config, handover)?;
    let mut answers = Answers::begin(host.ground.anchor());
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
    let volumes = tokio::spawn(schedule::keep_volumes(Arc::clone(&host)));
    let tasks = vec![
        ("the task of notices", telling.abort_handle()),
        ("the task of schedules", scheduler.abort_handle()),
        ("the task of quotas", limits.abort_handle()),
        ("the task of volumes", volumes.abort_handle()),
    ];
    let watchdog = tokio::spawn(watchdog::keep(Arc::clone(&host), tasks));
    let in_force = Arc::new(InForce::new(config, certificates.clone()));
    let reloads = Reload {
        in_force: Arc::clone(&in_force),
        host: Arc::clone(&host),
        doors: Arc::clone(&doors),
        certificates,
        started: config.clone(),
    };
    let again = Arc::new(AtomicBool::new(false));
    let begins_again = Arc::clone(&again);
    let shutdown = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = reload.recv() => {
                    reloads.host.reopen_audit();
                    answers.tell(reloads.take(read_config(run)).await);
                }
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if let Some(why) = reloads.host.wants_restart() {
                        tracing::warn!(why, "starting again");
                        begins_again.store(true, Relaxed);
                        break;
                    }
                }
            }
        }
        // Clients that follow a run hear how it ended before the server does.
        reloads.host.unattended.begin_nothing();
    };
    let served = serve::serve(Arc::clone(&host), entrances, doors, in_force, shutdown).await;
    sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]).ok();
    scheduler.abort();
    limits.abort();
    watchdog.abort();
    telling.abort();
    volumes.abort();
    // The socket goes first: nothing answers there any more.
    serve::incoming::unlisten(&config.listen.unix);
    end(host).await;
    tracing::info!("stopped");
    served?;
    Ok(again.load(Relaxed))
}

/// Ends everything, and waits for that for as long as the state directory takes what is written.
async fn end(host: Arc<Host>) {
    let stopping = Arc::clone(&host);
    let mut ended = tokio::spawn(async move {
        stopping.notifier.stop().await;
        tokio::task::spawn_blocking(move || stopping.stop()).await.ok();
    });
    let began = Instant::now();
    let mut hindered: Option<Instant> = None;
    loop {
        let waited = tokio::time::timeout(Duration::from_millis(200), &mut ended).await;
        if waited.is_ok() {
            return;
        }
        let looking = Arc::clone(&host);
        let hindrance = tokio::task::spawn_blocking(move || looking.hindrance(STATE_ANSWERS_WITHIN));
        let hindrance = hindrance.await.ok().flatten();
        let late = (began.elapsed() > ENDS_WITHIN).then(|| "it takes too long".to_owned());
        let Some(why) = hindrance.or(late) else {
            hindered = None;
            continue;
        };
        if hindered.get_or_insert_with(Instant::now).elapsed() >= STATE_ANSWERS_WITHIN
            || began.elapsed() > ENDS_WITHIN
        {
            tracing::error!(
                why,
                "the agent ends before everything is written: uses that are not in the state directory count as a gap"
            );
            return;
        }
    }
}

async fn open_entrances(config: &Config) -> anyhow::Result<serve::Entrances> {
    let listen = &config.listen;
    let local = serve::incoming::listen(listen, &config.access)?;
    let tls = match (listen.tcp, &listen.tls) {
        (Some(address), Some(files)) => {
            let certificates = Certificates::load(files).map_err(serve::ServeError::Tls)?;
            let listener = serve::incoming::listen_tcp(address).await?;
            Some((listener, Arc::new(certificates)))
        }
        _ => None,
    };
    Ok(serve::Entrances { local, tls })
}
