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
        datagram::{Datagrams, Ears, Identity, Keyring, Role, create_key},
        qemu,
    },
    protocol::REQUEST_BYTES_MAX,
    *,
};

/// How long the leases last that are not to end in a test, also on a busy machine.
const LEASE: Duration = Duration::from_secs(30);

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
        lease: LEASE,
        watchdog: None,
        alone: false,
    }
}

fn start(config: &GuardConfig) -> Running {
    serve(Guard::open(config).unwrap())
}

fn serve(mut guard: Guard) -> Running {
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
    let deadline = clock::moment().plus(LEASE);
    let first = GuardClient::patient(&config.run_dir);
    first.grant(deadline).await.unwrap();
    first.register(&web, Path::new("/sys/fs/cgroup/holdfast/web-1")).await.unwrap();
    drop(first);

    let second = GuardClient::patient(&config.run_dir);
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
    let mut voter = Datagrams::bind("127.0.0.1:0".parse().unwrap(), keyring, identity, Ears::default()).await.unwrap();
    let _guard = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    client.grant(clock::moment().plus(LEASE)).await.unwrap();
    client.voters(vec![voter.sender.local_address().unwrap()]).await.unwrap();

    let beacon = tokio::time::timeout(Duration::from_secs(20), voter.beacons.recv()).await.unwrap().unwrap();
    let boot = incarnation(&config.run_dir).unwrap();
    assert_eq!((&beacon.beacon.host, &beacon.beacon.incarnation), (&config.host, &boot));
    assert!(beacon.beacon.lease_left_ms.is_some_and(|left| left > 0 && u128::from(left) <= LEASE.as_millis()));
    assert_eq!(voter.heard.last(&config.host, Role::Guard).unwrap().incarnation, boot);
    assert!(voter.heard.last_of(&config.host, &boot).is_some());
}

#[tokio::test]
async fn a_second_guard_refuses_to_start_and_a_later_one_is_found_by_the_same_client() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let first = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let before = client.query().await.unwrap();
    assert!(matches!(Guard::open(&config), Err(GuardError::Running { .. })));
    let mode = std::fs::metadata(config.run_dir.join(SOCKET_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    assert!(matches!(client.query().await, Err(ClientError::Unreachable { .. })));
    let _second = start(&config);
    let after = client.query().await.unwrap();
    assert_eq!(after.incarnation, before.incarnation, "a guard's start makes no incarnation");
    assert_eq!(after.deadline, before.deadline);
}

#[tokio::test]
async fn garbage_is_refused_and_counted_and_does_not_stop_the_guard() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let mut raw = UnixStream::connect(config.run_dir.join(SOCKET_NAME)).unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
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
    let status = GuardClient::patient(&config.run_dir).query().await.unwrap();
    assert_eq!(status.refused, 2);
}

/// A folder that looks like a guest's cgroup with something in it.
fn cgroup(folder: &Path, guest: &str) -> std::path::PathBuf {
    std::fs::create_dir_all(folder.join("cgroups").join(guest)).unwrap();
    std::fs::write(folder.join("cgroups/cgroup.procs"), "").unwrap();
    let cgroup = folder.join("cgroups").join(guest);
    std::fs::write(cgroup.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    std::fs::write(cgroup.join("cgroup.kill"), "").unwrap();
    cgroup
}

fn was_killed(cgroup: &Path) -> bool {
    !std::fs::read(cgroup.join("cgroup.kill")).unwrap().is_empty()
}

/// Waits until the cgroup is killed, and then is empty as the kernel would make it.
async fn die(cgroup: &Path) {
    wait_until("the guest is killed", || was_killed(cgroup)).await;
    std::fs::write(cgroup.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
}

async fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 20 s: {what}");
}

#[tokio::test]
async fn in_stop_mode_the_end_of_the_lease_kills_each_registered_guest_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let (web, db) = (GuestName::new("web-1").unwrap(), GuestName::new("db-1").unwrap());
    let (web_cgroup, db_cgroup) = (cgroup(folder.path(), "web-1"), folder.path().join("cgroups/db-1"));
    client.stop_mode(true).await.unwrap();
    // Long enough that both are registered before.
    let deadline = clock::moment().plus(Duration::from_secs(3));
    client.grant(deadline).await.unwrap();
    client.register(&web, &web_cgroup).await.unwrap();
    client.register(&db, &db_cgroup).await.unwrap();
    die(&web_cgroup).await;
    assert!(clock::moment() >= deadline, "not before the lease's end");
    let mut status = client.query().await.unwrap();
    while status.stopped.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        status = client.query().await.unwrap();
    }
    let told: Vec<_> = status.stopped.iter().map(|stopped| (&stopped.guest, stopped.lease_ended)).collect();
    assert_eq!(told, [(&web, Some(deadline))], "db-1 was registered, but never made");
    let armed = status.armed.unwrap();
    assert!(armed.stops && armed.watchdog.is_none());
    assert_eq!(status.unarmed.as_deref(), Some("the host file names no watchdog"));

    // One that comes late, whose start was under way when the lease ended, is killed, too.
    let late = cgroup(folder.path(), "db-1");
    die(&late).await;
    let both = async {
        while client.query().await.unwrap().stopped.len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both are told of");
    client.grant(clock::moment().plus(LEASE)).await.unwrap();
    client.register(&db, &late).await.unwrap();
    let stopped = client.query().await.unwrap().stopped;
    assert_eq!(stopped.iter().map(|stopped| &stopped.guest).collect::<Vec<_>>(), [&web], "db-1 was started again");
}

