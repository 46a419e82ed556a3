//! What lies between the voters: messages are lost, late, out of order and doubled, and directions are cut, all by dice from
//! the seed. Whoever asks hears nothing until its patience ends, unless nobody listens at the other end.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openraft::{
    AsyncRuntime as _, Instant as _, ServerState,
    async_runtime::WatchReceiver as _,
    errors::{NetworkError, RPCError, Unreachable},
};
use openraft_rt_sim::{SimInstant, SimRuntime};
use tokio::sync::oneshot;

use super::{
    ledger::{Ledger, Promise},
    machine::SharedMirror,
    types::{LeaderId, Types, Voter},
};
use crate::simulator::random::Random;

/// Every message takes so many microseconds: from the first to below the second. Bad weather comes on top.
const WAY_MICROS: (u64, u64) = (200, 2_000);

/// What the network does, for all voters together.
#[derive(Debug, Clone, Default)]
pub(super) struct Weather {
    /// Of a hundred messages, and of a hundred answers, so many are lost.
    pub(super) loss: u64,
    /// Of a hundred messages so many come twice.
    pub(super) twice: u64,
    /// The longest delay, in milliseconds.
    pub(super) late_ms: u64,
    /// Directions in which nothing gets through.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Directions in which nothing large gets through.
    pub(super) narrow: BTreeSet<(u64, u64)>,
}

/// What the network has to know of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) kind: Kind,
    /// How long its answer is waited for.
    pub(super) patience: Duration,
    /// Whether it may come twice.
    pub(super) may_double: bool,
}

/// What kind of message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It carries what was decided, or is to be.
    Large,
    /// It does not.
    Small,
    /// It is part of an election; it is small.
    Election,
}

/// A voter's process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) id: u64,
    /// Which process of this voter it is.
    pub(super) boot: u64,
    pub(super) voter: Voter,
    pub(super) mirror: SharedMirror,
}

impl Process {
    /// The leader that it is, if it takes itself for one.
    pub(super) fn leads(&self) -> Option<LeaderId> {
        let metrics = self.voter.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id)
    }
}

/// The network, in everybody's hands.
#[derive(Clone)]
pub(super) struct Network {
    inner: Arc<Mutex<Inner>>,
    ledger: Ledger,
}

struct Inner {
    up: BTreeMap<u64, Process>,
    /// Until when those say nothing who have given way, by voter and process.
    silent: BTreeMap<(u64, u64), SimInstant>,
    weather: Weather,
    chance: Random,
}

/// Nobody listens, or whoever does is about to end.
struct Refused;

