//! Evidence: what the coordinator has heard, on its own clock. It is never replicated; what a decision rests on is
//! written into the journal with the decision.
//!
//! Which boots live under one name is in `boots.rs`, and how old log entries are in `marks.rs`.

mod boots;
mod left;
mod marks;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use self::{
    boots::{BESIDE_AGAIN, BESIDE_TIMES, Beside, NOT_OVER, OtherBoot},
    left::{JUST_HEARD, Left},
    marks::Marks,
};
use crate::{
    armed::Armed,
    feature_level::FeatureLevel,
    model::FenceLevel,
    names::{Epoch, GuestName, HostName, Incarnation, ServiceName, Vantage},
    observe::{GuestCondition, GuestReport},
    proof::{Power, PowerReading},
    revocation::KeyId,
    sync::{Authority, SightsMark},
    time::{Moment, WallTime},
    timing::TimingTold,
};

/// Everything that the coordinator has heard.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The first read round of this leadership that a majority confirmed; before it nothing counts (R18).
    pub quorum_since: Option<Moment>,
    /// When this leadership's authority began: no earlier leader can have granted a lease after it (R18).
    pub authority_since: Option<Moment>,
    /// Until when what arrives may have waited here while the coordinator stood still, and be older than it says.
    pub held_until: Option<Moment>,
    /// The coordinator itself.
    pub me: Option<HostName>,
    /// Hosts with a vote.
    pub voters: BTreeSet<HostName>,
    /// By host.
    pub hosts: BTreeMap<HostName, HostEvidence>,
    /// What each vantage says of each service.
    pub services: BTreeMap<GuestName, BTreeMap<ServiceName, BTreeMap<Vantage, Sight>>>,
    /// When log entries were applied here.
    pub marks: Marks,
    /// When this host last tried to hand the lead over (R29); kept from one leadership to the next.
    pub handed_over: Option<Moment>,
}

/// What was heard of one host.
#[derive(Debug, Clone, Default)]
pub struct HostEvidence {
    /// The newest sync.
    pub sync: Option<Heard>,
    /// The newest gossip datagram or guard's beacon that arrived at the coordinator.
    pub heard: Option<Heard>,
    /// What the other voters answered when asked (R17).
    pub answers: BTreeMap<HostName, Answer>,
    /// What the power devices of each level said last, by its position; see [`HostEvidence::read`].
    pub power: BTreeMap<usize, PowerReading>,
    /// When the power devices of each level were last asked, whatever came of it.
    pub asked: BTreeMap<usize, Moment>,
    /// Levels that have called the host off in a test, by position.
    pub tested_off: BTreeMap<usize, TestedOff>,
    /// What the host said of its guests in its newest sync; complete. See [`HostEvidence::report`].
    pub reports: BTreeMap<GuestName, GuestReport>,
    /// When guests among those were last known to stand still, and under which assignment: paused, stopped by QEMU, or frozen.
    pub stood_still: BTreeMap<GuestName, (Epoch, Moment)>,
    /// Since when it has been saying of guests among those that they are paused, or that it cannot tell how they are, and under which
    /// assignment.
    pub unclear: BTreeMap<GuestName, (Epoch, Moment)>,
    /// Guests that have left it as one does that other tools move.
    pub left: Left,
    /// Why the host doubts itself, if it does.
    pub unwell: Option<String>,
    /// Since when it has been saying in its syncs that it is not well, and why by the newest of them.
    pub unwell_for: Option<(Moment, String)>,
    /// When it last said so. What is well only now and then is nothing to go back to.
    pub unwell_at: Option<Moment>,
    /// The newest lease that this leader has granted, whether the reply arrived or not: to which boot, and when the time
    /// from which it counts began.
    pub granted: Option<Heard>,
    /// The newest authority that its agent had seen when it last synced.
    pub seen: Authority,
    /// What it said in its newest sync that it has armed.
    pub armed: Option<Armed>,
    /// Whether it said in its newest sync that it has a watchdog that it can arm.
    pub has_watchdog: Option<bool>,
    /// The highest feature level that it said in its newest sync that it can do (R26).
    pub level: FeatureLevel,
    /// The gossip keys that its supervisor said in its newest sync that it holds.
    pub gossip_keys: BTreeSet<KeyId>,
    /// `timing` of its host file, if its supervisor said that in its newest sync.
    pub timing: Option<TimingTold>,
    /// When its certificate ends, if its supervisor said that in its newest sync.
    pub certificate_ends: Option<WallTime>,
    /// The newest sign of a boot that is not the one that has joined.
    pub other_boot: Option<OtherBoot>,
    /// How often another boot and the one that has joined were heard at once; see [`Evidence::note_beside`].
    pub beside: Option<Beside>,
    /// Why this boot stops its guests, or has, as it gossips; nothing is decided by it.
    pub last_words: Option<String>,
    /// How far what it sees of services is known; `None`: it has to tell all of it.
    pub sights_known: Option<SightsMark>,
}

