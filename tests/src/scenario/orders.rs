//! What the orders of the product do in the world, and what is told of it.

use holdfast_policies::{
    names::{Epoch, GuestName},
    order::{OrderKind, OrderOutcome},
    proof::Power,
    sync::AgedReading,
    time::Moment,
};

use super::{
    format::Deed,
    host::{Job, Machine, Node, Vm},
    world::World,
};

impl World {
    /// Every supervisor that is alive carries its orders on.
    pub(super) fn work(&mut self) {
        for index in 0..self.nodes.len() {
            let now = self.now;
            let ended = self.nodes.get_mut(index).filter(|node| node.on).map(|node| node.work(now)).unwrap_or_default();
            for job in ended {
                self.end(index, &job);
            }
        }
    }

    fn end(&mut self, index: usize, job: &Job) {
        let now = self.now;
        let Some(agent) = self.nodes.get(index).and_then(|node| node.supervisor.as_ref()).map(|known| &known.agent)
        else {
            return;
        };
        let unable = job.order.kind.needs_lease() && !agent.may_act(Moment(now));
        let floored = agent.disk().is_overtaken(&job.order.kind);
        let mut reading = None;
        let done = !unable && !floored && self.effect(index, job, &mut reading);
        let outcome = if done {
            let uri = matches!(job.order.kind, OrderKind::Receive { .. }).then(|| "tcp:".to_owned());
            OrderOutcome::Done { detail: "it is so".to_owned(), uri, last_seen: None }
        } else {
            OrderOutcome::Failed { detail: "it is not so".to_owned() }
        };
        if let Some(node) = self.nodes.get_mut(index) {
            node.on_done(job.order.id, outcome, reading, now);
        }
    }

    fn effect(&mut self, index: usize, job: &Job, reading: &mut Option<AgedReading>) -> bool {
        match &job.order.kind {
            OrderKind::Start { guest, epoch, .. } => self.start(index, guest, *epoch),
            OrderKind::Release { guest, epoch, .. } => self.release(index, guest, *epoch),
            OrderKind::RestartService { .. } | OrderKind::Reboot { .. } => true,
            OrderKind::Receive { guest, epoch, .. } => self.receive(index, guest, *epoch),
            OrderKind::Send { guest, epoch, .. } => self.send(index, guest, *epoch),
            OrderKind::Resume { guest, epoch } => self.resume(index, guest, *epoch),
            OrderKind::Fence { target, target_incarnation, level, .. } => {
                let about = self.position(target);
                let hard = self.fencing == super::map::Fencing::Device;
                if let Some(about) = about.filter(|_| hard) {
                    self.darken(about);
                }
                let power = self.power_of(target);
                let done = power == Power::Off;
                let (host, incarnation) = (target.clone(), target_incarnation.clone());
                let devices = vec!["bmc".to_owned()];
                *reading = Some(AgedReading { host, incarnation, asked_ago_ms: 0, power, devices, level: *level });
                done
            }
        }
    }

    fn start(&mut self, index: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let Some(node) = self.nodes.get_mut(index) else { return false };
        let host = node.name.clone();
        if node.machines.get(guest).is_some_and(|known| known.epoch == epoch && known.state == Vm::Running) {
            return true;
        }
        if node.machines.contains_key(guest) && !self.stop(index, guest) {
            return false;
        }
        let faults = self.faults.entry(guest.clone()).or_default();
        let wrong = faults.only_on.as_ref().is_some_and(|only| *only != host);
        let fails = faults.starts > 0 && faults.is_at(&host);
        faults.starts = faults.starts.saturating_sub(u64::from(fails));
        let ok = !wrong && !fails;
        self.end_where_it_was_sent_from(guest);
        if let Some(node) = self.nodes.get_mut(index).filter(|_| ok) {
            node.machines.insert(guest.clone(), Machine { epoch, state: Vm::Running, ill: None });
        }
        self.tell_of("start", guest, &host, Some(ok));
        ok
    }

    /// What was sent to a host that was lost with it has ended where it came from, without ever having gone on.
    fn end_where_it_was_sent_from(&mut self, guest: &GuestName) {
        let Some(from) = self.sent_from.remove(guest) else { return };
        let is_up = self.nodes.iter().any(|node| node.name == from && node.connected());
        if is_up && !self.nodes.iter().any(|node| node.machines.contains_key(guest)) {
            self.tell_of("stop", guest, &from, None);
        }
    }

