//! A voter is exchanged for a new one, as operators have it done: the new one gets the log without a vote, and when it has
//! nearly everything, one joint change gives it the vote of the old one (R24). What was begun and not confirmed is finished.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use holdfast::consensus::Place;
use openraft::{AsyncRuntime as _, async_runtime::WatchReceiver as _};
use openraft_rt_sim::SimRuntime;

use super::{
    ledger::Ledger,
    network::{Network, Process},
};

/// A change that is not confirmed within this is tried again, as in the product.
const CHANGE_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Rest between two steps.
const REST: Duration = Duration::from_millis(150);
/// Entries that the new one may lack when it gets its vote.
const BEHIND_MAX: u64 = 20;

/// An exchange that has begun.
pub(super) struct Exchange {
    pub(super) old: u64,
    pub(super) new: u64,
    done: Arc<AtomicBool>,
}

impl Exchange {
    /// Begins an exchange; whoever is new runs already, with an empty disk, at `place`.
    pub(super) fn begin(network: &Network, ledger: &Ledger, (old, new): (u64, u64), place: Place) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let operators = Operators { network: network.clone(), ledger: ledger.clone(), old, new, place };
        let ended = Arc::clone(&done);
        SimRuntime::spawn(async move {
            operators.carry_out().await;
            ended.store(true, Relaxed);
        });
        Self { old, new, done }
    }

    /// Whether the new one votes and the old one does not.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }
}

/// Who has it done.
struct Operators {
    network: Network,
    ledger: Ledger,
    old: u64,
    new: u64,
    place: Place,
}

/// What is to be done next, by what the leader knows.
enum Step {
    Add,
    Wait,
    HandOver(u64),
    Vote(BTreeSet<u64>),
    Done,
}

impl Operators {
    async fn carry_out(&self) {
        loop {
            SimRuntime::sleep(REST).await;
            let Some(leader) = self.network.leader() else { continue };
            let voter = &leader.voter;
            // What is not confirmed shows in what the leader knows the next time.
            match self.next(&leader) {
                Step::Add => {
                    self.ledger.note(&format!("voter {} is to be added by {}", self.new, leader.id));
                    let added = voter.add_learner(self.new, self.place.clone(), false);
                    let _ = SimRuntime::timeout(CHANGE_TIMEOUT, added).await;
                }
                Step::Wait => {}
                Step::HandOver(to) => {
                    let _ = voter.trigger().transfer_leader(to).await;
                }
                Step::Vote(voters) => {
                    self.ledger.note(&format!("the voters are to be {voters:?}, says {}", leader.id));
                    let changed = voter.change_membership(voters, false);
                    let _ = SimRuntime::timeout(CHANGE_TIMEOUT, changed).await;
                }
                Step::Done => return,
            }
        }
    }

    fn next(&self, leader: &Process) -> Step {
        let metrics = leader.voter.metrics();
        let metrics = metrics.borrow_watched();
        let (effective, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
        if effective.get_joint_config().len() > 1 || committed.get_joint_config().len() > 1 {
            return effective.get_joint_config().last().map_or(Step::Wait, |last| Step::Vote(last.clone()));
        }
        if committed.get_node(&self.new).is_none() {
            return Step::Add;
        }
        let mut voters: BTreeSet<u64> = committed.voter_ids().collect();
        if voters.contains(&self.new) && !voters.contains(&self.old) {
            return Step::Done;
        }
        let has = metrics.replication.as_ref().and_then(|all| all.get(&self.new).cloned().flatten());
        let Some(has) = has else { return Step::Wait };
        if metrics.last_log_index.is_none_or(|last| last.saturating_sub(has.index()) > BEHIND_MAX) {
            return Step::Wait;
        }
        voters.remove(&self.old);
        if leader.id == self.old {
            // Whoever leads is not removed.
            return voters.first().map_or(Step::Wait, |other| Step::HandOver(*other));
        }
        voters.insert(self.new);
        Step::Vote(voters)
    }
}
