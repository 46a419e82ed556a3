//! What hosts do by themselves when they have lost their authority.

use holdfast_policies::{
    names::GuestName,
    state::{Host, Life, Wanted},
};

use super::{
    format::Deed,
    host::{Machine, Node, Vm},
    world::{Alone, World},
};

impl World {
    pub(super) fn lose_right(&mut self) {
        let (goes_down, after) = match self.alone {
            Alone::Keep => return,
            Alone::StopGuests(after) => (false, after),
            Alone::GoDown(after) => (true, after),
        };
        if self.held {
            return;
        }
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(index) else { continue };
            if !node.on || self.now.saturating_sub(node.authority) < after {
                continue;
            }
            let own = self.looked_after(node);
            if own.is_empty() && !(goes_down && self.is_waited_for(node)) {
                continue;
            }
            // What a host that nobody hears does with its guests, nobody knows; only its watchdog is certain. Without an agent
            // nobody is there to stop them.
            let can_stop = node.connected() && node.supervisor.is_some();
            if !(goes_down || can_stop) {
                continue;
            }
            if goes_down {
                self.darken(index);
            } else {
                if let Some(node) = self.nodes.get_mut(index) {
                    let runs = |(guest, machine): (&GuestName, &Machine)| {
                        let is_own = machine.state == Vm::Running && own.contains(guest);
                        is_own.then(|| (guest.clone(), machine.epoch))
                    };
                    node.ended.extend(node.machines.iter().filter_map(runs));
                }
                self.stop_these(index, &own);
            }
        }
    }

    /// The guests that run on a host and are looked after there: while deciding is suspended, only those of a host that
    /// was being fenced before.
    fn looked_after(&self, node: &Node) -> Vec<GuestName> {
        if self.is_left_alone(node) {
            return Vec::new();
        }
        let managed =
            |guest: &&GuestName| self.state.guests.get(*guest).is_some_and(|known| known.wanted != Wanted::Unmanaged);
        node.machines.keys().filter(managed).cloned().collect()
    }

    /// Whether a guest that is to run starts nowhere before it is known what has become of it on this host, in this boot: its watchdog
    /// is armed until then, although nothing may run there any more.
    fn is_waited_for(&self, node: &Node) -> bool {
        let has_joined = node.incarnation().is_some_and(|boot| self.state.is_current(&node.name, &boot));
        let mut guests = self.state.guests_of(&node.name);
        has_joined && !self.is_left_alone(node) && guests.any(|(_, known)| known.wanted == Wanted::Running)
    }

    /// Whether nothing is done there.
    fn is_left_alone(&self, node: &Node) -> bool {
        let known = self.state.hosts.get(&node.name);
        let hands_off = known.is_some_and(Host::in_maintenance);
        let fenced = known.is_some_and(|known| matches!(known.life, Life::Fencing(_)));
        hands_off || (self.state.suspended.is_some() && !fenced)
    }

    /// A host goes dark, and says nothing.
    pub fn darken(&mut self, index: usize) {
        let Some(node) = self.nodes.get_mut(index).filter(|node| node.on) else { return };
        node.power_off();
        let host = Some(self.names.of_host(&node.name.clone()));
        self.tell(Deed { kind: "power-off".to_owned(), host, ..Deed::default() });
    }

    /// A host stops all its guests by itself.
    pub fn stop_all(&mut self, index: usize) {
        let all: Vec<GuestName> =
            self.nodes.get(index).map(|node| node.machines.keys().cloned().collect()).unwrap_or_default();
        self.stop_these(index, &all);
    }

    fn stop_these(&mut self, index: usize, guests: &[GuestName]) {
        for guest in guests {
            let Some(node) = self.nodes.get_mut(index) else { return };
            let (host, stopped) = (node.name.clone(), node.machines.remove(guest));
            if stopped.is_some_and(|machine| machine.state.is_to_be_stopped()) {
                self.tell_of("stop", guest, &host, None);
            }
        }
    }
}
