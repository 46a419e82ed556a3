//! Feature levels: what may be committed, because everybody who applies it knows it (R26).
//!
//! A voter halts at an entry that it does not know, so nothing new is proposed before all voters can do it. The level is
//! committed and only grows; a version that cannot do the committed level does not take part.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    change::{Change, Refused},
    evidence::Evidence,
    model::{Policies, QemuDefinition},
    names::HostName,
    state::{ClusterState, Life},
    time::Moment,
};

/// A feature level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// What every version can do; also what one can that says nothing of levels.
    pub const BIRTH: Self = Self(1);
    /// Hosts can be revoked and readmitted, and a fence can be let go on beyond its budget.
    pub const REVOCATION: Self = Self(2);
    /// From this one on an agent begins nothing any more that an older generation has ordered (R25). No level of its own: no
    /// command of a recovery is ever committed, and no version was made that can do the one and not the other.
    pub const GENERATIONS: Self = Self::REVOCATION;
    /// From this one on a fence beyond a budget is refused by whoever applies it. An earlier version does not refuse it, so before
    /// that it counts for everybody: an attempt that some voters know of and others do not could be a late shot (R20).
    pub const BUDGETS: Self = Self::REVOCATION;
    /// From this one on an order to stop what a host has of a guest without a right outlasts whatever else becomes of the guest. An
    /// earlier version forgets it, and before all can do this the versions that apply one log agree on what is ordered.
    pub const STRAYS: Self = Self::REVOCATION;
    /// From this one on a guest with much memory is given longer to be sent, and two versions would write different times into
    /// one order before all can do this.
    pub const LONG_SENDS: Self = Self::REVOCATION;
    /// From this one on everybody makes of an entry what the version that came with it makes of it. Before, nothing is refused that an
    /// earlier version takes in, and nothing counted otherwise: orders and incidents are numbered by the state, and one that some
    /// have and others have not would give its number to another one there. What a later version makes otherwise has its own level.
    pub const ALIKE: Self = Self::REVOCATION;
    /// A live move can be called off before its switch. An earlier version refuses the wish, and an agent of one hands a guest over
    /// also when its order to send it was withdrawn.
    pub const CALLED_OFF: Self = Self(3);
    /// From this one on long entries and snapshots are packed, which an earlier version cannot read, and an entry may be as long as
    /// this version sends it. No level of its own: no version was made that can do the one and not the other.
    pub const PACKED: Self = Self::CALLED_OFF;
    /// From this one on people are told once of a guest that cannot be stopped, and not at every try. An earlier version counts each of
    /// them as a change of the incident, and that count says who has been told.
    pub const TOLD_ONCE: Self = Self(4);
    /// From this one on a guest whose move has failed is not left down because the one of its two hosts that is in maintenance was the
    /// last to answer, nor is one that an operator starts because it was stopped on such a host. An earlier version refuses its start. No
    /// level of its own: no version was made that can do the one and not the other.
    pub const SENT_AWAY: Self = Self::TOLD_ONCE;
    /// From this one on a guest whose ladder is declared anew while it is climbed goes on where the new one begins to differ. An earlier
    /// version goes by the number of the rung alone. No level of its own, for the same reason.
    pub const LADDERS: Self = Self::TOLD_ONCE;
    /// From this one on a guest that is being stopped keeps away from the host that its ladder has sent it away from, also when that boots
    /// anew meanwhile. An earlier version forgets that. No level of its own, for the same reason.
    pub const KEPT_AWAY: Self = Self::TOLD_ONCE;
    /// From this one on what was tried to switch a host on is over when the boot that was proven gone is taken in again. An earlier version
    /// keeps it, and what people were told of it. No level of its own, for the same reason.
    pub const IS_ON: Self = Self::TOLD_ONCE;
    /// From this one on no guest is started on a host that has been drained, set to maintenance or quarantined since that was decided. An
    /// earlier version takes the start in. No level of its own, for the same reason.
    pub const TAKES_NONE: Self = Self::TOLD_ONCE;
    /// From this one on the incidents that ended longest ago are forgotten first. An earlier version forgets those that began first, also
    /// one that has just ended, and what some have forgotten and others have not would tell people differently of it. No level of its
    /// own, for the same reason.
    pub const ENDS: Self = Self::TOLD_ONCE;
    /// From this one on a host that is being fenced may be ordered to stop what it has of a guest without a right. An earlier version refuses
    /// that. No level of its own, for the same reason.
    pub const STOPS_IN_FENCE: Self = Self::TOLD_ONCE;
    /// From this one on a ladder that is declared anew counts as tried what it begins with wherever that stood on the one before, and keeps
    /// the wait of the newest try. An earlier version goes by what both begin with, and by the wait of the rung at the new place.
    pub const WAITS: Self = Self(5);
    /// From this one on an operator's move is refused where the room is promised to a guest that is being stopped to start there. An
    /// earlier version takes the move in. No level of its own: no version was made that can do the one and not the other.
    pub const PROMISED: Self = Self::WAITS;
    /// From this one on a guest that its ladder sends away from a host, or that is moved, is not kept for that one when it goes as announced.
    /// An earlier version has it wait there. No level of its own, for the same reason.
    pub const NOT_KEPT: Self = Self::WAITS;
    /// From this one on nobody is told that a guest is down which is stopped for its move, or for another guest, a little after its ladder
    /// was climbed. An earlier version opens an incident when it starts again. No level of its own, for the same reason.
    pub const PLANNED_STOPS: Self = Self::WAITS;
    /// From this one on an operator's move of a guest that has been given up is refused, because nothing would come of it before a person
    /// has looked after the guest. An earlier version takes the move in. No level of its own, for the same reason.
    pub const GIVEN_UP: Self = Self::WAITS;
    /// What this version can do.
    pub const HIGHEST: Self = Self::WAITS;
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::BIRTH
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Change {
    /// From which feature level on it may be committed (R26). A new kind of change has the level that it comes with, because
    /// a voter of an older version halts at an entry that it does not know.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        match self {
            Self::HostRevoked { .. } | Self::HostReadmitted { .. } | Self::FenceAllowed { .. } => FeatureLevel::REVOCATION,
            Self::HostJoined { .. }
            | Self::FenceOpened { .. }
            | Self::FenceAttempted { .. }
            | Self::FenceSuperseded { .. }
            | Self::HostGone { .. }
            | Self::HostArmed { .. }
            | Self::LeaseClosed { .. }
            | Self::HostReturned { .. }
            | Self::StoppedByLease { .. }
            | Self::Vacated { .. }
            | Self::FenceForgotten { .. }
            | Self::QuarantineLifted { .. }
            | Self::NameContested { .. }
            | Self::DeviceDistrusted { .. }
            | Self::DeviceTrusted { .. }
            | Self::PowerOnOrdered { .. }
            | Self::DrillBegun { .. }
            | Self::DrillEnded { .. }
            | Self::FenceTested { .. }
            | Self::StormHoldReleased { .. }
            | Self::StormEnded
            | Self::GuestFree { .. }
            | Self::GuestAdopted { .. }
            | Self::Place { .. }
            | Self::Climb { .. }
            | Self::Migrate { .. }
            | Self::MoveAsked { .. }
            | Self::LookedAfter { .. }
            | Self::StrayFound { .. }
            | Self::MovedOutside { .. }
            | Self::Stop { .. }
            | Self::ReleaseAgain { .. }
            | Self::Verified { .. }
            | Self::LadderReset { .. }
            | Self::OrderEnded { .. }
            | Self::IncidentOpened { .. }
            | Self::IncidentResolved { .. }
            | Self::Delivered { .. }
            // Some have a level of their own: see [`ClusterState::too_early`].
            | Self::PoliciesApplied { .. }
            | Self::ModeSet { .. }
            | Self::WantedSet { .. }
            | Self::SuspensionSet { .. }
            // Proposed only when all can do it: it is how the first level is left.
            | Self::LevelRaised { .. } => FeatureLevel::BIRTH,
        }
    }
}

