//! What operators ask of the coordinator: each request becomes one command, or an answer read from state.

use std::{collections::BTreeSet, time::Duration};

use holdfast_policies::{
    change::{Applied, Change, Refused},
    decide::{
        HostVerdict, Report, confirm_off, drill,
        placement::{problem, where_to},
    },
    names::{GuestName, HostName},
    plan::{Circumstances, Question, simulate},
    state::{ClusterState, Guest, Mode, Phase, Wanted},
};

use super::brain::Brain;
use crate::{
    clock,
    desk::{Answer, Denied, Facts, Request, Voucher, explain, journal, no_guest, no_host, of_refusal, status},
};

/// Looks at a guest on a host that a simulation may take: some 50 ms, because nothing is decided meanwhile.
const LOOKS_MAX: u64 = 1_000_000;

/// How long a coordinator has to have led before it says of a voter that it does not answer: a new one has heard nobody yet.
const LISTENED: Duration = Duration::from_secs(5);

impl Brain {
    /// Serves one request. Only the coordinator decides; what others are asked, they forward.
    pub(super) async fn serve(&mut self, request: Request, voucher: &Voucher) -> Result<Answer, Denied> {
        let speaks = self.leads() && may_answer(self.is_followed(), self.node.host(), voucher);
        if !speaks || self.evidence.quorum_since.is_none() {
            return Err(Denied::NoLeader(format!("{} does not coordinate", self.node.host())));
        }
        self.node.read(|state| voucher.permit(&state.policies.cluster, request.is_order()))?;
        match request {
            Request::Status => {
                Ok(Answer::Status(self.node.read(|state| status(state, &self.in_words(state), &self.facts()))))
            }
            Request::Explain { guest } => {
                let timing = &self.node.file.timing;
                let explained = self.node.read(|state| explain(state, &self.in_words(state), &guest, timing));
                explained.map(Answer::Explanation).ok_or_else(|| self.node.read(|state| no_guest(state, &guest)))
            }
            Request::Simulate(question) => self.simulate(&question),
            Request::Journal { last } => Ok(Answer::Journal(self.node.read(|state| journal(state, last)))),
            Request::Policies => Ok(self
                .node
                .read(|state| Answer::Policies { version: state.policy_version, sources: state.sources.clone() })),
            Request::Apply { sources, by, dry_run } => self.apply(sources, by, dry_run, voucher).await,
            Request::Migrate { guest, to, cold, by } => self.migrate(guest, to, cold, by).await,
            Request::Drain { host, by } => self.set_mode(host, Mode::Draining, by).await,
            Request::Maintain { host, by } => self.set_mode(host, Mode::Maintenance, by).await,
            Request::Leave { host, reboot, by } => self.set_mode(host, Mode::Leaving { reboot }, by).await,
            Request::Want { guest, wanted, by } => self.want(guest, wanted, by).await,
            Request::Suspend { suspended, by } => self.suspend(suspended, by).await,
            Request::Resume { host, by } => self.set_mode(host, Mode::Active, by).await,
            Request::ConfirmOff { host, person } => self.confirm_off(&host, &person).await,
            Request::LookedAfter { guest, by } => {
                let what = format!("{guest} is tried anew");
                self.done(Change::LookedAfter { guest, by }, what).await
            }
            Request::LiftQuarantine { host, machine: machine_id, by } => {
                let what = format!("{host} may run guests again, by the word of {by}");
                self.done(Change::QuarantineLifted { host, machine_id, by: Some(by) }, what).await
            }
            Request::TrustDevice { host, by } => {
                let what = format!("the word of the power devices of {host} counts again");
                self.done(Change::DeviceTrusted { host, by }, what).await
            }
            Request::ReleaseStormHold { by } => {
                self.done(Change::StormHoldReleased { by }, "fencing goes on in this storm".to_owned()).await
            }
            Request::DrillFence { host, level, by } => self.drill(host, level, by).await,
            Request::AllowFence { host, by } => {
                let what = format!("the fence of {host} goes on, beyond what an hour has room for");
                self.done(Change::FenceAllowed { host, by }, what).await
            }
            Request::Revoke { host, why, by } => self.revoke(host, why, by).await,
            Request::Readmit { host, serial, by } => {
                let what = format!("{host} may join again, with the certificate {serial} and no other");
                self.done(Change::HostReadmitted { host, serial, by }, what).await
            }
            Request::TestFence { .. } => {
                Err(Denied::Refused("power devices are not asked by the coordinator's task".to_owned()))
            }
            Request::Voters | Request::AddVoter { .. } | Request::PromoteVoter { .. } | Request::RemoveVoter { .. } => {
                Err(Denied::Refused("the voters are not the coordinator's task's".to_owned()))
            }
        }
    }

