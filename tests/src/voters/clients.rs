//! Whoever uses the voters, as coordinators do: proposes commands of the product where somebody takes itself for the leader,
//! and reads there. A proposal is made once and never repeated, so that it must not be applied twice.

use std::time::Duration;

use holdfast::consensus::EntryBytes;
use holdfast_policies::{
    change::{Change, Command},
    model::Severity,
    time::WallTime,
};
use openraft::{
    AsyncRuntime as _, ReadPolicy,
    errors::{ClientWriteError, RaftError},
};
use openraft_rt_sim::SimRuntime;

use super::{
    breaks::Break,
    ledger::Ledger,
    machine::locked,
    network::{Network, Process},
    plan::Setup,
    types::LogId,
};
use crate::simulator::random::Random;

/// As long as the product waits for a proposal to be committed.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// As long as the product waits for a quorum to confirm the leader.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);
/// From one proposal to the next, and from one read to the next, in milliseconds: from the first to below the second.
const REST_MS: (u64, u64) = (50, 200);
/// Incidents that proposals open, change and resolve.
const KEYS: u64 = 5;

/// Has proposals made and reads begun until the ledger is closed.
pub(super) fn start(network: &Network, ledger: &Ledger, setup: &Setup) {
    let client = Client { network: network.clone(), ledger: ledger.clone(), broken: setup.broken };
    let (proposer, reader) = (client.clone(), client);
    let (proposals, reads) = (setup.chance(2), setup.chance(3));
    SimRuntime::spawn(async move { proposer.keep_proposing(proposals).await });
    SimRuntime::spawn(async move { reader.keep_reading(reads).await });
}

#[derive(Clone)]
struct Client {
    network: Network,
    ledger: Ledger,
    broken: Option<Break>,
}

impl Client {
    async fn keep_proposing(&self, mut chance: Random) {
        while let Some(process) = self.next_leader(&mut chance).await {
            let (client, number) = (self.clone(), self.ledger.new_number());
            // Each waits for itself: many are under way at once.
            SimRuntime::spawn(async move { client.propose(process, number).await });
        }
    }

    async fn keep_reading(&self, mut chance: Random) {
        while let Some(process) = self.next_leader(&mut chance).await {
            let client = self.clone();
            SimRuntime::spawn(async move { client.read(process).await });
        }
    }

    /// Rests, and returns one of those who take themselves for the leader; `None` when the run is about to end.
    async fn next_leader(&self, chance: &mut Random) -> Option<Process> {
        let (shortest, longest) = REST_MS;
        loop {
            SimRuntime::sleep(Duration::from_millis(chance.between(shortest, longest))).await;
            if self.ledger.is_closing() {
                return None;
            }
            let mut leaders = self.network.leaders();
            if !leaders.is_empty() {
                return Some(leaders.swap_remove(chance.index(leaders.len())));
            }
        }
    }

    async fn propose(&self, process: Process, number: u64) {
        let before = self.ledger.newest();
        let Ok(entry) = serde_json::to_vec(&command(number)) else {
            return self.ledger.fail("S10: a command cannot be written down");
        };
        let written = process.voter.client_write(EntryBytes(entry));
        let written = SimRuntime::timeout(PROPOSE_TIMEOUT, written).await;
        if !self.network.runs(process.id, process.boot) {
            return;
        }
        match written {
            Ok(Ok(written)) => self.ledger.acknowledged(number, written.log_id, before),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => self.ledger.turned_away(number),
            // It may be committed, or not, or later.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn read(&self, process: Process) {
        let before = self.ledger.newest();
        let authority = if self.broken == Some(Break::Reads) { believed(&process) } else { confirmed(&process).await };
        let Some(authority) = authority else { return };
        if self.network.runs(process.id, process.boot) {
            let applied = locked(&process.mirror).applied;
            self.ledger.read(process.id, before, Some(authority), applied);
        }
    }
}

/// What a round to a quorum confirms; all that was committed before it is applied then.
async fn confirmed(process: &Process) -> Option<LogId> {
    let read = process.voter.ensure_linearizable(ReadPolicy::ReadIndex);
    let read = SimRuntime::timeout(CONFIRM_TIMEOUT, read).await.ok()?.ok()?;
    Some(*read.log_id())
}

/// What a voter would answer that believes that it leads, and asks nobody.
fn believed(process: &Process) -> Option<LogId> {
    locked(&process.mirror).applied
}

/// A command whose outcome depends on those before it. Its number is the time at which people would read that it was made.
fn command(number: u64) -> Command {
    let key = format!("proposals/{}", number % KEYS);
    let what = match number % 7 {
        0 | 3 => Change::IncidentResolved { key },
        1 => Change::SuspensionSet { suspended: number.is_multiple_of(2), by: format!("proposal {number}") },
        _ => Change::IncidentOpened {
            key,
            severity: Severity::Warning,
            summary: format!("proposal {number}"),
            human: None,
            guests: Vec::new(),
            evidence: Vec::new(),
        },
    };
    Command { at: WallTime(number), what }
}
