//! Decides what to send now and when to look again. Pure: state, the book of attempts and the time come in.
//!
//! For each incident and receiver:
//! - a change is sent when it is newer than what the receiver confirmed, and the incident is severe enough or the
//!   receiver was told of it before;
//! - an end is sent only to a receiver that was told of the beginning, or may have been. What another coordinator has told that was not
//!   confirmed is not known: PagerDuty passes over an end without a beginning, so it is told of the newest of those all the same;
//! - Alertmanager is told of an open incident again every minute;
//! - what failed is tried again after 1 s, doubling to 60 s; what was refused, with the next change or after five minutes.

use std::{cmp::Reverse, fmt, time::Duration};

use holdfast_policies::{
    incident::Incident,
    model::{Receiver, Severity},
    time::Moment,
};

use super::super::metrics::{Label, ReceiverKind};
use super::{
    AlertState, Delivered, Trouble,
    attempts::{Attempt, Attempts},
    kind,
};

/// Sends under way at once per receiver: hides a slow receiver's latency without flooding it.
pub const IN_FLIGHT_MAX: usize = 4;
/// How often Alertmanager is told that an incident is still open; it forgets after five of these.
const RESEND_EVERY: Duration = Duration::from_secs(60);
/// How long to wait for a confirmation to be committed before it is offered to the lead again.
const CONFIRM_AGAIN: Duration = Duration::from_secs(10);
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

#[cfg(test)]
mod tests;
