//! The coordinator's task: takes in what comes, decides on all of it, and has the decisions committed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{
    change::Change,
    check::{Violation, check},
    decide::{Decision, HostVerdict, Report, decide, guests_in_doubt},
    evidence::{Evidence, Marks},
    feature_level::{self, FeatureLevel},
    giving_way::GivingWay,
    names::HostName,
    revocation::news_of_keys,
    state::ClusterState,
    time::{Moment, Now},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Input, gather,
    grants::Grants,
    inbox::Beside,
    numbers::Numbers,
    pace::{self, CALM_TICK, TICK},
    paths::Tests,
    replies::{self, Said},
    rounds::Round,
    waking::{self, Waking},
    wishes::Wishes,
};
use crate::{
    alerts::{AlertState, Delivered, Trouble},
    clock,
    consensus::Consensus,
    node::Node,
};

/// Inputs taken in before deciding again.
const INPUTS_PER_TURN: usize = 128;

/// How often numbers are brought up to date.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// How often hosts' last words are listened for while something is amiss: as often as gossip brings news.
const LISTEN_EVERY: Duration = Duration::from_millis(200);

/// How long gossip is waited for: it answers from memory, and nothing is decided meanwhile.
const LISTEN_MAX: Duration = Duration::from_millis(50);

/// What the task owns.
pub(super) struct Brain {
    pub(super) node: Arc<Node>,
    pub(super) consensus: Consensus,
    pub(super) inputs: mpsc::Sender<Input>,
    /// The newest of hosts for whose syncs there was no place among the inputs.
    beside: Beside,
    pub(super) rounds: watch::Receiver<Option<Round>>,
    /// Which fences are still wanted, for those who answer syncs.
    pub(super) said: watch::Sender<Said>,
    pub(super) evidence: Evidence,
    pub(super) wishes: Wishes,
    pub(super) tests: Tests,
    /// What the last round found.
    pub(super) report: Report,
    pub(super) alerts: watch::Sender<Arc<AlertState>>,
    pub(super) troubles: watch::Receiver<Vec<Trouble>>,
    /// The term in which this host leads, if it does.
    pub(super) led_term: Option<u64>,
    /// Whether what it decides as the leader gets to the others; kept from one leadership to the next.
    pub(super) giving_way: GivingWay,
    /// Changes that were refused a moment ago, and when.
    pub(super) refused: VecDeque<(Change, Moment)>,
    /// When a plan was last refused here because it breaks a promise.
    pub(super) plan_refused: Option<Moment>,
    /// Whether this supervisor doubts itself.
    pub(super) doubting: bool,
    /// The newest time that it stood still of which it has made something.
    doubted: Option<Moment>,
    pub(super) numbers: Numbers,
    /// When numbers were last brought up to date; 0 while they are not shown.
    pub(super) exported: Moment,
    /// When gossip was last asked for last words.
    pub(super) listened: Moment,
    /// The newest sync of each host: its boot and nonce.
    pub(super) nonces: BTreeMap<HostName, (String, u64)>,
    /// The state that alerts were last told of: its index, and whether this host led.
    pub(super) published: Option<(u64, bool)>,
    /// An agent is ahead of this leader (R3), whether that is committed or not yet.
    pub(super) halted: bool,
    /// The term in which this host leads, and when it first heard in it of an agent that has seen a later one (R3).
    pub(super) later_term: Option<(u64, Moment)>,
    /// When it was last looked whether the cluster tolerates what it must.
    pub(super) tolerance_asked: Option<Moment>,
    /// What leases were granted.
    pub(super) grants: Grants,
    /// Who is to be woken for what was committed.
    pub(super) waking: Waking,
}