    /// A machine waits for the guest; what was left of it there is stopped first.
    fn receive(&mut self, index: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let is_there = self.nodes.get(index).is_some_and(|node| node.machines.contains_key(guest));
        if is_there && !self.stop(index, guest) {
            return false;
        }
        let machine = Machine { epoch, state: Vm::Incoming(false), ill: None };
        self.nodes.get_mut(index).is_some_and(|node| {
            node.machines.insert(guest.clone(), machine);
            true
        })
    }

    fn release(&mut self, index: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let there = self.nodes.get(index).and_then(|node| node.machines.get(guest));
        match there.filter(|machine| machine.epoch <= epoch) {
            Some(_) => self.stop(index, guest),
            None => true,
        }
    }

    /// Stops a guest, if it lets itself be stopped.
    fn stop(&mut self, index: usize, guest: &GuestName) -> bool {
        if self.faults.get(guest).is_some_and(|faults| faults.stop) {
            self.stops_failed.insert(guest.clone());
            return false;
        }
        self.stops_failed.remove(guest);
        let Some(node) = self.nodes.get_mut(index) else { return false };
        let host = node.name.clone();
        node.ended.remove(guest);
        let removed = node.machines.remove(guest).map(|machine| machine.state);
        // What has been sent, and goes on nowhere, ends here.
        let is_sent_in_vain = removed == Some(Vm::Sent) && !self.nodes.iter().any(|node| has_it(node, guest));
        if is_sent_in_vain || removed.is_some_and(Vm::is_to_be_stopped) {
            self.sent_from.remove(guest);
            self.tell_of("stop", guest, &host, None);
        }
        true
    }

    fn send(&mut self, index: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let here = self.nodes.get(index).filter(|node| node.connected()).and_then(|node| node.machines.get(guest));
        if !here.is_some_and(|machine| machine.epoch == epoch && machine.state == Vm::Running) {
            return false;
        }
        let target = self.nodes.iter().enumerate().position(|(other, node)| {
            let waits = node.machines.get(guest).is_some_and(|machine| machine.state == Vm::Incoming(false));
            other != index && node.connected() && waits
        });
        let locked = self.is_locked(guest);
        let source = self.nodes.get(index).map(|node| node.name.clone());
        let faults = self.faults.entry(guest.clone()).or_default();
        let faulty = faults.moves > 0 && source.as_ref().is_some_and(|source| faults.is_at(source));
        faults.moves = faults.moves.saturating_sub(u64::from(faulty));
        let fails = locked || faulty;
        let Some(target) = target.filter(|_| !fails) else { return false };
        for (at, state) in [(index, Vm::Sent), (target, Vm::Incoming(true))] {
            if let Some(machine) = self.nodes.get_mut(at).and_then(|node| node.machines.get_mut(guest)) {
                machine.state = state;
            }
        }
        self.sent_from.extend(source.map(|source| (guest.clone(), source)));
        true
    }

    fn resume(&mut self, index: usize, guest: &GuestName, epoch: Epoch) -> bool {
        let Some(node) = self.nodes.get_mut(index) else { return false };
        let to = node.name.clone();
        let Some(machine) = node.machines.get_mut(guest).filter(|machine| machine.epoch == epoch) else { return false };
        if matches!(machine.state, Vm::Incoming(false) | Vm::Failed | Vm::HalfAlive) {
            return false;
        }
        let arrived = machine.state == Vm::Incoming(true);
        machine.state = Vm::Running;
        let from = self.sent_from.remove(guest);
        if arrived {
            let from = from.map(|from| self.names.of_host(&from));
            let (vm, to) = (Some(self.names.of_guest(guest)), Some(self.names.of_host(&to)));
            self.tell(Deed { kind: "migrate".to_owned(), vm, from, to, ..Deed::default() });
        }
        true
    }
}

/// Whether the guest runs on a host, or all of it has arrived there.
fn has_it(node: &Node, guest: &GuestName) -> bool {
    let there = node.machines.get(guest).map(|machine| machine.state);
    there == Some(Vm::Incoming(true)) || there.is_some_and(Vm::is_to_be_stopped)
}
