//! What clients can learn by the paths that they send: of what is theirs, all; of what lies outside of a volume, nothing; and an ordinary
//! user of what is another's, not even whether it is there.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use purge_proto::v1;
use purge_proto::v1::purge_agent_client::PurgeAgentClient;
use purge_tests::certs::{Authority, Validity, client_files, free_port, listen_keys};
use purge_tests::files::{age_tree, make_one, temp_dir};
use purge_tests::mount::Bind;
use purge_tests::rpc::{channel_as, channel_tls, runtime};
use purge_tests::{Agent, Config, Fs, Mount, need};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

const ALICE: u32 = 4001;
const BOB: u32 = 4002;
const VIEWER: u32 = 4010;
const OPERATOR: u32 = 4020;
const ADMIN: u32 = 4030;

/// A volume with Alice's directory, Bob's that no other user may enter, and a directory beside the volume.
struct World {
    runtime: Runtime,
    agent: Agent,
    root: PathBuf,
    outside: PathBuf,
    port: u16,
    certificates: TempDir,
    clients: Authority,
    servers: PathBuf,
    _bind: Bind,
    _mount: Mount,
}

impl World {
    fn new() -> Result<Self, purge_tests::skip::Unmet> {
        let mount = Mount::new(Fs::Ext4)?;
        fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (root, outside) = (mount.dir("volume"), mount.dir("outside"));
        make_one(&outside.join("secret"));
        for (name, uid) in [("alice", ALICE), ("bob", BOB)] {
            let private = root.join(name).join("private");
            fs::create_dir_all(&private).unwrap();
            for file in [root.join(name).join("file"), private.join("file")] {
                chown(make_one(&file), Some(uid), Some(uid)).unwrap();
            }
            for dir in [&private, &root.join(name)] {
                chown(dir, Some(uid), Some(uid)).unwrap();
                fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        for (name, to) in [("to-bob", "../bob"), ("out", "../../outside"), ("to-own", "file")] {
            let link = root.join("alice").join(name);
            symlink(to, &link).unwrap();
            lchown(&link, Some(ALICE), Some(ALICE)).unwrap();
        }
        fs::create_dir(root.join("mounted")).unwrap();
        let bind = Bind::new(&outside, &root.join("mounted"))?;
        age_tree(&root.join("alice"));
        age_tree(&root.join("bob"));

        let (certificates, port) = (temp_dir(), free_port());
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let shown = servers.vouch(certificates.path(), "agent", Validity::Long);
        let ca = clients.write(&certificates.path().join("clients.pem"));
        let access = format!(
            "self = true\nviewer = {{ users = [\"{VIEWER}\"], certificates = [\"CN=viewer,O=Example\"] }}\n\
             operator = {{ users = [\"{OPERATOR}\"] }}\nadmin = {{ users = [\"{ADMIN}\"] }}"
        );
        let config = Config::backdated_with(&root, "remove_empty_dirs = false")
            .listening(&listen_keys(port, &shown, &ca))
            .access(&access);
        let agent = Agent::tracking(&config);
        agent.reachable();
        Ok(Self {
            runtime: runtime(),
            agent,
            root,
            outside,
            port,
            servers: servers.write(&certificates.path().join("servers.pem")),
            certificates,
            clients,
            _bind: bind,
            _mount: mount,
        })
    }

    fn as_user(&self, uid: u32) -> Client<'_> {
        let channel = channel_as(&self.runtime, &self.agent, uid, &[]).unwrap();
        Client::new(&self.runtime, channel)
    }

    fn as_certificate(&self, name: &str) -> Client<'_> {
        let pair = self.clients.vouch(self.certificates.path(), name, Validity::Long);
        let files = client_files(&self.servers, &pair);
        Client::new(
            &self.runtime,
            channel_tls(&self.runtime, self.port, &files).unwrap(),
        )
    }
}

struct Client<'r> {
    runtime: &'r Runtime,
    grpc: PurgeAgentClient<Channel>,
}

impl<'r> Client<'r> {
    fn new(runtime: &'r Runtime, channel: Channel) -> Self {
        let grpc = PurgeAgentClient::new(channel);
        Self { runtime, grpc }
    }

    fn explain(&self, path: &[u8]) -> Result<v1::Explanation, Status> {
        let request = v1::ExplainRequest { path: path.to_vec() };
        let answer = self.runtime.block_on(self.grpc.clone().explain(request));
        answer.map(|a| a.into_inner())
    }

