//! The guard's one thread: answers on its Unix socket, and sends the beacon when it is due.

use std::{
    collections::VecDeque,
    fs, io,
    net::{SocketAddr, UdpSocket},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use holdfast_policies::{
    hostfile::HostFile,
    names::{HostName, Incarnation},
    time::{Moment, millis},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    super::{
        clock,
        datagram::{Beacon, Identity, KeyError, Keyring, Kind, Role, SealError, Sealer, start_stamp},
    },
    BEACON_EVERY, LOCK_NAME,
    connection::Connection,
    incarnation, socket_path,
    state::State,
};

/// Most connections: the supervisor's, one that it has lost and not closed, and an operator's few.
const CONNECTIONS_MAX: usize = 8;
/// Pause after a failed accept, which would otherwise be tried again at once and for ever.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// A deadline may lie this many leases ahead: an honest one is less than one.
const LEASES_AHEAD_MAX: u32 = 2;

/// What the guard needs from the host file.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// This host.
    pub host: HostName,
    /// Where the socket, the lock and the incarnation are.
    pub run_dir: PathBuf,
    /// Where the start stamp is.
    pub state_dir: PathBuf,
    /// The supervisor's address; beacons leave from another port of its IP address.
    pub listen: SocketAddr,
    /// Who gets the beacon until the supervisor says otherwise.
    pub voters: Vec<SocketAddr>,
    /// Gossip key files.
    pub gossip_keys: Vec<PathBuf>,
    /// How long a lease lasts.
    pub lease: Duration,
}

impl GuardConfig {
    /// From a host file whose paths are absolute.
    #[must_use]
    pub fn of(host: &HostFile) -> Self {
        Self {
            host: host.host.clone(),
            run_dir: host.run_dir.clone(),
            state_dir: host.state_dir.clone(),
            listen: host.listen,
            voters: host.voters.values().copied().collect(),
            gossip_keys: host.gossip_keys.clone(),
            lease: host.timing.lease.0,
        }
    }
}

/// Why the guard cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Another one does.
    #[error("another guard holds {lock}")]
    Running {
        /// The lock.
        lock: PathBuf,
    },
    /// The keys are unusable.
    #[error("the gossip keys cannot be used")]
    Keys(#[from] KeyError),
    /// A file or the socket is unusable.
    #[error("{path} cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Waiting failed.
    #[error("poll failed")]
    Poll(#[source] Errno),
}

/// A guard that holds its lock and listens.
#[derive(Debug)]
pub struct Guard {
    host: HostName,
    state: State,
    listener: UnixListener,
    connections: VecDeque<Connection>,
    beacons: Beacons,
    _lock: Flock<fs::File>,
}

impl Guard {
    /// Takes the lock, makes or reads the incarnation, and listens.
    ///
    /// # Errors
    /// [`GuardError`]
    pub fn open(config: &GuardConfig) -> Result<Self, GuardError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| GuardError::File { path, source }
        };
        let run_dir = &config.run_dir;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir).map_err(at(run_dir))?;
        let lock = take_lock(&run_dir.join(LOCK_NAME))?;
        let incarnation = incarnation(run_dir).map_err(at(run_dir))?;
        let keyring = Arc::new(Keyring::load(&config.gossip_keys)?);
        let socket = socket_path(run_dir);
        let listener = listen(&socket).map_err(at(&socket))?;
        let now = clock::now();
        let identity = Identity {
            host: config.host.clone(),
            role: Role::Guard,
            incarnation: incarnation.clone(),
            started: stamp(&config.state_dir, now.wall.0),
        };
        let state = State::new(incarnation, now.moment, config.lease * LEASES_AHEAD_MAX, config.voters.clone());
        let beacons = Beacons::new(config.listen, Sealer::new(keyring, identity), now.moment);
        let connections = VecDeque::new();
        Ok(Self { host: config.host.clone(), state, listener, connections, beacons, _lock: lock })
    }

    /// The host's boot.
    #[must_use]
    pub fn incarnation(&self) -> &Incarnation {
        self.state.incarnation()
    }

    /// Serves until `stop` says so; it is asked at least four times a second.
    ///
    /// # Errors
    /// [`GuardError::Poll`]
    pub fn serve(&mut self, stop: impl Fn() -> bool) -> Result<(), GuardError> {
        while !stop() {
            self.wait()?;
            self.accept();
            let (state, now) = (&mut self.state, clock::moment());
            self.connections.retain_mut(|connection| connection.serve(state, now));
            self.beacons.send_when_due(&self.host, &self.state, clock::moment());
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), GuardError> {
        let left = millis(self.beacons.due.since(clock::moment())).min(millis(BEACON_EVERY));
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        let mut waits = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        waits.extend(self.connections.iter().map(|one| PollFd::new(one.stream().as_fd(), one.interest())));
        match poll(&mut waits, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(GuardError::Poll(error)),
        }
    }

    /// When all places are taken, the longest-standing connection makes room: a supervisor that hangs must not keep
    /// its successor out.
    fn accept(&mut self) {
        for _ in 0..CONNECTIONS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    if self.connections.len() >= CONNECTIONS_MAX {
                        self.connections.pop_front();
                    }
                    self.connections.extend(Connection::new(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "the guard could not accept a connection");
                    return thread::sleep(ERROR_PAUSE);
                }
            }
        }
    }
}

