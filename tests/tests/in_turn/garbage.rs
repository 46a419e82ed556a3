//! Garbage on every socket is refused and counted, and changes nothing (S10).

#![expect(clippy::unwrap_used, clippy::panic, reason = "what a test's helper cannot do fails the test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Stdio,
    thread,
    time::Duration,
};

use holdfast_tests::lab::{Daemon, Lab, Lent, Scene, cluster::API_PORT, left_out, scene::LIMIT, wait};

/// The port of gossip (UDP) and RPC (TCP).
const PORT: u16 = 7400;
/// How long an answer to garbage is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn garbage_on_every_socket_is_counted_and_changes_nothing() {
    if left_out("garbage_on_every_socket_is_counted_and_changes_nothing") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    let host = scene.calm().unwrap();
    let leader = scene.leader().unwrap();
    let before = Standing::of(&scene);
    for target in [&leader, &host] {
        let counts = || {
            (
                counted(&scene.lab, target, "holdfast_datagrams_dropped_total"),
                counted(&scene.lab, target, "holdfast_rpc_refused_total"),
            )
        };
        let first = counts();
        over_the_network(&scene.lab, target);
        on_unix_sockets(&scene.lab, target);
        wait::until("counters that grow", LIMIT, || {
            let now = counts();
            if now.0 >= first.0 + 50.0 && now.1 >= first.1 + 3.0 {
                Ok(())
            } else {
                Err(format!("{first:?} then {now:?}"))
            }
        })
        .unwrap();
    }
    before.still_holds(&scene);
}

#[test]
fn garbage_from_a_host_of_the_cluster_is_refused_and_counted_and_changes_nothing() {
    if left_out("garbage_from_a_host_of_the_cluster_is_refused_and_counted_and_changes_nothing") {
        return;
    }
    let mut scene = Lent::three().unwrap();
    scene.calm().unwrap();
    let leader = scene.leader().unwrap();
    let [speaker, follower] = <[String; 2]>::try_from(scene.others(&[&leader])).unwrap();
    let before = Standing::of(&scene);
    for target in [&leader, &follower] {
        let of_kind =
            |kind: &str| counted(&scene.lab, target, &format!("holdfast_rpc_refused_total{{reason=\"{kind}\"}}"));
        let first = (of_kind("frame"), of_kind("request"));
        // What is no frame ends the connection without an answer.
        let broken = broken_frames();
        for bytes in &broken {
            assert_eq!(spoken(&scene.lab, &speaker, target, bytes, None), b"", "a broken frame was answered");
        }
        // What is no request is refused, one by one, and the connection goes on.
        let requests = no_requests();
        let bytes: Vec<u8> = requests.iter().zip(0..).flat_map(|((tag, body), id)| frame(id, *tag, body)).collect();
        let answers = answers(&spoken(&scene.lab, &speaker, target, &bytes, Some(requests.len())));
        let mut ids: Vec<u64> = answers.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..requests.len() as u64).collect::<Vec<_>>());
        assert!(answers.iter().all(|(_, tag)| *tag == REFUSAL), "{answers:?}");
        wait::until("counters that grow", LIMIT, || {
            let now = (of_kind("frame"), of_kind("request"));
            let grown = (now.0 - first.0, now.1 - first.1);
            let wanted = (broken.len() as f64, requests.len() as f64);
            if grown == wanted { Ok(()) } else { Err(format!("grown by {grown:?}, not {wanted:?}")) }
        })
        .unwrap();
    }
    before.still_holds(&scene);
}

/// What garbage must not change.
struct Standing {
    qemu: (String, i32),
    who: (String, u64),
    daemons: Vec<[i32; 2]>,
    journal: Vec<String>,
    leader: String,
    late: usize,
}

