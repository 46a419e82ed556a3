//! Decides what to send now and when to look again. Pure: state, the book of attempts and the time come in.
//!
//! For each incident and receiver:
//! - a change is sent when it is newer than what the receiver confirmed, and the incident is severe enough or the
//!   receiver was told of it before;
//! - an end is sent only to a receiver that was told of the beginning, or may have been. What another coordinator has told that was not
//!   confirmed is not known: PagerDuty passes over an end without a beginning, so it is told of the newest of those all the same;
//! - Alertmanager is told of an open incident again every minute;
//! - what failed is tried again after 1 s, doubling to 60 s; what was refused, with the next change or after five minutes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use holdfast_policies::{
    incident::Incident,
    model::{Receiver, Severity},
    time::{Moment, WallTime, millis},
};

use super::super::metrics::{Label, ReceiverKind};
use super::{AlertState, Delivered, Delivery, Trouble, kind};

/// Sends under way at once per receiver: hides a slow receiver's latency without flooding it.
pub const IN_FLIGHT_MAX: usize = 4;
/// First wait after a failure.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure, so that a receiver that is back is told within a minute.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// Longest wait that a receiver may ask for; a pager that asks for an hour of silence is not obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Wait after a refusal. What is refused may be the alert, and then each try is for nothing; but it may as well be a key that
/// is about to be put right, or a proxy that answers for a receiver that is being restarted, and somebody is to be woken.
const REFUSED_AGAIN: Duration = Duration::from_secs(300);
/// How often Alertmanager is told that an incident is still open; it forgets after five of these.
const RESEND_EVERY: Duration = Duration::from_secs(60);
/// How long to wait for a confirmation to be committed before it is offered to the lead again.
const CONFIRM_AGAIN: Duration = Duration::from_secs(10);
/// How old an end may be that a new coordinator tells PagerDuty without knowing of a beginning. One that was not told of within so long
/// by the coordinator before waited for a receiver that nobody reached; with older ones elections would tell old stories. By the time of
/// day: a clock that is wrong costs one that is told in vain, or one that is not told, and nothing is decided by it (R1).
const INHERITED_FOR: Duration = Duration::from_secs(600);
/// Undelivered alerts that are shown; more would say nothing new.
const TROUBLE_MAX: usize = 64;

/// One send that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The incident's number.
    pub incident: u64,
    /// Whom to tell.
    pub receiver: Receiver,
    /// The change that is told.
    pub seq: u64,
    /// Whether the receiver has confirmed this change before.
    pub again: bool,
}

/// Why to look again at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A failed send may be tried again.
    Retry,
    /// What was refused may be taken now.
    Refused,
    /// Alertmanager must hear that an incident is still open.
    Resend,
    /// A confirmation has not been committed.
    Confirm,
}

impl fmt::Display for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "a failed send may be tried again",
            Self::Refused => "what was refused may be taken now",
            Self::Resend => "alertmanager must hear that an incident is still open",
            Self::Confirm => "a confirmation has not been committed",
        })
    }
}

/// How many changes wait at receivers of one kind, and how many these refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Not yet confirmed.
    pub pending: usize,
    /// Refused, and not tried again yet.
    pub rejected: usize,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Sends to start, the most urgent first.
    pub sends: Vec<Due>,
    /// Confirmations to offer to the lead (again).
    pub confirm: Vec<Delivered>,
    /// When to plan again if nothing else happens, and why.
    pub next: Option<(Moment, Wake)>,
    /// For metrics; one entry per kind.
    pub tallies: Vec<(ReceiverKind, Tally)>,
    /// For people.
    pub trouble: Vec<Trouble>,
}

/// What this supervisor remembers of its own sends. Lost with the process, which costs a duplicate at worst.
#[derive(Debug, Clone, Default)]
pub struct Attempts {
    book: BTreeMap<(u64, String), Attempt>,
    /// Incidents that another coordinator may have told of without its successors' knowing; nothing while this one does not coordinate.
    inherited: Option<BTreeSet<u64>>,
}

