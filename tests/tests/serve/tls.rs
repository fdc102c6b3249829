//! Clients on TCP: whom their certificates make them, and what becomes of clients without a trusted certificate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::certs::{
    Authority, Pair, Validity, client_files, free_port, listen_keys, listen_keys_with_list,
};
use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make, temp_dir};
use purge_tests::rpc::{CALLS, call, channel_over, channel_tls, is_refused, runtime};
use purge_tests::skip::Unmet;
use purge_tests::wait::{SOON, let_pass, until};
use purge_tests::{Agent, Config, Ctl, Fs, Mount, binary, need};
use purgectl::tls::Tls;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

const ACCESS: &str = "self = true\nviewer = { certificates = [\"CN=viewer,O=Example\"] }\n\
                      operator = { certificates = [\"O=Example, CN=operator\", \"CN=backup\"] }\n\
                      admin = { certificates = [\"CN=admin,O=Example\"] }\n";

struct World {
    mount: Mount,
    dir: TempDir,
    port: u16,
    /// Vouches for the agent.
    servers: PathBuf,
    /// Vouches for clients.
    clients: Authority,
    shown: Pair,
    agent: Agent,
}

impl World {
    fn new() -> Result<Self, Unmet> {
        Self::with(|port, shown, ca, _, _| listen_keys(port, shown, ca))
    }

    /// With a list of what is revoked, `crl.pem`: nothing, yet.
    fn with_list() -> Result<Self, Unmet> {
        Self::with(|port, shown, ca, clients, dir| {
            let list = clients.write_list(&dir.join("crl.pem"), &[], Validity::Long);
            listen_keys_with_list(port, shown, ca, &list)
        })
    }

    fn with(keys: impl Fn(u16, &Pair, &Path, &Authority, &Path) -> String) -> Result<Self, Unmet> {
        let mount = Mount::sized(Fs::Ext4, 128, 30_000)?;
        make(&mount.path().join("d"), 12);
        age_tree(&mount.path());
        let (dir, port) = (temp_dir(), free_port());
        let servers = Authority::new("the servers' authority");
        let clients = Authority::new("the clients' authority");
        let shown = servers.vouch(dir.path(), "agent", Validity::Long);
        let ca = clients.write(&dir.path().join("clients.pem"));
        let config = Config::backdated_with(&mount.path(), "remove_empty_dirs = false")
            .listening(&keys(port, &shown, &ca, &clients, dir.path()))
            .access(ACCESS);
        Ok(Self {
            servers: servers.write(&dir.path().join("servers.pem")),
            clients,
            agent: Agent::tracking(&config),
            shown,
            mount,
            dir,
            port,
        })
    }

    /// What a client shows whose certificate is from the clients' authority.
    fn files_of(&self, name: &str) -> Tls {
        let pair = self.clients.vouch(self.dir.path(), name, Validity::Long);
        client_files(&self.servers, &pair)
    }

    fn ctl(&self, name: &str) -> Ctl {
        Ctl::over_tls(self.port, &self.files_of(name))
    }

    fn client_ca(&self) -> PathBuf {
        self.dir.path().join("clients.pem")
    }
}

#[test]
fn every_call_as_every_certificate() {
    let world = need!(World::new());
    let runtime = runtime();
    let who: [(&str, &[&str]); 4] = [
        ("stranger", &[]),
        ("viewer", &["viewer"]),
        ("operator", &["viewer", "operator"]),
        ("admin", &["viewer", "operator", "admin"]),
    ];
    for (name, roles) in who {
        let channel = channel_tls(&runtime, world.port, &world.files_of(name)).unwrap();
        for (what, needed, _) in CALLS {
            let answer = runtime.block_on(call(&channel, what));
            let may = roles.contains(&needed);
            assert_eq!(!is_refused(&answer), may, "{what} as {name}: {answer:?}");
            let reached = answer.is_ok()
                || matches!(&answer, Err(s) if !matches!(s.code(), Code::Unavailable | Code::Unknown));
            assert!(reached, "{what} as {name} was not asked at all: {answer:?}");
        }
    }
}

/// Whether a client is turned away before any call is looked at. TLS 1.3 lets clients speak first.
fn is_not_let_in(answer: std::io::Result<Result<(), Status>>) -> bool {
    match answer {
        Err(_) => true,
        Ok(Ok(())) => false,
        Ok(Err(status)) => !matches!(
            status.code(),
            Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated
        ),
    }
}

