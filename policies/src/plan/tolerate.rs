//! What is told when the cluster would not survive the losses that its settings say it must, and what is not started then.

use std::collections::BTreeSet;

use super::{
    simulate::unproven,
    survive::{Survival, Verdict, admission_within},
};
use crate::{
    names::{GuestName, HostName},
    plan::Problem,
    rules::ClusterSettings,
    some_of::some_of,
    state::ClusterState,
};

/// Guests named in one sentence: a pager shows no more.
const NAMED_MAX: usize = 5;

/// Why `tolerate` does not hold, as a sentence; `None` when it holds, or is not asked for. `looks` bounds the work, as in
/// [`admission_within`]: where it ends too early, the sentence says that nobody knows.
#[must_use]
pub fn intolerance(problem: &Problem<'_>, settings: &ClusterSettings, looks: u64) -> Option<String> {
    let losses = usize::try_from(settings.tolerate).unwrap_or(usize::MAX);
    if losses == 0 {
        return None;
    }
    let survival = admission_within(problem, losses, settings.failure_domain.is_some(), looks);
    let what = what(&survival);
    match survival.verdict {
        Verdict::Yes => None,
        Verdict::No => Some(format!("the loss of {what} would leave guests without a host: {}", guests(&survival))),
        Verdict::Unknown => {
            let (tried, all) = survival.tried;
            Some(format!("whether the loss of {what} is survived is not known: {tried} of {all} cases were tried"))
        }
    }
}

/// Why an operator's start is refused: with one guest more `tolerate` would cease to hold, and `refuse_beyond` is set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`refuse_beyond` is set, and with {guest} started {why}")]
pub struct Beyond {
    /// The guest.
    pub guest: GuestName,
    /// What would not be survived, as a sentence.
    pub why: String,
}

/// Whether a guest that is not wanted to run may be: always, unless `tolerate` holds and would cease to. Where it does not hold
/// already, one guest more is the operator's to judge. `looks` bounds the work, as in [`admission_within`].
///
/// # Errors
/// [`Beyond`]
pub fn may_start(
    mut problem: Problem<'_>,
    settings: &ClusterSettings,
    guest: &GuestName,
    looks: u64,
) -> Result<(), Beyond> {
    if !settings.refuse_beyond || intolerance(&problem, settings, looks).is_some() || !problem.want(guest) {
        return Ok(());
    }
    match intolerance(&problem, settings, looks) {
        None => Ok(()),
        Some(why) => Err(Beyond { guest: guest.clone(), why }),
    }
}

/// Which guests would wait for a person although there is room for them, because nothing but a person can prove their host
/// off: its power devices do not answer now, have not for long (`stale`), or there are none. `None` when there are no such, or
/// `tolerate` is not asked for.
#[must_use]
pub fn waiting_for_people(state: &ClusterState, stale: &BTreeSet<(HostName, usize)>) -> Option<String> {
    if state.policies.cluster.tolerate == 0 {
        return None;
    }
    let told: Vec<String> = unproven(state, stale).into_iter().filter_map(|host| waiting_on(state, host)).collect();
    (!told.is_empty()).then(|| format!("nothing but a person could prove off {}", told.join("; ")))
}

fn waiting_on(state: &ClusterState, host: &HostName) -> Option<String> {
    let there = state.guests.iter().filter(|(_, guest)| guest.home().is_some_and(|home| home.host == *host));
    let guests: Vec<&str> = there.map(|(name, _)| name.as_str()).collect();
    (!guests.is_empty()).then(|| format!("{host}, with {}", some_of(guests, NAMED_MAX, ", ")))
}

fn what(survival: &Survival) -> String {
    match (&survival.domain, survival.losses) {
        (Some(domain), 1) => format!("one {domain}"),
        (Some(domain), many) => format!("{many} of {domain}"),
        (None, 1) => "one host".to_owned(),
        (None, many) => format!("{many} hosts"),
    }
}

