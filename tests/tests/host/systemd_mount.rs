//! The mount by which users come, under a real systemd: it is seen by all of the machine, and systemd keeps it over the end of its process.

use std::fs;
use std::path::Path;

use purge_tests::files::make;
use purge_tests::systemd::Machine;
use purge_tests::through::Point;
use purge_tests::wait::{SOON, until};
use purge_tests::{Config, Fs, Mount, need};

use rustix::process::{Pid, Signal, kill_process};

const UNIT: &str = "purge-agent-mount@v";

#[test]
fn under_systemd_users_notice_no_end_of_the_mounts_process_and_a_stop_unmounts() {
    let _ = need!(Point::new());
    let mount = need!(Mount::new(Fs::Ext4));
    let behind = mount.dir("volume");
    make(&behind, 50);
    let machine = need!(Machine::boot(&[&mount.path(), Path::new("/dev/fuse")]));
    let keys = "collector = \"fuse\"\nmount = \"/seen\"";
    let config = Config::new(&behind, keys);
    let text = config.text(
        Path::new("/var/lib/purge-agent"),
        Path::new("/run/purge-agent/agent.sock"),
    );
    machine.write("/etc/purge-agent/agent.toml", &text);
    machine.run(&["mkdir", "/seen"]).unwrap();
    machine.run(&["systemctl", "daemon-reload"]).unwrap();
    machine.run(&["systemctl", "start", UNIT]).unwrap();
    let work = "n=0; while [ ! -e /tmp/over ]; do cat /seen/f0000$((n % 40 + 10)) >/dev/null || exit 1; \
                echo $n >/seen/own || exit 1; [ $(cat /seen/own) = $n ] || exit 1; n=$((n + 1)); echo $n >/tmp/done; done";
    machine
        .run(&["systemd-run", "--unit=user", "sh", "-c", work])
        .unwrap();
    let done = || -> u64 {
        let text = machine.run(&["cat", "/tmp/done"]).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let goes_on = || {
        let before = done();
        until("a user works", SOON, || (done() > before + 5).then_some(()));
    };
    goes_on();
    for _ in 0..3 {
        let pid = until("the mount runs", SOON, || {
            machine.main_pid(UNIT).filter(|pid| *pid > 0)
        });
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        goes_on();
    }
    machine.run(&["systemctl", "kill", "--signal=HUP", UNIT]).unwrap();
    goes_on();
    machine.run(&["touch", "/tmp/over"]).unwrap();
    until("the user is through", SOON, || {
        let state = machine
            .run(&["systemctl", "show", "-p", "ActiveState", "--value", "user"])
            .ok()?;
        assert_ne!(state.trim(), "failed", "an error came to the user");
        (state.trim() == "inactive").then_some(())
    });
    assert!(!fs::read(behind.join("own")).unwrap().is_empty());
    machine.run(&["systemctl", "stop", UNIT]).unwrap();
    assert!(
        machine.run(&["mountpoint", "-q", "/seen"]).is_err(),
        "it is unmounted"
    );
}
