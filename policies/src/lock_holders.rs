//! Who may hold the lock of a disk image for which a start was refused, as far as the whole cluster knows.
//!
//! A host sees the processes of its own kernel and no others. The coordinator has what every host reports, and the journal,
//! which tells where the guest ran last and by what proof it was taken to be gone there. It is told, and nothing more: a lock
//! is never broken, since whoever holds it may write the image.

use std::time::Duration;

use crate::{
    evidence::{Evidence, HostEvidence, is_there},
    journal::Event,
    names::{Epoch, GuestName, HostName, OrderId},
    observe::{GuestCondition, GuestReport, clean_to},
    order::{OrderKind, OrderOutcome},
    proof::Proof,
    some_of::some_of,
    state::{ClusterState, Life},
    time::Moment,
};

/// What a host says of a start that was refused for a lock which no process of its own holds; the coordinator knows it by
/// these words.
pub const LOCKED_ELSEWHERE: &str = "its image is locked, and no process of this host has it open";

/// Hosts that are named of each sort; the others are counted.
const NAMED_MAX: usize = 3;

/// Longest account, in bytes: it is kept with the journal and with the incident.
const ACCOUNT_BYTES_MAX: usize = 600;

/// A host that has not synced for so long may have something else to say by now; agents sync several times a second.
const FRESH: Duration = Duration::from_secs(3);

impl ClusterState {
    /// The outcome of an order, with who may hold the lock that it failed on where that is elsewhere.
    #[must_use]
    pub fn with_lock_holders(
        &self,
        evidence: &Evidence,
        order: OrderId,
        outcome: OrderOutcome,
        now: Moment,
    ) -> OrderOutcome {
        match outcome {
            OrderOutcome::Failed { detail } => {
                let account = self.lock_holders(evidence, order, &detail, now);
                let account = account.map(|account| format!("; {account}")).unwrap_or_default();
                OrderOutcome::Failed { detail: format!("{detail}{account}") }
            }
            done @ OrderOutcome::Done { .. } => done,
        }
    }

    fn lock_holders(&self, evidence: &Evidence, order: OrderId, detail: &str, now: Moment) -> Option<String> {
        let order = self.orders.get(&order).filter(|_| detail.contains(LOCKED_ELSEWHERE))?;
        let OrderKind::Start { guest, epoch, .. } = &order.kind else { return None };
        let others = evidence.hosts.iter().filter(|(name, _)| **name != order.host && self.may_hold(name));
        let reporting: Vec<String> =
            others.filter_map(|(name, known)| reported(name, known, (guest, *epoch), now)).collect();
        let account: Vec<String> = if reporting.is_empty() {
            let unheard = self.unheard(evidence, &order.host, now);
            let last = self.last_run(guest).map_or_else(|| "nothing tells where it ran last".to_owned(), last_ran);
            [Some("no live host reports it".to_owned()), Some(last), unheard].into_iter().flatten().collect()
        } else {
            vec![format!("locked by another host: {}", some_of(reporting, NAMED_MAX, ", "))]
        };
        Some(clean_to(&account.join("; "), ACCOUNT_BYTES_MAX))
    }

    /// Whether the host lives, as far as is decided: of one that is proven gone the journal speaks.
    fn may_hold(&self, name: &HostName) -> bool {
        self.hosts.get(name).is_some_and(|host| match &host.life {
            Life::Up | Life::Fencing(_) => true,
            Life::Gone { .. } => false,
        })
    }

    /// Hosts that could say something and have not for some time.
    fn unheard(&self, evidence: &Evidence, asking: &HostName, now: Moment) -> Option<String> {
        let silent = |name: &HostName| evidence.hosts.get(name).is_none_or(|known| age(known, now).is_none_or(is_old));
        let able = self.hosts.iter().filter(|(name, host)| *name != asking && host.facts.guests && self.may_hold(name));
        let names: Vec<String> = able.filter(|(name, _)| silent(name)).map(|(name, _)| name.to_string()).collect();
        (!names.is_empty())
            .then(|| format!("{} may hold it and has not been heard lately", some_of(names, NAMED_MAX, " or ")))
    }

