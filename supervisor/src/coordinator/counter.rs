//! Where people and other supervisors ask: what only the coordinator knows is forwarded to it.

use std::{collections::BTreeSet, ffi::OsStr, sync::Arc, time::Duration};

use holdfast_policies::{names::HostName, operators::OperatorCertificate};
use holdfast_probes::aside::Aside;

use super::{
    Coordinator,
    patience::{TRY_FOR, in_turn, may_repeat, no_quorum, try_for},
    voters::VoterWish,
};
use crate::{
    clock,
    desk::{Answer, Denied, Desk, Request, VoterList, Voucher, parse, read_answer},
    health::Complaint,
    locks::{Keeper, survey},
    node::Node,
    rpc::Channel,
};

/// How long an operator's request may take, commit included; less than the API waits, so that its answer is seen.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long one voter is waited for when a member asks them in turn.
const FORWARD_DEADLINE: Duration = Duration::from_secs(3);

/// How long gossip is waited for, which answers from memory.
const GOSSIP_MAX: Duration = Duration::from_millis(50);

/// Policies that are read at once before their locks are tried. Those of thousands of guests take parts of a second of a processor, and
/// one of the threads on which the log is written; whoever may ask may ask for it as often as they like.
static READING: Aside = Aside::new(2, 2);

/// Where people ask, on every supervisor; what only the coordinator knows is forwarded to it.
pub struct Counter {
    node: Arc<Node>,
    coordinator: Option<Coordinator>,
    keeper: Keeper,
}

impl Counter {
    /// The counter of a host; only voters have a coordinator.
    #[must_use]
    pub fn new(node: Arc<Node>, coordinator: Option<Coordinator>) -> Self {
        Self { node, coordinator, keeper: Keeper::default() }
    }

    /// What tries locks of disk images for coordinators.
    #[must_use]
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Serves an operator who has come with their own certificate. It is not forwarded: that would be this host's word.
    ///
    /// # Errors
    /// [`Denied`]; [`Denied::Elsewhere`] when another host coordinates.
    pub async fn serve_operator(&self, request: Request, operator: OperatorCertificate) -> Result<Answer, Denied> {
        let none = |why: String| Err(Denied::NoLeader(why));
        match self.node.leader() {
            Some(leader) if leader == *self.node.host() => self.serve_here(request, &Voucher::Operator(operator)).await,
            Some(host) => match self.node.address(&host) {
                Some(address) => Err(Denied::Elsewhere { host, address }),
                None => none(format!("{host} coordinates, and its address is not known")),
            },
            None => none(format!("{} does not know who coordinates", self.node.host())),
        }
    }

