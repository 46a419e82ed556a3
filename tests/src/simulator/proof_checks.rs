//! What must be so when somebody counts on it that nothing of a guest is left at a place: the boot is gone, or the guest is.

use holdfast_policies::{
    names::{Epoch, GuestName, HostName, Incarnation},
    proof::ProofKind,
};

use super::{guest::Vm, host::boot_of, world::World};

impl World {
    /// S2, R9: a boot that is proven gone is really gone.
    pub(super) fn check_gone(&mut self, proof: &ProofKind) {
        if let ProofKind::LeaseExpired { host, incarnation, .. } = proof {
            self.check_ran_out(host, incarnation);
            return;
        }
        let (ProofKind::PowerOff { host, incarnation, .. } | ProofKind::Operator { host, incarnation, .. }) = proof
        else {
            return;
        };
        let Some(index) = self.machine_of(host, incarnation) else { return };
        let known = &self.hosts[index];
        if known.on && known.boot_number() == boot_of(incarnation) {
            self.violate("S2", format!("{host} is proven gone, and its boot {incarnation} is on (R9)"));
        }
    }

    /// S2, R9: a boot whose lease ran out, with its guard's and its watchdog's time, has nothing left that runs or could.
    fn check_ran_out(&mut self, host: &HostName, incarnation: &Incarnation) {
        let Some(index) = self.machine_of(host, incarnation) else { return };
        let known = &self.hosts[index];
        if !known.on || known.boot_number() != boot_of(incarnation) {
            return;
        }
        let left = known.machines.iter().find(|(_, machine)| machine.state != Vm::Exited);
        if let Some((guest, machine)) = left {
            let (guest, state) = (guest.clone(), machine.state);
            self.violate("S2", format!("{host} is proven gone by its lease, and has {guest} still ({state:?}, R9)"));
        }
    }

    /// S2: a guest is followed to where other tools have moved it only if nothing of it is left where it was.
    pub(super) fn check_followed(&mut self, guest: &GuestName, to: &HostName) {
        self.seen.followed += 1;
        let left = |host: &&super::host::Host| {
            host.name != *to && host.machines.get(guest).is_some_and(|known| known.state != Vm::Exited)
        };
        if let Some(host) = self.hosts.iter().find(left) {
            let name = host.name.clone();
            self.violate("S2", format!("{guest} is followed to {to}, and {name} has it still"));
        }
    }

    /// S2, R8: a guest that was never placed, and is said to be nowhere, is nowhere.
    pub(super) fn check_nowhere(&mut self, guest: &GuestName) {
        let there =
            self.hosts.iter().find(|host| host.machines.get(guest).is_some_and(|known| known.state != Vm::Exited));
        if let Some(host) = there {
            let name = host.name.clone();
            self.violate("S2", format!("{guest} is said to be on no host, and {name} has it (R8)"));
        }
    }

    /// S2, R9: what is reported released is not there, and its floor is on disk.
    pub(super) fn check_released(&mut self, host: &HostName, boot: &Incarnation, guest: &GuestName, epoch: Epoch) {
        let Some(index) = self.machine_of(host, boot) else { return };
        let known = &self.hosts[index];
        let left = known.machines.get(guest).filter(|machine| machine.epoch <= epoch && machine.state != Vm::Exited);
        if let Some(machine) = left {
            let state = machine.state;
            self.violate("S2", format!("{host} has reported {guest} released, and has it still ({state:?}, R9)"));
            return;
        }
        let floor = known.disk.floors.get(guest).copied().unwrap_or_default();
        if floor < epoch && !known.floors_lost && known.disk.floors_known {
            self.violate(
                "R9",
                format!("{host} has reported {guest} released up to {epoch}; its floor on disk is {floor}"),
            );
        }
    }
}
