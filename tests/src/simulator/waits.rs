//! Nothing waits without a reason: whatever is not as it is wanted, while nothing is to be done about it, waits for something
//! that the coordinator's report names, with at most how much longer. That is what people are shown (R19).

use holdfast_policies::{
    decide::{GuestJudgement, HostJudgement, HostVerdict, Report, ServiceVerdict},
    state::{ClusterState, Guest, Host, Life, Phase, Wanted},
};

use super::{breaks::Break, world::World};

/// The first host or guest that waits, and of which the report of a round that commands nothing does not say for what.
#[must_use]
pub fn unexplained(state: &ClusterState, report: &Report) -> Option<String> {
    let host = state.hosts.iter().find(|(name, host)| {
        let judgement = report.hosts.get(*name);
        let said = judgement.is_some_and(|judgement| is_said(judgement.waits.as_ref()));
        !said && !is_well(host, judgement)
    });
    if let Some((name, _)) = host {
        let judged = report.hosts.get(name).map(|judgement| judgement.verdict);
        return Some(format!("{name} is not well ({judged:?}), and nobody says what it waits for"));
    }
    let (name, guest) = state.guests.iter().find(|(name, guest)| {
        let judgement = report.guests.get(*name);
        let said = judgement.is_some_and(|judgement| is_said(judgement.waits.as_ref()));
        !said && !is_as_wanted(state, report, guest, judgement)
    })?;
    let doing = report.guests.get(name).map_or("nothing is said of it", |judgement| judgement.doing.as_str());
    Some(format!("{name} is {} ({doing}), and nobody says what it waits for", guest.word()))
}

/// Whether a report says what is waited for, and at most how many milliseconds.
fn is_said(waits: Option<&(String, u64)>) -> bool {
    waits.is_some_and(|(what, _)| !what.is_empty())
}

fn is_well(host: &Host, judgement: Option<&HostJudgement>) -> bool {
    let healthy = judgement.is_some_and(|judgement| judgement.verdict == HostVerdict::Healthy);
    healthy && host.life == Life::Up && !host.is_contested()
}

/// Whether a guest runs on a host that is well, and its services answer; or does not run, where that is what operators want.
fn is_as_wanted(state: &ClusterState, report: &Report, guest: &Guest, judgement: Option<&GuestJudgement>) -> bool {
    match (&guest.phase, guest.wanted) {
        (Phase::Free { .. }, Wanted::Stopped) => true,
        (Phase::Running { tenure, verified: true, action: None, .. }, Wanted::Running | Wanted::Unmanaged) => {
            let services = judgement.into_iter().flat_map(|judgement| judgement.services.values());
            // What waits for another service is that one's trouble.
            let mut own = services.filter(|own| own.waits_for.is_none());
            let host = state.hosts.get(&tenure.host);
            host.is_some_and(|host| is_well(host, report.hosts.get(&tenure.host)))
                && own.all(|own| own.verdict != ServiceVerdict::Failed)
        }
        (
            Phase::Unplaced
            | Phase::Free { .. }
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Releasing { .. }
            | Phase::Migrating(_),
            Wanted::Running | Wanted::Stopped | Wanted::Unmanaged,
        ) => false,
    }
}

impl World {
    /// Whether reports are looked at: with any other rule broken, that rule's own check has to find it.
    pub(super) fn reads_reports(&self) -> bool {
        matches!(self.broken, None | Some(Break::R19Unsaid))
    }
}

/// R19 broken: a report without what is waited for.
pub(super) fn forget_waits(report: &mut Report) {
    report.hosts.values_mut().for_each(|judgement| judgement.waits = None);
    report.guests.values_mut().for_each(|judgement| judgement.waits = None);
}

#[cfg(test)]
mod tests {
    use holdfast_policies::names::GuestName;

    use super::*;
    use crate::simulator::{Happening, Setup};

    /// Its power device is not believed while deciding is suspended, so that the dead host and all its guests wait.
    #[test]
    fn a_report_that_leaves_out_what_one_guest_or_one_host_waits_for_is_noticed() {
        let setup = Setup::plain(3, Setup::random(1, 3, 3, None).policies);
        let mut world = World::new(&setup, Vec::new());
        world.run_until(30_000);
        assert!(world.is_at_rest(), "{:?}", world.violation());
        world.happen(&Happening::Suspended { suspended: true });
        world.run_until(32_000);
        let dead = (0..3).find(|host| !world.hosts[*host].machines.is_empty()).unwrap();
        world.happen(&Happening::PowerCut { host: dead, back: None });
        world.run_until(45_000);
        assert_eq!(world.violation(), None);
        let voter = world.coordinator().unwrap();
        let state = &world.voters[voter].state;
        let report = world.voters[voter].brain.report.clone().unwrap();
        assert_eq!(unexplained(state, &report), None);
        assert!(is_said(report.hosts[&world.hosts[dead].name].waits.as_ref()), "{report:?}");
        let mut silent = report.clone();
        silent.hosts.get_mut(&world.hosts[dead].name).unwrap().waits = None;
        assert!(unexplained(state, &silent).is_some_and(|what| what.contains("is not well")));
        let waiting: Vec<&GuestName> =
            report.guests.iter().filter(|(_, judged)| is_said(judged.waits.as_ref())).map(|(name, _)| name).collect();
        assert!(!waiting.is_empty(), "{report:?}");
        for name in waiting {
            let mut silent = report.clone();
            silent.guests.get_mut(name).unwrap().waits = None;
            let what = unexplained(state, &silent).unwrap_or_default();
            assert!(what.starts_with(name.as_str()), "{name}: {what:?}");
        }
    }
}
