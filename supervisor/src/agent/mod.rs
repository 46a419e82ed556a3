//! The agent: one task that owns [`holdfast_policies::agent::Agent`], syncs for it, and has done what it says.

mod acting;
pub mod carry;
pub mod disk;
mod forgetting;
mod guarded;
pub mod last_words;
mod link;
mod news;
pub mod writing;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use carry::Carried;
use guarded::Guarded;
use holdfast_policies::{
    agent::Agent,
    feature_level::FeatureLevel,
    names::{GuestName, HostName, OrderId},
    observe::{GuestCondition, GuestReport},
    order::Order,
    state::HostFacts,
    sync::{Authority, SightsMark, SyncReply, SyncRequest, View},
    time::Moment,
    timing::TimingTold,
};
use last_words::LastWords;
use news::Learning;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use writing::Writing;

use crate::{
    clock, coordinator::Coordinator, datagram::Nudged, duties, metrics::GuestEventKind, node::Node, prober::Sights,
    qemu::GuestEvent,
};

/// Orders and syncs that may end at once before their ends are taken in: more than one host ever has open.
const ENDS: usize = 256;

/// Syncs under way at once: each ends within a second, and one is due every quarter of one.
const SYNCS: usize = 4;

/// How long a sync that is under way keeps another one from starting.
const OVERTAKE_AFTER: Duration = Duration::from_millis(100);

/// How soon it is looked again whether another sync may start, when as many as may be are under way.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Of so many syncs that fail in a row each is told of.
const FAILURES_TOLD: u32 = 3;

/// After that one in so many is: one in a minute or so.
const TOLD_AGAIN_EVERY: u32 = 100;

/// Everything that the agent's task is given at its start.
pub struct Parts {
    /// The node.
    pub node: Arc<Node>,
    /// The coordinator of this host, on voters.
    pub coordinator: Option<Coordinator>,
    /// The agent with what it remembers.
    pub agent: Agent,
    /// Where it remembers it.
    pub disk: PathBuf,
    /// What this host says of itself.
    pub facts: HostFacts,
    /// What happens to guests.
    pub events: Option<mpsc::Receiver<GuestEvent>>,
    /// Nudges (R5).
    pub nudges: mpsc::Receiver<Nudged>,
    /// What this host sees of services.
    pub sights: Sights,
    /// Where new views go.
    pub views: watch::Sender<Arc<View>>,
}

enum End {
    Synced { nonce: u64, sent: Moment, first: Option<HostName>, result: Result<Box<SyncReply>, String> },
    Carried { order: OrderId, carried: Carried },
    Written(io::Result<()>),
    Viewed(Result<Box<View>, String>),
    Stopped { guest: GuestName },
}

/// Runs the agent for as long as the supervisor runs.
pub async fn run(mut parts: Parts) {
    let (sender, mut ends) = mpsc::channel(ENDS);
    let mut events = parts.events.take();
    let (guarded, words) = (Guarded::default(), LastWords::default());
    let told = Told::of(&parts.agent);
    let duties = parts.node.duties.clone();
    duties.begin_vital("the guard", guarded::look_after(Arc::clone(&parts.node), guarded.clone(), words.clone()));
    duties.begin("last words", last_words::watch(Arc::clone(&parts.node), guarded.clone(), words.clone()));
    tokio::spawn(last_words::tell_of_earlier_boots(Arc::clone(&parts.node), words.clone()));
    let mut work = Work {
        parts,
        guarded,
        words,
        ends: sender,
        nonce: 0,
        syncing: 0,
        sync_began: Instant::now(),
        again: false,
        first: None,
        asked_at: BTreeMap::new(),
        failures: 0,
        sights_known: None,
        writing: Writing::default(),
        learning: Learning::default(),
        told,
        in_writing: told,
        stopping: BTreeSet::new(),
    };
    let every = work.parts.node.file.timing.sync_every.0;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(due) => {}
            () = work.parts.node.sync_now.notified() => work.again = true,
            Some(_) = work.parts.nudges.recv() => work.again = true,
            Some(event) = next_event(&mut events) => {
                work.again |= work.noticed(&event);
            }
            Some(end) = ends.recv() => work.take(end).await,
        }
        let now = Instant::now();
        let free = work.syncing == 0 || (work.syncing < SYNCS && now.duration_since(work.sync_began) >= OVERTAKE_AFTER);
        if (now >= due || work.again) && free {
            due = now + every;
            work.again = false;
            work.sync().await;
        } else if now >= due || work.again {
            // As soon as this one may overtake the one that is under way.
            due = (work.sync_began + OVERTAKE_AFTER).max(now + LOOK_AGAIN);
        }
    }
}

