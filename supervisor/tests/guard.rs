//! The guard allocates nothing while it waits, sends its beacon, gets a longer lease and says how it is, nor when the lease runs
//! out and it kills, also a guest that somebody has moved out of its cgroup: a host that is short of memory must not hold it up. An
//! allocator of this program alone counts that.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use holdfast::{
    clock,
    datagram::create_key,
    guard::{Guard, GuardConfig, Request, SOCKET_NAME},
};
use holdfast_policies::names::{GuestName, HostName};

/// Longest wait for anything here.
const LIMIT: Duration = Duration::from_secs(20);

/// How long the leases here last: beyond what a busy machine may stand still, because while guests are being killed every turn
/// is another one.
const LEASE: Duration = Duration::from_secs(4);

thread_local! {
    /// Allocations of this thread.
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    // A thread that ends may have lost its counter already.
    _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + 1));
}

#[expect(unsafe_code, reason = "to be an allocator is an unsafe trait; this one passes everything on")]
// SAFETY: every call goes unchanged to the system's allocator, and what counts it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: what the caller promises is what is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// What is seen of the turns of the guard's loop.
#[derive(Default)]
struct Turns {
    stop: AtomicBool,
    watched: AtomicBool,
    /// Allocations of all turns.
    allocated: AtomicU64,
    /// Whole turns since they are watched, and their allocations.
    turns: AtomicU64,
    allocated_watched: AtomicU64,
}

impl Turns {
    /// Between two turns, on the guard's thread: what the last one has come to, and whether it is to be the last of all.
    fn next(&self, allocated_before: &Cell<u64>, was_watched: &Cell<bool>) -> bool {
        let allocated = ALLOCATED.get();
        let of_turn = allocated - allocated_before.replace(allocated);
        self.allocated.fetch_add(of_turn, SeqCst);
        // Only a turn that has begun under watch: what came before the watch is none of its business.
        if was_watched.replace(self.watched.load(SeqCst)) {
            self.allocated_watched.fetch_add(of_turn, SeqCst);
            self.turns.fetch_add(1, SeqCst);
        }
        self.stop.load(SeqCst)
    }

    fn wait_for(&self, more: u64) {
        let wanted = self.turns.load(SeqCst) + more;
        wait_until("the guard's loop turns", || self.turns.load(SeqCst) >= wanted);
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The supervisor's end of the guard's socket.
struct Supervisor(BufReader<UnixStream>);

impl Supervisor {
    fn connect(config: &GuardConfig) -> Self {
        let stream = UnixStream::connect(config.run_dir.join(SOCKET_NAME)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, request: &Request) -> String {
        let line = format!("{}\n", serde_json::to_string(request).unwrap());
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        assert!(!answer.contains("refused\",\"reason"), "{request:?}: {answer}");
        answer
    }

    /// What comes with every sync, and twice a second.
    fn go_on(&mut self) {
        self.ask(&Request::Grant { deadline: clock::moment().plus(LEASE) });
        assert!(self.ask(&Request::Query {}).contains("web-1"));
    }
}

/// A folder that looks like a guest's cgroup with something in it.
fn cgroup(folder: &Path) -> PathBuf {
    let cgroup = folder.join("cgroups/web-1");
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(folder.join("cgroups/cgroup.procs"), "").unwrap();
    fs::write(cgroup.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    fs::write(cgroup.join("cgroup.kill"), "").unwrap();
    cgroup
}

fn config(folder: &Path, voter: &UdpSocket) -> GuardConfig {
    let key = folder.join("gossip.key");
    create_key(&key).unwrap();
    GuardConfig {
        host: HostName::new("hv-a").unwrap(),
        run_dir: folder.join("run"),
        state_dir: folder.join("state"),
        listen: "127.0.0.1:7700".parse().unwrap(),
        voters: vec![voter.local_addr().unwrap()],
        gossip_keys: vec![key],
        lease: LEASE,
        watchdog: None,
        alone: false,
    }
}

/// A process that was told where to write its number as QEMU is, in no cgroup of ours. It runs until it is killed.
fn qemu_elsewhere(config: &GuardConfig) -> Child {
    let number = config.run_dir.join("guests/web-1/pid");
    fs::create_dir_all(number.parent().unwrap()).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "read -r word", "-pidfile"]).arg(&number).stdin(Stdio::piped());
    let child = command.spawn().unwrap();
    fs::write(&number, format!("{}\n", child.id())).unwrap();
    child
}

#[test]
fn the_guard_allocates_nothing_from_turn_to_turn_nor_on_the_way_from_the_end_of_the_lease_to_the_kill() {
    let folder = tempfile::tempdir().unwrap();
    let voter = UdpSocket::bind("127.0.0.1:0").unwrap();
    voter.set_read_timeout(Some(LIMIT)).unwrap();
    let hear = || voter.recv(&mut [0; 2_048]).unwrap();
    let (config, cgroup) = (config(folder.path(), &voter), cgroup(folder.path()));
    let mut elsewhere = qemu_elsewhere(&config);
    let mut guard = Guard::open(&config).unwrap();
    let turns = Arc::new(Turns::default());
    let seen = Arc::clone(&turns);
    let thread = thread::spawn(move || {
        let (allocated, watched) = (Cell::new(ALLOCATED.get()), Cell::new(false));
        guard.serve(|| seen.next(&allocated, &watched)).unwrap();
    });

    let mut supervisor = Supervisor::connect(&config);
    // The lease comes first, as on any host: a guest that is registered without one is killed at once, and that this was done is
    // told by a turn that allocates.
    supervisor.ask(&Request::Grant { deadline: clock::moment().plus(LEASE) });
    supervisor.ask(&Request::StopMode { stops: true });
    supervisor.ask(&Request::Register { guest: GuestName::new("web-1").unwrap(), cgroup: cgroup.clone() });
    supervisor.go_on();
    supervisor.go_on();
    hear();
    let killed = || !fs::read(cgroup.join("cgroup.kill")).unwrap().is_empty();
    assert!(turns.allocated.load(SeqCst) > 0, "a registration allocates, so the counter counts nothing");
    assert!(!killed() && elsewhere.try_wait().unwrap().is_none(), "the lease is valid");

    turns.watched.store(true, SeqCst);
    turns.wait_for(1);
    for _ in 0..20 {
        supervisor.go_on();
    }
    for _ in 0..3 {
        hear();
        supervisor.go_on();
    }
    turns.wait_for(3);
    assert_eq!(turns.allocated_watched.load(SeqCst), 0, "from turn to turn; killed: {}", killed());

    // Nothing more is granted.
    wait_until("the guest is killed", killed);
    wait_until("what runs outside its cgroup is killed", || {
        fs::read_link(format!("/proc/{}/exe", elsewhere.id())).is_err()
    });
    // It is in there still, and killed again and again, and what has ended elsewhere is looked for.
    turns.wait_for(10);
    assert_eq!(turns.allocated_watched.load(SeqCst), 0, "at the end of the lease");

    elsewhere.wait().unwrap();
    turns.stop.store(true, SeqCst);
    thread.join().unwrap();
}
