//! A burst: some faults within a few seconds, drawn from the seed.

use std::{fmt, time::Duration};

use super::{
    kinds::{Fault, Focus, Kind},
    setup::Setup,
};
use crate::simulator::random::Random;

/// Most faults of a burst.
const FAULTS_MAX: usize = 4;
/// Within this time all of them begin, in milliseconds.
const BEGIN_WITHIN_MS: u64 = 4_000;
/// How long one lasts that is short, in milliseconds: shorter than a host takes to be suspected (1.5 s), and longer.
const SHORT_MS: (u64, u64) = (100, 3_000);
/// How long one lasts that is long: up to some times as long as a lease (4 s).
const LONG_MS: (u64, u64) = (3_000, 15_000);
/// One burst in so many is a device that lies, which comes alone.
const LIES_ODDS: u64 = 20;

/// One fault of a burst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deed {
    /// Its kind.
    pub(super) kind: Kind,
    /// When it begins, from the burst's beginning.
    pub(super) at: Duration,
    /// How long it lasts, where it does.
    pub(super) lasts: Duration,
    /// What it is.
    pub(super) fault: Fault,
}

impl fmt::Display for Deed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.fault)?;
        if self.goes_on() { write!(out, ", for {:.1} s", self.lasts.as_secs_f64()) } else { Ok(()) }
    }
}

impl Deed {
    /// Whether it has an end of its own; the others are over in an instant.
    fn goes_on(&self) -> bool {
        match &self.fault {
            Fault::SupervisorKilled { back, .. } | Fault::GuardKilled { back, .. } => !back,
            Fault::QemuKilled { .. } | Fault::ServiceHurt { .. } | Fault::Moved { .. } => false,
            Fault::SupervisorStopped { .. }
            | Fault::SupervisorStarved { .. }
            | Fault::SupervisorsKilled
            | Fault::GuardStopped { .. }
            | Fault::QemuStopped { .. }
            | Fault::HostCutOff { .. }
            | Fault::LinkCut { .. }
            | Fault::BadCable { .. }
            | Fault::PowerCut { .. }
            | Fault::Blackout
            | Fault::HostFrozen { .. }
            | Fault::DeviceBad { .. }
            | Fault::DeviceLies { .. }
            | Fault::Drained { .. }
            | Fault::GuestStopped { .. }
            | Fault::Suspended => true,
        }
    }
}

/// Whether a burst gives no reason to switch a host off or to boot a guest: it is one fault, and one that Holdfast has promised to take
/// for what it is (R16, R17, S5). Of hosts that rely on their lease it is promised only within the lease, so none is there.
pub(super) fn is_harmless(deeds: &[Deed], setup: &Setup) -> bool {
    let [deed] = deeds else { return false };
    setup.hosts.iter().all(|spec| spec.watchdog_seconds.is_none())
        && match &deed.fault {
            Fault::SupervisorKilled { .. }
            | Fault::SupervisorStopped { .. }
            | Fault::SupervisorStarved { .. }
            | Fault::SupervisorsKilled
            | Fault::GuardKilled { .. }
            | Fault::GuardStopped { .. }
            | Fault::LinkCut { .. }
            | Fault::DeviceBad { .. }
            | Fault::DeviceLies { .. }
            | Fault::Suspended => true,
            // An emulated guest sometimes hangs after a move, and is reset then: nothing is promised of a drain here.
            Fault::Drained { .. }
            | Fault::Moved { .. }
            | Fault::QemuKilled { .. }
            | Fault::QemuStopped { .. }
            | Fault::ServiceHurt { .. }
            | Fault::HostCutOff { .. }
            | Fault::BadCable { .. }
            | Fault::PowerCut { .. }
            | Fault::Blackout
            | Fault::HostFrozen { .. }
            | Fault::GuestStopped { .. } => false,
        }
}

/// Draws a burst; of one kind alone, where that is said.
pub(super) fn burst(random: &mut Random, setup: &Setup, only: Option<Kind>) -> Vec<Deed> {
    let focus = Focus::draw(random, setup);
    let lies = random.one_in(LIES_ODDS);
    if only == Some(Kind::DeviceLies) || (only.is_none() && lies) {
        return vec![deed(random, setup, &focus, Kind::DeviceLies)];
    }
    let mixed: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::DeviceLies).collect();
    let count = 1 + random.index(FAULTS_MAX);
    let mut deeds: Vec<Deed> = Vec::with_capacity(count);
    for _ in 0..count {
        let drawn = mixed.get(random.index(mixed.len())).copied().unwrap_or(Kind::SupervisorKilled);
        deeds.push(deed(random, setup, &focus, only.unwrap_or(drawn)));
    }
    deeds.sort_by_key(|deed| deed.at);
    deeds
}

fn deed(random: &mut Random, setup: &Setup, focus: &Focus, kind: Kind) -> Deed {
    let at = Duration::from_millis(random.below(BEGIN_WITHIN_MS));
    let (low, high) = if random.one_in(2) { SHORT_MS } else { LONG_MS };
    let lasts = Duration::from_millis(random.between(low, high));
    Deed { kind, at, lasts, fault: kind.draw(random, setup, focus) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn bursts(seed: u64, only: Option<Kind>) -> Vec<Vec<Deed>> {
        let (setup, mut random) = (Setup::draw(seed, None, None), Random::new(seed, 1));
        (0..40).map(|_| burst(&mut random, &setup, only)).collect()
    }

    #[test]
    fn a_seed_draws_the_same_bursts_again_and_seeds_draw_every_kind() {
        let all: Vec<Vec<Deed>> = (0..50).flat_map(|seed| bursts(seed, None)).collect();
        assert_eq!(all, (0..50).flat_map(|seed| bursts(seed, None)).collect::<Vec<_>>());
        let kinds: BTreeSet<Kind> = all.iter().flatten().map(|deed| deed.kind).collect();
        assert_eq!(kinds, Kind::ALL.into_iter().collect());
        for burst in &all {
            assert!((1..=FAULTS_MAX).contains(&burst.len()));
            assert!(burst.len() == 1 || burst.iter().all(|deed| deed.kind != Kind::DeviceLies), "{burst:?}");
        }
    }

    #[test]
    fn one_supervisor_that_dies_is_harmless_and_a_host_without_power_or_two_faults_are_not() {
        let setup = |seed| Setup::draw(seed, None, None);
        let plain = |setup: &Setup| setup.hosts.iter().all(|spec| spec.watchdog_seconds.is_none());
        let setup = (0..100).map(setup).find(plain).unwrap();
        let deed = |fault| Deed { kind: Kind::Moved, at: Duration::ZERO, lasts: Duration::ZERO, fault };
        let killed = deed(Fault::SupervisorKilled { host: "h1".to_owned(), back: false });
        assert!(is_harmless(std::slice::from_ref(&killed), &setup));
        assert!(!is_harmless(&[deed(Fault::PowerCut { host: "h1".to_owned() })], &setup));
        assert!(!is_harmless(&[killed.clone(), killed], &setup));
    }

    #[test]
    fn a_run_of_one_kind_has_no_other() {
        for kind in Kind::ALL {
            assert!(bursts(3, Some(kind)).iter().flatten().all(|deed| deed.kind == kind), "{kind}");
        }
    }

    #[test]
    fn no_link_is_cut_between_a_host_and_itself() {
        for deed in bursts(4, Some(Kind::LinkCut)).iter().flatten() {
            let Fault::LinkCut { host, other, .. } = &deed.fault else { panic!("{deed}") };
            assert_ne!(host, other);
        }
    }
}
