//! The guard's one thread: does its duty about guests and watchdog, answers on its Unix socket, and sends the beacon when
//! it is due, in this order.

use std::{
    collections::VecDeque,
    fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
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
    hostfile::{HostFile, WatchdogFile},
    names::{HostName, Incarnation},
    time::millis,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    super::{
        causes::unless_absent,
        clock,
        datagram::{Identity, KeyError, Keyring, Role, Sealer, start_stamp, unkept_stamp},
    },
    BEACON_EVERY, LOCK_NAME,
    beacons::Beacons,
    connection::Connection,
    handover::{HandedOver, Offer, Step},
    incarnation,
    memory::{Keeper, Memory},
    protector::Protector,
    socket_path,
    state::State,
    written::Written,
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
    /// Where the start stamp is, and the guard's last words.
    pub state_dir: PathBuf,
    /// The supervisor's address; beacons leave from another port of its IP address.
    pub listen: SocketAddr,
    /// Who gets the beacon until the supervisor says who votes; an earlier guard of this boot may know that already.
    pub voters: Vec<SocketAddr>,
    /// Gossip key files.
    pub gossip_keys: Vec<PathBuf>,
    /// How long a lease lasts.
    pub lease: Duration,
    /// The watchdog, if there is one.
    pub watchdog: Option<WatchdogFile>,
    /// Whether this process is a guard and nothing else: then it locks its memory and raises its priority in stop mode.
    pub alone: bool,
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
            watchdog: host.watchdog.clone(),
            alone: true,
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
    /// Another one does, and could not be taken over from; it goes on.
    #[error("the guard that holds {lock} did not hand over")]
    HandOver {
        /// The lock.
        lock: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
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
    state: State,
    keeper: Keeper,
    protector: Protector,
    listener: UnixListener,
    connections: VecDeque<Connection>,
    /// It cannot accept connections; so that this is told once.
    deaf: bool,
    beacons: Beacons,
    /// A guard that wants to take over; while it gets ready nothing changes here.
    offer: Option<Offer>,
    lock: fs::File,
}

impl Guard {
    /// Takes the lock, makes or reads the incarnation, and listens.
    ///
    /// # Errors
    /// [`GuardError`]
    pub fn open(config: &GuardConfig) -> Result<Self, GuardError> {
        make_run_dir(config)?;
        let lock = take_lock(&config.run_dir.join(LOCK_NAME))?;
        Self::begin(config, lock)
    }

    /// Takes over from the guard that runs, if one does, without a gap.
    ///
    /// # Errors
    /// [`GuardError`]; the guard that runs goes on.
    pub fn take_over(config: &GuardConfig) -> Result<Self, GuardError> {
        make_run_dir(config)?;
        let lock = config.run_dir.join(LOCK_NAME);
        match take_lock(&lock) {
            Ok(lock) => return Self::begin(config, lock),
            Err(GuardError::Running { .. }) => {}
            Err(error) => return Err(error),
        }
        let failed = |source| GuardError::HandOver { lock: lock.clone(), source };
        let (old, lock_file, listener, watchdog) =
            HandedOver::ask(&socket_path(&config.run_dir)).map_err(failed)?.apart();
        let mut guard = Self::build(config, lock_file, listener)?;
        guard.adopt(watchdog);
        HandedOver::take(old).map_err(failed)?;
        Ok(guard)
    }

    fn begin(config: &GuardConfig, lock: fs::File) -> Result<Self, GuardError> {
        let socket = socket_path(&config.run_dir);
        let listener = listen(&socket).map_err(|source| GuardError::File { path: socket.clone(), source })?;
        Self::build(config, lock, listener)
    }

    fn build(config: &GuardConfig, lock: fs::File, listener: UnixListener) -> Result<Self, GuardError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| GuardError::File { path, source }
        };
        let run_dir = &config.run_dir;
        let incarnation = incarnation(run_dir).map_err(at(run_dir))?;
        let keyring = Arc::new(Keyring::load(&config.gossip_keys)?);
        let now = clock::now();
        let identity = Identity {
            host: config.host.clone(),
            role: Role::Guard,
            incarnation: incarnation.clone(),
            started: stamp(&config.state_dir, now.wall.0),
        };
        let keeper = Keeper::new(run_dir);
        let memory = keeper.load(&incarnation).map_err(at(&keeper.path))?;
        tell_what_is_kept(&memory);
        let state = State::new(memory, now.moment, config.lease * LEASES_AHEAD_MAX, config.voters.clone());
        let written = Written::new(&config.state_dir, incarnation);
        let protector = Protector::new(config.watchdog.clone(), config.alone, run_dir, written);
        let mut protector = protector.map_err(at(run_dir))?;
        protector.take_in(&state);
        Ok(Self {
            state,
            keeper,
            protector,
            listener,
            connections: VecDeque::with_capacity(CONNECTIONS_MAX),
            deaf: false,
            offer: None,
            beacons: Beacons::new(config.listen, Sealer::new(keyring, identity), now.moment),
            lock,
        })
    }

    fn adopt(&mut self, watchdog: Option<OwnedFd>) {
        if let Some(watchdog) = watchdog {
            let keeper = &self.keeper;
            self.protector.adopt(watchdog, &mut self.state, &|memory| keeper.keep(memory), clock::moment());
        }
    }

    /// The host's boot.
    #[must_use]
    pub fn incarnation(&self) -> &Incarnation {
        self.state.incarnation()
    }

    /// Serves until `stop` says so, which is asked at least four times a second, or until another guard has taken over.
    ///
    /// # Errors
    /// [`GuardError::Poll`]
    pub fn serve(&mut self, stop: impl Fn() -> bool) -> Result<(), GuardError> {
        // Nobody is told that nothing is armed by a guard that is about to arm it.
        self.protector.act(&self.state, clock::moment());
        self.prepare();
        while !stop() {
            self.protector.act(&self.state, clock::moment());
            match self.offer.as_mut().map(|offer| offer.step(clock::moment())) {
                None => self.answer(),
                Some(Step::Waiting) => {}
                Some(Step::Withdrawn) => {
                    tracing::warn!("the guard that wanted to take over did not; this one goes on");
                    self.offer = None;
                }
                Some(Step::Taken) => {
                    tracing::info!("another guard has taken over");
                    return Ok(());
                }
            }
            self.beacons.send_when_due(&self.state, clock::moment());
            self.wait()?;
        }
        Ok(())
    }

    fn answer(&mut self) {
        self.accept();
        let (state, keeper, now) = (&mut self.state, &self.keeper, clock::moment());
        self.connections.retain_mut(|connection| connection.serve(state, now, &|memory| keeper.keep(memory)));
        self.prepare();
        let asking = self.connections.iter().position(Connection::takes_over);
        let Some(asking) = asking.and_then(|place| self.connections.remove(place)) else { return };
        let (lock, listener, watchdog) = (self.lock.as_fd(), self.listener.as_fd(), self.protector.watchdog());
        match Offer::make(asking.into_stream(), lock, listener, watchdog, now) {
            Ok(offer) => self.offer = Some(offer),
            Err(error) => tracing::warn!(%error, "nothing could be offered to the guard that wants to take over"),
        }
    }

    fn prepare(&mut self) {
        let keeper = &self.keeper;
        self.protector.prepare(&mut self.state, &|memory| keeper.keep(memory), clock::moment());
    }

    fn wait(&self) -> Result<(), GuardError> {
        let now = clock::moment();
        let reasons = [Some(self.beacons.due().since(now)), self.state.unchanged_for(now), self.protector.hurry()];
        let left = millis(reasons.into_iter().flatten().fold(BEACON_EVERY, Duration::min));
        let timeout = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
        // Places that no connection takes wait for nothing, and so do all but the offer's while there is one.
        let listener = self.listener.as_fd();
        let mut waits: [PollFd<'_>; 1 + CONNECTIONS_MAX] =
            std::array::from_fn(|place| match (&self.offer, place.checked_sub(1)) {
                (Some(offer), None) => PollFd::new(offer.stream().as_fd(), PollFlags::POLLIN),
                (None, None) => PollFd::new(listener, PollFlags::POLLIN),
                (Some(_), Some(_)) => PollFd::new(listener, PollFlags::empty()),
                (None, Some(place)) => match self.connections.get(place) {
                    Some(one) => PollFd::new(one.stream().as_fd(), one.interest()),
                    None => PollFd::new(listener, PollFlags::empty()),
                },
            });
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.deaf = false;
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.deaf, true) {
                        tracing::warn!(%error, "the guard could not accept a connection");
                    }
                    return thread::sleep(ERROR_PAUSE);
                }
            }
        }
    }
}

