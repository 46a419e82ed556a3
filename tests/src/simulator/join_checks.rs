//! What must be so when a boot joins: it joins once, and no copy of a host joins beside it (R11).

use holdfast_policies::names::{HostName, Incarnation};

use super::{Ms, chores::TWIN_BOOTS, host::boot_of, world::World};

/// A boot that the coordinator heard so long ago is not over; what it has heard since may not have been looked at yet.
const HEARD_NOW: std::ops::Range<Ms> = 50..800;

impl World {
    /// R11: a boot joins once.
    pub(super) fn check_joined(&mut self, host: &HostName, incarnation: &Incarnation, anew: bool) {
        let Some(index) = self.machine_of(host, incarnation) else { return };
        let (boot, number) = (self.hosts[index].boot, boot_of(incarnation));
        // A request of a boot that is over may be late.
        if number != self.hosts[index].boot_number() {
            return;
        }
        if anew && self.joined[index].is_some_and(|(joined, known)| joined == boot && known != number) {
            self.violate("R11", format!("{host} joins with another incarnation, and has not booted"));
        }
        self.joined[index] = Some((boot, number));
    }

    /// R11: a copy does not join beside what it is a copy of. While that is not heard, nobody can tell the copy from its
    /// next boot: what comes of it is beyond what is promised.
    pub(super) fn check_copy(&mut self, host: &HostName, joining: &Incarnation, before: Option<&Incarnation>) {
        let Some(twin) = self.twin.filter(|twin| twin.is_copy && boot_of(joining) >= TWIN_BOOTS) else { return };
        let (now, first) = (self.now, &self.hosts[twin.of]);
        let lives = first.on && before.is_some_and(|before| boot_of(before) == first.boot_number());
        let Some(leader) = self.coordinator().filter(|_| lives) else { return };
        let heard = self.hosts[leader].heard_at(twin.of, first.boot_number());
        if heard.is_some_and(|at| HEARD_NOW.contains(&(now - at))) {
            self.violate("R11", format!("a copy of {host} joins beside it"));
        } else {
            self.story.note(self.skipped + now, || format!("nobody can tell the copy of {host} from its next boot"));
            self.beyond = true;
            self.seen.beyond += 1;
        }
    }
}
