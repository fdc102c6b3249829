//! A running `purge-agent` with a state directory and a socket of its own.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::config::Config;
use crate::ctl::Ctl;
use crate::queue::Queues;
use crate::sys::Held;
use crate::wait::{LONG, SOON, until};
use crate::{binary, files};

/// Set to 1: the agent has no parent, so that its process is the one that was started.
const SINGLE_PROCESS: &str = "PURGE_AGENT_SINGLE_PROCESS";
/// What the unit's TimeoutStopSec gives it.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The agent. Ended by its pid when dropped; its last words are printed if the test is failing.
#[derive(Debug)]
pub struct Agent {
    arguments: Vec<OsString>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
    state: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// A program that becomes the agent, and its arguments.
    launcher: Vec<OsString>,
}

/// The log says so when a volume that was away, or was reset, is watched while the agent goes on.
pub const WATCHED_AGAIN: &str = "the volume is watched again";

/// Lines of the log that a failing test prints.
const LAST_WORDS: usize = 30;

impl Agent {
    /// Starts it with a configuration file and waits until it is ready: every use from now on is recorded.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(config: &Config) -> Self {
        let mut agent = Self::prepare();
        agent.write_config(config);
        agent.arguments = vec!["run".into(), "--config".into(), agent.config_file().into()];
        agent.launch();
        agent
    }

    /// Starts it with its state directory at `state` and further variables in its environment, and waits until the first scan
    /// is done.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn tracking_in(config: &Config, state: Option<PathBuf>, environment: &[(&str, &Path)]) -> Self {
        let agent = Self::start_in(config, state, environment);
        agent.wait_until_tracking();
        agent
    }

    /// The same, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn start_in(config: &Config, state: Option<PathBuf>, environment: &[(&str, &Path)]) -> Self {
        let mut agent = Self::prepare();
        if let Some(state) = state {
            agent.state = state;
        }
        agent.environment = environment
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        agent.write_config(config);
        agent.arguments = vec!["run".into(), "--config".into(), agent.config_file().into()];
        agent.launch();
        agent
    }

    /// Starts it and waits until the first scan is done as well.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn tracking(config: &Config) -> Self {
        let agent = Self::start(config);
        agent.wait_until_tracking();
        agent
    }

    /// Like [`Agent::tracking`], started through a program that becomes the agent.
    ///
    /// # Panics
    /// When it does not get there.
    pub fn tracking_under(config: &Config, launcher: &[&str]) -> Self {
        let mut agent = Self::prepared(config).under(launcher);
        agent.launch();
        agent.wait_until_tracking();
        agent
    }

    /// Starts it without a configuration file: `run --volume PATH --ttl TTL`.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn of_volume(path: &Path, ttl: &str) -> Self {
        let mut agent = Self::prepare();
        agent.arguments = vec![
            "run".into(),
            "--volume".into(),
            path.into(),
            "--ttl".into(),
            ttl.into(),
            "--state-dir".into(),
            agent.state_dir().into(),
            "--listen".into(),
            format!("unix:{}", agent.socket().display()).into(),
        ];
        agent.launch();
        agent
    }

    /// With its configuration file written, but not started: see [`Agent::launch`].
    pub fn prepared(config: &Config) -> Self {
        let mut agent = Self::prepare();
        agent.write_config(config);
        agent.arguments = vec!["run".into(), "--config".into(), agent.config_file().into()];
        agent
    }

    /// A further variable in its environment, from its next start on.
    pub fn environment(&mut self, name: &str, value: &Path) {
        self.environment.push((name.into(), value.into()));
    }

    /// Started by a program that becomes the agent.
    #[must_use]
    pub fn under(mut self, launcher: &[&str]) -> Self {
        self.launcher = launcher.iter().map(Into::into).collect();
        self
    }

    /// Its log goes to a journal of the test's own, from its next start on: what it says are the messages alone, as `journalctl` shows them.
    ///
    /// # Panics
    /// When the journal's socket cannot be made.
    pub fn log_as_the_journal_has_it(&mut self) {
        let place = self.dir.path().join("journal");
        std::fs::create_dir(&place).expect("the journal's directory");
        let socket = UnixDatagram::bind(place.join("socket")).expect("the journal's socket");
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let mut entry = vec![0; 1 << 20];
            while let Ok(len) = socket.recv(&mut entry) {
                let text = String::from_utf8_lossy(entry.get(..len).unwrap_or_default()).into_owned();
                let messages = text.lines().filter_map(|line| line.strip_prefix("MESSAGE="));
                log.lock().unwrap().extend(messages.map(str::to_owned));
            }
        });
        self.environment("PURGE_AGENT_LOG", Path::new("journal"));
        let mounted =
            "mkdir -p /run/systemd/journal && mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";
        let place = place.display().to_string();
        let launcher = [
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-c",
            mounted,
            &place,
        ];
        self.launcher = launcher.iter().map(Into::into).collect();
    }

    /// A further argument, from its next start on.
    pub fn argument(&mut self, argument: &str) {
        self.arguments.push(argument.into());
    }

    fn prepare() -> Self {
        let dir = files::temp_dir();
        Self {
            arguments: Vec::new(),
            child: None,
            log: Arc::default(),
            state: dir.path().join("state"),
            environment: Vec::new(),
            launcher: Vec::new(),
            dir,
        }
    }

    /// Where it keeps its index.
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Opens the socket's directory to all users.
    ///
    /// # Panics
    /// When the directory's mode cannot be set.
    pub fn reachable(&self) {
        std::fs::set_permissions(self.dir.path(), std::fs::Permissions::from_mode(0o755))
            .expect("opening the socket's directory");
    }

    /// Its directory, and what is in it by now, belongs to this user.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn belongs_to(&self, uid: u32) {
        let dir = self.dir.path();
        for path in [dir.to_owned(), self.config_file()] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("giving the agent's directory away");
        }
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("opening it");
    }

    /// Connects to its socket as another user.
    ///
    /// # Errors
    /// When the socket is not for them.
    pub fn connect_as(&self, uid: u32, groups: &[u32]) -> std::io::Result<UnixStream> {
        crate::sys::connect_as(&self.socket(), uid, groups)
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    /// Puts another configuration into its file; see [`Agent::reload`].
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self, config: &Config) {
        let text = config.text(&self.state_dir(), &self.socket());
        std::fs::write(self.config_file(), text).expect("writing the configuration");
    }

    /// Whether `check` accepts its configuration, and what it says of it.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn check(&self) -> (bool, String) {
        let mut check = Command::new(binary("purge-agent"));
        check.args(["check", "--config"]).arg(self.config_file());
        check.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let out = check.output().expect("running purge-agent check");
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Starts it, or starts it again after it has ended.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn launch(&mut self) {
        self.log.lock().unwrap().clear();
        self.spawn();
        until("the agent logs `ready`", SOON, || {
            if let Some(status) = self.ended() {
                panic!(
                    "purge-agent ended before it was ready: {status}\n{}",
                    self.last_words()
                );
            }
            self.log.lock().unwrap().iter().any(|l| is_ready(l)).then_some(())
        });
    }

    /// Starts it where it should not become ready; returns how it ended and everything it said.
    ///
    /// # Panics
    /// When it does not end.
    pub fn launch_in_vain(&mut self) -> (ExitStatus, String) {
        self.log.lock().unwrap().clear();
        self.spawn();
        let status = until("the agent refuses to start", SOON, || self.ended());
        // The readers of its output may still be at the last line.
        std::thread::sleep(Duration::from_millis(200));
        (status, self.log.lock().unwrap().join("\n"))
    }

    fn spawn(&mut self) {
        // If the test itself is killed, the agent ends with it.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.launcher)
            .arg(binary("purge-agent"));
        let mut child = command
            .args(&self.arguments)
            .env_remove("NOTIFY_SOCKET")
            .env(SINGLE_PROCESS, "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) starts purge-agent");
        self.listen_to(child.stdout.take());
        self.listen_to(child.stderr.take());
        self.child = Some(child);
    }

    fn listen_to(&self, stream: Option<impl Read + Send + 'static>) {
        let Some(stream) = stream else { return };
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()?
            .try_wait()
            .expect("asking for the agent's state")
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running agent").id()
    }

    /// With the parent process that keeps its queues, which other tests do without.
    #[must_use]
    pub fn with_parent(mut self) -> Self {
        self.environment(SINGLE_PROCESS, Path::new("0"));
        self
    }

    /// Its process where it has a parent: that is [`Agent::pid`] then.
    pub fn below_parent(&self) -> Option<u32> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.ok()?.split_whitespace().next()?.parse().ok()
    }

    fn send(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running agent");
        kill_process(Pid::from_child(child), signal).expect("signalling the agent");
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub fn terminate(&mut self) {
        self.send(Signal::TERM);
        let status = until("the agent ends after SIGTERM", ENDS_WITHIN, || self.ended());
        self.child = None;
        assert!(status.success(), "after SIGTERM: {status}\n{}", self.last_words());
    }

    /// SIGTERM, and does not wait.
    pub fn ask_to_end(&self) {
        self.send(Signal::TERM);
    }

    /// SIGSTOP: when this returns, it does nothing until [`Agent::thaw`].
    ///
    /// # Panics
    /// When it does not stop.
    pub fn freeze(&self) {
        self.send(Signal::STOP);
        until("every thread has stopped", SOON, || {
            self.has_stopped().then_some(())
        });
    }

    fn has_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("its threads");
        let states = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("stat")).ok());
        // The state follows the name, which ends with the last parenthesis.
        states.into_iter().all(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.starts_with(" T"))
        })
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.send(Signal::CONT);
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// Waits until `status` says `degraded`, and returns why.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_degraded(&self) -> String {
        until("the volume is degraded", LONG, || {
            let status = self.status();
            let part = |key| status.get(key).and_then(Value::as_str).unwrap_or_default();
            (part("state") == "degraded").then(|| part("reason").to_owned())
        })
    }

    /// Waits until `status` says `tracking`. Until then it may say anything, or fail because no agent answers.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_well(&self) {
        until("the volume is being tracked again", LONG, || {
            let answer = self.ctl().run(["status", "--output", "json"]);
            if answer.code != 0 {
                return None;
            }
            let status = answer.json();
            (status.pointer("/volumes/0/state")? == "tracking").then_some(())
        });
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.send(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            child.wait().expect("waiting for the killed agent");
        }
    }

    /// A second hold on its queues: see [`Queues`].
    ///
    /// # Panics
    /// When it has none.
    pub fn queues(&self) -> Queues {
        Queues::of(self.pid())
    }

    /// Holds the thread that reads the kernel's queue, and nothing else.
    ///
    /// # Panics
    /// When there is none, or it cannot be held.
    pub fn hold_collector(&self) -> Held {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("its threads");
        let is_it = |task: &PathBuf| {
            let name = std::fs::read_to_string(task.join("comm"));
            name.is_ok_and(|n| n.trim() == "collector")
        };
        let mut paths = tasks.filter_map(|t| Some(t.ok()?.path()));
        let thread = paths.find(is_it).expect("a thread that reads");
        let id = thread.file_name().and_then(|n| n.to_str()?.parse().ok());
        Held::hold(id.expect("its id")).expect("holding it")
    }

    /// SIGKILL while a thread of it is held.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill_with(&mut self, held: Held) {
        self.send(Signal::KILL);
        held.ended().expect("the end of the thread");
        self.kill();
    }

    /// SIGTERM and a new start, waiting until it tracks again.
    pub fn restart(&mut self) {
        self.terminate();
        self.launch();
        self.wait_until_tracking();
    }

    /// SIGHUP: the configuration is read again, soon.
    pub fn reload(&self) {
        let answer = || std::fs::read_to_string(self.state_dir().join("reloaded")).unwrap_or_default();
        let before = answer();
        self.send(Signal::HUP);
        // A busy machine may take its time; the test itself finds out what came of it.
        let until = std::time::Instant::now() + SOON;
        while answer() == before && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGHUP, and does not wait for an answer.
    pub fn ask_to_reload(&self) {
        self.send(Signal::HUP);
    }

    /// Waits until its log has `word` in it.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_it_says(&self, word: &str) {
        until(&format!("the agent says {word}"), SOON, || {
            let log = self.log.lock().unwrap();
            log.iter().any(|line| line.contains(word)).then_some(())
        });
    }

    /// purgectl for this agent.
    pub fn ctl(&self) -> Ctl {
        Ctl::new(&self.socket())
    }

    /// The only volume's part of `status`.
    ///
    /// # Panics
    /// When purgectl fails.
    pub fn status(&self) -> Value {
        let status = self.ctl().run(["status", "--output", "json"]).ok().json();
        status.pointer("/volumes/0").expect("a volume in status").clone()
    }

    /// Waits until `status` says `tracking`.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_until_tracking(&self) {
        until("the volume is being tracked", LONG, || {
            let status = self.status();
            let state = status.get("state").and_then(Value::as_str).unwrap_or_default();
            assert_ne!(state, "degraded", "{status}");
            (state == "tracking").then_some(())
        });
    }

    /// All of its log since it was started last.
    ///
    /// # Panics
    /// When a thread that reads it has.
    pub fn said(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = self.log.lock().unwrap();
        let from = log.len().saturating_sub(LAST_WORDS);
        log.iter().skip(from).cloned().collect::<Vec<_>>().join("\n")
    }
}

/// The log line that says that every use from now on is recorded: as JSON, or as text with the word in it.
fn is_ready(line: &str) -> bool {
    match serde_json::from_str::<Value>(line) {
        Ok(event) => event.get("message").is_some_and(|m| m == "ready"),
        Err(_) => line.split_whitespace().any(|word| word == "ready"),
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent's last words\n{}\n---", self.last_words());
        }
        let Some(child) = &mut self.child else { return };
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        for _ in 0..100 {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
