//! From a plan to the log: it is judged, then committed change by change, and whom that concerns is woken.

use std::time::Duration;

use holdfast_policies::{
    change::{Applied, Change, Command, Refused},
    check::Violation,
    model::Severity,
    time::Moment,
};

use super::{brain::Brain, waking};
use crate::{clock, packed::pack};

/// How long a refused change is not proposed again: each proposal is an entry of the log, refused or not.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Refused changes remembered: a few per host that may not join.
const REFUSED_MAX: usize = 64;

/// The incident of a plan that the checker refused.
const PLAN_KEY: &str = "plan";

/// How long no plan must have been refused for that incident to be over: what is refused now and then calls people once.
const REFUSAL_OVER_AFTER: Duration = Duration::from_secs(600);

impl Brain {
    /// A plan that breaks a promise is refused as a whole, and a human is called: nobody knows what else is wrong with it.
    pub(super) fn judged(&mut self, plan: Vec<Change>, broken: &[Violation], now: Moment) -> Vec<Change> {
        let Some(first) = broken.first().filter(|_| !plan.is_empty()) else { return plan };
        self.plan_refused = Some(now);
        let node = &self.node;
        let all: Vec<String> = broken.iter().map(ToString::to_string).collect();
        tracing::error!(?plan, broken = %all.join("; "), "a plan was refused because it breaks a promise");
        let summary = format!("a plan was refused because it breaks the promise {first}");
        let known = node.read(|state| state.open_incident(PLAN_KEY).is_some_and(|open| open.summary == summary));
        if known {
            return Vec::new();
        }
        let human = "This is a defect of Holdfast: keep the coordinator's log and report it. What the plan was to do is not \
                     done; move, restart or fence by hand what needs it.";
        vec![Change::IncidentOpened {
            key: PLAN_KEY.to_owned(),
            severity: Severity::Critical,
            summary,
            human: Some(human.to_owned()),
            guests: Vec::new(),
            evidence: Vec::new(),
        }]
    }

    /// Ends what people were told of plans that were refused, when this coordinator has had none refused for long.
    pub(super) async fn end_refusal(&mut self, now: Moment) {
        let is_over = is_refusal_over(self.evidence.quorum_since, self.plan_refused, now);
        if is_over && self.node.read(|state| state.open_incident(PLAN_KEY).is_some()) {
            self.propose(Change::IncidentResolved { key: PLAN_KEY.to_owned() }).await;
        }
    }

    /// Has a plan committed, change by change, for as long as this host leads in the term in which it was made.
    pub(super) async fn have_committed(&mut self, plan: Vec<Change>, term: u64, now: Moment) {
        let listened = !plan.is_empty() && self.node.has_listened(now);
        for change in plan {
            // Each commit may take seconds, in which another may have led and have heard what is not known here.
            if !self.leads_in(term) {
                break;
            }
            // What a supervisor has not heard that slept, or was cut off, may be its own doing.
            let accuses = matches!(change, Change::FenceOpened { .. } | Change::FenceAttempted { .. });
            if (accuses && !listened) || self.is_refused(&change) {
                continue;
            }
            if !self.propose(change).await {
                break;
            }
        }
    }

    /// Has a change committed and wakes the agents that it concerns. Returns whether it was committed and accepted.
    pub(super) async fn propose(&mut self, what: Change) -> bool {
        match self.commit(what.clone()).await {
            Ok(Applied { refused: None, .. }) => true,
            Ok(Applied { refused: Some(refused), .. }) => {
                tracing::debug!(%refused, "a decision did not fit the state any more");
                if self.refused.len() >= REFUSED_MAX {
                    self.refused.pop_front();
                }
                self.refused.push_back((what, clock::moment()));
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a decision was not committed");
                false
            }
        }
    }

    /// Whether this very change was refused a moment ago.
    pub(super) fn is_refused(&mut self, change: &Change) -> bool {
        let now = clock::moment();
        self.refused.retain(|(_, at)| now.since(*at) < REFUSED_FOR);
        self.refused.iter().any(|(refused, _)| refused == change)
    }

    /// Has a change committed, and says what came of it. After an error it may still be committed.
    pub(super) async fn commit(&mut self, what: Change) -> Result<Applied, String> {
        let (needs, is) = (what.level(), self.node.read(|state| state.level));
        if needs > is {
            // An older voter would halt at it.
            let refused = Refused::Level { needs, is };
            return Ok(Applied { refused: Some(refused), ..Applied::default() });
        }
        tracing::debug!(?what, "proposing");
        let command = Command { at: clock::wall(), what };
        let entry = serde_json::to_vec(&command).map_err(|error| error.to_string())?;
        let entry = pack(entry, is).map_err(|error| error.to_string())?;
        let committed = match self.consensus.propose(entry).await {
            Ok(committed) => committed,
            Err(error) => {
                // Before the next turn much that waits may have to be given up in vain.
                self.give_way(clock::moment());
                return Err(error.to_string());
            }
        };
        self.evidence.marks.applied(committed.index, clock::moment());
        let applied: Applied = serde_json::from_slice(&committed.reply).map_err(|error| error.to_string())?;
        let woken = self.waking.after(applied.clone(), clock::moment());
        waking::wake(&self.node, &woken).await;
        Ok(applied)
    }
}

/// Whether whoever has coordinated since then, and refused a plan last at that time, has refused none for long.
fn is_refusal_over(coordinates_since: Option<Moment>, refused: Option<Moment>, now: Moment) -> bool {
    coordinates_since.is_some_and(|since| now.since(refused.map_or(since, |at| at.max(since))) >= REFUSAL_OVER_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_plan_was_refused_is_over_when_whoever_coordinates_has_refused_none_for_ten_minutes() {
        let is_over = |since: Option<u64>, refused: Option<u64>, now: u64| {
            is_refusal_over(since.map(Moment), refused.map(Moment), Moment(now))
        };
        assert!(!is_over(None, None, 9_000_000), "nobody has confirmed that it leads");
        assert!(!is_over(Some(1_000), None, 600_999) && is_over(Some(1_000), None, 601_000));
        assert!(!is_over(Some(1_000), Some(50_000), 649_999) && is_over(Some(1_000), Some(50_000), 650_000));
        assert!(!is_over(Some(700_000), Some(50_000), 1_299_999), "another one may have refused some between");
        assert!(is_over(Some(700_000), Some(50_000), 1_300_000));
    }
}