/// The journal without the tests of power devices, which are made whenever their time has come, and without the end of what people
/// were told: an emulated guest answers late for a moment on a busy machine. What is done about that has a line of its own.
fn decisions(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let is_decision = |line: &String| !line.contains("power device") && !line.ends_with(" is well again");
    Ok(scene.journal()?.into_iter().filter(is_decision).collect())
}

/// How often a supervisor has noticed that it got no processor for long. What its cluster decides for that says nothing about
/// garbage.
fn late(scene: &Scene) -> usize {
    let log = |name: &String| scene.lab.log_tail(name, "supervisor", usize::MAX);
    let told = |name: &String| log(name).lines().filter(|line| line.contains("this supervisor was late")).count();
    scene.others(&[]).iter().map(told).sum()
}

impl Standing {
    fn of(scene: &Scene) -> Self {
        // What belongs to the start may still be being written down.
        let journal = wait::until("a journal at rest", LIMIT, || {
            let before = decisions(scene).map_err(|error| format!("{error:#}"))?;
            wait::pause(Duration::from_secs(2)).map_err(|error| error.to_string())?;
            let after = decisions(scene).map_err(|error| format!("{error:#}"))?;
            if before == after { Ok(after) } else { Err(format!("{after:?}")) }
        })
        .unwrap();
        let (qemu, who, leader) = (scene.qemu().unwrap(), scene.who().unwrap(), scene.leader().unwrap());
        Self { qemu, who, daemons: daemons(scene), journal, leader, late: late(scene) }
    }

    fn still_holds(&self, scene: &Scene) {
        scene.lab.wait_hosts_healthy(LIMIT).unwrap();
        scene.answered_throughout().unwrap();
        assert_eq!((scene.qemu().unwrap(), scene.who().unwrap()), (self.qemu.clone(), self.who.clone()));
        assert_eq!(daemons(scene), self.daemons, "a daemon has ended");
        assert_eq!(scene.presses(), 0);
        let (journal, leader) = (decisions(scene).unwrap(), scene.leader().unwrap());
        if (&journal, &leader) != (&self.journal, &self.leader) {
            assert!(
                late(scene) > self.late,
                "{} led, now {leader}; {:?} became {journal:?}",
                self.leader,
                self.journal
            );
            eprintln!("this machine was too busy to tell what garbage changes of the journal and the lead");
        }
    }
}

fn daemons(scene: &Scene) -> Vec<[i32; 2]> {
    let pids =
        |name: &String| [Daemon::Guard, Daemon::Supervisor].map(|daemon| scene.lab.daemon_pid(name, daemon).unwrap());
    scene.others(&[]).iter().map(pids).collect()
}

/// Tag of an answer that is a refusal.
const REFUSAL: u8 = 1;
/// Tags of the channels for raft, syncs, operators' requests, and ages.
const CHANNELS: [u8; 4] = [1, 2, 3, 4];
/// The largest frame that is taken, without its length field.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Length, id, tag, body, as `supervisor/src/rpc/frame.rs` describes it.
fn frame(id: u64, tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(9 + body.len()).unwrap();
    [&length.to_be_bytes()[..], &id.to_be_bytes(), &[tag], body].concat()
}

