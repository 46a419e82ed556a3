//! Authority: read rounds that a majority confirmed (R2). One round every [`EVERY`] serves all agents.

use std::{sync::Arc, time::Duration};

use holdfast_policies::time::Moment;
use tokio::sync::watch;

use crate::{clock, consensus::Consensus};

/// How often a round is started; R2 allows at most 250 ms.
const EVERY: Duration = Duration::from_millis(150);

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
}

/// Starts rounds for as long as this host leads. `None` means that there is no authority.
pub async fn keep(consensus: Consensus, rounds: Arc<watch::Sender<Option<Round>>>) {
    let mut leadership = consensus.leadership();
    loop {
        if leadership.borrow_and_update().is_me {
            let began = clock::moment();
            match consensus.read_index().await {
                Ok(authority) => {
                    let round = Round { began, term: authority.vote.0, index: authority.index };
                    rounds.send_replace(Some(round));
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
