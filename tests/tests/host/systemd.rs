//! The agent under a real systemd.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use purge_tests::agent::WATCHED_AGAIN;
use purge_tests::certs::{Authority, Validity, client_files};
use purge_tests::ctl::{number, tally, text};
use purge_tests::files::{age_tree, assert_same, make, read, temp_dir};
use purge_tests::sinks::free_port;
use purge_tests::sinks::hook::Hook;
use purge_tests::systemd::Machine;
use purge_tests::wait::{LONG, until};
use purge_tests::{Config, Ctl, Fs, Mount, need};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const READERS: usize = 50;
const FILES_EACH: usize = 120;
/// Of each reader's files, one in this many is left alone.
const LEFT_ALONE: usize = 10;

fn started(mount: &Mount, config: &Config) -> Result<Machine, purge_tests::skip::Unmet> {
    let machine = Machine::boot(&[&mount.path()])?;
    let state = Path::new("/var/lib/purge-agent");
    machine.write(
        "/usr/local/sbin/tell",
        "#!/bin/sh\ncat > /var/lib/purge-agent/told\n",
    );
    machine.run(&["chmod", "755", "/usr/local/sbin/tell"]).unwrap();
    let text = config.text(state, Path::new("/run/purge-agent/agent.sock"));
    machine.write("/etc/purge-agent/agent.toml", &text);
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    machine.run(&["systemctl", "start", "purge-agent"]).unwrap();
    wait_until_tracking(&machine);
    Ok(machine)
}

/// Gives the agent a network, as the handbook says.
fn with_network(machine: &Machine) {
    let drop_in = "/etc/systemd/system/purge-agent.service.d";
    machine.run(&["mkdir", "-p", drop_in]).unwrap();
    let text = include_str!("../../../systemd/network.conf");
    machine.write(&format!("{drop_in}/network.conf"), text);
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
}

/// A gap would count as a use of everything only if it were a year long: nothing may hide behind one.
fn watching(root: &Path) -> Config {
    Config::new(root, "baseline = \"mtime\"\ngap_tolerance = \"365d\"")
        .rule("old", "ttl = \"1h\"\nclock = [\"access\"]")
}

fn status(machine: &Machine) -> Option<Value> {
    let answer = machine.ctl().run(["status", "--output", "json"]);
    serde_json::from_slice(&answer.stdout).ok()
}

fn wait_until_tracking(machine: &Machine) {
    until("the agent is tracking", LONG, || {
        let status = status(machine)?;
        (status.pointer("/volumes/0/state")? == "tracking").then_some(())
    });
}

/// Processes that each read their own files, one after another, for some seconds.
fn readers(root: &Path) -> (Vec<Child>, BTreeSet<PathBuf>) {
    let (mut readers, mut used) = (Vec::new(), BTreeSet::new());
    for reader in 0..READERS {
        let names: Vec<String> = (0..FILES_EACH)
            .filter(|i| i % LEFT_ALONE != 0)
            .map(|i| format!("d{reader}/f{i:06}"))
            .collect();
        used.extend(names.iter().map(|n| root.join(n)));
        // `read -t` waits without starting another process.
        let script = format!(
            "exec 9<> <(:); for f in {}; do read -n 1 -r x < $f || exit 1; read -t 0.05 -u 9; done; :",
            names.join(" ")
        );
        let mut bash = Command::new("bash");
        readers.push(bash.args(["-c", &script]).current_dir(root).spawn().unwrap());
    }
    (readers, used)
}