async fn next_event(events: &mut Option<mpsc::Receiver<GuestEvent>>) -> Option<GuestEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// What an event counts as, if it is one that people watch.
fn counted(event: &GuestEvent) -> Option<GuestEventKind> {
    match event {
        GuestEvent::Changed(report) => match report.condition {
            GuestCondition::Exited { .. } => Some(GuestEventKind::Ended),
            GuestCondition::Panicked => Some(GuestEventKind::Panicked),
            GuestCondition::Paused { .. } => Some(GuestEventKind::Paused),
            GuestCondition::IoError { .. } => Some(GuestEventKind::IoError),
            GuestCondition::Running
            | GuestCondition::Incoming
            | GuestCondition::Sent
            | GuestCondition::Unknown { .. } => None,
        },
        GuestEvent::Watchdog { .. } => Some(GuestEventKind::Watchdog),
        GuestEvent::AgentChannel { connected: false, .. } => Some(GuestEventKind::AgentLeft),
        GuestEvent::Died { .. } => Some(GuestEventKind::ServiceDied),
        GuestEvent::AgentChannel { connected: true, .. } | GuestEvent::Migration { .. } => None,
    }
}

struct Work {
    parts: Parts,
    guarded: Guarded,
    words: LastWords,
    ends: mpsc::Sender<End>,
    nonce: u64,
    /// Syncs under way. A second one does not wait for one that hangs, as when the leader has just died (R6).
    syncing: usize,
    sync_began: Instant,
    /// Something has happened that should not wait for the next turn.
    again: bool,
    /// The voter that answered last: asked before others that do not lead either.
    first: Option<HostName>,
    /// When the power device was asked whose reading comes with a result.
    asked_at: BTreeMap<OrderId, Moment>,
    /// Syncs in a row that have failed.
    failures: u32,
    /// How far the coordinator knows what is seen here, as it has said itself: it alone knows what has arrived.
    sights_known: Option<SightsMark>,
    /// What waits for the disk.
    writing: Writing<Order>,
    /// What is made of news.
    learning: Learning,
    told: Told,
    /// What is to be told once the write under way is on disk.
    in_writing: Told,
    /// Guests whose assignments were replaced, and that are being stopped.
    stopping: BTreeSet<GuestName>,
}

/// What the coordinator is told that this host knows. Of what waits for the disk it is not told: it counts on it.
#[derive(Clone, Copy)]
struct Told {
    seen: Authority,
    floors_known: bool,
}

impl Told {
    fn of(agent: &Agent) -> Self {
        Self { seen: agent.disk().authority, floors_known: agent.disk().floors_known }
    }
}

impl Work {
    /// Takes in what has changed about a guest; returns whether the coordinator is to hear of it at once.
    fn noticed(&self, event: &GuestEvent) -> bool {
        if let GuestEvent::Died { guest, epoch, service, detail } = event {
            let view = self.parts.node.view.borrow().clone();
            if !self.parts.sights.died(&view, guest, *epoch, service, detail, clock::moment()) {
                return false;
            }
        }
        tracing::info!(?event, "a guest has changed");
        if let Some(kind) = counted(event) {
            self.parts.node.metrics.guest_event(kind);
        }
        true
    }

    async fn sync(&mut self) {
        if !self.look_at_the_disk(Instant::now()) {
            return;
        }
        // Grows from sync to sync, and over restarts of the supervisor within one boot.
        self.nonce = clock::moment().0.max(self.nonce + 1);
        self.syncing += 1;
        self.sync_began = Instant::now();
        let (node, coordinator) = (Arc::clone(&self.parts.node), self.parts.coordinator.clone());
        let (nonce, mut first, ends) = (self.nonce, self.first.clone(), self.ends.clone());
        let request = self.request().await;
        tokio::spawn(async move {
            let sent = clock::moment();
            let result = match request {
                Ok(request) => duties::to_its_end(link::sync(&node, coordinator.as_ref(), &request, &mut first)).await,
                Err(error) => Err(error),
            };
            // The receiver lives as long as the supervisor.
            let _ = ends.send(End::Synced { nonce, sent, first, result: result.map(Box::new) }).await;
        });
    }