    /// Plays a loss through on the state as it is. It changes nothing.
    fn simulate(&self, question: &Question) -> Result<Answer, Denied> {
        let voters: BTreeSet<HostName> = self.node.voters().into_keys().collect();
        let away = voters.iter().filter(|voter| self.is_away(voter)).cloned().collect();
        let timing = &self.node.file.timing;
        let played = self.node.read(|state| {
            let stale = self.stale_paths(state);
            let around = Circumstances { voters, away, coordinator: Some(self.node.host().clone()), stale };
            let problem = problem(state, &self.report.hosts);
            simulate(&problem, state, timing, &around, question, LOOKS_MAX)
        });
        played.map(Answer::Simulated).map_err(|bad| Denied::Unknown(bad.to_string()))
    }

    /// Whether the supervisor of another host is known not to be heard.
    fn is_away(&self, host: &HostName) -> bool {
        let judged = self.report.hosts.get(host).filter(|_| host != self.node.host());
        judged.is_some_and(|judgement| match judgement.verdict {
            HostVerdict::Healthy | HostVerdict::Unknown => false,
            HostVerdict::SupervisorDown
            | HostVerdict::Isolated
            | HostVerdict::Suspect
            | HostVerdict::Failed
            | HostVerdict::Gone => true,
        })
    }

    /// What the last round said, for somebody who reads it now.
    fn in_words(&self, state: &ClusterState) -> Report {
        self.report.with_words(state, &self.evidence, &self.node.file.timing, clock::moment())
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
            mute_voters: self.mute_voters(),
            now: clock::wall(),
            abilities: self.node.read(|state| self.abilities(state)),
            alert_troubles: troubles
                .iter()
                .map(|trouble| format!("{}: {}", trouble.receiver, trouble.detail))
                .collect(),
        }
    }

    /// The voters that this host has not heard as such, once it has led for a while.
    fn mute_voters(&self) -> Vec<HostName> {
        let led_for = self.evidence.quorum_since.map(|since| clock::moment().since(since));
        let roster = self.consensus.roster().filter(|_| led_for.is_some_and(|led_for| led_for > LISTENED));
        let nodes = roster.into_iter().flat_map(|roster| roster.nodes.into_values());
        nodes.filter(|node| node.votes && !node.answers).map(|node| node.place.host).collect()
    }

    /// Has an operator's order committed. `what` is what they are told when it is.
    pub(super) async fn done(&mut self, change: Change, what: String) -> Result<Answer, Denied> {
        if self.halted() {
            let why =
                "nothing is decided, because an old copy of the store was restored; `holdfast status` says what to do";
            return Err(Denied::Refused(why.to_owned()));
        }
        match self.commit(change).await {
            Ok(Applied { refused: None, .. }) => Ok(Answer::Accepted { what }),
            Ok(Applied { refused: Some(Refused::NoGuest { guest }), .. }) => {
                Err(self.node.read(|state| no_guest(state, &guest)))
            }
            Ok(Applied { refused: Some(Refused::NoHost { host }), .. }) => {
                Err(self.node.read(|state| no_host(state, &host)))
            }
            Ok(Applied { refused: Some(refused), .. }) => of_refusal(refused),
            Err(error) => Err(Denied::NoLeader(error)),
        }
    }

    async fn migrate(
        &mut self,
        guest: GuestName,
        to: Option<HostName>,
        cold: bool,
        by: String,
    ) -> Result<Answer, Denied> {
        let to = match to {
            Some(to) => to,
            None => self.where_to(&guest, cold)?,
        };
        let how = if cold { " by a stop and a start" } else { "" };
        let what = if self.node.read(|state| is_moving_away_from(state, &guest, &to)) {
            format!("the live move of {guest} is called off: it stays on {to}")
        } else {
            format!("{guest} moves to {to}{how}")
        };
        self.done(Change::MoveAsked { guest, to, cold, by }, what).await
    }

    /// The planner's choice, by all rules.
    fn where_to(&self, guest: &GuestName, cold: bool) -> Result<HostName, Denied> {
        let now = clock::now();
        self.node.read(|state| {
            if !state.guests.contains_key(guest) {
                return Err(no_guest(state, guest));
            }
            where_to(state, &self.evidence, now, &self.report.hosts, guest, cold)
                .map_err(|why| Denied::Refused(format!("no other host can take {guest}: {why}")))
        })
    }

    async fn set_mode(&mut self, host: HostName, mode: Mode, by: String) -> Result<Answer, Denied> {
        let what = match mode {
            Mode::Draining => format!("{host} is being drained"),
            Mode::Active => format!("{host} takes guests again"),
            Mode::Maintenance => format!("{host} is in maintenance: its guests are left as they are"),
            Mode::Leaving { .. } => format!("{host} is about to go down"),
        };
        self.done(Change::ModeSet { host, mode, by }, what).await
    }

    async fn want(&mut self, guest: GuestName, wanted: Wanted, by: String) -> Result<Answer, Denied> {
        if wanted == Wanted::Running {
            self.check_start(&guest)?;
        }
        let what = match wanted {
            Wanted::Running => format!("{guest} is kept running"),
            Wanted::Stopped => format!("{guest} is stopped, and stays so"),
            Wanted::Unmanaged => format!("{guest} is left alone, however it is"),
        };
        self.done(Change::WantedSet { guest, wanted, by }, what).await
    }

    async fn suspend(&mut self, suspended: bool, by: String) -> Result<Answer, Denied> {
        let what = if suspended {
            "deciding is suspended: what is under way is finished, nothing else is begun"
        } else {
            "deciding goes on"
        };
        self.done(Change::SuspensionSet { suspended, by }, what.to_owned()).await
    }

    async fn drill(&mut self, host: HostName, level: usize, by: String) -> Result<Answer, Denied> {
        let level = level.checked_sub(1).ok_or_else(|| Denied::Refused("the first level is 1".to_owned()))?;
        let executor = self.node.read(|state| {
            if !state.hosts.contains_key(&host) {
                return Err(no_host(state, &host));
            }
            drill(state, &self.report, self.node.host(), &host, level).map_err(Denied::Refused)
        })?;
        let what = format!("{executor} switches {host} off and on; `holdfast journal` tells how it ends");
        self.done(Change::DrillBegun { host, executor, level, by }, what).await
    }

    /// Whoever takes part in the agreement leaves that first, and visibly: how many are left to decide is a decision of its own.
    async fn revoke(&mut self, host: HostName, why: String, by: String) -> Result<Answer, Denied> {
        let roster = self
            .consensus
            .roster()
            .ok_or_else(|| Denied::NoLeader("this supervisor does not coordinate".to_owned()))?;
        if roster.nodes.values().any(|node| node.place.host == host) {
            let first = format!("{host} votes, or gets the log: `holdfast voter remove {host}` comes first");
            return Err(Denied::Refused(first));
        }
        let what = format!(
            "{host} is revoked: none of its certificates counts any more. It knows the gossip key, so change that now, see \
             \"Changing the gossip key\" in docs/OPERATING.md"
        );
        // While the key is being changed it may have held another one than this host does.
        let said = self.evidence.hosts.get(&host).map(|seen| seen.gossip_keys.clone()).unwrap_or_default();
        let keys = self.node.sender.key_ids().into_iter().chain(said).collect();
        self.done(Change::HostRevoked { host, why, keys, by }, what).await
    }

    async fn confirm_off(&mut self, host: &HostName, person: &str) -> Result<Answer, Denied> {
        let timing = &self.node.file.timing;
        let proof = self.node.read(|state| {
            let known = state.hosts.get(host).ok_or_else(|| no_host(state, host))?;
            confirm_off(state, &self.evidence, timing, clock::moment(), (host, known), person)
                .map_err(|refused| Denied::Refused(refused.to_string()))
        })?;
        let gone = Change::HostGone { proof, last_well: None, last_words: None };
        self.done(gone, format!("{host} counts as off, by the word of {person}")).await
    }
}

