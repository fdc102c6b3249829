//! What the agent counts, as Prometheus reads it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use purge_tests::config::OLD;
use purge_tests::ctl::{number, tally};
use purge_tests::files::{age_tree, make, read, temp_dir};
use purge_tests::skip::Unmet;
use purge_tests::wait::{SOON, until};
use purge_tests::{Agent, Config, Fs, Mount, need, sh};

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
    let unused = 5;
    files.iter().skip(unused).for_each(|f| read(f));
    files.iter().skip(unused).for_each(|f| read(f));
    let after = until("the reads are counted", SOON, || {
        let now = samples(port);
        (of_volume(&now, "events_read_total") >= of_volume(&before, "events_read_total") + 45.0)
            .then_some(now)
    });
    assert_eq!(of_volume(&after, "events_lost_total"), 0.0);
    until("the uses are written back", SOON, || {
        (of_volume(&samples(port), "flushes_total") > of_volume(&before, "flushes_total")).then_some(())
    });
    let ctl = agent.ctl();
    let plan = ctl.plan();
    assert_eq!(number(&plan.json, "/candidates/files"), unused as u64);
    let run = ctl.apply(&plan).ok().json();
    let counts = tally(&plan, &run);
    assert!(counts.deleted >= unused as u64, "{run}");
    let now = samples(port);
    let of_fate =
        |name: &str, fate: &str| now[&format!("purge_agent_{name}{{volume=\"v\",fate=\"{fate}\"}}")];
    assert_eq!(of_fate("run_candidates_total", "deleted"), counts.deleted as f64);
    assert_eq!(
        of_fate("run_bytes_total", "deleted"),
        number(&run, "/deleted/bytes") as f64
    );
    assert_eq!(
        now["purge_agent_runs_total{volume=\"v\",state=\"completed\"}"],
        1.0
    );
    let of_rule = |name: &str, fate: &str| {
        now[&format!("purge_agent_{name}{{volume=\"v\",rule=\"{OLD}\",fate=\"{fate}\"}}")]
    };
    assert_eq!(of_rule("rule_files_total", "deleted"), unused as f64);
    assert_eq!(of_rule("rule_files_total", "trashed"), 0.0);
    assert_eq!(
        of_rule("rule_bytes_total", "deleted"),
        number(&run, "/deleted/bytes") as f64
    );
    assert_eq!(now["purge_agent_plans_total{volume=\"v\",status=\"saved\"}"], 1.0);
    let phase = |of: &str, what: &str| {
        now[&format!("purge_agent_phase_duration_seconds_{what}{{volume=\"v\",phase=\"{of}\"}}")]
    };
    for of in ["scan", "evaluate", "save", "apply"] {
        assert_eq!(phase(of, "count"), 1.0, "{of}");
        assert!(phase(of, "sum") > 0.0 && phase(of, "sum") < 60.0, "{of}");
        let within_a_minute =
            format!("purge_agent_phase_duration_seconds_bucket{{volume=\"v\",phase=\"{of}\",le=\"60\"}}");
        assert_eq!(now[&within_a_minute], 1.0, "{of}");
    }
    assert_eq!(phase("sweep", "count"), 0.0);
    let (_, page) = get(port, "/metrics");
    for name in after.keys().map(|k| k.split('{').next().unwrap()) {
        let histogram = "purge_agent_phase_duration_seconds";
        let name = if name.starts_with(histogram) {
            histogram
        } else {
            name
        };
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

/// Every `purge_agent_...` of a text, with the labels that it asks for by `=`.
fn asked_for(text: &str) -> Vec<(String, Vec<String>)> {
    const PREFIX: &str = "purge_agent_";
    let mut asked = Vec::new();
    for (at, _) in text.match_indices(PREFIX) {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let labels = rest.strip_prefix('{').and_then(|r| r.split_once('}'));
        let labels = labels.map_or("", |(inside, _)| inside).replace('\\', "");
        let exact = labels.split(',').filter(|l| l.contains("=\"")).map(str::to_owned);
        asked.push((name.to_owned(), exact.collect()));
    }
    asked
}

#[test]
fn alerts_and_dashboard_ask_for_what_is_there() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 5);
    let port = a_free_port();
    let listening = format!("metrics = \"127.0.0.1:{port}\"");
    // What is said of sinks and of watermarks is there where there is one.
    let config = Config::backdated(&mount.path())
        .listening(&listening)
        .notifying("exec = { command = [\"/bin/true\"] }")
        .table("watermark", "rule = \"old\"\nhigh = \"99%\"\nlow = \"98%\"");
    let _agent = Agent::tracking(&config);
    let page: Vec<String> = samples(port).into_keys().collect();
    for (file, text) in [
        ("alerts.yml", include_str!("../../../monitoring/alerts.yml")),
        (
            "alerts.test.yml",
            include_str!("../../../monitoring/alerts.test.yml"),
        ),
        ("grafana.json", include_str!("../../../monitoring/grafana.json")),
    ] {
        let asked = asked_for(text);
        assert!(asked.len() > 10, "{file}: {asked:?}");
        for (name, labels) in asked {
            let is_it = |sample: &&String| {
                let (found, has) = sample.split_once('{').unwrap_or((sample, ""));
                // The volume of a test file is none of this test's.
                let known = |label: &&String| {
                    ["job=", "instance=", "volume=", "sink=", "rule=", "trigger="]
                        .iter()
                        .any(|l| label.starts_with(l))
                };
                found == name
                    && labels
                        .iter()
                        .filter(|l| !known(l))
                        .all(|l| has.contains(l.as_str()))
            };
            assert!(
                page.iter().any(|s| is_it(&s)),
                "{file} asks for {name} {labels:?}"
            );
        }
    }
}