    /// Where the guest ran last, by the journal, and the newest proof that it does not run there any more.
    fn last_run(&self, guest: &GuestName) -> Option<(&HostName, Option<&Proof>)> {
        let mut proofs: Vec<&Proof> = Vec::new();
        for entry in self.journal.entries().rev() {
            if let Event::GuestFree { guest: of, proof } = &entry.what
                && of == guest
            {
                proofs.push(proof);
            }
            if let Some(host) = ran_on(&entry.what, guest) {
                return Some((host, proofs.into_iter().find(|proof| proof.host() == Some(host))));
            }
        }
        None
    }
}

/// What a host has last said of the guest, if it has something of it.
fn reported(name: &HostName, known: &HostEvidence, (guest, epoch): (&GuestName, Epoch), now: Moment) -> Option<String> {
    let report = known.reports.get(guest).filter(|report| is_there(&report.condition))?;
    let (how, under) = (word(report), if report.epoch < epoch { "the older epoch" } else { "epoch" });
    let said = |reports: &str| format!("{name} {reports} it {how} under {under} {}", report.epoch);
    Some(match age(known, now) {
        Some(age) if !is_old(age) => said("reports"),
        Some(age) => format!("{} {} s ago", said("reported"), age.as_secs()),
        None => said("reported"),
    })
}

fn word(report: &GuestReport) -> &'static str {
    match report.condition {
        GuestCondition::Running => "running",
        GuestCondition::Paused { .. } => "paused",
        GuestCondition::IoError { .. } => "stopped by its storage",
        GuestCondition::Panicked => "panicked",
        GuestCondition::Incoming => "arriving",
        GuestCondition::Sent => "sent away",
        GuestCondition::Exited { .. } => "ended",
        GuestCondition::Unknown { .. } => "there, and cannot ask it,",
    }
}

/// How long ago the host synced.
fn age(known: &HostEvidence, now: Moment) -> Option<Duration> {
    known.sync.as_ref().map(|heard| now.since(heard.at))
}

fn is_old(age: Duration) -> bool {
    age > FRESH
}

/// The host that this says the guest runs on.
fn ran_on<'a>(what: &'a Event, guest: &GuestName) -> Option<&'a HostName> {
    match what {
        Event::GuestStarted { guest: of, host, .. }
        | Event::GuestAdopted { guest: of, host, .. }
        | Event::GuestFollowed { guest: of, to: host, .. }
        | Event::MigrationSwitched { guest: of, to: host, .. }
        | Event::MigrationEnded { guest: of, host, .. } => (of == guest).then_some(host),
        _ => None,
    }
}

