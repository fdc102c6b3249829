//! Places that users can write, named in the configuration of a daemon that is root: they are refused, and what is made is made for whom
//! it is meant.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use purge_tests::files::{make_one, now, set_times, temp_dir};
use purge_tests::wait::{LONG, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need};
use tempfile::TempDir;

const HOUR: i64 = 3600;
const USER: u32 = 50_001;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `purge-agent check` of a configuration in a directory of its own.
struct Checked {
    dir: TempDir,
    volume: PathBuf,
}

impl Checked {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let dir = temp_dir();
        mode(dir.path(), 0o755);
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::create_dir(dir.path().join("rules.d")).unwrap();
        let checked = Self { dir, volume };
        checked.write("");
        Some(checked)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, more: &str) {
        let config = Config::new(&self.volume, "");
        let text = config.text(&self.at("state"), &self.at("agent.sock"));
        fs::write(self.at("agent.toml"), format!("{text}\n{more}\n")).unwrap();
    }

    fn rule(&self, keys: &str) {
        self.write(&format!(
            "[[rule]]\nname = \"r\"\nvolume = \"v\"\nttl = \"1h\"\ninclude = [\"**\"]\n{keys}"
        ));
    }

    /// What it says, and whether all is well.
    fn says(&self) -> (bool, String) {
        let mut check = Command::new("timeout");
        check
            .arg("20")
            .arg(binary("purge-agent"))
            .args(["check", "--config"]);
        let out = check.arg(self.at("agent.toml")).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        (out.status.success(), text)
    }

    fn is_good(&self) {
        let (good, said) = self.says();
        assert!(good, "{said}");
    }

    /// Refused, with the place and the cure.
    fn is_refused(&self, place: &str, cure: &str) {
        let (good, said) = self.says();
        assert!(
            !good && said.contains(place) && said.contains(cure),
            "{place}, {cure}: {said}"
        );
    }
}

#[test]
fn configuration_that_others_can_change_is_refused() {
    let Some(checked) = Checked::new() else { return };
    checked.is_good();
    let rules = checked.at("rules.d/r.toml");
    fs::write(&rules, "").unwrap();
    for file in [checked.at("agent.toml"), rules.clone()] {
        let name = file.to_str().unwrap();
        for open in [0o666, 0o664, 0o646] {
            mode(&file, open);
            checked.is_refused(name, "chmod go-w");
        }
        mode(&file, 0o644);
        chown(&file, Some(USER), None).unwrap();
        checked.is_refused(name, "chown root");
        chown(&file, Some(0), None).unwrap();
        checked.is_good();
    }
    for dir in [checked.at("rules.d"), checked.dir.path().to_owned()] {
        mode(&dir, 0o777);
        checked.is_refused(dir.to_str().unwrap(), "chmod go-w");
        mode(&dir, 0o755);
    }
    // A link of a user's leads where they want.
    fs::remove_file(&rules).unwrap();
    fs::write(checked.at("elsewhere"), "").unwrap();
    symlink(checked.at("elsewhere"), &rules).unwrap();
    checked.is_good();
    std::os::unix::fs::lchown(&rules, Some(USER), None).unwrap();
    checked.is_refused(rules.to_str().unwrap(), "chown root");
    // Nothing waits for who will never write.
    fs::remove_file(&rules).unwrap();
    let made = Command::new("mkfifo").arg(&rules).status().unwrap();
    assert!(made.success());
    checked.is_refused(rules.to_str().unwrap(), "regular file");
}

#[test]
fn what_is_written_run_or_read_as_root_lies_where_only_root_writes() {
    let Some(checked) = Checked::new() else { return };
    let theirs = checked.at("theirs");
    fs::create_dir_all(theirs.join("inner")).unwrap();
    fs::write(theirs.join("inner/tell"), "#!/bin/sh\n").unwrap();
    mode(&theirs.join("inner/tell"), 0o755);
    fs::write(theirs.join("inner/map"), "").unwrap();
    fs::write(theirs.join("inner/owner-body.txt"), "text").unwrap();
    let place = theirs.join("inner");
    let place = place.display();
    let notify = "[notify]\nexec = { command = [\"/bin/true\"] }\n";
    let configurations = [
        format!("[notify]\nexec = {{ command = [\"{place}/tell\"] }}"),
        format!("{notify}addresses = \"{place}/map\""),
        format!("{notify}templates = \"{place}\""),
    ];
    let announced = format!("announce = \"20s\"\nannounce_to = \"{place}\"");
    let audit = format!("audit_log = \"{place}/audit.jsonl\"\n");
    let with_audit = || {
        let text = fs::read_to_string(checked.at("agent.toml")).unwrap();
        fs::write(checked.at("agent.toml"), format!("{audit}{text}")).unwrap();
    };
    let all: Vec<Box<dyn Fn()>> = configurations
        .iter()
        .map(|c| Box::new(|| checked.write(c)) as Box<dyn Fn()>)
        .chain([
            Box::new(|| checked.rule(&announced)) as Box<dyn Fn()>,
            Box::new(|| {
                checked.write("");
                with_audit();
            }),
        ])
        .collect();
    for configure in all {
        configure();
        checked.is_good();
        chown(&theirs, Some(USER), None).unwrap();
        checked.is_refused(theirs.to_str().unwrap(), "chown root");
        chown(&theirs, Some(0), None).unwrap();
        for open in [0o777, 0o757] {
            mode(&theirs, open);
            checked.is_refused(theirs.to_str().unwrap(), "chmod go-w");
        }
        mode(&theirs, 0o755);
        checked.is_good();
    }
    // The program itself, and a template that would never end.
    checked.write(&configurations[0]);
    mode(&theirs.join("inner/tell"), 0o775);
    checked.is_refused("inner/tell", "chmod go-w");
    checked.write(&configurations[2]);
    fs::remove_file(theirs.join("inner/owner-body.txt")).unwrap();
    for other in ["/dev/zero", "/proc/self/mem"] {
        symlink(other, theirs.join("inner/owner-body.txt")).unwrap();
        let (good, said) = checked.says();
        assert!(!good, "{other}: {said}");
        fs::remove_file(theirs.join("inner/owner-body.txt")).unwrap();
    }
    fs::write(theirs.join("inner/owner-body.txt"), vec![b'x'; 2 << 20]).unwrap();
    checked.is_refused("owner-body.txt", "bytes");
}