fn nothing_is_missed(disturb: impl Fn(&Machine)) {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let mut all = BTreeSet::new();
    for reader in 0..READERS {
        all.extend(make(&root.join(format!("d{reader}")), FILES_EACH));
    }
    age_tree(&root);
    // A gap would count as a use of everything only if it were a year long: nothing may hide behind one.
    let config = Config::new(&root, "baseline = \"mtime\"\ngap_tolerance = \"365d\"")
        .rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let machine = need!(started(&mount, &config));
    assert_same("before anything is read", &machine.ctl().candidate_files(), &all);
    let (mut reading, used) = readers(&root);
    while reading.iter_mut().any(|r| r.try_wait().unwrap().is_none()) {
        disturb(&machine);
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(
        reading.iter_mut().all(|r| r.wait().unwrap().success()),
        "every file was read"
    );
    wait_until_tracking(&machine);
    let expected: BTreeSet<PathBuf> = all.difference(&used).cloned().collect();
    assert_same("what was not read", &machine.ctl().candidate_files(), &expected);
    let status = status(&machine).unwrap();
    let gaps = status.pointer("/volumes/0/gaps").unwrap();
    assert_eq!(
        gaps,
        &Value::Array(Vec::new()),
        "a process watched at every moment"
    );
}

#[test]
fn restarts_miss_no_access_of_fifty_readers() {
    nothing_is_missed(|machine| {
        machine.run(&["systemctl", "restart", "purge-agent"]).unwrap();
    });
}

#[test]
fn kill_9_misses_no_access_of_fifty_readers() {
    nothing_is_missed(|machine| {
        if let Some(pid) = machine.main_pid("purge-agent") {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
        }
    });
}

#[test]
fn an_agent_that_hangs_is_started_again_and_has_missed_nothing() {
    let mount = need!(Mount::new(Fs::Ext4));
    let files = make(&mount.path().join("d"), 4);
    age_tree(&mount.path());
    let machine = need!(started(&mount, &watching(&mount.path())));
    let dropin = "/etc/systemd/system/purge-agent.service.d/watchdog.conf";
    machine
        .run(&["mkdir", "-p", "/etc/systemd/system/purge-agent.service.d"])
        .unwrap();
    machine.write(dropin, "[Service]\nWatchdogSec=8\n");
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    machine.run(&["systemctl", "restart", "purge-agent"]).unwrap();
    wait_until_tracking(&machine);
    // Longer than the watchdog: it is told.
    std::thread::sleep(Duration::from_secs(17));
    let restarts = || {
        let answer = machine.run(&[
            "systemctl",
            "show",
            "--property=NRestarts",
            "--value",
            "purge-agent",
        ]);
        answer.unwrap().trim().parse::<u64>().unwrap()
    };
    assert_eq!(restarts(), 0, "{}", machine.log());
    let pid = machine.main_pid("purge-agent").unwrap();
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    read(&files[0]);
    until("systemd starts it again", LONG, || (restarts() > 0).then_some(()));
    wait_until_tracking(&machine);
    let expected: BTreeSet<PathBuf> = files[1..].iter().cloned().collect();
    assert_same("what was not read", &machine.ctl().candidate_files(), &expected);
    let doctor = machine.ctl().run(["doctor"]).ok().text();
    assert!(
        doctor.contains("hung for 8 s") && doctor.contains("fd-store"),
        "{doctor}"
    );
}

#[test]
fn keys_come_as_credentials_reloads_are_checked_and_the_journal_has_fields() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let (dir, port) = (temp_dir(), free_port());
    let authority = Authority::new("the authority");
    let ca = authority.write(&dir.path().join("ca.pem"));
    let shown = authority.vouch(dir.path(), "agent", Validity::Long);
    let viewer = authority.vouch(dir.path(), "viewer", Validity::Long);
    let machine = need!(started(&mount, &watching(&mount.path())));
    let drop_in = "/etc/systemd/system/purge-agent.service.d";
    machine.run(&["mkdir", "-p", drop_in, "/etc/secret"]).unwrap();
    for (file, name) in [
        (&shown.cert, "agent.pem"),
        (&shown.key, "agent.key"),
        (&ca, "ca.pem"),
    ] {
        let content = fs::read_to_string(file).unwrap();
        machine.write(&format!("/etc/secret/{name}"), &content);
    }
    let loaded: String = ["agent.pem", "agent.key", "ca.pem"]
        .iter()
        .map(|name| format!("LoadCredential={name}:/etc/secret/{name}\n"))
        .collect();
    machine.write(&format!("{drop_in}/tls.conf"), &format!("[Service]\n{loaded}"));
    let listen = format!(
        "tcp = \"127.0.0.1:{port}\"\ntls = {{ cert = \"credential:agent.pem\", key = \"credential:agent.key\", \
         client_ca = \"credential:ca.pem\" }}"
    );
    let configure = |ttl: &str| {
        let config = Config::new(&mount.path(), "baseline = \"mtime\"")
            .rule("old", &format!("ttl = \"{ttl}\""))
            .listening(&listen)
            .access("viewer = { certificates = [\"CN=viewer,O=Example\"] }");
        let state = Path::new("/var/lib/purge-agent");
        let text = config.text(state, Path::new("/run/purge-agent/agent.sock"));
        machine.write("/etc/purge-agent/agent.toml", &text);
    };
    configure("1h");
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    let refused = machine.run(&["systemctl", "restart", "purge-agent"]);
    assert!(refused.is_err(), "the unit gives no network");
    assert!(machine.log().contains("network.conf"), "{}", machine.log());
    with_network(&machine);
    machine.run(&["systemctl", "restart", "purge-agent"]).unwrap();
    let ctl = Ctl::over_tls(port, &client_files(&ca, &viewer));
    let ttl = || {
        let shown = ctl
            .run(["config", "show", "rule.old.ttl", "--output", "json"])
            .ok()
            .json();
        shown.pointer("/0/value").unwrap().as_str().unwrap().to_owned()
    };
    assert_eq!(ttl(), "\"1h\"");
    configure("2h");
    machine.run(&["systemctl", "reload", "purge-agent"]).unwrap();
    assert_eq!(ttl(), "\"2h\"", "a reload is over when it is in force");
    configure("2 weeks");
    let refused = machine.run(&["systemctl", "reload", "purge-agent"]);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(ttl(), "\"2h\"", "the running configuration stays");

    let journal = machine
        .run(&["journalctl", "--no-pager", "--output=json", "VOLUMES=1"])
        .unwrap();
    let first: Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
    assert_eq!(first.get("MESSAGE").unwrap(), "ready", "{first:#}");
    assert_eq!(first.get("PRIORITY").unwrap(), "5", "{first:#}");
    assert_eq!(first.get("SOCKET").unwrap(), "/run/purge-agent/agent.sock");
}

