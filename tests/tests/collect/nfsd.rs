//! Files that clients of the kernel's NFS server hold, of which no event tells. The server's list is one of the test's making, in the
//! kernel's words, in the agent's own /proc: `tests/run --with-kernels` does the same with the kernel's server, in a machine of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use purge_tests::ctl::text;
use purge_tests::files::{age_tree, assert_same, make, seen_by, temp_dir};
use purge_tests::wait::{LONG, until, until_same};
use purge_tests::{Config, Ctl, Fs, Mount, binary, need};
use serde_json::Value;

/// Ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As the kernel names a file: device in hex, inode in decimal.
fn superblock(path: &Path) -> String {
    let file = fs::metadata(path).unwrap();
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    format!("superblock: \"{major:02x}:{minor:02x}:{}\"", file.ino())
}

#[test]
fn what_clients_hold_goes_on_being_used() {
    const EACH: usize = 10;
    let mount = need!(Mount::new(Fs::Ext4));
    let files = make(&mount.path().join("d"), 4 * EACH);
    age_tree(&mount.path());
    let dir = temp_dir();
    let (config, socket) = (dir.path().join("agent.toml"), dir.path().join("agent.sock"));
    let text_of_config = Config::backdated(&mount.path()).text(&dir.path().join("state"), &socket);
    fs::write(&config, text_of_config).unwrap();
    let script = "mount -t tmpfs purge-tests /proc/fs && mkdir -p /proc/fs/nfsd/clients && exec \"$@\"";
    let agent = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(binary("purge-agent"))
        .args(["run", "--config"])
        .arg(&config)
        .spawn()
        .unwrap();
    let clients = seen_by(agent.id(), "/proc/fs/nfsd/clients");
    let _agent = Running(agent);
    let ctl = Ctl::new(&socket);
    until("the agent is tracking", LONG, || {
        let status = ctl.run(["status", "--output", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        (status.pointer("/volumes/0/state")? == "tracking").then_some(())
    });
    let all: BTreeSet<PathBuf> = files.iter().cloned().collect();
    assert_same("no client holds anything", &ctl.candidate_files(), &all);

    let mut states = String::new();
    for (number, file) in files.iter().take(3 * EACH).enumerate() {
        let of = superblock(file);
        states += &match number / EACH {
            0 => format!(
                "- 0x{number:032x}: {{ type: open, access: r-, deny: --, {of}, filename: \"x\", owner: \"y\" }}\n"
            ),
            1 => format!("- 0x{number:032x}: {{ type: deleg, access: r, {of}, filename: \"x\" }}\n"),
            // Another file system's inodes may have the same numbers.
            _ => format!(
                "- 0x{number:032x}: {{ type: deleg, access: r, {} }}\n",
                of.replacen("\"", "\"f", 1)
            ),
        };
    }
    fs::create_dir(clients.join("7")).unwrap();
    fs::write(clients.join("7/states"), states).unwrap();
    let expected = files.iter().skip(2 * EACH).cloned().collect();
    until_same("what no client holds", &expected, || ctl.candidate_files());

    // For as long as they hold it.
    let last = |file: &Path| text(&ctl.explain(file), "last_access").to_owned();
    let first = last(&files[0]);
    until("it is in use still", LONG, || {
        (last(&files[0]) > first).then_some(())
    });
}
