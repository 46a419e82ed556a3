//! What must be so when a guest's virtual CPUs begin to run, and while they run: at one place, under the newest assignment, with a
//! lease, and where guests may run at all.

use holdfast_policies::names::{Epoch, GuestName};

use super::{guest::Vm, world::World};

impl World {
    /// S2, S4, R7, R14, R20: what must be so when virtual CPUs begin to run under a new assignment.
    pub(super) fn check_start(&mut self, host: usize, guest: &GuestName, epoch: Epoch) {
        self.check_elsewhere(host, guest, false);
        self.check_lease_holds(host, guest);
        let (newest, by) = self.truth.newest.get(guest).copied().unwrap_or_default();
        // The same start may be done again by the same host, after a crash in the middle (S7).
        if epoch < newest || (epoch == newest && by != host && epoch != Epoch::default()) {
            let name = &self.hosts[host].name;
            self.violate(
                "R7",
                format!("{name} starts {guest} under epoch {epoch}, and epoch {newest} has run already"),
            );
        }
        self.truth.newest.insert(guest.clone(), (epoch.max(newest), host));
    }

    /// R22, S2: who may let a paused half run.
    pub(super) fn check_resume(&mut self, host: usize, guest: &GuestName, epoch: Epoch) {
        self.check_elsewhere(host, guest, true);
        self.check_lease_holds(host, guest);
        let state = self.hosts[host].machines.get(guest).map(|machine| machine.state);
        let name = self.hosts[host].name.clone();
        // What has been switched in a history that was lost, nobody knows any more.
        if !self.is_of_lost(epoch) && state == Some(Vm::Incoming(true)) && !self.is_switched_to(guest, &name, epoch) {
            self.violate("R22", format!("{name} lets {guest} run before the switch is committed"));
        }
    }

    /// S2: whatever else may have run the guest is gone, released, or (for a resume) paused for good.
    fn check_elsewhere(&mut self, host: usize, guest: &GuestName, resume: bool) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            let Some(machine) = self.hosts[other].machines.get(guest) else { continue };
            let harmless = match machine.state {
                Vm::Exited => true,
                Vm::Incoming(_) | Vm::Sent => resume,
                Vm::Running | Vm::Paused | Vm::Panicked => false,
            };
            if !harmless {
                let (name, state) = (self.hosts[host].name.clone(), machine.state);
                let there = self.hosts[other].name.clone();
                self.violate("S2", format!("{name} lets {guest} run, and {there} still has it ({state:?})"));
            }
        }
    }

    /// S4, R14: virtual CPUs begin to run only while the lease really lasts.
    fn check_lease_holds(&mut self, host: usize, guest: &GuestName) {
        let until = self.hosts[host].lease_until;
        if self.now > until {
            let name = self.hosts[host].name.clone();
            let ago = self.now - until;
            self.violate("R14", format!("{name} lets {guest} run, and its lease ran out {ago} ms ago"));
        }
    }

    /// S1: no guest's virtual CPUs run on two hosts.
    pub(super) fn check_running(&mut self, guest: &GuestName) {
        let runs = |machine: &super::guest::Machine| machine.state == Vm::Running;
        let on: Vec<&str> = self
            .hosts
            .iter()
            .filter(|host| host.machines.get(guest).is_some_and(runs))
            .map(|host| host.name.as_str())
            .collect();
        let witness = self.hosts.iter().find(|host| !host.facts.guests && host.machines.get(guest).is_some_and(runs));
        if on.len() > 1 {
            let on = on.join(" and ");
            self.violate("S1", format!("{guest} runs on {on}"));
        } else if let Some(witness) = witness {
            let name = witness.name.clone();
            self.violate("R8", format!("{guest} runs on {name}, which is to run no guests"));
        }
    }
}