    /// Serves a request on this host, without forwarding it.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn serve_here(&self, request: Request, voucher: &Voucher) -> Result<Answer, Denied> {
        let Some(coordinator) = &self.coordinator else {
            return Err(Denied::NoLeader("this host has no vote".to_owned()));
        };
        if let Some(why) = self.node.health.complaint(Complaint::Vote).filter(|_| self.node.taking_part().is_none()) {
            return Err(Denied::NoLeader(format!("{} does not decide: {why}", self.node.host())));
        }
        let request = voucher.sign(request)?;
        self.permit(&request, voucher)?;
        let request = match for_voters(request) {
            Ok((wish, by)) => {
                let answered = tokio::time::timeout(DEADLINE, coordinator.voters(wish, &by, voucher)).await;
                return answered
                    .unwrap_or_else(|_| Err(Denied::NoLeader("no majority confirmed it in time".to_owned())));
            }
            Err(other) => other,
        };
        if let Request::TestFence { host, from } = request {
            let tested = tokio::time::timeout(DEADLINE, coordinator.test_fence(host, from)).await;
            return tested.unwrap_or_else(|_| {
                let why = "the power devices take longer than is waited here; `holdfast status` shows what they say";
                Err(Denied::NoLeader(why.to_owned()))
            });
        }
        self.survey(&request).await?;
        let asked = coordinator.inbox.ask(request, voucher.clone());
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(Denied::NoLeader("the coordinator did not answer in time".to_owned())),
        }
    }

    /// Nothing is begun for whoever is not permitted to order it, as far as this host knows while it leads. With authority the
    /// coordinator's task asks again.
    fn permit(&self, request: &Request, voucher: &Voucher) -> Result<(), Denied> {
        if self.node.leader().as_ref() != Some(self.node.host()) {
            return Ok(());
        }
        let permitted = self.node.read(|state| voucher.permit(&state.policies.cluster, request.is_order()));
        permitted.inspect_err(|denied| {
            tracing::warn!(%voucher, %denied, "a request was refused for who vouches for it");
            self.node.metrics.rpc_refused("voucher", 1);
        })
    }

    /// Locks are tried before policies reach the coordinator's task, which decides for others meanwhile (R28). Mistakes in
    /// the files are that task's to tell.
    async fn survey(&self, request: &Request) -> Result<(), Denied> {
        let Request::Apply { sources, .. } = request else { return Ok(()) };
        if self.node.leader().as_ref() != Some(self.node.host()) {
            return Ok(());
        }
        let sources = sources.clone();
        let read = READING.run(OsStr::new("policies"), move || parse(&sources)).await;
        let Ok(Ok(policies)) = read else { return Ok(()) };
        survey(&self.node, &self.keeper, policies).await.map_err(Denied::Refused)
    }

    /// Asks whoever leads, once.
    async fn attempt(&self, request: &Request) -> Result<Answer, Denied> {
        let me = self.node.host();
        let leader = self.node.leader();
        if leader.as_ref() == Some(me) {
            return self.serve_here(request.clone(), &Voucher::Host(me.clone())).await;
        }
        if let Some(leader) = leader {
            return tokio::select! {
                answered = self.forward(&leader, request) => answered,
                () = self.deposed(&leader), if may_repeat(request) => {
                    Err(Denied::NoLeader(format!("{leader} did not answer before it lost the lead")))
                }
            };
        }
        // A member, or a voter that does not know: the voters are asked in turn.
        in_turn(DEADLINE, self.others().await, |voter| async move { self.forward(&voter, request).await }).await
    }

    /// The other voters. Those of whose supervisors nothing is heard come last: each of them may take all the time that it is given,
    /// and two that are off would leave none for the one that coordinates.
    async fn others(&self) -> Vec<HostName> {
        let (me, silent) = (self.node.host(), self.silent().await);
        let mut voters: Vec<HostName> = self.node.voters().into_keys().filter(|voter| voter != me).collect();
        voters.sort_by_key(|voter| silent.contains(voter));
        voters
    }

    /// The voters whose supervisors gossip does not hold for alive. Beacons do not say it, which come from guards too.
    async fn silent(&self) -> BTreeSet<HostName> {
        let Ok(members) = tokio::time::timeout(GOSSIP_MAX, self.node.gossip.members()).await else {
            return BTreeSet::new();
        };
        let alive = |voter: &HostName| members.get(voter).is_some_and(|member| member.alive);
        let voters = self.node.voters().into_keys();
        voters.filter(|voter| voter != self.node.host() && !alive(voter)).collect()
    }

    /// That nobody can coordinate is something else than that one request was not answered: whoever asks at night has to see which
    /// voters are missing.
    async fn without_quorum(&self, denied: Denied) -> Denied {
        let answered = self.node.health.answered_within(clock::moment(), self.node.file.timing.lease.0);
        match denied {
            Denied::NoLeader(why) if !answered => {
                let (voters, silent) = (self.node.voters().len(), self.silent().await);
                Denied::NoLeader(no_quorum(self.node.host(), voters, &silent, &why))
            }
            other => other,
        }
    }

    /// Asks whoever leads, or will in a moment.
    async fn patiently(&self, request: &Request) -> Result<Answer, Denied> {
        if may_repeat(request) {
            return try_for(TRY_FOR, || self.attempt(request)).await;
        }
        // Not before somebody leads; then once.
        let known = try_for(TRY_FOR, || self.attempt(&Request::Status)).await;
        match known {
            Err(denied @ Denied::NoLeader(_)) => Err(denied),
            Ok(_) | Err(_) => self.attempt(request).await,
        }
    }

    /// Waits until this voter knows that `leader` leads no more: a dead one answers nothing.
    async fn deposed(&self, leader: &HostName) {
        let Some(consensus) = &self.node.consensus else { return std::future::pending().await };
        let mut leadership = consensus.leadership();
        let other = leadership.wait_for(|known| known.leader.as_ref().is_none_or(|(_, host)| host != leader));
        // Consensus that has stopped answers nothing either.
        let _ = other.await;
    }

    /// Who takes part in the agreement, by the word of whichever other voter coordinates; the one that is thought to lead
    /// is asked first.
    pub async fn roll_call(&self) -> Option<VoterList> {
        let (leader, mut voters) = (self.node.leader(), self.others().await);
        voters.sort_by_key(|voter| leader.as_ref() != Some(voter));
        for voter in voters {
            if let Ok(Answer::Voters(list)) = self.forward(&voter, &Request::Voters).await {
                return Some(list);
            }
        }
        None
    }

    async fn forward(&self, to: &HostName, request: &Request) -> Result<Answer, Denied> {
        let unreachable = |error: String| Denied::NoLeader(format!("{to} could not be asked: {error}"));
        let address = self.node.address(to).ok_or_else(|| unreachable("its address is not known".to_owned()))?;
        let body = serde_json::to_vec(request).map_err(|error| unreachable(error.to_string()))?;
        // Devices take their time, and policies are surveyed before they are decided about.
        let slow = matches!(request, Request::TestFence { .. } | Request::Apply { .. });
        let deadline = if slow { DEADLINE } else { FORWARD_DEADLINE };
        let called = self.node.rpc.call(to, address, Channel::Client, body, deadline).await;
        let body = called.map_err(|error| unreachable(error.to_string()))?;
        read_answer(&body).map_err(unreachable)?
    }
}