fn tell_what_is_kept(memory: &Memory) {
    if memory.stops {
        tracing::info!(
            guests = memory.guests.len(),
            deadline_ms = memory.deadline.map(|deadline| deadline.0),
            "an earlier guard of this boot was in stop mode"
        );
    }
}

fn make_run_dir(config: &GuardConfig) -> Result<(), GuardError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.run_dir);
    made.map_err(|source| GuardError::File { path: config.run_dir.clone(), source })
}

/// It is held as long as any descriptor of the file is open, in whichever process: nothing gives it back but that.
fn take_lock(path: &Path) -> Result<fs::File, GuardError> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|source| GuardError::File { path: path.to_owned(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(GuardError::Running { lock: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(GuardError::File { path: path.to_owned(), source }),
    }
}

/// Only the holder of the lock comes here: a socket that is there already was left by a guard that is gone.
fn listen(path: &Path) -> io::Result<UnixListener> {
    unless_absent(fs::remove_file(path))?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A full or broken disk must not silence the beacon: then one has to do that is not kept.
fn stamp(state_dir: &Path, wall_ms: u64) -> u64 {
    start_stamp(state_dir, Role::Guard, wall_ms).unwrap_or_else(|error| {
        tracing::warn!(%error, state_dir = %state_dir.display(), "the start stamp cannot be kept");
        unkept_stamp(state_dir, Role::Guard, wall_ms)
    })
}
