//! What clients can make the agent keep: holds, plans, scans that are asked for. All of it is bounded, and what is over is removed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::files::{age_tree, make};
use purge_tests::rpc::{channel_as, runtime};
use purge_tests::wait::{LONG, SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::Channel;

const ALICE: u32 = 4001;
const OPERATOR: u32 = 4020;
/// Holds that a user has at most, and plans.
const HOLDS_OF_USER: usize = 100;
const PLANS_OF_ONE: usize = 100;

struct World {
    runtime: Runtime,
    agent: Agent,
    root: PathBuf,
    _mount: Mount,
}

impl World {
    fn new(files: usize) -> Result<Self, purge_tests::skip::Unmet> {
        let mount = Mount::new(Fs::Ext4)?;
        let root = mount.path();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        make(&root.join("alice"), files);
        chown(root.join("alice"), Some(ALICE), Some(ALICE)).unwrap();
        age_tree(&root);
        let access = format!("self = true\noperator = {{ users = [\"{OPERATOR}\"] }}");
        let config = Config::backdated_with(&root, "remove_empty_dirs = false").access(&access);
        let agent = Agent::tracking(&config);
        agent.reachable();
        Ok(Self {
            runtime: runtime(),
            agent,
            root,
            _mount: mount,
        })
    }

    fn client(&self, uid: u32) -> PurgeAgentClient<Channel> {
        PurgeAgentClient::new(channel_as(&self.runtime, &self.agent, uid, &[]).unwrap())
    }

    fn hold(
        &self,
        client: &PurgeAgentClient<Channel>,
        reason: String,
        seconds: u64,
    ) -> Result<v1::Hold, Code> {
        let request = v1::AddHoldRequest {
            path: self.root.join("alice").as_os_str().as_bytes().to_vec(),
            reason,
            for_seconds: Some(seconds),
        };
        let answer = self.runtime.block_on(client.clone().add_hold(request));
        answer.map(tonic::Response::into_inner).map_err(|s| s.code())
    }

    fn holds(&self) -> usize {
        let request = v1::ListHoldsRequest::default();
        let answer = self.runtime.block_on(self.client(0).list_holds(request));
        answer.unwrap().into_inner().holds.len()
    }

    fn plans(&self) -> Vec<String> {
        let (mut all, mut request) = (Vec::new(), v1::ListPlansRequest::default());
        loop {
            let page = self.runtime.block_on(self.client(0).list_plans(request.clone()));
            let page = page.unwrap().into_inner();
            all.extend(page.plans.into_iter().map(|p| p.plan_id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return all;
            }
        }
    }

    fn plan(&self, client: &PurgeAgentClient<Channel>) -> String {
        self.runtime.block_on(async {
            let request = v1::CreatePlanRequest::default();
            let mut progress = client.clone().create_plan(request).await.unwrap().into_inner();
            let mut id = String::new();
            while let Some(message) = progress.message().await.unwrap() {
                if let Some(v1::plan_progress::Step::Plan(plan)) = message.step {
                    id = plan.plan_id;
                }
            }
            id
        })
    }

    /// Bytes of the mirror of holds and runs.
    fn mirrored(&self) -> u64 {
        fs::metadata(self.agent.state_dir().join("records")).map_or(0, |m| m.len())
    }
}

#[test]
fn holds_that_are_over_leave_nothing() {
    let mut world = need!(World::new(3));
    let alice = world.client(ALICE);
    assert_eq!(
        world.hold(&alice, "x".repeat(1_000_000), 1),
        Err(Code::InvalidArgument)
    );
    assert_eq!(
        world.hold(&alice, "x".repeat(1025), 1),
        Err(Code::InvalidArgument)
    );
    let (mut made, mut refused) = (0, 0);
    let mut most = 0;
    while made < 300 {
        match world.hold(&alice, "x".repeat(1024), 1) {
            Ok(_) => made += 1,
            Err(code) => {
                assert_eq!(code, Code::ResourceExhausted);
                refused += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        most = most.max(world.mirrored());
    }
    println!("{made} holds of a second, {refused} times refused; at most {most} bytes mirrored");
    assert!(most < 2 * 1200 * HOLDS_OF_USER as u64, "{most}");
    until("nothing is left of them", LONG, || {
        (world.holds() == 0 && world.mirrored() < 1000).then_some(())
    });
    world.agent.restart();
    assert_eq!(world.holds(), 0);
    // Those that last are counted for each user, and another's do not count.
    let alice = world.client(ALICE);
    let last = (0..).find_map(|n| world.hold(&alice, "x".into(), 600).err().map(|code| (n, code)));
    assert_eq!(last, Some((HOLDS_OF_USER, Code::ResourceExhausted)));
    assert!(world.hold(&world.client(OPERATOR), "x".into(), 600).is_ok());
    assert_eq!(world.holds(), HOLDS_OF_USER + 1);
}

#[test]
fn plans_of_a_client_are_bounded_and_take_none_of_anothers() {
    let world = need!(World::new(50));
    let roots = world.plan(&world.client(0));
    let operator = world.client(OPERATOR);
    let made: Vec<String> = (0..PLANS_OF_ONE + 20).map(|_| world.plan(&operator)).collect();
    let kept = world.plans();
    assert_eq!(kept.len(), PLANS_OF_ONE + 1);
    assert!(kept.contains(&roots), "root's is not the operator's to take");
    assert!(
        made.iter().rev().take(PLANS_OF_ONE).all(|id| kept.contains(id)),
        "the newest stay"
    );
    let gone = world
        .runtime
        .block_on(operator.clone().get_plan(v1::GetPlanRequest {
            plan_id: made[0].clone(),
        }));
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
    let ctl = world.agent.ctl();
    let _ = ctl.run(["apply", &roots, "--yes"]).ok();
    let _ = ctl.run(["apply", &roots, "--yes"]).ends_with(3);
}

#[test]
fn however_often_a_scan_is_asked_for_it_waits_once() {
    let world = need!(World::new(2000));
    let operator = world.client(OPERATOR);
    let status = || {
        let status = world
            .runtime
            .block_on(world.client(0).get_status(v1::GetStatusRequest {}));
        status.unwrap().into_inner().volumes.remove(0)
    };
    let scans = || status().keeping.unwrap().scans_total;
    let before = scans();
    world.runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..30 {
            let asked = operator.clone().rescan(v1::RescanRequest::default()).await;
            streams.push(asked.unwrap());
        }
    });
    until("no scan waits", SOON, || status().scan.is_none().then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    let made = scans() - before;
    println!("30 times asked for, {made} times made");
    assert!((1..=15).contains(&made), "{made}");
}

#[test]
fn names_and_lists_of_requests_are_bounded() {
    let world = need!(World::new(3));
    let root = world.client(0);
    let long = "x".repeat(1 << 18);
    let code = |answer: Result<(), tonic::Status>| {
        let status = answer.unwrap_err();
        assert!(status.message().len() < 1000, "{}", status.message().len());
        status.code()
    };
    let plan_id = long.clone();
    let asked = async {
        root.clone()
            .get_plan(v1::GetPlanRequest { plan_id })
            .await
            .map(drop)
    };
    assert_eq!(code(world.runtime.block_on(asked)), Code::InvalidArgument);
    let rules = (0..2000).map(|n| format!("r{n}")).collect();
    let many = v1::CreatePlanRequest {
        rules,
        ..v1::CreatePlanRequest::default()
    };
    assert_eq!(
        code(
            world
                .runtime
                .block_on(async { root.clone().create_plan(many).await.map(drop) })
        ),
        Code::InvalidArgument
    );
    let find = v1::FindRequest {
        name: long.clone(),
        ..v1::FindRequest::default()
    };
    assert_eq!(
        code(
            world
                .runtime
                .block_on(async { root.clone().find(find).await.map(drop) })
        ),
        Code::InvalidArgument
    );
    let usage = v1::UsageRequest {
        volume: long,
        ..v1::UsageRequest::default()
    };
    assert_eq!(
        code(
            world
                .runtime
                .block_on(async { root.clone().usage(usage).await.map(drop) })
        ),
        Code::InvalidArgument
    );
}
