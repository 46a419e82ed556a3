//! Patience with an election: what people ask meanwhile is asked again for a moment, instead of sending them away.

use std::{collections::BTreeSet, future::Future, time::Duration};

use holdfast_policies::names::HostName;
use tokio::time::{Instant, sleep, timeout_at};

use crate::desk::{Answer, Denied, Request};

/// How long a request that nobody could take is tried again: a little longer than an election and the new leader's first
/// read round take. With the longest wait for one answer (8 s) it stays below what the API gives a request (10 s).
pub(super) const TRY_FOR: Duration = Duration::from_millis(1_500);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether a request may be made twice when nobody knows what came of the first time. Those that may say the second time that it
/// is so already; a guest that is being moved would be refused a second move although the first was taken, and a voter that is
/// being changed likewise. A person's word that trust is due again is about what that person has looked at: said twice, it would
/// also cover what has come up in between.
pub(super) fn may_repeat(request: &Request) -> bool {
    match request {
        Request::Status
        | Request::Explain { .. }
        | Request::Simulate(_)
        | Request::Journal { .. }
        | Request::Policies
        | Request::TestFence { .. }
        | Request::Apply { .. }
        | Request::Drain { .. }
        | Request::Maintain { .. }
        | Request::Leave { .. }
        | Request::Want { .. }
        | Request::Suspend { .. }
        | Request::Voters
        | Request::Resume { .. }
        | Request::ConfirmOff { .. }
        | Request::LookedAfter { .. } => true,
        Request::Migrate { .. }
        | Request::AddVoter { .. }
        | Request::PromoteVoter { .. }
        | Request::RemoveVoter { .. }
        | Request::LiftQuarantine { .. }
        | Request::TrustDevice { .. }
        | Request::DrillFence { .. }
        | Request::AllowFence { .. }
        | Request::Revoke { .. }
        | Request::Readmit { .. }
        | Request::ReleaseStormHold { .. } => false,
    }
}

/// Tries until somebody takes the request, or `time` is over; the last try may last longer.
pub(super) async fn try_for<F>(time: Duration, mut attempt: impl FnMut() -> F) -> Result<Answer, Denied>
where
    F: Future<Output = Result<Answer, Denied>>,
{
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(Denied::NoLeader(_)) if began.elapsed() + PAUSE < time => sleep(PAUSE).await,
            answered => return answered,
        }
    }
}

/// Asks one voter after the other until one takes the request, for `time` altogether: two that are off could take more than whoever asks
/// waits, who would then not be told why.
pub(super) async fn in_turn<F>(
    time: Duration,
    voters: Vec<HostName>,
    mut ask: impl FnMut(HostName) -> F,
) -> Result<Answer, Denied>
where
    F: Future<Output = Result<Answer, Denied>>,
{
    let (end, mut said) = (Instant::now() + time, Vec::new());
    for voter in voters {
        match timeout_at(end, ask(voter.clone())).await {
            Ok(Err(Denied::NoLeader(why))) => said.push(why),
            Ok(answered) => return answered,
            Err(_) => {
                said.push(format!("{voter} did not answer in time"));
                break;
            }
        }
    }
    Err(Denied::NoLeader(if said.is_empty() { "no voter could be asked".to_owned() } else { said.join("; ") }))
}

/// What is said to people while no coordinator answers `me`, which knows so many voters and does not hear the supervisors of
/// some of them.
pub(super) fn no_quorum(me: &HostName, voters: usize, silent: &BTreeSet<HostName>, why: &str) -> String {
    let heard = voters.saturating_sub(silent.len());
    let names: Vec<&str> = silent.iter().map(HostName::as_str).collect();
    let missing = if names.is_empty() { String::new() } else { format!(", and not {}", names.join(", ")) };
    format!(
        "NO QUORUM: no coordinator answers {me}, which hears {heard} of {voters} voters{missing}; nothing is decided until one does, \
         and guests that run go on, on a host with a `lease` level for as long as its lease lasts ({why})"
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn whoever_asks_without_a_quorum_is_told_which_voters_are_missing() {
        let [a, b, c] = ["hv-a", "hv-b", "hv-c"].map(|name| HostName::new(name).unwrap());
        let said = no_quorum(&a, 3, &[b, c].into(), "hv-b could not be asked: no answer");
        let begin =
            "NO QUORUM: no coordinator answers hv-a, which hears 1 of 3 voters, and not hv-b, hv-c; nothing is decided";
        assert!(said.starts_with(begin) && said.ends_with("(hv-b could not be asked: no answer)"), "{said}");
        let said = no_quorum(&a, 3, &BTreeSet::new(), "an election");
        assert!(said.contains("which hears 3 of 3 voters; nothing"), "{said}");
    }

    fn accepted() -> Result<Answer, Denied> {
        Ok(Answer::Accepted { what: "done".to_owned() })
    }

    /// Nobody leads for so many tries; then `then`. Returns what was answered, and after how many tries.
    async fn nobody_leads_for(
        tries: u32,
        time: Duration,
        then: Result<Answer, Denied>,
    ) -> (Result<Answer, Denied>, u32) {
        let made = Cell::new(0);
        let attempt = || {
            made.set(made.get() + 1);
            let answer =
                if made.get() <= tries { Err(Denied::NoLeader("an election".to_owned())) } else { then.clone() };
            std::future::ready(answer)
        };
        (try_for(time, attempt).await, made.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_during_an_election_is_taken_by_the_next_leader() {
        assert_eq!(nobody_leads_for(2, TRY_FOR, accepted()).await, (accepted(), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_says_that_nobody_leads() {
        let began = Instant::now();
        let (answer, tries) = nobody_leads_for(u32::MAX, PAUSE * 3, accepted()).await;
        assert!(matches!(answer, Err(Denied::NoLeader(_))), "{answer:?}");
        assert!(tries > 1 && tries <= 3 && began.elapsed() < PAUSE * 3, "{tries} in {:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn voters_that_are_off_take_no_more_time_together_than_whoever_asks_has() {
        let voters = || ["hv-a", "hv-b", "hv-c"].map(|name| HostName::new(name).unwrap()).to_vec();
        let (began, time) = (Instant::now(), TRY_FOR * 2 - PAUSE);
        let said = in_turn(time, voters(), |voter| async move {
            sleep(TRY_FOR).await;
            Err(Denied::NoLeader(format!("{voter} is off")))
        })
        .await;
        assert_eq!(said, Err(Denied::NoLeader("hv-a is off; hv-b did not answer in time".to_owned())));
        assert!(began.elapsed() < TRY_FOR * 2, "{:?}", began.elapsed());
        let said = in_turn(time, voters(), |voter| {
            let coordinates = voter.as_str() == "hv-b";
            std::future::ready(if coordinates { accepted() } else { Err(Denied::NoLeader("no".to_owned())) })
        });
        assert_eq!(said.await, accepted());
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_not_tried_again() {
        let refused = Err(Denied::Refused("no".to_owned()));
        assert_eq!(nobody_leads_for(0, TRY_FOR, refused.clone()).await, (refused, 1));
    }
}