    fn hold(&self, path: &[u8], reason: &str) -> Result<v1::Hold, Status> {
        let request = v1::AddHoldRequest {
            path: path.to_vec(),
            reason: reason.into(),
            for_seconds: Some(600),
        };
        let answer = self.runtime.block_on(self.grpc.clone().add_hold(request));
        answer.map(|a| a.into_inner())
    }

    fn remove(&self, hold_id: &str) -> Result<v1::Hold, Status> {
        let hold_id = hold_id.to_owned();
        let request = v1::RemoveHoldRequest { hold_id };
        let answer = self.runtime.block_on(self.grpc.clone().remove_hold(request));
        answer.map(|a| a.into_inner())
    }

    fn holds(&self) -> Vec<v1::Hold> {
        let request = v1::ListHoldsRequest::default();
        let answer = self.runtime.block_on(self.grpc.clone().list_holds(request));
        answer.unwrap().into_inner().holds
    }

    fn find(&self, path: &[u8]) -> Result<Vec<v1::Entry>, Status> {
        let request = v1::FindRequest {
            path: path.to_vec(),
            ..v1::FindRequest::default()
        };
        self.runtime.block_on(async {
            let mut entries = self.grpc.clone().find(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(entry) = entries.message().await? {
                all.push(entry);
            }
            Ok(all)
        })
    }

    fn restore(&self, path: &[u8]) -> Result<v1::RestoreReport, Status> {
        let request = v1::RestoreRequest {
            run_id: "rnone".into(),
            paths: vec![path.to_vec()],
            ..v1::RestoreRequest::default()
        };
        let answer = self.runtime.block_on(self.grpc.clone().restore(request));
        answer.map(|a| a.into_inner())
    }

    /// What a call says of a path: the code and, but for the path, the words.
    fn ask(&self, call: &str, path: &[u8]) -> (Code, String) {
        let words = |s: Status| {
            let path = String::from_utf8_lossy(path).into_owned();
            (s.code(), s.message().replace(&path, "PATH"))
        };
        let done = |n: usize| (Code::Ok, format!("{n} entries"));
        match call {
            "explain" => self.explain(path).map_or_else(words, |_| done(1)),
            "find" => self.find(path).map_or_else(words, |all| done(all.len())),
            "hold add" => self.hold(path, "a test").map_or_else(words, |hold| {
                self.remove(&hold.hold_id).unwrap();
                done(1)
            }),
            "restore" => self.restore(path).map_or_else(words, |_| done(1)),
            _ => panic!("{call}"),
        }
    }
}

/// What a path of some kind is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Own,
    OwnFile,
    Foreign,
    ForeignFile,
    Absent,
    /// A link of Alice's.
    Link,
    /// Nothing that is reached without a link, `..` or another mount.
    Outside,
    /// No path at all.
    Unclean,
}

fn resources(world: &World) -> Vec<(&'static str, Vec<u8>, Is)> {
    let below = |name: &str| world.root.join(name).as_os_str().as_bytes().to_vec();
    let outside = world.outside.join("secret").as_os_str().as_bytes().to_vec();
    let absent_outside = world.outside.join("none").as_os_str().as_bytes().to_vec();
    vec![
        ("own directory", below("alice/private"), Is::Own),
        ("own file", below("alice/private/file"), Is::OwnFile),
        ("own, many slashes", below("alice//private///"), Is::Own),
        ("foreign directory", below("bob/private"), Is::Foreign),
        ("foreign file", below("bob/private/file"), Is::ForeignFile),
        ("absent, in one's own", below("alice/none"), Is::Absent),
        ("absent, in another's", below("bob/private/none"), Is::Absent),
        ("absent, far below", below("bob/none/none/none"), Is::Absent),
        ("below a file", below("bob/file/none"), Is::Absent),
        ("a link of one's own", below("alice/to-own"), Is::Link),
        ("a link to another's", below("alice/to-bob"), Is::Link),
        ("by a link to another's", below("alice/to-bob/file"), Is::Absent),
        ("by a link, absent", below("alice/to-bob/none"), Is::Absent),
        ("by a link to outside", below("alice/out/secret"), Is::Absent),
        ("by a link outside, absent", below("alice/out/none"), Is::Absent),
        ("what is mounted there", below("mounted/secret"), Is::Absent),
        ("mounted, absent", below("mounted/none"), Is::Absent),
        ("outside", outside, Is::Outside),
        ("outside, absent", absent_outside, Is::Outside),
        ("elsewhere", b"/etc/passwd".to_vec(), Is::Outside),
        (
            "beside the volume",
            [below(""), b"x".to_vec()].concat(),
            Is::Absent,
        ),
        ("outside by ..", below("../outside/secret"), Is::Unclean),
        ("outside by .., absent", below("../outside/none"), Is::Unclean),
        (
            "far outside by ..",
            below("../../../../../../etc/passwd"),
            Is::Unclean,
        ),
        (".. within", below("alice/../alice/file"), Is::Unclean),
        (". within", below("./alice/file"), Is::Unclean),
        ("relative", b"alice/file".to_vec(), Is::Unclean),
        ("up", b"..".to_vec(), Is::Unclean),
        ("a NUL", below("alice/fi\0le"), Is::Unclean),
        (
            "a long name",
            [below("alice/"), vec![b'x'; 300]].concat(),
            Is::Unclean,
        ),
        (
            "a long path",
            [below("alice"), b"/d".repeat(20_000)].concat(),
            Is::Unclean,
        ),
    ]
}

