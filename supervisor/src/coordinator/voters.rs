//! Who votes: shown and changed on the coordinator, apart from its task, which must not wait for a joint change (R24).

use std::sync::Arc;

use holdfast_policies::{names::HostName, state::Life};
use tokio::sync::Mutex;

use super::{AUTHORITY_PATIENCE, Coordinator, rounds};
use crate::{
    consensus::{Consensus, MembershipError, Place, Roster},
    desk::{Answer, Denied, Step, Unfit, VoterList, Voucher, voters_warning},
};

/// One change of the membership at a time; openraft refuses a second one, in words that help nobody.
#[derive(Debug, Clone, Default)]
pub(super) struct OneChange(Arc<Mutex<()>>);

/// What an operator wants of the voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VoterWish {
    /// To see them.
    List,
    /// A host is to get the log under a new id.
    Add(HostName),
    /// A host that has the log is to vote.
    Promote(HostName),
    /// A host is to vote no more.
    Remove {
        /// Which.
        host: HostName,
        /// Even when few are left.
        force: bool,
    },
}

impl Coordinator {
    /// Shows or changes the voters, if this host has authority and the voucher counts.
    ///
    /// # Errors
    /// [`Denied`]
    pub async fn voters(&self, wish: VoterWish, by: &str, voucher: &Voucher) -> Result<Answer, Denied> {
        let (consensus, roster) = self.roster().await?;
        let order = wish != VoterWish::List;
        self.node.read(|state| voucher.permit(&state.policies.cluster, order))?;
        let VoterWish::List = wish else {
            let Ok(_alone) = self.change.0.try_lock() else { return refused(Unfit::Changing) };
            return self.changed(consensus, &roster, wish, by).await;
        };
        Ok(Answer::Voters(VoterList::of(&roster)))
    }

    /// Finishes a joint change whose coordinator died in the middle: what it leads to was committed with its first half.
    pub async fn finish_change(&self) {
        let Some(consensus) = self.node.taking_part() else { return };
        let Some(roster) = consensus.roster() else { return };
        let Some(voters) = roster.unfinished.clone() else { return };
        let Ok(_alone) = self.change.0.try_lock() else { return };
        match consensus.set_voters(voters.clone(), &roster).await {
            Ok(()) => tracing::warn!(?voters, "finished a change of the voters that another coordinator had begun"),
            Err(error) => tracing::warn!(%error, "a change of the voters is not finished yet"),
        }
    }

    /// The membership, in the authority of a round that is fresh.
    async fn roster(&self) -> Result<(&Consensus, Roster), Denied> {
        let none = || Denied::NoLeader("this supervisor does not coordinate".to_owned());
        let consensus = self.node.taking_part().ok_or_else(none)?;
        rounds::fresh(self.rounds.clone(), AUTHORITY_PATIENCE).await.ok_or_else(none)?;
        Ok((consensus, consensus.roster().ok_or_else(none)?))
    }

    async fn changed(
        &self,
        consensus: &Consensus,
        roster: &Roster,
        wish: VoterWish,
        by: &str,
    ) -> Result<Answer, Denied> {
        let list = VoterList::of(roster);
        let (host, step) = match wish {
            VoterWish::List => return Ok(Answer::Voters(list)),
            VoterWish::Add(host) => (host.clone(), list.add(&host)),
            VoterWish::Promote(host) => (host.clone(), list.promote(&host)),
            VoterWish::Remove { host, force } => (host.clone(), list.remove(&host, force)),
        };
        let step = match step {
            Ok(step) => step,
            Err(unfit) => return refused(unfit),
        };
        let tell = || tracing::warn!(%host, ?step, by, "the voters are changed");
        match &step {
            Step::Add => {
                let (node_id, address) = (roster.next_id, self.joined_address(&host)?);
                tell();
                confirmed(consensus.add_learner(node_id, Place { host: host.clone(), address }, roster).await)?;
                Ok(Answer::Accepted {
                    what: format!(
                        "{host} joins as raft node {node_id} and gets the log; when `holdfast voter list` shows that it \
                         answers, `holdfast voter promote {host}` gives it its vote"
                    ),
                })
            }
            Step::Drop(node_id) => {
                tell();
                confirmed(consensus.remove_learner(*node_id).await)?;
                Ok(Answer::Accepted {
                    what: format!("raft node {node_id} of {host} gets the log no more; it had no vote"),
                })
            }
            Step::Vote(voters) => {
                tell();
                confirmed(consensus.set_voters(voters.clone(), roster).await)?;
                let names: Vec<&str> = list
                    .voters
                    .iter()
                    .filter(|voter| voters.contains(&voter.node_id))
                    .map(|voter| voter.host.as_str())
                    .collect();
                let note = voters_warning(voters.len()).map(|note| format!(". Note: {note}")).unwrap_or_default();
                Ok(Answer::Accepted { what: format!("the voters are {}{note}", names.join(", ")) })
            }
        }
    }

    /// Where a host listens that has joined the cluster.
    fn joined_address(&self, host: &HostName) -> Result<std::net::SocketAddr, Denied> {
        let known =
            self.node.read(|state| state.hosts.get(host).map(|known| (known.facts.address, known.life.clone())));
        match known {
            None => Err(Denied::Unknown(format!("there is no host {host}: it has never joined"))),
            Some((_, Life::Gone { .. })) => Err(Denied::Refused(format!("{host} is gone; switch it on first"))),
            Some((address, Life::Up | Life::Fencing(_))) => Ok(address),
        }
    }
}

fn refused(unfit: Unfit) -> Result<Answer, Denied> {
    let said = unfit.to_string();
    match unfit {
        Unfit::Already(why) => Ok(Answer::Ignored { why }),
        Unfit::NoVoter(_) => Err(Denied::Unknown(said)),
        Unfit::Changing
        | Unfit::Votes { .. }
        | Unfit::NotAdded(_)
        | Unfit::Silent { .. }
        | Unfit::Behind { .. }
        | Unfit::TooMany(_)
        | Unfit::TooFew(_)
        | Unfit::NoMajority { .. }
        | Unfit::Leads(_) => Err(Denied::Refused(said)),
    }
}

fn confirmed(changed: Result<(), MembershipError>) -> Result<(), Denied> {
    changed.map_err(|error| match error {
        MembershipError::Uncommitted | MembershipError::Unconfirmed(_) | MembershipError::Raft(_) => {
            Denied::NoLeader(error.to_string())
        }
        MembershipError::AlreadyInitialised | MembershipError::NotVoter(_) | MembershipError::Overtaken => {
            Denied::Refused(error.to_string())
        }
    })
}
