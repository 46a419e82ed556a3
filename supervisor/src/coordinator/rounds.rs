//! Authority: read rounds that a majority confirmed (R2). Round after round serves all agents.

use std::{sync::Arc, time::Duration};

use holdfast_policies::time::Moment;
use tokio::sync::watch;

use crate::{clock, consensus::Consensus};

/// Rest between two rounds; with the round itself it must stay below the 250 ms that R2 allows.
const EVERY: Duration = Duration::from_millis(200);

/// Oldest round that an answer may rest on. Older ones grant less lease, and may miss what was committed since.
pub const FRESH: Duration = Duration::from_millis(400);

/// One confirmed round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// When it was started, before anybody was asked.
    pub began: Moment,
    /// The leader's term.
    pub term: u64,
    /// The index through which the state was applied.
    pub index: u64,
    /// The index that the first round of this term reached: what stands there and above is of no earlier term.
    pub first: u64,
}

/// Starts rounds for as long as this host leads. `None` means that there is no authority.
pub async fn keep(consensus: Consensus, rounds: Arc<watch::Sender<Option<Round>>>) {
    let mut leadership = consensus.leadership();
    let mut newest: Option<Round> = None;
    loop {
        if leadership.borrow_and_update().is_me {
            let began = clock::moment();
            match consensus.read_index().await {
                Ok(authority) => {
                    let (term, index) = (authority.vote.0, authority.index);
                    let first = newest.filter(|round| round.term == term).map_or(index, |round| round.first);
                    newest = Some(Round { began, term, index, first });
                    rounds.send_replace(newest);
                }
                Err(error) => {
                    tracing::debug!(%error, "a read round was not confirmed");
                    rounds.send_replace(None);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                changed = leadership.changed() => if changed.is_err() { return },
            }
        } else {
            rounds.send_replace(None);
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Waits for a round that is fresh enough.
pub async fn fresh(mut rounds: watch::Receiver<Option<Round>>, patience: Duration) -> Option<Round> {
    let is_fresh = |round: &Option<Round>| round.is_some_and(|round| clock::moment().since(round.began) < FRESH);
    let waited = tokio::time::timeout(patience, rounds.wait_for(is_fresh)).await;
    waited.ok().and_then(Result::ok).and_then(|round| *round)
}