#[test]
fn no_client_comes_in_without_a_certificate_that_holds() {
    let world = need!(World::new());
    let runtime = runtime();
    let ask = |files: &Tls| {
        let channel = channel_tls(&runtime, world.port, files)?;
        Ok(runtime.block_on(call(&channel, "GetStatus")))
    };
    assert!(!is_not_let_in(ask(&world.files_of("admin"))), "the test itself");

    let dir = world.dir.path();
    let over = world.clients.vouch(dir, "admin", Validity::Over);
    assert!(is_not_let_in(ask(&client_files(&world.servers, &over))), "ended");
    let others = Authority::new("the clients' authority");
    let forged = others.vouch(dir, "admin", Validity::Long);
    assert!(
        is_not_let_in(ask(&client_files(&world.servers, &forged))),
        "forged"
    );
    assert!(
        is_not_let_in(ask(&client_files(&world.servers, &world.shown))),
        "another authority's"
    );

    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&world.servers).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut bare = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    bare.alpn_protocols = vec![b"h2".to_vec()];
    let nothing_shown = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", world.port)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(bare));
        let stream = connector
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await?;
        Ok(call(&channel_over(stream).await?, "GetStatus").await)
    });
    assert!(is_not_let_in(nothing_shown), "no certificate");
    let plain = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", world.port)).await?;
        Ok(call(&channel_over(stream).await?, "GetStatus").await)
    });
    assert!(is_not_let_in(plain), "no TLS");

    // And the client trusts only whom it was told to.
    let elsewhere = Authority::new("elsewhere").write(&dir.join("elsewhere.pem"));
    let mistrusting = Tls {
        ca: Some(elsewhere),
        ..world.files_of("admin")
    };
    let answer = Ctl::over_tls(world.port, &mistrusting)
        .run(["status"])
        .ends_with(4);
    assert!(answer.stderr.contains("UnknownIssuer"), "{}", answer.stderr);
    assert!(world.agent.ctl().run(["status"]).code == 0, "the agent is well");
}

