//! How soon the coordinator decides again when nothing happens: waits end at this precision, and a calm cluster has none but
//! those that no time ends.

use std::time::Duration;

use holdfast_policies::{
    decide::{FOREVER, Report, hosts::HostVerdict, services::ServiceVerdict},
    time::millis,
};

/// While something is awaited, or might be.
pub const TICK: Duration = Duration::from_millis(50);

/// While all is well, and on voters that do not lead. Syncs come more often than that and are looked at all the same.
pub const CALM_TICK: Duration = Duration::from_millis(200);

/// How long to rest after a turn that found this and decided nothing, when no order is open. A calm rest ends long before
/// a host whose last sync has just come can be wondered about.
pub fn rest(report: &Report, wonder_after: Duration) -> Duration {
    let synced_within = millis(wonder_after / 2);
    let hosts_well =
        report.hosts.values().all(|host| host.verdict == HostVerdict::Healthy && host.unsynced_ms < synced_within);
    // What only a person, a host or a power device ends comes as an event.
    let is_bounded = |(_, left): &(String, u64)| *left != FOREVER;
    let guests_well = report.guests.values().all(|guest| {
        !guest.waits.as_ref().is_some_and(is_bounded)
            && guest.services.values().all(|service| service.verdict == ServiceVerdict::Healthy)
    });
    if hosts_well && guests_well && report.storm_hold.is_none() { CALM_TICK.min(wonder_after / 4) } else { TICK }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{
        decide::{GuestJudgement, hosts::HostJudgement, services::ServiceJudgement},
        names::{GuestName, HostName, ServiceName},
    };

    use super::*;

    const WONDER_AFTER: Duration = Duration::from_millis(750);

    fn report(change: impl FnOnce(&mut HostJudgement, &mut GuestJudgement)) -> Report {
        let mut host = HostJudgement {
            verdict: HostVerdict::Healthy,
            silent_ms: 0,
            unsynced_ms: 300,
            evidence: Vec::new(),
            unwell: None,
            last_words: None,
            waits: None,
            safe_at: None,
        };
        let service = ServiceJudgement::plain(ServiceVerdict::Healthy, Vec::new());
        let mut guest = GuestJudgement::default();
        guest.services.insert(ServiceName::new("http").unwrap(), service);
        change(&mut host, &mut guest);
        Report {
            hosts: [(HostName::new("h1").unwrap(), host)].into(),
            guests: [(GuestName::new("web-1").unwrap(), guest)].into(),
            storm_hold: None,
        }
    }

    #[test]
    fn whatever_is_awaited_or_silent_is_looked_at_often() {
        let rest = |change: fn(&mut HostJudgement, &mut GuestJudgement)| rest(&report(change), WONDER_AFTER);
        assert_eq!(rest(|host, _| host.unsynced_ms = 375), TICK);
        assert_eq!(rest(|host, _| host.verdict = HostVerdict::Suspect), TICK);
        assert_eq!(rest(|_, guest| guest.waits = Some(("the rung's wait".to_owned(), 1))), TICK);
        let failed = |_: &mut HostJudgement, guest: &mut GuestJudgement| {
            guest.services.iter_mut().for_each(|(_, service)| service.verdict = ServiceVerdict::Suspect);
        };
        assert_eq!(rest(failed), TICK);
        let held = Report { storm_hold: Some("three hosts".to_owned()), ..report(|_, _| {}) };
        assert_eq!(super::rest(&held, WONDER_AFTER), TICK);
    }

    #[test]
    fn a_wait_that_no_time_ends_keeps_nobody_awake() {
        let waits = report(|_, guest| guest.waits = Some(("a host that can run it".to_owned(), FOREVER)));
        assert!(rest(&waits, WONDER_AFTER) > TICK);
    }

    #[test]
    fn a_calm_rest_ends_before_a_silent_host_is_wondered_about() {
        let calm = rest(&report(|_, _| {}), WONDER_AFTER);
        assert!(calm > TICK && WONDER_AFTER / 2 + calm < WONDER_AFTER);
    }
}
