//! The packages: installed, upgraded, removed and purged as an administrator would.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use purge_tests::ctl::text;
use purge_tests::files::{make, read, regular_files, temp_dir};
use purge_tests::mount::Bind;
use purge_tests::package::{NEXT, VERSION, architecture, are_static, package};
use purge_tests::skip::Unmet;
use purge_tests::systemd::{FILES_AT, Machine};
use purge_tests::wait::{LONG, until};
use purge_tests::{Fs, Mount, binary, need, sh};
use serde_json::Value;

const INSTALLED: [&str; 20] = [
    "usr/sbin/purge-agent",
    "usr/bin/purgectl",
    "usr/share/purge-agent/agent.toml",
    "usr/share/purge-agent/network.conf",
    "etc/logrotate.d/purge-agent",
    "usr/share/man/man8/purge-agent.8",
    "usr/share/man/man1/purgectl.1",
    "usr/share/man/man5/purge-agent.toml.5",
    "usr/share/bash-completion/completions/purgectl",
    "usr/share/bash-completion/completions/purge-agent",
    "usr/share/fish/vendor_completions.d/purgectl.fish",
    "usr/share/purge-agent/monitoring/alerts.yml",
    "usr/share/purge-agent/monitoring/grafana.json",
    "usr/share/purge-agent/proto/purge/v1/purge.proto",
    "usr/share/purge-agent/schemas/plan.json",
    "usr/share/doc/purge-agent/README.md",
    "usr/share/doc/purge-agent/docs/README.md",
    "usr/share/doc/purge-agent/docs/handbook/install.md",
    "usr/share/doc/purge-agent/docs/THREAT-MODEL.md",
    "usr/share/doc/purge-agent/SECURITY.md",
];

