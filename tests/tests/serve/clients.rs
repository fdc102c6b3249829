//! Clients that are slow, vanish, ask too much or say nothing: others go on, and nothing is kept for them.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::certs::{Authority, Validity, client_files, free_port, listen_keys};
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, temp_dir};
use purge_tests::rpc::{call, channel_as, channel_tls, runtime};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, need};
use tonic::{Code, Request};

const VIEWER: u32 = 4201;
/// With long paths, enough for their messages to fill all buffers between the agent and a client that reads nothing.
const FILES: usize = 12_000;

fn agent_of(mount: &Mount, files: usize) -> Agent {
    let long = "a-long-name-of-a-directory-".repeat(8);
    make(&mount.path().join(&long).join(&long).join(&long), files);
    age_tree(&mount.path());
    let config = Config::backdated_with(&mount.path(), "remove_empty_dirs = false")
        .access(&format!("viewer = {{ users = [\"{VIEWER}\"] }}\nself = true"));
    let agent = Agent::tracking(&config);
    agent.reachable();
    agent
}

fn resident(ctl: &Ctl) -> u64 {
    number(
        &ctl.run(["status", "--output", "json"]).ok().json(),
        "/resident_bytes",
    )
}

#[test]
fn clients_that_read_nothing_hold_up_no_other() {
    let mount = need!(Mount::new(Fs::Ext4));
    let agent = agent_of(&mount, FILES);
    let (ctl, runtime) = (agent.ctl(), runtime());
    let plan = ctl.plan();
    let before = resident(&ctl);
    // Each has a connection of its own: what is unread on one would keep the others' first messages back.
    let client = || PurgeAgentClient::new(channel_as(&runtime, &agent, VIEWER, &[]).unwrap());
    let ask = |sorts: [v1::Sort; 3]| {
        let clients: Vec<_> = (0..6).map(|_| client()).collect();
        runtime.block_on(async {
            let mut unread = Vec::new();
            let mut clients = clients.into_iter();
            let mut client = || clients.next().unwrap();
            for sort in sorts {
                let show = v1::ShowPlanRequest {
                    plan_id: plan.id.clone(),
                    sort: sort.into(),
                    ..Default::default()
                };
                let answers = client().show_plan(show).await.unwrap().into_inner();
                let find = v1::FindRequest {
                    sort: sort.into(),
                    ..Default::default()
                };
                let entries = client().find(find).await.unwrap().into_inner();
                unread.push((answers, entries));
            }
            // One message each, and then no client reads on.
            for (answers, entries) in &mut unread {
                answers.message().await.unwrap().unwrap();
                entries.message().await.unwrap().unwrap();
            }
            unread
        })
    };
    let unread = ask([v1::Sort::Unspecified; 3]);
    let took = resident(&ctl).saturating_sub(before);
    // All of it would be six times 12,000 paths of 800 bytes.
    assert!(took < 24 << 20, "{took} bytes for six clients that read nothing");
    let sorted = ask([v1::Sort::Path, v1::Sort::Age, v1::Sort::Size]);
    // Changes are taken in, plans are made and applied while they are connected.
    make(&mount.path().join("new"), 10);
    until("new files are in the index", SOON, || {
        (number(&agent.status(), "/files") == FILES as u64 + 10).then_some(())
    });
    let plan = ctl.plan();
    let run = ctl.apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/files"), FILES as u64);
    drop((unread, sorted));
}

