//! That a guest with an IPv6 address is asked as one with an IPv4 address is.

use std::net::Ipv6Addr;

use holdfast_policies::{
    model::{HttpProbe, Probe, TcpProbe},
    observe::{Observation, Outcome},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use crate::{
    Target, ask,
    contract::{
        dns::{Oddity, answer},
        network::{SLACK, dns},
        scene::{OK, network},
    },
};

async fn asked(probe: Probe) -> Observation {
    ask(&probe, &Target { address: Some(Ipv6Addr::LOCALHOST.into()), ..network() }, SLACK).await
}

/// Whether this machine has IPv6; if not, says so.
async fn is_here() -> bool {
    let here = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok();
    if !here {
        eprintln!("left out because this machine has no IPv6");
    }
    here
}

/// Answers once, with a page; returns its port and what it was told.
async fn page() -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; 2048];
        let count = stream.read(&mut said).await.unwrap();
        // Whoever merely connects waits for nothing.
        let _ = stream.write_all(OK.as_bytes()).await;
        String::from_utf8_lossy(&said[..count]).into_owned()
    });
    (port, told)
}

#[tokio::test]
async fn pages_ports_and_names_are_asked_for_over_ipv6() {
    if !is_here().await {
        return;
    }
    let (port, _) = page().await;
    let seen = asked(Probe::Tcp(TcpProbe::to(port))).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    for connect_to in [None, Some("{address}")] {
        let (port, told) = page().await;
        let url = if connect_to.is_some() { "http://shop.invalid" } else { "http://{address}" };
        let connect_to = connect_to.map(|to| format!("[{to}]:{port}"));
        let probe = HttpProbe { body: Some("ok".to_owned()), connect_to, ..HttpProbe::get(format!("{url}:{port}/")) };
        let named = format!("{}:{port}", url.trim_start_matches("http://").replace("{address}", "[::1]"));
        let seen = asked(Probe::Http(Box::new(probe))).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
        let told = told.await.unwrap().to_lowercase();
        assert!(told.contains(&format!("host: {named}\r\n")), "{told}");
    }
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&answer(&buffer[..count], Oddity::None, true), from).await;
        }
    });
    let seen = asked(dns(port)).await;
    assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
}

#[tokio::test]
async fn this_machine_answers_its_own_echo_requests_over_ipv6() {
    if !is_here().await {
        return;
    }
    let seen = asked(Probe::Ping {}).await;
    let allowed = nix::unistd::geteuid().is_root();
    assert!(seen.outcome == Outcome::Pass || (!allowed && seen.outcome == Outcome::Unknown), "{seen:?}");
}