/// A volume with an old file of a user.
fn volume_of_user(mount: &Mount) -> PathBuf {
    let root = mount.dir("volume");
    let file = make_one(&root.join("mine"));
    chown(&file, Some(USER), Some(USER)).unwrap();
    set_times(&file, now() - 5 * HOUR);
    root
}

fn announcing(root: &Path, to: &Path) -> Config {
    let keys = format!(
        "ttl = \"1h\"\nclock = [\"access\"]\nannounce = \"20s\"\nannounce_to = \"{}\"",
        to.display()
    );
    Config::new(root, "baseline = \"mtime\"\nprecision = \"0s\"").rule("r", &keys)
}

fn can_read(uid: u32, file: &Path) -> bool {
    let ids = [
        format!("--reuid={uid}"),
        format!("--regid={uid}"),
        "--clear-groups".to_owned(),
    ];
    let mut cat = Command::new("setpriv");
    cat.args(ids).args(["--", "cat"]).arg(file);
    cat.output().unwrap().status.success()
}

#[test]
fn a_list_is_made_for_its_owner_with_any_umask() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = volume_of_user(&mount);
    let outside = temp_dir();
    mode(outside.path(), 0o755);
    let to = outside.path().join("lists/of/all");
    // As the unit has it.
    let words = ["sh", "-c", "umask 0077; exec \"$@\"", "sh"];
    let _agent = Agent::tracking_under(&announcing(&root, &to), &words);
    let list = to.join("r").join(USER.to_string());
    until("the list", LONG, || list.exists().then_some(()));
    assert!(can_read(USER, &list) && !can_read(USER + 1, &list));
    let is = fs::metadata(&list).unwrap();
    assert_eq!((is.uid(), is.mode() & 0o7777), (USER, 0o400));
}

#[test]
fn what_cannot_be_published_is_not_announced_and_is_published_once_it_can_be() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = volume_of_user(&mount);
    let outside = temp_dir();
    mode(outside.path(), 0o755);
    let to = outside.path().join("lists");
    let (bait, witness) = (outside.path().join("bait"), outside.path().join("bait/x"));
    fs::create_dir_all(&to).unwrap();
    fs::create_dir(&bait).unwrap();
    fs::write(&witness, "witness").unwrap();
    // What a user could have put there while the directory was theirs.
    symlink(&bait, to.join("r")).unwrap();
    let agent = Agent::tracking(&announcing(&root, &to));
    until("doctor says so", LONG, || {
        let doctor = agent.ctl().run(["doctor"]).text();
        (doctor.contains("lists") && doctor.contains("announce_to")).then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    assert!(
        !agent.state_dir().join("announced/r").exists(),
        "nothing is announced"
    );
    assert_eq!(
        fs::read_dir(&bait).unwrap().count(),
        1,
        "nothing goes by the link"
    );
    assert_eq!(fs::read_to_string(&witness).unwrap(), "witness");
    fs::remove_file(to.join("r")).unwrap();
    let list = to.join("r").join(USER.to_string());
    until("it is tried again", Duration::from_secs(90), || {
        (list.exists() && agent.state_dir().join("announced/r").exists()).then_some(())
    });
    until("doctor is content", LONG, || {
        (!agent.ctl().run(["doctor"]).text().contains("announce_to")).then_some(())
    });
    // Now it becomes a user's: nothing more is written there, and nothing of theirs is touched.
    chown(&to, Some(USER), None).unwrap();
    fs::rename(to.join("r"), to.join("kept")).unwrap();
    symlink(&bait, to.join("r")).unwrap();
    until("doctor names who can exchange it", LONG, || {
        let doctor = agent.ctl().run(["doctor"]).text();
        doctor.contains(&format!("belongs to user {USER}")).then_some(())
    });
    assert_eq!(fs::read_dir(&bait).unwrap().count(), 1);
}

#[test]
fn the_audit_log_is_never_what_a_link_leads_to() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let (log, bait) = (
        agent.state_dir().join("audit.jsonl"),
        agent.state_dir().join("bait"),
    );
    fs::write(&bait, "half a line").unwrap();
    fs::rename(&log, agent.state_dir().join("audit.jsonl.1")).unwrap();
    symlink(&bait, &log).unwrap();
    agent.reload();
    agent.wait_until_it_says("the audit log cannot be opened again");
    assert_eq!(fs::read_to_string(&bait).unwrap(), "half a line");
    agent.terminate();
    let (status, said) = agent.launch_in_vain();
    assert!(
        !status.success() && said.contains("audit.jsonl is no regular file"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&bait).unwrap(), "half a line");
}

