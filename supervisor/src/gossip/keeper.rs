//! Keeps gossip going: where chitchat fails, it begins anew in the same process.
//!
//! chitchat holds some of what it receives for impossible, and ends by an assertion when it comes all the same. Whoever has the gossip
//! key, as from a host that was revoked, can send that to every host. Gossip is evidence and no authority, so this must cost no more
//! than gossip: not the supervisor, and with it a vote and the renewal of a lease.
//!
//! ```text
//!           ┌───────┐ chitchat fails  ┌───────┐ the socket is closed  ┌───────┐
//!   ──────► │ Going │ ──────────────► │ Pause │ ────────────────────► │ Ended │
//!           └───────┘ ◄────────────── └───────┘                       └───────┘
//!                as another member, with all that this host says
//! ```

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chitchat::{Chitchat, ChitchatHandle, spawn_chitchat};
use holdfast_policies::time::millis;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    super::{
        causes::with_causes,
        datagram::{GossipReceived, Sender},
    },
    DEAD_FOR, GossipConfig, StartError,
    bounds::{KNOWN_BYTES_MAX, known_bytes},
    chitchat_config,
    room::Room,
    transport::{Inbox, Sealed},
};

/// How long after its first failure gossip begins anew: shorter than the shortest silence that counts.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest pause, after failures that follow one another. Each start is a member of its own that others remember for [`DEAD_FOR`],
/// and all that are remembered need room.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often it is looked how much is known.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gossip that goes at the moment.
pub(super) struct Going {
    now: Mutex<Now>,
    restarts: AtomicU64,
}

struct Now {
    handle: ChitchatHandle,
    /// What this host says of itself. What chitchat knows of that is lost with it, and others can change it there.
    own: BTreeMap<String, String>,
}

impl Going {
    /// How often gossip has begun anew.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Changes what this host says of itself, unless `change` refuses that, and `tell`s chitchat. Where chitchat fails at it, gossip
    /// begins anew with what was changed.
    pub(super) async fn say<E>(
        &self,
        change: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), E>,
        mut tell: impl FnMut(&mut Chitchat),
    ) -> Result<(), E> {
        let mut now = self.now.lock().await;
        change(&mut now.own)?;
        let told = |chitchat: &mut Chitchat| catch_unwind(AssertUnwindSafe(|| tell(chitchat))).is_ok();
        if !now.handle.with_chitchat(told).await {
            // The keeper sees that it has ended.
            now.handle.abort();
        }
        Ok(())
    }

    /// Looks at all that chitchat knows.
    pub(super) async fn look<T>(&self, look: impl FnOnce(&Chitchat) -> T) -> T {
        let chitchat = self.chitchat().await;
        let chitchat = chitchat.lock().await;
        look(&chitchat)
    }

    /// The chitchat of the moment.
    pub(super) async fn chitchat(&self) -> Arc<Mutex<Chitchat>> {
        self.now.lock().await.handle.chitchat()
    }

    /// Waits until chitchat has failed, or knows of more than so many bytes, and ends it; returns why.
    pub(super) async fn failed(&self, known_max: usize) -> String {
        let mut ended = pin!(self.ended());
        loop {
            if let Ok(why) = timeout(LOOK_EVERY, ended.as_mut()).await {
                return why;
            }
            let known = self.look(known_bytes).await;
            if known > known_max {
                self.now.lock().await.handle.abort();
                return format!("its members have said {known} bytes, and at most {known_max} are kept");
            }
        }
    }

    /// Waits until chitchat has ended; returns why.
    async fn ended(&self) -> String {
        let ended = self.now.lock().await.handle.termination_watcher();
        ended.await.map_or_else(|error| error.to_string(), |()| "it has ended by itself".to_owned())
    }
}

impl Drop for Now {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Begins gossip, and begins it anew.
pub(super) struct Keeper {
    config: GossipConfig,
    sender: Sender,
    inbox: Inbox,
}

impl Keeper {
    pub(super) fn new(config: GossipConfig, sender: Sender, inbox: mpsc::Receiver<GossipReceived>) -> Self {
        Self { config, sender, inbox: Arc::new(Mutex::new(inbox)) }
    }

    /// Begins gossip for the first time.
    pub(super) async fn begin(&self) -> Result<Going, StartError> {
        let own = BTreeMap::new();
        let handle = self.spawn(0, &own).await?;
        Ok(Going { now: Mutex::new(Now { handle, own }), restarts: AtomicU64::new(0) })
    }

    /// Keeps it going until the socket is closed; `_ended` is dropped then.
    pub(super) async fn keep(self, going: Arc<Going>, _ended: watch::Sender<()>) {
        let mut pause = PAUSE_MIN;
        loop {
            let began = Instant::now();
            let why = going.failed(KNOWN_BYTES_MAX).await;
            // Nobody else has it in a moment: chitchat has ended.
            if self.inbox.lock().await.is_closed() {
                tracing::error!(why, "gossip has stopped");
                return;
            }
            if began.elapsed() >= DEAD_FOR {
                pause = PAUSE_MIN;
            }
            tracing::error!(
                why,
                pause_ms = millis(pause),
                "gossip has failed and begins anew; unless this is a defect, somebody who has the gossip key sends what it fails at"
            );
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.forget_what_came().await;
            if let Err(error) = self.begin_anew(&going).await {
                tracing::error!(error = with_causes(&error), "gossip could not begin anew; it is tried again");
            }
        }
    }

    /// It is old, and what chitchat has failed at may be among it once more.
    async fn forget_what_came(&self) {
        let mut inbox = self.inbox.lock().await;
        while inbox.try_recv().is_ok() {}
    }

    async fn begin_anew(&self, going: &Going) -> Result<(), StartError> {
        let mut now = going.now.lock().await;
        let restarts = going.restarts.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let handle = self.spawn(restarts, &now.own).await?;
        now.handle = handle;
        Ok(())
    }

    /// Every start is another member: others take neither heartbeats nor facts of one that they know for news, until there are more of
    /// them than before. The stamp of the supervisor's next start is far higher, unless the clock is set back between.
    async fn spawn(&self, restarts: u64, own: &BTreeMap<String, String>) -> Result<ChitchatHandle, StartError> {
        let room = Arc::new(Room::default());
        let transport = Sealed::new(self.sender.clone(), Arc::clone(&self.inbox), Arc::clone(&room));
        let generation = self.config.generation.saturating_add(restarts);
        let config = chitchat_config(GossipConfig { generation, ..self.config.clone() });
        let own = own.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let spawned = spawn_chitchat(config, own, &transport).await;
        let handle = spawned.map_err(|error| StartError { host: self.config.host.clone(), source: error.into() })?;
        room.of(handle.chitchat());
        Ok(handle)
    }
}
