//! A guest whose host was without a lease since it started: whether the host has stopped it for that (R14).

use super::{super::Round, running::Run};
use crate::{
    evidence::HostEvidence,
    observe::{GuestCondition, GuestReport},
};

/// Whether a host that was without a lease since the guest started has nothing of it running: it has protected itself, and
/// the guest is not to blame (R14).
pub(super) fn stopped_by_lease(round: &Round<'_>, run: &Run<'_>) -> bool {
    let Some(reopened) = reopened_since(round, run) else { return false };
    let Some(seen) = run.here.seen else { return false };
    let nothing_runs = seen.reports.get(run.name).is_none_or(|report| {
        report.epoch <= run.tenure.epoch && matches!(report.condition, GuestCondition::Exited { .. })
    });
    nothing_runs && told_since(round, reopened, seen)
}

/// Whether a guest has ended on a host that gets no lease at present, or has not synced since it gets one again: whose fault
/// that is shows with the next sync (R14).
pub(super) fn waits_for_lease(round: &Round<'_>, run: &Run<'_>) -> bool {
    let record = run.here.known.and_then(|known| known.lease.record.as_ref());
    let closed = record.is_some_and(|record| record.closed.is_some());
    let reopened = reopened_since(round, run);
    if !closed && reopened.is_none() {
        return false;
    }
    let Some(seen) = run.here.seen else { return false };
    let ended = |report: &GuestReport| matches!(report.condition, GuestCondition::Exited { .. });
    let untold = reopened.is_some_and(|reopened| !told_since(round, reopened, seen));
    seen.reports.get(run.name).is_some_and(ended) && (closed || untold)
}

/// When the guest's host got leases again after it had got none, if that was since the guest started.
fn reopened_since(round: &Round<'_>, run: &Run<'_>) -> Option<u64> {
    run.here.known.filter(|known| known.lease.reopened > 0)?;
    round.state.lease_reopened_since(run.tenure)
}

/// Whether the host has synced since it gets leases again.
fn told_since(round: &Round<'_>, reopened: u64, seen: &HostEvidence) -> bool {
    seen.sync.as_ref().is_some_and(|sync| sync.at > round.evidence.marks.at(reopened))
}