/// What a request wants of the voters, and who says so; or the request itself.
fn for_voters(request: Request) -> Result<(VoterWish, String), Request> {
    match request {
        Request::Voters => Ok((VoterWish::List, String::new())),
        Request::AddVoter { host, by } => Ok((VoterWish::Add(host), by)),
        Request::PromoteVoter { host, by } => Ok((VoterWish::Promote(host), by)),
        Request::RemoveVoter { host, force, by } => Ok((VoterWish::Remove { host, force }, by)),
        other @ (Request::Status
        | Request::Explain { .. }
        | Request::Simulate(_)
        | Request::Journal { .. }
        | Request::Policies
        | Request::Apply { .. }
        | Request::Migrate { .. }
        | Request::Drain { .. }
        | Request::Maintain { .. }
        | Request::Leave { .. }
        | Request::Want { .. }
        | Request::Suspend { .. }
        | Request::Resume { .. }
        | Request::ConfirmOff { .. }
        | Request::LookedAfter { .. }
        | Request::LiftQuarantine { .. }
        | Request::TrustDevice { .. }
        | Request::TestFence { .. }
        | Request::DrillFence { .. }
        | Request::AllowFence { .. }
        | Request::Revoke { .. }
        | Request::Readmit { .. }
        | Request::ReleaseStormHold { .. }) => Err(other),
    }
}

#[async_trait::async_trait]
impl Desk for Counter {
    async fn ask(&self, request: Request) -> Result<Answer, Denied> {
        match self.patiently(&request).await {
            Ok(answer) => Ok(answer),
            Err(denied) => Err(self.without_quorum(denied).await),
        }
    }

    fn metrics(&self) -> String {
        self.node.metrics.set_lease_left(self.node.lease.left());
        self.node.metrics.render()
    }

    fn alive(&self) -> Result<(), String> {
        // Without its vote it works as an agent; who has to know learns that from `ready`.
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        let vote = self.node.health.complaint(Complaint::Vote);
        let stopped = || self.node.consensus.as_ref().and_then(|consensus| consensus.health().err());
        if let Some(why) = vote.or_else(stopped) {
            return Err(why);
        }
        if self.node.lease.left().is_some() { Ok(()) } else { Err("this host has no lease".to_owned()) }
    }
}
