//! Power devices that call a living host off although somebody has verified their wiring (R9).
//!
//! No protocol survives every such lie: of a host that nobody hears, the word of a verified device is all that there is to know,
//! and it is proof. What is promised is less: nothing is proven before two beacons of the host have been missed, a sign of life
//! that came after the device was asked voids its word, and once the host has been heard for long enough after it the device is
//! distrusted and somebody is paged. So a lie reaches a coordinator here only when it has heard the host since it asked, or so
//! shortly before that the next beacons are on their way. If they do not come, the lie is lost after all: then no rule can tell.
//!
//! ```text
//!   asked ---- the host is heard ---- the lie is told ---- heard 10 s after the question ---- distrusted ---- somebody is paged
//!   heard ---- the lie is told ---+-- heard: the same
//!                                 +-- two beacons are missed ---- the lie is lost
//! ```
//! That nothing is proven by it, and so nothing runs twice for it, is what [`super::checks`] looks at with every proof.

use std::time::Duration;

use holdfast_policies::{
    change::Change,
    names::{HostName, Incarnation},
    proof::{Power, PowerReading},
    time::Moment,
};

use super::{Ms, breaks::Break, device::Device, host::boot_of, world::World};

/// Two beacons of the host. For so long after the newest no device's word is proof.
const TWO_BEACONS: Duration = Duration::from_millis(500);
/// The product distrusts a device for what was heard ten seconds after it was asked; a host that is well is heard by then.
const CONTRADICTED_AFTER: Duration = Duration::from_secs(22);
/// A host that has reached the coordinator for so long syncs with it.
const WELL_FOR: Ms = 12_000;
/// A device that is distrusted is told of within this.
const PAGED_AFTER: Ms = 3_000;
/// A coordinator that has found the word of a device void takes no proof from it for so long.
pub(super) const REST_AFTER_LIE: Ms = 15_000;
/// From the newest lie until its device is distrusted and somebody is paged for it: its host comes back and is well for a while, it is
/// contradicted, and paged for.
pub(super) const LIE_OVER_WITHIN: Ms = WELL_FOR + 22_000 + PAGED_AFTER + REST_AFTER_LIE;

/// A lie that a coordinator was told, and of which something is still to be seen.
#[derive(Debug, Clone)]
pub struct Lie {
    voter: usize,
    term: u64,
    about: usize,
    level: usize,
    incarnation: Incarnation,
    /// On that coordinator's clock.
    asked: Moment,
    /// When it was found to be distrusted for it.
    distrusted: Option<Ms>,
}

impl World {
    /// Whether a device's word reaches the coordinator: what is so does, and a lie that is contradicted, or may be at once.
    pub(super) fn is_heard_out(&mut self, voter: usize, host: &HostName, reading: &PowerReading) -> bool {
        if !self.lies_drawn || reading.power != Power::Off {
            return true;
        }
        let Some(about) = self.machine_of(host, &reading.incarnation) else { return true };
        if !self.lives(about, &reading.incarnation) {
            return true;
        }
        self.refresh(voter);
        let now = self.hosts[voter].clock(self.now);
        let heard = self.voters[voter].brain.evidence.last_life(host, &reading.incarnation);
        if heard.is_none_or(|heard| heard < reading.asked && now.since(heard) >= TWO_BEACONS) {
            return false;
        }
        self.story.note(self.real(), || format!("a power device of {host} says that it is off, and it is on"));
        if about < self.named {
            self.note_lie(voter, about, reading);
        }
        true
    }

    fn note_lie(&mut self, voter: usize, about: usize, reading: &PowerReading) {
        self.seen.lies += 1;
        self.lies.retain(|lie| (lie.about, lie.level) != (about, reading.level));
        self.lies.push(Lie {
            voter,
            term: self.voters[voter].term,
            about,
            level: reading.level,
            incarnation: reading.incarnation.clone(),
            asked: reading.asked,
            distrusted: None,
        });
    }

