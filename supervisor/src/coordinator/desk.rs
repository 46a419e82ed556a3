//! What operators ask of the coordinator: each request becomes one command, or an answer read from state.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_policies::{
    change::{Applied, Change},
    model::Policies,
    names::{GuestName, HostName},
    proof::Proof,
    state::{Life, Mode, Phase},
    time::millis,
};
use tokio::sync::oneshot;

use super::{Coordinator, Input, brain::Brain};
use crate::{
    clock,
    desk::{Answer, Denied, Desk, Facts, Request, explain, journal, of_refusal, plan, status},
    node::Node,
    rpc::Channel,
};

/// How long an operator's request may take, commit included; less than the API waits, so that its answer is seen.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long one voter is waited for when a member asks them in turn.
const FORWARD_DEADLINE: Duration = Duration::from_secs(3);

impl Brain {
    /// Serves one request. Only the coordinator decides; what others are asked, they forward.
    pub(super) async fn serve(&mut self, request: Request) -> Result<Answer, Denied> {
        if !self.leads() || self.evidence.quorum_since.is_none() {
            return Err(Denied::NoLeader("this supervisor does not coordinate".to_owned()));
        }
        match request {
            Request::Status => Ok(Answer::Status(self.node.read(|state| status(state, &self.report, &self.facts())))),
            Request::Explain { guest } => {
                let explained = self.node.read(|state| explain(state, &self.report, &guest, &self.node.file.timing));
                explained.map(Answer::Explanation).ok_or_else(|| Denied::Unknown(format!("there is no guest {guest}")))
            }
            Request::Journal { last } => Ok(Answer::Journal(self.node.read(|state| journal(state, last)))),
            Request::Apply { sources, by, dry_run } => self.apply(sources, by, dry_run).await,
            Request::Migrate { guest, to, by } => self.migrate(guest, to, &by).await,
            Request::Drain { host, by } => self.set_mode(host, Mode::Draining, by).await,
            Request::Resume { host, by } => self.set_mode(host, Mode::Active, by).await,
            Request::ConfirmOff { host, person } => self.confirm_off(&host, &person).await,
        }
    }

    fn facts(&self) -> Facts {
        let consensus = self.consensus.status();
        let troubles = self.troubles.borrow();
        Facts {
            cluster: self.node.file.cluster.clone(),
            leader: Some(self.node.host().clone()),
            quorum: self.rounds.borrow().is_some(),
            term: consensus.term,
            voters: self.node.voters().into_keys().collect(),
            now: clock::wall(),
            alert_troubles: troubles
                .iter()
                .map(|trouble| format!("{}: {}", trouble.receiver, trouble.detail))
                .collect(),
        }
    }

    async fn done(&mut self, change: Change, what: String) -> Result<Answer, Denied> {
        match self.commit(change).await {
            Ok(Applied { refused: None, .. }) => Ok(Answer::Accepted { what }),
            Ok(Applied { refused: Some(refused), .. }) => of_refusal(refused),
            Err(error) => Err(Denied::NoLeader(error)),
        }
    }

    async fn apply(&mut self, sources: BTreeMap<String, String>, by: String, dry_run: bool) -> Result<Answer, Denied> {
        let (planned, base_version) = self.node.read(|state| (plan(&state.policies, &sources), state.policy_version));
        let (policies, changes) = planned?;
        self.check_against_cluster(&policies)?;
        if dry_run {
            return Ok(Answer::Applied { version: base_version, changes, dry_run });
        }
        let same = self.node.read(|state| state.policies == policies && state.sources == sources);
        if same && base_version > 0 {
            return Ok(Answer::Ignored { why: format!("version {base_version} says so already") });
        }
        let change = Change::PoliciesApplied { policies: Box::new(policies), sources, base_version, by };
        self.done(change, String::new()).await?;
        Ok(Answer::Applied { version: base_version + 1, changes, dry_run })
    }

    /// What cannot be seen in the files alone.
    fn check_against_cluster(&self, policies: &Policies) -> Result<(), Denied> {
        let known: Vec<HostName> = self.node.read(|state| state.hosts.keys().cloned().collect());
        let stranger =
            policies.fencing.keys().find(|host| !known.contains(host) && !self.node.file.voters.contains_key(*host));
        if let Some(host) = stranger {
            let hosts: Vec<&str> = known.iter().map(HostName::as_str).collect();
            let text =
                format!("fencing names the host {host}, which has never joined; the hosts are {}", hosts.join(", "));
            return Err(Denied::Refused(text));
        }
        let busy = self.node.read(|state| {
            let removed = state.guests.iter().filter(|(name, _)| !policies.guests.contains_key(*name));
            let unsettled =
                |phase: &Phase| !matches!(phase, Phase::Unplaced | Phase::Free { .. } | Phase::Running { .. });
            removed.filter(|(_, guest)| unsettled(&guest.phase)).map(|(name, _)| name.to_string()).next()
        });
        match busy {
            Some(guest) => {
                Err(Denied::Refused(format!("{guest} is being started, stopped or moved; remove it when that is over")))
            }
            None => Ok(()),
        }
    }

    async fn migrate(&mut self, guest: GuestName, to: Option<HostName>, by: &str) -> Result<Answer, Denied> {
        let home =
            self.node.read(|state| state.guests.get(&guest).map(|known| known.home().map(|home| home.host.clone())));
        let home = home.ok_or_else(|| Denied::Unknown(format!("there is no guest {guest}")))?;
        let to = match to {
            Some(to) => to,
            None => self
                .roomiest(home.as_ref())
                .ok_or_else(|| Denied::Refused(format!("no other host can take {guest}")))?,
        };
        let what = format!("{guest} moves to {to}");
        self.done(Change::Migrate { guest, to, why: format!("{by} asked for it") }, what).await
    }