fn guests(survival: &Survival) -> String {
    let told = survival.unplaced.iter().map(|(guest, (lost, _))| {
        let lost: Vec<&str> = lost.iter().map(|host| host.as_str()).collect();
        format!("{guest} (without {})", lost.join(" and "))
    });
    some_of(told, NAMED_MAX, ", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture::Stage, plan::Standing};

    const LOOKS: u64 = 100_000;

    fn told(memory_mib: u32, tolerate: u32, looks: u64) -> Option<String> {
        let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
        let mut policies = stage.state.policies.clone();
        policies.guests.values_mut().for_each(|guest| guest.qemu.memory_mib = memory_mib);
        policies.cluster.tolerate = tolerate;
        stage.declare(policies);
        stage.run("g1", "a");
        stage.run("g2", "b");
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        intolerance(&problem, &stage.state.policies.cluster, looks)
    }

    #[test]
    fn what_would_not_survive_is_named_with_the_host_whose_loss_it_is() {
        assert_eq!(told(4_000, 1, LOOKS), None);
        let expected = "the loss of one host would leave guests without a host: g1 (without a), g2 (without b)";
        assert_eq!(told(5_000, 1, LOOKS).as_deref(), Some(expected));
        assert_eq!(told(5_000, 0, LOOKS), None, "nobody has asked");
    }

    /// Two hosts of 8 GiB, `g1` on the first, `g2` wanted stopped; then somebody starts a guest.
    fn started(
        guest: &str,
        memory_mib: u32,
        refuse_beyond: bool,
        change: impl FnOnce(&mut Stage),
    ) -> Result<(), Beyond> {
        use crate::{change::Change, state::Wanted};
        let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
        let mut policies = stage.state.policies.clone();
        policies.guests.values_mut().for_each(|guest| guest.qemu.memory_mib = memory_mib);
        (policies.cluster.tolerate, policies.cluster.refuse_beyond) = (1, refuse_beyond);
        stage.declare(policies);
        stage.run("g1", "a");
        let stopped = |guest: &str| Change::WantedSet {
            guest: crate::fixture::name(guest),
            wanted: Wanted::Stopped,
            by: "ann".to_owned(),
        };
        stage.must(stopped("g2"));
        change(&mut stage);
        let problem = Problem::of(&stage.state, |_| Standing::Well);
        may_start(problem, &stage.state.policies.cluster, &crate::fixture::name(guest), LOOKS)
    }

    #[test]
    fn a_start_with_which_the_losses_would_not_be_survived_any_more_is_refused_where_the_settings_say_so() {
        assert_eq!(started("g2", 4_000, true, |_| {}), Ok(()), "there is room for both on either host");
        let refused = started("g2", 5_000, true, |_| {}).unwrap_err();
        let expected = "`refuse_beyond` is set, and with g2 started the loss of one host would leave guests without a host: g1 \
                        (without a)";
        assert!(refused.to_string().starts_with(expected), "{refused}");
        assert_eq!(started("g2", 5_000, false, |_| {}), Ok(()), "nobody has asked for it");
        assert_eq!(started("g1", 5_000, true, |_| {}), Ok(()), "it runs already");
    }

    #[test]
    fn a_start_is_not_refused_where_the_losses_are_not_survived_already() {
        let gone = |stage: &mut Stage| {
            let gone = stage.gone("b");
            stage.must(gone);
        };
        assert_eq!(started("g2", 3_000, true, gone), Ok(()), "without a nothing is left for g1 either");
    }

    #[test]
    fn guests_whose_host_only_a_person_can_prove_off_are_named_while_its_device_does_not_answer() {
        use crate::{
            change::Change,
            fence_path::{DeviceTest, LevelTest, Machine},
            proof::Power,
        };
        let mut stage = Stage::new(&["a", "b"], &["g1", "g2"]);
        stage.run("g1", "a");
        let tested = |stage: &mut Stage, power: Power| {
            let machine = Machine::Same;
            let device = DeviceTest { device: "bmc".to_owned(), power, took_ms: 40, machine, denied: false };
            stage.must(Change::FenceTested {
                host: crate::fixture::host("a"),
                executor: crate::fixture::host("b"),
                machine_id: crate::fixture::facts("a", "x").machine_id,
                policy_version: Some(stage.state.policy_version),
                levels: vec![LevelTest { level: 0, devices: vec![device] }],
            });
        };
        let silent = || Power::Unknown { detail: "no route".to_owned() };
        tested(&mut stage, silent());
        assert_eq!(waiting_for_people(&stage.state, &BTreeSet::new()), None, "nobody has asked");
        let mut policies = stage.state.policies.clone();
        policies.cluster.tolerate = 1;
        stage.declare(policies);
        // A change of policies forgets what was tried under the old ones.
        tested(&mut stage, silent());
        let expected = "nothing but a person could prove off a, with g1";
        assert_eq!(waiting_for_people(&stage.state, &BTreeSet::new()).as_deref(), Some(expected));
        tested(&mut stage, Power::On);
        assert_eq!(waiting_for_people(&stage.state, &BTreeSet::new()), None);
        let day = std::time::Duration::from_secs(86_400);
        assert_eq!(stage.state.stale_paths(|_| 3 * day - std::time::Duration::from_secs(1)), BTreeSet::new());
        let stale = stage.state.stale_paths(|_| 3 * day);
        assert_eq!(
            waiting_for_people(&stage.state, &stale).as_deref(),
            Some(expected),
            "it has not been tried for days"
        );
    }

    #[test]
    fn what_could_not_be_tried_is_not_said_to_hold() {
        let said = told(4_000, 1, 0).unwrap();
        assert!(said.contains("is not known: 1 of 2 cases were tried"), "{said}");
    }
}