    /// Loses the lies that this coordinator was told and that the host's next beacons have not contradicted.
    pub(super) fn lose_lies(&mut self, voter: usize) {
        if !self.lies_drawn || self.broken == Some(Break::R9) {
            return;
        }
        let now = self.hosts[voter].clock(self.now);
        let evidence = &self.voters[voter].brain.evidence;
        let mut lost = Vec::new();
        for (name, seen) in &evidence.hosts {
            for (level, told) in seen.power.iter().filter(|(_, told)| told.power == Power::Off) {
                let machine = self.machine_of(name, &told.incarnation);
                let lives = machine.is_some_and(|machine| self.lives(machine, &told.incarnation));
                let heard = evidence.last_life(name, &told.incarnation);
                if lives && heard.is_none_or(|heard| heard < told.asked && now.since(heard) >= TWO_BEACONS) {
                    lost.push((name.clone(), *level));
                }
            }
        }
        for (name, level) in lost {
            if let Some(seen) = self.voters[voter].brain.evidence.hosts.get_mut(&name) {
                seen.power.remove(&level);
            }
        }
    }

    /// Whether this boot of a machine is on.
    fn lives(&self, machine: usize, incarnation: &Incarnation) -> bool {
        let known = &self.hosts[machine];
        known.on && known.boot_number() == boot_of(incarnation)
    }

    /// R9: a device that has called a living host off is distrusted once the host is well for long enough, and somebody is
    /// told.
    pub(super) fn check_lies(&mut self) {
        for lie in std::mem::take(&mut self.lies) {
            let left = self.look_at_lie(lie);
            self.lies.extend(left);
        }
    }

    /// What of a lie is still to be seen, if anything.
    fn look_at_lie(&mut self, lie: Lie) -> Option<Lie> {
        let (now, name) = (self.now, self.hosts[lie.about].name.clone());
        let leads = self.coordinator() == Some(lie.voter) && self.voters[lie.voter].term == lie.term;
        let known = self.truth.state.hosts.get(&name);
        let is_distrusted = known.is_some_and(|known| known.distrusted.contains(&lie.level));
        let well = now - self.reaching[lie.about].max(self.led_since) >= WELL_FOR;
        match lie.distrusted {
            None if is_distrusted => {
                self.seen.distrusted += 1;
                Some(Lie { distrusted: Some(now), ..lie })
            }
            // Nobody is left who has to do anything about it.
            None if !leads || !self.lives(lie.about, &lie.incarnation) || !self.remembers(&lie, &name) => None,
            None => {
                let clock = self.hosts[lie.voter].clock(now);
                if well && clock >= lie.asked.plus(CONTRADICTED_AFTER) {
                    self.violate("R9", format!("a power device has called {name} off, which is well, and is trusted"));
                }
                Some(lie)
            }
            Some(since) => {
                let told = self.truth.state.open_incident(&format!("fencing/{name}")).is_some();
                if told || !leads || !is_distrusted || !self.lives(lie.about, &lie.incarnation) {
                    return None;
                }
                if well && now - since > PAGED_AFTER {
                    self.violate("R9", format!("a power device of {name} is not trusted, and nobody is told"));
                }
                Some(lie)
            }
        }
    }

    /// Whether the coordinator still goes by this word: what the device says later takes its place, and so does another device, or
    /// a person's word that the device is as it should be.
    fn remembers(&self, lie: &Lie, name: &HostName) -> bool {
        let known = &self.voters[lie.voter];
        let reading = known.brain.evidence.hosts.get(name).and_then(|seen| seen.power.get(&lie.level));
        let declared = known.state.policies.levels_of(name).get(lie.level);
        // What was asked before somebody trusted the device again is known to that person, whenever the answer came.
        let trusted = known.state.hosts.get(name).map_or(0, |host| host.trusted);
        let since = trusted == 0 || lie.asked > known.marks.at(trusted);
        since
            && reading.is_some_and(|reading| {
                reading.power == Power::Off && reading.asked == lie.asked && declared == Some(&reading.declared)
            })
    }

    /// Whoever is paged for a device that is not trusted looks at it, and says when it is as it should be.
    pub(super) fn look_after_devices(&mut self, host: usize) {
        let known = &self.hosts[host];
        let wrong = known.device == Device::Wrong || known.outlets.iter().any(|outlet| outlet.device == Device::Wrong);
        let name = known.name.clone();
        let distrusted = self.truth.state.hosts.get(&name).is_some_and(|known| !known.distrusted.is_empty());
        if self.lies_drawn && distrusted && !wrong {
            // What was asked before is known.
            self.lies.retain(|lie| lie.about != host);
            self.operate(Change::DeviceTrusted { host: name, by: "ann".to_owned() });
        }
    }
}