#[test]
fn a_volume_that_is_mounted_again_is_watched_without_a_restart() {
    let machine = need!(Machine::boot(&[]));
    let volume = Path::new("/export/again");
    let mount = ["mount", "-t", "tmpfs", "again", "/export/again"];
    machine.run(&["mkdir", "-p", "/export/again"]).unwrap();
    machine.run(&mount).unwrap();
    let config = watching(volume).text(
        Path::new("/var/lib/purge-agent"),
        Path::new("/run/purge-agent/agent.sock"),
    );
    machine.write("/etc/purge-agent/agent.toml", &config);
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    machine.run(&["systemctl", "start", "purge-agent"]).unwrap();
    wait_until_tracking(&machine);
    let before = machine.main_pid("purge-agent");
    machine.run(&["umount", "/export/again"]).unwrap();
    until("the volume is missed", LONG, || {
        let status = status(&machine)?;
        (status.pointer("/volumes/0/state")? == "degraded").then_some(())
    });
    machine.run(&mount).unwrap();
    wait_until_tracking(&machine);
    let shown = ["systemctl", "show", "--property=NRestarts,Result", "purge-agent"];
    let shown = machine.run(&shown).unwrap();
    assert!(
        shown.contains("NRestarts=0") && shown.contains("Result=success"),
        "{shown}"
    );
    assert_eq!(machine.main_pid("purge-agent"), before);
    let log = machine.log();
    assert!(log.contains(WATCHED_AGAIN), "{log}");
    assert!(!log.contains("Failed with result"), "{log}");
}

