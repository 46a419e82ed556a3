//! A real guard on real sockets, in a thread of its own.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use holdfast_policies::names::{GuestName, HostName, Incarnation};

use super::{
    super::{
        clock,
        datagram::{Datagrams, Identity, Keyring, Role, create_key},
    },
    protocol::REQUEST_BYTES_MAX,
    *,
};

struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn config(folder: &Path, voters: Vec<SocketAddr>) -> GuardConfig {
    let key = folder.join("gossip.key");
    if !key.exists() {
        create_key(&key).unwrap();
    }
    GuardConfig {
        host: HostName::new("hv-a").unwrap(),
        run_dir: folder.join("run"),
        state_dir: folder.join("state"),
        listen: "127.0.0.1:7700".parse().unwrap(),
        voters,
        gossip_keys: vec![key],
        lease: Duration::from_secs(4),
    }
}

fn start(config: &GuardConfig) -> Running {
    let mut guard = Guard::open(config).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let thread = std::thread::spawn(move || guard.serve(|| asked.load(Ordering::Relaxed)).unwrap());
    Running { stop, thread: Some(thread) }
}

#[tokio::test]
async fn the_lease_and_the_guests_outlive_the_supervisors_connection() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let web = GuestName::new("web-1").unwrap();
    let deadline = clock::moment().plus(Duration::from_secs(3));
    let first = GuardClient::connect(&config.run_dir).await.unwrap();
    first.grant(deadline).await.unwrap();
    first.register(&web, Path::new("/sys/fs/cgroup/holdfast/web-1")).await.unwrap();
    drop(first);

    let second = GuardClient::connect(&config.run_dir).await.unwrap();
    let status = second.query().await.unwrap();
    assert_eq!((status.deadline, status.pid), (Some(deadline), std::process::id()));
    assert_eq!(status.guests.iter().map(|guest| &guest.guest).collect::<Vec<_>>(), [&web]);
    assert_eq!(status.incarnation, incarnation(&config.run_dir).unwrap());

    let earlier = second.grant(deadline.minus(Duration::from_millis(1))).await;
    assert!(matches!(earlier, Err(ClientError::Refused { .. })), "{earlier:?}");
    second.unregister(&web).await.unwrap();
    second.revoke().await.unwrap();
    let status = second.query().await.unwrap();
    assert_eq!((status.deadline, status.guests.len(), status.refused), (None, 0, 1));
}

#[tokio::test]
async fn the_beacon_is_heard_with_its_incarnation_and_follows_the_voters() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let identity = Identity {
        host: HostName::new("hv-b").unwrap(),
        role: Role::Supervisor,
        incarnation: Incarnation::new("other").unwrap(),
        started: 1,
    };
    let keyring = Arc::new(Keyring::load(&config.gossip_keys).unwrap());
    let mut voter = Datagrams::bind("127.0.0.1:0".parse().unwrap(), keyring, identity).await.unwrap();
    let _guard = start(&config);
    let client = GuardClient::connect(&config.run_dir).await.unwrap();
    client.grant(clock::moment().plus(Duration::from_secs(4))).await.unwrap();
    client.voters(vec![voter.sender.local_address().unwrap()]).await.unwrap();

    let beacon = tokio::time::timeout(Duration::from_secs(5), voter.beacons.recv()).await.unwrap().unwrap();
    let boot = incarnation(&config.run_dir).unwrap();
    assert_eq!((&beacon.beacon.host, &beacon.beacon.incarnation), (&config.host, &boot));
    assert!(beacon.beacon.lease_left_ms.is_some_and(|left| left > 0 && left <= 4_000));
    assert_eq!(voter.heard.last(&config.host, Role::Guard).unwrap().incarnation, boot);
    assert!(voter.heard.last_of(&config.host, &boot).is_some());
}

#[tokio::test]
async fn a_second_guard_refuses_to_start_and_a_later_one_is_found_by_the_same_client() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let first = start(&config);
    let client = GuardClient::connect(&config.run_dir).await.unwrap();
    let before = client.query().await.unwrap();
    assert!(matches!(Guard::open(&config), Err(GuardError::Running { .. })));
    let mode = std::fs::metadata(config.run_dir.join(SOCKET_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    assert!(matches!(client.query().await, Err(ClientError::Unreachable { .. })));
    let _second = start(&config);
    let after = client.query().await.unwrap();
    assert_eq!(after.incarnation, before.incarnation, "a guard's start makes no incarnation");
    assert_eq!(after.deadline, None);
}

#[tokio::test]
async fn garbage_is_refused_and_counted_and_does_not_stop_the_guard() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let mut raw = UnixStream::connect(config.run_dir.join(SOCKET_NAME)).unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    raw.write_all(b"garbage\n{\"request\":\"query\"").unwrap();
    raw.write_all(b"}\n").unwrap();
    // Far beyond the bound and without an end; the guard may hang up before it has everything.
    let _ = raw.write_all(&vec![b'x'; 2 * REQUEST_BYTES_MAX]);
    let mut answers = Vec::new();
    let _ = raw.read_to_end(&mut answers);
    let answers = String::from_utf8(answers).unwrap();
    let kinds: Vec<_> = answers.lines().map(|line| line.contains("refused\",\"reason")).collect();
    assert_eq!(kinds.first().zip(kinds.get(1)), Some((&true, &false)), "{answers}");

    let _idle: Vec<_> = (0..20).map(|_| UnixStream::connect(config.run_dir.join(SOCKET_NAME)).unwrap()).collect();
    let status = GuardClient::connect(&config.run_dir).await.unwrap().query().await.unwrap();
    assert_eq!(status.refused, 2);
}