/// Longest last words that are kept, in bytes: a sentence before the guests are stopped, and one after.
pub const LAST_WORDS_BYTES_MAX: usize = 600;

/// A level whose devices were tried while nothing was wrong, and called the host off. It is no proof: when they said so within the
/// test nobody knows. But a boot that had joined before it, and is heard after it, has been on all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestedOff {
    /// The boot that had joined when the test began.
    pub incarnation: Incarnation,
    /// When the answer was here: they had said so by then.
    pub answered: Moment,
    /// The level as it was declared for the test.
    pub declared: FenceLevel,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// When it arrived here.
    pub at: Moment,
    /// Of which boot it was.
    pub incarnation: Incarnation,
}

/// What a voter answered to "how long ago did you last hear this boot of this host?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// When it was asked.
    pub asked: Moment,
    /// The age at that time; `None` when it never heard that boot.
    pub age: Option<Duration>,
    /// Whether it counts: it is well, hears a majority, and has been up long enough.
    pub counts: bool,
}

/// What one vantage makes of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The assignment under which the guest was asked.
    pub epoch: Epoch,
    /// What the last answers in a row amount to.
    pub state: SightState,
    /// When the vantage last asked.
    pub at: Moment,
    /// Since when it has been saying the same, as far as this coordinator has heard.
    pub since: Moment,
    /// When it last passed.
    pub passed: Option<Moment>,
    /// Whether its answers come with a warning.
    pub warns: bool,
    /// The newest detail.
    pub detail: String,
}

impl Sight {
    /// Whether the vantage got no answer to its newest question, or has got none often enough for a failure. Nothing is said by one that
    /// could not ask, or whose service has yet to come up.
    #[must_use]
    pub(crate) fn is_unanswered(&self) -> bool {
        match self.state {
            SightState::Failing => true,
            SightState::Passing | SightState::Slow | SightState::Flapping => {
                self.passed.is_none_or(|passed| passed < self.at)
            }
            SightState::Unknown => false,
        }
    }

    /// The same, when `before` is what the vantage had said before: what it says again it has been saying since then.
    #[must_use]
    pub fn following(self, before: Option<&Self>) -> Self {
        match before {
            Some(before) if (before.epoch, before.state) == (self.epoch, self.state) => {
                Self { since: before.since, ..self }
            }
            Some(_) | None => self,
        }
    }
}

/// What answers in a row amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SightState {
    /// It passes.
    Passing,
    /// It passes, and too many of its answers take too long.
    Slow,
    /// It begins and ceases to answer more often than the policy allows.
    Flapping,
    /// It has failed as often in a row as the policy says.
    Failing,
    /// Nothing can be said yet, or nothing could be asked.
    Unknown,
}

impl HostEvidence {
    /// The newest sign of life of this boot that reached the coordinator itself.
    #[must_use]
    pub fn last_life(&self, incarnation: &Incarnation) -> Option<Moment> {
        let signs = self.sync.iter().chain(&self.heard);
        signs.filter(|heard| heard.incarnation == *incarnation).map(|heard| heard.at).max()
    }

    /// The newest sign of life of this boot to the coordinator, or to another voter.
    #[must_use]
    pub(crate) fn last_word(&self, incarnation: &Incarnation) -> Option<Moment> {
        let voters = self.answers.values().filter_map(|answer| answer.age.map(|age| answer.asked.minus(age)));
        voters.chain(self.last_life(incarnation)).max()
    }

    /// Whether the host had learned of a log index before its newest sync: what it says there of its guests is of after that. When a
    /// sync has arrived says less, for it may have been on its way for long.
    #[must_use]
    pub(crate) fn has_learned(&self, generation: u32, index: u64) -> bool {
        (self.seen.generation, self.seen.index) >= (generation, index)
    }

