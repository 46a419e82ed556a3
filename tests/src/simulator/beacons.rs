//! Beacons of guards, and how voters find out by them whether they hear a majority.

use super::{Ms, breaks::Break, network::Transit, queue::Event, world::World};

/// How often a guard sends its beacon.
pub(super) const BEACON: Ms = 250;

impl World {
    /// The guard's beacon, to every voter.
    pub(super) fn beacon(&mut self, host: usize, boot: u32) {
        let now = self.now;
        let number = self.hosts[host].boot_number();
        let of = self.speaks_as(host);
        self.hosts[host].beats += 1;
        let beat = self.hosts[host].beats;
        let silent = self.broken == Some(Break::R13) && self.hosts[host].supervisor.is_none();
        for voter in 0..self.voters.len() {
            if !self.hears_of(voter, of, number) {
                continue;
            }
            if self.network.good(host, voter, now) {
                // A good link takes a millisecond or two, which no silence is measured in.
                match (self.hosts[voter].serves(now), silent) {
                    (true, false) => {
                        self.hosts[voter].hear(of, number, now);
                        self.note_beacon(voter, of, number, beat);
                    }
                    (true, true) => self.hosts[voter].could_hear(of, number, now),
                    (false, _) => {}
                }
                continue;
            }
            if silent {
                continue;
            }
            match self.network.send(host, voter, now, &mut self.random) {
                Transit::Lost => {}
                Transit::After(wait) | Transit::Twice(wait, _) => {
                    self.queue.push(now + wait, Event::BeaconHeard { at: voter, of, boot: number, beat });
                }
            }
        }
        self.queue.push(now + BEACON, Event::Beacon { host, boot });
        if host < self.voters.len() {
            self.listen(host);
            self.look_at_link(host);
        }
        let known = &mut self.hosts[host];
        if !known.serves(now) {
            known.well_since = now;
        }
    }

    /// Whether a voter hears a majority of the voters (R17).
    fn listen(&mut self, voter: usize) {
        let (now, members) = (self.now, &self.members);
        let known = &mut self.hosts[voter];
        let fresh = |of: &&usize| known.heard[**of].is_some_and(|(at, _)| now - at < 1_500);
        let hears = members.iter().filter(fresh).count();
        if hears * 2 > members.len() && known.supervisor.is_some() {
            known.connected_since.get_or_insert(now);
        } else {
            known.connected_since = None;
        }
    }
}
