//! An agent that is killed again and again while it sends: every notice arrives, none twice.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::{Duration, Instant};

use purge_tests::ctl::text;
use purge_tests::notices::{PATIENCE, notices, until_nothing_waits};
use purge_tests::sinks::free_port;
use purge_tests::sinks::hook::Hook;
use purge_tests::wait::until;
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

const FIRST_UID: u32 = 60_000;

/// Owners, each of whom is over quota: a notice each.
fn crowd(mount: &Mount, count: u32) {
    for uid in FIRST_UID..FIRST_UID + count {
        let path = mount.path().join(format!("f{uid}"));
        fs::write(&path, "two").unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
    }
}

/// Numbers that differ from run to run.
fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u64::from_le_bytes(bytes) % below
}

/// How often each notice was taken.
fn times(hook: &Hook) -> BTreeMap<String, u32> {
    let mut times = BTreeMap::new();
    for posted in hook.taken() {
        let id = text(&posted.json(), "notice_id").to_owned();
        let (header, key) = (&posted.headers["webhook-id"], &posted.headers["idempotency-key"]);
        assert_eq!((header, key), (&id, &id));
        *times.entry(id).or_default() += 1;
    }
    times
}

fn telling(mount: &Mount, port: u16) -> Config {
    Config::new(&mount.path(), "baseline = \"mtime\"")
        .rule("old", "ttl = \"24h\"")
        .table(
            "quota",
            "name = \"user\"\nsubject = \"user\"\nhard = \"2B\"\nrule = \"old\"",
        )
        .notifying(&format!(
            "webhook = {{ url = \"http://127.0.0.1:{port}/\", events = [\"over-quota\"] }}"
        ))
}

/// An agent with `count` notices that wait; it was killed.
fn agent_with_notices(mount: &Mount, port: u16, count: u32) -> Agent {
    crowd(mount, count);
    let mut agent = Agent::tracking(&telling(mount, port));
    let ctl = agent.ctl();
    until("each owner's notice waits", PATIENCE, || {
        (notices(&ctl, &[]).len() == count as usize).then_some(())
    });
    agent.kill();
    agent
}

/// The time between the first answer to a notice and the kill that followed, for each that was taken twice: what was answered
/// before the kill, and yet sent again. An answer to an agent that was dead by then could not have been noted.
fn forgotten(hook: &Hook, kills: &[Instant]) -> Vec<Duration> {
    let mut first: BTreeMap<String, Instant> = BTreeMap::new();
    let mut forgotten = Vec::new();
    for posted in hook.taken() {
        let id = text(&posted.json(), "notice_id").to_owned();
        if let Some(at) = first.get(&id) {
            let kill = kills.iter().find(|kill| *kill >= at);
            forgotten.extend(kill.filter(|kill| **kill < posted.at).map(|kill| *kill - *at));
        }
        first.entry(id).or_insert(posted.at);
    }
    forgotten
}

/// Nothing can be done about an answer that is on its way when the agent is killed. All that comes after that is covered.
/// `PURGE_TESTS_KILLS=200` for a longer run.
#[test]
fn an_agent_that_is_killed_at_any_moment_loses_nothing_and_forgets_no_answer_that_it_had() {
    let kills: usize = std::env::var("PURGE_TESTS_KILLS").map_or(12, |n| n.parse().unwrap());
    let count = kills * 12;
    let mount = need!(Mount::sized(Fs::Ext4, 64, count as u64 + 500));
    let port = free_port();
    let mut agent = agent_with_notices(&mount, port, count as u32);
    let ctl = agent.ctl();
    let hook = Hook::start(port);
    hook.think(Duration::from_millis(5));
    let mut killed = Vec::new();
    // The first ones were tried in vain, and may come last.
    while killed.len() < kills && times(&hook).len() + 10 < count {
        let before = hook.posted().len();
        agent.launch();
        until("something is sent", PATIENCE, || {
            (hook.posted().len() > before).then_some(())
        });
        std::thread::sleep(Duration::from_micros(random(40_000)));
        killed.push(Instant::now());
        agent.kill();
    }
    agent.launch();
    agent.wait_until_tracking();
    until_nothing_waits(&ctl, &[]);

    let times = times(&hook);
    let twice = times.values().filter(|n| **n > 1).count();
    let forgotten = forgotten(&hook, &killed);
    println!(
        "{count} notices, {} kills, {twice} sent twice, of which {} answered before the kill: {forgotten:?}",
        killed.len(),
        forgotten.len()
    );
    assert!(killed.len() > kills / 3, "{} kills", killed.len());
    assert_eq!(times.len(), count, "every notice arrives");
    assert_eq!(notices(&ctl, &["--state", "sent"]).len(), count);
    assert!(
        forgotten.len() <= 1 + kills / 6,
        "{forgotten:?} in {} kills",
        killed.len()
    );
    // A processor's time slices on a busy machine.
    assert!(
        forgotten.iter().all(|f| *f < Duration::from_millis(20)),
        "{forgotten:?}"
    );
}

/// The notice's own file cannot be written; which sink took it is remembered all the same.
#[test]
fn what_was_taken_is_not_sent_again_though_nothing_could_be_written_about_it() {
    const COUNT: u32 = 20;
    let mount = need!(Mount::sized(Fs::Ext4, 64, 500));
    let port = free_port();
    let mut agent = agent_with_notices(&mount, port, COUNT);
    let dir = agent.state_dir().join("notices");
    let immutable = |flag: &str| sh(Command::new("chattr").arg(flag).arg(&dir)).unwrap();
    let hook = Hook::start(port);
    immutable("+i");
    agent.launch();
    until("all but the first ones are taken", PATIENCE, || {
        (times(&hook).len() + 3 >= COUNT as usize).then_some(())
    });
    agent.wait_until_tracking();
    let written = fs::read_dir(&dir).unwrap().filter(|entry| {
        let text = fs::read_to_string(entry.as_ref().unwrap().path()).unwrap_or_default();
        text.contains("\"waiting\"")
    });
    assert!(written.count() > 10, "their files say that they wait");
    agent.kill();
    immutable("-i");
    agent.launch();
    agent.wait_until_tracking();
    until_nothing_waits(&agent.ctl(), &[]);
    let times = times(&hook);
    assert_eq!(times.len(), COUNT as usize);
    assert!(times.values().all(|n| *n == 1), "{times:?}");
}