/// The ids and tags of the frames in `bytes`; what is not whole may still be coming.
fn answers(mut bytes: &[u8]) -> Vec<(u64, u8)> {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((frame, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        let (id, rest_of_frame) = frame.split_first_chunk().unwrap();
        found.push((u64::from_be_bytes(*id), *rest_of_frame.first().unwrap()));
        bytes = rest;
    }
    found
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0_u8; bytes];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

/// Each ends its connection: random bytes that announce too much, one byte too much, too little, and no channel.
fn broken_frames() -> Vec<Vec<u8>> {
    let oversized = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    vec![
        [&[0xff][..], &noise(100_000)].concat(),
        [&oversized[..], &noise(1_000)].concat(),
        [&8_u32.to_be_bytes()[..], &noise(8)].concat(),
        frame(1, 0, b"{}"),
        frame(1, 99, b"{\"request\":\"status\"}"),
    ]
}

/// Well-formed frames whose body is no request of the channel.
fn no_requests() -> Vec<(u8, Vec<u8>)> {
    let bodies = [
        Vec::new(),
        noise(5_000),
        b"null".to_vec(),
        b"{".to_vec(),
        b"{\"explode\":{}}".to_vec(),
        // Plausible beginnings, cut off.
        b"{\"host\":\"h1\",\"facts\":{\"incarnation\":\"".to_vec(),
        b"{\"confirm_off\":{\"host\":\"h1\"".to_vec(),
        b"{\"confirm_off\":{\"host\":\"h1\",\"person\":7}}".to_vec(),
        b"{\"cluster\":\"lab\",\"from\":1,\"to\":2,\"message\":{\"Append\":{}}}".to_vec(),
        // Deeper than any parser should follow.
        vec![b'['; 1_000_000],
    ];
    let mut all: Vec<(u8, Vec<u8>)> =
        CHANNELS.into_iter().flat_map(|tag| bodies.iter().map(move |body| (tag, body.clone()))).collect();
    // As much as fits, once.
    all.push((CHANNELS[1], vec![b' '; FRAME_BYTES_MAX - 9]));
    all
}

/// What `target` answers to bytes that `speaker` sends with its own certificate, until it hangs up or, where so many answers are
/// expected, has given them.
fn spoken(lab: &Lab, speaker: &str, target: &str, bytes: &[u8], expected: Option<usize>) -> Vec<u8> {
    let files = lab.host_file(speaker).parent().unwrap().display().to_string();
    let folder = lab.place().dir.clone();
    let (answered, log) = (folder.join("answered"), folder.join("openssl.out"));
    // Those of the last time would be taken for these.
    let _ = fs::remove_file(&answered);
    // No letter of what is sent is a command to openssl itself, such as Q to quit.
    let line = format!(
        "exec openssl s_client -quiet -no_ign_eof -nocommands -tls1_3 -connect {}:{PORT} -CAfile {files}/ca.pem \
         -verify_return_error -cert {files}/{speaker}.pem -key {files}/{speaker}.key > {} 2> {}",
        lab.address(target).unwrap(),
        answered.display(),
        log.display()
    );
    let mut client = lab.place().inside("speaker", "cl", &["bash", "-c", &line]).stdin(Stdio::piped()).spawn().unwrap();
    let mut mouth = client.stdin.take().unwrap();
    let said = bytes.to_vec();
    let speaking = thread::spawn(move || {
        // The other end may hang up before it has heard everything.
        let _ = mouth.write_all(&said);
        mouth
    });
    let heard = wait::until("answers, or an end", LIMIT, || {
        let ended = client.try_wait().map_err(|error| error.to_string())?.is_some();
        let said = fs::read(&answered).unwrap_or_default();
        let enough = expected.is_some_and(|expected| answers(&said).len() >= expected);
        if ended || enough { Ok(()) } else { Err(format!("{} bytes", said.len())) }
    });
    // It may have ended by itself.
    let _ = client.kill();
    client.wait().unwrap();
    drop(speaking.join().unwrap());
    let log = fs::read_to_string(log).unwrap();
    heard.unwrap_or_else(|error| panic!("{error:#}; openssl says {log}"));
    assert!(log.contains("verify return:1"), "no TLS session: {log}");
    fs::read(answered).unwrap()
}

/// The sum of a metric over its labels.
fn counted(lab: &Lab, host: &str, metric: &str) -> f64 {
    let page = lab.metrics(host).unwrap();
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
    lab.shell("cl", &line, LIMIT).unwrap();
}

/// What a confused local program might send.
fn on_unix_sockets(lab: &Lab, host: &str) {
    let pid = lab.daemon_pid(host, Daemon::Supervisor).unwrap();
    let noise = noise(200_000);
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
