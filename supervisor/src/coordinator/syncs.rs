//! What the coordinator makes of a sync: who may join, what counts as evidence, what is committed of it; and that it halts when
//! an agent has seen more than it knows itself (R3, R11).

use holdfast_policies::{
    change::Change, lease::to_record, model::Severity, names::HostName, sync::SyncRequest, time::Moment,
};

use super::{
    brain::Brain,
    gather,
    replies::{self, STORE},
};
use crate::clock;

impl Brain {
    /// Takes in what a host says: its word as evidence, and what it asks for or reports as changes.
    pub(super) async fn take_sync(&mut self, request: SyncRequest, received: Moment) {
        if !self.leads() {
            return;
        }
        // Without authority a proposal would wait for a quorum; agents say it all again.
        // A round of an earlier term of this host says nothing of this one.
        let confirmed = self.rounds.borrow().is_some_and(|round| Some(round.term) == self.led_term);
        if confirmed && self.is_ahead(&request, received) {
            self.halt(&request.host).await;
        }
        if self.halted() {
            // What it says is heard, and nothing is made of it; it says all of it again.
            self.note_sync(&request, received);
            return;
        }
        let joined =
            self.node.read(|state| state.hosts.get(&request.host).is_some_and(|known| known.facts == request.facts));
        if !joined && confirmed {
            self.join(&request).await;
        }
        if !self.note_sync(&request, received) {
            return;
        }
        if confirmed {
            self.record_armed(&request).await;
        }
        for result in &request.results {
            let own = self.node.read(|state| request.order_given(state, result.order).is_some());
            if own && confirmed {
                let (order, outcome) = (result.order, gather::clean_outcome(&result.outcome));
                let evidence = &self.evidence;
                let outcome = self.node.read(|state| state.with_lock_holders(evidence, order, outcome, received));
                self.propose(Change::OrderEnded { order, outcome }).await;
            }
        }
    }

    /// Has it committed what a host has armed, where that is something else than the record says (R9).
    async fn record_armed(&mut self, request: &SyncRequest) {
        let lease = self.node.file.timing.lease.0;
        let change = self.node.read(|state| to_record(state, request, lease));
        if let Some(change) = change.filter(|change| !self.is_refused(change)) {
            self.propose(change).await;
        }
    }

    /// Takes a sync in as evidence, unless it does not count.
    fn note_sync(&mut self, request: &SyncRequest, received: Moment) -> bool {
        // R11: another boot, or another machine under the same name, does not push aside what the joined one says.
        let current = self.node.read(|state| state.speaks_for(&request.host, &request.facts));
        if !current {
            let evidence = &mut self.evidence;
            self.node.read(|state| gather::unjoined(evidence, state, request, received));
        }
        if !current || !self.is_newest(request) {
            return false;
        }
        let evidence = &mut self.evidence;
        self.node.read(|state| gather::sync(evidence, state, request, received));
        true
    }

    /// Syncs may overtake each other on their way; what an older one says of a host is not true any more.
    fn is_newest(&mut self, request: &SyncRequest) -> bool {
        let newest = self.nonces.entry(request.host.clone()).or_default();
        let newer = newest.0 != request.facts.incarnation.as_str() || newest.1 < request.nonce;
        if newer {
            *newest = (request.facts.incarnation.to_string(), request.nonce);
        }
        newer
    }

    /// Whether an agent has seen more than a confirmed leader has: somebody has restored an old store (R3).
    fn is_ahead(&mut self, request: &SyncRequest, received: Moment) -> bool {
        let Some(round) = *self.rounds.borrow() else { return false };
        let heard = self.later_term.filter(|(term, _)| *term == round.term).map_or(received, |(_, heard)| heard);
        let (ahead, later) = self.node.read(|state| {
            let outlasts = replies::outlasts_a_later_term(state, request.seen, round, heard);
            let ahead = outlasts || replies::is_ahead(state, request.seen, round);
            (ahead, replies::is_of_later_term(state, request.seen, round))
        });
        if later {
            self.later_term = Some((round.term, heard));
        }
        ahead
    }

    /// Whether nothing is decided any more: known to the whole cluster, or to this leader before that is committed.
    pub(super) fn halted(&self) -> bool {
        self.halted || self.node.read(replies::halted)
    }

    /// Halts every decision, of this leader and of those that follow, and calls a human: what is missing from the state
    /// may be a guest's assignment (R3).
    async fn halt(&mut self, host: &HostName) {
        if self.node.read(replies::halted) {
            return;
        }
        self.halted = true;
        tracing::error!(%host, "an agent has seen more than this leader has; nothing is decided any more");
        let human = "An old copy of the store has been restored on a majority of the voters. Nothing is started, moved or fenced, \
                     and hosts get no lease: guests run on, but those of hosts with a `lease` level are stopped. Stop all \
                     supervisors and put the newest stores back; see \"Backup and loss\" in docs/OPERATING.md.";
        self.propose(Change::IncidentOpened {
            key: STORE.to_owned(),
            severity: Severity::Critical,
            summary: format!("{host} has seen decisions that this cluster does not know any more"),
            human: Some(human.to_owned()),
            guests: Vec::new(),
            evidence: Vec::new(),
        })
        .await;
    }

    /// Has a host join, unless it may not.
    async fn join(&mut self, request: &SyncRequest) {
        let (host, facts) = (request.host.clone(), request.facts.clone());
        let now = clock::moment();
        let (node, evidence) = (&self.node, &mut self.evidence);
        let (may, follows) = node.read(|state| {
            let Some(known) = state.hosts.get(&host) else { return (true, None) };
            if !state.may_join(&host, &facts.incarnation, request.seen) {
                return (false, None);
            }
            // What came by datagram since the last turn counts too. Only of this host: many may ask at once.
            gather::datagrams(evidence, node, &host, known, now);
            // R11: two boots that are heard at once are two machines, and none of them answers for the other.
            (evidence.may_follow(&host, known, &facts, now), state.follows(&host))
        });
        let change = Change::HostJoined { host, facts, follows };
        if may && !self.is_refused(&change) {
            self.propose(change).await;
        }
    }
}