#[test]
fn purgectl_works_over_tls_and_the_audit_log_names_the_certificate() {
    let world = need!(World::new());
    let status = world
        .ctl("viewer")
        .run(["status", "--output", "json"])
        .ok()
        .json();
    assert_eq!(number(&status, "/volumes/0/files"), 12);
    let refused = world.ctl("viewer").run(["plan"]).ends_with(1);
    assert!(
        refused.stderr.contains("CN=viewer") && refused.stderr.contains("operator"),
        "{}",
        refused.stderr
    );
    let plan = world.ctl("operator").plan();
    let run = world.ctl("admin").apply(&plan).ok().json();
    assert_eq!(number(&run, "/deleted/files"), 12);
    let log = fs::read_to_string(world.agent.state_dir().join("audit.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    for line in &lines {
        assert_eq!(text(line, "by"), "certificate CN=admin,O=Example");
    }
    assert!(fs::read_dir(world.mount.path().join("d")).unwrap().count() == 0);
    let doctor = world.ctl("viewer").run(["doctor"]).ok().text();
    assert!(doctor.contains("the agent's certificate lasts for"), "{doctor}");
    let without = Ctl::over_tls(world.port, &Tls::default())
        .run(["status"])
        .ends_with(2);
    assert!(without.stderr.contains("--ca FILE --cert FILE --key FILE"));
}

#[test]
fn a_subject_is_meant_whole() {
    let world = need!(World::new());
    let runtime = runtime();
    // "CN=backup" is an operator. A certificate with that name among others is not.
    let asks = |pair: &Pair| {
        let files = client_files(&world.servers, pair);
        let channel = channel_tls(&runtime, world.port, &files).unwrap();
        runtime.block_on(call(&channel, "CreatePlan"))
    };
    let dir = world.dir.path();
    let two = [["eve", "backup"], ["backup", "eve"], ["backup", "backup"]];
    for names in two {
        let answer = asks(&world.clients.vouch_for_two(dir, "eve", names));
        assert!(is_refused(&answer), "{names:?}: {answer:?}");
        let said = answer.unwrap_err();
        assert!(
            said.message()
                .contains(&format!("CN={},CN={}", names[0], names[1])),
            "{said}"
        );
    }
    for name in ["backup", "eve,CN=backup", "eve+CN=backup", "backup\0"] {
        // All of them have O=Example as well.
        let answer = asks(&world.clients.vouch_as(dir, "named", name));
        assert!(is_refused(&answer), "{name}: {answer:?}");
    }
    let operator = asks(&world.clients.vouch(dir, "operator", Validity::Long));
    assert!(!is_refused(&operator), "{operator:?}");
}

#[test]
fn who_is_revoked_loses_the_answer_that_is_on_its_way() {
    const FILES: usize = 20_000;
    let world = need!(World::with_list());
    // More than lies between the agent and a client that reads nothing.
    let dir = world.mount.dir("more");
    let name = "x".repeat(200);
    (0..FILES).for_each(|n| fs::write(dir.join(format!("{name}{n}")), "").unwrap());
    let _ = world.agent.ctl().run(["rescan"]).ok();
    let runtime = runtime();
    let viewer = channel_tls(&runtime, world.port, &world.files_of("viewer")).unwrap();
    let find = v1::FindRequest::default();
    let mut names = runtime.block_on(async {
        let answer = PurgeAgentClient::new(viewer.clone()).find(find).await;
        answer.unwrap().into_inner()
    });
    assert!(runtime.block_on(names.message()).unwrap().is_some());
    let list = world.dir.path().join("crl.pem");
    world.clients.write_list(&list, &["viewer"], Validity::Long);
    until("the viewer is out", SOON, || {
        runtime.block_on(call(&viewer, "GetStatus")).err()
    });
    // Open calls are looked at every second.
    let_pass(3);
    let (count, ended) = runtime.block_on(async {
        let mut count = 1;
        loop {
            match names.message().await {
                Ok(Some(_)) => count += 1,
                ended => break (count, ended),
            }
        }
    });
    println!("{count} of {FILES} names came before the answer was ended");
    let why = ended.expect_err("the rest is not told");
    assert_eq!(why.code(), Code::Unauthenticated, "{why}");
    assert!(count < FILES, "{count}");
}

#[test]
fn who_is_revoked_is_refused_at_the_next_call() {
    let world = need!(World::with_list());
    let runtime = runtime();
    let list = world.dir.path().join("crl.pem");
    let admin = channel_tls(&runtime, world.port, &world.files_of("admin")).unwrap();
    let viewer = channel_tls(&runtime, world.port, &world.files_of("viewer")).unwrap();
    let asks = |channel: &Channel| runtime.block_on(call(channel, "GetStatus"));
    asks(&admin).unwrap();
    asks(&viewer).unwrap();
    let doctor = |word: &str| {
        let said = world.agent.ctl().run(["doctor"]).text();
        assert!(said.contains(word), "{said}");
    };
    doctor("is good for");

    world.clients.write_list(&list, &["admin"], Validity::Long);
    let refused = until("the admin is out", SOON, || asks(&admin).err());
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("revoked"), "{refused}");
    let again = channel_tls(&runtime, world.port, &world.files_of("admin")).map(|c| asks(&c));
    assert!(is_not_let_in(again), "nor do they come in again");
    asks(&viewer).unwrap();

    // One that cannot be read leaves that in force.
    fs::write(&list, "nonsense").unwrap();
    world
        .agent
        .wait_until_it_says("holds no list of revoked certificates");
    assert!(asks(&admin).is_err());
    asks(&viewer).unwrap();

    world.clients.write_list(&list, &[], Validity::Over);
    let refused = until("a list that has expired admits no client", SOON, || {
        asks(&viewer).err()
    });
    assert!(refused.message().contains("has ended"), "{refused}");
    let again = channel_tls(&runtime, world.port, &world.files_of("viewer")).map(|c| asks(&c));
    assert!(is_not_let_in(again), "doubt is no");
    doctor("has ended: clients of its authority are refused");
    world
        .agent
        .wait_until_it_says("the list of revoked certificates has ended");

    world.clients.write_list(&list, &[], Validity::Long);
    until("all are good again", SOON, || {
        (asks(&admin).is_ok() && asks(&viewer).is_ok()).then_some(())
    });
}

/// The subject of what the agent shows.
fn shown_by(port: u16) -> String {
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-showcerts"]);
    let out = command
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines()
        .find(|l| l.starts_with("subject="))
        .unwrap_or_default()
        .to_owned()
}