/// What `package/build` says, with its programs looked for in this directory.
fn build(target: &Path, words: &[&str]) -> (i32, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../package/build");
    let mut build = Command::new(script);
    let done = build
        .args(words)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn what_cannot_be_packed_is_told_at_once_and_by_name() {
    let dir = temp_dir();
    let target = dir.path().join("of mine");
    let (code, help) = build(&target, &["--help"]);
    assert_eq!(code, 0, "{help}");
    for option in ["--only deb|rpm", "--no-pack", "--tools", "CARGO_TARGET_DIR"] {
        assert!(help.contains(option), "{help}");
    }
    for (words, code, said) in [
        (&["--nonsense"][..], 2, "--nonsense"),
        (&["--only", "zip"], 2, "zip"),
        (&["--only"], 2, "--only"),
        (&["--profile", "fast"], 2, "fast"),
        (
            &["--no-build", "--dynamic", "--only", "deb"],
            1,
            "of mine/release/purge-agent",
        ),
        (
            &["--no-build", "--dynamic", "--profile", "debug"],
            1,
            "of mine/debug/purge-agent",
        ),
    ] {
        let told = build(&target, words);
        assert!(told.0 == code && told.1.contains(said), "{words:?}: {told:?}");
    }
    // Nothing was built or installed for that.
    assert!(!target.exists());
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn apt(machine: &Machine, words: &[&str]) -> String {
    let mut all = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q"];
    all.extend(words);
    machine.run(&all).unwrap()
}

/// The only volume's part of `status`, once it is tracking.
fn tracking(machine: &Machine) -> Value {
    until("the agent is tracking", LONG, || {
        let status = machine.ctl().run(["status", "--output", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let volume = status.pointer("/volumes/0")?;
        (volume.get("state")? == "tracking").then(|| volume.clone())
    })
}

/// The one edit that a new user makes.
fn name_volume(machine: &Machine, root: &Path) {
    let edit = format!("s|^path = .*|path = \"{}\"|", root.display());
    machine
        .run(&["sed", "-i", &edit, "/etc/purge-agent/agent.toml"])
        .unwrap();
}

fn enable(machine: &Machine) {
    machine
        .run(&["systemctl", "enable", "--now", "purge-agent"])
        .unwrap();
}

fn missing(machine: &Machine) -> Vec<&'static str> {
    let is_there = |name: &str| machine.path(name).exists() || machine.path(&format!("{name}.gz")).exists();
    INSTALLED.into_iter().filter(|name| !is_there(name)).collect()
}

#[test]
fn a_new_user_installs_upgrades_removes_and_purges_the_deb() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 40);
    let packed = temp_dir();
    let first = need!(package("deb", VERSION, packed.path()));
    let second = need!(package("deb", NEXT, packed.path()));
    let machine = need!(Machine::bare(&[&root], &[&first, &second]));
    let (first, second) = (file_name(&first), file_name(&second));

    // Installed, and told what to do; nothing runs before a volume is named.
    let said = apt(&machine, &["install", &format!("{FILES_AT}/{first}")]);
    for hint in [
        "purge-agent check",
        "systemctl enable --now purge-agent",
        "purgectl status",
    ] {
        assert!(said.contains(hint), "{said}");
    }
    assert_eq!(missing(&machine), [""; 0]);
    assert!(machine.run(&["systemctl", "is-active", "purge-agent"]).is_err());
    let check = || machine.run(&["sh", "-c", "purge-agent check 2>&1"]).unwrap();
    let warned = check();
    assert!(
        warned.contains("warning: volume scratch: /export/scratch cannot be read"),
        "{warned}"
    );

    // One path is edited.
    name_volume(&machine, &root);
    assert!(!check().contains("warning"));
    enable(&machine);
    let before = tracking(&machine);
    assert_eq!(before["files"], 40);
    machine.run(&["purgectl", "status"]).unwrap();
    machine.run(&["purgectl", "plan"]).unwrap();
    read(&files[0]);
    let used = until("the use is recorded", LONG, || {
        let explained = machine.ctl().explain(&files[0]);
        (text(&explained, "source") == "observed").then_some(explained)
    });
    let pid = machine.main_pid("purge-agent").unwrap();

    // Upgraded: another process, the same knowledge, and no use was missed meanwhile.
    let reader = std::thread::spawn({
        let files = files.clone();
        move || {
            for file in &files[1..30] {
                read(file);
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    });
    let said = apt(&machine, &["install", &format!("{FILES_AT}/{second}")]);
    assert!(
        !said.contains("systemctl enable"),
        "hints are for new users: {said}"
    );
    reader.join().unwrap();
    let after = tracking(&machine);
    assert_ne!(
        machine.main_pid("purge-agent").unwrap(),
        pid,
        "the new program runs"
    );
    assert_eq!(after["coverage_since"], before["coverage_since"]);
    assert_eq!(after["gaps"], Value::Array(Vec::new()));
    assert_eq!(
        machine.ctl().explain(&files[0])["last_access"],
        used["last_access"],
        "what was seen before is known"
    );
    for file in &files[1..30] {
        let explained = machine.ctl().explain(file);
        assert_eq!(
            text(&explained, "source"),
            "observed",
            "read during the upgrade: {explained}"
        );
    }
    let config = fs::read_to_string(machine.path("etc/purge-agent/agent.toml")).unwrap();
    assert!(
        config.contains(root.to_str().unwrap()),
        "the configuration is the user's"
    );

    // Removed: the programs go, what cannot be observed again stays.
    apt(&machine, &["remove", "purge-agent"]);
    assert!(!machine.path("usr/sbin/purge-agent").exists());
    assert!(machine.main_pid("purge-agent").is_none());
    assert!(machine.path("etc/purge-agent/agent.toml").exists());
    assert!(machine.path("var/lib/purge-agent/volumes").exists());
    apt(&machine, &["install", &format!("{FILES_AT}/{second}")]);
    enable(&machine);
    assert_eq!(tracking(&machine)["coverage_since"], before["coverage_since"]);

    // Purged: nothing of it is left, and the users' files are.
    // It says where files of theirs lie.
    fs::create_dir_all(root.join(".purge-agent-trash/r0tp9bjam7np.1790000000/f/d")).unwrap();
    let said = apt(&machine, &["purge", "purge-agent"]);
    let place = format!("{}/.purge-agent-trash holds files of users", root.display());
    assert!(said.contains(&place), "{said}");
    for gone in [
        "var/lib/purge-agent",
        "etc/purge-agent",
        "etc/logrotate.d/purge-agent",
        "run/purge-agent",
    ] {
        assert!(!machine.path(gone).exists(), "{gone} is left");
    }
    let left: BTreeSet<PathBuf> = regular_files(&root.join("d"));
    assert_eq!(left.len(), 40);
}

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As in a container that holds nothing else (package/Containerfile).
#[test]
fn the_static_programs_need_nothing_beside_them() {
    need!(
        are_static()
            .then_some(())
            .ok_or_else(|| Unmet("PURGE_TESTS_STATIC is not set: package/build takes minutes".to_owned()))
    );
    let packed = temp_dir();
    let package = need!(package("deb", VERSION, packed.path()));
    let mount = need!(Mount::new(Fs::Ext4));
    let files = make(&mount.path().join("d"), 40);
    let dir = temp_dir();
    let root = dir.path();
    let unpacked = temp_dir();
    sh(Command::new("dpkg-deb")
        .arg("-x")
        .arg(package)
        .arg(unpacked.path()))
    .unwrap();
    for part in ["usr/sbin", "usr/bin", "proc", "dev", "run", "state", "volume"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    for program in ["usr/sbin/purge-agent", "usr/bin/purgectl"] {
        fs::copy(unpacked.path().join(program), root.join(program)).unwrap();
    }
    let _binds: Vec<Bind> = [
        (mount.path(), "volume"),
        ("/proc".into(), "proc"),
        ("/dev".into(), "dev"),
    ]
    .into_iter()
    .map(|(from, to)| Bind::new(&from, &root.join(to)).unwrap())
    .collect();
    let mut agent = Command::new("chroot");
    agent
        .arg(root)
        .args(["/usr/sbin/purge-agent", "run", "--volume", "/volume"]);
    agent.args([
        "--ttl",
        "28d",
        "--state-dir",
        "/state",
        "--listen",
        "unix:/run/agent.sock",
    ]);
    let _agent = Running(agent.spawn().unwrap());
    let ctl = |words: &[&str]| {
        let mut ctl = Command::new("chroot");
        ctl.arg(root)
            .args(["/usr/bin/purgectl", "--endpoint", "unix:///run/agent.sock"]);
        sh(ctl.args(["--output", "json"]).args(words))
    };
    until("the agent is tracking", LONG, || {
        let status: Value = serde_json::from_str(&ctl(&["status"]).ok()?).unwrap();
        (status.pointer("/volumes/0/state")? == "tracking").then_some(())
    });
    read(&files[0]);
    until("the use is recorded", LONG, || {
        let explained = ctl(&["explain", "/volume/d/f000000"]).unwrap();
        let explained: Value = serde_json::from_str(&explained).unwrap();
        (text(&explained, "source") == "observed").then_some(())
    });
}

#[test]
fn the_rpm_installs_upgrades_and_goes() {
    need!(sh(Command::new("rpm").arg("--version")).map_err(Unmet));
    let packed = temp_dir();
    let first = need!(package("rpm", VERSION, packed.path()));
    let second = need!(package("rpm", NEXT, packed.path()));
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 40);
    // A Debian's systemd, and this host's rpm with a database of its own: it knows nothing that could be depended on.
    let machine = need!(Machine::bare(&[&mount.path()], &[]));
    // SQLite takes the link /proc/PID/root at its word, so the database of the machine's packages lies outside of it.
    let database = temp_dir();
    let rpm = |words: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--dbpath").arg(database.path());
        sh(rpm.arg("--root").arg(machine.path("/")).args(words)).unwrap()
    };
    let there = |name: &str| machine.path(name).exists();
    // rpm would run the scripts in the machine's root, but not in its namespaces, where systemctl sees no systemd.
    let script = |of: &Path, which: &str, left: &str| {
        let format = format!("%{{{which}}}");
        let text = rpm(&["-qp", "--queryformat", &format, of.to_str().unwrap()]);
        machine.run(&["sh", "-c", &text, "script", left]).unwrap()
    };
    rpm(&["--initdb"]);
    rpm(&["-i", "--nodeps", "--noscripts", first.to_str().unwrap()]);
    let said = script(&first, "POSTIN", "1");
    assert!(said.contains("systemctl enable --now purge-agent"), "{said}");
    let gone: Vec<_> = INSTALLED.into_iter().filter(|name| !there(name)).collect();
    assert_eq!(gone, [""; 0]);
    assert!(there("usr/lib/systemd/system/purge-agent.service"));
    machine.write("etc/logrotate.d/purge-agent", "# mine\n");
    name_volume(&machine, &mount.path());
    enable(&machine);
    let before = tracking(&machine);
    let pid = machine.main_pid("purge-agent").unwrap();

    rpm(&["-U", "--nodeps", "--noscripts", second.to_str().unwrap()]);
    let said = script(&second, "POSTIN", "2");
    assert!(!said.contains("systemctl"), "hints are for new users: {said}");
    script(&first, "PREUN", "1");
    script(&first, "POSTUN", "1");
    assert_eq!(
        rpm(&["-q", "purge-agent"]).trim(),
        format!("purge-agent-{NEXT}-1.{}", architecture("rpm"))
    );
    assert_eq!(tracking(&machine)["coverage_since"], before["coverage_since"]);
    assert_ne!(
        machine.main_pid("purge-agent").unwrap(),
        pid,
        "the new program runs"
    );
    let mine = fs::read_to_string(machine.path("etc/logrotate.d/purge-agent")).unwrap();
    assert_eq!(mine, "# mine\n", "what an administrator changed is kept");

    script(&second, "PREUN", "0");
    rpm(&["-e", "--noscripts", "purge-agent"]);
    script(&second, "POSTUN", "0");
    assert!(machine.main_pid("purge-agent").is_none());
    assert!(!there("usr/sbin/purge-agent") && !there("usr/bin/purgectl"));
    assert!(there("var/lib/purge-agent/volumes") && there("etc/purge-agent/agent.toml"));
}

#[test]
fn the_manual_pages_are_well_formed() {
    need!(sh(Command::new("which").arg("mandoc")).map_err(Unmet));
    let dir = temp_dir();
    sh(Command::new(binary("purge-package")).arg(dir.path())).unwrap();
    for page in ["purge-agent.8", "purgectl.1", "purge-agent.toml.5"] {
        let page = dir.path().join(page);
        let faults = sh(Command::new("mandoc")
            .args(["-T", "lint", "-W", "error"])
            .arg(&page));
        assert!(faults.is_ok(), "{faults:?}");
    }
    let bash = dir.path().join("purgectl.bash");
    sh(Command::new("bash").arg("-n").arg(bash)).unwrap();
}