fn last_ran((host, proof): (&HostName, Option<&Proof>)) -> String {
    match proof {
        Some(proof) if proof.host_gone().is_some() => format!(
            "it last ran on {host}, which is proven gone ({proof}): the storage may keep the lock for a time-out of its own"
        ),
        Some(proof) => format!("it last ran on {host} ({proof}): a program that is not Holdfast's may hold it"),
        None => format!("it last ran on {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::Heard,
        fixture::{Stage, boot, host, name},
    };

    const NOW: Moment = Moment(60_000);

    fn refused() -> OrderOutcome {
        OrderOutcome::Failed { detail: format!("qemu did not come up: {LOCKED_ELSEWHERE}; status 1") }
    }

    /// The detail of a start on this host that is refused in this way, as it is committed.
    fn told(stage: &Stage, evidence: &Evidence, on: &str, outcome: OrderOutcome) -> String {
        match stage.state.with_lock_holders(evidence, stage.order(on).id, outcome, NOW) {
            OrderOutcome::Failed { detail } => detail,
            OrderOutcome::Done { .. } => panic!("it failed"),
        }
    }

    /// What hosts have said in a sync of so long ago: of `web`, if something.
    fn heard<'a>(said: impl IntoIterator<Item = (&'a str, u64, Option<GuestCondition>)>) -> Evidence {
        let mut evidence = Evidence::default();
        for (of, ago_ms, condition) in said {
            let known = evidence.hosts.entry(host(of)).or_default();
            let at = NOW.minus(Duration::from_millis(ago_ms));
            known.sync = Some(Heard { at, incarnation: boot(&format!("{of}.1")) });
            let report = |condition| GuestReport::new(name("web"), Epoch { generation: 1, index: 2 }, condition);
            known.reports = condition.map(|condition| (name("web"), report(condition))).into_iter().collect();
        }
        evidence
    }

    /// `web` ran on `a`, which was switched off, and is to start on `b`.
    fn failed_over() -> Stage {
        let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
        stage.run("web", "a");
        let gone = stage.gone("a");
        stage.must(gone);
        stage.place("web", "b");
        stage
    }

    #[test]
    fn a_host_that_reports_the_guest_is_named_in_the_incident_of_the_start_that_its_lock_refused() {
        let mut stage = failed_over();
        let evidence = heard([("a", 0, Some(GuestCondition::Running)), ("c", 100, Some(GuestCondition::Running))]);
        let detail = told(&stage, &evidence, "b", refused());
        let ends = "; locked by another host: c reports it running under the older epoch 1.2";
        assert!(detail.ends_with(ends), "{detail}");
        let order = stage.order("b").id;
        let outcome = stage.state.with_lock_holders(&evidence, order, refused(), NOW);
        stage.must(crate::change::Change::OrderEnded { order, outcome });
        let told = stage.state.incidents.values().flat_map(|incident| &incident.done);
        assert!(told.into_iter().any(|sentence| sentence.contains(ends)), "{:?}", stage.state.incidents);
    }

    #[test]
    fn an_old_report_is_told_with_its_age_and_what_is_over_is_not_told() {
        let stage = failed_over();
        let said = |ago_ms, condition| told(&stage, &heard([("c", ago_ms, Some(condition))]), "b", refused());
        let old = said(9_500, GuestCondition::Panicked);
        assert!(old.ends_with("c reported it panicked under the older epoch 1.2 9 s ago"), "{old}");
        let over = said(100, GuestCondition::Exited { detail: "status 0".to_owned() });
        assert!(over.contains("no live host reports it"), "{over}");
    }

    #[test]
    fn when_nobody_reports_it_the_last_host_is_named_with_its_proof_and_with_who_was_not_heard() {
        let mut stage = failed_over();
        let all = heard([("b", 0, None), ("c", 0, None)]);
        let gone = "; no live host reports it; it last ran on a, which is proven gone (bmc says that a is off (wiring \
                    verified by ann)): the storage may keep the lock for a time-out of its own";
        let detail = told(&stage, &all, "b", refused());
        assert!(detail.ends_with(gone), "{detail}");
        // What failed on the way does not hide it.
        stage.end("b", refused());
        stage.end("b", crate::fixture::done());
        stage.place("web", "c");
        let detail = told(&stage, &heard([("b", 9_000, None)]), "c", refused());
        assert!(detail.ends_with(&format!("{gone}; b may hold it and has not been heard lately")), "{detail}");
    }

    #[test]
    fn a_guest_that_never_ran_has_no_last_host() {
        let mut stage = Stage::new(&["a", "b"], &["web"]);
        stage.place("web", "b");
        let detail = told(&stage, &heard([("a", 0, None)]), "b", refused());
        assert!(detail.ends_with("; no live host reports it; nothing tells where it ran last"), "{detail}");
    }

    #[test]
    fn another_failure_is_told_as_it_came() {
        let stage = failed_over();
        let evidence = heard([("c", 0, Some(GuestCondition::Running))]);
        assert_eq!(told(&stage, &evidence, "b", crate::fixture::failed()), "it is not so");
    }
}