/// What a call must say of it: for an ordinary user, or a user with a role.
fn expected(call: &str, is: Is, own_only: bool) -> Code {
    match (is, call, own_only) {
        (Is::Unclean, ..) | (Is::Link, "hold add", _) | (Is::Link, "find", false) => Code::InvalidArgument,
        (_, "restore", true) => Code::PermissionDenied,
        (_, "restore", false) => Code::NotFound,
        // Nothing of theirs lies there.
        (_, "find", true) => Code::Ok,
        // A file is no directory to look below.
        (Is::OwnFile | Is::ForeignFile, "find", false) => Code::NotFound,
        (Is::Own | Is::OwnFile, ..) | (Is::Link, "explain", _) => Code::Ok,
        (Is::Foreign | Is::ForeignFile, _, false) => Code::Ok,
        (_, _, true) => Code::PermissionDenied,
        _ => Code::NotFound,
    }
}

#[test]
fn calls_by_identity_by_resource() {
    let world = need!(World::new());
    let who: [(&str, Client<'_>, bool, &[&str]); 6] = [
        (
            "self",
            world.as_user(ALICE),
            true,
            &["explain", "find", "hold add", "restore"],
        ),
        ("viewer", world.as_user(VIEWER), false, &["explain", "find"]),
        (
            "viewer, TLS",
            world.as_certificate("viewer"),
            false,
            &["explain", "find"],
        ),
        (
            "operator",
            world.as_user(OPERATOR),
            false,
            &["explain", "find", "hold add"],
        ),
        (
            "admin",
            world.as_user(ADMIN),
            false,
            &["explain", "find", "hold add", "restore"],
        ),
        (
            "root",
            world.as_user(0),
            false,
            &["explain", "find", "hold add", "restore"],
        ),
    ];
    let mut wrong = Vec::new();
    println!(
        "{:<28} {:<9} {}",
        "resource",
        "call",
        who.each_ref().map(|w| format!("{:<18}", w.0)).concat()
    );
    for (name, path, is) in resources(&world) {
        for call in ["explain", "find", "hold add", "restore"] {
            let mut row = String::new();
            for (identity, client, own_only, calls) in &who {
                if !calls.contains(&call) {
                    row.push_str(&format!("{:<18}", "-"));
                    continue;
                }
                let (code, words) = client.ask(call, &path);
                row.push_str(&format!("{:<18}", format!("{code:?}")));
                if code != expected(call, is, *own_only) {
                    wrong.push(format!("{call} of {name} as {identity}: {code:?} {words}"));
                }
                if *own_only && call == "find" && is != Is::Own && code == Code::Ok && words != "0 entries" {
                    wrong.push(format!("{call} of {name} as {identity}: {words}"));
                }
                if code == Code::InvalidArgument
                    && !words.starts_with(if call == "restore" { "paths: " } else { "path: " })
                {
                    wrong.push(format!("{call} of {name} as {identity} names no field: {words}"));
                }
            }
            println!("{name:<28} {call:<9} {row}");
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_is_anothers_and_what_is_not_there_are_not_told_apart() {
    let world = need!(World::new());
    let alice = world.as_user(ALICE);
    let all = resources(&world);
    for call in ["explain", "hold add", "find", "restore"] {
        let mut said: Vec<(&str, (Code, String))> = Vec::new();
        for (name, path, is) in &all {
            if matches!(is, Is::Foreign | Is::ForeignFile | Is::Absent | Is::Outside) {
                said.push((name, alice.ask(call, path)));
            }
        }
        let first = said.first().unwrap().1.clone();
        for (name, answer) in said {
            assert_eq!(answer, first, "{call} of {name}");
        }
    }
    // No client learns whether something outside is there.
    for client in [
        world.as_user(OPERATOR),
        world.as_certificate("viewer"),
        world.as_user(0),
    ] {
        for (there, absent) in [
            ("alice/out/secret", "alice/out/none"),
            ("mounted/secret", "mounted/none"),
            ("../outside/secret", "../outside/none"),
        ] {
            let ask = |name: &str| client.ask("explain", world.root.join(name).as_os_str().as_bytes());
            assert_eq!(ask(there), ask(absent), "{there}");
        }
    }
}

#[test]
fn of_others_holds_users_learn_only_that_there_is_one() {
    let world = need!(World::new());
    let (alice, bob) = (world.as_user(ALICE), world.as_user(BOB));
    let operator = world.as_user(OPERATOR);
    let path = |name: &str| world.root.join(name).as_os_str().as_bytes().to_vec();
    let by_operator = operator.hold(&path("alice"), "an audit of alice").unwrap();
    let own = alice.hold(&path("alice/private"), "thesis").unwrap();
    let of_bob = bob.hold(&path("bob/private"), "a secret project").unwrap();

    let names = |holds: &[v1::Hold]| holds.iter().map(|h| h.hold_id.clone()).collect::<Vec<_>>();
    assert_eq!(names(&alice.holds()), std::slice::from_ref(&own.hold_id));
    assert_eq!(operator.holds().len(), 3);
    let told = alice.explain(&path("alice/private/file")).unwrap();
    assert_eq!(names(&told.holds), [own.hold_id.clone(), String::new()]);
    let words = format!("{told:?}");
    for secret in ["audit", "4020", by_operator.hold_id.as_str()] {
        assert!(!words.contains(secret), "{secret}: {words}");
    }
    assert!(words.contains("a hold of another user"), "{words}");
    // Those with a role see all.
    assert_eq!(
        operator.explain(&path("alice/private/file")).unwrap().holds.len(),
        2
    );

    // A hold of another's is as unknown as one that there is not.
    let said = |id: &str| {
        let status = alice.remove(id).unwrap_err();
        (status.code(), status.message().replace(id, "ID"))
    };
    assert_eq!(said(&of_bob.hold_id), said("hnone"));

    // A hold is matched by what was found at its place, also after that was moved.
    fs::rename(world.root.join("alice/private"), world.root.join("alice/moved")).unwrap();
    let told = operator.explain(&path("alice/moved/file")).unwrap();
    assert_eq!(names(&told.holds).len(), 2, "{told:?}");
}

/// How long each of two questions takes, asked by turns: medians, in microseconds.
fn medians(mut ask: impl FnMut(bool)) -> [u128; 2] {
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..31 {
        for first in [round % 2 == 0, round % 2 != 0] {
            let began = Instant::now();
            ask(first);
            took[usize::from(first)].push(began.elapsed());
        }
    }
    took.map(|mut took: Vec<Duration>| {
        took.sort_unstable();
        took[took.len() / 2].as_micros()
    })
}

/// That both take the same way is shown beside the code (`host/views/questions.rs`); here is what a client can measure.
#[test]
fn looking_below_anothers_directory_takes_as_long_as_below_none() {
    let mount = need!(Mount::sized(Fs::Ext4, 64, 8000));
    let root = mount.dir("volume");
    for (user, uid) in [("alice", ALICE), ("bob", BOB)] {
        for n in 0..20 {
            let dir = root.join(user).join(format!("d{n}"));
            fs::create_dir_all(&dir).unwrap();
            for n in 0..50 {
                let file = dir.join(format!("f{n}"));
                fs::write(&file, "").unwrap();
                chown(&file, Some(uid), Some(uid)).unwrap();
            }
        }
    }
    let agent = Agent::tracking(&Config::backdated(&root).access("self = true"));
    agent.reachable();
    let runtime = runtime();
    let alice = Client::new(&runtime, channel_as(&runtime, &agent, ALICE, &[]).unwrap());
    let path = |name: &str| Path::new(&root).join(name).as_os_str().as_bytes().to_vec();
    for call in ["find", "explain", "hold add"] {
        let (there, absent) = (path("bob/d10"), path("bob/none"));
        let [absent, there] =
            medians(|is_there| drop(alice.ask(call, if is_there { &there } else { &absent })));
        println!("{call}: another's directory {there} us, none {absent} us");
        let (less, more) = (there.min(absent), there.max(absent));
        assert!(more <= 4 * less + 3000, "{call}: {there} us and {absent} us");
    }
}
