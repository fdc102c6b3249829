//! Notices into an exchange of a broker.

use purge_tests::certs::Authority;
use purge_tests::ctl::text;
use purge_tests::files::temp_dir;
use purge_tests::notices::{
    AT_FIRST, OF_THE_RUN, PATIENCE, Tree, assert_each_once, notices, until_nothing_waits, until_told,
};
use purge_tests::sinks::broker::Broker;
use purge_tests::sinks::free_port;
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need};
use serde_json::Value;

/// What lies in a queue of the broker, each taken off it: its message id and body.
struct Queue {
    runtime: tokio::runtime::Runtime,
    url: String,
}

impl Queue {
    /// A durable queue that gets all that goes to the exchange; the exchange is made if the agent has not made it.
    fn bound(url: &str) -> Self {
        let queue = Self {
            runtime: tokio::runtime::Runtime::new().unwrap(),
            url: url.to_owned(),
        };
        queue.with(async |channel| {
            let durable = lapin::options::ExchangeDeclareOptions {
                durable: true,
                ..Default::default()
            };
            let kind = lapin::ExchangeKind::Topic;
            channel
                .exchange_declare("purge".into(), kind, durable, Default::default())
                .await
                .unwrap();
            let durable = lapin::options::QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            channel
                .queue_declare("all".into(), durable, Default::default())
                .await
                .unwrap();
            channel
                .queue_bind(
                    "all".into(),
                    "purge".into(),
                    "#".into(),
                    Default::default(),
                    Default::default(),
                )
                .await
                .unwrap();
        });
        queue
    }

    /// A broker that has just begun to listen may take its time, but not for ever.
    fn with<T>(&self, work: impl AsyncFnOnce(lapin::Channel) -> T) -> T {
        let doing = async {
            let connection = lapin::Connection::connect(&self.url, Default::default())
                .await
                .unwrap();
            let done = work(connection.create_channel().await.unwrap()).await;
            let _ = tokio::time::timeout(SOON, connection.close(200, "".into())).await;
            done
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, doing).await })
            .unwrap_or_else(|_| {
                panic!(
                    "the broker at {} did not answer the test within {PATIENCE:?}",
                    self.url
                )
            })
    }

    fn take(&self) -> Vec<(String, Value)> {
        self.with(async |channel| {
            let mut all = Vec::new();
            let at_once = lapin::options::BasicGetOptions { no_ack: true };
            while let Some(message) = channel.basic_get("all".into(), at_once).await.unwrap() {
                assert_eq!(
                    *message.delivery.properties.delivery_mode(),
                    Some(2),
                    "persistent"
                );
                let id = message
                    .delivery
                    .properties
                    .message_id()
                    .clone()
                    .unwrap()
                    .to_string();
                all.push((id, serde_json::from_slice(&message.delivery.data).unwrap()));
            }
            all
        })
    }
}

#[test]
fn a_broker_that_was_down_gets_every_notice_once_though_the_agent_was_killed() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let tree = Tree::make(&mut mount);
    let mut broker = need!(Broker::new(free_port()));
    let sink = format!("amqp = {{ url = {:?}, exchange = \"purge\" }}", broker.url());
    let mut agent = Agent::tracking(&tree.config(&sink));
    let ctl = agent.ctl();
    until_told(&ctl, &AT_FIRST);
    agent.kill();
    broker.start();
    agent.launch();
    agent.wait_until_tracking();
    // Without a queue a message would be lost: it waits.
    until("a message that no queue wants", PATIENCE, || {
        let waiting = notices(&ctl, &["--state", "waiting"]);
        waiting
            .iter()
            .any(|n| text(n, "error").contains("no queue is bound"))
            .then_some(())
    });
    let queue = Queue::bound(&broker.url());
    until_nothing_waits(&ctl, &[]);
    broker.stop();
    let _ = ctl.apply(&ctl.plan_with(["--rule", "old"])).ends_with(5);
    until_told(&ctl, &OF_THE_RUN[1..]);
    agent.kill();
    agent.launch();
    broker.start();
    until_told(&ctl, &OF_THE_RUN);
    until_nothing_waits(&ctl, &[]);
    agent.restart();
    let_pass(12);

    let taken = queue.take();
    assert!(
        taken.iter().all(|(id, json)| id == text(json, "notice_id")),
        "{taken:?}"
    );
    let json: Vec<Value> = taken.into_iter().map(|(_, json)| json).collect();
    assert_each_once(&json, &[&AT_FIRST[..], &OF_THE_RUN].concat());
    assert_eq!(notices(&ctl, &["--state", "sent"]).len(), json.len());
}

#[test]
fn a_broker_is_told_over_tls_only_if_a_trusted_authority_vouches_for_it() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let dir = temp_dir();
    let (known, unknown) = (Authority::new("Known"), Authority::new("Unknown"));
    let ca = [&known, &unknown].map(|a| a.write(&dir.path().join(format!("{a:p}.pem"))));
    let mut broker = need!(Broker::new(free_port()));
    broker.vouched_for(&known);
    let tree = Tree::make(&mut mount);
    let sink = |ca: &std::path::Path| {
        let url = broker.tls_url();
        tree.config(&format!(
            "amqp = {{ url = {url:?}, exchange = \"purge\", ca_file = {ca:?} }}"
        ))
    };
    let (trusting, doubting): (Config, Config) = (sink(&ca[0]), sink(&ca[1]));
    broker.start();
    let queue = Queue::bound(&broker.url());
    let agent = Agent::tracking(&doubting);
    let ctl = agent.ctl();
    until_told(&ctl, &AT_FIRST);
    // It waits, and the list says why.
    let reason = until(
        "a notice that waits for a broker without a trusted certificate",
        PATIENCE,
        || {
            let waiting = notices(&ctl, &["--state", "waiting"]);
            let mut reasons = waiting.iter().map(|n| text(n, "error").to_owned());
            reasons.find(|why| !why.is_empty())
        },
    );
    assert!(
        reason.starts_with("localhost:") && reason.contains("UnknownIssuer") && reason.contains("ca_file"),
        "{reason}"
    );
    let refused = ctl.run(["notices", "test", "--sink", "amqp"]).ends_with(1);
    assert!(refused.stderr.contains("UnknownIssuer"), "{}", refused.stderr);
    assert!(queue.take().is_empty() && notices(&ctl, &["--state", "sent"]).is_empty());

    agent.write_config(&trusting);
    agent.reload();
    until_nothing_waits(&ctl, &[]);
    let json: Vec<Value> = queue.take().into_iter().map(|(_, json)| json).collect();
    assert_each_once(&json, &AT_FIRST);
    let _ = ctl.run(["notices", "test", "--sink", "amqp"]).ok();
    assert_eq!(queue.take().len(), 1, "the test");
}