/// Looking at cgroups alone, the guard would say that no guest is left and pet the watchdog on.
#[tokio::test]
async fn a_guest_outside_its_cgroup_does_not_outlive_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let (web, web_cgroup) = (GuestName::new("web-1").unwrap(), cgroup(folder.path(), "web-1"));
    client.stop_mode(true).await.unwrap();
    client.grant(clock::moment().plus(LEASE)).await.unwrap();
    client.register(&web, &web_cgroup).await.unwrap();
    let number = qemu::pid_file(&config.run_dir, &web);
    std::fs::create_dir_all(number.parent().unwrap()).unwrap();
    let mut moved = process::tests::run(&number);
    std::fs::write(&number, format!("{}\n", moved.id())).unwrap();
    std::fs::write(web_cgroup.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    client.revoke().await.unwrap();
    wait_until("it is killed", || !std::path::Path::new(&format!("/proc/{}/fd/0", moved.id())).exists()).await;
    moved.wait().unwrap();
    assert!(!was_killed(&web_cgroup), "nothing is in there");
    let told = async {
        while client.query().await.unwrap().stopped.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told of");
}

#[tokio::test]
async fn outside_stop_mode_the_end_of_the_lease_touches_no_guest() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let web = cgroup(folder.path(), "web-1");
    client.stop_mode(true).await.unwrap();
    client.grant(clock::moment().plus(LEASE)).await.unwrap();
    client.register(&GuestName::new("web-1").unwrap(), &web).await.unwrap();
    client.stop_mode(false).await.unwrap();
    client.revoke().await.unwrap();
    // Several turns of the guard's loop later.
    for _ in 0..50 {
        assert!(!client.query().await.unwrap().armed.unwrap().stops);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!was_killed(&web));
}

#[tokio::test]
async fn a_guard_that_is_started_again_in_stop_mode_remembers_and_stops_what_has_outlived_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let first = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let web = cgroup(folder.path(), "web-1");
    client.stop_mode(true).await.unwrap();
    client.grant(clock::moment().plus(LEASE)).await.unwrap();
    client.register(&GuestName::new("web-1").unwrap(), &web).await.unwrap();
    let voters: Vec<SocketAddr> = vec!["127.0.0.1:7701".parse().unwrap()];
    client.voters(voters.clone()).await.unwrap();
    drop(first);
    assert!(!was_killed(&web), "the guard's end is not the lease's");

    let second = start(&config);
    let status = client.query().await.unwrap();
    assert!(status.armed.unwrap().stops && status.deadline.is_some());
    assert_eq!((status.guests.len(), status.voters), (1, voters));
    assert!(!was_killed(&web));
    client.revoke().await.unwrap();
    drop(second);
    let _third = start(&config);
    die(&web).await;
}

#[tokio::test]
async fn a_guard_takes_over_from_one_that_runs_and_knows_all_it_knew() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let first = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let web = cgroup(folder.path(), "web-1");
    let deadline = clock::moment().plus(LEASE);
    client.stop_mode(true).await.unwrap();
    client.grant(deadline).await.unwrap();
    client.register(&GuestName::new("web-1").unwrap(), &web).await.unwrap();
    let before = client.query().await.unwrap();

    let mut second = Guard::take_over(&config).unwrap();
    wait_until("the first guard has ended", || first.thread.as_ref().is_some_and(JoinHandle::is_finished)).await;
    drop(first);
    assert!(matches!(Guard::open(&config), Err(GuardError::Running { .. })), "the lock has passed on");
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let thread = std::thread::spawn(move || second.serve(|| asked.load(Ordering::Relaxed)).unwrap());
    let _second = Running { stop, thread: Some(thread) };
    let after = client.query().await.unwrap();
    assert_eq!((after.deadline, &after.guests, after.armed), (Some(deadline), &before.guests, before.armed));
    assert!(after.started >= before.started && !was_killed(&web));
}

#[test]
fn where_no_guard_runs_one_that_would_take_over_begins() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let guard = Guard::take_over(&config).unwrap();
    assert_eq!(*guard.incarnation(), incarnation(&config.run_dir).unwrap());
}

#[tokio::test]
async fn which_guests_were_stopped_is_known_to_a_guard_that_is_started_again_and_to_one_that_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let first = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let (web, web_cgroup) = (GuestName::new("web-1").unwrap(), cgroup(folder.path(), "web-1"));
    client.stop_mode(true).await.unwrap();
    client.grant(clock::moment().plus(Duration::from_secs(3))).await.unwrap();
    client.register(&web, &web_cgroup).await.unwrap();
    die(&web_cgroup).await;
    let mut stopped = Vec::new();
    let told = async {
        while stopped.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            stopped = client.query().await.unwrap().stopped;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told of");

    drop(first);
    let second = start(&config);
    assert_eq!(client.query().await.unwrap().stopped, stopped);
    let _third = serve(Guard::take_over(&config).unwrap());
    drop(second);
    assert_eq!(client.query().await.unwrap().stopped, stopped);
    client.unregister(&web).await.unwrap();
    assert_eq!(client.query().await.unwrap().stopped, []);
}

#[tokio::test]
async fn a_guard_whose_successor_gives_up_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Vec::new());
    let _guard = start(&config);
    let client = GuardClient::patient(&config.run_dir);
    let mut raw = UnixStream::connect(config.run_dir.join(SOCKET_NAME)).unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    raw.write_all(b"{\"request\":\"hand_over\"}\n").unwrap();
    let mut answer = [0; 64];
    assert!(raw.read(&mut answer).unwrap() > 0);
    raw.write_all(b"tak").unwrap();
    drop(raw);
    client.grant(clock::moment().plus(LEASE)).await.unwrap();
    assert!(client.query().await.unwrap().deadline.is_some());
}