    async fn request(&self) -> Result<SyncRequest, String> {
        let agent = &self.parts.agent;
        let (armed, told) = self.guarded.armed();
        let reports = self.reports().await?;
        // Ages are of when this goes out: a hypervisor that takes its time over the inventory makes nothing younger.
        let now = clock::moment();
        let (sights, sights_told) = self.parts.sights.report(now, self.sights_known);
        Ok(SyncRequest {
            host: self.parts.node.host().clone(),
            facts: self.parts.facts.clone(),
            nonce: self.nonce,
            seen: self.told.seen,
            floors_known: self.told.floors_known,
            reports,
            results: agent.results(now, |order| self.asked_at.get(&order).copied()),
            sights,
            unwell: self.parts.node.health.unwell(now),
            // A view that the guard has not been told of is not known yet: what is armed may change by it.
            known_view: agent.view().min(told),
            armed,
            has_watchdog: Some(self.parts.node.file.watchdog.is_some()),
            level: FeatureLevel::HIGHEST,
            gossip_keys: self.parts.node.sender.key_ids(),
            timing: Some(TimingTold::of(&self.parts.node.file.timing)),
            certificate_ends: Some(self.parts.node.certificate_ends),
            sights_told: Some(sights_told),
            has_view: Some(self.parts.node.view.borrow().mark.unwrap_or_default()),
        })
    }

    /// What runs here. An inventory that cannot be taken is not an empty one: no sync goes out then (S5).
    async fn reports(&self) -> Result<Vec<GuestReport>, String> {
        match &self.parts.node.driver {
            Some(driver) => {
                let mut reports =
                    driver.inventory().await.map_err(|error| format!("what runs here cannot be known: {error}"))?;
                self.guarded.explain(&mut reports);
                Ok(reports)
            }
            None => Ok(Vec::new()),
        }
    }

    async fn take(&mut self, end: End) {
        match end {
            End::Synced { nonce, sent, first, result } => {
                self.syncing = self.syncing.saturating_sub(1);
                self.first = first;
                match result {
                    Ok(reply) => self.synced(*reply, nonce, sent).await,
                    Err(error) => self.not_synced(&error),
                }
            }
            End::Carried { order, carried } => {
                tracing::info!(%order, outcome = ?carried.outcome, "an order has ended");
                let reading = carried.reading.map(|(reading, asked)| {
                    self.asked_at.insert(order, asked);
                    reading
                });
                let actions = self.parts.agent.on_done(order, carried.outcome, reading);
                self.act(actions).await;
            }
            End::Written(result) => self.written(result),
            End::Viewed(made) => self.learned(made).await,
            End::Stopped { guest } => {
                self.stopping.remove(&guest);
            }
        }
    }

    fn not_synced(&mut self, error: &str) {
        self.failures = self.failures.saturating_add(1);
        self.words.note_trouble(Some(error));
        self.first = None;
        if self.failures <= FAILURES_TOLD || self.failures.is_multiple_of(TOLD_AGAIN_EVERY) {
            tracing::warn!(error, failures = self.failures, "no coordinator could be reached");
        }
    }

    async fn synced(&mut self, mut reply: SyncReply, nonce: u64, sent: Moment) {
        if self.failures > FAILURES_TOLD {
            tracing::info!(failures = self.failures, "a coordinator answers again");
        }
        self.failures = 0;
        let (why, sights_known, news) = (reply.why_no_lease.clone(), reply.sights_known, reply.news.take());
        let in_doubt = std::mem::take(&mut reply.in_doubt);
        let ordered = reply.orders.iter().filter_map(|order| Some(order.kind.guest()?.0.clone())).collect();
        self.words.note_trouble(why.as_deref());
        match self.parts.agent.on_reply(reply, nonce, sent, clock::moment()) {
            Ok(actions) => {
                self.parts.node.health.note_answered(clock::moment());
                self.parts.node.withdrawn.set(self.parts.agent.withdrawn());
                // Before the next sync tells that it is known.
                self.parts.node.released.outrank(self.parts.agent.disk().authority.generation);
                // A coordinator that lacks what its predecessor knew is told at once.
                self.again |= sights_known < self.sights_known;
                self.sights_known = sights_known;
                if let Some(driver) = &self.parts.node.driver {
                    driver.look_for_frozen(&in_doubt);
                }
                self.act(actions).await;
                self.forget_undeclared(ordered).await;
                if let Some(news) = news {
                    self.learn(news);
                }
            }
            Err(stale) => tracing::warn!(%stale, "a reply was not used"),
        }
        if let Some(why) = why {
            tracing::debug!(why, "no lease");
        }
        let agent = &self.parts.agent;
        let open: Vec<OrderId> = agent.results(clock::moment(), |_| None).iter().map(|result| result.order).collect();
        self.asked_at.retain(|order, _| open.contains(order));
    }
}