impl Brain {
    /// A brain that has seen nothing yet.
    pub(super) fn new(
        node: Arc<Node>,
        consensus: Consensus,
        (inputs, beside): (mpsc::Sender<Input>, Beside),
        (rounds, said): (watch::Receiver<Option<Round>>, watch::Sender<Said>),
        (alerts, troubles): (watch::Sender<Arc<AlertState>>, watch::Receiver<Vec<Trouble>>),
        grants: Grants,
    ) -> Self {
        let evidence =
            Evidence { me: Some(node.host().clone()), marks: Marks::new(node.started), ..Evidence::default() };
        let numbers = Numbers::on(Arc::clone(&node.metrics));
        Self {
            node,
            consensus,
            inputs,
            beside,
            rounds,
            said,
            evidence,
            wishes: Wishes::default(),
            tests: Tests::default(),
            report: Report::default(),
            alerts,
            troubles,
            led_term: None,
            giving_way: GivingWay::default(),
            refused: VecDeque::new(),
            plan_refused: None,
            doubting: false,
            doubted: None,
            numbers,
            exported: Moment(0),
            listened: Moment(0),
            nonces: BTreeMap::new(),
            published: None,
            halted: false,
            later_term: None,
            tolerance_asked: None,
            grants,
            waking: Waking::default(),
        }
    }

