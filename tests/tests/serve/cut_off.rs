//! Clients whose network is cut in the middle of a call: neither end is told, and yet the agent drops them, and their runs go on.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use purge_tests::cable::{Cable, HERE, THERE};
use purge_tests::certs::{Authority, Validity, free_port, listen_keys};
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, temp_dir};
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, binary, need, sh};

/// With long paths, enough for a list of them to fill all buffers between the agent and a client that reads nothing.
const FILES: usize = 12_000;
/// The kernel ends a connection on which nothing was taken for a minute; it looks now and then.
const LET_GO_WITHIN: Duration = Duration::from_secs(100);
/// What clients that were cut off may leave behind.
const LEFT_MAX: u64 = 16 << 20;

/// Ended when dropped.
struct Far(Child);

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The agent's connections to the other end of the cable, with what the kernel says of them.
fn connections() -> Vec<String> {
    let all = sh(Command::new("ss").args(["-Htno", "dst", THERE])).unwrap();
    all.lines().map(str::to_owned).collect()
}

/// How much the kernel has taken from the agent that has not arrived, for each connection.
fn untaken(connections: &[String]) -> Vec<u64> {
    let of = |line: &String| line.split_whitespace().nth(2)?.parse().ok();
    connections.iter().filter_map(of).collect()
}

#[test]
fn clients_whose_network_is_cut_are_let_go_and_their_runs_go_on() {
    let cable = need!(Cable::new());
    let mount = need!(Mount::new(Fs::Ext4));
    let long = "a-long-name-of-a-directory-".repeat(8);
    make(&mount.path().join(&long).join(&long).join(&long), FILES);
    age_tree(&mount.path());
    let (dir, port) = (temp_dir(), free_port());
    let authority = Authority::new("everybody's");
    let shown = authority.vouch(dir.path(), "agent", Validity::Long);
    let ca = authority.write(&dir.path().join("ca.pem"));
    let listen = listen_keys(port, &shown, &ca).replace("127.0.0.1", HERE);
    let config = Config::backdated_with(&mount.path(), "remove_empty_dirs = false")
        .listening(&listen)
        .access("admin = { certificates = [\"CN=admin,O=Example\"] }");
    let agent = Agent::tracking(&config);
    let admin = authority.vouch(dir.path(), "admin", Validity::Long);
    let far = |words: &[&str]| {
        let mut far = cable.far(binary("purgectl"));
        far.arg("--endpoint").arg(format!("https://{HERE}:{port}"));
        far.arg("--ca").arg(&ca).arg("--cert").arg(&admin.cert);
        far.arg("--key").arg(&admin.key).args(words);
        far
    };
    let begin = |words: &[&str]| {
        let mut far = far(words);
        far.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Far(far.spawn().unwrap())
    };
    sh(&mut far(&["status"])).unwrap();
    let ctl = agent.ctl();
    let resident = || {
        number(
            &ctl.run(["status", "--output", "json"]).ok().json(),
            "/resident_bytes",
        )
    };
    let plan = ctl.plan();
    until("earlier clients have disconnected", SOON, || {
        connections().is_empty().then_some(())
    });
    let before = resident();

    // Some read nothing of a long answer, one follows a run of its own.
    let mut calls: Vec<Far> = (0..4)
        .map(|_| begin(&["show", &plan.id, "--output", "ndjson"]))
        .collect();
    until("all of them have stopped reading", SOON, || {
        let now = connections();
        let waiting = untaken(&now).iter().filter(|bytes| **bytes > 0).count();
        (now.len() == 4 && waiting == 4).then_some(())
    });
    calls.push(begin(&["apply", &plan.id, "--yes", "--max-rate", "50"]));
    let run = until("the run goes on", SOON, || {
        let runs = ctl.run(["runs", "--output", "json"]).ok().json();
        Some(runs.pointer("/0/run_id")?.as_str()?.to_owned())
    });
    let deleted = || {
        let run = ctl.run(["run", &run, "--output", "json"]).ok().json();
        assert_eq!(text(&run, "state"), "running");
        number(&run, "/deleted/files")
    };
    assert_eq!(connections().len(), calls.len());
    cable.mend(false);
    let cut = Instant::now();
    let then = deleted();
    until(
        "the run goes on without the client that asked for it",
        SOON,
        || (deleted() > then).then_some(()),
    );
    // Others are served meanwhile.
    let _ = ctl.plan();
    assert_eq!(connections().len(), calls.len(), "neither end was told");
    until("those who were cut off are let go", LET_GO_WITHIN, || {
        connections().is_empty().then_some(())
    });
    println!("let go {:.0?} after the cut", cut.elapsed());
    let_pass(1);
    let after = resident();
    assert!(after < before + LEFT_MAX, "{before} bytes before, {after} after");
    assert!(deleted() > then);
    drop(calls);
    cable.mend(true);
    until("they may come again", SOON, || sh(&mut far(&["status"])).ok());
    let _ = ctl.run(["cancel", &run]).ok();
}
