//! What the agent counts, as Prometheus reads it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use purge_tests::files::{age_tree, make, read};
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

/// Status line and body of a GET.
fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The samples of a page, by name and labels.
fn samples(port: u16) -> BTreeMap<String, f64> {
    let (status, page) = get(port, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let lines = page.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn a_free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn what_happens_is_counted_and_every_metric_is_described() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 50);
    age_tree(&root);
    let port = a_free_port();
    let agent =
        Agent::tracking(&Config::backdated(&root).listening(&format!("metrics = \"127.0.0.1:{port}\"")));
    let of_volume =
        |page: &BTreeMap<String, f64>, name: &str| page[&format!("purge_agent_{name}{{volume=\"v\"}}")];
    let before = samples(port);
    assert_eq!(
        before["purge_agent_volume_state{volume=\"v\",state=\"tracking\"}"],
        1.0
    );
    assert_eq!(of_volume(&before, "files"), 50.0);
    files.iter().for_each(|f| read(f));
    files.iter().for_each(|f| read(f));
    let after = until("the reads are counted", SOON, || {
        let now = samples(port);
        (of_volume(&now, "events_read_total") >= of_volume(&before, "events_read_total") + 50.0)
            .then_some(now)
    });
    assert_eq!(of_volume(&after, "events_lost_total"), 0.0);
    until("the uses are written back", SOON, || {
        (of_volume(&samples(port), "flushes_total") > of_volume(&before, "flushes_total")).then_some(())
    });
    let (_, page) = get(port, "/metrics");
    for name in after.keys().map(|k| k.split('{').next().unwrap()) {
        assert!(
            page.contains(&format!("# HELP {name} ")),
            "{name} is not described"
        );
        assert!(page.contains(&format!("# TYPE {name} ")), "{name} has no type");
        let is_counter = page.contains(&format!("# TYPE {name} counter"));
        assert_eq!(is_counter, name.ends_with("_total"), "{name}");
    }
    assert_eq!(get(port, "/healthz"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert_eq!(get(port, "/elsewhere").0, "HTTP/1.1 404 Not Found");
    drop(agent);
}