impl Policies {
    /// From which feature level on they may be declared (R26). What an earlier version does not know it leaves out of its state,
    /// without a word: as a coordinator it decides without that, and after its upgrade it has lost it.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        let of_qemu = |qemu: &QemuDefinition| qemu.vsock.is_some() || qemu.display.is_some() || qemu.cpu.is_some();
        let of_cluster = self.cluster.quarantine_after_fences.is_some() || !self.cluster.capacities.is_empty();
        let is_newer = of_cluster || self.guests.values().any(|guest| of_qemu(&guest.qemu));
        if is_newer { FeatureLevel::REVOCATION } else { FeatureLevel::BIRTH }
    }
}

impl ClusterState {
    /// Why these policies are not declared yet, if some voter may not know all that is in them. Whoever takes them from an operator
    /// asks this; where they have been committed nevertheless they count.
    #[must_use]
    pub fn too_early(&self, policies: &Policies) -> Option<Refused> {
        let (needs, is) = (policies.level(), self.level);
        (needs > is).then_some(Refused::Level { needs, is })
    }
}

/// What each host can do that counts for raising the level: every voter, `None` while it has not said so within `fresh`, and
/// every other host that this coordinator has heard and that is not proven gone: what that one could do, nobody waits for.
#[must_use]
pub fn abilities(
    state: &ClusterState,
    evidence: &Evidence,
    now: Moment,
    fresh: Duration,
) -> BTreeMap<HostName, Option<FeatureLevel>> {
    let said = |host: &HostName, within: Option<Duration>| {
        let seen = evidence.hosts.get(host)?;
        let sync = seen.sync.as_ref()?;
        within.is_none_or(|within| now.since(sync.at) < within).then_some(seen.level)
    };
    let voters = evidence.voters.iter().map(|voter| (voter.clone(), said(voter, Some(fresh))));
    let others = state.hosts.iter().filter(|(host, _)| !evidence.voters.contains(*host));
    let others = others.filter(|(_, known)| !matches!(known.life, Life::Gone { .. }));
    let others = others.filter_map(|(host, _)| Some((host.clone(), Some(said(host, None)?))));
    voters.chain(others).collect()
}