#[test]
fn a_deadline_ends_an_answer_that_goes_on() {
    let mount = need!(Mount::new(Fs::Ext4));
    let agent = agent_of(&mount, 500);
    let (ctl, runtime) = (agent.ctl(), runtime());
    let plan = ctl.plan();
    let root = channel_as(&runtime, &agent, 0, &[]).unwrap();
    let began = Instant::now();
    let (ended, run_id) = runtime.block_on(async {
        let mut request = Request::new(v1::ApplyRequest {
            plan_id: plan.id.clone(),
            max_rate: 5,
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("grpc-timeout", "2S".parse().unwrap());
        let mut client = PurgeAgentClient::new(root);
        let mut news = client.apply(request).await.unwrap().into_inner();
        let mut run_id = String::new();
        loop {
            match news.message().await {
                Ok(Some(progress)) => run_id = progress.run.unwrap().run_id,
                Ok(None) => panic!("the run is over"),
                Err(status) => return (status, run_id),
            }
        }
    });
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended}");
    assert!(began.elapsed() < SOON, "took {:?}", began.elapsed());
    // The caller has left; the run has not.
    let run = ctl.run(["run", &run_id, "--output", "json"]).ok().json();
    assert_eq!(text(&run, "state"), "running");
    let _ = ctl.run(["cancel", &run_id]).ok();
}

#[test]
fn messages_and_calls_have_their_limits() {
    let mount = need!(Mount::new(Fs::Ext4));
    let agent = agent_of(&mount, FILES);
    let runtime = runtime();
    let plan = agent.ctl().plan();
    let channel = channel_as(&runtime, &agent, VIEWER, &[]).unwrap();
    let other = channel_as(&runtime, &agent, VIEWER + 1, &[]).unwrap();
    let mut client = PurgeAgentClient::new(channel.clone());
    runtime.block_on(async {
        let huge = v1::ExplainRequest {
            path: vec![b'x'; 8 << 20],
        };
        let refused = client.explain(huge).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");

        let show = v1::ShowPlanRequest {
            plan_id: plan.id.clone(),
            ..Default::default()
        };
        let mut open = Vec::new();
        let refused = loop {
            match client.show_plan(show.clone()).await {
                Ok(answers) => open.push(answers.into_inner()),
                Err(refused) => break refused,
            }
            assert!(open.len() < 100, "no limit to what a client may have open");
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        assert!(refused.message().contains("calls open already"), "{refused}");
        let others = call(&other, "ListHolds").await;
        assert!(others.is_ok(), "another client is another client: {others:?}");
        // What has ended counts no more.
        drop(open);
        let began = Instant::now();
        while let Err(status) = client.show_plan(show.clone()).await {
            assert!(began.elapsed() < SOON, "{status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn connections_that_say_nothing_keep_no_client_out() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 3);
    let (dir, port, metrics) = (temp_dir(), free_port(), free_port());
    let authority = Authority::new("the authority");
    let ca = authority.write(&dir.path().join("ca.pem"));
    let shown = authority.vouch(dir.path(), "agent", Validity::Long);
    let keys = format!(
        "{}\nmetrics = \"127.0.0.1:{metrics}\"",
        listen_keys(port, &shown, &ca)
    );
    let config = Config::backdated(&mount.path())
        .listening(&keys)
        .access("viewer = { certificates = [\"CN=viewer,O=Example\"] }");
    let agent = Agent::tracking(&config);
    let files = client_files(&ca, &authority.vouch(dir.path(), "viewer", Validity::Long));
    let silent: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let runtime = runtime();
    for _ in 0..20 {
        let channel = channel_tls(&runtime, port, &files).unwrap();
        runtime.block_on(call(&channel, "GetStatus")).unwrap();
    }
    let fds = || {
        std::fs::read_dir(format!("/proc/{}/fd", agent.pid()))
            .unwrap()
            .count()
    };
    assert!(fds() < 200, "{} descriptors", fds());
    // The number of connections of one client is bounded.
    let channels: Vec<_> = (0..100).map(|_| channel_tls(&runtime, port, &files)).collect();
    let answered = channels
        .iter()
        .flatten()
        .filter(|channel| runtime.block_on(call(channel, "GetStatus")).is_ok())
        .count();
    assert!(
        (20..=32).contains(&answered),
        "{answered} connections of one client"
    );
    // Connections live in the runtime.
    drop((channels, silent, runtime));
    let ctl = Ctl::over_tls(port, &files);
    until("there is room again", SOON, || {
        (ctl.run(["status"]).code == 0).then_some(())
    });
    let _silent: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", metrics)).unwrap())
        .collect();
    assert!(fds() < 200, "{} descriptors", fds());
}