    /// Runs for as long as the supervisor runs.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let (mut applied, mut leadership) = (self.consensus.applied(), self.consensus.leadership());
        let mut rest = TICK;
        loop {
            let (idle_since, mut first) = (clock::moment(), None);
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => first = Some(input),
                    None => return,
                },
                changed = applied.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let index = *applied.borrow_and_update();
                    self.evidence.marks.applied(index, clock::moment());
                }
                changed = leadership.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(rest) => {}
            }
            self.notice_lateness(idle_since, rest);
            if let Some(input) = first {
                self.take(input).await;
            }
            for _ in 0..INPUTS_PER_TURN {
                let Ok(input) = inputs.try_recv() else { break };
                self.take(input).await;
            }
            // It is newer than what still waits of the same hosts; what is overtaken counts no more.
            for (request, received) in self.beside.take() {
                self.take_sync(request, received).await;
            }
            rest = self.turn().await;
        }
    }

    async fn take(&mut self, input: Input) {
        let now = clock::moment();
        match input {
            Input::Sync { request, received, place } => {
                drop(place);
                self.take_sync(*request, received).await;
            }
            Input::Power { host, reading } => gather::power(&mut self.evidence, &host, reading),
            Input::Answer { host, voter, answer, other_boot } => {
                gather::answer(&mut self.evidence, &host, voter, answer, other_boot.as_ref(), now);
            }
            Input::Asked(wish) => self.wishes.done(wish, now),
            Input::Tested(tested) => {
                self.tests.done();
                if let Some(tested) = tested.filter(|_| self.leads()) {
                    let (node, evidence) = (&self.node, &mut self.evidence);
                    node.read(|state| gather::tested(evidence, state, &tested, now));
                    self.propose(tested.change).await;
                }
            }
            Input::Delivered(Delivered { incident, receiver, seq }) => {
                self.propose(Change::Delivered { incident, receiver, seq }).await;
            }
            // Whoever asked was told that there was no answer: what they wanted then must not happen later.
            Input::Desk { answer, .. } if answer.is_closed() => {}
            Input::Desk { request, voucher, answer } => {
                let answered = self.serve(request, &voucher).await;
                // The asker may have gone; what was decided stays decided.
                let _ = answer.send(answered);
            }
        }
    }

    /// It never rests for longer than it meant to, unless this process was suspended or starved. That is noticed here too,
    /// because the task that watches for it may be woken later than this one. That task alone notices it in the middle of a turn,
    /// which may take long for other reasons.
    fn notice_lateness(&mut self, idle_since: Moment, rest: Duration) {
        let now = clock::moment();
        if now.since(idle_since).saturating_sub(rest) >= self.node.file.timing.wonder_after.0 {
            self.node.health.doubt(now);
        }
        let doubted = self.node.health.doubted_at();
        if doubted > self.doubted {
            self.note_held(now);
        }
        self.doubted = doubted;
    }

    /// Syncs have waited for it meanwhile, and say how old they were when they were sent.
    pub(super) fn note_held(&mut self, now: Moment) {
        self.evidence.held_until = Some(now.plus(self.node.file.timing.sync_every.0 * 2));
    }

    pub(super) fn leads(&self) -> bool {
        self.consensus.leadership().borrow().is_me
    }

    pub(super) fn leads_in(&self, term: u64) -> bool {
        let leadership = self.consensus.leadership();
        let leadership = leadership.borrow();
        leadership.is_me && leadership.term == term
    }

    /// One turn: bring the evidence up to date, decide, have it committed, ask what is wondered about. Returns how long to
    /// rest when nothing happens.
    async fn turn(&mut self) -> Duration {
        let (leads, term) = {
            let leadership = self.consensus.leadership();
            let leadership = leadership.borrow();
            (leadership.is_me, leadership.term)
        };
        if !leads {
            self.stand_by();
            return CALM_TICK;
        }
        if self.led_term != Some(term) {
            self.begin_to_lead(term);
        }
        let now = clock::now();
        self.give_way(now.moment);
        let confirmed = self.note_authority(term, now.moment) && !self.consensus.gives_way();
        self.doubt_oneself(now.moment);
        self.listen(now.moment).await;
        let (decision, broken) = self.decide(now);
        self.report = decision.report;
        let sights = Arc::new(replies::sights_known(&self.evidence));
        let in_doubt = self.node.read(|state| guests_in_doubt(state, &self.evidence, now.moment));
        self.said.send_replace(Said { term, go_aheads: decision.go_aheads, sights, in_doubt: Arc::new(in_doubt) });
        // Without authority a proposal would wait for a quorum, and be committed when it fits no more.
        let planned = if confirmed && !self.halted() { decision.commands } else { Vec::new() };
        let commands = self.judged(planned, &broken, now.moment);
        let settled = confirmed && commands.is_empty() && decision.wishes.is_empty();
        self.have_committed(commands, term, now.moment).await;
        if confirmed && !self.halted() {
            self.raise_level(now.moment).await;
            self.tell_of_keys().await;
            self.end_refusal(now.moment).await;
        }
        if let Some(hand_over) = decision.hand_over.filter(|_| confirmed) {
            self.hand_over(hand_over, now.moment).await;
        }
        self.wishes.fulfil(decision.wishes, &self.node, &self.inputs, clock::moment());
        if confirmed && !self.halted() {
            self.tests.fulfil(decision.test, &self.node, &self.inputs, clock::moment());
            self.tell_tolerance(now.moment).await;
        }
        // Raft goes on calling one the leader that is cut off. Another one may have been elected, and have ended what is told here
        // again and again.
        let followed = self.is_followed();
        self.publish(followed);
        self.show(followed);
        let due = self.waking.due(clock::moment());
        waking::wake(&self.node, &due).await;
        let settled = settled && !self.waking.is_owing() && self.node.read(|state| state.orders.is_empty());
        if settled { pace::rest(&self.report, self.node.file.timing.wonder_after.0) } else { TICK }
    }

    fn stand_by(&mut self) {
        if self.led_term.take().is_some() {
            gather::begin_anew(&mut self.evidence);
            self.numbers.clear();
        }
        self.publish(false);
    }

    fn begin_to_lead(&mut self, term: u64) {
        gather::begin_anew(&mut self.evidence);
        self.led_term = Some(term);
        // Hosts have to be heard before it is said what their loss would mean.
        self.tolerance_asked = Some(clock::moment());
        self.halted = false;
    }

    /// Whether a majority has confirmed in this term that this host leads. From the first time on it coordinates.
    fn note_authority(&mut self, term: u64, now: Moment) -> bool {
        let Some(round) = self.rounds.borrow().filter(|round| round.term == term) else { return false };
        // Not by now: one that slept, or waits for the next round in vain, still has the last one.
        self.node.health.note_led(round.began);
        if self.evidence.quorum_since.is_none() {
            tracing::info!(term, "this host coordinates");
            self.evidence.quorum_since = Some(now);
            self.evidence.authority_since = Some(now);
        }
        true
    }

    /// Whether a majority has confirmed within a lease's time that this host coordinates.
    pub(super) fn is_followed(&self) -> bool {
        self.node.health.led_within(clock::moment(), self.node.file.timing.lease.0)
    }

    /// Shows the cluster on the page of metrics, for as long as this host speaks for it.
    fn show(&mut self, followed: bool) {
        let now = clock::moment();
        if !followed && self.exported > Moment(0) {
            self.exported = Moment(0);
            self.numbers.clear();
        }
        if followed && now.since(self.exported) >= EXPORT_EVERY {
            self.exported = now;
            let (numbers, report, evidence) = (&mut self.numbers, &self.report, &self.evidence);
            self.node.read(|state| numbers.export(state, report, evidence));
        }
    }

    /// Has it committed that everybody can do what a higher level brings, as soon as they say so (R26).
    async fn raise_level(&mut self, now: Moment) {
        let fresh = self.node.file.timing.suspect_after.0;
        let raise = self.node.read(|state| feature_level::to_raise(state, &self.evidence, now, fresh));
        if let Some(change) = raise.filter(|change| !self.is_refused(change)) {
            tracing::info!(?change, "all voters can do more than the cluster has agreed on");
            self.propose(change).await;
        }
    }

    /// Tells of gossip keys that revoked hosts know.
    async fn tell_of_keys(&mut self) {
        let news = self.node.read(|state| news_of_keys(state, &self.evidence));
        if let Some(change) = news.filter(|change| !self.is_refused(change)) {
            self.propose(change).await;
        }
    }

    /// What the hosts can do that count for raising the level.
    pub(super) fn abilities(&self, state: &ClusterState) -> BTreeMap<HostName, Option<FeatureLevel>> {
        feature_level::abilities(state, &self.evidence, clock::moment(), self.node.file.timing.suspect_after.0)
    }

    /// Takes in the last words of hosts. Only while one of them is not well, or has said some that may be taken back,
    /// because all that everybody gossips is copied for it.
    async fn listen(&mut self, now: Moment) {
        let is_settled = |verdict: HostVerdict| matches!(verdict, HostVerdict::Healthy | HostVerdict::Gone);
        let amiss = self.report.hosts.values().any(|host| !is_settled(host.verdict));
        let said = self.evidence.hosts.values().any(|host| host.last_words.is_some());
        if !(amiss || said) || now.since(self.listened) < LISTEN_EVERY {
            return;
        }
        self.listened = now;
        let Ok(members) = timeout(LISTEN_MAX, self.node.gossip.members()).await else { return };
        let evidence = &mut self.evidence;
        self.node.read(|state| gather::last_words(evidence, state, &members));
    }

    /// Decides, and has the plan judged by the very state that it was made from: what is applied a moment later makes no plan break a
    /// promise, and where it does not fit any more, applying it refuses it.
    fn decide(&mut self, now: Now) -> (Decision, Vec<Violation>) {
        let (node, evidence, grants) = (&self.node, &mut self.evidence, &self.grants);
        node.read(|state| {
            gather::applied(evidence, state, clock::moment());
            gather::refresh(evidence, node, state, now.moment);
            grants.tell(evidence, state);
            let timing = &node.file.timing;
            let decision = decide(state, evidence, timing, now);
            let broken = check(state, evidence, timing, now.moment, &decision.commands);
            (decision, broken)
        })
    }

    fn publish(&mut self, active: bool) {
        // Copying every incident is not free; nothing has changed where nothing was committed.
        let version = (self.node.read(|state| state.applied), active);
        if self.published == Some(version) {
            return;
        }
        self.published = Some(version);
        let state = self.node.read(|state| AlertState {
            cluster: self.node.file.cluster.clone(),
            receivers: if active { state.policies.alerts.clone() } else { Vec::new() },
            incidents: if active { state.incidents.values().cloned().collect() } else { Vec::new() },
            active,
        });
        self.alerts.send_if_modified(|known| {
            let same = known.active == state.active
                && known.receivers == state.receivers
                && known.incidents == state.incidents;
            if !same {
                *known = Arc::new(state);
            }
            !same
        });
    }
}