/// One incident at one receiver.
#[derive(Debug, Clone, Default)]
struct Attempt {
    in_flight: bool,
    /// Tries in a row that came to nothing.
    tries: u32,
    next_try: Moment,
    detail: String,
    /// The change that was refused, and from when on it is tried again; another change is not held up by it.
    rejected: Option<(u64, Moment)>,
    /// The newest accepted change, and when any was last accepted.
    accepted: Option<(u64, Moment)>,
    /// A send ended in silence or a server's error: the receiver may have it.
    perhaps_taken: bool,
    confirm_offered: Option<Moment>,
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
    fn may_be_told_by_another(&self, receiver: &Receiver, incident: &Incident) -> bool {
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

    fn in_flight(&self, key: &str) -> usize {
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

/// What one incident asks of one receiver.
enum Need {
    Nothing,
    Send { again: bool },
    InFlight { fresh: bool },
    Wait { until: Moment, why: Wake },
    Rejected { until: Moment },
}

/// Decides what to send and confirm, and when to look again.
#[must_use]
pub fn plan(state: &AlertState, attempts: &Attempts, now: Moment) -> Plan {
    let mut plan =
        Plan { tallies: ReceiverKind::ALL.iter().map(|kind| (*kind, Tally::default())).collect(), ..Plan::default() };
    if !state.active {
        return plan;
    }
    let nothing = Attempt::default();
    for receiver in &state.receivers {
        let (key, shown) = (receiver.key(), receiver.shown());
        let mut due: Vec<(Reverse<Severity>, Due)> = Vec::new();
        for incident in &state.incidents {
            let attempt = attempts.book.get(&(incident.id, key.clone())).unwrap_or(&nothing);
            let by_another = attempts.may_be_told_by_another(receiver, incident);
            let need = need(receiver, &key, incident, attempt, by_another, now);
            plan.tally(kind(receiver), &need);
            plan.note(&shown, incident, attempt, &need);
            plan.confirm(&key, incident, attempt, now);
            match need {
                Need::Send { again } => {
                    due.push((
                        Reverse(incident.severity),
                        Due { incident: incident.id, receiver: receiver.clone(), seq: incident.seq, again },
                    ));
                }
                Need::Wait { until, why } => plan.look_again(until, why),
                Need::Rejected { until } => plan.look_again(until, Wake::Refused),
                Need::Nothing | Need::InFlight { .. } => {}
            }
        }
        due.sort_by_key(|(severity, due)| (due.again, *severity, due.incident));
        let room = IN_FLIGHT_MAX.saturating_sub(attempts.in_flight(&key));
        plan.sends.extend(due.into_iter().take(room).map(|(_, due)| due));
    }
    plan
}

fn need(receiver: &Receiver, key: &str, incident: &Incident, attempt: &Attempt, by_another: bool, now: Moment) -> Need {
    let known = incident.delivered.get(key).copied().max(attempt.accepted.map(|(seq, _)| seq));
    let told = known.is_some() || attempt.perhaps_taken || by_another;
    let wanted = told || (incident.is_open() && incident.severity >= receiver.min_severity());
    let fresh = known.is_none_or(|known| known < incident.seq);
    let refused = attempt.rejected.filter(|(seq, until)| *seq == incident.seq && *until > now);
    if !wanted {
        Need::Nothing
    } else if attempt.in_flight {
        Need::InFlight { fresh }
    } else if let Some((_, until)) = refused.filter(|_| fresh) {
        Need::Rejected { until }
    } else if fresh {
        wait_or_send(attempt.next_try, Wake::Retry, false, now)
    } else if incident.is_open() && matches!(receiver, Receiver::Alertmanager { .. }) {
        // A new coordinator does not know when the old one last told it, and tells it at once.
        let resend = attempt.accepted.map_or(now, |(_, at)| at.plus(RESEND_EVERY));
        wait_or_send(resend.max(attempt.next_try), Wake::Resend, true, now)
    } else {
        Need::Nothing
    }
}

fn wait_or_send(until: Moment, why: Wake, again: bool, now: Moment) -> Need {
    if until > now { Need::Wait { until, why } } else { Need::Send { again } }
}

impl Plan {
    fn look_again(&mut self, until: Moment, why: Wake) {
        let other = self.next.unwrap_or((until, why));
        self.next = Some(other.min((until, why)));
    }

    fn tally(&mut self, kind: ReceiverKind, need: &Need) {
        let Some((_, tally)) = self.tallies.iter_mut().find(|(each, _)| *each == kind) else { return };
        match need {
            Need::Send { again: false } | Need::InFlight { fresh: true } | Need::Wait { why: Wake::Retry, .. } => {
                tally.pending += 1
            }
            Need::Rejected { .. } => tally.rejected += 1,
            Need::Nothing | Need::Send { again: true } | Need::InFlight { fresh: false } | Need::Wait { .. } => {}
        }
    }

    fn note(&mut self, receiver: &str, incident: &Incident, attempt: &Attempt, need: &Need) {
        if attempt.tries == 0 || matches!(need, Need::Nothing) || self.trouble.len() >= TROUBLE_MAX {
            return;
        }
        self.trouble.push(Trouble {
            incident: incident.id,
            receiver: receiver.to_owned(),
            seq: incident.seq,
            tries: attempt.tries,
            rejected: matches!(need, Need::Rejected { .. }),
            detail: attempt.detail.clone(),
        });
    }

    fn confirm(&mut self, key: &str, incident: &Incident, attempt: &Attempt, now: Moment) {
        let Some((seq, _)) = attempt.accepted else { return };
        if incident.delivered.get(key).is_some_and(|committed| *committed >= seq) {
            return;
        }
        match attempt.confirm_offered.map(|at| at.plus(CONFIRM_AGAIN)) {
            Some(again) if again > now => self.look_again(again, Wake::Confirm),
            _ => {
                self.confirm.push(Delivered { incident: incident.id, receiver: key.to_owned(), seq });
                self.look_again(now.plus(CONFIRM_AGAIN), Wake::Confirm);
            }
        }
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

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