    /// Takes in what the host says of its guests in a sync that came at `now`: of all of them. Of those that stood still it is
    /// remembered until when, for whoever lets a guest run again by hand tells nobody.
    pub fn report(&mut self, reports: BTreeMap<GuestName, GuestReport>, now: Moment) {
        self.stood_still.retain(|guest, (epoch, _)| reports.get(guest).is_some_and(|report| report.epoch == *epoch));
        for (guest, report) in &reports {
            let before = self.reports.get(guest).filter(|before| before.epoch == report.epoch);
            if stands_still(report) || before.is_some_and(stands_still) {
                self.stood_still.insert(guest.clone(), (report.epoch, now));
            }
        }
        let goes_on = |report: &GuestReport, epoch| report.epoch == epoch && is_unclear(&report.condition);
        self.unclear.retain(|guest, (epoch, _)| reports.get(guest).is_some_and(|report| goes_on(report, *epoch)));
        for (guest, report) in reports.iter().filter(|(_, report)| is_unclear(&report.condition)) {
            self.unclear.entry(guest.clone()).or_insert((report.epoch, now));
        }
        self.left.take(&self.reports, &reports, now);
        self.reports = reports;
    }

    /// Takes a power reading in. Each level is remembered by itself, and silence never displaces what a device has said of
    /// the same boot: that it was off stays so for that boot, however often the device cannot be asked afterwards. What is
    /// said later displaces what was said before.
    pub fn read(&mut self, reading: PowerReading) {
        let asked = self.asked.entry(reading.level).or_insert(reading.asked);
        *asked = reading.asked.max(*asked);
        let displaces = self.power.get(&reading.level).is_none_or(|known| is_newer(&reading, known));
        if displaces {
            self.power.insert(reading.level, reading);
        }
    }
}

/// Whether nothing can be made of the guest: neither is it well, nor has it failed (S5).
fn is_unclear(condition: &GuestCondition) -> bool {
    match condition {
        GuestCondition::Paused { .. } | GuestCondition::Unknown { .. } => !condition.is_broken(),
        GuestCondition::Running
        | GuestCondition::IoError { .. }
        | GuestCondition::Panicked
        | GuestCondition::Incoming
        | GuestCondition::Sent
        | GuestCondition::Exited { .. } => false,
    }
}

/// Whether what is in the guest cannot answer, and goes on where it was when it is let run again, or can write again.
fn stands_still(report: &GuestReport) -> bool {
    let condition = &report.condition;
    match condition {
        GuestCondition::Paused { .. } | GuestCondition::IoError { .. } => !condition.is_broken(),
        GuestCondition::Running => report.frozen_left(Duration::ZERO).is_some(),
        GuestCondition::Panicked
        | GuestCondition::Incoming
        | GuestCondition::Sent
        | GuestCondition::Exited { .. }
        | GuestCondition::Unknown { .. } => false,
    }
}

fn is_newer(reading: &PowerReading, known: &PowerReading) -> bool {
    let same = reading.incarnation == known.incarnation && reading.declared == known.declared;
    match (&known.power, &reading.power) {
        (Power::Off | Power::On, Power::Unknown { .. }) if same => false,
        (Power::Unknown { .. }, Power::Off | Power::On) if same => true,
        // Of two that say different things of one moment, the one that is no proof counts.
        (Power::On, Power::Off) => known.asked < reading.asked,
        (Power::Off | Power::On | Power::Unknown { .. }, Power::Off | Power::On | Power::Unknown { .. }) => {
            known.asked <= reading.asked
        }
    }
}

impl Evidence {
    /// Whether what arrives now may have waited while the coordinator stood still. It says how old it was when it was sent, and
    /// nothing is to be concluded from what was seen of services then (S5).
    #[must_use]
    pub fn may_have_waited(&self, now: Moment) -> bool {
        self.held_until.is_some_and(|until| now <= until)
    }

    /// The newest sign of life of this boot that reached the coordinator itself.
    #[must_use]
    pub fn last_life(&self, host: &HostName, incarnation: &Incarnation) -> Option<Moment> {
        self.hosts.get(host)?.last_life(incarnation)
    }

    /// The newest pass of any service of this guest, under this epoch, from a vantage that is another host.
    #[must_use]
    pub(crate) fn last_pass_from_others(&self, guest: &GuestName, epoch: Epoch, home: &HostName) -> Option<Moment> {
        let services = self.services.get(guest)?;
        let sights = services.values().flatten().filter(|(vantage, sight)| match vantage {
            Vantage::Host(host) => host != home && sight.epoch == epoch,
            Vantage::Inside => false,
        });
        sights.filter_map(|(_, sight)| sight.passed).max()
    }
}

