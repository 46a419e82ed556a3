//! gRPC's own library.

use std::{path::Path, process::Command, time::Duration};

use holdfast_policies::{
    model::Probe,
    observe::Outcome,
    probe::{GrpcProbe, TlsSettings},
};

use super::{asked, folder, left_out, ready, started};
use crate::{
    ask,
    contract::{
        authority::Authority,
        scene::{free_port, network},
    },
};

/// A port's health service, asked for one service.
fn grpc(port: u16, service: &str, tls: Option<TlsSettings>) -> Probe {
    Probe::Grpc(GrpcProbe { port, service: service.to_owned(), tls })
}

#[tokio::test]
async fn the_health_service_of_grpc_s_own_library_is_asked_for_every_answer_that_it_has() {
    if left_out("probes against a real gRPC server") {
        return;
    }
    let python = "/usr/bin/python3";
    let has_grpc = Command::new(python).args(["-c", "import grpc"]).output().is_ok_and(|ended| ended.status.success());
    assert!(has_grpc, "install python3-grpcio, or set HOLDFAST_NO_LAB=1");
    let (folder, port, secure_port, bare_port) = (folder(), free_port().await, free_port().await, free_port().await);
    let authority = Authority::new();
    let (certificate, key) = authority.write(folder.path());
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/health_of_grpc.py"));
    command.args([port, secure_port, bare_port].map(|port| port.to_string())).arg(certificate).arg(key);
    let _program = started(&mut command, folder, "python3-grpcio");
    ready(&grpc(port, "", None)).await;
    for tls in [None, Some(authority.trusted())] {
        let port = if tls.is_some() { secure_port } else { port };
        for (service, wanted) in [
            ("", Outcome::Pass),
            ("up", Outcome::Pass),
            ("down", Outcome::Fail),
            ("lost", Outcome::Fail),
            ("absent", Outcome::Fail),
            ("broken", Outcome::Fail),
            ("private", Outcome::Unknown),
        ] {
            let seen = asked(&grpc(port, service, tls.clone())).await;
            assert_eq!(seen.outcome, wanted, "{service:?}, tls: {}: {seen:?}", tls.is_some());
        }
    }
    let seen = asked(&grpc(bare_port, "", None)).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "it has no health service: {seen:?}");
    let hung = ask(&grpc(port, "hung", None), &network(), Duration::from_secs(3)).await;
    assert_eq!(hung.outcome, Outcome::Fail, "{hung:?}");
    let misnamed = TlsSettings { server_name: Some("elsewhere.example".to_owned()), ..authority.trusted() };
    let seen = asked(&grpc(secure_port, "", Some(misnamed))).await;
    assert_eq!(seen.outcome, Outcome::Fail, "{seen:?}");
    let seen = asked(&grpc(port, "", Some(authority.trusted()))).await;
    assert_eq!(seen.outcome, Outcome::Fail, "no tls is spoken there: {seen:?}");
    assert_eq!(asked(&grpc(port, "", None)).await.outcome, Outcome::Pass, "it serves on, whatever was asked");
}