/// Whether one that leads answers whoever asks. One that nobody follows any more tells its own host how it was when it last knew;
/// others, and operators with a certificate, are to go on to where another may lead by now.
fn may_answer(followed: bool, me: &HostName, voucher: &Voucher) -> bool {
    followed || matches!(voucher, Voucher::Host(host) if host == me)
}

/// Whether the guest runs on this host and is being moved away from it.
fn is_moving_away_from(state: &ClusterState, guest: &GuestName, host: &HostName) -> bool {
    let known = state.guests.get(guest).filter(|known| matches!(known.phase, Phase::Migrating(_)));
    known.and_then(Guest::home).is_some_and(|home| home.host == *host)
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{names::OperatorName, operators::OperatorCertificate};

    use super::*;

    #[test]
    fn a_coordinator_that_is_cut_off_keeps_nobody_from_the_next_one() {
        let [me, other] = ["hv-a", "hv-b"].map(|name| HostName::new(name).unwrap());
        let ann = OperatorCertificate { name: OperatorName::new("ann").unwrap(), serial: "5f".parse().unwrap() };
        for (followed, voucher, answers) in [
            (true, Voucher::Host(other.clone()), true),
            (true, Voucher::Operator(ann.clone()), true),
            (false, Voucher::Host(other), false),
            (false, Voucher::Operator(ann), false),
            (false, Voucher::Host(me.clone()), true),
        ] {
            assert_eq!(may_answer(followed, &me, &voucher), answers, "{followed} {voucher}");
        }
    }
}
