//! Clients in other languages: what their libraries send, and what they ask for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use purge_tests::ctl::{number, text};
use purge_tests::files::{age_tree, make};
use purge_tests::rpc::{channel_over, runtime};
use purge_tests::{Agent, Config, Fs, Mount, need};
use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

/// A field of a header block, spelled out, as gRPC's C core writes it.
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |t: &str| [&[u8::try_from(t.len()).unwrap()], t.as_bytes()].concat();
    [vec![0x40], text(name), text(value)].concat()
}

/// What grpcio 1.85 sends for a call of `GetStatus`.
fn call(authority: &str) -> Vec<u8> {
    let fields = [
        field(":path", "/purge.v1.PurgeAgent/GetStatus"),
        field(":authority", authority),
        vec![0x83, 0x86],
        field("content-type", "application/grpc"),
        field("te", "trailers"),
        field("grpc-accept-encoding", "identity, deflate, gzip"),
        field("grpc-timeout", "10S"),
        field("user-agent", "grpc-python/1.85.3 grpc-c/58.0.0 (linux; chttp2)"),
    ]
    .concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]),
        frame(1, 4, 1, &fields),
        frame(0, 1, 1, &[0; 5]),
    ]
    .concat()
}

/// The types of the frames of the call's stream, until it ends.
fn answered(mut stream: UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        if head[8] == 1 {
            kinds.push(head[3]);
            // The stream has ended, or was reset.
            if head[3] == 3 || head[4] & 1 == 1 {
                return kinds;
            }
        }
    }
}

#[test]
fn the_authority_that_grpc_in_python_and_c_sends_for_a_socket_is_taken() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    for authority in ["localhost", "run%2Fpurge-agent%2Fagent.sock", "%2F", "a%20b%2fc"] {
        for pieces in [usize::MAX, 7, 1] {
            let mut stream = UnixStream::connect(agent.socket()).unwrap();
            for piece in call(authority).chunks(pieces.min(1000)) {
                stream.write_all(piece).unwrap();
            }
            let kinds = answered(stream);
            // Headers, the message, and headers with the status: no reset.
            assert_eq!(kinds, [1, 0, 1], "{authority} in pieces of {pieces}");
        }
    }
}

#[test]
fn reflection_answers_in_its_older_form_as_well() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol("purge.v1.PurgeAgent".into())),
    };
    let answer = runtime().block_on(async {
        let stream = tokio::net::UnixStream::connect(agent.socket()).await.unwrap();
        let channel = channel_over(stream).await.unwrap();
        let mut answers = ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::once(ask))
            .await
            .unwrap()
            .into_inner();
        answers.message().await.unwrap().unwrap()
    });
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("no description of the contract: {answer:?}")
    };
    assert!(!files.file_descriptor_proto.is_empty());
}

#[test]
fn plans_runs_and_holds_are_found_by_their_first_characters_and_as_the_latest() {
    let mount = need!(Mount::new(Fs::Ext4));
    let root = mount.path();
    let files = make(&root.join("d"), 4);
    age_tree(&root);
    let agent = Agent::tracking(&Config::backdated(&root));
    let ctl = agent.ctl();
    let (first, second) = (ctl.plan(), ctl.plan());
    let latest = ctl.run(["show", "latest", "--output", "ndjson"]).ok().lines();
    assert!(latest.len() >= files.len(), "{latest:?}");

    // Both begin with the letter of plans.
    let many = ctl.run(["show", "p"]).ends_with(1).stderr;
    assert!(many.contains(&first.id) && many.contains(&second.id), "{many}");
    let common = first
        .id
        .bytes()
        .zip(second.id.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let short = &second.id[..=common];
    let run = ctl.run(["apply", short, "--yes", "--output", "json"]).ok().json();
    assert_eq!(text(&run, "plan_id"), second.id);
    let again = ctl.run(["run", "latest", "--output", "json"]).ok().json();
    assert_eq!(text(&again, "run_id"), text(&run, "run_id"));
    assert!(number(&again, "/deleted/files") > 0, "{again}");
    let again = ctl.run(["run", "r", "--output", "json"]).ok().json();
    assert_eq!(text(&again, "run_id"), text(&run, "run_id"));

    let held = ctl.hold(&root, &[]);
    let removed = ctl
        .run(["hold", "remove", &held[..10], "--output", "json"])
        .ok()
        .json();
    assert_eq!(text(&removed, "hold_id"), held);
    let _ = ctl.run(["hold", "remove", "latest"]).ends_with(1);
}
