//! What schedulers and probes find on the socket besides the agent's own service.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use purge_tests::{Agent, Config, Fs, Mount, need};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn connect(socket: PathBuf) -> Channel {
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://agent")
        .connect_with_connector(dial)
        .await
        .unwrap()
}

#[test]
fn health_and_reflection_answer_on_the_socket() {
    let mount = need!(Mount::new(Fs::Tmpfs));
    let agent = Agent::tracking(&Config::backdated(&mount.path()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let channel = connect(agent.socket()).await;
        let request = HealthCheckRequest {
            service: "purge.v1.PurgeAgent".into(),
        };
        let health = HealthClient::new(channel.clone())
            .check(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(health.status().as_str_name(), "SERVING");

        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::once(ask))
            .await
            .unwrap()
            .into_inner();
        let answer = answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap();
        let MessageResponse::ListServicesResponse(list) = answer else {
            panic!("no list of services")
        };
        let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
        for name in ["purge.v1.PurgeAgent", "grpc.health.v1.Health"] {
            assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
        }
    });
}