fn take_lock(path: &Path) -> Result<Flock<fs::File>, GuardError> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|source| GuardError::File { path: path.to_owned(), source })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => Err(GuardError::Running { lock: path.to_owned() }),
        Err((_, error)) => Err(GuardError::File { path: path.to_owned(), source: error.into() }),
    }
}

/// Only the holder of the lock comes here: a socket that is there already was left by a guard that is gone.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A full or broken disk must not silence the beacon: then the wall clock has to do.
fn stamp(state_dir: &Path, wall_ms: u64) -> u64 {
    start_stamp(state_dir, Role::Guard, wall_ms).unwrap_or_else(|error| {
        tracing::warn!(%error, state_dir = %state_dir.display(), "the start stamp cannot be kept; using the wall clock");
        wall_ms
    })
}

/// Sends beacons from a socket that is opened when it can be: at boot the address may not be there yet.
#[derive(Debug)]
struct Beacons {
    from: SocketAddr,
    sealer: Sealer,
    socket: Option<UdpSocket>,
    due: Moment,
    /// So that a lasting failure is told once.
    failing: bool,
}

impl Beacons {
    fn new(listen: SocketAddr, sealer: Sealer, due: Moment) -> Self {
        Self { from: SocketAddr::new(listen.ip(), 0), sealer, socket: None, due, failing: false }
    }

    fn send_when_due(&mut self, host: &HostName, state: &State, now: Moment) {
        if now < self.due {
            return;
        }
        // After a pause one beacon is enough; those that were missed would say nothing more.
        self.due = now.plus(BEACON_EVERY);
        let beacon = Beacon {
            host: host.clone(),
            incarnation: state.incarnation().clone(),
            uptime_ms: millis(state.uptime(now)),
            lease_left_ms: state.lease_left(now).map(millis),
        };
        let failure = self.send(&beacon, state.voters()).err();
        match (&failure, self.failing) {
            (Some(error), false) => tracing::warn!(%error, "beacons cannot be sent"),
            (None, true) => tracing::info!("beacons can be sent again"),
            (Some(_), true) | (None, false) => {}
        }
        self.failing = failure.is_some();
    }

    /// One voter that cannot be reached keeps the beacon from no other.
    fn send(&mut self, beacon: &Beacon, voters: &[SocketAddr]) -> io::Result<()> {
        let body = serde_json::to_vec(beacon)?;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open_socket(self.from)?,
        };
        let mut result = Ok(());
        for voter in voters {
            for datagram in self.sealer.seal(Kind::Beacon, &body).map_err(|error: SealError| io::Error::other(error))? {
                result = result.and(socket.send_to(&datagram, voter).map(drop));
            }
        }
        self.socket = Some(socket);
        result
    }
}

fn open_socket(from: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(from)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