    /// The well host with most room; the agent and the plan check again.
    fn roomiest(&self, but: Option<&HostName>) -> Option<HostName> {
        self.node.read(|state| {
            let well = |name: &HostName| {
                use holdfast_policies::decide::HostVerdict::Healthy;
                self.report.hosts.get(name).is_some_and(|judgement| judgement.verdict == Healthy)
            };
            let hosts = state.hosts.iter().filter(|(name, host)| {
                Some(*name) != but
                    && host.facts.guests
                    && host.mode == Mode::Active
                    && host.life == Life::Up
                    && well(name)
            });
            hosts
                .max_by_key(|(name, host)| {
                    let used: u64 = state
                        .guests_of(name)
                        .filter_map(|(guest, _)| state.policies.guests.get(guest))
                        .map(|declared| u64::from(declared.qemu.memory_mib))
                        .sum();
                    host.facts.memory_mib.saturating_sub(used)
                })
                .map(|(name, _)| name.clone())
        })
    }

    async fn set_mode(&mut self, host: HostName, mode: Mode, by: String) -> Result<Answer, Denied> {
        let what = match mode {
            Mode::Draining => format!("{host} is being drained"),
            Mode::Active => format!("{host} takes guests again"),
        };
        self.done(Change::ModeSet { host, mode, by }, what).await
    }

    async fn confirm_off(&mut self, host: &HostName, person: &str) -> Result<Answer, Denied> {
        let incarnation = self.node.read(|state| state.hosts.get(host).map(|known| known.facts.incarnation.clone()));
        let incarnation = incarnation.ok_or_else(|| Denied::Unknown(format!("there is no host {host}")))?;
        let now = clock::moment();
        let own = self.evidence.last_life(host, &incarnation).map(|at| millis(now.since(at)));
        // The verdict also knows what the other voters have heard; a new coordinator has to listen first (R9).
        let others = self.report.hosts.get(host).map(|judgement| judgement.silent_ms);
        let listened = self.evidence.quorum_since.map(|since| millis(now.since(since)));
        let heard_ago_ms = [own, others, listened].into_iter().flatten().min();
        let fresh_ms = millis(self.node.file.timing.suspect_after.0);
        let proof = Proof::operator(host, &incarnation, person, heard_ago_ms, fresh_ms)
            .map_err(|refused| Denied::Refused(refused.to_string()))?;
        self.done(Change::HostGone { proof, last_well: None }, format!("{host} counts as off, by the word of {person}"))
            .await
    }
}

/// Where people ask, on every supervisor; what only the coordinator knows is forwarded to it.
pub struct Counter {
    node: Arc<Node>,
    coordinator: Option<Coordinator>,
}

impl Counter {
    /// The counter of a host; only voters have a coordinator.
    #[must_use]
    pub fn new(node: Arc<Node>, coordinator: Option<Coordinator>) -> Self {
        Self { node, coordinator }
    }

    /// Serves a request on this host, without forwarding it.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn serve_here(&self, request: Request) -> Result<Answer, Denied> {
        let Some(coordinator) = &self.coordinator else {
            return Err(Denied::NoLeader("this host has no vote".to_owned()));
        };
        let (answer, answered) = oneshot::channel();
        let asked = async {
            coordinator.tell(Input::Desk { request, answer }).await;
            answered.await
        };
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Denied::NoLeader("the coordinator did not answer in time".to_owned())),
        }
    }

    async fn forward(&self, to: &HostName, request: &Request) -> Result<Answer, Denied> {
        let unreachable = |error: String| Denied::NoLeader(format!("{to} could not be asked: {error}"));
        let address = self.node.address(to).ok_or_else(|| unreachable("its address is not known".to_owned()))?;
        let body = serde_json::to_vec(request).map_err(|error| unreachable(error.to_string()))?;
        let called = self.node.rpc.call(to, address, Channel::Client, body, FORWARD_DEADLINE).await;
        let body = called.map_err(|error| unreachable(error.to_string()))?;
        serde_json::from_slice::<Result<Answer, Denied>>(&body).map_err(|error| unreachable(error.to_string()))?
    }
}

#[async_trait::async_trait]
impl Desk for Counter {
    async fn ask(&self, request: Request) -> Result<Answer, Denied> {
        let me = self.node.host();
        let leader = self.node.leader();
        if leader.as_ref() == Some(me) {
            return self.serve_here(request).await;
        }
        if let Some(leader) = leader {
            return self.forward(&leader, &request).await;
        }
        // A member, or a voter that does not know: the voters are asked in turn.
        let mut last = Denied::NoLeader("no voter could be asked".to_owned());
        for voter in self.node.voters().into_keys().filter(|voter| voter != me) {
            match self.forward(&voter, &request).await {
                Err(denied @ Denied::NoLeader(_)) => last = denied,
                answered => return answered,
            }
        }
        Err(last)
    }

    fn metrics(&self) -> String {
        self.node.metrics.set_lease_left(self.node.lease.left());
        self.node.metrics.render()
    }

    fn alive(&self) -> Result<(), String> {
        self.node.consensus.as_ref().map_or(Ok(()), |consensus| consensus.health())
    }

    fn ready(&self) -> Result<(), String> {
        self.alive()?;
        if self.node.lease.left().is_some() { Ok(()) } else { Err("this host has no lease".to_owned()) }
    }
}