/// What `purge-agent check` says.
fn check(file: &Path) -> String {
    let mut command = std::process::Command::new(binary("purge-agent"));
    let out = command.args(["check", "--config"]).arg(file).output().unwrap();
    assert!(out.status.success());
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn replace(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).unwrap();
    fs::rename(&beside, to).unwrap();
}

#[test]
fn certificates_are_read_again_without_a_restart() {
    let world = need!(World::new());
    let runtime = runtime();
    let admin = world.files_of("admin");
    let connected = channel_tls(&runtime, world.port, &admin).unwrap();
    let asks = |channel: &Channel| runtime.block_on(call(channel, "GetStatus"));
    asks(&connected).unwrap();
    assert!(shown_by(world.port).contains("CN = agent"));

    // Half of a pair, and then nonsense: the old one stays.
    let next_authority = Authority::new("the servers' next authority");
    let next = next_authority.vouch(world.dir.path(), "next", Validity::Long);
    replace(&next.cert, &world.shown.cert);
    let checked = check(&world.agent.config_file());
    assert!(
        checked.contains("warning: ") && checked.contains("do not fit"),
        "{checked}"
    );
    world.agent.reload();
    world
        .agent
        .wait_until_it_says("the new certificates cannot be used");
    assert!(shown_by(world.port).contains("CN = agent"));
    fs::write(&world.shown.key, "nonsense").unwrap();
    world.agent.reload();
    world.agent.wait_until_it_says("holds no private key");
    assert!(shown_by(world.port).contains("CN = agent"));
    asks(&connected).unwrap();

    replace(&next.key, &world.shown.key);
    world.agent.reload();
    until("the new certificate is shown", SOON, || {
        shown_by(world.port).contains("CN = next").then_some(())
    });
    asks(&connected).unwrap();
    let servers = next_authority.write(&world.dir.path().join("next-servers.pem"));
    let anew = Tls {
        ca: Some(servers),
        ..admin
    };
    let again = channel_tls(&runtime, world.port, &anew).unwrap();
    asks(&again).unwrap();

    // The authorities of clients change without a word to the agent: it finds out.
    let others = Authority::new("other clients' authority");
    others.write(&world.client_ca());
    until("the clients of old are out", SOON, || {
        matches!(asks(&again), Err(s) if s.code() == Code::Unauthenticated).then_some(())
    });
    assert!(asks(&connected).is_err());
    let anew_again = channel_tls(&runtime, world.port, &anew).map(|c| asks(&c));
    assert!(is_not_let_in(anew_again), "nor do they come in again");
    let new_client = others.vouch(world.dir.path(), "viewer", Validity::Long);
    let new_client = Tls {
        ca: anew.ca,
        ..client_files(&world.servers, &new_client)
    };
    let channel = channel_tls(&runtime, world.port, &new_client).unwrap();
    asks(&channel).unwrap();
}

/// A new key that others can read is not taken up: the one before stays, and the log and the doctor say so.
#[test]
fn a_renewed_key_that_others_can_read_is_not_taken_up() {
    let world = need!(World::new());
    let next_authority = Authority::new("the servers' next authority");
    let next = next_authority.vouch(world.dir.path(), "next", Validity::Long);
    let certificates = || world.agent.ctl().run(["doctor", "--output", "json"]).text();
    assert!(!certificates().contains("cannot be used"));
    fs::set_permissions(&next.key, fs::Permissions::from_mode(0o644)).unwrap();
    replace(&next.key, &world.shown.key);
    replace(&next.cert, &world.shown.cert);
    let is_said = "can be read or written by others than root (mode 0644)";
    world.agent.wait_until_it_says(is_said);
    until("the doctor says so", SOON, || {
        certificates().contains(is_said).then_some(())
    });
    assert!(shown_by(world.port).contains("CN = agent"), "the one before");
    assert!(
        world.agent.said().contains("\"ERROR\""),
        "{}",
        world.agent.last_words()
    );

    fs::set_permissions(&world.shown.key, fs::Permissions::from_mode(0o600)).unwrap();
    until("the new certificate is shown", SOON, || {
        shown_by(world.port).contains("CN = next").then_some(())
    });
    assert!(!certificates().contains("cannot be used"));
}
