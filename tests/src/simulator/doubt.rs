//! Voters whose own link loses much: they doubt themselves (R17). How much is lost is found out by the product's own table, from
//! the numbers of the beacons that come. Only in worlds where such links are drawn.

use holdfast::datagram::Losses;

use super::{Ms, world::World};

/// What a voter knows of its own link.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// The beacons that came lately.
    losses: Losses,
    /// It loses too much.
    pub(super) is_lossy: bool,
}

impl World {
    /// A beacon has come, the how manieth of its boot's guard.
    pub(super) fn note_beacon(&mut self, voter: usize, of: usize, boot: u32, beat: u64) {
        if !self.lossy_links {
            return;
        }
        let clock = self.hosts[voter].clock(self.now);
        // A guard numbers its datagrams, and sends one to every voter.
        let sequence = 1 + beat * self.voters.len() as u64;
        let name = &self.hosts[of].name;
        self.hosts[voter].link.losses.note(name, (u64::from(boot), 1), sequence, clock);
    }

    /// A voter looks at how much of what the others send is lost.
    pub(super) fn look_at_link(&mut self, voter: usize) {
        if !self.lossy_links {
            return;
        }
        let known = &self.hosts[voter];
        let voters = self.hosts.iter().take(self.voters.len()).map(|host| &host.name);
        let others = voters.filter(|name| **name != known.name);
        let lost = known.link.losses.of_most(others, known.link.is_lossy, known.clock(self.now));
        let is_lossy = lost.is_some() && known.supervisor.is_some();
        self.seen.doubting += u64::from(is_lossy && !known.link.is_lossy);
        self.hosts[voter].link.is_lossy = is_lossy;
    }

    /// A coordinator that begins to doubt itself accuses nobody on what it gathered before.
    pub(super) fn doubt_oneself(&mut self, voter: usize) {
        let (doubts, clock) = (self.hosts[voter].link.is_lossy, self.hosts[voter].clock(self.now));
        let brain = &mut self.voters[voter].brain;
        if doubts && !brain.doubts {
            brain.evidence.quorum_since = brain.evidence.quorum_since.map(|_| clock);
            brain.evidence.held_until = Some(clock.plus(self.timing.sync_every.0 * 2));
        }
        brain.doubts = doubts;
    }

    /// Whether a voter's word on whom it has heard counts (R17).
    pub(super) fn is_voice(&self, voter: usize, now: Ms) -> bool {
        self.hosts[voter].has_listened(now) && !self.hosts[voter].link.is_lossy
    }
}
