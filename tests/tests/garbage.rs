//! Garbage on every socket is refused and counted, and changes nothing (S10).

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use holdfast_tests::lab::{Daemon, Lab, Scene, cluster::API_PORT, left_out, scene::LIMIT, wait};

/// The port of gossip (UDP) and RPC (TCP).
const PORT: u16 = 7400;
/// How long an answer to garbage is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn garbage_on_every_socket_is_counted_and_changes_nothing() {
    if left_out("garbage_on_every_socket_is_counted_and_changes_nothing") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let host = scene.calm().unwrap();
    let leader = scene.leader().unwrap();
    let (qemu, who) = (scene.qemu().unwrap(), scene.who().unwrap());
    // What belongs to the start may still be being written down.
    let journal = wait::until("a journal at rest", LIMIT, || {
        let before = scene.journal().map_err(|error| format!("{error:#}"))?;
        wait::pause(Duration::from_secs(2)).map_err(|error| error.to_string())?;
        let after = scene.journal().map_err(|error| format!("{error:#}"))?;
        if before == after { Ok(after) } else { Err(format!("{after:?}")) }
    })
    .unwrap();
    let daemons = |scene: &Scene| {
        let pids = |name: &String| {
            [Daemon::Guard, Daemon::Supervisor].map(|daemon| scene.lab.daemon_pid(name, daemon).unwrap())
        };
        scene.others(&[]).iter().map(pids).collect::<Vec<_>>()
    };
    let pids = daemons(&scene);

    for target in [&leader, &host] {
        let before = (
            counted(&scene.lab, target, "holdfast_datagrams_dropped_total"),
            counted(&scene.lab, target, "holdfast_rpc_refused_total"),
        );
        over_the_network(&scene.lab, target);
        on_unix_sockets(&scene.lab, target);
        wait::until("counters that grow", LIMIT, || {
            let after = (
                counted(&scene.lab, target, "holdfast_datagrams_dropped_total"),
                counted(&scene.lab, target, "holdfast_rpc_refused_total"),
            );
            if after.0 >= before.0 + 50.0 && after.1 >= before.1 + 3.0 {
                Ok(())
            } else {
                Err(format!("{before:?} then {after:?}"))
            }
        })
        .unwrap();
    }

    scene.lab.wait_hosts_healthy(LIMIT).unwrap();
    scene.answered_throughout().unwrap();
    assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (qemu, who));
    assert_eq!(daemons(&scene), pids, "a daemon has ended");
    assert_eq!(scene.journal().unwrap(), journal);
    assert_eq!(scene.presses(), 0);
}

/// The sum of a metric over its labels.
fn counted(lab: &Lab, host: &str, metric: &str) -> f64 {
    let page = lab.client_get(&format!("{}:{API_PORT}", lab.address(host).unwrap()), "/metrics").unwrap();
    let of_metric = page.lines().filter(|line| line.starts_with(metric));
    of_metric.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Random bytes, announced lengths, plain HTTP and TLS without a certificate, from a machine that is no host.
fn over_the_network(lab: &Lab, host: &str) {
    let address = lab.address(host).unwrap();
    let line = format!(
        r"
        for size in 1 7 40 200 1200 1400; do for i in $(seq 10); do head -c $size /dev/urandom > /dev/udp/{address}/{PORT}; done; done
        for port in {PORT} {API_PORT}; do
          head -c 300000 /dev/urandom > /dev/tcp/{address}/$port
          head -c 12 /dev/zero > /dev/tcp/{address}/$port
          printf '\xff\xff\xff\xff\xff\xff\xff\xff\x00' > /dev/tcp/{address}/$port
          printf 'GET /v1/ask HTTP/1.0\r\n\r\n' > /dev/tcp/{address}/$port
          printf 'POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n' > /dev/tcp/{address}/$port
          # The beginning of a TLS handshake, cut off.
          printf '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' > /dev/tcp/{address}/$port
        done
        curl -sk -m 5 -o /dev/null https://{address}:{PORT}/ ; true"
    );
    // The other end may hang up in the middle, which is as it should be.
    lab.shell("cl", &line, Duration::from_secs(40)).unwrap();
}

/// What a confused local program might send.
fn on_unix_sockets(lab: &Lab, host: &str) {
    let pid = lab.daemon_pid(host, Daemon::Supervisor).unwrap();
    let mut noise = vec![0_u8; 200_000];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let wordy = "{\"request\":\"grant\",\"deadline\":".to_owned() + &"9".repeat(100) + "}\n";
    let local = "POST /v1/ask HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\n\r\n{\"confirm_off\":{\"host\":\"h1\",\"person\":7}}";
    for (socket, garbage) in [
        ("guard.sock", noise.as_slice()),
        ("guard.sock", b"{\"request\":\"explode\"}\n"),
        ("guard.sock", b"{\"request\":\"revoke\",\"more\":1}\n"),
        ("guard.sock", wordy.as_bytes()),
        ("guard.sock", b"{\"request\":"),
        ("holdfast.sock", noise.as_slice()),
        ("holdfast.sock", local.as_bytes()),
        ("holdfast.sock", b"POST /v1/ask HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nnull"),
        ("holdfast.sock", b"\x00\x00\x00"),
    ] {
        let mut stream = UnixStream::connect(format!("/proc/{pid}/root/run/holdfast/{socket}")).unwrap();
        stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_LIMIT)).unwrap();
        // It may hang up before it has read everything, or answer nothing.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("200 OK") && !answer.contains("\"done\""), "{socket} took garbage: {answer}");
    }
}