#[test]
fn every_alert_fires_when_it_should_and_is_in_the_handbook() {
    need!(sh(Command::new("promtool").arg("--version")).map_err(Unmet));
    let monitoring = concat!(env!("CARGO_MANIFEST_DIR"), "/../monitoring");
    let promtool = |words: &[&str]| {
        sh(Command::new("promtool").current_dir(monitoring).args(words)).unwrap();
    };
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts.test.yml"]);
    let of = |text: &'static str| text.lines().filter_map(|l| l.trim().strip_prefix("- alert: "));
    let handbook = include_str!("../../../docs/handbook/alerts.md");
    for alert in of(include_str!("../../../monitoring/alerts.yml")) {
        assert!(handbook.contains(alert), "{alert} is not in the handbook");
        let tested = include_str!("../../../monitoring/alerts.test.yml");
        assert!(tested.contains(&format!("\"{alert}\"")), "{alert} is not tested");
    }
}

#[test]
fn promtool_finds_no_fault_with_the_page() {
    need!(sh(Command::new("promtool").arg("--version")).map_err(Unmet));
    let mount = need!(Mount::new(Fs::Ext4));
    let port = a_free_port();
    let listening = format!("metrics = \"127.0.0.1:{port}\"");
    let _agent = Agent::tracking(&Config::backdated(&mount.path()).listening(&listening));
    let dir = temp_dir();
    let page = dir.path().join("page");
    std::fs::write(&page, get(port, "/metrics").1).unwrap();
    let check = format!("promtool check metrics < {}", page.display());
    sh(Command::new("sh").args(["-c", &check])).unwrap();
}

#[test]
fn what_lies_in_the_trash_and_what_is_freed_is_counted_by_rule() {
    let mount = need!(Mount::new(Fs::Ext4));
    make(&mount.path().join("d"), 5);
    age_tree(&mount.path());
    let port = a_free_port();
    let config = Config::backdated_with(&mount.path(), "grace = \"1s\"\nmax_fraction = 0.5")
        .rule("all", "ttl = \"1h\"\nclock = [\"access\"]\ngrace = \"1s\"")
        .listening(&format!("metrics = \"127.0.0.1:{port}\""));
    let agent = Agent::tracking(&config);
    let ctl = agent.ctl();
    let refused = ctl.plan_with(["--rule", OLD]);
    let _ = ctl.apply(&refused).ends_with(3);
    let _ = ctl.apply(&ctl.plan_with(["--rule", "all"])).ok();
    let now = samples(port);
    let of = |page: &BTreeMap<String, f64>, name: &str, labels: &str| {
        page[&format!("purge_agent_{name}{{volume=\"v\",{labels}}}")]
    };
    assert_eq!(of(&now, "rule_files_total", "rule=\"all\",fate=\"trashed\""), 5.0);
    assert_eq!(of(&now, "rule_files_total", "rule=\"all\",fate=\"deleted\""), 0.0);
    assert_eq!(
        of(
            &now,
            "rule_files_total",
            &format!("rule=\"{OLD}\",fate=\"trashed\"")
        ),
        0.0
    );
    assert_eq!(of(&now, "plans_total", "status=\"refused\""), 1.0);
    assert_eq!(of(&now, "plans_total", "status=\"saved\""), 1.0);
    until("the trash is freed", SOON, || {
        let freed = of(
            &samples(port),
            "cleanup_operations_total",
            "operation=\"free_trash\",status=\"done\"",
        );
        (freed == 1.0).then_some(())
    });
}

#[test]
fn connections_that_send_a_part_of_a_request_keep_no_scrape_out() {
    let mount = need!(Mount::new(Fs::Ext4));
    let port = a_free_port();
    let listening = format!("metrics = \"127.0.0.1:{port}\"");
    let _agent = Agent::tracking(&Config::backdated(&mount.path()).listening(&listening));
    let mut held = Vec::new();
    for _ in 0..20 {
        for _ in 0..90 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // It may have been let go already.
            let _ = stream.write_all(b"G");
            held.push(stream);
        }
        for path in ["/healthz", "/metrics"] {
            assert_eq!(get(port, path).0, "HTTP/1.1 200 OK", "{path}");
        }
    }
}
