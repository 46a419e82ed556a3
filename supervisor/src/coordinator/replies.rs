//! Replies to syncs, in the authority of a confirmed round (R2, R3).
//!
//! An agent that has seen decisions which a confirmed state does not hold proves that somebody has restored an old store.
//! From then on nobody gets a reply, neither a lease nor an order, and nothing is decided, whoever leads: the alert
//! [`STORE`] is part of the state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_policies::{
    evidence::{Evidence, HostEvidence},
    go_ahead::GoAheads,
    names::{GuestName, HostName},
    state::ClusterState,
    sync::{Authority, SightsMark, SyncReply, SyncRequest},
    time::Moment,
};

use super::rounds::Round;

/// The key of the alert that an old store was restored.
pub const STORE: &str = "store";

/// Whether everything is halted because an old store was restored (R3).
#[must_use]
pub fn halted(state: &ClusterState) -> bool {
    state.open_incident(STORE).is_some()
}

/// Whether somebody has seen decisions that a confirmed leader does not know (R3). They may have a higher index than all
/// that it has; or one that this term has written over since, because what stood there was of an earlier term.
#[must_use]
pub fn is_ahead(state: &ClusterState, seen: Authority, round: Round) -> bool {
    let beyond = (seen.generation, seen.index) > (state.generation, state.applied);
    let written_over = seen.generation == state.generation && seen.term < round.term && seen.index >= round.first;
    beyond || written_over
}

/// Whether an agent has seen a later term than the one in which a majority confirms this leader (R3): the voters have forgotten
/// that one. A leader that was deposed and does not know it yet is confirmed no more; so the round has to have begun after such
/// a word was `heard` first.
#[must_use]
pub fn outlasts_a_later_term(state: &ClusterState, seen: Authority, round: Round, heard: Moment) -> bool {
    is_of_later_term(state, seen, round) && round.began > heard
}

/// Whether an agent has seen a later term than a leader's own.
#[must_use]
pub fn is_of_later_term(state: &ClusterState, seen: Authority, round: Round) -> bool {
    seen.generation == state.generation && seen.term > round.term
}

/// Builds the reply to one request. Its lease is counted from the start of the round: what was true then is all that a
/// majority has confirmed (R2).
#[must_use]
pub fn reply(
    state: &ClusterState,
    request: &SyncRequest,
    round: Round,
    lease: Duration,
    now: Moment,
    said: &Said,
) -> SyncReply {
    let left = lease.saturating_sub(now.since(round.began));
    let reply = holdfast_policies::reply::reply(state, request, round.term, left, said.in_term(round.term));
    let in_doubt = said.in_doubt_on(round.term, &request.host);
    SyncReply { sights_known: said.sights_of(round.term, &request.host), in_doubt, ..reply }
}

/// What the newest round of deciding in a term says to those who answer syncs.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The term.
    pub term: u64,
    /// Which fences are still wanted (R20).
    pub go_aheads: GoAheads,
    /// How far it is known what each host sees; without those that have to tell everything.
    pub sights: Arc<BTreeMap<HostName, SightsMark>>,
    /// Of which guests of each host a service begins to fail.
    pub in_doubt: Arc<BTreeMap<HostName, BTreeSet<GuestName>>>,
}

/// How far it is known what each host sees.
#[must_use]
pub fn sights_known(evidence: &Evidence) -> BTreeMap<HostName, SightsMark> {
    let known = |(name, host): (&HostName, &HostEvidence)| Some((name.clone(), host.sights_known?));
    evidence.hosts.iter().filter_map(known).collect()
}

/// Nothing is given before the first round of a term.
static NOTHING: GoAheads = GoAheads::nothing();

impl Said {
    fn in_term(&self, term: u64) -> &GoAheads {
        if self.term == term { &self.go_aheads } else { &NOTHING }
    }

    fn sights_of(&self, term: u64, host: &HostName) -> Option<SightsMark> {
        self.sights.get(host).copied().filter(|_| self.term == term)
    }

    fn in_doubt_on(&self, term: u64, host: &HostName) -> BTreeSet<GuestName> {
        self.in_doubt.get(host).filter(|_| self.term == term).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(applied: u64) -> ClusterState {
        ClusterState { applied, ..ClusterState::born() }
    }

    fn round(term: u64, first: u64) -> Round {
        Round { began: Moment(0), term, index: first, first }
    }

    fn seen(term: u64, index: u64) -> Authority {
        Authority { generation: 1, term, index }
    }

    #[test]
    fn a_host_is_told_which_of_its_own_guests_begin_to_fail_and_only_in_the_term_in_which_that_was_found() {
        let (host, guest) = (HostName::new("h1").unwrap(), GuestName::new("web-1").unwrap());
        let own = BTreeSet::from([guest]);
        let in_doubt = Arc::new(BTreeMap::from([(host.clone(), own.clone())]));
        let said = Said { term: 4, in_doubt, ..Said::default() };
        assert_eq!(said.in_doubt_on(4, &host), own);
        assert!(said.in_doubt_on(5, &host).is_empty());
        assert!(said.in_doubt_on(4, &HostName::new("h2").unwrap()).is_empty());
    }

    #[test]
    fn an_agent_that_has_seen_more_than_a_confirmed_leader_is_ahead_of_it() {
        assert!(is_ahead(&state(50), seen(3, 51), round(4, 50)));
        assert!(is_ahead(&state(50), seen(4, 51), round(4, 50)), "in the same term too");
        assert!(is_ahead(&state(50), Authority { generation: 2, ..seen(1, 1) }, round(4, 50)));
    }

    #[test]
    fn an_agent_is_ahead_although_the_restored_log_has_grown_past_what_it_has_seen() {
        // It saw entry 50 in term 3. The leader's own entry 50 is of term 4, so that of term 3 is lost.
        for applied in [50, 51, 900] {
            assert!(is_ahead(&state(applied), seen(3, 50), round(4, 50)));
            assert!(is_ahead(&state(applied), seen(3, 52), round(4, 50)));
        }
    }

    #[test]
    fn a_leader_that_is_confirmed_after_a_later_term_was_heard_of_has_old_stores_behind_it() {
        let (began, later) = (Moment(1_000), seen(5, 17));
        let round = Round { began, ..round(4, 20) };
        assert!(!is_ahead(&state(22), later, round), "its index says nothing");
        assert!(outlasts_a_later_term(&state(22), later, round, Moment(999)));
        assert!(!outlasts_a_later_term(&state(22), later, round, began), "it may have been deposed since");
        assert!(!outlasts_a_later_term(&state(22), seen(4, 17), round, Moment(0)));
        let forced = ClusterState { generation: 2, ..state(22) };
        assert!(
            !outlasts_a_later_term(&forced, later, round, Moment(0)),
            "a generation that was forced has counted anew"
        );
    }

    #[test]
    fn an_agent_that_has_seen_what_the_leader_has_or_less_is_not_ahead() {
        for seen in [seen(3, 49), seen(4, 50), seen(4, 900), Authority::default()] {
            assert!(!is_ahead(&state(900), seen, round(4, 50)), "{seen:?}");
        }
        // A generation that was forced has counted anew.
        let forced = ClusterState { generation: 2, ..state(10) };
        assert!(!is_ahead(&forced, seen(9, 5_000), round(1, 1)));
    }
}