/// Whether a report says that something of the guest is there.
#[must_use]
pub fn is_there(condition: &GuestCondition) -> bool {
    !matches!(condition, GuestCondition::Exited { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{boot, off};

    fn unknown() -> Power {
        Power::Unknown { detail: "no answer".to_owned() }
    }

    fn read(readings: impl IntoIterator<Item = PowerReading>) -> BTreeMap<usize, (Power, u64)> {
        let mut evidence = HostEvidence::default();
        readings.into_iter().for_each(|reading| evidence.read(reading));
        evidence.power.into_iter().map(|(level, reading)| (level, (reading.power, reading.asked.0))).collect()
    }

    fn said(asked: u64, power: Power) -> PowerReading {
        PowerReading { power, ..off("d", Moment(asked)) }
    }

    #[test]
    fn silence_never_displaces_what_a_device_has_said_of_the_same_boot() {
        let alone = |power, asked| BTreeMap::from([(0, (power, asked))]);
        assert_eq!(read([said(10, Power::Off), said(20, unknown())]), alone(Power::Off, 10));
        assert_eq!(read([said(20, unknown()), said(10, Power::Off)]), alone(Power::Off, 10), "a late word counts");
        assert_eq!(read([said(15, Power::On), said(20, unknown()), said(10, Power::Off)]), alone(Power::On, 15));
        assert_eq!(read([said(10, Power::On), said(20, Power::Off)]), alone(Power::Off, 20));
        assert_eq!(read([said(10, Power::Off), said(20, Power::On)]), alone(Power::On, 20));
        for both in [[Power::On, Power::Off], [Power::Off, Power::On]] {
            assert_eq!(read(both.map(|power| said(10, power))), alone(Power::On, 10), "no proof out of a draw");
        }
    }

    #[test]
    fn a_reading_of_another_boot_or_of_another_device_takes_its_place() {
        let next = PowerReading { incarnation: boot("d.2"), ..said(20, unknown()) };
        assert_eq!(read([said(10, Power::Off), next])[&0], (unknown(), 20));
        let declared = crate::model::FenceLevel::Lease(crate::model::LeaseLevel::default());
        let elsewhere = PowerReading { declared, ..said(20, unknown()) };
        assert_eq!(read([said(10, Power::Off), elsewhere])[&0], (unknown(), 20));
    }

    #[test]
    fn each_level_is_remembered_by_itself() {
        let second = PowerReading { level: 1, ..said(10, Power::Off) };
        let both = read([second, said(20, Power::On)]);
        assert_eq!(both, BTreeMap::from([(0, (Power::On, 20)), (1, (Power::Off, 10))]));
    }

    #[test]
    fn until_when_a_guest_stood_still_is_remembered_for_as_long_as_it_is_reported_under_that_assignment() {
        let guest = crate::fixture::name("web");
        let mut host = HostEvidence::default();
        let mut until = |said: Option<(u64, GuestCondition)>, now: u64| {
            let report =
                |(index, condition)| GuestReport::new(guest.clone(), Epoch { generation: 1, index }, condition);
            host.report(said.map(report).into_iter().map(|report| (guest.clone(), report)).collect(), Moment(now));
            host.stood_still.get(&guest).map(|(epoch, until)| (epoch.index, until.0))
        };
        let paused = || GuestCondition::Paused { reason: "paused".to_owned() };
        let broken = || GuestCondition::IoError { detail: "disk0".to_owned() };
        assert_eq!(until(Some((7, GuestCondition::Running)), 1), None);
        assert_eq!(until(Some((7, paused())), 2), Some((7, 2)));
        assert_eq!(until(Some((7, GuestCondition::Running)), 9), Some((7, 9)), "nobody knows when it was between");
        assert_eq!(until(Some((7, GuestCondition::Running)), 10), Some((7, 9)));
        assert_eq!(until(Some((7, broken())), 11), Some((7, 11)));
        assert_eq!(until(Some((8, GuestCondition::Running)), 12), None, "it was started anew");
        assert_eq!(until(Some((8, broken())), 13), Some((8, 13)));
        assert_eq!(until(None, 14), None);
    }
}