#[test]
fn the_unit_leaves_what_it_takes_to_purge_and_restore_other_peoples_files() {
    const EACH: usize = 20;
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    for dir in ["now", "later"].map(|d| root.join(d)) {
        for file in make(&dir, EACH) {
            chown(&file, Some(1234), Some(2345)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        chown(&dir, Some(1234), Some(2345)).unwrap();
        // Set-group-ID and sticky: what else may stop a process that lacks some of root's capabilities.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o3770)).unwrap();
    }
    age_tree(&root);
    let config = Config::new(&root, "baseline = \"mtime\"")
        .rule(
            "now",
            "include = [\"/now/**\"]\nttl = \"1h\"\nclock = [\"access\"]\ngrace = \"0s\"",
        )
        .rule(
            "later",
            "include = [\"/later/**\"]\nttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1h\"",
        );
    let machine = need!(started(&mount, &config));
    let ctl = machine.ctl();
    let of_rule = |rule| {
        let plan = ctl.plan_with(["--rule", rule]);
        let run = ctl.apply(&plan).ok().json();
        tally(&plan, &run);
        run
    };
    let run = of_rule("now");
    assert_eq!(number(&run, "/deleted/files"), EACH as u64, "{run}");
    // Its log is rotated by what the packages bring along: from then on it writes to the new one.
    let rotation = include_str!("../../../package/logrotate");
    machine.write("/etc/logrotate.d/purge-agent", rotation);
    machine
        .run(&["logrotate", "--force", "/etc/logrotate.d/purge-agent"])
        .unwrap();
    let lines = |log: &str| {
        let text = fs::read_to_string(machine.path("var/lib/purge-agent").join(log)).unwrap();
        text.lines().count()
    };
    until("the log is a new one", LONG, || {
        (lines("audit.jsonl") == 0).then_some(())
    });
    let of_first = lines("audit.jsonl.1");
    assert!(of_first >= EACH);
    let run = of_rule("later");
    assert!(lines("audit.jsonl") >= EACH);
    assert_eq!(lines("audit.jsonl.1"), of_first);
    assert_eq!(number(&run, "/trashed/files"), EACH as u64, "{run}");
    assert_eq!(fs::read_dir(root.join("later")).unwrap().count(), 0);
    fs::remove_dir(root.join("later")).unwrap();
    let _ = ctl.run(["restore", text(&run, "run_id")]).ok();
    assert_eq!(fs::read_dir(root.join("later")).unwrap().count(), EACH);
    let dir = fs::metadata(root.join("later")).unwrap();
    assert_eq!((dir.uid(), dir.gid(), dir.mode() & 0o7777), (1234, 2345, 0o3770));
}

#[test]
fn notices_leave_the_sandbox_for_this_host_and_for_programs() {
    let mount = need!(Mount::new(Fs::Ext4));
    let port = free_port();
    let hook = Hook::start(port);
    let sinks = format!(
        "webhook = {{ url = \"http://127.0.0.1:{port}/\" }}\nexec = {{ command = [\"/usr/local/sbin/tell\"] }}"
    );
    let config = Config::new(&mount.path(), "").notifying(&sinks);
    let machine = need!(started(&mount, &config));
    let tell = |sink| machine.ctl().run(["notices", "test", "--sink", sink]);
    let shut_in = tell("webhook");
    assert!(
        shut_in.code != 0 && shut_in.stderr.contains("network.conf"),
        "{}",
        shut_in.stderr
    );
    assert_eq!(tell("exec").code, 0, "{}", machine.log());
    with_network(&machine);
    machine.run(&["systemctl", "restart", "purge-agent"]).unwrap();
    wait_until_tracking(&machine);
    for sink in ["webhook", "exec"] {
        let tested = machine.ctl().run(["notices", "test", "--sink", sink]);
        assert_eq!(tested.code, 0, "{}\n{}", tested.stderr, machine.log());
    }
    assert_eq!(hook.taken().len(), 1);
    let told = fs::read_to_string(machine.path("/var/lib/purge-agent/told")).unwrap();
    assert!(told.contains("This is a test of sink exec"), "{told}");
}

#[test]
fn the_sandbox_of_the_unit_is_tight() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/purge-agent.service");
    // In tenths: 2.5. What is left is named and explained in the unit.
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--no-pager", "--offline=true", "--threshold=25"]);
    let rated = purge_tests::sh(analyze.arg(unit));
    assert!(rated.is_ok(), "{}", rated.unwrap_err());
    let machine = need!(Machine::boot(&[]));
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    let checked = machine.run(&[
        "systemd-analyze",
        "security",
        "--no-pager",
        "--threshold=25",
        "purge-agent",
    ]);
    assert!(checked.is_ok(), "{}", checked.unwrap_err());
}

#[test]
fn the_memory_of_the_unit_is_bounded_and_what_is_mounted_later_is_seen() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let machine = need!(started(&mount, &watching(&mount.path())));
    let doctor = machine.ctl().run(["doctor"]).ok().text();
    let is_memory = |line: &&str| line.split_whitespace().nth(1) == Some("memory");
    let memory = doctor.lines().find(is_memory).unwrap();
    assert!(memory.contains("the index needs"), "{doctor}");
    // Where this host gives machines no controller of memory, the agent says that nothing is bound.
    let pid = machine.main_pid("purge-agent").unwrap();
    let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = group.lines().find_map(|l| l.strip_prefix("0::/")).unwrap();
    let is_bound = Path::new("/sys/fs/cgroup")
        .join(group)
        .join("memory.max")
        .exists();
    assert_eq!(memory.contains("at most"), is_bound, "{doctor}");
    let show = |property: &str| {
        let shown = machine.run(&[
            "systemctl",
            "show",
            "--value",
            "--property",
            property,
            "purge-agent",
        ]);
        shown.unwrap().trim().parse::<u64>().unwrap()
    };
    assert!(show("MemoryHigh") < show("MemoryMax"));
    // The agent has mounts of its own (PrivateMounts=): what is mounted for the host comes in all the same.
    machine.run(&["mkdir", "-p", "/late"]).unwrap();
    machine.run(&["mount", "-t", "tmpfs", "late", "/late"]).unwrap();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    assert!(
        mounts.lines().any(|l| l.starts_with("late /late tmpfs")),
        "{mounts}"
    );
}

/// The agent asks systemd, from within its sandbox, whether the host is being shut down: a stop alone is no reboot.
#[test]
fn what_systemd_says_of_the_host_is_heard_in_the_sandbox() {
    let mount = need!(Mount::new(Fs::Ext4));
    let config = Config::new(&mount.path(), "baseline = \"mtime\"\nreboots = \"ordered\"")
        .rule("old", "ttl = \"1h\"\nclock = [\"access\"]");
    let machine = need!(started(&mount, &config));
    machine.run(&["systemctl", "stop", "purge-agent"]).unwrap();
    let said = machine.log();
    assert!(
        said.contains("systemd was not shutting the host down, but "),
        "{said}"
    );
}
