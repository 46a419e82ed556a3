//! What was sent to whom, and what came of it: when it may be tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_policies::{
    incident::Incident,
    model::Receiver,
    time::{Moment, WallTime, millis},
};

use super::{AlertState, Delivered, Delivery, plan::Due};

/// First wait after a failure.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure, so that a receiver that is back is told within a minute.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Longest wait that a receiver may ask for; a pager that asks for an hour of silence is not obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Wait after a refusal. What is refused may be the alert, and then each try is for nothing; but it may as well be a key that
/// is about to be put right, or a proxy that answers for a receiver that is being restarted, and somebody is to be woken.
const REFUSED_AGAIN: Duration = Duration::from_secs(300);
/// How old an end may be that a new coordinator tells PagerDuty without knowing of a beginning. One that was not told of within so long
/// by the coordinator before waited for a receiver that nobody reached; with older ones elections would tell old stories. By the time of
/// day: a clock that is wrong costs one that is told in vain, or one that is not told, and nothing is decided by it (R1).
const INHERITED_FOR: Duration = Duration::from_secs(600);

/// What this supervisor remembers of its own sends. Lost with the process, which costs a duplicate at worst.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    pub(super) book: BTreeMap<(u64, String), Attempt>,
    /// Incidents that another coordinator may have told of without its successors' knowing; nothing while this one does not coordinate.
    inherited: Option<BTreeSet<u64>>,
}

/// One incident at one receiver.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempt {
    pub(super) in_flight: bool,
    /// Tries in a row that came to nothing.
    pub(super) tries: u32,
    pub(super) next_try: Moment,
    pub(super) detail: String,
    /// The change that was refused, and from when on it is tried again; another change is not held up by it.
    pub(super) rejected: Option<(u64, Moment)>,
    /// The newest accepted change, and when any was last accepted.
    pub(super) accepted: Option<(u64, Moment)>,
    /// A send ended in silence or a server's error: the receiver may have it.
    pub(super) perhaps_taken: bool,
    pub(super) confirm_offered: Option<Moment>,
}

impl Attempts {
    /// Notes, in the first turn as the coordinator, which incidents another one may have told of: the answer to that may have been lost,
    /// or its confirmation, and the other coordinator with it.
    pub fn take_over(&mut self, state: &AlertState, now: WallTime) {
        if !state.active {
            self.inherited = None;
        } else if self.inherited.is_none() {
            let is_recent = |at: WallTime| now.0.saturating_sub(at.0) < millis(INHERITED_FOR);
            let inherited = state.incidents.iter().filter(|incident| incident.resolved.is_none_or(is_recent));
            self.inherited = Some(inherited.map(|incident| incident.id).collect());
        }
    }

    /// Whether somebody else may have told this receiver of the incident, and it does no harm to take that for true.
    pub(super) fn may_be_told_by_another(&self, receiver: &Receiver, incident: &Incident) -> bool {
        let is_inherited = || self.inherited.as_ref().is_some_and(|inherited| inherited.contains(&incident.id));
        match receiver {
            Receiver::Pagerduty { min_severity, .. } => incident.severity >= *min_severity && is_inherited(),
            // The first forgets by itself what it is not told again, and the second would be told of an end that it cannot place.
            Receiver::Alertmanager { .. } | Receiver::Webhook { .. } => false,
        }
    }

    /// Notes that a send was started.
    pub fn started(&mut self, due: &Due) {
        self.entry(due).in_flight = true;
    }

    /// Notes what came of a send.
    pub fn finished(&mut self, due: &Due, delivery: &Delivery, now: Moment) {
        let key = due.receiver.key();
        let attempt = self.entry(due);
        attempt.in_flight = false;
        match delivery {
            Delivery::Accepted => {
                let newest = attempt.accepted.map_or(due.seq, |(seq, _)| seq.max(due.seq));
                *attempt = Attempt { accepted: Some((newest, now)), ..Attempt::default() };
            }
            Delivery::Rejected { detail } if !due.again => {
                attempt.rejected = Some((due.seq, now.plus(REFUSED_AGAIN)));
                attempt.failed(detail, now);
            }
            // What was taken once and is refused on repetition is the receiver's passing mood.
            Delivery::Rejected { detail } => attempt.failed(detail, now.plus(BACK_OFF_MAX)),
            Delivery::Retry { after, detail, perhaps_taken } => {
                attempt.perhaps_taken |= perhaps_taken;
                let wait = back_off(due.incident, &key, attempt.tries);
                let asked = after.unwrap_or_default().min(RETRY_AFTER_MAX);
                attempt.failed(detail, now.plus(wait.max(asked)));
            }
        }
    }

    /// Notes that a confirmation was offered to the lead.
    pub fn confirm_offered(&mut self, delivered: &Delivered, now: Moment) {
        if let Some(attempt) = self.book.get_mut(&(delivered.incident, delivered.receiver.clone())) {
            attempt.confirm_offered = Some(now);
        }
    }

    /// Forgets incidents and receivers that the state does not have, so that the book is never larger than the state.
    pub fn retain(&mut self, state: &AlertState) {
        self.book.retain(|(id, key), attempt| {
            attempt.in_flight
                || (state.incidents.iter().any(|incident| incident.id == *id)
                    && state.receivers.iter().any(|receiver| receiver.key() == *key))
        });
    }

    fn entry(&mut self, due: &Due) -> &mut Attempt {
        self.book.entry((due.incident, due.receiver.key())).or_default()
    }

    pub(super) fn in_flight(&self, key: &str) -> usize {
        self.book.iter().filter(|((_, receiver), attempt)| receiver == key && attempt.in_flight).count()
    }
}

impl Attempt {
    fn failed(&mut self, detail: &str, next_try: Moment) {
        self.tries = self.tries.saturating_add(1);
        self.next_try = next_try;
        detail.clone_into(&mut self.detail);
    }
}

/// 1 s doubling to 60 s, shortened by up to a quarter so that incidents that failed together do not retry together.
fn back_off(incident: u64, receiver: &str, tries_before: u32) -> Duration {
    let doubled = BACK_OFF_FIRST.saturating_mul(2_u32.saturating_pow(tries_before)).min(BACK_OFF_MAX);
    let quarter = (millis(doubled) / 4).max(1);
    doubled.saturating_sub(Duration::from_millis(spread(incident, receiver, tries_before) % quarter))
}

/// FNV-1a: the same for the same incident, receiver and try, and nothing else is asked of it.
fn spread(incident: u64, receiver: &str, tries: u32) -> u64 {
    let bytes = incident.to_le_bytes().into_iter().chain(receiver.bytes()).chain(tries.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