#[test]
fn only_a_socket_is_replaced_by_the_socket() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let mut agent = Agent::tracking(&Config::backdated(&root));
    let socket = agent.socket();
    let is = |path: &Path| fs::symlink_metadata(path).unwrap();
    assert_eq!(is(&socket).mode() & 0o7777, 0o660);
    agent.kill();
    // Left behind by one that was killed: replaced.
    agent.launch();
    agent.wait_until_tracking();
    agent.terminate();
    assert!(!socket.exists());
    let witness = socket.with_file_name("witness");
    fs::write(&witness, "witness").unwrap();
    symlink(&witness, &socket).unwrap();
    let (_, said) = agent.launch_in_vain();
    assert!(said.contains("is no socket"), "{said}");
    assert!(is(&socket).is_symlink());
    assert_eq!(
        (
            fs::read_to_string(&witness).unwrap().as_str(),
            is(&witness).mode() & 0o777
        ),
        ("witness", 0o644)
    );
    fs::remove_file(&socket).unwrap();
    mode(socket.parent().unwrap(), 0o777);
    let (_, said) = agent.launch_in_vain();
    assert!(said.contains("can be written by others than root"), "{said}");
}

#[test]
fn a_program_that_is_told_inherits_nothing_and_ends_with_what_it_started() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.dir("volume");
    let outside = temp_dir();
    let (program, said) = (outside.path().join("tell"), outside.path().join("said"));
    let script = format!(
        "#!/bin/sh\n{{ readlink /proc/$$/fd/* | tr '\\n' ' '; echo; pwd; env; }} > {said}.new\nmv {said}.new {said}\n",
        said = said.display()
    );
    fs::write(&program, script).unwrap();
    mode(&program, 0o755);
    let (slow, pid) = (outside.path().join("slow"), outside.path().join("pid"));
    fs::write(
        &slow,
        format!("#!/bin/sh\nsleep 600 &\necho $! > {}\nwait\n", pid.display()),
    )
    .unwrap();
    mode(&slow, 0o755);
    let sinks = format!(
        "exec = [{{ command = [\"{}\"] }}, {{ name = \"slow\", timeout = \"2s\", command = [\"{}\"] }}]",
        program.display(),
        slow.display()
    );
    // What the agent itself was started with is not the program's either.
    let words = ["sh", "-c", "exec 9</etc/passwd; exec \"$@\"", "sh"];
    let agent = Agent::tracking_under(&Config::backdated(&root).notifying(&sinks), &words);
    let tell = |sink: &str| agent.ctl().run(["notices", "test", "--sink", sink]);
    let _ = tell("exec").ok();
    let text = fs::read_to_string(&said).unwrap();
    let mut lines = text.lines();
    let open: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    // The streams, and what the shell itself has open: its script, and what it writes.
    let place = outside.path().to_str().unwrap();
    let is_own = |link: &&str| {
        ["pipe:", "/dev/null", place]
            .iter()
            .any(|own| link.starts_with(own))
    };
    assert!(open.len() >= 3 && open.iter().all(is_own), "{text}");
    assert_eq!(lines.next(), Some("/"));
    let names: Vec<&str> = lines.filter_map(|l| Some(l.split_once('=')?.0)).collect();
    let known = [
        "PATH",
        "PURGE_NOTICE_ID",
        "PURGE_EVENT",
        "PURGE_TO",
        "PURGE_SUBJECT",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    ];
    assert!(names.iter().all(|n| known.contains(n)), "{text}");
    assert_ne!(tell("slow").code, 0);
    let child = fs::read_to_string(&pid).unwrap();
    until("what it started has ended", LONG, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        stat.map_or(true, |s| s.contains(") Z ")).then_some(())
    });
    // Exchanged while the agent runs: it is not started.
    fs::remove_file(&said).unwrap();
    mode(&program, 0o777);
    let refused = tell("exec");
    assert!(
        refused.code != 0 && refused.stderr.contains("can be written by others"),
        "{}",
        refused.stderr
    );
    assert!(!said.exists());
}