impl Network {
    pub(super) fn new(ledger: Ledger, chance: Random) -> Self {
        let inner = Inner { up: BTreeMap::new(), silent: BTreeMap::new(), weather: Weather::default(), chance };
        Self { inner: Arc::new(Mutex::new(inner)), ledger }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    /// From here on until then this process says nothing, and takes no part in elections, as the product's voters that give way.
    pub(super) fn silence(&self, (id, boot): (u64, u64), until: SimInstant) {
        self.inner().silent.insert((id, boot), until);
    }

    fn is_silent(&self, id: u64, boot: u64) -> bool {
        self.inner().silent.get(&(id, boot)).is_some_and(|until| SimInstant::now() < *until)
    }

    /// From here on the process is reached.
    pub(super) fn join(&self, process: Process) {
        self.inner().up.insert(process.id, process);
    }

    /// The process is gone: nobody reaches it, and nobody hears of it any more.
    pub(super) fn leave(&self, id: u64) -> Option<Process> {
        self.inner().up.remove(&id)
    }

    /// Whether this process has not ended.
    pub(super) fn runs(&self, id: u64, boot: u64) -> bool {
        self.inner().up.get(&id).is_some_and(|process| process.boot == boot)
    }

    pub(super) fn process(&self, id: u64) -> Option<Process> {
        self.inner().up.get(&id).cloned()
    }

    /// Everybody who runs, by id.
    pub(super) fn processes(&self) -> Vec<Process> {
        self.inner().up.values().cloned().collect()
    }

    /// Those who take themselves for the leader; the newest comes last.
    pub(super) fn leaders(&self) -> Vec<Process> {
        let all = self.processes().into_iter();
        let mut leaders: Vec<(LeaderId, Process)> =
            all.filter_map(|process| Some((process.leads()?, process))).collect();
        leaders.sort_by_key(|(leader, _)| *leader);
        leaders.into_iter().map(|(_, process)| process).collect()
    }

    /// The newest of those who take themselves for the leader.
    pub(super) fn leader(&self) -> Option<Process> {
        self.leaders().pop()
    }

    /// Has `to` asked by the process `(id, boot)`, and waits for the answer. `act` is what the receiver does; it returns the
    /// answer with what it promises by it.
    pub(super) async fn ask<A, F, Fut>(
        &self,
        (from, boot): (u64, u64),
        to: u64,
        Manner { kind, patience, may_double }: Manner,
        act: F,
    ) -> Result<A, RPCError<Types>>
    where
        A: Send + 'static,
        F: FnOnce(Voter) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<(A, Option<Promise>), String>> + Send + 'static,
    {
        if !self.runs(from, boot) {
            return Err(unreachable("this process has ended"));
        }
        if self.is_silent(from, boot) {
            return Err(unreachable("this voter gives way"));
        }
        let (teller, heard) = oneshot::channel();
        if may_double && self.happens_twice() {
            self.send((from, to), kind, act.clone(), None);
        }
        self.send((from, to), kind, act, Some(teller));
        let answered = async {
            match heard.await {
                Ok(answer) => answer,
                // What was lost on the way tells nobody.
                Err(_) => std::future::pending().await,
            }
        };
        let answered: Result<Result<A, Refused>, _> = SimRuntime::timeout(patience, answered).await;
        if !self.runs(from, boot) {
            return Err(unreachable("this process has ended"));
        }
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Refused)) => Err(unreachable("nobody listens")),
            Err(_) => Err(RPCError::Network(NetworkError::from_string("no answer in time"))),
        }
    }

    fn send<A, F, Fut>(
        &self,
        (from, to): (u64, u64),
        kind: Kind,
        act: F,
        teller: Option<oneshot::Sender<Result<A, Refused>>>,
    ) where
        A: Send + 'static,
        F: FnOnce(Voter) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(A, Option<Promise>), String>> + Send + 'static,
    {
        let Some(there) = self.way(from, to, kind) else { return };
        let network = self.clone();
        SimRuntime::spawn(async move {
            SimRuntime::sleep(there).await;
            let answer = match network.process(to) {
                None => Err(Refused),
                Some(Process { boot, .. }) if kind == Kind::Election && network.is_silent(to, boot) => Err(Refused),
                Some(Process { boot, voter, .. }) => {
                    let done = act(voter).await;
                    if !network.runs(to, boot) {
                        return;
                    }
                    done.map(|(answer, promise)| network.keep(to, answer, promise)).map_err(|_| Refused)
                }
            };
            let (Some(teller), Some(back)) = (teller, network.way(to, from, Kind::Small)) else { return };
            SimRuntime::sleep(back).await;
            // Whoever asked may have given up.
            let _ = teller.send(answer);
        });
    }

    /// Notes what a voter promises by an answer that it is about to give.
    fn keep<A>(&self, voter: u64, answer: A, promise: Option<Promise>) -> A {
        if let Some(promise) = promise {
            self.ledger.promised(voter, promise);
        }
        answer
    }

    /// How long a message is under way; `None` when it gets lost.
    fn way(&self, from: u64, to: u64, kind: Kind) -> Option<Duration> {
        let mut guard = self.inner();
        let Inner { weather, chance, .. } = &mut *guard;
        let too_large = kind == Kind::Large && weather.narrow.contains(&(from, to));
        let lost = chance.below(100) < weather.loss || too_large || weather.cut.contains(&(from, to));
        let (shortest, longest) = WAY_MICROS;
        let micros = chance.between(shortest, longest) + 1_000 * chance.below(weather.late_ms + 1);
        (!lost).then_some(Duration::from_micros(micros))
    }

    fn happens_twice(&self) -> bool {
        let mut guard = self.inner();
        let Inner { weather, chance, .. } = &mut *guard;
        chance.below(100) < weather.twice
    }
}

fn unreachable(why: &str) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(why))
}