/// Raises the level when all can do a higher one.
#[must_use]
pub fn to_raise(state: &ClusterState, evidence: &Evidence, now: Moment, fresh: Duration) -> Option<Change> {
    if state.level >= FeatureLevel::HIGHEST || evidence.voters.is_empty() {
        return None;
    }
    // One that has not said what it can do is less than any that has.
    let all = abilities(state, evidence, now, fresh).into_values().min()??;
    let to = all.min(FeatureLevel::HIGHEST);
    (to > state.level).then_some(Change::LevelRaised { to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{Heard, HostEvidence},
        fixture::{Stage, boot, host, name},
        model::{DisplayModel, VSOCK_PORT, Vsock, VsockCarrier},
        rules::CapacitySettings,
    };

    const FRESH: Duration = Duration::from_millis(1_500);

    /// `a` and `b` vote, `c` does not; each has synced at this moment, and can do so much.
    fn evidence(said: &[(&str, u64, u32)]) -> Evidence {
        let heard = |(of, at, level): &(&str, u64, u32)| {
            let sync = Some(Heard { at: Moment(*at), incarnation: boot(&format!("{of}.1")) });
            (host(of), HostEvidence { sync, level: FeatureLevel(*level), ..HostEvidence::default() })
        };
        let voters = [host("a"), host("b")].into();
        Evidence { voters, hosts: said.iter().map(heard).collect(), ..Evidence::default() }
    }

    #[test]
    fn the_level_is_raised_only_when_all_voters_and_the_members_that_are_heard_can_do_it() {
        let mut stage = Stage::new(&["a", "b", "c"], &[]);
        let raised = |said: &[(&str, u64, u32)]| to_raise(&stage.state, &evidence(said), Moment(10_000), FRESH);
        let second = Some(Change::LevelRaised { to: FeatureLevel(2) });
        assert_eq!(raised(&[("a", 9_900, 2), ("b", 9_900, 2), ("c", 9_900, 2)]), second);
        assert_eq!(raised(&[("a", 9_900, 2), ("b", 9_900, 2)]), second, "a member that is away holds up nobody");
        let highest = Some(Change::LevelRaised { to: FeatureLevel::HIGHEST });
        assert_eq!(raised(&[("a", 9_900, 9), ("b", 9_900, 9)]), highest, "no further than this version goes");
        assert_eq!(raised(&[("a", 9_900, 2), ("b", 9_900, 1)]), None, "a voter of an older version");
        assert_eq!(raised(&[("a", 9_900, 2), ("b", 9_900, 2), ("c", 5_000, 1)]), None, "a member of an older version");
        assert_eq!(raised(&[("a", 9_900, 2)]), None, "a voter that says nothing");
        assert_eq!(raised(&[("a", 9_900, 2), ("b", 5_000, 2)]), None, "nobody knows what it comes back as");
        assert_eq!(to_raise(&stage.state, &Evidence::default(), Moment(10_000), FRESH), None);
        // To revoke a stolen host takes the second level, which that host must not be able to hold up.
        let gone = stage.gone("c");
        stage.must(gone);
        let older = evidence(&[("a", 9_900, 2), ("b", 9_900, 2), ("c", 5_000, 1)]);
        assert_eq!(to_raise(&stage.state, &older, Moment(10_000), FRESH), second, "a member that is proven gone");
    }

    #[test]
    fn nothing_is_raised_twice_and_what_needs_a_higher_level_is_refused() {
        let mut stage = Stage::new(&["a", "b"], &[]);
        let (needs, is) = (FeatureLevel::REVOCATION, FeatureLevel::BIRTH);
        let gone = stage.gone("a");
        stage.must(gone);
        let revoke =
            Change::HostRevoked { host: host("a"), why: "stolen".to_owned(), keys: [].into(), by: "ann".to_owned() };
        assert_eq!(stage.refused(revoke.clone()), crate::change::Refused::Level { needs, is });
        stage.must(Change::LevelRaised { to: needs });
        let all = evidence(&[("a", 9_900, 2), ("b", 9_900, 2)]);
        assert_eq!(to_raise(&stage.state, &all, Moment(10_000), FRESH), None);
        assert!(matches!(stage.refused(Change::LevelRaised { to: needs }), crate::change::Refused::Already { .. }));
        stage.must(revoke);
    }

    fn web(policies: &mut Policies) -> &mut QemuDefinition {
        &mut policies.guests.get_mut(&name("web")).unwrap().qemu
    }

    #[test]
    fn what_an_earlier_version_does_not_know_is_not_declared_before_all_voters_know_it() {
        let mut stage = Stage::new(&["a"], &["web"]);
        let before = stage.state.policies.clone();
        assert_eq!(stage.state.too_early(&before), None);
        let (needs, is) = (FeatureLevel::REVOCATION, FeatureLevel::BIRTH);
        let changes: [fn(&mut Policies); 5] = [
            |policies| policies.cluster.quarantine_after_fences = Some(3),
            |policies| policies.cluster.capacities = [("iops".to_owned(), CapacitySettings::default())].into(),
            |policies| web(policies).display = Some(DisplayModel::Vga),
            |policies| web(policies).cpu = Some("Westmere".to_owned()),
            |policies| {
                web(policies).vsock = Some(Vsock { carrier: VsockCarrier::Kernel { cid: 100 }, port: VSOCK_PORT });
            },
        ];
        let newer = changes.map(|change| {
            let mut policies = before.clone();
            change(&mut policies);
            policies
        });
        for policies in &newer {
            assert_eq!(stage.state.too_early(policies), Some(Refused::Level { needs, is }), "{policies:?}");
        }
        stage.must(Change::LevelRaised { to: needs });
        assert!(newer.iter().all(|policies| stage.state.too_early(policies).is_none()));
    }

    #[test]
    fn a_state_and_a_sync_of_an_older_version_are_of_the_first_level() {
        let mut state = serde_json::to_value(ClusterState::born()).unwrap();
        let fields = state.as_object_mut().unwrap();
        assert!(fields.remove("level").is_some() && fields.remove("revoked").is_some());
        let read: ClusterState = serde_json::from_value(state).unwrap();
        assert_eq!(read, ClusterState::born());
        assert_eq!(read.level, FeatureLevel::BIRTH);
    }
}
