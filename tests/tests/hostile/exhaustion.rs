//! Users who take all that an agent gives: connections, calls, memory, threads. Root and the watch go on beside them, and what they took
//! comes back when they leave.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::certs::free_port;
use purge_tests::ctl::number;
use purge_tests::files::{age_tree, make};
use purge_tests::rpc::{channel_as, channel_of_a_closed_window, runtime};
use purge_tests::wait::{Ends, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A user with a role, one without, and those that another user has at hand (subuid(5)).
const VIEWER: u32 = 4301;
const ALICE: u32 = 4302;
const FIRST: u32 = 200_000;
/// This many users, each with as many connections as one may have.
const USERS: u32 = 17;
const EACH: usize = 32;
/// What root is promised.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// Many directories with long names, Alice's, with a file each.
fn agent_of(mount: &Mount, directories: usize, launcher: &[&str], listen: &str) -> Agent {
    let long = "a-long-name-of-a-directory-".repeat(8);
    let top = mount.path().join(&long).join(&long).join(&long);
    for i in 0..directories {
        let dir = top.join(format!("d{i:05}"));
        for file in make(&dir, 1) {
            chown(&file, Some(ALICE), Some(ALICE)).unwrap();
        }
    }
    age_tree(&mount.path());
    let users: Vec<String> = (FIRST..FIRST + USERS)
        .chain([VIEWER])
        .map(|uid| format!("\"{uid}\""))
        .collect();
    let config = Config::backdated_with(&mount.path(), "remove_empty_dirs = false")
        .listening(listen)
        .access(&format!(
            "viewer = {{ users = [{}] }}\nself = true",
            users.join(", ")
        ));
    let agent = Agent::tracking_under(&config, launcher);
    agent.reachable();
    agent
}

/// Memory of the agent, in bytes.
fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn count(agent: &Agent, what: &str) -> usize {
    fs::read_dir(format!("/proc/{}/{what}", agent.pid()))
        .unwrap()
        .count()
}

fn find(sort: v1::Sort) -> v1::FindRequest {
    v1::FindRequest {
        sort: sort.into(),
        ..Default::default()
    }
}

/// Asks, and takes the first byte of the answer.
fn unread_find(
    runtime: &Runtime,
    channel: &Channel,
    sort: v1::Sort,
) -> Result<tonic::Streaming<v1::Entry>, Status> {
    let mut client = PurgeAgentClient::new(channel.clone());
    runtime.block_on(async {
        let asked = tokio::time::timeout(SOON, client.find(find(sort))).await;
        Ok(asked
            .map_err(|_| Status::deadline_exceeded("no answer"))??
            .into_inner())
    })
}

#[test]
fn answers_that_no_client_reads_are_bounded_and_given_back() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let agent = agent_of(&mount, 4000, &[], "");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // What the first answers of each kind make is not what is measured.
    for sort in [v1::Sort::Path, v1::Sort::Age] {
        drop(unread_find(
            &runtime,
            &channel_of_a_closed_window(&runtime, &agent, VIEWER).unwrap(),
            sort,
        ));
    }
    let (before, threads) = (resident(&agent), count(&agent, "task"));

    let channels: Vec<Channel> = (0..EACH)
        .map(|_| channel_of_a_closed_window(&runtime, &agent, ALICE).unwrap())
        .collect();
    let mine = v1::MineRequest {
        depth: 99,
        ..Default::default()
    };
    let asked: Vec<_> = channels
        .iter()
        .map(|channel| {
            let (mut client, mine) = (PurgeAgentClient::new(channel.clone()), mine.clone());
            runtime.spawn(async move { client.mine(mine).await })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let took = resident(&agent).saturating_sub(before) / MIB;
    println!("{EACH} unread answers of `mine`: {took} MiB");
    assert!(took < 40, "{took} MiB");
    asked.iter().for_each(|task| task.abort());
    drop(channels);

    let channels: Vec<Channel> = (0..EACH)
        .map(|_| channel_of_a_closed_window(&runtime, &agent, VIEWER).unwrap())
        .collect();
    let sorts = [v1::Sort::Path, v1::Sort::Age, v1::Sort::Size];
    let mut open = Vec::new();
    for (channel, sort) in channels.iter().zip(sorts.iter().cycle()) {
        match unread_find(&runtime, channel, *sort) {
            Ok(entries) => open.push(entries),
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}"),
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let took = resident(&agent).saturating_sub(before) / MIB;
    let more = count(&agent, "task").saturating_sub(threads);
    println!(
        "{} unread sorted answers of `find`: {took} MiB, {more} threads more",
        open.len()
    );
    assert!(
        open.len() > EACH / 2 && took < 100,
        "{} open, {took} MiB",
        open.len()
    );
    assert!(more < 20, "{more} threads for clients that read nothing");

    // They leave: a moment later all of it is there again.
    let left = Instant::now();
    drop((open, channels));
    drop(runtime);
    let back = until("the memory is given back", SOON, || {
        let now = resident(&agent).saturating_sub(before) / MIB;
        (now < 24).then(|| left.elapsed())
    });
    println!("given back after {back:?}");
    let root = runtime_of_one();
    let mut client = PurgeAgentClient::new(channel_as(&root, &agent, VIEWER, &[]).unwrap());
    let all = root.block_on(async {
        let mut entries = client.find(find(v1::Sort::Path)).await.unwrap().into_inner();
        let mut paths = Vec::new();
        while let Some(entry) = entries.message().await.unwrap() {
            paths.push(entry.path);
        }
        paths
    });
    assert!(all.is_sorted() && all.len() == 8004, "{} entries", all.len());
}

fn runtime_of_one() -> Runtime {
    runtime()
}

#[test]
fn an_answer_that_is_no_stream_tells_what_one_message_holds_and_how_much_there_is() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let agent = agent_of(&mount, 2000, &[], "");
    let runtime = runtime();
    let mut client = PurgeAgentClient::new(channel_as(&runtime, &agent, ALICE, &[]).unwrap());
    let mine = v1::MineRequest {
        depth: 99,
        ..Default::default()
    };
    let report = runtime.block_on(client.mine(mine)).unwrap().into_inner();
    assert_eq!(
        (report.files, report.directories_total),
        (2000, 2000),
        "the sums are of all"
    );
    let told = report.directories.len();
    assert!((100..2000).contains(&told), "{told} are told one by one");
    let bytes: usize = report.directories.iter().map(|d| d.path.len()).sum();
    assert!(bytes < MIB as usize, "{bytes}");
}

/// Reads one answer over plain HTTP.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SOON))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Makes, reads, renames and removes files until it is told to stop.
fn storm(root: &Path, n: usize, over: &AtomicBool) -> u64 {
    let dir = root.join(format!("storm{n}"));
    fs::create_dir(&dir).unwrap();
    let mut rounds = 0;
    while !over.load(Relaxed) {
        let (one, other) = (dir.join("f"), dir.join("g"));
        fs::write(&one, "x").unwrap();
        fs::read(&one).unwrap();
        fs::rename(&one, &other).unwrap();
        fs::remove_file(&other).unwrap();
        rounds += 1;
    }
    rounds
}

/// All at once: every connection that 17 users may have, as many silent ones, each with an answer that is not read, TCP connections
/// that say nothing, and a storm of events. With few descriptors: what takes all of them takes them sooner.
#[test]
fn users_who_take_all_there_is_take_it_from_others_like_them() {
    all_at_once(&["prlimit", "--nofile=512:512"]);
}

/// The same where there are as many descriptors as the agent wants: then it is threads and memory.
#[test]
fn and_so_it_is_where_descriptors_are_plenty() {
    all_at_once(&[]);
}

fn all_at_once(launcher: &[&str]) {
    let mount = need!(Mount::new(Fs::Ext4));
    let metrics = free_port();
    let agent = agent_of(
        &mount,
        1000,
        launcher,
        &format!("metrics = \"127.0.0.1:{metrics}\""),
    );
    let used = mount.path().join("used");
    let files = make(&used, 50);
    until("they are in the index", SOON, || {
        (number(&agent.status(), "/files") == 1050).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let before = resident(&agent);
    let (over, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut open, mut refused, mut waiting) = (Vec::new(), 0, 0);
    std::thread::scope(|scope| {
        let ends = Ends(&over);
        let storms: Vec<_> = (0..2)
            .map(|n| {
                let (root, over) = (mount.path(), &over);
                scope.spawn(move || storm(&root, n, over))
            })
            .collect();
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Relaxed) {
                let began = Instant::now();
                let answer = agent.ctl().run_within(SOON, ["status", "--output", "json"]);
                let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                longest.fetch_max(took, Relaxed);
                if answer.code != 0 {
                    return Err(format!("after {took} ms: {}", answer.stderr));
                }
                asked += 1;
            }
            Ok(asked)
        });
        let _tcp: Vec<TcpStream> = (0..100)
            .map(|_| TcpStream::connect(("127.0.0.1", metrics)).unwrap())
            .collect();
        let _silent: Vec<UnixStream> = (FIRST..FIRST + USERS)
            .flat_map(|uid| {
                (0..EACH)
                    .filter_map(|_| agent.connect_as(uid + 100, &[]).ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        let asked: Vec<_> = (FIRST..FIRST + USERS)
            .flat_map(|uid| std::iter::repeat_n(uid, EACH))
            .filter_map(|uid| channel_of_a_closed_window(&runtime, &agent, uid).ok())
            .map(|channel| {
                let mut client = PurgeAgentClient::new(channel);
                runtime.spawn(async move { Ok((client.find(find(v1::Sort::Age)).await?, client)) })
            })
            .collect();
        let until = tokio::time::Instant::now() + Duration::from_secs(15);
        for task in asked {
            match runtime.block_on(async { tokio::time::timeout_at(until, task).await }) {
                Ok(Ok(Ok(entries))) => open.push(entries),
                Ok(Ok(Err::<_, Status>(_))) => refused += 1,
                _ => waiting += 1,
            }
        }
        files.iter().for_each(|file| drop(fs::read(file).unwrap()));
        let health = get(metrics, "/healthz").unwrap();
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        let page = get(metrics, "/metrics").unwrap();
        assert!(page.contains("purge_agent_"), "{page}");
        let took = resident(&agent).saturating_sub(before) / MIB;
        let (descriptors, threads) = (count(&agent, "fd"), count(&agent, "task"));
        drop(ends);
        let rounds: u64 = storms.into_iter().map(|s| s.join().unwrap()).sum();
        let asked: u32 = asking.join().unwrap().expect("root is answered");
        println!(
            "{} unread answers open, {refused} refused, {waiting} waiting, {took} MiB, {descriptors} descriptors, {threads} threads; {rounds} rounds of a storm; \
             the longest of {asked} answers to root: {} ms",
            open.len(),
            longest.load(Relaxed)
        );
        assert!(took < 128 && descriptors < 450 && threads < 100);
    });
    let longest = Duration::from_millis(longest.load(Relaxed));
    assert!(longest < ANSWERS_WITHIN * 3, "root waited {longest:?}");
    // The watch went on: nothing lost, no gap, every use seen.
    let status = until("the storm is in the index", SOON, || {
        let status = agent.status();
        (number(&status, "/files") == 1050).then_some(status)
    });
    assert_eq!(status.get("state").unwrap(), "tracking", "{status}");
    assert_eq!(number(&status, "/events_lost_total"), 0);
    assert_eq!(
        status.get("gaps").and_then(|g| g.as_array()).map_or(0, Vec::len),
        0,
        "{status}"
    );
    let candidates = agent.ctl().candidate_files();
    assert!(candidates.len() == 1000 && !candidates.iter().any(|f| f.starts_with(&used)));
    drop((open, runtime));
    until("the memory is given back", SOON, || {
        (resident(&agent).saturating_sub(before) < 32 * MIB).then_some(())
    });
}

#[test]
fn a_connection_that_says_nothing_ends_and_one_that_asks_stays() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let metrics = free_port();
    let agent = agent_of(&mount, 1, &[], &format!("metrics = \"127.0.0.1:{metrics}\""));
    let runtime = runtime();
    let asks = channel_as(&runtime, &agent, VIEWER, &[]).unwrap();
    let status = |channel: &Channel| {
        let mut client = PurgeAgentClient::new(channel.clone());
        runtime.block_on(async move { client.get_status(v1::GetStatusRequest {}).await })
    };
    status(&asks).unwrap();
    let began = Instant::now();
    // Root's too; and one that begins to speak and says no more.
    let silent: Vec<UnixStream> = [0, ALICE]
        .into_iter()
        .map(|uid| agent.connect_as(uid, &[]).unwrap())
        .collect();
    let mut half = agent.connect_as(ALICE, &[]).unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", metrics)).unwrap();
    for mut stream in silent.into_iter().chain([half]) {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let after = began.elapsed();
        assert!((Duration::from_secs(8)..SOON).contains(&after), "{after:?}");
    }
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let _ = tcp.read_to_end(&mut Vec::new());
    assert!(began.elapsed() < SOON);
    status(&asks).unwrap();
}
